//! `cargo xtask bench phase1`: how fast operations are trained, beside the paper's schedule in PyTorch.
//!
//! Both sides get the same teacher, operations, first weights and images, and the same number of threads, and take turns. The
//! example `phase1` of the crate `lana` writes the cases and is our side, `xtask/bench/phase1.py` the other.
#![allow(clippy::print_stdout)] // its result

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;
use serde::Deserialize;

use crate::command::{self, workspace_root};
use crate::{parity, python, setup};

/// What both sides print.
#[derive(Deserialize)]
struct Timing {
    /// Images times operations in a second.
    rate: f64,
    /// Mean normalised error of the first step, by which one sees that both compute the same.
    first_error: f64,
    peak_mb: f64,
    /// What the multiplications and additions of convolutions and products come to in a second, and what those of large
    /// matrices do on the same threads. The reference does not tell.
    #[serde(default)]
    gflops: f64,
    #[serde(default)]
    matmul_gflops: f64,
}

/// One network with its pool.
struct Case {
    teacher: &'static str,
    batch: &'static str,
    /// Passes of the reference that are timed, of as many as a layer has operations.
    passes: &'static str,
    /// Weights and images to take where they are, under the folder of real data.
    real: Option<[&'static str; 2]>,
}

const CASES: [Case; 2] = [
    Case {
        teacher: "resnet56_cifar",
        batch: "128",
        passes: "4",
        real: Some(["weights/resnet56_cifar10.safetensors", "data/cifar10/lossless-test_batch.bin"]),
    },
    Case { teacher: "efficientnet_b0", batch: "32", passes: "3", real: None },
];

/// Steps that are timed, and steps before them, in which caches and memory are not warm yet.
const STEPS: &str = "2";
const SKIPPED: &str = "1";

/// Times the cases (all, or those whose names are given) in `rounds` rounds on `threads` threads.
pub(crate) fn run(
    names: &[String],
    threads: usize,
    rounds: usize,
    data: Option<&Path>,
) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let python = parity::python()?;
    let status = command::cargo()
        .args(["build", "--release", "--package", "lana", "--example", "phase1"])
        .status()
        .context("starting cargo")?;
    if !status.success() {
        return Ok(command::exit_code(status));
    }
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from);
    let example = target.join("release/examples/phase1");
    println!(
        "phase 1 on {threads} threads, images x operations per second, {rounds} rounds in turns, median\n"
    );
    println!(
        "| teacher | batch | PyTorch, paper's schedule | lana | ratio | peak memory PyTorch | lana | lana, GFLOP/s | of large matrix products |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.teacher))
    {
        let folder = target.join("bench-phase1").join(case.teacher);
        let mut dump: Vec<OsString> = vec![
            "dump".into(),
            folder.clone().into(),
            case.teacher.into(),
            "compact".into(),
            case.batch.into(),
        ];
        if let (Some([weights, images]), Some(data)) = (case.real, data)
            && data.join(weights).exists()
        {
            dump.push(data.join(weights).into());
            dump.push(format!("cifar10:{}", data.join(images).display()).into());
        }
        let made = Command::new(&example).args(&dump).status().context("starting the example")?;
        anyhow::ensure!(made.success(), "the example failed to write {}", folder.display());
        let count = threads.to_string();
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            let script = python::script("bench/phase1.py");
            theirs.push(timing(Command::new(&python).arg(script).arg(&folder).args([
                &count,
                STEPS,
                SKIPPED,
                case.passes,
            ]))?);
            ours.push(timing(
                Command::new(&example).arg("time").arg(&folder).args([&count, STEPS, SKIPPED]),
            )?);
        }
        let (a, b) = (median_of(&theirs, |t| t.rate), median_of(&ours, |t| t.rate));
        let peak = |timings: &[Timing]| timings.iter().map(|t| t.peak_mb).fold(0.0, f64::max);
        println!(
            "| {} | {} | {a:.0} | {b:.0} | {:.2}x | {:.0} MB | {:.0} MB | {:.0} | {:.0} % |",
            case.teacher,
            case.batch,
            b / a,
            peak(&theirs),
            peak(&ours),
            median_of(&ours, |t| t.gflops),
            100.0 * median_of(&ours, |t| t.gflops / t.matmul_gflops),
        );
        eprintln!(
            "{}: first errors {:.6} ({} of its passes) and {:.6}; rates {:?} and {:?}",
            case.teacher,
            theirs[0].first_error,
            case.passes,
            ours[0].first_error,
            theirs.iter().map(|t| t.rate.round()).collect::<Vec<_>>(),
            ours.iter().map(|t| t.rate.round()).collect::<Vec<_>>(),
        );
    }
    Ok(ExitCode::SUCCESS)
}

fn timing(command: &mut Command) -> anyhow::Result<Timing> {
    let output =
        command.stderr(std::process::Stdio::inherit()).output().context("starting a side of the bench")?;
    anyhow::ensure!(output.status.success(), "{command:?} failed");
    serde_json::from_slice(&output.stdout).context("reading what a side of the bench printed")
}

fn median_of(timings: &[Timing], what: impl Fn(&Timing) -> f64) -> f64 {
    let mut rates: Vec<f64> = timings.iter().map(what).collect();
    rates.sort_by(f64::total_cmp);
    let middle = rates.len() / 2;
    if rates.len() % 2 == 1 { rates[middle] } else { (rates[middle - 1] + rates[middle]) / 2.0 }
}
