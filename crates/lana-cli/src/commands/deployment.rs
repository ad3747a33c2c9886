//! How networks are run, as options.

use std::num::NonZeroUsize;

use lana_latency::{Deployment, Precision, Processor, RuntimeKind};

/// What `accelerate` and `measure` ask alike.
#[derive(Clone, Debug, Default, clap::Args)]
#[command(next_help_heading = "Deployment")]
pub(super) struct DeploymentArguments {
    /// Runtime whose latency counts: onnxruntime, tensorrt (ONNX Runtime with it) or torch (eager) [default: onnxruntime]
    #[arg(long)]
    pub(super) runtime: Option<RuntimeKind>,

    /// Where it runs them: cpu or cuda [default: cpu]
    #[arg(long)]
    processor: Option<Processor>,

    /// In which number format: fp32, fp16 or bf16 [default: fp32]
    #[arg(long)]
    precision: Option<Precision>,

    /// Images in a batch when latency is measured [default: 1]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,

    /// Threads of the runtime when latency is measured [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl DeploymentArguments {
    /// The options that are given, over another deployment.
    pub(super) fn over(&self, base: Deployment) -> Deployment {
        Deployment {
            runtime: self.runtime.unwrap_or(base.runtime),
            processor: self.processor.unwrap_or(base.processor),
            precision: self.precision.unwrap_or(base.precision),
            batch: self.batch().unwrap_or(base.batch),
            threads: self.threads.map_or(base.threads, NonZeroUsize::get),
        }
    }

    /// The batch, if it is given.
    pub(super) fn batch(&self) -> Option<usize> {
        self.batch.map(NonZeroUsize::get)
    }
}
