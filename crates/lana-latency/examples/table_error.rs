//! How well a lookup table predicts whole networks, for any teacher of the zoo and without a run:
//! `table_error TEACHER DEPLOYMENT POOL TABLE.json [TABLE_SECONDS] [CHECK_SECONDS] [SEED]`.
//!
//! DEPLOYMENT is a label such as `b64` or `cuda-torch-b128-fp16` (libtorch needs the crate's feature `torch`). Makes the table as `lana profile` does, unless the file is there, and checks it as `lana profile RUN --check` does. What
//! is not said of seconds is as there. Stopped, it goes on. Progress goes to stderr. If the file's name ends in `.lana`, it
//! becomes a bundle for `lana profile --from-bundle` on another device, and nothing is measured.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::PathBuf;

use lana_latency::{CheckOptions, Deployment, Figures, LayerCandidates, Plan, Progress, Table, TableOptions};
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, deployment, pool, file, more @ ..] = &arguments[..] else {
        return Err("give TEACHER DEPLOYMENT POOL TABLE.json".into());
    };
    let (pool, file) = (Pool::parse(pool)?, PathBuf::from(file));
    let number = |at: usize| more.get(at).map(|text| text.parse::<f64>()).transpose();

    let teacher = zoo::build(name, &ZooOptions::default())?;
    let mut candidates = Vec::new();
    for layer in teacher.layers() {
        let graph = teacher.layer_graph(&layer.name)?;
        let operations = pool.operations_for(&graph).into_iter();
        let operations = operations.filter_map(|(o, g)| Some((o.name().to_string(), g.ok()?))).collect();
        candidates.push(LayerCandidates { layer: layer.name.clone(), operations });
    }
    let deployment: Deployment = deployment.parse()?;
    let options = TableOptions { deployment, time_limit_s: number(0)?, ..TableOptions::default() };
    let plan = Plan::new(&teacher, &candidates, &options)?;
    println!("{} networks to time, in {:.0} s", plan.subjects().len(), plan.time_limit());
    if file.extension().is_some_and(|extension| extension == "lana") {
        return Ok(plan.save(&file)?);
    }
    let mut show = |p: Progress| {
        let (elapsed, remaining) = (p.elapsed.as_secs_f64(), p.remaining.as_secs_f64());
        eprintln!("pass {}: {} of {}, {elapsed:.0} s, {remaining:.0} s left", p.pass, p.done, p.total);
    };
    let mut table = match file.exists() {
        true => Table::load(&file)?,
        false => plan.measure_to(&file, &mut |line| eprintln!("{line}"), &mut show)?,
    };
    println!(
        "{name}, {deployment}: teacher {:.2} ms, table in {:.0} s, {} noisy entries, parts {:+.1} % off, memory {}",
        table.teacher_ms(),
        table.seconds,
        table.noisy(),
        100.0 * table.parts_error,
        most_memory()
    );
    let mut check_options =
        CheckOptions { seed: number(2)?.unwrap_or_default() as u64, ..CheckOptions::default() };
    if let Some(seconds) = number(1)? {
        check_options.time_limit_s = seconds;
    }
    let check = plan.check(&table, &check_options, &mut show)?;
    // As it was priced, before it was fitted to random selections.
    let mut priced = table.clone();
    priced.whole.clear();
    priced.correct(&[])?;
    let fitted = |n: &lana_latency::Checked| {
        priced.predict(&n.choices).map(|ms| ms / priced.teacher_ms() / n.ratio - 1.0)
    };
    let bare: Vec<f64> = check.networks.iter().map(fitted).collect::<Result<_, _>>()?;
    let count = bare.len() as f64;
    println!(
        "without the random selections: mean error {:.1} %, worst {:.1} %, bias {:+.1} %",
        100.0 * bare.iter().map(|e| e.abs()).sum::<f64>() / count,
        100.0 * bare.iter().fold(0.0, |m: f64, e| m.max(e.abs())),
        100.0 * bare.iter().sum::<f64>() / count
    );
    for (title, figures) in
        [("the table", check.table), ("leave one out", check.leave_one_out), ("by half", check.half)]
    {
        let Figures { networks, mean, worst, bias, kendall, spearman } = figures;
        println!(
            "{title}: mean error {:.1} %, worst {:.1} %, bias {:+.1} % of {networks}; Kendall {kendall:.2}, Spearman {spearman:.2}",
            100.0 * mean,
            100.0 * worst,
            100.0 * bias
        );
    }
    for n in &check.networks {
        println!(
            "{} replaced: {:.3} ± {:.1} %, {:+.1} %",
            n.replaced,
            n.ratio,
            100.0 * n.error,
            100.0 * (n.predicted / n.ratio - 1.0)
        );
    }
    println!("measured to {:.1} %, memory {}", 100.0 * check.measured_error, most_memory());
    table.check = Some(check);
    table.save(&file)?;
    Ok(())
}

/// The most memory this process ever took, where Linux tells.
fn most_memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.map_or("unknown".into(), |l| l.trim().to_string())
}
