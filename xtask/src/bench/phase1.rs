//! `cargo xtask bench phase1`: how fast operations are trained, beside the paper's schedule in PyTorch.
//!
//! Both sides get the same teacher, operations, first weights and images, and the same number of threads, and take turns. The
//! example `phase1` of the crate `lana` writes the cases and is our side, `xtask/bench/phase1.py` the other.
#![allow(clippy::print_stdout)] // its result

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;
use serde::Deserialize;

use super::turns::{Side, example, target};
use crate::{parity, python, setup};

/// What both sides print beside their rates, images times operations in a second.
#[derive(Deserialize)]
struct Work {
    /// Mean normalised error of the first step, by which one sees that both compute the same.
    first_error: f64,
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
    let example = example("lana", "phase1")?;
    println!(
        "phase 1 on {threads} threads, images x operations per second, {rounds} rounds in turns, median\n"
    );
    println!(
        "| teacher | batch | PyTorch, paper's schedule | lana | ratio | peak memory PyTorch | lana | lana, GFLOP/s | of large matrix products |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for case in CASES.iter().filter(|case| names.is_empty() || names.iter().any(|name| name == case.teacher))
    {
        let folder = target().join("bench-phase1").join(case.teacher);
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
        let (mut theirs, mut ours) = (Side::<Work>::default(), Side::<Work>::default());
        for _ in 0..rounds {
            let script = python::script("bench/phase1.py");
            let steps = [&count, STEPS, SKIPPED];
            theirs.run(Command::new(&python).arg(script).arg(&folder).args(steps).arg(case.passes))?;
            ours.run(Command::new(&example).arg("time").arg(&folder).args(steps))?;
        }
        println!(
            "| {} | {} | {:.0} | {:.0} | {:.2}x | {:.0} MB | {:.0} MB | {:.0} | {:.0} % |",
            case.teacher,
            case.batch,
            theirs.rate(),
            ours.rate(),
            ours.rate() / theirs.rate(),
            theirs.peak_mb(),
            ours.peak_mb(),
            ours.median(|turn| turn.more.gflops),
            100.0 * ours.median(|turn| turn.more.gflops / turn.more.matmul_gflops),
        );
        let rates = |side: &Side<Work>| side.turns().iter().map(|turn| turn.rate.round()).collect::<Vec<_>>();
        eprintln!(
            "{}: first errors {:.6} ({} of its passes) and {:.6}; rates {:?} and {:?}",
            case.teacher,
            theirs.turns()[0].more.first_error,
            case.passes,
            ours.turns()[0].more.first_error,
            rates(&theirs),
            rates(&ours),
        );
    }
    Ok(ExitCode::SUCCESS)
}
