//! Making a lookup table: operations priced inside the teacher.
//!
//! Blocks timed alone add up to 19 to 37 % more than the network they make, because runtimes fuse across them and change
//! layouts at their borders. So every price is a difference between two networks that are the same but for it:
//!
//! 1. Layers alike in structure and shapes form a *class*. A *window* is cut out of the teacher around a few neighbouring
//!    members of the class, with real layers on either side (or the stem, or the head). Differences in a short window stand
//!    out of the noise better than in the whole network, and cost less time.
//! 2. The members in the window are all replaced by the operation at once, and the window is timed against the unchanged
//!    window, interleaved, as a ratio per round. The difference divided by the number of members is what the operation costs
//!    more or less than the teacher's layer.
//! 3. Replacing them by nothing gives the cost of the teacher's layer itself. Where shapes forbid that (a strided layer,
//!    stem and head) the part is timed alone.
//! 4. The windows and those parts are timed against the whole teacher, which puts all of them on one scale. What their sum
//!    differs from the teacher's measured latency is shared among them by how unsure each is, so that the costs of all
//!    layers and the fixed cost add up.
//!
//! Measured (ResNet-56, compact pool, one thread, a machine busy with other work, ten random selections, three minutes for
//! the table): mean error of the whole networks 4.7 and 5.2 % at batch 64 in two runs, 2.3 % at batch 1, nearly all of it
//! bias. Correction by one of them left the others at 2.1 % (batch 64) and 1.9 % (batch 1), by five at 3.0 % and 1.5 %; one
//! run each. With the whole teacher as context the same time gave 6.3 % at batch 64 (one run), and 319 noisy entries
//! instead of 56 and 29.
//!
//! Each distinct (operation, input shape, output shape) is timed once. Weights are random: see
//! [`random_weights`](crate::random_weights).

use std::collections::HashMap;
use std::time::{Duration, Instant, SystemTime};

use lana_graph::{Graph, GraphBuilder, Shape, Value};

use crate::table::{FORMAT, TEACHER};
use crate::{
    Deployment, Device, Entry, Error, LayerRow, MeasureOptions, Measurement, Model, Result, Table, measure,
    runtime_version,
};

/// Operations that may stand in the place of one layer.
#[derive(Clone, Debug)]
pub struct LayerCandidates {
    /// The layer of the teacher.
    pub layer: String,
    /// Names and networks; each maps the layer's input shape to its output shape.
    pub operations: Vec<(String, Graph)>,
}

/// How a table is made.
#[derive(Clone, Debug, PartialEq)]
pub struct TableOptions {
    /// How the networks are run.
    pub deployment: Deployment,
    /// How long it may take; what then is unsure, is marked so. A few rounds are always run.
    pub time_limit: Duration,
    /// Rounds per network, at least, as long as there is time.
    pub min_repeats: usize,
    /// Relative standard error of a ratio to stop at.
    pub target: f64,
    /// Like-shaped neighbouring layers to replace at once, at most.
    pub replaced: usize,
    /// Layers of the teacher on either side of them; none for the whole network.
    pub neighbours: Option<usize>,
    /// Networks that are held open and timed against each other at once.
    pub together: usize,
    /// Decides inputs and order.
    pub seed: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            deployment: Deployment::default(),
            time_limit: Duration::from_secs(180),
            min_repeats: 12,
            target: 0.003,
            replaced: 4,
            neighbours: Some(1),
            together: 8,
            seed: 0,
        }
    }
}

/// How far [`build_table`] is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// Networks timed.
    pub done: usize,
    /// Networks to time, as far as is known.
    pub total: usize,
    /// Time so far.
    pub elapsed: Duration,
    /// Estimate of the time left.
    pub remaining: Duration,
}

/// A part timed alone is dearer than inside the network (19 % at batch 64, 37 % at batch 1, measured on ResNet-56): what
/// is left of its time there, and how sure that is.
const ALONE: f64 = 0.8;
const ALONE_ERROR: f64 = 0.2;
/// What the layer's own cost by skipping is good for, however little noise there was.
const SKIPPED_ERROR: f64 = 0.04;

/// Layers alike in structure and shapes.
struct Class {
    key: String,
    /// Positions of the layers in the teacher.
    members: Vec<usize>,
    /// Cut out of the teacher, with the names of the members that it replaces.
    window: Graph,
    replaced: Vec<String>,
    /// Time of the unchanged window, milliseconds.
    window_ms: f64,
    /// Cost of one member and its standard error, milliseconds.
    cost: Option<(f64, f64)>,
    /// Factor that puts differences in the window on the scale on which all costs add up.
    stretch: f64,
}

