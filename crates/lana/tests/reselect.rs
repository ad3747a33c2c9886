//! Selection from the tables alone, on a run that has nothing but them: no network, no weights, no image.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use lana::{
    Accuracy, Budget, Candidates, Change, Config, Error, Estimate, Footprint, LayerRules, PoolLayer,
    PoolOperation, PoolRecord, Previous, RuleChanges, Run, Score, Scores, Selection, Silent, Solutions,
    TeacherMetrics, read_json, reselect, write_json,
};
use lana_graph::Cost;
use lana_latency::{Deployment, Device, Table};
use serde_json::json;
use tempfile::TempDir;

const LAYERS: [&str; 4] = ["layer1.0", "layer1.1", "layer2.0", "layer2.1"];

/// Cost of an operation: milliseconds, parameters and multiply-accumulates, score.
const OPERATIONS: [(&str, f64, u64, f64); 3] =
    [("teacher", 2.0, 100, 0.0), ("half", 1.0, 50, 0.1), ("identity", 0.0, 0, 0.25)];

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let place = Place { folder: tempfile::tempdir().unwrap() };
        let run = place.run();
        fs::create_dir(&run).unwrap();
        let config = Config {
            teacher: "resnet20_cifar".into(),
            layers: LayerRules::alone(),
            train: "generated:shapes".into(),
            val: "generated:shapes?split=val".into(),
            budgets: vec!["0.6x".parse::<Budget>().unwrap()],
            ..Config::default()
        };
        fs::write(run.join("run.toml"), config.to_toml()).unwrap();
        let val = Accuracy { top1: 0.9, top5: 0.99, loss: 0.3, images: 100 };
        let cost = Cost { params: 500, macs: 600 };
        let metrics = TeacherMetrics { name: config.teacher.clone(), val, cost, files: BTreeMap::new() };
        write_json(&run.join("teacher/metrics.json"), &metrics).unwrap();
        write_json(&run.join("pool.json"), &pool()).unwrap();
        write_json(&run.join("scores.json"), &scores()).unwrap();
        let name = format!("{}-{}.json", Device::identify().slug(), Deployment::default());
        write_json(&run.join("latency").join(name), &table()).unwrap();
        place
    }

    fn run(&self) -> PathBuf {
        self.folder.path().join("run")
    }

    fn select(&self, budgets: &[&str], rules: &RuleChanges) -> Result<Vec<Selection>, Error> {
        let budgets: Vec<Budget> = budgets.iter().map(|b| b.parse().unwrap()).collect();
        reselect(&self.run(), &budgets, rules, &Silent)
    }

    fn config(&self) -> Config {
        Run::open(&self.run()).unwrap().config().unwrap()
    }
}

fn pool() -> PoolRecord {
    let operations = OPERATIONS.map(|(name, _, cost, _)| PoolOperation {
        name: name.into(),
        initialisation: String::new(),
        cost: Cost { params: cost, macs: cost },
        footprint: Footprint::default(),
    });
    let layers = LAYERS.map(|layer| PoolLayer {
        layer: layer.into(),
        stage: layer[..6].into(),
        input: vec![16, 8, 8],
        output: vec![16, 8, 8],
        operations: operations.to_vec(),
        left_out: BTreeMap::new(),
        latency: None,
        learned: BTreeMap::new(),
    });
    PoolRecord {
        pool: "compact".into(),
        rules: Vec::new(),
        layers: layers.to_vec(),
        outside: Footprint::default(),
    }
}

fn scores() -> Scores {
    // Later layers matter less.
    let layers = LAYERS.iter().enumerate().map(|(index, layer)| {
        let operations = OPERATIONS[1..].iter().map(|(name, _, _, score)| {
            let estimate = Estimate { mean: score / (index + 1) as f64, stderr: 0.01 };
            (name.to_string(), Score { loss: estimate, kl: estimate })
        });
        (layer.to_string(), operations.collect())
    });
    Scores {
        images: 100,
        batch: 10,
        seed: 0,
        teacher_loss: 0.3,
        layers: layers.collect(),
        ..Scores::default()
    }
}

fn table() -> Table {
    let entry = |(name, ms, ..): &(&str, f64, u64, f64)| {
        json!({"operation": name, "cost_ms": ms, "spread_ms": 0.01, "repeats": 20, "timing": 1, "noisy": false,
            "correction_ms": 0.0})
    };
    let entries: Vec<_> = OPERATIONS[1..].iter().map(entry).collect();
    let layers = LAYERS.map(
        |layer| json!({"layer": layer, "teacher_ms": 2.0, "teacher_spread_ms": 0.01, "operations": entries}),
    );
    serde_json::from_value(json!({"format": 2, "device": Device::identify(), "deployment": {}, "networks": "",
        "runtime_version": "1", "method": "by hand", "created": 0, "seconds": 1.0,
        "teacher": "resnet20_cifar", "teacher_measured_ms": 10.0, "teacher_ci_ms": [9.9, 10.1], "parts_error": 0.0,
        "fixed_ms": 2.0, "layers": layers, "whole": [], "correction": null, "check": null}))
    .unwrap()
}

