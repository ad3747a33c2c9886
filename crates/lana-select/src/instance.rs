//! The problem in integers, and the instance that one step solves.
//!
//! # Ticks
//!
//! Scores and costs become counts of *ticks*, once, for the whole problem. A tick is a power of ten, so that tables
//! written in decimal are represented exactly; it is as small as the sums allow:
//!
//! - a score tick is at most 1e-10 of the sum over layers of the largest absolute score, scores are rounded to the nearest tick;
//! - a cost tick is at most 1e-13 of the corresponding sum of costs. Under a `max` costs are rounded up, under a `min` down
//!   (a budget with both ends makes two rows, each with its own rounding), so rounding by itself never lets a
//!   selection through. Since the sum of N rounded costs can then be up to N ticks too strict, and a user
//!   who adds up N costs to state a budget makes rounding errors of that size too, the end is widened by N ticks: a selection that
//!   meets its budget exactly is never lost, and none exceeds it by more than N x 1e-13 of the budget.
//!
//! Choices that cannot be part of any selection within the budgets are dropped before the tick is chosen, so that a
//! "never take this" cost of 1e9 does not coarsen all others.

use crate::{BudgetEnd, Problem};

/// A row of the integer program: the sum of weights must not exceed the capacity.
#[derive(Debug, Clone)]
struct Row {
    /// Weight per layer and choice; negated costs for a `min`.
    weights: Vec<Vec<i64>>,
    /// The end of the budget in ticks.
    capacity: i64,
    /// Whether no selection violates it.
    always_holds: bool,
}

impl Row {
    fn new(problem: &Problem, allowed: &[Vec<bool>], end: &End) -> Row {
        let values = end.values(problem);
        let (mut least, mut most, mut magnitude) = (0.0, 0.0, 0.0);
        for (values, allowed) in values.iter().zip(allowed) {
            let kept =
                || values.iter().zip(allowed).filter(|(_, allowed)| **allowed).map(|(value, _)| *value);
            if kept().next().is_none() {
                continue;
            }
            least += kept().fold(f64::INFINITY, f64::min);
            most += kept().fold(f64::NEG_INFINITY, f64::max);
            magnitude += kept().map(f64::abs).fold(0.0, f64::max);
        }
        let scale = Scale::fitting(magnitude, 1e14);
        let ticks = |(&value, &allowed): (&f64, &bool)| if allowed { scale.up(value) } else { 0 };
        let weights = values
            .iter()
            .zip(allowed)
            .map(|(values, allowed)| values.iter().zip(allowed).map(ticks).collect());
        // An end far from what can be reached would overflow; a little beyond is as good.
        let limit = end.limit.clamp(least - magnitude, most);
        let capacity = -scale.up(-limit) + values.len() as i64;
        Row { weights: weights.collect(), capacity, always_holds: most <= end.limit }
    }
}

/// The whole problem in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Scaled {
    /// Score per layer and choice.
    pub(crate) scores: Vec<Vec<i64>>,
    /// Ends of budgets that can be violated at all; if none can, the first one.
    rows: Vec<Row>,
    /// Per layer and choice: whether some selection within the budgets may contain it.
    allowed: Vec<Vec<bool>>,
    score_scale: Scale,
}

/// Ticks per unit, as a power of ten.
#[derive(Debug, Clone, Copy)]
struct Scale {
    exponent: i32,
}

/// How far from a whole tick a product may lie and still count as that tick: the rounding errors of the decimal
/// number and of the multiplication, at the largest sums.
const SNAP: f64 = 0.1;

impl Scale {
    /// The finest scale at which `magnitude` has at most `ticks` ticks.
    fn fitting(magnitude: f64, ticks: f64) -> Scale {
        if magnitude == 0.0 {
            return Scale { exponent: 0 };
        }
        let exponent = (ticks.log10() - magnitude.log10()).floor() as i32;
        Scale { exponent: exponent.clamp(-300, 300) }
    }

    fn apply(self, value: f64) -> f64 {
        // Powers of ten up to 22 are exact, their reciprocals are not: divide rather than multiply by those.
        if self.exponent >= 0 {
            value * 10f64.powi(self.exponent)
        } else {
            value / 10f64.powi(-self.exponent)
        }
    }

    fn to_units(self, ticks: i64) -> f64 {
        let ticks = ticks as f64;
        if self.exponent >= 0 {
            ticks / 10f64.powi(self.exponent)
        } else {
            ticks * 10f64.powi(-self.exponent)
        }
    }

