//! The teacher's own block with its dense convolutions in two: k×k to few channels, then 1×1 to all of them.
//!
//! The responses of a convolution lie near a space of fewer dimensions than it has channels; Zhang et al. (2016,
//! "Accelerating Very Deep Convolutional Networks", section 3) compute them there and go back by a 1×1 convolution. Of
//! the ways to factorise a convolution (k×1 then 1×k: Jaderberg et al. 2014; in groups of channels: Kim et al. 2016) this
//! one keeps the k×k kernel, for which runtimes have their fastest code, and fits a stride.
//!
//! The space is found from weights alone, by a singular value decomposition: output channels count by the scale their
//! BatchNorm gives them, input channels by the power that theirs lets expect ([`moments`]). Where a layer has no
//! convolution larger than 1×1 but depthwise ones, its 1×1 convolutions are factorised; what would save no
//! multiply-accumulates stays as it is, and so do gates.

use lana_graph::{Conv2d, Graph, Node, Op, Tensor, Weights};

use super::edit::{pooled, push, rewrite};
use super::moments::{floored, input_strengths, keep_shares, norm_behind};
use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::principal::{Rows, directions, dot, transpose};
use super::{Family, NotApplicable, Preset, Start, any};
use crate::blocks::round_channels;

pub(super) static FAMILY: Family = Family {
    name: "lowrank",
    summary: "the teacher's own layer, its dense k×k convolutions (1×1 if there are no others) as k×k to the share r of \
              their channels and 1×1 to all",
    parameters: &[Parameter::new("r", Range::Positive(1.0))],
    check: any,
    members: |preset| match preset {
        Preset::Extended => listed(&["lowrank-r0.5", "lowrank-r0.25", "lowrank-r0.125"]),
        _ => Vec::new(),
    },
    initialisation: "the teacher's weights, the factors by singular value decomposition",
    build,
    initialise,
};

/// What is put behind the name of a convolution for its first factor.
const BASIS: &str = "_basis";

