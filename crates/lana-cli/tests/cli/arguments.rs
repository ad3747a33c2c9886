use predicates::prelude::*;
use predicates::str::{contains, is_match, starts_with};
use serde_json::Value;

use crate::lana;

/// Everything `accelerate` needs but for the budget, in a folder that nothing is written to.
const TEACHER: [&str; 7] = [
    "accelerate",
    "--teacher=resnet20_cifar",
    "--weights=no-such-weights.safetensors",
    "--train=cifar10:no-such-train",
    "--val=cifar10:no-such-val",
    "--device=cpu",
    "--batch=64",
];

#[test]
fn wrong_budgets_are_wrong_arguments() {
    let folder = tempfile::tempdir().unwrap();
    for budget in ["12", "fast", "0x", "-1ms", "nanx", "size=3", "0.5x,12ms"] {
        lana()
            .args(TEACHER)
            .arg(format!("--budget={budget}"))
            .arg("--out")
            .arg(folder.path().join("run"))
            .assert()
            .code(2)
            .stdout("")
            .stderr(starts_with(format!("error: budget `{budget}`")).and(contains("\nhint: write `0.5x`")));
    }
    for command in [&["select", "run"][..], &["finetune", "run"], &["export", "run"], &["demo"]] {
        lana().args(command).arg("--budget=12").assert().code(2).stdout("").stderr(contains("budget `12`"));
    }
    assert!(!folder.path().join("run").exists());
}

#[test]
fn what_is_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("run");
    for (options, named) in [
        (&["--teacher=resnet20_cifar", "--train=generated:shapes", "--budget=0.5x"][..], "`val`"),
        (&["--teacher=resnet20_cifar", "--val=generated:shapes", "--budget=0.5x"], "`train`"),
        (&["--train=generated:shapes", "--val=generated:shapes", "--budget=0.5x"], "`teacher`"),
        (&["--teacher=resnet20_cifar", "--train=generated:shapes", "--val=generated:shapes"], "budget"),
        (&["--config=no-such-file.toml"], "no-such-file.toml"),
    ] {
        lana()
            .arg("accelerate")
            .args(options)
            .arg("--out")
            .arg(&out)
            .assert()
            .code(2)
            .stderr(contains(named));
    }
    lana().args(TEACHER).args(["--budget=0.5x"]).assert().code(2).stderr(contains("--out"));
    assert!(!out.exists());
}

#[test]
fn weights_that_the_hub_cannot_give() {
    let folder = tempfile::tempdir().unwrap();
    // Nobody listens at port 9.
    let evaluate = |weights: &str| {
        let mut command = lana();
        command.env("HF_ENDPOINT", "http://127.0.0.1:9").env("HF_HOME", folder.path());
        command.env_remove("HF_HUB_CACHE").env_remove("HF_TOKEN");
        command.args(["evaluate", "resnet20_cifar", "--data=generated:shapes", "--weights", weights]);
        command.assert().stdout("")
    };
    evaluate("hf:timm/tiny").code(1).stderr(
        contains("error: `hf:timm/tiny` cannot be fetched")
            .and(contains("hint: download http://127.0.0.1:9/timm/tiny/resolve/main/model.safetensors"))
            .and(contains("--weights FILE")),
    );
    evaluate("hf:tiny")
        .code(2)
        .stderr(contains("error: weights `hf:tiny`").and(contains("hint: such as hf:")));
}

#[test]
fn wrong_values_are_wrong_arguments() {
    let folder = tempfile::tempdir().unwrap();
    for option in
        ["--device=tpu", "--runtime=tensorrt", "--batch=0", "--threads=0", "--images=0", "--epochs=few"]
    {
        let (name, _) = option.split_once('=').unwrap();
        lana()
            .args([
                "accelerate",
                "--teacher=resnet20_cifar",
                "--train=generated:shapes",
                "--val=generated:shapes",
            ])
            .args(["--budget=0.5x", option])
            .arg("--out")
            .arg(folder.path())
            .assert()
            .code(2)
            .stdout("")
            .stderr(contains(name.trim_start_matches('-')));
    }
}

