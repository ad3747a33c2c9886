//! Which units make a piece: a layer, or a part of the stem or the head that could be one.

use std::collections::HashMap;
use std::ops::Range;

use super::name::Names;
use super::unit::{Form, Kind, Unit, units};
use crate::{Graph, Op};

/// One or more units that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) name: String,
    pub(super) stage: String,
    /// Of the units.
    pub(super) nodes: Range<usize>,
    /// The same for each unit that can stand by itself.
    pub(super) parts: Vec<Range<usize>>,
    /// Whether it is a layer.
    pub(super) replaceable: bool,
    /// Whether it is what a rule made of it.
    pub(super) by_rule: bool,
}

pub(super) struct Finder<'a> {
    graph: &'a Graph,
    names: &'a Names<'a>,
    units: Vec<Unit>,
    /// For each unit with which a normalisation begins that belongs to a branch behind it, by its name: that branch.
    leads: HashMap<usize, usize>,
}

impl<'a> Finder<'a> {
    pub(super) fn new(graph: &'a Graph, names: &'a Names<'a>) -> Self {
        let mut finder = Finder { units: units(graph), graph, names, leads: HashMap::new() };
        let branches = (0..finder.units.len()).filter(|&at| is_branch(&finder.units[at].kind));
        finder.leads = branches.filter_map(|branch| Some((finder.lead(branch)?, branch))).collect();
        finder
    }

    /// The unit with which the normalisation begins that stands in front of a branch and is of the same module.
    fn lead(&self, branch: usize) -> Option<usize> {
        let kind = |at: usize| self.units[at].kind;
        let normalises = |at: usize| matches!(kind(at), Kind::Normalisation | Kind::LayerNorm);
        let begins = |at: usize| normalises(at) || kind(at) == Kind::Turning;
        let first = (0..branch).rev().take_while(|&at| begins(at) || kind(at) == Kind::Activation).last()?;
        let last = (first..branch).rfind(|&at| normalises(at))?;
        let behind = self.units[branch].nodes.clone();
        (first..=last).filter(|&at| begins(at)).find(|&at| {
            let start = self.units[at].nodes.start;
            self.names.are_module(&(start..behind.end), &(start..behind.start))
        })
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
        let Some(first) = kinds.iter().position(|kind| stands_alone(*kind)) else { return 0 };
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
        let follows = |kind: &Kind| {
            matches!(kind, Kind::Normalisation | Kind::Activation | Kind::Training | Kind::Gate)
        };
        // Behind what follows a convolution.
        let followed = |mut at: usize| {
            while kinds.get(at).is_some_and(follows) && !self.leads.contains_key(&at) {
                at += 1;
            }
            at
        };
        if let Some(&branch) = self.leads.get(&at) {
            return self.end(kinds, branch);
        }
        match kinds[at] {
            Kind::Branch { attention, .. } => {
                let feeds_forward = matches!(kinds.get(at + 1), Some(Kind::Branch { attention: false, .. }));
                let mut end = if attention && feeds_forward { at + 2 } else { at + 1 };
                // A normalisation behind it is its own if its name says so.
                let own = |end: usize| match kinds.get(end) {
                    Some(Kind::Activation) => true,
                    Some(Kind::Normalisation) => {
                        let (first, last) = (&self.units[at].nodes, &self.units[end].nodes);
                        self.names.are_module(&(first.start..last.end), last)
                    }
                    _ => false,
                };
                while own(end) {
                    end += 1;
                }
                end
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
                    !self.activates(end + 1..followed(end + 1))
                };
                match form {
                    Form::Spatial if projects => followed(end + 1),
                    Form::Pointwise { narrows: true } if kinds.get(end).is_some_and(joins) => {
                        self.end(kinds, end)
                    }
                    _ => end,
                }
            }
            Kind::Normalisation => {
                // Nothing in front took it.
                let own = |kind: &Kind| follows(kind) && *kind != Kind::Gate;
                let behind = at + kinds[at..].iter().take_while(|kind| own(kind)).count();
                if kinds.get(behind).is_some_and(|kind| stands_alone(*kind)) {
                    self.end(kinds, behind)
                } else {
                    at
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

    /// Whether there is a non-linearity in what follows a convolution. A number times a value is none, nor is a gate's.
    fn activates(&self, units: Range<usize>) -> bool {
        let units = self.units[units].iter().filter(|unit| unit.kind != Kind::Gate);
        let mut nodes = units.flat_map(|unit| &self.graph.nodes()[unit.nodes.clone()]);
        nodes.any(|node| matches!(node.op, Op::Activation { .. }))
    }

    fn piece(&self, units: Range<usize>, replaceable: bool) -> Piece {
        let nodes = self.units[units.start].nodes.start..self.units[units.end - 1].nodes.end;
        // What follows a convolution or a branch stays with it, and what comes before the first.
        let mut parts: Vec<Range<usize>> = std::iter::once(nodes.start..nodes.start).collect();
        let mut begun = false;
        for unit in &self.units[units] {
            let stands_alone = stands_alone(unit.kind);
            match parts.last_mut() {
                Some(last) if !(stands_alone && begun) => last.end = unit.nodes.end,
                _ => parts.push(unit.nodes.clone()),
            }
            begun |= stands_alone;
        }
        let (name, stage) = (self.names.of(&nodes), String::new());
        Piece { name, stage, nodes, parts, replaceable, by_rule: false }
    }

    fn is_lone_pointwise(&self, piece: &Piece) -> bool {
        let mut own = self.units.iter().skip_while(|unit| unit.nodes.start < piece.nodes.start);
        let first = own.find(|unit| stands_alone(unit.kind));
        piece.parts.len() == 1
            && first.is_some_and(|unit| matches!(unit.kind, Kind::Convolution(Form::Pointwise { .. })))
    }
}

fn is_branch(kind: &Kind) -> bool {
    matches!(kind, Kind::Branch { .. })
}

/// Whether a unit could be a layer by itself.
fn stands_alone(kind: Kind) -> bool {
    is_branch(&kind) || matches!(kind, Kind::Convolution(_))
}
