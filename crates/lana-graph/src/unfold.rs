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

/// The convolutions of a network that are not normalised and may be: those with a bias that give maps of more than one pixel and
/// are not the last with weights, as a classifier is that is a convolution; in a network that has neither BatchNorm nor LayerNorm,
/// nor does the same by group or instance in several nodes.
///
/// Whether they ever were normalised a network does not say: a convolution with a bias is the same whether a BatchNorm was folded
/// into it or it was trained so.
pub fn unnormalised_convolutions(graph: &Graph) -> Vec<usize> {
    let normalises = |op: &Op| matches!(op, Op::BatchNorm { .. } | Op::LayerNorm { .. });
    if graph.nodes().iter().any(|node| normalises(&node.op)) || standardises(graph) {
        return Vec::new();
    }
    let has_weights = |op: &Op| matches!(op, Op::Conv2d(_) | Op::Conv3d { .. } | Op::Linear { .. });
    // Values that something with weights is made of.
    let mut goes_on = vec![false; graph.nodes().len() + 1];
    for (index, node) in graph.nodes().iter().enumerate().rev() {
        if has_weights(&node.op) || goes_on[index + 1] {
            node.inputs.iter().for_each(|value| goes_on[value.index()] = true);
        }
    }
    let is_one = |index: &usize| {
        let value = Value::of_node(*index);
        matches!(&graph.nodes()[*index].op, Op::Conv2d(conv) if conv.bias)
            && matches!(graph.shape(value).dims(), [_, height, width] if height * width > 1)
            && goes_on[value.index()]
    };
    (0..graph.nodes().len()).filter(is_one).collect()
}

/// Whether something divides maps by the root of the mean of squares, as group and instance normalisation do, for which there is no
/// operation. Vectors do not count: a classifier may compare directions in a network that is not normalised.
fn standardises(graph: &Graph) -> bool {
    #[derive(Clone, Copy, PartialEq)]
    enum Made {
        Otherwise,
        Squares,
        Mean,
        Inverse,
    }
    let mut values = vec![Made::Otherwise];
    for (index, node) in graph.nodes().iter().enumerate() {
        let of = |made: Made| node.inputs.iter().any(|value| values[value.index()] == made);
        let first = node.inputs.first().map_or(Made::Otherwise, |value| values[value.index()]);
        let made = match &node.op {
            Op::Mul if of(Made::Inverse) => {
                if !matches!(graph.shape(Value::of_node(index)).dims(), [_, 1, 1] | [_]) {
                    return true;
                }
                Made::Otherwise
            }
            Op::Mul if node.inputs.first() == node.inputs.last() => Made::Squares,
            Op::Power { exponent: 2.0 } => Made::Squares,
            Op::Mean { .. } | Op::GlobalAveragePool if of(Made::Squares) => Made::Mean,
            Op::Power { exponent } if of(Made::Mean) && *exponent < 0.0 => Made::Inverse,
            // Of the mean of squares, less that of the mean.
            Op::Add if of(Made::Mean) => Made::Mean,
            Op::Scale { .. } | Op::Shift { .. } | Op::Power { .. } | Op::Reshape { .. } => first,
            _ => Made::Otherwise,
        };
        values.push(made);
    }
    false
}

