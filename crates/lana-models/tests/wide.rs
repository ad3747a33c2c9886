//! Blocks side by side, run by the reference interpreter: they give their input and what each of them adds to it.
#![allow(clippy::unwrap_used)]

#[path = "../../lana-graph/tests/common/mod.rs"]
mod common;

use common::{Numbers, run};
use lana_graph::{Activation, Graph, GraphBuilder, LayerRules, Op, Shape, Value, Weights, discover};
use lana_models::pool::{Operation, Pool};
use lana_models::{init, zoo};

/// A layer of three blocks, with normalisations that have learnt something.
fn layer(teacher: &str, name: &str, resolution: usize) -> (Graph, Weights) {
    let options = zoo::ZooOptions { resolution: Some(resolution), ..zoo::ZooOptions::default() };
    let teacher = zoo::build(teacher, &options).unwrap();
    let grouped = discover(&teacher, &LayerRules { group: 3, ..LayerRules::alone() }).unwrap();
    let own = grouped.layer_graph(name).unwrap();
    let weights = learnt(&own);
    (own, weights)
}

fn learnt(own: &Graph) -> Weights {
    let mut weights = init::random(own, 3);
    let mut numbers = Numbers(5);
    for node in own.nodes() {
        let Op::BatchNorm { .. } = node.op else { continue };
        for (suffix, middle) in [("weight", 0.7), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.3)]
        {
            let name = format!("{}.{suffix}", node.name);
            let mut tensor = weights.get(&name).unwrap().clone();
            tensor.data.iter_mut().for_each(|x| *x = middle + 0.4 * numbers.draw());
            weights.insert(name, tensor);
        }
    }
    for (name, tensor) in
        weights.clone().iter().filter(|(name, tensor)| name.ends_with(".bias") && tensor.shape.len() == 1)
    {
        let mut tensor = tensor.clone();
        tensor.data.iter_mut().for_each(|x| *x = 0.4 * numbers.draw());
        weights.insert(name, tensor);
    }
    weights
}

fn input(graph: &Graph) -> Vec<f64> {
    let mut numbers = Numbers(3);
    (0..graph.input_shape().elements()).map(|_| f64::from(numbers.draw()) * 1.7).collect()
}

/// The sums that end blocks.
fn sums(layer: &Graph) -> Vec<usize> {
    (0..layer.nodes().len()).filter(|&n| layer.nodes()[n].op == Op::Add).collect()
}

#[test]
fn all_channels_give_the_sum_of_what_the_blocks_add() {
    // The first blocks of the second, fourth and sixth change the shape and stay.
    for (teacher, name, resolution, first, width) in [
        ("resnet20_cifar", "layer1.0-2", 8, 0, 3),
        ("resnet20_cifar", "layer2.0-2", 8, 1, 2),
        ("resnet50", "layer1.0-2", 32, 1, 2),
        ("efficientnetv2_rw_t", "blocks.1.2-3", 32, 0, 2),
        ("efficientnetv2_rw_t", "blocks.3.0-2", 32, 1, 2),
        ("efficientnet_b2", "blocks.2.0-2", 32, 1, 2),
        ("mobilenetv3_large_100", "blocks.5.0-2", 64, 1, 2),
    ] {
        let place = format!("{name} of {teacher}");
        let (own, weights) = layer(teacher, name, resolution);
        let operation: Operation = format!("wide-w{width}").parse().unwrap();
        let built = operation.build(&own).unwrap();
        let start = operation.initialise(&own, &weights, &built, 0).unwrap();
        let got = run(&built, &start, &input(&own));

        let sums = sums(&own);
        let equal = &sums[sums.len() - width..];
        let x = own.nodes()[equal[0]].inputs.iter().copied().min().unwrap();
        assert_eq!(first == 0, x == Value::INPUT, "{place}");
        let before = own.subgraph(Value::INPUT, x, "").unwrap();
        let entered = if x == Value::INPUT { input(&own) } else { run(&before, &weights, &input(&own)) };
        let mut expected = entered.clone();
        for &sum in equal {
            let ends = || own.nodes()[sum].inputs.iter().copied();
            let branch = own.subgraph(ends().min().unwrap(), ends().max().unwrap(), "").unwrap();
            run(&branch, &weights, &entered).iter().zip(&mut expected).for_each(|(y, sum)| *sum += y);
        }
        if matches!(own.nodes()[own.output().node().unwrap()].op, Op::Activation { kind: Activation::Relu }) {
            expected.iter_mut().for_each(|y| *y = y.max(0.0));
        }
        let scale = expected.iter().fold(0.0_f64, |most, y| most.max(y.abs()));
        for (got, expected) in got.iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-4 * scale, "{place}: {got} for {expected}");
        }
    }
}

