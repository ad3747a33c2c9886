//! All that can be said of a network's answers to labelled images.

use tch::{Kind, Tensor};

use crate::{Batch, BatchNorm, Evaluation, Network, Result};

/// Bins of confidence over which the calibration error is taken.
pub const BINS: usize = 15;

/// What [`Evaluation`] counts, and beyond: calibration, classes, agreement with a teacher.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// Accuracy and loss.
    pub evaluation: Evaluation,
    /// For each bin of confidence (the probability of the class answered): images, those answered rightly, sum of confidences.
    pub bins: [(u64, u64, f64); BINS],
    /// For each class: its images, and those answered rightly.
    pub classes: Vec<(u64, u64)>,
    /// Images for which network and teacher answer the same class, and images on which they were compared.
    pub agreed: (u64, u64),
    /// For each image, in their order, whether it was answered rightly.
    pub right: Vec<bool>,
}

impl Assessment {
    /// Adds a batch that `network` answers, and `teacher` if there is one.
    pub fn add(
        &mut self,
        network: &Network,
        teacher: Option<&Network>,
        batch: &Batch,
        mode: BatchNorm,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let logits = network.forward(&batch.images, mode)?;
        let theirs = teacher.map(|t| t.forward(&batch.images, BatchNorm::Running)).transpose()?;
        self.add_logits(&logits, theirs.as_ref(), &batch.labels)
    }

    /// Adds logits `[n, classes]`, of a teacher too if there is one, for images of classes `labels`.
    pub fn add_logits(&mut self, logits: &Tensor, teacher: Option<&Tensor>, labels: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        self.evaluation.add_logits(logits, labels)?;
        let (confidence, answer) = logits.f_softmax(-1, Kind::Float)?.f_max_dim(1, false)?;
        let right = answer.f_eq_tensor(labels)?;
        let classes = logits.size().get(1).map_or(0, |n| *n as usize);
        self.classes.resize(self.classes.len().max(classes), (0, 0));
        let cpu = |t: &Tensor| t.f_to_device(tch::Device::Cpu);
        let confidence: Vec<f32> = Vec::try_from(cpu(&confidence)?)?;
        let right: Vec<bool> = Vec::try_from(cpu(&right)?)?;
        let labels: Vec<i64> = Vec::try_from(cpu(labels)?)?;
        self.right.extend(&right);
        for ((confidence, right), label) in confidence.into_iter().zip(right).zip(labels) {
            // Bins are open below and closed above, as in Guo et al. 2017; NaN falls into the first.
            let at = (f64::from(confidence) * BINS as f64).ceil() as usize;
            let bin = &mut self.bins[at.clamp(1, BINS) - 1];
            *bin = (bin.0 + 1, bin.1 + u64::from(right), bin.2 + f64::from(confidence));
            if let Some(class) = self.classes.get_mut(label as usize) {
                *class = (class.0 + 1, class.1 + u64::from(right));
            }
        }
        if let Some(teacher) = teacher {
            let same = teacher.f_argmax(1, false)?.f_eq_tensor(&answer)?;
            let same = same.f_sum(Kind::Int64)?.int64_value(&[]) as u64;
            self.agreed = (self.agreed.0 + same, self.agreed.1 + answer.size()[0] as u64);
        }
        Ok(())
    }

    /// Adds what another has seen, behind what this one has.
    pub fn merge(&mut self, other: &Assessment) {
        self.evaluation.merge(&other.evaluation);
        for (mine, theirs) in self.bins.iter_mut().zip(other.bins) {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1, mine.2 + theirs.2);
        }
        self.classes.resize(self.classes.len().max(other.classes.len()), (0, 0));
        for (mine, theirs) in self.classes.iter_mut().zip(&other.classes) {
            *mine = (mine.0 + theirs.0, mine.1 + theirs.1);
        }
        self.agreed = (self.agreed.0 + other.agreed.0, self.agreed.1 + other.agreed.1);
        self.right.extend(&other.right);
    }

    /// Expected calibration error (Guo et al. 2017): the difference between confidence and accuracy in each bin, in the mean over
    /// images.
    pub fn calibration_error(&self) -> f64 {
        let apart = |&(_, right, confidence): &(u64, u64, f64)| (confidence - right as f64).abs();
        self.bins.iter().map(apart).sum::<f64>() / self.evaluation.images as f64
    }

    /// Share of images for which network and teacher answer the same class; none if there was no teacher.
    pub fn agreement(&self) -> Option<f64> {
        (self.agreed.1 > 0).then(|| self.agreed.0 as f64 / self.agreed.1 as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_classes_and_agreement_count_as_defined() {
        // Confidences 0.9, 0.9, 0.6, 0.6 of class 0, with the labels 0, 1, 0, 0.
        let logits = |p: f64| [p.ln() as f32, (1.0 - p).ln() as f32];
        let all: Vec<f32> = [0.9, 0.9, 0.6, 0.6].into_iter().flat_map(logits).collect();
        let logits = Tensor::from_slice(&all).view([4, 2]);
        let labels = Tensor::from_slice(&[0i64, 1, 0, 0]);
        let teacher = Tensor::from_slice(&[1.0f32, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 0.0]).view([4, 2]);
        let mut whole = Assessment::default();
        whole.add_logits(&logits, Some(&teacher), &labels).unwrap();
        // |1.8 - 1| in one bin and |1.2 - 2| in another, over 4 images.
        assert!((whole.calibration_error() - 0.4).abs() < 1e-6, "{}", whole.calibration_error());
        assert_eq!(whole.classes, [(3, 3), (1, 0)]);
        assert_eq!((whole.agreement(), whole.evaluation.top1()), (Some(0.75), 0.75));
        let mut parts = Assessment::default();
        for at in 0..2 {
            let rows = |t: &Tensor| t.narrow(0, 2 * at, 2);
            let mut part = Assessment::default();
            part.add_logits(&rows(&logits), Some(&rows(&teacher)), &rows(&labels)).unwrap();
            parts.merge(&part);
        }
        assert!((parts.calibration_error() - whole.calibration_error()).abs() < 1e-12);
        assert_eq!((parts.classes, parts.agreed), (whole.classes, whole.agreed));
        assert_eq!(whole.right, [true, false, true, true]);
        assert_eq!(parts.right, whole.right);
    }
}
