//! Which operations a run considers.

use std::fmt;

use lana_graph::Graph;

use super::{NotApplicable, Operation, compact_names};
use crate::{Error, Result, error::nearest};

/// A list of operations: the teacher's layer first, identity second, no operation twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pool {
    operations: Vec<Operation>,
}

impl Pool {
    /// The compact pool: 18 operations that cover what LANA's experiments kept selecting.
    pub fn compact() -> Self {
        // The tables are right: a test parses them all.
        Pool { operations: compact_names().filter_map(|name| name.parse().ok()).collect() }
    }

    /// Reads a pool from a list of names and patterns between commas.
    ///
    /// * `compact` stands for the compact pool,
    /// * a pattern with `*` (anything) or `?` (one character) for those of the compact pool it fits,
    /// * any other name for the operation it is the name of, in the compact pool or not (`mbconv-e4-k7`),
    /// * a hyphen in front takes out what was put in before, or out of the compact pool if the list begins so.
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
        let compact = Self::compact().operations;
        let parts: Vec<&str> = text.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
        let Some(first) = parts.first() else {
            return Err(Error::Pool { reason: "no operation is named; `compact` is a good choice".into() });
        };
        let always: Vec<Operation> =
            compact.iter().filter(|o| o.is_teacher() || o.is_identity()).cloned().collect();
        let mut operations = if first.starts_with('-') { compact.clone() } else { always };
        for part in parts {
            if let Some(pattern) = part.strip_prefix('-') {
                take_out(&mut operations, pattern, &compact)?;
                continue;
            }
            let new = match part {
                "compact" => compact.clone(),
                pattern if is_pattern(pattern) => {
                    let fitting = compact.iter().filter(|o| fits(pattern, o.name())).cloned().collect();
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
    /// graph or the reason why it does not apply. One that would be the same network as one before it (narrow widths
    /// that round to the same) does not apply.
    pub fn operations_for(&self, layer: &Graph) -> Vec<(Operation, Result<Graph, NotApplicable>)> {
        let mut list: Vec<(Operation, Result<Graph, NotApplicable>)> = Vec::new();
        for operation in &self.operations {
            let built = operation.build(layer).and_then(|graph| {
                let twin = list.iter().find(|(_, g)| g.as_ref().is_ok_and(|g| same_structure(g, &graph)));
                match twin {
                    Some((other, _)) => {
                        Err(NotApplicable::new(format!("it is the same network as {other} here")))
                    }
                    None => Ok(graph),
                }
            });
            list.push((operation.clone(), built));
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

fn take_out(operations: &mut Vec<Operation>, pattern: &str, compact: &[Operation]) -> Result<()> {
    if pattern == Operation::TEACHER {
        return Err(Error::Pool { reason: "the teacher's own layer cannot be taken out".into() });
    }
    if is_pattern(pattern) {
        let known = operations.iter().chain(compact).filter(|o| fits(pattern, o.name())).cloned().collect();
        none_is_wrong(known, pattern)?;
        operations.retain(|o| o.is_teacher() || !fits(pattern, o.name()));
    } else {
        let operation: Operation = pattern.parse()?;
        operations.retain(|o| *o != operation);
    }
    Ok(())
}

fn none_is_wrong(found: Vec<Operation>, pattern: &str) -> Result<Vec<Operation>> {
    if found.is_empty() {
        let (name, reason) = (pattern.to_string(), "fits no operation".to_string());
        return Err(Error::UnknownOperation { nearest: nearest(pattern, compact_names(), 3), name, reason });
    }
    Ok(found)
}

fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

/// Whether a pattern of `*` and `?` fits the whole name.
fn fits(pattern: &str, name: &str) -> bool {
    let mut rest = name.chars();
    match pattern.chars().next() {
        None => name.is_empty(),
        Some('*') => fits(&pattern[1..], name) || rest.next().is_some_and(|_| fits(pattern, rest.as_str())),
        Some(c) => {
            rest.next().is_some_and(|n| c == '?' || c == n) && fits(&pattern[c.len_utf8()..], rest.as_str())
        }
    }
}

/// Whether two graphs compute the same from parameters of the same shapes, whatever their nodes are called.
fn same_structure(a: &Graph, b: &Graph) -> bool {
    a.output() == b.output()
        && a.nodes().len() == b.nodes().len()
        && a.nodes().iter().zip(b.nodes()).all(|(a, b)| a.op == b.op && a.inputs == b.inputs)
}
