//! How far a training is, and its files.
//!
//! A checkpoint holds weights, optimizer and average as tensors, and beside them a [`Position`]. Nothing else is needed to go on: the
//! order of the images, their augmentation and what is dropped are functions of seed, epoch, index and update, and so are
//! learning rate and weights of the objective. On a processor, with the same number of threads, a training that was killed ends with
//! the same weights to the last bit.

use lana_graph::Weights;
use lana_torch::{BatchNorm, Distiller};
use serde::{Deserialize, Serialize};

use super::train::{Course, Trainer};
use super::trial::Settled;
use crate::{Accuracy, EpochRecord, Error, Recipe, Result, checkpoint, sha256, write_atomic};

/// Updates over which the loss is averaged before it is called diverged.
const WINDOW: u64 = 16;

/// How far a training is: what stands beside the tensors of its checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Position {
    key: String,
    recipe: Recipe,
    pub(super) settled: Settled,
    /// Updates done.
    pub(super) step: u64,
    pub(super) start: Accuracy,
    pub(super) epochs: Vec<EpochRecord>,
    pub(super) best: Option<Best>,
    /// Losses and seconds of the epoch so far.
    pub(super) loss_sum: f64,
    pub(super) loss_count: u64,
    pub(super) seconds: f64,
    watch: Watch,
}

/// The weights that did best on the validation images so far: `best.safetensors`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Best {
    /// After which epoch.
    pub(crate) epoch: usize,
    /// Whether it was the average.
    pub(crate) averaged: bool,
    /// How well.
    pub(crate) val: Accuracy,
    /// SHA-256 of the file.
    pub(crate) sha256: String,
}

/// What tells a training that left the path: a mean loss more than ten times as large as in the beginning, and as guessing.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Watch {
    first: Option<f64>,
    sum: f64,
    count: u64,
}

impl Watch {
    /// Takes in a loss; gives the mean loss if that says that the training diverged. `chance` is the share that guessing would have in
    /// it by now: with weights that change, the loss may begin near zero and rise to that.
    pub(super) fn diverged(&mut self, loss: f64, chance: f64) -> Option<f64> {
        self.sum += loss;
        self.count += 1;
        if self.count < WINDOW {
            return None;
        }
        let mean = self.sum / self.count as f64;
        (self.sum, self.count) = (0.0, 0);
        let first = *self.first.get_or_insert(mean);
        (mean > 10.0 * first.max(chance) + 1.0).then_some(mean)
    }
}

impl Position {
    /// Adds a loss, or gives the mean one that says that the training diverged.
    pub(super) fn add(&mut self, loss: f64, chance: f64) -> Option<f64> {
        self.step += 1;
        self.loss_sum += loss;
        self.loss_count += 1;
        self.watch.diverged(loss, chance)
    }
}

impl Trainer<'_> {
    /// Continues where a checkpoint of this very training stands, or begins.
    pub(super) fn take_up(&self, weights: &Weights, course: &Course<'_>) -> Result<(Distiller, Position)> {
        let (context, recipe) = (self.context, self.recipe);
        let stored = checkpoint::load::<Position>(self.folder, context.progress)?;
        let same = |position: &Position| position.key == self.key && position.recipe.trains_like(recipe);
        if let Some((_, other)) = stored.as_ref().filter(|(_, position)| !same(position)) {
            context.progress.warn(&format!(
                "{}: what another recipe or other weights had trained up to step {} is given up",
                self.title, other.step
            ));
        }
        if let Some((all, position)) = stored.filter(|(_, position)| same(position)) {
            let training = course.training(position.settled.precision);
            let mut distiller =
                Distiller::new(&course.graph, &all.under("weights"), &training, context.device)?;
            distiller.restore(&all)?;
            context.progress.say(&format!("{} goes on at step {}", self.title, position.step));
            return Ok((distiller, position));
        }
        let settled = self.settle(weights, course)?;
        let training = course.training(settled.precision);
        let distiller = Distiller::new(&course.graph, weights, &training, context.device)?;
        let start = context.accuracy(distiller.network(), &course.val, BatchNorm::Batch)?;
        let position = Position {
            key: self.key.clone(),
            recipe: recipe.clone(),
            settled,
            step: 0,
            start,
            epochs: Vec::new(),
            best: None,
            loss_sum: 0.0,
            loss_count: 0,
            seconds: 0.0,
            watch: Watch::default(),
        };
        // What was settled by trial must not be settled otherwise after a kill.
        self.save(&distiller, &position)?;
        Ok((distiller, position))
    }

    pub(super) fn save(&self, distiller: &Distiller, position: &Position) -> Result<()> {
        checkpoint::save(self.folder, position.step, &distiller.checkpoint()?, position)
    }

    /// Notes the last epoch's weights, or their average, as the best if they are.
    pub(super) fn keep_best(&self, distiller: &Distiller, position: &mut Position) -> Result<()> {
        let Some(last) = position.epochs.last() else { return Ok(()) };
        let (averaged, val) = last.better();
        let before = position.best.as_ref().map(|best| best.val);
        if before.is_some_and(|before| !val.is_better_than(&before)) {
            return Ok(());
        }
        let bytes = match distiller.average().filter(|_| averaged) {
            Some(average) => average.weights()?,
            None => distiller.network().weights()?,
        }
        .to_bytes();
        write_atomic(&self.folder.join("best.safetensors"), &bytes)?;
        position.best = Some(Best { epoch: last.epoch, averaged, val, sha256: sha256(&bytes) });
        Ok(())
    }

    /// The error of a training that left the finite numbers, or the path.
    pub(super) fn diverged(&self, step: u64, loss: f64, rate: f64) -> Error {
        let checkpoint = match checkpoint::last::<Position>(self.folder) {
            Some((file, position)) => format!("{} (step {})", file.display(), position.step),
            None => "none was written yet".to_string(),
        };
        Error::Diverged { title: self.title.into(), step, loss, rate, checkpoint }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_ten_times_the_first_is_divergence_and_a_bad_batch_is_none() {
        let mut watch = Watch::default();
        let mut feed = |loss: f64| (0..WINDOW).find_map(|_| watch.diverged(loss, 0.0));
        assert_eq!(feed(0.5), None);
        assert_eq!(feed(5.9), None);
        assert!(feed(6.1).is_some());
        let mut watch = Watch::default();
        let losses = (0..4 * WINDOW).map(|at| if at == 20 { 40.0 } else { 0.5 });
        assert!(losses.into_iter().all(|loss| watch.diverged(loss, 0.0).is_none()));
        // What begins near zero and becomes a cross-entropy has not diverged, what goes far beyond guessing has.
        let mut watch = Watch::default();
        let mut feed = |loss: f64| (0..WINDOW).find_map(|_| watch.diverged(loss, 2.3));
        assert_eq!(feed(0.1), None);
        assert_eq!(feed(4.0), None);
        assert!(feed(25.0).is_some());
    }
}
