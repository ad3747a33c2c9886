//! Does the PyTorch text of a network compute what its ONNX file does? `cargo xtask parity --students` calls this with a Python that
//! has torch, timm and ONNX Runtime.
//!
//! Networks are a small teacher of each family, one with dropout and drop path, and students: teachers with each layer replaced, so
//! that of every family of operations several members stand somewhere, identity too. `student.py` and `weights.safetensors` of each
//! are written; Python gives them weights with which values stay of one size (`xtask/parity/students.py`), this writes them as
//! ONNX, and Python compares.
#![allow(clippy::print_stdout)] // its result

use std::collections::{BTreeMap, HashSet};
use std::path::Path;
use std::process::{Command, ExitCode};

use lana_graph::{Graph, Weights};
use lana_models::init;
use lana_models::pool::{self, Operation};
use lana_models::zoo::{self, ZooOptions};
use lana_onnx::ExportOptions;

/// Odd, so that every halving rounds and padding shows.
const RESOLUTION: usize = 65;
/// What students are made of.
const TEACHERS: [&str; 3] = ["resnet56_cifar", "tf_efficientnetv2_b3", "resnest50d"];
/// Members of each family that stand in students of each teacher.
const MEMBERS: usize = 4;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(python), Some(script), Some(folder)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!(
            "usage: parity PYTHON SCRIPT FOLDER [NAME…]; `cargo xtask parity --students` does it for you"
        );
        return ExitCode::from(2);
    };
    match run(&python, &script, Path::new(&folder), &arguments.collect::<Vec<_>>()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Compares teachers of those names, or else a selection; whether all are equal.
fn run(python: &str, script: &str, folder: &Path, names: &[String]) -> Result<bool, Failure> {
    let networks = match names.is_empty() {
        true => [smallest()?, students()?].concat(),
        false => names.iter().map(|name| teacher(name)).collect::<Result<_, _>>()?,
    };
    println!("{:32} {:>10}  eval     train    verdict", "network", "parameters");
    let mut failed = 0;
    for graph in &networks {
        // One network at a time lies on the disk.
        let scratch = folder.join(format!("student-{}", std::process::id()));
        std::fs::create_dir_all(&scratch)?;
        let same = compare(python, script, &scratch, graph);
        std::fs::remove_dir_all(&scratch)?;
        failed += usize::from(!same?);
    }
    println!("{} of {} networks are the same in PyTorch", networks.len() - failed, networks.len());
    Ok(failed == 0)
}

fn compare(python: &str, script: &str, folder: &Path, graph: &Graph) -> Result<bool, Failure> {
    let weights = folder.join("weights.safetensors");
    std::fs::write(folder.join("student.py"), lana_pytorch::student(graph, "weights.safetensors", "")?)?;
    std::fs::write(&weights, init::random(graph, 3).to_bytes())?;
    let call = |step: &str| Command::new(python).arg(script).arg(step).arg(folder).arg(graph.name()).status();
    if !call("prepare")?.success() {
        return Ok(false);
    }
    let model = lana_onnx::export(graph, &Weights::load(&weights)?, &ExportOptions::default())?;
    std::fs::write(folder.join("student.onnx"), model)?;
    Ok(call("compare")?.success())
}

fn teacher(name: &str) -> Result<Graph, lana_models::Error> {
    let resolution = (zoo::entry(name)?.resolution > 2 * RESOLUTION).then_some(RESOLUTION);
    zoo::build(name, &ZooOptions { resolution, ..ZooOptions::default() })
}

/// The least member of each family of teachers, and one with what training drops.
fn smallest() -> Result<Vec<Graph>, lana_models::Error> {
    let mut least: BTreeMap<&str, zoo::ZooEntry> = BTreeMap::new();
    for entry in zoo::list() {
        match least.get(entry.family) {
            Some(other) if other.params <= entry.params => {}
            _ => drop(least.insert(entry.family, entry)),
        }
    }
    let mut networks = least.values().map(|entry| teacher(&entry.name)).collect::<Result<Vec<_>, _>>()?;
    networks
        .push(zoo::with_drops(&teacher("efficientnet_b0")?, 0.2, 0.2)?.renamed("efficientnet_b0 with drops"));
    Ok(networks)
}

/// Teachers with every layer replaced, until each chosen operation has stood where it can.
fn students() -> Result<Vec<Graph>, Failure> {
    let mut students = Vec::new();
    let mut stood: HashSet<&str> = HashSet::new();
    for name in TEACHERS {
        let teacher = teacher(name)?;
        let mut waiting = operations()?;
        while !waiting.is_empty() {
            let mut student = teacher.clone();
            let before = waiting.len();
            for layer in teacher.layers() {
                let own = teacher.layer_graph(&layer.name)?;
                let found = waiting.iter().enumerate().find_map(|(at, o)| Some((at, o.build(&own).ok()?)));
                if let Some((at, graph)) = found {
                    student = student.replace(&layer.name, &graph)?;
                    stood.insert(waiting.remove(at).family());
                }
            }
            if waiting.len() == before {
                break;
            }
            students.push(student.renamed(format!("{name}, student {}", students.len() + 1)));
        }
    }
    match pool::families()
        .iter()
        .find(|family| family.name != Operation::TEACHER && !stood.contains(family.name))
    {
        Some(family) => Err(format!("no operation of `{}` stands in a student", family.name).into()),
        None => Ok(students),
    }
}

/// Some members of each family, one of each in turn.
fn operations() -> Result<Vec<Operation>, lana_models::Error> {
    let families: Vec<Vec<String>> = pool::families()
        .into_iter()
        .map(|family| {
            let mut names: Vec<String> = family.members.into_iter().flat_map(|(_, names)| names).collect();
            names.sort();
            names.dedup();
            let step = names.len().div_ceil(MEMBERS).max(1);
            names.into_iter().step_by(step).collect()
        })
        .collect();
    let turns = (0..MEMBERS).flat_map(|turn| families.iter().filter_map(move |names| names.get(turn)));
    turns.filter(|name| *name != Operation::TEACHER).map(|name| name.parse()).collect()
}
