use crate::{Error, Graph, Layer, Node, Op, Result, Tensor, Value, Weights};

/// What the channels of a feature map are over many images.
#[derive(Clone, Debug, PartialEq)]
pub struct ChannelStatistics {
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Variance of each channel.
    pub variance: Vec<f64>,
}

/// ε of the BatchNorms that are put in, and the weight that a new batch has in their running statistics.
const EPS: f64 = 1e-5;
const MOMENTUM: f64 = 0.1;

/// The convolutions of a network that may have swallowed a BatchNorm: those with a bias that give maps of more than one pixel, in a
/// network that has neither BatchNorm nor LayerNorm.
pub fn folded_convolutions(graph: &Graph) -> Vec<usize> {
    let normalises = |op: &Op| matches!(op, Op::BatchNorm { .. } | Op::LayerNorm { .. });
    if graph.nodes().iter().any(|node| normalises(&node.op)) {
        return Vec::new();
    }
    let is_folded = |index: &usize| {
        let shape = graph.shape(Value::of_node(*index));
        matches!(&graph.nodes()[*index].op, Op::Conv2d(conv) if conv.bias)
            && matches!(shape.dims(), [_, height, width] if height * width > 1)
    };
    (0..graph.nodes().len()).filter(is_folded).collect()
}

/// Puts a BatchNorm behind each of these convolutions that changes nothing in evaluation: the reverse of
/// [`fold_batch_norm`](crate::fold_batch_norm), for networks that are to be trained on.
///
/// With mean m and variance v of what a convolution with bias b gives (`statistics`, one for each convolution), the BatchNorm has the
/// running mean m − b and the running variance v, γ = sqrt(v + ε) and β = m, and the bias goes: then what comes out is what the
/// convolution gave. While training it normalises by the batch, as the BatchNorm that was folded did.
pub fn unfold_batch_norm(
    graph: &Graph,
    weights: &Weights,
    convolutions: &[usize],
    statistics: &[ChannelStatistics],
) -> Result<(Graph, Weights)> {
    let mut weights = weights.clone();
    let mut nodes: Vec<Node> = Vec::with_capacity(graph.nodes().len() + convolutions.len());
    // Where each old value is found among the new nodes, and how many new nodes stand before each old node.
    let mut place = vec![Value::INPUT];
    let mut before = vec![0];
    for (index, node) in graph.nodes().iter().enumerate() {
        let inputs = node.inputs.iter().map(|value| place[value.index()]).collect();
        let mut node = Node { name: node.name.clone(), op: node.op.clone(), inputs };
        let own = convolutions.iter().position(|&convolution| convolution == index);
        if let (Some(own), Op::Conv2d(conv)) = (own.and_then(|at| statistics.get(at)), &mut node.op) {
            conv.bias = false;
            let (name, norm) = (node.name.clone(), format!("{}_bn", node.name));
            put_in(&mut weights, &name, &norm, own, conv.out_channels)?;
            nodes.push(node);
            let op = Op::BatchNorm { eps: EPS, momentum: MOMENTUM };
            nodes.push(Node { name: norm, op, inputs: vec![Value::of_node(nodes.len() - 1)] });
        } else {
            nodes.push(node);
        }
        place.push(Value::of_node(nodes.len() - 1));
        before.push(nodes.len());
    }
    let layers = graph.layers().iter().map(|layer| Layer {
        nodes: before[layer.nodes.start]..before[layer.nodes.end],
        input: place[layer.input.index()],
        output: place[layer.output.index()],
        ..layer.clone()
    });
    let output = place[graph.output().index()];
    let graph = Graph::new(graph.name(), graph.input_shape().clone(), nodes, output, layers.collect())?;
    Ok((graph, weights))
}

fn put_in(
    weights: &mut Weights,
    convolution: &str,
    norm: &str,
    own: &ChannelStatistics,
    channels: usize,
) -> Result<()> {
    let name = format!("{convolution}.bias");
    let shape = vec![channels];
    let bias = weights.remove(&name).filter(|bias| bias.shape == shape);
    let bias = bias.ok_or(Error::MissingWeight { name, shape: shape.clone(), origin: String::new() })?;
    let tensor = |of: &dyn Fn(usize) -> f64| Tensor {
        shape: shape.clone(),
        data: (0..channels).map(|channel| of(channel) as f32).collect(),
    };
    let of = |values: &[f64], channel: usize, missing: f64| values.get(channel).copied().unwrap_or(missing);
    let mean = |channel| of(&own.mean, channel, 0.0);
    let variance = |channel| of(&own.variance, channel, 1.0).max(0.0);
    weights.insert(format!("{norm}.weight"), tensor(&|c| (variance(c) + EPS).sqrt()));
    weights.insert(format!("{norm}.bias"), tensor(&mean));
    weights.insert(format!("{norm}.running_mean"), tensor(&|c| mean(c) - f64::from(bias.data[c])));
    weights.insert(format!("{norm}.running_var"), tensor(&variance));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GraphBuilder, Shape, fold_batch_norm};

    #[test]
    fn what_is_put_in_folds_back_to_what_was_there() {
        let mut b = GraphBuilder::new("net", Shape::image(3, 4, 4));
        let x = b.input();
        let x = b.node(
            "conv",
            Op::Conv2d(crate::Conv2d {
                in_channels: 3,
                out_channels: 2,
                kernel: [1, 1],
                stride: [1, 1],
                dilation: [1, 1],
                padding: [0; 4],
                groups: 1,
                bias: true,
            }),
            &[x],
        );
        let x = b.node("act", Op::Activation { kind: crate::Activation::Relu }, &[x.unwrap()]).unwrap();
        let graph = b.finish(x).unwrap();
        let mut weights = Weights::new();
        let kernel = Tensor { shape: vec![2, 3, 1, 1], data: vec![0.5, -1.0, 2.0, 0.1, 0.2, 0.3] };
        weights.insert("conv.weight", kernel.clone());
        weights.insert("conv.bias", Tensor { shape: vec![2], data: vec![0.25, -4.0] });
        assert_eq!(folded_convolutions(&graph), [0]);
        let own = ChannelStatistics { mean: vec![0.7, 3.0], variance: vec![2.5, 0.0] };
        let (unfolded, new) = unfold_batch_norm(&graph, &weights, &[0], &[own]).unwrap();
        new.check(&unfolded).unwrap();
        assert_eq!(unfolded.nodes().len(), 3);
        assert!(folded_convolutions(&unfolded).is_empty());
        let (folded, back) = fold_batch_norm(&unfolded, &new).unwrap();
        assert_eq!(folded.nodes().len(), 2);
        let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&back.get("conv.weight").unwrap().data, &kernel.data));
        assert!(close(&back.get("conv.bias").unwrap().data, &[0.25, -4.0]));
        let error = unfold_batch_norm(
            &graph,
            &Weights::new(),
            &[0],
            &[ChannelStatistics { mean: vec![], variance: vec![] }],
        );
        assert!(error.unwrap_err().to_string().contains("conv.bias"));
    }
}
