//! The steps: one solution after the other, each with its bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::instance::{Instance, Scaled};
use crate::search::{Ended, Search, improve};
use crate::{
    BudgetEnd, DEFAULT_TIME_LIMIT_S, Error, Infeasible, Outcome, Problem, Shortfall, Solution, Status, pareto,
};

/// Above every sum of scores, and far from overflow.
const NO_CUT: i64 = 1 << 52;

/// Finds the best selections of a problem.
///
/// # Errors
///
/// If the problem is not valid (see [`Problem::validate`]), or if time ran out before the first selection was found
/// or proven not to exist.
pub fn solve(problem: &Problem) -> Result<Outcome, Error> {
    let started = Instant::now();
    problem.validate()?;
    let scaled = Scaled::new(problem);
    let limit = problem.time_limit_s.unwrap_or(DEFAULT_TIME_LIMIT_S);
    let deadline = started + Duration::from_secs_f64(limit.min(1e9));
    let mut outcome = Outcome {
        status: Status::Optimal,
        solutions: Vec::new(),
        elapsed_s: 0.0,
        infeasible: None,
        shortfall: None,
    };
    let mut steps = Steps {
        scaled: &scaled,
        earlier: earlier_indices(problem),
        overlap_limit: problem.overlap_limit(),
        gap: scaled.score_amount(problem.gap),
        bound: i64::MIN,
        gaps: Vec::new(),
    };
    while outcome.solutions.len() < problem.solutions {
        let now = Instant::now();
        let left = (problem.solutions - outcome.solutions.len()) as u32;
        let step_deadline = now + deadline.saturating_duration_since(now) / left;
        match steps.next(step_deadline, deadline) {
            Step::Found { selection, bound, proven, nodes } => {
                outcome.solutions.push(describe(problem, &scaled, &selection, bound, proven, nodes));
                if !proven {
                    outcome.status = Status::Feasible;
                }
                steps.earlier.push(selection);
            }
            Step::NoneLeft => {
                if outcome.solutions.is_empty() {
                    outcome.status = Status::Infeasible;
                    outcome.infeasible = explain(problem, deadline);
                }
                if outcome.infeasible.is_none() {
                    outcome.shortfall = Some(shortfall(problem, outcome.solutions.len(), None));
                }
                break;
            }
            Step::OutOfTime => {
                if outcome.solutions.is_empty() {
                    return Err(Error::TimeLimit { seconds: limit });
                }
                outcome.shortfall = Some(shortfall(problem, outcome.solutions.len(), Some(limit)));
                break;
            }
        }
    }
    outcome.elapsed_s = started.elapsed().as_secs_f64();
    Ok(outcome)
}

fn earlier_indices(problem: &Problem) -> Vec<Vec<usize>> {
    let index = |(layer, name): (&crate::Layer, &String)| {
        // Validated: the name exists.
        layer.choices.iter().position(|choice| choice.name == *name).unwrap_or(0)
    };
    problem.earlier.iter().map(|names| problem.layers.iter().zip(names).map(index).collect()).collect()
}

enum Step {
    /// Choice indices per layer.
    Found {
        selection: Vec<usize>,
        bound: i64,
        proven: bool,
        nodes: u64,
    },
    NoneLeft,
    OutOfTime,
}

/// What is carried from step to step.
struct Steps<'a> {
    scaled: &'a Scaled,
    earlier: Vec<Vec<usize>>,
    overlap_limit: usize,
    gap: i64,
    /// The best bound proven so far; valid for all later steps too.
    bound: i64,
    /// Distance of the best solution from the bound of the relaxation, step by step.
    gaps: Vec<i64>,
}