/// A distinct operation to time, at the class with most members that may use it.
struct Job {
    operation: Graph,
    class: usize,
    /// Difference to the teacher's layer and its standard error, milliseconds, and the rounds.
    result: Option<(f64, f64, usize)>,
    noisy: bool,
}

/// Prices operations at the layers of a teacher on this device; the module's documentation has the method. Layers without
/// candidates keep their own operation.
///
/// # Errors
/// If a layer is unknown, an operation does not fit, or ONNX Runtime is missing or cannot run a network.
pub fn build_table(
    teacher: &Graph,
    candidates: &[LayerCandidates],
    options: &TableOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Table> {
    if options.replaced == 0 || options.together < 2 {
        return Err(Error::Options(
            "a table replaces at least one layer and times two networks together".into(),
        ));
    }
    let runtime_version = runtime_version(&options.deployment)?;
    let mut classes = classes(teacher, options)?;
    let (mut jobs, places) = jobs(teacher, candidates, &classes)?;
    let alone = parts_alone(teacher, &classes)?;
    let mut work = Work {
        options,
        start: Instant::now(),
        done: 0,
        // Windows and parts, then operations, of which some are timed twice.
        total: classes.len() + alone.len() + jobs.len(),
        share: 0.9,
        progress,
    };

    // The windows and the parts that cannot be skipped, against the whole teacher.
    let whole = Model::with_random_weights(teacher.name(), teacher)?;
    let windows = classes.iter().map(|c| Model::with_random_weights("window", &c.window));
    let parts = alone.iter().map(|(_, graph)| Model::with_random_weights("part", graph));
    let models = windows.chain(parts).collect::<Result<Vec<_>>>()?;
    let (references, ratios) = work.against(&whole, &models)?;
    let reference = middle(references);
    let teacher_ms = reference.median_ms;
    for (class, ratio) in classes.iter_mut().zip(&ratios) {
        class.window_ms = ratio.ratio * teacher_ms;
    }

    // Every operation in its window; what is unsure after that, once more.
    let every: Vec<usize> = (0..jobs.len()).collect();
    work.operations(&classes, &mut jobs, &every)?;
    let mut settled = settle(&mut classes, &mut jobs, &alone, &ratios, teacher_ms);
    let noisy: Vec<usize> = (0..jobs.len()).filter(|&j| jobs[j].noisy).collect();
    if !noisy.is_empty() && work.start.elapsed() < options.time_limit {
        work.share = 1.0;
        work.total += noisy.len();
        work.operations(&classes, &mut jobs, &noisy)?;
        settled = settle(&mut classes, &mut jobs, &alone, &ratios, teacher_ms);
    }
    Ok(Table {
        format: FORMAT,
        device: Device::identify(),
        runtime: options.deployment.runtime.to_string(),
        runtime_version,
        batch: options.deployment.batch,
        threads: options.deployment.threads,
        method: method(options),
        created: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()),
        seconds: work.start.elapsed().as_secs_f64(),
        teacher: teacher.name().to_string(),
        teacher_measured_ms: teacher_ms,
        teacher_ci_ms: reference.ci_ms,
        parts_error: settled.parts_error,
        fixed_ms: settled.fixed_ms,
        layers: rows(teacher, &classes, &jobs, &places),
        correction: None,
    })
}

/// What the sum of all parts came to.
struct Settled {
    /// Cost of stem, head and overhead.
    fixed_ms: f64,
    /// How far the sum missed the teacher before it was put right.
    parts_error: f64,
}

/// Turns differences into costs and marks those that are hardly more than noise.
fn settle(
    classes: &mut [Class],
    jobs: &mut [Job],
    alone: &[(Option<usize>, Graph)],
    ratios: &[Measurement],
    teacher_ms: f64,
) -> Settled {
    for (index, class) in classes.iter_mut().enumerate() {
        let skipping = jobs.iter().find(|j| j.class == index && is_identity(&j.operation));
        class.cost = skipping.and_then(|j| j.result).map(|(delta, error, _)| (-delta, error));
    }
    let settled = reconcile(classes, alone, ratios, teacher_ms);
    for job in jobs {
        let Some((delta, error, _)) = job.result else { continue };
        let class = &classes[job.class];
        let own = class.cost.map_or(0.0, |c| c.0);
        let cost = if is_identity(&job.operation) { own } else { own + delta * class.stretch };
        job.noisy = cost < 0.0 || error > 0.1 * own.abs();
    }
    settled
}

