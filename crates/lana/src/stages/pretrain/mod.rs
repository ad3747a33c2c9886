//! Phase 1: every operation of every layer learns to imitate its layer, in as few passes over the images as memory allows.
//!
//! [`plan`] packs operations into passes, [`pass`] is one pass, [`watch`] decides who is started again and who is stopped.
//! Here is what the stage reads and writes.

mod pass;
mod plan;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use lana_data::{Augmentation, Loader, LoaderConfig};
use lana_graph::{Graph, Precision, Weights};
use lana_latency::{LayerRow, Table};
use lana_models::pool::Operation;
use lana_torch::{
    Algorithm, Device, Exercise, FeatureMaps, Imitation, Lesson, Network, feature_maps, imitate,
    normalised_error,
};

use crate::context::{Context, LayerPool};
use crate::run::read_or_redo;
use crate::stages::{precision, profile, tables};
use crate::{
    Error, Event, Limit, Memory, OperationRecord, OptimizerKind, PoolError, PretrainPrecision, Quantity,
    Result, write_atomic, write_json,
};
use pass::{Outcome, Rival, Setting};
pub use plan::Shard;
pub(crate) use plan::limit as memory_limit;
use plan::{Frame, Need, Pass};
use watch::Price;

/// Standard errors by which an operation must be slower than its layer to be left out.
const SURE: f64 = 2.0;

/// One operation that is to be trained.
#[derive(Clone)]
struct Item {
    layer: usize,
    name: String,
    operation: Operation,
    graph: Graph,
    price: Price,
}

