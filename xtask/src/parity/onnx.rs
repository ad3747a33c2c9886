//! `cargo xtask parity --onnx`: do networks of other tools compute the same once lana has read and written them?
//!
//! PyTorch writes networks of torchvision and timm by both of its exporters (`xtask/parity/onnx_models.py`), the example
//! `round_trip` of lana-onnx reads and writes them, and ONNX Runtime runs both files on the same images.

#![allow(clippy::print_stdout)] // its result

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::failure::Failure;
use crate::{command, python};

/// Largest difference, relative to the largest output.
const TOLERANCE: f64 = 1e-5;
/// Networks that have most of what there is.
const FEW: &[&str] = &["mobilenet_v3_small", "shufflenet_v2_x1_0", "timm/deit_tiny_patch16_224"];
const EXPORTERS: &[&str] = &["script", "dynamo"];

/// Compares the networks `names`, or all that are known, or a few; the exit status is 1 if one differs.
pub(crate) fn run(names: &[String], all: bool) -> anyhow::Result<ExitCode> {
    let python = super::python()?;
    let script = python::script("parity/onnx_models.py");
    let folder = super::folder().join("onnx");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let python = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.arg(&script).args(arguments);
        output(command)
    };
    let known = python(&["list"])?.map_err(|reason| {
        Failure::error(reason, "python and its packages may be damaged: remove target/parity/venv")
    })?;
    let known: Vec<&str> = known.lines().collect();
    if let Some(name) = names.iter().find(|name| !known.contains(&name.as_str())) {
        let hint = format!("it is none of {}", known.join(", "));
        return Err(Failure::error(format!("no network `{name}`"), hint));
    }
    let wanted: Vec<&str> = match (names, all) {
        ([], true) => known,
        ([], false) => FEW.to_vec(),
        _ => names.iter().map(String::as_str).collect(),
    };
    let built = command::cargo()
        .args(["build", "--quiet", "--package", "lana-onnx", "--example", "round_trip"])
        .status()
        .context("starting cargo")?;
    if !built.success() {
        return Ok(command::exit_code(built));
    }
    let mut differ = 0;
    for name in &wanted {
        for exporter in EXPORTERS {
            let folder_name = folder.to_string_lossy();
            let arguments = [&*folder_name, name, exporter];
            let verdict = match python(&[&["export"], &arguments[..]].concat())? {
                Err(reason) => Err(format!("PyTorch cannot write it: {reason}")),
                Ok(_) => match round_trip(&folder, name, exporter)? {
                    Err(reason) => Err(reason),
                    Ok(_) => python(&[&["compare"], &arguments[..]].concat())?,
                },
            };
            let verdict = verdict.and_then(|text| {
                let difference: f64 = text.trim().parse().map_err(|_| format!("no number: {text}"))?;
                match difference <= TOLERANCE {
                    true => Ok(format!("{difference:.1e}")),
                    false => Err(format!("differs by {difference:.1e} of the largest output")),
                }
            });
            match verdict {
                Ok(difference) => println!("{name:32} {exporter:7} {difference}"),
                Err(reason) => {
                    differ += 1;
                    println!("{name:32} {exporter:7} FAILED: {reason}");
                }
            }
            // They are large.
            for suffix in ["onnx", "onnx.data", "lana.onnx"] {
                let _ = std::fs::remove_file(
                    folder.join(format!("{}.{exporter}.{suffix}", name.replace('/', "."))),
                );
            }
        }
    }
    println!(
        "{} of {} files compute the same",
        wanted.len() * EXPORTERS.len() - differ,
        wanted.len() * EXPORTERS.len()
    );
    Ok(if differ == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets lana read a file and write it again.
fn round_trip(folder: &Path, name: &str, exporter: &str) -> anyhow::Result<Result<String, String>> {
    let file = |suffix: &str| folder.join(format!("{}.{exporter}.{suffix}", name.replace('/', ".")));
    let mut command = command::cargo();
    command.args(["run", "--quiet", "--package", "lana-onnx", "--example", "round_trip", "--"]);
    command.arg(file("onnx")).arg(file("lana.onnx"));
    output(command)
}

/// What a command prints; where it fails, the last line that it said.
fn output(mut command: Command) -> anyhow::Result<Result<String, String>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = [text(&output.stderr), text(&output.stdout)].concat();
    let last =
        said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing was said").to_string();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(last) })
}
