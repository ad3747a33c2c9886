//! Fused inverted residuals (EfficientNetV2, Tan & Le 2021; first in EfficientNet-EdgeTPU, Gupta & Tan 2019): `efnv2` in LANA's
//! pool.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{inverted, listed};
use super::site::Site;
use super::{
    Family, NotApplicable, Preset, START_AS_SHORTCUT, mbconv::gates, mbconv::one_gate, start_as_shortcut,
};
use crate::blocks::{FusedMbConv, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "fused",
    summary: "fused inverted residual: dense k×k convolution with expansion by e, then 1×1; se and eca as in mbconv",
    parameters: &[
        Parameter::new("e", Range::Positive(16.0)),
        Parameter::new("k", Range::Odd(11.0)),
        Parameter::optional("se", Range::Positive(1.0)),
        Parameter::flag("eca"),
    ],
    check: one_gate,
    members: |preset| match preset {
        Preset::Compact => listed(&["fused-e1-k3", "fused-e3-k3"]),
        Preset::Extended => listed(&["fused-e1-k3", "fused-e3-k3", "fused-e3-k3-eca"]),
        Preset::Paper => inverted("fused"),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let hidden = round_channels(site.channels as f64 * arguments.number("e"));
    let block = FusedMbConv {
        out: site.out,
        hidden,
        kernel: arguments.whole("k"),
        stride: site.stride,
        gates: gates(&site, arguments, hidden),
        activation: site.activation,
        ending: site.ending,
    };
    site.graph(|b, x| block.build(b, x))
}
