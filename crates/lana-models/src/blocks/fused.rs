//! The fused inverted residual (EfficientNet-EdgeTPU; EfficientNetV2, Tan & Le 2021): one dense convolution in the place
//! of MBConv's expansion and depthwise convolution. More multiply-accumulates, often less time.

use lana_graph::{Activation, GraphBuilder, Result, Value};

use super::{Conv, Ending, Gates, conv_bn, conv_bn_act};

/// Fused MBConv: dense convolution to `hidden` channels, optionally squeeze-and-excitation, 1×1 back.
///
/// Names are those of timm's `EdgeResidual`: `conv_exp`, `bn1`, `se.*`, `conv_pwl`, `bn2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FusedMbConv {
    /// Output channels.
    pub out: usize,
    /// Channels inside.
    pub hidden: usize,
    /// Size of the dense kernel.
    pub kernel: usize,
    /// Step of the dense convolution.
    pub stride: usize,
    /// Gates for the channels inside, if there are any.
    pub gates: Option<Gates>,
    /// The inner activation.
    pub activation: Activation,
    /// The end of the block.
    pub ending: Ending,
}

impl FusedMbConv {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let conv = Conv::dense(self.hidden, self.kernel, self.stride);
        let mut y = conv_bn_act(b, x, ["conv_exp", "bn1", "act1"], conv, self.activation)?;
        if let Some(gates) = self.gates {
            y = gates.build(b, y)?;
        }
        y = conv_bn(b, y, ["conv_pwl", "bn2"], Conv::pointwise(self.out))?;
        self.ending.build(b, x, y)
    }
}
