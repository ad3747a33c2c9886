//! The teacher's own block with fewer versions in its split attention: LANA finds that ResNeSt's layers do with fewer
//! splits than they have ("cardinality 4 → 1 or 2 in most blocks").
//!
//! Split attention (Zhang et al. 2020) makes `radix` versions of each channel, each by a convolution of its own share of the
//! inputs, and adds them up with weights that sum to one. Here the versions are merged, as many to one as it takes, into
//! convolutions of the inputs of all of them: as many multiply-accumulates and weights, but a smaller feature map to
//! normalise, pool, weigh and add up; and with a single version neither softmax nor sum.
//!
//! The merged convolution gives the versions' sum before their activation, each scaled by its BatchNorm and by the weight that
//! it has for the average image; its BatchNorm is set so that mean and variance behind the activation are those of the
//! weighted sum of the activated versions. For two versions of equal strength what it gives then explains 82 % of the
//! variance of that sum, one version alone would half of it. Of the attention the logits of merged versions are averaged;
//! a single version has no other to be weighed against, and its gate begins half open.

use lana_graph::moments::Moments;
use lana_graph::{Activation, Graph, Node, Op, Tensor, Value, Weights};

use super::edit::{push, rewrite};
use super::moments::moments;
use super::name::{Arguments, Parameter, Range};
use super::own::{average_gate, scale_inputs};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start, any};

pub(super) static FAMILY: Family = Family {
    name: "radix",
    summary: "the teacher's own layer with r versions of each channel in its split attention in the place of more",
    parameters: &[Parameter::new("r", Range::Whole(8.0))],
    check: any,
    members: |preset| match preset {
        Preset::Extended => listed(&["radix-r1", "radix-r2"]),
        _ => Vec::new(),
    },
    initialisation: "the teacher's weights, its versions of a channel merged: kernels side by side, BatchNorm so that mean \
                     and variance behind the activation stay",
    build,
    initialise,
};

/// A split attention, by the numbers of its nodes.
struct Split {
    radix: usize,
    conv: usize,
    norm: usize,
    /// The versions, activated.
    versions: Value,
    pool: usize,
    pool_sum: usize,
    fc1: usize,
    fc2: usize,
    softmax: usize,
    sum: usize,
}

