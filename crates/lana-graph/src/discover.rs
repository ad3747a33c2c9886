//! Finds the replaceable layers of a network that does not say where they are.
//!
//! Some values of a network lie on every path from its input to its output. Between two such values next to each other stands a
//! *unit*: a single node, or a region that branches and joins again, as a residual block does. A unit has one input and one
//! output, so it could be a layer; what people call a block is often several of them. In order:
//!
//! 1. The **stem** stays: the first convolution (or branch, if it is first), and, in a network with branches, everything up to the last pooling in front of the
//!    first of them. The **head** stays: everything from the global pooling (or flattening) on, and the last convolution if it is a
//!    pointwise one that stands alone before that.
//! 2. A unit that **branches** is a layer, with the activation directly behind it (as in a ResNet). One that multiplies its input by
//!    a gate (squeeze and excitation) is none by itself: it belongs to the convolutions around it. Attention and the
//!    feed-forward branch behind it are one layer, a transformer block.
//! 3. A **convolution** outside of branches is a layer with the normalisation, activation and gate behind it. A depthwise one takes the
//!    pointwise ones before and behind it along (an inverted residual without its shortcut, a separable convolution); any other
//!    takes along a pointwise one behind it that narrows and has no activation (a fused inverted residual without its
//!    shortcut). A pointwise one that narrows in front of branches that are joined side by side is theirs (a fire module). Layer
//!    normalisation directly in front of a convolution, as ConvNeXt's downsampling has it, is part of its layer.
//!
//! Where regions are nested, the outermost that is no chain is taken: an inner branch is never a layer of its own.
//!
//! [`LayerRules`] change that by name.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{Conv2d, Error, Graph, Layer, Op, Result, Value, fits};

/// Changes to the layers that are found, by patterns for names ([`fits`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerRules {
    /// Pieces of the stem and the head that shall be layers too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Layers that shall stay as they are.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Layers of several units that shall be one layer for each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub split: Vec<String>,
    /// Layers that shall be one: for each pattern those that fit it and follow each other, with what stands between.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub merge: Vec<String>,
    /// Layers of a stage that follow each other and shall be one, at most: see [`group`]. 0 and 1 leave each alone.
    pub group: usize,
}

impl Default for LayerRules {
    /// Up to three layers of a stage as one.
    fn default() -> Self {
        LayerRules { group: 3, ..LayerRules::alone() }
    }
}

impl LayerRules {
    /// Every layer as it is found.
    pub fn alone() -> Self {
        LayerRules {
            include: Vec::new(),
            exclude: Vec::new(),
            split: Vec::new(),
            merge: Vec::new(),
            group: 1,
        }
    }

    /// Whether they name a layer.
    pub fn name_any(&self) -> bool {
        let LayerRules { include, exclude, split, merge, group: _ } = self;
        [include, exclude, split, merge].iter().any(|patterns| !patterns.is_empty())
    }
}

/// A graph with the layers that are found in it, in the place of those that it had.
///
/// # Errors
/// If a pattern of a rule fits nothing, or nothing replaceable is found.
pub fn discover(graph: &Graph, rules: &LayerRules) -> Result<Graph> {
    let plain = without_layers(graph)?;
    let mut pieces = Finder::new(&plain).pieces();
    apply(&plain, &mut pieces, rules)?;
    let layers = grouped(layers(&plain, &pieces), rules.group);
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

/// What a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
enum Form {
    /// Pixels of each channel alone.
    Depthwise,
    /// With a kernel of one pixel; whether it gives fewer channels than it takes.
    Pointwise { narrows: bool },
    /// Both pixels and channels.
    Spatial,
}

/// A stretch of nodes between two values that every path passes.
#[derive(Clone, Debug)]
struct Unit {
    nodes: Range<usize>,
    kind: Kind,
}

/// One or more units that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Piece {
    name: String,
    /// Of the units.
    nodes: Range<usize>,
    /// The same for each unit that can stand by itself.
    parts: Vec<Range<usize>>,
    /// Whether it is a layer.
    replaceable: bool,
}

struct Finder<'a> {
    graph: &'a Graph,
    units: Vec<Unit>,
}

impl<'a> Finder<'a> {
    fn new(graph: &'a Graph) -> Self {
        let cuts = graph.cuts();
        let units = cuts.windows(2).map(|pair| {
            let nodes = pair[0].index()..pair[1].index();
            let kind = kind(graph, &nodes);
            Unit { nodes, kind }
        });
        Finder { units: units.collect(), graph }
    }