    fn nearest(self, value: f64) -> i64 {
        self.apply(value).round() as i64
    }

    fn up(self, value: f64) -> i64 {
        let ticks = self.apply(value);
        let nearest = ticks.round();
        if (ticks - nearest).abs() <= SNAP { nearest as i64 } else { ticks.ceil() as i64 }
    }
}

impl Scaled {
    /// Turns a validated problem into integers.
    pub(crate) fn new(problem: &Problem) -> Scaled {
        let ends = budget_ends(problem);
        let allowed = allowed_choices(problem, &ends);
        let mut rows: Vec<Row> = ends.iter().map(|end| Row::new(problem, &allowed, end)).collect();
        if rows.iter().all(|row| row.always_holds) {
            rows.truncate(1); // only ties, which the first budget decides
        } else {
            rows.retain(|row| !row.always_holds);
        }
        let magnitude = problem.layers.iter().zip(&allowed).map(|(layer, allowed)| {
            let kept = layer.choices.iter().zip(allowed).filter(|(_, allowed)| **allowed);
            kept.map(|(choice, _)| choice.score.abs()).fold(0.0, f64::max)
        });
        let score_scale = Scale::fitting(magnitude.sum(), 1e11);
        let scores = problem
            .layers
            .iter()
            .zip(&allowed)
            .map(|(layer, allowed)| {
                let ticks =
                    layer.choices.iter().zip(allowed).map(|(choice, &allowed)| {
                        if allowed { score_scale.nearest(choice.score) } else { 0 }
                    });
                ticks.collect()
            })
            .collect();
        Scaled { scores, rows, allowed, score_scale }
    }

    /// A score in the units of the problem.
    pub(crate) fn score_to_units(&self, ticks: i64) -> f64 {
        self.score_scale.to_units(ticks)
    }

    /// An amount of score in ticks, rounded down and limited to what can matter.
    pub(crate) fn score_amount(&self, value: f64) -> i64 {
        self.score_scale.apply(value).clamp(0.0, 1e15).floor() as i64
    }

    /// The instance that looks for the best selection that is diverse from `earlier` (choice indices per layer).
    pub(crate) fn instance(&self, earlier: &[Vec<usize>], overlap_limit: usize) -> Instance {
        let mut instance = Instance {
            start: vec![0],
            layer: Vec::new(),
            choice: Vec::new(),
            score: Vec::new(),
            weight: Vec::new(),
            capacity: self.rows.iter().map(|row| row.capacity).collect(),
            uses: Vec::new(),
            earlier: earlier.len(),
            overlap_limit: overlap_limit as i64,
        };
        let mut used_by: Vec<Vec<u32>> = Vec::new();
        for (layer, scores) in self.scores.iter().enumerate() {
            used_by.clear();
            used_by.resize(scores.len(), Vec::new());
            for (row, selection) in earlier.iter().enumerate() {
                used_by[selection[layer]].push(row as u32);
            }
            let replaces = |by: usize, choice: usize| {
                let no_worse = scores[by] <= scores[choice]
                    && self.rows.iter().all(|row| row.weights[layer][by] <= row.weights[layer][choice]);
                let same = scores[by] == scores[choice]
                    && self.rows.iter().all(|row| row.weights[layer][by] == row.weights[layer][choice]);
                // Of two that are alike, the one used before loses, then the one with the higher index.
                let first = !used_by[choice].is_empty() || by < choice;
                self.allowed[layer][by]
                    && used_by[by].is_empty()
                    && by != choice
                    && no_worse
                    && (!same || first)
            };
            for choice in 0..scores.len() {
                if !self.allowed[layer][choice] || (0..scores.len()).any(|by| replaces(by, choice)) {
                    continue;
                }
                instance.layer.push(layer);
                instance.choice.push(choice);
                instance.score.push(scores[choice]);
                instance.weight.extend(self.rows.iter().map(|row| row.weights[layer][choice]));
                instance.uses.push(used_by[choice].clone());
            }
            instance.start.push(instance.layer.len());
        }
        instance
    }
}

/// One end of a budget in `<=` form: values of a `min` are negated.
struct End {
    budget: String,
    end: BudgetEnd,
    limit: f64,
}

