//! Phase 1 from outside: the same operations come of it however it is divided, and whenever it is killed.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use lana::{
    Budget, Config, Error, LayerRules, Memory, OperationRecord, Precision, PretrainConfig, PretrainOptions,
    PretrainPrecision, Progress, Scores, Silent, Stage, TeacherMetrics, pretrain, read_json, run_stage,
    sha256, status, write_json,
};
use lana_graph::Weights;
use lana_models::{init, zoo, zoo::ZooOptions};
use tempfile::TempDir;

const TEACHER: &str = "resnet20_cifar";
/// Batches of the training that is killed.
const BATCHES: u64 = 400;

/// A run whose teacher is taken in, with a budget that needs no table.
fn run_in(folder: &Path, change: impl FnOnce(&mut Config)) -> PathBuf {
    let graph = zoo::build(TEACHER, &ZooOptions::default()).unwrap();
    let weights = init::random(&graph, 3).to_bytes();
    let mut config = Config {
        teacher: TEACHER.into(),
        layers: LayerRules::alone(),
        train: "generated:shapes?images=64".into(),
        val: "generated:shapes?images=8&split=val".into(),
        budgets: vec!["params=0.5x".parse::<Budget>().unwrap()],
        pool: "identity,narrow-w0.25,bottleneck-w0.25".into(),
        workers: 2,
        pretrain: PretrainConfig { images: 320, batch: 8, checkpoint_s: 1e-6, ..PretrainConfig::default() },
        ..Config::default()
    };
    change(&mut config);
    fs::create_dir_all(folder.join("teacher")).unwrap();
    fs::write(folder.join("run.toml"), config.to_toml()).unwrap();
    fs::write(folder.join("teacher/weights.safetensors"), &weights).unwrap();
    let val = lana::Accuracy { top1: 0.1, top5: 0.5, loss: 2.3, images: 8 };
    let files = BTreeMap::from([("weights.safetensors".to_string(), sha256(&weights))]);
    let metrics = TeacherMetrics { name: TEACHER.into(), val, cost: graph.cost(), files };
    write_json(&folder.join("teacher/metrics.json"), &metrics).unwrap();
    folder.to_path_buf()
}

/// The operations of a run, weights and records, by their path.
fn operations(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut left = vec![run.join("operations")];
    left.retain(|folder| folder.is_dir());
    while let Some(next) = left.pop() {
        for entry in fs::read_dir(&next).unwrap().flatten() {
            match entry.path() {
                path if path.is_dir() => left.push(path),
                path if path.extension().is_some_and(|e| e == "lock") => {}
                path => {
                    found.insert(path.strip_prefix(run).unwrap().to_path_buf(), fs::read(&path).unwrap());
                }
            }
        }
    }
    found
}

fn whole(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    pretrain(run, &PretrainOptions::default(), &Silent).unwrap();
    operations(run)
}

/// Collects what is said.
#[derive(Default)]
struct Listening(std::sync::Mutex<String>);

impl Progress for Listening {
    fn say(&self, line: &str) {
        *self.0.lock().unwrap() += &format!("{line}\n");
    }

    fn warn(&self, line: &str) {
        self.say(line);
    }
}

/// Changes what stands in run.toml.
fn reconfigure(run: &Path, change: impl FnOnce(&mut Config)) {
    let mut config = Config::load(&run.join("run.toml")).unwrap();
    change(&mut config);
    fs::write(run.join("run.toml"), config.to_toml()).unwrap();
}

