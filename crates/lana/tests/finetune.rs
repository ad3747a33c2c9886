//! Phase 3 from outside: a training that is killed ends with the same weights, and one that diverges says where.
#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lana::{
    Augmentation, Budget, ColorJitter, Config, Control, ControlOptions, Course, EraseMode, Error,
    FinetuneOptions, LayerRules, Progress, Recipe, ScoreConfig, SelectConfig, Shape, Silent, StudentMetrics,
    accelerate, control, finetune,
};
use lana_models::{init, zoo, zoo::ZooOptions};
use tempfile::TempDir;

const TEACHER: &str = "resnet20_cifar";
const BUDGET: &str = "params=0.8x";

/// Everything at once: what a checkpoint must hold.
fn recipe() -> Recipe {
    Recipe {
        epochs: 3,
        batch: 8.into(),
        accumulate: 2,
        learning_rate: 0.005,
        ema: 0.9,
        dropout: 0.1,
        drop_path: 0.1,
        freeze: vec!["bn1".into()],
        features: Course::Changing { from: 1.0, to: 0.0, shape: Shape::Cosine },
        checkpoint_s: 1e-6,
        augment: Augmentation {
            color_jitter: ColorJitter::all(0.2),
            reprob: 0.5,
            remode: EraseMode::Pixel,
            mixup: 0.4,
            cutmix: 1.0,
            mixup_prob: 0.8,
            smoothing: 0.1,
            aug_repeats: 2,
            ..Augmentation::default()
        },
        ..Recipe::default()
    }
}

/// A run with a student that is selected and fine-tuned.
fn whole(folder: &Path) -> (PathBuf, StudentMetrics) {
    let weights = folder.join("teacher.safetensors");
    let graph = zoo::build(TEACHER, &ZooOptions::default()).unwrap();
    fs::write(&weights, init::random(&graph, 3).to_bytes()).unwrap();
    let config = Config {
        teacher: TEACHER.into(),
        layers: LayerRules::alone(),
        weights: Some(weights.into()),
        train: "generated:shapes?images=100".into(),
        val: "generated:shapes?images=40&split=val".into(),
        budgets: vec![BUDGET.parse::<Budget>().unwrap()],
        pool: "identity".into(),
        workers: 1,
        latency: common::hasty(),
        score: ScoreConfig { images: 48, batch: 24, ..ScoreConfig::default() },
        select: SelectConfig { solutions: 2, time_limit_s: 5.0, rounds: 1, ..SelectConfig::default() },
        finetune: recipe(),
        ..Config::default()
    };
    let run = folder.join("run");
    let students = accelerate(&config, &run, &Silent).unwrap();
    (run, students.into_iter().next().unwrap())
}

fn trained(run: &Path) -> PathBuf {
    run.join("budgets").join(BUDGET).join("finetune")
}

/// The networks that fine-tuning leaves, and its record without what depends on the clock.
fn results(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(trained(run)).unwrap().flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".safetensors") || name == "graph.json" {
            found.insert(name, fs::read(entry.path()).unwrap());
        }
    }
    let record: serde_json::Value =
        serde_json::from_slice(&fs::read(trained(run).join("finetuned.json")).unwrap()).unwrap();
    for key in ["epochs", "assessment"] {
        let mut part = record[key].clone();
        let parts = match &mut part {
            serde_json::Value::Array(list) => list.iter_mut().collect(),
            other => vec![other],
        };
        for part in parts {
            for timed in ["seconds", "images_per_s"] {
                part.as_object_mut().unwrap().remove(timed);
            }
        }
        found.insert(key.into(), part.to_string().into_bytes());
    }
    found
}

/// Writes down what processes say that are killed.
struct Noting(PathBuf);

impl Progress for Noting {
    fn say(&self, line: &str) {
        let mut file = OpenOptions::new().create(true).append(true).open(&self.0).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
        if std::env::var(ABORT).is_ok_and(|at| line.contains(&at)) {
            std::process::abort();
        }
    }
}

const CHILD: &str = "LANA_TEST_FINETUNE_RUN";
/// What it says before it ends in an instant.
const ABORT: &str = "LANA_TEST_FINETUNE_ABORT";

/// No test: the process that another starts and kills.
#[test]
fn child() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let run = PathBuf::from(run);
    finetune(&run, &FinetuneOptions::default(), &[], &Noting(run.join("said"))).unwrap();
}

