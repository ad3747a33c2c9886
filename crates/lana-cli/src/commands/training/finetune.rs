use lana::{Comparison, Control, ControlOptions, FinetuneOptions, Recipe, WeightsSource};

use serde_json::json;

use super::stage::{BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana finetune run --budget 0.5x
  lana finetune run --budget 0.5x --recipe cifar
  lana finetune run --budget 0.5x --control skip-only
  lana finetune run --control resnet20_cifar --weights resnet20.safetensors";

/// Step: train the selected student with distillation from the teacher
///
/// Writes RUN/budgets/BUDGET/finetune, from which `lana export` makes the student. Goes on where it was interrupted, and does nothing when it is done already.
///
/// With --control, trains what the student must beat instead, exports and measures it, and prints both side by side.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,

    #[command(flatten)]
    budget: BudgetArgument,

    /// Train by this recipe, a preset of `lana recipe` or a TOML file, which takes the place of [finetune] in run.toml
    #[arg(long, value_name = "NAME|FILE.toml")]
    recipe: Option<String>,

    /// Make a control instead: the best selection of teacher's layers and identities (skip-only), a random one within the budget
    /// (random), one operation in all layers (uniform), a network of `lana zoo`, or an ONNX file
    #[arg(long, value_name = "skip-only|random|uniform|NAME|FILE.onnx")]
    control: Option<String>,

    /// First weights of a network that is a control, a safetensors file or hf:OWNER/REPO [default: random]
    #[arg(long, value_name = "FILE|hf:OWNER/REPO", requires = "control")]
    weights: Option<WeightsSource>,

    /// Print one JSON object instead of tables
    #[arg(long, requires = "control")]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let recipe = self.recipe.as_deref().map(Recipe::named).transpose()?;
        let budgets = self.budget.budgets()?;
        let Some(control) = &self.control else {
            return Ok(lana::finetune(&self.run.run, &FinetuneOptions { recipe }, &budgets, terminal)?);
        };
        let controls = vec![Control::new(control, self.weights.clone())?];
        let options = ControlOptions { controls, recipe };
        let comparisons = lana::control(&self.run.run, &options, &budgets, terminal)?;
        if self.json {
            return output::json(&json!({ "comparisons": comparisons }));
        }
        output::results(&comparisons.iter().map(compared).collect::<Vec<_>>().join("\n"))
    }
}

/// The student of a budget beside its controls.
pub(super) fn compared(comparison: &Comparison) -> String {
    let mut table = Table::new(&[
        ("network", Align::Left),
        ("top-1", Align::Right),
        ("±", Align::Right),
        ("difference", Align::Right),
        ("ratio", Align::Right),
        ("budget", Align::Left),
        ("parameters", Align::Right),
    ]);
    let met = |met: Option<bool>| match met {
        Some(true) => "met",
        Some(false) => "NOT met",
        None => "not measured",
    };
    if let Some(student) = &comparison.student {
        table.row([
            "student".to_string(),
            format::percent(student.top1),
            format::percent(student.val.top1_error()),
            "–".into(),
            format::ratio(student.ratio()),
            met(student.measured.map(|_| student.meets_budget)).to_string(),
            format::short(student.cost.params),
        ]);
    }
    for control in &comparison.controls {
        table.row([
            format!("{}{}", control.control, if control.same_recipe { "" } else { " (another recipe)" }),
            format::percent(control.val.top1),
            format::percent(control.top1_error),
            control.difference.map_or("–".into(), |difference| {
                format!("{:+.2} ± {:.2}", 100.0 * difference.top1, 100.0 * difference.error)
            }),
            control.ratio().map_or("–".into(), format::ratio),
            met(control.meets_budget).to_string(),
            format::short(control.cost.params),
        ]);
    }
    let none = match comparison.student {
        Some(_) => "",
        None => "There is no student yet to compare with: `lana accelerate` makes it.\n",
    };
    format!("{}\n{table}{none}", comparison.budget)
}
