//! `cargo xtask bench pool`: what the families of the paper's pool reach at a few layers, against their latency.
//!
//! Trains the operations of `--pool paper` by lana itself (`lana accelerate --until pretrain`) and prints
//! `lana pool RUN --by-family`. Operations that cost many times their layer are left out and listed: a transformer block
//! of width 1,024 on 1,024 pixels does as many multiplications as six thousand layers of ResNet-56.

#![allow(clippy::print_stdout)] // its result

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde_json::Value;

use super::{Subject, lana};
use crate::command::{self, workspace_root};
use crate::setup;

/// What is trained, and on what.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Layers whose operations are trained
    #[arg(long, value_delimiter = ',', default_value = "layer1.4,layer2.4,layer3.4")]
    layers: Vec<String>,
    /// Operations to train
    #[arg(long, default_value = "paper")]
    pool: String,
    /// Most multiply-accumulates of an operation, as a multiple of its layer's
    #[arg(long, default_value_t = 4.0)]
    dearest: f64,
    /// Train operations that are slower than their layer too, though no selection can want them
    #[arg(long)]
    keep_slow: bool,
    /// Images that each operation is trained on
    #[arg(long, default_value_t = 5_120)]
    images: usize,
    /// Images in a batch when latency is measured
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Longest time for the latency table, in seconds
    #[arg(long, default_value_t = 600.0)]
    time_limit: f64,
    /// The run directory [default: target/bench-pool/TEACHER]; a run that was cut off goes on there
    #[arg(long)]
    out: Option<PathBuf>,
}

/// Trains, and prints the tables.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let out = arguments.out.clone().unwrap_or_else(|| {
        workspace_root().join("target").join("bench-pool").join(&arguments.subject.teacher)
    });
    let mut accelerate = arguments.subject.accelerate();
    accelerate.args(["--until", "pretrain", "--group", "1", "--pool", "identity"]);
    if arguments.keep_slow {
        accelerate.arg("--keep-slow");
    }
    let mut omitted = Vec::new();
    for layer in &arguments.layers {
        let dear = too_dear(arguments, layer)?;
        let mut rule = format!("{layer}:{}", arguments.pool);
        for name in &dear {
            rule += &format!(",-{name}");
        }
        accelerate.args(["--pool-rule", &rule]);
        omitted.push((layer, dear));
    }
    let configuration = out.with_extension("toml");
    if let Some(folder) = configuration.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    }
    std::fs::write(&configuration, format!("[latency]\ntime_limit_s = {:.1}\n", arguments.time_limit))
        .with_context(|| format!("writing {}", configuration.display()))?;
    accelerate.arg("--config").arg(&configuration).arg("--out").arg(&out);
    for (option, value) in
        [("--images", &arguments.images.to_string()), ("--batch", &arguments.batch.to_string())]
    {
        accelerate.args([option, value]);
    }
    let status = accelerate.status().context("starting lana")?;
    if !status.success() {
        return Ok(command::exit_code(status));
    }
    for layer in arguments.layers.iter().map(Some).chain([None]) {
        let mut table = lana(&["pool", "--by-family"]);
        table.arg(&out);
        if let Some(layer) = layer {
            table.args(["--layer", layer]);
        }
        let status = table.status().context("starting lana")?;
        if !status.success() {
            return Ok(command::exit_code(status));
        }
        println!();
    }
    for (layer, dear) in omitted.iter().filter(|(_, dear)| !dear.is_empty()) {
        println!(
            "{layer}: {} operations with more than {} times the layer's multiply-accumulates are not trained: {}",
            dear.len(),
            arguments.dearest,
            families(dear)
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// The operations that cost too many times the layer.
fn too_dear(arguments: &Arguments, layer: &str) -> anyhow::Result<Vec<String>> {
    let output = lana(&["pool", "--json", "--group", "1", "--teacher", &arguments.subject.teacher])
        .args(["--pool", &arguments.pool, "--layer", layer])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("starting lana")?;
    if !output.status.success() {
        bail!("`lana pool` failed at layer {layer}");
    }
    let record: Value = serde_json::from_slice(&output.stdout).context("reading what `lana pool` printed")?;
    let operations = record["layers"][0]["operations"].as_array().context("no operations at the layer")?;
    let macs = |operation: &Value| operation["macs"].as_f64().unwrap_or(0.0);
    let own = operations.first().map_or(0.0, macs);
    let dear = operations.iter().filter(|operation| macs(operation) > arguments.dearest * own);
    Ok(dear.filter_map(|operation| operation["name"].as_str().map(str::to_string)).collect())
}

/// `vit (12), botnet (4)`.
fn families(names: &[String]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *counts.entry(name.split('-').next().unwrap_or_default()).or_default() += 1;
    }
    counts.iter().map(|(family, count)| format!("{family} ({count})")).collect::<Vec<_>>().join(", ")
}
