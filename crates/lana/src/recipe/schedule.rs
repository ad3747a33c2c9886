//! What changes in the course of a training: the learning rate, and the weights of what is minimised.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

use super::Recipe;

/// How the learning rate falls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScheduleKind {
    /// Along half a cosine (Loshchilov & Hutter 2017).
    #[default]
    Cosine,
    /// By a factor every some epochs.
    Step,
}

/// A weight that is constant, or moves from one value to another in the course of the training: `1.0`, or
/// `{ from = 4.0, to = 1.0, shape = "cosine" }`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "expected a number, or { from = 4.0, to = 1.0, shape = \"linear\" or \"cosine\" }"
)]
pub enum Course {
    /// The same throughout.
    Constant(f64),
    /// From one value to another.
    Changing {
        /// At the beginning.
        from: f64,
        /// At the end.
        to: f64,
        /// On which way.
        #[serde(default)]
        shape: Shape,
    },
}

/// The way from one value to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Straight.
    #[default]
    Linear,
    /// Half a cosine: slow, fast, slow.
    Cosine,
}

impl From<f64> for Course {
    fn from(value: f64) -> Self {
        Course::Constant(value)
    }
}

impl Course {
    /// The value when a share of `done` (0 to 1) of the training is over.
    pub fn at(self, done: f64) -> f64 {
        match self {
            Course::Constant(value) => value,
            Course::Changing { from, to, shape } => {
                let done = done.clamp(0.0, 1.0);
                let way = match shape {
                    Shape::Linear => done,
                    Shape::Cosine => 0.5 * (1.0 - (PI * done).cos()),
                };
                from + (to - from) * way
            }
        }
    }

    /// The values at the beginning and at the end; all others lie between.
    pub(super) fn ends(self) -> [f64; 2] {
        [self.at(0.0), self.at(1.0)]
    }
}

impl Recipe {
    /// The learning rate after `epochs` (a part of one counts), as timm's schedulers give it when they are updated at every
    /// step: first linear from `warmup_lr`, then by the schedule, whose time begins behind the warm-up with `warmup_prefix`,
    /// else with the training. Here the end of `cosine` is always the end of the training.
    pub(super) fn rate_as_given(&self, epochs: f64) -> f64 {
        let (peak, warm_up) = (self.learning_rate, self.warmup_epochs);
        if epochs < warm_up {
            return self.warmup_lr + (peak - self.warmup_lr) * epochs / warm_up;
        }
        let before = if self.warmup_prefix { warm_up } else { 0.0 };
        let (at, period) = (epochs - before, self.epochs as f64 - before);
        match self.schedule {
            ScheduleKind::Cosine if period <= 0.0 => peak,
            ScheduleKind::Cosine => {
                self.min_lr + 0.5 * (peak - self.min_lr) * (1.0 + (PI * (at / period).min(1.0)).cos())
            }
            ScheduleKind::Step => peak * self.decay_rate.powf((at / self.decay_epochs).floor()),
        }
    }
}