#[test]
fn unknown_teachers_are_answered_with_the_nearest_names() {
    lana()
        .args(["pool", "--teacher", "resnet57_cifar"])
        .assert()
        .code(2)
        .stderr(starts_with("error: ").and(contains("`resnet57_cifar`")).and(contains("resnet56_cifar")));
    let folder = tempfile::tempdir().unwrap();
    lana()
        .args([
            "accelerate",
            "--teacher=resnet57_cifar",
            "--train=generated:shapes",
            "--val=generated:shapes",
        ])
        .args(["--budget=0.5x", "--out"])
        .arg(folder.path().join("run"))
        .assert()
        .code(2)
        .stderr(contains("resnet56_cifar"));
}

#[test]
fn onnx_teachers_must_be_there_and_bring_their_weights() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("mine.onnx");
    let accelerate = |options: &[&str]| {
        lana()
            .args(["accelerate", "--train=generated:shapes", "--val=generated:shapes", "--budget=0.5x"])
            .arg("--teacher")
            .arg(&file)
            .arg("--out")
            .arg(folder.path().join("run"))
            .args(options)
            .assert()
            .code(2)
    };
    accelerate(&[]).stderr(contains("mine.onnx").and(contains("there is no such file")));
    accelerate(&["--weights=w.safetensors"])
        .stderr(contains("mine.onnx").and(contains("--weights")).and(contains("\nhint: leave out")));
    accelerate(&["--std=0.2,0,0.2"]).stderr(contains("greater than 0"));
    std::fs::write(&file, "no network").unwrap();
    accelerate(&[]).stderr(contains("mine.onnx"));
    lana().arg("layers").arg(&file).assert().code(2).stderr(contains("mine.onnx"));
}

#[test]
fn files_must_be_there() {
    lana().arg("measure").assert().code(2).stderr(contains("FILE.onnx"));
    lana().args(["measure", "no-such.onnx"]).assert().code(2).stderr(contains("no-such.onnx"));
    lana().args(["measure", "a.onnx", "--time-limit=nan"]).assert().code(2).stderr(contains("positive"));
    lana().args(["evaluate", "resnet20_cifar"]).assert().code(2).stderr(contains("--data"));
    lana()
        .args(["evaluate", "no-such.onnx", "--data=generated:shapes"])
        .assert()
        .code(2)
        .stderr(contains("no-such.onnx"));
    lana()
        .args(["evaluate", "resnet20_cifar", "--weights=no-such.safetensors", "--data=generated:shapes"])
        .assert()
        .code(2)
        .stderr(contains("no-such.safetensors"));
    lana()
        .args(["evaluate", "a.onnx", "--data=generated:shapes", "--std=0,1,1"])
        .assert()
        .code(2)
        .stderr(contains("--std"));
}

#[test]
fn stages_need_a_run() {
    let folder = tempfile::tempdir().unwrap();
    for command in ["profile", "pretrain", "score", "select", "finetune", "export", "report", "status"] {
        lana().arg(command).assert().code(2).stderr(contains("RUN"));
        lana()
            .arg(command)
            .arg(folder.path())
            .assert()
            .code(2)
            .stdout("")
            .stderr(starts_with("error: ").and(contains("run.toml")));
    }
}

#[test]
fn what_is_no_bundle_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("edge.lana");
    let measure = || {
        let mut lana = lana();
        lana.args(["profile", "--from-bundle"]).arg(&file).current_dir(folder.path());
        lana
    };
    measure().assert().code(2).stderr(contains("edge.lana"));
    std::fs::write(&file, "no bundle").unwrap();
    measure().assert().code(2).stdout("").stderr(contains("edge.lana: is no bundle"));
    std::fs::write(&file, "{\"checksum\":\"12\",\"format\":1,\"pl").unwrap();
    measure().assert().code(2).stderr(contains("is not whole").and(contains("--bundle")));
    // One thing at a time.
    lana().args(["profile", "run", "--bundle=a", "--import=b"]).assert().code(2);
    lana().args(["profile", "run", "--from-bundle=a"]).assert().code(2);
    lana().args(["profile", "run", "--seed=1"]).assert().code(2);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn a_damaged_run_toml_is_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("run.toml"), "teacher = \"resnet20_cifar\"\nbatch = 7\n").unwrap();
    lana()
        .args(["accelerate", "--out"])
        .arg(folder.path())
        .assert()
        .code(2)
        .stderr(is_match("error: .*run.toml: .*batch").unwrap());
}

