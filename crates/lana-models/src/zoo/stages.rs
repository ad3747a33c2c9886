//! Stages of inverted residuals: what timm's `EfficientNetBuilder` makes of its tables.
//!
//! EfficientNets and MobileNets are a stem, stages of blocks, and a head. A family has one table of stages, which its
//! members multiply in width and depth; the rounding is part of the definition, and is timm's.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Result, Shape, Value};

use super::Size;
use crate::blocks::{
    Conv, Ending, FusedMbConv, Gates, MbConv, Shortcut, SqueezeExcite, conv_bn_act, make_divisible,
};

/// Blocks of one kind; the first has the stride.
#[derive(Clone, Copy)]
pub(super) struct Blocks {
    kind: Kind,
    count: usize,
    kernel: usize,
    stride: usize,
    expansion: f64,
    out: usize,
    squeeze: Option<f64>,
    activation: Option<Activation>,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    DepthwiseSeparable,
    Inverted,
    Fused,
    Convolution,
}

/// `count` depthwise separable blocks (timm's `ds`): an MBConv without expansion.
pub(super) const fn ds(count: usize, kernel: usize, stride: usize, out: usize) -> Blocks {
    blocks(Kind::DepthwiseSeparable, count, kernel, stride, 1.0, out)
}

/// `count` MBConvs (timm's `ir`).
pub(super) const fn ir(count: usize, kernel: usize, stride: usize, expansion: f64, out: usize) -> Blocks {
    blocks(Kind::Inverted, count, kernel, stride, expansion, out)
}

/// `count` fused MBConvs (timm's `er`).
pub(super) const fn er(count: usize, kernel: usize, stride: usize, expansion: f64, out: usize) -> Blocks {
    blocks(Kind::Fused, count, kernel, stride, expansion, out)
}

/// `count` plain convolutions (timm's `cn`), each with BatchNorm, activation and, where the shape stays, a residual
/// connection.
pub(super) const fn cn(count: usize, kernel: usize, stride: usize, out: usize) -> Blocks {
    blocks(Kind::Convolution, count, kernel, stride, 1.0, out)
}

const fn blocks(
    kind: Kind,
    count: usize,
    kernel: usize,
    stride: usize,
    expansion: f64,
    out: usize,
) -> Blocks {
    Blocks { kind, count, kernel, stride, expansion, out, squeeze: None, activation: None }
}

impl Blocks {
    /// With squeeze-and-excitation to a share of the channels, [`Squeeze`] says of which.
    pub(super) const fn se(self, share: f64) -> Self {
        Blocks { squeeze: Some(share), ..self }
    }

    /// With another activation than the rest of the network.
    pub(super) const fn act(self, activation: Activation) -> Self {
        Blocks { activation: Some(activation), ..self }
    }
}

/// How the channels inside squeeze-and-excitation are counted, and how it gates.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Squeeze {
    /// EfficientNet: a share of the channels that come into the block; the block's activation, sigmoid gates.
    OfInput,
    /// MobileNetV3: a share of the expanded channels, rounded as all its channels are; ReLU, hard sigmoid gates.
    OfExpanded,
}

/// What stands behind the last stage.
#[derive(Clone, Copy)]
pub(super) enum Head {
    /// A 1×1 convolution to so many channels with BatchNorm and activation, then pooling.
    ThenPool(usize),
    /// MobileNetV3's: pooling first, so that the convolution to so many channels, now with a bias in the place of
    /// BatchNorm, works on a single pixel.
    PoolFirst(usize),
}

/// How the stages of a table are multiplied.
#[derive(Clone, Copy)]
pub(super) struct Scale {
    /// Factor of the channels.
    pub(super) width: f64,
    /// Factors of the numbers of blocks: of each stage, the last holding for those behind it.
    pub(super) depth: &'static [f64],
    /// The least share of the channels wanted that rounding may leave, see [`make_divisible`].
    pub(super) least: f64,
}

impl Scale {
    /// Everything as the table has it.
    pub(super) const NONE: Scale = Scale { width: 1.0, depth: &[1.0], least: 0.9 };

    /// So many channels, multiplied and rounded.
    pub(super) fn channels(&self, channels: usize) -> usize {
        make_divisible(channels as f64 * self.width, self.least)
    }

    /// The blocks of stage `number`, multiplied: the total is rounded up, then divided among the stage's kinds of blocks,
    /// from the last to the first.
    fn blocks(&self, number: usize, stage: &[Blocks]) -> Vec<Blocks> {
        let factor = self.depth.get(number).or(self.depth.last()).copied().unwrap_or(1.0);
        let mut total: usize = stage.iter().map(|b| b.count).sum();
        let mut scaled_total = (total as f64 * factor).ceil() as usize;
        let mut list = Vec::with_capacity(stage.len());
        for kind in stage.iter().rev() {
            let share = kind.count as f64 / total as f64 * scaled_total as f64;
            let count = (share.round_ties_even() as usize).max(1);
            list.push(Blocks { count, ..*kind });
            total -= kind.count;
            scaled_total = scaled_total.saturating_sub(count);
        }
        list.reverse();
        list
    }
}

