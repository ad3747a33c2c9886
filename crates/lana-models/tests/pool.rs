//! Operations: each at every layer of the teachers, names, patterns, narrowing.
#![allow(clippy::unwrap_used)]

use lana_graph::{Activation, Graph, GraphBuilder, LayerRules, Op, Shape, Weights, discover};
use lana_models::pool::{Operation, Pool, Pools, Preset, families};
use lana_models::zoo::{self, ZooOptions};
use lana_models::{Error, init};

const TEACHERS: [&str; 3] = ["resnet20_cifar", "resnet56_cifar", "effnetv2_nano_cifar"];

fn teacher(name: &str) -> (Graph, Weights) {
    let graph = zoo::build(name, &ZooOptions::default()).unwrap();
    let weights = init::random(&graph, 7);
    (graph, weights)
}

fn operation(name: &str) -> Operation {
    name.parse().unwrap()
}

fn find_op(graph: &Graph, wanted: impl Fn(&Op) -> bool) -> bool {
    graph.nodes().iter().any(|n| wanted(&n.op))
}

#[test]
fn every_operation_at_every_layer_builds_or_says_why_not() {
    for name in TEACHERS {
        let (graph, weights) = teacher(name);
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap();
            let own_weights = weights.under(&layer.name);
            let mut applicable = 0;
            for (operation, built) in Pool::compact().operations_for(&own) {
                let place = format!("{operation} at {} of {name}", layer.name);
                let built = match built {
                    Ok(built) => built,
                    Err(reason) => {
                        assert!(reason.to_string().len() > 10, "{place}");
                        println!("{place}: {reason}");
                        continue;
                    }
                };
                applicable += 1;
                assert_eq!(built.name(), operation.name(), "{place}");
                assert_eq!(built.input_shape(), own.input_shape(), "{place}");
                assert_eq!(built.output_shape(), own.output_shape(), "{place}");
                let start = operation.initialise(&own, &own_weights, &built, 1).unwrap();
                start.check(&built).unwrap();
                assert_eq!(start, operation.initialise(&own, &own_weights, &built, 1).unwrap(), "{place}");

                let student = graph.replace(&layer.name, &built).unwrap();
                let mut student_weights = weights.clone();
                student_weights.replace_under(&layer.name, &start);
                student_weights.check(&student).unwrap();
                // Taken out again it is what was put in.
                assert_eq!(
                    student.layer_graph(&layer.name).unwrap().renamed(operation.name()).to_json(),
                    built.to_json(),
                    "{place}"
                );
                if operation.is_teacher() {
                    assert_eq!(student, graph);
                    assert_eq!(student_weights, weights);
                }
            }
            let same_shape = own.input_shape() == own.output_shape();
            println!("{name} {}: {applicable} operations", layer.name);
            assert!(applicable >= if same_shape { 14 } else { 13 }, "{applicable} at {}", layer.name);
        }
    }
}

/// Random weights of wide layers take long, hence a class of large operations is only built.
#[test]
fn every_operation_stands_at_the_layers_of_large_networks() {
    for (name, narrow) in [("resnet18", true), ("resnet50", true), ("resnest14d", false)] {
        // A fifth of the resolution changes no weights, and an odd size is harder.
        let options = ZooOptions { resolution: Some(45), ..ZooOptions::default() };
        let graph = zoo::build(name, &options).unwrap();
        let mut seen: Vec<Graph> = Vec::new();
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap().renamed("layer");
            if seen.contains(&own) {
                continue;
            }
            let own_weights = init::random(&own, 7);
            let same_shape = own.input_shape() == own.output_shape();
            let mut applicable = 0;
            for (operation, built) in Pool::compact().operations_for(&own) {
                let place = format!("{operation} at {} of {name}", layer.name);
                let Ok(built) = built else { continue };
                applicable += 1;
                if !operation.is_teacher() && !operation.is_identity() && operation.family() != "narrow" {
                    let projected = find_op(&built, |op| *op == Op::Add) && !same_shape;
                    assert_eq!(projected, !same_shape, "{place}");
                }
                graph.replace(&layer.name, &built).unwrap();
                if built.cost().params < 2_000_000 {
                    operation.initialise(&own, &own_weights, &built, 1).unwrap().check(&built).unwrap();
                }
            }
            let all = 17 - if same_shape { 0 } else { 1 } - if narrow { 0 } else { 3 };
            println!("{name} {}: {applicable} operations", layer.name);
            assert!(applicable >= all, "{applicable} at {} of {name}", layer.name);
            seen.push(own);
        }
    }
}

