//! Blocks of a layer side by side, as one wider block.
//!
//! Of residual blocks that follow one another each adds a little to what it gets, so that it hardly matters to a block whether its
//! neighbour has added its part before (Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"):
//! `x + f(x) + g(x + f(x))` is nearly `x + f(x) + g(x)`, and that is a single block with the inner channels of both. It takes as many
//! multiply-accumulates as they do, but has one sum in place of two and wider convolutions, which processors are better at where maps are large
//! and channels few (Zagoruyko & Komodakis 2016, "Wide Residual Networks"): of 16 channels at 32×32 pixels two blocks take 0.85 of their latency,
//! three 0.84.
//!
//! Of a layer of several blocks ([`super::depth`]) all equal ones at its end are put side by side, and of their inner channels the strongest
//! stay ([`super::narrow`]), as many as w of the blocks had. What comes before, such as a block that changes the shape, stays as it is. The
//! kernels at the end of the blocks are summed with the scales of their BatchNorms, so that a block of all channels gives
//! exactly that sum where running statistics are used. Dense convolutions from inner channels to inner channels, as in bottlenecks, become one in
//! groups, a group for each block.

use std::ops::Range;

use lana_graph::channels::ChannelGroups;
use lana_graph::{Graph, Node, Op, Parameter, Tensor, Value, Weights};

use super::edit::pooled;
use super::name::{self, Arguments};
use super::narrow::{narrowed, strongest};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start, depth};

pub(super) static FAMILY: Family = Family {
    name: "wide",
    summary: "the equal blocks of a layer that is put together of several, side by side: one block with w times the channels inside",
    parameters: &[name::Parameter::new("w", name::Range::Positive(64.0))],
    check: |arguments| match arguments.number("w") > 1.0 {
        true => Ok(()),
        false => Err("a block of its own width is `depth`, a narrower one `narrow`".into()),
    },
    members: |preset| match preset {
        Preset::Compact | Preset::Extended => listed(&["wide-w1.5", "wide-w2", "wide-w3"]),
        Preset::Paper => Vec::new(),
    },
    initialisation: "the teacher's weights of the channels that contribute most, their blocks summed",
    build,
    initialise,
};

/// Equal blocks that end a layer.
struct Blocks {
    /// Their nodes in the layer.
    nodes: Vec<Range<usize>>,
    /// The first, as a network.
    block: Graph,
    /// Where its values stand.
    stands: Vec<Stand>,
    /// What it is with the inner channels of all of them.
    wide: Graph,
}

impl Blocks {
    fn of(layer: &Graph) -> Result<Self, NotApplicable> {
        let ends = depth::ends(layer);
        if ends.len() < 2 {
            return Err(NotApplicable::new("the layer is a single block"));
        }
        let begins = std::iter::once(Value::INPUT).chain(ends.iter().copied());
        let all = begins.zip(&ends).map(|(begin, end)| Ok((begin, *end, layer.subgraph(begin, *end, "")?)));
        let all = all.collect::<lana_graph::Result<Vec<_>>>()?;
        let last = &all[all.len() - 1].2;
        let is_equal = |graph: &Graph| {
            graph.input_shape() == last.input_shape()
                && parts(graph) == parts(last)
                && graph.output() == last.output()
        };
        let equal = all.iter().rev().take_while(|(_, _, graph)| is_equal(graph)).count();
        if equal < 2 {
            return Err(NotApplicable::new("the layer's last two blocks are not equal"));
        }
        let blocks = &all[all.len() - equal..];
        let block = blocks[0].2.clone();
        let nodes: Vec<_> = blocks.iter().map(|(begin, end, _)| begin.index()..end.index()).collect();
        if nodes.iter().any(|range| range.len() != block.nodes().len()) {
            return Err(NotApplicable::new("a block of the layer has nodes that nothing reads"));
        }
        let stands = stands(&block)?;
        let wide = widened(&block, &stands, equal)?;
        Ok(Blocks { nodes, block, stands, wide })
    }

    /// The share of all inner channels that `width` blocks have.
    fn share(&self, width: f64) -> f64 {
        width / self.nodes.len() as f64
    }