/// Two equal blocks that the zoo does not have: `branch` makes what is added, with the names' beginning.
fn built(
    branch: impl Fn(&mut GraphBuilder, &str, Value) -> lana_graph::Result<Value>,
    behind: impl Fn(&mut GraphBuilder, &str, Value) -> lana_graph::Result<Value>,
) -> (Graph, Weights) {
    let mut b = GraphBuilder::new("layer", Shape::image(8, 6, 6));
    let mut x = Value::INPUT;
    for block in ["0", "1"] {
        let added = branch(&mut b, block, x).unwrap();
        let sum = b.add(&format!("{block}.sum"), added, x).unwrap();
        x = behind(&mut b, block, sum).unwrap();
    }
    let graph = b.finish(x).unwrap();
    let weights = learnt(&graph);
    (graph, weights)
}

#[test]
fn a_bias_and_an_activation_of_several_nodes_stay() {
    let branch = |normalised: bool| {
        move |b: &mut GraphBuilder, block: &str, x: Value| {
            let inner = b.conv_full(&format!("{block}.up"), x, 24, 3, 1, 1, true)?;
            let relu = b.activation(&format!("{block}.relu"), inner, Activation::Relu)?;
            let outer = b.conv_full(&format!("{block}.down"), relu, 8, 1, 1, 1, true)?;
            if normalised { b.batch_norm(&format!("{block}.bn"), outer) } else { Ok(outer) }
        }
    };
    // x + relu(x).
    let leak = |b: &mut GraphBuilder, block: &str, sum: Value| {
        let relu = b.activation(&format!("{block}.leak"), sum, Activation::Relu)?;
        b.add(&format!("{block}.leaky"), relu, sum)
    };
    for normalised in [false, true] {
        let (own, weights) = built(branch(normalised), leak);
        let wide: Operation = "wide-w2".parse().unwrap();
        let graph = wide.build(&own).unwrap();
        let start = wide.initialise(&own, &weights, &graph, 0).unwrap();
        let entered = input(&own);
        let sums: Vec<usize> = sums(&own).into_iter().step_by(2).collect();
        let mut expected = entered.clone();
        for (sum, from) in sums.iter().zip([Value::INPUT, Value::of_node(sums[0] + 2)]) {
            let added = own.nodes()[*sum].inputs[0];
            let branch = own.subgraph(from, added, "").unwrap();
            run(&branch, &weights, &entered).iter().zip(&mut expected).for_each(|(y, sum)| *sum += y);
        }
        for (got, sum) in run(&graph, &start, &entered).iter().zip(&expected) {
            let expected = sum + sum.max(0.0);
            assert!((got - expected).abs() < 1e-4 * expected.abs().max(1.0), "{got} for {expected}");
        }
    }
}

