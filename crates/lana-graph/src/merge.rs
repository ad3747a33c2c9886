//! Re-parameterisation: parallel linear branches as one convolution.
//!
//! A block such as RepVGG's (Ding et al. 2021) trains with several branches, `BN(conv3×3(x)) + BN(conv1×1(x)) + BN(x)`,
//! and is deployed as the one convolution that they are together: each branch is a convolution (the identity is one with
//! a 1×1 kernel), and a sum of convolutions of one input is the convolution with the sum of their kernels, the smaller
//! ones padded by zeros. Nothing says which block a network got its branches from, and nothing needs to: whatever sums
//! such branches is merged.

use std::collections::HashSet;

use crate::fold::folded;
use crate::{
    Conv2d, Cost, Error, Graph, Layer, Node, Op, Result, Shape, Tensor, Value, Weights, fold_batch_norm,
};

/// The form in which a network is deployed: parallel branches merged into one convolution, every BatchNorm behind a
/// convolution folded into it ([`fold_batch_norm`]), nothing left that acts while training only. It computes the same;
/// layers keep their names and boundaries.
pub fn deploy(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    let merges = merges(graph);
    let (merged, weights) = match merges.is_empty() {
        true => (graph.clone(), weights.clone()),
        false => (rebuild(graph, &merges)?, merged_weights(graph, &merges, weights)?),
    };
    fold_batch_norm(&merged, &weights)
}

impl Graph {
    /// The structure of [`deploy`], for which no weights are needed.
    ///
    /// # Errors
    /// If a branch that goes cannot be taken out, which would be a fault of this crate.
    pub fn deployed(&self) -> Result<Graph> {
        let merges = merges(self);
        match merges.is_empty() {
            true => folded(self),
            false => folded(&rebuild(self, &merges)?),
        }
    }

    /// Cost of the whole network as it is deployed: as [`Graph::cost`], with parallel branches counted as the one
    /// convolution that they are together.
    pub fn deployed_cost(&self) -> Cost {
        let merges = merges(self);
        match rebuild(self, &merges) {
            Ok(merged) if !merges.is_empty() => merged.cost(),
            _ => self.cost(),
        }
    }
}

/// One summand that is a linear function of `input`: a convolution, a normalisation, both, or the input itself.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Branch {
    input: Value,
    conv: Option<usize>,
    norm: Option<usize>,
}

/// A sum whose branches are merged.
struct Merge {
    /// The node that makes the sum, the last of its additions.
    root: usize,
    /// Names of its additions.
    additions: Vec<String>,
    /// Branches that become one; the first that has both gives its names to the convolution and normalisation.
    branches: Vec<Branch>,
    /// The convolution that they become.
    conv: Conv2d,
    /// Nodes with that name and normalisation.
    named: [usize; 2],
    /// Summands that stay.
    others: Vec<Value>,
    /// Nodes that go.
    gone: Vec<usize>,
}

