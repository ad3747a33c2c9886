//! One pass over the images: each batch and each forward of the frozen teacher feeds all operations of the pass.
//!
//! While the operations learn from one batch, each on one thread, another thread runs the teacher on the next. Nothing
//! waits for the device but at the points of the curve, of which a pass has forty. The state of the pass is written every few minutes, and
//! every operation as soon as it is done: a killed run goes on where it was.

use std::path::PathBuf;
use std::time::Instant;

use lana_data::{Batches, Loader};
use lana_graph::{Precision, Weights};
use lana_models::pool::Operation;
use lana_torch::{
    Counts, Exercise, FeatureMaps, Imitation, Imitator, Lesson, Network, cosine, feature_maps, imitate,
};
use serde::{Deserialize, Serialize};

use super::plan::Need;
use super::watch::{self, Price};
use super::{Item, write};
use crate::checkpoint;
use crate::context::{Context, LayerPool, Teacher};
use crate::{Error, OperationRecord, Result};

/// Images over which BatchNorm statistics are settled and the final error is taken, if as many were learnt from; four batches at least.
const SETTLING: usize = 512;
/// Points of a curve.
const POINTS: u64 = 40;
/// Why an operation ended that has no usable weights.
const DIVERGED: &str = "diverged";
/// Share of the pass in which the learning rate of an operation that is stopped early falls to zero.
const COOLING: u64 = 20;

/// Where an operation is in its training; all steps count from the beginning of the pass.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Course {
    /// Images seen and mean error since the point before.
    curve: Vec<(u64, f64)>,
    /// Step it began with, later than the first if it was started again.
    begun: u64,
    /// How often it was started again.
    restarts: u32,
    /// Step from which its learning rate falls to zero, ahead of time.
    cooling: Option<u64>,
    /// Step with which it stopped learning.
    ended: Option<u64>,
    /// Why it was stopped early.
    stopped: Option<String>,
}

/// One operation of the pass.
struct Pupil {
    item: Item,
    imitator: Imitator,
    course: Course,
}

/// How far the pass is: what stands beside the tensors of its checkpoint.
#[derive(Serialize, Deserialize)]
pub(super) struct Position {
    step: u64,
    steps: u64,
    /// What operations learn by ([`Setting::recipe`]).
    #[serde(default)]
    recipe: String,
    /// Steps of single operations that the pass was to take.
    #[serde(default)]
    planned: u64,
    /// Layer and name of each operation that is not done.
    pub(super) operations: Vec<(String, String)>,
    courses: Vec<Course>,
    /// What each has counted.
    counts: Vec<Counts>,
    /// Steps not taken because operations were stopped early.
    saved: u64,
    /// Layer and curve of skipping it.
    identities: Vec<(usize, Vec<(u64, f64)>)>,
}

/// What a pass needs to know of the run.
pub(super) struct Setting<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) pool: &'a [LayerPool],
    /// The teacher as it was taken in, with the weights from which operations start.
    pub(super) origin: &'a Teacher,
    pub(super) lesson: Lesson,
    /// In what format the teacher runs.
    pub(super) teacher: Precision,
    /// Batches to learn from.
    pub(super) steps: u64,
    pub(super) batch: usize,
    /// Which part of the run's operations it is, as [`Shard`](super::Shard) is written, or nothing if it is all.
    pub(super) part: String,
    /// Folder of checkpoints.
    pub(super) folder: PathBuf,
    /// For each layer what other operations can be compared with: skipping it, and operations that are done.
    pub(super) done: Vec<Rival>,
    /// Images of the passes before, and of all passes.
    pub(super) images: (u64, u64),
}

impl Setting<'_> {
    /// Everything that decides what a step of a pass does: a checkpoint by another recipe is not taken up.
    pub(super) fn recipe(&self) -> String {
        let (config, seed) = (&self.context.config.pretrain, self.context.config.seed);
        format!(
            "{:?}, rate {}, {}, teacher {}, batch {}, crop_padding {}, seed {seed}",
            self.lesson.algorithm,
            config.learning_rate,
            self.lesson.precision,
            self.teacher,
            self.batch,
            config.crop_padding
        )
    }

    /// Batches that an operation still takes after it has stopped learning.
    fn settling(&self) -> u64 {
        let learnt = usize::try_from(self.steps).unwrap_or(SETTLING).saturating_mul(self.batch);
        (SETTLING.min(learnt).div_ceil(self.batch) as u64).max(4)
    }

    /// The lesson as an operation gets it: in parts, where whole batches would take too much memory.
    fn own(&self, item: &Item, lesson: &Lesson) -> Lesson {
        Lesson { parts: Need::of(&item.graph, self.batch, lesson.algorithm).parts, ..*lesson }
    }
}