#[test]
fn channels_that_all_blocks_have_switched_off_may_learn() {
    let (own, mut weights) = layer("resnet20_cifar", "layer1.0-2", 8);
    for block in 0..3 {
        let name = format!("layer1.{block}.bn2.weight");
        let mut scale = weights.get(&name).unwrap().clone();
        scale.data[3] = 0.0;
        weights.insert(name, scale);
    }
    let wide: Operation = "wide-w3".parse().unwrap();
    let start = wide.initialise(&own, &weights, &wide.build(&own).unwrap(), 0).unwrap();
    assert_eq!(start.get("layer1.0.bn2.weight").unwrap().data[3], 0.0);
    let kernel = start.get("layer1.0.conv2.weight").unwrap();
    assert!(kernel.data[3 * 48 * 9..][..48 * 9].iter().all(|w| *w != 0.0));
}

#[test]
fn a_part_of_the_channels_fits_gates_and_groups() {
    for (teacher, name, resolution, operation) in [
        ("resnet50", "layer1.0-2", 32, "wide-w1.5"),
        ("efficientnetv2_rw_t", "blocks.3.0-2", 32, "wide-w1.5"),
        ("efficientnetv2_rw_t", "blocks.3.3-5", 32, "wide-w2"),
        ("mobilenetv3_large_100", "blocks.5.0-2", 64, "wide-w1.2"),
    ] {
        let (own, weights) = layer(teacher, name, resolution);
        let operation: Operation = operation.parse().unwrap();
        let built = operation.build(&own).unwrap();
        // Checked against the graph.
        let start = operation.initialise(&own, &weights, &built, 0).unwrap();
        assert!(run(&built, &start, &input(&own)).iter().all(|y| y.is_finite()), "{operation} at {name}");
    }
}

#[test]
fn a_block_is_as_wide_as_its_name_says() {
    let (own, weights) = layer("resnet20_cifar", "layer1.0-2", 8);
    for (name, inner) in [("wide-w1.5", 24), ("wide-w2", 32), ("wide-w3", 48)] {
        let operation: Operation = name.parse().unwrap();
        let built = operation.build(&own).unwrap();
        let convs: Vec<[usize; 2]> = built
            .nodes()
            .iter()
            .filter_map(|node| match &node.op {
                Op::Conv2d(conv) => Some([conv.in_channels, conv.out_channels]),
                _ => None,
            })
            .collect();
        assert_eq!(convs, [[16, inner], [inner, 16]], "{name}");
        assert_eq!(
            operation.initialise(&own, &weights, &built, 0).unwrap(),
            operation.initialise(&own, &weights, &built, 1).unwrap()
        );
    }
    // As many multiply-accumulates as the blocks beside one another, but for BatchNorm.
    let depth: Operation = "depth-n2".parse().unwrap();
    let wide: Operation = "wide-w2".parse().unwrap();
    let (depth, wide) = (depth.build(&own).unwrap().cost().macs, wide.build(&own).unwrap().cost().macs);
    assert!(wide < depth && wide as f64 > 0.99 * depth as f64, "{wide}, {depth}");
    // The strongest channels stay: those of the second block, where the others' normalisation makes theirs small.
    let mut quiet = weights.clone();
    for block in [0, 2] {
        let name = format!("layer1.{block}.bn1.weight");
        let mut scale = weights.get(&name).unwrap().clone();
        scale.data.iter_mut().for_each(|x| *x *= 1e-3);
        quiet.insert(name, scale);
        let name = format!("layer1.{block}.bn1.bias");
        quiet.insert(name.clone(), lana_graph::Tensor::full(&weights.get(&name).unwrap().shape, 0.0));
    }
    let operation: Operation = "wide-w1.5".parse().unwrap();
    let start = operation.initialise(&own, &quiet, &operation.build(&own).unwrap(), 0).unwrap();
    let kept = &start.get("layer1.0.bn1.weight").unwrap().data;
    assert!(weights.get("layer1.1.bn1.weight").unwrap().data.iter().all(|x| kept.contains(x)), "{kept:?}");
}

