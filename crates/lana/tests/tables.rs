//! Lookup tables that leave the run and come back.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use lana::{
    Accuracy, Config, Error, LatencyConfig, LayerRules, Run, Silent, Stage, TeacherMetrics, force_table,
    import_table, run_stage, sha256, write_bundle, write_json,
};
use lana_latency::{Device, Gpu, OnnxRuntime, Plan, Table, random_weights};
use lana_models::zoo::{self, ZooOptions};
use tempfile::TempDir;

/// A run with a teacher of random weights and two operations a layer.
fn run() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = Config {
        teacher: "resnet20_cifar".into(),
        layers: LayerRules::alone(),
        train: "generated:shapes".into(),
        val: "generated:shapes?split=val".into(),
        pool: "identity,conv-k1".into(),
        workers: 1,
        latency: LatencyConfig { time_limit_s: 2.0, ..LatencyConfig::default() },
        ..Config::default()
    };
    fs::create_dir_all(run.join("teacher")).unwrap();
    fs::write(run.join("run.toml"), config.to_toml()).unwrap();
    let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
    let weights = random_weights(&graph, 1).to_bytes();
    fs::write(run.join("teacher/weights.safetensors"), &weights).unwrap();
    let metrics = TeacherMetrics {
        name: "resnet20_cifar".into(),
        val: Accuracy { top1: 0.1, top5: 0.5, loss: 2.3, images: 100 },
        cost: graph.cost(),
        files: BTreeMap::from([("weights.safetensors".to_string(), sha256(&weights))]),
    };
    write_json(&run.join("teacher/metrics.json"), &metrics).unwrap();
    (folder, run)
}

#[test]
fn a_table_goes_out_and_comes_back() {
    if let Err(reason) = OnnxRuntime::load() {
        eprintln!("skipped: {reason}");
        return;
    }
    let (folder, run) = run();
    let config = || Run::open(&run).unwrap().config().unwrap();
    let before = config();
    let bundle = folder.path().join("bundle.lana");
    let networks = write_bundle(&run, &bundle, Some("b2"), &Silent).unwrap();
    // Nothing of the run is needed any more, and it is small: no weights.
    assert!(fs::metadata(&bundle).unwrap().len() < 1 << 20);
    let plan = Plan::load(&bundle).unwrap();
    assert_eq!((plan.subjects().len(), plan.options().deployment.batch), (networks, 2));
    let error = import_table(&run, &bundle, &Silent).unwrap_err();
    assert!(error.to_string().contains("is a bundle") && error.exit_status() == 2, "{error}");
    let file = folder.path().join("table.json");
    let mut table = plan.measure_to(&file, &mut |_| (), &mut |_| ()).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3, "notes are left");

    // Measured here, it is a table like any other.
    let imported = import_table(&run, &file, &Silent).unwrap();
    assert!(imported.here && imported.table.is_file());
    assert_eq!((config().latency.table, config().latency.batch), (None, 2));
    run_stage(&run, Stage::Profile, &[], &Silent).unwrap();

    // On another device, budgets speak of that one.
    table.device = Device { model: "Small One".into(), logical_cores: 4, ..table.device };
    table.save(&file).unwrap();
    let imported = import_table(&run, &file, &Silent).unwrap();
    assert!(!imported.here);
    assert_eq!(config().latency.table, Some(imported.device.clone()));
    assert_eq!(Table::load(&imported.table).unwrap(), table);
    run_stage(&run, Stage::Profile, &[], &Silent).unwrap();
    assert_eq!(fs::read_dir(run.join("latency")).unwrap().count(), 2);

    // Without that line they speak of this one again.
    let here = Config { latency: LatencyConfig { table: None, ..config().latency }, ..config() };
    fs::write(run.join("run.toml"), here.to_toml()).unwrap();
    run_stage(&run, Stage::Profile, &[], &Silent).unwrap();
    assert_eq!(fs::read_dir(run.join("latency")).unwrap().count(), 2);

    // A table of other networks, half a table, none.
    let other = Config { pool: "identity,conv-k3".into(), ..before };
    fs::write(run.join("run.toml"), other.to_toml()).unwrap();
    let refused = || {
        let error = import_table(&run, &file, &Silent).unwrap_err();
        assert_eq!(error.exit_status(), 2, "{error}");
        error.to_string()
    };
    assert!(refused().contains("other networks"), "{}", refused());
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, &text[..text.len() / 2]).unwrap();
    assert!(refused().contains("table.json: is no whole lookup table"), "{}", refused());
    fs::remove_file(&file).unwrap();
    assert!(matches!(
        import_table(&run, &file, &Silent),
        Err(Error::Latency(lana_latency::Error::Io { .. }))
    ));
}

