use predicates::prelude::*;
use predicates::str::contains;
use serde_json::{Value, json};

use crate::lana;

/// Two layers, each of which may be skipped.
fn problem(max: f64) -> Value {
    let layer = |name: &str, latency: f64, score: f64| {
        json!({"name": name, "choices": [
            {"name": "teacher", "score": 0.0, "costs": {"latency_ms": latency, "params": 9e3}},
            {"name": "narrow", "score": score, "costs": {"latency_ms": latency / 4.0, "params": 3e3}}]})
    };
    json!({"layers": [layer("first", 2.0, 0.5), layer("second", 3.0, 0.2)], "budgets": {"latency_ms": {"max": max}}})
}

#[test]
fn a_problem_goes_in_and_its_solution_comes_out() {
    for options in [&["solve", "-"][..], &["solve", "-", "--json"]] {
        let assert = lana().args(options).write_stdin(problem(4.0).to_string()).assert().success().stderr("");
        let outcome: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
        assert_eq!(outcome["status"], "optimal");
        let solution = &outcome["solutions"][0];
        assert_eq!(solution["choices"], json!(["teacher", "narrow"]));
        assert_eq!(solution["score"], 0.2);
        assert_eq!(solution["costs"]["latency_ms"], 2.75);
        assert_eq!(solution["costs"]["params"], 12e3);
        assert_eq!(solution["proven"], true);
        assert!(outcome["elapsed_s"].is_number());
    }
}

#[test]
fn json_is_one_line() {
    let assert =
        lana().args(["solve", "-", "--json"]).write_stdin(problem(4.0).to_string()).assert().success();
    let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn files_are_read_too() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("problem.json");
    std::fs::write(&file, problem(4.0).to_string()).unwrap();
    lana().arg("solve").arg(&file).assert().success().stdout(contains("optimal"));
    let missing = folder.path().join("missing.json");
    lana().arg("solve").arg(&missing).assert().code(2).stdout("").stderr(contains("missing.json"));
    lana().arg("solve").arg(folder.path()).assert().code(2).stderr(contains("folder"));
}

#[test]
fn an_impossible_budget_is_status_3_and_names_what_binds() {
    let assert = lana().args(["solve", "-"]).write_stdin(problem(1.0).to_string()).assert().code(3).stderr(
        contains("error: ").and(contains("latency_ms")).and(contains("1.25")).and(contains("second")),
    );
    let outcome: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(outcome["status"], "infeasible");
    assert_eq!(outcome["solutions"], json!([]));
    assert_eq!(outcome["infeasible"]["reachable"], 1.25);
}

#[test]
fn fewer_solutions_than_asked_for_are_told() {
    let mut problem = problem(100.0);
    problem["solutions"] = json!(10);
    problem["max_overlap"] = json!(0.5);
    lana()
        .args(["solve", "-"])
        .write_stdin(problem.to_string())
        .assert()
        .success()
        .stderr(contains("warning: "));
}

