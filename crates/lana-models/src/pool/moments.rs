//! What a feature map holds on average, from weights alone.
//!
//! BatchNorm tells: a channel behind it has mean β and deviation γ over the images the teacher was trained on. Taken as
//! normal, what the activation makes of it follows (Nagel et al. 2019, "Data-Free Quantization", section 4.2). Edits of
//! the teacher's layer use it where others would run images.

use lana_graph::moments::Moments;
use lana_graph::{Conv2d, Graph, Op, Value, Weights};

/// The moments of every channel of `value`; none where no BatchNorm, or one with an activation, makes it.
pub(super) fn moments(layer: &Graph, weights: &Weights, value: Value) -> Option<Vec<Moments>> {
    let mut node = &layer.nodes()[value.node()?];
    let mut activation = None;
    if let Op::Activation { kind } = node.op {
        activation = Some(kind);
        node = &layer.nodes()[node.inputs[0].node()?];
    }
    let Op::BatchNorm { .. } = node.op else { return None };
    let scale = weights.get(&format!("{}.weight", node.name))?;
    let shift = weights.get(&format!("{}.bias", node.name))?;
    let of = |(scale, shift): (&f32, &f32)| Moments::behind(activation, f64::from(*shift), f64::from(*scale));
    Some(scale.data.iter().zip(&shift.data).map(of).collect())
}

/// Root mean square to be expected of each input channel of a convolution, one where nothing is known; never quite zero,
/// so that it may be divided by.
pub(super) fn input_strengths(layer: &Graph, weights: &Weights, node: usize, conv: &Conv2d) -> Vec<f64> {
    match moments(layer, weights, layer.nodes()[node].inputs[0]) {
        Some(moments) => floored(moments.iter().map(|m| m.power.sqrt()).collect()),
        None => vec![1.0; conv.in_channels],
    }
}

/// Nothing less than a thousandth of the largest.
pub(super) fn floored(mut strengths: Vec<f64>) -> Vec<f64> {
    let least = strengths.iter().copied().fold(0.0, f64::max) * 1e-3;
    strengths.iter_mut().for_each(|s| *s = s.max(least).max(1e-12));
    strengths
}

/// The BatchNorm behind a convolution.
pub(super) fn norm_behind(layer: &Graph, conv_node: usize) -> Option<(&str, f64)> {
    let value = Value::of_node(conv_node);
    layer.nodes().iter().find_map(|n| match n.op {
        Op::BatchNorm { eps, .. } if n.inputs[0] == value => Some((n.name.as_str(), eps)),
        _ => None,
    })
}

/// Tells the BatchNorm behind a convolution that only these shares of its channels' power are left.
///
/// Of a sum of two uncorrelated parts the one that is left is the best guess as it is. A BatchNorm by the statistics of
/// the batch, as in training, would blow it up to the power of both: so its scale shrinks with what is left, and its
/// running variance, which changes nothing where that is used.
pub(super) fn keep_shares(layer: &Graph, weights: &mut Weights, conv_node: usize, shares: &[f64]) {
    let Some((norm, _)) = norm_behind(layer, conv_node) else { return };
    for (suffix, power) in [("weight", 0.5), ("running_var", 1.0)] {
        let name = format!("{norm}.{suffix}");
        if let Some(mut tensor) = weights.remove(&name) {
            let scaled = |(x, share): (&mut f32, &f64)| *x *= share.clamp(1e-4, 1.0).powf(power) as f32;
            tensor.data.iter_mut().zip(shares).for_each(scaled);
            weights.insert(name, tensor);
        }
    }
}
