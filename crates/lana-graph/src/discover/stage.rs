//! The stages that layers belong to, and groups of them.

use std::collections::HashSet;

use super::name::is_number;
use crate::{Graph, Layer, Result};

/// A graph in which at most so many layers of a stage that follow each other directly are one. A stage is divided evenly: seven
/// layers by threes are groups of three, two and two.
///
/// # Errors
/// If the graph is not consistent.
pub fn group(graph: &Graph, most: usize) -> Result<Graph> {
    let layers = grouped(graph.layers().to_vec(), most);
    Graph::new(graph.name(), graph.input_shape().clone(), graph.nodes().to_vec(), graph.output(), layers)
}

/// What is called that reaches from one layer to another: `layer1.0-2` from `layer1.0` to `layer1.2`.
pub(super) fn spanning(first: &str, last: &str) -> String {
    let paths = (first.rsplit_once('.'), last.rsplit_once('.'));
    match paths {
        (Some((path, _)), Some((other, end))) if path == other && is_number(end) => format!("{first}-{end}"),
        _ => format!("{first}-{last}"),
    }
}

/// See [`group`].
pub(super) fn grouped(layers: Vec<Layer>, most: usize) -> Vec<Layer> {
    if most < 2 {
        return layers;
    }
    let mut groups = Vec::new();
    for stage in layers.chunk_by(|a, b| a.stage == b.stage && a.output == b.input) {
        let count = stage.len().div_ceil(most);
        let bound = |group: usize| (group * stage.len()).div_ceil(count);
        for group in (0..count).map(|group| &stage[bound(group)..bound(group + 1)]) {
            if let [first, .., last] = group {
                let name = spanning(&first.name, &last.name);
                let nodes = first.nodes.start..last.nodes.end;
                groups.push(Layer { name, nodes, output: last.output, ..first.clone() });
            } else {
                groups.extend_from_slice(group);
            }
        }
    }
    groups
}

/// The stage of each layer: its path, where the name ends with a number and the paths tell stages apart; else by the resolution.
pub(super) fn stages(graph: &Graph, layers: &[Layer]) -> Vec<String> {
    let resolution = |layer: &Layer| graph.shape(layer.output).dims().get(1..).unwrap_or_default().to_vec();
    let path = |layer: &Layer| match layer.name.rsplit_once('.') {
        Some((path, last)) if is_number(last) => Some(path.to_string()),
        _ => None,
    };
    let paths: Vec<Option<String>> = layers.iter().map(path).collect();
    // The blocks of all stages may stand in one list, as torchvision's `features`.
    let resolutions: HashSet<Vec<usize>> = layers.iter().map(resolution).collect();
    let is_one_list = resolutions.len() > 1 && paths.iter().all(|path| path.is_some() && *path == paths[0]);
    let mut number = 0;
    let mut last = None;
    let numbered = layers.iter().zip(paths).map(|(layer, path)| {
        let own = Some(resolution(layer));
        if own != last {
            number += 1;
            last = own;
        }
        path.filter(|_| !is_one_list).unwrap_or_else(|| format!("stage{number}"))
    });
    numbered.collect()
}
