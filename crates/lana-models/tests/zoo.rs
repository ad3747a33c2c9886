//! Teachers: known sizes, names of published weights, errors that help.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use lana_graph::{Graph, Op, Value, Weights};
use lana_models::zoo::{self, ZooOptions};
use lana_models::{Error, init};

/// What BatchNorm adds to the multiply-accumulates of a network.
fn normalised(graph: &Graph) -> u64 {
    let norms = (0..graph.nodes().len()).filter(|&n| matches!(graph.nodes()[n].op, Op::BatchNorm { .. }));
    norms.map(|n| 2 * graph.shape(Value::of_node(n)).elements() as u64).sum()
}

#[test]
fn cifar_resnets_have_the_published_sizes() {
    // Trained parameters of the published weights; multiply-accumulates of convolutions and fully connected layers as in
    // He et al. and akamaster's table.
    for (name, params, macs, layers) in [
        ("resnet20_cifar", 269_722, 40_551_040, 9),
        ("resnet32_cifar", 464_154, 68_862_592, 15),
        ("resnet44_cifar", 658_586, 97_174_144, 21),
        ("resnet56_cifar", 853_018, 125_485_696, 27),
        ("resnet110_cifar", 1_727_962, 252_887_680, 54),
    ] {
        let entry = zoo::entry(name).unwrap();
        let normalised = normalised(&zoo::build(name, &ZooOptions::default()).unwrap());
        assert_eq!((entry.params, entry.macs - normalised, entry.layers), (params, macs, layers), "{name}");
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
        let normalised = normalised(&zoo::build(name, &ZooOptions::default()).unwrap());
        assert_eq!((entry.params, entry.macs - normalised, entry.layers), (params, macs, layers), "{name}");
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
        let graph = graph.layer_graph(layer).unwrap();
        let cost = graph.cost();
        assert_eq!((cost.params, cost.macs - normalised(&graph)), (params, macs), "{layer} of {name}");
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
fn residual_branches_drop_before_the_sum_by_the_schedule_of_resnets() {
    use lana_graph::Op;
    for name in ["resnet18", "resnest26d"] {
        let options = ZooOptions { drop_path_rate: 0.14, ..ZooOptions::default() };
        let graph = zoo::build(name, &options).unwrap();
        let rates: Vec<f64> = graph
            .layers()
            .iter()
            .map(|layer| {
                let nodes = &graph.nodes()[layer.nodes.clone()];
                let sum = nodes.iter().find(|n| n.op == Op::Add).unwrap();
                let branch = &graph.nodes()[sum.inputs[0].node().unwrap()];
                let shortcut = sum.inputs[1].node().map(|n| &graph.nodes()[n].op);
                assert!(!shortcut.is_some_and(Op::is_training_only), "{}", layer.name);
                if let Op::DropPath { rate } = branch.op { rate } else { 0.0 }
            })
            .collect();
        for (block, rate) in rates.iter().enumerate() {
            assert!((rate - 0.02 * block as f64).abs() < 1e-12, "{name}: {rates:?}");
        }
    }
}

#[test]
fn images_are_prepared_as_timm_does() {
    use lana_models::zoo::Interpolation::{Bicubic, Bilinear};
    for (name, crop, interpolation) in [
        ("resnet50", 0.95, Bicubic),
        ("resnest50d", 0.875, Bilinear),
        ("resnest50d_4s2x40d", 0.875, Bicubic),
        ("resnest101e", 0.875, Bilinear),
        ("resnest200e", 0.909, Bicubic),
        ("resnest269e", 0.928, Bicubic),
    ] {
        let images = zoo::entry(name).unwrap().preprocessing;
        assert_eq!((images.crop, images.interpolation), (crop, interpolation), "{name}");
        assert_eq!(images.mean, [0.485, 0.456, 0.406], "{name}");
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
fn the_demo_network_has_smaller_ones_beside_it() {
    let sizes = ["effnetv2_femto_cifar", "effnetv2_pico_cifar", "effnetv2_nano_cifar"].map(|name| {
        let entry = zoo::entry(name).unwrap();
        (entry.macs, entry.params, entry.layers)
    });
    assert_eq!(sizes.map(|(_, _, layers)| layers), [4, 8, 11]);
    for pair in sizes.windows(2) {
        let (small, large) = (pair[0], pair[1]);
        assert!(
            2 * small.0 < large.0 + small.0 && small.0 * 4 < large.0 * 3 && small.1 < large.1,
            "{sizes:?}"
        );
    }
}

/// Parameters, multiply-accumulates of convolutions and fully connected layers at the default resolution, and blocks, as
/// timm 1.0 builds them; then what timm publishes (results/benchmark-infer-amp-nchw-pt240-cu124-rtx3090.csv) where it has
/// that resolution: GMACs by fvcore, which counts two for each element that a BatchNorm gives.
#[test]
fn mbconv_families_have_timms_sizes() {
    for (name, params, macs, layers, published) in [
        ("efficientnet_b0", 5_288_548, 385_814_752, 16, 0.4),
        ("efficientnet_b1", 7_794_184, 686_802_832, 23, 0.71),
        ("efficientnet_b2", 9_109_994, 859_853_760, 23, 0.89),
        ("efficientnet_b3", 12_233_232, 1_589_198_096, 26, 1.63),
        ("efficientnet_b4", 19_341_616, 3_063_687_008, 32, 3.13),
        ("efficientnet_b5", 30_389_784, 9_404_374_080, 39, 9.59),
        ("efficientnet_b6", 43_040_704, 19_067_593_536, 45, 19.4),
        ("efficientnet_b7", 66_347_960, 37_745_884_192, 55, 38.33),
        ("efficientnet_b8", 87_413_142, 62_597_461_568, 61, 63.48),
        ("tf_efficientnet_b0", 5_288_548, 385_814_752, 16, 0.4),
        ("tf_efficientnet_b1", 7_794_184, 686_802_832, 23, 0.71),
        ("tf_efficientnet_b2", 9_109_994, 993_561_872, 23, 1.02),
        ("tf_efficientnet_b3", 12_233_232, 1_827_141_392, 26, 1.87),
        ("tf_efficientnet_b4", 19_341_616, 4_393_771_024, 32, 4.49),
        ("tf_efficientnet_b5", 30_389_784, 10_266_384_752, 39, 10.46),
        ("tf_efficientnet_b6", 43_040_704, 19_067_593_536, 45, 19.4),
        ("tf_efficientnet_b7", 66_347_960, 37_745_884_192, 55, 38.33),
        ("tf_efficientnet_b8", 87_413_142, 62_597_461_568, 61, 63.48),
        ("efficientnetv2_s", 21_458_488, 4_707_823_040, 40, 4.75),
        ("efficientnetv2_m", 54_139_356, 10_931_712_384, 57, 11.01),
        ("efficientnetv2_l", 118_515_272, 35_899_418_624, 79, 36.1),
        ("efficientnetv2_rw_t", 13_649_388, 1_912_879_840, 39, 1.93),
        ("efficientnetv2_rw_s", 23_941_296, 4_862_701_312, 40, 4.91),
        ("efficientnetv2_rw_m", 53_236_442, 12_627_417_344, 60, 12.72),
        ("tf_efficientnetv2_b0", 7_139_704, 528_186_752, 21, 0.54),
        ("tf_efficientnetv2_b1", 8_141_052, 747_003_008, 27, 0.76),
        ("tf_efficientnetv2_b2", 10_096_086, 1_043_476_528, 28, 1.06),
        ("tf_efficientnetv2_b3", 14_358_406, 1_908_036_640, 32, 1.93),
        ("tf_efficientnetv2_s", 21_458_488, 5_307_561_248, 40, 5.35),
        ("tf_efficientnetv2_m", 54_139_356, 15_736_775_680, 57, 15.85),
        ("tf_efficientnetv2_l", 118_515_272, 35_899_418_624, 79, 36.1),
        ("mobilenetv2_100", 3_504_872, 300_774_272, 17, 0.31),
        ("mobilenetv2_140", 6_108_776, 582_195_824, 17, 0.6),
        ("mobilenetv3_large_100", 5_483_032, 216_589_760, 16, 0.23),
        ("mobilenetv3_small_100", 2_542_856, 56_510_400, 12, 0.06),
    ] {
        let entry = zoo::entry(name).unwrap();
        let normalised = normalised(&zoo::build(name, &ZooOptions::default()).unwrap());
        assert_eq!((entry.params, entry.macs - normalised, entry.layers), (params, macs, layers), "{name}");
        let giga = entry.macs as f64 / 1e9;
        // It prints two decimals.
        assert!((giga - published).abs() < 0.0051, "{name}: {giga} G, published {published} G");
    }
}

#[test]
fn mbconv_families_have_timms_names_and_shapes() {
    for (model, name, shape) in [
        ("efficientnet_b2", "blocks.0.0.conv_pw.weight", vec![16, 32, 1, 1]),
        ("efficientnet_b2", "blocks.0.0.se.conv_reduce.weight", vec![8, 32, 1, 1]),
        ("efficientnet_b2", "blocks.4.0.conv_dw.weight", vec![528, 1, 5, 5]),
        ("efficientnet_b2", "blocks.4.0.se.conv_expand.bias", vec![528]),
        ("efficientnet_b2", "conv_head.weight", vec![1408, 352, 1, 1]),
        ("tf_efficientnetv2_b0", "blocks.0.0.conv.weight", vec![16, 32, 3, 3]),
        ("tf_efficientnetv2_b0", "blocks.0.0.bn1.running_mean", vec![16]),
        ("tf_efficientnetv2_b2", "blocks.5.9.conv_pwl.weight", vec![208, 1248, 1, 1]),
        ("efficientnetv2_rw_s", "blocks.0.1.conv_exp.weight", vec![24, 24, 3, 3]),
        ("mobilenetv3_large_100", "blocks.3.2.conv_pw.weight", vec![184, 80, 1, 1]),
        ("mobilenetv3_large_100", "blocks.5.2.se.conv_reduce.weight", vec![240, 960, 1, 1]),
        ("mobilenetv3_large_100", "blocks.6.0.conv.weight", vec![960, 160, 1, 1]),
        ("mobilenetv3_small_100", "conv_head.bias", vec![1024]),
        ("mobilenetv2_140", "blocks.0.0.bn2.weight", vec![24]),
    ] {
        let graph = zoo::build(model, &ZooOptions::default()).unwrap();
        let found = graph.parameters().into_iter().find(|p| p.name == name).map(|p| p.shape);
        assert_eq!(found, Some(shape), "{name} of {model}");
    }
}

#[test]
fn tensorflows_padding_follows_the_resolution() {
    let paddings = |resolution| {
        let options = ZooOptions { resolution: Some(resolution), ..ZooOptions::default() };
        let graph = zoo::build("tf_efficientnet_b0", &options).unwrap();
        let find = |name: &str| graph.nodes().iter().find(|n| n.name == name).map(|n| n.op.clone());
        ["conv_stem", "blocks.2.0.conv_dw", "blocks.2.1.conv_dw"].map(|name| match find(name) {
            Some(Op::Conv2d(conv)) => conv.padding,
            other => panic!("{name} is {other:?}"),
        })
    };
    // Even maps under stride 2 get one row less in front than behind, odd ones as many: 64 → 32 → 16, 65 → 33 → 17.
    assert_eq!(paddings(64), [[0, 0, 1, 1], [1, 1, 2, 2], [2, 2, 2, 2]]);
    assert_eq!(paddings(65), [[1, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]]);
}

#[test]
fn drops_stand_where_timm_has_them() {
    let options = ZooOptions { drop_rate: 0.2, drop_path_rate: 0.3, ..ZooOptions::default() };
    for entry in zoo::list() {
        let plain = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
        let graph = zoo::build(&entry.name, &options).unwrap();
        assert_eq!((graph.cost(), graph.parameters().len()), (plain.cost(), plain.parameters().len()));
        let at = |name: &str| graph.nodes().iter().position(|n| n.name == name);
        let dropout = at("dropout").unwrap();
        assert_eq!(graph.nodes()[dropout].op, Op::Dropout { rate: 0.2 }, "{}", entry.name);
        assert!(matches!(graph.nodes()[dropout + 1].op, Op::Linear { .. }), "{}", entry.name);
        for layer in graph.layers() {
            let sum = layer.nodes.clone().find(|&n| graph.nodes()[n].op == Op::Add);
            let drop = at(&format!("{}.drop_path", layer.name));
            // The first block's rate is 0.
            let first = layer.name == graph.layers()[0].name;
            assert_eq!(drop, sum.filter(|_| !first).map(|n| n - 1), "{} of {}", layer.name, entry.name);
        }
        // Large networks are made of the same blocks, and random numbers take their time.
        if entry.params > 3_000_000 {
            continue;
        }
        // Random weights start the same branches at zero.
        let start = |g| init::random_with(g, 1, init::InitOptions { zero_last_scale: true });
        assert_eq!(start(&graph), start(&plain));
        let weights = init::random(&graph, 1);
        let folded = lana_graph::fold_batch_norm(&graph, &weights).unwrap();
        assert_eq!(folded, lana_graph::fold_batch_norm(&plain, &weights).unwrap());
    }
    let graph = zoo::build("efficientnet_b0", &options).unwrap();
    let node = graph.nodes().iter().find(|n| n.name == "blocks.5.1.drop_path").unwrap();
    // Block 12 of 16, counted from 0.
    let Op::DropPath { rate } = node.op else { panic!("{:?}", node.op) };
    assert!((rate - 0.3 * 12.0 / 16.0).abs() < 1e-12, "{rate}");
    for (drop_rate, drop_path_rate) in [(1.0, 0.0), (0.0, -0.1), (f64::NAN, 0.0)] {
        let options = ZooOptions { drop_rate, drop_path_rate, ..ZooOptions::default() };
        assert!(matches!(zoo::build("efficientnet_b0", &options), Err(Error::Option { .. })));
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
    let options = ZooOptions { num_classes: Some(7), resolution: Some(33), ..ZooOptions::default() };
    for entry in zoo::list() {
        let graph = zoo::build(&entry.name, &options).unwrap();
        assert_eq!(graph.input_shape().dims(), [3, 33, 33]);
        assert_eq!(graph.output_shape().dims(), [7]);
    }
    for options in [
        ZooOptions { num_classes: Some(0), ..ZooOptions::default() },
        ZooOptions { resolution: Some(0), ..ZooOptions::default() },
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
