//! Every step of small random problems against the enumeration of all selections.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;

use lana_select::{Budget, Cap, Choice, Error, Layer, Members, Problem, Solution, Status, solve};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What of the numbers makes life hard.
#[derive(Clone, Copy)]
enum Numbers {
    /// Any values, almost never a tie.
    Real,
    /// Small integers: ties everywhere, budgets met with equality.
    Integer,
    /// The same table in every layer, up to a little noise in some.
    Copies,
}

fn random_problem(random: &mut ChaCha8Rng, numbers: Numbers) -> Problem {
    let layers = random.random_range(1..=6);
    let costs: Vec<&str> = ["latency_ms", "memory", "params"][..random.random_range(0..=3)].to_vec();
    let negative = random.random_bool(0.3);
    let value = |random: &mut ChaCha8Rng, low: f64| match numbers {
        Numbers::Integer => random.random_range(low.floor() as i32..=4) as f64,
        _ => random.random_range(low..4.0),
    };
    let mut table: Vec<Layer> = Vec::new();
    for index in 0..layers {
        let name = format!("layer{index}");
        if let (Numbers::Copies, Some(first)) = (numbers, table.first()) {
            let mut choices = first.choices.clone();
            for choice in &mut choices {
                if random.random_bool(0.3) {
                    choice.score *= 1.001;
                }
            }
            table.push(Layer { name, choices });
            continue;
        }
        let choices = (0..random.random_range(1..=5)).map(|choice| Choice {
            name: format!("c{choice}"),
            score: value(random, if negative { -4.0 } else { 0.0 }),
            costs: costs
                .iter()
                .map(|cost| ((*cost).to_owned(), value(random, if negative { -1.0 } else { 0.0 })))
                .collect(),
        });
        let choices = choices.collect();
        table.push(Layer { name, choices });
    }
    let mut problem = Problem::new(table, BTreeMap::new());
    for cost in costs {
        let low = problem.smallest_reachable(cost).unwrap();
        let high = problem.largest_reachable(cost).unwrap();
        let mut end = |from: f64, to: f64| {
            let end = low + (high - low) * random.random_range(from..to);
            if matches!(numbers, Numbers::Integer) { end.round() } else { end }
        };
        let (min, max) = (end(-0.05, 0.5), end(0.3, 1.05));
        let budget = match random.random_range(0..4) {
            0 if min <= max => Budget { min: Some(min), max: Some(max) },
            1 => Budget { min: Some(min), max: None },
            _ => Budget { min: None, max: Some(max) },
        };
        problem.budgets.insert(cost.to_owned(), budget);
    }
    problem.solutions = random.random_range(1..=12);
    problem.max_overlap = [0.0, 0.4, 0.5, 0.7, 0.7, 0.9, 1.0][random.random_range(0..7)];
    problem
}

fn all_selections(problem: &Problem) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for layer in &problem.layers {
        all = all
            .iter()
            .flat_map(|start: &Vec<usize>| {
                (0..layer.choices.len()).map(move |choice| [start.as_slice(), &[choice]].concat())
            })
            .collect();
    }
    all
}

fn score(problem: &Problem, selection: &[usize]) -> f64 {
    problem.layers.iter().zip(selection).map(|(layer, &choice)| layer.choices[choice].score).sum()
}

fn cost(problem: &Problem, selection: &[usize], name: &str) -> f64 {
    problem.layers.iter().zip(selection).map(|(layer, &choice)| layer.choices[choice].costs[name]).sum()
}

fn within_budgets(problem: &Problem, selection: &[usize]) -> bool {
    problem.budgets.iter().all(|(name, budget)| {
        let cost = cost(problem, selection, name);
        budget.max.is_none_or(|max| cost <= max + 1e-9) && budget.min.is_none_or(|min| cost >= min - 1e-9)
    })
}

/// Patterns of the tests: a name, the start of one with a star, or a star.
fn fits(patterns: &[String], name: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => name == pattern,
    })
}

fn keeps_rules(problem: &Problem, selection: &[usize]) -> bool {
    let taken = || problem.layers.iter().zip(selection).map(|(layer, &index)| (layer, &layer.choices[index]));
    let forbidden = |members: &Members| {
        taken()
            .any(|(layer, choice)| fits(&members.layers, &layer.name) && fits(&members.choices, &choice.name))
    };
    let forced = |members: &Members| {
        taken().all(|(layer, choice)| {
            !fits(&members.layers, &layer.name) || fits(&members.choices, &choice.name)
        })
    };
    let capped = |cap: &Cap| {
        let counts = |(layer, choice): &(&Layer, &Choice)| {
            fits(&cap.layers, &layer.name) && fits(&cap.choices, &choice.name)
        };
        let count = taken().filter(counts).count();
        cap.min.is_none_or(|min| count >= min) && cap.max.is_none_or(|max| count <= max)
    };
    !problem.forbidden.iter().any(forbidden)
        && problem.forced.iter().all(forced)
        && problem.caps.iter().all(capped)
}

