//! From lana's operations to ONNX nodes.

use std::collections::HashSet;

use lana_graph::{Activation, Graph, Op, Shape, Value, Window};

use crate::proto::{AttributeProto, NodeProto, TensorProto, attribute_type};
use crate::tensor::{float_tensor, integer_tensor};

/// Name of the model's input.
pub(crate) const INPUT: &str = "input";
/// Name of the model's output.
pub(crate) const OUTPUT: &str = "logits";

/// A graph's nodes in ONNX, and the constants they read beside the graph's own parameters.
pub(crate) struct Lowered {
    pub(crate) nodes: Vec<NodeProto>,
    pub(crate) constants: Vec<TensorProto>,
}

/// Lowers a graph. The same graph gives the same nodes every time: [`crate::import()`] relies on that.
pub(crate) fn lower(graph: &Graph) -> Lowered {
    let mut lowering = Lowering {
        lowered: Lowered { nodes: Vec::new(), constants: Vec::new() },
        taken: graph.parameters().into_iter().map(|p| p.name).collect(),
    };
    lowering.taken.extend([INPUT.to_string(), OUTPUT.to_string()]);
    let mut values = vec![INPUT.to_string()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let is_output = index + 1 == graph.output().index();
        let mut inputs: Vec<String> = node.inputs.iter().map(|v| values[v.index()].clone()).collect();
        if node.op.is_training_only() && !is_output {
            values.extend(inputs);
            continue;
        }
        let output = match is_output {
            true => OUTPUT.to_string(),
            false => lowering.unique(&node.name),
        };
        let parameters = node.op.parameters(&graph.input_shapes(index));
        inputs.extend(parameters.iter().map(|(suffix, ..)| format!("{}.{suffix}", node.name)));
        let shapes = (&graph.input_shapes(index)[..], graph.shape(Value::of_node(index)));
        lowering.op(&node.name, &node.op, inputs, &output, shapes);
        values.push(output);
    }
    if graph.output().node().is_none() {
        lowering.node(OUTPUT, "Identity", vec![INPUT.into()], OUTPUT, Vec::new());
    }
    lowering.lowered
}

struct Lowering {
    lowered: Lowered,
    /// Names of values so far; they share one name space with the initialisers.
    taken: HashSet<String>,
}

impl Lowering {
    /// `wanted`, or it with underscores behind if that is taken.
    fn unique(&mut self, wanted: &str) -> String {
        let mut name = wanted.to_string();
        while !self.taken.insert(name.clone()) {
            name.push('_');
        }
        name
    }

    fn node(
        &mut self,
        name: &str,
        op_type: &str,
        input: Vec<String>,
        output: &str,
        attribute: Vec<AttributeProto>,
    ) {
        self.lowered.nodes.push(NodeProto {
            input,
            output: vec![output.into()],
            name: Some(name.into()),
            op_type: Some(op_type.into()),
            attribute,
            ..NodeProto::default()
        });
    }

    /// Adds a node that gives a value of its own.
    fn step(&mut self, name: &str, op_type: &str, input: Vec<String>) -> String {
        let output = self.unique(name);
        self.node(name, op_type, input, &output, Vec::new());
        output
    }

    fn integers(&mut self, wanted: &str, data: &[i64]) -> String {
        let name = self.unique(wanted);
        self.lowered.constants.push(integer_tensor(&name, data));
        name
    }

    fn scalar(&mut self, wanted: &str, value: f32) -> String {
        let name = self.unique(wanted);
        self.lowered.constants.push(float_tensor(&name, &[], &[value]));
        name
    }

    /// Adds the node that gives `x` other dimensions behind the batch, which 0 leaves as it is.
    fn reshape(&mut self, name: &str, x: String, dims: &[usize], output: &str) {
        let dims: Vec<i64> = std::iter::once(0).chain(dims.iter().map(|&d| d as i64)).collect();
        let dims = self.integers(&format!("{name}/shape"), &dims);
        self.node(name, "Reshape", vec![x, dims], output, Vec::new());
    }

