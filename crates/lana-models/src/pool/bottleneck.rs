//! Bottlenecks: `cb_bottle` in LANA's pool, with the dense convolutions its best compromise of accuracy and speed.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::site::Site;
use super::{Family, NotApplicable, START_AS_SHORTCUT, start_as_shortcut};
use crate::blocks::{Bottleneck, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "bottleneck",
    summary: "1×1, 3×3 and 1×1 convolutions, with the share w of the output's channels inside",
    parameters: &[Parameter { key: "w", range: Range::UpTo(4.0), optional: false }],
    compact: &["bottleneck-w0.25", "bottleneck-w0.5"],
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let block = Bottleneck {
        out: site.out,
        hidden: round_channels(site.out as f64 * arguments.number("w")),
        kernel: 3,
        stride: site.stride,
        groups: 1,
        activation: site.activation,
        ending: site.ending,
    };
    site.graph(|b, x| block.build(b, x))
}
