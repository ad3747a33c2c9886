//! Phase 3: a whole network trained on labels and on the teacher's answers.

use lana_graph::{Graph, Weights};
use tch::{Kind, Tensor};

use crate::evaluate::losses;
use crate::imitate::check_finite;
use crate::{Algorithm, Batch, Device, Network, Optimizer, Result};

/// What is minimised: `cross-entropy + weight · T² · KL(teacher ‖ student at temperature T)` (Hinton et al. 2015).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Objective {
    /// Weight of the distillation term; without a teacher it plays no part.
    pub distillation: f64,
    /// Temperature T of both softmaxes.
    pub temperature: f64,
}

/// A network in training.
#[derive(Debug)]
pub struct Distiller {
    network: Network,
    optimizer: Optimizer,
    objective: Objective,
    clip: Option<f64>,
}

impl Distiller {
    /// A network at the start of its training.
    pub fn new(
        graph: &Graph,
        weights: &Weights,
        algorithm: Algorithm,
        objective: Objective,
        clip: Option<f64>,
        device: Device,
    ) -> Result<Self> {
        let network = Network::new(graph, weights, device)?.into_trainable();
        let optimizer = Optimizer::new(&network, algorithm)?;
        Ok(Distiller { network, optimizer, objective, clip })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// Steps taken since the start of training, over interruptions.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// One step on a batch; `teacher` are the teacher's logits `[n, classes]` for it. Gives the loss.
    pub fn step(&mut self, batch: &Batch, teacher: Option<&Tensor>, rate: f64) -> Result<f64> {
        let logits = self.network.forward_dropping(&batch.images, self.optimizer.steps())?;
        let mut loss = losses(&logits, &batch.labels)?.f_mean(Kind::Float)?;
        if let Some(teacher) = teacher {
            let t = self.objective.temperature;
            let student = logits.f_div_scalar(t)?.f_log_softmax(-1, Kind::Float)?;
            let teacher = teacher.f_div_scalar(t)?.f_log_softmax(-1, Kind::Float)?;
            let kl = student.f_kl_div(&teacher, tch::Reduction::Sum, true)?;
            let scale = self.objective.distillation * t * t / batch.len() as f64;
            loss = loss.f_add(&kl.f_mul_scalar(scale)?)?;
        }
        let value = loss.double_value(&[]);
        check_finite(value, self.optimizer.steps(), rate)?;
        self.optimizer.step(&loss, rate, self.clip)?;
        Ok(value)
    }

    /// Weights, and the optimizer's state: what a checkpoint holds.
    pub fn checkpoint(&self) -> Result<(Weights, Weights)> {
        Ok((self.network.weights()?, self.optimizer.state()?))
    }

    /// Continues from a checkpoint; the weights must have been given to [`Distiller::new`].
    pub fn restore(&mut self, optimizer: &Weights) -> Result<()> {
        self.optimizer.restore(optimizer)
    }
}
