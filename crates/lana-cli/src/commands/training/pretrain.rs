use lana::{Memory, PretrainOptions, Shard};

use super::stage::RunArgument;
use crate::failure::Failure;
use crate::progress::Terminal;

const EXAMPLE: &str = "Example:\n  lana pretrain run\n  lana pretrain run --memory 8GiB\n  CUDA_VISIBLE_DEVICES=1 lana pretrain run --shard 2/2";

/// Step: train every operation to imitate its layer
///
/// Writes RUN/operations. This is the long step; it is done once for a teacher, whatever the budgets and devices. Goes on
/// where it was interrupted, and does nothing when it is done already. How many passes over the images it takes depends on memory; what it
/// gives does not.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,

    /// Do only part K of N, such as 2/4, beside other processes that do theirs of the same N: on this machine or on others that
    /// see the same files
    #[arg(long, value_name = "K/N")]
    shard: Option<Shard>,

    /// Memory to take at most, such as 8GiB; what does not fit takes further passes over the images [default: that of run.toml,
    /// else 70 % of what is free]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Memory>,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let options = PretrainOptions { shard: self.shard, memory: self.memory };
        Ok(lana::pretrain(&self.run.run, &options, terminal)?)
    }
}
