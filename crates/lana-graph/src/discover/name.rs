//! What pieces are called.

use std::ops::Range;

use super::unit::mixes;
use crate::Graph;

/// The names of a network's nodes.
pub(super) struct Names<'a> {
    graph: &'a Graph,
    all: Vec<usize>,
    /// Nodes that have weights.
    weighted: Vec<usize>,
    /// Convolutions and matrices.
    mixing: Vec<usize>,
}

impl<'a> Names<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        let all: Vec<usize> = (0..graph.nodes().len()).collect();
        let op = |index: usize| &graph.nodes()[index].op;
        let has_weights = |index: &usize| !op(*index).parameters(&graph.input_shapes(*index)).is_empty();
        let weighted: Vec<usize> = all.iter().copied().filter(has_weights).collect();
        let mixes = |index: &usize| mixes(op(*index));
        let mixing = weighted.iter().copied().filter(mixes).collect();
        Names { graph, all, weighted, mixing }
    }

    /// What the network is called.
    pub(super) fn network(&self) -> &str {
        self.graph.name()
    }

    /// What a stretch of nodes is called: the longest path that its nodes share with each other and with no other node; or else those
    /// of them that have weights, since some exporters name these alone by their path; or else the same by the words of their names,
    /// as Keras has `block_1_expand` and `block_1_project`; or else the same of convolutions and matrices alone, since what becomes
    /// several nodes when it is read is called as the file calls it, whatever it belongs to; or else the first that has weights.
    pub(super) fn of(&self, nodes: &Range<usize>) -> String {
        let first = || self.weighted.iter().copied().find(|index| nodes.contains(index));
        self.module(nodes)
            .or_else(|| self.shared_path(nodes, &self.mixing, &['.']))
            .or_else(|| self.shared_path(nodes, &self.mixing, &['.', '_']))
            .unwrap_or_else(|| self.graph.nodes()[first().unwrap_or(nodes.start)].name.clone())
    }

    /// The path of all nodes of a stretch, or of those that have weights.
    fn module(&self, nodes: &Range<usize>) -> Option<String> {
        self.path(nodes)
            .or_else(|| self.shared_path(nodes, &self.weighted, &['.']))
            .or_else(|| self.shared_path(nodes, &self.weighted, &['.', '_']))
    }

    /// The path of all nodes of a stretch.
    pub(super) fn path(&self, nodes: &Range<usize>) -> Option<String> {
        self.shared_path(nodes, &self.all, &['.'])
    }

    /// Whether a stretch of nodes is a module of the network by its names, those of its `part` among them.
    pub(super) fn are_module(&self, nodes: &Range<usize>, part: &Range<usize>) -> bool {
        match self.weighted.iter().any(|index| part.contains(index)) {
            true => self.module(nodes).is_some(),
            false => self.path(nodes).is_some(),
        }
    }

    /// The longest path that those of some nodes share that are inside, and none that is outside; what stands between `ends` are its
    /// parts. A block whose nodes are all in one module of it is called by its number nevertheless: `features.1`, not
    /// `features.1.conv`, beside `features.3` with its addition.
    fn shared_path(&self, inside: &Range<usize>, nodes: &[usize], ends: &[char]) -> Option<String> {
        let within = |index: usize, prefix: &str| {
            let rest = self.graph.nodes()[index].name.strip_prefix(prefix);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(ends))
        };
        let (mine, others): (Vec<usize>, Vec<usize>) = nodes.iter().partition(|index| inside.contains(index));
        let is_own = |prefix: &&str| others.iter().all(|&index| !within(index, prefix));
        let mut shared = self.graph.nodes()[*mine.first()?].name.as_str();
        while !mine.iter().all(|&index| within(index, shared)) {
            shared = &shared[..shared.rfind(ends)?];
        }
        let shared = Some(shared).filter(is_own)?;
        let is_block = |path: &&str| path.rsplit_once('.').is_some_and(|(_, last)| is_number(last));
        let mut around =
            std::iter::successors(Some(shared), |path| path.rsplit_once('.').map(|(front, _)| front));
        Some(around.find(is_block).filter(is_own).unwrap_or(shared).to_string())
    }
}

/// Whether a part of a path is the number of a block.
pub(super) fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}
