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
        ("[]", "stdin: "),
        (r#"{"layers": []}"#, "`layers` is empty"),
        (r#"{"layers": 3}"#, "line 1 column"),
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