/// The sums of a network that can be merged.
fn merges(graph: &Graph) -> Vec<Merge> {
    let uses = graph.uses();
    let boundary: HashSet<Value> = graph.layers().iter().flat_map(|l| [l.input, l.output]).collect();
    // A node whose value has one reader, in the same layer.
    let inner = |value: Value| {
        let node = value.node()?;
        (uses[value.index()] == 1 && !boundary.contains(&value)).then_some(node)
    };
    let op = |node: usize| &graph.nodes()[node].op;
    let source = |node: usize| graph.nodes()[node].inputs[0];
    let is_conv = |node: &usize| matches!(op(*node), Op::Conv2d(_));
    let branch = |value: Value| match inner(value).map(|node| (node, op(node))) {
        Some((node, Op::Conv2d(_))) => Branch { input: source(node), conv: Some(node), norm: None },
        Some((node, Op::BatchNorm { .. })) => match inner(source(node)).filter(is_conv) {
            Some(conv) => Branch { input: source(conv), conv: Some(conv), norm: Some(node) },
            None => Branch { input: source(node), conv: None, norm: Some(node) },
        },
        _ => Branch { input: value, conv: None, norm: None },
    };
    // Where a summand stands for several slices, a convolution would have to be repeated.
    let adds = |node: usize| {
        let whole = |shape: &Shape| shape == graph.shape(Value::of_node(node));
        *op(node) == Op::Add && graph.input_shapes(node).into_iter().all(whole)
    };
    let mut found = Vec::new();
    let mut within: HashSet<usize> = HashSet::new();
    for root in (0..graph.nodes().len()).rev() {
        if !adds(root) || within.contains(&root) {
            continue;
        }
        // The summands, from left to right, of this addition and of those that only it reads.
        let (mut leaves, mut additions, mut open) = (Vec::new(), Vec::new(), vec![Value::of_node(root)]);
        while let Some(value) = open.pop() {
            let addition = match value == Value::of_node(root) {
                true => Some(root),
                false => inner(value).filter(|&n| adds(n)),
            };
            match addition {
                Some(node) => {
                    additions.push(node);
                    open.extend(graph.nodes()[node].inputs.iter().rev());
                }
                None => leaves.push(value),
            }
        }
        within.extend(&additions);
        let branches: Vec<Branch> = leaves.iter().map(|&v| branch(v)).collect();
        // Kernels with holes stay by themselves: what they would be merged into is mostly holes.
        let dense = |node: usize| matches!(op(node), Op::Conv2d(c) if !c.is_dilated());
        let whole = |b: &Branch| Some((*b, [b.conv.filter(|&conv| dense(conv))?, b.norm?]));
        let Some((first, [conv, norm])) = branches.iter().find_map(whole) else { continue };
        let Op::Conv2d(model) = op(conv) else { continue };
        let fits = |b: &Branch| {
            b.input == first.input
                && match b.conv.map(op) {
                    Some(Op::Conv2d(c)) => {
                        c.stride == model.stride
                            && !c.is_dilated()
                            && c.groups == model.groups
                            && (c.in_channels, c.out_channels) == (model.in_channels, model.out_channels)
                    }
                    _ => model.stride == [1, 1] && model.in_channels == model.out_channels,
                }
        };
        let (merged, kept): (Vec<_>, Vec<_>) = branches.iter().zip(&leaves).partition(|(b, _)| fits(b));
        if merged.len() < 2 {
            continue;
        }
        let merged: Vec<Branch> = merged.into_iter().map(|(b, _)| *b).collect();
        let gone = merged.iter().flat_map(|b| [b.conv, b.norm]).flatten();
        found.push(Merge {
            root,
            conv: hull(graph, model, &merged),
            named: [conv, norm],
            others: kept.into_iter().map(|(_, v)| *v).collect(),
            gone: gone.chain(additions.iter().copied().filter(|&a| a != root)).collect(),
            additions: additions.iter().map(|&a| graph.nodes()[a].name.clone()).collect(),
            branches: merged,
        });
    }
    found
}

/// Kernel and padding (top, left, bottom, right) of a branch.
fn geometry(graph: &Graph, branch: &Branch) -> ([usize; 2], [usize; 4]) {
    match branch.conv.map(|node| &graph.nodes()[node].op) {
        Some(Op::Conv2d(c)) => (c.kernel, c.padding),
        _ => ([1, 1], [0; 4]),
    }
}

/// The smallest convolution that holds the kernels of all branches, each at its place.
fn hull(graph: &Graph, model: &Conv2d, branches: &[Branch]) -> Conv2d {
    let (mut kernel, mut padding) = ([0; 2], [0; 4]);
    let all: Vec<_> = branches.iter().map(|b| geometry(graph, b)).collect();
    for axis in 0..2 {
        padding[axis] = all.iter().map(|(_, p)| p[axis]).max().unwrap_or(0);
        for (k, p) in &all {
            let reach = padding[axis] - p[axis] + k[axis];
            if reach > kernel[axis] {
                kernel[axis] = reach;
                padding[axis + 2] = p[axis + 2];
            }
        }
    }
    Conv2d { kernel, padding, bias: false, ..model.clone() }
}

/// The network with its sums merged, in structure.
fn rebuild(graph: &Graph, merges: &[Merge]) -> Result<Graph> {
    let gone: HashSet<usize> = merges.iter().flat_map(|m| m.gone.iter().copied()).collect();
    let mut nodes: Vec<Node> = Vec::new();
    let mut place = vec![Value::INPUT];
    let mut before = vec![0];
    for (index, node) in graph.nodes().iter().enumerate() {
        if let Some(merge) = merges.iter().find(|m| m.root == index) {
            let [conv, norm] = merge.named.map(|n| &graph.nodes()[n]);
            let input = place[merge.branches[0].input.index()];
            nodes.push(Node {
                name: conv.name.clone(),
                op: Op::Conv2d(merge.conv.clone()),
                inputs: vec![input],
            });
            let inputs = vec![Value::of_node(nodes.len() - 1)];
            nodes.push(Node { name: norm.name.clone(), op: norm.op.clone(), inputs });
            for (other, name) in merge.others.iter().zip(&merge.additions) {
                let inputs = vec![Value::of_node(nodes.len() - 1), place[other.index()]];
                nodes.push(Node { name: name.clone(), op: Op::Add, inputs });
            }
            place.push(Value::of_node(nodes.len() - 1));
        } else if gone.contains(&index) {
            // Read by nothing that stays.
            place.push(Value::INPUT);
        } else {
            let inputs = node.inputs.iter().map(|v| place[v.index()]).collect();
            nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs });
            place.push(Value::of_node(nodes.len() - 1));
        }
        before.push(nodes.len());
    }
    let layers = graph.layers().iter().map(|l| Layer {
        nodes: before[l.nodes.start]..before[l.nodes.end],
        input: place[l.input.index()],
        output: place[l.output.index()],
        ..l.clone()
    });
    let output = place[graph.output().index()];
    Graph::new(graph.name(), graph.input_shape().clone(), nodes, output, layers.collect())
}

