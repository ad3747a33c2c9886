//! Lookup tables: made here, made on another device and brought back, checked.
//!
//! A run has a table for every device and deployment in RUN/latency/DEVICE-DEPLOYMENT.json. Budgets speak of this device's,
//! unless `latency.table` in run.toml names another device: then nothing can be timed here, and the tables of that device,
//! which [`import_table`] brought in, say what selections cost.

use std::path::{Path, PathBuf};

use lana_latency::{Check, CheckOptions, Deployment, Device, LayerCandidates, Plan, Table};
use serde::Serialize;

use crate::context::{Context, LayerPool, not_ready};
use crate::stages::profile::{record, table_path};
use crate::{
    Config, Error, LatencyConfig, PoolRecord, Progress, Result, Run, read_or_redo, write_atomic, write_json,
};

/// What a table of the run prices.
pub(crate) fn plan(latency: &LatencyConfig, teacher: &lana_graph::Graph, pool: &[LayerPool]) -> Result<Plan> {
    let candidates: Vec<LayerCandidates> = pool
        .iter()
        .map(|layer| LayerCandidates {
            layer: layer.layer.clone(),
            operations: layer.operations.iter().map(|(o, g)| (o.to_string(), g.clone())).collect(),
        })
        .collect();
    Ok(Plan::new(teacher, &candidates, &latency.table_options())?)
}

/// Measures a table on this device and writes it to `path`; what was timed before a process ended is not timed again.
pub(crate) fn measure(plan: &Plan, path: &Path, title: &str, progress: &dyn Progress) -> Result<Table> {
    let mut pass = None;
    let table = plan.measure_to(path, &mut |line| progress.say(&format!("{title}: {line}")), &mut |p| {
        if pass.replace(p.pass) != Some(p.pass) {
            if p.pass > 0 {
                progress.finish("everything timed once");
            }
            let again = if p.pass > 0 { ": what is unsure, again" } else { "" };
            progress.begin(&format!("{title}{again}"), p.total as u64, "networks");
        }
        progress.advance(p.done as u64, "");
    })?;
    let noisy = table.noisy();
    let noisy = if noisy > 0 { format!(", {noisy} noisy entries") } else { String::new() };
    progress.finish(&format!("teacher {:.2} ms{noisy}", table.teacher_ms()));
    Ok(table)
}

/// Writes what another device needs to measure the table of a run: one file. Gives the number of networks in it.
///
/// `deployment` is a label such as `cuda-tensorrt-b128-fp16`; what it does not say is as in the run, and without it all is.
pub fn write_bundle(
    run: &Path,
    file: &Path,
    deployment: Option<&str>,
    progress: &dyn Progress,
) -> Result<usize> {
    let context = Context::open(run, progress)?;
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let own = context.config.latency.deployment();
    let deployment = deployment.map_or(Ok(own), |label| Deployment::parse(label, &own))?;
    let plan = plan(&context.config.latency.on(deployment), &teacher.graph, &pool)?;
    plan.save(file)?;
    Ok(plan.subjects().len())
}

/// A table that [`import_table`] brought into a run.
#[derive(Debug, Serialize)]
pub struct Imported {
    /// The file in the run.
    pub table: PathBuf,
    /// The device, as `latency.table` names it.
    pub device: String,
    /// How networks were run there.
    pub deployment: String,
    /// Whether it is this device.
    pub here: bool,
    /// The teacher's latency there, milliseconds.
    pub teacher_ms: f64,
}

/// Brings a table that another device measured into a run, and makes that device and deployment what the run's budgets
/// speak of: `[latency]` in run.toml.
///
/// # Errors
/// If the file is damaged or no table, or prices other networks than the run's.
pub fn import_table(run: &Path, file: &Path, progress: &dyn Progress) -> Result<Imported> {
    let mut context = Context::open(run, progress)?;
    let table = Table::load(file)?;
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    if plan(&context.config.latency, &teacher.graph, &pool)?.networks() != table.networks {
        return Err(Error::input(
            format!(
                "{}: a table of `{}`, but for other networks than this run's (another teacher, pool or version of lana)",
                file.display(),
                table.teacher
            ),
            format!(
                "write the bundle anew with `lana profile {} --bundle FILE` and measure that",
                run.display()
            ),
        ));
    }
    let record = record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    let path = context.run.path("pool.json");
    if read_or_redo::<PoolRecord>(&path, progress)?.as_ref() != Some(&record) {
        write_json(&path, &record)?;
    }
    let device = table.device.slug();
    let here = table.device.differences(&Device::of(table.deployment.processor)).is_none();
    let latency = LatencyConfig {
        table: (!here).then(|| device.clone()),
        ..context.config.latency.on(table.deployment)
    };
    let path = table_path(&context.run, &latency);
    write_json(&path, &table)?;
    let config = Config { latency, ..context.config.clone() };
    config.validate()?;
    if config != context.config {
        write_atomic(&context.run.path("run.toml"), config.to_toml().as_bytes())?;
        context.config = config;
    }
    context.run.event(
        "profile",
        serde_json::json!({"imported": device, "deployment": table.deployment.to_string(),
            "teacher_ms": table.teacher_ms()}),
    )?;
    let (deployment, teacher_ms) = (table.deployment.to_string(), table.teacher_ms());
    Ok(Imported { table: path, device, deployment, here, teacher_ms })
}

