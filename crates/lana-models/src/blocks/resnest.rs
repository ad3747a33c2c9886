//! The bottleneck of ResNeSt (Zhang et al. 2020).

use lana_graph::{Activation, GraphBuilder, Op, Result, Value, Window};

use super::{Conv, Ending, SplitAttention, conv_bn, conv_bn_act};

/// Where the step of a ResNeSt block is: in a 3×3 average pooling beside its split attention ("avd"), which is thus free of
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AverageDown {
    /// Before the split attention, which is cheaper.
    First,
    /// Behind it.
    Last,
}

/// 1×1 down to `hidden` channels, split attention among them, 1×1 up to `out`.
///
/// Names are those of timm's `ResNestBottleneck`: `conv1`, `bn1`, `conv2.*`, `conv3`, `bn3`; the pooling is `avd_first` or
/// `avd_last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResNestBlock {
    /// Output channels.
    pub out: usize,
    /// Channels inside.
    pub hidden: usize,
    /// Versions of each inner channel.
    pub radix: usize,
    /// Groups of inner channels.
    pub cardinality: usize,
    /// Step of the average pooling; 1 for none.
    pub stride: usize,
    /// Where that is.
    pub average_down: AverageDown,
    /// The inner activation.
    pub activation: Activation,
    /// The end of the block.
    pub ending: Ending,
}

impl ResNestBlock {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let activation = self.activation;
        let down = |b: &mut GraphBuilder, name: &str, y: Value| {
            let window = Window::square(3, self.stride, 1);
            b.node(name, Op::AveragePool { window, count_include_pad: true }, &[y])
        };
        let mut y = conv_bn_act(b, x, ["conv1", "bn1", "act1"], Conv::pointwise(self.hidden), activation)?;
        if self.stride > 1 && self.average_down == AverageDown::First {
            y = down(b, "avd_first", y)?;
        }
        let (channels, radix, cardinality) = (self.hidden, self.radix, self.cardinality);
        let split = SplitAttention { channels, radix, cardinality, stride: 1, activation };
        y = b.scoped("conv2", |b| split.build(b, y))?;
        if self.stride > 1 && self.average_down == AverageDown::Last {
            y = down(b, "avd_last", y)?;
        }
        y = conv_bn(b, y, ["conv3", "bn3"], Conv::pointwise(self.out))?;
        self.ending.build(b, x, y)
    }
}
