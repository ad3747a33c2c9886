//! Asymmetric convolutions (ACNet, Ding et al. 2019): a k×k convolution strengthened where it counts.
//!
//! Beside the k×k convolution stand one of 1×k and one of k×1, each with its BatchNorm: together they are one k×k
//! convolution with a heavier cross in its middle, where trained kernels have most of their weight.
//! [`lana_graph::deploy`] makes that of them, and the layer's residual connection goes into it as in RepVGG.

use lana_graph::{Conv2d, Graph, Op};

use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, start_branches_as_shortcut};
use crate::blocks::{Conv, conv_bn};

pub(super) static FAMILY: Family = Family {
    name: "acnet",
    summary: "dense k×k, 1×k and k×1 convolutions, summed: one k×k convolution when deployed",
    parameters: &[Parameter::new("k", Range::Odd(11.0))],
    check: |arguments| match arguments.whole("k") {
        1 => Err("with a 1×1 kernel all branches are the same".into()),
        _ => Ok(()),
    },
    members: |preset| match preset {
        Preset::Extended => listed(&["acnet-k3", "acnet-k5"]),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: |start| start_branches_as_shortcut(start, &NORMS),
};

/// The BatchNorms of the branches.
const NORMS: [&str; 3] = ["bn_dense", "bn_row", "bn_column"];

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let kernel = arguments.whole("k");
    let [dense, row, column] = NORMS;
    site.graph(|b, x| {
        let mut sum = conv_bn(b, x, ["conv_dense", dense], Conv::dense(site.out, kernel, site.stride))?;
        for (names, [height, width]) in [
            (["conv_row", row, "add_row"], [1, kernel]),
            (["conv_column", column, "add_column"], [kernel, 1]),
        ] {
            let conv = Conv2d {
                in_channels: site.channels,
                out_channels: site.out,
                kernel: [height, width],
                stride: [site.stride; 2],
                dilation: [1; 2],
                padding: [height / 2, width / 2, height / 2, width / 2],
                groups: 1,
                bias: false,
            };
            let y = b.node(names[0], Op::Conv2d(conv), &[x])?;
            let y = b.batch_norm(names[1], y)?;
            sum = b.add(names[2], sum, y)?;
        }
        site.ending.build(b, x, sum)
    })
}
