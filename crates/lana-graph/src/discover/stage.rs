//! The stages that layers belong to, and groups of them.

use std::collections::{HashMap, HashSet};

use super::finder::Piece;
use super::name::is_number;
use crate::{Graph, Layer, Result, Value};

/// A graph in which at most so many layers of a stage that follow each other directly and give maps of one resolution are one. A
/// stage is divided evenly: seven layers by threes are groups of three, two and two.
///
/// # Errors
/// If the graph is not consistent.
pub fn group(graph: &Graph, most: usize) -> Result<Graph> {
    let layers = graph.layers().iter().map(|layer| (layer.clone(), false));
    let layers = grouped(graph, layers.collect(), most);
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

/// See [`group`]. Those that a rule made stay as they are.
pub(super) fn grouped(graph: &Graph, layers: Vec<(Layer, bool)>, most: usize) -> Vec<Layer> {
    let joins = |(a, fixed): &(Layer, bool), (b, other): &(Layer, bool)| {
        let is_stage = a.stage == b.stage && resolution(graph, a.output) == resolution(graph, b.output);
        is_stage && a.output == b.input && !fixed && !other
    };
    let mut groups = Vec::new();
    for stage in layers.chunk_by(joins) {
        let count = stage.len().div_ceil(most.max(1));
        let bound = |group: usize| (group * stage.len()).div_ceil(count);
        for group in (0..count).map(|group| &stage[bound(group)..bound(group + 1)]) {
            if let [(first, _), .., (last, _)] = group {
                let name = spanning(&first.name, &last.name);
                let nodes = first.nodes.start..last.nodes.end;
                groups.push(Layer { name, nodes, output: last.output, ..first.clone() });
            } else {
                groups.extend(group.iter().map(|(layer, _)| layer.clone()));
            }
        }
    }
    groups
}

/// Height and width of a map; of anything else all dimensions.
fn resolution(graph: &Graph, value: Value) -> &[usize] {
    match graph.shape(value).dims() {
        [_, rest @ ..] if rest.len() == 2 => rest,
        all => all,
    }
}

/// Sets the stage of each piece. That of a layer is its path, where the name ends with a number and all layers of the path have one
/// resolution, which they have not where one list holds the blocks of all stages, as torchvision's `features`; else one for each
/// resolution.
pub(super) fn set_stages(graph: &Graph, pieces: &mut [Piece]) {
    let resolution = |piece: &Piece| resolution(graph, Value::of_node(piece.nodes.end - 1)).to_vec();
    let path = |piece: &Piece| {
        let (path, last) = piece.name.rsplit_once('.')?;
        last.ends_with(|end: char| end.is_ascii_digit()).then(|| path.to_string())
    };
    let mut of_path: HashMap<String, HashSet<Vec<usize>>> = HashMap::new();
    for piece in pieces.iter().filter(|piece| piece.replaceable) {
        if let Some(path) = path(piece) {
            of_path.entry(path).or_default().insert(resolution(piece));
        }
    }
    let mut number = 0;
    let mut last = None;
    for piece in pieces {
        if !piece.replaceable {
            piece.stage = if number == 0 { "stem" } else { "head" }.into();
            continue;
        }
        let own = Some(resolution(piece));
        if own != last {
            number += 1;
            last = own;
        }
        let is_stage = |path: &String| of_path.get(path).is_some_and(|resolutions| resolutions.len() == 1);
        piece.stage = path(piece).filter(is_stage).unwrap_or_else(|| format!("stage{number}"));
    }
}
