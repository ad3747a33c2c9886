//! Scores: what the network loses when one operation alone stands in its layer's place.
//!
//! The operation runs on the teacher's own feature map in front of the layer, then only what lies behind the layer runs:
//! half of the network on average. Batches outside, operations inside, so that one forward of the teacher serves all.

use std::collections::BTreeMap;
use std::time::Instant;

use lana_graph::{Graph, Value};
use lana_torch::{Batch, BatchNorm, Network, Tensor, divergence, losses, without_gradients};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::context::{Context, LayerPool, Teacher};
use crate::{Error, Estimate, Result, Score, Scores, read_or_redo, write_json};

/// An operation that has weights and may be selected.
pub(crate) struct Trained {
    pub(crate) layer: usize,
    pub(crate) name: String,
    pub(crate) graph: Graph,
    pub(crate) weights: lana_graph::Weights,
}

/// `scores-partial.json`: sums over the batches so far, so that a killed scoring goes on.
#[derive(Serialize, Deserialize)]
struct Partial {
    operations: Vec<(usize, String)>,
    images: usize,
    batches: usize,
    teacher_loss: f64,
    sums: Vec<Sums>,
}

/// Sums over images, from which mean and standard error follow.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
struct Sums {
    loss: [f64; 2],
    kl: [f64; 2],
}

/// Gives the scores, computing those that are missing.
pub(crate) fn run(context: &Context<'_>) -> Result<Scores> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let config = &context.config.score;
    let trained = trained(context, &pool)?;
    if !trained.iter().any(|t| !t.graph.nodes().is_empty()) && has_trainable(&pool) {
        return Err(context.not_ready("no trained operation", "pretrain"));
    }
    let path = context.run.path("scores.json");
    let mut scores = read_or_redo::<Scores>(&path, context.progress)?.unwrap_or(Scores {
        images: 0,
        batch: config.batch as u64,
        seed: context.config.seed,
        teacher_loss: 0.0,
        layers: BTreeMap::new(),
    });
    let missing: Vec<&Trained> = trained
        .iter()
        .filter(|t| !scores.layers.get(&pool[t.layer].layer).is_some_and(|l| l.contains_key(&t.name)))
        .collect();
    if missing.is_empty() {
        return Ok(scores);
    }
    let images = scoring_images(context, &teacher)?;
    let count: usize = images.iter().map(Batch::len).sum();
    let network = Network::frozen(&teacher.graph, &teacher.weights, context.device)?;
    let operations = missing
        .iter()
        .map(|t| Network::new(&t.graph, &t.weights, context.device))
        .collect::<Result<Vec<_>, _>>()?;
    let layers = network.graph().layers().to_vec();
    let taps: Vec<Value> = layers.iter().map(|l| l.input).collect();

    let begun = Instant::now();
    context.progress.begin("score", (count * missing.len()) as u64, "evaluations");
    let partial_path = context.run.path("scores-partial.json");
    let key: Vec<(usize, String)> = missing.iter().map(|t| (t.layer, t.name.clone())).collect();
    let mut partial = read_or_redo::<Partial>(&partial_path, context.progress)?
        .filter(|p| p.operations == key && p.images == count && p.sums.len() == key.len())
        .unwrap_or(Partial {
            sums: vec![Sums::default(); key.len()],
            operations: key,
            images: count,
            batches: 0,
            teacher_loss: 0.0,
        });
    let mut seen: usize = images[..partial.batches.min(images.len())].iter().map(Batch::len).sum();
    context.progress.advance((seen * missing.len()) as u64, "");
    for batch in &images[partial.batches.min(images.len())..] {
        let (logits, maps) =
            without_gradients(|| network.forward_tapped(&batch.images, BatchNorm::Running, &taps))?;
        let base = losses(&logits, &batch.labels)?;
        partial.teacher_loss += lana_torch::sum(&base)?;
        let mut by_value: BTreeMap<Value, Tensor> = BTreeMap::new();
        for (value, map) in taps.iter().zip(maps) {
            by_value.insert(*value, map);
        }
        let tasks: Vec<_> = missing
            .iter()
            .zip(&operations)
            .map(|(t, operation)| Task {
                operation: operation.share(),
                teacher: network.share(),
                behind: layers[t.layer].output,
                input: by_value[&layers[t.layer].input].shallow_clone(),
                labels: batch.labels.shallow_clone(),
                logits: logits.shallow_clone(),
                base: base.shallow_clone(),
            })
            .collect();
        let results: Vec<Result<Sums>> =
            context.threads.install(|| tasks.into_par_iter().with_max_len(1).map(Task::run).collect());
        for (sum, result) in partial.sums.iter_mut().zip(results) {
            sum.add(result?);
        }
        partial.batches += 1;
        write_json(&partial_path, &partial)?;
        seen += batch.len();
        context.progress.advance((seen * missing.len()) as u64, "");
    }
    for (t, sum) in missing.iter().zip(&partial.sums) {
        let score = Score { loss: estimate(sum.loss, count), kl: estimate(sum.kl, count) };
        if !(score.loss.mean.is_finite() && score.kl.mean.is_finite()) {
            context
                .progress
                .warn(&format!("{}: {} gives no finite loss and is left out", pool[t.layer].layer, t.name));
            continue;
        }
        scores.layers.entry(pool[t.layer].layer.clone()).or_default().insert(t.name.clone(), score);
    }
    scores.images = count as u64;
    scores.teacher_loss = partial.teacher_loss / count as f64;
    write_json(&path, &scores)?;
    std::fs::remove_file(&partial_path).map_err(Error::io(&partial_path))?;
    let seconds = begun.elapsed().as_secs_f64();
    context.progress.finish(&format!("{} operations", missing.len()));
    context.run.event(
        "score",
        serde_json::json!({"operations": missing.len(), "images": count, "seconds": seconds}),
    )?;
    Ok(scores)
}

