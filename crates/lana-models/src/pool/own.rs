//! The teacher's own block with one thing about it cheaper.
//!
//! * `nogate`: no squeeze-and-excitation, no split attention. Their gates depend on the image; in their place stands the
//!   gate of the average image, computed from the weights alone ([`moments`]) and multiplied into the convolution behind
//!   it (or, between ReLU and a sum, into the BatchNorm before it, which ReLU lets pass). Global pooling makes a runtime
//!   wait for the whole feature map twice; MobileNetV3 and EfficientNet-Lite leave it out where latency counts.
//! * `k`: kernels larger than that are cut down to their middle, where trained kernels have most of their weight.
//! * `relu`: ReLU in the place of SiLU, hard swish and GELU, as in EfficientNet-Lite. Gates keep theirs: they are few.
//!
//! Any of them go together: `own-nogate-relu`. Each must have something to change.

use lana_graph::moments::apply;
use lana_graph::{Activation, Graph, Node, Op, Tensor, Value, Weights};

use super::edit::{pooled, push, rewrite};
use super::moments::moments;
use super::name::{Arguments, Parameter, Range};
use super::preset::listed;
use super::{Family, NotApplicable, Preset, Start};

pub(super) static FAMILY: Family = Family {
    name: "own",
    summary: "the teacher's own layer without its gates (nogate), with kernels cut down to k, with ReLU (relu)",
    parameters: &[
        Parameter::flag("nogate"),
        Parameter::optional("k", Range::Odd(11.0)),
        Parameter::flag("relu"),
    ],
    check: |arguments| match arguments.has("nogate") || arguments.has("relu") || arguments.get("k").is_some()
    {
        true => Ok(()),
        false => Err("it changes nothing; write own-nogate, own-k3 or own-relu".into()),
    },
    members: |preset| match preset {
        Preset::Extended => listed(&[
            "own-nogate",
            "own-k3",
            "own-relu",
            "own-nogate-k3",
            "own-nogate-relu",
            "own-k3-relu",
            "own-nogate-k3-relu",
        ]),
        _ => Vec::new(),
    },
    initialisation: "all of the teacher's weights, kernels by their middle; gates that go leave their value for the \
                     average image, computed from BatchNorms",
    build,
    initialise,
};

/// A product with a gate that goes.
struct Gate {
    product: usize,
    /// What is gated.
    features: Value,
    /// What multiplies it.
    factor: Value,
    /// The pooling at the beginning of the gate.
    pool: usize,
    /// Where the constant that stays goes.
    into: Into,
}

/// The nodes that take a gate's constant.
enum Into {
    /// The convolutions that read the product.
    Readers(Vec<usize>),
    /// The BatchNorm before the ReLU that is gated.
    Norm(usize),
}

/// The gates of a layer, or why one cannot go.
fn gates(layer: &Graph) -> Result<Vec<Gate>, NotApplicable> {
    let (nodes, uses, pooled) = (layer.nodes(), layer.uses(), pooled(layer));
    let is_gate = |v: Value| v.node().is_some_and(|n| pooled[n]);
    let mut gates = Vec::new();
    for (product, node) in nodes.iter().enumerate().filter(|(_, n)| n.op == Op::Mul) {
        let (features, factor) = match [is_gate(node.inputs[0]), is_gate(node.inputs[1])] {
            [false, true] => (node.inputs[0], node.inputs[1]),
            [true, false] => (node.inputs[1], node.inputs[0]),
            _ => continue,
        };
        let no = || NotApplicable::new(format!("nothing can take the place of the gate at `{}`", node.name));
        let pool = nodes.iter().position(|n| n.op == Op::GlobalAveragePool && n.inputs[0] == features);
        let pool = pool.ok_or_else(no)?;
        let value = Value::of_node(product);
        let readers: Vec<usize> = (0..nodes.len()).filter(|&n| nodes[n].inputs.contains(&value)).collect();
        let only_convs = readers.iter().all(|&n| matches!(nodes[n].op, Op::Conv2d(_)));
        let maker = features.node().map(|n| &nodes[n]).ok_or_else(no)?;
        let norm = match maker.op {
            Op::Activation { .. } => maker.inputs[0].node(),
            _ => features.node(),
        };
        let norm = norm.filter(|&n| matches!(nodes[n].op, Op::BatchNorm { .. })).ok_or_else(no)?;
        let into = if only_convs && layer.output() != value {
            Into::Readers(readers)
        } else if maker.op == (Op::Activation { kind: Activation::Relu })
            && uses[features.index()] == 2
            && uses[Value::of_node(norm).index()] == 1
        {
            Into::Norm(norm)
        } else {
            return Err(no());
        };
        gates.push(Gate { product, features, factor, pool, into });
    }
    match gates.is_empty() {
        true => Err(NotApplicable::new("the layer has no squeeze-and-excitation and no split attention")),
        false => Ok(gates),
    }
}

