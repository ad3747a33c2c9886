//! How well a lookup table predicts whole networks, for any teacher of the zoo and without a run:
//! `table_error [TEACHER] [BATCH] [POOL] [SELECTIONS] [TABLE_SECONDS]
//! [CHECK_SECONDS]`.
//!
//! Makes the table as `lana profile` does and checks it as `lana profile RUN --check` does, then prints both as JSON on
//! stdout; progress goes to stderr.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use lana_latency::{CheckOptions, Conditions, Deployment, LayerCandidates, Plan, Progress, TableOptions};
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "resnet56_cifar".into());
    let batch = arguments.next().map_or(Ok(64), |a| a.parse())?;
    let pool = Pool::parse(&arguments.next().unwrap_or_else(|| "compact".into()))?;
    let mut check_options = CheckOptions::default();
    if let Some(selections) = arguments.next() {
        check_options.selections = selections.parse()?;
    }
    let time_limit_s = arguments.next().map(|a| a.parse()).transpose()?;
    if let Some(seconds) = arguments.next() {
        check_options.time_limit_s = seconds.parse()?;
    }

    let teacher = zoo::build(&name, &ZooOptions::default())?;
    let mut candidates = Vec::new();
    for layer in teacher.layers() {
        let graph = teacher.layer_graph(&layer.name)?;
        let operations = pool.operations_for(&graph).into_iter();
        let operations = operations.filter_map(|(o, g)| Some((o.name().to_string(), g.ok()?))).collect();
        candidates.push(LayerCandidates { layer: layer.name.clone(), operations });
    }
    let deployment = Deployment { batch, ..Deployment::default() };
    let plan = Plan::new(
        &teacher,
        &candidates,
        &TableOptions { deployment, time_limit_s, ..TableOptions::default() },
    )?;
    eprintln!("{} networks to time, in {:.0} s", plan.subjects().len(), plan.time_limit());
    let mut show = |p: Progress| {
        eprintln!(
            "pass {}: {} of {}, {:.0} s, {:.0} s left",
            p.pass,
            p.done,
            p.total,
            p.elapsed.as_secs_f64(),
            p.remaining.as_secs_f64()
        );
    };
    let conditions = Conditions::here(&plan)?;
    let mut readings = Vec::new();
    plan.measure(&mut readings, &mut |_| Ok(()), &mut show)?;
    let mut table = plan.settle(&readings, &conditions)?;
    let check = plan.check(&table, &check_options, &mut show)?;
    let noisy = table.layers.iter().flat_map(|l| &l.operations).filter(|e| e.noisy).count();
    eprintln!(
        "{name}, batch {batch}: teacher {:.2} ms, table in {:.0} s, {noisy} noisy entries; mean error {:.1} %, worst {:.1} %, \
         bias {:+.1} % of {} selections, measured to {:.1} %",
        table.teacher_ms(),
        table.seconds,
        100.0 * check.table.mean,
        100.0 * check.table.worst,
        100.0 * check.table.bias,
        check.networks.len(),
        100.0 * check.measured_error
    );
    table.check = Some(check);
    println!("{}", serde_json::to_string(&serde_json::json!({"table": table, "readings": readings}))?);
    Ok(())
}
