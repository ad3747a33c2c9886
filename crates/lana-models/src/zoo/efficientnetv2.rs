//! Networks in the manner of EfficientNetV2 (Tan & Le 2021): fused MBConv first, MBConv with squeeze-and-excitation
//! later, SiLU throughout. Parameter names are timm's.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Result, Shape, Value};

use super::{Model, Preprocessing, Size};
use crate::blocks::{Conv, Ending, FusedMbConv, MbConv, Shortcut, conv_bn_act};

/// One member of the family.
#[derive(Clone, Copy)]
struct Description {
    name: &'static str,
    resolution: usize,
    num_classes: usize,
    /// Channels of the stem, which halves the resolution.
    stem: usize,
    stages: &'static [Stage],
    /// Channels of the 1×1 convolution before pooling.
    head: usize,
}

/// Blocks of one stage; the first has the stride.
struct Stage {
    /// Fused MBConv rather than MBConv.
    fused: bool,
    blocks: usize,
    out: usize,
    expansion: usize,
    stride: usize,
    /// Squeezed channels as a share of the channels that come into the block, as in timm.
    squeeze: Option<f64>,
}

/// `effnetv2_nano_cifar` is the demo's teacher: small enough to be trained in about a minute on two cores, hence 16×16
/// pixels from the stem on, yet with enough layers and width that much of it can be saved.
#[rustfmt::skip]
const TABLE: [Description; 1] = [Description {
    name: "effnetv2_nano_cifar",
    resolution: 32,
    num_classes: 10,
    stem: 24,
    stages: &[
        Stage { fused: true,  blocks: 2, out: 24, expansion: 2, stride: 1, squeeze: None },
        Stage { fused: true,  blocks: 3, out: 40, expansion: 4, stride: 2, squeeze: None },
        Stage { fused: false, blocks: 3, out: 64, expansion: 4, stride: 1, squeeze: Some(0.25) },
        Stage { fused: false, blocks: 3, out: 96, expansion: 4, stride: 2, squeeze: Some(0.25) },
    ],
    head: 256,
}];

pub(super) fn models() -> Vec<Model> {
    let model = |d: Description| Model {
        name: d.name.into(),
        family: "EfficientNetV2",
        source: "after Tan & Le 2021; names as in timm",
        resolution: d.resolution,
        num_classes: d.num_classes,
        preprocessing: Preprocessing::IMAGENET,
        build: Box::new(move |_, size| build(&d, size)),
    };
    TABLE.map(model).into()
}

fn build(d: &Description, size: Size) -> Result<Graph> {
    let act = Activation::Silu;
    let mut b = GraphBuilder::new(d.name, Shape::image(3, size.resolution, size.resolution));
    let x = b.input();
    let mut x = conv_bn_act(&mut b, x, ["conv_stem", "bn1", "act1"], Conv::dense(d.stem, 3, 2), act)?;
    for (number, stage) in d.stages.iter().enumerate() {
        let stage_name = format!("blocks.{number}");
        for block in 0..stage.blocks {
            let stride = if block == 0 { stage.stride } else { 1 };
            x = b.layer(&format!("{stage_name}.{block}"), &stage_name, x, |b, x| {
                add_block(b, x, stage, stride, act)
            })?;
        }
    }
    let x = conv_bn_act(&mut b, x, ["conv_head", "bn2", "act2"], Conv::pointwise(d.head), act)?;
    let x = b.node("global_pool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("classifier", Op::Linear { out_features: size.num_classes, bias: true }, &[x])?;
    b.finish(x)
}

fn add_block(
    b: &mut GraphBuilder,
    x: Value,
    stage: &Stage,
    stride: usize,
    activation: Activation,
) -> Result<Value> {
    let channels = b.shape(x).channels();
    let hidden = channels * stage.expansion;
    let squeezed = stage.squeeze.map(|share| (channels as f64 * share).round() as usize);
    let shortcut = if channels == stage.out && stride == 1 { Shortcut::Identity } else { Shortcut::None };
    let ending = Ending { shortcut, activation: None };
    let (out, kernel) = (stage.out, 3);
    match stage.fused {
        true => FusedMbConv { out, hidden, kernel, stride, squeezed, activation, ending }.build(b, x),
        false => {
            MbConv { out, hidden: Some(hidden), kernel, stride, squeezed, activation, ending }.build(b, x)
        }
    }
}
