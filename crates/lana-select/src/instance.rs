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
//! Caps count choices: their weights are 1 (-1 under a `min`), without any rounding.
//!
//! Choices that are forbidden, or cannot be part of any selection within the budgets, are dropped before the tick is chosen, so
//! that a "never take this" cost of 1e9 does not coarsen all others.

use crate::explain::scores;
use crate::limit::Limit;
use crate::rules::{Flags, Rules};
use crate::{LimitKind, Problem};

/// A row of the integer program: the sum of weights must not exceed the capacity.
#[derive(Debug, Clone)]
struct Row {
    /// Weight per layer and choice; negated costs for a `min`.
    weights: Vec<Vec<i64>>,
    scale: Scale,
    /// By how many ticks ends are widened.
    slack: i64,
    /// The end of the limit in ticks.
    capacity: i64,
    /// Whether no selection violates it.
    always_holds: bool,
    kind: LimitKind,
}

impl Row {
    fn new(limit: &Limit, allowed: &Flags) -> Row {
        let (mut least, mut most, mut magnitude) = (0.0, 0.0, 0.0);
        for (values, allowed) in limit.values.iter().zip(allowed) {
            if !allowed.contains(&true) {
                continue;
            }
            let kept =
                || values.iter().zip(allowed).filter(|(_, allowed)| **allowed).map(|(value, _)| *value);
            least += kept().fold(f64::INFINITY, f64::min);
            most += kept().fold(f64::NEG_INFINITY, f64::max);
            magnitude += kept().map(f64::abs).fold(0.0, f64::max);
        }
        let (scale, slack) = match limit.kind {
            LimitKind::Budget => (Scale::fitting(magnitude, 1e14), allowed.len() as i64),
            LimitKind::Cap => (Scale::ONE, 0), // counts are integers as they are
        };
        let ticks = |(&value, &allowed): (&f64, &bool)| if allowed { scale.up(value) } else { 0 };
        let weights = limit
            .values
            .iter()
            .zip(allowed)
            .map(|(values, allowed)| values.iter().zip(allowed).map(ticks).collect());
        let end = limit.signed(limit.asked);
        let mut row = Row {
            weights: weights.collect(),
            scale,
            slack,
            capacity: 0,
            always_holds: most <= end,
            kind: limit.kind,
        };
        row.capacity = match magnitude {
            // No ticks to measure the end by, so that it would get lost in the slack.
            0.0 => -i64::from(end < 0.0),
            // An end far from what can be reached would overflow; a little beyond is as good.
            _ => row.capacity_at(end.clamp(least - magnitude, most)),
        };
        row
    }

    fn capacity_at(&self, end: f64) -> i64 {
        self.scale.up(-end).saturating_neg().saturating_add(self.slack)
    }
}

/// The whole problem in ticks.
#[derive(Debug, Clone)]
pub(crate) struct Scaled {
    /// Score per layer and choice.
    pub(crate) scores: Vec<Vec<i64>>,
    /// Limits that can be violated at all; if none can, the first budget.
    rows: Vec<Row>,
    /// The choices of each layer that some selection within the limits may contain, by score, weights and index: none is
    /// replaced by one after it.
    order: Vec<Vec<usize>>,
    score_scale: Scale,
}

/// Ticks per unit, as a power of ten.
#[derive(Debug, Clone, Copy)]
struct Scale {
    /// The power, or that of its reciprocal: powers of ten up to 22 are exact, their reciprocals are not.
    factor: f64,
    divide: bool,
}

/// How far from a whole tick a product may lie and still count as that tick: the rounding errors of the decimal
/// number and of the multiplication, at the largest sums.
const SNAP: f64 = 0.1;

impl Scale {
    /// One tick per unit.
    const ONE: Scale = Scale { factor: 1.0, divide: false };

    /// The finest scale at which `magnitude` has at most `ticks` ticks.
    fn fitting(magnitude: f64, ticks: f64) -> Scale {
        if magnitude == 0.0 {
            return Scale::ONE;
        }
        let exponent = (ticks.log10() - magnitude.log10()).floor().clamp(-300.0, 300.0) as i32;
        Scale { factor: 10f64.powi(exponent.abs()), divide: exponent < 0 }
    }

    fn apply(self, value: f64) -> f64 {
        if self.divide { value / self.factor } else { value * self.factor }
    }

