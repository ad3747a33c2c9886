//! Lookup tables: made here, made on another device and brought back, checked.
//!
//! A run has a table for every device and deployment in RUN/latency/DEVICE-DEPLOYMENT.json. Budgets speak of this machine,
//! unless `latency.table` in run.toml names another: then nothing can be timed here, and the tables of that machine, which
//! [`import_table`] brought in, say what selections cost. A device is named as [`Device::slug`] does it: a GPU's name begins
//! with its machine's, so that either finds the tables of the processor, and the machine's those of its only GPU.

use std::path::{Path, PathBuf};

use lana_latency::{Check, CheckOptions, Deployment, Device, LayerCandidates, Plan, Processor, Table};
use serde::Serialize;

use crate::context::{Context, LayerPool};
use crate::stages::profile::{on, record, table};
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

/// Measures the table of a run for one deployment on this device, unless that is done; the stage does so for those that the run's
/// budgets speak of.
///
/// # Errors
/// If the label is none, or networks cannot be run so here.
pub fn make_table(run: &Path, deployment: &str, progress: &dyn Progress) -> Result<()> {
    let context = Context::open(run, progress)?;
    let latency = context.config.latency.on(labelled(&context.config, Some(deployment))?);
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    on(&context, &latency, &teacher.graph, &pool).map(drop)
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
    let deployment = labelled(&context.config, deployment)?;
    let plan = plan(&context.config.latency.on(deployment), &teacher.graph, &pool)?;
    plan.save(file)?;
    Ok(plan.subjects().len())
}

/// The deployment of a label, or the run's own.
fn labelled(config: &Config, label: Option<&str>) -> Result<Deployment> {
    let own = config.latency.deployment();
    Ok(label.map_or(Ok(own), |label| Deployment::parse(label, &own))?)
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
    let slug = table.device.slug();
    let here = table.device.differences(&Device::of(table.deployment.processor)).is_none();
    let name = match context.config.latency.table.clone() {
        // Another table of the machine that counts already; the longer name says of which of its GPUs.
        Some(named) if extends(&slug, &named) => Some(slug.clone()),
        Some(named) if extends(&named, &slug) => Some(named),
        _ => (!here).then(|| slug.clone()),
    };
    let latency = LatencyConfig { table: name, ..context.config.latency.on(table.deployment) };
    let path = run_file(&context.run, &slug, &table.deployment);
    write_json(&path, &table)?;
    let config = Config { latency, ..context.config.clone() };
    config.validate()?;
    if config != context.config {
        write_atomic(&context.run.path("run.toml"), config.to_toml().as_bytes())?;
        context.config = config;
    }
    context.run.event(
        "profile",
        serde_json::json!({"imported": slug, "deployment": table.deployment.to_string(),
            "teacher_ms": table.teacher_ms()}),
    )?;
    let (deployment, teacher_ms) = (table.deployment.to_string(), table.teacher_ms());
    let device = context.config.latency.table.clone().unwrap_or(slug);
    Ok(Imported { table: path, device, deployment, here, teacher_ms })
}

