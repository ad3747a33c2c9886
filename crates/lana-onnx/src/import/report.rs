//! All that stands in the way of reading a model, in one message.
//!
//! Nodes of one type that cannot be read for the same reason are one entry; every type is named, but not each of its nodes. Tensors
//! that cannot be read are entries too.

use std::collections::HashMap;

use super::node::Obstacle;
use crate::Error;
use crate::text::{beginning, shown};

/// Nodes that an entry names.
const MOST_NAMES: usize = 6;
/// Reasons that are given for a type.
const MOST_REASONS: usize = 4;

#[derive(Default)]
pub(super) struct Report {
    /// In the order in which they were met.
    entries: Vec<Entry>,
    /// Their places, by type and reason.
    places: HashMap<(String, String), usize>,
    /// Those that read what no earlier node makes, and what that is.
    lost: Vec<String>,
    /// How many these are.
    lost_count: usize,
    /// Whether anything but the file is at fault.
    unsupported: bool,
}

struct Entry {
    kind: String,
    reason: String,
    /// The first of them.
    names: Vec<String>,
    count: usize,
}

impl Report {
    /// Notes why the node `name` of a type cannot be read, if that is not said elsewhere.
    pub(super) fn add(&mut self, name: &str, kind: &str, obstacle: Obstacle) {
        let (kind, name, reason) = match obstacle {
            Obstacle::Upstream => return,
            Obstacle::Lost(value) => {
                self.lost_count += 1;
                if self.lost.len() < MOST_NAMES {
                    self.lost.push(format!("`{}` reads `{}`", shown(name), shown(&value)));
                }
                return;
            }
            Obstacle::Tensor { name, reason } => ("tensor", name, reason),
            Obstacle::Type => (kind, name.to_string(), String::new()),
            Obstacle::Detail(reason) => (kind, name.to_string(), reason),
        };
        self.unsupported |= kind != "tensor";
        let key = (shown(kind), reason);
        let at = match self.places.get(&key) {
            Some(&at) => at,
            None => {
                let (kind, reason) = key.clone();
                self.entries.push(Entry { kind, reason, names: Vec::new(), count: 0 });
                self.places.insert(key, self.entries.len() - 1);
                self.entries.len() - 1
            }
        };
        let entry = &mut self.entries[at];
        entry.count += 1;
        if entry.names.len() < MOST_NAMES {
            entry.names.push(format!("`{}`", shown(&name)));
        }
    }

    /// The error that says all of it, if there is anything to say.
    pub(super) fn error(self) -> Option<Error> {
        let count = self.lost_count + self.entries.iter().map(|entry| entry.count).sum::<usize>();
        if count == 0 {
            return None;
        }
        let mut list = self.types();
        if self.lost_count > 0 {
            let first = beginning(self.lost.into_iter(), self.lost_count, MOST_NAMES);
            list.push(format!(
                "{first}, which no earlier node makes: nodes are missing, out of order, or run in a circle"
            ));
        }
        Some(match self.unsupported {
            true => Error::Unsupported { count, list },
            false => Error::NotOnnx(list.join("; ")),
        })
    }

    /// An entry for each type.
    fn types(&self) -> Vec<String> {
        let mut types: Vec<(&str, Vec<&Entry>)> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for entry in &self.entries {
            let at = *places.entry(&entry.kind).or_insert(types.len());
            match types.get_mut(at) {
                Some((_, entries)) => entries.push(entry),
                None => types.push((&entry.kind, vec![entry])),
            }
        }
        let of_type = |(kind, entries): &(&str, Vec<&Entry>)| {
            let mut parts: Vec<String> =
                entries.iter().take(MOST_REASONS).map(|entry| entry.shown()).collect();
            let more: usize = entries.iter().skip(MOST_REASONS).map(|entry| entry.count).sum();
            if more > 0 {
                parts.push(format!("{more} more for other reasons"));
            }
            format!("{kind} ({})", parts.join("; "))
        };
        types.iter().map(of_type).collect()
    }
}

impl Entry {
    /// `3: a, b, c: reason`.
    fn shown(&self) -> String {
        let names = beginning(self.names.iter().cloned(), self.count, MOST_NAMES);
        let count = if self.count > 1 { format!("{}: ", self.count) } else { String::new() };
        match self.reason.is_empty() {
            true => format!("{count}{names}"),
            false => format!("{count}{names}: {}", self.reason),
        }
    }
}
