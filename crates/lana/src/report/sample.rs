//! Made-up data in the likeness of a real run, for tests and for looking at the page.

use std::collections::BTreeMap;

use lana_graph::Cost;

use lana_latency::Figures;

use super::{LatencyTable, Price, Report, TeacherLatency};
use crate::*;

/// Numbers between 0 and 1 that are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Name, share of the teacher's time, share of its MACs, score at a middling layer.
const OPERATIONS: [(&str, f64, f64, f64); 17] = [
    ("teacher", 1.0, 1.0, 0.0),
    ("identity", 0.0, 0.0, 0.34),
    ("narrow-w0.5", 0.56, 0.5, 0.028),
    ("narrow-w0.25", 0.35, 0.25, 0.085),
    ("narrow-w0.125", 0.27, 0.125, 0.15),
    ("mbconv-e1-k3", 0.31, 0.1, 0.26),
    ("mbconv-e3-k3", 0.74, 0.3, 0.2),
    ("mbconv-e6-k3", 1.4, 0.6, 0.17),
    ("mbconv-e3-k5", 0.92, 0.34, 0.19),
    ("mbconv-e1-k3-se0.25", 0.42, 0.11, 0.27),
    ("mbconv-e3-k3-se0.08", 0.9, 0.31, 0.21),
    ("mbconv-e6-k3-se0.04", 1.7, 0.62, 0.18),
    ("fused-e1-k3", 0.58, 0.55, 0.14),
    ("fused-e3-k3", 1.35, 1.6, 0.11),
    ("bottleneck-w0.25", 0.25, 0.06, 0.29),
    ("bottleneck-w0.5", 0.44, 0.2, 0.22),
    ("conv-k3", 0.5, 0.5, 0.16),
];

/// A finished run of ResNet-56 with two budgets.
pub(super) fn full() -> Report {
    let mut dice = Dice(7);
    let mut report = empty();
    report.command = "lana accelerate --teacher resnet56_cifar --weights resnet56.safetensors --train webdataset:train-{0000..0004}.tar --val webdataset:test-0000.tar --budget 0.5x --budget 0.34x --batch 64 --threads 1 --out run".into();
    report.teacher_latency = Some(TeacherLatency { median_ms: 152.3, ci_ms: [151.6, 153.1] });
    let mut table = LatencyTable {
        device: "Example Processor 3000, 2 cores".into(),
        runtime: "ONNX Runtime 1.32.0".into(),
        batch: 64,
        threads: 1,
        fixed_ms: 6.4,
        teacher_ms: 152.3,
        layers: BTreeMap::new(),
        check: Some(Figures {
            networks: 20,
            mean: 0.013,
            worst: 0.042,
            bias: -0.002,
            kendall: 0.96,
            spearman: 0.99,
        }),
    };
    let mut scores = Scores {
        images: 2048,
        batch: 256,
        seed: 0,
        teacher_loss: 0.021,
        layers: BTreeMap::new(),
        ..Scores::default()
    };
    for stage in 1..=3usize {
        for block in 0..9usize {
            let layer = format!("layer{stage}.{block}");
            let changes_shape = stage > 1 && block == 0;
            let teacher_ms = [6.9, 5.1, 4.1][stage - 1] * (0.97 + 0.06 * dice.roll());
            let depth = [2.2, 0.7, 0.9, 0.5, 0.4, 0.35, 0.3, 0.4, 0.8][block] * [1.2, 1.0, 0.8][stage - 1];
            let (mut operations, mut prices, mut layer_scores) =
                (Vec::new(), BTreeMap::new(), BTreeMap::new());
            for (name, time, macs, score) in OPERATIONS {
                if name == "identity" && changes_shape {
                    continue;
                }
                let cost = Cost { macs: (4.6e6 * macs) as u64, params: (2.2e4 * macs * stage as f64) as u64 };
                operations.push(PoolOperation {
                    name: name.into(),
                    initialisation: "as shortcut".into(),
                    cost,
                    footprint: Footprint::default(),
                });
                prices.insert(
                    name.to_string(),
                    Price { ms: teacher_ms * time * (0.95 + 0.1 * dice.roll()), noisy: dice.roll() > 0.97 },
                );
                let mean = score * depth * (0.7 + 0.6 * dice.roll());
                let estimate = Estimate { mean, stderr: 0.04 * mean };
                layer_scores.insert(name.to_string(), Score { loss: estimate, kl: estimate });
                if name == "teacher" || name == "identity" {
                    continue;
                }
                let end = (0.25 + 2.4 * score) * (0.8 + 0.5 * dice.roll());
                let identity_error = (!changes_shape).then_some(0.12 * depth);
                let error = end * 0.12 * depth;
                let points = 1..=12u64;
                report.operations.push(OperationRecord {
                    layer: layer.clone(),
                    operation: name.into(),
                    images: 12_800,
                    error,
                    identity_error,
                    first_error: None,
                    curve: points
                        .map(|i| (i * 1066, error * (1.0 + 1.8 / i as f64) * (0.97 + 0.06 * dice.roll())))
                        .collect(),
                    failed: false,
                    restarts: 0,
                    stopped: None,
                    sha256: String::new(),
                });
            }
            report.pool.layers.push(PoolLayer {
                layer: layer.clone(),
                stage: format!("layer{stage}"),
                input: vec![16 << (stage - 1), 32 >> (stage - 1), 32 >> (stage - 1)],
                output: vec![16 << (stage - 1), 32 >> (stage - 1), 32 >> (stage - 1)],
                operations,
                left_out: BTreeMap::new(),
                latency: None,
                learned: BTreeMap::new(),
            });
            table.layers.insert(layer.clone(), prices);
            scores.layers.insert(layer, layer_scores);
        }
    }
    report.table = Some(table);
    report.scores = Some(scores);
    for (budget, share, top1) in [("0.5x", 0.5, 0.8894), ("0.34x", 0.34, 0.8616)] {
        let student = student(&mut dice, &report, budget, share, top1);
        report.controls.extend(controls(&student.0));
        report.students.push(student);
    }
    report
}

