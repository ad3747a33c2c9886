//! The extended pool: where its families apply, and what they start from.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use lana_graph::{Activation, Graph, Op, Tensor, Weights};
use lana_models::init;
use lana_models::pool::{Operation, Pool, Preset};
use lana_models::zoo::{self, ZooOptions};

fn layer(teacher: &str, resolution: Option<usize>, name: &str) -> (Graph, Weights) {
    let graph = zoo::build(teacher, &ZooOptions { resolution, ..ZooOptions::default() }).unwrap();
    let own = graph.layer_graph(name).unwrap();
    let weights = init::random(&own, 7);
    (own, weights)
}

fn started(name: &str, own: &Graph, weights: &Weights) -> (Graph, Weights) {
    let operation: Operation = name.parse().unwrap();
    let graph = operation.build(own).unwrap();
    let start = operation.initialise(own, weights, &graph, 1).unwrap();
    (graph, start)
}

fn reason(name: &str, own: &Graph) -> String {
    name.parse::<Operation>().unwrap().build(own).unwrap_err().to_string()
}

fn tensor<'a>(weights: &'a Weights, name: &str) -> &'a Tensor {
    weights.get(name).unwrap()
}

#[test]
fn the_extended_pool_stands_at_every_layer_or_says_why_not() {
    let pool = Pool::preset(Preset::Extended);
    for operation in Pool::compact().operations() {
        assert!(pool.operations().contains(operation), "{operation}");
    }
    for (name, resolution) in [
        ("efficientnet_b2", Some(65)),
        ("tf_efficientnetv2_b3", Some(96)),
        ("resnest50d", Some(64)),
        ("resnet56_cifar", None),
    ] {
        let graph = zoo::build(name, &ZooOptions { resolution, ..ZooOptions::default() }).unwrap();
        let mut seen: Vec<Graph> = Vec::new();
        let mut families: BTreeMap<&str, usize> = BTreeMap::new();
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap().renamed("layer");
            if seen.contains(&own) {
                continue;
            }
            let own_weights = init::random(&own, 7);
            let mut applicable = 0;
            for (operation, built) in pool.operations_for(&own) {
                let place = format!("{operation} at {} of {name}", layer.name);
                match built {
                    Ok(built) => {
                        applicable += 1;
                        *families.entry(operation.family()).or_default() += 1;
                        graph.replace(&layer.name, &built).unwrap();
                        assert!(built.deployed_cost().macs <= built.cost().macs, "{place}");
                        // The decomposition of wide layers takes long.
                        if built.cost().params < 200_000 {
                            let start = operation.initialise(&own, &own_weights, &built, 1).unwrap();
                            assert_eq!(start, operation.initialise(&own, &own_weights, &built, 1).unwrap());
                        }
                        let edit =
                            ["own", "grouped", "radix", "lowrank", "narrow"].contains(&operation.family());
                        assert!(!edit || built.cost().macs <= own.cost().macs, "{place}");
                    }
                    Err(reason) => {
                        let reason = reason.to_string();
                        let known = [
                            "it is the same network as",
                            "the layer maps",
                            "the layer has no ",
                            "the layer is a single block",
                            "groups do not divide",
                            "cannot be dealt out",
                        ];
                        assert!(known.iter().any(|k| reason.contains(k)), "{place}: {reason}");
                    }
                }
            }
            println!("{name} {}: {applicable} of {}", layer.name, pool.operations().len());
            assert!(applicable >= 20, "{applicable} at {} of {name}", layer.name);
            seen.push(own);
        }
        println!("{name}: {families:?}");
        for family in ["lowrank", "mixconv", "acnet"] {
            assert!(families.contains_key(family), "{family} at {name}");
        }
        assert_eq!(families.contains_key("own"), name != "resnet56_cifar");
        assert_eq!(families.contains_key("radix"), name == "resnest50d");
        if name == "resnest50d" {
            assert_eq!(families["narrow"], 3 * seen.len());
            assert_eq!(families["radix"], seen.len());
        }
    }
}

#[test]
fn edits_take_out_what_they_say() {
    let has = |g: &Graph, op: Op| g.nodes().iter().any(|n| n.op == op);
    let silu = Op::Activation { kind: Activation::Silu };
    let (own, weights) = layer("efficientnet_b2", Some(37), "blocks.2.1");
    let (graph, start) = started("own-nogate", &own, &weights);
    assert!(has(&own, Op::GlobalAveragePool) && !has(&graph, Op::GlobalAveragePool));
    // Random gates are one half on average, and in the convolution behind them.
    let (was, is) = (tensor(&weights, "conv_pwl.weight"), tensor(&start, "conv_pwl.weight"));
    let size = |t: &Tensor| t.data.iter().map(|w| w.abs()).sum::<f32>();
    let ratio = size(is) / size(was);
    assert!(was.shape == is.shape && (0.3..0.7).contains(&ratio), "{ratio}");
    assert!(start.iter().all(|(name, _)| !name.starts_with("se.")));
    assert_eq!(tensor(&start, "conv_pw.weight"), tensor(&weights, "conv_pw.weight"));

    let (graph, start) = started("own-k3", &own, &weights);
    let (was, is) = (tensor(&weights, "conv_dw.weight"), tensor(&start, "conv_dw.weight"));
    assert_eq!((was.shape[2], is.shape[2]), (5, 3));
    assert_eq!((is.data[0], is.data[4]), (was.data[6], was.data[12]));
    assert_eq!(graph.output_shape(), own.output_shape());

    let (graph, start) = started("own-relu", &own, &weights);
    assert_eq!(start, weights);
    // Only that in the gate is left.
    let count = |g: &Graph| g.nodes().iter().filter(|n| n.op == silu).count();
    assert_eq!((count(&own), count(&graph)), (3, 1));
    assert_eq!(started("own-nogate-k3-relu", &own, &weights).0.name(), "own-nogate-k3-relu");

    // Split attention loses its weights, not its versions.
    let (own, weights) = layer("resnest50d", Some(40), "layer2.0");
    let (graph, start) = started("own-nogate", &own, &weights);
    assert!(!has(&graph, Op::GlobalAveragePool) && has(&graph, Op::SumParts { parts: 2 }));
    let scale = &tensor(&start, "conv2.bn0.weight").data;
    let (first, second) = scale.split_at(scale.len() / 2);
    assert!(first.iter().zip(second).all(|(a, b)| (a + b - 1.0).abs() < 1e-5));

    let (basic, _) = layer("resnet20_cifar", None, "layer1.1");
    assert!(reason("own-nogate", &basic).contains("no squeeze-and-excitation and no split attention"));
    assert!(reason("own-k3", &basic).contains("no kernel larger than 3×3"));
    assert!(reason("own-relu", &basic).contains("no SiLU"));
}

