use tch::{Kind, Tensor};

use crate::{Batch, BatchNorm, Network, Result};

/// The class that `network` answers for each image of a batch, in evaluation mode.
pub fn answered_classes(network: &Network, batch: &Batch) -> Result<Vec<i64>> {
    let _guard = tch::no_grad_guard();
    let best = network.forward(&batch.images, BatchNorm::Running)?.f_argmax(1, false)?;
    Ok(Vec::try_from(best.f_to_device(tch::Device::Cpu)?)?)
}

/// Accuracy and loss over images seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Evaluation {
    /// Images whose class has the largest logit.
    pub right: u64,
    /// Images whose class is among the five largest logits.
    pub right5: u64,
    /// Sum of the cross-entropies.
    pub loss_sum: f64,
    /// Images seen.
    pub images: u64,
}

impl Evaluation {
    /// Adds a batch that `network` answers.
    pub fn add(&mut self, network: &Network, batch: &Batch, mode: BatchNorm) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let logits = network.forward(&batch.images, mode)?;
        self.add_logits(&logits, &batch.labels)
    }

    /// Adds logits `[n, classes]` for images of classes `labels`.
    pub fn add_logits(&mut self, logits: &Tensor, labels: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let classes = logits.size().get(1).copied().unwrap_or(1);
        let (_, best) = logits.f_topk(classes.min(5), 1, true, true)?;
        let hits = best.f_eq_tensor(&labels.f_unsqueeze(1)?)?.f_to_kind(Kind::Int64)?;
        self.right += hits.f_select(1, 0)?.f_sum(Kind::Int64)?.int64_value(&[]) as u64;
        self.right5 += hits.f_sum(Kind::Int64)?.int64_value(&[]) as u64;
        self.loss_sum += losses(logits, labels)?.f_sum(Kind::Double)?.double_value(&[]);
        self.images += labels.size().first().map_or(0, |n| *n as u64);
        Ok(())
    }

    /// Adds logits `[n, classes]` given as numbers, for images of classes `labels`.
    pub fn add_numbers(&mut self, logits: &[f32], labels: &[i64]) -> Result<()> {
        self.add_logits(&crate::logits(logits, labels.len())?, &crate::labels(labels)?)
    }

    /// Adds what another evaluation has seen.
    pub fn merge(&mut self, other: &Evaluation) {
        self.right += other.right;
        self.right5 += other.right5;
        self.loss_sum += other.loss_sum;
        self.images += other.images;
    }

    /// Share of images whose class came first.
    pub fn top1(&self) -> f64 {
        self.right as f64 / self.images as f64
    }

    /// Share of images whose class was among the first five.
    pub fn top5(&self) -> f64 {
        self.right5 as f64 / self.images as f64
    }

    /// Mean cross-entropy in nats.
    pub fn loss(&self) -> f64 {
        self.loss_sum / self.images as f64
    }
}

/// Cross-entropy of every image in nats, `[n]`.
pub fn losses(logits: &Tensor, labels: &Tensor) -> Result<Tensor> {
    let log_p = logits.f_log_softmax(-1, Kind::Float)?;
    Ok(log_p.f_gather(1, &labels.f_unsqueeze(1)?, false)?.f_squeeze_dim(1)?.f_neg()?)
}

/// Kullback-Leibler divergence `KL(teacher ‖ student)` of every image in nats, `[n]`.
pub fn divergence(student: &Tensor, teacher: &Tensor) -> Result<Tensor> {
    let s = student.f_log_softmax(-1, Kind::Float)?;
    let t = teacher.f_log_softmax(-1, Kind::Float)?;
    Ok(t.f_exp()?.f_mul(&t.f_sub(&s)?)?.f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?)
}

/// `a − b`, element by element.
pub fn difference(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    Ok(a.f_sub(b)?)
}

/// Sum of all elements. Waits for the device.
pub fn sum(x: &Tensor) -> Result<f64> {
    Ok(x.f_sum(Kind::Double)?.double_value(&[]))
}

/// Sum of all elements and sum of their squares. Waits for the device.
pub fn moments(x: &Tensor) -> Result<[f64; 2]> {
    Ok([sum(x)?, sum(&x.f_square()?)?])
}