/// The convolutions to factorise, each with the channels between its factors.
fn plan(layer: &Graph, arguments: &Arguments) -> Vec<(usize, usize)> {
    let pooled = pooled(layer);
    let convs: Vec<(usize, &Conv2d)> = layer
        .nodes()
        .iter()
        .enumerate()
        .filter_map(|(index, node)| match &node.op {
            Op::Conv2d(conv) if !pooled[index] && !conv.is_depthwise() => Some((index, conv)),
            _ => None,
        })
        .collect();
    let large = convs.iter().any(|(_, c)| c.kernel != [1, 1]);
    let rank = |conv: &Conv2d| {
        let inputs = conv.in_channels / conv.groups * conv.kernel[0] * conv.kernel[1];
        let outputs = conv.out_channels / conv.groups;
        let full = outputs.min(inputs);
        round_channels(full as f64 * arguments.number("r")).min(full)
    };
    // At full rank the factors are the convolution itself, however much they cost: what tests compare.
    let saves = |conv: &Conv2d, rank: usize| {
        let inputs = conv.in_channels / conv.groups * conv.kernel[0] * conv.kernel[1];
        let outputs = conv.out_channels / conv.groups;
        arguments.number("r") == 1.0 || rank * (inputs + outputs) < inputs * outputs
    };
    let chosen = convs.into_iter().filter(|(_, c)| !large || c.kernel != [1, 1]);
    chosen
        .map(|(n, c)| (n, rank(c), c))
        .filter(|(_, r, c)| saves(c, *r))
        .map(|(n, r, c)| (n, r * c.groups))
        .collect()
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let plan = plan(layer, arguments);
    if plan.is_empty() {
        return Err(NotApplicable::new(
            "the layer has no dense convolution that two factors would make cheaper",
        ));
    }
    Ok(rewrite(layer, |index, mut node, nodes| {
        if let (Some((_, inner)), Op::Conv2d(conv)) = (plan.iter().find(|p| p.0 == index), &mut node.op) {
            let first = Conv2d { out_channels: *inner, bias: false, ..conv.clone() };
            let name = format!("{}{BASIS}", node.name);
            let basis = push(nodes, Node { name, op: Op::Conv2d(first), inputs: node.inputs.clone() });
            let point =
                Conv2d { kernel: [1; 2], stride: [1; 2], dilation: [1; 2], padding: [0; 4], ..conv.clone() };
            *conv = Conv2d { in_channels: *inner, ..point };
            node.inputs = vec![basis];
        }
        push(nodes, node)
    })?)
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let (layer, mut weights) = (start.layer, start.layer_weights.clone());
    for (index, inner) in plan(layer, start.arguments) {
        let node = &layer.nodes()[index];
        let Op::Conv2d(conv) = &node.op else { continue };
        let name = format!("{}.weight", node.name);
        let Some(kernel) = weights.remove(&name) else { continue };
        let area = conv.kernel[0] * conv.kernel[1];
        let inputs: Vec<f64> = input_strengths(layer, start.layer_weights, index, conv)
            .into_iter()
            .flat_map(|s| std::iter::repeat_n(s, area))
            .collect();
        let outputs = output_strengths(layer, start.layer_weights, index, conv);
        let (rank, per_group) = (inner / conv.groups, conv.out_channels / conv.groups);
        let width = kernel.data.len() / conv.out_channels;
        let (mut first, mut second, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for group in 0..conv.groups {
            let rows: Rows = kernel.data[group * per_group * width..][..per_group * width]
                .chunks_exact(width)
                .map(|row| row.iter().map(|w| f64::from(*w)).collect())
                .collect();
            let Factors { into, out, shares } =
                factors(&rows, &inputs[group * width..][..width], &outputs[group * per_group..], rank);
            left.extend(shares);
            first.extend(into.into_iter().flatten().map(|w| w as f32));
            second.extend(out.into_iter().flatten().map(|w| w as f32));
        }
        let shape = [&[inner], &kernel.shape[1..]].concat();
        weights.insert(format!("{}{BASIS}.weight", node.name), Tensor { shape, data: first });
        weights.insert(name, Tensor { shape: vec![conv.out_channels, rank, 1, 1], data: second });
        keep_shares(layer, &mut weights, index, &left);
    }
    Ok(weights)
}

/// What the BatchNorm behind a convolution multiplies each of its channels by.
fn output_strengths(layer: &Graph, weights: &Weights, conv_node: usize, conv: &Conv2d) -> Vec<f64> {
    let factors = norm_behind(layer, conv_node).and_then(|(name, eps)| {
        let scale = &weights.get(&format!("{name}.weight"))?.data;
        let variance = &weights.get(&format!("{name}.running_var"))?.data;
        let one = |(s, v): (&f32, &f32)| f64::from(*s).abs() / (f64::from(*v) + eps).sqrt();
        Some(scale.iter().zip(variance).map(one).collect())
    });
    factors.map_or_else(|| vec![1.0; conv.out_channels], floored)
}

/// Two matrices in the place of one.
struct Factors {
    /// The one that works on the inputs.
    into: Rows,
    /// The one that makes the outputs.
    out: Rows,
    /// What is left of the power of each output.
    shares: Vec<f64>,
}

/// The two factors of a matrix, `rank` rows and `rank` columns, whose product is nearest to it with columns and rows
/// counted by their strengths.
fn factors(rows: &Rows, inputs: &[f64], outputs: &[f64], rank: usize) -> Factors {
    let weighted: Rows = rows
        .iter()
        .zip(outputs)
        .map(|(row, out)| row.iter().zip(inputs).map(|(w, x)| w * x * out).collect())
        .collect();
    let columns = transpose(&weighted);
    // Each component a row, from the smaller side: as a function of the inputs, and what it adds to the outputs.
    let (mut first, mut second): (Rows, Rows) = match rows.len() <= inputs.len() {
        true => {
            let kept: Rows = directions(&weighted).into_iter().take(rank).collect();
            (kept.iter().map(|d| columns.iter().map(|c| dot(d, c)).collect()).collect(), kept)
        }
        false => {
            let kept: Rows = directions(&columns).into_iter().take(rank).collect();
            let added = kept.iter().map(|d| weighted.iter().map(|row| dot(d, row)).collect()).collect();
            (kept, added)
        }
    };
    // Components have nothing in common, so that their powers add up.
    let strengths: Vec<f64> = first.iter().map(|d| dot(d, d)).collect();
    let left = |o: usize| second.iter().zip(&strengths).map(|(d, s)| d[o] * d[o] * s).sum::<f64>();
    let shares = weighted.iter().enumerate().map(|(o, row)| left(o) / dot(row, row).max(f64::MIN_POSITIVE));
    let shares = shares.collect();
    for (into, out) in first.iter_mut().zip(&mut second) {
        into.iter_mut().zip(inputs).for_each(|(w, x)| *w /= x);
        out.iter_mut().zip(outputs).for_each(|(w, y)| *w /= y);
        // Neither much larger than the other, so that both learn.
        let (a, b) = (dot(into, into).sqrt(), dot(out, out).sqrt());
        if a > 0.0 && b > 0.0 {
            let factor = (b / a).sqrt();
            into.iter_mut().for_each(|w| *w *= factor);
            out.iter_mut().for_each(|w| *w /= factor);
        }
    }
    Factors { into: first, out: transpose(&second), shares }
}