/// A control that is as good as the student, one that is worse, one of another recipe that was not measured.
fn controls(student: &StudentMetrics) -> [ControlMetrics; 3] {
    let control = |name: &str, gain: f64, ratio: Option<f64>| {
        let measured = ratio.map(|ratio| measured_as(152.3 * ratio));
        let val = Accuracy { top1: student.top1 + gain, ..student.val };
        ControlMetrics {
            control: name.into(),
            budget: student.budget.clone(),
            meets_budget: ratio.map(|ratio| ratio <= student.ratio()),
            timings: vec![ControlTiming { deployment: student.deployment.clone(), measured }],
            val,
            top1_error: val.top1_error(),
            difference: Some(Difference::between((&val, None), (&student.val, None))),
            agreement: ratio.map(|_| 0.9),
            cost: student.cost,
            same_recipe: ratio.is_some(),
            choices: Vec::new(),
        }
    };
    let ratio = student.ratio();
    [
        control("skip-only", -0.004, Some(0.99 * ratio)),
        control("random", -0.08, Some(ratio)),
        control("resnet20_cifar, from nothing", 0.01, None),
    ]
}

fn student(
    dice: &mut Dice,
    report: &Report,
    budget: &str,
    share: f64,
    top1: f64,
) -> (StudentMetrics, Candidates) {
    let names =
        ["identity", "narrow-w0.5", "narrow-w0.25", "narrow-w0.125", "conv-k3", "mbconv-e1-k3", "teacher"];
    let choices: Vec<(String, String)> = report
        .pool
        .layers
        .iter()
        .map(|layer| {
            let wanted = names[(dice.roll() * names.len() as f64 * (0.6 + share)) as usize % names.len()];
            let there = layer.operations.iter().any(|o| o.name == wanted);
            (layer.layer.clone(), if there { wanted } else { "narrow-w0.5" }.to_string())
        })
        .collect();
    let limit = 152.3 * share;
    let mut candidates: Vec<Candidate> = (0..30)
        .map(|i| {
            let round = i / 20;
            let predicted = limit * (0.955 + 0.04 * dice.roll());
            let measured =
                predicted * (if round == 0 { 1.035 } else { 1.002 }) * (0.985 + 0.03 * dice.roll());
            Candidate {
                round,
                rank: i % 20,
                choices: choices.iter().map(|c| c.1.clone()).collect(),
                score: 0.3 + 0.1 * dice.roll(),
                predicted_ms: predicted,
                limit_ms: Some(limit),
                loss: 0.8 + 0.4 * dice.roll(),
                top1: 0.62 + 0.2 * share + 0.12 * dice.roll(),
                measured: Some(measured_as(measured)),
                confirmed: false,
                others: Vec::new(),
                memory_bytes: 200_000,
                size_bytes: 1_900_000,
                cost: Cost { macs: (125.7e6 * share) as u64, params: 420_000 },
                meets_budget: measured <= limit,
                thinnest: 0.25,
                tuned: None,
                tuned_right: None,
            }
        })
        .collect();
    let winner = (0..30).max_by(|a, b| {
        let value = |i: usize| if candidates[i].meets_budget { candidates[i].top1 } else { 0.0 };
        value(*a).total_cmp(&value(*b))
    });
    let winner = winner.unwrap_or(0);
    let accuracy = |top1: f64| Accuracy { top1, top5: 0.5 + top1 / 2.0, loss: 1.3 - top1, images: 932 };
    let other = (winner + 1) % 30;
    candidates[other].thinnest = 1.0;
    candidates[other].tuned = Some(accuracy(0.801));
    candidates[winner].tuned = Some(accuracy(0.812));
    let metrics = StudentMetrics {
        budget: budget.into(),
        limit_ms: Some(limit),
        predicted: candidates[winner].predicted_ms,
        predicted_ratio: candidates[winner].predicted_ms / 152.3,
        measured: Some(measured_as(limit * 0.99)),
        teacher_measured: Some(152.3),
        meets_budget: true,
        deployment: "cpu-onnxruntime-b64-t1-fp32".into(),
        others: Vec::new(),
        used: Some(0.99),
        verdict: "98.7 % of the budget used when measured, after 2 rounds".into(),
        memory_bytes: 196_608,
        teacher_memory_bytes: 196_608,
        size_bytes: 1_850_000,
        teacher_size_bytes: 3_480_000,
        top1,
        teacher_top1: 0.9013,
        val: accuracy(top1),
        cost: Cost { macs: (125.7e6 * share * 0.9) as u64, params: (853_018.0 * share * 1.1) as u64 },
        teacher_cost: report.teacher.cost,
        choices,
        epochs: (1..=4)
            .map(|epoch| EpochRecord {
                epoch,
                train_loss: 0.6 / epoch as f64 + 0.2 / share,
                val: accuracy(top1 - 0.05 / epoch as f64 + 0.0125),
                average: None,
                images_per_s: 520.0,
                seconds: 95.0 + dice.roll(),
            })
            .collect(),
        assessment: Some(Assessment {
            accuracy: accuracy(top1),
            top1_error: accuracy(top1).top1_error(),
            calibration_error: 0.0312,
            agreement: Some(0.931),
            images_per_s: 880.0,
            right: None,
            classes: (0..10)
                .map(|class| ClassAccuracy {
                    class,
                    name: (class % 2 == 0).then(|| format!("<class> {class}")),
                    images: 93,
                    top1: (class != 7).then_some(top1),
                })
                .collect(),
        }),
        export_difference: 3.1e-6,
        files: BTreeMap::new(),
    };
    let (budget, limit_ms) = (budget.to_string(), Some(limit));
    let candidates = Candidates {
        budget,
        limit_ms,
        candidates,
        winner,
        correction: 1.034,
        ended: Ended::Inside,
        used: Some(0.987),
        deployments: vec![metrics.deployment.clone()],
        settings: String::new(),
    };
    (metrics, candidates)
}