#[test]
fn the_paper_pool_stands_at_every_layer_or_says_why_not() {
    for (name, resolution) in [
        ("efficientnet_b2", Some(65)),
        ("tf_efficientnetv2_b3", Some(96)),
        ("resnest50d", Some(64)),
        ("resnet56_cifar", None),
    ] {
        let options = ZooOptions { resolution, ..ZooOptions::default() };
        let graph = zoo::build(name, &options).unwrap();
        let mut seen: Vec<Graph> = Vec::new();
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap().renamed("layer");
            if seen.contains(&own) {
                continue;
            }
            let mut applicable = 0;
            for (operation, built) in Pool::preset(Preset::Paper).operations_for(&own) {
                let place = format!("{operation} at {} of {name}", layer.name);
                match built {
                    Ok(built) => {
                        applicable += 1;
                        graph.replace(&layer.name, &built).unwrap();
                        assert!(built.deployed_cost().macs <= built.cost().macs, "{place}");
                    }
                    Err(reason) => {
                        let reason = reason.to_string();
                        let known =
                            ["it is the same network as", "the layer maps", "attention weights for an image"];
                        assert!(known.iter().any(|k| reason.contains(k)), "{place}: {reason}");
                    }
                }
            }
            println!("{name} {}: {applicable} of 197 operations", layer.name);
            assert!(applicable > 100, "{applicable} at {} of {name}", layer.name);
            seen.push(own);
        }
    }
}

/// On 32 channels and 16×16 pixels.
#[test]
fn costs_are_those_counted_by_hand() {
    let own = teacher("resnet20_cifar").0.layer_graph("layer2.1").unwrap();
    let (n, c) = (256, 32);
    let bn = |channels: u64| (2 * n * channels, 2 * channels);
    let conv = |from: u64, to: u64, k: u64| (n * from * to * k * k, from * to * k * k);
    let linear = |from: u64, to: u64| (n * from * to, from * to + to);
    let norm = |size: u64| (5 * n * size, 2 * size);
    let products = |size: u64| (n * n * size, 0);
    let block =
        [&[norm(32); 2][..], &[linear(32, 32); 4], &[products(32); 2], &[linear(32, 128), linear(128, 32)]];
    let row = |from: u64, to: u64| (n * from * to * 3, from * to * 3);
    let squeeze = |from: u64, to: u64| (2 * from * to, 2 * from * to + from + to);
    let relative = |size: u64| (n * 4 * size * 31, size * 31);
    for (name, parts) in [
        ("conv-k5", vec![conv(c, c, 5), bn(c)]),
        ("stack-k3-w0.5", vec![conv(c, 16, 3), bn(16), conv(16, c, 3), bn(c)]),
        ("bottleneck-k7-w0.5", vec![conv(c, 16, 1), bn(16), conv(16, 16, 7), bn(16), conv(16, c, 1), bn(c)]),
        ("repvgg-k3", vec![conv(c, c, 3), bn(c), conv(c, c, 1), bn(c), bn(c)]),
        ("shuffle-k3-w1", vec![conv(c, c / 4, 3), bn(c), conv(c, c / 4, 3), bn(c)]),
        ("mbconv-e3-k5", vec![conv(c, 96, 1), bn(96), conv(1, 96, 5), bn(96), conv(96, c, 1), bn(c)]),
        ("fused-e3-k3", vec![conv(c, 96, 3), bn(96), conv(96, c, 1), bn(c)]),
        ("fused-e3-k1-se0.04", vec![conv(c, 96, 1), bn(96), squeeze(96, 4), conv(96, c, 1), bn(c)]),
        // The kernel of efficient channel attention is three long for 32 channels.
        ("mbconv-e1-k3-eca", vec![conv(1, c, 3), bn(c), (c * 3, 3), conv(c, c, 1), bn(c)]),
        (
            "mixconv-e3-k5",
            [3, 5]
                .map(|k| vec![conv(c, 48, 1), bn(48), conv(1, 48, k), bn(48), conv(48, c, 1), bn(c)])
                .concat(),
        ),
        ("acnet-k3", vec![conv(c, c, 3), bn(c), row(c, c), bn(c), row(c, c), bn(c)]),
        ("grouped-g2", [vec![conv(c / 2, c, 3), bn(c)], vec![conv(c / 2, c, 3), bn(c)]].concat()),
        ("lowrank-r0.25", [[conv(c, 8, 3), conv(8, c, 1), bn(c)]; 2].concat()),
        ("narrow-w0.25", vec![conv(c, 8, 3), bn(8), conv(8, c, 3), bn(c)]),
        (
            "vit-d2-w32-h4",
            [
                vec![conv(c, 32, 1), (0, 32), (0, n * 32), norm(32), conv(32, c, 1), bn(c)],
                block.concat(),
                block.concat(),
            ]
            .concat(),
        ),
        (
            "botnet-w0.5",
            [
                vec![conv(c, 16, 1), bn(16), bn(16), conv(16, c, 1), bn(c)],
                vec![conv(16, 16, 1); 3],
                vec![relative(4); 2],
                vec![products(16); 2],
            ]
            .concat(),
        ),
        (
            "lambda-w0.5",
            [
                vec![conv(c, 16, 1), bn(16), bn(16), conv(16, c, 1), bn(c)],
                vec![conv(16, 64, 1), bn(64), conv(16, 16, 1), conv(16, 4, 1), bn(4)],
                // Content as a function and applied, positions as functions and applied.
                vec![(n * 16 * 4, 0), (n * 64 * 4, 0), (n * 4 * 16 * 81, 16 * 81 + 16), (n * 64 * 4, 0)],
            ]
            .concat(),
        ),
    ] {
        let graph = operation(name).build(&own).unwrap();
        let (macs, params) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        assert_eq!((graph.cost().macs, graph.cost().params), (macs, params), "{name}");
        let trained = graph.parameters().into_iter().filter(|p| p.role.is_trained());
        let elements: usize = trained.map(|p| p.shape.iter().product::<usize>()).sum();
        assert_eq!(elements as u64, params, "{name}");
    }
}

