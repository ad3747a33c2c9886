//! What is phase 1 worth? `cargo run --release -p lana --example pretraining -- RUN BUDGET FOLDER [--images 1000,5000] [--epochs N]
//! [--finetuned IMAGES]`
//! fine-tunes the winner of a budget of a finished run from random weights, from the teacher's weights, and from phase 1 on so
//! many images, and prints a table. What it makes is kept in FOLDER; given again, it goes on.
#![allow(clippy::print_stdout)] // its result

use std::path::Path;
use std::process::ExitCode;

use lana::{Budget, PretrainingOptions, Progress, pretraining_study, pretraining_table};

const USAGE: &str = "usage: pretraining RUN BUDGET FOLDER [--images N,N…] [--epochs N] [--finetuned IMAGES]";

struct Lines;

impl Progress for Lines {
    fn begin(&self, title: &str, _: u64, _: &str) {
        eprintln!("{title}");
    }
    fn advance(&self, _: u64, _: &str) {}
    fn finish(&self, summary: &str) {
        eprintln!("  {summary}");
    }
    fn say(&self, text: &str) {
        eprintln!("{text}");
    }
    fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|(words, options)| {
        let [run, budget, folder] = words.as_slice() else { return Err(USAGE.to_string()) };
        let budget: Budget = budget.parse().map_err(|error: lana::Error| error.to_string())?;
        pretraining_study(Path::new(run), &budget, Path::new(folder), &options, &Lines)
            .map_err(|error| error.to_string())
    }) {
        Ok(rows) => print!("{}", pretraining_table(&rows)),
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn parse(arguments: impl Iterator<Item = String>) -> Result<(Vec<String>, PretrainingOptions), String> {
    let mut options = PretrainingOptions::default();
    let mut words = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--images" | "--epochs" | "--finetuned" => {
                let text = arguments.next().unwrap_or_default();
                let numbers: Option<Vec<usize>> =
                    text.split(',').map(|n| n.parse().ok().filter(|&n| n > 0)).collect();
                match (argument.as_str(), numbers.as_deref()) {
                    ("--images", Some(numbers)) => options.images = numbers.to_vec(),
                    ("--epochs", Some(&[epochs])) => options.epochs = Some(epochs),
                    ("--finetuned", Some(&[images])) => options.finetuned = Some(images),
                    _ => {
                        return Err(format!(
                            "{argument} needs whole numbers, at least 1; `{text}` is not\n{USAGE}"
                        ));
                    }
                }
            }
            _ => words.push(argument),
        }
    }
    Ok((words, options))
}