#[test]
fn threads_passes_and_shards_change_nothing() {
    let folder = TempDir::new().unwrap();
    let few = |config: &mut Config| config.pretrain.images = 64;
    let reference = whole(&run_in(&folder.path().join("reference"), few));
    assert_eq!(reference.len(), 2 * 2 * 9, "{:?}", reference.keys());

    let one_thread = run_in(&folder.path().join("one"), |config| {
        few(config);
        config.workers = 1;
    });
    assert!(whole(&one_thread) == reference, "threads made a difference");

    // So little memory that it takes several passes: twice what one operation says it needs.
    let passes = run_in(&folder.path().join("passes"), few);
    let options = |memory: Memory| PretrainOptions { memory: Some(memory), ..PretrainOptions::default() };
    let error = pretrain(&passes, &options(Memory(1 << 20)), &Silent).unwrap_err();
    assert!(error.to_string().contains("alone needs") && error.exit_status() == 2, "{error}");
    let words = error.to_string();
    let needed: f64 = words.split("needs ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    let unit = if words.contains("needs") && words.ends_with("GiB") { 30 } else { 20 };
    let listening = Listening::default();
    let enough = Memory((needed * 1.02 * f64::from(1u32 << unit)) as u64 + (3 << 20));
    pretrain(&passes, &options(enough), &listening).unwrap();
    let said = listening.0.into_inner().unwrap();
    assert!(said.contains(" passes "), "{said}");
    assert!(operations(&passes) == reference, "passes made a difference");

    let shards = run_in(&folder.path().join("shards"), few);
    for shard in ["2/3", "1/3", "3/3"] {
        let before = operations(&shards).len();
        let options = PretrainOptions { shard: Some(shard.parse().unwrap()), ..PretrainOptions::default() };
        pretrain(&shards, &options, &Silent).unwrap();
        assert!(operations(&shards).len() > before, "{shard} did nothing");
    }
    assert!(operations(&shards) == reference, "shards made a difference");
}

#[test]
fn an_operation_that_diverges_is_started_again_then_given_up_and_harms_no_other() {
    let folder = TempDir::new().unwrap();
    let run = run_in(&folder.path().join("run"), |config| {
        config.pretrain.images = 320;
        // No operation survives this, nor half of it.
        config.pretrain.learning_rate = 1e8;
    });
    let listening = Listening::default();
    let error = pretrain(&run, &PretrainOptions::default(), &listening).unwrap_err();
    assert!(error.to_string().contains("every operation diverged"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("pretrain.learning_rate")), "{error}");
    let said = listening.0.into_inner().unwrap();
    assert!(said.contains("starts again with half the learning rate") && said.contains("given up"), "{said}");
    let record: OperationRecord =
        read_json(&run.join("operations/layer1.0/narrow-w0.25.json")).unwrap().unwrap();
    assert!(record.failed && record.restarts == 1, "{record:?}");
    // Whoever comes next says it too, and does not ask for what has been done.
    let error = run_stage(&run, Stage::Score, &[], &Silent).unwrap_err();
    assert!(error.to_string().contains("every operation diverged"), "{error}");
}

#[test]
fn an_operation_that_blows_up_and_dies_to_zeros_has_diverged() {
    let folder = TempDir::new().unwrap();
    let run = run_in(&folder.path().join("run"), |config| {
        config.pool = "identity,narrow-w0.25".into();
        // Two steps to a point of the curve.
        config.pretrain.images = 96 * 8;
        config.pretrain.learning_rate = 30.0;
    });
    // Some operations may come through.
    let _ = pretrain(&run, &PretrainOptions::default(), &Silent);
    let made = operations(&run);
    let records = made.iter().filter(|(path, _)| path.extension().is_some_and(|e| e == "json"));
    let records: Vec<OperationRecord> =
        records.map(|(_, bytes)| serde_json::from_slice(bytes).unwrap()).collect();
    assert_eq!(records.len(), 9);
    assert!(records.iter().any(|record| record.failed && record.restarts == 1), "{records:?}");
    // Who died to zeros, whose error is 1, is not taken for an operation, unless it began worse.
    for record in records.iter().filter(|record| !record.failed) {
        let (first, last) = (record.first_error.unwrap(), record.curve.last().unwrap().1);
        assert!(last <= first.max(0.99), "{}: {first} at first, {last} at last", record.layer);
    }
}

#[test]
fn a_second_process_is_refused_and_shards_exclude_only_their_like() {
    let folder = TempDir::new().unwrap();
    let path = run_in(&folder.path().join("run"), |config| config.pretrain.images = 16);
    let shard =
        |text: &str| PretrainOptions { shard: Some(text.parse().unwrap()), ..PretrainOptions::default() };
    let mut held = lana::Run::open(&path).unwrap();
    held.lock_shard("1/2".parse().unwrap()).unwrap();
    for options in [PretrainOptions::default(), shard("1/2")] {
        let error = pretrain(&path, &options, &Silent).unwrap_err();
        assert!(matches!(error, Error::Busy { .. }), "{error}");
    }
    // Other parts than halves would be the same operations again.
    let error = pretrain(&path, &shard("1/3"), &Silent).unwrap_err();
    assert!(error.to_string().contains("shard 1/2") && error.to_string().contains("shard 1/3"), "{error}");
    assert!(error.exit_status() == 2 && operations(&path).is_empty(), "{error}");
    pretrain(&path, &shard("2/2"), &Silent).unwrap();
    // Nobody says how long the other half will take.
    let stages = status(&path).unwrap().stages;
    let stage = stages.iter().find(|stage| stage.stage == "pretrain").unwrap();
    assert!(stage.done > 0 && stage.done < stage.total && stage.eta_s.is_none(), "{stage:?}");
    drop(held);
    // Once nobody works on a half, there may be thirds.
    pretrain(&path, &shard("3/3"), &Silent).unwrap();
    let mut held = lana::Run::open(&path).unwrap();
    held.lock().unwrap();
    assert!(matches!(pretrain(&path, &shard("1/2"), &Silent).unwrap_err(), Error::Busy { .. }));
}

/// Writes a byte for every batch, to count the work of processes that are killed.
struct Counting(PathBuf);

impl Progress for Counting {
    fn advance(&self, _done: u64, _note: &str) {
        OpenOptions::new().create(true).append(true).open(&self.0).unwrap().write_all(b".").unwrap();
    }

    fn say(&self, line: &str) {
        eprintln!("{line}");
    }

    fn warn(&self, line: &str) {
        self.say(line);
    }
}

const CHILD: &str = "LANA_TEST_PHASE1_RUN";
/// Memory that it may take.
const CHILD_MEMORY: &str = "LANA_TEST_PHASE1_MEMORY";
const CHILD_ARGUMENTS: [&str; 4] = ["--exact", "child", "--test-threads=1", "--nocapture"];

/// No test: the process that others start, kill and starve.
#[test]
fn child() {
    let Some(run) = std::env::var_os(CHILD) else { return };
    let run = PathBuf::from(run);
    let memory = std::env::var(CHILD_MEMORY).ok().map(|memory| memory.parse().unwrap());
    let options = PretrainOptions { memory, ..PretrainOptions::default() };
    pretrain(&run, &options, &Counting(run.join("batches"))).unwrap();
}

#[cfg(unix)]
#[test]
fn killed_ten_times_it_ends_with_the_same_files_and_hardly_more_work() {
    let small = |config: &mut Config| {
        config.pool = "identity,narrow-w0.125".into();
        config.pretrain.images = 4 * BATCHES as usize;
        config.pretrain.batch = 4;
    };
    let folder = TempDir::new().unwrap();
    let reference = run_in(&folder.path().join("reference"), small);
    let start = |run: &Path| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(CHILD_ARGUMENTS).env(CHILD, run).stdout(Stdio::null()).spawn().unwrap()
    };
    let batches = |run: &Path| fs::metadata(run.join("batches")).map_or(0, |m| m.len());
    // 5 % of all batches.
    let tolerated = BATCHES / 20;
    assert!(start(&reference).wait().unwrap().success());
    let all = batches(&reference);

    let run = run_in(&folder.path().join("killed"), small);
    let (mut kills, mut state) = (0u64, 12345u64);
    while kills < 10 {
        let mut child = start(&run);
        // At a moment that nobody chose, a batch or so after the part of the way that is this kill's.
        let before = (kills + 1) * all / 11;
        let begun = Instant::now();
        while batches(&run) < before && begun.elapsed() < Duration::from_secs(60) {
            std::thread::sleep(Duration::from_millis(1));
        }
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        std::thread::sleep(Duration::from_micros((state >> 33) % 100_000));
        // On Unix this is SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        kills += 1;
    }
    assert!(start(&run).wait().unwrap().success());
    let (reference, killed) = (operations(&reference), operations(&run));
    assert_eq!(reference.keys().collect::<Vec<_>>(), killed.keys().collect::<Vec<_>>());
    for (name, bytes) in &reference {
        assert!(killed[name] == *bytes, "{} differs", name.display());
    }
    // A batch is counted before it can be in a checkpoint, so at most two are lost with each kill.
    let done = batches(&run);
    assert!(done >= all && done <= all + tolerated, "{done} batches, {all} without kills");
}