/// Two blocks on 32 channels and 16×16 pixels behind the one that halves the map, side by side.
#[test]
fn the_cost_of_blocks_side_by_side_is_that_counted_by_hand() {
    let resnet = teacher("resnet20_cifar").0;
    let grouped = discover(&resnet, &LayerRules { group: 3, ..LayerRules::alone() }).unwrap();
    let own = grouped.layer_graph("layer2.0-2").unwrap();
    let n = 256;
    let bn = |channels: u64| (2 * n * channels, 2 * channels);
    let conv = |from: u64, to: u64| (n * from * to * 9, from * to * 9);
    for (name, inner) in [("wide-w1.5", 48), ("wide-w2", 64)] {
        let first = [conv(16, 32), bn(32), conv(32, 32), bn(32)];
        let parts = [first, [conv(32, inner), bn(inner), conv(inner, 32), bn(32)]].concat();
        let (macs, params) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        let cost = operation(name).build(&own).unwrap().cost();
        assert_eq!((cost.macs, cost.params), (macs, params), "{name}");
    }
}

/// Of 48 channels, expanded to 288, with a gate of 12.
#[test]
fn costs_of_edits_are_those_counted_by_hand() {
    let own = teacher("efficientnet_b2").0.layer_graph("blocks.2.1").unwrap();
    let (_, height, width) = own.output_shape().as_image().unwrap();
    let n = (height * width) as u64;
    let (c, inner) = (48, 288);
    let bn = |channels: u64| (2 * n * channels, 2 * channels);
    let conv = |from: u64, to: u64, k: u64| (n * from * to * k * k, from * to * k * k);
    let gate = (2 * inner * 12, 2 * inner * 12 + inner + 12);
    let block = |inner: u64, k: u64| {
        vec![conv(c, inner, 1), bn(inner), conv(1, inner, k), bn(inner), conv(inner, c, 1), bn(c)]
    };
    for (name, parts) in [
        ("teacher", [block(inner, 5), vec![gate]].concat()),
        ("own-nogate", block(inner, 5)),
        ("own-k3", [block(inner, 3), vec![gate]].concat()),
        ("own-relu", [block(inner, 5), vec![gate]].concat()),
        ("own-nogate-k3-relu", block(inner, 3)),
        ("narrow-w0.5", [block(144, 5), vec![(2 * 144 * 12, 2 * 144 * 12 + 144 + 12)]].concat()),
        // 1×1 convolutions in two factors of 12 channels, for there is no dense one larger than that.
        (
            "lowrank-r0.25",
            vec![
                conv(c, 12, 1),
                conv(12, inner, 1),
                bn(inner),
                conv(1, inner, 5),
                bn(inner),
                gate,
                conv(inner, 12, 1),
                conv(12, c, 1),
                bn(c),
            ],
        ),
    ] {
        let cost = operation(name).build(&own).unwrap().cost();
        let (macs, params) = parts.iter().fold((0, 0), |sum, part| (sum.0 + part.0, sum.1 + part.1));
        assert_eq!((cost.macs, cost.params), (macs, params), "{name}");
    }
}

#[test]
fn where_the_shortcut_is_a_projection_operations_take_it_over() {
    for (name, layer, theirs) in [
        ("resnet18", "layer2.0", ["downsample.0", "downsample.1"]),
        ("resnet50", "layer1.0", ["downsample.0", "downsample.1"]),
        ("resnest14d", "layer1.0", ["downsample.1", "downsample.2"]),
        ("resnest14d", "layer2.0", ["downsample.1", "downsample.2"]),
    ] {
        let options = ZooOptions { resolution: Some(45), ..ZooOptions::default() };
        let own = zoo::build(name, &options).unwrap().layer_graph(layer).unwrap();
        let mut own_weights = init::random(&own, 7);
        let mean = format!("{}.running_mean", theirs[1]);
        own_weights.insert(&*mean, lana_graph::Tensor::full(&[own.output_shape().channels()], 0.25));
        let pooled = |g: &Graph| find_op(g, |op| matches!(op, Op::AveragePool { .. }));
        for operation in ["bottleneck-w0.25", "mbconv-e1-k3"].map(operation) {
            let built = operation.build(&own).unwrap();
            let start = operation.initialise(&own, &own_weights, &built, 3).unwrap();
            assert_eq!(pooled(&built), name == "resnest14d" && layer == "layer2.0", "{operation}");
            let ours = if pooled(&built) { theirs } else { ["downsample.0", "downsample.1"] };
            for (to, from) in ours.iter().zip(theirs) {
                assert_eq!(start.under(to), own_weights.under(from), "{operation} at {layer} of {name}");
            }
            // The branch gives nothing yet, hence the operation is the shortcut, and not a dead one.
            let scales = |g: &Weights| {
                let list = g.iter().filter(|(n, t)| n.ends_with(".weight") && t.shape.len() == 1);
                list.map(|(n, t)| (n.to_string(), t.data[0])).collect::<Vec<_>>()
            };
            let zeros: Vec<_> = scales(&start).into_iter().filter(|(_, s)| *s == 0.0).collect();
            assert_eq!(zeros.len(), 1, "{zeros:?}");
            assert!(!zeros[0].0.starts_with("downsample"), "{zeros:?}");
        }
    }
}

