//! What timm drops at random while a network is trained: features in front of the classifier, and residual branches.

use lana_graph::{Graph, Layer, Node, Op, Result, Value};

/// `graph` with dropout of `drop_rate` in front of its last fully connected layer, and with drop path at the end of each
/// residual branch: `path_rate(block, blocks)` for layer number `block` of `blocks`. Rates of 0 add nothing.
pub(super) fn add(graph: &Graph, drop_rate: f64, path_rate: impl Fn(usize, usize) -> f64) -> Result<Graph> {
    let nodes = graph.nodes();
    let is = |index: usize, wanted: fn(&Op) -> bool| wanted(&nodes[index].op);
    let cuts = graph.cuts();
    let mut drops: Vec<Option<Node>> = vec![None; nodes.len()];
    if drop_rate > 0.0
        && let Some(last) = (0..nodes.len()).rev().find(|&n| is(n, |op| matches!(op, Op::Linear { .. })))
    {
        let op = Op::Dropout { rate: drop_rate };
        drops[last] = Some(Node { name: "dropout".into(), op, inputs: nodes[last].inputs.clone() });
    }
    for (block, layer) in graph.layers().iter().enumerate() {
        let rate = path_rate(block, graph.layers().len());
        // A block ends in the sum of its branch and its shortcut, see `crate::blocks::Ending`. There are several where the layer is put
        // together of them.
        let last = layer.nodes.clone().rev().find(|&n| is(n, |op| *op == Op::Add));
        let ends = cuts.iter().filter_map(|cut| cut.node()).filter(|n| layer.nodes.contains(n));
        let sums = ends.filter(|&n| is(n, |op| *op == Op::Add)).chain(last);
        for sum in sums.filter(|_| rate > 0.0) {
            let name = match Some(sum) == last {
                true => format!("{}.drop_path", layer.name),
                false => format!("{}.drop_path{sum}", layer.name),
            };
            // Networks of other tools may add the branch to the shortcut, which comes from between two blocks.
            let inputs = &nodes[sum].inputs;
            let inputs =
                vec![inputs.iter().copied().find(|value| !cuts.contains(value)).unwrap_or(inputs[0])];
            drops[sum] = Some(Node { name, op: Op::DropPath { rate }, inputs });
        }
    }
    // Where each old value is found among the new nodes, and how many new nodes stand before each old node.
    let (mut place, mut before) = (vec![Value::INPUT], Vec::new());
    let mut list: Vec<Node> = Vec::with_capacity(nodes.len());
    for (node, drop) in nodes.iter().zip(drops) {
        before.push(list.len());
        let moved = |node: &Node| node.inputs.iter().map(|v| place[v.index()]).collect::<Vec<_>>();
        let mut inputs = moved(node);
        if let Some(drop) = drop {
            let dropped = Value::of_node(list.len());
            let read = node.inputs.iter().position(|old| *old == drop.inputs[0]).unwrap_or(0);
            inputs[read] = dropped;
            list.push(Node { inputs: moved(&drop), ..drop });
        }
        list.push(Node { inputs, ..node.clone() });
        place.push(Value::of_node(list.len() - 1));
    }
    before.push(list.len());
    let layers = graph.layers().iter().map(|l| Layer {
        nodes: before[l.nodes.start]..before[l.nodes.end],
        input: place[l.input.index()],
        output: place[l.output.index()],
        ..l.clone()
    });
    let (input, output) = (graph.input_shape().clone(), place[graph.output().index()]);
    Graph::new(graph.name(), input, list, output, layers.collect())
}

#[cfg(test)]
mod tests {
    use lana_graph::{Activation, GraphBuilder, LayerRules, Shape, discover};

    use super::*;

    /// Three residual blocks that add the branch to the shortcut.
    fn blocks() -> Result<Graph> {
        let mut b = GraphBuilder::new("blocks", Shape::image(3, 8, 8));
        let x = b.input();
        let mut x = b.conv("stem", x, 8, 3, 1, 1)?;
        for block in 0..3 {
            let y = b.conv(&format!("blocks.{block}.conv"), x, 8, 3, 1, 1)?;
            let y = b.activation(&format!("blocks.{block}.act"), y, Activation::Relu)?;
            x = b.add(&format!("blocks.{block}.add"), x, y)?;
        }
        let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
        let x = b.node("flatten", Op::Flatten, &[x])?;
        let x = b.node("head", Op::Linear { out_features: 10, bias: true }, &[x])?;
        b.finish(x)
    }

    #[test]
    fn every_branch_of_a_layer_is_dropped_and_no_shortcut() {
        for group in [0, 3] {
            let found = discover(&blocks().unwrap(), &LayerRules { group, ..LayerRules::alone() }).unwrap();
            assert_eq!(found.layers().len(), if group == 0 { 3 } else { 1 });
            let dropped = add(&found, 0.0, |_, _| 0.1).unwrap();
            let drops: Vec<&Node> =
                dropped.nodes().iter().filter(|node| matches!(node.op, Op::DropPath { .. })).collect();
            assert_eq!(drops.len(), 3);
            for (number, node) in drops.into_iter().enumerate() {
                let from = &dropped.nodes()[node.inputs[0].node().unwrap()];
                assert_eq!(from.name, format!("blocks.{number}.act"));
            }
            for (number, name) in (0..3).map(|number| (number, format!("blocks.{number}.add"))) {
                let add = dropped.nodes().iter().find(|node| node.name == name).unwrap();
                let read = |at: usize| &dropped.nodes()[add.inputs[at].node().unwrap()];
                assert!(matches!(read(1).op, Op::DropPath { .. }), "{name}");
                let before = if number == 0 { "stem".into() } else { format!("blocks.{}.add", number - 1) };
                assert_eq!(read(0).name, before);
            }
        }
    }
}
