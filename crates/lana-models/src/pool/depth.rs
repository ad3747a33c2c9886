//! The first blocks of a layer of several.
//!
//! A layer may be put together of several blocks of the teacher ([`lana_graph::LayerRules`]: `group`, `merge`). Its operations
//! then imitate what all of them do together, and may do so with fewer blocks: what a network of the same family
//! with less depth has, and what leaving out blocks one by one, each judged by itself, does not find.
//!
//! A block ends where every path passes one value with the layer's output shape that is made as the output is made (in a ResNet by the
//! activation behind the sum), or from which a shortcut begins (behind the first inverted residual of a stage, which ends in its
//! normalisation); what mixes no channels, such as a depthwise convolution, is none by itself. The first blocks stay, among them the
//! one that changes the shape. In a transformer block, whose two halves both end in a sum, each half counts as one.

use lana_graph::{Graph, Node, Op, Value, Weights};

use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start, any};

pub(super) static FAMILY: Family = Family {
    name: "depth",
    summary: "the first n blocks of a layer that is put together of more",
    parameters: &[Parameter::new("n", Range::Whole(64.0))],
    check: any,
    members: |preset| match preset {
        Preset::Compact | Preset::Extended => listed(&["depth-n1", "depth-n2"]),
        Preset::Paper => Vec::new(),
    },
    initialisation: "the teacher's weights",
    build,
    initialise,
};

/// Where blocks end, the last at the output.
pub(super) fn ends(layer: &Graph) -> Vec<Value> {
    let maker = |value: Value| value.node().map(|node| layer.nodes()[node].op.kind());
    let sums = || layer.nodes().iter().filter(|node| node.op == Op::Add);
    let is_end = |value: &Value| {
        layer.shape(*value) == layer.output_shape()
            && (maker(*value) == maker(layer.output()) || sums().any(|sum| sum.inputs.contains(value)))
    };
    let mixes = |node: &Node| match &node.op {
        Op::Conv2d(conv) => conv.groups == 1,
        op => matches!(op, Op::Linear { .. }),
    };
    let (mut begin, mut ends) = (0, Vec::new());
    for end in layer.cuts().into_iter().skip(1).filter(is_end) {
        let behind = end.index();
        if layer.nodes()[begin..behind].iter().any(mixes) {
            ends.push(end);
        } else if let Some(last) = ends.last_mut() {
            // What mixes nothing behind a block is its activation, of several nodes.
            *last = end;
        } else {
            continue;
        }
        begin = behind;
    }
    ends
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let (ends, blocks) = (ends(layer), arguments.whole("n"));
    if ends.len() < 2 {
        return Err(NotApplicable::new("the layer is a single block"));
    }
    if blocks >= ends.len() {
        return Err(NotApplicable::new(format!("the layer has only {} blocks", ends.len())));
    }
    Ok(layer.subgraph(Value::INPUT, ends[blocks - 1], "")?)
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let kept = start.operation.parameters().into_iter();
    Ok(kept.filter_map(|p| Some((p.name.clone(), start.layer_weights.get(&p.name)?.clone()))).collect())
}

#[cfg(test)]
mod tests {
    use lana_graph::{Activation, Graph, GraphBuilder, LayerRules, Op, Shape, Value, discover};

    use crate::pool::Operation;
    use crate::{init, zoo};

    /// Two residual blocks with x + relu(x) as their activation.
    fn leaky() -> lana_graph::Result<Graph> {
        let mut b = GraphBuilder::new("leaky", Shape::image(8, 4, 4));
        let mut x = Value::INPUT;
        for block in 0..2 {
            let conv = b.conv(&format!("{block}.conv"), x, 8, 3, 1, 1)?;
            let sum = b.add(&format!("{block}.sum"), conv, x)?;
            let relu = b.activation(&format!("{block}.relu"), sum, Activation::Relu)?;
            x = b.add(&format!("{block}.leak"), relu, sum)?;
        }
        b.finish(x)
    }

    #[test]
    fn the_first_blocks_stay_with_their_weights() {
        let resnet = zoo::build("resnet20_cifar", &zoo::ZooOptions::default()).unwrap();
        let grouped = discover(&resnet, &LayerRules { group: 3, ..LayerRules::alone() }).unwrap();
        let weights = init::random(&resnet, 0);
        // The second begins with the block that halves the map.
        for layer in ["layer1.0-2", "layer2.0-2"] {
            let own = grouped.layer_graph(layer).unwrap();
            let own_weights = grouped.layer_weights(layer, &weights).unwrap();
            for blocks in 1..3 {
                let operation: Operation = format!("depth-n{blocks}").parse().unwrap();
                let graph = operation.build(&own).unwrap();
                let convs = graph.nodes().iter().filter(|node| node.op.kind() == "conv2d").count();
                assert_eq!(convs, 2 * blocks);
                let start = operation.initialise(&own, &own_weights, &graph, 0).unwrap();
                assert!(start.iter().all(|(name, tensor)| own_weights.get(name) == Some(tensor)));
            }
            let all: Operation = "depth-n3".parse().unwrap();
            assert!(all.build(&own).unwrap_err().reason.contains("only 3 blocks"));
        }
        // The first inverted residual of a stage has no sum at its end.
        let teacher = zoo::build("efficientnet_b0", &zoo::ZooOptions::default()).unwrap();
        let grouped = discover(&teacher, &LayerRules { group: 3, ..LayerRules::alone() }).unwrap();
        let own = grouped.layer_graph("blocks.3.0-2").unwrap();
        for blocks in 1..3 {
            let operation: Operation = format!("depth-n{blocks}").parse().unwrap();
            let graph = operation.build(&own).unwrap();
            let depthwise = |op: &Op| matches!(op, Op::Conv2d(conv) if conv.groups > 1);
            assert_eq!(graph.nodes().iter().filter(|node| depthwise(&node.op)).count(), blocks);
        }
        let one: Operation = "depth-n1".parse().unwrap();
        let alone = one.build(&resnet.layer_graph("layer1.0").unwrap()).unwrap_err();
        assert!(alone.reason.contains("a single block"), "{alone}");
        // An activation of several nodes that ends in a sum, as the block does.
        let leaky = leaky().unwrap();
        let kept = one.build(&leaky).unwrap();
        let kinds = |graph: &Graph| graph.nodes().iter().map(|node| node.op.kind()).collect::<Vec<_>>();
        assert_eq!(kinds(&kept), kinds(&leaky)[..leaky.nodes().len() / 2]);
        // A depthwise convolution with the output's shape is no block.
        let mobile = zoo::build("mobilenetv3_small_100", &zoo::ZooOptions::default()).unwrap();
        let alone = one.build(&mobile.layer_graph("blocks.0.0").unwrap()).unwrap_err();
        assert!(alone.reason.contains("a single block"), "{alone}");
    }
}
