//! An exponential moving average of a network in training, which is often better than the network itself.

use lana_graph::Weights;
use tch::{Kind, Tensor};

use crate::network::{to_array, to_tensor};
use crate::{Error, Network, Result};

/// How fast an average follows: after update n (from 1) it moves by `1 − d` of the way to the weights, with `d = decay`, or in
/// the beginning less. As timm's `ModelEmaV3`: the first update copies; with a warm-up, `d` is at most `1 − n^(−2/3)` (n from
/// 0 at the second update), which a training of a few epochs needs, since 0.9999 remembers the last ten thousand updates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Average {
    /// Share of the average that is kept in each update, in the long run.
    pub decay: f64,
    /// Whether it follows faster in the beginning.
    pub warm_up: bool,
}

impl Average {
    /// The share that is kept in update `n`, counted from 1.
    pub fn kept(self, n: u64) -> f64 {
        let step = n.saturating_sub(1) as f64;
        match (n <= 1, self.warm_up) {
            (true, _) => 0.0,
            (false, false) => self.decay,
            (false, true) => self.decay.min(1.0 - (1.0 + step).powf(-2.0 / 3.0)),
        }
    }
}

/// The average of one network: of all its parameters and running statistics, as timm's is of its buffers too.
#[derive(Debug)]
pub(crate) struct Averaged {
    rule: Average,
    tensors: Vec<Tensor>,
}

impl Averaged {
    /// Starts as a copy of the network.
    pub(crate) fn new(network: &Network, rule: Average) -> Result<Self> {
        let _guard = tch::no_grad_guard();
        let copy = |tensor: &Tensor| -> Result<Tensor> {
            let mut copy = tensor.f_detach()?.f_zeros_like()?;
            copy.f_copy_(tensor)?;
            Ok(copy)
        };
        Ok(Averaged { rule, tensors: network.tensors().iter().map(copy).collect::<Result<_>>()? })
    }

    /// Follows update `n` (from 1) of the network.
    pub(crate) fn follow(&mut self, network: &Network, n: u64) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let weight = 1.0 - self.rule.kept(n);
        for (mine, theirs) in self.tensors.iter_mut().zip(network.tensors()) {
            let _ = mine.f_lerp_(&theirs.detach(), weight)?;
        }
        Ok(())
    }

    /// The average as a network, not to be trained. Shares its tensors.
    pub(crate) fn network(&self, network: &Network) -> Network {
        network.share_with(&self.tensors)
    }

    /// The average as data.
    pub(crate) fn weights(&self, network: &Network) -> Result<Weights> {
        network.names().zip(&self.tensors).map(|(name, t)| Ok((name.to_string(), to_array(t)?))).collect()
    }

    /// Takes up what [`Averaged::weights`] gave.
    pub(crate) fn restore(&mut self, network: &Network, weights: &Weights) -> Result<()> {
        let _guard = tch::no_grad_guard();
        for (name, tensor) in network.names().zip(&mut self.tensors) {
            let saved = weights.get(name).filter(|t| t.shape.iter().map(|&d| d as i64).eq(tensor.size()));
            let saved = saved.ok_or_else(|| Error::Checkpoint(format!("its average lacks `{name}`")))?;
            let saved = to_tensor(saved, network.device())?.f_to_kind(Kind::Float)?;
            tensor.f_copy_(&saved)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_copies_first_and_follows_more_slowly_from_update_to_update() {
        let rule = Average { decay: 0.99, warm_up: true };
        assert_eq!(rule.kept(1), 0.0);
        // timm's ModelEmaV3(decay=0.99, use_warmup=True).get_decay(n) for n = 2, 3, 100, 2000.
        for (n, expected) in [(2, 0.370_039_5), (3, 0.519_250_1), (100, 0.953_584_1), (2000, 0.99)] {
            assert!((rule.kept(n) - expected).abs() < 1e-6, "{n}: {}", rule.kept(n));
        }
        assert_eq!(Average { warm_up: false, ..rule }.kept(2), 0.99);
    }
}
