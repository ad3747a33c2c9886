//! Changes to what is found, by name.

use std::cmp::Reverse;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::finder::Piece;
use super::name::Names;
use super::stage::spanning;
use crate::{Error, Result, fits};

/// Changes to the layers that are found, by patterns for names ([`fits`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LayerRules {
    /// Convolutions and blocks of the stem and the head that shall be layers too. Nothing else can be one: a fully connected classifier
    /// stays, as all do that have no convolution.
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
    /// Layers of a stage that follow each other and shall be one, at most: see [`group`](super::group). 0 and 1 leave each alone.
    /// What `include`, `split` and `merge` made is not grouped.
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

/// Changes pieces as the rules say.
pub(super) fn apply(names: &Names<'_>, pieces: &mut Vec<Piece>, rules: &LayerRules) -> Result<()> {
    let unmatched = |rule: &str, what: &str, pattern: &str, pieces: &[Piece]| {
        let mut known: Vec<&str> = pieces.iter().map(|piece| piece.name.as_str()).collect();
        let in_common = |name: &str| pattern.chars().zip(name.chars()).take_while(|(a, b)| a == b).count();
        known.sort_by_key(|name| Reverse(in_common(name)));
        Error::Graph {
            graph: names.network().into(),
            reason: format!(
                "`layers.{rule}`: {what} `{pattern}`; patterns are for the names of blocks before they are grouped: {}{}",
                known.iter().take(12).copied().collect::<Vec<_>>().join(", "),
                if known.len() > 12 { " …" } else { "" }
            ),
        }
    };
    let mark = |pieces: &mut [Piece], rule: &str, patterns: &[String], replaceable: bool| {
        for pattern in patterns {
            let mut any = false;
            for piece in pieces.iter_mut().filter(|piece| fits(pattern, &piece.name)) {
                piece.by_rule |= piece.replaceable != replaceable;
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
                name: names.of(nodes),
                nodes: nodes.clone(),
                parts: vec![nodes.clone()],
                stage: piece.stage.clone(),
                replaceable: piece.replaceable,
                by_rule: true,
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
                    last.by_rule = true;
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
                let own = names.path(&piece.nodes);
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
