//! `cargo xtask bench score`: what scores save by running only what lies behind the layer.
//!
//! On a run that has trained operations; without one, a run with operations that have seen 256 generated images is made
//! under target/: how fast scoring is does not depend on what they learned.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use super::lana;
use crate::command::{self, workspace_root};
use crate::setup;

/// What is scored.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run directory, of any step after `pretrain` [default: one that is made]
    run: Option<PathBuf>,
    /// The teacher of a run that is made
    #[arg(long, default_value = "resnet56_cifar")]
    teacher: String,
    /// Its weights
    #[arg(long, default_value = "../shared/weights/resnet56_cifar10jpeg.safetensors")]
    weights: String,
    /// About how many operations are scored both ways
    #[arg(long, default_value_t = 40)]
    operations: usize,
}

/// Times, and prints the ratio.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let run = match &arguments.run {
        Some(run) => run.clone(),
        None => {
            let run = workspace_root().join("target").join("bench-score").join(&arguments.teacher);
            let configuration = run.with_extension("toml");
            if let Some(folder) = configuration.parent() {
                std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            }
            let text = "[latency]\ntime_limit_s = 20.0\n\n[pretrain]\nbatch = 32\n\n[score]\nimages = 128\nbatch = 128\n";
            std::fs::write(&configuration, text)
                .with_context(|| format!("writing {}", configuration.display()))?;
            let status =
                lana(&["accelerate", "--until", "pretrain", "--images", "256", "--num-classes", "10"])
                    .args(["--teacher", &arguments.teacher, "--weights", &arguments.weights])
                    .args([
                        "--train",
                        "generated:shapes?images=256",
                        "--val",
                        "generated:shapes?images=64&split=val",
                    ])
                    .arg("--config")
                    .arg(&configuration)
                    .arg("--out")
                    .arg(&run)
                    .status()
                    .context("starting lana")?;
            if !status.success() {
                return Ok(command::exit_code(status));
            }
            run
        }
    };
    let status = command::cargo()
        .args(["run", "--quiet", "--release", "--package", "lana", "--example", "score_speed", "--"])
        .arg(&run)
        .arg(arguments.operations.to_string())
        .status()
        .context("starting cargo")?;
    Ok(command::exit_code(status))
}
