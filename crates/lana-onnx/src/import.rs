//! From ONNX nodes to lana's operations.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use lana_graph::{Activation, Conv2d, Graph, Node, Op, Shape, Tensor, Value, Weights, Window};
use prost::Message;

use crate::lower::lower;
use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, TensorProto, attribute_type, data_type,
};
use crate::tensor::{floats, integers};
use crate::{Error, METADATA_KEY, Result};

/// Sizes, strides and paddings beyond this are taken for damage; it keeps every shape computation far from overflow.
const LARGEST: usize = 1 << 20;

/// Reads an ONNX file; errors name it.
pub fn import_file(path: &Path) -> Result<(Graph, Weights)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    import(&bytes).map_err(|source| Error::InFile { path: path.to_path_buf(), source: Box::new(source) })
}

/// Reads the bytes of an ONNX file.
///
/// What [`crate::export()`] wrote comes back exactly, layers and names included. Other models come back without layers;
/// their nodes are named after their weights where they have any.
///
/// # Errors
/// If the bytes are no ONNX model, or one with nodes that lana has no operation for: the message lists them all.
pub fn import(bytes: &[u8]) -> Result<(Graph, Weights)> {
    let model = ModelProto::decode(bytes).map_err(|e| Error::NotOnnx(e.to_string()))?;
    let Some(graph) = &model.graph else {
        return Err(Error::NotOnnx("it holds no network".into()));
    };
    let opset = opset(&model)?;
    if let Some(known) = own_graph(&model, graph) {
        return Ok(known);
    }
    Importer::new(graph, opset)?.run()
}

/// Version of ONNX's own operator set.
fn opset(model: &ModelProto) -> Result<i64> {
    let own = |domain: &Option<String>| matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
    let version = model.opset_import.iter().find(|o| own(&o.domain)).and_then(|o| o.version);
    match version {
        None => Err(Error::NotOnnx("it does not name its operator set".into())),
        // Before 7, Add and Mul had their own rule of broadcasting, BatchNormalization other attributes.
        Some(old) if old < 7 => Err(Error::Model(format!(
            "the model uses operator set {old}; convert it to 17 with onnx.version_converter first"
        ))),
        Some(version) => Ok(version),
    }
}

/// The network from the metadata, if it is the very network that the nodes say.
fn own_graph(model: &ModelProto, file: &GraphProto) -> Option<(Graph, Weights)> {
    let entry = model.metadata_props.iter().find(|e| e.key.as_deref() == Some(METADATA_KEY))?;
    let graph: Graph = serde_json::from_str(entry.value.as_deref()?).ok()?;
    let lowered = lower(&graph);
    let shape = image_shape(
        file.input.first()?.r#type.as_ref()?.tensor_type.as_ref()?.shape.as_ref()?.dim.as_slice(),
    )?;
    if lowered.nodes != file.node || shape != *graph.input_shape() {
        return None;
    }
    let mut tensors: HashMap<&str, &TensorProto> =
        file.initializer.iter().filter_map(|t| Some((t.name.as_deref()?, t))).collect();
    for constant in &lowered.constants {
        let name = constant.name.as_deref()?;
        if tensors.remove(name)? != constant {
            return None;
        }
    }
    let mut weights = Weights::new();
    for (name, tensor) in tensors {
        weights.insert(name, floats(tensor).ok()?);
    }
    // Where the weights are at fault, reading node by node gives the better message.
    weights.check(&graph).ok()?;
    Some((graph, weights))
}

/// The dimensions after the batch, if they are known and reasonable.
fn image_shape(dims: &[DimensionProto]) -> Option<Shape> {
    let known = |d: &DimensionProto| {
        d.dim_value.and_then(|v| usize::try_from(v).ok()).filter(|v| (1..=LARGEST).contains(v))
    };
    let sizes: Vec<usize> = dims.get(1..)?.iter().map(known).collect::<Option<_>>()?;
    match *sizes {
        [features] => Some(Shape::vector(features)),
        [c, h, w] => Some(Shape::image(c, h, w)),
        _ => None,
    }
}

