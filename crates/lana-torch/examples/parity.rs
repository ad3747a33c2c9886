//! Do the zoo's networks compute what timm's compute? `cargo xtask parity` calls this with a Python that has timm.
//!
//! Python makes a model of timm with random weights and writes down weights, an input and what came of it
//! (`xtask/parity/timm_models.py` says what exactly); here the zoo's network of that name gets the same weights and
//! the same input, and everything is compared:
//!
//! * what goes into the first layer, what comes out of each layer, and the logits, in evaluation mode;
//! * the same in training mode, where batch normalisation takes the statistics of the batch, and the running
//!   statistics after that forward pass, which have the momentum in them;
//! * parameters and multiply-accumulates of each layer and of the network;
//! * that the weights, written back, are those timm wrote, and that timm loads them.
//!
//! The error of a tensor is its largest difference over its largest magnitude, `max |a − b| / max |b|`. Two figures are
//! kept apart. *Layer*: each layer (and the parts before and behind them) is given timm's input, so that nothing adds up.
//! *Network*: the image goes through the whole network. Deep networks amplify rounding from layer to layer, most of all by the
//! statistics of a batch, so that two correct programs drift apart: after the 50 blocks of `resnet152` by 2e-4. How far, timm
//! shows itself: it runs again channels-last, as lana does (libtorch then sums a batch in another order, and less exactly),
//! and the limit is a few times what it is then from itself, where that is more than the limit that holds everywhere else.
#![allow(clippy::print_stdout)] // its result

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use lana_graph::{Graph, Tensor as Array, Value, Weights};
use lana_models::zoo::{self, ZooOptions};
use lana_torch::{Batch, BatchNorm, Device, Network, Tensor, numbers, without_gradients};

/// The least size of each network is taken to be below both. The first is a multiple of 32, as most are trained with; with
/// the second every halving rounds, and padding shows.
const RESOLUTIONS: [usize; 2] = [128, 97];
/// Largest error of a tensor.
const LIMIT: f64 = 1e-4;
/// How many times as far from timm as timm in another memory layout a whole network may be.
const DRIFT_LIMIT: f64 = 4.0;
/// Largest share by which parameters and multiply-accumulates may differ.
const COST_LIMIT: f64 = 0.005;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (Some(python), Some(script), Some(folder)) = (arguments.next(), arguments.next(), arguments.next())
    else {
        eprintln!("usage: parity PYTHON SCRIPT FOLDER [--all] [NAME…]; `cargo xtask parity` does it for you");
        return ExitCode::from(2);
    };
    let names: Vec<String> = arguments.collect();
    match run(&python, &script, Path::new(&folder), names) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}

/// Compares models; whether all are equal.
fn run(python: &str, script: &str, folder: &Path, mut names: Vec<String>) -> Result<bool, Failure> {
    lana_torch::init();
    let all = names.iter().any(|name| name == "--all");
    names.retain(|name| name != "--all");
    let mut timm = Timm::start(python, script)?;
    let names = match (names.is_empty(), all) {
        (false, _) => names,
        (true, true) => timm.of_zoo()?.into_iter().map(|entry| entry.name).collect(),
        (true, false) => smallest(timm.of_zoo()?),
    };
    if names.is_empty() {
        println!("no teacher of the zoo is timm's");
        return Ok(true);
    }
    let width = names.iter().map(String::len).max().unwrap_or(0);
    println!("{:width$}  pixels  mode   error of  worst                          error    verdict", "model");
    let mut failed = Vec::new();
    for name in &names {
        // One model at a time lies on the disk and in memory.
        let rows = match compare(&mut timm, name, folder) {
            Ok(rows) => rows,
            Err(error) => {
                println!("{name:width$}  FAIL: {error}");
                failed.push(name.as_str());
                continue;
            }
        };
        for row in &rows {
            println!("{name:width$}  {row}");
        }
        if !rows.iter().all(Row::is_fine) {
            failed.push(name);
        }
    }
    match failed.as_slice() {
        [] => println!("{} models: each equals timm's", names.len()),
        failed => {
            println!("{} of {} models differ from timm's: {}", failed.len(), names.len(), failed.join(", "))
        }
    }
    Ok(failed.is_empty())
}

