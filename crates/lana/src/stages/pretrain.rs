//! Phase 1: every operation of every layer learns to imitate its layer, all in one pass over the images.
//!
//! Each decoded batch and each forward of the frozen teacher feeds all operations. While the operations learn from one
//! batch, each on one thread, another thread runs the teacher on the next. The whole state of the pass is written every
//! few minutes, so that a killed run goes on where it was.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use lana_data::{Augment, Batches, Loader, LoaderConfig};
use lana_graph::{Graph, Value, Weights};
use lana_latency::{LayerRow, Table};
use lana_models::pool::Operation;
use lana_torch::{BatchNorm, Imitation, Imitator, Network, Tensor, cosine, imitate};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::checkpoint;
use crate::context::{Context, LayerPool, Teacher};
use crate::run::read_or_redo;
use crate::stages::{profile, tables};
use crate::{Error, Limit, OperationRecord, PoolError, Quantity, Result, sha256, write_atomic, write_json};

/// Standard errors by which an operation must be slower than its layer to be left out.
const SURE: f64 = 2.0;

/// One operation of the pass.
struct Pupil {
    layer: usize,
    name: String,
    imitator: Imitator,
    curve: Vec<(u64, f64)>,
    failed: bool,
}

/// How far the pass is: what stands beside the tensors of its checkpoint.
#[derive(Serialize, Deserialize)]
struct Position {
    step: u64,
    steps: u64,
    operations: Vec<(String, String)>,
    curves: Vec<Vec<(u64, f64)>>,
    failed: Vec<bool>,
    /// Sum and number of the losses since the last point of the curve.
    pending: Vec<(f64, u64)>,
}

/// The teacher's feature maps at the boundaries of its layers, for one batch.
struct Features {
    /// Input and output of each layer.
    maps: Vec<(Tensor, Tensor)>,
}

/// Trains what is not trained yet.
pub(crate) fn run(context: &Context<'_>) -> Result<()> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let table =
        profile::stored(context)?.ok_or_else(|| tables::missing(&context.run, &context.config.latency))?;
    let mut todo = Vec::new();
    for (index, layer) in pool.iter().enumerate() {
        for (operation, graph) in &layer.operations {
            if is_wanted(context, &table, layer, operation.name())
                && !operation.is_identity()
                && record_of(context, &layer.layer, operation.name(), graph)?.is_none()
            {
                todo.push((index, operation.clone(), graph.clone()));
            }
        }
    }
    if todo.is_empty() {
        return Ok(());
    }
    let left_out: usize = pool.iter().map(|layer| slow(context, &table, layer).len()).sum();
    if left_out > 0 {
        context.progress.say(&format!(
            "{left_out} operations are no faster than their layer and are not trained; `lana pool {}` lists them",
            context.run.root().display()
        ));
    }
    let config = &context.config.pretrain;
    let train = context.dataset(&context.config.train, &teacher)?;
    let batch = config.batch.min(train.len());
    let loader_config = LoaderConfig {
        batch,
        shuffle: true,
        seed: context.config.seed,
        drop_last: true,
        ..LoaderConfig::default()
    };
    let augment = Augment::CropFlip { padding: config.crop_padding };
    let loader = context.loader(&train, &teacher, augment, loader_config)?;
    let steps = config.images.div_ceil(batch) as u64;

    let mut pupils = Vec::new();
    for (layer, operation, graph) in &todo {
        let place = &pool[*layer];
        let weights = teacher.weights.under(&place.layer);
        let seed = context.config.seed.wrapping_mul(1009).wrapping_add(*layer as u64);
        let start = operation.initialise(&place.graph, &weights, graph, seed)?;
        pupils.push(Pupil {
            layer: *layer,
            name: operation.to_string(),
            imitator: Imitator::new(graph, &start, config.weight_decay, context.device)?,
            curve: Vec::new(),
            failed: false,
        });
    }
    let mut step = take_up(context, &mut pupils, &todo, &pool, steps)?;

    let progress = context.progress;
    progress.say(&format!(
        "phase 1: {} operations of {} layers in one pass over {} images",
        pupils.len(),
        pool.len(),
        steps * batch as u64
    ));
    progress.begin("pretrain", steps * batch as u64, "images");
    progress.advance(step * batch as u64, "");
    let network = Network::frozen(&teacher.graph, &teacher.weights, context.device)?;
    let mut stream = Stream { network, batches: None, loader, position: step };
    let mut features = stream.next(&teacher)?;
    let warm_up = (steps / 20).max(1);
    let points = (steps / 40).max(1);
    let begun = Instant::now();
    let first_step = step;
    let mut saved = Instant::now();
    while step < steps {
        let rate = cosine(config.learning_rate, step, steps, warm_up);
        let tasks: Vec<Imitation<'_>> = pupils
            .iter_mut()
            .filter(|pupil| !pupil.failed)
            .map(|pupil| {
                let (input, target) = &features.maps[pupil.layer];
                Imitation {
                    imitator: &mut pupil.imitator,
                    input: input.shallow_clone(),
                    target: target.shallow_clone(),
                    rate,
                }
            })
            .collect();
        let teacher = &teacher;
        let (result, (back, next)) = context.threads.install(|| {
            imitate(tasks, move || {
                let next = stream.next(teacher);
                (stream, next)
            })
        });
        result?;
        stream = back;
        features = next?;
        step += 1;
        if step.is_multiple_of(points) || step == steps {
            let seen = step * batch as u64;
            let mut sum = 0.0;
            for pupil in pupils.iter_mut().filter(|p| !p.failed) {
                let loss = pupil.imitator.take_loss();
                pupil.failed = !loss.is_finite();
                if pupil.failed {
                    let layer = &pool[pupil.layer].layer;
                    progress.warn(&format!("{layer}: {} diverged and is left out", pupil.name));
                } else {
                    pupil.curve.push((seen, loss));
                    sum += loss;
                }
            }
            let active = pupils.iter().filter(|p| !p.failed).count();
            progress.advance(seen, &format!("mean error {:.4}", sum / active.max(1) as f64));
            let seconds = begun.elapsed().as_secs_f64();
            let images = (step - first_step) * batch as u64;
            context.run.event(
                "pretrain",
                serde_json::json!({"images": seen, "total": steps * batch as u64,
                    "images_per_s": images as f64 / seconds, "mean_error": sum / active.max(1) as f64}),
            )?;
        } else {
            progress.advance(step * batch as u64, "");
        }
        if saved.elapsed().as_secs_f64() > config.checkpoint_s || step == steps {
            save(context, &pupils, &pool, step, steps)?;
            saved = Instant::now();
        }
    }
    let count = pupils.len();
    finish(context, pupils, &pool, &features, steps * batch as u64)?;
    progress.finish(&format!("{count} operations"));
    Ok(())
}

