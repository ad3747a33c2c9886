//! Which operations a run considers.

use std::fmt;

use lana_graph::{Graph, Layer, fits};

use super::{NotApplicable, Operation, Preset, known, known_names, members};
use crate::{Error, Result, error::nearest};

/// A list of operations: the teacher's layer first, identity second, no operation twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    operations: Vec<Operation>,
}

impl Pool {
    /// The operations of a preset.
    pub fn preset(preset: Preset) -> Self {
        Pool { operations: members(preset) }
    }

    /// The compact pool: 23 operations that cover what LANA's experiments kept selecting.
    pub fn compact() -> Self {
        Self::preset(Preset::Compact)
    }

    /// Reads a pool from a list of names and patterns between commas.
    ///
    /// * the name of a preset (`compact`, `paper`, `extended`) stands for all that is in it,
    /// * a pattern with `*` (anything) or `?` (one character) for those of all presets it fits,
    /// * any other name for the operation it is the name of, in a preset or not (`mbconv-e4-k7`),
    /// * a hyphen in front takes out what was put in before, or out of the compact pool if the list begins so; it is an
    ///   error if there is nothing to take out.
    ///
    /// The teacher's layer is always in, identity unless it is taken out.
    ///
    /// ```
    /// use lana_models::pool::Pool;
    ///
    /// let pool = Pool::parse("narrow-*,mbconv-e4-k5,-narrow-w0.125")?;
    /// assert_eq!(pool.to_string(), "teacher,identity,narrow-w0.5,narrow-w0.25,mbconv-e4-k5");
    /// # Ok::<(), lana_models::Error>(())
    /// ```
    pub fn parse(text: &str) -> Result<Self> {
        let known = known();
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
        let Some(first) = parts.first() else {
            return Err(Error::Pool { reason: "no operation is named; `compact` is a good choice".into() });
        };
        let always: Vec<Operation> =
            known.iter().filter(|o| o.is_teacher() || o.is_identity()).cloned().collect();
        let mut operations = if first.starts_with('-') { members(Preset::Compact) } else { always };
        for part in parts {
            if let Some(pattern) = part.strip_prefix('-') {
                take_out(&mut operations, pattern, &known)?;
                continue;
            }
            let new = match part {
                preset if let Some(preset) = Preset::find(preset) => members(preset),
                pattern if is_pattern(pattern) => {
                    let fitting = known.iter().filter(|o| fits(pattern, o.name())).cloned().collect();
                    none_is_wrong(fitting, pattern)?
                }
                name => vec![name.parse()?],
            };
            for operation in new {
                if !operations.contains(&operation) {
                    operations.push(operation);
                }
            }
        }
        // Identity taken out and put in again is second all the same.
        operations.sort_by_key(|o| {
            if o.is_teacher() {
                0
            } else if o.is_identity() {
                1
            } else {
                2
            }
        });
        Ok(Pool { operations })
    }

    /// Its operations: the teacher's layer, identity, then the others in the order in which they were named.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The operations in the place of a layer, given by the layer's own graph ([`Graph::layer_graph`]), each with its
    /// graph or the reason why it does not apply.
    ///
    /// Of operations that would be the same network (narrow widths that round to the same, a bottleneck where the layer is
    /// one) only one does, whatever their order: the teacher's layer, otherwise one that starts from the teacher's weights,
    /// otherwise that of the family that stands first in [`families`](super::families), and within a family the one with
    /// the shortest name, the first by the alphabet.
    pub fn operations_for(&self, layer: &Graph) -> Vec<(Operation, Result<Graph, NotApplicable>)> {
        let mut list: Vec<(Operation, Result<Graph, NotApplicable>)> =
            self.operations.iter().map(|operation| (operation.clone(), operation.build(layer))).collect();
        let mut ranked: Vec<usize> = (0..list.len()).collect();
        ranked.sort_by_key(|&at| list[at].0.rank());
        let mut standing: Vec<usize> = Vec::new();
        for at in ranked {
            let Ok(graph) = &list[at].1 else { continue };
            let twin = standing
                .iter()
                .map(|&other| &list[other])
                .find(|(_, other)| other.as_ref().is_ok_and(|other| same_structure(other, graph)));
            match twin {
                Some((other, _)) => {
                    let reason = format!("it is the same network as {other} here");
                    list[at].1 = Err(NotApplicable::new(reason));
                }
                None => standing.push(at),
            }
        }
        list
    }
}

impl Default for Pool {
    fn default() -> Self {
        Self::compact()
    }
}

impl fmt::Display for Pool {
    /// The names between commas, which parse back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.operations.iter().map(Operation::name).collect();
        f.write_str(&names.join(","))?;
        if self.operations.iter().any(Operation::is_identity) { Ok(()) } else { f.write_str(",-identity") }
    }
}

