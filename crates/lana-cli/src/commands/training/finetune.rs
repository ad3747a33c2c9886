use lana::{FinetuneOptions, Recipe};

use super::stage::{BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana finetune run --budget 0.5x
  lana finetune run --budget 0.5x --recipe cifar";

/// Step: train the selected student with distillation from the teacher
///
/// Writes RUN/budgets/BUDGET/finetune, from which `lana export` makes the student. Goes on where it was interrupted, and does nothing when it is done already.
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
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let options = FinetuneOptions { recipe: self.recipe.as_deref().map(Recipe::named).transpose()? };
        Ok(lana::finetune(&self.run.run, &options, &self.budget.budgets()?, terminal)?)
    }
}
