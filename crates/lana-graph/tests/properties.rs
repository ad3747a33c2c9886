//! What must hold for every network: cutting, replacing, folding, narrowing, writing and reading it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Block, blocks, difference, network, run, sample, weights};
use lana_graph::channels::{ChannelGroups, importance, narrow, narrow_weights};
use lana_graph::{Graph, GraphBuilder, Node, Op, Shape, Value, deploy, fold_batch_norm};
use proptest::prelude::*;

/// The operation that skips a layer of that shape.
fn identity(shape: &Shape) -> Graph {
    Graph::new("identity", shape.clone(), Vec::new(), Value::INPUT, Vec::new()).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn json_round_trip(blocks in blocks()) {
        let graph = network(&blocks);
        let json = graph.to_json();
        let back: Graph = serde_json::from_str(&json).unwrap();
        prop_assert_eq!(&back, &graph);
        prop_assert_eq!(back.to_json(), json);
        prop_assert_eq!(serde_json::from_str::<Graph>(&serde_json::to_string(&graph).unwrap()).unwrap(), graph);
    }

    #[test]
    fn a_layer_replaced_by_itself_changes_nothing(blocks in blocks()) {
        let graph = network(&blocks);
        let w = weights(&graph, 1);
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap();
            prop_assert_eq!(own.layers().len(), 0);
            w.under(&layer.name).check(&own).unwrap();
            prop_assert_eq!(&graph.replace(&layer.name, &own).unwrap(), &graph);
            let mut w2 = w.clone();
            w2.replace_under(&layer.name, &w.under(&layer.name));
            prop_assert_eq!(&w2, &w);
        }
    }

    /// Skipping layers in any order and putting them back in any order gives the network one began with.
    #[test]
    fn skipped_layers_come_back(
        blocks in blocks(),
        out in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(),
        back in Just((0..5).collect::<Vec<usize>>()).prop_shuffle(),
    ) {
        let graph = network(&blocks);
        let skippable: Vec<String> = graph
            .layers()
            .iter()
            .filter(|l| graph.shape(l.input) == graph.shape(l.output))
            .map(|l| l.name.clone())
            .collect();
        let names = |order: &[usize]| -> Vec<String> {
            order.iter().filter_map(|i| skippable.get(*i).cloned()).collect()
        };
        let mut student = graph.clone();
        for name in names(&out) {
            let (_, layer) = student.layer(&name).unwrap();
            let skip = identity(student.shape(layer.input));
            student = student.replace(&name, &skip).unwrap();
            let (_, layer) = student.layer(&name).unwrap();
            prop_assert_eq!(layer.input, layer.output);
            prop_assert!(layer.nodes.is_empty());
            prop_assert_eq!(student.layer_graph(&name).unwrap().nodes().len(), 0);
            let json = student.to_json();
            prop_assert_eq!(&serde_json::from_str::<Graph>(&json).unwrap(), &student);
        }
        prop_assert_eq!(student.layers().len(), graph.layers().len());
        for name in names(&back) {
            student = student.replace(&name, &graph.layer_graph(&name).unwrap()).unwrap();
        }
        prop_assert_eq!(student, graph);
    }

    /// A network is what stands before a layer, the layer, and what stands behind it: in cost and in what it computes.
    #[test]
    fn a_network_is_the_sum_of_its_parts(blocks in blocks(), seed in 0u64..1000) {
        let graph = network(&blocks);
        let w = weights(&graph, seed);
        let x = sample(&graph, seed);
        let whole = run(&graph, &w, &x);
        for layer in graph.layers() {
            let front = graph.subgraph(Value::INPUT, layer.input, "").unwrap();
            let middle = graph.layer_graph(&layer.name).unwrap();
            let rest = graph.subgraph(layer.output, graph.output(), "").unwrap();
            prop_assert_eq!(front.layers().len() + 1 + rest.layers().len(), graph.layers().len());
            let costs = [front.cost(), middle.cost(), rest.cost()];
            prop_assert_eq!(costs.iter().map(|c| c.macs).sum::<u64>(), graph.cost().macs);
            prop_assert_eq!(costs.iter().map(|c| c.params).sum::<u64>(), graph.cost().params);
            prop_assert_eq!(graph.cost_of(layer.nodes.clone()), middle.cost());
            let y = run(&front, &w, &x);
            let y = run(&middle, &w.under(&layer.name), &y);
            prop_assert_eq!(run(&rest, &w, &y), whole.clone());
        }
    }

    /// Folding leaves no BatchNorm behind a convolution and none of its costs, keeps layers, and computes the same.
    #[test]
    fn folding_computes_the_same(blocks in blocks(), seed in 0u64..1000) {
        let graph = network(&blocks);
        let w = weights(&graph, seed);
        let (folded, folded_weights) = fold_batch_norm(&graph, &w).unwrap();
        folded_weights.check(&folded).unwrap();
        let behind_conv = |g: &Graph, n: &Node| {
            let source = n.inputs[0].node().map(|n| &g.nodes()[n].op);
            matches!(n.op, Op::BatchNorm { .. }) && matches!(source, Some(Op::Conv2d(_)))
        };
        let boundary = |g: &Graph, n: &Node| g.layers().iter().any(|l| l.input == n.inputs[0]);
        prop_assert!(!folded.nodes().iter().any(|n| behind_conv(&folded, n) && !boundary(&folded, n)));
        prop_assert!(!folded.nodes().iter().any(|n| n.op.is_training_only()));
        let normalised = |g: &Graph| -> u64 {
            let norms = (0..g.nodes().len()).filter(|&n| matches!(g.nodes()[n].op, Op::BatchNorm { .. }));
            norms.map(|n| 2 * g.shape(Value::of_node(n)).elements() as u64).sum()
        };
        prop_assert_eq!(folded.cost().macs - normalised(&folded), graph.cost().macs - normalised(&graph));
        for (a, b) in folded.layers().iter().zip(graph.layers()) {
            prop_assert_eq!((&a.name, &a.stage), (&b.name, &b.stage));
            prop_assert_eq!(folded.shape(a.output), graph.shape(b.output));
        }
        let x = sample(&graph, seed);
        prop_assert!(difference(&run(&graph, &w, &x), &run(&folded, &folded_weights, &x)) < 1e-5);
        // Folding a layer is the layer of the folded network.
        for layer in graph.layers() {
            let own = graph.layer_graph(&layer.name).unwrap();
            let (a, a_weights) = fold_batch_norm(&own, &w.under(&layer.name)).unwrap();
            prop_assert_eq!(a, folded.layer_graph(&layer.name).unwrap());
            prop_assert_eq!(a_weights.len(), folded_weights.under(&layer.name).len());
        }
    }

    /// Deployed, branches are one convolution: no BatchNorm is left, layers stay, and the network computes the same.
    #[test]
    fn deploying_computes_the_same(blocks in blocks(), seed in 0u64..1000) {
        let graph = network(&blocks);
        let w = weights(&graph, seed);
        let (deployed, deployed_weights) = deploy(&graph, &w).unwrap();
        deployed_weights.check(&deployed).unwrap();
        let is_norm = |n: &Node| matches!(n.op, Op::BatchNorm { .. });
        prop_assert!(!deployed.nodes().iter().any(is_norm));
        prop_assert!(deployed.cost().macs <= graph.deployed_cost().macs);
        let branches = blocks.iter().any(|b| matches!(b, Block::Branches));
        prop_assert_eq!(graph.deployed_cost() != graph.cost(), branches);
        for (a, b) in deployed.layers().iter().zip(graph.layers()) {
            prop_assert_eq!((&a.name, &a.stage), (&b.name, &b.stage));
            prop_assert_eq!(deployed.shape(a.output), graph.shape(b.output));
        }
        let x = sample(&graph, seed);
        prop_assert!(difference(&run(&graph, &w, &x), &run(&deployed, &deployed_weights, &x)) < 1e-5);
    }

    /// Channels that nobody reads can go: the network computes the same without them. And they weigh least.
    #[test]
    fn unread_channels_can_be_narrowed_away(blocks in blocks(), seed in 0u64..1000) {
        let graph = network(&blocks);
        let x = sample(&graph, seed);
        let groups = ChannelGroups::of(&graph);
        for &group in groups.inner() {
            let mut w = weights(&graph, seed);
            let places = groups.places(group);
            let keep: Vec<usize> = (0..places).filter(|c| !(c + seed as usize).is_multiple_of(3)).collect();
            if keep.is_empty() {
                continue;
            }
            for node in graph.nodes() {
                let Op::Conv2d(conv) = &node.op else { continue };
                if groups.group(node.inputs[0]) == group && !conv.is_depthwise() {
                    let name = format!("{}.weight", node.name);
                    let mut kernel = w.get(&name).unwrap().clone();
                    let area = conv.kernel[0] * conv.kernel[1];
                    // Each group of a convolution has whole runs of places.
                    for (i, slice) in kernel.data.chunks_exact_mut(area).enumerate() {
                        if !keep.contains(&(i % (conv.in_channels / conv.groups) % places)) {
                            slice.fill(0.0);
                        }
                    }
                    w.insert(name, kernel);
                }
            }
            let strength = importance(&graph, &w, group);
            let least_kept = keep.iter().map(|&c| strength[c]).fold(f64::INFINITY, f64::min);
            prop_assert!((0..places).all(|c| keep.contains(&c) || strength[c] <= least_kept));
            let small = narrow(&graph, group, keep.len()).unwrap();
            let small_weights = narrow_weights(&graph, &w, group, &keep);
            small_weights.check(&small).unwrap();
            prop_assert!(keep.len() == places || small.cost().params < graph.cost().params);
            prop_assert!(difference(&run(&graph, &w, &x), &run(&small, &small_weights, &x)) < 1e-9);
        }
        prop_assert!(narrow(&graph, 0, 1).is_err());
    }

    /// Numbers changed at random in a file give a network or an error, never a crash.
    #[test]
    fn damaged_json_is_an_error(
        blocks in blocks(),
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..4),
    ) {
        const VALUES: [&str; 9] =
            ["0", "1", "7", "99", "-1", "1.5", "4294967296", "9223372036854775807", "18446744073709551615"];
        let mut json = network(&blocks).to_json();
        for (place, value) in places {
            let bytes = json.as_bytes();
            let starts: Vec<usize> = (1..bytes.len())
                .filter(|&i| bytes[i].is_ascii_digit() && b"[ :,".contains(&bytes[i - 1]))
                .collect();
            let start = starts[place.index(starts.len())];
            let end = start + json[start..].find(|c: char| !c.is_ascii_digit()).unwrap();
            json.replace_range(start..end, VALUES[value.index(VALUES.len())]);
        }
        if let Ok(graph) = serde_json::from_str::<Graph>(&json) {
            graph.cost();
            graph.parameters();
            for layer in graph.layers() {
                graph.layer_graph(&layer.name).ok();
            }
        }
    }
}

