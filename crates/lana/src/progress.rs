/// How the pipeline tells what it is doing. The command line draws bars; tests and libraries may ignore it.
pub trait Progress: Sync {
    /// A stage begins: `total` units of `unit` lie ahead.
    fn begin(&self, _stage: &str, _total: u64, _unit: &str) {}

    /// So many units of the current stage are done in all; `note` is a few words beside the bar (a loss, a rate).
    fn advance(&self, _done: u64, _note: &str) {}

    /// The current stage is over; `summary` says with what result.
    fn finish(&self, _summary: &str) {}

    /// A line for people.
    fn say(&self, _line: &str) {}

    /// Something that should not have happened but is dealt with.
    fn warn(&self, _line: &str) {}
}

/// Says nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {}
