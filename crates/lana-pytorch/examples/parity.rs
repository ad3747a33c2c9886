//! Does the PyTorch text of a network compute what its ONNX file does? `cargo xtask parity --students` calls this with a Python that
//! has torch, timm and ONNX Runtime.
//!
//! Networks are a small teacher of each family, one with dropout and drop path, and students: teachers with each layer replaced, so
//! that of every family of operations several members stand somewhere, identity too. `student.py` and `weights.safetensors` of each
//! are written; Python gives them weights with which values stay of one size (`xtask/parity/students.py`), this writes them as
//! ONNX, and Python compares. Names that end in `.onnx` are files of other tools: `student.py` of what lana reads there must compute
//! what the file itself does.
#![allow(clippy::print_stdout)] // its result

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use lana_graph::{Activation, Graph, GraphBuilder, LayerRules, Op, Shape, Weights, discover};
use lana_models::blocks::{AverageDown, Ending, ResNestBlock, Shortcut, Stem};
use lana_models::init;
use lana_models::pool::{self, Operation};
use lana_models::zoo::{self, ZooOptions};
use lana_onnx::ExportOptions;

/// Odd, so that every halving rounds and padding shows.
const RESOLUTION: usize = 65;
/// What students are made of, beside [`narrow_resnest`].
const TEACHERS: [&str; 2] = ["resnet56_cifar", "tf_efficientnetv2_b0"];
/// Members of each family that stand in students of each teacher.
const MEMBERS: usize = 4;
/// Of each stage of [`narrow_resnest`].
const BLOCKS: usize = 8;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(python), Some(script), Some(folder)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!(
            "usage: parity PYTHON SCRIPT FOLDER [NAME|FILE.onnx…]; `cargo xtask parity --students` does it for you"
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

/// Compares files and teachers of those names, without names of teachers a selection of them; whether all are equal.
fn run(python: &str, script: &str, folder: &Path, names: &[String]) -> Result<bool, Failure> {
    let (files, names): (Vec<_>, Vec<_>) = names.iter().partition(|name| name.ends_with(".onnx"));
    let networks = match names.is_empty() {
        true => [smallest()?, students()?].concat(),
        false => names.iter().map(|name| teacher(name)).collect::<Result<_, _>>()?,
    };
    println!("{:32} {:>10}  eval     train    verdict", "network", "parameters");
    let mut failed = 0;
    // One network at a time lies on the disk.
    let scratch = folder.join(format!("student-{}", std::process::id()));
    let mut alone = |compare: &dyn Fn(&Path) -> Result<bool, Failure>| -> Result<(), Failure> {
        std::fs::create_dir_all(&scratch)?;
        let same = compare(&scratch);
        std::fs::remove_dir_all(&scratch)?;
        failed += usize::from(!same?);
        Ok(())
    };
    for graph in &networks {
        alone(&|scratch| compare(python, script, scratch, graph))?;
    }
    for file in &files {
        alone(&|scratch| compare_imported(python, script, scratch, Path::new(file)))?;
    }
    let all = networks.len() + files.len();
    println!("{} of {all} networks are the same in PyTorch", all - failed);
    Ok(failed == 0)
}

fn compare(python: &str, script: &str, folder: &Path, graph: &Graph) -> Result<bool, Failure> {
    let weights = write(folder, graph, &init::random(graph, 3))?;
    if !call(python, script, "prepare", folder, graph.name())? {
        return Ok(false);
    }
    let model = lana_onnx::export(graph, &Weights::load(&weights)?, &ExportOptions::default())?;
    std::fs::write(folder.join("student.onnx"), model)?;
    call(python, script, "compare", folder, graph.name())
}

/// Compares what is read from a file with the file itself.
fn compare_imported(python: &str, script: &str, folder: &Path, file: &Path) -> Result<bool, Failure> {
    let (graph, weights) = lana_onnx::import_file(file)?;
    write(folder, &graph, &weights)?;
    std::fs::copy(file, folder.join("student.onnx"))?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    call(python, script, "compare", folder, &name)
}

/// Writes what `lana export --format pytorch` does; gives the file of the weights.
fn write(folder: &Path, graph: &Graph, weights: &Weights) -> Result<PathBuf, Failure> {
    let file = folder.join("weights.safetensors");
    std::fs::write(folder.join("student.py"), lana_pytorch::student(graph, "weights.safetensors", "")?)?;
    std::fs::write(&file, weights.to_bytes())?;
    Ok(file)
}

fn call(python: &str, script: &str, step: &str, folder: &Path, name: &str) -> Result<bool, Failure> {
    Ok(Command::new(python).arg(script).arg(step).arg(folder).arg(name).status()?.success())
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

/// A ResNeSt with a quarter of the channels and more blocks in each stage. ResNeSt-50 itself has room for every family too, but one
/// that is not narrow: its students had up to 182 million parameters. Stages differ as members of the family do: in versions and
/// groups of channels, and in where the step is.
fn narrow_resnest() -> Result<Graph, lana_graph::Error> {
    let activation = Activation::Relu;
    let mut b = GraphBuilder::new("narrow ResNeSt", Shape::image(3, RESOLUTION, RESOLUTION));
    let x = b.input();
    let mut x = Stem::Deep { width: 8 }.build(&mut b, x, activation)?;
    let stages = [
        (2, 1, AverageDown::Last),
        (4, 2, AverageDown::First),
        (1, 4, AverageDown::Last),
        (2, 1, AverageDown::First),
    ];
    for (number, (radix, cardinality, average_down)) in stages.into_iter().enumerate() {
        let (hidden, stage) = (16 << number, format!("layer{}", number + 1));
        let out = 4 * hidden;
        for block in 0..BLOCKS {
            let stride = if number > 0 && block == 0 { 2 } else { 1 };
            let shortcut = match block {
                0 => Shortcut::Projection { out, stride, average: true },
                _ => Shortcut::Identity,
            };
            let ending = Ending { shortcut, activation: Some(activation) };
            let block_of =
                ResNestBlock { out, hidden, radix, cardinality, stride, average_down, activation, ending };
            x = b.layer(&format!("{stage}.{block}"), &stage, x, |b, x| block_of.build(b, x))?;
        }
    }
    let x = b.node("global_pool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

/// Teachers with every layer replaced, until each chosen operation has stood where it can.
fn students() -> Result<Vec<Graph>, Failure> {
    let mut students = Vec::new();
    let mut stood: HashSet<&str> = HashSet::new();
    let teachers = TEACHERS.iter().map(|name| teacher(name)).collect::<Result<Vec<_>, _>>()?;
    // The last for what can only stand in layers of several blocks.
    let rules = LayerRules { group: 3, ..LayerRules::alone() };
    let grouped = discover(&teacher("resnet20_cifar")?, &rules)?.renamed("resnet20_cifar by threes");
    let several = grouped.name().to_string();
    for teacher in teachers.into_iter().chain([narrow_resnest()?, grouped]) {
        let mut waiting = operations()?;
        if teacher.name() == several {
            waiting.retain(|operation| !stood.contains(operation.family()));
        }
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
            students.push(student.renamed(format!("{}, student {}", teacher.name(), students.len() + 1)));
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