    /// All blocks' weights as those of the wide one.
    fn weights(&self, layer: &Graph, layer_weights: &Weights) -> Weights {
        let names = self.nodes.iter().map(|range| &layer.nodes()[range.clone()]).collect::<Vec<_>>();
        let of = |block: usize, parameter: &Parameter| {
            let (_, suffix) = parameter.name.rsplit_once('.').unwrap_or(("", &parameter.name));
            layer_weights.get(&format!("{}.{suffix}", names[block][parameter.node].name))
        };
        let mut weights = Weights::new();
        for (from, to) in self.block.parameters().iter().zip(self.wide.parameters()) {
            let node = &self.block.nodes()[from.node];
            let parts: Vec<&Tensor> = (0..names.len()).filter_map(|block| of(block, from)).collect();
            let (reads, makes) = (all_inner(&self.stands, node), self.stands[from.node + 1] == Stand::Inner);
            let tensor = match (reads, makes) {
                // From inner channels to inner channels: each block's own, nothing from one to the other.
                (true, true) if to.shape.get(1) != from.shape.get(1) => diagonal(&parts, &to.shape),
                (_, true) => side_by_side(&parts, 0),
                (true, false) if from.shape.len() == 4 => side_by_side(&parts, 1),
                _ => sum(&parts),
            };
            weights.insert(to.name, tensor);
        }
        self.sum_norms(layer_weights, &names, &mut weights);
        weights
    }

    /// Makes one of the BatchNorms at the blocks' ends, and scales the kernels in front as each did its own.
    fn sum_norms(&self, theirs: &Weights, names: &[&[Node]], ours: &mut Weights) {
        for (index, node) in self.block.nodes().iter().enumerate() {
            let Op::BatchNorm { eps, .. } = node.op else { continue };
            let Some(conv) = node.inputs[0].node().filter(|_| self.stands[index + 1] == Stand::Branch) else {
                continue;
            };
            let read = |node: usize, suffix: &str| -> Option<Vec<&Tensor>> {
                names.iter().map(|nodes| theirs.get(&format!("{}.{suffix}", nodes[node].name))).collect()
            };
            let norms = ["weight", "running_mean", "running_var"].map(|suffix| read(index, suffix));
            let [Some(scale), Some(mean), Some(variance)] = norms else { continue };
            let name = |node: usize, suffix: &str| format!("{}.{suffix}", self.wide.nodes()[node].name);
            let Some(mut kernel) = ours.remove(&name(conv, "weight")) else { continue };
            let bias = read(conv, "bias");
            let channels = scale[0].data.len();
            let row = kernel.data.len() / channels;
            let part = row / names.len();
            let mut vectors: [Vec<f32>; 4] = Default::default();
            for channel in 0..channels {
                let at = |tensors: &[&Tensor]| -> Vec<f64> {
                    tensors.iter().map(|tensor| f64::from(tensor.data[channel])).collect()
                };
                let deviations: Vec<f64> = at(&variance).iter().map(|v| (v + eps).sqrt()).collect();
                let sum = ChannelSum::of(&at(&scale), &deviations);
                for (block, factor) in sum.factors.iter().enumerate() {
                    let weights = &mut kernel.data[channel * row + block * part..][..part];
                    weights.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
                }
                let bias = bias.as_ref().map_or(0.0, |bias| sum.of_blocks(&at(bias)));
                let values = [sum.scale, sum.of_blocks(&at(&mean)), (sum.variance - eps).max(0.0), bias];
                vectors.iter_mut().zip(values).for_each(|(list, value)| list.push(value as f32));
            }
            ours.insert(name(conv, "weight"), kernel);
            let [scale, mean, variance, shift] = vectors.map(|data| Tensor { shape: vec![channels], data });
            ours.insert(name(index, "weight"), scale);
            ours.insert(name(index, "running_mean"), mean);
            ours.insert(name(index, "running_var"), variance);
            if bias.is_some() {
                ours.insert(name(conv, "bias"), shift);
            }
        }
    }
}

/// The sum of what BatchNorms make of a channel of several blocks, as one BatchNorm of a weighted sum.
struct ChannelSum {
    /// What each block's kernel is multiplied with.
    factors: Vec<f64>,
    /// Scale of the BatchNorm.
    scale: f64,
    /// Variance of the weighted sum, were the blocks independent: nothing where running statistics are used depends on it.
    variance: f64,
}

