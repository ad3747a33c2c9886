//! `cargo xtask demo`: the demonstration, from a fresh clone.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Context;

use crate::{command, setup};

/// Sets up, then runs `lana demo` with `arguments`, optimised. Its exit status is handed on.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    setup::run()?;
    let status = command::cargo()
        .args(["run", "--release", "--package", "lana-cli", "--bin", "lana", "--", "demo"])
        .args(arguments)
        .status()
        .context("starting cargo")?;
    Ok(command::exit_code(status))
}