/// An operation that another is compared with.
#[derive(Clone)]
pub(super) struct Rival {
    pub(super) layer: usize,
    pub(super) name: String,
    pub(super) price: Price,
    pub(super) curve: Vec<(u64, f64)>,
}

impl Rival {
    fn is_identity(&self) -> bool {
        self.name == Operation::IDENTITY
    }
}

/// What came of a pass.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outcome {
    pub(super) operations: u64,
    pub(super) failed: u64,
    pub(super) stopped: u64,
    /// Steps of single operations that were not taken.
    pub(super) saved: u64,
    /// Steps of single operations that there would have been.
    pub(super) planned: u64,
}

/// Makes the operations of `items` learn, writes each when it is done, and removes the checkpoint at the end.
pub(super) fn run(
    setting: &mut Setting<'_>,
    items: Vec<Item>,
    teacher: &Network,
    loader: Loader,
    resumed: Option<(Weights, Position)>,
) -> Result<Outcome> {
    let context = setting.context;
    if let Some((_, position)) = &resumed {
        for rival in setting.done.iter_mut().filter(|r| r.is_identity()) {
            let before = position.identities.iter().find(|(layer, _)| *layer == rival.layer);
            rival.curve = before.map(|(_, curve)| curve.clone()).unwrap_or_default();
        }
    }
    let mut wanted: Vec<usize> = items.iter().map(|item| item.layer).collect();
    wanted.dedup();
    let mut pass = Pass::new(setting, items, wanted, resumed)?;
    let mut outcome =
        Outcome { operations: pass.pupils.len() as u64, planned: pass.planned, ..Outcome::default() };
    let mut stream = Stream {
        network: teacher.share(),
        batches: None,
        loader,
        position: pass.step,
        wanted: pass.wanted.clone(),
    };
    let mut maps = stream.next()?;
    let begun = Instant::now();
    let first_step = pass.step;
    let mut saved = Instant::now();
    let points = (setting.steps / POINTS).max(1);
    while !pass.pupils.is_empty() {
        // The last batch has none behind it that anybody needs.
        let more = pass.step + 1 < setting.steps + setting.settling();
        let tasks = pass.tasks(setting, &maps);
        let (result, (back, next)) = context.threads.install(|| {
            imitate(tasks, move || {
                let next = more.then(|| stream.next());
                (stream, next)
            })
        });
        result?;
        stream = back;
        pass.step += 1;
        let seen = pass.step.min(setting.steps) * setting.batch as u64;
        context.progress.advance(setting.images.0 + seen, &pass.note);
        if pass.step.is_multiple_of(points) || pass.step == setting.steps {
            pass.look(setting, &maps)?;
            let seconds = begun.elapsed().as_secs_f64();
            let rate = ((pass.step - first_step) * setting.batch as u64) as f64 / seconds;
            let told = context.run.event(
                "pretrain",
                serde_json::json!({"part": setting.part, "images": setting.images.0 + seen, "total": setting.images.1,
                    "images_per_s": rate, "mean_error": pass.mean, "operations": pass.pupils.len()}),
            );
            match told {
                // Like a checkpoint, it is not what all this is for.
                Err(error) if error.is_out_of_room() => {}
                other => other?,
            }
        }
        pass.release(setting, &mut outcome)?;
        match next {
            Some(Ok(next)) => maps = next,
            // What is learnt is kept, whatever became of the images.
            Some(Err(error)) => {
                if let Err(unsaved) = pass.save(setting) {
                    context.progress.warn(&format!("no checkpoint could be written: {unsaved}"));
                }
                return Err(error);
            }
            None => {}
        }
        if saved.elapsed().as_secs_f64() > context.config.pretrain.checkpoint_s && !pass.pupils.is_empty() {
            pass.keep(setting)?;
            saved = Instant::now();
        }
    }
    outcome.saved = pass.saved;
    checkpoint::clear(&setting.folder)?;
    Ok(outcome)
}