fn measured_as(ms: f64) -> Measured {
    let ratio = ms / 152.3;
    Measured {
        median_ms: ms,
        ci_ms: [ms * 0.994, ms * 1.007],
        ratio,
        ratio_ci: [ratio * 0.997, ratio * 1.003],
    }
}

/// A run of which only the teacher is done.
pub(super) fn empty() -> Report {
    Report {
        config_toml: "teacher = \"resnet56_cifar\"\nval = \"webdataset:test-0000.tar\"\nbudgets = [\"0.5x\", \"0.34x\"]\n\n[score]\nby = \"kl\"\n".into(),
        command: String::new(),
        created: "2026-01-31 12:00 UTC".into(),
        teacher: TeacherMetrics {
            name: "resnet56_cifar".into(),
            val: Accuracy { top1: 0.9013, top5: 0.9957, loss: 0.41, images: 932 },
            cost: Cost { macs: 125_747_840, params: 853_018 },
            files: BTreeMap::new(),
        },
        teacher_latency: None,
        pool: PoolRecord {
            pool: "compact".into(),
            rules: Vec::new(),
            layers: Vec::new(),
            outside: Footprint::default(),
        },
        table: None,
        operations: Vec::new(),
        precision: None,
        scores: None,
        students: Vec::new(),
        controls: Vec::new(),
    }
}
