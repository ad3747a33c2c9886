//! Multiple-choice knapsack with diverse solutions, solved exactly.
//!
//! A [`Problem`] has *layers*; every layer offers *choices*; every choice has one *score* (the loss it brings,
//! smaller is better, negative allowed) and named *costs* (milliseconds, parameters, ...). [`solve`] picks one choice per
//! layer so that the sum of scores is least and the sum of every cost lies within its [`Budget`]. Asked for several
//! solutions, it then looks for the best one that shares at most a given fraction of its choices, the *overlap*,
//! with each solution before it; and so on. Choices can be forbidden or forced ([`Members`]), and the number of layers
//! that take some of them limited ([`Cap`]). [`pareto`] gives all the best trades of score for one cost at once, and
//! [`Problem::to_lp`] writes the program for other solvers.
//!
//! ```
//! use lana_select::{Problem, Status, solve};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let problem: Problem = serde_json::from_str(
//!     r#"{"layers": [
//!           {"name": "first", "choices": [
//!             {"name": "teacher", "score": 0.0, "costs": {"latency_ms": 2.0}},
//!             {"name": "identity", "score": 0.5, "costs": {"latency_ms": 0.0}}]},
//!           {"name": "second", "choices": [
//!             {"name": "teacher", "score": 0.0, "costs": {"latency_ms": 3.0}},
//!             {"name": "identity", "score": 0.2, "costs": {"latency_ms": 0.0}}]}],
//!         "budgets": {"latency_ms": {"max": 4.0}}}"#,
//! )?;
//! let outcome = solve(&problem)?;
//! assert_eq!(outcome.status, Status::Optimal);
//! assert_eq!(outcome.solutions[0].choices, ["teacher", "identity"]);
//! # Ok(())
//! # }
//! ```
//!
//! # What is exact, and how
//!
//! Scores and costs are turned into integers once (module `instance`); from there on, feasibility, comparison of scores,
//! counts, overlap, and every proof are integer arithmetic, so results do not depend on the machine. Floating point
//! only *suggests*: a small linear program yields multipliers for the budget and overlap rows, and
//! any multipliers at all, good or bad, give a valid Lagrangian bound, which is evaluated in integers, rounded down. A wrong
//! digit in the linear program can cost time, never a solution.
//!
//! # The method, in order
//!
//! 1. *Dropping choices.* A choice that was never used in an earlier solution and is no worse in score and in every
//!    row (end of a budget or cap) replaces any other choice of its layer (`instance`).
//! 2. *Branch and bound*, depth first, on what multipliers leave of the problem (`root`, `core`), with the dual simplex method
//!    (`relaxation`) and, where it pays, dynamic programming over one row (`knapsack`) in the nodes: immune to ties and to layers that look alike
//!    (`explorer`). Large searches go in rounds, shared by threads in a way that changes no result (`search`).
//! 3. A search starts from a cut value a little above the bound (as far as the steps before let one expect) rather
//!    than from the best known solution; if it comes back empty, the cut value is a proven bound and is raised (`steps`).
//! 4. *Bounds carry over.* What is feasible in one step was feasible in the step before, so a bound proven once holds
//!    for all later steps.
//!
//! # Ties
//!
//! Of several first solutions with the same score under a single budget, the one with the least total cost of that
//! budget (under a `min` the greatest) is returned, and of those the one with the lowest choice index in the earliest layer that differs. Elsewhere
//! (several budgets, later steps) a tie is won by whichever solution the search meets first, in a fixed order in which, of
//! choices alike in everything, the lowest index comes first: the same problem gives the same answer as long as no time limit strikes.

mod checker;
mod core;
mod error;
mod explain;
mod explorer;
mod improve;
mod instance;
mod knapsack;
mod limit;
mod lp;
mod outcome;
mod pareto;
mod pattern;
mod problem;
mod relaxation;
mod root;
mod rules;
mod search;
mod solve;
mod steps;

pub use checker::Checker;
pub use error::Error;
pub use outcome::{BudgetEnd, Infeasible, LimitKind, Outcome, Shortfall, Solution, Status};
pub use pareto::{Curve, Point, pareto};
pub use problem::{Budget, Cap, Choice, DEFAULT_TIME_LIMIT_S, Layer, Members, Problem};
pub use solve::solve;