/// Puts a BatchNorm behind each of these convolutions that changes nothing in evaluation: the reverse of
/// [`fold_batch_norm`](crate::fold_batch_norm), for networks that are to be trained on.
///
/// With mean m and variance v of what a convolution with bias b gives (`statistics`, one for each convolution), the BatchNorm has the
/// running mean m − b and the running variance v, γ = sqrt(v + ε) and β = m, and the bias goes: then what comes out is what the
/// convolution gave, whatever the statistics are. While training it normalises by the batch, as a BatchNorm that was folded did;
/// a network that never had any is trained otherwise than it was.
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
        let x = b.node("flatten", Op::Flatten, &[x]).unwrap();
        let x = b.node("fc", Op::Linear { out_features: 5, bias: false }, &[x]).unwrap();
        let graph = b.finish(x).unwrap();
        let mut weights = Weights::new();
        let kernel = Tensor { shape: vec![2, 3, 1, 1], data: vec![0.5, -1.0, 2.0, 0.1, 0.2, 0.3] };
        weights.insert("conv.weight", kernel.clone());
        weights.insert("conv.bias", Tensor { shape: vec![2], data: vec![0.25, -4.0] });
        weights.insert("fc.weight", Tensor::full(&[5, 32], 1.0));
        assert_eq!(unnormalised_convolutions(&graph), [0]);
        let own = ChannelStatistics { mean: vec![0.7, 3.0], variance: vec![2.5, 0.0] };
        let (unfolded, new) = unfold_batch_norm(&graph, &weights, &[0], &[own]).unwrap();
        new.check(&unfolded).unwrap();
        assert_eq!(unfolded.nodes().len(), 5);
        assert!(unnormalised_convolutions(&unfolded).is_empty());
        let (folded, back) = fold_batch_norm(&unfolded, &new).unwrap();
        assert_eq!(folded.nodes().len(), 4);
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
    /// A fire module and a classifier as SqueezeNet has them: nothing was ever normalised, and the file does not say so. What gives
    /// the classes is no feature map, though.
    #[test]
    fn a_classifier_that_is_a_convolution_is_not_normalised() {
        let mut b = GraphBuilder::new("squeezenet", Shape::image(3, 9, 9));
        let relu =
            |b: &mut GraphBuilder, name: &str, x| b.activation(name, x, crate::Activation::Relu).unwrap();
        let x = b.input();
        let x = b.conv_full("squeeze", x, 4, 1, 1, 1, true).unwrap();
        let x = relu(&mut b, "squeeze_act", x);
        let one = b.conv_full("expand1x1", x, 8, 1, 1, 1, true).unwrap();
        let three = b.conv_full("expand3x3", x, 8, 3, 1, 1, true).unwrap();
        let x = b.node("concat", Op::Concat { axis: 0 }, &[one, three]).unwrap();
        let x = relu(&mut b, "act", x);
        let x = b.conv_full("classifier.1", x, 10, 1, 1, 1, true).unwrap();
        let x = relu(&mut b, "classifier.2", x);
        let x = b.node("pool", Op::GlobalAveragePool, &[x]).unwrap();
        let x = b.node("flatten", Op::Flatten, &[x]).unwrap();
        let graph = b.finish(x).unwrap();
        let names: Vec<&str> = unnormalised_convolutions(&graph)
            .into_iter()
            .map(|index| graph.nodes()[index].name.as_str())
            .collect();
        assert_eq!(names, ["squeeze", "expand1x1", "expand3x3"]);
    }

    /// Group normalisation as it is read, in a network whose convolutions have a bias: it is normalised, as training sees it.
    #[test]
    fn what_normalises_in_several_nodes_counts() {
        // The square in one node or as a product; 1 / √v in one or in two.
        for (product, root) in [(false, &[-0.5][..]), (true, &[0.5, -1.0])] {
            for normalised in [true, false] {
                let mut b = GraphBuilder::new("net", Shape::image(3, 4, 4));
                let x = b.input();
                let mut x = b.conv_full("conv", x, 8, 3, 1, 1, true).unwrap();
                if normalised {
                    let mut node = |name: &str, op, inputs: &[Value]| b.node(name, op, inputs).unwrap();
                    let mean = || Op::Mean { axes: vec![1] };
                    x = node("groups", Op::Reshape { shape: vec![2, 64] }, &[x]);
                    let y = node("mean", mean(), &[x]);
                    let y = node("minus", Op::Scale { factor: -1.0 }, &[y]);
                    x = node("centred", Op::Add, &[x, y]);
                    let mut y = match product {
                        true => node("square", Op::Mul, &[x, x]),
                        false => node("square", Op::Power { exponent: 2.0 }, &[x]),
                    };
                    y = node("variance", mean(), &[y]);
                    y = node("eps", Op::Shift { term: 1e-5 }, &[y]);
                    for exponent in root {
                        y = node(&format!("to{exponent}"), Op::Power { exponent: *exponent }, &[y]);
                    }
                    x = node("standard", Op::Mul, &[x, y]);
                    x = node("back", Op::Reshape { shape: vec![8, 4, 4] }, &[x]);
                }
                x = b.node("flatten", Op::Flatten, &[x]).unwrap();
                // Features by their direction alone, which is no normalisation of maps.
                let y = b.node("length2", Op::Power { exponent: 2.0 }, &[x]).unwrap();
                let y = b.node("length1", Op::Mean { axes: vec![0] }, &[y]).unwrap();
                let y = b.node("length", Op::Power { exponent: -0.5 }, &[y]).unwrap();
                let x = b.node("direction", Op::Mul, &[x, y]).unwrap();
                let x = b.node("fc", Op::Linear { out_features: 5, bias: false }, &[x]).unwrap();
                let graph = b.finish(x).unwrap();
                assert_eq!(unnormalised_convolutions(&graph).is_empty(), normalised);
            }
        }
    }
}