    /// As [`Lowering::reshape`], to a value of its own.
    fn reshaped(&mut self, name: &str, x: String, dims: &[usize]) -> String {
        let output = self.unique(name);
        self.reshape(name, x, dims, &output);
        output
    }

    /// Adds the nodes of one operation; `inputs` are its values, then its parameters, `from` and `shape` the shapes of those
    /// values and of its result.
    fn op(
        &mut self,
        name: &str,
        op: &Op,
        mut inputs: Vec<String>,
        output: &str,
        (from, shape): (&[&Shape], &Shape),
    ) {
        let mut attributes = Vec::new();
        let op_type = match op {
            Op::Conv2d(conv) => {
                attributes = vec![
                    ints("dilations", list(&conv.dilation)),
                    int("group", conv.groups as i64),
                    ints("kernel_shape", list(&conv.kernel)),
                    ints("pads", list(&conv.padding)),
                    ints("strides", list(&conv.stride)),
                ];
                "Conv"
            }
            Op::BatchNorm { eps, momentum } => {
                // ONNX's momentum is the weight of the old statistics, lana's (as PyTorch's) that of the new batch.
                attributes = vec![float("epsilon", *eps as f32), float("momentum", (1.0 - momentum) as f32)];
                "BatchNormalization"
            }
            Op::Activation { kind } => match kind {
                Activation::Relu => "Relu",
                Activation::Relu6 => {
                    let bounds = [("min", 0.0), ("max", 6.0)];
                    inputs
                        .extend(bounds.map(|(bound, value)| self.scalar(&format!("{name}/{bound}"), value)));
                    "Clip"
                }
                Activation::Silu => {
                    let gate = self.unique(&format!("{name}/sigmoid"));
                    self.node(&format!("{name}/sigmoid"), "Sigmoid", inputs.clone(), &gate, Vec::new());
                    inputs.push(gate);
                    "Mul"
                }
                Activation::Sigmoid => "Sigmoid",
                Activation::Tanh => "Tanh",
                Activation::Erf => "Erf",
                Activation::Elu => "Elu",
                Activation::Softplus => "Softplus",
                Activation::HardSwish => "HardSwish",
                // x · (1 + erf(x / √2)) / 2, as PyTorch writes it: runtimes know it again.
                Activation::Gelu => {
                    let x = inputs.remove(0);
                    let root = self.scalar(&format!("{name}/root"), std::f32::consts::SQRT_2);
                    let one = self.scalar(&format!("{name}/one"), 1.0);
                    let y = self.step(&format!("{name}/divided"), "Div", vec![x.clone(), root]);
                    let y = self.step(&format!("{name}/erf"), "Erf", vec![y]);
                    let y = self.step(&format!("{name}/sum"), "Add", vec![y, one]);
                    let y = self.step(&format!("{name}/product"), "Mul", vec![x, y]);
                    inputs = vec![y, self.scalar(&format!("{name}/half"), 0.5)];
                    "Mul"
                }
                Activation::HardSigmoid => {
                    attributes = vec![float("alpha", 1.0 / 6.0), float("beta", 0.5)];
                    "HardSigmoid"
                }
            },
            Op::Add => "Add",
            Op::Mul => "Mul",
            Op::Concat { axis } => {
                attributes = vec![int("axis", *axis as i64 + 1)];
                "Concat"
            }
            // Channels by their parts are a dimension of their own for a while.
            Op::SumParts { parts } => {
                let dims = [&[*parts], shape.dims()].concat();
                let x = self.reshaped(&format!("{name}/parts"), inputs.remove(0), &dims);
                inputs = vec![x, self.integers(&format!("{name}/axes"), &[1])];
                attributes = vec![int("keepdims", 0)];
                "ReduceSum"
            }
            Op::SoftmaxParts { parts } => {
                let dims = [*parts, shape.elements() / parts];
                let x = self.reshaped(&format!("{name}/parts"), inputs.remove(0), &dims);
                let y = self.unique(&format!("{name}/softmax"));
                self.node(name, "Softmax", vec![x], &y, vec![int("axis", 1)]);
                return self.reshape(&format!("{name}/whole"), y, shape.dims(), output);
            }
            Op::ShuffleChannels { outer, inner } => {
                let dims = [*outer, *inner, shape.elements() / (outer * inner)];
                let x = self.reshaped(&format!("{name}/parts"), inputs.remove(0), &dims);
                let y = self.unique(&format!("{name}/transposed"));
                self.node(name, "Transpose", vec![x], &y, vec![ints("perm", vec![0, 2, 1, 3])]);
                return self.reshape(&format!("{name}/whole"), y, shape.dims(), output);
            }
            Op::MaxPool { window } => {
                attributes = window_attributes(window);
                "MaxPool"
            }
            Op::AveragePool { window, count_include_pad } => {
                attributes = window_attributes(window);
                attributes.push(int("count_include_pad", i64::from(*count_include_pad)));
                "AveragePool"
            }
            Op::GlobalAveragePool => "GlobalAveragePool",
            Op::Mean { axes } => {
                attributes = vec![ints("axes", list(axes).iter().map(|axis| axis + 1).collect())];
                "ReduceMean"
            }
            Op::Flatten => {
                attributes = vec![int("axis", 1)];
                "Flatten"
            }
            // Gemm knows matrices alone. The transposition of a constant costs nothing: runtimes do it once.
            Op::Linear { bias, .. } if shape.dims().len() > 1 => {
                let offset = bias.then(|| inputs.pop()).flatten();
                let weight = inputs.pop().unwrap_or_default();
                let transposed = self.unique(&format!("{name}/transposed"));
                let perm = vec![ints("perm", vec![1, 0])];
                self.node(&format!("{name}/transposed"), "Transpose", vec![weight], &transposed, perm);
                inputs.push(transposed);
                match offset {
                    Some(offset) => {
                        let product = self.step(&format!("{name}/product"), "MatMul", inputs);
                        inputs = vec![product, offset];
                        "Add"
                    }
                    None => "MatMul",
                }
            }
            Op::Linear { .. } => {
                attributes = vec![int("transB", 1)];
                "Gemm"
            }
            Op::Reshape { shape } => return self.reshape(name, inputs.remove(0), shape, output),
            Op::Transpose { order } => {
                attributes = vec![ints(
                    "perm",
                    std::iter::once(0).chain(order.iter().map(|&o| o as i64 + 1)).collect(),
                )];
                "Transpose"
            }
            // What is evenly spaced is a slice, which runtimes need not look up element by element.
            Op::Select { axis, indices } if let Some(step) = even_steps(indices) => {
                let (start, end) = (indices[0] as i64, indices[indices.len() - 1] as i64 + 1);
                let lists = [("starts", start), ("ends", end), ("axes", *axis as i64 + 1), ("steps", step)];
                inputs.extend(lists.map(|(list, value)| self.integers(&format!("{name}/{list}"), &[value])));
                "Slice"
            }
            Op::Select { axis, indices } => {
                inputs.push(self.integers(&format!("{name}/indices"), &list(indices)));
                attributes = vec![int("axis", *axis as i64 + 1)];
                "Gather"
            }
            Op::MatMul => "MatMul",
            Op::Softmax { axis } => {
                attributes = vec![int("axis", *axis as i64 + 1)];
                "Softmax"
            }
            Op::LogSoftmax { axis } => {
                attributes = vec![int("axis", *axis as i64 + 1)];
                "LogSoftmax"
            }
            Op::LayerNorm { eps } => {
                attributes = vec![int("axis", -1), float("epsilon", *eps as f32)];
                "LayerNormalization"
            }
            Op::Scale { factor } => {
                inputs.push(self.scalar(&format!("{name}/factor"), *factor));
                "Mul"
            }
            Op::Shift { term } => {
                inputs.push(self.scalar(&format!("{name}/term"), *term));
                "Add"
            }
            Op::Power { exponent: 0.5 } => "Sqrt",
            Op::Power { exponent: -1.0 } => "Reciprocal",
            Op::Power { exponent } => {
                inputs.push(self.scalar(&format!("{name}/exponent"), *exponent));
                "Pow"
            }
            Op::AddParameter { .. } => "Add",
            Op::MulParameter { .. } => "Mul",
            Op::Conv3d { kernel, padding, .. } => {
                attributes = vec![
                    ints("dilations", vec![1; 3]),
                    int("group", 1),
                    ints("kernel_shape", list(kernel)),
                    ints("pads", list(&[*padding, *padding].concat())),
                    ints("strides", vec![1; 3]),
                ];
                "Conv"
            }
            Op::Subsample { stride } => {
                let stride = *stride as i64;
                let lists = [
                    ("starts", [0, 0]),
                    ("ends", [i64::MAX, i64::MAX]),
                    ("axes", [2, 3]),
                    ("steps", [stride, stride]),
                ];
                inputs.extend(lists.map(|(list, values)| self.integers(&format!("{name}/{list}"), &values)));
                "Slice"
            }
            Op::PadChannels { before, after } => {
                let pads = [0, *before as i64, 0, 0, 0, *after as i64, 0, 0];
                inputs.push(self.integers(&format!("{name}/pads"), &pads));
                attributes = vec![string("mode", "constant")];
                "Pad"
            }
            Op::Pad { pads, value } => {
                let ends = |end: usize| pads.iter().map(move |pair| pair[end] as i64);
                let pads: Vec<i64> = [0].into_iter().chain(ends(0)).chain([0]).chain(ends(1)).collect();
                inputs.push(self.integers(&format!("{name}/pads"), &pads));
                inputs.push(self.scalar(&format!("{name}/value"), *value));
                attributes = vec![string("mode", "constant")];
                "Pad"
            }
            Op::Resize { size, align_corners } => {
                let x = inputs.remove(0);
                let sides = [1, 2].map(|at| (size[at - 1], from[0].dims()[at]));
                let scales = [[1.0; 2], sides.map(|(new, old)| scale(new, old))].concat();
                let name = self.unique(&format!("{name}/scales"));
                self.lowered.constants.push(float_tensor(&name, &[4], &scales));
                inputs = vec![x, String::new(), name];
                let mode = if *align_corners { "align_corners" } else { "half_pixel" };
                attributes = vec![string("coordinate_transformation_mode", mode), string("mode", "linear")];
                "Resize"
            }
            // An export is for inference; only as the network's output does it need a node.
            Op::Dropout { .. } | Op::DropPath { .. } => "Identity",
        };
        self.node(name, op_type, inputs, output, attributes);
    }
}

