use crate::{Error, Graph, Layer, Node, Op, Result, Value, Weights};

/// The inference form of a network: every BatchNorm that follows a convolution directly is folded into it, and what acts
/// while training only is left out.
///
/// With `s = γ / sqrt(σ² + eps)` the convolution's kernel becomes `s · w` and its bias `β + s · (b − μ)`
/// (Jacob et al. 2018, section 3.2). A BatchNorm whose convolution has other readers stays as it is. Layers keep their
/// names and boundaries.
pub fn fold_batch_norm(graph: &Graph, weights: &Weights) -> Result<(Graph, Weights)> {
    let mut new_weights = weights.clone();
    let folded = fold(graph, |source, bn, eps| fold_one(graph, source, bn, eps, &mut new_weights))?;
    Ok((folded, new_weights))
}

/// The inference form in structure alone.
pub(crate) fn folded(graph: &Graph) -> Result<Graph> {
    fold(graph, |source, _, _| Ok(matches!(graph.nodes()[source].op, Op::Conv2d(_))))
}

/// The inference form; `fold_one` folds the normalisation of that name and epsilon into a node, or says that it cannot be.
fn fold(graph: &Graph, mut fold_one: impl FnMut(usize, &str, f64) -> Result<bool>) -> Result<Graph> {
    let uses = graph.uses();
    let boundary: std::collections::HashSet<Value> =
        graph.layers().iter().flat_map(|l| [l.input, l.output]).collect();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes().len());
    // Where each old value is found among the new nodes, and how many new nodes stand before each old node.
    let mut place = vec![Value::INPUT];
    let mut before = vec![0];
    for (index, node) in graph.nodes().iter().enumerate() {
        let inputs: Vec<Value> = node.inputs.iter().map(|v| place[v.index()]).collect();
        if node.op.is_training_only() {
            place.push(inputs[0]);
            before.push(nodes.len());
            continue;
        }
        let folded = match (&node.op, node.inputs[0].node()) {
            (Op::BatchNorm { eps, .. }, Some(source))
                if uses[node.inputs[0].index()] == 1 && !boundary.contains(&node.inputs[0]) =>
            {
                fold_one(source, &node.name, *eps)?
            }
            _ => false,
        };
        if folded {
            let conv = inputs[0];
            if let Some(Op::Conv2d(c)) = conv.node().map(|n| &mut nodes[n].op) {
                c.bias = true;
            }
            place.push(conv);
        } else {
            nodes.push(Node { name: node.name.clone(), op: node.op.clone(), inputs });
            place.push(Value::of_node(nodes.len() - 1));
        }
        before.push(nodes.len());
        debug_assert_eq!(before.len(), index + 2);
    }
    let layers = graph
        .layers()
        .iter()
        .map(|l| Layer {
            nodes: before[l.nodes.start]..before[l.nodes.end],
            input: place[l.input.index()],
            output: place[l.output.index()],
            ..l.clone()
        })
        .collect();
    let output = place[graph.output().index()];
    Graph::new(graph.name(), graph.input_shape().clone(), nodes, output, layers)
}

/// Folds the normalisation `bn` into the convolution at node `source`; false if that node is no convolution.
fn fold_one(graph: &Graph, source: usize, bn: &str, eps: f64, weights: &mut Weights) -> Result<bool> {
    let node = &graph.nodes()[source];
    let Op::Conv2d(conv) = &node.op else { return Ok(false) };
    let take = |weights: &Weights, name: String| {
        weights.get(&name).cloned().ok_or_else(|| Error::MissingWeight {
            name,
            shape: vec![conv.out_channels],
            origin: String::new(),
        })
    };
    let scale = take(weights, format!("{bn}.weight"))?;
    let shift = take(weights, format!("{bn}.bias"))?;
    let mean = take(weights, format!("{bn}.running_mean"))?;
    let variance = take(weights, format!("{bn}.running_var"))?;
    let mut kernel = take(weights, format!("{}.weight", node.name))?;
    let mut bias = crate::Tensor::full(&[conv.out_channels], 0.0);
    if conv.bias {
        bias = take(weights, format!("{}.bias", node.name))?;
    }
    let per_channel = kernel.data.len() / conv.out_channels;
    for c in 0..conv.out_channels {
        let s = f64::from(scale.data[c]) / (f64::from(variance.data[c]) + eps).sqrt();
        for w in &mut kernel.data[c * per_channel..(c + 1) * per_channel] {
            *w = (f64::from(*w) * s) as f32;
        }
        bias.data[c] =
            (f64::from(shift.data[c]) + s * (f64::from(bias.data[c]) - f64::from(mean.data[c]))) as f32;
    }
    weights.insert(format!("{}.weight", node.name), kernel);
    weights.insert(format!("{}.bias", node.name), bias);
    for suffix in ["weight", "bias", "running_mean", "running_var"] {
        weights.remove(&format!("{bn}.{suffix}"));
    }
    Ok(true)
}