#[cfg(unix)]
#[test]
fn killed_again_and_again_it_ends_with_the_same_weights_to_the_last_bit() {
    let folder = TempDir::new().unwrap();
    let (run, student) = whole(folder.path());
    let assessment = student.assessment.unwrap();
    assert!(assessment.agreement.is_some() && assessment.classes.len() == 10, "{assessment:?}");
    assert_eq!(assessment.classes.iter().map(|c| c.images).sum::<u64>(), 40);
    let reference = results(&run);
    for file in ["weights", "best", "last", "average"] {
        assert!(reference.contains_key(&format!("{file}.safetensors")), "{:?}", reference.keys());
    }
    assert!(reference["last.safetensors"] != reference["average.safetensors"]);

    let start = |abort: Option<&str>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--test-threads=1"]).env(CHILD, &run);
        if let Some(line) = abort {
            command.env(ABORT, line);
        }
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let ends_the_same = |interruptions: usize| {
        assert!(start(None).wait().unwrap().success());
        let said = fs::read_to_string(run.join("said")).unwrap();
        assert!(said.contains("goes on at step"), "every process began anew: {said}");
        let killed = results(&run);
        assert_eq!(reference.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
        for (name, bytes) in &reference {
            assert!(killed[name] == *bytes, "{name} differs after {interruptions} interruptions");
        }
    };

    // After an epoch's last update and before its record: the checkpoint then is that of the update.
    fs::remove_dir_all(trained(&run)).unwrap();
    for epoch in ["epoch 1 of", "epoch 3 of"] {
        assert!(!start(Some(epoch)).wait().unwrap().success(), "{epoch}");
    }
    ends_the_same(2);

    // And at moments that nobody chose, but not before it trains.
    fs::remove_dir_all(trained(&run)).unwrap();
    let (mut kills, mut state) = (0, 777u64);
    for _ in 0..6 {
        let mut child = start(None);
        let begun = Instant::now();
        let has_begun = || trained(&run).join("checkpoint.json").exists();
        while !has_begun() && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((state >> 33) % 400_000));
        let over = child.try_wait().unwrap().is_some();
        child.kill().unwrap();
        child.wait().unwrap();
        kills += usize::from(!over);
        if over {
            break;
        }
    }
    assert!(kills > 0);
    ends_the_same(kills);
}

/// Collects what is said.
#[derive(Default)]
struct Listening(std::sync::Mutex<String>);

impl Progress for Listening {
    fn say(&self, line: &str) {
        *self.0.lock().unwrap() += &format!("{line}\n");
    }
}

#[test]
fn other_recipes_train_anew_choose_a_batch_and_diverge_with_a_name() {
    let folder = TempDir::new().unwrap();
    let (run, _) = whole(folder.path());
    let before = results(&run);
    let train = |recipe: Recipe, say: &dyn Progress| {
        finetune(&run, &FinetuneOptions { recipe: Some(recipe) }, &[], say)
    };
    // The same again does nothing, another checkpoint interval neither.
    train(Recipe { checkpoint_s: 60.0, ..recipe() }, &Silent).unwrap();
    assert!(results(&run) == before);

    let listening = Listening::default();
    let small = Recipe { epochs: 1, batch: lana::BatchSize::Auto, accumulate: 1, ..recipe() };
    train(small.clone(), &listening).unwrap();
    let said = listening.0.into_inner().unwrap();
    assert!(said.contains("batches of ") && said.contains(" GiB"), "{said}");
    assert!(results(&run) != before);
    let stored = lana::Run::open(&run).unwrap().config().unwrap();
    assert_eq!(stored.finetune, small);
    let starved = Recipe { memory: Some(lana::Memory(1 << 20)), epochs: 2, ..small };
    let error = train(starved, &Silent).unwrap_err();
    assert!(error.to_string().contains("one image takes") && error.exit_status() == 2, "{error}");

    // 100 images make 12 updates of 8 an epoch: the window of 16 is full in the second.
    let wild =
        Recipe { learning_rate: 1e6, warmup_epochs: 1.2, clip: 0.0, accumulate: 1, epochs: 9, ..recipe() };
    let error = train(wild, &Silent).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }) && error.exit_status() == 1, "{error}");
    let words = error.to_string();
    assert!(
        words.contains("learning rate") && words.contains("checkpoint-") && words.contains("(step "),
        "{words}"
    );
    let file = words.split("last good checkpoint: ").nth(1).unwrap().split(" (").next().unwrap();
    assert!(Path::new(file).exists(), "{words}");

    let unfit = Recipe { freeze: vec!["stem".into()], ..recipe() };
    let error = train(unfit, &Silent).unwrap_err();
    assert!(error.to_string().contains("stem") && error.exit_status() == 2, "{error}");
}