/// A value of the model as far as it is known.
#[derive(Clone)]
enum Known<'a> {
    /// A value of the network.
    Value(Value),
    /// A value of the network by other dimensions behind the batch, the channels in parts for example. Some operations take
    /// parts of channels as they are; for the others a node makes the dimensions its own ([`Importer::settle`]).
    Regrouped(Value, Vec<usize>),
    /// A constant: an initialiser, or what a Constant node holds.
    Constant(&'a TensorProto),
    /// A constant matrix, transposed.
    Transposed(&'a TensorProto),
    /// What a node gives that cannot be read: whatever reads it is not looked at.
    Unknown,
}

/// What a node was found to be.
struct Found {
    op: Op,
    inputs: Vec<Value>,
    /// Values of its parameters, by their names within the operation.
    parameters: Vec<(&'static str, Tensor)>,
    /// The initialiser its first parameter came from.
    origin: Option<String>,
    /// The dimensions behind the batch, where they are not those of the result.
    dims: Option<Vec<usize>>,
}

impl Found {
    fn plain(op: Op, inputs: Vec<Value>) -> Self {
        Found { op, inputs, parameters: Vec::new(), origin: None, dims: None }
    }
}

/// Why a node cannot be read.
enum Obstacle {
    /// It reads something that cannot be read either, which is reported there.
    Upstream,
    /// Its type is unknown.
    Type,
    /// Its type is known, but not this use of it.
    Detail(String),
}

impl From<String> for Obstacle {
    fn from(reason: String) -> Self {
        Obstacle::Detail(reason)
    }
}

struct Importer<'a> {
    file: &'a GraphProto,
    opset: i64,
    known: HashMap<&'a str, Known<'a>>,
    shapes: Vec<Shape>,
    nodes: Vec<Node>,
    weights: Weights,
    names: HashSet<String>,
    input: Shape,
    /// How often each value is read.
    uses: HashMap<&'a str, usize>,
    /// Images in a batch, if the file says.
    batch: Option<i64>,
}

impl<'a> Importer<'a> {
    fn new(file: &'a GraphProto, opset: i64) -> Result<Self> {
        let mut known = HashMap::new();
        for tensor in &file.initializer {
            known.insert(tensor.name.as_deref().unwrap_or_default(), Known::Constant(tensor));
        }
        // Old files list their initialisers among the inputs.
        let inputs: Vec<_> = file
            .input
            .iter()
            .filter(|i| !known.contains_key(i.name.as_deref().unwrap_or_default()))
            .collect();
        let [input] = *inputs else {
            return Err(Error::Model(format!(
                "the model takes {} inputs, lana's networks take one image",
                inputs.len()
            )));
        };
        let name = input.name.as_deref().unwrap_or_default();
        let wrong = |reason: &str| Err(Error::Model(format!("the model's input `{name}` {reason}")));
        let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
            return wrong("has no tensor type");
        };
        if tensor.elem_type != Some(data_type::FLOAT) {
            return wrong("does not hold 32-bit floats");
        }
        let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
        let Some(shape) = image_shape(dims) else {
            return wrong(
                "is no batch of images of known size; export the model with fixed channels, height and width",
            );
        };
        known.insert(name, Known::Value(Value::INPUT));
        Ok(Importer {
            file,
            opset,
            known,
            shapes: vec![shape.clone()],
            nodes: Vec::new(),
            weights: Weights::new(),
            names: HashSet::new(),
            input: shape,
            uses: uses(file),
            batch: dims.first().and_then(|d| d.dim_value),
        })
    }

    fn run(mut self) -> Result<(Graph, Weights)> {
        let gates = self.gates();
        let gelus = gelus(self.file);
        let mut unsupported = Vec::new();
        for (index, node) in self.file.node.iter().enumerate() {
            let kind = node.op_type.as_deref().unwrap_or_default();
            let output = node.output.first().map(String::as_str).unwrap_or_default();
            if !self.takes_parts(node) {
                node.input.iter().for_each(|name| self.settle(name));
            }
            let result = match kind {
                // Read together with what is behind it.
                _ if gelus.inside.contains(output) => continue,
                _ if gelus.products.contains_key(output) => {
                    let x = self.lookup(gelus.products[output]);
                    x.and_then(|x| match x {
                        Known::Value(x) => {
                            let op = Op::Activation { kind: Activation::Gelu };
                            self.add(index, node, Found::plain(op, vec![x]))
                        }
                        _ => Err(Obstacle::Detail("GELU of a constant".into())),
                    })
                }
                _ if gates.contains_key(output) && matches!(kind, "Sigmoid" | "HardSigmoid") => continue,
                "Identity" => node.input.first().map_or(Err(Obstacle::Upstream), |i| self.lookup(i)),
                "Constant" => constant(node).map(Known::Constant).ok_or(Obstacle::Type),
                "Reshape" => self.reshape(node),
                "Transpose" if let Some(tensor) = self.matrix(node) => Ok(Known::Transposed(tensor)),
                "Add" if let Some(value) = self.bias(node) => value,
                _ => self.read(node, &gates).and_then(|found| self.add(index, node, found)),
            };
            let value = result.unwrap_or_else(|obstacle| {
                let name = node.name.as_deref().filter(|n| !n.is_empty()).unwrap_or(output);
                match obstacle {
                    Obstacle::Upstream => {}
                    Obstacle::Type => unsupported.push(format!("`{name}` ({kind})")),
                    Obstacle::Detail(reason) => unsupported.push(format!("`{name}` ({kind}: {reason})")),
                }
                Known::Unknown
            });
            for extra in node.output.iter().skip(1) {
                self.known.insert(extra, Known::Unknown);
            }
            self.known.insert(output, value);
        }
        if !unsupported.is_empty() {
            return Err(Error::Unsupported(unsupported));
        }
        let [output] = self.file.output.as_slice() else {
            let count = self.file.output.len();
            return Err(Error::Model(format!("the model gives {count} outputs, lana's networks give one")));
        };
        let name = output.name.as_deref().unwrap_or_default();
        self.settle(name);
        let Some(Known::Value(value)) = self.known.get(name) else {
            return Err(Error::NotOnnx(format!("no node makes its output `{name}`")));
        };
        let title = self.file.name.as_deref().filter(|n| !n.is_empty()).unwrap_or("imported");
        let graph = Graph::new(title, self.input, self.nodes, *value, Vec::new())?;
        self.weights.check(&graph)?;
        Ok((graph, self.weights))
    }

    /// Values that are the gate of `x · gate(x)` and nothing else, with the non-linearity which that product is.
    fn gates(&self) -> HashMap<&'a str, Activation> {
        let makers = makers(self.file);
        let mut gates = HashMap::new();
        for product in self.file.node.iter().filter(|n| n.op_type.as_deref() == Some("Mul")) {
            for (x, gate) in product.input.iter().zip(product.input.iter().rev()) {
                let Some(maker) = makers.get(gate.as_str()) else { continue };
                let kind = match maker.op_type.as_deref() {
                    Some("Sigmoid") => Activation::Silu,
                    Some("HardSigmoid") if is_hard_sigmoid(maker) => Activation::HardSwish,
                    _ => continue,
                };
                if maker.input.first() == Some(x) && self.uses.get(gate.as_str()) == Some(&1) {
                    gates.insert(gate.as_str(), kind);
                }
            }
        }
        gates
    }

    /// Whether the node takes parts of channels as they are.
    fn takes_parts(&self, node: &NodeProto) -> bool {
        let regrouped = |at: usize| {
            let name = node.input.get(at).map(String::as_str).unwrap_or_default();
            matches!(self.known.get(name), Some(Known::Regrouped(..)))
        };
        let fits = |found: std::result::Result<Found, Obstacle>| {
            found.is_ok_and(|f| f.op.infer(&[&self.shapes[f.inputs[0].index()]]).is_ok())
        };
        match node.op_type.as_deref().unwrap_or_default() {
            "Reshape" | "Identity" => true,
            "ReduceSum" => regrouped(0),
            "Softmax" => regrouped(0) && fits(self.softmax_parts(node)),
            "Transpose" => regrouped(0) && fits(self.shuffle(node)),
            _ => false,
        }
    }

    /// Makes the dimensions of a value its own: from here on it is the result of a node.
    fn settle(&mut self, name: &str) {
        let Some((key, Known::Regrouped(value, dims))) = self.known.get_key_value(name) else { return };
        let (key, value, shape) = (*key, *value, dims.clone());
        // What was regrouped has as many elements by either dimensions.
        let made = makers(self.file).get(key).and_then(|n| n.name.as_deref()).filter(|n| !n.is_empty());
        let mut own = made.unwrap_or(key).to_string();
        while !self.names.insert(own.clone()) {
            own.push('_');
        }
        self.shapes.push(Shape::of(&shape));
        self.nodes.push(Node { name: own, op: Op::Reshape { shape }, inputs: vec![value] });
        self.known.insert(key, Known::Value(Value::of_node(self.nodes.len() - 1)));
    }

    /// The constant matrix that the node transposes.
    fn matrix(&self, node: &NodeProto) -> Option<&'a TensorProto> {
        let swaps = attribute(node, "perm").is_none_or(|a| a.ints == [1, 0]);
        match self.known.get(node.input.first()?.as_str())? {
            Known::Constant(tensor) if swaps && tensor.dims.len() == 2 => Some(tensor),
            _ => None,
        }
    }

    /// Where the node adds a constant vector to the product with a constant matrix right in front of it: that fully
    /// connected layer, which then has its bias.
    fn bias(&mut self, node: &NodeProto) -> Option<std::result::Result<Known<'a>, Obstacle>> {
        let (x, at) = [(0, 1), (1, 0)].into_iter().find_map(|(x, at)| {
            let [x, constant] = [x, at].map(|i| node.input.get(i).map(String::as_str).unwrap_or_default());
            match (self.known.get(x)?, self.known.get(constant)?) {
                (Known::Value(value), Known::Constant(_)) if self.uses.get(x) == Some(&1) => {
                    Some((*value, at))
                }
                _ => None,
            }
        })?;
        let last = x.node().filter(|&n| n + 1 == self.nodes.len())?;
        let Op::Linear { out_features, bias: false } = self.nodes[last].op else { return None };
        let mut tensor = self.parameter(node, at).ok()?;
        if tensor.data.len() != out_features || tensor.shape.last() != Some(&out_features) {
            return None;
        }
        tensor.shape = vec![out_features];
        self.nodes[last].op = Op::Linear { out_features, bias: true };
        self.weights.insert(format!("{}.bias", self.nodes[last].name), tensor);
        Some(Ok(Known::Value(x)))
    }

    fn lookup(&self, name: &str) -> std::result::Result<Known<'a>, Obstacle> {
        match self.known.get(name) {
            Some(Known::Unknown) => Err(Obstacle::Upstream),
            Some(known) => Ok(known.clone()),
            None => Err(Obstacle::Detail(format!("reads `{name}`, which no earlier node makes"))),
        }
    }

    /// The value that is input number `at`.
    fn value(&self, node: &NodeProto, at: usize) -> std::result::Result<Value, Obstacle> {
        let name = node.input.get(at).map(String::as_str).unwrap_or_default();
        match self.lookup(name)? {
            Known::Value(value) => Ok(value),
            Known::Regrouped(_, dims) => Err(Obstacle::Detail(format!(
                "input {at}, `{name}`, has the dimensions {dims:?} behind the batch"
            ))),
            _ => Err(Obstacle::Detail(format!("input {at}, `{name}`, is a constant"))),
        }
    }

    /// The value that is input number `at` and its dimensions behind the batch, be they its own or not.
    fn regrouped(&self, node: &NodeProto, at: usize) -> std::result::Result<(Value, Vec<usize>), Obstacle> {
        let name = node.input.get(at).map(String::as_str).unwrap_or_default();
        match self.lookup(name)? {
            Known::Regrouped(value, dims) => Ok((value, dims)),
            _ => self.value(node, at).map(|value| (value, self.shapes[value.index()].dims().to_vec())),
        }
    }

    /// The constant that is input number `at`; none if the node does without.
    fn constant(
        &self,
        node: &NodeProto,
        at: usize,
    ) -> std::result::Result<Option<&'a TensorProto>, Obstacle> {
        match node.input.get(at).filter(|name| !name.is_empty()) {
            None => Ok(None),
            Some(name) => match self.lookup(name)? {
                Known::Constant(tensor) => Ok(Some(tensor)),
                _ => Err(Obstacle::Detail(format!("input {at}, `{name}`, is not constant"))),
            },
        }
    }

    /// The parameter that is input number `at`.
    fn parameter(&self, node: &NodeProto, at: usize) -> std::result::Result<Tensor, Obstacle> {
        let tensor = self.constant(node, at)?.ok_or_else(|| format!("lacks input {at}"))?;
        let name = tensor.name.as_deref().unwrap_or_default();
        Ok(floats(tensor).map_err(|e| format!("`{name}`: {e}"))?)
    }

    /// A list of integers that newer operator sets give as input number `at`, older ones as an attribute.
    fn list(
        &self,
        node: &NodeProto,
        at: usize,
        name: &str,
    ) -> std::result::Result<Option<Vec<i64>>, Obstacle> {
        match self.constant(node, at)? {
            Some(tensor) => Ok(Some(integers(tensor)?)),
            None => Ok(attribute(node, name).map(|a| a.ints.clone())),
        }
    }

    /// A number that newer operator sets give as input number `at`, older ones as an attribute.
    fn scalar(&self, node: &NodeProto, at: usize, name: &str) -> std::result::Result<Option<f32>, Obstacle> {
        match self.constant(node, at)? {
            Some(tensor) => Ok(floats(tensor)?.data.first().copied()),
            None => Ok(attribute(node, name).and_then(|a| a.f)),
        }
    }

    fn read(
        &self,
        node: &NodeProto,
        gates: &HashMap<&str, Activation>,
    ) -> std::result::Result<Found, Obstacle> {
        if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
            return Err(Obstacle::Type);
        }
        let activation = |kind| Ok(Found::plain(Op::Activation { kind }, vec![self.value(node, 0)?]));
        match node.op_type.as_deref().unwrap_or_default() {
            "Conv" => self.conv(node),
            "BatchNormalization" => self.batch_norm(node),
            "Gemm" => self.gemm(node),
            "Relu" => activation(Activation::Relu),
            "Sigmoid" => activation(Activation::Sigmoid),
            "HardSwish" => activation(Activation::HardSwish),
            "HardSigmoid" if is_hard_sigmoid(node) => activation(Activation::HardSigmoid),
            "HardSigmoid" => Err(Obstacle::Detail("only alpha 1/6 and beta 1/2".into())),
            "Clip" => {
                let bounds = (self.scalar(node, 1, "min")?, self.scalar(node, 2, "max")?);
                match bounds {
                    (Some(0.0), Some(6.0)) => activation(Activation::Relu6),
                    (Some(0.0), None) => activation(Activation::Relu),
                    (low, high) => {
                        Err(Obstacle::Detail(format!("bounds {low:?} and {high:?}, only 0 and 6")))
                    }
                }
            }
            "Add" => {
                for (x, at) in [(0, 1), (1, 0)] {
                    if self.is_constant(node, at) {
                        return self.add_parameter(node, x, at);
                    }
                }
                Ok(Found::plain(Op::Add, vec![self.value(node, 0)?, self.value(node, 1)?]))
            }
            "Mul" => {
                for (x, at) in [(0, 1), (1, 0)] {
                    if self.is_constant(node, at) {
                        let factor = self.parameter(node, at)?;
                        let [factor] = *factor.data else {
                            return Err(Obstacle::Detail("by a constant that is not one number".into()));
                        };
                        return Ok(Found::plain(Op::Scale { factor }, vec![self.value(node, x)?]));
                    }
                }
                for (gate, x) in [(0, 1), (1, 0)] {
                    if let Some(&kind) = node.input.get(gate).and_then(|g| gates.get(g.as_str())) {
                        return Ok(Found::plain(Op::Activation { kind }, vec![self.value(node, x)?]));
                    }
                }
                let (x, y) = (self.value(node, 0)?, self.value(node, 1)?);
                // lana's gate is the second factor.
                let swapped = self.shapes[x.index()].elements() < self.shapes[y.index()].elements();
                Ok(Found::plain(Op::Mul, if swapped { vec![y, x] } else { vec![x, y] }))
            }
            "GlobalAveragePool" => Ok(Found::plain(Op::GlobalAveragePool, vec![self.value(node, 0)?])),
            "Flatten" => match int(node, "axis").unwrap_or(1) {
                1 => Ok(Found::plain(Op::Flatten, vec![self.value(node, 0)?])),
                axis => Err(Obstacle::Detail(format!("axis {axis}, only 1"))),
            },
            "MaxPool" => Ok(Found::plain(Op::MaxPool { window: window(node)? }, vec![self.value(node, 0)?])),
            "AveragePool" => {
                let count_include_pad = int(node, "count_include_pad").unwrap_or(0) != 0;
                let op = Op::AveragePool { window: window(node)?, count_include_pad };
                Ok(Found::plain(op, vec![self.value(node, 0)?]))
            }
            "ReduceSum" => self.sum_parts(node),
            "Softmax" if self.takes_parts(node) => self.softmax_parts(node),
            "Softmax" => self.softmax(node),
            "Transpose" if self.takes_parts(node) => self.shuffle(node),
            "Transpose" => self.transpose(node),
            "Gather" => self.select(node),
            "MatMul" => self.mat_mul(node),
            "LayerNormalization" => self.layer_norm(node),
            "Gelu" if attribute(node, "approximate").is_none_or(|a| a.s.as_deref() == Some(b"none")) => {
                activation(Activation::Gelu)
            }
            "Slice" => self.slice(node),
            "Pad" => self.pad(node),
            _ => Err(Obstacle::Type),
        }
    }

    fn conv(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let weight = self.parameter(node, 1)?;
        if weight.shape.len() == 5 {
            return self.conv3d(node, x, weight);
        }
        let Some((channels, height, width)) = self.shapes[x.index()].as_image() else {
            return Err(Obstacle::Detail(format!("convolution of {}", self.shapes[x.index()])));
        };
        let [out_channels, _, kernel_h, kernel_w] = *weight.shape else {
            return Err(Obstacle::Detail(format!("kernel of {} dimensions, only 4", weight.shape.len())));
        };
        if sizes(node, "dilations", 2)?.is_some_and(|d| d != [1, 1]) {
            return Err(Obstacle::Detail("dilated".into()));
        }
        let stride = sizes(node, "strides", 2)?.map_or([1, 1], |s| [s[0], s[1]]);
        let same = |upper: bool| {
            let [(top, bottom), (left, right)] =
                [(height, kernel_h, stride[0]), (width, kernel_w, stride[1])].map(|(size, kernel, step)| {
                    let needed = (size.div_ceil(step.max(1)) - 1) * step + kernel;
                    let total = needed.saturating_sub(size);
                    let (less, more) = (total / 2, total - total / 2);
                    if upper { (less, more) } else { (more, less) }
                });
            [top, left, bottom, right]
        };
        let auto_pad = attribute(node, "auto_pad").and_then(|a| a.s.as_deref()).unwrap_or(b"NOTSET");
        let padding = match auto_pad {
            b"NOTSET" => sizes(node, "pads", 4)?.map_or([0; 4], |p| [p[0], p[1], p[2], p[3]]),
            b"VALID" => [0; 4],
            b"SAME_UPPER" => same(true),
            b"SAME_LOWER" => same(false),
            other => {
                return Err(Obstacle::Detail(format!("auto_pad {}", String::from_utf8_lossy(other))));
            }
        };
        let groups = size(int(node, "group").unwrap_or(1))?;
        let bias = self.constant(node, 2)?.is_some();
        let mut parameters = vec![("weight", weight)];
        if bias {
            parameters.push(("bias", self.parameter(node, 2)?));
        }
        let kernel = [kernel_h, kernel_w];
        let conv = Conv2d { in_channels: channels, out_channels, kernel, stride, padding, groups, bias };
        Ok(Found {
            op: Op::Conv2d(conv),
            inputs: vec![x],
            parameters,
            origin: self.origin(node, 1),
            dims: None,
        })
    }

    fn conv3d(&self, node: &NodeProto, x: Value, weight: Tensor) -> std::result::Result<Found, Obstacle> {
        let pads = sizes(node, "pads", 6)?.unwrap_or_else(|| vec![0; 6]);
        let ones = |name: &str| Ok::<_, Obstacle>(sizes(node, name, 3)?.is_none_or(|v| v == [1; 3]));
        let padded = attribute(node, "auto_pad").is_none_or(|a| a.s.as_deref() == Some(b"NOTSET"));
        if !ones("strides")? || !ones("dilations")? || pads[..3] != pads[3..] || !padded {
            return Err(Obstacle::Detail(
                "in three dimensions only with step 1 and the same padding at both ends".into(),
            ));
        }
        if int(node, "group").unwrap_or(1) != 1 {
            return Err(Obstacle::Detail("in three dimensions only in one group".into()));
        }
        let (kernel, padding) = ([2, 3, 4].map(|at| weight.shape[at]), [pads[0], pads[1], pads[2]]);
        let bias = self.constant(node, 2)?.is_some();
        let op = Op::Conv3d { out_channels: weight.shape[0], kernel, padding, bias };
        let mut parameters = vec![("weight", weight)];
        if bias {
            parameters.push(("bias", self.parameter(node, 2)?));
        }
        Ok(Found { parameters, origin: self.origin(node, 1), ..Found::plain(op, vec![x]) })
    }

    fn is_constant(&self, node: &NodeProto, at: usize) -> bool {
        let name = node.input.get(at).map(String::as_str).unwrap_or_default();
        matches!(self.known.get(name), Some(Known::Constant(_)))
    }

    /// A constant of the value's own shape, the same for each image.
    fn add_parameter(&self, node: &NodeProto, x: usize, at: usize) -> std::result::Result<Found, Obstacle> {
        let (x, mut tensor) = (self.value(node, x)?, self.parameter(node, at)?);
        let dims = self.shapes[x.index()].dims();
        if tensor.shape.strip_prefix(&[1]).unwrap_or(&tensor.shape) != dims {
            let (have, want) = (&tensor.shape, dims);
            return Err(Obstacle::Detail(format!(
                "a constant of shape {have:?}, only of the value's, {want:?}"
            )));
        }
        tensor.shape = dims.to_vec();
        let parameters = vec![("weight", tensor)];
        Ok(Found { parameters, origin: self.origin(node, at), ..Found::plain(Op::AddParameter, vec![x]) })
    }

    /// Of two values, or of a value and a constant matrix: a fully connected layer.
    fn mat_mul(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let name = node.input.get(1).map(String::as_str).unwrap_or_default();
        let (tensor, transposed) = match self.lookup(name)? {
            Known::Constant(tensor) => (tensor, false),
            Known::Transposed(tensor) => (tensor, true),
            _ => return Ok(Found::plain(Op::MatMul, vec![x, self.value(node, 1)?])),
        };
        let origin = tensor.name.clone();
        let mut weight = floats(tensor)?;
        let [rows, columns] = *weight.shape else {
            return Err(Obstacle::Detail(format!("constant of {} dimensions, only 2", weight.shape.len())));
        };
        if !transposed {
            let at = (0..columns).flat_map(|c| (0..rows).map(move |r| r * columns + c));
            weight = Tensor { shape: vec![columns, rows], data: at.map(|at| weight.data[at]).collect() };
        }
        let op = Op::Linear { out_features: weight.shape[0], bias: false };
        Ok(Found { parameters: vec![("weight", weight)], origin, ..Found::plain(op, vec![x]) })
    }

    /// The dimension behind the batch that an attribute names, counted from there.
    fn axis(&self, x: Value, axis: i64) -> std::result::Result<usize, Obstacle> {
        let rank = self.shapes[x.index()].dims().len() as i64;
        let from_batch = if axis < 0 { axis + rank + 1 } else { axis };
        match (1..=rank).contains(&from_batch) {
            true => Ok(from_batch as usize - 1),
            false => Err(Obstacle::Detail(format!("axis {axis}, only one behind the batch"))),
        }
    }

    fn softmax(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let axis = self.axis(x, int(node, "axis").unwrap_or(if self.opset < 13 { 1 } else { -1 }))?;
        // Before 13 everything from the axis on was one dimension.
        if self.opset < 13 && axis + 1 != self.shapes[x.index()].dims().len() {
            return Err(Obstacle::Detail("before operator set 13 only along the last dimension".into()));
        }
        Ok(Found::plain(Op::Softmax { axis }, vec![x]))
    }

    fn transpose(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let only = || Obstacle::Detail("only with the batch in front".into());
        let perm = attribute(node, "perm").map(|a| a.ints.as_slice()).ok_or_else(only)?;
        let [0, order @ ..] = perm else { return Err(only()) };
        let order = order.iter().map(|&at| self.axis(x, at)).collect::<std::result::Result<_, _>>()?;
        Ok(Found::plain(Op::Transpose { order }, vec![x]))
    }

    fn select(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let axis = self.axis(x, int(node, "axis").unwrap_or(0))?;
        let tensor = self.constant(node, 1)?.ok_or_else(|| "lacks its indices".to_string())?;
        let length = self.shapes[x.index()].dims()[axis] as i64;
        if tensor.dims.len() != 1 {
            return Err(Obstacle::Detail("only by a list of indices".into()));
        }
        let indices = integers(tensor)?.into_iter().map(|i| size(if i < 0 { i + length } else { i }));
        let indices = indices.collect::<std::result::Result<_, _>>()?;
        Ok(Found::plain(Op::Select { axis, indices }, vec![x]))
    }

    fn layer_norm(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let axis = self.axis(x, int(node, "axis").unwrap_or(-1))?;
        if axis + 1 != self.shapes[x.index()].dims().len() {
            return Err(Obstacle::Detail("only over the last dimension".into()));
        }
        let weight = self.parameter(node, 1)?;
        let bias = match self.constant(node, 2)? {
            Some(_) => self.parameter(node, 2)?,
            None => Tensor::full(&weight.shape, 0.0),
        };
        let eps = decimal(attribute(node, "epsilon").and_then(|a| a.f).unwrap_or(1e-5));
        let parameters = vec![("weight", weight), ("bias", bias)];
        let origin = self.origin(node, 1);
        Ok(Found { parameters, origin, ..Found::plain(Op::LayerNorm { eps }, vec![x]) })
    }

    fn batch_norm(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        if int(node, "training_mode").unwrap_or(0) != 0 {
            return Err(Obstacle::Detail("in training mode; export the model for inference".into()));
        }
        let inputs = vec![self.value(node, 0)?];
        let number = |name: &str, default: f32| attribute(node, name).and_then(|a| a.f).unwrap_or(default);
        let eps = decimal(number("epsilon", 1e-5));
        // Digits beyond the seventh are the subtraction's.
        let momentum = ((1.0 - decimal(number("momentum", 0.9))) * 1e7).round() / 1e7;
        let names = ["weight", "bias", "running_mean", "running_var"];
        let parameters = names
            .iter()
            .enumerate()
            .map(|(at, &name)| Ok((name, self.parameter(node, at + 1)?)))
            .collect::<std::result::Result<_, Obstacle>>()?;
        let op = Op::BatchNorm { eps, momentum };
        Ok(Found { op, inputs, parameters, origin: self.origin(node, 1), dims: None })
    }

    fn gemm(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let inputs = vec![self.value(node, 0)?];
        let one = |name: &str| attribute(node, name).and_then(|a| a.f).unwrap_or(1.0) == 1.0;
        if int(node, "transA").unwrap_or(0) != 0 || !one("alpha") || !one("beta") {
            return Err(Obstacle::Detail("only x·W + b, without factors or transposed x".into()));
        }
        let mut weight = self.parameter(node, 1)?;
        let [rows, columns] = *weight.shape else {
            return Err(Obstacle::Detail(format!("matrix of {} dimensions", weight.shape.len())));
        };
        if int(node, "transB").unwrap_or(0) == 0 {
            let data = (0..columns)
                .flat_map(|c| (0..rows).map(move |r| (r, c)))
                .map(|(r, c)| weight.data[r * columns + c]);
            weight = Tensor { shape: vec![columns, rows], data: data.collect() };
        }
        let out_features = weight.shape[0];
        let mut parameters = vec![("weight", weight)];
        let bias = self.constant(node, 2)?.is_some();
        if bias {
            let mut tensor = self.parameter(node, 2)?;
            if tensor.data.len() == 1 {
                tensor.data = vec![tensor.data[0]; out_features];
            }
            tensor.shape = vec![tensor.data.len()];
            parameters.push(("bias", tensor));
        }
        let op = Op::Linear { out_features, bias };
        Ok(Found { op, inputs, parameters, origin: self.origin(node, 1), dims: None })
    }

    /// The same elements by other dimensions, which makes no node of the network.
    fn reshape(&self, node: &NodeProto) -> std::result::Result<Known<'a>, Obstacle> {
        let (value, from) = self.regrouped(node, 0)?;
        let only = || Obstacle::Detail("only to fixed dimensions behind the batch".into());
        let wanted = self.list(node, 1, "shape")?.ok_or_else(only)?;
        let [batch, wanted @ ..] = wanted.as_slice() else { return Err(only()) };
        let elements = self.shapes[value.index()].elements();
        let keeps_zero = int(node, "allowzero").unwrap_or(0) != 0;
        let known = |at: usize, dim: i64| match dim {
            -1 => Ok(None),
            0 if keeps_zero => Err(only()),
            0 => from.get(at).copied().map(Some).ok_or_else(only),
            dim => size(dim).map(Some),
        };
        let dims: Vec<Option<usize>> = wanted
            .iter()
            .enumerate()
            .map(|(at, &dim)| known(at, dim))
            .collect::<std::result::Result<_, _>>()?;
        let open = dims.iter().filter(|d| d.is_none()).count() + usize::from(*batch == -1);
        let rest = dims.iter().flatten().try_fold(1usize, |product, &d| product.checked_mul(d));
        let rest = rest.filter(|&r| r > 0 && elements.is_multiple_of(r)).ok_or_else(only)?;
        let dims: Vec<usize> = dims.into_iter().map(|d| d.unwrap_or(elements / rest)).collect();
        let same_batch = *batch <= 0 && !(keeps_zero && *batch == 0) || Some(*batch) == self.batch;
        if !same_batch || open > 1 || dims.iter().product::<usize>() != elements {
            return Err(only());
        }
        Ok(match dims == self.shapes[value.index()].dims() {
            true => Known::Value(value),
            false => Known::Regrouped(value, dims),
        })
    }

    /// Parts of the channels that have a dimension of their own, and the others behind it.
    fn parts(&self, node: &NodeProto) -> std::result::Result<(Value, usize, Vec<usize>), Obstacle> {
        let (value, dims) = self.regrouped(node, 0)?;
        let shape = &self.shapes[value.index()];
        let only = || Obstacle::Detail("only parts of a feature map's channels, the first dimension".into());
        let (channels, ..) = shape.as_image().ok_or_else(only)?;
        match *dims {
            [parts, ref rest @ ..] if !rest.is_empty() && parts > 0 && channels % parts == 0 => {
                Ok((value, parts, rest.to_vec()))
            }
            _ => Err(only()),
        }
    }

    fn sum_parts(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let (value, parts, rest) = self.parts(node)?;
        let axes = self.list(node, 1, "axes")?.unwrap_or_default();
        if axes != [1] || int(node, "keepdims").unwrap_or(1) != 0 {
            return Err(Obstacle::Detail(
                "only over the parts of channels, the first dimension, which goes".into(),
            ));
        }
        Ok(Found { dims: Some(rest), ..Found::plain(Op::SumParts { parts }, vec![value]) })
    }

    fn softmax_parts(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let (value, parts, rest) = self.parts(node)?;
        // Before 13 everything from the axis on was one dimension.
        if int(node, "axis").unwrap_or(-1) != 1 || self.opset < 13 {
            return Err(Obstacle::Detail("only over the parts of channels, the first dimension".into()));
        }
        let dims = Some([vec![parts], rest].concat());
        Ok(Found { dims, ..Found::plain(Op::SoftmaxParts { parts }, vec![value]) })
    }

    fn shuffle(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let (value, outer, rest) = self.parts(node)?;
        let only = || Obstacle::Detail("only of two dimensions of channels".into());
        let perm = attribute(node, "perm").map(|a| a.ints.as_slice()).ok_or_else(only)?;
        let mut wanted: Vec<i64> = (0..rest.len() as i64 + 2).collect();
        let [inner, rest @ ..] = rest.as_slice() else { return Err(only()) };
        wanted.swap(1, 2);
        if perm != wanted {
            return Err(only());
        }
        let dims = Some([&[*inner, outer], rest].concat());
        Ok(Found { dims, ..Found::plain(Op::ShuffleChannels { outer, inner: *inner }, vec![value]) })
    }

    fn slice(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let only = || Obstacle::Detail("only every n-th row and column of whole feature maps".into());
        let starts = self.list(node, 1, "starts")?.ok_or_else(only)?;
        let ends = self.list(node, 2, "ends")?.ok_or_else(only)?;
        let count = starts.len() as i64;
        let axes = self.list(node, 3, "axes")?.unwrap_or_else(|| (0..count).collect());
        let steps = match self.opset {
            ..10 => None,
            _ => self.list(node, 4, "steps")?,
        }
        .unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
            return Err(only());
        }
        let (_, height, width) = self.shapes[x.index()].as_image().ok_or_else(only)?;
        let mut stride = [1, 1];
        for at in 0..starts.len() {
            let spatial = match axes[at] {
                2 | -2 => 0,
                3 | -1 => 1,
                _ => return Err(only()),
            };
            if starts[at] != 0 || ends[at] < [height, width][spatial] as i64 || steps[at] < 1 {
                return Err(only());
            }
            stride[spatial] = steps[at];
        }
        match stride {
            [a, b] if a == b => Ok(Found::plain(Op::Subsample { stride: size(a)? }, vec![x])),
            _ => Err(only()),
        }
    }

    fn pad(&self, node: &NodeProto) -> std::result::Result<Found, Obstacle> {
        let x = self.value(node, 0)?;
        let only = || Obstacle::Detail("only channels of zeros".into());
        let mode = attribute(node, "mode").and_then(|a| a.s.as_deref()).unwrap_or(b"constant");
        let value = self.scalar(node, 2, "value")?.unwrap_or(0.0);
        let axes = node.input.get(3).is_some_and(|name| !name.is_empty());
        if mode != b"constant" || value != 0.0 || axes {
            return Err(only());
        }
        match self.list(node, 1, "pads")?.as_deref() {
            Some(&[0, before, 0, 0, 0, after, 0, 0]) if before >= 0 && after >= 0 => {
                let (before, after) = (size(before)?, size(after)?);
                Ok(Found::plain(Op::PadChannels { before, after }, vec![x]))
            }
            _ => Err(only()),
        }
    }

    /// Name of the initialiser that is input number `at`.
    fn origin(&self, node: &NodeProto, at: usize) -> Option<String> {
        node.input.get(at).cloned()
    }

    /// Adds what was found to the network, if its shapes fit.
    fn add(
        &mut self,
        index: usize,
        node: &NodeProto,
        found: Found,
    ) -> std::result::Result<Known<'a>, Obstacle> {
        let shapes: Vec<&Shape> = found.inputs.iter().map(|v| &self.shapes[v.index()]).collect();
        let shape = found.op.infer(&shapes)?;
        if shape.dims().iter().any(|&d| d == 0 || d > LARGEST.pow(2)) {
            return Err(Obstacle::Detail(format!("result of size {shape}")));
        }
        for ((suffix, want, _), (_, tensor)) in found.op.parameters(&shapes).iter().zip(&found.parameters) {
            if *want != tensor.shape {
                return Err(Obstacle::Detail(format!("{suffix} of shape {:?}, not {want:?}", tensor.shape)));
            }
        }
        let from_weight = found.origin.as_deref().and_then(|o| o.strip_suffix(".weight"));
        let own = node.name.as_deref().filter(|n| !n.is_empty());
        let wanted = from_weight.filter(|n| !n.is_empty()).or(own).map(str::to_string);
        let mut name = wanted.unwrap_or_else(|| format!("{}_{index}", found.op.kind()));
        while !self.names.insert(name.clone()) {
            name.push('_');
        }
        for (suffix, tensor) in found.parameters {
            self.weights.insert(format!("{name}.{suffix}"), tensor);
        }
        let dims = found.dims.filter(|dims| dims != shape.dims());
        self.shapes.push(shape);
        self.nodes.push(Node { name, op: found.op, inputs: found.inputs });
        let value = Value::of_node(self.nodes.len() - 1);
        Ok(dims.map_or(Known::Value(value), |dims| Known::Regrouped(value, dims)))
    }
}