    /// All convolutions and branches in order, those of stem and head not replaceable.
    fn pieces(&self) -> Vec<Piece> {
        let kinds: Vec<Kind> = self.units.iter().map(|unit| unit.kind).collect();
        let head = kinds.iter().position(|kind| *kind == Kind::Global).unwrap_or(kinds.len());
        let stem = self.stem(&kinds[..head]);
        let mut pieces = Vec::new();
        let mut at = 0;
        while at < kinds.len() {
            let end = self.end(&kinds, at);
            if end > at {
                pieces.push(self.piece(at..end, at >= stem && end <= head));
            }
            at = end.max(at + 1);
        }
        let convolves_behind = kinds[head..].iter().any(|kind| matches!(kind, Kind::Convolution(_)));
        if let Some(last) = pieces.iter_mut().rev().find(|piece| piece.replaceable)
            && !convolves_behind
            && self.is_lone_pointwise(last)
        {
            last.replaceable = false;
        }
        pieces
    }

    /// The unit behind the stem.
    fn stem(&self, kinds: &[Kind]) -> usize {
        let is_branch = |kind: &Kind| matches!(kind, Kind::Branch { .. });
        let begins = |kind: &Kind| is_branch(kind) || matches!(kind, Kind::Convolution(_));
        let Some(first) = kinds.iter().position(begins) else { return 0 };
        let behind = kinds.iter().skip(first + 1).position(is_branch).map_or(0, |at| first + 1 + at);
        let pooling = kinds[..behind].iter().rposition(|kind| *kind == Kind::Pooling);
        pooling.map_or(0, |at| at + 1).max(first + 1)
    }

    /// Behind the last unit of the piece that begins with a unit; the unit itself if none does.
    fn end(&self, kinds: &[Kind], at: usize) -> usize {
        let is = |at: usize, form: fn(Form) -> bool| matches!(kinds.get(at), Some(Kind::Convolution(f)) if form(*f));
        let pointwise = |at| is(at, |form| matches!(form, Form::Pointwise { .. }));
        let depthwise = |at| is(at, |form| form == Form::Depthwise);
        let joins = |kind: &Kind| matches!(kind, Kind::Branch { concat: true, .. });
        // Behind what follows a convolution.
        let followed = |mut at: usize| {
            while matches!(kinds.get(at), Some(Kind::Normalisation | Kind::Activation | Kind::Gate)) {
                at += 1;
            }
            at
        };
        match kinds[at] {
            Kind::Branch { attention, .. } => {
                let feeds_forward = matches!(kinds.get(at + 1), Some(Kind::Branch { attention: false, .. }));
                let end = if attention && feeds_forward { at + 2 } else { at + 1 };
                if kinds.get(end) == Some(&Kind::Activation) { end + 1 } else { end }
            }
            Kind::Convolution(form) => {
                let mut end = followed(at + 1);
                let mut has_depthwise = form == Form::Depthwise;
                if matches!(form, Form::Pointwise { .. }) && depthwise(end) {
                    end = followed(end + 1);
                    has_depthwise = true;
                }
                if has_depthwise && pointwise(end) {
                    return followed(end + 1);
                }
                let projects = is(end, |form| form == Form::Pointwise { narrows: true }) && {
                    let behind = followed(end + 1);
                    !kinds[end + 1..behind].contains(&Kind::Activation)
                };
                match form {
                    Form::Spatial if projects => followed(end + 1),
                    Form::Pointwise { narrows: true } if kinds.get(end).is_some_and(joins) => end + 1,
                    _ => end,
                }
            }
            Kind::LayerNorm | Kind::Turning => {
                // It works on what is last, so that channels are put there and back.
                let turned = |at: usize| at + usize::from(kinds.get(at) == Some(&Kind::Turning));
                let norm = turned(at);
                let behind = turned(norm + 1);
                let is_norm = kinds.get(norm) == Some(&Kind::LayerNorm);
                if is_norm && is(behind, |_| true) { self.end(kinds, behind) } else { at }
            }
            _ => at,
        }
    }

    fn piece(&self, units: Range<usize>, replaceable: bool) -> Piece {
        let nodes = self.units[units.start].nodes.start..self.units[units.end - 1].nodes.end;
        // What follows a convolution or a branch stays with it, and what comes before the first.
        let mut parts: Vec<Range<usize>> = std::iter::once(nodes.start..nodes.start).collect();
        let mut begun = false;
        for unit in &self.units[units] {
            let stands_alone = matches!(unit.kind, Kind::Branch { .. } | Kind::Convolution(_));
            match parts.last_mut() {
                Some(last) if !(stands_alone && begun) => last.end = unit.nodes.end,
                _ => parts.push(unit.nodes.clone()),
            }
            begun |= stands_alone;
        }
        Piece { name: name(self.graph, &nodes), nodes, parts, replaceable }
    }