impl End {
    fn values(&self, problem: &Problem) -> Vec<Vec<f64>> {
        let sign = if self.end == BudgetEnd::Max { 1.0 } else { -1.0 };
        let value = |choice: &crate::Choice| choice.costs.get(&self.budget).map_or(0.0, |value| sign * value);
        problem.layers.iter().map(|layer| layer.choices.iter().map(value).collect()).collect()
    }
}

fn budget_ends(problem: &Problem) -> Vec<End> {
    let mut ends = Vec::new();
    for (name, budget) in &problem.budgets {
        if let Some(max) = budget.max {
            ends.push(End { budget: name.clone(), end: BudgetEnd::Max, limit: max });
        }
        if let Some(min) = budget.min {
            ends.push(End { budget: name.clone(), end: BudgetEnd::Min, limit: -min });
        }
    }
    ends
}

/// Marks choices that overshoot an end by far even with the nearest choice everywhere else.
fn allowed_choices(problem: &Problem, ends: &[End]) -> Vec<Vec<bool>> {
    let mut allowed: Vec<Vec<bool>> =
        problem.layers.iter().map(|layer| vec![true; layer.choices.len()]).collect();
    for end in ends {
        let values = end.values(problem);
        let nearest: Vec<f64> =
            values.iter().map(|values| values.iter().copied().fold(f64::INFINITY, f64::min)).collect();
        let least: f64 = nearest.iter().sum();
        let size: f64 = nearest.iter().map(|value| value.abs()).sum();
        if least > end.limit {
            continue; // the integer rows will tell
        }
        // Far beyond any rounding; closer cases are left to the integers.
        let margin = 1e-6 * (size + end.limit.abs());
        for (layer, values) in values.iter().enumerate() {
            for (choice, value) in values.iter().enumerate() {
                if least - nearest[layer] + value > end.limit + margin {
                    allowed[layer][choice] = false;
                }
            }
        }
    }
    allowed
}

/// Multipliers and bounds carry this many binary digits after the point.
pub(crate) const FRACTION: u32 = 40;

/// What one step solves: the remaining items, flat, layer by layer.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// First item of each layer, and the number of items at the end.
    pub(crate) start: Vec<usize>,
    /// Layer of each item.
    pub(crate) layer: Vec<usize>,
    /// Index of each item's choice within its layer.
    pub(crate) choice: Vec<usize>,
    /// Score of each item.
    pub(crate) score: Vec<i64>,
    /// Weights, item by item, one per budget row.
    pub(crate) weight: Vec<i64>,
    /// Capacity of each budget row.
    pub(crate) capacity: Vec<i64>,
    /// The earlier solutions that contain each item.
    pub(crate) uses: Vec<Vec<u32>>,
    /// The number of earlier solutions, each an overlap row.
    pub(crate) earlier: usize,
    /// The capacity of each overlap row.
    pub(crate) overlap_limit: i64,
}

impl Instance {
    pub(crate) fn layers(&self) -> usize {
        self.start.len() - 1
    }

    pub(crate) fn items(&self) -> usize {
        self.layer.len()
    }

    /// The number of budget rows.
    pub(crate) fn budgets(&self) -> usize {
        self.capacity.len()
    }

    pub(crate) fn range(&self, layer: usize) -> std::ops::Range<usize> {
        self.start[layer]..self.start[layer + 1]
    }

    pub(crate) fn weights(&self, item: usize) -> &[i64] {
        &self.weight[item * self.budgets()..(item + 1) * self.budgets()]
    }

    /// Sum of the scores of a selection (one item per layer).
    pub(crate) fn value(&self, selection: &[usize]) -> i64 {
        selection.iter().map(|&item| self.score[item]).sum()
    }

    /// Whether a selection meets every row.
    pub(crate) fn feasible(&self, selection: &[usize]) -> bool {
        let within_budgets = (0..self.budgets()).all(|row| {
            selection.iter().map(|&item| self.weights(item)[row]).sum::<i64>() <= self.capacity[row]
        });
        if !within_budgets {
            return false;
        }
        let mut overlap = vec![0; self.earlier];
        for &item in selection {
            for &row in &self.uses[item] {
                overlap[row as usize] += 1;
            }
        }
        overlap.iter().all(|&count| count <= self.overlap_limit)
    }

