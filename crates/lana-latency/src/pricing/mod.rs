//! Making a lookup table: operations priced inside the teacher, in three steps.
//!
//! [`Plan::new`] says which networks are compared with which; it needs no runtime. [`Plan::measure`] times them, a few at
//! a time, and gives [`Reading`]s, which may be kept and gone on with in another process. [`Plan::settle`] turns readings
//! into a [`Table`]; it is a pure function. The three may happen on different machines: [`Plan::save`] writes
//! a file that carries the plan to the target device. [`build_table`] does them one after the other.
//!
//! Blocks timed alone add up to 19 to 37 % more than the network they make, because runtimes fuse across them and change
//! layouts at their borders. So every price is a difference between two networks that are the same but for it:
//!
//! 1. Layers alike in structure and shapes form a *class*. A *window* is cut out of the teacher around a few neighbouring
//!    members of the class, with real layers on either side (or the stem, or the head). Differences in a short window stand
//!    out of the noise better than in the whole network, and cost less time.
//! 2. The members in the window are all replaced by the operation at once, and the window is timed against the unchanged
//!    window, interleaved, as a ratio per round. The difference divided by the number of members is what the operation costs
//!    more or less than the teacher's layer.
//! 3. Replacing them by nothing gives the cost of the teacher's layer itself. Where shapes forbid that (a strided layer,
//!    stem and head) the part is timed alone.
//! 4. The windows and those parts are timed against the whole teacher, which puts all of them on one scale. What their sum
//!    differs from the teacher's measured latency is shared among them by how unsure each is, so that the costs of all
//!    layers and the fixed cost add up.
//! 5. A few random selections are timed whole against the teacher, and the table is fitted to them ([`Table::correct`] has
//!    the fit): what operations of different kinds cost each other side by side, no window of equals can tell.
//!
//! Each distinct (operation, input shape, output shape) is timed once. Weights are random: see
//! [`random_weights`](crate::random_weights).
//!
//! Measured (compact pool, one thread, 20 other random selections, one run each; docs/results.md has the commands): mean
//! error 1.3 % and worst 4.2 % for ResNet-56 at batch 64, 1.3 and 4.4 % at batch 1, 1.3 and 3.7 % for EfficientNet-B0 at
//! batch 1. With the whole teacher as context instead of windows, the same time had given 6.3 instead of 4.7 to 5.2 % for
//! ResNet-56 at batch 64 before rounds were chosen by calm, and 319 noisy entries instead of 56 and 29.

mod bundle;
mod check;
mod gather;
mod plan;
mod selections;
mod settle;
#[cfg(test)]
mod tests;

use std::time::Duration;

use lana_graph::Graph;
use serde::{Deserialize, Serialize};

use crate::{Deployment, Error, Result, Table};

pub(crate) use bundle::WHAT as BUNDLE;
pub use check::{Check, CheckOptions, Checked, Figures};
pub use gather::{Conditions, Progress, Reading};
pub use plan::{Plan, Subject};

/// Operations that may stand in the place of one layer.
#[derive(Clone, Debug)]
pub struct LayerCandidates {
    /// The layer of the teacher.
    pub layer: String,
    /// Names and networks; each maps the layer's input shape to its output shape.
    pub operations: Vec<(String, Graph)>,
}

/// How a table is made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableOptions {
    /// How the networks are run.
    pub deployment: Deployment,
    /// How long it may take, in seconds; what then is unsure, is marked so. A few rounds are always run. None for
    /// [`Plan::time_limit`], which grows with the number of networks.
    pub time_limit_s: Option<f64>,
    /// Rounds per network that do not count, in front.
    pub warm_up: usize,
    /// Rounds per network, at least, as long as there is time.
    pub min_repeats: usize,
    /// Relative standard error of a ratio to stop at.
    pub target: f64,
    /// Like-shaped neighbouring layers to replace at once, at most.
    pub replaced: usize,
    /// Layers of the teacher on either side of them; none for the whole network.
    pub neighbours: Option<usize>,
    /// Random selections to time whole.
    pub whole: usize,
    /// Networks that are held open and timed against each other at once, at most.
    pub together: usize,
    /// Memory that they may take together, in bytes, as far as can be told beforehand; two are always open.
    pub memory: u64,
    /// Whether to stay on the same cores meanwhile, where the system can.
    pub pin: bool,
    /// Decides inputs, order and the random selections.
    pub seed: u64,
}

impl Default for TableOptions {
    fn default() -> Self {
        TableOptions {
            deployment: Deployment::default(),
            time_limit_s: None,
            warm_up: 2,
            min_repeats: 12,
            target: 0.003,
            replaced: 4,
            neighbours: Some(1),
            whole: 8,
            together: 8,
            memory: 4 << 30,
            pin: true,
            seed: 0,
        }
    }
}

impl TableOptions {
    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(Error::Options(format!("a lookup table: {what}")));
        match self {
            TableOptions { replaced: 0, .. } => wrong("at least one layer must be replaced at once"),
            TableOptions { together: 0 | 1, .. } => wrong("at least two networks are timed together"),
            TableOptions { min_repeats: 0, .. } => wrong("every network is timed at least once"),
            TableOptions { time_limit_s: Some(s), .. } if Duration::try_from_secs_f64(*s).is_err() => {
                wrong("the time limit must be a number of seconds")
            }
            _ => Ok(()),
        }
    }
}

/// Prices operations at the layers of a teacher on this device; the module's documentation has the method. Layers without
/// candidates keep their own operation.
///
/// # Errors
/// If a layer is unknown, an operation does not fit, or the runtime is missing or cannot run a network.
pub fn build_table(
    teacher: &Graph,
    candidates: &[LayerCandidates],
    options: &TableOptions,
    progress: &mut dyn FnMut(Progress),
) -> Result<Table> {
    let plan = Plan::new(teacher, candidates, options)?;
    let conditions = Conditions::here(&plan)?;
    let mut readings = Vec::new();
    plan.measure(&mut readings, &mut |_| Ok(()), progress)?;
    plan.settle(&readings, &conditions)
}

/// Whether an operation does nothing but pass its input on.
fn is_identity(graph: &Graph) -> bool {
    graph.output() == lana_graph::Value::INPUT
}
