//! Scores: what the network loses when one operation alone stands in its layer's place.
//!
//! The operation runs on the teacher's own feature map in front of the layer, then only what lies behind the layer runs:
//! half of the network on average. Batches outside, operations inside, so that one forward of the teacher serves all. The
//! operation normalises by the statistics of the batch, the rest of the network by the teacher's own. (By those of the batch, too,
//! the program selects worse networks: docs/results.md, "Which scores select best".)

use std::time::Instant;

use lana_graph::Value;
use lana_torch::{Batch, BatchNorm, Device, Network, Tensor, divergence, losses, without_gradients};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::context::{Context, LayerPool, Teacher};
use crate::stages::library::{Library, Trained};
use crate::stages::pretrain;
use crate::{Error, Estimate, Result, Score, Scores, read_or_redo, write_json};

/// `scores-partial.json`: sums over the batches so far, so that a killed scoring goes on.
#[derive(Serialize, Deserialize)]
struct Partial {
    operations: Vec<(usize, String)>,
    images: usize,
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    batch: usize,
    batches: usize,
    teacher_loss: f64,
    sums: Vec<Sums>,
}

/// Sums over images, from which mean and standard error follow.
#[derive(Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Sums {
    pub(crate) loss: [f64; 2],
    pub(crate) kl: [f64; 2],
}

/// Gives the scores, computing those that are missing.
pub(crate) fn run(context: &Context<'_>) -> Result<Scores> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let config = &context.config.score;
    let library = Library::of(context, &teacher, &pool)?;
    let trained = library.operations();
    if trained.iter().all(Trained::is_identity) && has_trainable(&pool) {
        return Err(match pretrain::any_failed(context, &pool)? {
            true => pretrain::every_one_failed(context),
            false => context.not_ready("a trained operation", "pretrain"),
        });
    }
    let path = context.run.path("scores.json");
    let seed = context.config.seed;
    let mut scores = read_or_redo::<Scores>(&path, context.progress)?
        .filter(|s| s.batch == config.batch as u64 && s.seed == seed)
        .filter(|s| s.asked.is_none_or(|asked| asked == config.images as u64))
        .unwrap_or(Scores {
            asked: Some(config.images as u64),
            batch: config.batch as u64,
            seed: context.config.seed,
            ..Scores::default()
        });
    let missing: Vec<&Trained> =
        trained.iter().filter(|t| !scores.has(&pool[t.layer].layer, &t.name)).collect();
    if missing.is_empty() {
        return Ok(scores);
    }
    let images = scoring_images(context, &teacher)?;
    let count: usize = images.iter().map(Batch::len).sum();
    let rest = Rest::of(&teacher, context.device)?;
    let layers = rest.network.graph().layers().to_vec();

    let begun = Instant::now();
    context.progress.begin("score", (count * missing.len()) as u64, "evaluations");
    let partial_path = context.run.path("scores-partial.json");
    let key: Vec<(usize, String)> = missing.iter().map(|t| (t.layer, t.name.clone())).collect();
    let mut partial = read_or_redo::<Partial>(&partial_path, context.progress)?
        .filter(|p| p.operations == key && p.images == count && p.sums.len() == key.len())
        .filter(|p| p.seed == seed && p.batch == config.batch)
        .unwrap_or(Partial {
            sums: vec![Sums::default(); key.len()],
            operations: key,
            images: count,
            seed,
            batch: config.batch,
            batches: 0,
            teacher_loss: 0.0,
        });
    let mut seen: usize = images[..partial.batches.min(images.len())].iter().map(Batch::len).sum();
    context.progress.advance((seen * missing.len()) as u64, "");
    for batch in &images[partial.batches.min(images.len())..] {
        let (base, maps) = rest.on(batch)?;
        partial.teacher_loss += lana_torch::sum(&base.losses)?;
        let tasks: Vec<_> = missing
            .iter()
            .map(|t| Task {
                operation: t,
                rest: rest.share(),
                behind: layers[t.layer].output,
                input: maps[t.layer].shallow_clone(),
                base: base.share(),
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
    let estimate = |[sum, squares]: [f64; 2]| Estimate::of_sums(sum, squares, count as f64);
    for (t, sum) in missing.iter().zip(&partial.sums) {
        let score = Score { loss: estimate(sum.loss), kl: estimate(sum.kl) };
        if !(score.loss.mean.is_finite() && score.kl.mean.is_finite()) {
            context
                .progress
                .warn(&format!("{}: {} gives no finite loss and is left out", pool[t.layer].layer, t.name));
            scores.failed.entry(pool[t.layer].layer.clone()).or_default().insert(t.name.clone());
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
    context.tell_skipped("score")?;
    context.run.event(
        "score",
        serde_json::json!({"operations": missing.len(), "images": count, "seconds": seconds}),
    )?;
    Ok(scores)
}

fn has_trainable(pool: &[LayerPool]) -> bool {
    pool.iter().any(|l| l.operations.iter().any(|(o, _)| !o.is_identity()))
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

/// The network around the operation that is scored: the teacher, frozen.
pub(crate) struct Rest {
    pub(crate) network: Network,
}

/// What there is before a layer is changed, on one batch.
pub(crate) struct Base {
    labels: Tensor,
    /// The teacher's logits.
    pub(crate) teacher: Tensor,
    /// Its loss on each image.
    losses: Tensor,
}

impl Rest {
    pub(crate) fn of(teacher: &Teacher, device: Device) -> Result<Self> {
        Ok(Rest { network: Network::frozen(&teacher.graph, &teacher.weights, device)? })
    }

    /// What there is on a batch, and the map in front of each layer.
    pub(crate) fn on(&self, batch: &Batch) -> Result<(Base, Vec<Tensor>)> {
        let taps: Vec<Value> = self.network.graph().layers().iter().map(|l| l.input).collect();
        without_gradients(|| {
            let (teacher, maps) = self.network.forward_tapped(&batch.images, BatchNorm::Running, &taps)?;
            let base = Base {
                labels: batch.labels.shallow_clone(),
                losses: losses(&teacher, &batch.labels)?,
                teacher,
            };
            Ok((base, maps))
        })
    }

    pub(crate) fn share(&self) -> Self {
        Rest { network: self.network.share() }
    }
}

impl Base {
    pub(crate) fn share(&self) -> Self {
        Base {
            labels: self.labels.shallow_clone(),
            teacher: self.teacher.shallow_clone(),
            losses: self.losses.shallow_clone(),
        }
    }

    /// What other logits change.
    pub(crate) fn change(&self, logits: &Tensor) -> Result<Sums> {
        let loss = lana_torch::difference(&losses(logits, &self.labels)?, &self.losses)?;
        let kl = divergence(logits, &self.teacher)?;
        Ok(Sums { loss: lana_torch::moments(&loss)?, kl: lana_torch::moments(&kl)? })
    }
}

/// One operation on one batch.
pub(crate) struct Task<'a> {
    pub(crate) operation: &'a Trained,
    pub(crate) rest: Rest,
    pub(crate) behind: Value,
    pub(crate) input: Tensor,
    pub(crate) base: Base,
}

impl Task<'_> {
    /// What the operation changes.
    pub(crate) fn run(self) -> Result<Sums> {
        let (trained, rest) = (self.operation, &self.rest);
        let operation = Network::new(&trained.graph, &trained.weights()?, rest.network.device())?;
        without_gradients(|| {
            let map = operation.forward(&self.input, BatchNorm::Batch)?;
            self.base.change(&rest.network.forward_from(self.behind, &map, BatchNorm::Running)?)
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
