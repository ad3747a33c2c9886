//! The teacher's own block with fewer channels inside (structured pruning as an operation).
//!
//! Every inner group of channels ([`lana_graph::channels`]) keeps its strongest ones, with the teacher's weights. Nothing
//! else changes, so that the operation is nearly right before any training. The few channels in the middle of
//! squeeze-and-excitation stay: they cost next to nothing, and without them the gates would be wrong.
//!
//! Where convolutions are in groups, or split attention has several versions of a channel, every group and every version
//! keeps its channels at the same places, those that are strongest in all of them together.

use lana_graph::channels::{ChannelGroups, importance, narrow, narrow_weights};
use lana_graph::{Graph, Node, Op, Value, Weights};

use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start, any};
use crate::blocks::round_channels;

pub(super) static FAMILY: Family = Family {
    name: "narrow",
    summary: "the teacher's own layer with only the share w of the channels inside it",
    parameters: &[Parameter::new("w", Range::Positive(1.0))],
    check: any,
    members: |preset| match preset {
        Preset::Compact | Preset::Extended => listed(&["narrow-w0.5", "narrow-w0.25", "narrow-w0.125"]),
        _ => Vec::new(),
    },
    initialisation: "the teacher's weights of the channels that contribute most",
    build,
    initialise,
};

/// The groups to narrow, each with the places it has and those it keeps.
fn plan(layer: &Graph, share: f64) -> Vec<(usize, usize, usize)> {
    let groups = ChannelGroups::of(layer);
    let nodes = layer.nodes();
    let behind_pooling = |value: Value| {
        let mut maker = value.node().map(|n| &nodes[n]);
        // Split attention pools the versions of a channel, then adds them up.
        if let Some(Node { op: Op::SumParts { .. }, inputs, .. }) = maker {
            maker = inputs[0].node().map(|n| &nodes[n]);
        }
        maker.is_some_and(|n| n.op == Op::GlobalAveragePool)
    };
    let squeezed: Vec<usize> = (0..nodes.len())
        .filter(|&n| matches!(nodes[n].op, Op::Conv2d(_)) && behind_pooling(nodes[n].inputs[0]))
        .map(|n| groups.group(Value::of_node(n)))
        .collect();
    let wide = groups.inner().iter().filter(|g| !squeezed.contains(g));
    wide.map(|&group| {
        // A group is named by its first value, which a node makes: the input's group is never inner.
        let channels = layer.shape(Value::of_node(group - 1)).channels();
        let places = groups.places(group);
        let kept = match share < 1.0 {
            true => round_channels(channels as f64 * share).div_ceil(channels / places),
            false => places,
        };
        (group, places, kept.min(places))
    })
    .collect()
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let share = arguments.number("w");
    if plan(layer, share).is_empty() {
        return Err(NotApplicable::new(
            "the layer has no channels that only it sees and that could be fewer",
        ));
    }
    Ok(narrowed(layer, share)?)
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    strongest(start.layer, start.layer_weights, start.arguments.number("w"))
}

/// The layer with a share of the channels inside it.
pub(super) fn narrowed(layer: &Graph, share: f64) -> lana_graph::Result<Graph> {
    let mut fewer = plan(layer, share).into_iter().filter(|(_, places, keep)| keep < places);
    fewer.try_fold(layer.clone(), |graph, (group, _, keep)| narrow(&graph, group, keep))
}

/// The layer's weights of its strongest channels, for [`narrowed`].
pub(super) fn strongest(layer: &Graph, layer_weights: &Weights, share: f64) -> lana_graph::Result<Weights> {
    let (mut graph, mut weights) = (layer.clone(), layer_weights.clone());
    for (group, places, keep) in plan(layer, share) {
        if keep < places {
            // Ranked in the whole layer: the choice in one group does not depend on that in another.
            let strength = importance(layer, layer_weights, group);
            let mut order: Vec<usize> = (0..places).collect();
            order.sort_by(|&a, &b| strength[b].total_cmp(&strength[a]));
            order.truncate(keep);
            order.sort_unstable();
            weights = narrow_weights(&graph, &weights, group, &order);
            graph = narrow(&graph, group, keep)?;
        }
    }
    Ok(weights)
}
