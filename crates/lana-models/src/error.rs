/// What can be wrong with the name of a teacher or of an operation, or with what is asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No teacher has that name.
    #[error("there is no teacher `{name}`; nearest: {}; `lana zoo` lists them all", .nearest.join(", "))]
    UnknownModel {
        /// The name asked for.
        name: String,
        /// The names most like it, best first.
        nearest: Vec<String>,
    },
    /// A teacher cannot be built the way it was asked for.
    #[error("teacher `{model}`: {reason}")]
    Option {
        /// Name of the teacher.
        model: String,
        /// What does not fit.
        reason: String,
    },
    /// A name or pattern that no operation of the pool has.
    #[error(
        "pool: `{name}` {reason}; nearest: {}; `lana pool --families` shows the forms of names, `lana pool --pool \
         paper,extended` those of all presets",
        .nearest.join(", ")
    )]
    UnknownOperation {
        /// The name or pattern.
        name: String,
        /// Why it is none.
        reason: String,
        /// The names most like it, best first.
        nearest: Vec<String>,
    },
    /// The parts of a pool do not fit together.
    #[error("pool: {reason}")]
    Pool {
        /// What does not fit.
        reason: String,
    },
    /// A graph that is not well formed, or weights that are not its own.
    #[error(transparent)]
    Graph(#[from] lana_graph::Error),
}

/// The names most like `name`, at most `count`, best first: those that share its beginning, then those the fewest edits
/// away. Those that are much less like it than the best one are none.
pub(crate) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>, count: usize) -> Vec<String> {
    const MUCH: f64 = 0.1;
    let likeness = |k: &str| strsim::jaro_winkler(name, k);
    let mut ranked: Vec<_> =
        known.into_iter().map(|k| ((likeness(k) * -1e9) as i64, strsim::levenshtein(name, k), k)).collect();
    ranked.sort();
    // Presets share operations.
    ranked.dedup();
    let best = ranked.first().map_or(0, |(likeness, ..)| *likeness);
    ranked.retain(|(likeness, ..)| *likeness <= best + (MUCH * 1e9) as i64);
    ranked.into_iter().take(count).map(|(_, _, k)| k.to_string()).collect()
}
