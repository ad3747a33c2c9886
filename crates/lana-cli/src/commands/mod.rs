//! The subcommands, a file each.

mod deployment;
mod measure;
mod profile;
mod solve;
#[cfg(feature = "training")]
mod training;

use clap::Subcommand;

use crate::failure::Failure;
use crate::progress::Terminal;

/// What there is to do, in the order in which `lana --help` lists it.
#[derive(Subcommand)]
pub(crate) enum Command {
    #[cfg(feature = "training")]
    #[command(flatten)]
    Training(training::Command),
    Measure(Box<measure::Arguments>),
    Profile(profile::Arguments),
    Solve(solve::Arguments),
}

impl Command {
    /// Does it: results go to stdout, progress to `terminal`.
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        match self {
            #[cfg(feature = "training")]
            Command::Training(command) => command.run(terminal),
            Command::Measure(arguments) => arguments.run(terminal),
            Command::Profile(arguments) => arguments.run(terminal),
            Command::Solve(arguments) => arguments.run(),
        }
    }
}
