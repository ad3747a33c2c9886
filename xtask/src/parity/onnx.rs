//! `cargo xtask parity --onnx`: do networks of other tools compute the same once lana has read and written them?
//!
//! PyTorch writes networks of torchvision and timm by both of its exporters (`xtask/parity/onnx_models.py`), a script a few as
//! converters from TensorFlow do (`onnx_tensorflow.py`); the example `round_trip` of lana-onnx reads and writes them, and ONNX Runtime
//! runs both files on the same images.

#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::Context;

use crate::failure::Failure;
use crate::{command, python};

/// Largest difference, relative to the largest output.
const TOLERANCE: f64 = 1e-5;
/// Networks that have most of what there is.
const FEW: &[&str] = &[
    "mobilenet_v3_small",
    "shufflenet_v2_x1_0",
    "timm/deit_tiny_patch16_224",
    "keras/mobilenet_v2",
    "keras/vgg",
    "keras/efficientnet",
    "tflite/mobilenet_v1",
];

/// What came of a file.
enum Verdict {
    Same(f64),
    Differs(String),
    /// The exporter fails before lana has a part in it.
    NotWritten(String),
}

/// Writes files and reads what becomes of them.
struct Files {
    python: PathBuf,
    script: PathBuf,
    folder: PathBuf,
}

impl Files {
    fn new() -> anyhow::Result<Self> {
        let folder = super::folder().join("onnx");
        std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Files { python: super::python()?, script: python::script("parity/onnx_models.py"), folder })
    }

    /// What the script prints, or why it fails.
    fn script(&self, step: &str, arguments: &[&str]) -> anyhow::Result<Result<String, String>> {
        let mut command = Command::new(&self.python);
        command.arg(&self.script).arg(step).args(arguments);
        output(command)
    }

    fn path(&self, name: &str, exporter: &str, suffix: &str) -> PathBuf {
        self.folder.join(format!("{}.{exporter}.{suffix}", name.replace('/', ".")))
    }

    fn export(&self, name: &str, exporter: &str) -> anyhow::Result<Result<String, String>> {
        self.script("export", &[&self.folder.to_string_lossy(), name, exporter])
    }

    fn compare(&self, name: &str, exporter: &str) -> anyhow::Result<Verdict> {
        if let Err(reason) = self.export(name, exporter)? {
            return Ok(Verdict::NotWritten(reason));
        }
        if let Err(reason) = self.round_trip(name, exporter)? {
            return Ok(Verdict::Differs(reason));
        }
        let compared = self.script("compare", &[&self.folder.to_string_lossy(), name, exporter])?;
        let difference =
            compared.and_then(|text| text.trim().parse::<f64>().map_err(|_| format!("no number: {text}")));
        Ok(match difference {
            Ok(difference) if difference <= TOLERANCE => Verdict::Same(difference),
            Ok(difference) => Verdict::Differs(format!("differs by {difference:.1e} of the largest output")),
            Err(reason) => Verdict::Differs(reason),
        })
    }

    /// Lets lana read a file and write it again.
    fn round_trip(&self, name: &str, exporter: &str) -> anyhow::Result<Result<String, String>> {
        let mut command = command::cargo();
        command.args(["run", "--quiet", "--package", "lana-onnx", "--example", "round_trip", "--"]);
        command.arg(self.path(name, exporter, "onnx")).arg(self.path(name, exporter, "lana.onnx"));
        output(command)
    }

    /// They are large.
    fn remove(&self, name: &str, exporter: &str) {
        for suffix in ["onnx", "onnx.data", "lana.onnx"] {
            let _ = std::fs::remove_file(self.path(name, exporter, suffix));
        }
    }
}

/// Files of the networks `names`, each with its exporter, for another comparison, which takes them away.
pub(crate) fn written(names: &[(&str, &str)]) -> anyhow::Result<Vec<PathBuf>> {
    let files = Files::new()?;
    let written = |&(name, exporter): &(&str, &str)| match files.export(name, exporter)? {
        Ok(_) => Ok(files.path(name, exporter, "onnx")),
        Err(reason) => Err(Failure::error(
            format!("`{name}` cannot be written by {exporter}: {reason}"),
            "python and its packages may be damaged: remove target/parity/venv",
        )),
    };
    names.iter().map(written).collect()
}

/// Compares the networks `names`, or all that are known, or a few; the exit status is 1 if one differs, or none could be written.
pub(crate) fn run(names: &[String], all: bool) -> anyhow::Result<ExitCode> {
    let files = Files::new()?;
    let list = files.script("list", &[])?.map_err(|reason| {
        Failure::error(reason, "python and its packages may be damaged: remove target/parity/venv")
    })?;
    let known: Vec<(&str, Vec<&str>)> = list
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(name, exporters)| (name, exporters.split(' ').collect()))
        .collect();
    if let Some(name) = names.iter().find(|name| known.iter().all(|(known, _)| known != name)) {
        let all: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        return Err(Failure::error(
            format!("no network `{name}`"),
            format!("it is none of {}", all.join(", ")),
        ));
    }
    let wanted = |name: &str| match (names, all) {
        ([], true) => true,
        ([], false) => FEW.contains(&name),
        _ => names.iter().any(|wanted| wanted == name),
    };
    let built = command::cargo()
        .args(["build", "--quiet", "--package", "lana-onnx", "--example", "round_trip"])
        .status()
        .context("starting cargo")?;
    if !built.success() {
        return Ok(command::exit_code(built));
    }
    let (mut same, mut differ, mut not_written) = (0, 0, 0);
    for (name, exporters) in known.iter().filter(|(name, _)| wanted(name)) {
        for exporter in exporters {
            let (count, text) = match files.compare(name, exporter)? {
                Verdict::Same(difference) => (&mut same, format!("{difference:.1e}")),
                Verdict::Differs(reason) => (&mut differ, format!("FAILED: {reason}")),
                Verdict::NotWritten(reason) => (&mut not_written, format!("not written: {reason}")),
            };
            *count += 1;
            println!("{name:32} {exporter:11} {text}");
            files.remove(name, exporter);
        }
    }
    println!("{same} of {} files compute the same", same + differ);
    if not_written > 0 {
        println!("{not_written} more could not be written by their own exporter, see above");
    }
    Ok(if differ == 0 && same > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What a command prints; where it fails, the line that says why: the last one that names an error, or else the last.
fn output(mut command: Command) -> anyhow::Result<Result<String, String>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = [text(&output.stderr), text(&output.stdout)].concat();
    let names_error = |line: &&str| {
        let first = line.split(':').next().unwrap_or_default();
        first.ends_with("Error") || first.ends_with("Exception")
    };
    let mut lines = said.lines().rev().filter(|line| !line.trim().is_empty());
    let why = lines.clone().find(names_error).or(lines.next()).unwrap_or("nothing was said").to_string();
    Ok(if output.status.success() { Ok(text(&output.stdout)) } else { Err(why) })
}