impl Steps<'_> {
    fn next(&mut self, deadline: Instant, last_deadline: Instant) -> Step {
        let instance = self.scaled.instance(&self.earlier, self.overlap_limit);
        // Without any selection there is nothing to go on with, so the first may take all the time left.
        let mut dive = Search::new(&instance, NO_CUT, 0, last_deadline);
        let ended = dive.run(true);
        let relaxed = dive.root_bound;
        let mut nodes = dive.nodes;
        let Some(mut best) = dive.best.take() else {
            return if ended == Ended::Complete { Step::NoneLeft } else { Step::OutOfTime };
        };
        self.bound = self.bound.max(relaxed);
        improve(&instance, &mut best, deadline);
        let mut value = instance.value(&best);
        if instance.budgets() == 1 && instance.earlier == 0 {
            let active = vec![true; instance.items()];
            let multiplier = dive.root_multipliers.first().copied().unwrap_or(0);
            if let Some(selection) = pareto::best(&instance, &active, multiplier, value, deadline) {
                value = instance.value(&selection);
                best = selection;
                self.bound = value;
                nodes = 0;
            }
        }
        let mut proven = value - self.gap <= self.bound;
        let mut empty = 0;
        while !proven {
            let target = value - self.gap;
            let cut = self.cut(relaxed, target, empty);
            let mut search = Search::new(&instance, cut, self.gap, deadline);
            let ended = search.run(false);
            nodes += search.nodes;
            self.bound = self.bound.max(search.root_bound.min(target));
            let found = search.best.is_some();
            if let Some(selection) = search.best {
                value = instance.value(&selection);
                best = selection;
            }
            match ended {
                Ended::Complete => {
                    empty += 1;
                    self.bound = self.bound.max(if found { value - self.gap } else { cut });
                    proven = value - self.gap <= self.bound;
                }
                Ended::AtFirst | Ended::OutOfTime => {
                    let mut improved = best.clone();
                    improve(&instance, &mut improved, last_deadline);
                    value = instance.value(&improved);
                    best = improved;
                    proven = value - self.gap <= self.bound;
                    break;
                }
            }
        }
        self.gaps.push(value - relaxed);
        let selection = best.iter().map(|&item| instance.choice[item]).collect();
        Step::Found { selection, bound: self.bound.min(value), proven, nodes }
    }

    /// Where a search of a step is to cut, after `empty` searches without a selection: not far above the bound, since
    /// a search costs the more the higher it cuts, but where experience expects the best solution.
    fn cut(&self, relaxed: i64, target: i64, empty: u32) -> i64 {
        let expected = self.gaps.iter().rev().take(5).copied().max().unwrap_or(0);
        // With ties, experience may say a few ticks: doubling, and an end to it, keep the number of searches small.
        if expected <= 0 || empty > 5 {
            return target;
        }
        let guess = relaxed + ((expected + expected / 7) << empty);
        // At least a good part of the way when the bound has already come close to the guess.
        guess.max(self.bound + ((1 + expected / 5) << empty)).min(target)
    }
}

fn describe(
    problem: &Problem,
    scaled: &Scaled,
    selection: &[usize],
    bound: i64,
    proven: bool,
    nodes: u64,
) -> Solution {
    let chosen: Vec<&crate::Choice> =
        problem.layers.iter().zip(selection).map(|(layer, &choice)| &layer.choices[choice]).collect();
    let score = chosen.iter().map(|choice| choice.score).sum::<f64>();
    let mut costs = BTreeMap::new();
    for name in chosen[0].costs.keys() {
        if let Some(values) = chosen.iter().map(|choice| choice.costs.get(name)).collect::<Option<Vec<_>>>() {
            costs.insert(name.clone(), values.into_iter().sum());
        }
    }
    let ticks: i64 = selection.iter().zip(&scaled.scores).map(|(&choice, scores)| scores[choice]).sum();
    let bound = if bound >= ticks { score } else { scaled.score_to_units(bound).min(score) };
    Solution {
        choices: chosen.iter().map(|choice| choice.name.clone()).collect(),
        score,
        costs,
        bound,
        proven,
        nodes,
    }
}

fn shortfall(problem: &Problem, found: usize, out_of_time: Option<f64>) -> Shortfall {
    let asked = problem.solutions;
    let limit = problem.overlap_limit();
    let layers = problem.layers.len();
    let message = match out_of_time {
        None => format!(
            "no further selection exists that meets the budgets and shares at most {limit} of {layers} choices with each \
             earlier one ({found} of {asked} found): raise `max_overlap`, widen a budget, add choices, or ask for \
             fewer `solutions`"
        ),
        Some(seconds) => format!(
            "time ran out after {seconds} s with {found} of {asked} solutions: raise `time_limit_s` or `max_overlap`, or allow \
             a `gap`"
        ),
    };
    Shortfall { asked, found, proven: out_of_time.is_none(), message }
}

/// Which budget makes a problem without selections infeasible; `None` if it is only the earlier solutions.
fn explain(problem: &Problem, deadline: Instant) -> Option<Infeasible> {
    let ends = problem.budgets.iter().flat_map(|(name, budget)| {
        let max = budget.max.map(|asked| (name, BudgetEnd::Max, asked));
        let min = budget.min.map(|asked| (name, BudgetEnd::Min, asked));
        max.into_iter().chain(min)
    });
    let ends: Vec<_> = ends.collect();
    for &(name, end, asked) in &ends {
        let alone = only(problem, [(name, end, asked)].iter());
        if meets(&alone, deadline) == Some(false) {
            let reachable = match end {
                BudgetEnd::Max => problem.smallest_reachable(name),
                BudgetEnd::Min => problem.largest_reachable(name),
            };
            return Some(infeasible(problem, name, end, asked, reachable.ok(), Vec::new()));
        }
    }
    let without_earlier = only(problem, ends.iter());
    if meets(&without_earlier, deadline) != Some(false) {
        return None;
    }
    // Find the first end that cannot be met together with those before it.
    for count in 2..=ends.len() {
        let (name, end, asked) = ends[count - 1];
        if meets(&only(problem, ends[..count].iter()), deadline) == Some(false) {
            let before = only(problem, ends[..count - 1].iter());
            let reachable = nearest(&before, name, end, deadline);
            let mut others: Vec<String> =
                ends[..count - 1].iter().map(|(name, ..)| (*name).clone()).collect();
            others.dedup();
            return Some(infeasible(problem, name, end, asked, reachable, others));
        }
    }
    None
}