/// Takes the images away after a few batches.
struct Vanishing<'a> {
    data: &'a Path,
    after: AtomicU32,
}

impl Progress for Vanishing<'_> {
    fn advance(&self, _done: u64, _note: &str) {
        if self.after.fetch_sub(1, Ordering::Relaxed) == 1 {
            OpenOptions::new().write(true).open(self.data).unwrap().set_len(0).unwrap();
        }
    }
}

/// Makes a file of so many black images that they are not kept in memory. None of them takes room on the disk.
fn make_images(data: &Path) {
    File::create(data).unwrap().set_len(3073 * 360_000).unwrap();
}

/// Takes images from a file that [`make_images`] makes.
fn from_file(data: &Path) -> impl Fn(&mut Config) {
    move |config| {
        config.train = format!("cifar10:{}", data.display());
        config.pool = "identity,narrow-w0.125".into();
        config.pretrain.images = 320;
        // No checkpoint but the one that the lack of images brings about.
        config.pretrain.checkpoint_s = 1e6;
    }
}

/// Begins phase 1 and interrupts it after a few batches, by taking the images away. They are there again afterwards.
fn interrupt(run: &Path, data: &Path, shard: Option<&str>) {
    let vanishing = Vanishing { data, after: AtomicU32::new(4) };
    let shard = shard.map(|shard| shard.parse().unwrap());
    let error =
        pretrain(run, &PretrainOptions { shard, ..PretrainOptions::default() }, &vanishing).unwrap_err();
    assert!(error.to_string().contains("images.bin"), "{error}");
    make_images(data);
}

