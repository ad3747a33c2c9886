//! Whole runs on teachers of every family that timm and lana share: random weights, few images, every stage.
#![allow(clippy::unwrap_used)]

use std::fs;

use lana::{
    Config, LatencyConfig, LayerRules, PretrainConfig, Progress, Recipe, ScoreConfig, SelectConfig,
    accelerate, status,
};
use lana_latency::{OnnxRuntime, random_weights};
use lana_models::zoo;

/// Prints what a person would see, which the harness shows where a test fails.
struct Printing;

impl Progress for Printing {
    fn say(&self, text: &str) {
        eprintln!("{text}");
    }

    fn warn(&self, text: &str) {
        eprintln!("warning: {text}");
    }
}

fn goes_through(teacher: &str, resolution: usize, pool: &str) {
    if let Err(reason) = OnnxRuntime::load() {
        eprintln!("skipped: {reason}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("teacher.safetensors");
    let config = Config {
        teacher: teacher.into(),
        layers: LayerRules::alone(),
        weights: Some(file.clone().into()),
        num_classes: Some(10),
        resolution: Some(resolution),
        train: "generated:shapes?images=32".into(),
        val: "generated:shapes?images=20&split=val".into(),
        // Not on latency: these timings are short, and this test is not about them.
        budgets: vec!["macs=0.8x".parse().unwrap()],
        pool: pool.into(),
        workers: 2,
        latency: LatencyConfig { time_limit_s: 5.0, ..LatencyConfig::default() },
        pretrain: PretrainConfig { images: 32, batch: 8, keep_slow: true, ..PretrainConfig::default() },
        score: ScoreConfig { images: 16, batch: 8, ..ScoreConfig::default() },
        select: SelectConfig { solutions: 2, rounds: 1, time_limit_s: 5.0, ..SelectConfig::default() },
        finetune: Recipe { epochs: 1, batch: 8.into(), ..Recipe::default() },
        ..Config::default()
    };
    let graph = zoo::build(teacher, &config.zoo_options()).unwrap();
    fs::write(&file, random_weights(&graph, 5).to_bytes()).unwrap();

    let run = folder.path().join("run");
    let students = accelerate(&config, &run, &Printing).unwrap();
    let [student] = &students[..] else { panic!("{students:?}") };
    assert_eq!(student.choices.len(), graph.layers().len());
    assert!(student.choices.iter().any(|(_, operation)| operation != "teacher"), "{:?}", student.choices);
    assert!(student.export_difference < 1e-4, "{}", student.export_difference);
    assert!(student.cost.macs < student.teacher_cost.macs);
    assert!(run.join("budgets/macs=0.8x/student/student.onnx").is_file());
    assert!(status(&run).unwrap().stages.iter().all(|stage| stage.done == stage.total), "{:?}", status(&run));

    // A run keeps its resolution.
    let other = Config { resolution: Some(resolution + 1), ..config };
    let refusal = accelerate(&other, &run, &Printing).unwrap_err().to_string();
    assert!(refusal.contains("resolution"), "{refusal}");
}

#[test]
fn mbconv_teachers() {
    goes_through("efficientnet_b0", 64, "narrow-w0.5,mbconv-e1-k3-se0.25");
}

#[test]
fn fused_and_same_padded_teachers() {
    goes_through("tf_efficientnetv2_b0", 65, "narrow-w0.25,fused-e1-k3");
}

#[test]
fn split_attention_teachers() {
    goes_through("resnest14d", 64, "bottleneck-w0.25,conv-k3");
}