#[test]
fn operations_fit_tensorflows_padding_and_take_the_layers_gates() {
    // An even map under "SAME" padding and stride 2 is halved, as it is under padding by half the kernel.
    for name in ["tf_efficientnetv2_b0", "mobilenetv3_small_100"] {
        let (graph, weights) = teacher(name);
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap();
            let own_weights = weights.under(&layer.name);
            let mut applicable = 0;
            for (operation, built) in Pool::compact().operations_for(&own) {
                // What has no expansion has no channels of its own to narrow, a single convolution neither.
                let Ok(built) = built else { continue };
                operation.initialise(&own, &own_weights, &built, 1).unwrap();
                applicable += 1;
            }
            assert!(applicable >= 13, "{applicable} at {} of {name}", layer.name);
        }
    }
    let graph = zoo::build("mobilenetv3_small_100", &ZooOptions::default()).unwrap();
    let own = graph.layer_graph("blocks.3.1").unwrap();
    let built = operation("mbconv-e3-k3-se0.08").build(&own).unwrap();
    for kind in [Activation::HardSwish, Activation::HardSigmoid] {
        assert!(find_op(&built, |op| *op == Op::Activation { kind }), "{kind:?}");
    }
}

#[test]
fn names_parse_back() {
    let pool = Pool::compact();
    assert_eq!(pool.operations().len(), 23);
    assert!(pool.operations()[0].is_teacher());
    assert!(pool.operations()[1].is_identity());
    for preset in Preset::ALL {
        let pool = Pool::preset(preset);
        assert_eq!(Pool::parse(preset.name()).unwrap(), pool);
        let listed =
            families().into_iter().flat_map(|f| f.members).filter(|m| m.0 == preset).flat_map(|m| m.1);
        assert_eq!(listed.count(), pool.operations().len(), "{preset}");
        for operation in pool.operations() {
            assert_eq!(operation.name().parse::<Operation>().unwrap(), *operation);
            assert!(!operation.initialisation().is_empty());
        }
    }
    for (text, name) in
        [("narrow-w1.0", "narrow-w1"), ("mbconv-e04-k7-se0.50", "mbconv-e4-k7-se0.5"), ("conv-k1", "conv-k1")]
    {
        assert_eq!(operation(text).name(), name);
        assert_eq!(operation(name).name(), name);
    }
    for (text, part) in [
        ("mbconv-e3", "`k` is missing"),
        ("mbconv-k3-e3", "`e` is missing"),
        ("mbconv-e3-k4", "`k4`"),
        ("mbconv-e0-k3", "`e0`"),
        ("mbconv-e1e1-k3", "`e1e1`"),
        ("mbconv-e3-k3-se2", "`se2`"),
        ("mbconv-e3-k3-x", "`x` does not belong"),
        ("narrow-w1.5", "narrow-w<number up to 1>"),
        ("narrow-w", "`w` is missing"),
        ("teacher-w1", "does not belong"),
        ("teachr", "nearest: teacher"),
        ("", "is no operation"),
        ("own", "`own` can stand nowhere: it changes nothing; write own-nogate"),
        ("acnet-k1", "all branches are the same"),
        ("mixconv-e3-k3", "nothing to mix"),
        ("mbconv-e3-k3-se0.25-eca", "choose one"),
        ("fused-e3-k3-se0.25-eca", "choose one"),
        ("vit-d1-w30-h4", "4 heads do not divide tokens of length 30"),
    ] {
        let error = text.parse::<Operation>().unwrap_err().to_string();
        assert!(error.contains(part) && error.contains("lana pool"), "{text}: {error}");
    }
}

