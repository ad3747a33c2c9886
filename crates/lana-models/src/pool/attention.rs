//! Operations with attention: in LANA's pool for completeness' sake. It found them to have "neither a speedup advantage nor
//! ability to recover teacher accuracy", and no final network took one.
//!
//! * `vit`: [`Transformer`] blocks between a patch embedding and a 1×1 convolution back to the layer's channels. Each
//!   pixel of the layer's *output* is a token: the patch is the layer's stride. The paper varies depth, dimension and
//!   heads; all else is the Vision Transformer's (Dosovitskiy et al. 2021): learned position embedding, normalisation in
//!   front, GELU, perceptron of four times the width.
//! * `botnet`: the bottleneck transformer (Srinivas et al. 2021): a bottleneck with [`RelativeAttention`] of four heads in
//!   the place of the 3×3 convolution, then BatchNorm and activation.
//! * `lambda`: the same with a [`LambdaLayer`] (Bello 2021), in timm's sizes: four heads, queries of 16, surroundings of
//!   9×9.
//!
//! In a layer with a stride the last two end in an average pooling of that step, as in both papers; channels change in
//! the last 1×1 convolution.
//!
//! Attention takes memory with the square of the pixels, and training holds it for a whole batch: where that would be
//! more than [`MOST_WEIGHTS`] numbers for an image, `vit` and `botnet` do not apply.

use lana_graph::{Graph, GraphBuilder, Op, Shape, Value};

use super::name::{Arguments, Parameter, Range};
use super::preset::{ATTENTION_WIDTHS, grid};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_as_shortcut};
use crate::blocks::{
    Conv, LambdaLayer, RelativeAttention, Shortcut, Transformer, attention_weights, conv_bn, conv_bn_act,
    round_channels,
};

/// Heads of the bottlenecks.
const HEADS: usize = 4;

/// Most attention weights for an image: 16 MiB. Four heads reach it with 32×32 pixels.
const MOST_WEIGHTS: usize = 1 << 22;

pub(super) static TRANSFORMER: Family = Family {
    name: "vit",
    summary: "d transformer blocks on tokens of length w with h heads, each pixel of the output a token",
    parameters: &[
        Parameter::new("d", Range::Whole(12.0)),
        Parameter::new("w", Range::Whole(4096.0)),
        Parameter::new("h", Range::Whole(64.0)),
    ],
    check: |arguments| match (arguments.whole("w"), arguments.whole("h")) {
        (dim, heads) if dim % heads != 0 => {
            Err(format!("{heads} heads do not divide tokens of length {dim}"))
        }
        _ => Ok(()),
    },
    members: |preset| match preset {
        Preset::Paper => {
            let dims = [32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];
            grid("vit", &[("d", &[1.0, 2.0]), ("w", &dims), ("h", &[4.0, 8.0, 16.0])])
        }
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build: transformer,
    initialise: start_as_shortcut,
};

pub(super) static BOTNET: Family = Family {
    name: "botnet",
    summary: "bottleneck of the share w of the output's channels with attention of all pixels to all, by content and \
              relative position",
    parameters: &[Parameter::new("w", Range::Positive(4.0))],
    check: any,
    members: |preset| match preset {
        Preset::Paper => grid("botnet", &[("w", &ATTENTION_WIDTHS)]),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build: botnet,
    initialise: start_as_shortcut,
};

pub(super) static LAMBDA: Family = Family {
    name: "lambda",
    summary: "bottleneck of the share w of the output's channels with a lambda layer: surroundings of 9×9 as a linear \
              function",
    parameters: &[Parameter::new("w", Range::Positive(4.0))],
    check: any,
    members: |preset| match preset {
        Preset::Paper => grid("lambda", &[("w", &ATTENTION_WIDTHS)]),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build: lambda,
    initialise: start_as_shortcut,
};

fn few_enough(heads: usize, map: &Shape) -> Result<(), NotApplicable> {
    let weights = attention_weights(heads, map);
    match weights > MOST_WEIGHTS {
        true => Err(NotApplicable::new(format!(
            "{heads} heads on {map} hold {weights} attention weights for an image, more than {MOST_WEIGHTS}"
        ))),
        false => Ok(()),
    }
}

fn transformer(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let (dim, heads) = (arguments.whole("w"), arguments.whole("h"));
    few_enough(heads, layer.output_shape())?;
    let blocks = Transformer { depth: arguments.whole("d"), dim, heads, patch: site.stride };
    site.graph(|b, x| {
        let y = blocks.build(b, x)?;
        let y = conv_bn(b, y, ["conv", "bn"], Conv::pointwise(site.out))?;
        site.ending.build(b, x, y)
    })
}

fn botnet(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    few_enough(HEADS, layer.input_shape())?;
    bottleneck(layer, arguments, |b, x| RelativeAttention { heads: HEADS }.build(b, x))
}

fn lambda(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    bottleneck(layer, arguments, |b, x| LambdaLayer { heads: HEADS, key: 16, scope: 9 }.build(b, x))
}

/// A bottleneck with `middle` in the place of its 3×3 convolution.
fn bottleneck(
    layer: &Graph,
    arguments: &Arguments,
    middle: impl FnOnce(&mut GraphBuilder, Value) -> lana_graph::Result<Value>,
) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let hidden = round_channels(site.out as f64 * arguments.number("w")).next_multiple_of(HEADS);
    site.graph(|b, x| {
        let y = conv_bn_act(b, x, ["conv1", "bn1", "act1"], Conv::pointwise(hidden), site.activation)?;
        let mut y = middle(b, y)?;
        if site.stride > 1 {
            let window = Shortcut::halving(site.stride);
            y = b.node("pool", Op::AveragePool { window, count_include_pad: false }, &[y])?;
        }
        let y = b.batch_norm("bn2", y)?;
        let y = b.activation("act2", y, site.activation)?;
        let y = conv_bn(b, y, ["conv3", "bn3"], Conv::pointwise(site.out))?;
        site.ending.build(b, x, y)
    })
}