fn rules(exclude: &[&str], force: &[&str], caps: &[&str]) -> RuleChanges {
    let list = |rules: &[&str]| (!rules.is_empty()).then(|| rules.iter().map(ToString::to_string).collect());
    RuleChanges { exclude: list(exclude), force: list(force), caps: list(caps), score: None }
}

fn operations(selection: &Selection) -> Vec<&str> {
    selection.choices.iter().map(|(_, operation)| operation.as_str()).collect()
}

/// An evaluation that these operations won, under other settings.
fn evaluated(run: &Path, choices: [&str; 4]) {
    let candidates: Candidates = serde_json::from_value(json!({"budget": "0.6x", "limit_ms": 6.0, "winner": 0,
        "correction": 1.0, "settings": "others", "candidates": [{"round": 0, "rank": 0, "choices": choices, "score": 0.1,
        "predicted_ms": 5.0, "loss": 0.4, "top1": 0.8, "params": 300, "macs": 300, "meets_budget": true, "measured":
        {"median_ms": 5.0, "ci_ms": [4.9, 5.1], "ratio": 0.5, "ratio_ci": [0.49, 0.51]}}]}))
    .unwrap();
    write_json(&run.join("budgets/0.6x/candidates.json"), &candidates).unwrap();
}

#[test]
fn the_best_by_the_tables_is_found_and_kept() {
    let place = Place::new();
    let [selection] = &place.select(&[], &RuleChanges::default()).unwrap()[..] else { panic!() };
    // 0.6x with 1.5 % in reserve leaves 3.91 of 8 ms for the layers; later layers are cheaper to do without.
    assert_eq!(operations(selection), ["teacher", "half", "identity", "identity"]);
    assert_eq!((selection.predicted_ms, selection.predicted_ratio), (5.0, 0.5));
    assert!((selection.score - (0.05 + 0.25 / 3.0 + 0.0625)).abs() < 1e-9 && selection.proven);
    assert_eq!(selection.cost, Cost { params: 100 + 150, macs: 200 + 150 });
    assert_eq!((selection.previous, selection.changed.len(), selection.evaluated), (None, 0, false));
    let kept: Solutions = read_json(&place.run().join("budgets/0.6x/solutions.json")).unwrap().unwrap();
    assert_eq!(kept.outcome.solutions[0].choices, operations(selection));

    // Again: nothing has changed. With a rule: what has.
    let again = &place.select(&["0.6x"], &RuleChanges::default()).unwrap()[0];
    assert_eq!((again.previous, again.changed.len()), (Some(Previous::Solved), 0));
    let without = &place.select(&[], &rules(&["layer2.*:identity"], &[], &[])).unwrap()[0];
    assert!(!operations(without)[2..].contains(&"identity"));
    let places: Vec<&str> = without.changed.iter().map(|change| change.layer.as_str()).collect();
    assert!(places.contains(&"layer2.1"), "{:?}", without.changed);
}

#[test]
fn rules_are_kept_replaced_and_cleared() {
    let place = Place::new();
    let first =
        rules(&["layer1.*:identity,half", "layer2.0:half"], &["layer2.0:identity"], &["*:identity<=2"]);
    let selection = &place.select(&["0.7x"], &first).unwrap()[0];
    assert_eq!(operations(selection), ["teacher", "teacher", "identity", "identity"]);
    let config = place.config();
    assert_eq!(config.select.exclude, ["layer1.*:identity,half", "layer2.0:half"]);
    assert_eq!((config.select.force.len(), config.select.caps.len()), (1, 1));
    assert_eq!(config.budgets.len(), 2, "the new budget is kept");

    // What is not given stays, what is given replaces, an empty text clears.
    place.select(&["0.7x"], &rules(&["layer1.0:identity"], &[""], &[])).unwrap();
    let config = place.config();
    assert_eq!(config.select.exclude, ["layer1.0:identity"]);
    assert!(config.select.force.is_empty());
    assert_eq!(config.select.caps, ["*:identity<=2"]);
    // Other budgets are solved under the same rules.
    place.select(&[], &rules(&[], &["layer1.0:half"], &["*:identity=1"])).unwrap();
    for budget in ["0.6x", "0.7x"] {
        let path = place.run().join("budgets").join(budget).join("solutions.json");
        let kept: Solutions = read_json(&path).unwrap().unwrap();
        let choices = &kept.outcome.solutions[0].choices;
        assert_eq!(choices[0], "half");
        assert_eq!(choices.iter().filter(|choice| *choice == "identity").count(), 1);
    }
}

