//! `cargo xtask bench data`: how fast images are decoded and augmented on one core, beside torchvision's DataLoader.
//!
//! Both sides read the same JPEGs of about 500 x 375 pixels, take a random resized crop of 224 pixels, mirror half of them and
//! normalise, in batches of 64 made by one worker, and take turns. `xtask/bench/data.py` makes the images and is the other side, the
//! example `throughput` of lana-data is ours.
#![allow(clippy::print_stdout)] // its result

use std::num::NonZeroUsize;
use std::process::{Command, ExitCode};

use serde::Deserialize;

use super::turns::{Nothing, Side, example, target};
use crate::{parity, python};

/// What our side tells besides.
#[derive(Deserialize)]
struct Memory {
    /// Resident memory after each fifth of the epoch.
    memory_mb: Vec<f64>,
}

/// Options of the benchmark.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Images of a turn
    #[arg(long, default_value_t = 1000)]
    images: usize,
    /// Turns of both sides
    #[arg(long, default_value = "3")]
    rounds: NonZeroUsize,
}

/// Times both sides in turns.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let python = parity::python()?;
    let throughput = example("lana-data", "throughput")?;
    let folder = target().join("bench-data").join(arguments.images.to_string());
    let script = python::script("bench/data.py");
    let count = arguments.images.to_string();
    if !folder.join("done").exists() {
        let made = Command::new(&python).arg(&script).arg("make").arg(&folder).arg(&count).status();
        anyhow::ensure!(made.is_ok_and(|made| made.success()), "the images could not be made");
    }
    let (mut theirs, mut ours) = (Side::<Nothing>::default(), Side::<Memory>::default());
    for _ in 0..arguments.rounds.get() {
        theirs.run(Command::new(&python).arg(&script).arg("time").arg(&folder))?;
        ours.run(Command::new(&throughput).arg("--json").arg(format!("imagefolder:{}", folder.display())))?;
    }
    println!("images per second of one worker, {} rounds in turns, median\n", arguments.rounds);
    println!("| torchvision | lana | ratio | peak memory torchvision | lana |");
    println!("|---|---|---|---|---|");
    println!(
        "| {:.0} | {:.0} | {:.2}x | {:.0} MB | {:.0} MB |",
        theirs.rate(),
        ours.rate(),
        ours.rate() / theirs.rate(),
        theirs.peak_mb(),
        ours.peak_mb()
    );
    let after: Vec<String> = (0..ours.turns()[0].more.memory_mb.len())
        .map(|part| format!("{:.0}", ours.median(|turn| turn.more.memory_mb[part])))
        .collect();
    println!("\nmemory after each fifth of an epoch of {} images: {} MB", arguments.images, after.join(", "));
    Ok(ExitCode::SUCCESS)
}
