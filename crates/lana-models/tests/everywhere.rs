//! Every operation of every preset at every layer of four teachers: shapes and counts.
#![allow(clippy::unwrap_used)]

use lana_graph::{Graph, Op, Value, Weights};
use lana_models::init;
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

/// Random weights of wide layers take long: above this many only the parameters' shapes are counted.
const INITIALISED: u64 = 100_000;

/// Multiply-accumulates from what the parameters are like and how often each is used, not from what operations say of
/// themselves: two for each element that BatchNorm gives, five for LayerNorm's.
fn counted(graph: &Graph) -> u64 {
    let parameters = graph.parameters();
    let nodes = graph.nodes().iter().enumerate().map(|(index, node)| {
        let out = graph.shape(Value::of_node(index));
        let kernels = parameters.iter().filter(|p| p.node == index && p.shape.len() > 1);
        let weights: usize = kernels.map(|p| p.shape.iter().product::<usize>()).sum();
        match &node.op {
            Op::Conv2d(_) | Op::Conv3d { .. } => weights * out.elements() / out.channels(),
            Op::Linear { out_features, .. } => weights * out.elements() / out_features,
            Op::BatchNorm { .. } => 2 * out.elements(),
            Op::LayerNorm { .. } => 5 * out.elements(),
            Op::MatMul => out.elements() * graph.input_shapes(index)[0].dims().last().unwrap(),
            _ => 0,
        }
    });
    nodes.sum::<usize>() as u64
}

fn trained(graph: &Graph, weights: &Weights) -> u64 {
    let trained = graph.parameters().into_iter().filter(|p| p.role.is_trained());
    trained.map(|p| weights.get(&p.name).unwrap().data.len() as u64).sum()
}

#[test]
fn counts_are_those_of_the_weights_and_of_their_use() {
    let pool = Pool::parse("compact,paper,extended").unwrap();
    for (name, resolution) in [
        ("efficientnet_b2", Some(65)),
        ("tf_efficientnetv2_b3", Some(96)),
        ("resnest50d", Some(64)),
        ("resnet56_cifar", None),
    ] {
        let graph = zoo::build(name, &ZooOptions { resolution, ..ZooOptions::default() }).unwrap();
        let mut seen: Vec<Graph> = Vec::new();
        let (mut built_in_all, mut initialised) = (0, 0);
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap().renamed("layer");
            if seen.contains(&own) {
                continue;
            }
            let own_weights = init::random(&own, 7);
            for (operation, built) in pool.operations_for(&own) {
                let Ok(built) = built else { continue };
                let place = format!("{operation} at {} of {name}", layer.name);
                assert_eq!(built.input_shape(), own.input_shape(), "{place}");
                assert_eq!(built.output_shape(), own.output_shape(), "{place}");
                let cost = built.cost();
                assert_eq!(cost.macs, counted(&built), "{place}");
                let shapes = built.parameters().into_iter().filter(|p| p.role.is_trained());
                let elements: usize = shapes.map(|p| p.shape.iter().product::<usize>()).sum();
                assert_eq!(cost.params, elements as u64, "{place}");
                built_in_all += 1;
                if cost.params < INITIALISED {
                    let start = operation.initialise(&own, &own_weights, &built, 1).unwrap();
                    assert_eq!(cost.params, trained(&built, &start), "{place}");
                    assert!(start.iter().all(|(_, t)| t.data.iter().all(|x| x.is_finite())), "{place}");
                    initialised += 1;
                }
            }
            seen.push(own);
        }
        println!("{name}: {} layers, {built_in_all} operations, {initialised} initialised", seen.len());
        assert!(built_in_all > 150 * seen.len() && initialised > 30, "{name}: {built_in_all}, {initialised}");
    }
}