/// Trains what is not trained yet; of it only the part of `shard`, if one is given.
pub(crate) fn run(context: &Context<'_>, shard: Option<Shard>) -> Result<()> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let table = profile::stored(context)?;
    if table.is_none() && leaves_out_slow(context) {
        return Err(tables::missing(&context.run, &context.config.latency));
    }
    let config = &context.config.pretrain;
    let train = context.dataset(&context.config.train, &teacher)?;
    let batch = config.batch.min(train.len());
    let lesson = lesson(context);
    let (todo, done) = items(context, &pool, table.as_ref(), shard, batch, lesson.algorithm)?;
    if todo.is_empty() {
        if shard.is_none() {
            clear_shards(context);
        }
        return Ok(());
    }
    let left_out = table.as_ref().map_or(0, |t| pool.iter().map(|layer| slow(context, t, layer).len()).sum());
    if left_out > 0 {
        context.progress.say(&format!(
            "{left_out} operations are no faster than their layer and are not trained; `lana pool {}` lists them",
            context.run.root().display()
        ));
    }
    let loader = || -> Result<Loader> {
        let loader_config = LoaderConfig {
            batch,
            shuffle: true,
            seed: context.config.seed,
            drop_last: true,
            ..LoaderConfig::default()
        };
        let augmentation = Some(Augmentation::crop_flip(config.crop_padding));
        context.loader(&train, &teacher, augmentation, loader_config)
    };
    let network = Network::frozen(&teacher.graph, &teacher.weights, context.device)?;
    let folder = match shard {
        Some(shard) => context.run.path("operations").join(shard.folder()),
        None => context.run.path("operations"),
    };
    let steps = config.images.div_ceil(batch) as u64;
    let mut setting = Setting {
        context,
        pool: &pool,
        origin: &teacher,
        lesson,
        teacher: Precision::Fp32,
        steps,
        batch,
        part: shard.map_or(String::new(), |shard| shard.to_string()),
        folder,
        done,
        images: (0, 0),
    };
    let trial = Trial::new(todo.iter(), &network, &loader()?)?;
    let decided = precision_of(&setting, &trial, &network, &loader()?)?;
    (setting.lesson.precision, setting.teacher) = (decided.operations, decided.teacher);
    let network = network.with_precision(decided.teacher);
    let mut resumed = pass::resume(&setting)?;

    let algorithm = setting.lesson.algorithm;
    let needs = |items: &[Item]| -> Vec<(usize, Need)> {
        items.iter().map(|item| (item.layer, Need::of(&item.graph, batch, algorithm))).collect()
    };
    let taken = Memory::occupied().unwrap_or(Memory(400 << 20));
    let frame = Frame {
        teacher: network.graph(),
        batch,
        threads: context.workers(),
        limit: plan::limit(config.memory, taken),
        taken,
    };
    // An interrupted pass is finished as it was begun, if it still fits; the rest is packed.
    let in_checkpoint = |item: &Item| {
        let key = (&pool[item.layer].layer, &item.name);
        resumed.as_ref().is_some_and(|(_, p)| p.operations.iter().any(|(l, o)| (l, o) == key))
    };
    let (current, rest): (Vec<Item>, Vec<Item>) = todo.iter().cloned().partition(in_checkpoint);
    let needed = Memory(frame.total(&needs(&current)));
    let (current, rest) = match needed > frame.limit && !current.is_empty() {
        true => {
            context.progress.warn(&format!(
                "the interrupted pass takes about {}, and there are {}: its operations are packed anew and start again",
                needed.rounded(),
                frame.limit.rounded()
            ));
            resumed = None;
            (Vec::new(), todo)
        }
        false => (current, rest),
    };
    let mut passes = plan::pack(&needs(&rest), &frame).map_err(|(at, needed)| {
        plan::too_little(context, &pool[rest[at].layer], &rest[at].name, needed, frame.limit)
    })?;
    let mut groups: Vec<Vec<Item>> =
        passes.iter().map(|p| p.operations.iter().map(|&i| rest[i].clone()).collect()).collect();
    if !current.is_empty() {
        groups.insert(0, current);
        passes.insert(0, Pass { operations: Vec::new(), memory: Memory(0) });
    }
    resumed = resumed.filter(|_| passes.first().is_some_and(|p| p.operations.is_empty()));
    let images = steps * batch as u64;
    setting.images.1 = images * groups.len() as u64;
    tell(&setting, &groups, &passes, &trial, resumed.is_some(), shard)?;

    context.progress.begin("pretrain", setting.images.1, "images");
    let mut total = Outcome::default();
    for group in groups {
        // What the trial or the last pass has left lies in pieces that this one cannot use.
        lana_torch::release_memory();
        let outcome = pass::run(&mut setting, group, &network, loader()?, resumed.take())?;
        setting.images.0 += images;
        total.operations += outcome.operations;
        total.failed += outcome.failed;
        total.stopped += outcome.stopped;
        total.saved += outcome.saved;
        total.planned += outcome.planned;
    }
    let share = total.saved as f64 / total.planned.max(1) as f64;
    context.tell_skipped("pretrain")?;
    context.run.event(
        "pretrain_done",
        serde_json::json!({"part": setting.part, "operations": total.operations, "failed": total.failed,
            "stopped_early": total.stopped, "saved_share": share}),
    )?;
    let mut summary = format!("{} operations", total.operations);
    if total.stopped > 0 {
        summary +=
            &format!(", {} stopped early, which saved {:.0} % of the steps", total.stopped, 100.0 * share);
    }
    if total.failed > 0 {
        summary += &format!(", {} failed", total.failed);
    }
    context.progress.finish(&summary);
    match shard {
        Some(shard) => {
            // Only what this shard wrote stands in its folder.
            let folder = context.run.path("operations").join(shard.folder());
            if folder.exists() {
                std::fs::remove_dir(&folder).map_err(Error::io(&folder))?;
            }
        }
        None => clear_shards(context),
    }
    match shard.is_none() && total.failed > 0 && total.failed == total.operations {
        true => Err(every_one_failed(context)),
        false => Ok(()),
    }
}

