//! Runs and trains graphs on libtorch: the only crate that knows `tch`.
//!
//! * [`Network`]: a graph with its weights on a device. Runs whole, with taps at chosen values, or from a value on;
//!   BatchNorm in one of three modes ([`BatchNorm`]); channels-last throughout.
//! * [`Imitator`]: one candidate operation learning to reproduce its layer's feature map (phase 1 of LANA).
//! * [`Distiller`]: a whole network trained with cross-entropy, knowledge distillation and feature maps ([`Mixture`], phase 3).
//! * [`Assessment`]: all that can be said of a network's answers, class by class.
//! * [`Evaluation`] and [`divergence`]: accuracy, loss, and Kullback-Leibler divergence from the teacher.
//! * [`Inference`]: a network as it is deployed, in any precision, for timing.
//! * [`init`]: threads, allocator, and, where a GPU is asked for, libtorch's CUDA library.
//!
//! Feature maps are laid out channels-last (permute, contiguous, permute back): oneDNN's and cuDNN's convolutions are
//! fastest there, up to 2.4x on MBConv blocks on CPU.
#![deny(missing_docs)]

mod assess;
mod average;
mod channels;
mod device;
mod distill;
mod error;
mod evaluate;
mod fused;
mod imitate;
mod inference;
mod network;
mod optimizer;

pub use assess::{Assessment, BINS};
pub use average::Average;
pub use channels::ChannelSums;
pub use device::{Device, init, release_memory, with_kernel_threads};
pub use distill::{Answers, Distiller, Matching, Mixture, Training};
pub use error::Error;
pub use evaluate::{Evaluation, answered_classes, difference, divergence, losses, moments, sum};
pub use imitate::{
    Counts, Exercise, FeatureMaps, Imitation, Imitator, Lesson, feature_maps, imitate, normalised_error,
};
pub use inference::Inference;
pub use network::{BatchNorm, Network, numbers, without_gradients};
pub use optimizer::{Algorithm, Optimizer, cosine};
pub use tch::Tensor;

/// The version of libtorch that lana is built for and runs on.
pub const LIBTORCH: &str = "2.11";

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// Logits `[n, classes]` given as numbers.
pub fn logits(numbers: &[f32], n: usize) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(numbers)?.f_view([n as i64, -1])?)
}

/// Class numbers `[n]`.
pub fn labels(numbers: &[i64]) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(numbers)?)
}

/// A batch of images on a device, `[n, channels, height, width]`, channels-last, with class numbers `[n]`.
#[derive(Debug)]
pub struct Batch {
    /// Normalised pixels.
    pub images: Tensor,
    /// Class numbers.
    pub labels: Tensor,
    /// Class numbers of the images that these were mixed with (mixup, cutmix), if they were, and the share of each that is its own.
    mixed: Option<(Tensor, f64)>,
}

impl Batch {
    /// Puts a batch on `device`. `images` is `labels.len()` images of shape `shape` one after another.
    pub fn new(images: &[f32], labels: &[i64], shape: &lana_graph::Shape, device: Device) -> Result<Self> {
        let n = labels.len();
        if images.len() != n * shape.elements() {
            return Err(Error::Batch { got: images.len(), images: n, shape: shape.clone() });
        }
        let size: Vec<i64> =
            std::iter::once(n).chain(shape.dims().iter().copied()).map(|d| d as i64).collect();
        let images = Tensor::f_from_slice(images)?.f_view(size.as_slice())?.f_to_device(device.raw())?;
        let labels = Tensor::f_from_slice(labels)?.f_to_device(device.raw())?;
        Ok(Batch { images: network::channels_last(&images)?, labels, mixed: None })
    }

    /// The same images as they were mixed with others: the share `lam` (0 to 1) of each is its own, the rest is of an image of the
    /// class among `partners`. Their cross-entropy is divided alike (Zhang et al. 2018).
    pub fn mixed_with(mut self, partners: &[i64], lam: f64) -> Result<Self> {
        let partners = Tensor::f_from_slice(partners)?.f_to_device(self.labels.device())?;
        self.mixed = Some((partners, lam));
        Ok(self)
    }

    /// Number of images.
    pub fn len(&self) -> usize {
        self.labels.size().first().map_or(0, |n| *n as usize)
    }

    /// Whether there is no image.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Mean cross-entropy of `logits` with the labels, of which a share of `smoothing` is spread evenly over all classes:
    /// a scalar.
    pub(crate) fn cross_entropy(&self, logits: &Tensor, smoothing: f64) -> Result<Tensor> {
        let log_p = logits.f_log_softmax(-1, tch::Kind::Float)?;
        let with = |labels: &Tensor| {
            log_p.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_mean(tch::Kind::Float)?.f_neg()
        };
        let mut loss = with(&self.labels)?;
        if let Some((partners, lam)) = &self.mixed {
            loss = loss.f_mul_scalar(*lam)?.f_add(&with(partners)?.f_mul_scalar(1.0 - lam)?)?;
        }
        if smoothing == 0.0 {
            return Ok(loss);
        }
        let even = log_p.f_mean(tch::Kind::Float)?.f_neg()?;
        Ok(loss.f_mul_scalar(1.0 - smoothing)?.f_add(&even.f_mul_scalar(smoothing)?)?)
    }

    /// The same tensors by another handle, for another thread.
    pub fn share(&self) -> Self {
        let mixed = self.mixed.as_ref().map(|(partners, lam)| (partners.shallow_clone(), *lam));
        Batch { images: self.images.shallow_clone(), labels: self.labels.shallow_clone(), mixed }
    }
}