impl ChannelSum {
    /// Of the scale and the deviation of each.
    fn of(scales: &[f64], deviations: &[f64]) -> Self {
        let factors: Vec<f64> =
            scales.iter().zip(deviations).map(|(scale, deviation)| scale / deviation).collect();
        // Kernels as large as before: how they compare counts, the BatchNorm does the rest.
        let size = (factors.iter().map(|f| f * f).sum::<f64>() / factors.len() as f64).sqrt();
        // A channel that all blocks have switched off keeps its kernels, so that it may learn.
        let factors: Vec<f64> = factors.iter().map(|f| if size > 0.0 { f / size } else { 1.0 }).collect();
        let variance: f64 =
            factors.iter().zip(deviations).map(|(f, deviation)| (f * deviation).powi(2)).sum();
        ChannelSum { factors, scale: size * variance.sqrt(), variance }
    }

    /// The same sum of another quantity.
    fn of_blocks(&self, values: &[f64]) -> f64 {
        self.factors.iter().zip(values).map(|(factor, value)| factor * value).sum()
    }
}

/// Where a value of a block stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stand {
    /// It has the channels of the block's input, and is made of it alone.
    Before,
    /// It has channels that only the block sees.
    Inner,
    /// It is what the block will add to its input, or a part of that.
    Branch,
    /// It is made of the sum.
    Behind,
}

/// Where each value of a block stands, or why the block does not simply add something to its input.
fn stands(block: &Graph) -> Result<Vec<Stand>, NotApplicable> {
    let groups = ChannelGroups::of(block);
    let is_inner = |value: Value| groups.inner().contains(&groups.group(value));
    let is_outer = |value: Value| groups.group(value) == groups.group(Value::INPUT);
    let mut stands = vec![Stand::Before];
    for (index, node) in block.nodes().iter().enumerate() {
        let made = Value::of_node(index);
        let from: Vec<Stand> = node.inputs.iter().map(|value| stands[value.index()]).collect();
        let all = |stand: Stand| from.iter().all(|other| *other == stand);
        let plain = node.op.parameters(&block.input_shapes(index)).is_empty();
        let dense = matches!(&node.op, Op::Conv2d(conv) if conv.groups == 1);
        let stand = if is_inner(made) {
            // Channels side by side stay so; what orders them in runs would mix those of different blocks.
            let ordered =
                matches!(node.op, Op::SumParts { .. } | Op::SoftmaxParts { .. } | Op::ShuffleChannels { .. });
            let grouped = matches!(&node.op, Op::Conv2d(conv) if conv.groups > 1 && !conv.is_depthwise());
            (dense && all(Stand::Before) || all(Stand::Inner) && !ordered && !grouped).then_some(Stand::Inner)
        } else if !is_outer(made) {
            None
        } else if all(Stand::Inner) {
            dense.then_some(Stand::Branch)
        } else if all(Stand::Branch) {
            // What is linear, so that it may be done to the sum of the blocks' branches.
            let closing = |conv: usize| all_inner(&stands, &block.nodes()[conv]);
            let linear = match node.op {
                Op::BatchNorm { .. } => node.inputs[0].node().is_some_and(closing),
                Op::Add | Op::Scale { .. } | Op::Dropout { .. } | Op::DropPath { .. } => true,
                _ => false,
            };
            linear.then_some(Stand::Branch)
        } else if from.contains(&Stand::Branch) {
            let sum = node.op == Op::Add
                && node.inputs.contains(&Value::INPUT)
                && !from.contains(&Stand::Behind)
                && !from.contains(&Stand::Inner);
            sum.then_some(Stand::Behind)
        } else if from.contains(&Stand::Inner) || !plain {
            None
        } else {
            Some(if all(Stand::Before) { Stand::Before } else { Stand::Behind })
        };
        let Some(stand) = stand else {
            let reason = format!("at `{}` the block does more than add to its input", node.name);
            return Err(NotApplicable::new(reason));
        };
        stands.push(stand);
    }
    match stands[block.output().index()] {
        Stand::Behind => Ok(stands),
        _ => Err(NotApplicable::new("the layer's blocks do not add to their input")),
    }
}

/// Whether a node reads inner channels alone.
fn all_inner(stands: &[Stand], node: &Node) -> bool {
    node.inputs.iter().all(|value| stands[value.index()] == Stand::Inner)
}

