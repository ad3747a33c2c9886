use lana::Stage;

use super::stage::{self, BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana finetune run --budget 0.5x";

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
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        stage::run(&self.run, Stage::Finetune, &self.budget.budgets()?, terminal)
    }
}