fn build(layer: &Graph, arguments: &Arguments) -> Result<Graph, NotApplicable> {
    let gates = match arguments.has("nogate") {
        true => gates(layer)?,
        false => Vec::new(),
    };
    let kernel = arguments.get("k").map(|k| k as usize);
    let relu = arguments.has("relu");
    let pooled = pooled(layer);
    let (mut cut, mut rectified, mut uncut) = (0, 0, None);
    let graph = rewrite(layer, |index, mut node, nodes| {
        // Nothing else reads a gate than its product.
        if pooled[index] && !gates.is_empty() {
            return Value::INPUT;
        }
        if let Some(gate) = gates.iter().find(|g| g.product == index) {
            let first = layer.nodes()[index].inputs[0] == gate.features;
            return node.inputs[usize::from(!first)];
        }
        match &mut node.op {
            Op::Conv2d(conv) => {
                if let Some(kernel) = kernel.filter(|&k| conv.kernel[0] > k && conv.kernel[1] > k) {
                    let [top, left] = [0, 1].map(|at| (conv.kernel[at] - kernel) / 2 * conv.dilation[at]);
                    let less = [top, left, top, left];
                    if conv.kernel.iter().any(|k| k % 2 == 0)
                        || conv.padding.iter().zip(less).any(|(p, l)| *p < l)
                    {
                        uncut = Some(node.name.clone());
                    } else {
                        conv.kernel = [kernel; 2];
                        conv.padding.iter_mut().zip(less).for_each(|(p, l)| *p -= l);
                        cut += 1;
                    }
                }
            }
            Op::Activation { kind } if relu && !pooled[index] => {
                if matches!(kind, Activation::Silu | Activation::HardSwish | Activation::Gelu) {
                    *kind = Activation::Relu;
                    rectified += 1;
                }
            }
            _ => {}
        }
        push(nodes, node)
    })?;
    match (kernel, uncut) {
        (Some(kernel), None) if cut == 0 => {
            Err(NotApplicable::new(format!("the layer has no kernel larger than {kernel}×{kernel}")))
        }
        (_, Some(name)) => Err(NotApplicable::new(format!("the kernel of `{name}` has no middle to keep"))),
        _ if relu && rectified == 0 => Err(NotApplicable::new("the layer has no SiLU, hard swish or GELU")),
        _ => Ok(graph),
    }
}

fn initialise(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let (layer, mut weights) = (start.layer, start.layer_weights.clone());
    if start.arguments.has("nogate") {
        for gate in gates(layer).unwrap_or_default() {
            // Of another form than any gate there is: as if it were open.
            let Some(factors) =
                average_gate(layer, start.layer_weights, gate.features, gate.pool, gate.factor)
            else {
                continue;
            };
            match &gate.into {
                Into::Readers(convs) => {
                    convs.iter().for_each(|&n| scale_inputs(&layer.nodes()[n], &factors, &mut weights));
                }
                Into::Norm(norm) => {
                    for suffix in ["weight", "bias"] {
                        let name = format!("{}.{suffix}", layer.nodes()[*norm].name);
                        if let Some(mut tensor) = weights.remove(&name) {
                            tensor.data.iter_mut().zip(&factors).for_each(|(x, f)| *x *= *f as f32);
                            weights.insert(name, tensor);
                        }
                    }
                }
            }
        }
    }
    let wanted = start.operation.parameters().into_iter().filter_map(|parameter| {
        let tensor = weights.get(&parameter.name)?;
        Some((parameter.name, middle(tensor, &parameter.shape)))
    });
    Ok(wanted.collect())
}

