//! An ONNX file as the teacher: somebody else's network goes through every step.
#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use lana::{
    Budget, Config, Error, LayerRules, PretrainConfig, Recipe, ScoreConfig, SelectConfig, Silent, accelerate,
    status,
};
use lana_graph::{Graph, Op, Weights, deploy};
use lana_models::{init, zoo, zoo::ZooOptions};
use lana_onnx::ExportOptions;
use tempfile::TempDir;

const NETWORK: &str = "resnet20_cifar";

/// Writes the network as somebody else would: normalisation folded, no layers named.
fn write_onnx(path: &Path, weights: &Weights) {
    let graph = zoo::build(NETWORK, &ZooOptions::default()).unwrap();
    let (deployed, weights) = deploy(&graph, weights).unwrap();
    let (name, input) = (deployed.name().to_string(), deployed.input_shape().clone());
    let bare = Graph::new(name, input, deployed.nodes().to_vec(), deployed.output(), Vec::new()).unwrap();
    fs::write(path, lana_onnx::export(&bare, &weights, &ExportOptions::default()).unwrap()).unwrap();
}

fn config(teacher: &Path) -> Config {
    Config {
        teacher: teacher.display().to_string(),
        layers: LayerRules::alone(),
        train: "generated:shapes?images=100".into(),
        val: "generated:shapes?images=100&split=val".into(),
        budgets: vec!["params=0.8x".parse::<Budget>().unwrap()],
        pool: "identity,narrow-w0.5".into(),
        workers: 1,
        latency: common::hasty(),
        pretrain: PretrainConfig { images: 64, batch: 32, keep_slow: true, ..PretrainConfig::default() },
        score: ScoreConfig { images: 48, batch: 24, ..ScoreConfig::default() },
        select: SelectConfig { solutions: 2, time_limit_s: 5.0, rounds: 1, ..SelectConfig::default() },
        finetune: Recipe { epochs: 1, batch: 50.into(), ..Recipe::default() },
        ..Config::default()
    }
}

#[test]
fn a_teacher_no_better_than_chance_stops_the_run() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("net.onnx");
    let graph = zoo::build(NETWORK, &ZooOptions::default()).unwrap();
    write_onnx(&file, &init::random(&graph, 3));
    let error = accelerate(&config(&file), &folder.path().join("run"), &Silent).unwrap_err();
    assert!(matches!(error, Error::Input { .. }) && error.to_string().contains("chance"), "{error}");
    let hint = error.hint().unwrap();
    assert!(hint.contains("--mean") && hint.contains("order of the classes"), "{hint}");

    // What it cannot be is said before anything is done.
    let missing = config(&folder.path().join("other.onnx"));
    let error = accelerate(&missing, &folder.path().join("run2"), &Silent).unwrap_err();
    assert!(error.to_string().contains("other.onnx"), "{error}");
    let weighted = Config { weights: Some(file.clone().into()), ..config(&file) };
    let error = accelerate(&weighted, &folder.path().join("run2"), &Silent).unwrap_err();
    assert!(error.to_string().contains("--weights"), "{error}");
    let rules = LayerRules { exclude: vec!["stage9.*".into()], ..LayerRules::alone() };
    let error = accelerate(&Config { layers: rules, ..config(&file) }, &folder.path().join("run2"), &Silent);
    assert!(error.unwrap_err().to_string().contains("stage9"));
}

#[test]
fn a_file_goes_through_every_step() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let weights = shared.join("weights/resnet20_cifar10.safetensors");
    if !weights.exists() {
        eprintln!("skipped: {} is not there", weights.display());
        return;
    }
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("net.onnx");
    write_onnx(&file, &Weights::load(&weights).unwrap());
    let images = |name: &str| format!("cifar10:{}", shared.join("data/cifar10").join(name).display());
    let real = Config {
        train: images("lossless-data_batch_5.bin"),
        val: images("lossless-test_batch.bin"),
        ..config(&file)
    };
    let run: PathBuf = folder.path().join("run");
    let student = accelerate(&real, &run, &Silent).unwrap().remove(0);
    assert!(student.teacher_top1 > 0.9, "{}", student.teacher_top1);
    assert!(student.meets_budget && student.top1 > 0.5, "{}", student.top1);
    let names: Vec<&str> = student.choices.iter().map(|(layer, _)| layer.as_str()).collect();
    assert_eq!((names.len(), names[0], names[8]), (9, "layer1.0", "layer3.2"));

    // The normalisation is back in what trains, and folded away in what is deployed.
    let is_norm = |graph: &Graph| graph.nodes().iter().any(|node| matches!(node.op, Op::BatchNorm { .. }));
    let teacher = Graph::load(&run.join("teacher/graph.json")).unwrap();
    assert!(is_norm(&teacher) && teacher.layers().len() == 9);
    let (deployed, _) = lana_onnx::import_file(&run.join("teacher/teacher.onnx")).unwrap();
    assert!(!is_norm(&deployed));

    // The run goes on without the file.
    fs::remove_file(&file).unwrap();
    assert!(status(&run).unwrap().stages.iter().all(|stage| stage.done >= stage.total));
    let again = accelerate(&real, &run, &Silent).unwrap().remove(0);
    assert_eq!(again, student);
}

#[test]
fn layers_of_several_blocks_are_replaced_by_fewer() {
    let folder = TempDir::new().unwrap();
    let weights = folder.path().join("weights.safetensors");
    let graph = zoo::build(NETWORK, &ZooOptions::default()).unwrap();
    fs::write(&weights, init::random(&graph, 3).to_bytes()).unwrap();
    let config = Config {
        teacher: NETWORK.into(),
        weights: Some(weights.into()),
        layers: LayerRules { group: 3, ..LayerRules::alone() },
        pool: "depth-n1,depth-n2,identity".into(),
        budgets: vec!["params=0.5x".parse::<Budget>().unwrap()],
        ..config(Path::new(NETWORK))
    };
    let run = folder.path().join("run");
    let student = accelerate(&config, &run, &Silent).unwrap().remove(0);
    assert!(student.meets_budget);
    let layers: Vec<&str> = student.choices.iter().map(|(layer, _)| layer.as_str()).collect();
    assert_eq!(layers, ["layer1.0-2", "layer2.0-2", "layer3.0-2"]);
    assert!(student.choices.iter().any(|(_, choice)| choice.starts_with("depth-n")), "{:?}", student.choices);
}
