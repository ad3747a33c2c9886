//! What pieces are called.

use std::ops::Range;

use crate::Graph;

/// What a stretch of nodes is called: the longest path that its nodes share with each other and with no other node; or else those
/// of them that have weights, since some exporters name these alone by their path; or else the same by the words of their names, as
/// Keras has `block_1_expand` and `block_1_project`; or else the first of these.
pub(super) fn name(graph: &Graph, nodes: &Range<usize>) -> String {
    let all: Vec<usize> = (0..graph.nodes().len()).collect();
    let has_weights =
        |index: &usize| !graph.nodes()[*index].op.parameters(&graph.input_shapes(*index)).is_empty();
    let weighted: Vec<usize> = all.iter().copied().filter(has_weights).collect();
    let first = || weighted.iter().copied().find(|index| nodes.contains(index)).unwrap_or(nodes.start);
    shared_path(graph, nodes, &all, &['.'])
        .or_else(|| shared_path(graph, nodes, &weighted, &['.']))
        .or_else(|| shared_path(graph, nodes, &weighted, &['.', '_']))
        .unwrap_or_else(|| graph.nodes()[first()].name.clone())
}

/// The longest path that those of some nodes share that are inside, and none that is outside; what stands between `ends` are its
/// parts. A block whose nodes are all in one module of it is called by its number nevertheless: `features.1`, not
/// `features.1.conv`, beside `features.3` with its addition.
pub(super) fn shared_path(
    graph: &Graph,
    inside: &Range<usize>,
    nodes: &[usize],
    ends: &[char],
) -> Option<String> {
    let within = |index: usize, prefix: &str| {
        let rest = graph.nodes()[index].name.strip_prefix(prefix);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(ends))
    };
    let (mine, others): (Vec<usize>, Vec<usize>) = nodes.iter().partition(|index| inside.contains(index));
    let is_own = |prefix: &&str| others.iter().all(|&index| !within(index, prefix));
    let mut shared = graph.nodes()[*mine.first()?].name.as_str();
    while !mine.iter().all(|&index| within(index, shared)) {
        shared = &shared[..shared.rfind(ends)?];
    }
    let shared = Some(shared).filter(is_own)?;
    let is_block = |path: &&str| path.rsplit_once('.').is_some_and(|(_, last)| is_number(last));
    let mut around =
        std::iter::successors(Some(shared), |path| path.rsplit_once('.').map(|(front, _)| front));
    Some(around.find(is_block).filter(is_own).unwrap_or(shared).to_string())
}

/// Whether a part of a path is the number of a block.
pub(super) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}