/// The least member of each family.
fn smallest(entries: Vec<zoo::ZooEntry>) -> Vec<String> {
    let mut least: BTreeMap<&str, zoo::ZooEntry> = BTreeMap::new();
    for entry in entries {
        match least.get(entry.family) {
            Some(other) if other.params <= entry.params => {}
            _ => drop(least.insert(entry.family, entry)),
        }
    }
    least.into_values().map(|entry| entry.name).collect()
}

/// A line of the table.
struct Row {
    resolution: usize,
    mode: &'static str,
    what: &'static str,
    worst: Worst,
    limit: f64,
}

impl Row {
    fn is_fine(&self) -> bool {
        self.worst.error <= self.limit
    }
}

impl std::fmt::Display for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Row { resolution, mode, what, worst, limit } = self;
        write!(f, "{resolution:6}  {mode:5}  {what:8}  {:30} {:.1e}  ", worst.name, worst.error)?;
        match self.is_fine() {
            true if *limit == LIMIT || *what == "cost" => write!(f, "ok"),
            true => write!(f, "ok (limit {limit:.0e})"),
            false => write!(f, "FAIL (limit {limit:.0e})"),
        }
    }
}

/// The tensor that differs most.
#[derive(Default)]
struct Worst {
    name: String,
    error: f64,
}

impl Worst {
    fn take(&mut self, name: &str, error: f64) {
        // NaN, too, is worse than anything.
        if self.name.is_empty() || error > self.error || error.is_nan() {
            *self = Worst { name: name.into(), error: if error.is_nan() { f64::INFINITY } else { error } };
        }
    }

    fn compare(&mut self, name: &str, ours: &[f32], timm: &Array) {
        self.take(name, relative_error(ours, &timm.data));
    }
}

/// `max |a − b| / max |b|`; infinite if there are not as many numbers on both sides.
fn relative_error(a: &[f32], b: &[f32]) -> f64 {
    if a.len() != b.len() {
        return f64::INFINITY;
    }
    let mut difference = 0.0f64;
    let mut largest = f64::MIN_POSITIVE;
    for (&a, &b) in a.iter().zip(b) {
        let here = (f64::from(a) - f64::from(b)).abs();
        if here.is_nan() {
            return f64::NAN;
        }
        difference = difference.max(here);
        largest = largest.max(f64::from(b).abs());
    }
    difference / largest
}

/// Everything about one model.
fn compare(timm: &mut Timm, name: &str, folder: &Path) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    for resolution in RESOLUTIONS {
        let scratch = Scratch::new(folder)?;
        let graph = zoo::build(name, &ZooOptions { resolution: Some(resolution), ..ZooOptions::default() })?;
        timm.make(name, resolution, &scratch.0, &graph)?;
        let weights = Weights::load(&scratch.0.join("weights.safetensors"))?;
        weights.check(&graph)?;

        let reference = Weights::load(&scratch.0.join("eval.safetensors"))?;
        rows.push(Row {
            resolution,
            mode: "–",
            what: "cost",
            worst: costs(&graph, &reference)?,
            limit: COST_LIMIT,
        });
        for (mode, file) in [("eval", "eval.safetensors"), ("train", "train.safetensors")] {
            let reference = Weights::load(&scratch.0.join(file))?;
            let batch_norm = if mode == "eval" { BatchNorm::Running } else { BatchNorm::Train };
            let layer = without_gradients(|| by_layer(&graph, &weights, &reference, batch_norm))?;
            let network = without_gradients(|| at_once(&graph, &weights, &reference, batch_norm))?;
            // Seldom needed.
            let limit = match network.error > LIMIT {
                true => LIMIT.max(DRIFT_LIMIT * timm.drift(name, mode, &scratch.0, &graph)?),
                false => LIMIT,
            };
            rows.push(Row { resolution, mode, what: "layer", worst: layer, limit: LIMIT });
            rows.push(Row { resolution, mode, what: "network", worst: network, limit });
        }
        let written = Network::new(&graph, &weights, Device::Cpu)?.weights()?;
        std::fs::write(scratch.0.join("written.safetensors"), written.to_bytes())?;
        timm.load(name, &scratch.0)?;
    }
    Ok(rows)
}