/// Adds forbidden and forced choices, caps, and earlier solutions, whether they make sense or not.
fn add_rules(random: &mut ChaCha8Rng, problem: &mut Problem) {
    let layer = |random: &mut ChaCha8Rng| match random.random_range(0..3) {
        0 => "*".to_owned(),
        1 => "layer*".to_owned(),
        _ => format!("layer{}", random.random_range(0..problem.layers.len())),
    };
    let layers = |random: &mut ChaCha8Rng| (0..random.random_range(1..=2)).map(|_| layer(random)).collect();
    let choices = |random: &mut ChaCha8Rng| {
        (0..random.random_range(1..=2)).map(|_| format!("c{}", random.random_range(0..5))).collect()
    };
    let (mut forbidden, mut forced, mut caps) = (Vec::new(), Vec::new(), Vec::new());
    if random.random_bool(0.4) {
        forbidden.push(Members { layers: layers(random), choices: choices(random) });
    }
    if random.random_bool(0.3) {
        forced.push(Members { layers: layers(random), choices: choices(random) });
    }
    for _ in 0..random.random_range(0..=2) {
        let (min, max) = (random.random_range(0..=3), random.random_range(0..=3));
        caps.push(Cap {
            name: None,
            layers: layers(random),
            choices: choices(random),
            min: (min <= max && random.random_bool(0.5)).then_some(min),
            max: random.random_bool(0.8).then_some(max),
        });
    }
    let earlier = (0..random.random_range(0..=2)).map(|_| {
        let one = |layer: &Layer| layer.choices[random.random_range(0..layer.choices.len())].name.clone();
        problem.layers.iter().map(one).collect()
    });
    let earlier = earlier.collect();
    (problem.forbidden, problem.forced, problem.caps, problem.earlier) = (forbidden, forced, caps, earlier);
}

fn indices(problem: &Problem, solution: &Solution) -> Vec<usize> {
    let index = |(layer, name): (&Layer, &String)| {
        layer.choices.iter().position(|choice| choice.name == *name).unwrap()
    };
    problem.layers.iter().zip(&solution.choices).map(index).collect()
}

fn check(problem: &Problem) {
    let outcome = solve(problem).unwrap();
    let mut left = all_selections(problem);
    left.retain(|selection| within_budgets(problem, selection) && keeps_rules(problem, selection));
    let limit = problem.overlap_limit();
    let within_rules = left.len();
    for earlier in &problem.earlier {
        let same = |selection: &[usize]| {
            let names =
                problem.layers.iter().zip(selection).map(|(layer, &index)| &layer.choices[index].name);
            names.zip(earlier).filter(|(name, earlier)| name == earlier).count()
        };
        left.retain(|selection| same(selection) <= limit);
    }
    assert!(outcome.solutions.iter().all(|solution| solution.proven));
    for (step, solution) in outcome.solutions.iter().enumerate() {
        let selection = indices(problem, solution);
        assert!(left.contains(&selection), "step {step} is not feasible: {problem:?}\n{outcome:?}");
        let best = left.iter().map(|other| score(problem, other)).fold(f64::INFINITY, f64::min);
        assert!(
            (solution.score - best).abs() < 1e-8 + problem.gap,
            "step {step}: {} but the best is {best}: {problem:?}\n{outcome:?}",
            solution.score
        );
        assert!(solution.bound <= best + 1e-8, "step {step}: bound too high: {problem:?}\n{outcome:?}");
        assert!(solution.bound >= solution.score - problem.gap - 1e-8, "step {step}: bound too low");
        assert_eq!(solution.gap, solution.score - solution.bound);
        assert!(solution.gap >= 0.0);
        for (name, sum) in &solution.costs {
            assert!((sum - cost(problem, &selection, name)).abs() < 1e-12);
        }
        left.retain(|other| other.iter().zip(&selection).filter(|(a, b)| a == b).count() <= limit);
    }
    if outcome.solutions.is_empty() {
        assert_eq!(outcome.status, Status::Infeasible);
        assert!(left.is_empty(), "not infeasible: {problem:?}\n{outcome:?}");
        if within_rules > 0 {
            assert_eq!(outcome.infeasible, None);
            assert!(outcome.shortfall.clone().expect("a reason").proven);
            return;
        }
        let why = outcome.infeasible.clone().expect("the limit that cannot be met");
        let reachable = why.reachable.expect("what can be reached");
        assert!((reachable - why.asked).abs() > 1e-9, "{why:?}");
    } else {
        assert_eq!(outcome.status, Status::Optimal);
    }
    if outcome.solutions.len() < problem.solutions {
        assert!(left.is_empty(), "solutions are left: {problem:?}\n{outcome:?}");
        assert!(outcome.status == Status::Infeasible || outcome.shortfall.clone().expect("a reason").proven);
    } else {
        assert_eq!(outcome.shortfall, None);
    }
}

