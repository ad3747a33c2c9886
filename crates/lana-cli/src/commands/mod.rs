//! The subcommands, a file each.

mod accelerate;
mod demo;
mod evaluate;
mod export;
mod finetune;
mod measure;
mod measure_request;
mod network;
mod pool;
mod pretrain;
mod profile;
mod report;
mod score;
mod select;
mod solve;
mod stage;
mod status;
mod summary;
mod zoo;

use clap::Subcommand;

use network::Network;

use crate::failure::Failure;
use crate::progress::Terminal;

/// What there is to do, in the order in which `lana --help` lists it.
#[derive(Subcommand)]
pub(crate) enum Command {
    Accelerate(Box<accelerate::Arguments>),
    Demo(demo::Arguments),
    Status(status::Arguments),
    Measure(measure::Arguments),
    Evaluate(evaluate::Arguments),
    Zoo(zoo::Arguments),
    Pool(pool::Arguments),
    Solve(solve::Arguments),
    Profile(profile::Arguments),
    Pretrain(pretrain::Arguments),
    Score(score::Arguments),
    Select(select::Arguments),
    Finetune(finetune::Arguments),
    Export(export::Arguments),
    Report(report::Arguments),
    #[command(name = lana::MEASURE_COMMAND, hide = true)]
    MeasureRequest(measure_request::Arguments),
}

impl Command {
    /// Does it: results go to stdout, progress to `terminal`.
    pub(crate) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        match self {
            Command::Accelerate(arguments) => arguments.run(terminal),
            Command::Demo(arguments) => arguments.run(terminal),
            Command::Status(arguments) => arguments.run(),
            Command::Measure(arguments) => arguments.run(terminal),
            Command::Evaluate(arguments) => arguments.run(terminal),
            Command::Zoo(arguments) => arguments.run(),
            Command::Pool(arguments) => arguments.run(),
            Command::Solve(arguments) => arguments.run(),
            Command::Profile(arguments) => arguments.run(terminal),
            Command::Pretrain(arguments) => arguments.run(terminal),
            Command::Score(arguments) => arguments.run(terminal),
            Command::Select(arguments) => arguments.run(terminal),
            Command::Finetune(arguments) => arguments.run(terminal),
            Command::Export(arguments) => arguments.run(terminal),
            Command::Report(arguments) => arguments.run(terminal),
            Command::MeasureRequest(arguments) => arguments.run(),
        }
    }
}
