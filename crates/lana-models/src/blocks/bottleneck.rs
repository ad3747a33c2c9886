//! The bottleneck of deep ResNets (He et al. 2015), `cb_bottle` in LANA's pool.

use lana_graph::{Activation, GraphBuilder, Result, Value};

use super::{Conv, Ending, conv_bn, conv_bn_act};

/// 1×1 down to `hidden` channels, k×k among them (with the stride, as in torchvision and timm), 1×1 up again.
///
/// Names: `conv1`, `bn1`, `conv2`, `bn2`, `conv3`, `bn3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bottleneck {
    /// Output channels.
    pub out: usize,
    /// Channels inside.
    pub hidden: usize,
    /// Size of the middle kernel.
    pub kernel: usize,
    /// Step of the middle convolution.
    pub stride: usize,
    /// Groups of the middle convolution (ResNeXt's cardinality); 1 for a dense one.
    pub groups: usize,
    /// The inner activation.
    pub activation: Activation,
    /// The end of the block.
    pub ending: Ending,
}

impl Bottleneck {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let middle = Conv { out: self.hidden, kernel: self.kernel, stride: self.stride, groups: self.groups };
        let y = conv_bn_act(b, x, ["conv1", "bn1", "act1"], Conv::pointwise(self.hidden), self.activation)?;
        let y = conv_bn_act(b, y, ["conv2", "bn2", "act2"], middle, self.activation)?;
        let y = conv_bn(b, y, ["conv3", "bn3"], Conv::pointwise(self.out))?;
        self.ending.build(b, x, y)
    }
}
