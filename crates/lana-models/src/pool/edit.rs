//! Changes to a layer's own graph, node by node.

use lana_graph::{Graph, Node, Op, Value};

/// The layer with `each` node made anew: given its index, itself and its inputs in the new graph, `each` appends what
/// stands for it to the list and returns the value to read in its place.
pub(super) fn rewrite(
    layer: &Graph,
    mut each: impl FnMut(usize, Node, &mut Vec<Node>) -> Value,
) -> lana_graph::Result<Graph> {
    let mut nodes = Vec::new();
    let mut place = vec![Value::INPUT];
    for (index, node) in layer.nodes().iter().enumerate() {
        let inputs = node.inputs.iter().map(|v| place[v.index()]).collect();
        let value = each(index, Node { inputs, ..node.clone() }, &mut nodes);
        place.push(value);
    }
    let output = place[layer.output().index()];
    Graph::new(layer.name(), layer.input_shape().clone(), nodes, output, Vec::new())
}

/// Appends a node to a list.
pub(super) fn push(nodes: &mut Vec<Node>, node: Node) -> Value {
    nodes.push(node);
    Value::of_node(nodes.len() - 1)
}

/// For each node whether it works on the means of channels: a global pooling and what is made of it alone, as in
/// squeeze-and-excitation.
pub(super) fn pooled(layer: &Graph) -> Vec<bool> {
    let mut pooled: Vec<bool> = Vec::new();
    for node in layer.nodes() {
        let of_pooled = node.inputs.iter().all(|v| v.node().is_some_and(|n| pooled[n]));
        pooled.push(node.op == Op::GlobalAveragePool || of_pooled);
    }
    pooled
}
