//! Convolution, normalisation, activation: the triple everything else is made of.

use lana_graph::{Activation, GraphBuilder, Result, Value};

/// Geometry of a square convolution, padded by half its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    /// Output channels.
    pub out: usize,
    /// Height and width of the kernel.
    pub kernel: usize,
    /// Step in height and width.
    pub stride: usize,
    /// Groups of channels; 1 for a dense convolution.
    pub groups: usize,
}

impl Conv {
    /// A dense convolution to `out` channels.
    pub fn dense(out: usize, kernel: usize, stride: usize) -> Self {
        Conv { out, kernel, stride, groups: 1 }
    }

    /// A 1×1 convolution to `out` channels.
    pub fn pointwise(out: usize) -> Self {
        Self::dense(out, 1, 1)
    }

    /// A convolution of each of the `channels` on its own.
    pub fn depthwise(channels: usize, kernel: usize, stride: usize) -> Self {
        Conv { out: channels, kernel, stride, groups: channels }
    }
}

/// A convolution and its BatchNorm; `names` are theirs.
pub fn conv_bn(b: &mut GraphBuilder, x: Value, names: [&str; 2], conv: Conv) -> Result<Value> {
    let y = b.conv(names[0], x, conv.out, conv.kernel, conv.stride, conv.groups)?;
    b.batch_norm(names[1], y)
}

/// A convolution, its BatchNorm and an activation; `names` are theirs.
pub fn conv_bn_act(
    b: &mut GraphBuilder,
    x: Value,
    names: [&str; 3],
    conv: Conv,
    activation: Activation,
) -> Result<Value> {
    let y = conv_bn(b, x, [names[0], names[1]], conv)?;
    b.activation(names[2], y, activation)
}

/// The multiple of 8 nearest to `wanted`, at least 8, and the next one where that would be less than the share `least` of
/// it: timm's `make_divisible`, the rule by which EfficientNets and MobileNets round their channels (`least` is 0.9 but
/// for the small EfficientNetV2s, which round down freely).
pub fn make_divisible(wanted: f64, least: f64) -> usize {
    let nearest = ((wanted + 4.0) as usize / 8 * 8).max(8);
    if (nearest as f64) < least * wanted { nearest + 8 } else { nearest }
}

/// A number of channels near `wanted`: a multiple of 8 from 16 on, a whole number below, at least 1.
///
/// Kernels of all common runtimes work on blocks of 8 or 16 channels, so that a channel more or less either costs a
/// whole block or saves nothing. Below 16 the rounding would change the block more than it helps.
pub fn round_channels(wanted: f64) -> usize {
    if wanted >= 16.0 { (wanted / 8.0).round() as usize * 8 } else { (wanted.round() as usize).max(1) }
}
