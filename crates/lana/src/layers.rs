//! Where a network can be changed: its layers, and what stays between them.

use lana_graph::{Cost, Graph, Layer, LayerRules, Shape, Value};
use lana_models::zoo::ZooOptions;
use serde::{Deserialize, Serialize};

use crate::{Config, Result, teacher};

/// A network as a row of stretches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkLayers {
    /// Its name in the zoo, or that of its file.
    pub network: String,
    /// Shape of its input.
    pub input: Shape,
    /// Shape of its output.
    pub output: Shape,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// In the order of the network: together they are the whole of it.
    pub stretches: Vec<Stretch>,
}

/// A layer, or what stays between two.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stretch {
    /// The layer's name; of what stays, the names of its first and last node.
    pub name: String,
    /// The stage a layer belongs to; none for what stays.
    pub stage: Option<String>,
    /// Shape of what it takes.
    pub input: Shape,
    /// Shape of what it gives.
    pub output: Shape,
    /// Nodes in it.
    pub nodes: usize,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// Its share of the network's multiply-accumulates.
    pub macs_share: f64,
    /// What a layer is put together of; nothing if that is a single block.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Stretch>,
}

/// The layers of a network of the zoo, or of an ONNX file, in which they are found ([`lana_graph::discover`]); with changes by
/// `rules`.
///
/// # Errors
/// If there is no such network or file, it holds what lana has no operation for, or a rule fits nothing.
pub fn layers(network: &str, options: &ZooOptions, rules: &LayerRules) -> Result<NetworkLayers> {
    let config = Config {
        teacher: network.into(),
        num_classes: options.num_classes,
        resolution: options.resolution,
        layers: LayerRules { group: 1, ..rules.clone() },
        ..Config::default()
    };
    let blocks = teacher::read(&config)?.graph;
    let graph = teacher::with_layers(&blocks, rules)?;
    let cost = graph.cost();
    let mut stretches = Vec::new();
    let mut at = 0;
    for layer in graph.layers() {
        stretches.extend(fixed(&graph, at..layer.nodes.start, cost));
        let within =
            |block: &&Layer| block.nodes.start >= layer.nodes.start && block.nodes.end <= layer.nodes.end;
        let whole = of_layer(&graph, layer, cost);
        let blocks = blocks.layers().iter().filter(within).filter(|block| block.nodes != layer.nodes);
        stretches
            .push(Stretch { blocks: blocks.map(|block| of_layer(&graph, block, cost)).collect(), ..whole });
        at = layer.nodes.end;
    }
    stretches.extend(fixed(&graph, at..graph.nodes().len(), cost));
    let (input, output) = (graph.input_shape().clone(), graph.output_shape().clone());
    Ok(NetworkLayers { network: teacher::title(network), input, output, cost, stretches })
}

fn of_layer(graph: &Graph, layer: &Layer, whole: Cost) -> Stretch {
    stretch(graph, layer.name.clone(), Some(layer.stage.clone()), layer.nodes.clone(), whole)
}

fn fixed(graph: &Graph, nodes: std::ops::Range<usize>, whole: Cost) -> Option<Stretch> {
    let (first, last) = (graph.nodes().get(nodes.start)?, graph.nodes().get(nodes.end.checked_sub(1)?)?);
    let name = match nodes.len() {
        0 => return None,
        1 => first.name.clone(),
        _ => format!("{} … {}", first.name, last.name),
    };
    Some(stretch(graph, name, None, nodes, whole))
}

fn stretch(
    graph: &Graph,
    name: String,
    stage: Option<String>,
    nodes: std::ops::Range<usize>,
    whole: Cost,
) -> Stretch {
    let value = |behind: usize| behind.checked_sub(1).map_or(Value::INPUT, Value::of_node);
    let cost = graph.cost_of(nodes.clone());
    Stretch {
        name,
        stage,
        input: graph.shape(value(nodes.start)).clone(),
        output: graph.shape(value(nodes.end)).clone(),
        nodes: nodes.len(),
        cost,
        macs_share: cost.macs as f64 / whole.macs.max(1) as f64,
        blocks: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_are_the_whole_network() {
        let all = |rules: LayerRules| layers("efficientnet_b0", &ZooOptions::default(), &rules).unwrap();
        let found = all(LayerRules::alone());
        assert_eq!(found.stretches.iter().map(|s| s.cost.macs).sum::<u64>(), found.cost.macs);
        assert_eq!(found.stretches.iter().filter(|s| s.stage.is_some()).count(), 16);
        assert!((found.stretches.iter().map(|s| s.macs_share).sum::<f64>() - 1.0).abs() < 1e-9);
        let [first, .., last] = found.stretches.as_slice() else { panic!("{found:?}") };
        assert_eq!((first.name.as_str(), &first.input), ("conv_stem … act1", &found.input));
        assert_eq!(&last.output, &found.output);
        let grouped = all(LayerRules::default());
        assert_eq!(grouped.stretches.iter().map(|s| s.cost.macs).sum::<u64>(), found.cost.macs);
        let fourth = grouped.stretches.iter().find(|s| s.name == "blocks.3.0-2").unwrap();
        assert_eq!(fourth.blocks.iter().map(|s| s.cost.macs).sum::<u64>(), fourth.cost.macs);
        assert_eq!(fourth.blocks.len(), 3);
        assert!(grouped.stretches.iter().any(|s| s.name == "blocks.0.0" && s.blocks.is_empty()));
        let fewer = all(LayerRules { exclude: vec!["blocks.6.*".into()], ..LayerRules::alone() });
        assert_eq!(fewer.stretches.iter().filter(|s| s.stage.is_some()).count(), 15);
        // What a rule made is no part of a group.
        let split = all(LayerRules { split: vec!["blocks.3.0".into()], ..LayerRules::default() });
        let rest = split.stretches.iter().find(|s| s.name == "blocks.3.1-2").unwrap();
        assert_eq!(rest.blocks.len(), 2);
        assert!(layers("nowhere.onnx", &ZooOptions::default(), &LayerRules::default()).is_err());
    }
}