/// The middle of a kernel, as large as `shape` says; what is as large already as it is.
fn middle(tensor: &Tensor, shape: &[usize]) -> Tensor {
    let mut result = tensor.clone();
    for (axis, &size) in shape.iter().enumerate().skip(2) {
        let first = (tensor.shape[axis] - size) / 2;
        result = result.select(axis, &(first..first + size).collect::<Vec<_>>());
    }
    result
}

/// Multiplies what a convolution makes of each input channel.
pub(super) fn scale_inputs(node: &Node, factors: &[f64], weights: &mut Weights) {
    let Op::Conv2d(conv) = &node.op else { return };
    let name = format!("{}.weight", node.name);
    let Some(mut kernel) = weights.remove(&name) else { return };
    let (inner, outer) = (conv.in_channels / conv.groups, conv.out_channels / conv.groups);
    let area = conv.kernel[0] * conv.kernel[1];
    for (at, chunk) in kernel.data.chunks_exact_mut(area).enumerate() {
        let channel = at / inner / outer * inner + at % inner;
        chunk.iter_mut().for_each(|w| *w *= factors[channel] as f32);
    }
    weights.insert(name, kernel);
}

/// The gate of an image whose channels have the means that their BatchNorm gives them.
/// `features` are pooled by the node `pool`; `factor` is the gate.
pub(super) fn average_gate(
    layer: &Graph,
    weights: &Weights,
    features: Value,
    pool: usize,
    factor: Value,
) -> Option<Vec<f64>> {
    let mut values: Vec<Option<Vec<f64>>> = vec![None; layer.nodes().len() + 1];
    let means = moments(layer, weights, features)?.iter().map(|m| m.mean).collect();
    values[Value::of_node(pool).index()] = Some(means);
    for (index, node) in layer.nodes().iter().enumerate().skip(pool + 1) {
        let Some(x) = node.inputs.first().and_then(|v| values[v.index()].as_ref()) else { continue };
        let parameter = |suffix: &str| weights.get(&format!("{}.{suffix}", node.name)).map(|t| &t.data);
        let y: Vec<f64> = match &node.op {
            Op::Conv2d(c) if c.kernel == [1, 1] => {
                let kernel = parameter("weight")?;
                let (inner, outer) = (c.in_channels / c.groups, c.out_channels / c.groups);
                let bias = if c.bias { parameter("bias") } else { None };
                let one = |o: usize| {
                    let first = o / outer * inner;
                    let row = kernel[o * inner..][..inner].iter().zip(&x[first..]);
                    row.map(|(w, x)| f64::from(*w) * x).sum::<f64>() + bias.map_or(0.0, |b| f64::from(b[o]))
                };
                (0..c.out_channels).map(one).collect()
            }
            Op::BatchNorm { eps, .. } => {
                let [scale, shift, mean, variance] =
                    ["weight", "bias", "running_mean", "running_var"].map(parameter);
                let (scale, shift, mean, variance) = (scale?, shift?, mean?, variance?);
                let one = |c: usize| {
                    let deviation = (f64::from(variance[c]) + eps).sqrt();
                    f64::from(scale[c]) * (x[c] - f64::from(mean[c])) / deviation + f64::from(shift[c])
                };
                (0..x.len()).map(one).collect()
            }
            Op::Activation { kind } => x.iter().map(|x| apply(*kind, *x)).collect(),
            Op::SumParts { parts } => {
                let run = x.len() / parts;
                (0..run).map(|c| x.iter().skip(c).step_by(run).sum()).collect()
            }
            Op::SoftmaxParts { parts } => {
                let run = x.len() / parts;
                let total = |c: usize| x.iter().skip(c).step_by(run).map(|x| x.exp()).sum::<f64>();
                (0..x.len()).map(|c| x[c].exp() / total(c % run)).collect()
            }
            Op::ShuffleChannels { outer, inner } => {
                let run = x.len() / (outer * inner);
                let from = |c: usize| (c / run % outer * inner + c / run / outer) * run + c % run;
                (0..x.len()).map(|c| x[from(c)]).collect()
            }
            _ => continue,
        };
        values[index + 1] = Some(y);
    }
    values[factor.index()].take()
}