/// The layer's split attentions with more than `fewer` versions that can be merged to so many.
fn splits(layer: &Graph, fewer: usize) -> Vec<Split> {
    let (nodes, uses) = (layer.nodes(), layer.uses());
    let maker = |value: Value| value.node().map(|n| (n, &nodes[n]));
    let reader = |value: Value, wanted: fn(&Op) -> bool| {
        (0..nodes.len()).find(|&n| nodes[n].inputs.contains(&value) && wanted(&nodes[n].op))
    };
    let one = |sum: usize| {
        let Op::SumParts { parts: radix } = nodes[sum].op else { return None };
        let (_, product) = maker(nodes[sum].inputs[0]).filter(|(_, n)| n.op == Op::Mul)?;
        let is_softmax =
            |v: &Value| maker(*v).is_some_and(|(_, n)| n.op == Op::SoftmaxParts { parts: radix });
        let softmax = product.inputs.iter().copied().find(is_softmax)?.node()?;
        let versions = product.inputs.iter().copied().find(|v| !is_softmax(v))?;
        let relu = Op::Activation { kind: Activation::Relu };
        let (_, activation) = maker(versions).filter(|(v, n)| n.op == relu && uses[v + 1] == 2)?;
        let is_norm = |n: &Node| matches!(n.op, Op::BatchNorm { .. });
        let (norm, normalised) = maker(activation.inputs[0]).filter(|(_, n)| is_norm(n))?;
        let (conv, _) = maker(normalised.inputs[0]).filter(|(_, n)| match &n.op {
            // In more groups than there are versions, the groups of one version are not side by side.
            Op::Conv2d(c) => c.groups == radix && !c.bias,
            _ => false,
        })?;
        let pool = reader(versions, |op| *op == Op::GlobalAveragePool)?;
        let pool_sum = reader(Value::of_node(pool), |op| matches!(op, Op::SumParts { .. }))?;
        let fc1 = reader(Value::of_node(pool_sum), |op| matches!(op, Op::Conv2d(_)))?;
        let (fc2, _) = maker(nodes[softmax].inputs[0]).filter(|(_, n)| matches!(n.op, Op::Conv2d(_)))?;
        let mergeable = radix > fewer && radix.is_multiple_of(fewer);
        let split = Split { radix, conv, norm, versions, pool, pool_sum, fc1, fc2, softmax, sum };
        mergeable.then_some(split)
    };
    (0..nodes.len()).filter_map(one).collect()
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let fewer = arguments.whole("r");
    let splits = splits(layer, fewer);
    if splits.is_empty() {
        return Err(NotApplicable::new(format!(
            "the layer has no split attention whose versions, in no further groups, could be merged to {fewer}"
        )));
    }
    Ok(rewrite(layer, |index, mut node, nodes| {
        for split in &splits {
            let times = split.radix / fewer;
            match &mut node.op {
                Op::Conv2d(conv) if index == split.conv => {
                    conv.groups /= times;
                    conv.out_channels /= times;
                }
                Op::Conv2d(conv) if index == split.fc2 => conv.out_channels /= times,
                Op::SumParts { .. } if fewer == 1 && (index == split.pool_sum || index == split.sum) => {
                    return node.inputs[0];
                }
                op if fewer == 1 && index == split.softmax => {
                    *op = Op::Activation { kind: Activation::Sigmoid };
                }
                Op::SumParts { parts } if index == split.pool_sum || index == split.sum => *parts = fewer,
                Op::SoftmaxParts { parts } if index == split.softmax => *parts = fewer,
                _ => {}
            }
        }
        push(nodes, node)
    })?)
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let (layer, fewer, mut weights) = (start.layer, start.arguments.whole("r"), start.layer_weights.clone());
    for split in splits(layer, fewer) {
        merge(layer, start.layer_weights, &split, fewer, &mut weights);
    }
    Ok(weights)
}

