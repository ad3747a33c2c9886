//! What a feature map holds on average, from weights alone.
//!
//! BatchNorm tells: a channel behind it has mean β and deviation γ over the images the teacher was trained on. Taken as
//! normal, what the activation makes of it follows (Nagel et al. 2019, "Data-Free Quantization", section 4.2). Edits of
//! the teacher's layer use it where others would run images.

use lana_graph::{Activation, Conv2d, Graph, Op, Value, Weights};

/// Mean and mean square of one channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) mean: f64,
    pub(super) power: f64,
}

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
    let of = |(scale, shift): (&f32, &f32)| behind(activation, f64::from(*shift), f64::from(*scale).abs());
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

/// Moments of what the activation makes of a normal variable: a sum over ±4 deviations.
fn behind(activation: Option<Activation>, mean: f64, deviation: f64) -> Moments {
    const STEPS: i32 = 40;
    let points = (-STEPS..=STEPS).map(|i| 4.0 * f64::from(i) / f64::from(STEPS));
    let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
    for z in points {
        let density = (-0.5 * z * z).exp();
        let x = mean + deviation * z;
        let y = activation.map_or(x, |kind| apply(kind, x));
        total += density;
        first += density * y;
        second += density * y * y;
    }
    Moments { mean: first / total, power: second / total }
}

/// The activation of a number. GELU is that of its usual approximation, near enough for an average.
pub(super) fn apply(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Gelu => x * sigmoid(1.702 * x),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_rectified_normal_are_the_known_ones() {
        let m = behind(Some(Activation::Relu), 0.0, 2.0);
        assert!((m.mean - 2.0 / (2.0 * std::f64::consts::PI).sqrt()).abs() < 1e-2, "{m:?}");
        assert!((m.power - 2.0).abs() < 1e-2, "{m:?}");
        let m = behind(None, 3.0, 2.0);
        assert!((m.mean - 3.0).abs() < 1e-9 && (m.power - 13.0).abs() < 1e-2, "{m:?}");
    }
}