#[test]
fn reasons_say_why_blocks_cannot_stand_side_by_side() {
    let reason = |teacher: &str, name: &str, operation: &str, resolution: usize| {
        let (own, _) = layer(teacher, name, resolution);
        operation.parse::<Operation>().unwrap().build(&own).unwrap_err().to_string()
    };
    assert!(
        reason("resnet20_cifar", "layer2.0-2", "wide-w3", 8).contains("only 2 blocks of the layer are equal")
    );
    assert!(reason("resnet18", "layer2.0-1", "wide-w2", 32).contains("last two blocks are not equal"));
    // A convolution in groups of versions.
    assert!(reason("resnest50d", "layer1.0-2", "wide-w2", 32).contains("does more than add to its input"));
    // A depthwise convolution of what goes out, in front of the one that makes inner channels.
    let mut b = GraphBuilder::new("layer", Shape::image(8, 6, 6));
    let mut x = Value::INPUT;
    for block in 0..2 {
        let mixed = b.conv(&format!("{block}.dw"), x, 8, 3, 1, 8).unwrap();
        let inner = b.conv(&format!("{block}.up"), mixed, 32, 1, 1, 1).unwrap();
        let relu = b.activation(&format!("{block}.relu"), inner, Activation::Relu).unwrap();
        let outer = b.conv(&format!("{block}.down"), relu, 8, 1, 1, 1).unwrap();
        x = b.add(&format!("{block}.sum"), outer, x).unwrap();
    }
    let mixed = "wide-w2".parse::<Operation>().unwrap().build(&b.finish(x).unwrap()).unwrap_err().to_string();
    assert!(mixed.contains("at `0.dw` the block does more"), "{mixed}");
    // An activation of what is added, and a gate of it.
    let wide: Operation = "wide-w2".parse().unwrap();
    let residual = |b: &mut GraphBuilder, block: &str, x: Value| {
        let inner = b.conv(&format!("{block}.up"), x, 16, 3, 1, 1)?;
        b.conv(&format!("{block}.down"), inner, 8, 3, 1, 1)
    };
    let stays = |_: &mut GraphBuilder, _: &str, sum: Value| Ok(sum);
    assert!(wide.build(&built(residual, stays).0).is_ok());
    let activated = |b: &mut GraphBuilder, block: &str, x: Value| {
        let added = residual(b, block, x)?;
        b.activation(&format!("{block}.act"), added, Activation::Relu)
    };
    let reason = wide.build(&built(activated, stays).0).unwrap_err().to_string();
    assert!(reason.contains("at `0.act` the block does more"), "{reason}");
    let gated = |b: &mut GraphBuilder, block: &str, x: Value| {
        let added = residual(b, block, x)?;
        let mean = b.node(&format!("{block}.mean"), Op::GlobalAveragePool, &[added])?;
        let less = b.conv(&format!("{block}.less"), mean, 4, 1, 1, 1)?;
        let more = b.conv(&format!("{block}.more"), less, 8, 1, 1, 1)?;
        b.node(&format!("{block}.mul"), Op::Mul, &[added, more])
    };
    let reason = wide.build(&built(gated, stays).0).unwrap_err().to_string();
    assert!(reason.contains("at `0.mean` the block does more"), "{reason}");
    // Rates that count in training alone make no difference.
    let dropped = |b: &mut GraphBuilder, block: &str, x: Value| {
        let added = residual(b, block, x)?;
        let rate = if block == "0" { 0.1 } else { 0.2 };
        b.node(&format!("{block}.drop"), Op::DropPath { rate }, &[added])
    };
    assert!(wide.build(&built(dropped, stays).0).is_ok());
    let narrow = "wide-w1".parse::<Operation>().unwrap_err().to_string();
    assert!(narrow.contains("`depth`"), "{narrow}");
    let single =
        zoo::build("resnet20_cifar", &zoo::ZooOptions::default()).unwrap().layer_graph("layer1.0").unwrap();
    for (operation, built) in Pool::parse("wide-w2,wide-w3").unwrap().operations_for(&single).iter().skip(2) {
        let reason = built.as_ref().unwrap_err().to_string();
        assert!(reason.contains("a single block"), "{operation}: {reason}");
    }
}