/// Removes the checkpoints and locks of processes that once shared the work and were stopped: all of it is done, and this process
/// has the run to itself. What cannot be removed is in nobody's way.
fn clear_shards(context: &Context<'_>) {
    for entry in std::fs::read_dir(context.run.path("operations")).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let Some(name) = name.to_str() else { continue };
        if Shard::of_folder(name).is_some() {
            let _ = std::fs::remove_dir_all(path);
        } else if name.strip_suffix(".lock").is_some_and(|name| Shard::of_folder(name).is_some()) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// What the random parts of a layer's operations begin from.
pub(crate) fn seed(context: &Context<'_>, layer: usize) -> u64 {
    context.config.seed.wrapping_mul(1009).wrapping_add(layer as u64)
}

/// Whether operations of the pool have been trained and failed.
pub(crate) fn any_failed(context: &Context<'_>, pool: &[LayerPool]) -> Result<bool> {
    for place in pool {
        for (operation, graph) in &place.operations {
            let record = record_of(context, &place.layer, operation.name(), graph)?;
            if record.is_some_and(|record| record.failed) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Nothing can be selected from operations that have all diverged.
pub(crate) fn every_one_failed(context: &Context<'_>) -> Error {
    Error::input(
        "every operation diverged in phase 1",
        format!(
            "lower `pretrain.learning_rate` (it is {}) in {}, delete {} and give the same command again",
            context.config.pretrain.learning_rate,
            context.run.path("run.toml").display(),
            context.run.path("operations").display()
        ),
    )
}

/// How operations are trained.
fn lesson(context: &Context<'_>) -> Lesson {
    let config = &context.config.pretrain;
    let weight_decay = config.weight_decay;
    Lesson::new(match config.optimizer {
        OptimizerKind::AdamW => Algorithm::AdamW { weight_decay },
        OptimizerKind::Sgd => Algorithm::Sgd { momentum: 0.9, weight_decay },
        OptimizerKind::RmsProp => Algorithm::RmsProp {
            momentum: 0.9,
            weight_decay,
            smoothing: 0.9,
            epsilon: OptimizerKind::EPSILON,
        },
    })
}

/// What is to be trained, by layers, and what others can be compared with: what is trained, and skipping.
fn items(
    context: &Context<'_>,
    pool: &[LayerPool],
    table: Option<&Table>,
    shard: Option<Shard>,
    batch: usize,
    algorithm: Algorithm,
) -> Result<(Vec<Item>, Vec<Rival>)> {
    let mut all = Vec::new();
    let mut done = Vec::new();
    for (index, place) in pool.iter().enumerate() {
        for (operation, graph) in &place.operations {
            let name = operation.name().to_string();
            let cost = graph.deployed_cost();
            let latency = table.and_then(|t| t.cost(&place.layer, &name));
            let price = Price { latency, macs: cost.macs, params: cost.params };
            if operation.is_identity() {
                done.push(Rival { layer: index, name, price, curve: Vec::new() });
            } else if is_wanted(context, table, place, &name) {
                all.push(Item {
                    layer: index,
                    name,
                    operation: operation.clone(),
                    graph: graph.clone(),
                    price,
                });
            }
        }
        if !done.iter().any(|r| r.layer == index) {
            // Nobody is stopped for an operation that is not in the pool; its error is still worth knowing.
            let price = Price { latency: None, macs: 0, params: 0 };
            done.push(Rival { layer: index, name: Operation::IDENTITY.into(), price, curve: Vec::new() });
        }
    }
    if let Some(shard) = shard {
        let work: Vec<(usize, f64)> =
            all.iter().map(|i| (i.layer, Need::of(&i.graph, batch, algorithm).work)).collect();
        let mut part = shard.part(&work).into_iter();
        all.retain(|_| part.next().unwrap_or(false));
    }
    let mut todo = Vec::new();
    for item in all {
        match record_of(context, &pool[item.layer].layer, &item.name, &item.graph)? {
            Some(record) => {
                let curve = if record.failed { Vec::new() } else { record.curve };
                done.push(Rival { layer: item.layer, name: item.name, price: item.price, curve });
            }
            None => todo.push(item),
        }
    }
    Ok((todo, done))
}

/// Says what lies ahead: passes, images, memory, and how long it will take by a step of a few operations.
fn tell(
    setting: &Setting<'_>,
    groups: &[Vec<Item>],
    passes: &[Pass],
    trial: &Trial,
    resumes: bool,
    shard: Option<Shard>,
) -> Result<()> {
    let context = setting.context;
    let images = setting.steps * setting.batch as u64;
    let operations: usize = groups.iter().map(Vec::len).sum();
    let mut layers: Vec<usize> = groups.iter().flatten().map(|item| item.layer).collect();
    layers.sort_unstable();
    layers.dedup();
    let seconds = trial.foretell(setting, groups)?;
    let most = passes.iter().map(|p| p.memory).max().unwrap_or(Memory(0));
    let number = match groups.len() {
        1 => "one pass".to_string(),
        n => format!("{n} passes"),
    };
    let memory = if most.0 > 0 { format!(", at most {}", most.rounded()) } else { String::new() };
    let part = shard.map_or(String::new(), |shard| format!(" (part {shard})"));
    let again = if resumes { ", the first of them in the middle" } else { "" };
    context.progress.say(&format!(
        "phase 1{part}: {operations} operations of {} layers in {number}{again} over {images} images{memory}, about {} min",
        layers.len(),
        (seconds / 60.0).ceil()
    ));
    context.run.event(
        "pretrain_plan",
        serde_json::json!({"part": setting.part, "operations": operations, "passes": groups.len(), "images": images,
            "memory_bytes": most.0, "expected_s": seconds.round()}),
    )
}

/// Operations that stand for all, and the maps of one batch that they are tried on.
struct Trial {
    items: Vec<Item>,
    layers: Vec<usize>,
    maps: Vec<FeatureMaps>,
    /// Seconds that the teacher took.
    teacher_s: f64,
}

impl Trial {
    /// A few operations of `items`, spread over the layers.
    fn new<'a>(items: impl Iterator<Item = &'a Item>, network: &Network, loader: &Loader) -> Result<Self> {
        const SAMPLES: usize = 8;
        let all: Vec<&Item> = items.collect();
        let mut items: Vec<Item> =
            all.iter().step_by(all.len().div_ceil(SAMPLES).max(1)).map(|&item| item.clone()).collect();
        items.sort_by_key(|item| item.layer);
        let mut layers: Vec<usize> = items.iter().map(|item| item.layer).collect();
        layers.dedup();
        let mut batches = loader.epoch(0);
        let batch =
            batches.next().ok_or_else(|| Error::input("there is no training image", "check --train"))??;
        let shape = network.graph().input_shape();
        let input = lana_torch::Batch::new(&batch.images, &batch.labels, shape, network.device())?;
        let timed = || -> Result<_> {
            let begun = Instant::now();
            let maps = feature_maps(network, &input.images, &layers)?;
            // On a GPU, until it is there.
            if let Some(last) = maps.last() {
                last.is_finite()?;
            }
            Ok((maps, begun.elapsed().as_secs_f64()))
        };
        // As with operations, the first round meets kernels that are not made yet.
        timed()?;
        let (maps, teacher_s) = timed()?;
        Ok(Trial { items, layers, maps, teacher_s })
    }

    /// By how much the teacher's feature maps differ in bfloat16, as a share of their power: the most of any layer tried.
    fn difference(&self, network: &Network, loader: &Loader) -> Result<f64> {
        let reduced =
            Trial::new(self.items.iter(), &network.share().with_precision(Precision::Bf16), loader)?;
        let mut worst = 0.0f64;
        for (a, b) in reduced.maps.iter().zip(&self.maps) {
            let error = normalised_error(&a.target, &b.target)?;
            worst = worst.max(if error.is_nan() { f64::INFINITY } else { error });
        }
        Ok(worst)
    }

    /// Seconds of one step of its operations, which are made for it and thrown away.
    fn time(&self, setting: &Setting<'_>, precision: Precision) -> Result<f64> {
        let lesson = Lesson { precision, ..setting.lesson };
        let mut imitators =
            self.items.iter().map(|item| pass::start(setting, item, &lesson)).collect::<Result<Vec<_>>>()?;
        let mut seconds = 0.0;
        // The first round meets cold caches and kernels that are not made yet.
        for _ in 0..2 {
            let tasks = imitators.iter_mut().zip(&self.items).map(|(imitator, item)| {
                let at = self.layers.binary_search(&item.layer).unwrap_or(0);
                Imitation { imitator, maps: self.maps[at].share(), exercise: Exercise::Learn(1e-6) }
            });
            let tasks = tasks.collect();
            let begun = Instant::now();
            setting.context.threads.install(|| imitate(tasks, || ())).0?;
            for imitator in &mut imitators {
                imitator.take_loss();
            }
            seconds = begun.elapsed().as_secs_f64();
        }
        Ok(seconds)
    }

    /// Seconds that the passes will take if nobody is stopped: the time of its operations, counted up by the work of all.
    fn foretell(&self, setting: &Setting<'_>, groups: &[Vec<Item>]) -> Result<f64> {
        let work = |item: &Item| Need::of(&item.graph, setting.batch, setting.lesson.algorithm).work;
        let ratio = groups.iter().flatten().map(work).sum::<f64>() / self.items.iter().map(work).sum::<f64>();
        let teacher_s = groups.len() as f64 * self.teacher_s / setting.context.workers() as f64;
        let step_s = self.time(setting, setting.lesson.precision)? * ratio + teacher_s;
        Ok(step_s * setting.steps as f64)
    }
}

/// The number formats to train in and to run the teacher in, as they were decided once for the run ([`PretrainPrecision`]). On a
/// processor, bfloat16 is taken for the operations only where it is faster: without instructions of its own it is not.
fn precision_of(
    setting: &Setting<'_>,
    trial: &Trial,
    network: &Network,
    loader: &Loader,
) -> Result<PretrainPrecision> {
    let context = setting.context;
    let mut decided = PretrainPrecision::fp32(context.device);
    if context.config.pretrain.precision == Precision::Fp32 {
        return Ok(decided);
    }
    // Processes that share the work wait for the first of them.
    let _lock = context.run.wait_for("operations/precision.lock")?;
    let path = context.run.path(PretrainPrecision::FILE);
    let before = read_or_redo::<PretrainPrecision>(&path, context.progress)?;
    if let Some(before) = before.filter(|before| before.device == decided.device) {
        return Ok(before);
    }
    decided.operations = match context.device {
        Device::Cuda => Precision::Bf16,
        Device::Cpu => {
            let time = |precision| trial.time(setting, precision);
            let (precision, seconds) = precision::faster(context.progress, "operations are trained", time)?;
            decided.seconds = Some(seconds);
            precision
        }
    };
    if decided.operations == Precision::Bf16 {
        decided.settle_teacher(trial.difference(network, loader)?);
        context.progress.say(&decided.to_string());
    }
    write_json(&path, &decided)?;
    Ok(decided)
}

/// Writes an operation that is done: first its weights, then the record that vouches for them.
fn write(context: &Context<'_>, record: &OperationRecord, bytes: &[u8]) -> Result<()> {
    let (weights_path, record_path) = paths(context, &record.layer, &record.operation);
    write_atomic(&weights_path, bytes)?;
    write_json(&record_path, record)
}

/// Whether operations that are slower than their layer are not trained: no budget could want them.
fn leaves_out_slow(context: &Context<'_>) -> bool {
    // What is slow here may be fast on another deployment that a budget names.
    let is_here = |l: &Limit| l.quantity == Quantity::Latency && l.deployment.is_none();
    let only_latency = context.config.budgets.iter().flat_map(|b| b.limits()).all(is_here);
    only_latency && !context.config.pretrain.keep_slow
}

/// Whether a selection could want the operation: one that is not faster than its teacher layer serves no budget on
/// latency, and is not trained unless asked for.
fn is_wanted(context: &Context<'_>, table: Option<&Table>, layer: &LayerPool, operation: &str) -> bool {
    let Some(table) = table.filter(|_| leaves_out_slow(context)) else { return true };
    let spread = |row: &LayerRow| Some(row.operations.iter().find(|e| e.operation == operation)?.spread_ms);
    let spread = table.layers.iter().find(|row| row.layer == layer.layer).and_then(spread).unwrap_or(0.0);
    match (table.cost(&layer.layer, operation), table.cost(&layer.layer, Operation::TEACHER)) {
        // What may only be noise must not cost an operation its place.
        (Some(cost), Some(teacher)) => cost - SURE * spread < teacher,
        _ => true,
    }
}

/// The operations of a layer that are not trained because its own is as fast.
pub(crate) fn slow(context: &Context<'_>, table: &Table, layer: &LayerPool) -> Vec<String> {
    let names = layer.operations.iter().map(|(operation, _)| operation.name());
    names.filter(|name| !is_wanted(context, Some(table), layer, name)).map(str::to_string).collect()
}

/// How many operations are trained, of how many that should be.
pub(crate) fn count(context: &Context<'_>, pool: &[LayerPool], table: Option<&Table>) -> Result<(u64, u64)> {
    let (mut done, mut total) = (0, 0);
    for layer in pool {
        for (operation, graph) in &layer.operations {
            let wanted = is_wanted(context, table, layer, operation.name());
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

/// Seconds that the passes still take, by what the run's events say of those that have begun; none where nothing is known, as of
/// operations that nobody has taken up.
pub(crate) fn remaining_s(context: &Context<'_>) -> Option<f64> {
    remaining_of(&context.run.events())
}

fn remaining_of(events: &[Event]) -> Option<f64> {
    // By the part of the work that the process has.
    let mut left: BTreeMap<&str, f64> = BTreeMap::new();
    for event in events {
        let number = |name: &str| event.fields.get(name).and_then(serde_json::Value::as_f64);
        let part = event.fields.get("part").and_then(serde_json::Value::as_str).unwrap_or_default();
        match event.stage.as_str() {
            "pretrain_plan" => {
                // Who divides the work otherwise is no longer there.
                let parts = |part: &str| part.split_once('/').map(|(_, count)| count.to_string());
                left.retain(|other, _| parts(other) == parts(part));
                left.extend(number("expected_s").map(|seconds| (part, seconds)));
            }
            "pretrain" => {
                let seconds = || Some((number("total")? - number("images")?) / number("images_per_s")?);
                left.extend(seconds().map(|seconds| (part, seconds)));
            }
            "pretrain_done" => {
                left.remove(part);
            }
            _ => {}
        }
    }
    // Parts are worked on at the same time. What is still settled, or written, when all images are seen takes some time too.
    left.into_values().filter(|seconds| seconds.is_finite() && *seconds > 0.0).reduce(f64::max)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_that_of_the_slowest_who_is_at_work() {
        let events = |all: &[(&str, serde_json::Value)]| -> Vec<Event> {
            let event = |(stage, fields): &(&str, serde_json::Value)| Event {
                time: 0.0,
                stage: stage.to_string(),
                fields: fields.as_object().cloned().unwrap_or_default(),
            };
            all.iter().map(event).collect()
        };
        let plan = |part: &str| ("pretrain_plan", serde_json::json!({"part": part, "expected_s": 70.0}));
        let seen = |part: &str, images: u64| {
            let fields =
                serde_json::json!({"part": part, "images": images, "total": 100, "images_per_s": 2.0});
            ("pretrain", fields)
        };
        let done = |part: &str| ("pretrain_done", serde_json::json!({"part": part}));
        let left = |all: &[(&str, serde_json::Value)]| remaining_of(&events(all));
        assert_eq!(left(&[]), None);
        assert_eq!(left(&[plan("")]), Some(70.0));
        assert_eq!(left(&[plan(""), seen("", 40)]), Some(30.0));
        // The last batches settle statistics: how long that takes is not known.
        assert_eq!(left(&[plan(""), seen("", 100)]), None);
        let shared = [plan("1/2"), plan("2/2"), seen("1/2", 40), seen("2/2", 60)];
        assert_eq!(left(&shared), Some(30.0));
        // Nobody is at work on what the finished part did not do.
        assert_eq!(left(&[plan("1/2"), seen("1/2", 40), done("1/2")]), None);
        let again = [&shared[..], &[plan("1/3")]].concat();
        assert_eq!(left(&again), Some(70.0));
    }
}
