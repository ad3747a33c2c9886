//! Inverted residuals (MobileNetV2, Sandler et al. 2018; with squeeze-and-excitation EfficientNet, Tan & Le 2019): `efn` in
//! LANA's pool, the most accurate family at every layer.
//!
//! The share behind `se` is that of the *expanded* channels, those that the gates are for. EfficientNet's paper gives a
//! quarter of the block's *input*, and timm, whose networks LANA's teachers are, makes of it what it tells its
//! `SqueezeExcite(in_chs, rd_ratio)` inside `InvertedResidual`: `se_ratio /= exp_ratio` (`efficientnet_builder.py`), hence
//! 0.25 / 6 = 0.042 of the expanded channels. That is very likely the 0.04 of LANA's pool, which as a share of the input
//! would leave a single channel in most early layers. For the same width as EfficientNet's: `e1-…-se0.25`, `e3-…-se0.08`,
//! `e6-…-se0.04`.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{inverted, listed};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, start_as_shortcut};
use crate::blocks::{EfficientAttention, Gates, MbConv, SqueezeExcite, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "mbconv",
    summary: "inverted residual: expansion by e, k×k depthwise, squeeze-and-excitation to the share se of the \
              expanded channels or efficient channel attention (eca); e1 has no expansion",
    parameters: &[
        Parameter::new("e", Range::Positive(16.0)),
        Parameter::new("k", Range::Odd(11.0)),
        Parameter::optional("se", Range::Positive(1.0)),
        Parameter::flag("eca"),
    ],
    check: one_gate,
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
    "mbconv-e3-k3-se0.08",
    "mbconv-e6-k3-se0.04",
    "mbconv-e3-k5-se0.08",
];

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let expansion = arguments.number("e");
    let hidden = (expansion != 1.0).then(|| round_channels(site.channels as f64 * expansion));
    let block = MbConv {
        out: site.out,
        hidden,
        kernel: arguments.whole("k"),
        stride: site.stride,
        gates: gates(&site, arguments, hidden.unwrap_or(site.channels)),
        activation: site.activation,
        ending: site.ending,
    };
    site.graph(|b, x| block.build(b, x))
}

/// Squeeze-and-excitation to a share of the `expanded` channels, rounded as timm does, or efficient channel attention, with
/// the layer's kind of gate.
pub(super) fn gates(site: &Site<'_>, arguments: &Arguments, expanded: usize) -> Option<Gates> {
    let squeeze = arguments.get("se").map(|share| {
        Gates::Squeeze(SqueezeExcite {
            squeezed: ((expanded as f64 * share).round() as usize).max(1),
            activation: site.activation,
            gate: site.gate,
        })
    });
    let efficient = || Gates::Efficient(EfficientAttention { gate: site.gate });
    squeeze.or_else(|| arguments.has("eca").then(efficient))
}

/// Of the two kinds of gates a name may have one.
pub(super) fn one_gate(arguments: &Arguments) -> Result<(), String> {
    match arguments.get("se").is_some() && arguments.has("eca") {
        true => Err("se and eca are two of a kind; choose one".into()),
        false => Ok(()),
    }
}
