//! `cargo xtask bench finetune`: images a second of a fine-tuning step, beside a PyTorch script with channels_last.
//!
//! Teacher's forward, student's forward and backward, update; both sides with the same weights, images and number of threads, in
//! turns. The example `finetune` of the crate `lana` writes the cases and is our side, in both ways to use the cores of which
//! the stage takes the faster; `xtask/bench/finetune.py` is the other side.
#![allow(clippy::print_stdout)] // its result

use std::process::{Command, ExitCode};

use anyhow::Context;
use serde::Deserialize;

use super::turns::{Side, example, target};
use crate::{parity, python, setup};

/// Loss of the first and of the last step, by which one sees that both compute the same.
#[derive(Deserialize)]
struct Losses {
    first_loss: f64,
    last_loss: f64,
}

/// Architecture of teacher and student, images in a batch, steps that are timed.
const CASES: [(&str, &str, &str); 2] = [("resnet56_cifar", "128", "4"), ("efficientnet_b0", "32", "3")];

/// Times the cases (all, or those whose names are given) in `rounds` rounds on `threads` threads.
pub(crate) fn run(names: &[String], threads: usize, rounds: usize) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let python = parity::python()?;
    let example = example("lana", "finetune")?;
    println!("fine-tuning on {threads} threads, images per second, {rounds} rounds in turns, median\n");
    println!(
        "| network | batch | PyTorch, channels_last | lana, in turn | overlapped | ratio | peak memory PyTorch | lana |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for (name, batch, steps) in
        CASES.iter().filter(|case| names.is_empty() || names.iter().any(|n| n == case.0))
    {
        let folder = target().join("bench-finetune").join(name);
        let made = Command::new(&example).arg("dump").arg(&folder).args([name, batch]).status();
        anyhow::ensure!(
            made.context("starting the example")?.success(),
            "the example failed to write {}",
            folder.display()
        );
        let count = threads.to_string();
        let mut sides: [Side<Losses>; 3] = Default::default();
        for _ in 0..rounds {
            let script = python::script("bench/finetune.py");
            sides[0].run(Command::new(&python).arg(script).arg(&folder).args([&count, *steps, "1"]))?;
            for (side, mode) in [(1, "together"), (2, "overlapped")] {
                let mut ours = Command::new(&example);
                sides[side].run(ours.arg("time").arg(&folder).args([&count, *steps, "1", mode]))?;
            }
        }
        let [theirs, together, overlapped] = sides.each_ref().map(Side::rate);
        println!(
            "| {name} | {batch} | {theirs:.0} | {together:.0} | {overlapped:.0} | {:.2}x | {:.0} MB | {:.0} MB |",
            together.max(overlapped) / theirs,
            sides[0].peak_mb(),
            sides[1].peak_mb().max(sides[2].peak_mb()),
        );
        for turns in sides.each_ref().map(Side::turns) {
            let Losses { first_loss, last_loss } = &turns[0].more;
            let rates: Vec<f64> = turns.iter().map(|turn| turn.rate.round()).collect();
            eprintln!("{name}: losses {first_loss:.5} to {last_loss:.5}, rates {rates:?}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
