//! The whole curve against the enumeration of all selections, and against single budgets.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;

use lana_select::{Budget, Cap, Choice, Layer, Members, Point, Problem, Status, pareto, solve};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const COST: &str = "latency_ms";

/// Small integers give ties, numbers of any kind give none; both may be negative.
fn random_problem(random: &mut ChaCha8Rng, integers: bool) -> Problem {
    let low = if random.random_bool(0.3) { -3.0 } else { 0.0 };
    let value = |random: &mut ChaCha8Rng| {
        let value: f64 = random.random_range(low..4.0);
        if integers { value.round() } else { value }
    };
    let layers = (0..random.random_range(1..=6)).map(|index| Layer {
        name: format!("layer{index}"),
        choices: (0..random.random_range(1..=5))
            .map(|choice| Choice {
                name: format!("c{choice}"),
                score: value(random),
                costs: BTreeMap::from([(COST.to_owned(), value(random))]),
            })
            .collect(),
    });
    let layers = layers.collect();
    Problem::new(layers, BTreeMap::new())
}

/// Cost and score of every selection that takes none of the `forbidden` choices, with its names, in lexicographic order.
fn all_selections(problem: &Problem, forbidden: &str) -> Vec<(f64, f64, Vec<String>)> {
    let mut all = vec![(0.0, 0.0, Vec::new())];
    for layer in &problem.layers {
        let mut next = Vec::new();
        for (cost, score, names) in &all {
            for choice in layer.choices.iter().filter(|choice| choice.name != forbidden) {
                let names = [names.as_slice(), std::slice::from_ref(&choice.name)].concat();
                next.push((cost + choice.costs[COST], score + choice.score, names));
            }
        }
        all = next;
    }
    all
}

/// The efficient ones, by rising cost; the first of those alike.
fn efficient(mut all: Vec<(f64, f64, Vec<String>)>) -> Vec<(f64, f64, Vec<String>)> {
    // Stable, and sums that differ by rounding count as equal.
    let round = |value: f64| (value * 1e9).round();
    all.sort_by(|a, b| (round(a.0), round(a.1)).partial_cmp(&(round(b.0), round(b.1))).unwrap());
    let mut best = f64::INFINITY;
    all.retain(|(_, score, _)| {
        let better = *score < best - 1e-9;
        best = best.min(*score);
        better
    });
    all
}

#[test]
fn every_efficient_point_and_no_other() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for case in 0..600 {
        let mut problem = random_problem(&mut random, case % 2 == 0);
        let mut expected = efficient(all_selections(&problem, ""));
        if case % 3 == 0 {
            problem.forbidden =
                vec![Members { layers: vec!["*".to_owned()], choices: vec!["c0".to_owned()] }];
            if problem.validate().is_err() {
                continue;
            }
            expected = efficient(all_selections(&problem, "c0"));
        }
        let curve = pareto(&problem, COST).unwrap();
        assert_eq!(curve.points().len(), expected.len(), "{problem:?}");
        for (index, (point, (cost, score, names))) in curve.points().iter().zip(&expected).enumerate() {
            assert!((point.cost - cost).abs() < 1e-9 && (point.score - score).abs() < 1e-8, "{problem:?}");
            assert_eq!(curve.selection(index), *names, "{problem:?}");
        }
        let falls = |pair: &[Point]| pair[0].cost < pair[1].cost && pair[0].score > pair[1].score;
        assert!(curve.points().windows(2).all(falls), "{problem:?}");
    }
}

#[test]
fn a_point_is_what_solving_for_its_budget_finds() {
    let mut random = ChaCha8Rng::seed_from_u64(2);
    for case in 0..300 {
        let mut problem = random_problem(&mut random, case % 2 == 0);
        let curve = pareto(&problem, COST).unwrap();
        let least = problem.smallest_reachable(COST).unwrap();
        let most = problem.largest_reachable(COST).unwrap();
        let between = (0..5).map(|_| random.random_range(least - 1.0..most + 1.0));
        let on_points = curve.points().iter().map(|point| point.cost).take(3);
        let budgets: Vec<f64> = between.chain(on_points).collect();
        for max in budgets {
            problem.budgets = BTreeMap::from([(COST.to_owned(), Budget { min: None, max: Some(max) })]);
            let outcome = solve(&problem).unwrap();
            let Some(index) = curve.best_within(max) else {
                assert_eq!(outcome.status, Status::Infeasible, "{problem:?}");
                continue;
            };
            assert_eq!(outcome.solutions[0].choices, curve.selection(index), "{problem:?}");
            assert!((outcome.solutions[0].score - curve.points()[index].score).abs() < 1e-8);
        }
    }
}

