//! One limit and nothing else: dynamic programming over Pareto-optimal partial sums.
//!
//! Layers are added from the last to the first. A state is a selection of the layers added so far, known by its weight and
//! score; of those, only states matter that are not beaten in both by another. The list of all such states of all
//! layers is the whole trade of score for cost. Since the lists never hold two states alike, ties and copies of the same
//! layer, poison to branch and bound, cost nothing.
//!
//! # Adding a layer
//!
//! The list, sorted by weight, is shifted by each item of the new layer, and the shifted lists are merged into one
//! without beaten states. Nearly all candidates are beaten (a layer of 25 items has 25 times the states, of which about
//! one in 20 stays), so the aim is not to look at them: weights are taken window by window, so short that no item has
//! more than a handful of states in it; scores fall along a list, so the last state of an item in the window, compared
//! with the best score before the window, mostly rules out all of them at once. What is left is sorted.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::explain::scores;
use crate::instance::Scaled;
use crate::limit::Limit;
use crate::rules::Rules;
use crate::{DEFAULT_TIME_LIMIT_S, Error, Problem};

/// More states than this in all lists of a curve, and they would take 500 MB.
const MAX_CURVE_STATES: usize = 20_000_000;

/// The most states of an item in a window. A curve of 28,000 points (46 layers of 197 choices) took 66 ms with 8, 46 with 16, 49
/// with 32, 75 with 64.
const WINDOW: usize = 16;

/// A partial sum.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    weight: i64,
    score: i64,
}

/// How a state came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Step {
    /// Position among the items of its layer.
    item: u32,
    /// Position of the state it was added to, in the list before.
    parent: u32,
}

/// Lists, layer by layer from the last to the first.
#[derive(Debug, Clone)]
struct Lists {
    /// The states of the layers added so far, by rising weight and falling score.
    states: Vec<State>,
    /// Where the states of each list come from.
    steps: Vec<Vec<Step>>,
    next: Vec<State>,
    candidates: Vec<(State, Step)>,
}

impl Lists {
    fn new() -> Lists {
        let states = vec![State { weight: 0, score: 0 }];
        Lists { states, steps: Vec::new(), next: Vec::new(), candidates: Vec::new() }
    }

    /// Adds a layer. Of states alike, the one with the first item is kept, so that in the end the first selection in
    /// lexicographic order is.
    fn add(&mut self, items: &[State], keep: impl Fn(State) -> bool) {
        let (list, candidates) = (&self.states, &mut self.candidates);
        self.next.clear();
        let mut steps = Vec::with_capacity(list.len());
        let mut from = vec![0; items.len()];
        let mut best = i64::MAX;
        while from.iter().any(|&from| from < list.len()) {
            let ends = items
                .iter()
                .zip(&from)
                .filter_map(|(item, &from)| list.get(from + WINDOW).map(|state| state.weight + item.weight));
            let end = ends.min().unwrap_or(i64::MAX);
            candidates.clear();
            for (index, (item, from)) in items.iter().zip(&mut from).enumerate() {
                let first = *from;
                let rest = &list[first..list.len().min(first + WINDOW)];
                let inside = rest.partition_point(|state| state.weight + item.weight < end);
                *from += inside;
                for (offset, state) in rest[..inside].iter().enumerate().rev() {
                    let state = State { weight: state.weight + item.weight, score: state.score + item.score };
                    if state.score >= best {
                        break;
                    }
                    candidates.push((state, Step { item: index as u32, parent: (first + offset) as u32 }));
                }
            }
            candidates.sort_unstable();
            for &(state, step) in candidates.iter() {
                if state.score < best {
                    best = state.score;
                    if keep(state) {
                        self.next.push(state);
                        steps.push(step);
                    }
                }
            }
        }
        std::mem::swap(&mut self.states, &mut self.next);
        self.steps.push(steps);
    }

    /// The items of a state of the last list, first layer first.
    fn items(&self, state: usize) -> impl Iterator<Item = usize> {
        let mut state = state;
        self.steps.iter().rev().map(move |steps| {
            let step = steps[state];
            state = step.parent as usize;
            step.item as usize
        })
    }
}

/// All the best trades of score for one cost, and the selections behind them.
#[derive(Debug, Clone)]
pub struct Curve {
    points: Vec<Point>,
    /// Position of the first point in the last list.
    first: usize,
    lists: Lists,
    /// Names of the choices that take part, by layer.
    names: Vec<Vec<String>>,
    scaled: Scaled,
}

/// A selection that no other one beats: none has less score at this cost or below.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Point {
    /// Sum of the cost, in its unit.
    pub cost: f64,
    /// Sum of the scores.
    pub score: f64,
}

