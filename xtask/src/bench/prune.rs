//! The teacher with fewer channels, by Torch-Pruning: a rival of [`super::accuracy`] that users would take without lana.
//!
//! `xtask/bench/prune.py` takes away the share that it is told of the channels that may go, everywhere in the network at once. Which share meets a
//! budget is found here, by halving intervals: each network is measured in turns with the teacher. What is kept is the widest that
//! meets the budget, or if none does, the narrowest.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;
use serde_json::Value;

use super::lana;
use crate::command;
use crate::{parity, python};

/// How the networks' names begin.
pub(super) const FILES: &str = "channels-pruned-";
/// Networks that are tried.
const TRIALS: usize = 8;
/// Share of a budget that is left for noise.
const MARGIN: f64 = 0.015;

/// The file of the widest network for a budget such as `0.5x`, made of the teacher of `run`, or of the narrowest if none meets it; none
/// if the budget is another kind.
pub(super) fn pruned(run: &Path, budget: &str, batch: usize) -> anyhow::Result<Option<PathBuf>> {
    let Some(limit) = budget.strip_suffix('x').and_then(|share| share.parse::<f64>().ok()) else {
        eprintln!("channels are pruned to a share of the teacher's latency such as 0.5x, not to {budget}");
        return Ok(None);
    };
    let folder = run.join("pruned");
    // There only when the search has ended.
    let best = folder.join(file_name(budget));
    if best.exists() {
        return Ok(Some(best));
    }
    let python = parity::python()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    for name in ["graph.json", "weights.safetensors"] {
        let from = run.join("teacher").join(name);
        std::fs::copy(&from, folder.join(name)).with_context(|| format!("copying {}", from.display()))?;
    }
    let text = command::cargo()
        .args(["run", "--quiet", "--release", "--package", "lana-pytorch", "--example", "text", "--"])
        .arg(folder.join("graph.json"))
        .stderr(Stdio::inherit())
        .output()
        .context("starting cargo")?;
    anyhow::ensure!(text.status.success(), "the teacher could not be written as PyTorch");
    std::fs::write(folder.join("network.py"), &text.stdout).context("writing network.py")?;

    let teacher = run.join("teacher/teacher.onnx");
    let (trial, widest) = (folder.join("trial.onnx"), folder.join("widest.onnx"));
    let (mut least, mut most, mut found) = (0.0, 1.0, false);
    for _ in 0..TRIALS {
        let share = (least + most) / 2.0;
        let mut prune = Command::new(&python);
        prune.args(["-W", "ignore"]).arg(python::script("bench/prune.py")).arg(&folder);
        let made = prune.arg(share.to_string()).arg(&trial).status().context("starting python")?;
        anyhow::ensure!(made.success(), "{prune:?} failed");
        let ratio = ratio(&teacher, &trial, batch)?;
        eprintln!(
            "{:.1} % of the channels that may go pruned: {ratio:.3} of the teacher's latency",
            100.0 * share
        );
        if ratio <= limit * (1.0 - MARGIN) {
            std::fs::rename(&trial, &widest).with_context(|| format!("writing {}", widest.display()))?;
            (most, found) = (share, true);
        } else {
            least = share;
        }
    }
    if !found {
        eprintln!("no share of channels meets {budget}: the narrowest network is taken");
    }
    std::fs::rename(if found { &widest } else { &trial }, &best)
        .with_context(|| format!("writing {}", best.display()))?;
    // What did not become a control; the next search writes it again.
    let _ = std::fs::remove_file(&trial);
    Ok(Some(best))
}

/// What the network for a budget is called.
pub(super) fn file_name(budget: &str) -> String {
    format!("{FILES}{budget}.onnx")
}

/// The latency of a file, as a share of another's.
fn ratio(teacher: &Path, file: &Path, batch: usize) -> anyhow::Result<f64> {
    let mut measure = lana(&["measure", "--json", "--threads", "1", "--batch", &batch.to_string()]);
    let output = measure.arg(teacher).arg(file).stderr(Stdio::inherit()).output().context("starting lana")?;
    anyhow::ensure!(output.status.success(), "{measure:?} failed");
    let record: Value = serde_json::from_slice(&output.stdout).context("reading what lana measured")?;
    record["models"][1]["ratio"].as_f64().context("lana measured no ratio")
}
