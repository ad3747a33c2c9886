//! Phase 1: an operation learns to reproduce its layer's output from its layer's input, both the teacher's own.

use std::collections::BTreeMap;

use lana_graph::{Graph, Precision, Value, Weights};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::optimizer::add_gradients;
use crate::{Algorithm, BatchNorm, Device, Error, Network, Optimizer, Result, without_gradients};

/// How an operation is trained.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Lesson {
    /// The update rule.
    pub algorithm: Algorithm,
    /// Largest norm of the gradients together, if any.
    pub clip: Option<f64>,
    /// In what format it computes.
    pub precision: Precision,
    /// In how many parts a batch is worked on, one after the other, where the feature maps of a whole one would take too much
    /// memory. Their gradients are summed; BatchNorm takes the statistics of the part.
    pub parts: usize,
}

impl Lesson {
    /// With this update rule, gradients clipped to norm 1, in 32-bit floats, on whole batches.
    pub fn new(algorithm: Algorithm) -> Self {
        Lesson { algorithm, clip: Some(1.0), precision: Precision::Fp32, parts: 1 }
    }
}

/// One candidate operation in training.
///
/// The loss is the normalised mean squared error of Puzzle (Bercovich et al. 2025), `‖s(x) − t(x)‖² / ‖t(x)‖²`: of the
/// same size in every layer, so that one learning rate serves all.
#[derive(Debug)]
pub struct Imitator {
    network: Network,
    optimizer: Optimizer,
    clip: Option<f64>,
    parts: usize,
    /// Losses since the last [`Imitator::take_loss`], left on the device so that no step waits for it.
    sum: Tensor,
    count: u64,
    /// Loss of the first step of all, likewise.
    first: Option<Tensor>,
    /// Errors of skipping the layer on the batches of [`Exercise::Settle`], and their number.
    skipping: (Tensor, u64),
}

/// What an [`Imitator`] has counted so far: with its weights and the optimizer's state, all that a checkpoint needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Sum and number of the losses since the last [`Imitator::take_loss`].
    pub losses: (f64, u64),
    /// [`Imitator::first_loss`].
    pub first: Option<f64>,
    /// Sum and number of the errors behind [`Imitator::identity_error`].
    pub skipping: (f64, u64),
}

impl Counts {
    /// Whether all of them are numbers.
    pub fn is_finite(&self) -> bool {
        self.losses.0.is_finite() && self.skipping.0.is_finite() && self.first.is_none_or(f64::is_finite)
    }
}

/// The teacher's feature maps around one layer, for one batch.
#[derive(Debug)]
pub struct FeatureMaps {
    /// In front of the layer, `[n, channels, height, width]`.
    pub input: Tensor,
    /// Behind it.
    pub target: Tensor,
    /// Sum of the squares of `target`: a scalar on the device, the same for all operations of the layer.
    power: Tensor,
}

impl FeatureMaps {
    /// Maps around one layer.
    pub fn new(input: Tensor, target: Tensor) -> Result<Self> {
        let power = target.f_norm()?.f_square()?.f_clamp_min(1e-12)?;
        Ok(FeatureMaps { input, target, power })
    }

    /// The same tensors by another handle, for another thread.
    pub fn share(&self) -> Self {
        FeatureMaps {
            input: self.input.shallow_clone(),
            target: self.target.shallow_clone(),
            power: self.power.shallow_clone(),
        }
    }

    /// The maps of parts of the batch, as equal as can be, whose errors sum up to that of the whole.
    fn parts(&self, count: usize) -> Result<Vec<Self>> {
        if count == 1 {
            return Ok(vec![self.share()]);
        }
        let chunks = |map: &Tensor| map.f_chunk(count as i64, 0);
        let pairs = chunks(&self.input)?.into_iter().zip(chunks(&self.target)?);
        Ok(pairs
            .map(|(input, target)| FeatureMaps { input, target, power: self.power.shallow_clone() })
            .collect())
    }

    /// Normalised error of skipping the layer; none where that changes the shape. Waits for the device.
    pub fn identity_error(&self) -> Result<Option<f64>> {
        Ok(self.skipping()?.map(|error| error.double_value(&[])))
    }