impl Curve {
    /// The points, by rising cost and falling score. Empty if no selection meets the budget.
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// The point that [`solve`](crate::solve) finds under a budget of at most `max`; `None` if no selection meets it.
    pub fn best_within(&self, max: f64) -> Option<usize> {
        let capacity = self.scaled.capacity_at(max);
        let states = &self.lists.states[self.first..self.first + self.points.len()];
        states.partition_point(|state| state.weight <= capacity).checked_sub(1)
    }

    /// Names of the choices at a point, in the order of the layers. Of several selections with the cost and score of the
    /// point, it is the first in the order of the choices.
    ///
    /// # Panics
    ///
    /// If there is no such point.
    pub fn selection(&self, point: usize) -> Vec<String> {
        let items = self.lists.items(self.first + point);
        self.names.iter().zip(items).map(|(names, item)| names[item].clone()).collect()
    }
}

/// All efficient points of score over one cost, of the selections that `forbidden` and `forced` permit, exactly.
///
/// A budget on that cost limits the range: points outside of it are left out. `solutions`, `max_overlap` and `gap` have no
/// part in it.
///
/// # Errors
///
/// If the problem is not valid, a choice lacks the cost, there are budgets on other costs, caps, or earlier solutions,
/// of which a curve knows nothing, or if the lists grow too long for memory or for the problem's time limit.
pub fn pareto(problem: &Problem, cost: &str) -> Result<Curve, Error> {
    let limit = problem.time_limit_s.unwrap_or(DEFAULT_TIME_LIMIT_S);
    let deadline = Instant::now() + Duration::from_secs_f64(limit.clamp(0.0, 1e9));
    let rules = problem.check()?;
    check_plain(problem, &rules, cost)?;
    let budget = problem.budgets.get(cost).copied().unwrap_or_default();
    let max = Limit::cost(problem, cost, budget.max.unwrap_or(f64::INFINITY));
    let scaled = Scaled::with(&scores(problem), &rules, &[&max]);
    let instance = scaled.instance(&[], 0);
    let layers = instance.layers();
    let state = |item: usize| State { weight: instance.weight[item], score: instance.score[item] };
    let mut lightest = vec![0; layers + 1];
    for layer in 0..layers {
        let weights = instance.range(layer).map(|item| instance.weight[item]);
        lightest[layer + 1] = lightest[layer] + weights.min().unwrap_or(0);
    }
    let mut lists = Lists::new();
    let mut total = 0;
    for layer in (0..layers).rev() {
        let items: Vec<State> = instance.range(layer).map(state).collect();
        lists.add(&items, |state| state.weight + lightest[layer] <= instance.capacity[0]);
        total += lists.states.len();
        let place = || (cost.to_owned(), lists.states.len(), layers - layer, layers);
        if total > MAX_CURVE_STATES {
            let (cost, points, done, layers) = place();
            return Err(Error::CurveTooLong { cost, points, done, layers });
        }
        if Instant::now() > deadline {
            let (cost, points, done, layers) = place();
            return Err(Error::CurveTimeLimit { cost, points, done, layers, seconds: limit });
        }
    }
    (lists.next, lists.candidates) = (Vec::new(), Vec::new());
    let first = budget.min.map_or(0, |min| {
        let least = -scaled.capacity_at(-min);
        lists.states.partition_point(|state| state.weight < least)
    });
    let point = |state: &State| Point {
        cost: scaled.weight_to_units(state.weight),
        score: scaled.score_to_units(state.score),
    };
    let points = lists.states[first..].iter().map(point).collect();
    let names = problem.layers.iter().enumerate().map(|(layer, from)| {
        let name = |item: usize| from.choices[instance.choice[item]].name.clone();
        instance.range(layer).map(name).collect()
    });
    Ok(Curve { points, first, lists, names: names.collect(), scaled })
}

/// Refuses what a curve takes no account of.
fn check_plain(problem: &Problem, rules: &Rules, cost: &str) -> Result<(), Error> {
    for (layer, allowed) in problem.layers.iter().zip(&rules.allowed) {
        let mut kept = layer.choices.iter().zip(allowed).filter(|(_, allowed)| **allowed);
        if let Some((choice, _)) = kept.find(|(choice, _)| !choice.costs.contains_key(cost)) {
            let (layer, choice) = (layer.name.clone(), choice.name.clone());
            return Err(Error::UnknownCost { layer, choice, cost: cost.to_owned() });
        }
    }
    let other =
        problem.budgets.keys().find(|budget| *budget != cost).map(|budget| format!("budget `{budget}`"));
    let cap = problem.caps.first().map(|cap| format!("cap `{}`", cap.label(0)));
    let earlier = problem.earlier.first().map(|_| "`earlier`".to_owned());
    if let Some(rule) = other.or(cap).or(earlier) {
        return Err(Error::CurveRule { cost: cost.to_owned(), rule });
    }
    Ok(())
}
