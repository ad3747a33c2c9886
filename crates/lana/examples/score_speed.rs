//! What scoring saves by running only what lies behind the layer: `cargo run --release -p lana --example score_speed -- RUN
//! [OPERATIONS]` times both ways on a run with trained operations. `cargo xtask bench score` makes such a run.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::ExitCode;

use lana::{Silent, score_speed};

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    let Some(run) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: score_speed RUN [OPERATIONS]");
        return ExitCode::from(2);
    };
    let operations = match arguments.next().map(|text| text.to_string_lossy().parse::<usize>()) {
        None => 40,
        Some(Ok(number)) if number > 0 => number,
        Some(_) => {
            eprintln!("error: OPERATIONS is a whole number, at least 1");
            return ExitCode::from(2);
        }
    };
    match score_speed(&run, operations, &Silent) {
        Ok(speed) => {
            println!(
                "{} operations on {} images: {:.2} s from behind the layer, {:.2} s the whole network again: {:.2}x",
                speed.operations,
                speed.images,
                speed.behind_s,
                speed.whole_s,
                speed.whole_s / speed.behind_s
            );
            if let Some((count, together, alone)) = speed.candidates {
                println!(
                    "{count} candidates on {} images: {together:.2} s together, {alone:.2} s each by itself: {:.2}x",
                    speed.images,
                    alone / together
                );
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
