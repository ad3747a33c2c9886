//! The layers of the zoo's networks are found without being told.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use lana_graph::{Graph, Layer, LayerRules, deploy, discover, group};
use lana_models::{init, zoo, zoo::ZooOptions};
use lana_onnx::ExportOptions;

/// Name, stage and names of the first and the last node.
fn layers(graph: &Graph) -> Vec<[String; 4]> {
    let node = |index: usize| graph.nodes()[index].name.clone();
    let parts = |layer: &lana_graph::Layer| {
        [layer.name.clone(), layer.stage.clone(), node(layer.nodes.start), node(layer.nodes.end - 1)]
    };
    graph.layers().iter().map(parts).collect()
}

#[test]
fn the_layers_of_every_network_of_the_zoo_are_found() {
    for entry in zoo::list() {
        let graph = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
        let found = discover(&graph, &LayerRules::alone()).unwrap();
        assert_eq!(layers(&found), layers(&graph), "{}", entry.name);
    }
}

/// A small network of each family.
fn families() -> Vec<Graph> {
    let mut families = BTreeSet::new();
    let mut entries = zoo::list();
    entries.sort_by_key(|entry| entry.params);
    entries.retain(|entry| families.insert(entry.family));
    assert!(families.len() >= 6, "{families:?}");
    entries.iter().map(|entry| zoo::build(&entry.name, &ZooOptions::default()).unwrap()).collect()
}

#[test]
fn they_are_found_in_the_deployed_form_too() {
    for graph in families() {
        let (deployed, _) = deploy(&graph, &init::random(&graph, 1)).unwrap();
        let found = discover(&deployed, &LayerRules::alone()).unwrap();
        assert_eq!(layers(&found), layers(&deployed), "{}", graph.name());
    }
}

#[test]
fn they_are_found_again_in_an_onnx_file() {
    for graph in families() {
        let weights = init::random(&graph, 1);
        for (graph, weights) in [deploy(&graph, &weights).unwrap(), (graph, weights)] {
            let (input, nodes) = (graph.input_shape().clone(), graph.nodes().to_vec());
            let silent = Graph::new(graph.name(), input, nodes, graph.output(), Vec::new()).unwrap();
            let file = lana_onnx::export(&silent, &weights, &ExportOptions::default()).unwrap();
            let (read, _) = lana_onnx::import(&file).unwrap();
            assert!(read.layers().is_empty());
            let found = discover(&read, &LayerRules::alone()).unwrap();
            let names = |graph: &Graph| -> Vec<[String; 2]> {
                graph.layers().iter().map(|layer| [layer.name.clone(), layer.stage.clone()]).collect()
            };
            assert_eq!(names(&found), names(&graph), "{}", graph.name());
            for (layer, own) in found.layers().iter().zip(graph.layers()) {
                assert_eq!(
                    found.shape(layer.output),
                    graph.shape(own.output),
                    "{}: {}",
                    graph.name(),
                    own.name
                );
                let macs = |graph: &Graph, layer: &Layer| graph.cost_of(layer.nodes.clone()).macs;
                assert_eq!(macs(&found, layer), macs(&graph, own), "{}: {}", graph.name(), own.name);
            }
        }
    }
}

#[test]
fn groups_of_the_zoo_change_the_resolution_in_their_first_block_alone() {
    for entry in zoo::list() {
        let graph = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
        let groups = discover(&graph, &LayerRules::default()).unwrap();
        assert_eq!(groups.layers(), group(&graph, 3).unwrap().layers(), "{}", entry.name);
        let mut blocks = graph.layers().iter();
        for whole in groups.layers() {
            let pixels = |value| groups.shape(value).dims()[1..].to_vec();
            let mut own = 0;
            for block in blocks.by_ref() {
                own += 1;
                assert_eq!(block.stage, whole.stage, "{}: {}", entry.name, whole.name);
                assert_eq!(pixels(block.output), pixels(whole.output), "{}: {}", entry.name, whole.name);
                if block.output == whole.output {
                    break;
                }
            }
            assert!((1..=3).contains(&own), "{}: {}", entry.name, whole.name);
        }
        assert!(blocks.next().is_none(), "{}", entry.name);
    }
}
