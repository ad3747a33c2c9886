use lana::Stage;

use super::stage::{self, RunArgument};
use crate::failure::Failure;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana report run";

/// Step: write the report, one page that holds everything
///
/// Writes RUN/report.html from what the run holds, finished or not, and prints its path.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        stage::run(&self.run, Stage::Report, &[], terminal)?;
        output::results(&self.run.run.join("report.html").display().to_string())
    }
}
