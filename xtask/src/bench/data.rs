//! `cargo xtask bench data`: how fast images are decoded and augmented on one core, beside torchvision's DataLoader.
//!
//! Both sides read the same JPEGs of about 500 x 375 pixels, take a random resized crop of 224 pixels, mirror half of them and
//! normalise, in batches of 64 made by one worker, and take turns. `xtask/bench/data.py` makes the images and is the other side, the
//! example `throughput` of lana-data is ours.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use serde::Deserialize;

use crate::command::{self, workspace_root};
use crate::{parity, python};

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Images of a turn
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Turns of both sides
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// What both sides print.
#[derive(Deserialize)]
struct Timing {
    /// Images in a second.
    rate: f64,
    /// The largest resident memory, of the process and its worker.
    peak_mb: f64,
}

/// Times both sides in turns.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let python = parity::python()?;
    let status = command::cargo()
        .args(["build", "--release", "--package", "lana-data", "--example", "throughput"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        return Ok(command::exit_code(status));
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let folder = target.join("bench-data").join(arguments.images.to_string());
    let script = python::script("bench/data.py");
    let count = arguments.images.to_string();
    if !folder.join("done").exists() {
        let made = Command::new(&python).arg(&script).arg("make").arg(&folder).arg(&count).status();
        anyhow::ensure!(made.is_ok_and(|made| made.success()), "the images could not be made");
    }
    let (mut theirs, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..arguments.rounds {
        theirs.push(timing(Command::new(&python).arg(&script).arg("time").arg(&folder))?);
        let example = target.join("release/examples/throughput");
        ours.push(timing(
            Command::new(example).arg("--json").arg(format!("imagefolder:{}", folder.display())),
        )?);
    }
    let (a, b) = (median(&theirs), median(&ours));
    let peak = |timings: &[Timing]| timings.iter().map(|t| t.peak_mb).fold(0.0, f64::max);
    println!("images per second of one worker, {} rounds in turns, median\n", arguments.rounds);
    println!("| torchvision | lana | ratio | peak memory torchvision | lana |");
    println!("|---|---|---|---|---|");
    println!("| {a:.0} | {b:.0} | {:.2}x | {:.0} MB | {:.0} MB |", b / a, peak(&theirs), peak(&ours));
    Ok(ExitCode::SUCCESS)
}

fn timing(command: &mut Command) -> anyhow::Result<Timing> {
    let output =
        command.stderr(std::process::Stdio::inherit()).output().context("starting a side of the bench")?;
    anyhow::ensure!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).context("reading what a side of the bench printed")
}

fn median(timings: &[Timing]) -> f64 {
    let mut rates: Vec<f64> = timings.iter().map(|t| t.rate).collect();
    rates.sort_by(f64::total_cmp);
    rates[rates.len() / 2]
}
