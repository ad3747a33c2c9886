//! `cargo xtask bench`: benchmarks that need more than cargo.

pub(crate) mod accuracy;
pub(crate) mod data;
pub(crate) mod finetune;
pub(crate) mod phase1;
pub(crate) mod pool;
mod prune;
pub(crate) mod score;
mod turns;

use std::ffi::OsString;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::command::{self, workspace_root};
use crate::python::{self, Environment};

/// Solvers from the package index that `lana-select` is measured against.
const RIVALS: [&str; 2] = ["highspy==1.15.1", "pulp==3.3.2"];

/// Times the solver on generated tables and on problems from files, then HiGHS and CBC on the same problems.
///
/// `arguments` are those of `cargo bench -p lana-select`.
pub(crate) fn select(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let folder = workspace_root().join("target").join("bench-select");
    let problems = folder.join("problems");
    if problems.exists() {
        std::fs::remove_dir_all(&problems).with_context(|| format!("clearing {}", problems.display()))?;
    }
    let status = command::cargo()
        .args(["bench", "--package", "lana-select", "--bench", "families", "--", "--dump"])
        .arg(&problems)
        .args(arguments)
        .status()
        .context("starting cargo")?;
    if !status.success() {
        return Ok(command::exit_code(status));
    }
    let environment = Environment {
        home: folder.join("venv"),
        packages: &RIVALS,
        alone: &[],
        finish: None,
        hint: "the rivals need Python 3 with venv and a package index; `cargo bench -p lana-select` does without",
    };
    let script = python::script("bench/rivals.py");
    let status =
        Command::new(environment.python()?).arg(script).arg(&problems).status().context("starting python")?;
    Ok(command::exit_code(status))
}

/// What a benchmark of the whole method is run on.
#[derive(clap::Args)]
pub(crate) struct Subject {
    /// The teacher
    #[arg(long, default_value = "resnet56_cifar")]
    pub(crate) teacher: String,
    /// Its weights
    #[arg(long, default_value = "../shared/weights/resnet56_cifar10jpeg.safetensors")]
    pub(crate) weights: String,
    /// Training images
    #[arg(long, default_value = "webdataset:../shared/data/cifar10/jpeg-train-{0000..0004}.tar")]
    pub(crate) train: String,
    /// Validation images
    #[arg(long, default_value = "webdataset:../shared/data/cifar10/jpeg-test-0000.tar")]
    pub(crate) val: String,
}

impl Subject {
    /// `lana accelerate` on it.
    pub(crate) fn accelerate(&self) -> Command {
        let Subject { teacher, weights, train, val } = self;
        lana(&["accelerate", "--teacher", teacher, "--weights", weights, "--train", train, "--val", val])
    }
}

/// An optimised `lana` with these arguments.
pub(crate) fn lana(arguments: &[&str]) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--quiet", "--release", "--package", "lana-cli", "--bin", "lana", "--"])
        .args(arguments);
    cargo
}
