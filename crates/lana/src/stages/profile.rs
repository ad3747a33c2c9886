//! Measures the lookup table: what each operation costs at each layer, on this device, in the runtime that will serve.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lana_latency::{Device, LayerCandidates, Table, TableOptions, build_table};

use crate::context::{Context, LayerPool};
use crate::{
    LatencyConfig, PoolLayer, PoolOperation, PoolRecord, Progress, Result, Run, read_or_redo, write_json,
};

/// Gives the table of this device, measuring it if that has not been done.
pub(crate) fn run(context: &Context<'_>) -> Result<Table> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let record = record(&context.config.pool, &context.config.pool_rules, &pool);
    let path = context.run.path("pool.json");
    if read_or_redo::<PoolRecord>(&path, context.progress)?.as_ref() != Some(&record) {
        write_json(&path, &record)?;
    }
    if let Some(table) = stored(context)? {
        return Ok(table);
    }
    let candidates: Vec<LayerCandidates> = pool
        .iter()
        .map(|layer| LayerCandidates {
            layer: layer.layer.clone(),
            operations: layer.operations.iter().map(|(o, g)| (o.to_string(), g.clone())).collect(),
        })
        .collect();
    let latency = &context.config.latency;
    let options = TableOptions {
        deployment: latency.deployment(),
        time_limit: Duration::from_secs_f64(latency.time_limit_s),
        ..TableOptions::default()
    };
    let mut begun = false;
    let table = build_table(&teacher.graph, &candidates, &options, &mut |p| {
        if !begun {
            context.progress.begin("profile", p.total as u64, "timings");
            begun = true;
        }
        context.progress.advance(p.done as u64, "");
    })?;
    context.progress.finish(&format!("teacher {:.2} ms", table.teacher_ms()));
    write_json(&table_path(&context.run, &context.config.latency), &table)?;
    context.run.event("profile", serde_json::json!({"teacher_ms": table.teacher_ms()}))?;
    Ok(table)
}

/// The table of this device, if it has been measured.
pub(crate) fn stored(context: &Context<'_>) -> Result<Option<Table>> {
    table(&context.run, &context.config.latency, context.progress)
}

/// Likewise, without a context.
pub(crate) fn table(run: &Run, latency: &LatencyConfig, progress: &dyn Progress) -> Result<Option<Table>> {
    let Some(table) = read_or_redo::<Table>(&table_path(run, latency), progress)? else { return Ok(None) };
    table.check_device(&Device::identify())?;
    Ok(Some(table))
}

fn table_path(run: &Run, latency: &LatencyConfig) -> PathBuf {
    run.path("latency").join(table_name(latency))
}

/// Name of the file with the table of this device.
pub(crate) fn table_name(latency: &LatencyConfig) -> String {
    let device = Device::identify().slug();
    format!("{device}-{}.json", latency.deployment())
}

/// What `pool.json` says.
pub(crate) fn record(name: &str, rules: &[String], pool: &[LayerPool]) -> PoolRecord {
    let layers = pool
        .iter()
        .map(|layer| {
            let own = PoolOperation {
                name: "teacher".into(),
                initialisation: "the teacher's own weights".into(),
                cost: layer.graph.deployed_cost(),
            };
            let others = layer.operations.iter().map(|(operation, graph)| PoolOperation {
                name: operation.to_string(),
                initialisation: operation.initialisation().to_string(),
                cost: graph.deployed_cost(),
            });
            PoolLayer {
                layer: layer.layer.clone(),
                stage: layer.stage.clone(),
                input: layer.graph.input_shape().dims().to_vec(),
                output: layer.graph.output_shape().dims().to_vec(),
                operations: std::iter::once(own).chain(others).collect(),
                left_out: layer.left_out.iter().cloned().collect(),
                latency: None,
                learned: BTreeMap::new(),
            }
        })
        .collect();
    PoolRecord { pool: name.to_string(), rules: rules.to_vec(), layers }
}
