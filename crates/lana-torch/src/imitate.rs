//! Phase 1: an operation learns to reproduce its layer's output from its layer's input, both the teacher's own.

use lana_graph::{Graph, Weights};
use rayon::prelude::*;
use tch::{Kind, Tensor};

use crate::{Algorithm, BatchNorm, Device, Error, Network, Optimizer, Result};

/// One candidate operation in training.
///
/// The loss is the normalised mean squared error of Puzzle (Bercovich et al. 2025), `‖s(x) − t(x)‖² / ‖t(x)‖²`: of the
/// same size in every layer, so that one learning rate serves all.
#[derive(Debug)]
pub struct Imitator {
    network: Network,
    optimizer: Optimizer,
    /// Losses since the last [`Imitator::take_loss`], left on the device so that no step waits for it.
    sum: Tensor,
    count: u64,
}

/// What one operation is given in one step: the layer's input and output.
#[derive(Debug)]
pub struct Imitation<'a> {
    /// The operation.
    pub imitator: &'a mut Imitator,
    /// The teacher's feature map in front of the layer.
    pub input: Tensor,
    /// The teacher's feature map behind it.
    pub target: Tensor,
    /// Learning rate of this step.
    pub rate: f64,
}

impl Imitator {
    /// An operation at the start of its training.
    pub fn new(graph: &Graph, weights: &Weights, weight_decay: f64, device: Device) -> Result<Self> {
        let network = Network::new(graph, weights, device)?.into_trainable();
        let optimizer = Optimizer::new(&network, Algorithm::AdamW { weight_decay })?;
        let sum = Tensor::f_zeros([1], (Kind::Float, device.raw()))?;
        Ok(Imitator { network, optimizer, sum, count: 0 })
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

    /// One step: forward, backward, update; the autograd graph is gone when it returns.
    fn step(&mut self, input: &Tensor, target: &Tensor, rate: f64) -> Result<()> {
        let output = self.network.forward(input, BatchNorm::Train)?;
        let loss = normalised_loss(&output, target)?;
        self.optimizer.step(&loss, rate, Some(1.0))?;
        let _ = self.sum.f_add_(&loss.detach().f_view([1])?)?;
        self.count += 1;
        Ok(())
    }

    /// Mean normalised error on a batch with batch statistics, without training.
    pub fn error_on(&self, input: &Tensor, target: &Tensor) -> Result<f64> {
        let _guard = tch::no_grad_guard();
        normalised_error(&self.network.forward(input, BatchNorm::Batch)?, target)
    }

    /// Weights, and the optimizer's state: what a checkpoint holds.
    pub fn checkpoint(&self) -> Result<(Weights, Weights)> {
        Ok((self.network.weights()?, self.optimizer.state()?))
    }

    /// Sum and number of the losses since the last [`Imitator::take_loss`]. Waits for the device.
    pub fn pending(&self) -> (f64, u64) {
        (self.sum.double_value(&[0]), self.count)
    }

    /// Continues from a checkpoint: the optimizer's state and what [`Imitator::pending`] gave. The weights must have been
    /// given to [`Imitator::new`].
    pub fn restore(&mut self, optimizer: &Weights, sum: f64, count: u64) -> Result<()> {
        self.optimizer.restore(optimizer)?;
        let _ = self.sum.f_fill_(sum)?;
        self.count = count;
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
                .map(|task| task.imitator.step(&task.input, &task.target, task.rate))
                .collect::<Vec<Result<()>>>()
                .into_iter()
                .collect()
        },
        meanwhile,
    )
}

/// Normalised error `‖output − target‖² / ‖target‖²` over a batch.
pub fn normalised_error(output: &Tensor, target: &Tensor) -> Result<f64> {
    Ok(normalised_loss(output, target)?.double_value(&[]))
}

fn normalised_loss(output: &Tensor, target: &Tensor) -> Result<Tensor> {
    let power = target.f_square()?.f_mean(Kind::Float)?.f_clamp_min(1e-12)?;
    Ok(output.f_mse_loss(target, tch::Reduction::Mean)?.f_div(&power)?)
}

/// Turns a non-finite loss into an error.
pub(crate) fn check_finite(loss: f64, step: u64, rate: f64) -> Result<()> {
    if loss.is_finite() { Ok(()) } else { Err(Error::Diverged { step, loss, rate }) }
}