/// The block with `times` as many inner channels.
fn widened(block: &Graph, stands: &[Stand], times: usize) -> lana_graph::Result<Graph> {
    let pooled = pooled(block);
    let widen = |(index, node): (usize, &Node)| {
        let mut op = node.op.clone();
        if let Op::Conv2d(conv) = &mut op {
            let (reads, makes) = (all_inner(stands, node), stands[index + 1] == Stand::Inner);
            let depthwise = conv.is_depthwise();
            if reads {
                conv.in_channels *= times;
            }
            if makes {
                conv.out_channels *= times;
            }
            // In gates, which work on means, all channels of all blocks see each other.
            if reads && makes && (depthwise || !pooled[index]) {
                conv.groups *= times;
            }
        }
        Node { op, ..node.clone() }
    };
    let nodes = block.nodes().iter().enumerate().map(widen).collect();
    Graph::new(block.name(), block.input_shape().clone(), nodes, block.output(), Vec::new())
}

/// The operations of a network with what each reads, but for rates that count in training alone.
fn parts(graph: &Graph) -> Vec<(Op, &[Value])> {
    let of = |node: &'_ Node| match &node.op {
        Op::Dropout { .. } => Op::Dropout { rate: 0.0 },
        Op::DropPath { .. } => Op::DropPath { rate: 0.0 },
        op => op.clone(),
    };
    graph.nodes().iter().map(|node| (of(node), node.inputs.as_slice())).collect()
}

/// Tensors behind one another along an axis, which all have alike but for that.
fn side_by_side(parts: &[&Tensor], axis: usize) -> Tensor {
    let mut shape = parts.first().map_or(Vec::new(), |part| part.shape.clone());
    let before: usize = shape[..axis].iter().product();
    let mut data = Vec::new();
    for at in 0..before {
        for part in parts {
            let length = part.data.len() / before;
            data.extend_from_slice(&part.data[at * length..][..length]);
        }
    }
    shape[axis] *= parts.len();
    Tensor { shape, data }
}

/// Kernels of which each reads only what belongs to it.
fn diagonal(parts: &[&Tensor], shape: &[usize]) -> Tensor {
    let mut tensor = Tensor::full(shape, 0.0);
    let row = tensor.data.len() / shape[0];
    let mut at = 0;
    for (block, part) in parts.iter().enumerate() {
        let own = part.data.len() / part.shape[0];
        for weights in part.data.chunks_exact(own) {
            tensor.data[at * row + block * own..][..own].copy_from_slice(weights);
            at += 1;
        }
    }
    tensor
}

fn sum(parts: &[&Tensor]) -> Tensor {
    let mut total = Tensor::full(&parts.first().map_or(Vec::new(), |part| part.shape.clone()), 0.0);
    for part in parts {
        total.data.iter_mut().zip(&part.data).for_each(|(total, x)| *total += x);
    }
    total
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let (blocks, width) = (Blocks::of(layer)?, arguments.number("w"));
    if width > blocks.nodes.len() as f64 {
        return Err(NotApplicable::new(format!("only {} blocks of the layer are equal", blocks.nodes.len())));
    }
    let wide = narrowed(&blocks.wide, blocks.share(width))?;
    let first = blocks.nodes[0].clone();
    let mut nodes = layer.nodes()[..first.end].to_vec();
    for (node, Node { op, .. }) in nodes[first.clone()].iter_mut().zip(wide.nodes()) {
        node.op = op.clone();
    }
    let output = Value::of_node(first.end - 1);
    Ok(Graph::new(layer.name(), layer.input_shape().clone(), nodes, output, Vec::new())?)
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let Ok(blocks) = Blocks::of(start.layer) else { return Ok(Weights::new()) };
    let all = blocks.weights(start.layer, start.layer_weights);
    let kept = strongest(&blocks.wide, &all, blocks.share(start.arguments.number("w")))?;
    let mut weights = Weights::new();
    let first = &blocks.nodes[0];
    for parameter in start.operation.parameters() {
        let source = if parameter.node < first.start { start.layer_weights } else { &kept };
        let tensor = source.get(&parameter.name);
        if let Some(tensor) = tensor {
            weights.insert(parameter.name, tensor.clone());
        }
    }
    Ok(weights)
}
