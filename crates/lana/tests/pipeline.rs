//! Whole runs on a small teacher and few images: every step real, only short.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use lana::{
    Budget, Candidates, Config, Error, LatencyConfig, LayerRules, PretrainConfig, Previous, Progress, Recipe,
    RuleChanges, ScoreConfig, SelectConfig, Silent, Stage, StudentMetrics, accelerate, read_json, reselect,
    run_stage, status,
};
use lana_graph::{Tensor, Weights};
use lana_models::{init, zoo, zoo::ZooOptions};
use tempfile::TempDir;

const TEACHER: &str = "resnet20_cifar";

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let graph = zoo::build(TEACHER, &ZooOptions::default()).unwrap();
        fs::write(folder.path().join("teacher.safetensors"), init::random(&graph, 3).to_bytes()).unwrap();
        Place { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, budgets: &[&str]) -> Config {
        Config {
            teacher: TEACHER.into(),
            layers: LayerRules::alone(),
            weights: Some(self.path("teacher.safetensors").into()),
            train: "generated:shapes?images=96".into(),
            val: "generated:shapes?images=40&split=val".into(),
            budgets: budgets.iter().map(|b| b.parse::<Budget>().unwrap()).collect(),
            pool: "identity,narrow-w0.25,bottleneck-w0.25".into(),
            workers: 2,
            // A wide margin: these timings are short, and the tests are not about them.
            latency: LatencyConfig { batch: 2, time_limit_s: 4.0, margin: 0.2, ..LatencyConfig::default() },
            pretrain: PretrainConfig {
                images: 96,
                batch: 16,
                keep_slow: true,
                checkpoint_s: 1e-6,
                ..PretrainConfig::default()
            },
            score: ScoreConfig { images: 48, batch: 24, ..ScoreConfig::default() },
            select: SelectConfig { solutions: 3, time_limit_s: 5.0, rounds: 3, ..SelectConfig::default() },
            finetune: Recipe { epochs: 1, batch: 16.into(), checkpoint_s: 1e-6, ..Recipe::default() },
            ..Config::default()
        }
    }
}

