//! Blocks of a layer side by side, as one wider block.
//!
//! Of residual blocks that follow one another each adds a little to what it gets, so that it hardly matters to a block whether its
//! neighbour has added its part before (Veit et al. 2016, "Residual Networks Behave Like Ensembles of Relatively Shallow Networks"):
//! `x + f(x) + g(x + f(x))` is nearly `x + f(x) + g(x)`, and that is a single block with the inner channels of both. It takes as many
//! multiply-accumulates as they do, but has one sum in place of two and wider convolutions, which processors are better at where maps are large
//! and channels few (Zagoruyko & Komodakis 2016, "Wide Residual Networks"): 16 channels at 32×32 pixels, two blocks: 0.84 of their latency,
//! three: 0.79.
//!
//! Of a layer of several blocks ([`super::depth`]) all equal ones at its end are put side by side, and of their inner channels the strongest
//! stay ([`super::narrow`]), as many as w of the blocks had. What comes before, such as a block that changes the shape, stays as it is. The
//! kernels at the end of the blocks are summed with the scales of their BatchNorms, so that a block of all channels gives
//! exactly that sum where running statistics are used. Dense convolutions from inner channels to inner channels, as in bottlenecks, become one in
//! groups, a group for each block.

use std::ops::Range;

use lana_graph::channels::ChannelGroups;
use lana_graph::{Graph, Node, Op, Parameter, Tensor, Value, Weights};

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
        let Some((last, _)) = all.split_last() else {
            return Err(NotApplicable::new("the layer has no block"));
        };
        let parts = |graph: &Graph| {
            graph.nodes().iter().map(|n| (n.op.clone(), n.inputs.clone())).collect::<Vec<_>>()
        };
        let is_equal = |graph: &Graph| {
            graph.input_shape() == last.2.input_shape()
                && parts(graph) == parts(&last.2)
                && graph.output() == last.2.output()
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
        let wide = widened(&block, equal)?;
        Ok(Blocks { nodes, block, wide })
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
        let channels = Channels::of(&self.block);
        let mut weights = Weights::new();
        for (from, to) in self.block.parameters().iter().zip(self.wide.parameters()) {
            let node = &self.block.nodes()[from.node];
            let parts: Vec<&Tensor> = (0..names.len()).filter_map(|block| of(block, from)).collect();
            let (reads, makes) =
                (channels.are_inner(node.inputs[0]), channels.are_inner(Value::of_node(from.node)));
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
            let closing = |conv: &usize| Channels::of(&self.block).close(&self.block, *conv);
            let Some(conv) = node.inputs[0].node().filter(closing) else { continue };
            let read = |node: usize, suffix: &str| -> Option<Vec<&Tensor>> {
                names.iter().map(|nodes| theirs.get(&format!("{}.{suffix}", nodes[node].name))).collect()
            };
            let norms = ["weight", "running_mean", "running_var"].map(|suffix| read(index, suffix));
            let [Some(scale), Some(mean), Some(variance)] = norms else { continue };
            let name = |node: usize, suffix: &str| format!("{}.{suffix}", self.wide.nodes()[node].name);
            let Some(mut kernel) = ours.remove(&name(conv, "weight")) else { continue };
            let bias = read(conv, "bias");
            let mut biases = Vec::new();
            let channels = scale[0].data.len();
            let row = kernel.data.len() / channels;
            let part = row / names.len();
            let mut norm: [Vec<f32>; 3] = Default::default();
            for channel in 0..channels {
                let at = |tensors: &[&Tensor], block: usize| f64::from(tensors[block].data[channel]);
                let deviation = |block: usize| (at(&variance, block) + eps).sqrt();
                let factors: Vec<f64> =
                    (0..names.len()).map(|block| at(&scale, block) / deviation(block)).collect();
                // Kernels as large as before: how they compare counts, the BatchNorm does the rest.
                let size = (factors.iter().map(|f| f * f).sum::<f64>() / factors.len() as f64).sqrt();
                let size = if size > 0.0 { size } else { 1.0 };
                let (mut middle, mut spread, mut shift) = (0.0, 0.0, 0.0);
                for (block, factor) in factors.iter().enumerate() {
                    let factor = factor / size;
                    let weights = &mut kernel.data[channel * row + block * part..][..part];
                    weights.iter_mut().for_each(|w| *w = (f64::from(*w) * factor) as f32);
                    middle += factor * at(&mean, block);
                    spread += (factor * deviation(block)).powi(2);
                    shift += bias.as_ref().map_or(0.0, |bias| factor * at(bias, block));
                }
                for (list, value) in
                    norm.iter_mut().zip([size * spread.sqrt(), middle, (spread - eps).max(0.0)])
                {
                    list.push(value as f32);
                }
                biases.push(shift as f32);
            }
            ours.insert(name(conv, "weight"), kernel);
            if bias.is_some() {
                ours.insert(name(conv, "bias"), Tensor { shape: vec![channels], data: biases });
            }
            for (suffix, data) in ["weight", "running_mean", "running_var"].into_iter().zip(norm) {
                ours.insert(name(index, suffix), Tensor { shape: vec![channels], data });
            }
        }
    }
}