/// Merges the versions of one split attention; none if the weights are not those of its nodes.
fn merge(layer: &Graph, theirs: &Weights, split: &Split, fewer: usize, ours: &mut Weights) -> Option<()> {
    let nodes = layer.nodes();
    let of = |node: usize, suffix: &str| theirs.get(&format!("{}.{suffix}", nodes[node].name));
    let kernel = of(split.conv, "weight")?;
    let [scale, mean, variance] =
        ["weight", "running_mean", "running_var"].map(|suffix| of(split.norm, suffix));
    let (scale, mean, variance) = (scale?, mean?, variance?);
    let Op::BatchNorm { eps, .. } = nodes[split.norm].op else { return None };
    let (all, row) = (kernel.shape[0], kernel.data.len() / kernel.shape[0]);
    let (channels, times) = (all / split.radix, split.radix / fewer);
    let shares = average_gate(layer, theirs, split.versions, split.pool, Value::of_node(split.softmax))
        .unwrap_or_else(|| vec![1.0 / split.radix as f64; all]);
    let activated = moments(layer, theirs, split.versions)?;

    let mut merged = Tensor { shape: kernel.shape.clone(), data: Vec::new() };
    merged.shape[0] = channels * fewer;
    merged.shape[1] *= times;
    let mut norm: [Vec<f32>; 4] = Default::default();
    // What the pooling sees of each channel, before and after.
    let mut pooled = vec![[0.0; 2]; channels];
    for version in 0..fewer {
        for (channel, pooled) in pooled.iter_mut().enumerate() {
            let from: Vec<usize> =
                (version * times..(version + 1) * times).map(|old| old * channels + channel).collect();
            let factor = |&o: &usize| {
                shares[o] * f64::from(scale.data[o]) / (f64::from(variance.data[o]) + eps).sqrt()
            };
            // Kernels as large as before: how they compare counts, the BatchNorm does the rest.
            let length = from.iter().map(|o| factor(o).powi(2)).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            let (mut middle, mut spread) = (0.0, 0.0);
            for o in &from {
                let factor = factor(o) / length;
                merged
                    .data
                    .extend(kernel.data[o * row..][..row].iter().map(|w| (f64::from(*w) * factor) as f32));
                middle += factor * f64::from(mean.data[*o]);
                spread += (shares[*o] * f64::from(scale.data[*o]) / length).powi(2);
            }
            // The gate or the weight that the merged version will have.
            let weight = match fewer {
                1 => 0.5,
                _ => from.iter().map(|&o| shares[o]).sum::<f64>().max(f64::MIN_POSITIVE),
            };
            let target = from.iter().fold((0.0, 0.0), |(mean, variance), &o| {
                let share = shares[o] / weight;
                (mean + share * activated[o].mean, variance + share * share * activated[o].variance())
            });
            let (deviation, offset) = before_relu(target.0, target.1);
            for (list, value) in norm.iter_mut().zip([deviation, offset, middle, (spread - eps).max(0.0)]) {
                list.push(value as f32);
            }
            pooled[0] += from.iter().map(|&o| activated[o].mean).sum::<f64>();
            pooled[1] += target.0;
        }
    }
    let name = |node: usize, suffix: &str| format!("{}.{suffix}", nodes[node].name);
    ours.insert(name(split.conv, "weight"), merged);
    for (suffix, data) in ["weight", "bias", "running_mean", "running_var"].into_iter().zip(norm) {
        ours.insert(name(split.norm, suffix), Tensor { shape: vec![channels * fewer], data });
    }
    let ratios: Vec<f64> = pooled.iter().map(|[was, is]| if *is > 0.0 { was / is } else { 1.0 }).collect();
    scale_inputs(&nodes[split.fc1], &ratios, ours);
    for suffix in ["weight", "bias"] {
        let Some(logits) = of(split.fc2, suffix) else { continue };
        let width = logits.data.len() / all;
        let mut tensor = Tensor { shape: logits.shape.clone(), data: Vec::new() };
        tensor.shape[0] = channels * fewer;
        for place in 0..channels * fewer * width {
            let (at, column) = (place / width, place % width);
            let (version, channel) = (at / channels, at % channels);
            let old = (version * times..(version + 1) * times)
                .map(|old| logits.data[(old * channels + channel) * width + column]);
            tensor.data.push(if fewer == 1 { 0.0 } else { old.sum::<f32>() / times as f32 });
        }
        ours.insert(name(split.fc2, suffix), tensor);
    }
    Some(())
}

/// Deviation and mean of the normal variable of which ReLU makes one of this mean and variance.
fn before_relu(mean: f64, variance: f64) -> (f64, f64) {
    let relu = |middle: f64| Moments::behind(Some(Activation::Relu), middle, 1.0);
    let ratio = mean / variance.sqrt();
    if !ratio.is_finite() {
        return (0.0, mean);
    }
    // Mean over deviation grows with how far the variable is from zero; beyond these ends ReLU is a line, or shut.
    let (mut low, mut high) = (-4.0, 8.0_f64.max(ratio));
    for _ in 0..40 {
        let middle = 0.5 * (low + high);
        let behind = relu(middle);
        match behind.mean < ratio * behind.variance().sqrt() {
            true => low = middle,
            false => high = middle,
        }
    }
    let deviation = (variance / relu(low).variance().max(f64::MIN_POSITIVE)).sqrt();
    (deviation, low * deviation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_relu_makes_is_found_back() {
        for (mean, deviation) in [(0.0, 1.0), (-0.7, 2.0), (3.0, 0.5), (20.0, 1.0)] {
            let behind = Moments::behind(Some(Activation::Relu), mean, deviation);
            let (found_deviation, found_mean) = before_relu(behind.mean, behind.variance());
            assert!((found_mean - mean).abs() < 1e-3, "{found_mean} for {mean}");
            assert!((found_deviation - deviation).abs() < 1e-3, "{found_deviation} for {deviation}");
        }
        assert_eq!(before_relu(0.25, 0.0), (0.0, 0.25));
        assert_eq!(before_relu(0.0, 0.0), (0.0, 0.0));
    }
}