/// The problem with some ends of its budgets only, and without earlier solutions.
fn only<'a>(problem: &Problem, ends: impl Iterator<Item = &'a (&'a String, BudgetEnd, f64)>) -> Problem {
    let mut budgets: BTreeMap<String, crate::Budget> = BTreeMap::new();
    for &(name, end, asked) in ends {
        let budget = budgets.entry(name.clone()).or_default();
        match end {
            BudgetEnd::Max => budget.max = Some(asked),
            BudgetEnd::Min => budget.min = Some(asked),
        }
    }
    Problem::new(problem.layers.clone(), budgets)
}

/// Whether some selection meets the budgets; `None` if time ran out.
fn meets(problem: &Problem, deadline: Instant) -> Option<bool> {
    let instance = Scaled::new(problem).instance(&[], 0);
    let mut search = Search::new(&instance, NO_CUT, 0, grace(deadline));
    match search.run(true) {
        Ended::AtFirst => Some(true),
        Ended::Complete => Some(search.best.is_some()),
        Ended::OutOfTime => None,
    }
}

/// The nearest value of a cost to an end that the budgets of `problem` allow.
fn nearest(problem: &Problem, name: &str, end: BudgetEnd, deadline: Instant) -> Option<f64> {
    let mut problem = problem.clone();
    let sign = if end == BudgetEnd::Max { 1.0 } else { -1.0 };
    for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
        choice.score = sign * choice.costs.get(name).copied().unwrap_or(0.0);
    }
    let instance: Instance = Scaled::new(&problem).instance(&[], 0);
    let mut search = Search::new(&instance, NO_CUT, 0, grace(deadline));
    let ended = search.run(false);
    let best = search.best.filter(|_| ended == Ended::Complete)?;
    let costs = best.iter().enumerate().map(|(layer, &item)| {
        problem.layers[layer].choices[instance.choice[item]].costs.get(name).copied().unwrap_or(0.0)
    });
    Some(costs.sum())
}

/// An explanation may take a moment beyond the limit: without it the answer is of little use.
fn grace(deadline: Instant) -> Instant {
    deadline.max(Instant::now() + Duration::from_millis(200))
}

fn infeasible(
    problem: &Problem,
    name: &str,
    end: BudgetEnd,
    asked: f64,
    reachable: Option<f64>,
    together_with: Vec<String>,
) -> Infeasible {
    let sign = if end == BudgetEnd::Max { 1.0 } else { -1.0 };
    let cost = |choice: &crate::Choice| sign * choice.costs.get(name).copied().unwrap_or(0.0);
    // Of each layer the choice nearest to the end, of all layers the one where that is farthest from helping.
    let nearest = problem.layers.iter().filter_map(|layer| {
        let choice = layer.choices.iter().min_by(|a, b| cost(a).total_cmp(&cost(b)))?;
        Some((layer, choice))
    });
    let binding = nearest.max_by(|a, b| cost(a.1).total_cmp(&cost(b.1)));
    let (layer, choice, layer_cost) = binding.map_or_else(Default::default, |(layer, choice)| {
        (layer.name.clone(), choice.name.clone(), sign * cost(choice))
    });
    let (word, superlative, side) = match end {
        BudgetEnd::Max => ("max", "smallest", "raise"),
        BudgetEnd::Min => ("min", "largest", "lower"),
    };
    let together = if together_with.is_empty() {
        String::new()
    } else {
        format!(" together with the budget for `{}`", together_with.join("`, `"))
    };
    let value =
        reachable.map_or(String::new(), |value| format!(": the {superlative} reachable sum is {value}"));
    let message = format!(
        "no selection meets budget `{name}` {word} {asked}{together}{value}; layer `{layer}` binds, it contributes {layer_cost} \
         even with `{choice}`: {side} the budget, or give that layer a choice that helps"
    );
    Infeasible {
        budget: name.to_owned(),
        end,
        asked,
        reachable,
        layer,
        choice,
        layer_cost,
        together_with,
        message,
    }
}
