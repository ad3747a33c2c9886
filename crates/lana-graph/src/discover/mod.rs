//! Finds the replaceable layers of a network that does not say where they are.
//!
//! Some values of a network lie on every path from its input to its output. Between two such values next to each other stands a
//! *unit*: a single node, or a region that branches and joins again, as a residual block does. A unit has one input and one
//! output, so it could be a layer; what people call a block is often several of them. In order:
//!
//! 1. The **stem** stays: the first convolution (or branch, if it is first), and, in a network with branches, everything up to the last
//!    pooling in front of the first of them. The **head** stays: everything from the global pooling (or flattening) on, and the last
//!    convolution if it is a pointwise one that stands alone before that.
//! 2. A unit that **branches** and has a convolution or a matrix in it is a layer, with the activation directly behind it (as in a
//!    ResNet). One that multiplies its input by a gate (squeeze and excitation) is none by itself: it belongs to the convolutions
//!    around it. Attention and the feed-forward branch behind it are one layer, a transformer block.
//! 3. A **convolution** outside of branches is a layer with the normalisation, activation and gate behind it. A depthwise one takes the
//!    pointwise ones before and behind it along (an inverted residual without its shortcut, a separable convolution); any other
//!    takes along a pointwise one behind it that narrows and has no activation (a fused inverted residual without its
//!    shortcut). A pointwise one that narrows in front of branches that are joined side by side is theirs (a fire module).
//! 4. A unit without convolution or matrix is no layer, however many nodes it has. If each element is made of itself alone (leaky
//!    ReLU, Mish), it is an **activation**; if means are taken on the way (group and instance normalisation, with the change of
//!    dimensions before and behind), a **normalisation**.
//! 5. A **normalisation** belongs, with its activation, to the convolution in front of it; where there is none, to the convolution or
//!    branch behind it (a block whose shortcut begins behind its first activation). Next to a branch names decide, where they put both
//!    into one module. *Layer* normalisation is the convolution's directly behind it, as in ConvNeXt's downsampling; in front
//!    of a branch it stays.
//!
//! Where regions are nested, the outermost that is no chain is taken: an inner branch is never a layer of its own.
//!
//! Layers of one path are a stage if they give maps of one resolution; others have a stage for each resolution. Groups of layers
//! keep within a stage and its resolution.
//!
//! [`LayerRules`] change by name what is a layer, not the stages of the others.

mod finder;
mod name;
mod rules;
mod stage;
#[cfg(test)]
mod tests;
mod unit;

use std::collections::HashSet;

use finder::{Finder, Piece};
use name::Names;
pub use rules::LayerRules;
use rules::apply;
pub use stage::group;
use stage::{grouped, set_stages};

use crate::{Error, Graph, Layer, Result, Value};

/// A graph with the layers that are found in it, in the place of those that it had.
///
/// # Errors
/// If a pattern of a rule fits nothing, or nothing replaceable is found.
pub fn discover(graph: &Graph, rules: &LayerRules) -> Result<Graph> {
    let plain = without_layers(graph)?;
    let names = Names::new(&plain);
    let mut pieces = Finder::new(&plain, &names).pieces();
    // Before anything is changed: what one rule names must not tell where the stages of the others end.
    set_stages(&plain, &mut pieces);
    apply(&names, &mut pieces, rules)?;
    let layers = grouped(&plain, layers(&pieces), rules.group);
    if layers.is_empty() {
        let reason = match pieces.is_empty() || rules.exclude.is_empty() {
            true => "holds no region with one input and one output that could be replaced",
            false => "`layers.exclude` leaves no layer",
        };
        return Err(Error::Graph { graph: graph.name().into(), reason: reason.into() });
    }
    let (name, input, nodes, output, _) = plain.into_parts();
    Graph::new(name, input, nodes, output, layers)
}

fn without_layers(graph: &Graph) -> Result<Graph> {
    let (name, input, nodes, output, _) = graph.clone().into_parts();
    Graph::new(name, input, nodes, output, Vec::new())
}

/// The layers, each with whether a rule made it.
fn layers(pieces: &[Piece]) -> Vec<(Layer, bool)> {
    let mut names = HashSet::new();
    let layer = |piece: &Piece| {
        let Piece { name, stage, nodes, .. } = piece;
        let input = match nodes.start {
            0 => Value::INPUT,
            start => Value::of_node(start - 1),
        };
        let name = match names.insert(name.clone()) {
            true => name.clone(),
            false => format!("{name}@{}", nodes.start),
        };
        let output = Value::of_node(nodes.end - 1);
        (Layer { name, stage: stage.clone(), nodes: nodes.clone(), input, output }, piece.by_rule)
    };
    pieces.iter().filter(|piece| piece.replaceable).map(layer).collect()
}