    /// The Lagrangian bound over the active items, in score ticks with [`FRACTION`] binary digits.
    ///
    /// For any multipliers `pi >= 0` (budget rows first, then overlap rows),
    /// `sum over layers of min over items of (score + pi w)  -  pi capacity` is at most the score of every
    /// feasible selection. `reduced` receives how much each active item lies above the least of its layer, so that bound
    /// plus that is a bound on the selections that contain it. `None` if a layer has no active item.
    pub(crate) fn bound(&self, active: &[bool], pi: &[i128], reduced: &mut [i128]) -> Option<i128> {
        let budgets = self.budgets();
        let mut bound = 0i128;
        for (&multiplier, &capacity) in pi[..budgets].iter().zip(&self.capacity) {
            bound -= multiplier * i128::from(capacity);
        }
        for &multiplier in &pi[budgets..] {
            bound -= multiplier * i128::from(self.overlap_limit);
        }
        for layer in 0..self.layers() {
            let mut least = i128::MAX;
            for item in self.range(layer).filter(|&item| active[item]) {
                let mut value = i128::from(self.score[item]) << FRACTION;
                for (&multiplier, &weight) in pi[..budgets].iter().zip(self.weights(item)) {
                    value += multiplier * i128::from(weight);
                }
                for &row in &self.uses[item] {
                    value += pi[budgets + row as usize];
                }
                reduced[item] = value;
                least = least.min(value);
            }
            if least == i128::MAX {
                return None;
            }
            for item in self.range(layer).filter(|&item| active[item]) {
                reduced[item] -= least;
            }
            bound += least;
        }
        Some(bound)
    }

    /// Whether `pi` proves that the active items admit no selection at all: every selection's weighted sum of
    /// weights exceeds the weighted sum of capacities.
    pub(crate) fn refutes(&self, active: &[bool], pi: &[i128]) -> bool {
        let budgets = self.budgets();
        let mut excess = 0i128;
        for layer in 0..self.layers() {
            let mut least = i128::MAX;
            for item in self.range(layer).filter(|&item| active[item]) {
                let budget: i128 =
                    pi[..budgets].iter().zip(self.weights(item)).map(|(&p, &w)| p * i128::from(w)).sum();
                let overlap: i128 = self.uses[item].iter().map(|&row| pi[budgets + row as usize]).sum();
                least = least.min(budget + overlap);
            }
            if least == i128::MAX {
                return true;
            }
            excess += least;
        }
        for (&multiplier, &capacity) in pi[..budgets].iter().zip(&self.capacity) {
            excess -= multiplier * i128::from(capacity);
        }
        excess -= pi[budgets..].iter().sum::<i128>() * i128::from(self.overlap_limit);
        excess > 0
    }

    /// Drops items that cannot be completed to a selection that meets some single row. False if a row cannot be
    /// met at all.
    pub(crate) fn propagate(&self, active: &mut [bool]) -> bool {
        // A layer loses all its items where no choice fits two budgets at once.
        if (0..self.layers()).any(|layer| self.range(layer).is_empty()) {
            return false;
        }
        loop {
            let mut changed = false;
            for (row, &capacity) in self.capacity.iter().enumerate() {
                let mut least = vec![i64::MAX; self.layers()];
                for (layer, least) in least.iter_mut().enumerate() {
                    for item in self.range(layer).filter(|&item| active[item]) {
                        *least = (*least).min(self.weights(item)[row]);
                    }
                    if *least == i64::MAX {
                        return false;
                    }
                }
                let spare = capacity - least.iter().sum::<i64>();
                if spare < 0 {
                    return false;
                }
                for item in 0..self.items() {
                    if active[item] && self.weights(item)[row] - least[self.layer[item]] > spare {
                        active[item] = false;
                        changed = true;
                    }
                }
            }
            if self.earlier > 0 {
                let mut forced = vec![0i64; self.earlier];
                let mut only = vec![false; self.items()];
                for layer in 0..self.layers() {
                    let mut left = self.range(layer).filter(|&item| active[item]);
                    match (left.next(), left.next()) {
                        (None, _) => return false,
                        (Some(item), None) => {
                            only[item] = true;
                            self.uses[item].iter().for_each(|&row| forced[row as usize] += 1);
                        }
                        _ => {}
                    }
                }
                if forced.iter().any(|&count| count > self.overlap_limit) {
                    return false;
                }
                for item in 0..self.items() {
                    if active[item]
                        && !only[item]
                        && self.uses[item].iter().any(|&row| forced[row as usize] >= self.overlap_limit)
                    {
                        active[item] = false;
                        changed = true;
                    }
                }
            }
            if !changed {
                return true;
            }
        }
    }
}