#[test]
fn images_that_vanish_are_named_and_nothing_learnt_is_lost() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("images.bin");
    let make = || make_images(&data);
    make();
    let reference = whole(&run_in(&folder.path().join("reference"), from_file(&data)));
    let run = run_in(&folder.path().join("run"), from_file(&data));
    let vanishing = Vanishing { data: &data, after: AtomicU32::new(9) };
    let error = pretrain(&run, &PretrainOptions::default(), &vanishing).unwrap_err();
    assert!(error.to_string().contains("images.bin") && error.exit_status() == 2, "{error}");
    assert!(run.join("operations/checkpoint.json").exists());
    // Again without images, and without the file.
    for _ in 0..2 {
        let error = pretrain(&run, &PretrainOptions::default(), &Silent).unwrap_err();
        assert!(error.to_string().contains("images.bin") && error.exit_status() == 2, "{error}");
        let _ = fs::remove_file(&data);
    }
    make();
    let listening = Listening::default();
    pretrain(&run, &PretrainOptions::default(), &listening).unwrap();
    let said = listening.0.into_inner().unwrap();
    assert!(said.contains("goes on at step") && !said.contains("goes on at step 0 "), "{said}");
    assert!(operations(&run) == reference, "the interruption made a difference");
}

#[test]
fn a_checkpoint_made_by_another_recipe_is_not_gone_on_with() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("images.bin");
    make_images(&data);
    let slower = |config: &mut Config| {
        from_file(&data)(config);
        config.pretrain.learning_rate = 1e-3;
    };
    let reference = whole(&run_in(&folder.path().join("reference"), slower));
    let run = run_in(&folder.path().join("run"), from_file(&data));
    interrupt(&run, &data, None);
    reconfigure(&run, |config| config.pretrain.learning_rate = 1e-3);
    let listening = Listening::default();
    pretrain(&run, &PretrainOptions::default(), &listening).unwrap();
    let said = listening.0.into_inner().unwrap();
    assert!(said.contains("was made with other settings") && said.contains("rate 0.001"), "{said}");
    assert!(!said.contains("goes on at step"), "{said}");
    assert!(operations(&run) == reference, "the other recipe left its marks");
}