fn method(options: &TableOptions) -> String {
    let context = match options.neighbours {
        Some(n) => format!("a window of the teacher with {n} layers on either side"),
        None => "the whole teacher".into(),
    };
    format!(
        "up to {} like-shaped neighbouring layers replaced at once inside {context}; median of ratios per shuffled round",
        options.replaced
    )
}

/// Structure of a network without names: what decides its latency.
fn key(graph: &Graph) -> String {
    let nodes: Vec<String> = graph
        .nodes()
        .iter()
        .map(|n| format!("{:?}{:?}", n.op, n.inputs.iter().map(|v| v.index()).collect::<Vec<_>>()))
        .collect();
    // What an operation without effect computes is not asked.
    let nodes = if is_identity(graph) { String::new() } else { nodes.join(";") };
    format!("{}>{}@{}", graph.input_shape(), nodes, graph.output().index())
}

fn is_identity(graph: &Graph) -> bool {
    graph.output() == Value::INPUT
}

fn classes(teacher: &Graph, options: &TableOptions) -> Result<Vec<Class>> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (position, layer) in teacher.layers().iter().enumerate() {
        let key = key(&teacher.layer_graph(&layer.name)?);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push(position),
            None => groups.push((key, vec![position])),
        }
    }
    groups
        .into_iter()
        .map(|(key, members)| {
            let chosen = neighbouring(&members, options.replaced);
            let window = window(teacher, chosen[0], chosen[chosen.len() - 1], options.neighbours);
            let replaced = chosen.iter().map(|&m| teacher.layers()[m].name.clone()).collect();
            Ok(Class { key, members, window, replaced, window_ms: 0.0, cost: None, stretch: 1.0 })
        })
        .collect()
}

/// The middle of the longest run of neighbours.
fn neighbouring(members: &[usize], most: usize) -> Vec<usize> {
    let runs = members.chunk_by(|a, b| a + 1 == *b);
    let longest = runs.max_by_key(|r| r.len()).unwrap_or_default();
    let count = longest.len().min(most);
    let start = (longest.len() - count) / 2;
    longest[start..start + count].to_vec()
}

/// The teacher from `neighbours` layers before the first to as many behind the last. The whole of it where that is asked
/// for, or where a connection passes around the window.
fn window(teacher: &Graph, first: usize, last: usize, neighbours: Option<usize>) -> Graph {
    let cut = neighbours.and_then(|n| {
        let layers = teacher.layers();
        let from = if first < n { Value::INPUT } else { layers[first - n].input };
        let to = layers.get(last + n).map_or(teacher.output(), |l| l.output);
        teacher.subgraph(from, to, "").ok()
    });
    // A layer that the cut lost could not be replaced.
    let whole = |g: &Graph| (first..=last).all(|l| g.layer(&teacher.layers()[l].name).is_ok());
    cut.filter(whole).unwrap_or_else(|| teacher.clone())
}

impl Class {
    /// The window with every member in it replaced.
    fn with(&self, operation: &Graph) -> Result<Model> {
        let mut graph = self.window.clone();
        for layer in &self.replaced {
            graph = graph.replace(layer, operation)?;
        }
        Model::with_random_weights(operation.name(), &graph)
    }

    /// Cost of one member, and how far it may be off.
    fn sure_cost(&self) -> (f64, f64) {
        let (cost, error) = self.cost.unwrap_or_default();
        (cost, if self.can_be_skipped() { error.max(SKIPPED_ERROR * cost.abs()) } else { error })
    }

    fn can_be_skipped(&self) -> bool {
        let layer = self.window.layers().iter().find(|l| l.name == self.replaced[0]);
        layer.is_some_and(|l| self.window.shape(l.input) == self.window.shape(l.output))
    }
}

/// What was asked for at one layer: the operation's name and its job; none for the teacher's own layer.
type Place = (String, Option<usize>);