/// Which values of a block hold channels that only it sees, and which those of its input and output.
struct Channels(ChannelGroups);

impl Channels {
    fn of(block: &Graph) -> Self {
        Channels(ChannelGroups::of(block))
    }

    fn are_inner(&self, value: Value) -> bool {
        self.0.inner().contains(&self.0.group(value))
    }

    fn are_outer(&self, value: Value) -> bool {
        self.0.group(value) == self.0.group(Value::INPUT)
    }

    /// Whether a node is a convolution of inner channels to those of the block's output.
    fn close(&self, block: &Graph, node: usize) -> bool {
        let Node { op, inputs, .. } = &block.nodes()[node];
        let dense = matches!(op, Op::Conv2d(conv) if conv.groups == 1);
        dense && self.are_inner(inputs[0]) && self.are_outer(Value::of_node(node))
    }
}

/// The block with `times` as many inner channels, or why that is not so many blocks side by side.
fn widened(block: &Graph, times: usize) -> Result<Graph, NotApplicable> {
    let channels = Channels::of(block);
    let adds_input = block.nodes().iter().any(|n| n.op == Op::Add && n.inputs.contains(&Value::INPUT));
    if !adds_input || !channels.are_outer(block.output()) {
        return Err(NotApplicable::new("the layer's blocks do not add to their input"));
    }
    let mut nodes = Vec::new();
    for (index, node) in block.nodes().iter().enumerate() {
        let mut op = node.op.clone();
        let made = Value::of_node(index);
        let (reads, makes) = (node.inputs.iter().any(|v| channels.are_inner(*v)), channels.are_inner(made));
        let conv_groups = match &op {
            Op::Conv2d(conv) if !conv.is_depthwise() => Some(conv.groups),
            _ => None,
        };
        let fits = match (reads, makes) {
            (true, true) => conv_groups.is_none_or(|groups| groups == 1),
            (false, true) => conv_groups == Some(1) && channels.are_outer(node.inputs[0]),
            (true, false) => channels.close(block, index),
            (false, false) => {
                let closing = node.inputs[0].node().is_some_and(|conv| channels.close(block, conv));
                let parameters = op.parameters(&block.input_shapes(index));
                parameters.is_empty() || closing && matches!(op, Op::BatchNorm { .. })
            }
        };
        if !fits || !(makes || channels.are_outer(made)) {
            let reason = format!("`{}` cannot be widened with the channels of other blocks", node.name);
            return Err(NotApplicable::new(reason));
        }
        if let Op::Conv2d(conv) = &mut op {
            let (depthwise, pooled) =
                (conv.is_depthwise(), block.shape(made).elements() == conv.out_channels);
            if reads {
                conv.in_channels *= times;
            }
            if makes {
                conv.out_channels *= times;
            }
            if reads && makes && (depthwise || !pooled) {
                conv.groups *= times;
            }
        }
        nodes.push(Node { op, ..node.clone() });
    }
    Ok(Graph::new(block.name(), block.input_shape().clone(), nodes, block.output(), Vec::new())?)
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
        let (_, suffix) = parameter.name.rsplit_once('.').unwrap_or(("", &parameter.name));
        let tensor = match parameter.node.checked_sub(first.start) {
            None => start.layer_weights.get(&parameter.name),
            Some(node) => kept.get(&format!("{}.{suffix}", blocks.wide.nodes()[node].name)),
        };
        if let Some(tensor) = tensor {
            weights.insert(parameter.name, tensor.clone());
        }
    }
    Ok(weights)
}
