//! Which recipe trains a student best: one row of a table for each.
//!
//! `cargo run --release -p lana --example recipes -- RUN BUDGET IMAGES EPOCHS [KEYS…]`, where RUN holds the selection of a student for
//! BUDGET. Each KEYS, such as `"labels = 0, temperature = 2"`, is put over the run's own recipe (`""` for that itself). All train the
//! student from the same weights on the first IMAGES training images (0: on all). Rows are kept in the run: what is there is only
//! printed, what was interrupted goes on.
#![allow(clippy::print_stdout, clippy::print_stderr)] // its result

use std::path::Path;
use std::process::ExitCode;

use lana::{Budget, Progress, Recipe, Run, compare_recipes};

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

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Keys over a recipe, key by key in its tables too.
fn over(base: &Recipe, keys: &str) -> Result<Recipe, Box<dyn std::error::Error>> {
    fn put(over: &mut toml::Table, given: toml::Table) {
        for (key, value) in given {
            match (over.get_mut(&key), value) {
                (Some(toml::Value::Table(inner)), toml::Value::Table(value)) => put(inner, value),
                (_, value) => drop(over.insert(key, value)),
            }
        }
    }
    let mut given: toml::Table = toml::from_str(&format!("keys = {{ {keys} }}"))?;
    let given = given.remove("keys").and_then(|keys| keys.as_table().cloned()).unwrap_or_default();
    if given.contains_key("recipe") {
        return Err("the keys are put over the run's own recipe: name keys, not another recipe".into());
    }
    let mut all = toml::Table::try_from(base)?;
    put(&mut all, given);
    Ok(all.try_into()?)
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, budget, images, epochs, keys @ ..] = arguments.as_slice() else {
        return Err("usage: recipes RUN BUDGET IMAGES EPOCHS [KEYS…]".into());
    };
    let images = Some(images.parse::<usize>()?).filter(|&images| images > 0);
    let mut base = Run::open(Path::new(path))?.config()?.finetune;
    base.epochs = epochs.parse()?;
    let mut recipes = Vec::new();
    for keys in keys {
        let name = if keys.trim().is_empty() { "the run's recipe" } else { keys.trim() };
        recipes.push((name.to_string(), over(&base, keys).map_err(|error| format!("{name}: {error}"))?));
    }
    println!("| recipe | top-1 | ± | loss | agreement | calibration error | s |");
    println!("|---|---|---|---|---|---|---|");
    compare_recipes(Path::new(path), &budget.parse::<Budget>()?, &recipes, images, &Telling, |row| {
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
