//! What stands before the blocks of a ResNet for large images.

use lana_graph::{Activation, GraphBuilder, Op, Result, Value, Window};

use super::{Conv, conv_bn_act};

/// A quarter of the resolution in two steps: convolution with stride 2, then max pooling with stride 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stem {
    /// One 7×7 convolution to 64 channels (He et al. 2015): `conv1`, `bn1`.
    Plain,
    /// Three 3×3 convolutions, to `width`, `width` and twice that (He et al. 2018, "Bag of Tricks", ResNet-C): `conv1.0`,
    /// `conv1.1`, `conv1.3`, `conv1.4`, `conv1.6`, `bn1`.
    Deep {
        /// Channels of the first two convolutions.
        width: usize,
    },
}

impl Stem {
    /// Adds the stem, by timm's names.
    pub fn build(&self, b: &mut GraphBuilder, x: Value, activation: Activation) -> Result<Value> {
        let y = match *self {
            Stem::Plain => conv_bn_act(b, x, ["conv1", "bn1", "act1"], Conv::dense(64, 7, 2), activation)?,
            Stem::Deep { width } => {
                let first = Conv::dense(width, 3, 2);
                let y = conv_bn_act(b, x, ["conv1.0", "conv1.1", "conv1.2"], first, activation)?;
                let second = Conv::dense(width, 3, 1);
                let y = conv_bn_act(b, y, ["conv1.3", "conv1.4", "conv1.5"], second, activation)?;
                conv_bn_act(b, y, ["conv1.6", "bn1", "act1"], Conv::dense(2 * width, 3, 1), activation)?
            }
        };
        b.node("maxpool", Op::MaxPool { window: Window::square(3, 2, 1) }, &[y])
    }
}
