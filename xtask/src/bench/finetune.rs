//! `cargo xtask bench finetune`: images a second of a fine-tuning step, beside a PyTorch script with channels_last.
//!
//! Teacher's forward, student's forward and backward, update; both sides with the same weights, images and number of threads, in
//! turns. The example `finetune` of the crate `lana-torch` writes the cases and is our side, in both ways to use the cores of which
//! the stage takes the faster; `xtask/bench/finetune.py` is the other side.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;
use serde::Deserialize;

use crate::command::{self, workspace_root};
use crate::{parity, python, setup};

/// What both sides print.
#[derive(Deserialize)]
struct Timing {
    /// Images in a second.
    rate: f64,
    /// Loss of the first and of the last step, by which one sees that both compute the same.
    first_loss: f64,
    last_loss: f64,
    peak_mb: f64,
}

/// Architecture of teacher and student, images in a batch, steps that are timed.
const CASES: [(&str, &str, &str); 2] = [("resnet56_cifar", "128", "4"), ("efficientnet_b0", "32", "3")];

/// Times the cases (all, or those whose names are given) in `rounds` rounds on `threads` threads.
pub(crate) fn run(names: &[String], threads: usize, rounds: usize) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let python = parity::python()?;
    let status = command::cargo()
        .args(["build", "--release", "--package", "lana-torch", "--example", "finetune"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        return Ok(command::exit_code(status));
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let example = target.join("release/examples/finetune");
    println!("fine-tuning on {threads} threads, images per second, {rounds} rounds in turns, median\n");
    println!(
        "| network | batch | PyTorch, channels_last | lana, in turn | overlapped | ratio | peak memory PyTorch | lana |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, batch, steps) in
        CASES.iter().filter(|case| names.is_empty() || names.iter().any(|n| n == case.0))
    {
        let folder = target.join("bench-finetune").join(name);
        let made = Command::new(&example).arg("dump").arg(&folder).args([name, batch]).status();
        anyhow::ensure!(
            made.context("starting the example")?.success(),
            "the example failed to write {}",
            folder.display()
        );
        let count = threads.to_string();
        let mut sides: [Vec<Timing>; 3] = Default::default();
        for _ in 0..rounds {
            let script = python::script("bench/finetune.py");
            let mut theirs = Command::new(&python);
            theirs.arg(script).arg(&folder).args([&count, *steps, "1"]);
            sides[0].push(timing(&mut theirs)?);
            for (side, mode) in [(1, "together"), (2, "overlapped")] {
                let mut ours = Command::new(&example);
                ours.arg("time").arg(&folder).args([&count, *steps, "1", mode]);
                sides[side].push(timing(&mut ours)?);
            }
        }
        let [theirs, together, overlapped] = sides.each_ref().map(|side| median(side));
        let peak = |side: &[Timing]| side.iter().map(|t| t.peak_mb).fold(0.0, f64::max);
        println!(
            "| {name} | {batch} | {theirs:.0} | {together:.0} | {overlapped:.0} | {:.2}x | {:.0} MB | {:.0} MB |",
            together.max(overlapped) / theirs,
            peak(&sides[0]),
            peak(&sides[1]).max(peak(&sides[2])),
        );
        for side in &sides {
            let (first, last) = (side[0].first_loss, side[0].last_loss);
            let rates: Vec<f64> = side.iter().map(|t| t.rate.round()).collect();
            eprintln!("{name}: losses {first:.5} to {last:.5}, rates {rates:?}");
        }
    }
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
    let middle = rates.len() / 2;
    if rates.len() % 2 == 1 { rates[middle] } else { (rates[middle - 1] + rates[middle]) / 2.0 }
}