#[test]
fn the_paper_has_197_operations() {
    let pool = Pool::preset(Preset::Paper);
    let names: std::collections::HashSet<&str> = pool.operations().iter().map(Operation::name).collect();
    assert_eq!((pool.operations().len(), names.len()), (197, 197));
    let count = |family: &str| pool.operations().iter().filter(|o| o.family() == family).count();
    let families =
        ["mbconv", "fused", "stack", "bottleneck", "shuffle", "conv", "repvgg", "vit", "botnet", "lambda"];
    assert_eq!(families.map(count), [27, 27, 19, 31, 36, 4, 3, 36, 6, 6]);
    for name in
        ["mbconv-e6-k5-se0.025", "stack-k3-w1", "bottleneck-w0.0625", "bottleneck-k7-w0.5", "shuffle-k7-w0.5"]
    {
        assert!(names.contains(name), "{name}");
    }
    assert_eq!(operation("bottleneck-k3-w0.25").name(), "bottleneck-w0.25");
    assert!(names.contains("stack-k3-w2") && names.contains("bottleneck-w2"));
    for left_out in ["stack-k1-w1", "stack-k3-w3", "bottleneck-k7-w1", "shuffle-k7-w2", "repvgg-k1"] {
        assert!(!names.contains(left_out), "{left_out}");
    }
}

#[test]
fn all_197_apply_in_a_wide_layer_whose_shape_stays() {
    for (name, layer) in [
        ("efficientnet_b2", "blocks.3.1"),
        ("efficientnet_b2", "blocks.4.1"),
        ("resnest50d", "layer2.1"),
        ("resnest50d", "layer3.1"),
        ("tf_efficientnetv2_b3", "blocks.3.1"),
    ] {
        // Maps of 8×8 to 14×14.
        let options = ZooOptions { resolution: Some(128), ..ZooOptions::default() };
        let own = zoo::build(name, &options).unwrap().layer_graph(layer).unwrap();
        let mut left_out = Vec::new();
        for (operation, built) in Pool::preset(Preset::Paper).operations_for(&own) {
            if let Err(reason) = built {
                left_out.push(format!("{operation}: {reason}"));
            }
        }
        assert!(left_out.is_empty(), "{layer} of {name}, {}: {left_out:#?}", own.input_shape());
    }
}

#[test]
fn shuffles_are_as_wide_as_their_names_say() {
    // 16, 24 and 88 channels; the inner ones are a multiple of four groups.
    for (name, layer, inner) in [
        ("resnet20_cifar", "layer1.1", [4, 4, 4, 16, 16, 64]),
        ("efficientnet_b2", "blocks.1.1", [4, 4, 8, 24, 24, 96]),
        ("efficientnet_b2", "blocks.3.1", [4, 8, 24, 88, 88, 352]),
    ] {
        let own = teacher(name).0.layer_graph(layer).unwrap();
        for (width, inner) in ["0.0625", "0.1", "0.25", "1", "1.01", "4"].into_iter().zip(inner) {
            let built = operation(&format!("shuffle-k3-w{width}")).build(&own).unwrap();
            let first = built.parameters().into_iter().find(|p| p.name == "conv1.weight").unwrap();
            assert_eq!(first.shape[0], inner, "w{width} at {layer} of {name}");
            let shuffle = Op::ShuffleChannels { outer: 4, inner: inner / 4 };
            assert_eq!(find_op(&built, |op| *op == shuffle), inner > 4, "w{width} at {layer} of {name}");
        }
    }
}

#[test]
fn squeeze_and_excitation_is_a_share_of_the_expanded_channels() {
    let squeezed = |name: &str, own: &Graph| {
        let built = operation(name).build(own).unwrap();
        let shape = built.parameters().into_iter().find(|p| p.name == "se.conv_reduce.weight").unwrap().shape;
        [shape[0], shape[1]]
    };
    // 88 channels, expanded to 528, squeezed to a quarter of 88 in EfficientNet.
    let own = teacher("efficientnet_b2").0.layer_graph("blocks.3.1").unwrap();
    for (name, expected) in [
        ("narrow-w1", [22, 528]),
        ("mbconv-e6-k3-se0.04", [21, 528]),
        ("mbconv-e3-k3-se0.08", [21, 264]),
        ("mbconv-e1-k3-se0.25", [22, 88]),
        ("fused-e3-k3-se0.025", [7, 264]),
        ("mbconv-e1-k3-se0.001", [1, 88]),
    ] {
        assert_eq!(squeezed(name, &own), expected, "{name}");
    }
    // In the narrowest layer of ResNet-56 the paper's two still differ where there is an expansion.
    let own = teacher("resnet20_cifar").0.layer_graph("layer1.1").unwrap();
    assert_eq!(["0.04", "0.025"].map(|se| squeezed(&format!("mbconv-e6-k3-se{se}"), &own)[0]), [4, 2]);
}

