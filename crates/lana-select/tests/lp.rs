//! The LP file.
#![allow(clippy::unwrap_used)] // helpers of tests are tests

use lana_select::Problem;

const PROBLEM: &str = r#"{"layers":[
    {"name":"first","choices":[{"name":"teacher","score":0.0,"costs":{"latency_ms":2.0}},
                               {"name":"narrow","score":-1e-7,"costs":{"latency_ms":1.25}},
                               {"name":"identity","score":0.5,"costs":{"latency_ms":0.0}}]},
    {"name":"second\nline","choices":[{"name":"teacher","score":0.0,"costs":{"latency_ms":3.0}},
                                      {"name":"identity","score":0.2,"costs":{"latency_ms":-0.5}}]}],
    "budgets":{"latency_ms":{"min":1,"max":4}},
    "forbidden":[{"layers":["first"],"choices":["teacher"]}],
    "caps":[{"name":"skipped","layers":["*"],"choices":["identity"],"max":1},
            {"layers":["first"],"choices":["teacher"],"max":0}],
    "earlier":[["narrow","identity"]]}"#;

#[test]
fn the_whole_file() {
    let problem: Problem = serde_json::from_str(PROBLEM).unwrap();
    let expected = r#"\ 2 layers, 4 choices
\ x_0_1: "first" "narrow"
\ x_0_2: "first" "identity"
\ x_1_0: "second\nline" "teacher"
\ x_1_1: "second\nline" "identity"
Minimize
 score: - 1e-7 x_0_1 + 0.5 x_0_2 + 0.2 x_1_1
Subject To
 layer_0: + 1 x_0_1 + 1 x_0_2 = 1
 layer_1: + 1 x_1_0 + 1 x_1_1 = 1
\ budget "latency_ms"
 budget_0_min: + 1.25 x_0_1 + 3 x_1_0 - 0.5 x_1_1 >= 1
 budget_0_max: + 1.25 x_0_1 + 3 x_1_0 - 0.5 x_1_1 <= 4
\ cap "skipped"
 cap_0_max: + 1 x_0_2 + 1 x_1_1 <= 1
\ cap "caps[1]"
 cap_1_max: 0 x_0_1 <= 0
 overlap_0: + 1 x_0_1 + 1 x_1_1 <= 1
Binary
 x_0_1 x_0_2 x_1_0 x_1_1
End
"#;
    assert_eq!(problem.to_lp().unwrap(), expected);
}

#[test]
fn lines_stay_short() {
    let mut problem: Problem = serde_json::from_str(PROBLEM).unwrap();
    let choice = problem.layers[0].choices[1].clone();
    for index in 0..100 {
        let name = format!("c{index}");
        problem.layers[0].choices.push(lana_select::Choice { name, score: 1.0 / 3.0, ..choice.clone() });
    }
    assert!(problem.to_lp().unwrap().lines().all(|line| line.len() < 255));
}

#[test]
fn a_faulty_problem_is_refused() {
    let mut problem: Problem = serde_json::from_str(PROBLEM).unwrap();
    problem.layers[1].choices.clear();
    assert!(problem.to_lp().unwrap_err().to_string().contains("no choices"));
}
