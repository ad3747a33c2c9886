//! The steps: one solution after the other, each with its bound.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::explain::explain;
use crate::instance::Scaled;
use crate::steps::{Step, Steps};
use crate::{DEFAULT_TIME_LIMIT_S, Error, Outcome, Problem, Shortfall, Solution, Status};

/// Of equal shares of the time left, how many a step may take: few steps need much, most need little.
const SHARES: f64 = 3.0;

/// A score has at least that many ticks unless others dwarf it.
const COARSE: i64 = 100_000;

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
    let gap = scaled.score_amount(problem.gap);
    let hidden = hidden_by_rounding(problem, &scaled);
    let cores = std::thread::available_parallelism().ok();
    let threads = problem.threads.or(cores).map_or(1, usize::from);
    let mut steps = Steps::new(&scaled, earlier_indices(problem), problem.overlap_limit(), gap, threads);
    while outcome.solutions.len() < problem.solutions {
        let now = Instant::now();
        let left = (problem.solutions - outcome.solutions.len()) as f64;
        let step_deadline = now + deadline.saturating_duration_since(now).mul_f64((SHARES / left).min(1.0));
        match steps.next(step_deadline, deadline) {
            Step::Found { selection, bound, proven, nodes } => {
                outcome.solutions.push(describe(problem, &scaled, &selection, bound, proven, nodes, hidden));
                if !proven || hidden > 0.0 {
                    outcome.status = Status::Feasible;
                }
                steps.add(selection);
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
                outcome.status = Status::Feasible;
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

/// How much of a sum of scores the rounding to ticks can hide where that is worth mentioning, which takes a table with both
/// tiny and enormous numbers; else 0.
fn hidden_by_rounding(problem: &Problem, scaled: &Scaled) -> f64 {
    let mut sizes: Vec<i64> =
        scaled.scores.iter().flatten().map(|score| score.abs()).filter(|size| *size > 0).collect();
    if sizes.is_empty() {
        return 0.0;
    }
    let middle = sizes.len() / 2;
    let (_, median, _) = sizes.select_nth_unstable(middle);
    let rounding = 0.5 * problem.layers.len() as f64 * scaled.score_to_units(1);
    if *median < COARSE && rounding > problem.gap { rounding } else { 0.0 }
}

#[allow(clippy::too_many_arguments)] // what a step found, in the words of the problem
fn describe(
    problem: &Problem,
    scaled: &Scaled,
    selection: &[usize],
    bound: i64,
    proven: bool,
    nodes: u64,
    hidden: f64,
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
    let (bound, proven) = (bound - hidden, proven && hidden == 0.0);
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