#[test]
fn layers_have_pools_of_their_own() {
    let (graph, _) = teacher("resnet20_cifar");
    let rules = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    let pools =
        Pools::parse("compact", &rules(&["layer1, layer3.*:-conv-*", "layer3.0:paper,-vit-*"])).unwrap();
    pools.check(&graph).unwrap();
    let at = |name: &str| pools.at(graph.layer(name).unwrap().1).operations().len();
    assert_eq!(["layer1.2", "layer2.0", "layer3.1", "layer3.0"].map(at), [22, 23, 22, 161]);
    for (list, part) in [
        (&["layer1"][..], "`layer1` is no rule"),
        (&[":compact"], "is no rule"),
        (&["layer1:conpact"], "nearest: compact"),
        (&["layer1:compact", "layer4.*:compact"], ""),
    ] {
        match Pools::parse("compact", &rules(list)) {
            Err(error) => assert!(error.to_string().contains(part), "{error}"),
            Ok(pools) => {
                let error = pools.check(&graph).unwrap_err().to_string();
                assert!(error.contains("`layer4.*` in") && error.contains("nearest: layer"), "{error}");
            }
        }
    }
}

#[test]
fn pools_are_chosen_by_patterns() {
    let names = |text: &str| Pool::parse(text).unwrap().to_string();
    assert_eq!(Pool::parse("compact").unwrap(), Pool::compact());
    assert_eq!(names("narrow-*"), "teacher,identity,narrow-w0.5,narrow-w0.25,narrow-w0.125");
    assert_eq!(
        names(" fused-e?-k3 , mbconv-e4-k5"),
        "teacher,identity,fused-e1-k3,fused-e3-k3,fused-e6-k3,mbconv-e4-k5"
    );
    assert_eq!(
        names("-mbconv-*,-*w*,-fused-e1-k3"),
        "teacher,identity,depth-n1,depth-n2,fused-e3-k3,conv-k3"
    );
    assert_eq!(names("conv-k3,-identity"), "teacher,conv-k3,-identity");
    assert_eq!(names("conv-k3,-identity,identity"), "teacher,identity,conv-k3");
    assert_eq!(names("-*"), "teacher,-identity");
    assert_eq!(names("paper,-compact,repvgg-*,-*-k*,-*-w*"), "teacher,-identity");
    assert_eq!(Pool::parse("mbconv-*-k3*,identity").unwrap().operations().len(), 2 + 9 + 2 + 3);
    for text in ["compact", "conv-k3,-identity", "-*", "narrow-w0.75,-identity"] {
        let pool = Pool::parse(text).unwrap();
        assert_eq!(Pool::parse(&pool.to_string()).unwrap(), pool, "{text}");
    }
    for text in ["narow-w0.5", "x*", "compact,-nothing*", "-mbcnv-e3-k3"] {
        let error = Pool::parse(text).unwrap_err();
        assert!(matches!(error, Error::UnknownOperation { .. }), "{text}: {error}");
    }
    for (text, part) in [
        ("", "no operation is named"),
        (" , ", "no operation is named"),
        ("-teacher", "cannot be taken out"),
        ("compact,-teacher*", "`-teacher*`: the teacher's own layer cannot"),
        ("-t*", "cannot be taken out"),
        ("conv-k3,-conv-k7", "`-conv-k7` takes nothing out"),
        ("conv-k3,-vit-*", "`-vit-*` takes nothing out"),
        ("narrow-*,-narrow-w0.5,-narrow-w0.5", "takes nothing out"),
        ("vit-*,-identity,-compact", "`-compact` takes nothing out"),
    ] {
        match Pool::parse(text) {
            Err(Error::Pool { reason }) => assert!(reason.contains(part), "{text}: {reason}"),
            other => panic!("{text}: {other:?}"),
        }
    }
    let error = Pool::parse("narow-w0.5").unwrap_err().to_string();
    assert!(error.contains("nearest: narrow-w0.5"), "{error}");
}

#[test]
fn operations_end_as_the_layer_does_and_use_its_shortcut() {
    let (resnet, _) = teacher("resnet20_cifar");
    let (mobile, _) = teacher("effnetv2_nano_cifar");
    let ends = |g: &Graph| g.output().node().map(|n| g.nodes()[n].op.clone());
    let relu = Some(Op::Activation { kind: Activation::Relu });
    for name in ["mbconv-e3-k3", "fused-e1-k3", "bottleneck-w0.5", "conv-k3", "narrow-w0.5"] {
        for layer in ["layer1.0", "layer2.0"] {
            let own = resnet.layer_graph(layer).unwrap();
            let graph = operation(name).build(&own).unwrap();
            assert_eq!(ends(&graph), relu, "{name}");
            assert!(find_op(&graph, |op| *op == Op::Add), "{name}");
            assert_eq!(
                find_op(&graph, |op| *op == Op::PadChannels { before: 8, after: 8 }),
                layer == "layer2.0",
                "{name} at {layer}"
            );
        }
        // EfficientNet's blocks end linearly, and have no residual connection where the shape changes.
        for (layer, residual) in [("blocks.1.1", true), ("blocks.1.0", false), ("blocks.2.0", false)] {
            let own = mobile.layer_graph(layer).unwrap();
            let graph = operation(name).build(&own).unwrap();
            assert!(!matches!(ends(&graph), Some(Op::Activation { .. })), "{name}");
            assert_eq!(find_op(&graph, |op| *op == Op::Add), residual, "{name} at {layer}");
            assert!(!find_op(&graph, |op| matches!(op, Op::Activation { kind: Activation::Relu })));
        }
    }
}