struct Pass {
    pupils: Vec<Pupil>,
    /// Layers with operations in the pass, ascending.
    wanted: Vec<usize>,
    step: u64,
    saved: u64,
    planned: u64,
    /// Mean error of the last point, and that in words.
    mean: f64,
    note: String,
    /// Whether there was no room for the last checkpoint.
    is_cramped: bool,
}

impl Pass {
    fn new(
        setting: &Setting<'_>,
        items: Vec<Item>,
        wanted: Vec<usize>,
        resumed: Option<(Weights, Position)>,
    ) -> Result<Self> {
        let context = setting.context;
        let mut pass = Pass {
            pupils: Vec::new(),
            wanted,
            step: 0,
            saved: 0,
            planned: 0,
            mean: f64::NAN,
            note: String::new(),
            is_cramped: false,
        };
        pass.planned = items.len() as u64 * setting.steps;
        let (all, position) = match &resumed {
            Some((all, position)) => (Some(all), Some(position)),
            None => (None, None),
        };
        if let Some(position) = position {
            (pass.step, pass.saved, pass.planned) = (position.step, position.saved, position.planned);
            context.progress.say(&format!("phase 1 goes on at step {} of {}", position.step, position.steps));
        }
        for item in items {
            let layer = &setting.pool[item.layer].layer;
            let at =
                position.and_then(|p| p.operations.iter().position(|(l, o)| l == layer && *o == item.name));
            let pupil = match (all, position, at) {
                (Some(all), Some(position), Some(at)) => {
                    let base = format!("{layer}/{}", item.name);
                    let weights = all.under(&format!("{base}/weights"));
                    let state = all.under(&format!("{base}/optimizer"));
                    let imitator = if state.is_empty() {
                        start(setting, &item, &setting.lesson)?
                    } else {
                        let mut imitator = Imitator::new(
                            &item.graph,
                            &weights,
                            &setting.own(&item, &setting.lesson),
                            context.device,
                        )?;
                        imitator.restore(&state, &position.counts[at])?;
                        imitator
                    };
                    Pupil { item, imitator, course: position.courses[at].clone() }
                }
                _ => {
                    let imitator = start(setting, &item, &setting.lesson)?;
                    Pupil { item, imitator, course: Course::default() }
                }
            };
            pass.pupils.push(pupil);
        }
        Ok(pass)
    }

