//! Which channels belong together.
//!
//! Element-wise work, normalisation, depthwise convolution and gating tie the channels of their inputs to those of their
//! outputs; a dense convolution makes new ones. Values tied that way share a *group*. A group that holds neither the
//! network's input nor its output is *inner*: its channels may be thinned out without any change to the outside, which
//! is how a block is narrowed (`narrow`).
//!
//! What is thinned out is not channels but *places*. A convolution in groups needs as many channels in each of them, a sum
//! or softmax over parts the same channels in every part. So the places of a channel group are as many as the shortest run
//! of channels that has to look like the others, a value's channel `c` has the place `c` modulo their number, and a
//! place goes or stays in every run. Where there is no such operation, each channel has a place of its own.

use crate::moments::Moments;
use crate::{Conv2d, Error, Graph, Node, Op, Result, Tensor, Value, Weights};

/// The channel groups of a network.
#[derive(Clone, Debug)]
pub struct ChannelGroups {
    of_value: Vec<usize>,
    /// By the number of the group: none for values that name none.
    places: Vec<usize>,
    inner: Vec<usize>,
}

impl ChannelGroups {
    /// Finds the groups of `graph`.
    pub fn of(graph: &Graph) -> Self {
        let mut parent: Vec<usize> = (0..=graph.nodes().len()).collect();
        fn root(parent: &mut [usize], mut v: usize) -> usize {
            while parent[v] != v {
                parent[v] = parent[parent[v]];
                v = parent[v];
            }
            v
        }
        // Values whose channels cannot be followed: what comes out of, or goes into, such an operation.
        let mut fixed = vec![Value::INPUT.index(), graph.output().index()];
        // Values with the length of their runs.
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for (index, node) in graph.nodes().iter().enumerate() {
            let out = index + 1;
            let from = node.inputs.first().map_or(0, |v| v.index());
            match &node.op {
                Op::Conv2d(c) if c.is_depthwise() => {}
                Op::Conv2d(c) => {
                    runs.push((from, c.in_channels / c.groups));
                    runs.push((out, c.out_channels / c.groups));
                    continue;
                }
                Op::SumParts { parts } | Op::SoftmaxParts { parts } => {
                    runs.push((from, graph.shape(Value(from)).channels() / parts));
                }
                // Channels change places but within a run.
                Op::ShuffleChannels { outer, inner } => {
                    runs.push((from, graph.shape(Value(from)).channels() / (outer * inner)));
                }
                Op::Flatten
                | Op::Linear { .. }
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Select { .. }
                | Op::MatMul
                | Op::Softmax { .. }
                | Op::LogSoftmax { .. }
                | Op::LayerNorm { .. }
                | Op::Concat { .. }
                | Op::AddParameter { .. }
                | Op::MulParameter { .. }
                | Op::Conv3d { .. }
                | Op::PadChannels { .. }
                | Op::Pad { .. }
                | Op::Mean { .. } => {
                    fixed.extend(node.inputs.iter().map(|v| v.index()));
                    fixed.push(out);
                    continue;
                }
                Op::BatchNorm { .. }
                | Op::Activation { .. }
                | Op::Add
                | Op::Mul
                | Op::Scale { .. }
                | Op::Shift { .. }
                | Op::Power { .. }
                | Op::Resize { .. }
                | Op::MaxPool { .. }
                | Op::AveragePool { .. }
                | Op::GlobalAveragePool
                | Op::Subsample { .. }
                | Op::Dropout { .. }
                | Op::DropPath { .. } => {}
            }
            for input in &node.inputs {
                let (a, b) = (root(&mut parent, out), root(&mut parent, input.index()));
                parent[a.max(b)] = a.min(b);
            }
        }
        let of_value: Vec<usize> = (0..parent.len()).map(|v| root(&mut parent, v)).collect();
        let fixed: std::collections::HashSet<usize> = fixed.into_iter().map(|v| of_value[v]).collect();
        let mut places = vec![0; of_value.len()];
        let whole = (0..of_value.len()).map(|v| (v, graph.shape(Value(v)).channels()));
        for (value, run) in whole.chain(runs) {
            let of_group = &mut places[of_value[value]];
            *of_group = greatest_common_divisor(*of_group, run);
        }
        let mut inner: Vec<usize> =
            of_value.iter().copied().filter(|g| !fixed.contains(g) && places[*g] > 1).collect();
        inner.sort_unstable();
        inner.dedup();
        ChannelGroups { of_value, places, inner }
    }

    /// The group a value belongs to, named by the first value in it.
    pub fn group(&self, value: Value) -> usize {
        self.of_value[value.index()]
    }

    /// Groups that may be thinned out, in the order of the network.
    pub fn inner(&self) -> &[usize] {
        &self.inner
    }

    /// How many places a group has: as many as its values have channels, unless these are in runs that look alike.
    pub fn places(&self, group: usize) -> usize {
        self.places[group]
    }
}

fn greatest_common_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

