//! Two stacked convolutions: `cb_stack` in LANA's pool, strongest early in the network.
//!
//! The paper gives the order C-B-R-C-B, and names a residual connection for `cb_res` alone. Stacked convolutions without one
//! are VGG's (Simonyan & Zisserman 2015); with one, in this order, they are the basic block of ResNets (He et al. 2015). We
//! read it as the latter: everything in this pool has the layer's residual connection, without which no operation could
//! start as its shortcut. The width is that of the channels between the two convolutions, as a share of the output's;
//! both have the kernel, the first one the stride.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{KERNELS, dense};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_as_shortcut};
use crate::blocks::{Conv, conv_bn, conv_bn_act, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "stack",
    summary: "two dense k×k convolutions, with the share w of the output's channels between them",
    parameters: &[Parameter::new("k", Range::Odd(11.0)), Parameter::new("w", Range::Positive(4.0))],
    check: any,
    members: |preset| match preset {
        // With 1×1 kernels it is `fused-e*-k1`.
        Preset::Paper => dense("stack", &KERNELS[1..], |k, w| 2.0 * k * k * w),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let kernel = arguments.whole("k");
    let hidden = round_channels(site.out as f64 * arguments.number("w"));
    site.graph(|b, x| {
        let first = Conv::dense(hidden, kernel, site.stride);
        let y = conv_bn_act(b, x, ["conv1", "bn1", "act1"], first, site.activation)?;
        let y = conv_bn(b, y, ["conv2", "bn2"], Conv::dense(site.out, kernel, 1))?;
        site.ending.build(b, x, y)
    })
}
