//! What [`solve`](crate::solve) answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How good the answer is, as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every solution returned is proven to be the best of its step (within `gap`).
    Optimal,
    /// There are solutions, but the time limit left at least one of them without its proof, or cut the search for more short.
    Feasible,
    /// It is proven that there is no solution at all.
    Infeasible,
}

/// The solutions, best first, and what there is to say about them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// How good the answer is.
    pub status: Status,
    /// The solutions in the order of the steps. Scores never fall from one proven solution to the next (but for `gap`).
    pub solutions: Vec<Solution>,
    /// Seconds that `solve` took.
    pub elapsed_s: f64,
    /// Which budget or cap cannot be met, if one cannot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub infeasible: Option<Infeasible>,
    /// Why there are fewer solutions than asked for, if there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shortfall: Option<Shortfall>,
}

/// One selection: a choice for every layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Solution {
    /// Names of the choices, in the order of the layers.
    pub choices: Vec<String>,
    /// Sum of the scores.
    pub score: f64,
    /// Sums of the costs; of those costs that every choice taken has.
    pub costs: BTreeMap<String, f64>,
    /// No selection with the same budgets and the same earlier solutions has a score below this.
    pub bound: f64,
    /// `score` less `bound`: at most this much could a better selection gain. Never negative.
    #[serde(default)]
    pub gap: f64,
    /// Whether `score` is proven to be within the problem's `gap` of the best possible.
    pub proven: bool,
    /// Nodes that the branch and bound looked at in this step; 0 where none was needed.
    #[serde(default)]
    pub nodes: u64,
}

/// What limits a selection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitKind {
    /// A limit on the sum of a cost.
    #[default]
    Budget,
    /// A limit on the number of layers that take one of some choices.
    Cap,
}

/// An end of a budget or cap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BudgetEnd {
    /// The least sum allowed.
    Min,
    /// The greatest sum allowed.
    Max,
}

/// A budget or cap that no selection meets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Infeasible {
    /// Name of the budget (and of its cost), or of the cap.
    pub budget: String,
    /// Whether it is a budget or a cap.
    #[serde(default)]
    pub kind: LimitKind,
    /// The end that cannot be met.
    pub end: BudgetEnd,
    /// Where that end lies.
    pub asked: f64,
    /// The nearest value that can be reached: smallest for `max`, largest for `min`. While the limits in
    /// `together_with` are met, if there are any; absent if time ran out.
    pub reachable: Option<f64>,
    /// The layer that binds: its nearest cost has the largest share of what is reachable.
    pub layer: String,
    /// The choice of that layer that comes nearest.
    pub choice: String,
    /// The cost of that choice; for a cap 1 if it counts, else 0.
    pub layer_cost: f64,
    /// Budgets and caps that can be met, but not together with this one; empty if this one cannot be met alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub together_with: Vec<String>,
    /// All of this in a sentence, with what to do.
    pub message: String,
}

/// Fewer solutions than asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shortfall {
    /// How many were asked for.
    pub asked: usize,
    /// How many there are.
    pub found: usize,
    /// Whether it is proven that, after these, no further one exists; otherwise time ran out.
    pub proven: bool,
    /// This in a sentence, with what to relax.
    pub message: String,
}
