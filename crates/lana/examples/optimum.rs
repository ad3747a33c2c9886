//! Does the proven optimum matter? `cargo run --release -p lana --example optimum -- RUN [BUDGET…]` evaluates, on a finished
//! run, what the integer program selects beside a rule of thumb and chance, and prints a table.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::ExitCode;

use lana::{Budget, Silent, StudyOptions, study, study_table};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(run) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: optimum RUN [BUDGET…]");
        return ExitCode::from(2);
    };
    let texts: Vec<String> = arguments.collect();
    let texts = if texts.is_empty() { ["0.34x", "0.5x", "0.7x"].map(String::from).to_vec() } else { texts };
    for (index, text) in texts.iter().enumerate() {
        let rows = text
            .parse::<Budget>()
            .and_then(|budget| study(&run, &[budget], &StudyOptions::default(), &Silent));
        match rows {
            Ok(rows) => {
                let table = study_table(&rows);
                // The heading once; each budget as soon as it is there.
                let lines = table.lines().skip(if index == 0 { 0 } else { 2 });
                lines.for_each(|line| println!("{line}"));
            }
            Err(error) => {
                eprintln!("error: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
