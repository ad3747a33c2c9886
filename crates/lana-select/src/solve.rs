//! The steps: one solution after the other, each with its bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::explain::explain;
use crate::instance::Scaled;
use crate::search::{Ended, Search, improve};
use crate::{DEFAULT_TIME_LIMIT_S, Error, Outcome, Problem, Shortfall, Solution, Status, pareto};

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
    let rules = problem.check()?;
    let scaled = Scaled::new(problem, &rules);
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
                    outcome.infeasible = explain(problem, &rules, deadline);
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
        gap: score - bound,
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
