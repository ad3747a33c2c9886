//! What is measured before a training begins: the batch that fits into memory, whether bfloat16 is faster, and whether the teacher
//! should run ahead on a core of its own. What is found is kept with the training, so that it goes on alike.

use std::time::Instant;

use lana_data::Loader;
use lana_graph::{Precision, Weights};
use lana_torch::{Answers, Batch, Device, Distiller};
use serde::{Deserialize, Serialize};

use super::train::{Course, Fed, Trainer, on};
use crate::stages::{precision, pretrain};
use crate::{BatchSize, Error, Memory, Result};

/// What a recipe leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Settled {
    /// Images at a time.
    pub(crate) batch: usize,
    /// Number format of the student's convolutions.
    pub(crate) precision: Precision,
    /// Whether the teacher runs ahead on a thread of its own, unless its answers are known, and every kernel on one; else both run in
    /// turn, with their kernels on all cores.
    pub(crate) overlapped: bool,
}

/// Images that an automatic batch has at most: larger ones ask for another recipe.
const LARGEST: usize = 512;
/// Updates that are timed, after one that is not.
const TIMED: usize = 3;
/// What share of the time kernels on all cores must take to be preferred. When another program takes a core they fall to a fifth
/// (ResNet-56: 17 images/s, with the teacher running ahead 79), so they must be worth that risk.
const WORTH: f64 = 0.9;

