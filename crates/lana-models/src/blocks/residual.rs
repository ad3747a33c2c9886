//! Residual connections and the basic block of ResNets (He et al. 2015).

use lana_graph::{Activation, GraphBuilder, Op, Result, Shape, Value, Window};

use super::{Conv, conv_bn, conv_bn_act};

/// What is added to a block's branch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortcut {
    /// Nothing: the block has no residual connection.
    None,
    /// The block's input, whose shape is the output's.
    Identity,
    /// The input's every `stride`-th row and column between channels of zeros: option A of He et al., which has no
    /// parameters.
    Subsampled {
        /// Step in height and width.
        stride: usize,
        /// Zero channels in front.
        before: usize,
        /// Zero channels behind.
        after: usize,
    },
    /// A 1×1 convolution of the input with its BatchNorm: option B of He et al., by timm's names `downsample.0` and
    /// `downsample.1`.
    Projection {
        /// Output channels.
        out: usize,
        /// Step in height and width.
        stride: usize,
        /// Whether the step is that of an average pooling, so that no pixel is lost, and not that of the convolution
        /// (ResNet-D, He et al. 2018, "Bag of Tricks"). The names are then `downsample.0` for the pooling (even where there
        /// is no step and none is needed), `downsample.1` and `downsample.2`.
        average: bool,
    },
}

impl Shortcut {
    /// Option A as in the CIFAR ResNets: half of the missing channels in front, the rest behind.
    /// [`Shortcut::Identity`] where nothing changes.
    pub fn option_a(input_channels: usize, output_channels: usize, stride: usize) -> Self {
        let missing = output_channels.saturating_sub(input_channels);
        match (missing, stride) {
            (0, 1) => Shortcut::Identity,
            _ => Shortcut::Subsampled { stride, before: missing / 2, after: missing - missing / 2 },
        }
    }

    /// The shape it gives an input of that shape; none if it gives nothing.
    pub fn shape(&self, input: &Shape) -> Option<Shape> {
        match *self {
            Shortcut::None => None,
            Shortcut::Identity => Some(input.clone()),
            Shortcut::Subsampled { stride, before, after } => {
                let half = Op::Subsample { stride }.infer(&[input]).ok()?;
                Op::PadChannels { before, after }.infer(&[&half]).ok()
            }
            Shortcut::Projection { out, stride, .. } => {
                let (_, height, width) = input.as_image()?;
                Some(Shape::image(out, height.div_ceil(stride), width.div_ceil(stride)))
            }
        }
    }

    fn build(&self, b: &mut GraphBuilder, input: Value) -> Result<Option<Value>> {
        match *self {
            Shortcut::None => Ok(None),
            Shortcut::Identity => Ok(Some(input)),
            Shortcut::Subsampled { stride, before, after } => b.scoped("shortcut", |b| {
                let y = b.node("subsample", Op::Subsample { stride }, &[input])?;
                b.node("pad", Op::PadChannels { before, after }, &[y]).map(Some)
            }),
            Shortcut::Projection { out, stride, average } => b.scoped("downsample", |b| {
                let (names, conv_stride) = match average {
                    true => (["1", "2"], 1),
                    false => (["0", "1"], stride),
                };
                let mut y = input;
                if average && stride > 1 {
                    let pool = Op::AveragePool { window: Self::halving(stride), count_include_pad: false };
                    y = b.node("0", pool, &[y])?;
                }
                conv_bn(b, y, names, Conv::dense(out, 1, conv_stride)).map(Some)
            }),
        }
    }

    /// Windows of `stride` that leave no pixel out, the last one smaller where they do not fit.
    pub(crate) fn halving(stride: usize) -> Window {
        Window { ceil_mode: true, ..Window::square(stride, stride, 0) }
    }
}

/// How a block ends: what is added to its branch, and the activation behind the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// What is added.
    pub shortcut: Shortcut,
    /// The activation behind; none for blocks with a linear end, such as MBConv.
    pub activation: Option<Activation>,
}

impl Ending {
    /// Ends the block that made `branch` of `input`.
    ///
    /// The branch is the first input of the node `add` and the shortcut the second: [`crate::init`] tells by that which
    /// BatchNorm may start at zero.
    pub fn build(&self, b: &mut GraphBuilder, input: Value, branch: Value) -> Result<Value> {
        let sum = match self.shortcut.build(b, input)? {
            Some(shortcut) => b.add("add", branch, shortcut)?,
            None => branch,
        };
        match self.activation {
            Some(kind) => b.activation("act", sum, kind),
            None => Ok(sum),
        }
    }
}

/// Two 3×3 convolutions (`conv1`, `bn1`, `conv2`, `bn2`) beside a shortcut, ReLU behind the sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasicBlock {
    /// Output channels, of both convolutions.
    pub out: usize,
    /// Step of the first convolution.
    pub stride: usize,
    /// What is added to the branch.
    pub shortcut: Shortcut,
}

impl BasicBlock {
    /// Adds the block.
    pub fn build(&self, b: &mut GraphBuilder, x: Value) -> Result<Value> {
        let y = conv_bn_act(
            b,
            x,
            ["conv1", "bn1", "act1"],
            Conv::dense(self.out, 3, self.stride),
            Activation::Relu,
        )?;
        let y = conv_bn(b, y, ["conv2", "bn2"], Conv::dense(self.out, 3, 1))?;
        Ending { shortcut: self.shortcut, activation: Some(Activation::Relu) }.build(b, x, y)
    }
}
