//! Which channels belong together.
//!
//! Element-wise work, normalisation, depthwise convolution and gating tie the channels of their inputs to those of their
//! outputs; a dense convolution makes new ones. Values tied that way share a *group*. A group that holds neither the
//! network's input nor its output is *inner*: its channels may be thinned out without any change to the outside, which
//! is how a block is narrowed (`narrow`).

use crate::{Conv2d, Error, Graph, Node, Op, Result, Tensor, Value, Weights};

/// The channel groups of a network.
#[derive(Clone, Debug)]
pub struct ChannelGroups {
    of_value: Vec<usize>,
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
        // Values whose channels cannot be followed one to one: what comes out of, or goes into, such an operation.
        let mut fixed = vec![Value::INPUT.index(), graph.output().index()];
        for (index, node) in graph.nodes().iter().enumerate() {
            let out = index + 1;
            match &node.op {
                Op::Conv2d(c) if c.is_depthwise() => {}
                Op::Conv2d(c) if c.groups == 1 => continue,
                Op::Conv2d(_)
                | Op::SumParts { .. }
                | Op::SoftmaxParts { .. }
                | Op::ShuffleChannels { .. }
                | Op::Flatten
                | Op::Linear { .. }
                | Op::Reshape { .. }
                | Op::Transpose { .. }
                | Op::Select { .. }
                | Op::MatMul
                | Op::Softmax { .. }
                | Op::LayerNorm { .. }
                | Op::AddParameter
                | Op::Conv3d { .. }
                | Op::PadChannels { .. } => {
                    fixed.extend(node.inputs.iter().map(|v| v.index()));
                    fixed.push(out);
                    continue;
                }
                Op::BatchNorm { .. }
                | Op::Activation { .. }
                | Op::Add
                | Op::Mul
                | Op::Scale { .. }
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
        let mut inner: Vec<usize> = of_value.iter().copied().filter(|g| !fixed.contains(g)).collect();
        inner.sort_unstable();
        inner.dedup();
        ChannelGroups { of_value, inner }
    }

    /// The group a value belongs to, named by the first value in it.
    pub fn group(&self, value: Value) -> usize {
        self.of_value[value.index()]
    }

    /// Groups that may be thinned out, in the order of the network.
    pub fn inner(&self) -> &[usize] {
        &self.inner
    }
}

/// How much each channel of an inner group contributes to what the group's readers make of it, from weights alone.
///
/// With BatchNorm (γ, β) and ReLU-like activation before a reader with kernel `w`, a channel's mean square is about
/// `E[max(γ z + β, 0)²]` for standard normal `z`, and its contribution that times `‖w[:, c]‖²`. Contributions of several
/// readers add. Channels no dense convolution reads weigh nothing.
pub fn importance(graph: &Graph, weights: &Weights, group: usize) -> Vec<f64> {
    let groups = ChannelGroups::of(graph);
    let channels = graph.shape(Value(group)).channels();
    let mut power = vec![1.0; channels];
    let mut read = vec![0.0; channels];
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
                for (c, p) in power.iter_mut().enumerate() {
                    *p = rectified_power(f64::from(shift.data[c]), f64::from(scale.data[c]));
                }
            }
            Op::Conv2d(conv) if !conv.is_depthwise() && groups.group(node.inputs[0]) == group => {
                // The readers inside gates (squeeze-and-excitation) see the pooled value, not the channel itself.
                let (_, height, width) = graph.shape(node.inputs[0]).as_image().unwrap_or((0, 1, 1));
                if height * width == 1 && graph.shape(Value(group)).elements() > channels {
                    continue;
                }
                let Some(kernel) = weights.get(&format!("{}.weight", node.name)) else { continue };
                let area = conv.kernel[0] * conv.kernel[1];
                for (at, chunk) in kernel.data.chunks_exact(area).enumerate() {
                    read[at % channels] += chunk.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>();
                }
            }
            _ => {}
        }
    }
    power.iter().zip(read).map(|(p, r)| p * r).collect()
}

/// `E[max(x, 0)²]` for `x` normal with that mean and deviation.
fn rectified_power(mean: f64, deviation: f64) -> f64 {
    let deviation = deviation.abs().max(1e-12);
    let z = mean / deviation;
    let density = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (mean * mean + deviation * deviation) * normal_cdf(z) + mean * deviation * density
}

/// Standard normal distribution function (Abramowitz & Stegun 26.2.17, error below 7.5e-8).
fn normal_cdf(z: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.231_641_9 * z.abs());
    let poly = t
        * (0.319_381_530
            + t * (-0.356_563_782 + t * (1.781_477_937 + t * (-1.821_255_978 + t * 1.330_274_429))));
    let tail = (-0.5 * z * z).exp() / (2.0 * std::f64::consts::PI).sqrt() * poly;
    if z >= 0.0 { 1.0 - tail } else { tail }
}

/// The network with only the channels `keep` of one inner group, in structure.
pub fn narrow(graph: &Graph, group: usize, keep: usize) -> Result<Graph> {
    let groups = ChannelGroups::of(graph);
    if !groups.inner().contains(&group) || keep == 0 || keep > graph.shape(Value(group)).channels() {
        return Err(Error::Graph {
            graph: graph.name().to_string(),
            reason: format!("channel group {group} cannot be narrowed to {keep} channels"),
        });
    }
    let nodes = graph.nodes().iter().enumerate().map(|(index, node)| {
        let mut op = node.op.clone();
        if let Op::Conv2d(Conv2d { in_channels, out_channels, groups: conv_groups, .. }) = &mut op {
            let depthwise = *conv_groups > 1;
            if groups.group(node.inputs[0]) == group {
                *in_channels = keep;
            }
            if groups.group(Value::of_node(index)) == group {
                *out_channels = keep;
            }
            if depthwise && groups.group(node.inputs[0]) == group {
                *conv_groups = keep;
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

/// The weights that belong to [`narrow`]: those of the channels `keep` of the group.
pub fn narrow_weights(graph: &Graph, weights: &Weights, group: usize, keep: &[usize]) -> Weights {
    let groups = ChannelGroups::of(graph);
    let mut result = weights.clone();
    for parameter in graph.parameters() {
        let node = &graph.nodes()[parameter.node];
        let Some(tensor) = weights.get(&parameter.name) else { continue };
        let mut tensor: Tensor = tensor.clone();
        if groups.group(Value::of_node(parameter.node)) == group {
            tensor = tensor.select(0, keep);
        }
        let dense = matches!(&node.op, Op::Conv2d(c) if !c.is_depthwise());
        if dense && parameter.shape.len() == 4 && groups.group(node.inputs[0]) == group {
            tensor = tensor.select(1, keep);
        }
        result.insert(parameter.name, tensor);
    }
    result
}