/// An EfficientNet or MobileNet.
#[derive(Clone, Copy)]
pub(super) struct Network {
    /// Channels of the stem, before they are multiplied.
    pub(super) stem: usize,
    /// The stages, before they are multiplied.
    pub(super) stages: &'static [&'static [Blocks]],
    /// How they are multiplied.
    pub(super) scale: Scale,
    /// What comes behind.
    pub(super) head: Head,
    /// The activation.
    pub(super) activation: Activation,
    /// The kind of squeeze-and-excitation.
    pub(super) squeeze: Squeeze,
    /// Whether the weights come from TensorFlow: then padding is "SAME" and BatchNorm's `eps` 1e-3.
    pub(super) tensorflow: bool,
}

impl Network {
    /// The graph, with a layer for every block. Names are those of timm's `EfficientNet` and `MobileNetV3`.
    pub(super) fn build(&self, name: &str, size: Size) -> Result<Graph> {
        let eps = if self.tensorflow { 1e-3 } else { 1e-5 };
        let mut b = GraphBuilder::new(name, Shape::image(3, size.resolution, size.resolution))
            .with_batch_norm(eps, 0.1)
            .with_same_padding(self.tensorflow);
        let x = b.input();
        let stem = Conv::dense(self.scale.channels(self.stem), 3, 2);
        let mut x = conv_bn_act(&mut b, x, ["conv_stem", "bn1", "act1"], stem, self.activation)?;
        for (number, stage) in self.stages.iter().enumerate() {
            let stage_name = format!("blocks.{number}");
            let list = self.scale.blocks(number, stage);
            let each = list.iter().flat_map(|kind| std::iter::repeat_n(kind, kind.count));
            for (index, block) in each.enumerate() {
                // Only the first block of a stage changes the resolution.
                let stride = if index == 0 { block.stride } else { 1 };
                x = b.layer(&format!("{stage_name}.{index}"), &stage_name, x, |b, x| {
                    self.add_block(b, x, block, stride)
                })?;
            }
        }
        let x = match self.head {
            Head::ThenPool(channels) => {
                let names = ["conv_head", "bn2", "act2"];
                let x = conv_bn_act(&mut b, x, names, Conv::pointwise(channels), self.activation)?;
                b.node("global_pool", Op::GlobalAveragePool, &[x])?
            }
            Head::PoolFirst(channels) => {
                let x = b.node("global_pool", Op::GlobalAveragePool, &[x])?;
                let x = b.conv_full("conv_head", x, channels, 1, 1, 1, true)?;
                b.activation("act2", x, self.activation)?
            }
        };
        let x = b.node("flatten", Op::Flatten, &[x])?;
        let x = b.node("classifier", Op::Linear { out_features: size.num_classes, bias: true }, &[x])?;
        // timm's schedule: the first block is never dropped, the last nearly as often as the rate says.
        size.with_drops(b.finish(x)?, |block, blocks| block as f64 / blocks as f64)
    }

    fn add_block(&self, b: &mut GraphBuilder, x: Value, block: &Blocks, stride: usize) -> Result<Value> {
        let channels = b.shape(x).channels();
        let (out, kernel) = (self.scale.channels(block.out), block.kernel);
        let activation = block.activation.unwrap_or(self.activation);
        let hidden = match block.kind {
            Kind::Inverted | Kind::Fused => make_divisible(channels as f64 * block.expansion, 0.9),
            Kind::DepthwiseSeparable | Kind::Convolution => channels,
        };
        let squeeze = |share: f64| match self.squeeze {
            Squeeze::OfInput => SqueezeExcite {
                squeezed: (hidden as f64 * (share / block.expansion)).round_ties_even() as usize,
                activation,
                gate: Activation::Sigmoid,
            },
            Squeeze::OfExpanded => SqueezeExcite {
                squeezed: make_divisible(hidden as f64 * share, 0.9),
                activation: Activation::Relu,
                gate: Activation::HardSigmoid,
            },
        };
        let gates = block.squeeze.map(|share| Gates::Squeeze(squeeze(share)));
        let shortcut = if channels == out && stride == 1 { Shortcut::Identity } else { Shortcut::None };
        let ending = Ending { shortcut, activation: None };
        match block.kind {
            Kind::Convolution => {
                let conv = Conv::dense(out, kernel, stride);
                let y = conv_bn_act(b, x, ["conv", "bn1", "act1"], conv, activation)?;
                ending.build(b, x, y)
            }
            Kind::Fused => FusedMbConv { out, hidden, kernel, stride, gates, activation, ending }.build(b, x),
            Kind::Inverted | Kind::DepthwiseSeparable => {
                let hidden = (block.kind == Kind::Inverted).then_some(hidden);
                MbConv { out, hidden, kernel, stride, gates, activation, ending }.build(b, x)
            }
        }
    }
}