/// Distinct operations, and which of them each layer's candidates are.
fn jobs(
    teacher: &Graph,
    candidates: &[LayerCandidates],
    classes: &[Class],
) -> Result<(Vec<Job>, Vec<Vec<Place>>)> {
    let mut class_of = vec![0; teacher.layers().len()];
    for (index, class) in classes.iter().enumerate() {
        class.members.iter().for_each(|&m| class_of[m] = index);
    }
    let mut jobs: Vec<Job> = Vec::new();
    let mut places: Vec<Vec<Place>> = vec![Vec::new(); teacher.layers().len()];
    // Skipping is timed at every class that can be skipped, because it prices the class itself.
    let mut skips = HashMap::new();
    for (index, class) in classes.iter().enumerate().filter(|(_, c)| c.can_be_skipped()) {
        let input = teacher.shape(teacher.layers()[class.members[0]].input).clone();
        skips.insert(index, jobs.len());
        jobs.push(Job { operation: skip(input)?, class: index, result: None, noisy: false });
    }
    let mut known: HashMap<String, usize> = HashMap::new();
    for candidate in candidates {
        let (position, layer) = teacher.layer(&candidate.layer)?;
        let class = class_of[position];
        let shapes = (teacher.shape(layer.input), teacher.shape(layer.output));
        for (name, operation) in &candidate.operations {
            if (operation.input_shape(), operation.output_shape()) != shapes {
                // Reports what does not fit.
                teacher.replace(&candidate.layer, operation)?;
            }
            let key = key(operation);
            let job = if key == classes[class].key {
                None
            } else if is_identity(operation) {
                skips.get(&class).copied()
            } else {
                let index = *known.entry(key).or_insert_with(|| {
                    jobs.push(Job { operation: operation.clone(), class, result: None, noisy: false });
                    jobs.len() - 1
                });
                // The more members, the less noise.
                let count = |class: usize| classes[class].replaced.len();
                if count(class) > count(jobs[index].class) {
                    jobs[index].class = class;
                }
                Some(index)
            };
            places[position].push((name.clone(), job));
        }
    }
    Ok((jobs, places))
}

fn skip(shape: Shape) -> Result<Graph> {
    Ok(GraphBuilder::new("identity", shape).finish(Value::INPUT)?)
}

/// What can only be timed alone: classes that cannot be skipped (by their index), stem and head (none).
fn parts_alone(teacher: &Graph, classes: &[Class]) -> Result<Vec<(Option<usize>, Graph)>> {
    let mut parts = Vec::new();
    for (index, class) in classes.iter().enumerate().filter(|(_, c)| !c.can_be_skipped()) {
        parts.push((Some(index), teacher.layer_graph(&teacher.layers()[class.members[0]].name)?));
    }
    if let (Some(first), Some(last)) = (teacher.layers().first(), teacher.layers().last()) {
        for (from, to) in [(Value::INPUT, first.input), (last.output, teacher.output())] {
            // A vector between layers cannot be fed as images; then the rest is shared without that part.
            if from != to && teacher.shape(from).as_image().is_some() {
                parts.extend(teacher.subgraph(from, to, "").ok().map(|graph| (None, graph)));
            }
        }
    }
    Ok(parts)
}

/// Makes all parts add up to the teacher: what is missing or too much is shared among them by how unsure each is (its
/// variance).
fn reconcile(
    classes: &mut [Class],
    alone: &[(Option<usize>, Graph)],
    ratios: &[Measurement],
    teacher_ms: f64,
) -> Settled {
    for ((part, _), timed) in alone.iter().zip(&ratios[classes.len()..]) {
        if let Some(class) = part {
            let value = timed.ratio * teacher_ms * ALONE;
            classes[*class].cost = Some((value, value * ALONE_ERROR));
        }
    }
    let outside = alone.iter().zip(&ratios[classes.len()..]).filter(|((part, _), _)| part.is_none());
    let fixed = outside.map(|(_, timed)| timed.ratio * teacher_ms * ALONE).sum::<f64>();
    let (mut sum, mut variance) = (fixed, (fixed * ALONE_ERROR).powi(2));
    for class in classes.iter() {
        let (cost, deviation) = class.sure_cost();
        sum += cost * class.members.len() as f64;
        variance += (deviation * class.members.len() as f64).powi(2);
    }
    let missing = teacher_ms - sum;
    let mut shared = 0.0;
    if variance > 0.0 {
        for class in classes.iter_mut() {
            let count = class.members.len() as f64;
            let (cost, deviation) = class.sure_cost();
            let part = missing * (deviation * count).powi(2) / variance;
            let error = class.cost.map_or(0.0, |c| c.1);
            class.cost = Some((cost + part / count, error));
            // The window's share of the whole was off, not the ratios inside it.
            class.stretch = match class.can_be_skipped() && cost > 0.0 {
                true => 1.0 + part / count / cost,
                false => 1.0,
            };
            shared += part;
        }
    }
    Settled { fixed_ms: fixed + missing - shared, parts_error: sum / teacher_ms - 1.0 }
}

