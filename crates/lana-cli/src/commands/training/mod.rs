//! The commands that train, or work on runs: what the feature `training` adds.

mod accelerate;
mod demo;
mod evaluate;
mod export;
mod finetune;
mod layers;
mod measure_request;
mod network;
mod pool;
mod preprocessing;
mod pretrain;
mod recipe;
mod report;
mod score;
mod select;
mod stage;
mod status;
mod summary;
mod train;
mod zoo;

use clap::Subcommand;

use network::Network;
use preprocessing::Preprocessing;

use crate::failure::Failure;
use crate::progress::Terminal;

/// In the order in which `lana --help` lists them.
#[derive(Subcommand)]
pub(crate) enum Command {
    Accelerate(Box<accelerate::Arguments>),
    Demo(demo::Arguments),
    Status(status::Arguments),
    Evaluate(evaluate::Arguments),
    Train(Box<train::Arguments>),
    Zoo(zoo::Arguments),
    Layers(layers::Arguments),
    Pool(pool::Arguments),
    Pretrain(pretrain::Arguments),
    Score(score::Arguments),
    Select(select::Arguments),
    Finetune(finetune::Arguments),
    Recipe(recipe::Arguments),
    Export(export::Arguments),
    Report(report::Arguments),
    #[command(name = lana::MEASURE_COMMAND, hide = true)]
    MeasureRequest(measure_request::Arguments),
}

impl Command {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        // Without a path to this program, what counts is measured in this process.
        if let Ok(program) = std::env::current_exe() {
            lana::measure_in_processes_of(program);
        }
        match self {
            Command::Accelerate(arguments) => arguments.run(terminal),
            Command::Demo(arguments) => arguments.run(terminal),
            Command::Status(arguments) => arguments.run(),
            Command::Evaluate(arguments) => arguments.run(terminal),
            Command::Train(arguments) => arguments.run(terminal),
            Command::Zoo(arguments) => arguments.run(),
            Command::Layers(arguments) => arguments.run(),
            Command::Pool(arguments) => arguments.run(),
            Command::Pretrain(arguments) => arguments.run(terminal),
            Command::Score(arguments) => arguments.run(terminal),
            Command::Select(arguments) => arguments.run(terminal),
            Command::Finetune(arguments) => arguments.run(terminal),
            Command::Recipe(arguments) => arguments.run(),
            Command::Export(arguments) => arguments.run(terminal),
            Command::Report(arguments) => arguments.run(terminal),
            Command::MeasureRequest(arguments) => arguments.run(),
        }
    }
}
