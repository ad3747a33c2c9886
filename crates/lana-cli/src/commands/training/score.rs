use lana::Stage;

use super::stage::{self, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana score run";

/// Step: score every operation by what it does to the loss
///
/// Writes RUN/scores.json: the change of the teacher's loss, and its divergence, when one operation alone stands in the
/// place of its layer. Does nothing when it is done already.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        stage::run(&self.run, Stage::Score, &[], terminal)
    }
}