/// What stands there as the nearest 32-bit float was written as a decimal number by whoever chose it.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

/// How often each value of a file is read.
fn uses(file: &GraphProto) -> HashMap<&str, usize> {
    let mut uses: HashMap<&str, usize> = HashMap::new();
    let outputs = file.output.iter().filter_map(|o| o.name.as_ref());
    for name in file.node.iter().flat_map(|n| &n.input).chain(outputs) {
        *uses.entry(name).or_default() += 1;
    }
    uses
}

/// The node that makes each value.
fn makers(file: &GraphProto) -> HashMap<&str, &NodeProto> {
    file.node.iter().filter_map(|n| Some((n.output.first()?.as_str(), n))).collect()
}

/// GELUs that a file spells out: `x · (1 + erf(x / √2)) · ½`, factors in any order.
#[derive(Default)]
struct Gelus<'a> {
    /// The last products, with the value they are GELUs of.
    products: HashMap<&'a str, &'a str>,
    /// Values in between.
    inside: HashSet<&'a str>,
}

/// Both orders.
fn either<'a>((a, b): (&'a str, &'a str)) -> [(&'a str, &'a str); 2] {
    [(a, b), (b, a)]
}

fn gelus(file: &GraphProto) -> Gelus<'_> {
    let makers = makers(file);
    let uses = uses(file);
    let constants: HashMap<&str, &TensorProto> = (file.initializer.iter())
        .filter_map(|t| Some((t.name.as_deref()?, t)))
        .chain(makers.iter().filter_map(|(name, n)| Some((*name, constant(n)?))))
        .collect();
    let is = |name: &str, wanted: f32| {
        let found = constants.get(name).and_then(|t| floats(t).ok());
        found.is_some_and(|t| matches!(*t.data, [x] if (x - wanted).abs() < 1e-5))
    };
    // The two inputs of the node of that type which makes a value that has no other reader.
    let inner = |name: &str, kind: &str| {
        let node =
            makers.get(name).filter(|n| n.op_type.as_deref() == Some(kind) && uses.get(name) == Some(&1))?;
        Some((node.input.first()?.as_str(), node.input.get(1).map_or("", String::as_str)))
    };
    let mut found = Gelus::default();
    for node in file.node.iter().filter(|n| n.op_type.as_deref() == Some("Mul")) {
        let (Some(output), [a, b]) = (node.output.first(), node.input.as_slice()) else { continue };
        for (product, half) in [(a, b), (b, a)] {
            let Some((product_name, _)) = makers.get_key_value(product.as_str()).filter(|_| is(half, 0.5))
            else {
                continue;
            };
            let Some(factors) = inner(product_name, "Mul") else { continue };
            for (x, sum) in either(factors) {
                let read = || {
                    let (erf, _) = either(inner(sum, "Add")?).into_iter().find(|(_, one)| is(one, 1.0))?;
                    let (scaled, _) = inner(erf, "Erf")?;
                    let divided = inner(scaled, "Div").filter(|(_, root)| is(root, std::f32::consts::SQRT_2));
                    let (own, _) = divided.or_else(|| {
                        let factors = either(inner(scaled, "Mul")?);
                        factors.into_iter().find(|(_, f)| is(f, std::f32::consts::FRAC_1_SQRT_2))
                    })?;
                    (own == x).then_some([*product_name, sum, erf, scaled])
                };
                if let Some(parts) = read() {
                    found.products.insert(output, x);
                    found.inside.extend(parts);
                }
            }
        }
    }
    found
}

fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name))
}

/// An integer attribute; one that lacks both value and type counts as absent.
fn int(node: &NodeProto, name: &str) -> Option<i64> {
    let found = attribute(node, name)?;
    // A writer of protocol buffers 3 leaves out a zero.
    found.i.or((found.r#type == Some(attribute_type::INT)).then_some(0))
}

/// What a Constant node holds, if it is a tensor.
fn constant(node: &NodeProto) -> Option<&TensorProto> {
    attribute(node, "value")?.t.as_ref()
}

/// A list attribute of `count` sizes.
fn sizes(node: &NodeProto, name: &str, count: usize) -> std::result::Result<Option<Vec<usize>>, Obstacle> {
    let Some(found) = attribute(node, name) else { return Ok(None) };
    if found.ints.len() != count {
        return Err(Obstacle::Detail(format!("{name} {:?}, only {count} of them", found.ints)));
    }
    found.ints.iter().map(|&v| size(v)).collect::<std::result::Result<_, _>>().map(Some)
}

/// The windows of a pooling.
fn window(node: &NodeProto) -> std::result::Result<Window, Obstacle> {
    let wrong = |reason: &str| Err(Obstacle::Detail(reason.into()));
    let Some(kernel) = sizes(node, "kernel_shape", 2)? else { return wrong("without kernel_shape") };
    let auto_pad = attribute(node, "auto_pad").and_then(|a| a.s.as_deref()).unwrap_or(b"NOTSET");
    let pads = sizes(node, "pads", 4)?.unwrap_or_else(|| vec![0; 4]);
    let symmetric = pads[..2] == pads[2..];
    match auto_pad {
        b"NOTSET" | b"VALID" if !symmetric => return wrong("padding that is not the same on both sides"),
        b"NOTSET" => {}
        b"VALID" if pads == [0; 4] => {}
        other => return wrong(&format!("auto_pad {}", String::from_utf8_lossy(other))),
    }
    if sizes(node, "dilations", 2)?.is_some_and(|d| d != [1, 1]) {
        return wrong("dilated");
    }
    let stride = sizes(node, "strides", 2)?.unwrap_or_else(|| vec![1, 1]);
    Ok(Window {
        kernel: [kernel[0], kernel[1]],
        stride: [stride[0], stride[1]],
        padding: [pads[0], pads[1]],
        ceil_mode: int(node, "ceil_mode").unwrap_or(0) != 0,
    })
}

fn size(value: i64) -> std::result::Result<usize, Obstacle> {
    let found = usize::try_from(value).ok().filter(|v| *v <= LARGEST);
    found.ok_or_else(|| Obstacle::Detail(format!("a size of {value}")))
}

fn is_hard_sigmoid(node: &NodeProto) -> bool {
    let number = |name: &str, default: f32| attribute(node, name).and_then(|a| a.f).unwrap_or(default);
    (number("alpha", 0.2) - 1.0 / 6.0).abs() < 1e-6 && number("beta", 0.5) == 0.5
}