#[test]
fn random_operations_start_as_their_shortcut() {
    let (graph, weights) = teacher("effnetv2_nano_cifar");
    for (layer, zeros) in [("blocks.2.1", true), ("blocks.2.0", false)] {
        let own = graph.layer_graph(layer).unwrap();
        for (name, last) in [
            ("mbconv-e3-k3", "bn3"),
            ("mbconv-e1-k3-se0.25", "bn2"),
            ("fused-e1-k3", "bn2"),
            ("bottleneck-w0.5", "bn3"),
            ("conv-k3", "bn"),
        ] {
            let op = operation(name);
            let built = op.build(&own).unwrap();
            let start = op.initialise(&own, &weights.under(layer), &built, 0).unwrap();
            let scale = start.get(&format!("{last}.weight")).unwrap();
            assert!(scale.data.iter().all(|s| *s == if zeros { 0.0 } else { 1.0 }), "{name} at {layer}");
        }
    }
}

#[test]
fn narrow_of_full_width_is_the_teacher() {
    for name in TEACHERS {
        let (graph, weights) = teacher(name);
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap();
            let own_weights = weights.under(&layer.name);
            let op = operation("narrow-w1.0");
            let built = op.build(&own).unwrap();
            assert_eq!(built.clone().renamed(own.name()), own);
            assert_eq!(op.initialise(&own, &own_weights, &built, 0).unwrap(), own_weights);
        }
    }
    let own = teacher("resnet20_cifar").0.layer_graph("layer1.0").unwrap();
    let pool = Pool::parse("narrow-w1.0").unwrap().operations_for(&own);
    let reason = pool[2].1.as_ref().unwrap_err().to_string();
    assert!(reason.contains("teacher"), "{reason}");
}

#[test]
fn narrow_keeps_the_strongest_channels() {
    let (graph, mut weights) = teacher("resnet20_cifar");
    // Channels 3, 5, 8 and 13 are loud: their normalisation scales them up.
    let mut scale = weights.get("layer1.1.bn1.weight").unwrap().clone();
    for loud in [13, 3, 8, 5] {
        scale.data[loud] = 10.0 + loud as f32;
    }
    weights.insert("layer1.1.bn1.weight", scale);
    let own = graph.layer_graph("layer1.1").unwrap();
    let own_weights = weights.under("layer1.1");
    let op = operation("narrow-w0.25");
    let built = op.build(&own).unwrap();
    let start = op.initialise(&own, &own_weights, &built, 0).unwrap();
    let keep = [3, 5, 8, 13];
    assert_eq!(start.get("bn1.weight").unwrap().data, [13.0, 15.0, 18.0, 23.0]);
    let kernel = |name| own_weights.get(name).unwrap();
    assert_eq!(*start.get("conv1.weight").unwrap(), kernel("conv1.weight").select(0, &keep));
    assert_eq!(*start.get("conv2.weight").unwrap(), kernel("conv2.weight").select(1, &keep));
    assert_eq!(start.get("bn2.weight"), own_weights.get("bn2.weight"));

    // The reader counts as well: a channel that conv2 hardly reads goes, however loud it is.
    let mut deaf = own_weights.clone();
    let mut conv2 = kernel("conv2.weight").clone();
    for out in 0..16 {
        conv2.data[(out * 16 + 13) * 9..][..9].fill(0.0);
    }
    deaf.insert("conv2.weight", conv2);
    let start = op.initialise(&own, &deaf, &built, 0).unwrap();
    let kept = &start.get("bn1.weight").unwrap().data;
    assert!([13.0, 15.0, 18.0].iter().all(|s| kept.contains(s)) && !kept.contains(&23.0), "{kept:?}");
}

#[test]
fn narrow_leaves_the_squeeze_alone_and_keeps_whole_blocks_of_channels() {
    let (graph, _) = teacher("effnetv2_nano_cifar");
    let own = graph.layer_graph("blocks.3.1").unwrap();
    for (name, inner) in
        [("narrow-w0.5", 192), ("narrow-w0.25", 96), ("narrow-w0.125", 48), ("narrow-w0.03", 12)]
    {
        let built = operation(name).build(&own).unwrap();
        let shape =
            |name: &str| built.parameters().into_iter().find(|p| p.name == name).map(|p| p.shape).unwrap();
        assert_eq!(shape("conv_pw.weight"), [inner, 96, 1, 1]);
        assert_eq!(shape("conv_dw.weight"), [inner, 1, 3, 3]);
        assert_eq!(shape("se.conv_reduce.weight"), [24, inner, 1, 1]);
        assert_eq!(shape("se.conv_expand.weight"), [inner, 24, 1, 1]);
        assert_eq!(shape("conv_pwl.weight"), [96, inner, 1, 1]);
    }
}

