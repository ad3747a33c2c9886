//! Inverted residuals: `efn` in LANA's pool, the most accurate family at every layer.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{inverted, listed};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, start_as_shortcut};
use crate::blocks::{EfficientAttention, Gates, MbConv, SqueezeExcite, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "mbconv",
    summary: "inverted residual: expansion by e, k×k depthwise, squeeze-and-excitation to the share se of the input's \
              channels or efficient channel attention (eca); e1 has no expansion",
    parameters: &[
        Parameter::new("e", Range::Positive(16.0)),
        Parameter::new("k", Range::Odd(11.0)),
        Parameter::optional("se", Range::Positive(1.0)),
        Parameter::flag("eca"),
    ],
    members: |preset| match preset {
        Preset::Compact => listed(&COMPACT),
        Preset::Extended => {
            let efficient = ["mbconv-e1-k3-eca", "mbconv-e3-k3-eca", "mbconv-e6-k3-eca", "mbconv-e3-k5-eca"];
            listed(&[&COMPACT[..], &efficient].concat())
        }
        Preset::Paper => inverted("mbconv"),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

const COMPACT: [&str; 8] = [
    "mbconv-e1-k3",
    "mbconv-e3-k3",
    "mbconv-e6-k3",
    "mbconv-e3-k5",
    "mbconv-e1-k3-se0.25",
    "mbconv-e3-k3-se0.25",
    "mbconv-e6-k3-se0.25",
    "mbconv-e3-k5-se0.25",
];

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let expansion = arguments.number("e");
    let block = MbConv {
        out: site.out,
        hidden: (expansion != 1.0).then(|| round_channels(site.channels as f64 * expansion)),
        kernel: arguments.whole("k"),
        stride: site.stride,
        gates: gates(&site, arguments)?,
        activation: site.activation,
        ending: site.ending,
    };
    site.graph(|b, x| block.build(b, x))
}

/// Squeeze-and-excitation to a share of the block's input channels, as in EfficientNet, or efficient channel attention,
/// with the layer's kind of gate.
pub(super) fn gates(site: &Site<'_>, arguments: &Arguments) -> Result<Option<Gates>, NotApplicable> {
    match (arguments.get("se"), arguments.has("eca")) {
        (Some(_), true) => Err(NotApplicable::new("se and eca are two of a kind; choose one")),
        (Some(share), false) => Ok(Some(Gates::Squeeze(SqueezeExcite {
            squeezed: ((site.channels as f64 * share).round() as usize).max(1),
            activation: site.activation,
            gate: site.gate,
        }))),
        (None, true) => Ok(Some(Gates::Efficient(EfficientAttention { gate: site.gate }))),
        (None, false) => Ok(None),
    }
}
