//! Measures the lookup table: what each operation costs at each layer, on this device, in the runtime that will serve.

use std::collections::BTreeMap;

use lana_graph::Graph;
use lana_latency::{Device, Table};

use crate::context::{Context, LayerPool};
use crate::stages::tables;
use crate::{
    Footprint, LatencyConfig, PoolLayer, PoolOperation, PoolRecord, Progress, Result, Run, read_or_redo,
    write_json,
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

/// The table of one deployment, measured if that has not been done.
pub(crate) fn on(
    context: &Context<'_>,
    latency: &LatencyConfig,
    teacher: &Graph,
    pool: &[LayerPool],
) -> Result<Table> {
    if let Some(table) = table(&context.run, latency, context.progress)? {
        return Ok(table);
    }
    if tables::elsewhere(latency).is_some() {
        return Err(tables::missing(&context.run, latency));
    }
    let plan = tables::plan(latency, teacher, pool)?;
    let title = match latency.deployment() == context.config.latency.deployment() {
        true => "profile".to_string(),
        false => format!("profile {}", latency.deployment()),
    };
    let table = tables::measure(&plan, &tables::path(&context.run, latency)?, &title, context.progress)?;
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
    let Some(table) = read_or_redo::<Table>(&tables::path(run, latency)?, progress)? else { return Ok(None) };
    // Whoever names a device means its table.
    if latency.table.is_none() {
        table.check_device(&Device::of(latency.processor))?;
    }
    Ok(Some(table))
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
