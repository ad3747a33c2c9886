//! `cargo xtask parity`: do the zoo's networks compute what timm's compute?
//!
//! The comparing is done by the example `parity` of lana-torch (networks) and that of lana-data (images); here timm is got ready,
//! and both are brought together. [`onnx`] compares ONNX files, [`students`] networks with their PyTorch text.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::command::{self, workspace_root};
use crate::python::{self, Environment};
use crate::setup;

pub(crate) mod onnx;
pub(crate) mod students;

/// What timm, torch and torchvision need to be imported, but for each other and for CUDA; and what PyTorch needs to write ONNX
/// files and Python to run them.
const PACKAGES: &[&str] = &[
    "filelock",
    "fsspec",
    "huggingface_hub",
    "jinja2",
    "networkx",
    "numpy",
    "onnx==1.23.2",
    "onnxruntime==1.32.0",
    "onnxscript==0.7.2",
    "pillow",
    "pyyaml",
    "safetensors",
    "setuptools",
    "sympy",
    "typing-extensions",
];

/// The references. torch asks for gigabytes of CUDA libraries, `cpu_torch.py` makes it do without.
const REFERENCE: &[&str] = &["timm==1.0.31", "torchvision==0.26.0", "torch-pruning==1.6.1"];

/// Compares the networks `names`, or all that timm has, or a small one of each family.
pub(crate) fn run(names: &[String], all: bool) -> anyhow::Result<ExitCode> {
    setup::run()?;
    compare(&python()?, names, all)
}

/// Compares what becomes of images with what PIL and timm make of them; the exit status is 1 if they differ.
pub(crate) fn data() -> anyhow::Result<ExitCode> {
    let folder = folder().join("data");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("clearing {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let script = python::script("parity/timm_data.py");
    let made = Command::new(python()?).arg(script).arg(&folder).status().context("starting python")?;
    if !made.success() {
        return Ok(command::exit_code(made));
    }
    let status = command::cargo()
        .args(["run", "--quiet", "--package", "lana-data", "--example", "parity", "--"])
        .arg(&folder)
        .status()
        .context("starting cargo")?;
    Ok(command::exit_code(status))
}

/// A Python that has timm.
pub(crate) fn python() -> anyhow::Result<PathBuf> {
    let alone = [REFERENCE, &setup::torch_requirements()?].concat();
    Environment {
        home: folder().join("venv"),
        packages: PACKAGES,
        alone: &alone,
        finish: Some(python::script("parity/cpu_torch.py")),
        hint: "timm needs Python 3 with venv, a package index, a C compiler and 1.5 GB of disk; once it is there, \
               no network",
    }
    .python()
}

/// Compares by means of `python`; the exit status is 1 if a network differs.
pub(crate) fn compare(python: &Path, names: &[String], all: bool) -> anyhow::Result<ExitCode> {
    let status = command::cargo()
        .args(["run", "--quiet", "--package", "lana-torch", "--example", "parity", "--"])
        .arg(python)
        .arg(python::script("parity/timm_models.py"))
        .arg(folder())
        .args(names)
        .args(all.then_some("--all"))
        .status()
        .context("starting cargo")?;
    Ok(command::exit_code(status))
}

fn folder() -> PathBuf {
    workspace_root().join("target").join("parity")
}
