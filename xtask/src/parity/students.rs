//! `cargo xtask parity --students`: do networks compute the same as the PyTorch text that `lana export --format pytorch` writes?
//!
//! The example `parity` of lana-pytorch writes teachers and students of the zoo and the pool; `xtask/parity/students.py` runs them
//! in PyTorch, in ONNX Runtime and, where timm has the network, beside timm's. What is read from other tools' ONNX files
//! ([`IMPORTED`]) is compared with those files.

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;

use crate::{command, python};

/// Networks whose files have most of what there is, by who writes them: convolutions alone and side by side, gates and hard
/// activations, layer normalisation with channels last, attention, and what converters from TensorFlow make.
const IMPORTED: &[(&str, &str)] = &[
    ("squeezenet1_1", "script"),
    ("mobilenet_v3_small", "script"),
    ("shufflenet_v2_x1_0", "script"),
    ("timm/convnextv2_atto", "script"),
    ("timm/deit_tiny_patch16_224", "script"),
    ("keras/mobilenet_v2", "tf2onnx"),
    ("keras/efficientnet", "tf2onnx"),
];

/// Compares by means of `python`: the teachers `names`, or a selection of teachers, students and imported networks; the exit
/// status is 1 if one differs.
pub(crate) fn run(python: &Path, names: &[String]) -> anyhow::Result<ExitCode> {
    let imported = if names.is_empty() { super::onnx::written(IMPORTED)? } else { Vec::new() };
    let status = command::cargo()
        .args(["run", "--quiet", "--package", "lana-pytorch", "--example", "parity", "--"])
        .arg(python)
        .arg(python::script("parity/students.py"))
        .arg(super::folder())
        .args(names)
        .args(&imported)
        .status()
        .context("starting cargo")?;
    for file in &imported {
        std::fs::remove_file(file).with_context(|| format!("removing {}", file.display()))?;
    }
    Ok(command::exit_code(status))
}