    /// The same, left on the device.
    fn skipping(&self) -> Result<Option<Tensor>> {
        match self.input.size() == self.target.size() {
            true => Ok(Some(self.error(&self.input)?)),
            false => Ok(None),
        }
    }

    /// Whether both maps hold finite numbers only. Waits for the device.
    pub fn is_finite(&self) -> Result<bool> {
        let inside = self.input.f_norm()?.double_value(&[]);
        Ok(inside.is_finite() && self.power.double_value(&[]).is_finite())
    }

    /// `‖output − target‖² / ‖target‖²`, a scalar. By way of the norm, since no map but the difference is written for it,
    /// forwards or backwards: 6 passes over memory where `mse_loss` over the target's mean square takes 10.
    fn error(&self, output: &Tensor) -> Result<Tensor> {
        Ok(output.f_to_kind(Kind::Float)?.f_sub(&self.target)?.f_norm()?.f_square()?.f_div(&self.power)?)
    }
}

/// What one operation is to do in one step, on the maps of its layer.
#[derive(Debug)]
pub struct Imitation<'a> {
    /// The operation.
    pub imitator: &'a mut Imitator,
    /// The maps around its layer.
    pub maps: FeatureMaps,
    /// What it does with them.
    pub exercise: Exercise,
}

/// What an operation does with a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exercise {
    /// Learns, at this learning rate.
    Learn(f64),
    /// Leaves its weights alone and settles the running statistics of its BatchNorms, for which this is the n-th batch (from
    /// 1). The losses are those of the final weights, on images they have not been trained on last.
    Settle(u32),
}

impl Imitator {
    /// An operation at the start of its training.
    pub fn new(graph: &Graph, weights: &Weights, lesson: &Lesson, device: Device) -> Result<Self> {
        let network = Network::new(graph, weights, device)?;
        let network = network.with_precision(lesson.precision).into_trainable();
        let optimizer = Optimizer::new(&network, lesson.algorithm)?;
        let zero = || Tensor::f_zeros([1], (Kind::Float, device.raw()));
        Ok(Imitator {
            network,
            optimizer,
            clip: lesson.clip,
            parts: lesson.parts.max(1),
            sum: zero()?,
            count: 0,
            first: None,
            skipping: (zero()?, 0),
        })
    }

    /// The operation as a network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Mean loss of the steps since the last call; NaN if there was none. Waits for the device.
    pub fn take_loss(&mut self) -> f64 {
        let loss = self.sum.double_value(&[0]) / self.count as f64;
        self.sum = self.sum.zeros_like();
        self.count = 0;
        loss
    }

    /// Loss of its first step, which is that of the weights it began with, since a step computes it before the update; none before
    /// that step. Waits for the device.
    pub fn first_loss(&self) -> Option<f64> {
        self.first.as_ref().map(|loss| loss.double_value(&[0]))
    }

    /// Mean normalised error of skipping the layer on the batches of [`Exercise::Settle`], which are those of the final loss;
    /// none before them, and where skipping changes the shape. Waits for the device.
    pub fn identity_error(&self) -> Option<f64> {
        let (sum, count) = &self.skipping;
        (*count > 0).then(|| sum.double_value(&[0]) / *count as f64)
    }

    /// One step: forward, backward, update; the autograd graph is gone when it returns.
    fn step(&mut self, maps: &FeatureMaps, exercise: Exercise) -> Result<()> {
        let parts = maps.parts(self.parts)?;
        let mut loss = self.sum.f_zeros_like()?;
        match exercise {
            Exercise::Learn(rate) => {
                let mut gradients: Vec<Tensor> = Vec::new();
                for part in &parts {
                    let own = part.error(&self.network.forward(&part.input, BatchNorm::Train)?)?;
                    add_gradients(&mut gradients, self.optimizer.gradients(&own)?)?;
                    let _ = loss.f_add_(&own.detach())?;
                }
                self.optimizer.update(gradients, rate, self.clip)?;
            }
            Exercise::Settle(batch) => {
                let _guard = tch::no_grad_guard();
                for (at, part) in parts.iter().enumerate() {
                    let nth = (batch.max(1) - 1) * parts.len() as u32 + at as u32 + 1;
                    let output = self.network.forward(&part.input, BatchNorm::Settle(nth))?;
                    let _ = loss.f_add_(&part.error(&output)?)?;
                }
                if let Some(error) = maps.skipping()? {
                    let _ = self.skipping.0.f_add_(&error)?;
                    self.skipping.1 += 1;
                }
            }
        }
        let _ = self.sum.f_add_(&loss)?;
        self.count += 1;
        self.first.get_or_insert(loss);
        Ok(())
    }

