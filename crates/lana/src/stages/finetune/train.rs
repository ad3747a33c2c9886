//! The training of a network on the run's images, with a teacher or without.
//!
//! Batches are decoded ahead on threads of their own. The teacher's forward shares each decoded batch with the student: it runs ahead on
//! another thread, or before the student on the same, then with the kernels of both on all cores, whichever is faster here
//! ([`super::trial`]). What it said in an earlier training of the run is known ([`super::answers`]).

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use lana_data::{Dataset, Loader, LoaderConfig};
use lana_graph::{Graph, Precision, Value, Weights};
use lana_torch::{Answers, Batch, BatchNorm, Device, Distiller, Network, Training};

use super::answers::{AnswerBook, Page};
use super::position::{Best, Position};
use super::trial::Settled;
use crate::context::{Context, Teacher};
use crate::recipe::Matched;
use crate::{Accuracy, Assessment, EpochRecord, Error, Progress, Recipe, Result, sha256, write_atomic};

/// Trains a network under a recipe.
pub(crate) struct Trainer<'a> {
    pub(crate) context: &'a Context<'a>,
    /// Whom to distil from; none to train on labels alone.
    pub(crate) teacher: Option<&'a Teacher>,
    pub(crate) recipe: &'a Recipe,
    /// The network whose input and preprocessing hold.
    pub(crate) input: &'a Teacher,
    pub(crate) title: &'a str,
    /// What distinguishes this training: a checkpoint of another is not taken up.
    pub(crate) key: String,
    /// Where checkpoints stand.
    pub(crate) folder: &'a Path,
    /// How many of the training images, evenly spread, it is given; all if absent.
    pub(crate) images: Option<usize>,
    /// Of these, so many, evenly spread too, are held out: it is validated on them in place of the validation images. 0 for none.
    pub(crate) held_out: usize,
}

/// What a training gives.
pub(crate) struct Trained {
    /// The weights after the last epoch, or their average if that does better on the validation images.
    pub(crate) weights: Weights,
    /// Whether they are the average.
    pub(crate) averaged: bool,
    /// Accuracy before, with the statistics of the batch.
    pub(crate) start: Accuracy,
    /// The curve.
    pub(crate) epochs: Vec<EpochRecord>,
    pub(crate) best: Option<Best>,
    pub(crate) settled: Settled,
    /// Of the weights on the validation images.
    pub(crate) assessment: Assessment,
}

/// What does not change during a training.
pub(super) struct Course<'a> {
    pub(super) trainer: &'a Trainer<'a>,
    /// The network with what the recipe drops.
    pub(super) graph: Graph,
    pub(super) teacher: Option<Network>,
    frozen: Vec<String>,
    pub(super) matched: Matched,
    train: Arc<Dataset>,
    /// Of the training images those that are learned from; all if absent.
    given: Option<Vec<u32>>,
    pub(super) val: Loader,
}