#[test]
fn a_budget_on_the_cost_limits_the_range() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    for _ in 0..100 {
        let mut problem = random_problem(&mut random, true);
        let whole = pareto(&problem, COST).unwrap();
        let (min, max) = (f64::from(random.random_range(-3..6)), f64::from(random.random_range(3..12)));
        if min > max {
            continue;
        }
        problem.budgets = BTreeMap::from([(COST.to_owned(), Budget { min: Some(min), max: Some(max) })]);
        let part = pareto(&problem, COST).unwrap();
        let inside = whole.points().iter().filter(|point| (min..=max).contains(&point.cost));
        assert_eq!(part.points(), inside.copied().collect::<Vec<_>>(), "{problem:?}");
        assert_eq!(part.best_within(min - 0.5), None);
    }
}

/// Long lists, of which enumeration cannot say anything: every window of the merge counts.
#[test]
fn long_lists_agree_with_single_budgets() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let layers = (0..14).map(|index| Layer {
        name: format!("layer{index}"),
        choices: (0..9)
            .map(|choice| {
                let cost: f64 = random.random_range(0.0..4.0);
                let score = (4.0 - cost).powi(2) * random.random_range(0.7..1.3);
                Choice { name: format!("c{choice}"), score, costs: BTreeMap::from([(COST.to_owned(), cost)]) }
            })
            .collect(),
    });
    let mut problem = Problem::new(layers.collect(), BTreeMap::new());
    let curve = pareto(&problem, COST).unwrap();
    assert!(curve.points().len() > 500);
    for _ in 0..40 {
        let max = random.random_range(10.0..50.0);
        problem.budgets = BTreeMap::from([(COST.to_owned(), Budget { min: None, max: Some(max) })]);
        let solution = &solve(&problem).unwrap().solutions[0];
        assert_eq!(solution.choices, curve.selection(curve.best_within(max).unwrap()));
    }
}

#[test]
fn extremes() {
    let problem = random_problem(&mut ChaCha8Rng::seed_from_u64(5), false);
    let curve = pareto(&problem, COST).unwrap();
    assert_eq!(curve.best_within(f64::INFINITY), Some(curve.points().len() - 1));
    assert_eq!(curve.best_within(f64::NEG_INFINITY), None);
    assert_eq!(curve.best_within(1e300), Some(curve.points().len() - 1));
    assert_eq!(curve.best_within(-1e300), None);

    let mut problem = problem;
    problem.budgets = BTreeMap::from([(COST.to_owned(), Budget { min: None, max: Some(-1e6) })]);
    assert!(pareto(&problem, COST).unwrap().points().is_empty());
}

#[test]
fn refusals_name_what_a_curve_cannot_take() {
    let mut problem = random_problem(&mut ChaCha8Rng::seed_from_u64(6), false);
    let refusal = |problem: &Problem, cost: &str| pareto(problem, cost).unwrap_err().to_string();
    assert!(refusal(&problem, "params").contains("no cost `params`"));
    let earlier = problem.layers.iter().map(|layer| layer.choices[0].name.clone()).collect();
    problem.earlier = vec![earlier];
    assert!(refusal(&problem, COST).contains("`earlier`"));
    problem.earlier.clear();
    let all = || vec!["*".to_owned()];
    problem.caps = vec![Cap { name: None, layers: all(), choices: all(), min: None, max: Some(9) }];
    assert!(refusal(&problem, COST).contains("cap `caps[0]`"));
    problem.caps.clear();
    for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
        choice.costs.insert("params".to_owned(), 1.0);
    }
    problem.budgets.insert("params".to_owned(), Budget { min: None, max: Some(9.0) });
    let message = refusal(&problem, COST);
    assert!(message.contains("budget `params`") && message.contains("remove it"), "{message}");
    problem.budgets.clear();
    problem.time_limit_s = Some(0.0);
    assert!(refusal(&problem, COST).contains("after 1 of"));
}
