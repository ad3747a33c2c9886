//! RepVGG blocks (Ding et al. 2021), in LANA's pool: trained with branches, deployed as one convolution.
//!
//! Three branches are summed: a k×k convolution, a 1×1 convolution, and the input itself where the shape stays, each with
//! its BatchNorm. Behind the sum stands the layer's own activation, if it has one. [`lana_graph::deploy`] makes one k×k
//! convolution of them, which is what is timed and exported; training and the weights on disk keep the branches. The
//! layer's residual connection is a fourth branch: without BatchNorm it lets the block start as its shortcut, and where
//! it is the identity it too goes into the one convolution.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::{KERNELS, grid};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_branches_as_shortcut};
use crate::blocks::{Conv, conv_bn};

pub(super) static FAMILY: Family = Family {
    name: "repvgg",
    summary: "dense k×k and 1×1 convolutions and the input, summed: one k×k convolution when deployed",
    parameters: &[Parameter::new("k", Range::Odd(11.0))],
    check: any,
    members: |preset| match preset {
        Preset::Paper => grid("repvgg", &[("k", &KERNELS[1..])]),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: |start| start_branches_as_shortcut(start, &NORMS),
};

/// The BatchNorms of the branches.
const NORMS: [&str; 3] = ["bn_dense", "bn_1x1", "bn_identity"];

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let [dense, pointwise, identity] = NORMS;
    site.graph(|b, x| {
        let conv = Conv::dense(site.out, arguments.whole("k"), site.stride);
        let y = conv_bn(b, x, ["conv_dense", dense], conv)?;
        let point = conv_bn(b, x, ["conv_1x1", pointwise], Conv { kernel: 1, ..conv })?;
        let mut y = b.add("add_1x1", y, point)?;
        if site.stride == 1 && site.channels == site.out {
            let own = b.batch_norm(identity, x)?;
            y = b.add("add_identity", y, own)?;
        }
        site.ending.build(b, x, y)
    })
}