impl Course<'_> {
    /// Training images that are learned from.
    pub(super) fn images(&self) -> usize {
        self.given.as_ref().map_or(self.train.len(), Vec::len)
    }

    /// How the network is trained, in a number format.
    pub(super) fn training(&self, precision: Precision) -> Training {
        let recipe = self.trainer.recipe;
        Training {
            algorithm: recipe.algorithm(),
            clip: (recipe.clip > 0.0).then_some(recipe.clip),
            precision,
            seed: self.trainer.context.config.seed,
            average: recipe.average(),
            frozen: self.frozen.clone(),
            matched: self.matched.student.clone(),
        }
    }

    /// Training images in batches.
    pub(super) fn loader(&self, batch: usize) -> Result<Loader> {
        let Trainer { context, recipe, input, .. } = self.trainer;
        let config = LoaderConfig {
            batch,
            subset: self.given.clone(),
            shuffle: true,
            seed: context.config.seed.wrapping_add(1),
            drop_last: true,
            ..LoaderConfig::default()
        };
        context.loader(&self.train, input, Some(recipe.augment.clone()), config)
    }

    /// Where the teacher's answers to the batches of `loader` are kept; nowhere without a teacher, and with feature maps, which
    /// take too much.
    pub(super) fn book(&self, loader: &Loader, batch: usize) -> Option<Arc<AnswerBook>> {
        let Trainer { context, recipe, input, images, held_out, .. } = self.trainer;
        let teacher = self.trainer.teacher.filter(|_| self.matched.teacher.is_empty())?;
        let augment = serde_json::to_string(&recipe.augment).unwrap_or_default();
        let key = format!(
            "{} {:?} {} {augment} {batch} {} {} {images:?} {held_out} {:?}",
            sha256(&teacher.weights.to_bytes()),
            input.preprocessing,
            context.config.train,
            self.train.len(),
            context.config.seed,
            context.device,
        );
        let classes = teacher.graph.output_shape().elements();
        let folder = context.run.path("teacher/answers");
        // What is left of an epoch behind its last update is not learned from.
        let batches = loader.batches() / recipe.accumulate * recipe.accumulate;
        AnswerBook::new(&folder, &key, (batch, classes), (recipe.epochs, batches)).map(Arc::new)
    }

    /// One update on the next batches that `feed` gives.
    pub(super) fn update(
        &self,
        distiller: &mut Distiller,
        feed: &crossbeam_channel::Receiver<Result<Fed>>,
        settled: &Settled,
        position: (f64, f64),
    ) -> Result<Option<f64>> {
        let recipe = self.trainer.recipe;
        let mut parts = Vec::with_capacity(recipe.accumulate);
        for _ in 0..recipe.accumulate {
            match feed.recv() {
                Ok(fed) => parts.push(fed?),
                Err(_) => return Ok(None),
            }
        }
        let (epochs, done) = position;
        let (rate, mixture) = (recipe.rate(epochs, settled.batch), recipe.mixture(done));
        let step = || -> Result<f64> {
            for part in &mut parts {
                part.answer(self.teacher.as_ref(), &self.matched.teacher, self.trainer.context.progress)?;
            }
            let parts = parts.iter().map(|part| (&part.batch, part.answers.as_ref()));
            Ok(distiller.step_in_parts(parts, &mixture, rate)?)
        };
        // A teacher that runs ahead has a core of its own.
        let threads = if settled.overlapped { 1 } else { self.trainer.context.workers() };
        lana_torch::with_kernel_threads(threads, step).map(Some)
    }

    /// Batches on the device, with the teacher's answers if it runs ahead, made on a thread of `scope`.
    pub(super) fn feed<'s, 'e: 's>(
        &'s self,
        scope: &'s std::thread::Scope<'s, 'e>,
        batches: impl Iterator<Item = Result<Fed>> + Send + 's,
        overlapped: bool,
    ) -> crossbeam_channel::Receiver<Result<Fed>> {
        let (send, receive) = crossbeam_channel::bounded(3);
        let teacher = self.teacher.as_ref().filter(|_| overlapped).map(Network::share);
        let (matched, progress) = (self.matched.teacher.clone(), self.trainer.context.progress);
        scope.spawn(move || {
            for fed in batches {
                let fed =
                    fed.and_then(|mut fed| fed.answer(teacher.as_ref(), &matched, progress).map(|()| fed));
                let failed = fed.is_err();
                // The receiver is gone when training stopped with an error of its own.
                if send.send(fed).is_err() || failed {
                    return;
                }
            }
        });
        receive
    }
}

/// A batch to learn from.
pub(super) struct Fed {
    pub(super) batch: Batch,
    /// Those of the teacher, once they are known.
    pub(super) answers: Option<Answers>,
    /// Where they are kept.
    pub(super) page: Option<Page>,
}

impl Fed {
    /// Asks the teacher, if there is one, what is not known yet.
    fn answer(
        &mut self,
        teacher: Option<&Network>,
        matched: &[Value],
        progress: &dyn Progress,
    ) -> Result<()> {
        let Some(teacher) = teacher.filter(|_| self.answers.is_none()) else { return Ok(()) };
        let answers = Answers::of(teacher, &self.batch.images, matched)?;
        if let Some(page) = &self.page {
            page.write(&answers.to_vec()?, progress);
        }
        self.answers = Some(answers);
        Ok(())
    }
}