/// Whether a selection could want the operation: one that is not faster than its teacher layer serves no budget on
/// latency, and is not trained unless asked for.
fn is_wanted(context: &Context<'_>, table: &Table, layer: &LayerPool, operation: &str) -> bool {
    // What is slow here may be fast on another deployment that a budget names.
    let is_here = |l: &Limit| l.quantity == Quantity::Latency && l.deployment.is_none();
    let only_latency = context.config.budgets.iter().flat_map(|b| b.limits()).all(is_here);
    if context.config.pretrain.keep_slow || !only_latency {
        return true;
    }
    let spread = |row: &LayerRow| Some(row.operations.iter().find(|e| e.operation == operation)?.spread_ms);
    let spread = table.layers.iter().find(|row| row.layer == layer.layer).and_then(spread).unwrap_or(0.0);
    match (table.cost(&layer.layer, operation), table.cost(&layer.layer, "teacher")) {
        // What may only be noise must not cost an operation its place.
        (Some(cost), Some(teacher)) => cost - SURE * spread < teacher,
        _ => true,
    }
}

/// The operations of a layer that are not trained because its own is as fast.
pub(crate) fn slow(context: &Context<'_>, table: &Table, layer: &LayerPool) -> Vec<String> {
    let names = layer.operations.iter().map(|(operation, _)| operation.name());
    names.filter(|name| !is_wanted(context, table, layer, name)).map(str::to_string).collect()
}

/// How many operations are trained, of how many that should be.
pub(crate) fn count(context: &Context<'_>, pool: &[LayerPool], table: Option<&Table>) -> Result<(u64, u64)> {
    let (mut done, mut total) = (0, 0);
    for layer in pool {
        for (operation, graph) in &layer.operations {
            let wanted = table.is_none_or(|t| is_wanted(context, t, layer, operation.name()));
            if wanted && !operation.is_identity() {
                total += 1;
                done += u64::from(record_of(context, &layer.layer, operation.name(), graph)?.is_some());
            }
        }
    }
    Ok((done, total))
}

/// The errors of the operations of a layer that are trained.
pub(crate) fn learned(context: &Context<'_>, layer: &LayerPool) -> Result<BTreeMap<String, PoolError>> {
    let mut errors = BTreeMap::new();
    for (operation, graph) in &layer.operations {
        let record = record_of(context, &layer.layer, operation.name(), graph)?;
        if let Some(record) = record.filter(|record| !record.failed) {
            let to_identity = record.identity_error.map(|identity| record.error / identity);
            errors.insert(operation.to_string(), PoolError { error: record.error, to_identity });
        }
    }
    Ok(errors)
}

