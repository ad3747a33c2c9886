use lana::Stage;

use super::stage::{self, BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana select run --budget 0.5x";

/// Step: find the selection of operations that meets a budget
///
/// Solves the integer program, evaluates and measures its solutions, and keeps the best one that meets the budget by
/// measurement. Budgets that run.toml does not list yet are added to it. Ends with status 3 if no selection can meet a
/// budget.
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
        stage::run(&self.run, Stage::Select, &self.budget.budgets()?, terminal)
    }
}