impl Trainer<'_> {
    /// Trains a network from weights to the end of the recipe, or goes on where this was interrupted.
    ///
    /// Leaves `last.safetensors`, `average.safetensors` (if one is kept) and `best.safetensors` in the folder.
    pub(crate) fn train(&self, graph: &Graph, weights: &Weights) -> Result<Trained> {
        let course = self.course(graph)?;
        let (mut distiller, mut position) = self.take_up(weights, &course)?;
        let settled = position.settled;
        let loader = course.loader(settled.batch)?;
        let recipe = self.recipe;
        let per_epoch = (loader.batches() / recipe.accumulate) as u64;
        if per_epoch == 0 {
            return Err(Error::input(
                format!(
                    "{} training images make no update of {} batches of {}",
                    course.images(),
                    recipe.accumulate,
                    settled.batch
                ),
                "ask for smaller batches, or fewer, in `finetune.batch` and `finetune.accumulate`",
            ));
        }
        let images = (settled.batch * recipe.accumulate) as u64;
        let total = per_epoch * recipe.epochs as u64;
        let progress = self.context.progress;
        let book = course.book(&loader, settled.batch);
        if let Some(book) = &book {
            if book.is_whole() {
                progress.say(&format!("{}: what the teacher says of these images is known", self.title));
            }
            book.make_room();
        }
        progress.begin(self.title, total * images, "images");
        progress.advance(position.step * images, "");
        while position.epochs.len() < recipe.epochs {
            let clock = Instant::now();
            self.epoch(&course, (&loader, book.as_ref()), per_epoch, &mut distiller, &mut position, clock)?;
        }
        self.conclude(&course, &distiller, position)
    }

    /// Of so many training images those that are learned from, all if absent, and those that are held out.
    fn parts(&self, all: usize) -> (Option<Vec<u32>>, Vec<u32>) {
        let count = self.images.unwrap_or(all).min(all);
        if count == all && self.held_out == 0 {
            return (None, Vec::new());
        }
        let image = |at: usize| (at * all / count) as u32;
        let is_held_out = |at: &usize| (at + 1) * self.held_out / count > at * self.held_out / count;
        let (held_out, given): (Vec<usize>, Vec<usize>) = (0..count).partition(is_held_out);
        (Some(given.into_iter().map(image).collect()), held_out.into_iter().map(image).collect())
    }

    fn course(&self, graph: &Graph) -> Result<Course<'_>> {
        let Trainer { context, recipe, input, .. } = self;
        let train = context.dataset(&context.config.train, input)?;
        let (given, held_out) = self.parts(train.len());
        let val = match held_out.is_empty() {
            true => context.plain_loader(&context.dataset(&context.config.val, input)?, input, 250, None)?,
            false => context.plain_loader(&train, input, 250, Some(held_out))?,
        };
        let teacher =
            self.teacher.map(|t| Network::frozen(&t.graph, &t.weights, context.device)).transpose()?;
        let dropping = recipe.with_drops(graph)?;
        // By the network as it runs, whose values have other numbers than the graph it was made from.
        let matched = teacher.as_ref().map(|t| recipe.matched(&dropping, t.graph())).transpose()?;
        Ok(Course {
            trainer: self,
            graph: dropping,
            teacher,
            frozen: recipe.frozen(graph)?,
            matched: matched.unwrap_or_default(),
            train,
            given,
            val,
        })
    }

    /// From where the position is to the end of its epoch, and what the network is worth there.
    fn epoch(
        &self,
        course: &Course<'_>,
        (loader, book): (&Loader, Option<&Arc<AnswerBook>>),
        per_epoch: u64,
        distiller: &mut Distiller,
        position: &mut Position,
        mut clock: Instant,
    ) -> Result<()> {
        let Trainer { context, recipe, input, .. } = self;
        let settled = position.settled;
        let progress = context.progress;
        let images = (settled.batch * recipe.accumulate) as u64;
        let total = per_epoch * recipe.epochs as u64;
        // By the epochs that were validated: one whose last update is in the checkpoint may still lack that.
        let epoch = position.epochs.len() as u64;
        // Checkpoints of before may lack more than that; then nothing is left of this epoch, and the next begins where they stand.
        let first = position.step.saturating_sub(epoch * per_epoch) as usize * recipe.accumulate;
        let left = (per_epoch as usize * recipe.accumulate).saturating_sub(first);
        let shape = input.graph.input_shape().clone();
        let batches = loader.epoch_from(epoch, first).take(left).enumerate().map(|(at, batch)| {
            let page = batch.as_ref().ok().and_then(|raw| book.map(|book| book.page(epoch, first + at, raw)));
            let batch = on(batch, &shape, context.device)?;
            let known = page.as_ref().and_then(Page::read);
            let answers = known.map(|logits| Answers::known(&logits, &batch)).transpose()?;
            Ok(Fed { batch, answers, page })
        });
        let mut saved = Instant::now();
        std::thread::scope(|scope| -> Result<()> {
            let feed = course.feed(scope, batches, settled.overlapped);
            while position.step < (epoch + 1) * per_epoch {
                let epochs = position.step as f64 / per_epoch as f64;
                let done = position.step as f64 / total as f64;
                let rate = recipe.rate(epochs, settled.batch);
                let loss = match course.update(distiller, &feed, &settled, (epochs, done)) {
                    Ok(Some(loss)) => loss,
                    Ok(None) => return Err(ended_early()),
                    Err(Error::Torch(lana_torch::Error::Diverged { loss, .. })) => {
                        return Err(self.diverged(position.step, loss, rate));
                    }
                    Err(other) => return Err(other),
                };
                let labels =
                    recipe.mixture(done).labels * (input.graph.output_shape().elements() as f64).ln();
                if let Some(mean) = position.add(loss, labels) {
                    return Err(self.diverged(position.step, mean, rate));
                }
                if position.step.is_multiple_of(8) {
                    let mean = position.loss_sum / position.loss_count as f64;
                    progress.advance(position.step * images, &format!("loss {mean:.3}"));
                }
                if saved.elapsed().as_secs_f64() > recipe.checkpoint_s {
                    position.seconds += clock.elapsed().as_secs_f64();
                    clock = Instant::now();
                    self.save(distiller, position)?;
                    saved = Instant::now();
                }
            }
            Ok(())
        })?;
        position.seconds += clock.elapsed().as_secs_f64();
        let clock = Instant::now();
        let val = context.accuracy(distiller.network(), &course.val, BatchNorm::Running)?;
        let average = distiller.average();
        let average = average.map(|a| context.accuracy(&a, &course.val, BatchNorm::Running)).transpose()?;
        let images_per_s = (per_epoch * images) as f64 / position.seconds;
        position.seconds += clock.elapsed().as_secs_f64();
        let record = EpochRecord {
            epoch: epoch as usize + 1,
            train_loss: position.loss_sum / position.loss_count.max(1) as f64,
            val,
            average,
            images_per_s,
            seconds: position.seconds,
        };
        position.epochs.push(record);
        (position.loss_sum, position.loss_count, position.seconds) = (0.0, 0, 0.0);
        let averaged = average.map_or(String::new(), |a| format!(", of the average {:.2} %", 100.0 * a.top1));
        progress.say(&format!(
            "{}: epoch {} of {}, loss {:.3}, {} top-1 {:.2} %{averaged}",
            self.title,
            record.epoch,
            recipe.epochs,
            record.train_loss,
            if self.held_out > 0 { "held-out" } else { "validation" },
            100.0 * val.top1
        ));
        context.run.event(self.title, serde_json::json!(record))?;
        self.keep_best(distiller, position)?;
        self.save(distiller, position)
    }

    /// Chooses between the last weights and their average, and says what there is to say of them.
    fn conclude(&self, course: &Course<'_>, distiller: &Distiller, position: Position) -> Result<Trained> {
        let context = self.context;
        let last = distiller.network().weights()?;
        write_atomic(&self.folder.join("last.safetensors"), &last.to_bytes())?;
        let average = distiller.average();
        if let Some(average) = &average {
            write_atomic(&self.folder.join("average.safetensors"), &average.weights()?.to_bytes())?;
        }
        let averaged = position.epochs.last().is_some_and(|epoch| epoch.better().0);
        let chosen = average.filter(|_| averaged);
        let network = chosen.as_ref().unwrap_or(distiller.network());
        let names = course.val.dataset().class_names();
        let assessment = context.assess(network, course.teacher.as_ref(), &course.val, names)?;
        context.tell_skipped(self.title)?;
        context.progress.finish(&format!(
            "top-1 {:.2} ± {:.2} %{}",
            100.0 * assessment.accuracy.top1,
            100.0 * assessment.top1_error,
            if averaged { " (the average of the weights)" } else { "" }
        ));
        Ok(Trained {
            weights: network.weights()?,
            averaged,
            start: position.start,
            epochs: position.epochs,
            best: position.best,
            settled: position.settled,
            assessment,
        })
    }
}

/// A decoded batch on the device, with what it was mixed with.
pub(super) fn on(
    batch: Result<lana_data::Batch, lana_data::Error>,
    shape: &lana_graph::Shape,
    device: Device,
) -> Result<Batch> {
    let batch = batch?;
    let on_device = Batch::new(&batch.images, &batch.labels, shape, device)?;
    Ok(match &batch.mix {
        Some(mix) => on_device.mixed_with(&mix.partners, mix.lam.into())?,
        None => on_device,
    })
}

fn ended_early() -> Error {
    Error::input("the training images ended early", "check that the data did not change during the run")
}
