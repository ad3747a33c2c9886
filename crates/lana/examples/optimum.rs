//! Does the proven optimum matter? `cargo run --release -p lana --example optimum -- RUN [BUDGET…]` evaluates, on a finished
//! run, what the integer program selects beside a rule of thumb and chance, and prints a table.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::ExitCode;

use lana::{Budget, Silent, StudyOptions, study, study_table};

fn main() -> ExitCode {
    let mut options = StudyOptions::default();
    let mut texts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let target = match argument.as_str() {
            "--solutions" => &mut options.solutions,
            "--random" => &mut options.random,
            "--images" => &mut options.images,
            "--around" => &mut options.around,
            "--floor" => {
                let floor = arguments.next().and_then(|text| text.parse().ok());
                let Some(floor) = floor.filter(|floor| (0.0..=1.0).contains(floor)) else {
                    eprintln!("error: {argument} needs a number from 0 to 1");
                    return ExitCode::from(2);
                };
                options.floor = floor;
                continue;
            }
            _ => {
                texts.push(argument);
                continue;
            }
        };
        let Some(number) = arguments.next().and_then(|text| text.parse().ok()).filter(|&number| number > 0)
        else {
            eprintln!("error: {argument} needs a whole number, at least 1");
            return ExitCode::from(2);
        };
        *target = number;
    }
    if texts.is_empty() {
        eprintln!(
            "usage: optimum RUN [BUDGET…] [--solutions K] [--random N] [--images N] [--around STEPS] [--floor SHARE]"
        );
        return ExitCode::from(2);
    }
    let run = PathBuf::from(texts.remove(0));
    let texts = if texts.is_empty() { ["0.34x", "0.5x", "0.7x"].map(String::from).to_vec() } else { texts };
    let budgets = texts.iter().map(|text| text.parse()).collect::<Result<Vec<Budget>, _>>();
    match budgets.and_then(|budgets| study(&run, &budgets, &options, &Silent)) {
        Ok(rows) => print!("{}", study_table(&rows)),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