/// Every file under a folder with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => left.push(path),
                path => {
                    found.insert(path.strip_prefix(folder).unwrap().to_path_buf(), fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

/// Dies, as a killed process would, at the given call.
struct Dying {
    at: usize,
    calls: AtomicUsize,
}

impl Progress for Dying {
    fn advance(&self, _done: u64, _note: &str) {
        assert!(self.calls.fetch_add(1, Ordering::SeqCst) != self.at, "killed for the test");
    }
}

#[test]
fn a_run_goes_through_continues_takes_another_budget_and_mends_itself() {
    let place = Place::new();
    let run = place.path("run");
    let students = accelerate(&place.config(&["0.8x"]), &run, &Silent).unwrap();
    let [student] = &students[..] else { panic!("{students:?}") };
    let measured = student.measured.expect("this device is the table's");
    assert_eq!(student.meets_budget, measured.ratio <= 0.8, "{measured:?}");
    assert_eq!(student.used, Some(measured.ratio / 0.8));
    assert!(student.verdict.contains("of the budget used when measured"), "{}", student.verdict);
    let file = fs::metadata(run.join("budgets/0.8x/student/student.onnx")).unwrap();
    assert_eq!(student.size_bytes, file.len());
    assert!(student.memory_bytes > 0 && student.memory_bytes <= student.teacher_memory_bytes);
    assert_eq!(student.choices.len(), 9);
    assert!(student.export_difference < 1e-4);
    assert!(student.cost.macs < student.teacher_cost.macs);
    for file in [
        "run.toml",
        "teacher/graph.json",
        "teacher/weights.safetensors",
        "teacher/teacher.onnx",
        "teacher/metrics.json",
        "pool.json",
        "operations/layer1.0/narrow-w0.25.safetensors",
        "operations/layer1.0/narrow-w0.25.json",
        "scores.json",
        "budgets/0.8x/solutions.json",
        "budgets/0.8x/candidates.json",
        "budgets/0.8x/student/graph.json",
        "budgets/0.8x/student/weights.safetensors",
        "budgets/0.8x/student/student.onnx",
        "budgets/0.8x/student/metrics.json",
        "report.html",
        "events.jsonl",
    ] {
        assert!(run.join(file).is_file(), "{file} is missing");
    }
    let page = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(page.contains("layer3.2") && page.contains("0.8x"));
    assert!(status(&run).unwrap().stages.iter().all(|s| s.done == s.total), "{:?}", status(&run));

    // The same command again finds everything done.
    let before = files(&run);
    accelerate(&place.config(&["0.8x"]), &run, &Silent).unwrap();
    let same = |name: &str| files(&run).get(Path::new(name)) == before.get(Path::new(name));
    for file in before.keys().filter(|f| f.file_name().unwrap() != "lock" && !f.ends_with("report.html")) {
        assert!(same(file.to_str().unwrap()), "{} changed", file.display());
    }

    // Another budget trains no operation again.
    accelerate(&place.config(&["params=0.7x"]), &run, &Silent).unwrap();
    let metrics: StudentMetrics =
        read_json(&run.join("budgets/params=0.7x/student/metrics.json")).unwrap().unwrap();
    assert!(metrics.cost.params as f64 <= 0.7 * metrics.teacher_cost.params as f64);
    for file in before.keys().filter(|f| f.starts_with("operations") || f.ends_with("scores.json")) {
        assert!(same(file.to_str().unwrap()), "{} changed", file.display());
    }

    // Damage is found and made good; the rest stays.
    let damaged = run.join("operations/layer2.1/narrow-w0.25.safetensors");
    let mut bytes = fs::read(&damaged).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(&damaged, bytes).unwrap();
    fs::write(run.join("budgets/0.8x/student/student.onnx"), b"cut off").unwrap();
    let scores = fs::read_to_string(run.join("scores.json")).unwrap();
    fs::write(run.join("scores.json"), &scores[..scores.len() / 2]).unwrap();
    accelerate(&place.config(&["0.8x"]), &run, &Silent).unwrap();
    assert!(fs::read(run.join("budgets/0.8x/student/student.onnx")).unwrap().len() > 1000);
    assert!(same("operations/layer1.0/narrow-w0.25.safetensors"));

    // A budget out of reach says what can be reached, and leaves the run as it was.
    let error = accelerate(&place.config(&["0.0001x"]), &run, &Silent).unwrap_err();
    assert_eq!(error.exit_status(), 3, "{error}");
    assert!(error.to_string().contains("smallest reachable latency"), "{error}");
    assert!(same("run.toml") || fs::read_to_string(run.join("run.toml")).unwrap().contains("params=0.7x"));
    assert!(!fs::read_to_string(run.join("run.toml")).unwrap().contains("0.0001x"));

    // A configuration that contradicts the run is refused, by the name of the field.
    let other = Config { seed: 9, ..place.config(&["0.8x"]) };
    let error = accelerate(&other, &run, &Silent).unwrap_err();
    assert!(error.to_string().contains("`seed`") && error.exit_status() == 2, "{error}");

    // Candidates were really measured, and the winner is the best that fits.
    let candidates: Candidates = read_json(&run.join("budgets/0.8x/candidates.json")).unwrap().unwrap();
    let winner = &candidates.candidates[candidates.winner];
    let better = candidates
        .candidates
        .iter()
        .filter(|c| c.meets_budget && c.loss < winner.loss && winner.meets_budget)
        .count();
    assert_eq!(better, 0);

    // The tables alone answer at once; the evaluation of before still holds, until a rule is given that it did not know.
    let budget: Budget = "params=0.7x".parse().unwrap();
    let selection =
        &reselect(&run, std::slice::from_ref(&budget), &RuleChanges::default(), &Silent).unwrap()[0];
    assert!(selection.evaluated && selection.previous == Some(Previous::Evaluated));
    assert!(selection.cost.params as f64 <= 0.7 * metrics.teacher_cost.params as f64);
    let rules = RuleChanges { exclude: Some(vec!["*:identity".into()]), ..RuleChanges::default() };
    let selection = &reselect(&run, std::slice::from_ref(&budget), &rules, &Silent).unwrap()[0];
    assert!(!selection.evaluated && selection.choices.iter().all(|(_, operation)| operation != "identity"));
    let open =
        |stage: &str| status(&run).unwrap().stages.iter().any(|s| s.stage == stage && s.done < s.total);
    assert!(open("select params=0.7x"));
    // Fine-tuning evaluates first.
    run_stage(&run, Stage::Finetune, &[budget], &Silent).unwrap();
    assert!(!open("select params=0.7x") && !open("finetune params=0.7x"));
    let candidates: Candidates =
        read_json(&run.join("budgets/params=0.7x/candidates.json")).unwrap().unwrap();
    assert!(candidates.candidates.iter().all(|c| c.choices.iter().all(|name| name != "identity")));
}

#[test]
fn a_run_killed_at_any_point_ends_with_the_same_operations_and_scores() {
    let place = Place::new();
    let config = place.config(&["params=0.8x"]);
    let whole = place.path("whole");
    accelerate(&config, &whole, &Silent).unwrap();
    let broken = place.path("broken");
    let mut kills = 0;
    for at in [0, 2, 5, 9, 1, 3, 30, 55] {
        let progress = Dying { at, calls: AtomicUsize::new(0) };
        let result = catch_unwind(AssertUnwindSafe(|| accelerate(&config, &broken, &progress)));
        kills += usize::from(result.is_err());
    }
    assert!(kills >= 4, "only {kills} of 8 attempts were killed");
    accelerate(&config, &broken, &Silent).unwrap();
    let (whole, broken) = (files(&whole), files(&broken));
    let mut compared = 0;
    for (name, bytes) in &whole {
        let trained = name.starts_with("operations") && name.extension().is_some_and(|e| e == "safetensors");
        if trained || name.ends_with("scores.json") {
            assert!(broken.get(name) == Some(bytes), "{} differs", name.display());
            compared += 1;
        }
    }
    assert!(compared > 9, "{compared}");
    let left: Vec<_> = broken.keys().filter(|n| n.to_string_lossy().contains("checkpoint")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn wrong_input_is_named_before_anything_is_made() {
    let place = Place::new();
    let graph = zoo::build(TEACHER, &ZooOptions::default()).unwrap();
    let good = init::random(&graph, 3);
    let check = |config: Config, words: &[&str]| {
        let out = place.path("never");
        let error = accelerate(&config, &out, &Silent).unwrap_err();
        for word in words {
            assert!(error.to_string().contains(word), "`{word}` is not in: {error}");
        }
        assert_eq!(error.exit_status(), 2, "{error}");
        assert!(!out.exists(), "{error}");
    };
    let with_weights = |bytes: &[u8]| {
        let path = place.path("wrong.safetensors");
        fs::write(&path, bytes).unwrap();
        Config { weights: Some(path.into()), ..place.config(&["0.5x"]) }
    };
    let bytes = good.to_bytes();
    check(with_weights(&bytes[..bytes.len() / 2]), &["wrong.safetensors", "not a whole safetensors file"]);
    check(with_weights(b"PK\x03\x04pickle"), &["wrong.safetensors", "pickle"]);
    check(with_weights(b""), &["wrong.safetensors"]);
    let edited = |edit: &dyn Fn(&mut Weights)| {
        let mut weights = good.clone();
        edit(&mut weights);
        with_weights(&weights.to_bytes())
    };
    check(edited(&|w| drop(w.remove("conv1.weight"))), &["conv1.weight", "wrong.safetensors"]);
    check(edited(&|w| w.insert("extra", Tensor::full(&[2], 0.0))), &["extra"]);
    check(edited(&|w| w.insert("bn1.bias", Tensor::full(&[17], 0.0))), &["bn1.bias", "[17]", "[16]"]);
    check(edited(&|w| w.insert("bn1.bias", Tensor::full(&[16], f32::NAN))), &["bn1.bias", "not finite"]);
    check(Config { weights: Some(place.path("absent").into()), ..place.config(&["0.5x"]) }, &["absent"]);
    check(Config { teacher: "resnet21_cifar".into(), ..place.config(&["0.5x"]) }, &["resnet21_cifar"]);
    check(Config { train: "cifra10:x".into(), ..place.config(&["0.5x"]) }, &["cifra10"]);
    check(Config { pool: "narow-w0.5".into(), ..place.config(&["0.5x"]) }, &["narow-w0.5"]);
    check(Config { workers: 0, device: "tpu".into(), ..place.config(&["0.5x"]) }, &["tpu"]);
    let mut config = place.config(&["0.5x"]);
    config.pretrain.learning_rate = f64::NAN;
    check(config, &["pretrain.learning_rate"]);
    let mut config = place.config(&["0.5x"]);
    config.latency.batch = 0;
    check(config, &["batch"]);

    // What shows only when images are read still comes before any work, and is named.
    let config = Config { val: "imagefolder:/nowhere/at/all".into(), ..place.config(&["0.5x"]) };
    let error = accelerate(&config, &place.path("early"), &Silent).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all") && error.exit_status() == 2, "{error}");
    fs::write(place.path("file"), "x").unwrap();
    let error = accelerate(&place.config(&["0.5x"]), &place.path("file/run"), &Silent).unwrap_err();
    assert!(error.to_string().contains("file"), "{error}");
    fs::create_dir(place.path("full")).unwrap();
    fs::write(place.path("full/precious.txt"), "x").unwrap();
    let error = accelerate(&place.config(&["0.5x"]), &place.path("full"), &Silent).unwrap_err();
    assert!(error.to_string().contains("not empty") && error.exit_status() == 2, "{error}");
}

#[test]
fn single_stages_say_what_they_need() {
    let place = Place::new();
    let error = run_stage(&place.path("nothing"), Stage::Profile, &[], &Silent).unwrap_err();
    assert!(matches!(error, Error::Input { .. }), "{error}");
    let run = place.path("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("run.toml"), place.config(&["0.5x"]).to_toml()).unwrap();
    let error = run_stage(&run, Stage::Score, &[], &Silent).unwrap_err();
    assert!(matches!(error, Error::NotReady { .. }) && error.exit_status() == 2, "{error}");
    assert!(error.hint().is_some());
    fs::write(run.join("run.toml"), "teacher = \"resnet20_cifar\"\ntrian = \"x\"\n").unwrap();
    let error = status(&run).unwrap_err();
    assert!(error.to_string().contains("trian"), "{error}");
}
