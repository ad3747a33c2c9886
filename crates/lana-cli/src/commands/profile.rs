use lana::Stage;

use super::stage::{self, RunArgument};
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana profile run";

/// Step: measure what every operation costs on this device
///
/// Writes RUN/latency/DEVICE.json, the lookup table. A run that moves to another device needs this step again, and no
/// other before selection. Does nothing when it is done already.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        stage::run(&self.run, Stage::Profile, &[], terminal)
    }
}
