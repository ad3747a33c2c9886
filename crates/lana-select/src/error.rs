//! What can be wrong with a problem.

use thiserror::Error;

/// Why a [`Problem`](crate::Problem) was refused; every message names the place and the cure.
///
/// That no selection meets a budget is not an error but an outcome: see [`Status::Infeasible`](crate::Status).
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum Error {
    /// The list of layers is empty.
    #[error("`layers` is empty: give at least one layer with at least one choice")]
    NoLayers,
    /// A layer offers nothing to choose from.
    #[error("layer `{layer}` has no choices: give it at least one, for example the unchanged layer")]
    NoChoices {
        /// Name of the layer.
        layer: String,
    },
    /// Two layers share a name.
    #[error("layer name `{layer}` appears twice: rename one of the two")]
    DuplicateLayer {
        /// The name that appears twice.
        layer: String,
    },
    /// Two choices of one layer share a name.
    #[error("layer `{layer}` has two choices named `{choice}`: rename one of the two")]
    DuplicateChoice {
        /// Name of the layer.
        layer: String,
        /// The name that appears twice.
        choice: String,
    },
    /// A score is NaN or infinite.
    #[error(
        "layer `{layer}`, choice `{choice}`: score is {value}: give a finite number (at most 1e300), or leave the choice out if it must not be taken"
    )]
    BadScore {
        /// Name of the layer.
        layer: String,
        /// Name of the choice.
        choice: String,
        /// The score as given.
        value: f64,
    },
    /// A cost is NaN or infinite.
    #[error(
        "layer `{layer}`, choice `{choice}`: cost `{cost}` is {value}: give a finite number (at most 1e300), or leave the choice out if it must not be taken"
    )]
    BadCost {
        /// Name of the layer.
        layer: String,
        /// Name of the choice.
        choice: String,
        /// Name of the cost.
        cost: String,
        /// The cost as given.
        value: f64,
    },
    /// A budget names a cost which a choice does not have.
    #[error(
        "layer `{layer}`, choice `{choice}` has no cost `{cost}`, which budget `{cost}` needs: add it, or remove the budget"
    )]
    MissingCost {
        /// Name of the layer.
        layer: String,
        /// Name of the choice.
        choice: String,
        /// Name of the cost and the budget.
        cost: String,
    },
    /// A budget end is NaN or infinite.
    #[error(
        "budget `{budget}`: `{end}` is {value}: give a finite number (at most 1e300), or leave `{end}` out for no limit"
    )]
    BadBudget {
        /// Name of the budget.
        budget: String,
        /// Which end: `min` or `max`.
        end: &'static str,
        /// The end as given.
        value: f64,
    },
    /// A budget with neither end limits nothing.
    #[error("budget `{budget}` has neither `min` nor `max`: give one of them, or remove the budget")]
    EmptyBudget {
        /// Name of the budget.
        budget: String,
    },
    /// The lower end of a budget lies above its upper end.
    #[error("budget `{budget}`: `min` {min} is greater than `max` {max}: swap them, or leave one out")]
    CrossedBudget {
        /// Name of the budget.
        budget: String,
        /// Lower end as given.
        min: f64,
        /// Upper end as given.
        max: f64,
    },
    /// The overlap is not a fraction.
    #[error(
        "`max_overlap` is {value}: it is a fraction of the layers, give a number from 0 (nothing in common) to 1"
    )]
    BadOverlap {
        /// The overlap as given.
        value: f64,
    },
    /// No solution was asked for.
    #[error("`solutions` is 0: ask for at least 1")]
    NoSolutions,
    /// The time limit is NaN or negative.
    #[error(
        "`time_limit_s` is {value}: give a number of seconds, at least 0, or leave it out for {} s",
        crate::DEFAULT_TIME_LIMIT_S
    )]
    BadTimeLimit {
        /// The limit as given.
        value: f64,
    },
    /// The gap is NaN, infinite or negative.
    #[error(
        "`gap` is {value}: it is an amount of score that may be given away, give a finite number, at least 0"
    )]
    BadGap {
        /// The gap as given.
        value: f64,
    },
    /// A rule lists no layers or no choices.
    #[error("{rule}: `{field}` is empty: give at least one pattern (`*` matches all), or remove the rule")]
    EmptyRule {
        /// Which rule, such as "`forbidden[0]`".
        rule: String,
        /// Which list: `layers` or `choices`.
        field: &'static str,
    },
    /// A pattern of a rule matches no layer.
    #[error(
        "{rule}: no layer matches `{pattern}`: check the spelling (`*` stands for any characters, all else for itself), or remove the pattern"
    )]
    UnmatchedLayer {
        /// Which rule.
        rule: String,
        /// The pattern.
        pattern: String,
    },
    /// A pattern of a rule matches no choice in the layers of the rule.
    #[error(
        "{rule}: no choice in the layers it names matches `{pattern}`: check the spelling (`*` stands for any characters, all else for itself), or remove the pattern"
    )]
    UnmatchedChoice {
        /// Which rule.
        rule: String,
        /// The pattern.
        pattern: String,
    },
    /// Forbidden and forced choices together leave a layer without any.
    #[error(
        "{rule} leaves layer `{layer}` without any choice that may be taken: exempt that layer, or relax the rules that name it"
    )]
    Contradiction {
        /// Name of the layer.
        layer: String,
        /// The rule that took the last choice.
        rule: String,
    },
    /// A cap with neither end limits nothing.
    #[error("cap `{cap}` has neither `min` nor `max`: give one of them, or remove the cap")]
    EmptyCap {
        /// Name of the cap.
        cap: String,
    },
    /// The lower end of a cap lies above its upper end.
    #[error("cap `{cap}`: `min` {min} is greater than `max` {max}: swap them, or leave one out")]
    CrossedCap {
        /// Name of the cap.
        cap: String,
        /// Lower end as given.
        min: usize,
        /// Upper end as given.
        max: usize,
    },
    /// A cap asks for more than there are layers to count.
    #[error(
        "cap `{cap}`: `min` is {min}, but only {most} layers have a choice that counts: lower it, or widen its patterns"
    )]
    CapTooHigh {
        /// Name of the cap.
        cap: String,
        /// Lower end as given.
        min: usize,
        /// How many layers have a choice that counts.
        most: usize,
    },
    /// An earlier solution does not have one choice per layer.
    #[error(
        "`earlier[{index}]` has {found} choices but there are {expected} layers: give one choice name per layer"
    )]
    EarlierLength {
        /// Position in `earlier`.
        index: usize,
        /// How many choices it has.
        found: usize,
        /// How many layers there are.
        expected: usize,
    },
    /// An earlier solution names a choice that its layer does not have.
    #[error(
        "`earlier[{index}]`: layer `{layer}` has no choice `{choice}`: use one of the layer's choice names"
    )]
    EarlierChoice {
        /// Position in `earlier`.
        index: usize,
        /// Name of the layer.
        layer: String,
        /// The unknown name.
        choice: String,
    },
    /// A cost was asked about that not every choice has.
    #[error("layer `{layer}`, choice `{choice}` has no cost `{cost}`: check the spelling, or add it")]
    UnknownCost {
        /// Name of the layer.
        layer: String,
        /// Name of the choice.
        choice: String,
        /// Name of the cost.
        cost: String,
    },
    /// A curve over one cost was asked for, and there are limits of another kind.
    #[error(
        "a curve over `{cost}` takes no account of {rule}: remove it, or solve for one budget after the other instead"
    )]
    CurveRule {
        /// The cost.
        cost: String,
        /// What stands in the way, such as "budget `params`".
        rule: String,
    },
    /// A curve has too many points.
    #[error(
        "the curve over `{cost}` does not fit into memory: it has {points} points after {done} of {layers} layers; forbid choices, give a budget for `{cost}`, or solve for single budgets instead"
    )]
    CurveTooLong {
        /// The cost.
        cost: String,
        /// Points after these layers.
        points: usize,
        /// Layers added.
        done: usize,
        /// Layers there are.
        layers: usize,
    },
    /// A curve took too long.
    #[error(
        "the curve over `{cost}` is not done after {seconds} s: it has {points} points after {done} of {layers} layers; raise `time_limit_s`, forbid choices, or give a budget for `{cost}`"
    )]
    CurveTimeLimit {
        /// The cost.
        cost: String,
        /// Points after these layers.
        points: usize,
        /// Layers added.
        done: usize,
        /// Layers there are.
        layers: usize,
        /// The time limit in seconds.
        seconds: f64,
    },
    /// Time ran out before any selection was found or proven not to exist.
    #[error(
        "no selection was found within the time limit of {seconds} s, and none was proven not to exist: raise `time_limit_s`, or widen a budget"
    )]
    TimeLimit {
        /// The limit in seconds.
        seconds: f64,
    },
}

impl Error {
    /// Whether it is the problem that is at fault, and not time or memory that ran out.
    pub fn is_input(&self) -> bool {
        !matches!(self, Error::TimeLimit { .. } | Error::CurveTimeLimit { .. } | Error::CurveTooLong { .. })
    }
}
