//! Gathers what the run knows and writes `report.html`.

use std::path::PathBuf;

use crate::context::Context;
use crate::report::{LatencyTable, Price, Report, TeacherLatency, render};
use crate::run::read_or_redo;
use crate::stages::{control, export, profile, select};
use crate::{OperationRecord, PoolRecord, PretrainPrecision, Result, Scores, write_atomic};

/// Writes the page; gives its path.
pub(crate) fn run(context: &Context<'_>) -> Result<PathBuf> {
    let (_, teacher) = context.teacher()?;
    let run = &context.run;
    let pool: PoolRecord = read_or_redo(&run.path("pool.json"), context.progress)?
        .ok_or_else(|| context.not_ready("pool.json", "profile"))?;
    let table = profile::stored(context)?;
    let teacher_latency =
        table.as_ref().map(|t| TeacherLatency { median_ms: t.teacher_measured_ms, ci_ms: t.teacher_ci_ms });
    let table = table.map(|t| LatencyTable {
        device: t.device.to_string(),
        runtime: format!("{} {}", t.deployment.runtime, t.runtime_version),
        batch: t.deployment.batch,
        threads: t.deployment.threads,
        fixed_ms: t.fixed_ms,
        teacher_ms: t.teacher_ms(),
        check: t.check.as_ref().map(|check| check.table),
        layers: t
            .layers
            .iter()
            .map(|row| {
                let noisy = row.teacher_spread_ms > 0.1 * row.teacher_ms.abs();
                let own = ("teacher".to_string(), Price { ms: row.teacher_ms, noisy });
                let others = row.operations.iter().map(|e| {
                    (e.operation.clone(), Price { ms: e.cost_ms + e.correction_ms, noisy: e.noisy })
                });
                (row.layer.clone(), std::iter::once(own).chain(others).collect())
            })
            .collect(),
    });
    let mut operations = Vec::new();
    for layer in &pool.layers {
        for operation in &layer.operations {
            let base = run.operation(&layer.layer, &operation.name);
            let path = PathBuf::from(format!("{}.json", base.display()));
            if let Some(record) = read_or_redo::<OperationRecord>(&path, context.progress)? {
                operations.push(record);
            }
        }
    }
    let mut students = Vec::new();
    for budget in &context.config.budgets {
        if let (Some(metrics), Some(candidates)) =
            (export::stored(context, budget)?, select::stored(context, budget)?)
        {
            students.push((metrics, candidates));
        }
    }
    let mut controls = Vec::new();
    for budget in &context.config.budgets {
        controls.extend(control::gather(context, budget)?);
    }
    let report = Report {
        config_toml: context.config.to_toml(),
        command: command(context),
        teacher,
        teacher_latency,
        pool,
        table,
        operations,
        precision: read_or_redo(&run.path(PretrainPrecision::FILE), context.progress)?,
        scores: read_or_redo::<Scores>(&run.path("scores.json"), context.progress)?,
        students,
        controls,
        created: crate::clock::now(),
    };
    let path = run.path("report.html");
    write_atomic(&path, render(&report).as_bytes())?;
    Ok(path)
}

/// The command that makes this run again.
fn command(context: &Context<'_>) -> String {
    let config = &context.config;
    let quote = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,x".contains(c)) {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    };
    let mut parts = vec!["lana accelerate".to_string(), format!("--teacher {}", quote(&config.teacher))];
    if let Some(weights) = &config.weights {
        parts.push(format!("--weights {}", quote(&weights.to_string())));
    }
    parts.push(format!("--train {} --val {}", quote(&config.train), quote(&config.val)));
    parts.extend(config.budgets.iter().map(|b| format!("--budget {}", quote(&b.to_string()))));
    parts.push(format!("--batch {} --threads {}", config.latency.batch, config.latency.threads));
    let root = context.run.root().display().to_string();
    parts.push(format!("--config {} --out NEW", quote(&format!("{root}/run.toml"))));
    parts.join(" ")
}
