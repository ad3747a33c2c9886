use lana::Stage;

use super::stage::{self, BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana export run --budget 0.5x";

/// Step: write the student as ONNX, verify it and measure it
///
/// The file is compared with the trained network output by output, and measured in turns with the teacher. Prints the
/// path of each file.
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
        let budgets = self.budget.budgets()?;
        stage::run(&self.run, Stage::Export, &budgets, terminal)?;
        let paths: Vec<String> = stage::budgets_or_all(&self.run.run, budgets)?
            .iter()
            .map(|budget| stage::student_file(&self.run.run, &budget.to_string()).display().to_string())
            .collect();
        output::results(&paths.join("\n"))
    }
}
