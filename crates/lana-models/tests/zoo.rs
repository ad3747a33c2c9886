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
fn resnets_and_resnests_have_the_sizes_of_timms() {
    // From timm 1.0's networks at their own resolutions: parameters, multiply-accumulates of convolutions and fully connected
    // layers, blocks; then the first two for one block.
    for (name, params, macs, layers) in [
        ("resnet18", 11_689_512, 1_814_073_344, 8),
        ("resnet34", 21_797_672, 3_663_761_408, 16),
        ("resnet50", 25_557_032, 4_089_184_256, 16),
        ("resnet101", 44_549_160, 7_801_405_440, 33),
        ("resnet152", 60_192_808, 11_513_626_624, 50),
        ("resnest14d", 10_611_688, 2_749_405_184, 4),
        ("resnest26d", 17_069_448, 3_623_391_232, 8),
        ("resnest50d", 27_483_240, 5_371_160_576, 16),
        ("resnest50d_1s4x24d", 25_677_000, 4_399_827_456, 16),
        ("resnest50d_4s2x40d", 30_417_592, 4_369_060_736, 16),
        ("resnest101e", 48_275_016, 13_321_472_000, 33),
        ("resnest200e", 70_201_544, 35_519_694_848, 66),
        ("resnest269e", 110_929_480, 77_348_702_208, 89),
    ] {
        let entry = zoo::entry(name).unwrap();
        assert_eq!((entry.params, entry.macs, entry.layers), (params, macs, layers), "{name}");
    }
    for (name, layer, params, macs) in [
        ("resnet18", "layer1.0", 73_984, 231_211_008),
        ("resnet18", "layer3.0", 919_040, 179_830_784),
        ("resnet50", "layer1.0", 75_008, 231_211_008),
        ("resnet50", "layer2.0", 379_392, 372_506_624),
        ("resnest50d", "layer1.0", 81_504, 231_217_152),
        ("resnest50d", "layer3.0", 1_612_160, 719_421_440),
        ("resnest50d_1s4x24d", "layer2.0", 369_232, 399_004_160),
        ("resnest50d_4s2x40d", "layer3.0", 1_742_144, 386_009_088),
        ("resnest101e", "layer1.0", 101_984, 385_882_112),
    ] {
        let graph = zoo::build(name, &ZooOptions::default()).unwrap();
        let cost = graph.layer_graph(layer).unwrap().cost();
        assert_eq!((cost.params, cost.macs), (params, macs), "{layer} of {name}");
    }
}

#[test]
fn resnets_and_resnests_have_timms_parameter_names() {
    for (name, parameters) in [
        (
            "resnet18",
            &[
                "conv1.weight",
                "bn1.running_var",
                "layer1.1.conv2.weight",
                "layer2.0.downsample.0.weight",
                "layer2.0.downsample.1.bias",
                "fc.bias",
            ][..],
        ),
        ("resnet50", &["layer1.0.downsample.1.weight", "layer4.2.conv3.weight", "layer4.2.bn3.bias"]),
        (
            "resnest14d",
            &[
                "conv1.0.weight",
                "conv1.1.running_mean",
                "conv1.3.weight",
                "conv1.4.weight",
                "conv1.6.weight",
                "bn1.weight",
                "layer1.0.downsample.1.weight",
                "layer1.0.downsample.2.weight",
                "layer3.0.conv2.conv.weight",
                "layer3.0.conv2.bn0.weight",
                "layer3.0.conv2.fc1.bias",
                "layer3.0.conv2.bn1.bias",
                "layer3.0.conv2.fc2.weight",
                "layer3.0.bn3.weight",
            ],
        ),
    ] {
        let graph = zoo::build(name, &ZooOptions::default()).unwrap();
        let names: Vec<String> = graph.parameters().into_iter().map(|p| p.name).collect();
        for parameter in parameters {
            assert!(names.iter().any(|n| n == parameter), "no parameter {parameter} in {name}");
        }
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
        // Large networks are made of the same blocks, and random numbers take their time.
        if entry.params < 12_000_000 {
            init::random(&graph, 1).check(&graph).unwrap();
        }
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
