//! Which units make a piece: a layer, or a part of the stem or the head that could be one.

use std::ops::Range;

use super::name::name;
use super::unit::{Form, Kind, Unit, kind};
use crate::Graph;

/// One or more units that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) name: String,
    /// Of the units.
    pub(super) nodes: Range<usize>,
    /// The same for each unit that can stand by itself.
    pub(super) parts: Vec<Range<usize>>,
    /// Whether it is a layer.
    pub(super) replaceable: bool,
}

pub(super) struct Finder<'a> {
    graph: &'a Graph,
    units: Vec<Unit>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(graph: &'a Graph) -> Self {
        let cuts = graph.cuts();
        let units = cuts.windows(2).map(|pair| {
            let nodes = pair[0].index()..pair[1].index();
            let kind = kind(graph, &nodes);
            Unit { nodes, kind }
        });
        Finder { units: units.collect(), graph }
    }

    /// All convolutions and branches in order, those of stem and head not replaceable.
    pub(super) fn pieces(&self) -> Vec<Piece> {
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