/// Seconds that the pass still takes, by the last rate noted in the run's events.
pub(crate) fn remaining_s(context: &Context<'_>) -> Option<f64> {
    let events = context.run.events();
    let last = events.iter().rev().find(|e| e.stage == "pretrain")?;
    let number = |name: &str| last.fields.get(name).and_then(serde_json::Value::as_f64);
    Some((number("total")? - number("images")?) / number("images_per_s")?)
}

/// The images, endlessly, as the teacher's feature maps.
struct Stream {
    network: Network,
    batches: Option<Batches>,
    loader: Loader,
    /// Batches taken since the start of training, over interruptions.
    position: u64,
}

impl Stream {
    fn next(&mut self, teacher: &Teacher) -> Result<Features> {
        let per_epoch = self.loader.batches() as u64;
        let (epoch, at) = (self.position / per_epoch, (self.position % per_epoch) as usize);
        let batches = match &mut self.batches {
            Some(batches) if at > 0 => batches,
            slot => slot.insert(self.loader.epoch_from(epoch, at)),
        };
        let batch = batches.next().ok_or_else(|| {
            Error::input(
                "the training images ended early",
                "check that the data did not change during the run",
            )
        })??;
        self.position += 1;
        let shape = teacher.graph.input_shape();
        let input = lana_torch::Batch::new(&batch.images, &batch.labels, shape, self.network.device())?;
        batches.recycle(batch);
        features(&self.network, &input.images)
    }
}

/// Runs the frozen teacher and keeps the feature maps around its layers.
fn features(network: &Network, images: &Tensor) -> Result<Features> {
    let layers = network.graph().layers();
    let mut taps: Vec<Value> = layers.iter().flat_map(|l| [l.input, l.output]).collect();
    taps.sort_unstable();
    taps.dedup();
    let (_, values) =
        lana_torch::without_gradients(|| network.forward_tapped(images, BatchNorm::Running, &taps))?;
    let by_value: BTreeMap<Value, Tensor> = taps.into_iter().zip(values).collect();
    let maps = layers
        .iter()
        .map(|l| (by_value[&l.input].shallow_clone(), by_value[&l.output].shallow_clone()))
        .collect();
    Ok(Features { maps })
}

/// Writes every operation's weights and record, then removes the checkpoint.
fn finish(
    context: &Context<'_>,
    pupils: Vec<Pupil>,
    pool: &[LayerPool],
    features: &Features,
    images: u64,
) -> Result<()> {
    let identity: Vec<Option<f64>> = features
        .maps
        .iter()
        .map(|(input, target)| match input.size() == target.size() {
            true => lana_torch::normalised_error(input, target).map(Some),
            false => Ok(None),
        })
        .collect::<Result<_, lana_torch::Error>>()?;
    let tasks: Vec<_> = pupils
        .into_iter()
        .map(|pupil| {
            let (input, target) = &features.maps[pupil.layer];
            (input.shallow_clone(), target.shallow_clone(), pupil)
        })
        .collect();
    let evaluated: Vec<Result<(Pupil, f64)>> = context.threads.install(|| {
        tasks
            .into_par_iter()
            .map(|(input, target, pupil)| {
                let error =
                    if pupil.failed { f64::INFINITY } else { pupil.imitator.error_on(&input, &target)? };
                Ok((pupil, error))
            })
            .collect()
    });
    for result in evaluated {
        let (pupil, error) = result?;
        let layer = &pool[pupil.layer].layer;
        let bytes = pupil.imitator.network().weights()?.to_bytes();
        let record = OperationRecord {
            layer: layer.clone(),
            operation: pupil.name.clone(),
            images,
            error: if error.is_finite() { error } else { 1e9 },
            identity_error: identity[pupil.layer],
            curve: pupil.curve,
            failed: pupil.failed || !error.is_finite(),
            sha256: sha256(&bytes),
        };
        let (weights_path, record_path) = paths(context, layer, &pupil.name);
        write_atomic(&weights_path, &bytes)?;
        write_json(&record_path, &record)?;
    }
    checkpoint::clear(&context.run.path("operations"))
}

fn paths(context: &Context<'_>, layer: &str, operation: &str) -> (PathBuf, PathBuf) {
    let base = context.run.operation(layer, operation).into_os_string();
    let with = |extension: &str| {
        let mut path = base.clone();
        path.push(extension);
        PathBuf::from(path)
    };
    (with(".safetensors"), with(".json"))
}