    fn to_units(self, ticks: i64) -> f64 {
        let ticks = ticks as f64;
        if self.divide { ticks * self.factor } else { ticks / self.factor }
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
    pub(crate) fn new(problem: &Problem, rules: &Rules) -> Scaled {
        let limits = Limit::all(problem, rules);
        Scaled::with(&scores(problem), rules, &limits.iter().collect::<Vec<_>>())
    }

    /// The same for any scores and limits (per layer and choice).
    pub(crate) fn with(scores: &[Vec<f64>], rules: &Rules, limits: &[&Limit]) -> Scaled {
        let allowed = allowed_choices(rules, limits);
        let mut rows: Vec<Row> = limits.iter().map(|limit| Row::new(limit, &allowed)).collect();
        if rows.iter().all(|row| row.always_holds) {
            rows.retain(|row| row.kind == LimitKind::Budget);
            rows.truncate(1); // only ties, which the first budget decides
        } else {
            rows.retain(|row| !row.always_holds);
        }
        let magnitude = scores.iter().zip(&allowed).map(|(scores, allowed)| {
            let kept = scores.iter().zip(allowed).filter(|(_, allowed)| **allowed);
            kept.map(|(score, _)| score.abs()).fold(0.0, f64::max)
        });
        let score_scale = Scale::fitting(magnitude.sum(), 1e11);
        let ticks = |(&score, &allowed): (&f64, &bool)| if allowed { score_scale.nearest(score) } else { 0 };
        let scores: Vec<Vec<i64>> = scores
            .iter()
            .zip(&allowed)
            .map(|(scores, allowed)| scores.iter().zip(allowed).map(ticks).collect())
            .collect();
        let order = allowed.iter().enumerate().map(|(layer, allowed)| {
            let weight =
                |row: usize, choice: usize| rows.get(row).map_or(0, |row: &Row| row.weights[layer][choice]);
            let kept = (0..allowed.len()).filter(|&choice| allowed[choice]);
            // The first of the keys, which nearly always decide, side by side.
            let mut order: Vec<_> =
                kept.map(|choice| (scores[layer][choice], weight(0, choice), choice)).collect();
            order.sort_unstable_by(|&(score_a, weight_a, a), &(score_b, weight_b, b)| {
                let others = |choice: usize| (1..rows.len()).map(move |row| weight(row, choice));
                (score_a, weight_a)
                    .cmp(&(score_b, weight_b))
                    .then_with(|| others(a).cmp(others(b)))
                    .then(a.cmp(&b))
            });
            order.into_iter().map(|(_, _, choice)| choice).collect()
        });
        let order = order.collect();
        Scaled { scores, rows, order, score_scale }
    }

    /// A score in the units of the problem.
    pub(crate) fn score_to_units(&self, ticks: i64) -> f64 {
        self.score_scale.to_units(ticks)
    }

    /// An amount of score in ticks, rounded down and limited to what can matter.
    pub(crate) fn score_amount(&self, value: f64) -> i64 {
        self.score_scale.apply(value).clamp(0.0, 4e11).floor() as i64
    }

    /// A weight of the first row in the units of its limit.
    pub(crate) fn weight_to_units(&self, ticks: i64) -> f64 {
        self.rows.first().map_or(0.0, |row| row.scale.to_units(ticks))
    }

    /// The capacity that the first row would have with its limit at `end`.
    pub(crate) fn capacity_at(&self, end: f64) -> i64 {
        self.rows.first().map_or(0, |row| row.capacity_at(end))
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
        let mut kept = Vec::new();
        for (layer, scores) in self.scores.iter().enumerate() {
            used_by.clear();
            used_by.resize(scores.len(), Vec::new());
            for (row, selection) in earlier.iter().enumerate() {
                used_by[selection[layer]].push(row as u32);
            }
            self.undominated(layer, &used_by, &mut kept);
            for &choice in &kept {
                instance.layer.push(layer);
                instance.choice.push(choice);
                instance.score.push(scores[choice]);
                instance.weight.extend(self.rows.iter().map(|row| row.weights[layer][choice]));
                instance.uses.push(std::mem::take(&mut used_by[choice]));
            }
            instance.start.push(instance.layer.len());
        }
        instance
    }

    /// The choices of a layer that no other one replaces, in the order of their indices: one that was never used, and is
    /// no worse in score and in any row. Of two that are alike, the one used before loses, then the one with the
    /// higher index.
    fn undominated(&self, layer: usize, used_by: &[Vec<u32>], kept: &mut Vec<usize>) {
        let scores = &self.scores[layer];
        let replaces = |by: usize, choice: usize| {
            scores[by] <= scores[choice]
                && self.rows.iter().all(|row| row.weights[layer][by] <= row.weights[layer][choice])
        };
        kept.clear();
        // In this order, whatever replaces a choice stands before it, and with one row the last one kept is the lightest.
        for &choice in self.order[layer].iter().filter(|&&choice| used_by[choice].is_empty()) {
            let replaced = match (self.rows.len(), kept.last()) {
                (0 | 1, Some(&last)) => replaces(last, choice),
                _ => kept.iter().any(|&by| replaces(by, choice)),
            };
            if !replaced {
                kept.push(choice);
            }
        }
        let fresh = kept.len();
        for &choice in self.order[layer].iter().filter(|&&choice| !used_by[choice].is_empty()) {
            if !kept[..fresh].iter().any(|&by| replaces(by, choice)) {
                kept.push(choice);
            }
        }
        kept.sort_unstable();
    }
}

/// Marks choices that the rules permit and that do not overshoot a limit by far even with the nearest choice everywhere
/// else.
fn allowed_choices(rules: &Rules, limits: &[&Limit]) -> Flags {
    let mut allowed = rules.allowed.clone();
    for limit in limits {
        let end = limit.signed(limit.asked);
        let nearest: Vec<f64> = limit
            .values
            .iter()
            .zip(&allowed)
            .map(|(values, allowed)| {
                let kept = values.iter().zip(allowed).filter(|(_, allowed)| **allowed);
                kept.map(|(value, _)| *value).fold(f64::INFINITY, f64::min)
            })
            .collect();
        let least: f64 = nearest.iter().sum();
        let size: f64 = nearest.iter().map(|value| value.abs()).sum();
        if least > end {
            continue; // the integer rows will tell
        }
        // Far beyond any rounding; closer cases are left to the integers.
        let margin = 1e-6 * (size + end.abs());
        for ((values, allowed), nearest) in limit.values.iter().zip(&mut allowed).zip(&nearest) {
            for (value, allowed) in values.iter().zip(allowed) {
                *allowed &= least - nearest + value <= end + margin;
            }
        }
    }
    allowed
}

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
    /// Weights, item by item, one per limit (end of a budget or cap).
    pub(crate) weight: Vec<i64>,
    /// Capacity of each limit.
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

    /// The number of limits: rows of budgets and caps.
    pub(crate) fn budgets(&self) -> usize {
        self.capacity.len()
    }

    /// Whether no choice of some layer fits all budgets at once.
    pub(crate) fn has_empty_layer(&self) -> bool {
        (0..self.layers()).any(|layer| self.range(layer).is_empty())
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
}
