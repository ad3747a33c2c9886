//! The units of a network: what stands between two values that every path passes.

use std::ops::Range;

use crate::{Conv2d, Graph, Op, Value};

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Branches and joins again.
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
    /// Batch normalisation, or what acts while training only.
    Normalisation,
    /// An activation.
    Activation,
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

pub(super) fn kind(graph: &Graph, nodes: &Range<usize>) -> Kind {
    let (all, last) = (&graph.nodes()[nodes.clone()], &graph.nodes()[nodes.end - 1]);
    let input = match nodes.start {
        0 => Value::INPUT,
        start => Value::of_node(start - 1),
    };
    if all.len() > 1 {
        let gates = matches!(last.op, Op::Mul)
            && last.inputs.contains(&input)
            && graph.input_shapes(nodes.end - 1).iter().any(|shape| is_vector(shape.dims()));
        let attention = all.iter().any(|node| matches!(node.op, Op::Softmax { .. }))
            && all.iter().any(|node| matches!(node.op, Op::MatMul));
        let concat = matches!(last.op, Op::Concat { .. });
        return if gates { Kind::Gate } else { Kind::Branch { attention, concat } };
    }
    match &last.op {
        Op::Conv2d(conv) => Kind::Convolution(form(conv)),
        Op::BatchNorm { .. } | Op::Dropout { .. } | Op::DropPath { .. } => Kind::Normalisation,
        Op::Activation { .. } => Kind::Activation,
        Op::LayerNorm { .. } => Kind::LayerNorm,
        Op::Transpose { .. } => Kind::Turning,
        Op::MaxPool { .. } | Op::AveragePool { .. } => Kind::Pooling,
        Op::GlobalAveragePool | Op::Flatten => Kind::Global,
        _ => Kind::Other,
    }
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