#[test]
fn the_zoo_is_listed() {
    lana().arg("zoo").assert().success().stdout(contains("resnet56_cifar").and(contains("MACs"))).stderr("");
    let assert = lana().args(["zoo", "--json"]).assert().success();
    let zoo: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    let teachers = zoo["teachers"].as_array().unwrap();
    let resnet56 = teachers.iter().find(|teacher| teacher["name"] == "resnet56_cifar").unwrap();
    assert_eq!(resnet56["blocks"], 27);
    assert_eq!(resnet56["params"], 853_018);
    assert_eq!(resnet56["input"], serde_json::json!([3, 32, 32]));
}

#[test]
fn a_teacher_of_the_zoo_is_shown_with_its_blocks() {
    lana()
        .args(["zoo", "efficientnet_b2"])
        .assert()
        .success()
        .stdout(contains("blocks.3.2").and(contains("stem and head")).and(contains("3×256×256")))
        .stderr("");
    let options = ["--json", "--resolution=65", "--num-classes=7"];
    let assert = lana().args(["zoo", "tf_efficientnet_b6"]).args(options).assert().success();
    let network: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(network["input"], serde_json::json!([3, 65, 65]));
    assert_eq!(network["classes"], 7);
    assert_eq!(network["blocks"].as_array().unwrap().len(), 45);
    assert_eq!(network["blocks"][0]["output"], serde_json::json!([32, 33, 33]));
    lana().args(["zoo", "efficientnet_b9"]).assert().code(2).stderr(contains("nearest: efficientnet_b"));
    lana().args(["zoo", "--resolution=65"]).assert().code(2).stderr(contains("lana zoo efficientnet_b2"));
    lana().args(["zoo", "efficientnet_b0", "--resolution=4"]).assert().code(2).stderr(contains("too small"));
}

#[test]
fn the_pool_is_listed() {
    lana()
        .arg("pool")
        .assert()
        .success()
        .stdout(contains("narrow-w0.5").and(contains("identity")))
        .stderr("");
    lana()
        .args(["pool", "--teacher=resnet20_cifar", "--layer=layer2.0-2"])
        .assert()
        .success()
        .stdout(contains("16×32×32 to 32×16×16").and(contains("Do not apply:\n  identity: ")));
    lana()
        .args(["pool", "--teacher=resnet20_cifar", "--layer=layer9.0"])
        .assert()
        .code(2)
        .stderr(contains("layer9.0").and(contains("layer1.0-2")));
    lana().args(["pool", "--pool=narow-w0.5"]).assert().code(2).stderr(contains("narrow-w0.5"));
    let assert = lana()
        .args(["pool", "--teacher=resnet20_cifar", "--group=1", "--layer=layer1.0", "--json"])
        .assert()
        .success();
    let pool: Value = serde_json::from_slice(&assert.get_output().stdout).unwrap();
    assert_eq!(pool["teacher"], "resnet20_cifar");
    assert_eq!(pool["layers"][0]["layer"], "layer1.0");
    assert_eq!(pool["layers"][0]["operations"][0]["name"], "teacher");
}

#[test]
fn a_wrong_log_filter_is_named() {
    lana().arg("zoo").env("LANA_LOG", "lana=loud").assert().code(2).stderr(contains("LANA_LOG"));
    lana().arg("zoo").env("LANA_LOG", "info").assert().success();
}
