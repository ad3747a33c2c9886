//! `cargo xtask parity --students`: do networks compute the same as the PyTorch text that `lana export --format pytorch` writes?
//!
//! The example `parity` of lana-pytorch writes teachers and students of the zoo and the pool; `xtask/parity/students.py` runs them
//! in PyTorch, in ONNX Runtime and, where timm has the network, beside timm's.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::{command, python};

/// Compares by means of `python`: the teachers `names`, or a selection of teachers and students; the exit status is 1 if one
/// differs.
pub(crate) fn run(python: &Path, names: &[String]) -> anyhow::Result<ExitCode> {
    let status = command::cargo()
        .args(["run", "--quiet", "--package", "lana-pytorch", "--example", "parity", "--"])
        .arg(python)
        .arg(python::script("parity/students.py"))
        .arg(super::folder())
        .args(names)
        .status()
        .context("starting cargo")?;
    Ok(command::exit_code(status))
}
