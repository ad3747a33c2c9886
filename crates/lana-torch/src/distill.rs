//! Phase 3: a whole network trained on labels and on what the teacher makes of the same images.

use lana_graph::{Graph, Precision, Value, Weights};
use tch::{Kind, Tensor};

use crate::average::Averaged;
use crate::imitate::check_finite;
use crate::optimizer::{add_gradients, norm};
use crate::{
    Algorithm, Average, Batch, BatchNorm, Device, Error, Network, Optimizer, Result, without_gradients,
};

/// How a network is trained, beside the images.
#[derive(Clone, Debug, PartialEq)]
pub struct Training {
    /// The update rule.
    pub algorithm: Algorithm,
    /// Largest norm of all gradients together, if any.
    pub clip: Option<f64>,
    /// In what format it computes; weights stay in 32 bits.
    pub precision: Precision,
    /// The average of the weights to keep beside them, if any.
    pub average: Option<Average>,
    /// Names of parameters that stay as they are; a BatchNorm among them uses its running statistics.
    pub frozen: Vec<String>,
    /// Feature maps that are compared with as many of the teacher's.
    pub matched: Vec<Value>,
    /// Of what dropout and stochastic depth draw.
    pub seed: u64,
}

impl Training {
    /// With this update rule, in 32-bit floats, and nothing else.
    pub fn new(algorithm: Algorithm) -> Self {
        Training {
            algorithm,
            clip: None,
            precision: Precision::Fp32,
            average: None,
            frozen: Vec::new(),
            matched: Vec::new(),
            seed: 0,
        }
    }
}

/// How two feature maps are compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Matching {
    /// One less the cosine between the channels at each position, in the mean over positions.
    #[default]
    Cosine,
    /// `‖student − teacher‖² / ‖teacher‖²`, as in phase 1.
    NormalisedMse,
}

/// What is minimised in one step: a weighted sum of
/// * the *cross-entropy* with the labels, which may be smoothed (Szegedy et al. 2016),
/// * the *distillation* `T² · KL(teacher ‖ student)` of both softmaxes at temperature T (Hinton et al. 2015),
/// * the mean difference of *feature maps*, those of [`Training::matched`].
///
/// Without a teacher the last two play no part.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mixture {
    /// Weight of the cross-entropy.
    pub labels: f64,
    /// Share of each label that is spread evenly over all classes.
    pub smoothing: f64,
    /// Weight of the distillation.
    pub distillation: f64,
    /// Temperature T.
    pub temperature: f64,
    /// Weight of the difference of feature maps.
    pub features: f64,
    /// How these are compared.
    pub matching: Matching,
}

impl Default for Mixture {
    /// Cross-entropy alone.
    fn default() -> Self {
        Mixture {
            labels: 1.0,
            smoothing: 0.0,
            distillation: 0.0,
            temperature: 1.0,
            features: 0.0,
            matching: Matching::default(),
        }
    }
}

/// What a teacher makes of a batch.
#[derive(Debug)]
pub struct Answers {
    /// Logits `[n, classes]`.
    pub logits: Tensor,
    /// The feature maps asked for.
    pub maps: Vec<Tensor>,
}

impl Answers {
    /// Runs the teacher, which should be frozen, on images; `matched` are the feature maps to keep, of [`Network::graph`].
    pub fn of(teacher: &Network, images: &Tensor, matched: &[Value]) -> Result<Self> {
        let (logits, maps) =
            without_gradients(|| teacher.forward_tapped(images, BatchNorm::Running, matched))?;
        Ok(Answers { logits, maps })
    }

    /// Answers that are known already: logits image after image, and no feature maps.
    pub fn known(logits: &[f32], batch: &Batch) -> Result<Self> {
        let logits = Tensor::f_from_slice(logits)?.f_view([batch.len() as i64, -1])?;
        Ok(Answers { logits: logits.f_to_device(batch.images.device())?, maps: Vec::new() })
    }

    /// The same tensors by another handle.
    pub fn share(&self) -> Self {
        let maps = self.maps.iter().map(Tensor::shallow_clone).collect();
        Answers { logits: self.logits.shallow_clone(), maps }
    }

    /// The logits, image after image.
    pub fn to_vec(&self) -> Result<Vec<f32>> {
        Ok(Vec::try_from(self.logits.f_to_kind(Kind::Float)?.f_flatten(0, -1)?)?)
    }
}

/// A network in training.
#[derive(Debug)]
pub struct Distiller {
    network: Network,
    optimizer: Optimizer,
    average: Option<Averaged>,
    taps: Vec<Value>,
    clip: Option<f64>,
    seed: u64,
}

/// How far apart the draws of two seeds begin: the golden ratio in 64 bits.
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;