    fn is_lone_pointwise(&self, piece: &Piece) -> bool {
        let first = self.units.iter().find(|unit| unit.nodes.start == piece.nodes.start);
        piece.parts.len() == 1
            && first.is_some_and(|unit| matches!(unit.kind, Kind::Convolution(Form::Pointwise { .. })))
    }
}

fn kind(graph: &Graph, nodes: &Range<usize>) -> Kind {
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

/// What a stretch of nodes is called: the longest path that its nodes share with each other and with no other node; or else those
/// of them that have weights, since some exporters name these alone by their path; or else the same by the words of their names, as
/// Keras has `block_1_expand` and `block_1_project`; or else the first of these.
fn name(graph: &Graph, nodes: &Range<usize>) -> String {
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
fn shared_path(graph: &Graph, inside: &Range<usize>, nodes: &[usize], ends: &[char]) -> Option<String> {
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
fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Changes pieces as the rules say.
fn apply(graph: &Graph, pieces: &mut Vec<Piece>, rules: &LayerRules) -> Result<()> {
    let unmatched = |rule: &str, what: &str, pattern: &str, pieces: &[Piece]| {
        let names: Vec<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
        Error::Graph {
            graph: graph.name().into(),
            reason: format!(
                "`layers.{rule}`: {what} `{pattern}`; there are {}{}",
                names.iter().take(12).copied().collect::<Vec<_>>().join(", "),
                if names.len() > 12 { " …" } else { "" }
            ),
        }
    };
    let mark = |pieces: &mut [Piece], rule: &str, patterns: &[String], replaceable: bool| {
        for pattern in patterns {
            let mut any = false;
            for piece in pieces.iter_mut().filter(|piece| fits(pattern, &piece.name)) {
                (piece.replaceable, any) = (replaceable, true);
            }
            if !any {
                return Err(unmatched(rule, "nothing fits", pattern, pieces));
            }
        }
        Ok(())
    };
    mark(pieces, "include", &rules.include, true)?;
    for pattern in &rules.split {
        if !pieces.iter().any(|piece| fits(pattern, &piece.name) && piece.parts.len() > 1) {
            return Err(unmatched("split", "nothing that has parts fits", pattern, pieces));
        }
        let split = |piece: Piece| -> Vec<Piece> {
            if piece.parts.len() < 2 || !fits(pattern, &piece.name) {
                return vec![piece];
            }
            let part = |nodes: &Range<usize>| Piece {
                name: name(graph, nodes),
                nodes: nodes.clone(),
                parts: vec![nodes.clone()],
                replaceable: piece.replaceable,
            };
            piece.parts.iter().map(part).collect()
        };
        *pieces = std::mem::take(pieces).into_iter().flat_map(split).collect();
    }
    for pattern in &rules.merge {
        // With the name of the last that is in it.
        let mut merged: Vec<(Piece, String)> = Vec::new();
        let (mut open, mut any) = (false, false);
        for piece in std::mem::take(pieces) {
            let fitting = piece.replaceable && fits(pattern, &piece.name);
            match merged.last_mut() {
                Some((last, end)) if open && fitting => {
                    last.nodes.end = piece.nodes.end;
                    last.parts.extend(piece.parts);
                    *end = piece.name;
                    any = true;
                }
                _ => {
                    let name = piece.name.clone();
                    merged.push((piece, name));
                }
            }
            open = fitting;
        }
        let named = merged.into_iter().map(|(mut piece, end)| {
            if piece.name != end {
                let all: Vec<usize> = (0..graph.nodes().len()).collect();
                let own = shared_path(graph, &piece.nodes, &all, &['.']);
                piece.name = own.unwrap_or_else(|| spanning(&piece.name, &end));
            }
            piece
        });
        *pieces = named.collect();
        if !any {
            return Err(unmatched("merge", "no layers that follow each other fit", pattern, pieces));
        }
    }
    mark(pieces, "exclude", &rules.exclude, false)
}

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
fn spanning(first: &str, last: &str) -> String {
    let paths = (first.rsplit_once('.'), last.rsplit_once('.'));
    match paths {
        (Some((path, _)), Some((other, end))) if path == other && is_number(end) => format!("{first}-{end}"),
        _ => format!("{first}-{last}"),
    }
}

/// See [`group`].
fn grouped(layers: Vec<Layer>, most: usize) -> Vec<Layer> {
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

fn layers(graph: &Graph, pieces: &[Piece]) -> Vec<Layer> {
    let mut names = HashSet::new();
    let mut layers: Vec<Layer> = Vec::new();
    for Piece { name, nodes, .. } in pieces.iter().filter(|piece| piece.replaceable) {
        let input = match nodes.start {
            0 => Value::INPUT,
            start => Value::of_node(start - 1),
        };
        let output = Value::of_node(nodes.end - 1);
        let name = match names.insert(name.clone()) {
            true => name.clone(),
            false => format!("{name}@{}", nodes.start),
        };
        layers.push(Layer { name, stage: String::new(), nodes: nodes.clone(), input, output });
    }
    let stages = stages(graph, &layers);
    layers.iter_mut().zip(stages).for_each(|(layer, stage)| layer.stage = stage);
    layers
}

/// The stage of each layer: its path, where the name ends with a number and the paths tell stages apart; else by the resolution.
fn stages(graph: &Graph, layers: &[Layer]) -> Vec<String> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Activation, GraphBuilder, Shape, Tensor, Weights};

    type Built = Result<Graph>;

    fn names(graph: &Graph, rules: &LayerRules) -> Vec<String> {
        discover(graph, rules).unwrap().layers().iter().map(|layer| layer.name.clone()).collect()
    }

    /// Convolutions in a chain, with pooling and a classifier of two matrices.
    fn vgg() -> Built {
        let mut b = GraphBuilder::new("vgg", Shape::image(3, 16, 16));
        let mut x = b.input();
        for (at, channels) in [(0, 8), (3, 8), (6, 16), (9, 16)] {
            x = b.conv(&format!("features.{at}"), x, channels, 3, 1, 1)?;
            x = b.batch_norm(&format!("features.{}", at + 1), x)?;
            x = b.activation(&format!("features.{}", at + 2), x, Activation::Relu)?;
            if at == 3 {
                x = b.node("pool", Op::MaxPool { window: crate::Window::square(2, 2, 0) }, &[x])?;
            }
        }
        x = b.node("flatten", Op::Flatten, &[x])?;
        x = b.node("classifier", Op::Linear { out_features: 10, bias: true }, &[x])?;
        b.finish(x)
    }

    #[test]
    fn convolutions_in_a_chain_are_layers_but_the_first() {
        let graph = vgg().unwrap();
        let found = discover(&graph, &LayerRules::alone()).unwrap();
        assert_eq!(names(&graph, &LayerRules::alone()), ["features.3", "features.6", "features.9"]);
        assert!(found.layers().iter().all(|layer| layer.nodes.len() == 3));
        // All stand in one list, which tells nothing of stages.
        let stages: Vec<&str> = found.layers().iter().map(|layer| layer.stage.as_str()).collect();
        assert_eq!(stages, ["stage1", "stage2", "stage2"]);
        // The layers take part in everything else: any of them can be cut out.
        assert_eq!(found.layer_graph("features.6").unwrap().nodes().len(), 3);
    }

    /// Two stages of a ConvNeXt with one block each, and a convolution that reduces the map between them.
    fn convnext() -> Built {
        let norm = |b: &mut GraphBuilder, name: &str, x| {
            let x = b.node(&format!("{name}.Transpose"), Op::Transpose { order: vec![1, 2, 0] }, &[x])?;
            let x = b.node(name, Op::LayerNorm { eps: 1e-6 }, &[x])?;
            b.node(&format!("{name}.Transpose_1"), Op::Transpose { order: vec![2, 0, 1] }, &[x])
        };
        let mut b = GraphBuilder::new("convnext", Shape::image(3, 32, 32));
        let x = b.input();
        let x = b.conv("features.0.0", x, 8, 4, 4, 1)?;
        let mut x = norm(&mut b, "features.0.1", x)?;
        for (stage, channels) in [(1, 8), (3, 16)] {
            let name = |part: &str| format!("features.{stage}.0.{part}");
            let y = b.conv(&name("dw"), x, channels, 7, 1, channels)?;
            let y = norm(&mut b, &name("norm"), y)?;
            let y = b.conv(&name("expand"), y, 4 * channels, 1, 1, 1)?;
            let y = b.activation(&name("act"), y, Activation::Gelu)?;
            let y = b.conv(&name("project"), y, channels, 1, 1, 1)?;
            x = b.add(&name("add"), y, x)?;
            if stage == 1 {
                x = norm(&mut b, "features.2.0", x)?;
                x = b.conv("features.2.1", x, 16, 2, 2, 1)?;
            }
        }
        let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
        let x = norm(&mut b, "norm", x)?;
        let x = b.node("flatten", Op::Flatten, &[x])?;
        let x = b.node("head", Op::Linear { out_features: 10, bias: true }, &[x])?;
        b.finish(x)
    }

    #[test]
    fn layer_normalisation_belongs_to_the_convolution_behind_it() {
        let graph = convnext().unwrap();
        let found = discover(&graph, &LayerRules::alone()).unwrap();
        let nodes = |at: usize| {
            let nodes = &graph.nodes()[found.layers()[at].nodes.clone()];
            nodes.iter().map(|node| node.op.kind()).collect::<Vec<_>>()
        };
        assert_eq!(names(&graph, &LayerRules::alone()), ["features.1.0", "features.2", "features.3.0"]);
        assert_eq!(nodes(1), ["transpose", "layer_norm", "transpose", "conv2d"]);
        // They are one unit: there is nothing to split.
        let split = LayerRules { split: vec!["features.2".into()], ..LayerRules::alone() };
        assert!(discover(&graph, &split).unwrap_err().to_string().contains("has parts"));
        // What normalises in front of a block is the block's or stays outside, as behind the stem.
        assert_eq!(found.layers()[0].nodes.start, 4);
    }

    #[test]
    fn layers_whose_nodes_are_called_otherwise_are_cut_out_and_put_back_with_their_weights() {
        let graph = vgg().unwrap();
        let rules = LayerRules { group: 2, ..LayerRules::alone() };
        for rules in [LayerRules::alone(), rules] {
            let found = discover(&graph, &rules).unwrap();
            let weights: Weights = found
                .parameters()
                .into_iter()
                .enumerate()
                .map(|(at, p)| (p.name, Tensor::full(&p.shape, at as f32 + 1.0)))
                .collect();
            for layer in found.layers() {
                let own = found.layer_graph(&layer.name).unwrap();
                let own_weights = found.layer_weights(&layer.name, &weights).unwrap();
                own_weights.check(&own).unwrap();
                let student = found.replace(&layer.name, &own).unwrap();
                let mut student_weights = weights.clone();
                found.replace_weights(&layer.name, &mut student_weights, &own_weights).unwrap();
                student_weights.check(&student).unwrap();
                let values = |graph: &Graph, weights: &Weights| -> Vec<f32> {
                    graph.parameters().iter().map(|p| weights.get(&p.name).unwrap().data[0]).collect()
                };
                assert_eq!(values(&student, &student_weights), values(&found, &weights));
            }
            assert!(found.layer_weights("nowhere", &weights).is_err());
        }
    }

    #[test]
    fn rules_change_what_is_found() {
        let graph = vgg().unwrap();
        let rules = |change: fn(&mut LayerRules)| {
            let mut rules = LayerRules::alone();
            change(&mut rules);
            rules
        };
        let include = rules(|r| r.include = vec!["features.0".into()]);
        assert_eq!(names(&graph, &include).len(), 4);
        let exclude = rules(|r| r.exclude = vec!["*.6".into()]);
        assert_eq!(names(&graph, &exclude), ["features.3", "features.9"]);
        // With the pooling between the first and the second.
        let merge = rules(|r| r.merge = vec!["features.*".into()]);
        let merged = discover(&graph, &merge).unwrap();
        assert_eq!(merged.layers().len(), 1);
        assert_eq!(merged.layers()[0].nodes, 3..13);
        assert_eq!(merged.layers()[0].name, "features.3-9");
        let group = rules(|r| r.group = 2);
        // Of the first stage there is one alone, the pooling stands behind it.
        assert_eq!(names(&graph, &group), ["features.3", "features.6-9"]);
        let plain = discover(&graph, &LayerRules::alone()).unwrap();
        assert_eq!(super::group(&plain, 2).unwrap().layers(), discover(&graph, &group).unwrap().layers());
        assert_eq!(super::group(&plain, 1).unwrap().layers(), plain.layers());
        for wrong in [
            rules(|r| r.include = vec!["stem".into()]),
            rules(|r| r.exclude = vec!["stem".into()]),
            rules(|r| r.split = vec!["stem".into()]),
            rules(|r| r.merge = vec!["stem".into()]),
        ] {
            let error = discover(&graph, &wrong).unwrap_err().to_string();
            assert!(error.contains("`stem`") && error.contains("features.0"), "{error}");
        }
        // What fits but changes nothing is said too.
        for (wrong, said) in [
            (rules(|r| r.split = vec!["features.3".into()]), "has parts"),
            (rules(|r| r.merge = vec!["features.3".into()]), "follow each other"),
            (rules(|r| r.exclude = vec!["*".into()]), "leaves no layer"),
        ] {
            let error = discover(&graph, &wrong).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
