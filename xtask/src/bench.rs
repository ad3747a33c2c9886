//! `cargo xtask bench`: benchmarks that need more than cargo.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::command::{self, workspace_root};
use crate::failure::Failure;

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
    let python = environment(&folder)?;
    let script = workspace_root().join("xtask").join("bench").join("rivals.py");
    let status = Command::new(python).arg(script).arg(&problems).status().context("starting python")?;
    Ok(command::exit_code(status))
}

/// The bench's own virtual environment with the rivals in it, made if it is not there.
fn environment(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let home = folder.join("venv");
    let python = home.join("bin").join("python");
    let marker = home.join(RIVALS.join("+"));
    if marker.is_file() {
        return Ok(python);
    }
    eprintln!("fetching {} into {}", RIVALS.join(" and "), home.display());
    let hint =
        "the rivals need Python 3 with venv and a package index; `cargo bench -p lana-select` does without";
    let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&home).status();
    if !made.is_ok_and(|status| status.success()) {
        return Err(Failure::error("python3 -m venv failed", hint));
    }
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]).args(RIVALS);
    if !pip.status().is_ok_and(|status| status.success()) {
        return Err(Failure::error(format!("pip could not install {}", RIVALS.join(" and ")), hint));
    }
    std::fs::write(&marker, "").with_context(|| format!("writing {}", marker.display()))?;
    Ok(python)
}
