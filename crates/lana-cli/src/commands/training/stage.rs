//! What the commands for single stages have in common.

use std::path::{Path, PathBuf};

use lana::{Budget, Stage};

use crate::failure::Failure;
use crate::progress::Terminal;

/// The run directory a stage works on.
#[derive(clap::Args)]
pub(super) struct RunArgument {
    /// The run directory that `lana accelerate --out` made
    #[arg(value_name = "RUN")]
    pub(super) run: PathBuf,
}

/// The budgets a stage works on.
#[derive(clap::Args)]
pub(super) struct BudgetArgument {
    /// Budget to work on, such as 0.5x (`lana accelerate --help` has the forms); may be given several times [default: all
    /// in run.toml]
    #[arg(long, value_name = "BUDGET", allow_hyphen_values = true)]
    budget: Vec<String>,
}

impl BudgetArgument {
    /// The budgets, or an error that says how to write one.
    pub(super) fn budgets(&self) -> Result<Vec<Budget>, Failure> {
        budgets(&self.budget)
    }
}

/// Reads budgets; one given twice counts once.
pub(super) fn budgets(texts: &[String]) -> Result<Vec<Budget>, Failure> {
    let mut budgets: Vec<Budget> = Vec::new();
    for text in texts {
        let budget = text.parse()?;
        if !budgets.contains(&budget) {
            budgets.push(budget);
        }
    }
    Ok(budgets)
}

/// Runs one stage.
pub(super) fn run(
    run: &RunArgument,
    stage: Stage,
    budgets: &[Budget],
    terminal: &Terminal,
) -> Result<(), Failure> {
    Ok(lana::run_stage(&run.run, stage, budgets, terminal)?)
}

/// Where the exported student of a budget is.
pub(super) fn student_file(run: &Path, budget: &str) -> PathBuf {
    let folder = budget.parse::<Budget>().map_or_else(|_| budget.to_string(), |budget| budget.folder());
    run.join("budgets").join(folder).join("student").join("student.onnx")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_has_a_folder_that_file_systems_take() {
        let file = student_file(Path::new("run"), "cpu-b1:0.5x,size=2MB");
        assert_eq!(file, Path::new("run/budgets/cpu-b1@0.5x,size=2MB/student/student.onnx"));
    }

    #[test]
    fn a_budget_counts_once() {
        let texts = ["0.5x", "12ms", "0.5x"].map(String::from);
        assert_eq!(budgets(&texts).unwrap().len(), 2);
        assert_eq!(budgets(&["fast".to_string()]).unwrap_err().exit_status(), 2);
    }
}
