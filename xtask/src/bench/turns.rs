//! Two sides that do the same work in turns: a Python script and an example of ours, each a process for each turn that prints one
//! JSON object.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::Context;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::command::{self, workspace_root};

/// What a side prints of a turn.
#[derive(Deserialize)]
pub(super) struct Turn<More> {
    /// What it does in a second.
    pub(super) rate: f64,
    /// The largest resident memory, of the process and its workers.
    peak_mb: f64,
    /// What else the benchmark asks for.
    #[serde(flatten)]
    pub(super) more: More,
}

/// What a side prints that tells no more.
#[derive(Deserialize)]
pub(super) struct Nothing {}

/// The turns of one side.
pub(super) struct Side<More>(Vec<Turn<More>>);

impl<More> Default for Side<More> {
    fn default() -> Self {
        Side(Vec::new())
    }
}

impl<More: DeserializeOwned> Side<More> {
    /// Takes a turn.
    pub(super) fn run(&mut self, command: &mut Command) -> anyhow::Result<()> {
        let output = command.stderr(Stdio::inherit()).output().context("starting a side of the benchmark")?;
        anyhow::ensure!(output.status.success(), "{command:?} failed");
        let turn =
            serde_json::from_slice(&output.stdout).context("reading what a side of the benchmark printed")?;
        self.0.push(turn);
        Ok(())
    }
}

impl<More> Side<More> {
    /// The turns so far.
    pub(super) fn turns(&self) -> &[Turn<More>] {
        &self.0
    }

    /// The median rate.
    pub(super) fn rate(&self) -> f64 {
        self.median(|turn| turn.rate)
    }

    /// The median of something.
    pub(super) fn median(&self, what: impl Fn(&Turn<More>) -> f64) -> f64 {
        let mut values: Vec<f64> = self.0.iter().map(what).collect();
        values.sort_by(f64::total_cmp);
        match values.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => values[n / 2],
            n => (values[n / 2 - 1] + values[n / 2]) / 2.0,
        }
    }

    /// The largest memory of all turns.
    pub(super) fn peak_mb(&self) -> f64 {
        self.0.iter().map(|turn| turn.peak_mb).fold(0.0, f64::max)
    }
}

/// Builds an example, optimised, and gives its path.
pub(super) fn example(package: &str, name: &str) -> anyhow::Result<PathBuf> {
    let status = command::cargo()
        .args(["build", "--release", "--package", package, "--example", name])
        .status()
        .context("starting cargo")?;
    anyhow::ensure!(status.success(), "the example {name} of {package} did not build");
    Ok(target().join("release/examples").join(name))
}

/// The folder that cargo builds in.
pub(super) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace_root().join("target"), PathBuf::from)
}
