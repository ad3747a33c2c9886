//! Teachers: known sizes, names of published weights, errors that help.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use lana_graph::Weights;
use lana_models::zoo::{self, ZooOptions};
use lana_models::{Error, init};

#[test]
fn cifar_resnets_have_the_published_sizes() {
    // Trained parameters of the published weights; multiply-accumulates as in He et al. and akamaster's table.
    for (name, params, macs, layers) in [
        ("resnet20_cifar", 269_722, 40_551_040, 9),
        ("resnet32_cifar", 464_154, 68_862_592, 15),
        ("resnet44_cifar", 658_586, 97_174_144, 21),
        ("resnet56_cifar", 853_018, 125_485_696, 27),
        ("resnet110_cifar", 1_727_962, 252_887_680, 54),
    ] {
        let entry = zoo::entry(name).unwrap();
        assert_eq!((entry.params, entry.macs, entry.layers), (params, macs, layers), "{name}");
    }
}

#[test]
fn published_weights_load_unchanged() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/weights");
    let mut found = false;
    for (file, name) in [
        ("resnet20_cifar10", "resnet20_cifar"),
        ("resnet32_cifar10", "resnet32_cifar"),
        ("resnet44_cifar10", "resnet44_cifar"),
        ("resnet56_cifar10", "resnet56_cifar"),
        ("resnet56_cifar10jpeg", "resnet56_cifar"),
    ] {
        let path = folder.join(format!("{file}.safetensors"));
        if !path.exists() {
            continue;
        }
        found = true;
        let graph = zoo::build(name, &ZooOptions::default()).unwrap();
        Weights::load(&path).unwrap().check(&graph).unwrap();
    }
    if !found {
        println!("skipped: no published weights in {}", folder.display());
    }
}

#[test]
fn the_demo_network_is_small_and_cuts_into_layers() {
    let entry = zoo::entry("effnetv2_nano_cifar").unwrap();
    assert!((300_000..1_000_000).contains(&entry.params), "{} parameters", entry.params);
    assert!((20_000_000..40_000_000).contains(&entry.macs), "{} multiply-accumulates", entry.macs);
    assert!((10..=14).contains(&entry.layers), "{} layers", entry.layers);
    println!("{} parameters, {} multiply-accumulates, {} layers", entry.params, entry.macs, entry.layers);
    let graph = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
    let names: Vec<String> = graph.parameters().into_iter().map(|p| p.name).collect();
    for name in [
        "conv_stem.weight",
        "bn1.running_var",
        "blocks.0.0.conv_exp.weight",
        "blocks.0.0.conv_pwl.weight",
        "blocks.0.0.bn2.bias",
        "blocks.2.1.conv_pw.weight",
        "blocks.2.1.conv_dw.weight",
        "blocks.2.1.se.conv_reduce.bias",
        "blocks.2.1.se.conv_expand.weight",
        "blocks.2.1.conv_pwl.weight",
        "blocks.2.1.bn3.weight",
        "conv_head.weight",
        "bn2.weight",
        "classifier.bias",
    ] {
        assert!(names.iter().any(|n| n == name), "no parameter {name}");
    }
}

#[test]
fn every_teacher_is_listed_and_its_layers_cover_the_middle() {
    let list = zoo::list();
    assert!(list.len() >= 6);
    for entry in list {
        let graph = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
        assert_eq!(graph.name(), entry.name);
        assert_eq!(graph.input_shape().dims(), [3, entry.resolution, entry.resolution]);
        assert_eq!(graph.output_shape().dims(), [entry.num_classes]);
        init::random(&graph, 1).check(&graph).unwrap();
        let mut end = graph.layers()[0].nodes.start;
        for layer in graph.layers() {
            assert_eq!(layer.nodes.start, end, "{}: a gap before {}", entry.name, layer.name);
            assert!(layer.name.starts_with(&layer.stage));
            end = layer.nodes.end;
            let prefix = format!("{}.", layer.name);
            assert!(graph.nodes()[layer.nodes.clone()].iter().all(|n| n.name.starts_with(&prefix)));
        }
    }
}

#[test]
fn classes_and_resolution_can_be_chosen() {
    let options = ZooOptions { num_classes: Some(7), resolution: Some(33) };
    for entry in zoo::list() {
        let graph = zoo::build(&entry.name, &options).unwrap();
        assert_eq!(graph.input_shape().dims(), [3, 33, 33]);
        assert_eq!(graph.output_shape().dims(), [7]);
    }
    for options in [
        ZooOptions { num_classes: Some(0), resolution: None },
        ZooOptions { num_classes: None, resolution: Some(0) },
    ] {
        assert!(matches!(zoo::build("resnet20_cifar", &options), Err(Error::Option { .. })));
    }
}

#[test]
fn an_unknown_name_comes_with_the_nearest() {
    let error = zoo::build("resnet65_cifar10", &ZooOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`resnet65_cifar10`"), "{error}");
    assert!(error.contains("resnet56_cifar"), "{error}");
    assert!(error.contains("lana zoo"), "{error}");
}

#[test]
fn random_weights_follow_the_seed_and_the_rules() {
    let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
    let weights = init::random(&graph, 3);
    assert_eq!(weights, init::random(&graph, 3));
    assert_ne!(weights, init::random(&graph, 4));
    assert_ne!(
        weights.get("layer1.0.conv1.weight").unwrap().data,
        weights.get("layer1.1.conv1.weight").unwrap().data
    );
    // Kaiming fan-out: variance 2 / (3 · 3 · 64).
    let kernel = &weights.get("layer3.1.conv1.weight").unwrap().data;
    let variance = kernel.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>() / kernel.len() as f64;
    assert!((variance * 288.0 - 1.0).abs() < 0.05, "{variance}");
    let matrix = &weights.get("linear.weight").unwrap().data;
    assert!(matrix.iter().all(|w| w.abs() <= 0.125) && matrix.iter().any(|w| w.abs() > 0.12));

    let zeroed = init::random_with(&graph, 3, init::InitOptions { zero_last_scale: true });
    for (name, tensor) in zeroed.iter() {
        let all = |x: f32| tensor.data.iter().all(|v| *v == x);
        if name.ends_with("bn2.weight") {
            assert!(all(0.0), "{name}");
        } else if name.ends_with("bn1.weight") {
            assert!(all(1.0), "{name}");
        }
    }
}
