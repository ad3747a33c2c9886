//! Refusals, explanations, limits and the file format.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::num::NonZeroUsize;

use lana_select::{
    Budget, BudgetEnd, Cap, Choice, Layer, LimitKind, Members, Outcome, Problem, Status, solve,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn choice(name: &str, score: f64, latency: f64) -> Choice {
    Choice { name: name.to_owned(), score, costs: BTreeMap::from([("latency_ms".to_owned(), latency)]) }
}

fn at_most(max: f64) -> BTreeMap<String, Budget> {
    BTreeMap::from([("latency_ms".to_owned(), Budget { min: None, max: Some(max) })])
}

fn small() -> Problem {
    let layers = ["first", "second", "third"].map(|name| Layer {
        name: name.to_owned(),
        choices: vec![choice("teacher", 0.0, 3.0), choice("half", 0.1, 1.5), choice("identity", 0.5, 0.25)],
    });
    Problem::new(layers.to_vec(), at_most(6.0))
}

/// 27 layers in 3 groups of 9 copies, 17 choices each.
fn near_identical(seed: u64, fraction: f64) -> Problem {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut layers = Vec::new();
    for group in 0..3 {
        let price = random.random_range(0.5..1.5);
        let table: Vec<(f64, f64)> = (0..17)
            .map(|index| {
                let part = 1.0 - f64::from(index) / 16.0;
                (0.3 * (1.0 - part).powi(2) * random.random_range(0.7..1.3), price * part)
            })
            .collect();
        for copy in 0..9 {
            let mut noisy = |value: f64| value * random.random_range(0.99..1.01);
            let choices = table
                .iter()
                .enumerate()
                .map(|(index, &(score, latency))| choice(&format!("c{index}"), noisy(score), noisy(latency)))
                .collect();
            layers.push(Layer { name: format!("s{group}.b{copy}"), choices });
        }
    }
    let total: f64 = layers.iter().map(|layer| layer.choices[0].costs["latency_ms"]).sum();
    Problem::new(layers, at_most(total * fraction))
}

fn refusal(change: impl FnOnce(&mut Problem)) -> String {
    let mut problem = small();
    change(&mut problem);
    let error = solve(&problem).unwrap_err();
    assert_eq!(problem.validate().unwrap_err().to_string(), error.to_string());
    error.to_string()
}

#[track_caller]
fn assert_names(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{message}` does not mention `{part}`");
    }
}

#[test]
fn refusals_name_the_place_and_the_cure() {
    assert_names(&refusal(|p| p.layers.clear()), &["`layers` is empty", "give at least one"]);
    assert_names(&refusal(|p| p.layers[1].choices.clear()), &["`second`", "no choices"]);
    assert_names(&refusal(|p| p.layers[1].name = "first".to_owned()), &["`first`", "twice", "rename"]);
    assert_names(
        &refusal(|p| p.layers[1].choices[1].name = "teacher".to_owned()),
        &["`second`", "two choices", "`teacher`", "rename"],
    );
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_names(
            &refusal(|p| p.layers[2].choices[1].score = value),
            &["`third`", "`half`", "score", &value.to_string(), "finite"],
        );
        assert_names(
            &refusal(|p| _ = p.layers[2].choices[1].costs.insert("latency_ms".to_owned(), value)),
            &["`third`", "`half`", "`latency_ms`", &value.to_string(), "finite"],
        );
        assert_names(&refusal(|p| p.budgets = at_most(value)), &["`latency_ms`", "`max`", "finite"]);
        assert_names(&refusal(|p| p.gap = value), &["`gap`", "at least 0"]);
    }
    assert_names(
        &refusal(|p| p.layers[0].choices[2].costs.clear()),
        &["`first`", "`identity`", "`latency_ms`", "add it"],
    );
    let crossed = Budget { min: Some(3.0), max: Some(2.0) };
    assert_names(
        &refusal(|p| _ = p.budgets.insert("latency_ms".to_owned(), crossed)),
        &["`latency_ms`", "`min` 3", "`max` 2"],
    );
    assert_names(
        &refusal(|p| _ = p.budgets.insert("latency_ms".to_owned(), Budget::default())),
        &["`latency_ms`", "neither"],
    );
    for value in [-0.1, 1.1, f64::NAN] {
        assert_names(&refusal(|p| p.max_overlap = value), &["`max_overlap`", "from 0"]);
    }
    assert_names(&refusal(|p| p.solutions = 0), &["`solutions` is 0"]);
    assert_names(&refusal(|p| p.time_limit_s = Some(-1.0)), &["`time_limit_s`", "-1", "60 s"]);
    assert_names(
        &refusal(|p| p.earlier = vec![vec!["teacher".to_owned()]]),
        &["`earlier[0]`", "1 choices", "3 layers"],
    );
    assert_names(
        &refusal(|p| p.earlier = vec![vec!["teacher".to_owned(), "x".to_owned(), "half".to_owned()]]),
        &["`earlier[0]`", "`second`", "`x`"],
    );
}

fn members(layer: &str, choice: &str) -> Members {
    Members { layers: vec![layer.to_owned()], choices: vec![choice.to_owned()] }
}

fn cap(choice: &str, min: Option<usize>, max: Option<usize>) -> Cap {
    let Members { layers, choices } = members("*", choice);
    Cap { name: Some("a cap".to_owned()), layers, choices, min, max }
}

#[test]
fn refusals_of_rules_name_the_rule_and_the_cure() {
    assert_names(
        &refusal(|p| p.forbidden = vec![members("first", "half"), members("stage3.*", "half")]),
        &["`forbidden[1]`", "no layer matches `stage3.*`", "spelling"],
    );
    assert_names(
        &refusal(|p| p.forced = vec![members("f*", "identiy")]),
        &["`forced[0]`", "no choice", "`identiy`", "spelling"],
    );
    assert_names(
        &refusal(|p| p.caps = vec![cap("x*", None, Some(1))]),
        &["cap `a cap`", "no choice", "`x*`", "spelling"],
    );
    let unnamed = Cap { name: None, ..cap("identity", None, None) };
    assert_names(&refusal(|p| p.caps = vec![unnamed]), &["cap `caps[0]`", "neither `min` nor `max`"]);
    assert_names(
        &refusal(|p| p.caps = vec![cap("identity", Some(2), Some(1))]),
        &["cap `a cap`", "`min` 2", "`max` 1", "swap"],
    );
    assert_names(
        &refusal(|p| p.caps = vec![cap("identity", Some(4), None)]),
        &["cap `a cap`", "`min` is 4", "only 3 layers", "lower it"],
    );
    let empty = Members { layers: vec!["first".to_owned()], choices: Vec::new() };
    assert_names(
        &refusal(|p| p.forbidden = vec![empty]),
        &["`forbidden[0]`", "`choices` is empty", "at least one"],
    );
    assert_names(
        &refusal(|p| p.forbidden = vec![members("second", "*")]),
        &["`forbidden[0]`", "layer `second`", "without any choice", "relax"],
    );
    assert_names(
        &refusal(|p| {
            p.forbidden = vec![members("*", "half")];
            p.forced = vec![members("third", "half")];
        }),
        &["`forced[0]`", "layer `third`", "relax"],
    );
}

#[test]
fn forbidden_forced_and_capped_choices() {
    let mut problem = small();
    problem.forbidden = vec![members("*", "half")];
    problem.forced = vec![members("second", "teacher"), members("s*", "te*")];
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.solutions[0].choices[1], "teacher");
    assert!(!outcome.solutions[0].choices.contains(&"half".to_owned()));
    assert_eq!(problem.smallest_reachable("latency_ms"), Ok(3.5));

    // Budget 6 takes two half layers, or one and an identity.
    let mut problem = small();
    problem.caps = vec![cap("half", None, Some(1))];
    assert_eq!(solve(&problem).unwrap().solutions[0].score, 0.6);
    problem.caps = vec![cap("identity", Some(2), None)];
    assert_eq!(solve(&problem).unwrap().solutions[0].score, 1.0);
}

#[test]
fn earlier_solutions_may_contain_what_is_forbidden() {
    let mut problem = small();
    problem.earlier = vec![vec!["half".to_owned(), "half".to_owned(), "teacher".to_owned()]];
    problem.forbidden = vec![members("first", "half")];
    assert_eq!(solve(&problem).unwrap().solutions[0].score, 0.2);
    problem.max_overlap = 0.0;
    assert_eq!(solve(&problem).unwrap().solutions[0].score, 0.6);
}

#[test]
fn infeasible_caps_are_explained_as_budgets_are() {
    let mut problem = small();
    problem.forced = vec![members("f*", "identity"), members("second", "identity")];
    problem.caps = vec![cap("identity", None, Some(1))];
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!((why.budget.as_str(), why.kind, why.end), ("a cap", LimitKind::Cap, BudgetEnd::Max));
    assert_eq!((why.asked, why.reachable, why.layer_cost), (1.0, Some(2.0), 1.0));
    assert_names(
        &why.message,
        &["cap `a cap` max 1", "smallest reachable count is 2", "`second`", "raise the cap"],
    );

    let mut problem = small();
    problem.forbidden = vec![members("second", "identity")];
    problem.caps = vec![cap("identity", Some(3), None)];
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!((why.end, why.reachable, why.layer.as_str()), (BudgetEnd::Min, Some(2.0), "second"));
    assert_names(&why.message, &["cap `a cap` min 3", "largest reachable count is 2", "lower the cap"]);

    // A budget of 6 cannot be met with two teachers; the cap on the half layers has no part in it.
    let mut problem = small();
    problem.caps = vec![cap("half", None, Some(3)), cap("teacher", Some(2), None)];
    problem.budgets = at_most(6.0);
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!(
        (why.kind, why.reachable, why.together_with),
        (LimitKind::Cap, Some(1.0), vec!["latency_ms".to_owned()])
    );
    assert_names(
        &why.message,
        &["cap `a cap` min 2 together with budget `latency_ms`", "largest reachable count is 1"],
    );
}

#[test]
fn rules_in_json() {
    let text = r#""forbidden":[{"layers":["s1.*"],"choices":["identity"]}],"forced":[{"layers":["*b1"],"choices":["e*"]}],
        "caps":[{"name":"narrow","layers":["*"],"choices":["e3k3"],"min":1,"max":2}],"solutions"#;
    let problem: Problem = serde_json::from_str(&SAMPLE.replace("\"solutions", text)).unwrap();
    assert_eq!(problem.caps[0].max, Some(2));
    assert_eq!(serde_json::from_str::<Problem>(&serde_json::to_string(&problem).unwrap()).unwrap(), problem);
    assert_eq!(solve(&problem).unwrap().solutions[0].choices, ["teacher", "e3k3"]);
    let error =
        serde_json::from_str::<Problem>(&SAMPLE.replace("\"solutions", &text.replace("min", "least")));
    assert_names(&error.unwrap_err().to_string(), &["unknown field `least`"]);
    assert!(!serde_json::to_string(&small()).unwrap().contains("caps"));
}

#[test]
fn costs_without_a_budget_may_be_absent() {
    let mut problem = small();
    problem.layers[0].choices[0].costs.insert("params".to_owned(), 3.0);
    let first = &solve(&problem).unwrap().solutions[0];
    assert_eq!(first.costs.keys().collect::<Vec<_>>(), ["latency_ms"]);
}

#[test]
fn infeasible_names_the_reachable_value_and_the_binding_layer() {
    let mut problem = small();
    problem.layers[1].choices[2].costs.insert("latency_ms".to_owned(), 1.0);
    problem.budgets = at_most(1.25);
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.status, Status::Infeasible);
    assert!(outcome.solutions.is_empty());
    let why = outcome.infeasible.unwrap();
    assert_eq!((why.budget.as_str(), why.end, why.asked), ("latency_ms", BudgetEnd::Max, 1.25));
    assert_eq!(why.reachable, Some(1.5));
    assert_eq!((why.layer.as_str(), why.choice.as_str(), why.layer_cost), ("second", "identity", 1.0));
    assert_names(&why.message, &["smallest reachable sum is 1.5", "`second`", "1.25", "raise"]);

    let mut problem = small();
    let budget = Budget { min: Some(10.0), max: None };
    problem.budgets.insert("latency_ms".to_owned(), budget);
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!((why.end, why.reachable), (BudgetEnd::Min, Some(9.0)));
    assert_names(&why.message, &["largest reachable sum is 9", "lower"]);
}

#[test]
fn infeasible_together_names_both_budgets() {
    let mut problem = small();
    for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
        let latency = choice.costs["latency_ms"];
        choice.costs.insert("params".to_owned(), 100.0 * latency);
    }
    problem.budgets.insert("params".to_owned(), Budget { min: Some(700.0), max: None });
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!((why.budget.as_str(), why.reachable), ("params", Some(600.0)));
    assert_eq!(why.together_with, ["latency_ms"]);
    assert_names(&why.message, &["`params`", "`latency_ms`", "together"]);

    // A range between two neighbouring sums: each end can be met alone.
    let mut problem = small();
    problem.budgets.insert("latency_ms".to_owned(), Budget { min: Some(1.0), max: Some(1.5) });
    let why = solve(&problem).unwrap().infeasible.unwrap();
    assert_eq!((why.end, why.reachable), (BudgetEnd::Min, Some(0.75)));
}

/// Doing without one layer's choices that fit one budget leaves none that fits the other.
#[test]
fn no_choice_fits_two_budgets() {
    let mut problem = small();
    for (index, choice) in problem.layers[0].choices.iter_mut().enumerate() {
        choice.costs.insert("latency_ms".to_owned(), [0.0, 100.0, 100.0][index]);
    }
    for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
        choice.costs.insert("params".to_owned(), 1.0);
    }
    problem.layers[0].choices[0].costs.insert("params".to_owned(), 1e6);
    problem.budgets.insert("params".to_owned(), Budget { min: None, max: Some(10.0) });
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.status, Status::Infeasible);
    assert_eq!(outcome.infeasible.unwrap().together_with, ["latency_ms"]);
}

#[test]
fn fewer_diverse_solutions_than_asked() {
    let mut problem = small();
    problem.solutions = 10;
    problem.max_overlap = 0.0;
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.status, Status::Optimal);
    assert!(outcome.solutions.len() < 10);
    let shortfall = outcome.shortfall.unwrap();
    assert_eq!((shortfall.asked, shortfall.found), (10, outcome.solutions.len()));
    assert!(shortfall.proven);
    assert_names(&shortfall.message, &["raise `max_overlap`", "at most 0 of 3"]);
}

#[test]
fn earlier_solutions_count() {
    let first = solve(&small()).unwrap().solutions.remove(0);
    let mut problem = small();
    problem.solutions = 2;
    let both = solve(&problem).unwrap();
    let mut problem = small();
    problem.earlier = vec![first.choices];
    assert_eq!(solve(&problem).unwrap().solutions[0].score, both.solutions[1].score);
}

#[test]
fn without_budgets_the_best_scores_win() {
    let problem = Problem::new(small().layers, BTreeMap::new());
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.solutions[0].choices, ["teacher"; 3]);
    assert_eq!(outcome.solutions[0].costs["latency_ms"], 9.0);
}

/// A budget stated as the very sum of a selection's costs is met by that selection, in whatever digits.
#[test]
fn a_budget_equal_to_a_sum_is_met() {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for _ in 0..200 {
        let mut problem = near_identical(random.random(), 1.0);
        problem.layers.truncate(random.random_range(1..27));
        let sum: f64 = problem.layers.iter().map(|layer| layer.choices[0].costs["latency_ms"]).sum();
        for budget in [Budget { min: None, max: Some(sum) }, Budget { min: Some(sum), max: Some(sum) }] {
            problem.budgets.insert("latency_ms".to_owned(), budget);
            for choice in problem.layers.iter_mut().map(|layer| &mut layer.choices[0]) {
                choice.score = -1.0;
            }
            let outcome = solve(&problem).unwrap();
            assert!(outcome.solutions[0].choices.iter().all(|name| name == "c0"));
        }
    }
}

/// Costs that are all zero have no ticks to measure the end of a budget by.
#[test]
fn a_hundred_budgets_do_not_overflow() {
    let mut random = ChaCha8Rng::seed_from_u64(3);
    let names: Vec<String> = (0..100).map(|index| format!("cost{index}")).collect();
    let mut draw = |index: usize| Choice {
        name: format!("c{index}"),
        // The cheap ones are bad.
        score: 1.0 / (1.0 + index as f64),
        costs: names
            .iter()
            .map(|name| (name.clone(), index as f64 + random.random_range(0.0..0.5)))
            .collect(),
    };
    let layers =
        (0..8).map(|layer| Layer { name: format!("l{layer}"), choices: (0..4).map(&mut draw).collect() });
    let layers: Vec<Layer> = layers.collect();
    let budget = Budget { min: None, max: Some(14.0) };
    let problem = Problem::new(layers, names.iter().map(|name| (name.clone(), budget)).collect());
    let mut best = f64::INFINITY;
    for number in 0..4usize.pow(8) {
        let chosen: Vec<&Choice> = problem
            .layers
            .iter()
            .enumerate()
            .map(|(layer, l)| &l.choices[number >> (2 * layer) & 3])
            .collect();
        if names.iter().all(|name| chosen.iter().map(|choice| choice.costs[name]).sum::<f64>() <= 14.0) {
            best = best.min(chosen.iter().map(|choice| choice.score).sum());
        }
    }
    let outcome = solve(&problem).unwrap();
    assert!(outcome.solutions[0].proven);
    assert!((outcome.solutions[0].score - best).abs() < 1e-9, "{} {best}", outcome.solutions[0].score);
}

#[test]
fn zero_costs_do_not_reach_a_minimum() {
    let mut problem = small();
    for choice in problem.layers.iter_mut().flat_map(|layer| &mut layer.choices) {
        choice.costs.insert("latency_ms".to_owned(), 0.0);
    }
    for min in [1e-5, 1.0, 1e9] {
        problem.budgets.insert("latency_ms".to_owned(), Budget { min: Some(min), max: None });
        let why = solve(&problem).unwrap().infeasible.unwrap();
        assert_eq!((why.end, why.reachable), (BudgetEnd::Min, Some(0.0)));
    }
    problem.budgets.insert("latency_ms".to_owned(), Budget { min: Some(0.0), max: Some(0.0) });
    assert_eq!(solve(&problem).unwrap().status, Status::Optimal);
}

#[test]
fn a_forbidding_cost_does_not_coarsen_the_others() {
    let mut problem = small();
    problem.layers[0].choices[0].costs.insert("latency_ms".to_owned(), 1e300);
    problem.layers[0].choices[0].score = -1e300;
    problem.budgets = at_most(7.5);
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.solutions[0].choices, ["half", "teacher", "teacher"]);
}

#[test]
fn numbers_whose_sums_overflow_are_refused() {
    let mut problem = small();
    problem.layers[0].choices[0].costs.insert("latency_ms".to_owned(), 1e308);
    problem.budgets = at_most(7.5);
    assert!(solve(&problem).unwrap_err().to_string().contains("latency_ms"));
}

#[test]
fn near_identical_layers_give_valid_solutions() {
    let mut problem = near_identical(7, 0.5);
    problem.solutions = 20;
    problem.time_limit_s = Some(10.0);
    let outcome = solve(&problem).unwrap();
    assert_eq!(outcome.solutions.len(), 20);
    assert!(outcome.solutions[0].proven);
    let max = problem.budgets["latency_ms"].max.unwrap();
    for (index, solution) in outcome.solutions.iter().enumerate() {
        assert!(solution.costs["latency_ms"] <= max + 1e-9);
        assert!(solution.bound <= solution.score);
        for earlier in &outcome.solutions[..index] {
            let same = solution.choices.iter().zip(&earlier.choices).filter(|(a, b)| a == b).count();
            assert!(same <= 18);
        }
    }
}

#[test]
fn the_time_limit_leaves_steps_unproven() {
    let mut problem = near_identical(8, 0.5);
    // Exact copies cannot be proven in this time by anyone.
    let copy = problem.layers[0].choices.clone();
    problem.layers.iter_mut().for_each(|layer| layer.choices.clone_from(&copy));
    problem.solutions = 20;
    for limit in [0.3, 0.0] {
        problem.time_limit_s = Some(limit);
        match solve(&problem) {
            Ok(outcome) => {
                assert_eq!(outcome.status, Status::Feasible);
                let unproven = outcome.solutions.iter().any(|solution| !solution.proven);
                assert!(unproven || !outcome.shortfall.unwrap().proven);
            }
            // Not even the first was found.
            Err(error) => {
                let limit = format!("time limit of {limit} s");
                assert_names(&error.to_string(), &[&limit, "raise `time_limit_s`"]);
            }
        }
    }
}

#[test]
fn the_same_problem_gives_the_same_answer() {
    let mut problem = near_identical(9, 0.4);
    problem.solutions = 4;
    let strip = |mut outcome: Outcome| {
        outcome.elapsed_s = 0.0;
        outcome
    };
    assert_eq!(strip(solve(&problem).unwrap()), strip(solve(&problem).unwrap()));
}

/// The sample of the file format's documentation.
const SAMPLE: &str = r#"{"layers":[
    {"name":"s1.b0","choices":[{"name":"teacher","score":0.0,"costs":{"latency_ms":1.2,"params":9e3}},
                               {"name":"identity","score":0.3,"costs":{"latency_ms":0.0,"params":0}}]},
    {"name":"s1.b1","choices":[{"name":"teacher","score":0.0,"costs":{"latency_ms":11.5,"params":2e5}},
                               {"name":"e3k3","score":0.1,"costs":{"latency_ms":6.0,"params":1.5e5}}]}],
    "budgets":{"latency_ms":{"max":12.0},"params":{"min":1e5,"max":2e6}},
    "solutions":100,"max_overlap":0.7,"time_limit_s":60}"#;

#[test]
fn the_number_of_threads_changes_no_result() {
    let mut problem = near_identical(9, 0.5);
    problem.time_limit_s = Some(1000.0);
    for (solutions, gap) in [(9, 0.0), (14, 0.001)] {
        (problem.solutions, problem.gap) = (solutions, gap);
        let outcome = |threads| {
            let problem = Problem { threads: NonZeroUsize::new(threads), ..problem.clone() };
            Outcome { elapsed_s: 0.0, ..solve(&problem).unwrap() }
        };
        let alone = outcome(1);
        // Searches large enough to be shared.
        assert!(alone.solutions.iter().any(|solution| solution.nodes > 2_500));
        assert!([2, 3, 7].into_iter().all(|threads| outcome(threads) == alone));
    }
}

#[test]
fn the_documented_format() {
    let problem: Problem = serde_json::from_str(SAMPLE).unwrap();
    assert_eq!((problem.solutions, problem.max_overlap, problem.time_limit_s), (100, 0.7, Some(60.0)));
    assert_eq!(serde_json::from_str::<Problem>(&serde_json::to_string(&problem).unwrap()).unwrap(), problem);
    let outcome = solve(&problem).unwrap();
    let text = serde_json::to_string(&outcome).unwrap();
    assert_eq!(serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["status"], "optimal");
    let first = &json["solutions"][0];
    assert_eq!(first["choices"], serde_json::json!(["teacher", "e3k3"]));
    assert_eq!(first["score"], 0.1);
    assert_eq!(first["costs"], serde_json::json!({"latency_ms": 7.2, "params": 159000.0}));
    assert_eq!((first["bound"].as_f64(), first["proven"].as_bool()), (Some(0.1), Some(true)));
    assert!(json["elapsed_s"].is_number());
    assert_eq!(json["shortfall"]["asked"], 100);
    assert!(json.get("infeasible").is_none());
}

#[test]
fn unknown_and_missing_fields_are_refused() {
    let read = |text: &str| serde_json::from_str::<Problem>(text).unwrap_err().to_string();
    assert_names(
        &read(&SAMPLE.replace("\"max_overlap\"", "\"overlap\"")),
        &["unknown field `overlap`", "max_overlap"],
    );
    assert_names(&read(&SAMPLE.replace("\"min\"", "\"least\"")), &["unknown field `least`"]);
    assert_names(&read(&SAMPLE.replace("\"score\"", "\"loss\"")), &["unknown field `loss`"]);
    assert_names(&read(r#"{"budgets":{}}"#), &["missing field `layers`"]);
}

#[test]
fn reachable_values() {
    assert_eq!(small().smallest_reachable("latency_ms"), Ok(0.75));
    assert_eq!(small().largest_reachable("latency_ms"), Ok(9.0));
    let error = small().smallest_reachable("latency").unwrap_err();
    assert_names(&error.to_string(), &["`latency`", "`first`", "spelling"]);
}

fn any_problem() -> impl Strategy<Value = Problem> {
    let numbers = (-5.0..5.0f64, 0.0..5.0f64);
    let layer = prop::collection::vec(numbers, 1..8);
    (prop::collection::vec(layer, 1..12), 0.0..1.0f64, 0.0..1.0f64, 1..8usize).prop_map(
        |(table, share, max_overlap, solutions)| {
            let layers = table.into_iter().enumerate().map(|(index, numbers)| Layer {
                name: format!("layer{index}"),
                choices: numbers
                    .into_iter()
                    .enumerate()
                    .map(|(index, (score, latency))| choice(&format!("c{index}"), score, latency))
                    .collect(),
            });
            let mut problem = Problem::new(layers.collect(), BTreeMap::new());
            let least = problem.smallest_reachable("latency_ms").unwrap();
            let most = problem.largest_reachable("latency_ms").unwrap();
            problem.budgets = at_most(least + (most - least) * share);
            problem.max_overlap = max_overlap;
            problem.solutions = solutions;
            problem
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn solutions_are_diverse_within_budget_and_in_order(problem in any_problem()) {
        let outcome = solve(&problem).unwrap();
        prop_assert_ne!(outcome.status, Status::Infeasible);
        let limit = problem.overlap_limit();
        for (index, solution) in outcome.solutions.iter().enumerate() {
            prop_assert!(solution.costs["latency_ms"] <= problem.budgets["latency_ms"].max.unwrap() + 1e-9);
            for earlier in &outcome.solutions[..index] {
                let same = solution.choices.iter().zip(&earlier.choices).filter(|(a, b)| a == b).count();
                prop_assert!(same <= limit);
                if earlier.proven {
                    prop_assert!(earlier.score <= solution.score + 1e-9);
                }
            }
        }
    }
}

/// However much may be given away, what exists is found.
#[test]
fn a_large_gap_is_no_reason_to_find_nothing() {
    for gap in [1.0, 500.0, 1e9, 1e300] {
        let mut problem = small();
        problem.gap = gap;
        problem.solutions = 2;
        let outcome = solve(&problem).unwrap();
        assert_eq!((outcome.status, outcome.solutions.len()), (Status::Optimal, 2), "gap {gap}");
    }
}

/// Three choices to a layer, of which the one that nobody takes swallows the digits of the others.
#[test]
fn what_rounding_hides_is_not_called_proven() {
    let mut problem = small();
    problem.layers[0].choices[1].score = 1e9;
    for (layer, offset) in problem.layers.iter_mut().zip([0.0, 0.002, 0.004]) {
        layer.choices[2].score = 0.03 + offset;
    }
    let outcome = solve(&problem).unwrap();
    let solution = &outcome.solutions[0];
    assert!(!solution.proven && outcome.status == Status::Feasible);
    assert!(solution.bound <= 0.03, "{solution:?}");
}

/// The explanation of a problem without selections ends, and says what can be reached.
#[test]
fn explanations_end() {
    let mut random = ChaCha8Rng::seed_from_u64(12);
    for case in 0..60 {
        let mut problem = near_identical(random.random(), 0.3);
        problem.layers.truncate(8);
        for layer in &mut problem.layers {
            layer.choices.truncate(4);
            for choice in &mut layer.choices {
                let value = f64::from(random.random_range(0..4));
                choice.costs.insert("params".to_owned(), value);
                choice.costs.insert("macs".to_owned(), 3.0 - value + f64::from(random.random_range(0..2)));
            }
        }
        problem.budgets = ["params", "macs"]
            .map(|name| (name.to_owned(), Budget { min: None, max: Some(6.0 + f64::from(case % 3)) }))
            .into();
        let outcome = solve(&problem).unwrap();
        if let Some(why) = outcome.infeasible {
            assert!(why.reachable.is_some(), "{why:?}");
        }
    }
}
