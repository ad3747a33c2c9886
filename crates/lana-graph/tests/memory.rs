//! Peak memory against a count by brute force.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use lana_graph::{Activation, Graph, GraphBuilder, Shape, Value};
use proptest::prelude::*;

/// Runs the network on paper: after every node, forgets what no later node reads.
fn by_hand(graph: &Graph) -> u64 {
    let size = |values: &BTreeSet<usize>| -> u64 {
        let count =
            |v: &usize| if *v == 0 { graph.input_shape() } else { graph.shape(Value::of_node(v - 1)) };
        values.iter().map(|v| count(v).elements() as u64).sum()
    };
    let mut held = BTreeSet::from([0]);
    let mut most = size(&held);
    for node in 0..graph.nodes().len() {
        held.insert(node + 1);
        most = most.max(size(&held));
        let later = &graph.nodes()[node + 1..];
        held.retain(|v| {
            later.iter().any(|n| n.inputs.iter().any(|i| i.index() == *v)) || graph.output().index() == *v
        });
    }
    most
}

/// A chain of layers of one to four nodes, each a random mix of reads of what is inside it, with fixed nodes between.
/// Some values of the fixed part are read once more at the end.
fn network(steps: &[(u8, u8, u8)]) -> Graph {
    let mut b = GraphBuilder::new("random", Shape::image(4, 6, 6));
    let mut x = b.input();
    let mut kept = Vec::new();
    for (index, (kind, width, stride)) in steps.iter().enumerate() {
        let channels = b.shape(x).dims()[0];
        match kind % 3 {
            0 => {
                let stride = 1 + usize::from(stride % 5 == 0 && b.shape(x).dims()[1] > 2);
                x = b.conv(&format!("fixed{index}"), x, 2 + usize::from(width % 7), 3, stride, 1).unwrap();
                kept.push(x);
            }
            _ => {
                let inner = 1 + usize::from(*width % 9);
                let shortcut = width % 2 == 0;
                x = b
                    .layer(&format!("layer{index}"), "stage", x, |b, x| {
                        let y = b.conv("a", x, inner, 1, 1, 1)?;
                        let y = b.batch_norm("bn", y)?;
                        let y = b.activation("act", y, Activation::Relu)?;
                        let y = b.conv("b", y, channels, 1, 1, 1)?;
                        if shortcut { b.add("add", y, x) } else { Ok(y) }
                    })
                    .unwrap();
            }
        }
    }
    // A value that passes around layers.
    if let Some(early) = kept.first().copied().filter(|v| b.shape(*v) == b.shape(x) && *v != x) {
        x = b.add("late", x, early).unwrap();
    }
    b.finish(x).unwrap()
}

proptest! {
    #[test]
    fn the_peak_is_that_of_running_it_on_paper(steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..12)) {
        let graph = network(&steps);
        prop_assert_eq!(graph.peak_memory(), by_hand(&graph));
        let deployed = graph.deployed().unwrap();
        prop_assert_eq!(deployed.peak_memory(), by_hand(&deployed));
        prop_assert!(deployed.nodes().len() <= graph.nodes().len());
    }

    #[test]
    fn a_students_peak_is_that_of_its_worst_region(
        steps in proptest::collection::vec(any::<(u8, u8, u8)>(), 1..10),
        picks in proptest::collection::vec(0_usize..3, 10),
    ) {
        let teacher = network(&steps);
        let (mut student, whole) = (teacher.clone(), teacher.deployed().unwrap());
        let mut worst = whole.peak_memory_outside();
        for (layer, pick) in teacher.layers().iter().zip(&picks) {
            let shape = teacher.shape(layer.input).clone();
            let operation = match pick {
                0 => teacher.layer_graph(&layer.name).unwrap(),
                1 => {
                    let b = GraphBuilder::new("skip", shape);
                    let x = b.input();
                    b.finish(x).unwrap()
                }
                _ => {
                    let channels = shape.dims()[0];
                    let mut b = GraphBuilder::new("wide", shape);
                    let y = b.conv("c", b.input(), 12, 1, 1, 1).unwrap();
                    let y = b.conv("d", y, channels, 1, 1, 1).unwrap();
                    b.finish(y).unwrap()
                }
            };
            worst = worst.max(whole.peak_memory_in(&layer.name, &operation.deployed().unwrap()).unwrap());
            student = student.replace(&layer.name, &operation).unwrap();
        }
        let deployed = student.deployed().unwrap();
        let peak = by_hand(&deployed);
        let passes_around = teacher.nodes().iter().any(|n| n.name == "late");
        if !deployed.nodes().is_empty() {
            prop_assert!(if passes_around { peak <= worst } else { peak == worst }, "{peak} and {worst}");
        }
    }
}