    /// Mean normalised error on a batch with batch statistics, without training.
    pub fn error_on(&self, maps: &FeatureMaps) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        let output = self.network.forward(&maps.input, BatchNorm::Batch)?;
        Ok(maps.error(&output)?.double_value(&[]))
    }

    /// Weights, and the optimizer's state: what a checkpoint holds.
    pub fn checkpoint(&self) -> Result<(Weights, Weights)> {
        Ok((self.network.weights()?, self.optimizer.state()?))
    }

    /// What it has counted. Waits for the device.
    pub fn counts(&self) -> Counts {
        Counts {
            losses: (self.sum.double_value(&[0]), self.count),
            first: self.first_loss(),
            skipping: (self.skipping.0.double_value(&[0]), self.skipping.1),
        }
    }

    /// Continues from a checkpoint: the optimizer's state and what [`Imitator::counts`] gave. The weights must have been
    /// given to [`Imitator::new`].
    pub fn restore(&mut self, optimizer: &Weights, counts: &Counts) -> Result<()> {
        self.optimizer.restore(optimizer)?;
        let _ = self.sum.f_fill_(counts.losses.0)?;
        let _ = self.skipping.0.f_fill_(counts.skipping.0)?;
        (self.count, self.skipping.1) = (counts.losses.1, counts.skipping.1);
        self.first = match counts.first {
            Some(first) => Some(self.sum.f_full_like(first)?),
            None => None,
        };
        Ok(())
    }
}

/// Takes one step of every operation, different operations on different threads of the current rayon pool, while one
/// thread runs `meanwhile` (the teacher on the next batch).
///
/// Operations share nothing but what they read, so results do not depend on the number of threads.
pub fn imitate<T: Send>(tasks: Vec<Imitation<'_>>, meanwhile: impl FnOnce() -> T + Send) -> (Result<()>, T) {
    rayon::join(
        || {
            tasks
                .into_par_iter()
                .with_max_len(1)
                .map(|task| task.imitator.step(&task.maps, task.exercise))
                .collect::<Vec<Result<()>>>()
                .into_iter()
                .collect()
        },
        meanwhile,
    )
}

/// Runs the frozen teacher on images as far as it is needed: the maps around its layers `wanted` (their numbers), in that
/// order.
pub fn feature_maps(teacher: &Network, images: &Tensor, wanted: &[usize]) -> Result<Vec<FeatureMaps>> {
    let layers = teacher.graph().layers();
    let mut taps: Vec<Value> = wanted.iter().flat_map(|&l| [layers[l].input, layers[l].output]).collect();
    taps.sort_unstable();
    taps.dedup();
    without_gradients(|| {
        let maps = teacher.tapped(images, BatchNorm::Running, &taps)?;
        let by_value: BTreeMap<Value, Tensor> = taps.into_iter().zip(maps).collect();
        let map = |value| by_value[&value].shallow_clone().f_to_kind(Kind::Float);
        wanted.iter().map(|&l| FeatureMaps::new(map(layers[l].input)?, map(layers[l].output)?)).collect()
    })
}

/// Normalised error `‖output − target‖² / ‖target‖²` over a batch.
pub fn normalised_error(output: &Tensor, target: &Tensor) -> Result<f64> {
    Ok(FeatureMaps::new(output.shallow_clone(), target.shallow_clone())?.error(output)?.double_value(&[]))
}

/// Turns a non-finite loss into an error.
pub(crate) fn check_finite(loss: f64, step: u64, rate: f64) -> Result<()> {
    if loss.is_finite() { Ok(()) } else { Err(Error::Diverged { step, loss, rate }) }
}