#[test]
fn a_table_of_another_device_is_refused_unless_it_is_forced() {
    if let Err(reason) = OnnxRuntime::load() {
        eprintln!("skipped: {reason}");
        return;
    }
    let (_folder, run) = run();
    let config = || Run::open(&run).unwrap().config().unwrap();
    let error = force_table(&run, &Silent).unwrap_err();
    assert!(error.to_string().contains("no latency table") && error.exit_status() == 2, "{error}");
    run_stage(&run, Stage::Profile, &[], &Silent).unwrap();
    assert_eq!(force_table(&run, &Silent).unwrap(), None);

    // The run moves to a device of the same name that is another one.
    let file = fs::read_dir(run.join("latency")).unwrap().next().unwrap().unwrap().path();
    let mut table = Table::load(&file).unwrap();
    table.device.architecture = "riscv64".into();
    table.save(&file).unwrap();
    let error = run_stage(&run, Stage::Pretrain, &[], &Silent).unwrap_err().to_string();
    assert!(error.contains("architecture `riscv64` there") && error.contains("--force"), "{error}");

    // And to one of another name.
    let other = file.with_file_name(format!("small-{}", file.file_name().unwrap().to_string_lossy()));
    fs::rename(&file, &other).unwrap();
    let error = run_stage(&run, Stage::Pretrain, &[], &Silent).unwrap_err();
    assert!(
        error.to_string().contains("only of small-") && error.hint().unwrap().contains("--force"),
        "{error}"
    );
    let device = force_table(&run, &Silent).unwrap().unwrap();
    assert!(device.starts_with("small-"), "{device}");
    assert_eq!(config().latency.table, Some(device));
    // Nothing is measured: the table counts.
    run_stage(&run, Stage::Profile, &[], &Silent).unwrap();
    assert_eq!(fs::read_dir(run.join("latency")).unwrap().count(), 1);

    fs::copy(
        &other,
        other.with_file_name(other.file_name().unwrap().to_string_lossy().replacen("small", "tiny", 1)),
    )
    .unwrap();
    let error = force_table(&run, &Silent).unwrap_err();
    assert!(
        error.to_string().contains("several devices") && error.hint().unwrap().contains("table ="),
        "{error}"
    );
}

#[test]
fn a_budget_may_speak_of_processor_and_gpu_of_another_machine() {
    if let Err(reason) = OnnxRuntime::load() {
        eprintln!("skipped: {reason}");
        return;
    }
    let (folder, run) = run();
    let config = || Run::open(&run).unwrap().config().unwrap();
    let bundle = folder.path().join("bundle.lana");
    write_bundle(&run, &bundle, None, &Silent).unwrap();
    let plan = Plan::load(&bundle).unwrap();
    let made = plan.measure_to(&folder.path().join("made.json"), &mut |_| (), &mut |_| ()).unwrap();

    // Tables as a machine with a GPU would have made them.
    let file = folder.path().join("table.json");
    let import = |label: &str, gpu: Option<&str>| {
        let gpu = gpu.map(|name| Gpu {
            name: name.into(),
            memory_mib: Some(80_000),
            max_clock_mhz: None,
            driver: None,
            clock_mhz: None,
            memory_clock_mhz: None,
            power_limit_w: None,
        });
        let kind = if gpu.is_some() { "cuda" } else { "cpu" };
        let device = Device { model: "Far One".into(), kind: kind.into(), gpu, ..made.device.clone() };
        let table = Table { device, deployment: label.parse().unwrap(), ..made.clone() };
        table.save(&file).unwrap();
        import_table(&run, &file, &Silent).unwrap()
    };
    let budget = |text: &str| {
        let config = Config { budgets: vec![text.parse().unwrap()], ..config() };
        fs::write(run.join("run.toml"), config.to_toml()).unwrap();
        run_stage(&run, Stage::Profile, &[], &Silent)
    };
    let both = "cpu-b1:0.5x,cuda-b64:0.6x";
    let cpu = import("cpu-b1", None);
    assert!(!cpu.here && cpu.device.starts_with("far-one-"), "{cpu:?}");
    let error = budget(both).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`far-one-")
            && message.contains("for cuda-onnxruntime-b64-t1-fp32, only for cpu-onnx"),
        "{message}"
    );
    assert!(error.hint().unwrap().contains("--deployment cuda-onnxruntime-b64-t1-fp32"), "{error}");

    let gpu = import("cuda-b64", Some("Big GPU"));
    assert!(gpu.device.starts_with(&format!("{}-big-gpu-", cpu.device)), "{gpu:?}");
    assert_eq!(config().latency.table.as_ref(), Some(&gpu.device));
    budget(both).unwrap();
    // In the other order, too: the GPU's name holds.
    assert_eq!(import("cpu-b1", None).device, gpu.device);
    budget(both).unwrap();
    // And by the machine's name, as long as there is one GPU.
    let by_machine = || {
        let latency = LatencyConfig { table: Some(cpu.device.clone()), ..config().latency };
        fs::write(run.join("run.toml"), Config { latency, ..config() }.to_toml()).unwrap();
        budget(both)
    };
    by_machine().unwrap();
    import("cuda-b64", Some("Other GPU"));
    let error = by_machine().unwrap_err();
    assert!(error.to_string().contains("several GPUs") && error.exit_status() == 2, "{error}");
    assert_eq!(fs::read_dir(run.join("latency")).unwrap().count(), 3, "nothing is measured here");
}
