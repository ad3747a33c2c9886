use predicates::prelude::*;
use predicates::str::contains;

use crate::lana;

const COMMANDS: [&str; 17] = [
    "accelerate",
    "demo",
    "status",
    "measure",
    "evaluate",
    "zoo",
    "layers",
    "pool",
    "solve",
    "profile",
    "pretrain",
    "score",
    "select",
    "finetune",
    "recipe",
    "export",
    "report",
];

#[test]
fn every_command_explains_itself() {
    let overview = lana().arg("--help").assert().success().get_output().stdout.clone();
    let overview = String::from_utf8(overview).unwrap();
    for command in COMMANDS {
        assert!(overview.contains(&format!("\n  {command} ")), "{command} is not in\n{overview}");
        lana()
            .args([command, "--help"])
            .assert()
            .success()
            .stdout(contains("Usage: lana ").and(contains("Example:\n  lana ")).and(contains(command)))
            .stderr("");
    }
}

#[test]
fn help_and_version_are_results() {
    lana().arg("--version").assert().success().stdout(contains(env!("CARGO_PKG_VERSION")));
    lana().args(["help", "accelerate"]).assert().success().stdout(contains("--teacher"));
}

#[test]
fn nothing_and_nonsense_are_wrong_arguments() {
    lana().assert().code(2).stderr(contains("Usage"));
    lana().arg("acelerate").assert().code(2).stderr(contains("accelerate"));
    lana().args(["zoo", "--yaml"]).assert().code(2).stdout("");
}