/// Checks a table of a run against networks measured whole on this device, and keeps the figures in it: that of the run's
/// own deployment, or of one by its label.
///
/// # Errors
/// If the run has no such table, or one of another device.
pub fn check_table(
    run: &Path,
    deployment: Option<&str>,
    options: &CheckOptions,
    progress: &dyn Progress,
) -> Result<Check> {
    let context = Context::open(run, progress)?;
    let latency = &context.config.latency.on(labelled(&context.config, deployment)?);
    let mut table = table(&context.run, latency, progress)?.ok_or_else(|| missing(&context.run, latency))?;
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
    write_json(&path(&context.run, latency)?, &table)?;
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
    if let Ok(Some(_)) = table(&run, &here, progress) {
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

/// The table of a deployment: where it is, or will be once it has been measured here.
///
/// # Errors
/// If `latency.table` names a machine of which there are tables of several GPUs.
pub(crate) fn path(run: &Run, latency: &LatencyConfig) -> Result<PathBuf> {
    let own = Device::of(latency.processor).slug();
    let deployment = latency.deployment();
    let device = match &latency.table {
        None => own,
        Some(named) => {
            let found: Vec<String> = files(run)
                .into_iter()
                .filter(|(device, of)| *of == deployment && is_of(device, named, latency.processor))
                .map(|(device, _)| device)
                .collect();
            match found.as_slice() {
                [] if is_of(&own, named, latency.processor) => own,
                [] => named.clone(),
                [one] => one.clone(),
                several if several.contains(named) => named.clone(),
                several => {
                    return Err(Error::input(
                        format!(
                            "{}: `{named}` has latency tables for {deployment} of several GPUs: {}",
                            run.root().display(),
                            several.join(", ")
                        ),
                        "say which counts by `table = \"DEVICE\"` under [latency] in run.toml",
                    ));
                }
            }
        }
    };
    Ok(run_file(run, &device, &deployment))
}

/// The table that counts, in words that change with it.
pub(crate) fn name(latency: &LatencyConfig) -> String {
    let device = latency.table.clone().unwrap_or_else(|| Device::of(latency.processor).slug());
    format!("{device}-{}", latency.deployment())
}

fn run_file(run: &Run, device: &str, deployment: &Deployment) -> PathBuf {
    run.path("latency").join(format!("{device}-{deployment}.json"))
}

/// Devices and deployments of which a run has a table, by the names of the files.
fn files(run: &Run) -> Vec<(String, Deployment)> {
    let files = std::fs::read_dir(run.path("latency")).into_iter().flatten().flatten();
    let parts = |file: std::fs::DirEntry| {
        let name = file.file_name().into_string().ok()?;
        let name = name.strip_suffix(".json")?;
        // The label has five parts.
        let (at, _) = name.rmatch_indices('-').nth(4)?;
        Some((name[..at].to_string(), name[at + 1..].parse().ok()?))
    };
    let mut all: Vec<(String, Deployment)> = files.filter_map(parts).collect();
    all.sort();
    all
}

/// Whether a device's name is another's with something behind it, or the same.
fn extends(long: &str, short: &str) -> bool {
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whether a device is what `latency.table` names: the machine, a GPU of it, or for a GPU that is named the processor beside it.
fn is_of(device: &str, named: &str, processor: Processor) -> bool {
    extends(device, named) || (processor == Processor::Cpu && extends(named, device))
}

/// Devices other than this of which a run has a table for a deployment.
fn others(run: &Run, latency: &LatencyConfig) -> Vec<String> {
    let here = Device::of(latency.processor);
    let is_other = |device: &String| {
        let table = Table::load(&run_file(run, device, &latency.deployment()));
        table.is_ok_and(|table| table.check_device(&here).is_err())
    };
    let all = files(run).into_iter().filter(|(_, of)| *of == latency.deployment());
    all.map(|(device, _)| device).filter(is_other).collect()
}

/// There is no table of the device that budgets speak of.
pub(crate) fn missing(run: &Run, latency: &LatencyConfig) -> Error {
    let (others, name, root) = (others(run, latency), latency.deployment(), run.root().display());
    if let Some(device) = elsewhere(latency) {
        let there: Vec<String> = files(run)
            .into_iter()
            .filter(|(of, _)| extends(of, device) || extends(device, of))
            .map(|(_, deployment)| deployment.to_string())
            .collect();
        let mut message = format!("{root}: there is no latency table of `{device}` for {name}");
        if !there.is_empty() {
            message += &format!(", only for {}", there.join(", "));
        }
        if !others.is_empty() {
            message += &format!("; for that deployment there are tables of {}", others.join(", "));
        }
        return Error::input(
            message,
            format!(
                "write `lana profile {root} --bundle FILE --deployment {name}`, measure that there, and bring the table with \
                 --import; or delete `table` under [latency] in run.toml, for budgets to speak of this machine"
            ),
        );
    }
    // The stage makes those of the run's own budgets alone.
    let own = run.config().is_ok_and(|config| config.latency.deployment() == name);
    let measure = match own {
        true => format!("lana profile {root}"),
        false => format!("lana profile {root} --deployment {name}"),
    };
    if others.is_empty() {
        let missing = format!("the latency table for {name}");
        return Error::NotReady { run: root.to_string(), missing, command: measure };
    }
    let mut hint = format!("measure this device with `{measure}`");
    if own {
        hint += &format!(", or go by the other's with `lana profile {root} --force`");
    }
    Error::input(
        format!("{root}: there is no latency table of this device for {name}, only of {}", others.join(", ")),
        hint,
    )
}

/// The other machine that the run's budgets speak of, if any.
pub(crate) fn elsewhere(latency: &LatencyConfig) -> Option<&str> {
    let own = Device::of(latency.processor).slug();
    latency.table.as_deref().filter(|named| !is_of(&own, named, latency.processor))
}