fn rows(teacher: &Graph, classes: &[Class], jobs: &[Job], places: &[Vec<Place>]) -> Vec<LayerRow> {
    let mut rows = Vec::new();
    for (position, layer) in teacher.layers().iter().enumerate() {
        let own = classes.iter().find(|c| c.members.contains(&position)).and_then(|c| c.cost);
        let (teacher_ms, teacher_spread_ms) = own.unwrap_or_default();
        let operations = places[position].iter().map(|(name, job)| {
            let entry = |cost_ms: f64, spread_ms: f64, repeats: usize, noisy: bool| Entry {
                operation: name.clone(),
                cost_ms,
                spread_ms,
                repeats,
                // 0 is the teacher's own.
                timing: job.map_or(0, |j| j + 1),
                noisy,
                correction_ms: 0.0,
            };
            match job.map(|j| &jobs[j]) {
                None => entry(teacher_ms, teacher_spread_ms, 0, false),
                Some(job) if is_identity(&job.operation) => entry(0.0, teacher_spread_ms, 0, job.noisy),
                Some(job) => {
                    let (delta, error, repeats) = job.result.unwrap_or_default();
                    let class = &classes[job.class];
                    let base = class.cost.map_or(0.0, |c| c.0);
                    entry(base + delta * class.stretch, error, repeats, job.noisy)
                }
            }
        });
        let operations = operations.collect();
        rows.push(LayerRow { layer: layer.name.clone(), teacher_ms, teacher_spread_ms, operations });
    }
    debug_assert!(rows.iter().all(|r| r.operations.iter().all(|e| e.operation != TEACHER || e.timing == 0)));
    rows
}

/// Of several measurements of one model the one in the middle.
fn middle(mut measurements: Vec<Measurement>) -> Measurement {
    measurements.sort_by(|a, b| a.median_ms.total_cmp(&b.median_ms));
    let at = measurements.len() / 2;
    measurements.swap_remove(at)
}

/// What is left to do and the time for it.
struct Work<'a> {
    options: &'a TableOptions,
    start: Instant,
    done: usize,
    total: usize,
    /// Part of the time limit that this pass may use.
    share: f64,
    progress: &'a mut dyn FnMut(Progress),
}

impl Work<'_> {
    /// Times models against a reference, a few at a time; each group has its fair share of the time that is left.
    fn against(
        &mut self,
        reference: &Model,
        models: &[Model],
    ) -> Result<(Vec<Measurement>, Vec<Measurement>)> {
        let (mut references, mut results) = (Vec::new(), Vec::new());
        // With nothing to compare it with, the reference is measured alone.
        let groups: Vec<&[Model]> =
            if models.is_empty() { vec![&[]] } else { models.chunks(self.options.together - 1).collect() };
        for group in groups {
            let mut together = vec![reference.clone()];
            together.extend_from_slice(group);
            let left = self.options.time_limit.mul_f64(self.share).saturating_sub(self.start.elapsed());
            let share = group.len().max(1) as f64 / self.total.saturating_sub(self.done).max(1) as f64;
            let measured = measure(
                &together,
                &MeasureOptions {
                    deployment: self.options.deployment,
                    warm_up: 2,
                    min_repeats: self.options.min_repeats,
                    time_limit: left.mul_f64(share.min(1.0)),
                    target: self.options.target,
                    seed: self.options.seed.wrapping_add(self.done as u64),
                    ..MeasureOptions::default()
                },
            )?;
            let mut measured = measured.into_iter();
            references.extend(measured.next());
            results.extend(measured);
            self.done += group.len();
            let elapsed = self.start.elapsed();
            let rate = elapsed.as_secs_f64() / self.done.max(1) as f64;
            let remaining = Duration::from_secs_f64(rate * self.total.saturating_sub(self.done) as f64);
            (self.progress)(Progress { done: self.done, total: self.total, elapsed, remaining });
        }
        Ok((references, results))
    }

    /// Times the chosen jobs, each in the window of its class.
    fn operations(&mut self, classes: &[Class], jobs: &mut [Job], chosen: &[usize]) -> Result<()> {
        for (index, class) in classes.iter().enumerate() {
            let here: Vec<usize> = chosen.iter().copied().filter(|&j| jobs[j].class == index).collect();
            if here.is_empty() {
                continue;
            }
            let window = Model::with_random_weights("window", &class.window)?;
            let models = here.iter().map(|&j| class.with(&jobs[j].operation)).collect::<Result<Vec<_>>>()?;
            let (_, results) = self.against(&window, &models)?;
            let scale = class.window_ms / class.replaced.len() as f64;
            for (&j, result) in here.iter().zip(results) {
                let error = result.ratio_error * result.ratio * scale;
                // Of two measurements the surer one counts.
                if jobs[j].result.is_none_or(|(_, before, _)| error < before) {
                    jobs[j].result = Some(((result.ratio - 1.0) * scale, error, result.repeats));
                }
            }
        }
        Ok(())
    }
}
