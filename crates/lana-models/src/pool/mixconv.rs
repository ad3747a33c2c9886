//! Inverted residuals with depthwise kernels of several sizes (MixConv, Tan & Le 2019).
//!
//! The expanded channels are divided into equal parts, one for each kernel: small ones see detail, large ones the
//! surroundings. Instead of cutting the channels apart and putting them together again, each part has its own columns of
//! the two 1×1 convolutions, and the parts are added up behind the second: the same function with nothing to copy. Each
//! part has its own BatchNorm there, so that it is folded away.

use lana_graph::Graph;

use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::site::Site;
use super::{Family, NotApplicable, Preset, START_AS_SHORTCUT, start_branches_as_shortcut};
use crate::blocks::{Conv, conv_bn, conv_bn_act, round_channels};

pub(super) static FAMILY: Family = Family {
    name: "mixconv",
    summary: "inverted residual with expansion by e and depthwise kernels of 3×3, 5×5 … k×k, each for its part of the \
              channels",
    parameters: &[Parameter::new("e", Range::Positive(16.0)), Parameter::new("k", Range::Odd(11.0))],
    check: |arguments| match arguments.whole("k") < 5 {
        true => Err("there is nothing to mix below 5×5".into()),
        false => Ok(()),
    },
    members: |preset| match preset {
        Preset::Extended => listed(&["mixconv-e3-k5", "mixconv-e3-k7", "mixconv-e6-k5"]),
        _ => Vec::new(),
    },
    initialisation: START_AS_SHORTCUT,
    build,
    initialise: |start| start_branches_as_shortcut(start, &NORMS),
};

/// The BatchNorms of the branches, from the smallest kernel on.
const NORMS: [&str; 5] = ["k3.bn3", "k5.bn3", "k7.bn3", "k9.bn3", "k11.bn3"];

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let site = Site::of(layer)?;
    let kernels: Vec<usize> = (3..=arguments.whole("k")).step_by(2).collect();
    let hidden = round_channels(site.channels as f64 * arguments.number("e") / kernels.len() as f64);
    let activation = site.activation;
    site.graph(|b, x| {
        let mut sum = None;
        for kernel in kernels {
            let y = b.scoped(&format!("k{kernel}"), |b| {
                let y = conv_bn_act(b, x, ["conv_pw", "bn1", "act1"], Conv::pointwise(hidden), activation)?;
                let depthwise = Conv::depthwise(hidden, kernel, site.stride);
                let y = conv_bn_act(b, y, ["conv_dw", "bn2", "act2"], depthwise, activation)?;
                conv_bn(b, y, ["conv_pwl", "bn3"], Conv::pointwise(site.out))
            })?;
            sum = Some(match sum {
                Some(sum) => b.add(&format!("add_k{kernel}"), sum, y)?,
                None => y,
            });
        }
        site.ending.build(b, x, sum.unwrap_or(x))
    })
}
