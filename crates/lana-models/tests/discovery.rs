//! The layers of the zoo's networks are found without being told.
#![allow(clippy::unwrap_used)]

use lana_graph::{Graph, LayerRules, deploy, discover};
use lana_models::{init, zoo, zoo::ZooOptions};

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

#[test]
fn they_are_found_in_the_deployed_form_too() {
    let mut families = std::collections::BTreeSet::new();
    for entry in zoo::list() {
        // The smallest of a family, in which normalisation is folded away.
        if entry.params > 12_000_000 || !families.insert(entry.family) {
            continue;
        }
        let graph = zoo::build(&entry.name, &ZooOptions::default()).unwrap();
        let (deployed, _) = deploy(&graph, &init::random(&graph, 1)).unwrap();
        let found = discover(&deployed, &LayerRules::alone()).unwrap();
        assert_eq!(layers(&found), layers(&deployed), "{}", entry.name);
    }
    assert!(families.len() >= 5, "{families:?}");
}