#[test]
fn what_an_interrupted_shard_leaves_goes_when_its_work_is_done_by_others() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("images.bin");
    make_images(&data);
    let run = run_in(&folder.path().join("run"), from_file(&data));
    interrupt(&run, &data, Some("2/3"));
    assert!(run.join("operations/shard-2-of-3/checkpoint.json").exists());
    pretrain(&run, &PretrainOptions::default(), &Silent).unwrap();
    let names = || -> Vec<String> {
        let entries = fs::read_dir(run.join("operations")).unwrap().flatten();
        entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    assert!(names().len() == 9 && names().iter().all(|name| name.starts_with("layer")), "{:?}", names());
    // Also where everything had been done already.
    fs::create_dir(run.join("operations/shard-1-of-2")).unwrap();
    pretrain(&run, &PretrainOptions::default(), &Silent).unwrap();
    assert_eq!(names().len(), 9, "{:?}", names());
}

#[test]
fn memory_given_when_a_pass_goes_on_is_kept_to() {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("images.bin");
    make_images(&data);
    let run = run_in(&folder.path().join("run"), |config| {
        from_file(&data)(config);
        config.pretrain.batch = 64;
        config.pretrain.images = 64 * 10;
    });
    interrupt(&run, &data, None);
    // In processes of their own, whose memory no other test takes a part in.
    let go_on = |memory: Memory| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(CHILD_ARGUMENTS).env(CHILD, &run).env(CHILD_MEMORY, memory.to_string());
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = go_on(Memory(1 << 20));
    assert!(!done && said.contains("--memory SIZE") && said.contains("run.toml"), "{said}");
    let needed = said.split("alone needs ").nth(1).unwrap().split_once(' ').unwrap();
    let unit: u64 = if needed.1.starts_with("GiB") { 1 << 30 } else { 1 << 20 };
    let needed = Memory((needed.0.parse::<f64>().unwrap() * unit as f64) as u64 + (16 << 20));
    let (done, said) = go_on(needed);
    assert!(done && said.contains("its operations are packed anew") && said.contains(" passes "), "{said}");
    assert!(!said.contains("goes on at step"), "{said}");
}

#[test]
fn formats_are_decided_once_and_kept_to() {
    let folder = TempDir::new().unwrap();
    let small = |config: &mut Config| {
        config.pool = "identity,narrow-w0.125".into();
        config.pretrain.images = 32;
        config.pretrain.precision = Precision::Bf16;
    };
    // Whatever is decided here is written down, and goes on.
    let run = run_in(&folder.path().join("run"), small);
    assert_eq!(status(&run).unwrap().precision, None);
    pretrain(&run, &PretrainOptions { shard: Some("1/2".parse().unwrap()), memory: None }, &Silent).unwrap();
    let decided = status(&run).unwrap().precision.unwrap();
    assert!(decided.device == "cpu" && decided.seconds.is_some(), "{decided:?}");
    assert_eq!(decided.teacher_error.is_some(), decided.operations == Precision::Bf16, "{decided:?}");
    let listening = Listening::default();
    pretrain(&run, &PretrainOptions::default(), &listening).unwrap();
    assert_eq!(status(&run).unwrap().precision, Some(decided.clone()));
    let said = listening.0.into_inner().unwrap();
    assert!(!said.contains("on this processor") && !said.contains("the teacher runs"), "{said}");

    // What stands there is what is done.
    let with = |name: &str, operations, teacher| {
        let run = run_in(&folder.path().join(name), small);
        let record = PretrainPrecision { operations, teacher, ..decided.clone() };
        write_json(&run.join("operations/precision.json"), &record).unwrap();
        let mut made = whole(&run);
        made.remove(Path::new("operations/precision.json"));
        made
    };
    let plain = with("plain", Precision::Fp32, Precision::Fp32);
    let half = with("half", Precision::Bf16, Precision::Fp32);
    let all = with("all", Precision::Bf16, Precision::Bf16);
    assert!(plain != half && half != all && plain != all, "the formats make no difference");
}