    /// What every operation does with the next batch.
    fn tasks<'a>(&'a mut self, setting: &Setting<'_>, maps: &[FeatureMaps]) -> Vec<Imitation<'a>> {
        let (step, wanted) = (self.step, &self.wanted);
        let task = |pupil: &'a mut Pupil| {
            let at = wanted.binary_search(&pupil.item.layer).unwrap_or(0);
            let exercise = pupil.course.exercise(setting, step);
            Imitation { imitator: &mut pupil.imitator, maps: maps[at].share(), exercise }
        };
        self.pupils.iter_mut().map(task).collect()
    }

    /// Looks at the errors since the last point, and decides what becomes of whom. `maps` are those of the last batch.
    fn look(&mut self, setting: &mut Setting<'_>, maps: &[FeatureMaps]) -> Result<()> {
        let (context, steps) = (setting.context, setting.steps);
        let seen = self.step * setting.batch as u64;
        for (at, &layer) in self.wanted.iter().enumerate() {
            if !maps[at].is_finite()? {
                return Err(Error::input(
                    format!("the teacher's feature maps at {} are not finite", setting.pool[layer].layer),
                    "check the teacher's weights and the training images: `lana evaluate` shows whether they fit",
                ));
            }
            let identity = setting.done.iter_mut().find(|r| r.layer == layer && r.is_identity());
            if let (Some(rival), Some(error)) = (identity, maps[at].identity_error()?) {
                rival.curve.push((seen, error));
            }
        }
        let (mut sum, mut count) = (0.0, 0u32);
        for pupil in self.pupils.iter_mut().filter(|p| p.course.ended.is_none()) {
            let error = pupil.imitator.take_loss();
            let name = format!("{}: {}", setting.pool[pupil.item.layer].layer, pupil.item.name);
            let done = pupil.course.done(self.step, steps);
            if watch::has_diverged(pupil.imitator.first_loss(), error, done) {
                // What is left must be worth a beginning.
                if pupil.course.may_restart(self.step, steps) {
                    context
                        .progress
                        .warn(&format!("{name} diverged and starts again with half the learning rate"));
                    pupil.imitator = start(setting, &pupil.item, &setting.lesson)?;
                    pupil.course = Course { begun: self.step, restarts: 1, ..Course::default() };
                } else {
                    context.progress.warn(&format!("{name} diverged and is given up"));
                    pupil.course.ended = Some(self.step);
                    pupil.course.stopped = Some(DIVERGED.into());
                    self.saved += steps - self.step.min(steps);
                }
                continue;
            }
            pupil.course.curve.push((seen, error));
            sum += error;
            count += 1;
        }
        // Once nobody learns any more, the last mean holds.
        if count > 0 {
            self.mean = sum / f64::from(count);
            self.note = format!("mean error {:.4}", self.mean);
        }
        if context.config.pretrain.early_stop {
            self.stop_early(setting);
        }
        for pupil in &mut self.pupils {
            let course = &mut pupil.course;
            let cooled = course.cooling.is_some_and(|from| self.step >= from + cooling(steps));
            if course.ended.is_none() && (cooled || self.step >= steps) {
                course.ended = Some(self.step);
                self.saved += steps - self.step.min(steps);
                // The errors of the steps before are in the curve; what follows are those of the final weights.
                pupil.imitator.take_loss();
            }
        }
        Ok(())
    }

    /// Stops operations whose error no longer falls, and those that another beats.
    fn stop_early(&mut self, setting: &Setting<'_>) {
        let (step, steps) = (self.step, setting.steps);
        let learning = self.pupils.iter().filter(|p| p.course.stopped.is_none() && p.course.restarts == 0);
        let rivals: Vec<Rival> = learning
            .map(|p| Rival {
                layer: p.item.layer,
                name: p.item.name.clone(),
                price: p.item.price,
                curve: p.course.curve.clone(),
            })
            .chain(setting.done.iter().cloned())
            .collect();
        for pupil in &mut self.pupils {
            let course = &mut pupil.course;
            let done = course.done(step, steps);
            if course.ended.is_some() || course.cooling.is_some() || done >= 1.0 - 1.0 / COOLING as f64 {
                continue;
            }
            let beating = rivals.iter().filter(|rival| {
                rival.layer == pupil.item.layer
                    && rival.price.beats(&pupil.item.price)
                    && watch::is_worse(&course.curve, &rival.curve, done)
            });
            // Not the first that comes: who is done and who is not may change that.
            let beaten = beating.map(|rival| &rival.name).min();
            if let (Some(rival), false) = (beaten, setting.context.config.pretrain.keep_slow) {
                course.stopped = Some(format!("slower and worse than {rival}"));
                course.ended = Some(step);
                self.saved += steps - step;
            } else if watch::is_flat(&course.curve, done) {
                course.stopped = Some("its error no longer fell".into());
                course.cooling = Some(step);
            }
        }
    }

    /// Writes the operations that are done and lets them go.
    fn release(&mut self, setting: &mut Setting<'_>, outcome: &mut Outcome) -> Result<()> {
        let step = self.step;
        let settling = |course: &Course| if course.has_failed() { 0 } else { setting.settling() };
        let is_done = |p: &Pupil| p.course.ended.is_some_and(|ended| step >= ended + settling(&p.course));
        if !self.pupils.iter().any(is_done) {
            return Ok(());
        }
        let (done, left) = std::mem::take(&mut self.pupils).into_iter().partition(is_done);
        self.pupils = left;
        for mut pupil in done {
            let failed = pupil.course.has_failed();
            let error = if failed { f64::INFINITY } else { pupil.imitator.take_loss() };
            let failed = failed || !error.is_finite();
            let place = &setting.pool[pupil.item.layer];
            let bytes = pupil.imitator.network().weights()?.to_bytes();
            let ended = pupil.course.ended.unwrap_or(step);
            let record = OperationRecord {
                layer: place.layer.clone(),
                operation: pupil.item.name.clone(),
                images: (ended - pupil.course.begun) * setting.batch as u64,
                error: if failed { 1e9 } else { error },
                identity_error: pupil.imitator.identity_error(),
                first_error: pupil.imitator.first_loss().filter(|error| error.is_finite()),
                curve: pupil.course.curve,
                failed,
                restarts: pupil.course.restarts,
                stopped: pupil.course.stopped,
                sha256: crate::sha256(&bytes),
            };
            outcome.failed += u64::from(failed);
            outcome.stopped += u64::from(record.stopped.is_some() && !failed);
            write(setting.context, &record, &bytes)?;
            setting.done.push(Rival {
                layer: pupil.item.layer,
                name: pupil.item.name,
                price: pupil.item.price,
                curve: if failed { Vec::new() } else { record.curve },
            });
        }
        Ok(())
    }

    /// Writes a checkpoint, where there is room for one. Where there is not, training goes on without: what has been learnt since the
    /// last one is lost only if the process ends before there is room again, and would be lost for certain if it ended now.
    fn keep(&mut self, setting: &Setting<'_>) -> Result<()> {
        let progress = setting.context.progress;
        match self.save(setting) {
            Ok(()) if self.is_cramped => {
                progress.say("there is room for checkpoints again");
                self.is_cramped = false;
            }
            Ok(()) => {}
            Err(error) if error.is_out_of_room() => {
                if !self.is_cramped {
                    progress.warn(&format!(
                        "no room for a checkpoint: {error}; training goes on, but what operations learn until there is room is \
                         lost if it is interrupted (those that are done are kept)"
                    ));
                }
                self.is_cramped = true;
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn save(&self, setting: &Setting<'_>) -> Result<()> {
        let mut all = Weights::new();
        let mut position = Position {
            step: self.step,
            steps: setting.steps,
            recipe: setting.recipe(),
            planned: self.planned,
            operations: Vec::new(),
            courses: Vec::new(),
            counts: Vec::new(),
            saved: self.saved,
            identities: setting
                .done
                .iter()
                .filter(|r| r.is_identity())
                .map(|r| (r.layer, r.curve.clone()))
                .collect(),
        };
        for pupil in &self.pupils {
            let layer = &setting.pool[pupil.item.layer].layer;
            let (weights, optimizer) = pupil.imitator.checkpoint()?;
            let counts = pupil.imitator.counts();
            let mut course = pupil.course.clone();
            let is_finite = |w: &Weights| w.iter().all(|(_, t)| t.data.iter().all(|x| x.is_finite()));
            let is_whole = counts.is_finite() && is_finite(&weights) && is_finite(&optimizer);
            if !is_whole {
                // It has diverged since its error was last looked at: without tensors it begins anew, or is given up.
                if course.may_restart(self.step, setting.steps) {
                    course = Course { begun: self.step, restarts: 1, ..Course::default() };
                } else {
                    course.ended = Some(self.step);
                    course.stopped = Some(DIVERGED.into());
                }
            }
            let parts = [("weights", weights), ("optimizer", optimizer)].into_iter().filter(|_| is_whole);
            for (part, tensors) in parts {
                for (name, tensor) in tensors {
                    all.insert(format!("{layer}/{}/{part}.{name}", pupil.item.name), tensor);
                }
            }
            position.operations.push((layer.clone(), pupil.item.name.clone()));
            position.courses.push(course);
            position.counts.push(if is_whole { counts } else { Counts::default() });
        }
        checkpoint::save(&setting.folder, self.step, &all, position)
    }
}

impl Course {
    fn exercise(&self, setting: &Setting<'_>, step: u64) -> Exercise {
        if let Some(ended) = self.ended {
            return Exercise::Settle((step - ended + 1) as u32);
        }
        let config = &setting.context.config.pretrain;
        let peak = config.learning_rate * 0.5f64.powi(self.restarts as i32);
        let rate = |step: u64| {
            let steps = setting.steps - self.begun;
            cosine(peak, step - self.begun, steps, (steps / 20).max(1))
        };
        Exercise::Learn(match self.cooling {
            Some(from) => {
                let left = 1.0 - (step - from) as f64 / cooling(setting.steps) as f64;
                rate(from) * left.max(0.0)
            }
            None => rate(step),
        })
    }

    /// Share of its own way that is behind it.
    fn done(&self, step: u64, steps: u64) -> f64 {
        (step - self.begun) as f64 / steps.saturating_sub(self.begun).max(1) as f64
    }

    fn has_failed(&self) -> bool {
        self.stopped.as_deref() == Some(DIVERGED)
    }

    /// Whether, having diverged, it is worth a second beginning: the first, and early enough.
    fn may_restart(&self, step: u64, steps: u64) -> bool {
        self.restarts == 0 && steps.saturating_sub(step) >= steps / 4
    }
}

/// Steps in which the learning rate of an operation that is stopped falls to zero.
fn cooling(steps: u64) -> u64 {
    (steps / COOLING).max(1)
}

/// An operation at its start.
pub(super) fn start(setting: &Setting<'_>, item: &Item, lesson: &Lesson) -> Result<Imitator> {
    let (context, place) = (setting.context, &setting.pool[item.layer]);
    let seed = super::seed(context, item.layer);
    let weights = setting.origin.graph.layer_weights(&place.layer, &setting.origin.weights)?;
    let start = item.operation.initialise(&place.graph, &weights, &item.graph, seed)?;
    Ok(Imitator::new(&item.graph, &start, &setting.own(item, lesson), context.device)?)
}

/// The checkpoint of an interrupted pass, if it was made as passes are made now.
pub(super) fn resume(setting: &Setting<'_>) -> Result<Option<(Weights, Position)>> {
    let (context, folder, steps) = (setting.context, &setting.folder, setting.steps);
    let found = checkpoint::load::<Position>(folder, context.progress)?;
    let Some((_, position)) = &found else { return Ok(None) };
    let count = position.operations.len();
    if position.steps != steps || position.courses.len() != count || position.counts.len() != count {
        context.progress.warn("the checkpoint is of another pass; phase 1 starts again");
        return Ok(None);
    }
    if position.recipe != setting.recipe() {
        context.progress.warn(&format!(
            "the checkpoint in {} was made with other settings ({}; now {}): the interrupted pass starts again",
            folder.display(),
            position.recipe,
            setting.recipe()
        ));
        return Ok(None);
    }
    Ok(found)
}

/// The images, endlessly, as the teacher's feature maps.
struct Stream {
    network: Network,
    batches: Option<Batches>,
    loader: Loader,
    /// Batches taken since the start of the pass, over interruptions.
    position: u64,
    /// Layers whose maps are wanted.
    wanted: Vec<usize>,
}

impl Stream {
    fn next(&mut self) -> Result<Vec<FeatureMaps>> {
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
        check_finite(&batch.images, &batch.indices)?;
        let shape = self.network.graph().input_shape();
        let input = lana_torch::Batch::new(&batch.images, &batch.labels, shape, self.network.device())?;
        batches.recycle(batch);
        Ok(feature_maps(&self.network, &input.images, &self.wanted)?)
    }
}

/// Refuses images with values that are no numbers, which would spoil every operation at once. `indices` are the images' numbers in
/// the data set.
fn check_finite(images: &[f32], indices: &[u32]) -> Result<()> {
    let Some(at) = images.iter().position(|x| !x.is_finite()) else { return Ok(()) };
    let elements = images.len() / indices.len().max(1);
    let index = indices.get(at / elements.max(1)).copied().unwrap_or_default();
    Err(Error::input(
        format!("training image number {index} holds values that are not finite"),
        "mend or remove it and give the same command again; what is learnt is kept",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_is_not_finite_is_named() {
        assert!(check_finite(&[1.0; 12], &[5, 9, 2]).is_ok());
        for bad in [f32::NAN, f32::INFINITY] {
            let mut images = [1.0; 12];
            images[7] = bad;
            let error = check_finite(&images, &[5, 9, 2]).unwrap_err();
            assert!(error.to_string().contains("image number 9") && error.exit_status() == 2, "{error}");
        }
    }
}
