//! One convolution with a residual connection: `cb_res` in LANA's pool.
//!
//! The paper says "conv-BN pair with residual". We read *pair* as one convolution and its BatchNorm, which are named so in the
//! same list ("CBR pairs"), and the residual connection as ResNet's (He et al. 2015): added behind the BatchNorm, with the
//! layer's own activation behind the sum. A pair of such pairs would be `stack-*`.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{KERNELS, grid, listed};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_as_shortcut};
use crate::blocks::{Conv, conv_bn};

pub(super) static FAMILY: Family = Family {
    name: "conv",
    summary: "one dense k×k convolution with BatchNorm and, where shapes allow, a residual connection",
    parameters: &[Parameter::new("k", Range::Odd(11.0))],
    check: any,
    members: |preset| match preset {
        Preset::Compact | Preset::Extended => listed(&["conv-k3"]),
        Preset::Paper => grid("conv", &[("k", &KERNELS)]),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let conv = Conv::dense(site.out, arguments.whole("k"), site.stride);
    site.graph(|b, x| {
        let y = conv_bn(b, x, ["conv", "bn"], conv)?;
        site.ending.build(b, x, y)
    })
}