/// Parameters and multiply-accumulates.
fn costs(graph: &Graph, reference: &Weights) -> Result<Worst, Failure> {
    let mut worst = Worst::default();
    let mut compare = |kind: &str, name: &str, ours: u64| -> Result<(), Failure> {
        let key = if name.is_empty() { kind.to_string() } else { format!("{kind}:{name}") };
        let theirs = f64::from(number(reference, &key)?);
        worst.take(&key, (ours as f64 - theirs).abs() / theirs.max(1.0));
        Ok(())
    };
    let whole = graph.cost();
    compare("params", "", whole.params)?;
    compare("macs", "", whole.macs)?;
    for layer in graph.layers() {
        let cost = graph.cost_of(layer.nodes.clone());
        compare("params", &layer.name, cost.params)?;
        compare("macs", &layer.name, cost.macs)?;
    }
    Ok(worst)
}

/// The image through the whole network.
fn at_once(graph: &Graph, weights: &Weights, reference: &Weights, mode: BatchNorm) -> Result<Worst, Failure> {
    let network = Network::new(graph, weights, Device::Cpu)?;
    let boundaries = boundaries(graph);
    let values: Vec<Value> = boundaries.iter().map(|(_, value)| *value).collect();
    let (logits, tapped) = network.forward_tapped(&tensor(reference, "input")?, mode, &values)?;
    let mut worst = Worst::default();
    for ((name, _), ours) in boundaries.iter().zip(&tapped) {
        worst.compare(name, &numbers(ours)?, array(reference, name)?);
    }
    worst.compare("logits", &numbers(&logits)?, array(reference, "logits")?);
    if mode == BatchNorm::Train {
        let parameters = graph.parameters();
        let names = parameters.iter().map(|p| (p.name.as_str(), p.name.as_str()));
        statistics(&mut worst, names, &network, reference)?;
    }
    Ok(worst)
}

/// Each part of the network from timm's own input: up to the first layer, each layer, and behind the last.
fn by_layer(
    graph: &Graph,
    weights: &Weights,
    reference: &Weights,
    mode: BatchNorm,
) -> Result<Worst, Failure> {
    let mut worst = Worst::default();
    let boundaries = boundaries(graph);
    let (stem, stem_value) = &boundaries[0];
    let whole = Network::new(graph, weights, Device::Cpu)?;
    let (_, tapped) = whole.forward_tapped(&tensor(reference, "input")?, mode, &[*stem_value])?;
    worst.compare(stem, &numbers(&tapped[0])?, array(reference, stem)?);

    let parameters = graph.parameters();
    let in_front = graph.layers().first().map_or(0, |layer| layer.nodes.start);
    let behind = graph.layers().last().map_or(0, |layer| layer.nodes.end);
    if mode == BatchNorm::Train {
        let names =
            parameters.iter().filter(|p| p.node < in_front).map(|p| (p.name.as_str(), p.name.as_str()));
        statistics(&mut worst, names, &whole, reference)?;
    }
    let mut before = stem.as_str();
    for layer in graph.layers() {
        let part = Network::new(&graph.layer_graph(&layer.name)?, &weights.under(&layer.name), Device::Cpu)?;
        let ours = part.forward(&tensor(reference, before)?, mode)?;
        worst.compare(&layer.name, &numbers(&ours)?, array(reference, &layer.name)?);
        if mode == BatchNorm::Train {
            let inside = parameters.iter().filter(|p| layer.nodes.contains(&p.node));
            let names = inside.map(|p| (p.name.as_str(), &p.name[layer.name.len() + 1..]));
            statistics(&mut worst, names, &part, reference)?;
        }
        before = &layer.name;
    }
    let (last, last_value) = &boundaries[boundaries.len() - 1];
    let tail = Network::new(graph, weights, Device::Cpu)?;
    let logits = tail.forward_from(*last_value, &tensor(reference, last)?, mode)?;
    worst.compare("logits", &numbers(&logits)?, array(reference, "logits")?);
    if mode == BatchNorm::Train {
        let names =
            parameters.iter().filter(|p| p.node >= behind).map(|p| (p.name.as_str(), p.name.as_str()));
        statistics(&mut worst, names, &tail, reference)?;
    }
    Ok(worst)
}