#[test]
fn controls_stand_beside_the_student() {
    let folder = TempDir::new().unwrap();
    let (run, student) = whole(folder.path());
    let before = results(&run);
    let make = |name: &str, weights: Option<PathBuf>| {
        let options = ControlOptions {
            controls: vec![Control::new(name, weights.map(Into::into)).unwrap()],
            recipe: None,
        };
        control(&run, &options, &[], &Silent)
    };
    for name in ["skip-only", "random", "uniform"] {
        make(name, None).unwrap();
    }
    make(TEACHER, None).unwrap();
    let teacher = folder.path().join("teacher.safetensors");
    let comparison = make(TEACHER, Some(teacher.clone())).unwrap().remove(0);
    // The student is as it was, and so is the run.
    assert!(results(&run) == before);
    assert_eq!(comparison.student.as_ref(), Some(&student));
    assert_eq!(
        lana::Run::open(&run).unwrap().config().unwrap().select,
        SelectConfig { solutions: 2, time_limit_s: 5.0, rounds: 1, ..SelectConfig::default() }
    );

    let names: Vec<&str> = comparison.controls.iter().map(|c| c.control.as_str()).collect();
    let [from_nothing, pretrained] = ["from nothing", "pretrained"].map(|how| format!("{TEACHER}, {how}"));
    assert_eq!(names, ["skip-only", "random", "uniform", &from_nothing, &pretrained]);
    for control in &comparison.controls {
        assert!(control.same_recipe && control.val.images == 40 && control.top1_error > 0.0, "{control:?}");
        assert!(
            control.ratio().is_some_and(|ratio| ratio > 0.0) && control.agreement.is_some(),
            "{control:?}"
        );
        let difference = control.difference.unwrap();
        assert!(difference.paired, "{control:?}");
        assert_eq!(difference.top1, control.val.top1 - student.val.top1);
        let is_network = control.choices.is_empty();
        // Parameters are known exactly: selections meet the budget, the teacher's own architecture does not.
        assert_eq!(control.meets_budget, Some(!is_network), "{control:?}");
        assert_eq!(control.cost.params <= student.teacher_cost.params * 8 / 10, !is_network, "{control:?}");
    }
    let choices = |name: &str| {
        let found = comparison.controls.iter().find(|c| c.control == name).unwrap();
        found.choices.iter().map(|(_, operation)| operation.as_str()).collect::<Vec<_>>()
    };
    // Layers that change the resolution cannot be left out.
    assert_eq!(choices("uniform").iter().filter(|o| **o == "teacher").count(), 2);
    assert!(choices("random") != choices("uniform"));
    assert!(choices("skip-only").iter().all(|o| ["teacher", "identity"].contains(o)));
    let report = fs::read_to_string(run.join("report.html")).unwrap();
    assert!(names.iter().all(|name| report.contains(name)), "the report lacks a control");

    // What is done stays done; another recipe or other weights train anew.
    let file = run.join("controls").join(TEACHER).join("control.json");
    let record = fs::read(&file).unwrap();
    make(TEACHER, Some(teacher)).unwrap();
    assert!(fs::read(&file).unwrap() == record);
    let graph = zoo::build(TEACHER, &ZooOptions::default()).unwrap();
    let other = folder.path().join("other.safetensors");
    fs::write(&other, init::random(&graph, 4).to_bytes()).unwrap();
    make(TEACHER, Some(other)).unwrap();
    assert!(fs::read(&file).unwrap() != record);

    // What another tool made comes as an ONNX file.
    let rival = folder.path().join("rival.onnx");
    fs::copy(run.join("teacher/teacher.onnx"), &rival).unwrap();
    let comparison = make(rival.to_str().unwrap(), None).unwrap().remove(0);
    let found = comparison.controls.iter().find(|control| control.control == "rival.onnx").unwrap();
    assert_eq!((found.meets_budget, found.cost), (Some(false), student.teacher_cost));
    assert!(found.same_recipe && found.val.images == 40, "{found:?}");
    let refused = |name: &str, weights: Option<PathBuf>| {
        Control::new(name, weights.map(Into::into)).unwrap_err().to_string()
    };
    assert!(refused("no.onnx", None).contains("no such file"));
    assert!(refused(rival.to_str().unwrap(), Some("a.safetensors".into())).contains("has its own"));
    let five = ZooOptions { num_classes: Some(5), ..ZooOptions::default() };
    let graph = zoo::build(TEACHER, &five).unwrap();
    let options = lana_onnx::ExportOptions::default();
    fs::write(&rival, lana_onnx::export(&graph, &init::random(&graph, 1), &options).unwrap()).unwrap();
    let error = make(rival.to_str().unwrap(), None).unwrap_err().to_string();
    assert!(error.contains("rival.onnx makes 5 of"), "{error}");
    // Another file of the same name would take the place of what was trained.
    let elsewhere = folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let namesake = elsewhere.join("rival.onnx");
    fs::copy(run.join("teacher/teacher.onnx"), &namesake).unwrap();
    let error = make(namesake.to_str().unwrap(), None).unwrap_err();
    assert!(error.to_string().contains("rival.onnx, not") && error.exit_status() == 2, "{error}");
    let both = [&rival, &namesake].map(|file| Control::new(file.to_str().unwrap(), None).unwrap());
    let config = lana::Run::open(&run).unwrap().config().unwrap();
    fs::copy(&namesake, &rival).unwrap();
    let error = lana::check_controls(&config, &run, &both, &Silent).unwrap_err();
    assert!(error.to_string().contains("two controls are called rival.onnx"), "{error}");

    // Weights of another network are named with what is wrong.
    let graph = zoo::build("resnet32_cifar", &ZooOptions::default()).unwrap();
    let wrong = folder.path().join("wrong.safetensors");
    fs::write(&wrong, init::random(&graph, 4).to_bytes()).unwrap();
    let error = make(TEACHER, Some(wrong)).unwrap_err();
    assert!(error.exit_status() == 2, "{error}");
}