#[test]
fn scores_are_kept_for_the_same_images_batch_and_seed_alone() {
    let folder = TempDir::new().unwrap();
    let run = run_in(&folder.path().join("run"), |config| {
        config.pool = "identity,narrow-w0.125".into();
        config.pretrain.images = 16;
        config.score.images = 32;
        config.score.batch = 16;
    });
    pretrain(&run, &PretrainOptions::default(), &Silent).unwrap();
    let path = run.join("scores.json");
    let score = || -> Scores {
        run_stage(&run, Stage::Score, &[], &Silent).unwrap();
        read_json(&path).unwrap().unwrap()
    };
    // No score is this; where it stays, nothing was computed.
    let mark = || write_json(&path, &Scores { teacher_loss: -7.0, ..score() }).unwrap();
    let is_kept = || score().teacher_loss == -7.0;
    mark();
    assert!(is_kept());
    type Change = fn(&mut Config);
    let changes: [(&str, Change); 4] = [
        ("batch", |config| config.score.batch = 8),
        ("seed", |config| config.seed += 1),
        ("images", |config| config.score.images = 100),
        // More than there are, both times.
        ("asked", |config| config.score.images = 200),
    ];
    for (name, change) in changes {
        reconfigure(&run, change);
        assert!(!is_kept(), "scores with another {name} were kept");
        mark();
        assert!(is_kept(), "scores with the same {name} were made again");
    }
    let scores = score();
    assert_eq!((scores.asked, scores.images, scores.batch, scores.seed), (Some(200), 64, 8, 1));
    // Both kinds are there; which of them is used changes nothing here.
    reconfigure(&run, |config| config.score.by = "loss".into());
    assert!(is_kept());
}

#[test]
fn feature_maps_that_are_not_finite_end_it_before_anything_is_written() {
    let folder = TempDir::new().unwrap();
    let run = run_in(&folder.path().join("run"), |config| config.pretrain.images = 320);
    let path = run.join("teacher/weights.safetensors");
    let mut weights = Weights::load(&path).unwrap();
    let mut kernel = weights.get("layer2.0.conv1.weight").unwrap().clone();
    kernel.data[0] = f32::NAN;
    weights.insert("layer2.0.conv1.weight", kernel);
    let bytes = weights.to_bytes();
    fs::write(&path, &bytes).unwrap();
    let mut metrics: TeacherMetrics = read_json(&run.join("teacher/metrics.json")).unwrap().unwrap();
    metrics.files.insert("weights.safetensors".into(), sha256(&bytes));
    write_json(&run.join("teacher/metrics.json"), &metrics).unwrap();
    let error = pretrain(&run, &PretrainOptions::default(), &Silent).unwrap_err();
    assert!(error.to_string().contains("layer2.0") && error.exit_status() == 2, "{error}");
    assert!(operations(&run).is_empty());
}

#[cfg(unix)]
#[test]
fn a_full_disk_ends_it_only_where_an_operation_does_not_fit_and_nothing_written_is_lost() {
    let folder = TempDir::new().unwrap();
    let small = |config: &mut Config| {
        config.pool = "identity,narrow-w0.125".into();
        config.pretrain.images = 160;
        // All of them are done at the same time, and written in the order of their layers.
        config.pretrain.early_stop = false;
    };
    let reference = whole(&run_in(&folder.path().join("reference"), small));
    // Files may grow to so many half kilobytes. Who ignores the signal gets an error, as from a full disk.
    let limited = |run: &Path, most: u32| {
        let output = Command::new("sh")
            .args(["-c", &format!("trap '' XFSZ; ulimit -f {most}; exec \"$0\" \"$@\"")])
            .arg(std::env::current_exe().unwrap())
            .args(CHILD_ARGUMENTS)
            .env(CHILD, run)
            .output()
            .unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // Enough for an operation (40 kB at most), too little for a checkpoint of all nine: it is said once, and it goes on.
    let run = run_in(&folder.path().join("cramped"), small);
    let (done, said) = limited(&run, 128);
    assert!(done && said.matches("no room for a checkpoint").count() == 1, "{said}");
    assert!(operations(&run) == reference, "the lack of checkpoints made a difference");

    // Too little for the operations of the last stage: those before them are kept.
    let run = run_in(&folder.path().join("full"), small);
    let (done, said) = limited(&run, 64);
    assert!(!done && said.contains("layer3.") && said.contains("FileTooLarge"), "{said}");
    let left = operations(&run);
    assert!(left.len() >= 2 * 6 && left.len() < reference.len(), "{:?}", left.keys());
    assert!(left.iter().all(|(path, bytes)| reference[path] == *bytes));
    assert!(whole(&run) == reference, "the full disk made a difference");
}
