//! Squeeze-and-excitation (Hu et al. 2018): channels gated by what the whole feature map holds.

use lana_graph::{Activation, GraphBuilder, Op, Result, Value};

/// A feature map times a gate in 0…1 per channel, computed from the channels' means through a few channels.
///
/// Two 1×1 convolutions with bias, `se.conv_reduce` and `se.conv_expand` as in timm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SqueezeExcite {
    /// Channels between the two convolutions.
    pub squeezed: usize,
    /// The activation between them.
    pub activation: Activation,
    /// What makes the gate: [`Activation::Sigmoid`], or [`Activation::HardSigmoid`] in MobileNetV3.
    pub gate: Activation,
}

impl SqueezeExcite {
    /// Adds it behind `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let channels = b.shape(x).channels();
        b.scoped("se", |b| {
            let y = b.node("pool", Op::GlobalAveragePool, &[x])?;
            let y = b.conv_full("conv_reduce", y, self.squeezed, 1, 1, 1, true)?;
            let y = b.activation("act1", y, self.activation)?;
            let y = b.conv_full("conv_expand", y, channels, 1, 1, 1, true)?;
            let gate = b.activation("gate", y, self.gate)?;
            b.node("mul", Op::Mul, &[x, gate])
        })
    }
}
