//! Gates for channels: squeeze-and-excitation, and what later work made of it.

use lana_graph::{Activation, GraphBuilder, Op, Result, Value};

use super::SqueezeExcite;

/// Something that multiplies each channel by what the whole feature map says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// Squeeze-and-excitation.
    Squeeze(SqueezeExcite),
    /// Efficient channel attention.
    Efficient(EfficientAttention),
}

impl Gates {
    /// Adds them behind `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        match self {
            Gates::Squeeze(squeeze) => squeeze.build(b, x),
            Gates::Efficient(attention) => attention.build(b, x),
        }
    }
}

/// Efficient channel attention (ECA, Wang et al. 2020): each gate from the means of a few channels in a row, by one kernel
/// for all of them and without the two matrices of squeeze-and-excitation.
///
/// The kernel, `se.conv`, is as long as ECA-Net's rule says: `|log2(channels) / 2 + 1 / 2|`, the next odd number from
/// there on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EfficientAttention {
    /// What makes the gate.
    pub gate: Activation,
}

impl EfficientAttention {
    /// Adds it behind `x`.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let channels = b.shape(x).channels();
        let length = ((channels.max(1) as f64).log2() / 2.0 + 0.5) as usize;
        let length = (length + usize::from(length.is_multiple_of(2))).max(3);
        b.scoped("se", |b| {
            let y = b.node("pool", Op::GlobalAveragePool, &[x])?;
            // The channels as the height of a map with one channel.
            let y = b.node("row", Op::Reshape { shape: vec![1, channels, 1] }, &[y])?;
            let conv = lana_graph::Conv2d {
                in_channels: 1,
                out_channels: 1,
                kernel: [length, 1],
                stride: [1; 2],
                dilation: [1; 2],
                padding: [length / 2, 0, length / 2, 0],
                groups: 1,
                bias: false,
            };
            let y = b.node("conv", Op::Conv2d(conv), &[y])?;
            let y = b.node("channels", Op::Reshape { shape: vec![channels, 1, 1] }, &[y])?;
            let gate = b.activation("gate", y, self.gate)?;
            b.node("mul", Op::Mul, &[x, gate])
        })
    }
}
