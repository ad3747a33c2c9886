//! The units of a network: what stands between two values that every path passes.

use std::ops::Range;

use crate::{Conv2d, Graph, Node, Op, Shape, Value};

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Branches and joins again, with something to replace in it: a convolution or a matrix.
    Branch {
        /// Whether tokens attend to each other in it.
        attention: bool,
        /// Whether the branches are joined side by side, as in an inception module.
        concat: bool,
    },
    /// Multiplies its input by a gate for each channel.
    Gate,
    /// A convolution.
    Convolution(Form),
    /// Brings values to a common mean and size, by batch, group or whatever else, or gives each channel a factor or a term.
    Normalisation,
    /// Makes each element of itself alone, in however many nodes.
    Activation,
    /// Acts while training only.
    Training,
    /// Layer normalisation.
    LayerNorm,
    /// The dimensions in another order.
    Turning,
    /// Pooling over windows.
    Pooling,
    /// The beginning of what makes a vector of a map.
    Global,
    /// Anything else.
    Other,
}

/// What a convolution mixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Pixels of each channel alone.
    Depthwise,
    /// With a kernel of one pixel; whether it gives fewer channels than it takes.
    Pointwise { narrows: bool },
    /// Both pixels and channels.
    Spatial,
}

/// A stretch of nodes between two values that every path passes.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) nodes: Range<usize>,
    pub(super) kind: Kind,
}

/// All units in order.
pub(super) fn units(graph: &Graph) -> Vec<Unit> {
    let cuts = graph.cuts();
    let all = cuts.windows(2).map(|pair| {
        let nodes = pair[0].index()..pair[1].index();
        Unit { kind: kind(graph, &nodes), nodes }
    });
    gathered(graph, all.collect())
}

/// The same, but what normalises between a change of dimensions and the one that takes it back is one unit with both:
/// so networks without an operation for it normalise groups of channels.
fn gathered(graph: &Graph, all: Vec<Unit>) -> Vec<Unit> {
    // To the groups, back to the channels, back to the map.
    const CHANGES: usize = 3;
    let reshapes =
        |unit: &Unit| matches!(graph.nodes()[unit.nodes.clone()], [Node { op: Op::Reshape { .. }, .. }]);
    let end = |at: usize| {
        let before = before(graph, &all[at].nodes);
        let mut normalises = false;
        let mut changes = 0;
        for (after, unit) in all.iter().enumerate().skip(at + 1) {
            match unit.kind {
                Kind::Normalisation | Kind::LayerNorm => normalises = true,
                Kind::Activation | Kind::Training => {}
                _ if reshapes(unit) => {
                    changes += 1;
                    if graph.shape(Value::of_node(unit.nodes.end - 1)) == before {
                        return normalises.then_some(after + 1);
                    }
                }
                _ => return None,
            }
            if changes == CHANGES {
                return None;
            }
        }
        None
    };
    let mut units = Vec::with_capacity(all.len());
    let mut at = 0;
    while at < all.len() {
        match reshapes(&all[at]).then(|| end(at)).flatten() {
            Some(end) => {
                let nodes = all[at].nodes.start..all[end - 1].nodes.end;
                units.push(Unit { nodes, kind: Kind::Normalisation });
                at = end;
            }
            None => {
                units.push(all[at].clone());
                at += 1;
            }
        }
    }
    units
}

/// Shape of what a stretch of nodes takes.
fn before<'a>(graph: &'a Graph, nodes: &Range<usize>) -> &'a Shape {
    graph.shape(input(nodes))
}

fn input(nodes: &Range<usize>) -> Value {
    match nodes.start {
        0 => Value::INPUT,
        start => Value::of_node(start - 1),
    }
}

fn kind(graph: &Graph, nodes: &Range<usize>) -> Kind {
    let (all, last) = (&graph.nodes()[nodes.clone()], &graph.nodes()[nodes.end - 1]);
    if all.len() == 1 {
        return kind_of_node(graph, nodes.start);
    }
    let any = |test: fn(&Op) -> bool| all.iter().any(|node| test(&node.op));
    if !any(mixes) {
        let kept = graph.shape(Value::of_node(nodes.end - 1)) == before(graph, nodes);
        return match () {
            () if all.iter().all(|node| is_pointwise(&node.op)) => Kind::Activation,
            () if kept && any(averages) && all.iter().all(|node| may_normalise(&node.op)) => {
                Kind::Normalisation
            }
            () => Kind::Other,
        };
    }
    let gates = matches!(last.op, Op::Mul)
        && last.inputs.contains(&input(nodes))
        && graph.input_shapes(nodes.end - 1).iter().any(|shape| is_vector(shape.dims()));
    let attention = any(|op| matches!(op, Op::Softmax { .. })) && any(|op| matches!(op, Op::MatMul));
    let concat = matches!(last.op, Op::Concat { .. });
    if gates { Kind::Gate } else { Kind::Branch { attention, concat } }
}

fn kind_of_node(graph: &Graph, index: usize) -> Kind {
    let op = &graph.nodes()[index].op;
    match op {
        Op::Conv2d(conv) => Kind::Convolution(form(conv)),
        Op::BatchNorm { .. } => Kind::Normalisation,
        // A term for each position, too, is an embedding.
        Op::AddParameter { .. } | Op::MulParameter { .. } => {
            let parameters = op.parameters(&graph.input_shapes(index));
            let along = |dims: &[usize]| dims.iter().filter(|&&size| size > 1).count();
            match parameters.iter().all(|(_, dims, _)| along(dims) <= 1) {
                true => Kind::Normalisation,
                false => Kind::Other,
            }
        }
        Op::Dropout { .. } | Op::DropPath { .. } => Kind::Training,
        Op::Activation { .. } | Op::Scale { .. } | Op::Shift { .. } | Op::Power { .. } => Kind::Activation,
        Op::LayerNorm { .. } => Kind::LayerNorm,
        Op::Transpose { .. } => Kind::Turning,
        Op::MaxPool { .. } | Op::AveragePool { .. } => Kind::Pooling,
        Op::GlobalAveragePool | Op::Flatten => Kind::Global,
        _ => Kind::Other,
    }
}

/// Whether an operation mixes channels or pixels by weights: there is something to replace.
pub(super) fn mixes(op: &Op) -> bool {
    matches!(op, Op::Conv2d(_) | Op::Conv3d { .. } | Op::Linear { .. })
}

/// Whether an element of the result depends on the same element alone.
fn is_pointwise(op: &Op) -> bool {
    match op {
        Op::Activation { .. }
        | Op::Scale { .. }
        | Op::Shift { .. }
        | Op::Power { .. }
        | Op::Add
        | Op::Mul => true,
        Op::AddParameter { .. } | Op::MulParameter { .. } | Op::BatchNorm { .. } => true,
        op => op.is_training_only(),
    }
}

fn averages(op: &Op) -> bool {
    matches!(op, Op::Mean { .. } | Op::GlobalAveragePool)
}

fn may_normalise(op: &Op) -> bool {
    is_pointwise(op) || averages(op) || matches!(op, Op::Reshape { .. } | Op::Transpose { .. })
}

/// Whether something has one element for each channel.
fn is_vector(dims: &[usize]) -> bool {
    matches!(dims, [_, 1, 1] | [_])
}

fn form(conv: &Conv2d) -> Form {
    match conv {
        Conv2d { groups, in_channels, .. } if *groups > 1 && groups == in_channels => Form::Depthwise,
        Conv2d { kernel: [1, 1], groups: 1, in_channels, out_channels, .. } => {
            Form::Pointwise { narrows: out_channels < in_channels }
        }
        _ => Form::Spatial,
    }
}
