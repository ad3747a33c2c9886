//! Which mixture of cross-entropy, distillation and feature maps trains a student best: one row of a table for each.
//!
//! `cargo run --release -p lana --example mixtures -- RUN BUDGET [IMAGES] [EPOCHS] [NAME…]`, where RUN holds the selection of a student
//! for BUDGET. Each mixture trains it from the same weights on IMAGES training images (0 or none: all), by the run's recipe but for the
//! weights. Rows are kept in the run: what is there is only printed.
#![allow(clippy::print_stdout, clippy::print_stderr)] // its result

use std::path::Path;
use std::process::ExitCode;

use lana::{Budget, Course, MatchingKind, Progress, Recipe, Run, Shape, compare_recipes};

/// Says what happens on stderr.
struct Telling;

impl Progress for Telling {
    fn say(&self, line: &str) {
        eprintln!("{line}");
    }

    fn warn(&self, line: &str) {
        eprintln!("warning: {line}");
    }
}

/// The mixtures by name: weight of the labels, of `T² KL`, T, weight of feature maps, how they are compared.
fn mixtures(base: &Recipe) -> Vec<(String, Recipe)> {
    let mix =
        |labels: f64, distillation: f64, temperature: f64, features: Course, matching: MatchingKind| Recipe {
            labels: labels.into(),
            distillation: distillation.into(),
            temperature,
            features,
            matching,
            ..base.clone()
        };
    let falling = |from: f64| Course::Changing { from, to: 0.0, shape: Shape::Cosine };
    let (none, cosine, mse) = (Course::from(0.0), MatchingKind::Cosine, MatchingKind::Mse);
    let list = [
        ("labels alone", mix(1.0, 0.0, 1.0, none, cosine)),
        ("KL alone, T = 1", mix(0.0, 1.0, 1.0, none, cosine)),
        ("KL alone, T = 2", mix(0.0, 1.0, 2.0, none, cosine)),
        ("KL alone, T = 4", mix(0.0, 1.0, 4.0, none, cosine)),
        ("labels + KL, T = 1", mix(1.0, 1.0, 1.0, none, cosine)),
        ("labels + KL, T = 2", mix(1.0, 1.0, 2.0, none, cosine)),
        ("labels + KL, T = 4", mix(1.0, 1.0, 4.0, none, cosine)),
        ("labels + 4 KL, T = 2", mix(1.0, 4.0, 2.0, none, cosine)),
        ("labels + KL, T = 2, + cosine", mix(1.0, 1.0, 2.0, 1.0.into(), cosine)),
        ("labels + KL, T = 2, + cosine falling", mix(1.0, 1.0, 2.0, falling(2.0), cosine)),
        ("labels + KL, T = 2, + MSE", mix(1.0, 1.0, 2.0, 1.0.into(), mse)),
        ("labels + KL, T = 2, + MSE falling", mix(1.0, 1.0, 2.0, falling(2.0), mse)),
    ];
    list.into_iter().map(|(name, recipe)| (name.to_string(), recipe)).collect()
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, budget, rest @ ..] = arguments.as_slice() else {
        return Err("usage: mixtures RUN BUDGET [IMAGES] [EPOCHS] [NAME…]".into());
    };
    let images = rest.first().map(|n| n.parse::<usize>()).transpose()?.filter(|n| *n > 0);
    let mut base = Run::open(Path::new(path))?.config()?.finetune;
    if let Some(epochs) = rest.get(1) {
        base.epochs = epochs.parse()?;
    }
    let names = rest.get(2..).unwrap_or_default();
    let mut all = mixtures(&base);
    all.retain(|(name, _)| names.is_empty() || names.contains(name));
    println!("| mixture | top-1 | ± | loss | agreement | calibration error | s |");
    println!("|---|---|---|---|---|---|---|");
    compare_recipes(Path::new(path), &budget.parse::<Budget>()?, &all, images, &Telling, |row| {
        let a = &row.assessment;
        println!(
            "| {} | {:.2} % | {:.2} | {:.4} | {:.2} % | {:.4} | {:.0} |",
            row.name,
            100.0 * a.accuracy.top1,
            100.0 * a.top1_error,
            a.accuracy.loss,
            100.0 * a.agreement.unwrap_or(f64::NAN),
            a.calibration_error,
            row.seconds
        );
    })?;
    Ok(())
}
