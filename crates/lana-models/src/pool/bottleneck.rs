//! Bottlenecks (ResNet, He et al. 2015, section 4.1: 1×1, 3×3, 1×1): `cb_bottle` in LANA's pool (CBR-CBR-CB), with the dense convolutions its best compromise of accuracy and speed.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{KERNELS, dense, listed};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_as_shortcut};
use crate::blocks::{Bottleneck, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "bottleneck",
    summary: "1×1, k×k (3×3 if not given) and 1×1 convolutions, with the share w of the output's channels inside",
    parameters: &[Parameter::or("k", Range::Odd(11.0), 3.0), Parameter::new("w", Range::Positive(4.0))],
    check: any,
    members: |preset| match preset {
        Preset::Compact | Preset::Extended => listed(&["bottleneck-w0.25", "bottleneck-w0.5"]),
        Preset::Paper => dense("bottleneck", &KERNELS, |k, w| 2.0 * w + k * k * w * w),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let block = Bottleneck {
        out: site.out,
        hidden: round_channels(site.out as f64 * arguments.number("w")),
        kernel: arguments.whole("k"),
        stride: site.stride,
        groups: 1,
        activation: site.activation,
        ending: site.ending,
    };
    site.graph(|b, x| block.build(b, x))
}