#[test]
fn a_wrong_shape_does_not_replace() {
    let graph = network(&[Block::Residual, Block::Wider]);
    let wrong = identity(&Shape::image(5, 6, 5));
    let error = graph.replace("s.0", &wrong).unwrap_err().to_string();
    assert_eq!(error, "operation `identity` maps 5×6×5 to 5×6×5, but layer `s.0` maps 4×6×5 to 4×6×5");
    assert!(graph.replace("s.1", &identity(&Shape::image(4, 6, 5))).is_err());
    let error = graph.replace("s.9", &wrong).unwrap_err().to_string();
    assert!(error.contains("no layer `s.9`") && error.contains("s.0, s.1"), "{error}");
}

#[test]
fn nodes_nobody_needs_are_left_out_of_an_operation_that_passes_its_input_on() {
    let graph = network(&[Block::Plain, Block::Plain]);
    let mut b = GraphBuilder::new("lazy", Shape::image(4, 6, 5));
    let x = b.input();
    b.conv("unused", x, 4, 3, 1, 1).unwrap();
    let lazy = b.finish(x).unwrap();
    let student = graph.replace("s.0", &lazy).unwrap();
    assert_eq!(student, graph.replace("s.0", &identity(&Shape::image(4, 6, 5))).unwrap());
    // The layer in front of it can be replaced still.
    let own = graph.layer_graph("s.0").unwrap();
    assert_eq!(student.replace("s.0", &own).unwrap(), graph);
}

#[test]
fn a_cut_through_a_residual_connection_is_an_error() {
    let graph = network(&[Block::Residual]);
    let (_, layer) = graph.layer("s.0").unwrap();
    let inside = Value::of_node(layer.nodes.start);
    let error = graph.subgraph(inside, graph.output(), "").unwrap_err().to_string();
    assert!(error.contains("`s.0.add` also needs a value from before the cut"), "{error}");
    assert!(graph.subgraph(graph.output(), inside, "").is_err());
    let nothing = graph.subgraph(inside, inside, "").unwrap();
    assert_eq!((nothing.nodes().len(), nothing.output()), (0, Value::INPUT));
}
