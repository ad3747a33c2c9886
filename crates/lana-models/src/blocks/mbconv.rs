//! The inverted residual (MobileNetV2, Sandler et al. 2018) with squeeze-and-excitation (EfficientNet, Tan & Le 2019).

use lana_graph::{Activation, GraphBuilder, Result, Value};

use super::{Conv, Ending, Gates, conv_bn, conv_bn_act};

/// MBConv: 1×1 to `hidden` channels, depthwise, optionally squeeze-and-excitation, 1×1 back.
///
/// Names are timm's: `conv_pw`, `bn1`, `conv_dw`, `bn2`, `se.*`, `conv_pwl`, `bn3`. Without expansion it is timm's
/// `DepthwiseSeparableConv`: `conv_dw`, `bn1`, `se.*`, `conv_pw`, `bn2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MbConv {
    /// Output channels.
    pub out: usize,
    /// Channels of the depthwise convolution; none for as many as come in, without the 1×1 convolution in front.
    pub hidden: Option<usize>,
    /// Size of the depthwise kernel.
    pub kernel: usize,
    /// Step of the depthwise convolution.
    pub stride: usize,
    /// Gates for the channels inside, if there are any.
    pub gates: Option<Gates>,
    /// The inner activation.
    pub activation: Activation,
    /// The end of the block.
    pub ending: Ending,
}

impl MbConv {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let (mut y, depthwise, last) = match self.hidden {
            Some(hidden) => {
                let names = ["conv_pw", "bn1", "act1"];
                let y = conv_bn_act(b, x, names, Conv::pointwise(hidden), self.activation)?;
                (y, ["conv_dw", "bn2", "act2"], ["conv_pwl", "bn3"])
            }
            None => (x, ["conv_dw", "bn1", "act1"], ["conv_pw", "bn2"]),
        };
        let conv = Conv::depthwise(b.shape(y).channels(), self.kernel, self.stride);
        y = conv_bn_act(b, y, depthwise, conv, self.activation)?;
        if let Some(gates) = self.gates {
            y = gates.build(b, y)?;
        }
        y = conv_bn(b, y, last, Conv::pointwise(self.out))?;
        self.ending.build(b, x, y)
    }
}