#[test]
fn either_score_may_be_what_is_summed() {
    let place = Place::new();
    // By the loss, earlier layers are cheaper to do without; by the divergence, later ones.
    let mut all = scores();
    for (index, layer) in LAYERS.iter().enumerate() {
        for score in all.layers.get_mut(*layer).unwrap().values_mut() {
            score.loss.mean = score.kl.mean * ((index + 1) * (index + 1)) as f64;
        }
    }
    write_json(&place.run().join("scores.json"), &all).unwrap();
    let by = |score: &str| {
        let change = RuleChanges { score: Some(score.into()), ..RuleChanges::default() };
        let selection = place.select(&[], &change).unwrap().remove(0);
        assert_eq!(place.config().score.by, score);
        let of = |score: &lana::Score, by: &str| if by == "kl" { score.kl.mean } else { score.loss.mean };
        let chosen = selection.choices.iter().filter_map(|(layer, name)| all.layers[layer].get(name));
        let sum: f64 = chosen.map(|chosen| of(chosen, score)).sum();
        assert!((selection.score - sum).abs() < 1e-9, "{} is not {sum}, by {score}", selection.score);
        operations(&selection).into_iter().map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(by("kl"), ["teacher", "half", "identity", "identity"]);
    assert_eq!(by("loss"), ["identity", "identity", "half", "teacher"]);
    // What was chosen is kept.
    place.select(&[], &RuleChanges::default()).unwrap();
    assert_eq!(place.config().score.by, "loss");
}

#[test]
fn the_evaluated_winner_is_what_changes_are_seen_against() {
    let place = Place::new();
    place.select(&[], &RuleChanges::default()).unwrap();
    evaluated(&place.run(), ["teacher", "half", "teacher", "identity"]);
    let selection = &place.select(&[], &RuleChanges::default()).unwrap()[0];
    assert_eq!((selection.previous, selection.evaluated), (Some(Previous::Evaluated), false));
    let change = Change { layer: "layer2.0".into(), before: "teacher".into(), now: "identity".into() };
    assert_eq!(selection.changed, [change]);
}

#[test]
fn faults_are_named_and_nothing_is_kept() {
    let place = Place::new();
    place.select(&[], &rules(&["layer2.1:identity"], &[], &[])).unwrap();
    let before = fs::read_to_string(place.run().join("run.toml")).unwrap();
    let refusal = |budgets: &[&str], rules: &RuleChanges| {
        let error = place.select(budgets, rules).unwrap_err();
        assert_eq!(fs::read_to_string(place.run().join("run.toml")).unwrap(), before, "{error}");
        (error.to_string(), error.exit_status(), error.hint().unwrap_or_default())
    };
    let check = |rules: RuleChanges, words: &[&str]| {
        let (message, status, hint) = refusal(&[], &rules);
        assert_eq!(status, 2, "{message}");
        assert!(!hint.is_empty(), "{message}");
        words.iter().for_each(|word| assert!(message.contains(word), "`{word}` is not in: {message}"));
    };
    check(
        rules(&["layer9.*:identity"], &[], &[]),
        &["exclude `layer9.*:identity`", "no layer matches `layer9.*`"],
    );
    check(rules(&["layer1.*:idle"], &[], &[]), &["exclude `layer1.*:idle`", "no choice", "`idle`"]);
    check(rules(&["layer1.*"], &[], &[]), &["`select.exclude`", "`layer1.*` is no rule"]);
    check(rules(&["layer1.0:*"], &[], &[]), &["exclude `layer1.0:*`", "layer `layer1.0`"]);
    check(rules(&[], &["layer2.1:identity"], &[]), &["force `layer2.1:identity`", "layer `layer2.1`"]);
    check(rules(&[], &[], &["*:identity>=5"]), &["cap `*:identity>=5`", "only 4 layers"]);

    let (message, status, hint) = refusal(&[], &rules(&[], &[], &["*:identity,half<=1"]));
    assert_eq!(status, 3, "{message}");
    assert!(message.contains("cap `*:identity,half<=1`") && hint.contains("--cap"), "{message} {hint}");
    let (message, status, _) = refusal(&["0.1x"], &RuleChanges::default());
    assert!(status == 3 && message.contains("smallest reachable latency is 3 ms"), "{message}");

    fs::remove_file(place.run().join("scores.json")).unwrap();
    let error = place.select(&[], &RuleChanges::default()).unwrap_err();
    assert!(error.to_string().contains("the scores") && error.exit_status() == 2, "{error}");
    assert!(error.hint().unwrap().contains("lana score"));
}