fn take_out(operations: &mut Vec<Operation>, pattern: &str, known: &[Operation]) -> Result<()> {
    let gone: Vec<Operation> = if is_pattern(pattern) {
        let found = operations.iter().chain(known).filter(|o| fits(pattern, o.name())).cloned().collect();
        none_is_wrong(found, pattern)?
    } else if let Some(preset) = Preset::find(pattern) {
        members(preset)
    } else {
        vec![pattern.parse()?]
    };
    if gone.iter().all(Operation::is_teacher) {
        return Err(Error::Pool {
            reason: format!("`-{pattern}`: the teacher's own layer cannot be taken out"),
        });
    }
    let before = operations.len();
    operations.retain(|o| o.is_teacher() || !gone.contains(o));
    match operations.len() < before {
        true => Ok(()),
        false => Err(Error::Pool {
            reason: format!("`-{pattern}` takes nothing out: nothing that is named before it fits"),
        }),
    }
}

fn none_is_wrong(found: Vec<Operation>, pattern: &str) -> Result<Vec<Operation>> {
    if found.is_empty() {
        let (name, reason) = (pattern.to_string(), "fits no operation".to_string());
        return Err(Error::UnknownOperation {
            nearest: nearest(pattern, known_names().iter().map(String::as_str), 3),
            name,
            reason,
        });
    }
    Ok(found)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether two graphs compute the same from parameters of the same shapes, whatever their nodes are called.
fn same_structure(a: &Graph, b: &Graph) -> bool {
    a.output() == b.output()
        && a.nodes().len() == b.nodes().len()
        && a.nodes().iter().zip(b.nodes()).all(|(a, b)| a.op == b.op && a.inputs == b.inputs)
}

/// Which pool stands at which layer: one for all, and rules for some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    everywhere: Pool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    text: String,
    layers: Vec<String>,
    pool: Pool,
}

impl Pools {
    /// Reads the pool for every layer, and rules of the form `LAYERS:POOL` for some: patterns of layers or stages between
    /// commas, a colon, a pool as [`Pool::parse`] takes it. Of several rules that fit a layer the last one holds.
    ///
    /// ```
    /// use lana_models::pool::Pools;
    /// use lana_models::zoo::{self, ZooOptions};
    ///
    /// let teacher = zoo::build("resnet20_cifar", &ZooOptions::default())?;
    /// let pools = Pools::parse("compact", &["layer1:compact,-conv-*".into(), "layer3.2:narrow-*".into()])?;
    /// pools.check(&teacher)?;
    /// let at = |number: usize| pools.at(&teacher.layers()[number]).operations().len();
    /// assert_eq!([at(0), at(3), at(8)], [22, 23, 5]);
    /// # Ok::<(), lana_models::Error>(())
    /// ```
    pub fn parse(pool: &str, rules: &[String]) -> Result<Self> {
        let rules = rules.iter().map(|text| {
            let wrong = || Error::Pool {
                reason: format!(
                    "`{text}` is no rule; write LAYERS:OPERATIONS, such as 'layer1.*:compact,-conv-*'"
                ),
            };
            let (layers, pool) = text.split_once(':').ok_or_else(wrong)?;
            let layers: Vec<String> = layers.split(',').map(|part| part.trim().to_string()).collect();
            if layers.iter().any(String::is_empty) {
                return Err(wrong());
            }
            Ok(Rule { text: text.clone(), layers, pool: Pool::parse(pool)? })
        });
        Ok(Pools { everywhere: Pool::parse(pool)?, rules: rules.collect::<Result<_>>()? })
    }

    /// Checks that every rule fits a layer of the teacher.
    ///
    /// # Errors
    /// Names the layers or stages most like those of a rule that fits none.
    pub fn check(&self, teacher: &Graph) -> Result<()> {
        for rule in &self.rules {
            if let Some(nowhere) =
                rule.layers.iter().find(|pattern| !teacher.layers().iter().any(|l| fits_layer(pattern, l)))
            {
                let names = teacher.layers().iter().flat_map(|l| [l.stage.as_str(), l.name.as_str()]);
                let names: std::collections::BTreeSet<&str> = names.collect();
                return Err(Error::Pool {
                    reason: format!(
                        "`{nowhere}` in `{}` fits no layer of {}; nearest: {}",
                        rule.text,
                        teacher.name(),
                        nearest(nowhere, names, 3).join(", ")
                    ),
                });
            }
        }
        Ok(())
    }

    /// The pool at a layer.
    pub fn at(&self, layer: &Layer) -> &Pool {
        let fitting = self.rules.iter().rev().find(|rule| rule.layers.iter().any(|p| fits_layer(p, layer)));
        fitting.map_or(&self.everywhere, |rule| &rule.pool)
    }
}

/// Whether a pattern fits the layer's name or its stage's.
fn fits_layer(pattern: &str, layer: &Layer) -> bool {
    fits(pattern, &layer.name) || fits(pattern, &layer.stage)
}