/// Checks the table of a run against networks measured whole on this device, and keeps the figures in it.
///
/// # Errors
/// If the run has no table, or one of another device.
pub fn check_table(run: &Path, options: &CheckOptions, progress: &dyn Progress) -> Result<Check> {
    let context = Context::open(run, progress)?;
    let latency = &context.config.latency;
    let mut table =
        crate::stages::profile::stored(&context)?.ok_or_else(|| missing(&context.run, latency))?;
    if let Some(device) = elsewhere(latency) {
        return Err(Error::input(
            format!("the run's table is of another device (`{device}`): it can be checked only there"),
            "on that device, give --check together with --from-bundle",
        ));
    }
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let plan = plan(latency, &teacher.graph, &pool)?;
    let check = check(&plan, &table, options, progress)?;
    table.check = Some(check.clone());
    write_json(&table_path(&context.run, latency), &table)?;
    let figures = check.table;
    context.run.event(
        "check",
        serde_json::json!({"deployment": table.deployment.to_string(), "networks": figures.networks,
            "mean": figures.mean, "worst": figures.worst, "bias": figures.bias}),
    )?;
    Ok(check)
}

fn check(plan: &Plan, table: &Table, options: &CheckOptions, progress: &dyn Progress) -> Result<Check> {
    let mut begun = false;
    let check = plan.check(table, options, &mut |p| {
        if !begun {
            progress.begin("check", p.total as u64, "networks");
            begun = true;
        }
        progress.advance(p.done as u64, "");
    })?;
    progress.finish(&format!("mean error {:.1} %", 100.0 * check.table.mean));
    Ok(check)
}

/// Makes the budgets of a run speak of the other device of which it has a table, instead of measuring this one: `latency.table`
/// in run.toml. Gives that device; none if the run has a table of this device, which is then what counts.
///
/// # Errors
/// If there is no such table, or those of several devices.
pub fn force_table(run: &Path, progress: &dyn Progress) -> Result<Option<String>> {
    let mut run = Run::open(run)?;
    let config = run.config()?;
    run.lock()?;
    let here = LatencyConfig { table: None, ..config.latency.clone() };
    if let Ok(Some(_)) = crate::stages::profile::table(&run, &here, progress) {
        return Ok(None);
    }
    let name = here.deployment();
    let (message, hint) = match others(&run, &here).as_slice() {
        [device] => {
            let latency = LatencyConfig { table: Some(device.clone()), ..here };
            let config = Config { latency, ..config };
            write_atomic(&run.path("run.toml"), config.to_toml().as_bytes())?;
            return Ok(config.latency.table);
        }
        [] => (
            format!("{}: there is no latency table for {name} of any device", run.root().display()),
            format!("measure this one with `lana profile {}`", run.root().display()),
        ),
        several => (
            format!(
                "{}: there are latency tables for {name} of several devices: {}",
                run.root().display(),
                several.join(", ")
            ),
            "say which counts by `table = \"DEVICE\"` under [latency] in run.toml".into(),
        ),
    };
    Err(Error::input(message, hint))
}

/// Devices other than this of which a run has a table, as `latency.table` names them.
fn others(run: &Run, latency: &LatencyConfig) -> Vec<String> {
    let end = format!("-{}.json", latency.deployment());
    let here = Device::of(latency.processor);
    let files = std::fs::read_dir(run.path("latency")).into_iter().flatten().flatten();
    let mut devices: Vec<String> = files
        .filter(|file| Table::load(&file.path()).is_ok_and(|t| t.check_device(&here).is_err()))
        .filter_map(|file| Some(file.file_name().to_str()?.strip_suffix(&end)?.to_string()))
        .collect();
    devices.sort();
    devices
}

/// There is no table of the device that budgets speak of.
pub(crate) fn missing(run: &Run, latency: &LatencyConfig) -> Error {
    let (others, name) = (others(run, latency), latency.deployment());
    if others.is_empty() || latency.table.is_some() {
        return not_ready(run, &format!("the latency table for {name}"), "profile");
    }
    let run = run.root().display();
    Error::input(
        format!("{run}: there is no latency table of this device for {name}, only of {}", others.join(", ")),
        format!(
            "measure this device with `lana profile {run}`, or go by the other's with `lana profile {run} --force`"
        ),
    )
}

/// The other device that the run's budgets speak of, if any.
pub(crate) fn elsewhere(latency: &LatencyConfig) -> Option<&str> {
    latency.table.as_deref().filter(|device| *device != Device::of(latency.processor).slug())
}