/// How much each place of an inner group contributes to what the group's readers make of it, from weights alone.
///
/// A channel's power is that to be expected behind its BatchNorm and activation ([`Moments`]), and its contribution to a
/// reader with kernel `w` that times `‖w[:, c]‖²`. Contributions of several readers, and of the channels of a place, add.
/// Channels no dense convolution reads weigh nothing.
pub fn importance(graph: &Graph, weights: &Weights, group: usize) -> Vec<f64> {
    let groups = ChannelGroups::of(graph);
    let first = graph.shape(Value(group));
    let mut power = vec![1.0; first.channels()];
    let mut strength = vec![0.0; groups.places(group)];
    for (index, node) in graph.nodes().iter().enumerate() {
        let out = Value::of_node(index);
        match &node.op {
            Op::BatchNorm { .. } if groups.group(out) == group => {
                let (Some(scale), Some(shift)) = (
                    weights.get(&format!("{}.weight", node.name)),
                    weights.get(&format!("{}.bias", node.name)),
                ) else {
                    continue;
                };
                let activation = graph.nodes().iter().find_map(|n| match n.op {
                    Op::Activation { kind } if n.inputs[0] == out => Some(kind),
                    _ => None,
                });
                let of = |(scale, shift): (&f32, &f32)| {
                    Moments::behind(activation, f64::from(*shift), f64::from(*scale)).power
                };
                power = scale.data.iter().zip(&shift.data).map(of).collect();
            }
            Op::Conv2d(conv) if !conv.is_depthwise() && groups.group(node.inputs[0]) == group => {
                // The readers inside gates (squeeze-and-excitation) see the pooled value, not the channel itself.
                let (_, height, width) = graph.shape(node.inputs[0]).as_image().unwrap_or((0, 1, 1));
                if height * width == 1 && first.elements() > first.channels() {
                    continue;
                }
                let Some(kernel) = weights.get(&format!("{}.weight", node.name)) else { continue };
                let (inner, outer) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
                // What is read may be a sum of runs that were normalised each on its own.
                let shared = power.len().min(conv.in_channels);
                let area = conv.kernel[0] * conv.kernel[1];
                for (at, chunk) in kernel.data.chunks_exact(area).enumerate() {
                    let channel = at / inner / outer * inner + at % inner;
                    let power: f64 = power.iter().skip(channel % shared).step_by(shared).sum();
                    let read: f64 = chunk.iter().map(|w| f64::from(*w).powi(2)).sum();
                    strength[channel % groups.places(group)] += power * read;
                }
            }
            _ => {}
        }
    }
    strength
}

/// The network with only `keep` places of one inner group, in structure.
pub fn narrow(graph: &Graph, group: usize, keep: usize) -> Result<Graph> {
    let groups = ChannelGroups::of(graph);
    if !groups.inner().contains(&group) || keep == 0 || keep > groups.places(group) {
        return Err(Error::Graph {
            graph: graph.name().to_string(),
            reason: format!("channel group {group} cannot be narrowed to {keep} places"),
        });
    }
    let nodes = graph.nodes().iter().enumerate().map(|(index, node)| {
        let mut op = node.op.clone();
        if let Op::Conv2d(conv) = &mut op {
            let depthwise = conv.is_depthwise();
            let Conv2d { in_channels, out_channels, groups: conv_groups, .. } = conv;
            let fewer = |channels: usize| channels / groups.places(group) * keep;
            if groups.group(node.inputs[0]) == group {
                *in_channels = fewer(*in_channels);
                if depthwise {
                    *conv_groups = *in_channels;
                }
            }
            if groups.group(Value::of_node(index)) == group {
                *out_channels = fewer(*out_channels);
            }
        }
        Node { name: node.name.clone(), op, inputs: node.inputs.clone() }
    });
    Graph::new(
        graph.name(),
        graph.input_shape().clone(),
        nodes.collect(),
        graph.output(),
        graph.layers().to_vec(),
    )
}

/// The weights that belong to [`narrow`]: those of the places `keep` of the group, in that order.
pub fn narrow_weights(graph: &Graph, weights: &Weights, group: usize, keep: &[usize]) -> Weights {
    let groups = ChannelGroups::of(graph);
    let places = groups.places(group);
    let kept = |channels: usize| -> Vec<usize> {
        (0..channels / places).flat_map(|run| keep.iter().map(move |place| run * places + place)).collect()
    };
    let mut result = weights.clone();
    for parameter in graph.parameters() {
        let node = &graph.nodes()[parameter.node];
        let Some(tensor) = weights.get(&parameter.name) else { continue };
        let mut tensor: Tensor = tensor.clone();
        if groups.group(Value::of_node(parameter.node)) == group {
            tensor = tensor.select(0, &kept(parameter.shape[0]));
        }
        let dense = matches!(&node.op, Op::Conv2d(c) if !c.is_depthwise());
        if dense && parameter.shape.len() == 4 && groups.group(node.inputs[0]) == group {
            // The inputs of one group of the convolution, in which places are as in any other.
            tensor = tensor.select(1, &kept(parameter.shape[1]));
        }
        result.insert(parameter.name, tensor);
    }
    result
}