/// The record of a trained operation whose weights are whole.
pub(crate) fn record_of(
    context: &Context<'_>,
    layer: &str,
    operation: &str,
    graph: &Graph,
) -> Result<Option<OperationRecord>> {
    let (weights_path, record_path) = paths(context, layer, operation);
    let Some(record) = read_or_redo::<OperationRecord>(&record_path, context.progress)? else {
        return Ok(None);
    };
    match record.failed || weights_path.is_file() {
        true if record.failed => Ok(Some(record)),
        true => match weights_of(context, &record, graph) {
            Ok(_) => Ok(Some(record)),
            Err(error @ (Error::Damaged { .. } | Error::Graph(_))) => {
                context.progress.warn(&format!("{error}; the operation is trained again"));
                Ok(None)
            }
            Err(other) => Err(other),
        },
        false => {
            context.progress.warn(&format!("{} is missing; trained again", weights_path.display()));
            Ok(None)
        }
    }
}

/// Where the trained weights of an operation lie.
pub(crate) fn weights_file(context: &Context<'_>, record: &OperationRecord) -> PathBuf {
    paths(context, &record.layer, &record.operation).0
}

/// The trained weights of an operation.
pub(crate) fn weights_of(context: &Context<'_>, record: &OperationRecord, graph: &Graph) -> Result<Weights> {
    let (path, _) = paths(context, &record.layer, &record.operation);
    crate::run::read_weights(&path, &record.sha256, graph)
}

fn save(context: &Context<'_>, pupils: &[Pupil], pool: &[LayerPool], step: u64, steps: u64) -> Result<()> {
    let mut all = Weights::new();
    for pupil in pupils {
        let (weights, optimizer) = pupil.imitator.checkpoint()?;
        let base = format!("{}/{}", pool[pupil.layer].layer, pupil.name);
        for (part, tensors) in [("weights", weights), ("optimizer", optimizer)] {
            for (name, tensor) in tensors.iter() {
                all.insert(format!("{base}/{part}.{name}"), tensor.clone());
            }
        }
    }
    let position = Position {
        step,
        steps,
        operations: pupils.iter().map(|p| (pool[p.layer].layer.clone(), p.name.clone())).collect(),
        curves: pupils.iter().map(|p| p.curve.clone()).collect(),
        failed: pupils.iter().map(|p| p.failed).collect(),
        pending: pupils
            .iter()
            .map(|p| p.imitator.pending())
            .map(|(sum, count)| if sum.is_finite() { (sum, count) } else { (0.0, 0) })
            .collect(),
    };
    checkpoint::save(&context.run.path("operations"), step, &all, position)
}

/// Takes up a checkpoint of the same pass; gives the step to go on with, 0 without one.
fn take_up(
    context: &Context<'_>,
    pupils: &mut [Pupil],
    todo: &[(usize, Operation, Graph)],
    pool: &[LayerPool],
    steps: u64,
) -> Result<u64> {
    let folder = context.run.path("operations");
    let Some((all, position)) = checkpoint::load::<Position>(&folder, context.progress)? else {
        return Ok(0);
    };
    if position.steps != steps {
        context.progress.warn("the checkpoint is of another pass; phase 1 starts again");
        return Ok(0);
    }
    let mut restored = Vec::new();
    for (pupil, (_, _, graph)) in pupils.iter().zip(todo) {
        let key = (pool[pupil.layer].layer.clone(), pupil.name.clone());
        let Some(at) = position.operations.iter().position(|o| *o == key) else { return Ok(0) };
        let base = format!("{}/{}", key.0, key.1);
        let weights = all.under(&format!("{base}/weights"));
        let decay = context.config.pretrain.weight_decay;
        // Weights that are not finite are those of an operation that diverged since its loss was last looked at.
        let imitator = match Imitator::new(graph, &weights, decay, context.device) {
            Ok(mut imitator) if !position.failed[at] => {
                let (sum, count) = position.pending[at];
                imitator.restore(&all.under(&format!("{base}/optimizer")), sum, count)?;
                Some(imitator)
            }
            Ok(_) | Err(lana_torch::Error::Graph(_)) => None,
            Err(other) => return Err(other.into()),
        };
        restored.push((imitator, at));
    }
    for (pupil, (imitator, at)) in pupils.iter_mut().zip(restored) {
        pupil.curve.clone_from(&position.curves[at]);
        match imitator {
            Some(imitator) => pupil.imitator = imitator,
            None => pupil.failed = true,
        }
    }
    context.progress.say(&format!("phase 1 goes on at step {} of {steps}", position.step));
    Ok(position.step)
}