#[test]
fn groups_keep_what_they_hold() {
    for (teacher, name) in [("resnet20_cifar", "layer1.1"), ("resnet20_cifar", "layer2.0")] {
        let (own, weights) = layer(teacher, None, name);
        assert_eq!(started("grouped-g1", &own, &weights).1, weights);
        let energy = |w: &Weights| {
            let of = |n| tensor(w, n).data.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
            of("conv1.weight") + of("conv2.weight")
        };
        for groups in [2, 4] {
            let (graph, start) = started(&format!("grouped-g{groups}"), &own, &weights);
            let share = energy(&start) / energy(&weights);
            // More than chance, even of random kernels.
            assert!(share > 1.05 / f64::from(groups) && share < 1.0, "{share} in {groups}");
            assert!(graph.nodes().iter().any(|n| matches!(n.op, Op::ShuffleChannels { .. })));
            assert!(graph.cost().macs < own.cost().macs * 3 / 4 + own.cost().macs / 8);
        }
    }
    let (own, _) = layer("resnet20_cifar", None, "layer1.1");
    assert!(reason("grouped-g8", &own).contains("cannot be dealt out"));
    assert!(reason("grouped-g3", &own).contains("do not divide"));
}

#[test]
fn groups_find_those_that_are_there() {
    // Kernels in two groups, hidden behind another order of the inner channels.
    let (own, mut weights) = layer("resnet20_cifar", None, "layer1.1");
    let order: Vec<usize> = (0..16).map(|c| c * 5 % 16).collect();
    let cell = |c: usize| order[c] / 4;
    let mut first = tensor(&weights, "conv1.weight").clone();
    let mut second = tensor(&weights, "conv2.weight").clone();
    for (out, input) in (0..16).flat_map(|o| (0..16).map(move |i| (o, i))) {
        if input / 8 != cell(out) / 2 {
            first.data[(out * 16 + input) * 9..][..9].fill(0.0);
        }
        if out / 8 != cell(input) % 2 {
            second.data[(out * 16 + input) * 9..][..9].fill(0.0);
        }
    }
    let total = |t: &Tensor| t.data.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>();
    let (was_first, was_second) = (total(&first), total(&second));
    weights.insert("conv1.weight", first);
    weights.insert("conv2.weight", second);
    let (_, start) = started("grouped-g2", &own, &weights);
    assert!((total(tensor(&start, "conv1.weight")) - was_first).abs() < 1e-6 * was_first);
    assert!((total(tensor(&start, "conv2.weight")) - was_second).abs() < 1e-6 * was_second);
}

#[test]
fn factors_of_full_rank_are_the_convolution() {
    for (teacher, resolution, name, conv) in [
        ("resnet20_cifar", None, "layer2.0", "conv1"),
        ("resnest50d", Some(40), "layer1.1", "conv2.conv"),
        ("efficientnet_b2", Some(37), "blocks.1.0", "conv_pw"),
    ] {
        let (own, weights) = layer(teacher, resolution, name);
        let whole = tensor(&weights, &format!("{conv}.weight")).clone();
        let product = |share: &str| {
            let (_, start) = started(&format!("lowrank-r{share}"), &own, &weights);
            let basis = tensor(&start, &format!("{conv}_basis.weight")).clone();
            let point = tensor(&start, &format!("{conv}.weight")).clone();
            let (rank, width) = (point.shape[1], basis.data.len() / basis.shape[0]);
            let per_group = point.shape[0] / (basis.shape[0] / rank);
            let mut product = Tensor::full(&whole.shape, 0.0);
            for out in 0..point.shape[0] {
                for r in 0..rank {
                    let row = &basis.data[(out / per_group * rank + r) * width..][..width];
                    let factor = point.data[out * rank + r];
                    let target = &mut product.data[out * width..][..width];
                    target.iter_mut().zip(row).for_each(|(p, b)| *p += factor * b);
                }
            }
            let off: f32 = product.data.iter().zip(&whole.data).map(|(p, w)| (p - w).powi(2)).sum();
            off / whole.data.iter().map(|w| w * w).sum::<f32>()
        };
        let errors = ["1", "0.5", "0.25"].map(product);
        println!("{conv} of {teacher}: {errors:?}");
        assert!(errors[0] < 1e-9 && errors[1] > 1e-3 && errors[1] < errors[2], "{errors:?}");
        // Better than leaving out that share of the channels.
        assert!(errors[1] < 0.5 && errors[2] < 0.75, "{errors:?}");
    }
}