fn list(values: &[usize]) -> Vec<i64> {
    values.iter().map(|&v| v as i64).collect()
}

/// The step from each of ascending positions to the next, if it is always the same.
fn even_steps(positions: &[usize]) -> Option<i64> {
    let mut steps = positions.windows(2).map(|pair| pair[1].checked_sub(pair[0]));
    let first = steps.next().unwrap_or(Some(1)).filter(|&step| step > 0)?;
    steps.all(|step| step == Some(first)).then_some(first as i64)
}

/// The factor by which runtimes, which multiply in 32 bits and round down, make `new` of `old`.
fn scale(new: usize, old: usize) -> f32 {
    let factor = new as f32 / old as f32;
    if (factor * old as f32) < new as f32 { factor.next_up() } else { factor }
}

fn window_attributes(window: &Window) -> Vec<AttributeProto> {
    vec![
        int("ceil_mode", i64::from(window.ceil_mode)),
        ints("kernel_shape", list(&window.kernel)),
        ints("pads", list(&[window.padding, window.padding].concat())),
        ints("strides", list(&window.stride)),
    ]
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

fn ints(name: &str, values: Vec<i64>) -> AttributeProto {
    AttributeProto { ints: values, ..attribute(name, attribute_type::INTS) }
}

fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, attribute_type::FLOAT) }
}

fn string(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..attribute(name, attribute_type::STRING) }
}