fn check_many(seed: u64, numbers: Numbers) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..1000 {
        check(&random_problem(&mut random, numbers));
    }
}

#[test]
fn real_numbers() {
    check_many(1, Numbers::Real);
}

#[test]
fn integers_with_ties() {
    check_many(2, Numbers::Integer);
}

#[test]
fn copies_of_one_layer() {
    check_many(3, Numbers::Copies);
}

#[test]
fn within_a_gap() {
    let mut random = ChaCha8Rng::seed_from_u64(4);
    for _ in 0..500 {
        let mut problem = random_problem(&mut random, Numbers::Real);
        problem.gap = 0.3;
        check(&problem);
    }
}

#[test]
fn extreme_magnitudes() {
    let mut random = ChaCha8Rng::seed_from_u64(5);
    for case in 0..400 {
        let mut problem = random_problem(&mut random, Numbers::Integer);
        // Powers of two keep the sums exact, so that the oracle still knows equality.
        let factor = 2f64.powi([-40, -20, 30, 60][case % 4]);
        for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
            choice.costs.values_mut().for_each(|cost| *cost *= factor);
        }
        for budget in problem.budgets.values_mut() {
            budget.min = budget.min.map(|min| min * factor);
            budget.max = budget.max.map(|max| max * factor);
        }
        let scaled = solve(&problem).unwrap();
        for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
            choice.costs.values_mut().for_each(|cost| *cost /= factor);
        }
        for budget in problem.budgets.values_mut() {
            budget.min = budget.min.map(|min| min / factor);
            budget.max = budget.max.map(|max| max / factor);
        }
        let plain = solve(&problem).unwrap();
        assert_eq!(scaled.solutions.len(), plain.solutions.len(), "{problem:?}");
        if let (Some(a), Some(b)) = (scaled.solutions.first(), plain.solutions.first()) {
            assert!((a.score - b.score).abs() < 1e-9, "{problem:?}");
        }
    }
}

#[test]
fn forbidden_forced_and_capped() {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let (mut checked, mut contradictory) = (0, 0);
    while checked < 1500 {
        let numbers = [Numbers::Real, Numbers::Integer, Numbers::Copies][random.random_range(0..3)];
        let mut problem = random_problem(&mut random, numbers);
        add_rules(&mut random, &mut problem);
        match problem.validate() {
            Ok(()) => {
                check(&problem);
                checked += 1;
            }
            Err(Error::Contradiction { .. }) => {
                let left = all_selections(&problem).into_iter().any(|selection| {
                    keeps_rules(&Problem { caps: Vec::new(), ..problem.clone() }, &selection)
                });
                assert!(!left, "not contradictory: {problem:?}");
                contradictory += 1;
            }
            Err(Error::UnmatchedChoice { .. } | Error::CapTooHigh { .. } | Error::EmptyCap { .. }) => {}
            Err(error) => panic!("{error}: {problem:?}"),
        }
    }
    assert!(contradictory > 10);
}

/// Under one budget the first solution has the least cost of those with its score, then the lowest choice indices.
#[test]
fn ties_of_the_first_solution() {
    let mut random = ChaCha8Rng::seed_from_u64(6);
    let mut checked = 0;
    while checked < 500 {
        let mut problem = random_problem(&mut random, Numbers::Integer);
        problem.budgets.retain(|_, budget| budget.min.is_none());
        problem.solutions = 1;
        let Some(name) = problem.budgets.keys().next().cloned() else { continue };
        if problem.budgets.len() > 1 {
            continue;
        }
        let outcome = solve(&problem).unwrap();
        let mut all = all_selections(&problem);
        all.retain(|selection| within_budgets(&problem, selection));
        let best = all.into_iter().min_by(|a, b| {
            let key = |selection: &[usize]| (score(&problem, selection), cost(&problem, selection, &name));
            key(a).partial_cmp(&key(b)).unwrap().then_with(|| a.cmp(b))
        });
        let found = outcome.solutions.first().map(|solution| indices(&problem, solution));
        assert_eq!(found, best, "{problem:?}");
        checked += 1;
    }
}