impl Distiller {
    /// A network at the start of its training.
    pub fn new(graph: &Graph, weights: &Weights, training: &Training, device: Device) -> Result<Self> {
        let network = Network::new(graph, weights, device)?.with_precision(training.precision);
        let network = network.into_trainable_but(|name| training.frozen.iter().any(|other| other == name));
        let optimizer = Optimizer::new(&network, training.algorithm)?;
        let average = training.average.map(|rule| Averaged::new(&network, rule)).transpose()?;
        let taps = training.matched.clone();
        Ok(Distiller { network, optimizer, average, taps, clip: training.clip, seed: training.seed })
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The average of the network over its training, if one is kept. It shares the tensors, and follows.
    pub fn average(&self) -> Option<Network> {
        self.average.as_ref().map(|average| average.network(&self.network))
    }

    /// Updates since the start of training, over interruptions.
    pub fn steps(&self) -> u64 {
        self.optimizer.steps()
    }

    /// One update on a batch, with the teacher's answers to it. Gives the loss.
    pub fn step(
        &mut self,
        batch: &Batch,
        teacher: Option<&Answers>,
        mixture: &Mixture,
        rate: f64,
    ) -> Result<f64> {
        self.step_in_parts([(batch, teacher)], mixture, rate)
    }

    /// One update on several batches, worked on one after the other, whose gradients are averaged (gradient accumulation):
    /// as a batch of them all together, but that BatchNorm takes the statistics of each. Gives the mean loss.
    ///
    /// # Errors
    /// [`Error::Diverged`] if a loss or the norm of the gradients is not finite; the weights are then those of the step before.
    pub fn step_in_parts<'a>(
        &mut self,
        parts: impl IntoIterator<Item = (&'a Batch, Option<&'a Answers>), IntoIter: ExactSizeIterator>,
        mixture: &Mixture,
        rate: f64,
    ) -> Result<f64> {
        let parts = parts.into_iter();
        let count = parts.len();
        let mut gradients: Vec<Tensor> = Vec::new();
        let mut sum = 0.0;
        for (at, (batch, teacher)) in parts.enumerate() {
            let seed = self.seed.wrapping_mul(SPREAD).wrapping_add(self.steps() * count as u64 + at as u64);
            let mut loss = self.loss(batch, teacher, mixture, seed)?;
            let value = loss.double_value(&[]);
            check_finite(value, self.steps(), rate)?;
            sum += value;
            if count > 1 {
                loss = loss.f_div_scalar(count as f64)?;
            }
            add_gradients(&mut gradients, self.optimizer.gradients(&loss)?)?;
        }
        // A finite loss may have a gradient that is not: the weights would be lost before the next loss tells.
        check_finite(tch::no_grad(|| norm(&gradients))?.double_value(&[]), self.steps(), rate)?;
        self.optimizer.update(gradients, rate, self.clip)?;
        if let Some(average) = &mut self.average {
            average.follow(&self.network, self.optimizer.steps())?;
        }
        Ok(sum / count as f64)
    }

    fn loss(&self, batch: &Batch, teacher: Option<&Answers>, mixture: &Mixture, seed: u64) -> Result<Tensor> {
        let compares = teacher.is_some() && mixture.features > 0.0;
        let taps = if compares { self.taps.as_slice() } else { &[] };
        let (logits, maps) = self.network.forward_dropping_tapped(&batch.images, seed, taps)?;
        let logits = logits.f_to_kind(Kind::Float)?;
        let mut loss = batch.cross_entropy(&logits, mixture.smoothing)?.f_mul_scalar(mixture.labels)?;
        let Some(teacher) = teacher else { return Ok(loss) };
        if mixture.distillation > 0.0 {
            let t = mixture.temperature;
            let student = logits.f_div_scalar(t)?.f_log_softmax(-1, Kind::Float)?;
            let theirs = teacher.logits.f_to_kind(Kind::Float)?.f_div_scalar(t)?;
            let kl = student.f_kl_div(&theirs.f_log_softmax(-1, Kind::Float)?, tch::Reduction::Sum, true)?;
            let scale = mixture.distillation * t * t / batch.len() as f64;
            loss = loss.f_add(&kl.f_mul_scalar(scale)?)?;
        }
        if compares {
            if maps.len() != teacher.maps.len() {
                return Err(Error::Maps { student: maps.len(), teacher: teacher.maps.len() });
            }
            let scale = mixture.features / maps.len().max(1) as f64;
            for (mine, theirs) in maps.iter().zip(&teacher.maps) {
                let apart = mixture.matching.apart(mine, theirs)?;
                loss = loss.f_add(&apart.f_mul_scalar(scale)?)?;
            }
        }
        Ok(loss)
    }

    /// Weights, optimizer and average: what a checkpoint holds, under these names.
    pub fn checkpoint(&self) -> Result<Weights> {
        let mut all = Weights::new();
        all.replace_under("weights", &self.network.weights()?);
        all.replace_under("optimizer", &self.optimizer.state()?);
        if let Some(average) = &self.average {
            all.replace_under("average", &average.weights(&self.network)?);
        }
        Ok(all)
    }

    /// Continues from what [`Distiller::checkpoint`] gave; of it, `weights` must have been given to [`Distiller::new`].
    pub fn restore(&mut self, checkpoint: &Weights) -> Result<()> {
        self.optimizer.restore(&checkpoint.under("optimizer"))?;
        match &mut self.average {
            Some(average) => average.restore(&self.network, &checkpoint.under("average")),
            None => Ok(()),
        }
    }
}

impl Matching {
    /// How far two feature maps `[n, channels, height, width]` are apart, a scalar.
    fn apart(self, student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
        let (student, teacher) = (student.f_to_kind(Kind::Float)?, teacher.f_to_kind(Kind::Float)?);
        Ok(match self {
            Matching::Cosine => {
                let cosine = Tensor::f_cosine_similarity(&student, &teacher, 1, 1e-8)?;
                cosine.f_mean(Kind::Float)?.f_neg()?.f_add_scalar(1.0)?
            }
            Matching::NormalisedMse => {
                let power = teacher.f_norm()?.f_square()?.f_clamp_min(1e-12)?;
                student.f_sub(&teacher)?.f_norm()?.f_square()?.f_div(&power)?
            }
        })
    }
}