fn has_trainable(pool: &[LayerPool]) -> bool {
    pool.iter().any(|l| l.operations.iter().any(|(o, _)| !o.is_identity()))
}

/// Every operation that can be selected: trained ones, and identities.
pub(crate) fn trained(context: &Context<'_>, pool: &[LayerPool]) -> Result<Vec<Trained>> {
    let mut trained = Vec::new();
    for (layer, place) in pool.iter().enumerate() {
        for (operation, graph) in &place.operations {
            let weights = if operation.is_identity() {
                lana_graph::Weights::new()
            } else {
                match super::pretrain::record_of(context, &place.layer, operation.name(), graph)? {
                    Some(record) if !record.failed => super::pretrain::weights_of(context, &record, graph)?,
                    _ => continue,
                }
            };
            trained.push(Trained { layer, name: operation.to_string(), graph: graph.clone(), weights });
        }
    }
    Ok(trained)
}

/// The images that scores and candidates are judged by: training images, unchanged, chosen by the seed.
pub(crate) fn scoring_images(context: &Context<'_>, teacher: &Teacher) -> Result<Vec<Batch>> {
    let config = &context.config.score;
    let train = context.dataset(&context.config.train, teacher)?;
    let subset = train.subset(context.config.seed, config.images.min(train.len()));
    let loader = context.plain_loader(&train, teacher, config.batch, Some(subset))?;
    let mut batches = Vec::new();
    for batch in loader.epoch(0) {
        batches.push(context.batch(&batch?, &teacher.graph)?);
    }
    match batches.is_empty() {
        true => Err(Error::input("there is no training image to score by", "check --train and score.images")),
        false => Ok(batches),
    }
}

/// One operation on one batch.
struct Task {
    operation: Network,
    teacher: Network,
    behind: Value,
    input: Tensor,
    labels: Tensor,
    logits: Tensor,
    base: Tensor,
}

impl Task {
    fn run(self) -> Result<Sums> {
        without_gradients(|| {
            let map = self.operation.forward(&self.input, BatchNorm::Batch)?;
            let logits = self.teacher.forward_from(self.behind, &map, BatchNorm::Running)?;
            let change = lana_torch::difference(&losses(&logits, &self.labels)?, &self.base)?;
            let kl = divergence(&logits, &self.logits)?;
            Ok(Sums { loss: lana_torch::moments(&change)?, kl: lana_torch::moments(&kl)? })
        })
    }
}

impl Sums {
    fn add(&mut self, other: Sums) {
        for i in 0..2 {
            self.loss[i] += other.loss[i];
            self.kl[i] += other.kl[i];
        }
    }
}

/// Mean and its standard error from sum and sum of squares.
fn estimate([sum, squares]: [f64; 2], count: usize) -> Estimate {
    let n = count as f64;
    let mean = sum / n;
    let variance = (squares / n - mean * mean).max(0.0);
    Estimate { mean, stderr: (variance / (n - 1.0).max(1.0)).sqrt() }
}
