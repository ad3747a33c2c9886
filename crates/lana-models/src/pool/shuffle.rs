//! Two convolutions in groups with a permutation of the channels between them: `conv_cs` in LANA's pool.
//!
//! The paper says "CBR pairs with perturbations" and no more. We read it as convolution and channel shuffle, a
//! *permutation* of the channels, as in ShuffleNet (Zhang et al. 2018): convolution-BatchNorm-activation twice, each
//! convolution in groups, and the shuffle between them, without which no group would ever see another's channels. Four
//! groups: ShuffleNet's tables find more groups better at equal cost, and runtimes want whole blocks of channels; two
//! where four do not divide the channels. Where the layer ends without an activation, so does the second convolution, or
//! its range could not be the layer's.
//!
//! The channels between are a multiple of the groups, no more: where there are fewer than the square of them, a group hears
//! from as many others as it has channels. (To let every group hear from all would take 16 channels at least, so that
//! all widths up to 1 were the same in a layer of 16.)

use lana_graph::{Graph, Op};

use super::name::{Arguments, Parameter, Range};
use super::preset::{KERNELS, dense};
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, any, start_as_shortcut};
use crate::blocks::{Conv, conv_bn, conv_bn_act, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "shuffle",
    summary: "two k×k convolutions in four groups, shuffled between them, with the share w of the output's channels there",
    parameters: &[Parameter::new("k", Range::Odd(11.0)), Parameter::new("w", Range::Positive(4.0))],
    check: any,
    members: |preset| match preset {
        Preset::Paper => dense("shuffle", &KERNELS, |k, w| 2.0 * k * k * w / 4.0),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: start_as_shortcut,
};

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let kernel = arguments.whole("k");
    let divides = |g: &usize| site.channels % g == 0 && site.out % g == 0;
    let groups = [4, 2].into_iter().find(divides).ok_or_else(|| {
        let (channels, out) = (site.channels, site.out);
        NotApplicable::new(format!("{channels} to {out} channels cannot be divided into two groups"))
    })?;
    let wanted = site.out as f64 * arguments.number("w");
    // From 16 on that is a multiple of the groups already.
    let hidden = match round_channels(wanted) {
        wide if wide >= 16 => wide,
        _ => ((wanted / groups as f64).round() as usize).max(1) * groups,
    };
    site.graph(|b, x| {
        let first = Conv { out: hidden, kernel, stride: site.stride, groups };
        let mut y = conv_bn_act(b, x, ["conv1", "bn1", "act1"], first, site.activation)?;
        // Of a single channel in each group there is nothing to shuffle.
        if hidden > groups {
            y = b.node("shuffle", Op::ShuffleChannels { outer: groups, inner: hidden / groups }, &[y])?;
        }
        let second = Conv { out: site.out, kernel, stride: 1, groups };
        let y = conv_bn(b, y, ["conv2", "bn2"], second)?;
        site.ending.build(b, x, y)
    })
}