/// Running statistics after a forward pass: of parameters, each by timm's name and its name in `network`.
fn statistics<'a>(
    worst: &mut Worst,
    names: impl Iterator<Item = (&'a str, &'a str)>,
    network: &Network,
    reference: &Weights,
) -> Result<(), Failure> {
    let weights = network.weights()?;
    for (theirs, ours) in names.filter(|(name, _)| name.contains(".running_")) {
        worst.compare(theirs, &array(&weights, ours)?.data, array(reference, &format!("after:{theirs}"))?);
    }
    Ok(())
}

/// What is compared of a graph: the first layer's input, and each layer's output.
fn boundaries(graph: &Graph) -> Vec<(String, Value)> {
    let stem = graph.layers().first().map(|layer| ("stem".to_string(), layer.input));
    stem.into_iter().chain(graph.layers().iter().map(|layer| (layer.name.clone(), layer.output))).collect()
}

fn array<'a>(reference: &'a Weights, name: &str) -> Result<&'a Array, Failure> {
    reference.get(name).ok_or_else(|| format!("there is no tensor `{name}`").into())
}

fn number(reference: &Weights, name: &str) -> Result<f32, Failure> {
    array(reference, name)?.data.first().copied().ok_or_else(|| format!("`{name}` is empty").into())
}

/// A feature map of timm, laid out as this side's batches are.
fn tensor(reference: &Weights, name: &str) -> Result<Tensor, Failure> {
    let array = array(reference, name)?;
    let (n, shape) = array.shape.split_first().ok_or("a feature map without a batch")?;
    let shape = match *shape {
        [channels, height, width] => lana_graph::Shape::image(channels, height, width),
        _ => return Err(format!("`{name}` is no feature map: {:?}", array.shape).into()),
    };
    Ok(Batch::new(&array.data, &vec![0; *n], &shape, Device::Cpu)?.images)
}

/// A folder for one model's files, removed with this value.
struct Scratch(PathBuf);

impl Scratch {
    fn new(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join(format!("models-{}", std::process::id()));
        std::fs::create_dir_all(&path)?;
        Ok(Scratch(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// timm, in a Python process that answers one line with one line. It ends with its stdin.
struct Timm {
    _process: Child,
    requests: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Timm {
    fn start(python: &str, script: &str) -> Result<Self, Failure> {
        let mut process = Command::new(python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{python}: {error}"))?;
        let requests = process.stdin.take().ok_or("python has no stdin")?;
        let answers = BufReader::new(process.stdout.take().ok_or("python has no stdout")?);
        Ok(Timm { _process: process, requests, answers })
    }

    /// What comes after `ok`; nothing if the answer is `no`.
    fn ask(&mut self, request: &[&str]) -> Result<Option<String>, Failure> {
        writeln!(self.requests, "{}", request.join("\t"))?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        let answer = answer.trim();
        match answer.split_once(' ').unwrap_or((answer, "")) {
            ("ok", rest) => Ok(Some(rest.into())),
            ("no", _) => Ok(None),
            ("error", reason) => Err(format!("timm: {reason}").into()),
            _ => Err("python ended, see above".into()),
        }
    }

    /// The teachers of the zoo that timm has too.
    fn of_zoo(&mut self) -> Result<Vec<zoo::ZooEntry>, Failure> {
        let mut known = Vec::new();
        for entry in zoo::list() {
            if self.ask(&["known", &entry.name])?.is_some() {
                known.push(entry);
            }
        }
        Ok(known)
    }

    fn make(&mut self, name: &str, resolution: usize, folder: &Path, graph: &Graph) -> Result<(), Failure> {
        let folder = folder.display().to_string();
        self.ask(&["make", name, &resolution.to_string(), &folder, &layers(graph)])?;
        Ok(())
    }

    fn drift(&mut self, name: &str, mode: &str, folder: &Path, graph: &Graph) -> Result<f64, Failure> {
        let answer = self.ask(&["drift", name, mode, &folder.display().to_string(), &layers(graph)])?;
        Ok(answer.unwrap_or_default().parse()?)
    }

    fn load(&mut self, name: &str, folder: &Path) -> Result<(), Failure> {
        self.ask(&["load", name, &folder.display().to_string()])?;
        Ok(())
    }
}

/// The names of the layers, between commas.
fn layers(graph: &Graph) -> String {
    graph.layers().iter().map(|layer| layer.name.as_str()).collect::<Vec<_>>().join(",")
}