impl Trainer<'_> {
    /// Settles what the recipe leaves open.
    pub(super) fn settle(&self, weights: &Weights, course: &Course<'_>) -> Result<Settled> {
        let (context, recipe) = (self.context, self.recipe);
        let images = course.images();
        if images < recipe.accumulate {
            return Err(Error::input(
                format!(
                    "`finetune.accumulate` is {}, but there are only {images} training images",
                    recipe.accumulate
                ),
                "lower it, or give more images with --train",
            ));
        }
        let batch = match recipe.batch {
            BatchSize::Images(batch) => batch.min(images),
            BatchSize::Auto => self.largest_batch(weights, course)?,
        };
        let mut settled = Settled { batch, precision: Precision::Fp32, overlapped: false };
        settled.precision = match (recipe.precision, context.device) {
            (Precision::Fp32, _) => Precision::Fp32,
            (_, Device::Cuda) => Precision::Bf16,
            _ => {
                let time = |precision| self.time(weights, course, &Settled { precision, ..settled });
                precision::faster(context.progress, "the student is trained", time)?.0
            }
        };
        // There must be a teacher to overlap with, and a core for it.
        if self.teacher.is_some() && context.device == Device::Cpu && context.workers() > 1 {
            let together = self.time(weights, course, &settled)?;
            let overlapped = self.time(weights, course, &Settled { overlapped: true, ..settled })?;
            settled.overlapped = together > WORTH * overlapped;
            context.run.event(
                &format!("{} trial", self.title),
                serde_json::json!({"batch": batch, "together_s": together, "overlapped_s": overlapped}),
            )?;
        }
        Ok(settled)
    }

    /// Seconds of an update of a network that is made for it and thrown away.
    fn time(&self, weights: &Weights, course: &Course<'_>, settled: &Settled) -> Result<f64> {
        let accumulate = self.recipe.accumulate;
        let loader = course.loader(settled.batch)?;
        let batch = self.first_batch(course, &loader)?;
        let known = course.book(&loader, settled.batch).is_some_and(|book| book.is_whole());
        let answers = course.teacher.as_ref().filter(|_| known);
        let answers = answers.map(|teacher| Answers::of(teacher, &batch.images, &[])).transpose()?;
        let mut distiller =
            Distiller::new(&course.graph, weights, &course.training(settled.precision), self.context.device)?;
        let fed =
            || Ok(Fed { batch: batch.share(), answers: answers.as_ref().map(Answers::share), page: None });
        let batches = std::iter::repeat_with(fed).take((TIMED + 1) * accumulate);
        let batches: Vec<Result<Fed>> = batches.collect();
        std::thread::scope(|scope| {
            let feed = course.feed(scope, batches.into_iter(), settled.overlapped);
            let mut begun = Instant::now();
            for update in 0..=TIMED {
                if update == 1 {
                    begun = Instant::now();
                }
                // With the learning rate of the beginning, so that no loss leaves the finite numbers that would not anyway.
                course.update(&mut distiller, &feed, settled, (0.0, 0.0))?;
            }
            self.context.device.synchronize();
            Ok(begun.elapsed().as_secs_f64() / TIMED as f64)
        })
    }

    fn first_batch(&self, course: &Course<'_>, loader: &Loader) -> Result<Batch> {
        let none = || Error::input("there is no training image", "check --train");
        let first = loader.epoch(0).next().ok_or_else(none)?;
        on(first, course.graph.input_shape(), self.context.device)
    }

    /// The largest batch, a power of two, of which an update fits into the memory that the recipe allows: by the memory that two
    /// small ones take, then tried. On a GPU the largest that does not fail.
    fn largest_batch(&self, weights: &Weights, course: &Course<'_>) -> Result<usize> {
        let context = self.context;
        let largest = LARGEST.min(course.images() / self.recipe.accumulate);
        let sizes = || (0..).map(|power| 1usize << power).take_while(|&size| size <= largest);
        let occupied = Memory::occupied().unwrap_or(Memory(0));
        let limit = pretrain::memory_limit(self.recipe.memory, occupied);
        let peak = |batch: usize| -> Result<u64> {
            let settled = Settled { batch, precision: Precision::Fp32, overlapped: false };
            let (done, peak) = Memory::peak_of(|| self.time(weights, course, &settled));
            done?;
            peak.map(|memory| memory.0).ok_or_else(|| {
                Error::input(
                    "`finetune.batch` is \"auto\", but this system does not tell what a step takes",
                    "give a number of images",
                )
            })
        };
        let tell = |batch: usize, memory: String| {
            context.progress.say(&format!(
                "{}: batches of {batch} images{memory}; updates of {} images, learning rate {:.3e}",
                self.title,
                batch * self.recipe.accumulate,
                self.recipe.rate(self.recipe.warmup_epochs, batch)
            ));
            Ok(batch)
        };
        if context.device == Device::Cuda {
            let mut fits = None;
            for batch in sizes().filter(|&size| size >= 8.min(largest)) {
                let settled = Settled { batch, precision: Precision::Bf16, overlapped: false };
                match self.time(weights, course, &settled) {
                    Ok(_) => fits = Some(batch),
                    Err(Error::Torch(_)) if fits.is_some() => break,
                    Err(other) => return Err(other),
                }
            }
            return tell(fits.unwrap_or(1), ", as many as the GPU takes".into());
        }
        let too_little = |least: u64| {
            Error::input(
                format!(
                    "{}: a batch of one image takes {}, more than the {} allowed",
                    self.title,
                    Memory(least).rounded(),
                    limit.rounded()
                ),
                "allow more in `finetune.memory`, or close other programs",
            )
        };
        // Of a larger step the allocator takes up what a smaller one gave back: peaks grow by what images take.
        let (small, double) = (4.min(largest.max(1)), 8.min(largest.max(1)));
        let (low, high) = (peak(small)?, peak(double)?);
        let each = high.saturating_sub(low) / (double - small).max(1) as u64;
        let expected = |batch: usize| low + each * batch.saturating_sub(small) as u64;
        let mut batch =
            sizes().filter(|&size| expected(size) <= limit.0).max().ok_or_else(|| too_little(low))?;
        loop {
            let taken = peak(batch)?;
            if taken <= limit.0 {
                return tell(
                    batch,
                    format!(", of which a step takes {} of {}", Memory(taken).rounded(), limit.rounded()),
                );
            }
            if batch == 1 {
                return Err(too_little(taken));
            }
            batch /= 2;
        }
    }
}
