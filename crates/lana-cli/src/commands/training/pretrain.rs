use lana::Stage;

use super::stage::{self, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana pretrain run";

/// Step: train every operation to imitate its layer
///
/// Writes RUN/operations. This is the long step; it is done once for a teacher, whatever the budgets and devices. Goes on
/// where it was interrupted, and does nothing when it is done already.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        stage::run(&self.run, Stage::Pretrain, &[], terminal)
    }
}
