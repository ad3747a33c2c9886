//! A made-up network for tests of the program and of the loop: pool, scores and lookup table, no graph and no clock.

use std::collections::BTreeMap;

use lana_graph::Cost;
use lana_latency::{Deployment, Device, Table};
use lana_select::{Choice, Layer, Problem};
use serde_json::json;

use crate::program::Priced;
use crate::target::Target;
use crate::{Amount, Estimate, Footprint, PoolLayer, PoolOperation, PoolRecord, Score, Scores};

/// Name, share of the layer's latency, of its parameters, of its memory, score at the first layer.
pub(crate) const OPERATIONS: [(&str, f64, f64, f64, f64); 6] = [
    ("teacher", 1.0, 1.0, 1.0, 0.0),
    ("wide", 0.8, 1.4, 2.0, 0.02),
    ("half", 0.55, 0.5, 0.8, 0.08),
    ("quarter", 0.35, 0.25, 0.7, 0.17),
    ("eighth", 0.22, 0.12, 0.6, 0.27),
    ("identity", 0.0, 0.0, 0.0, 0.6),
];
/// Milliseconds of a layer and outside of all layers.
pub(crate) const LAYER_MS: f64 = 2.0;
pub(crate) const FIXED_MS: f64 = 1.0;
/// Parameters (and multiply-accumulates, weights) of a layer and outside.
pub(crate) const PARAMS: u64 = 1000;
/// Elements of the feature maps of the first layer at their peak; later ones have less.
pub(crate) const ELEMENTS: u64 = 10_000;

/// Four layers of three choices and a latency budget of 10 of the 16 ms that the teacher takes: small enough to see what is best.
pub(crate) fn problem() -> Problem {
    const LATENCY: &str = "latency_ms";
    let choice = |name: &str, score: f64, ms: f64| Choice {
        name: name.into(),
        score,
        costs: BTreeMap::from([(LATENCY.to_string(), ms)]),
    };
    let layer = |name: &str, scale: f64| Layer {
        name: name.into(),
        choices: vec![
            choice("teacher", 0.0, 4.0),
            choice("half", 0.1 * scale, 2.0),
            choice("identity", scale, 0.0),
        ],
    };
    let layers = vec![layer("a", 1.0), layer("b", 2.0), layer("c", 3.0), layer("d", 4.0)];
    let budget = lana_select::Budget { min: None, max: Some(10.0) };
    Problem::new(layers, BTreeMap::from([(LATENCY.to_string(), budget)]))
}

fn name(layer: usize) -> String {
    format!("stage{}.{}", 1 + layer / 4, layer % 4)
}

pub(crate) fn pool(layers: usize) -> PoolRecord {
    let layer = |index: usize| PoolLayer {
        layer: name(index),
        stage: format!("stage{}", 1 + index / 4),
        input: vec![8, 4, 4],
        output: vec![8, 4, 4],
        operations: OPERATIONS
            .iter()
            .map(|(name, _, params, memory, _)| {
                let params = (PARAMS as f64 * params) as u64;
                PoolOperation {
                    name: (*name).into(),
                    initialisation: String::new(),
                    cost: Cost { params, macs: 10 * params },
                    footprint: Footprint {
                        peak_elements: (ELEMENTS as f64 * memory / (1.0 + index as f64)) as u64,
                        weights: params,
                        file_bytes: 4 * params + 100,
                    },
                }
            })
            .collect(),
        left_out: BTreeMap::new(),
        latency: None,
        learned: BTreeMap::new(),
    };
    PoolRecord {
        pool: "made up".into(),
        rules: Vec::new(),
        layers: (0..layers).map(layer).collect(),
        outside: Footprint { peak_elements: 3000, weights: PARAMS, file_bytes: 4 * PARAMS + 500 },
    }
}

/// Of the whole teacher.
pub(crate) fn cost(layers: usize) -> Cost {
    let params = PARAMS * (layers as u64 + 1);
    Cost { params, macs: 10 * params }
}

pub(crate) fn scores(layers: usize) -> Scores {
    let of = |index: usize| {
        let score = |&(name, _, _, _, score): &(&str, f64, f64, f64, f64)| {
            // Layers differ, so that solutions do.
            let mean = score * (0.6 + 0.11 * ((index * 7) % 9) as f64);
            let estimate = Estimate { mean, stderr: 0.002 };
            (name.to_string(), Score { loss: estimate, kl: estimate })
        };
        (name(index), OPERATIONS[1..].iter().map(score).collect())
    };
    Scores {
        images: 100,
        batch: 10,
        seed: 0,
        teacher_loss: 0.3,
        layers: (0..layers).map(of).collect(),
        ..Scores::default()
    }
}

/// A table of this device whose costs are `scale` times what they are said to be.
pub(crate) fn table(layers: usize, deployment: &Deployment, scale: f64) -> Table {
    let entry = |(timing, (name, share, ..)): (usize, &(&str, f64, f64, f64, f64))| {
        json!({"operation": name, "cost_ms": share * LAYER_MS * scale, "spread_ms": 0.01, "repeats": 20,
            "timing": timing, "noisy": false, "correction_ms": 0.0})
    };
    let entries: Vec<_> = OPERATIONS.iter().enumerate().skip(1).map(entry).collect();
    let rows: Vec<_> = (0..layers)
        .map(|index| {
            json!({"layer": name(index), "teacher_ms": LAYER_MS * scale, "teacher_spread_ms": 0.01,
                "operations": entries})
        })
        .collect();
    let teacher = (layers as f64 * LAYER_MS + FIXED_MS) * scale;
    serde_json::from_value(json!({"format": 2, "device": Device::identify(), "deployment": deployment,
        "runtime_version": "1", "method": "by hand", "networks": "", "created": 0, "seconds": 1.0, "teacher": "made up", "teacher_measured_ms": teacher,
        "teacher_ci_ms": [teacher * 0.99, teacher * 1.01], "parts_error": 0.0, "fixed_ms": FIXED_MS * scale,
        "layers": rows, "whole": [], "correction": null, "check": null}))
    .unwrap()
}

pub(crate) fn priced(layers: usize, deployment: Deployment, amount: Option<Amount>, scale: f64) -> Priced {
    let table = table(layers, &deployment, scale);
    Priced { deployment, amount, target: Target::of(&table), table, drift: 1.0 }
}