#[test]
fn malformed_problems_are_wrong_input_that_is_named() {
    for (text, named) in [
        ("", "stdin: EOF"),
        ("{", "stdin: EOF"),
        ("{\"layers\": []} x", "stdin: trailing"),
        ("[]", "stdin: "),
        (r#"{"layers": []}"#, "stdin: `layers` is empty"),
        (r#"{"layers": 3}"#, "stdin: layers: invalid type"),
        (r#"{"layers": 3}"#, "line 1 column"),
        (
            r#"{"layers": [{"name": "a", "choices": [{"name": "x", "score": "0"}]}]}"#,
            "layers[0].choices[0].score",
        ),
        (r#"{"layres": []}"#, "layres"),
        (r#"{"layers": [{"name": "a", "choices": [{"name": "x", "score": NaN}]}]}"#, "line 1 column"),
        (r#"{"layers": [{"name": "a", "choices": [{"name": "x", "score": 1e999}]}]}"#, "out of range"),
        (r#"{"layers": [{"name": "a", "choices": [{"name": "x"}]}]}"#, "score"),
        (r#"{"layers": [{"name": "a", "choices": []}]}"#, "`a`"),
        (
            r#"{"layers": [{"name": "a", "choices": [{"name": "x", "score": 0}]}], "budgets": {"ms": {"max": 1}}}"#,
            "`ms`",
        ),
        (
            r#"{"layers": [{"name": "a", "choices": [{"name": "x", "score": 0}]}], "max_overlap": 7}"#,
            "max_overlap",
        ),
    ] {
        lana()
            .args(["solve", "-"])
            .write_stdin(text)
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(named).and(predicate::str::starts_with("error: ")));
    }
}

#[test]
fn options_win_over_the_problem() {
    let solve = |options: &[&str]| {
        let assert = lana().args(["solve", "-"]).args(options).write_stdin(problem(4.0).to_string()).assert();
        serde_json::from_slice::<Value>(&assert.success().get_output().stdout).unwrap()
    };
    assert_eq!(solve(&["--solutions", "2"])["solutions"].as_array().unwrap().len(), 2);
    assert_eq!(solve(&["--gap", "0.25"])["solutions"][0]["proven"], true);
    assert!(solve(&[])["solutions"][0]["gap"].is_number());
    for (options, named) in [
        (["--solutions", "0"], "`solutions`"),
        (["--gap", "nan"], "`gap`"),
        (["--time-limit", "nan"], "`time_limit_s`"),
        (["--format", "xml"], "--format"),
        (["--choices", "--json"], "--pareto"),
    ] {
        let mut command = lana();
        command.args(["solve", "-"]).args(options).write_stdin(problem(4.0).to_string());
        command.assert().code(2).stdout("").stderr(contains(named));
    }
}

#[test]
fn a_curve_has_every_efficient_point() {
    for options in [&["--json"][..], &[]] {
        let assert = lana()
            .args(["solve", "-", "--pareto", "latency_ms", "--choices"])
            .args(options)
            .write_stdin(problem(4.0).to_string())
            .assert()
            .success()
            .stderr("");
        let text = String::from_utf8(assert.get_output().stdout.clone()).unwrap();
        assert_eq!(text.lines().count(), if options.is_empty() { 4 } else { 1 }, "{text}");
        let curve: Value = serde_json::from_str(&text).unwrap();
        let expected = json!([{"cost": 1.25, "score": 0.7, "choices": ["narrow", "narrow"]},
            {"cost": 2.75, "score": 0.2, "choices": ["teacher", "narrow"]}]);
        assert_eq!((&curve["cost"], &curve["points"]), (&json!("latency_ms"), &expected));
        assert!(curve["elapsed_s"].is_number());
    }
    let curve = |problem: &Value, cost: &str| {
        lana().args(["solve", "-", "--pareto", cost]).write_stdin(problem.to_string()).assert()
    };
    curve(&problem(4.0), "latency_ms").success().stdout(contains("choices").not());
    for (cost, fault) in [("watts", "no cost `watts`"), ("params", "budget `latency_ms`")] {
        curve(&problem(4.0), cost).code(2).stdout("").stderr(contains("stdin: ").and(contains(fault)));
    }
    curve(&problem(1.0), "latency_ms").code(3).stdout(contains("\"points\":[")).stderr(contains("1.25"));
    let mut narrow = problem(2.5);
    narrow["budgets"]["latency_ms"]["min"] = json!(2.0);
    curve(&narrow, "latency_ms").code(3);
    narrow["budgets"] = json!({"latency_ms": {"min": 3.0, "max": 3.6}});
    curve(&narrow, "latency_ms").success().stderr(contains("warning: no point of the curve"));
}

#[test]
fn the_program_as_an_lp_file() {
    lana()
        .args(["solve", "-", "--format", "lp"])
        .write_stdin(problem(4.0).to_string())
        .assert()
        .success()
        .stdout(
            contains("Minimize\n")
                .and(contains("budget_0_max:"))
                .and(contains("x_0_1: \"first\" \"narrow\"")),
        );
}

#[test]
fn rules_hold_and_are_named_where_they_cannot() {
    let mut problem = problem(4.0);
    problem["forbidden"] = json!([{"layers": ["s*"], "choices": ["narrow"]}]);
    let solve = |problem: &Value| lana().args(["solve", "-"]).write_stdin(problem.to_string()).assert();
    let assert = solve(&problem).success();
    let outcome: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(outcome["solutions"][0]["choices"], json!(["narrow", "teacher"]));
    problem["forbidden"][0]["choices"] = json!(["thin"]);
    solve(&problem).code(2).stderr(contains("stdin: `forbidden[0]`").and(contains("`thin`")));
    problem["forbidden"] = json!([]);
    problem["caps"] = json!([{"name": "few", "layers": ["*"], "choices": ["narrow"], "max": 0}]);
    solve(&problem).code(3).stderr(contains("cap `few` max 0 together with budget `latency_ms`"));
}

#[cfg(unix)]
#[test]
fn a_reader_who_leaves_is_no_error() {
    use std::process::{Command, Stdio};
    let mut child = Command::new(env!("CARGO_BIN_EXE_lana"))
        .arg("zoo")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