/// The weights that belong to [`rebuild`].
fn merged_weights(graph: &Graph, merges: &[Merge], weights: &Weights) -> Result<Weights> {
    let mut result = weights.clone();
    for merge in merges {
        let conv = &merge.conv;
        let (out, inner) = (conv.out_channels, conv.in_channels / conv.groups);
        let [rows, columns] = conv.kernel;
        let mut kernel = vec![0.0f64; out * inner * rows * columns];
        let mut shift = vec![0.0f64; out];
        for branch in &merge.branches {
            let ([height, width], padding) = geometry(graph, branch);
            let [down, right] = [conv.padding[0] - padding[0], conv.padding[1] - padding[1]];
            let own = match branch.conv {
                Some(node) => Some(take(graph, weights, node, "weight")?),
                None => None,
            };
            let bias = match branch.conv.map(|node| (node, &graph.nodes()[node].op)) {
                Some((node, Op::Conv2d(c))) if c.bias => Some(take(graph, weights, node, "bias")?),
                _ => None,
            };
            let norm = match branch.norm.map(|node| (node, &graph.nodes()[node].op)) {
                Some((node, Op::BatchNorm { eps, .. })) => Some((
                    ["weight", "bias", "running_mean", "running_var"].map(|p| take(graph, weights, node, p)),
                    *eps,
                )),
                _ => None,
            };
            let (mut factors, mut shifts) = (vec![1.0; out], vec![0.0; out]);
            if let Some(([scale, beta, mean, variance], eps)) = norm {
                let (scale, beta, mean, variance) = (scale?, beta?, mean?, variance?);
                for c in 0..out {
                    factors[c] = f64::from(scale.data[c]) / (f64::from(variance.data[c]) + eps).sqrt();
                    shifts[c] = f64::from(beta.data[c]) - factors[c] * f64::from(mean.data[c]);
                }
            }
            for c in 0..out {
                shift[c] += shifts[c] + factors[c] * bias.map_or(0.0, |b| f64::from(b.data[c]));
                for i in 0..inner {
                    for (row, column) in (0..height).flat_map(|r| (0..width).map(move |c| (r, c))) {
                        let value = match own {
                            Some(w) => f64::from(w.data[((c * inner + i) * height + row) * width + column]),
                            // The identity, within its group.
                            None => f64::from(u8::from(c % inner == i)),
                        };
                        kernel[((c * inner + i) * rows + row + down) * columns + column + right] +=
                            factors[c] * value;
                    }
                }
            }
        }
        for &node in &merge.gone {
            for (suffix, ..) in graph.nodes()[node].op.parameters(&graph.input_shapes(node)) {
                result.remove(&format!("{}.{suffix}", graph.nodes()[node].name));
            }
        }
        let [conv_name, norm_name] = merge.named.map(|n| graph.nodes()[n].name.as_str());
        let Op::BatchNorm { eps, .. } = graph.nodes()[merge.named[1]].op else { continue };
        let narrow = |data: Vec<f64>| data.into_iter().map(|x| x as f32).collect();
        let shape = vec![out, inner, rows, columns];
        result.insert(format!("{conv_name}.weight"), Tensor { shape, data: narrow(kernel) });
        // A normalisation that only adds.
        result.insert(format!("{norm_name}.weight"), Tensor::full(&[out], 1.0));
        result.insert(format!("{norm_name}.bias"), Tensor { shape: vec![out], data: narrow(shift) });
        result.insert(format!("{norm_name}.running_mean"), Tensor::full(&[out], 0.0));
        result.insert(format!("{norm_name}.running_var"), Tensor::full(&[out], (1.0 - eps) as f32));
    }
    Ok(result)
}

/// A parameter of a node.
fn take<'a>(graph: &Graph, weights: &'a Weights, node: usize, suffix: &str) -> Result<&'a Tensor> {
    let name = format!("{}.{suffix}", graph.nodes()[node].name);
    weights.get(&name).ok_or_else(|| Error::MissingWeight {
        shape: graph.parameters().into_iter().find(|p| p.name == name).map(|p| p.shape).unwrap_or_default(),
        name,
        origin: String::new(),
    })
}