#[test]
fn reasons_say_why_an_operation_does_not_apply() {
    let image = Shape::image(8, 9, 9);
    let layer = |build: &dyn Fn(&mut GraphBuilder) -> lana_graph::Result<lana_graph::Value>| {
        let mut b = GraphBuilder::new("layer", image.clone());
        let output = build(&mut b).unwrap();
        b.finish(output).unwrap()
    };
    let reason = |name: &str, layer: &Graph| operation(name).build(layer).unwrap_err().to_string();

    // No padding: 9×9 becomes 7×7.
    let valid = layer(&|b| {
        let conv = lana_graph::Conv2d {
            in_channels: 8,
            out_channels: 8,
            kernel: [3; 2],
            stride: [1; 2],
            dilation: [1; 2],
            padding: [0; 4],
            groups: 1,
            bias: false,
        };
        b.node("conv", Op::Conv2d(conv), &[lana_graph::Value::INPUT])
    });
    assert!(reason("conv-k3", &valid).contains("no stride makes 9×9 into 7×7"));
    assert!(reason("identity", &valid).contains("8×9×9 to 8×7×7"));
    assert!(reason("narrow-w0.5", &valid).contains("no channels that only it sees"));

    let vector = layer(&|b| b.node("flatten", Op::Flatten, &[lana_graph::Value::INPUT]));
    assert!(reason("mbconv-e3-k3", &vector).contains("not both feature maps"));

    // Odd sizes under stride 2 are no obstacle: 9×9 becomes 5×5.
    let strided = layer(&|b| b.conv("conv", lana_graph::Value::INPUT, 12, 3, 2, 1));
    for (op, built) in Pool::compact().operations_for(&strided) {
        assert_eq!(built.is_ok(), !["identity", "narrow", "depth", "wide"].contains(&op.family()), "{op}");
    }

    // Of two names for the same network one stands, whatever their order: that which starts from the teacher's weights.
    let gated = zoo::build("efficientnet_b2", &ZooOptions { resolution: Some(64), ..ZooOptions::default() });
    let gated = gated.unwrap().layer_graph("blocks.2.2").unwrap();
    assert!(operation("mbconv-e6-k5").build(&gated).is_ok());
    for list in ["mbconv-e6-k5,own-nogate", "own-nogate,mbconv-e6-k5", "paper,extended,mbconv-e6-k5"] {
        for (op, built) in Pool::parse(list).unwrap().operations_for(&gated) {
            match op.name() {
                "own-nogate" => assert!(built.is_ok(), "{list}"),
                "mbconv-e6-k5" => {
                    assert!(built.unwrap_err().to_string().contains("same network as own-nogate"), "{list}");
                }
                _ => {}
            }
        }
    }
    let random = |family: &lana_models::pool::FamilyInfo| family.initialisation.starts_with("random");
    assert!(families().is_sorted_by_key(random), "those that start from the teacher come first");
    for list in ["stack-k1-w1,fused-e1-k1", "fused-e1-k1,stack-k1-w1"] {
        let own = teacher("resnet20_cifar").0.layer_graph("layer1.0").unwrap();
        let built = Pool::parse(list).unwrap().operations_for(&own);
        let standing: Vec<&str> = built[2..].iter().filter(|b| b.1.is_ok()).map(|b| b.0.name()).collect();
        assert_eq!(standing, ["fused-e1-k1"], "{list}");
    }

    // Widths that round to the same channels stand once.
    let own = teacher("resnet20_cifar").0.layer_graph("layer1.0").unwrap();
    let twins = Pool::parse("narrow-w0.25,narrow-w0.26").unwrap().operations_for(&own);
    assert!(twins[2].1.is_ok());
    assert!(twins[3].1.as_ref().unwrap_err().to_string().contains("same network as narrow-w0.25"));
}

#[test]
fn a_skipped_layer_and_wrong_weights_are_no_trouble() {
    let (graph, weights) = teacher("resnet20_cifar");
    let identity = operation("identity").build(&graph.layer_graph("layer1.1").unwrap()).unwrap();
    let skipped = graph.replace("layer1.1", &identity).unwrap();
    let own = skipped.layer_graph("layer1.1").unwrap();
    let built: Vec<_> =
        Pool::compact().operations_for(&own).into_iter().filter(|(_, g)| g.is_ok()).map(|(o, _)| o).collect();
    assert!(built[0].is_teacher() && !built.iter().any(|o| o.is_identity() || o.family() == "narrow"));

    let own = graph.layer_graph("layer1.1").unwrap();
    let op = operation("narrow-w0.5");
    let built = op.build(&own).unwrap();
    assert!(op.initialise(&own, &weights.under("layer2.0"), &built, 0).is_err());
    assert!(op.initialise(&own, &Weights::new(), &built, 0).is_err());
}

#[test]
fn a_mistyped_preset_is_answered_with_it_and_nothing_twice() {
    let error = Pool::parse("papr").unwrap_err().to_string();
    assert!(error.contains("nearest: paper; "), "{error}");
    let error = Pool::parse("narow-w0.5").unwrap_err().to_string();
    assert_eq!(error.matches("narrow-w0.5,").count(), 1, "{error}");
}
