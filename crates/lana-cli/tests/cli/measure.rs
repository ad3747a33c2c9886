use predicates::prelude::*;
use predicates::str::contains;

use crate::lana;

#[test]
fn what_no_runtime_can_do_is_refused_before_files_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.onnx");
    std::fs::write(&file, "no model").unwrap();
    let measure = |options: &[&str]| {
        let mut command = lana();
        command.arg("measure").arg(&file).args(options);
        command.assert().code(2).stdout("")
    };
    for options in
        [&["--runtime=tensorrt"][..], &["--precision=bf16"], &["--runtime=tensorrt", "--precision=fp16"]]
    {
        measure(options).stderr(contains("error: cpu-").and(contains("torch all three on both")));
    }
    for (option, cure) in [
        ("--runtime=tvm", "onnxruntime, tensorrt, torch"),
        ("--processor=tpu", "cpu, cuda"),
        ("--precision=int8", "fp32, fp16, bf16"),
        ("--shape=x=1xN", "NAME=1x3x224x224"),
        ("--dim=8", "NAME=N"),
        ("--target-error=0", "positive"),
        ("--batch=0", "--batch"),
    ] {
        measure(&[option]).stderr(contains(cure));
    }
}

#[cfg(not(feature = "training"))]
#[test]
fn without_training_there_is_what_a_device_needs() {
    lana()
        .arg("--help")
        .assert()
        .success()
        .stdout(contains("measure").and(contains("profile")).and(contains("train").not()));
    lana().args(["profile", "run"]).assert().code(2).stderr(contains("--from-bundle FILE"));
    lana().args(["accelerate"]).assert().code(2);
}
