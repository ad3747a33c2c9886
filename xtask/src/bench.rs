//! `cargo xtask bench`: benchmarks that need more than cargo.

pub(crate) mod accuracy;
pub(crate) mod data;
pub(crate) mod finetune;
pub(crate) mod phase1;
pub(crate) mod pool;
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

/// An optimised `lana` with these arguments.
pub(crate) fn lana(arguments: &[&str]) -> Command {
    let mut cargo = command::cargo();
    cargo
        .args(["run", "--quiet", "--release", "--package", "lana-cli", "--bin", "lana", "--"])
        .args(arguments);
    cargo
}
