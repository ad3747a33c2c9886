//! Split attention (ResNeSt, Zhang et al. 2020): a convolution that makes several versions of each channel, and weights for
//! them computed from what the whole feature map holds.

use lana_graph::{Activation, GraphBuilder, Op, Result, Value};

use super::{Conv, conv_bn_act};

/// A 3×3 convolution in `radix · cardinality` groups whose `radix` versions of each output channel are added up with
/// weights.
///
/// The versions lie behind one another: output channel `c` of version `r` is channel `r · channels + c` of the convolution.
/// The weights come from the means of the versions' sums through two 1×1 convolutions in `cardinality` groups, and sum to
/// one over the versions; with a single version they are gates (a sigmoid), as in squeeze-and-excitation.
///
/// Names are those of timm's `SplitAttn`: `conv`, `bn0`, `fc1`, `bn1`, `fc2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SplitAttention {
    /// Output channels.
    pub channels: usize,
    /// Versions of each channel.
    pub radix: usize,
    /// Groups of channels that see nothing of each other.
    pub cardinality: usize,
    /// Step of the 3×3 convolution.
    pub stride: usize,
    /// The activation behind the convolutions.
    pub activation: Activation,
}

impl SplitAttention {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (radix, groups) = (self.radix, self.cardinality);
        let all = self.channels * radix;
        let conv = Conv { out: all, kernel: 3, stride: self.stride, groups: groups * radix };
        let versions = conv_bn_act(b, x, ["conv", "bn0", "act0"], conv, self.activation)?;
        // The mean of a sum is the sum of means, and the means are few.
        let mut y = b.node("pool", Op::GlobalAveragePool, &[versions])?;
        if radix > 1 {
            y = b.node("pool_sum", Op::SumParts { parts: radix }, &[y])?;
        }
        y = b.conv_full("fc1", y, self.squeezed(b.shape(x).channels()), 1, 1, groups, true)?;
        y = b.batch_norm("bn1", y)?;
        y = b.activation("act1", y, self.activation)?;
        y = b.conv_full("fc2", y, all, 1, 1, groups, true)?;
        if radix == 1 {
            let gate = b.activation("gate", y, Activation::Sigmoid)?;
            return b.node("mul", Op::Mul, &[versions, gate]);
        }
        if groups > 1 {
            // A group's convolution gives the weights of all versions of its channels together.
            y = b.node("shuffle", Op::ShuffleChannels { outer: groups, inner: radix }, &[y])?;
        }
        let weights = b.node("softmax", Op::SoftmaxParts { parts: radix }, &[y])?;
        let weighted = b.node("mul", Op::Mul, &[versions, weights])?;
        b.node("sum", Op::SumParts { parts: radix }, &[weighted])
    }

    /// Channels between `fc1` and `fc2`: a quarter of the versions', a multiple of 8, at least 32; one step more where
    /// rounding took away a tenth (timm's `make_divisible`).
    fn squeezed(&self, in_channels: usize) -> usize {
        let wanted = in_channels * self.radix / 4;
        let rounded = ((wanted + 4) / 8 * 8).max(32);
        if rounded * 10 < wanted * 9 { rounded + 8 } else { rounded }
    }
}
