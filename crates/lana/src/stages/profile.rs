//! Measures the lookup table: what each operation costs at each layer, on this device, in the runtime that will serve.

use std::collections::BTreeMap;
use std::path::PathBuf;

use lana_graph::Graph;
use lana_latency::{Device, Table};

use crate::context::{Context, LayerPool};
use crate::stages::tables;
use crate::{
    Error, Footprint, LatencyConfig, PoolLayer, PoolOperation, PoolRecord, Progress, Result, Run,
    read_or_redo, write_json,
};

/// Gives the table of the run's own deployment, measuring it if that has not been done; makes those of the further
/// deployments that budgets name, too.
pub(crate) fn run(context: &Context<'_>) -> Result<Table> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let record = record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    let path = context.run.path("pool.json");
    if read_or_redo::<PoolRecord>(&path, context.progress)?.as_ref() != Some(&record) {
        write_json(&path, &record)?;
    }
    let latency = &context.config.latency;
    let own = on(context, latency, &teacher.graph, &pool)?;
    for budget in &context.config.budgets {
        for (deployment, _) in budget.deployments(&latency.deployment())? {
            on(context, &latency.on(deployment), &teacher.graph, &pool)?;
        }
    }
    Ok(own)
}

/// The table of one deployment.
fn on(context: &Context<'_>, latency: &LatencyConfig, teacher: &Graph, pool: &[LayerPool]) -> Result<Table> {
    if let Some(table) = table(&context.run, latency, context.progress)? {
        return Ok(table);
    }
    if let Some(device) = tables::elsewhere(latency) {
        return Err(Error::input(
            format!(
                "the run has no table of `{device}`, of which `latency.table` speaks, for {}",
                latency.deployment()
            ),
            format!(
                "bring it with `lana profile {} --import FILE`, or delete `table` under [latency] in run.toml to measure this \
                 device",
                context.run.root().display()
            ),
        ));
    }
    let plan = tables::plan(latency, teacher, pool)?;
    let title = match latency.deployment() == context.config.latency.deployment() {
        true => "profile".to_string(),
        false => format!("profile {}", latency.deployment()),
    };
    let table = tables::measure(&plan, &table_path(&context.run, latency), &title, context.progress)?;
    context.run.event(
        "profile",
        serde_json::json!({"teacher_ms": table.teacher_ms(), "deployment": latency.deployment().to_string()}),
    )?;
    Ok(table)
}

/// The table of the device that budgets speak of, if it has been measured.
pub(crate) fn stored(context: &Context<'_>) -> Result<Option<Table>> {
    table(&context.run, &context.config.latency, context.progress)
}

/// Likewise, without a context.
pub(crate) fn table(run: &Run, latency: &LatencyConfig, progress: &dyn Progress) -> Result<Option<Table>> {
    let Some(table) = read_or_redo::<Table>(&table_path(run, latency), progress)? else { return Ok(None) };
    // Whoever names a device means its table.
    if latency.table.is_none() {
        table.check_device(&Device::of(latency.processor))?;
    }
    Ok(Some(table))
}

pub(crate) fn table_path(run: &Run, latency: &LatencyConfig) -> PathBuf {
    run.path("latency").join(table_name(latency))
}

/// Name of the file with the table of the device that budgets speak of.
pub(crate) fn table_name(latency: &LatencyConfig) -> String {
    let device = latency.table.clone().unwrap_or_else(|| Device::of(latency.processor).slug());
    format!("{device}-{}.json", latency.deployment())
}

/// What `pool.json` says.
pub(crate) fn record(
    name: &str,
    rules: &[String],
    teacher: &Graph,
    pool: &[LayerPool],
) -> Result<PoolRecord> {
    let deployed = teacher.deployed()?;
    let layers = pool
        .iter()
        .map(|layer| {
            let entry = |name: String, initialisation: String, graph: &Graph| -> Result<PoolOperation> {
                let footprint = Footprint::at(&deployed, &layer.layer, graph)?;
                Ok(PoolOperation { name, initialisation, cost: graph.deployed_cost(), footprint })
            };
            let own = entry("teacher".into(), "the teacher's own weights".into(), &layer.graph);
            let others = layer.operations.iter().map(|(operation, graph)| {
                entry(operation.to_string(), operation.initialisation().to_string(), graph)
            });
            Ok(PoolLayer {
                layer: layer.layer.clone(),
                stage: layer.stage.clone(),
                input: layer.graph.input_shape().dims().to_vec(),
                output: layer.graph.output_shape().dims().to_vec(),
                operations: std::iter::once(own).chain(others).collect::<Result<_>>()?,
                left_out: layer.left_out.iter().cloned().collect(),
                latency: None,
                learned: BTreeMap::new(),
            })
        })
        .collect::<Result<Vec<PoolLayer>>>()?;
    let own: Vec<Footprint> =
        layers.iter().filter_map(|l| l.operations.first()).map(|own| own.footprint).collect();
    let outside = Footprint::outside(&deployed, &own)?;
    Ok(PoolRecord { pool: name.to_string(), rules: rules.to_vec(), layers, outside })
}
