//! From ONNX nodes to lana's operations.
//!
//! The nodes are gone through once, in their order. What depends on nothing but constants is computed at once
//! ([`fold`]): so end the computations with shapes, by which exporters say what sizes they do not want to write down. What
//! depends on the image becomes operations of lana ([`conv`], [`elementwise`], [`matrix`], [`norm`], [`pieces`],
//! [`shapes`]), value by value ([`held`] says what a value is meanwhile). In the end operations that are one together, as
//! other tools spell out what lana has a word for, are made one ([`simplify`], [`turning`]).
//!
//! A file may hold anything: sizes are bounded before they are multiplied, [`Importer::charge`] bounds the memory and the time that
//! few bytes of a file can ask for, and [`names`] makes of its names such as may stand anywhere.

mod array;
mod conv;
mod elementwise;
mod fold;
mod held;
mod kinds;
mod matrix;
mod names;
mod node;
mod norm;
mod pieces;
mod report;
mod shapes;
mod simplify;
mod turning;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::rc::Rc;

use lana_graph::{Graph, Node, Op, Shape, Tensor, Value, Weights};
use prost::Message;

use crate::external::Files;
use crate::lower::lower;
use crate::proto::{DimensionProto, GraphProto, ModelProto, NodeProto, TensorProto, data_type};
use crate::tensor::{floats, integers};
use crate::text::{beginning, listed, shown};
use crate::{Error, METADATA_KEY, Result};
use array::{Array, Data, MOST_DIMENSIONS, room};
use held::{ANY_BATCH, Batch, Held, Known};
use names::{Names, path, scope};
use node::{LARGEST, Obstacle, Read, attribute, obstacle};
use report::Report;

/// Elements beside those of the file that constants, parameters and positions may take: 256 MiB as floats.
const SPARE_ELEMENTS: usize = 1 << 26;

/// How often the weights of the file may be copied or computed with, one step after the other; integers, of which a byte may be one,
/// less often.
const MOST_STEPS: usize = 24;

/// Why no more is computed.
const FAR_MORE: &str = "takes far more memory than the file";

/// The operator sets whose rules are known: before 7, Add and Mul had their own rule of broadcasting, BatchNormalization other
/// attributes. After 22 the types that are read here changed in the formats of numbers alone, up to 27 (ONNX 1.22).
const OPERATOR_SETS: std::ops::RangeInclusive<i64> = 7..=27;

/// Reads an ONNX file, with the files beside it that hold its tensors, if there are any; errors name it.
pub fn import_file(path: &Path) -> Result<(Graph, Weights)> {
    let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
    read(&bytes, path.parent())
        .map_err(|source| Error::InFile { path: path.to_path_buf(), source: Box::new(source) })
}

/// Reads the bytes of an ONNX file.
///
/// What [`crate::export()`] wrote comes back exactly, layers and names included. Other models come back without layers;
/// their nodes are named after their weights where they have any. Names are components of letters, digits, `_` and `-` with dots
/// between them, whatever the file has, and no longer than 120 bytes; an exported network with others comes back as any model.
///
/// # Errors
/// If the bytes are no ONNX model, or one with nodes that lana has no operation for: the message lists all types. If tensors
/// lie in other files: only [`import_file`] knows where those are.
pub fn import(bytes: &[u8]) -> Result<(Graph, Weights)> {
    read(bytes, None)
}

/// As [`import`]; other files with tensors lie in `folder`.
fn read(bytes: &[u8], folder: Option<&Path>) -> Result<(Graph, Weights)> {
    let model = ModelProto::decode(bytes).map_err(|e| Error::NotOnnx(e.to_string()))?;
    let Some(graph) = &model.graph else {
        return Err(Error::NotOnnx("it holds no network".into()));
    };
    let opset = opset(&model)?;
    if let Some(known) = own_graph(&model, graph, folder) {
        return Ok(known);
    }
    Importer::new(graph, opset, folder)?.run()
}

/// Version of ONNX's own operator set.
fn opset(model: &ModelProto) -> Result<i64> {
    let own = |domain: &Option<String>| matches!(domain.as_deref(), None | Some("" | "ai.onnx"));
    let version = model.opset_import.iter().find(|o| own(&o.domain)).and_then(|o| o.version);
    let (oldest, newest) = OPERATOR_SETS.into_inner();
    match version {
        None => Err(Error::NotOnnx("it does not name its operator set".into())),
        Some(old) if old < oldest => Err(Error::Model(format!(
            "the model uses operator set {old}; convert it to 17 with onnx.version_converter first"
        ))),
        Some(new) if new > newest => Err(Error::Model(format!(
            "the model uses operator set {new}, of which lana knows {oldest} to {newest}; export it with an older one \
             (opset_version=17 in torch.onnx.export)"
        ))),
        Some(version) => Ok(version),
    }
}

/// The network from the metadata, if it is the very network that the nodes say.
fn own_graph(model: &ModelProto, file: &GraphProto, folder: Option<&Path>) -> Option<(Graph, Weights)> {
    let entry = model.metadata_props.iter().find(|e| e.key.as_deref() == Some(METADATA_KEY))?;
    let graph: Graph = serde_json::from_str(entry.value.as_deref()?).ok()?;
    // Whoever changes a file can change what it says of itself.
    if !names::are_safe(&graph) {
        return None;
    }
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
    let (mut weights, mut files) = (Weights::new(), Files::of(folder));
    for (name, tensor) in tensors {
        weights.insert(name, floats(tensor, &mut files).ok()?);
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

/// Whether the model holds its images by rows, columns, channels, as TensorFlow does: before anything mixes pixels or channels, it
/// turns them. Keras puts preprocessing and padding in front of that.
fn channels_last(file: &GraphProto, input: &str) -> bool {
    let mut readers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
    for node in &file.node {
        node.input.iter().for_each(|name| readers.entry(name).or_default().push(node));
    }
    let mut name = input;
    // What has been followed is taken away: a model that runs in a circle ends too.
    while let Some([reader]) = readers.remove(name).as_deref() {
        match (reader.op_type.as_deref(), reader.output.as_slice()) {
            (Some("Transpose"), _) => return node::ints(reader, "perm") == Some(&[0, 3, 1, 2]),
            (Some("Add" | "Cast" | "Div" | "Identity" | "Mul" | "Pad" | "Slice" | "Sub"), [output]) => {
                name = output;
            }
            _ => return false,
        }
    }
    false
}

struct Importer<'a> {
    file: &'a GraphProto,
    files: Files<'a>,
    opset: i64,
    /// The node that is being read.
    at: usize,
    initialisers: HashMap<&'a str, &'a TensorProto>,
    known: HashMap<&'a str, Known>,
    shapes: Vec<Shape>,
    nodes: Vec<Node>,
    weights: Weights,
    names: Names,
    input: Shape,
    /// Images in a batch: what the file says, or [`ANY_BATCH`].
    batch: i64,
    /// Elements that may still be made of constants.
    spare: usize,
}

impl<'a> Importer<'a> {
    fn new(file: &'a GraphProto, opset: i64, folder: Option<&'a Path>) -> Result<Self> {
        let mut initialisers = HashMap::new();
        for tensor in &file.initializer {
            initialisers.insert(tensor.name.as_deref().unwrap_or_default(), tensor);
        }
        // Old files list their initialisers among the inputs.
        let inputs: Vec<_> = file
            .input
            .iter()
            .filter(|i| !initialisers.contains_key(i.name.as_deref().unwrap_or_default()))
            .collect();
        let [input] = *inputs else {
            let names = inputs.iter().map(|i| format!("`{}`", shown(i.name.as_deref().unwrap_or_default())));
            return Err(Error::Model(match inputs.len() {
                0 => "the model takes no input; export it again with the image as its input".into(),
                count => format!(
                    "the model takes {count} inputs ({}), lana's networks take one image; export a module whose forward takes \
                     the image alone",
                    beginning(names, count, 6)
                ),
            }));
        };
        let name = input.name.as_deref().unwrap_or_default();
        let wrong = |reason: &str| Err(Error::Model(format!("the model's input `{}` {reason}", shown(name))));
        let Some(tensor) = input.r#type.as_ref().and_then(|t| t.tensor_type.as_ref()) else {
            return wrong("has no tensor type");
        };
        if tensor.elem_type != Some(data_type::FLOAT) {
            return wrong(match tensor.elem_type {
                Some(data_type::FLOAT16 | data_type::BFLOAT16) => {
                    "holds 16-bit floats, not 32-bit ones; export the network in 32 bits (model.float() in PyTorch)"
                }
                Some(data_type::DOUBLE) => {
                    "holds 64-bit floats, not 32-bit ones; export the network in 32 bits (model.float() in PyTorch)"
                }
                _ => {
                    "does not hold 32-bit floats; export the network from where pixels are such on, and say by `--value-range` what \
                     they lie between"
                }
            });
        }
        let dims = tensor.shape.as_ref().map(|s| s.dim.as_slice()).unwrap_or_default();
        let batch = match dims.first().and_then(|d| d.dim_value).unwrap_or(0) {
            ..=0 => ANY_BATCH,
            batch => batch,
        };
        let Some(shape) = image_shape(dims).filter(|_| batch == ANY_BATCH || batch <= LARGEST as i64) else {
            return wrong(
                "is no batch of images of known size; export the model with fixed channels, height and width",
            );
        };
        let mut importer = Importer {
            file,
            files: Files::of(folder),
            opset,
            at: 0,
            known: HashMap::new(),
            shapes: vec![shape.clone()],
            nodes: Vec::new(),
            weights: Weights::new(),
            names: Names::default(),
            input: shape.clone(),
            batch,
            spare: SPARE_ELEMENTS,
            initialisers,
        };
        let held = |shape: &Shape| Held {
            value: Value::INPUT,
            dims: [&[1], shape.dims()].concat(),
            batch: Some(Batch { dim: 0, before: 1 }),
            made: Rc::from(""),
        };
        let mut first = held(&shape);
        if let Some((height, width, channels)) = shape.as_image().filter(|_| channels_last(file, name)) {
            // The network takes them by channels, and turns them as the model wants them; which the model's own turning undoes.
            let own = Shape::image(channels, height, width);
            (importer.shapes, importer.input) = (vec![own.clone()], own);
            let turned = Op::Transpose { order: vec![1, 2, 0] };
            first.value = importer.named("channels_last", turned, vec![Value::INPUT]).map_err(|_| {
                Error::Model(format!(
                    "the model's input `{}` is no batch of images of known size",
                    shown(name)
                ))
            })?;
        }
        importer.known.insert(name, Known::Value(first));
        Ok(importer)
    }

    fn run(mut self) -> Result<(Graph, Weights)> {
        let [output] = self.file.output.as_slice() else {
            let outputs = &self.file.output;
            let names = outputs.iter().map(|o| format!("`{}`", shown(o.name.as_deref().unwrap_or_default())));
            return Err(Error::Model(match outputs.len() {
                0 => "the model gives no output; export it again".into(),
                count => format!(
                    "the model gives {count} outputs ({}), lana's networks give one; export a module whose forward returns the \
                     logits alone",
                    beginning(names, count, 6)
                ),
            }));
        };
        let output = output.name.as_deref().unwrap_or_default();
        let needed = self.needed(output)?;
        let last: HashMap<&str, usize> = (self.file.node.iter().enumerate().filter(|(at, _)| needed[*at]))
            .flat_map(|(at, node)| node.input.iter().map(move |name| (name.as_str(), at)))
            .collect();
        let mut report = Report::default();
        for (at, node) in self.file.node.iter().enumerate() {
            if !needed[at] {
                continue;
            }
            self.at = at;
            let of_image = self.is_of_image(node);
            let results = self.node(node, of_image).unwrap_or_else(|obstacle| {
                let kind = node.op_type.as_deref().unwrap_or_default();
                match node.domain.as_deref() {
                    None | Some("" | "ai.onnx") => report.add(&self.here(), kind, obstacle),
                    Some(domain) => report.add(&self.here(), &format!("{domain}.{kind}"), obstacle),
                }
                Vec::new()
            });
            let mut results = results.into_iter();
            for name in node.output.iter().filter(|name| last.contains_key(name.as_str()) || *name == output)
            {
                self.known.insert(name, results.next().unwrap_or(Known::Unknown { of_image }));
            }
            // What nobody reads any more takes no memory.
            for name in node.input.iter().filter(|name| last[name.as_str()] == at && *name != output) {
                self.known.remove(name.as_str());
            }
        }
        if let Some(error) = report.error() {
            return Err(error);
        }
        let held = match self.lookup(output) {
            Ok(Known::Value(held)) => held,
            _ => {
                let output = shown(output);
                return Err(Error::NotOnnx(format!("no node makes its output `{output}` from the image")));
            }
        };
        let value = self.settle(output, &held).map_err(|reason| match reason {
            Obstacle::Detail(reason) => {
                Error::Model(format!("the model's output `{}`: {reason}", shown(output)))
            }
            _ => Error::NotOnnx(format!("its output `{}` is unknown", shown(output))),
        })?;
        let title = Names::default().unique(self.file.name.as_deref().unwrap_or_default(), "imported");
        let draft = simplify::Draft::new(self.nodes, self.shapes, self.weights, value);
        let simplify::Draft { nodes, weights, output, .. } = draft.simplified();
        let graph = Graph::new(title, self.input, nodes, output, Vec::new())?;
        weights.check(&graph)?;
        Ok((graph, weights))
    }

    /// For each node whether the output depends on it.
    fn needed(&self, output: &str) -> Result<Vec<bool>> {
        let inputs: HashSet<&str> = self.file.input.iter().filter_map(|i| i.name.as_deref()).collect();
        let given = |name: &str| inputs.contains(name) || self.initialisers.contains_key(name);
        let mut makers: HashMap<&str, usize> = HashMap::new();
        for (at, node) in self.file.node.iter().enumerate() {
            for name in node.output.iter().filter(|name| !name.is_empty()) {
                if makers.insert(name, at).is_some() || given(name) {
                    return Err(Error::NotOnnx(format!("its value `{}` is made twice", shown(name))));
                }
            }
        }
        let mut needed = vec![false; self.file.node.len()];
        let mut open: Vec<usize> = makers.get(output).copied().into_iter().collect();
        while let Some(at) = open.pop() {
            if !std::mem::replace(&mut needed[at], true) {
                open.extend(self.file.node[at].input.iter().filter_map(|name| makers.get(name.as_str())));
            }
        }
        Ok(needed)
    }

    /// Whether what a node gives may differ from image to image. Sizes do not: those that do are no numbers.
    fn is_of_image(&self, node: &NodeProto) -> bool {
        let of_image = |name: &String| {
            matches!(self.known.get(name.as_str()), Some(Known::Value(_) | Known::Unknown { of_image: true }))
        };
        !matches!(node.op_type.as_deref(), Some("Shape" | "Size")) && node.input.iter().any(of_image)
    }

    /// What a node gives; `of_image` says whether it is the same for all images.
    fn node(&mut self, node: &'a NodeProto, of_image: bool) -> Read<Vec<Known>> {
        if !matches!(node.domain.as_deref(), None | Some("" | "ai.onnx")) {
            return Err(Obstacle::Type);
        }
        // Also where it reads something unknown: all that cannot be read is reported at once.
        let kind = node.op_type.as_deref().unwrap_or_default();
        if !kinds::is_known(kind) {
            return Err(Obstacle::Type);
        }
        let mut inputs: Vec<Option<Known>> = Vec::with_capacity(node.input.len());
        let mut is_upstream = false;
        for name in &node.input {
            if name.is_empty() {
                inputs.push(None);
                continue;
            }
            match self.lookup(name) {
                Err(Obstacle::Upstream) => is_upstream = true,
                found => inputs.push(Some(found?)),
            }
        }
        if is_upstream {
            if of_image {
                kinds::check(node, kind)?;
            }
            return Err(Obstacle::Upstream);
        }
        if let Some(constants) = self.folded(node, &inputs)? {
            return Ok(constants.into_iter().map(|array| Known::Constant(Rc::new(array))).collect());
        }
        let counts = |known: &Known| matches!(known, Known::Constant(array) if array.step != 0);
        if inputs.iter().flatten().any(counts) && kind != "Gather" {
            return obstacle("computes with the number of an image in its batch");
        }
        kinds::check(node, kind)?;
        let held = match kind {
            "Identity" | "Dropout" => {
                return inputs
                    .into_iter()
                    .next()
                    .flatten()
                    .map(|known| vec![known])
                    .ok_or(Obstacle::Upstream);
            }
            "Split" => return Ok(self.split(node)?.into_iter().map(Known::Value).collect()),
            "Conv" => self.conv(node),
            "MaxPool" | "AveragePool" => self.pool(node, kind == "MaxPool"),
            "GlobalMaxPool" => self.global_max_pool(),
            "GlobalAveragePool" => self.global_average_pool(),
            "Resize" => self.resize(node),
            "Gemm" => self.gemm(node),
            "MatMul" => self.mat_mul(),
            "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" | "Sum" => self.arithmetic(kind),
            "BatchNormalization" => self.batch_norm(node),
            "LayerNormalization" => self.layer_norm(node),
            "InstanceNormalization" => self.instance_norm(node),
            "GroupNormalization" => self.group_norm(node),
            "Softmax" => self.softmax(node, false),
            "LogSoftmax" => self.softmax(node, true),
            "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceL2" | "ReduceSumSquare" => {
                self.reduce(node, kind)
            }
            "Reshape" => self.reshape(node),
            "Flatten" => self.flatten(node),
            "Squeeze" | "Unsqueeze" => self.squeeze(node, kind == "Squeeze"),
            "Transpose" => self.transpose(node),
            "Expand" => self.expand(),
            "Tile" => self.tile(),
            "DepthToSpace" => self.depth_to_space(node),
            "SpaceToDepth" => self.space_to_depth(node),
            "Gather" => self.gather(node),
            "Slice" => self.slice(node),
            "Concat" => self.concat(node),
            "Pad" => self.pad(node),
            _ => self.activation(node, kind),
        };
        Ok(vec![Known::Value(held?)])
    }

    /// The name of the node that is being read.
    fn here(&self) -> Rc<str> {
        let node = &self.file.node[self.at];
        let named = node.name.as_deref().filter(|name| !name.is_empty());
        Rc::from(named.or(node.output.first().map(String::as_str)).unwrap_or_default())
    }

    fn lookup(&mut self, name: &str) -> Read<Known> {
        match self.known.get(name) {
            Some(Known::Unknown { .. }) => return Err(Obstacle::Upstream),
            Some(known) => return Ok(known.clone()),
            None => {}
        }
        let Some((&name, &tensor)) = self.initialisers.get_key_value(name) else {
            return Err(Obstacle::Lost(name.to_string()));
        };
        let mut array = match self.held_in_file(tensor) {
            Ok(array) => array,
            Err(reason) => {
                // Said once, however many nodes read it.
                self.known.insert(name, Known::Unknown { of_image: false });
                return Err(Obstacle::Tensor { name: name.to_string(), reason });
            }
        };
        array.origin = Some(name.to_string());
        let known = Known::Constant(Rc::new(array));
        self.known.insert(name, known.clone());
        Ok(known)
    }

    /// The elements of a tensor of the file, which give reason for as many computations with them.
    fn held_in_file(&mut self, tensor: &TensorProto) -> std::result::Result<Array, String> {
        let again = self.files.again();
        let array = self.decoded(tensor)?;
        if self.files.again() > again {
            // Others have given reason for these.
            self.charge(array.len()).map_err(|_| FAR_MORE.to_string())?;
        } else {
            // What constants are turned into step by step takes as much again each time.
            let steps = if matches!(array.data, Data::Floats(_)) { MOST_STEPS } else { 4 };
            self.spare = self.spare.saturating_add(array.len().saturating_mul(steps));
        }
        Ok(array)
    }

    /// The elements of a tensor of the file.
    fn decoded(&mut self, tensor: &TensorProto) -> std::result::Result<Array, String> {
        if tensor.dims.len() > MOST_DIMENSIONS {
            return Err(format!("{} dimensions, only {MOST_DIMENSIONS}", tensor.dims.len()));
        }
        let array = match tensor.data_type.unwrap_or_default() {
            data_type::FLOAT | data_type::DOUBLE | data_type::FLOAT16 | data_type::BFLOAT16 => {
                let Tensor { shape, data } = floats(tensor, &mut self.files)?;
                Array::floats(shape, data)
            }
            _ => {
                let (dims, data) = integers(tensor, &mut self.files)?;
                Array::integers(dims, data)
            }
        };
        // One without elements may have any other dimensions, by which work is counted.
        match room(&array.dims) {
            Some(room) if room <= array.len().max(LARGEST) => Ok(array),
            _ => Err(format!("impossible dimensions {}", listed(&tensor.dims))),
        }
    }

    /// Takes memory for so many elements from what may be taken.
    fn charge(&mut self, elements: usize) -> Read<()> {
        match self.spare.checked_sub(elements) {
            Some(left) => {
                self.spare = left;
                Ok(())
            }
            None => obstacle(FAR_MORE),
        }
    }

    /// Input number `at` of the node, if it has one.
    fn input(&mut self, at: usize) -> Read<Option<Known>> {
        let name = self.file.node[self.at].input.get(at).map(String::as_str).unwrap_or_default();
        if name.is_empty() { Ok(None) } else { self.lookup(name).map(Some) }
    }

    /// The value that is input number `at`, by whatever dimensions the network has for it.
    fn loose(&mut self, at: usize) -> Read<Held> {
        match self.input(at)? {
            Some(Known::Value(held)) => Ok(held),
            Some(_) => obstacle(format!("input {at} is a constant")),
            None => obstacle(format!("lacks input {at}")),
        }
    }

    /// The value that is input number `at`, by lana's own dimensions.
    fn value(&mut self, at: usize) -> Read<Held> {
        let held = self.loose(at)?;
        let name = self.file.node[self.at].input[at].as_str();
        self.settle(name, &held)?;
        self.loose(at)
    }

    /// Makes the dimensions of the value `name` lana's own: from here on it is the result of an operation.
    fn settle(&mut self, name: &str, held: &Held) -> Read<Value> {
        let dims = self.own_dims(held);
        if dims == self.shapes[held.value.index()].dims() {
            return Ok(held.value);
        }
        let made = path(if held.made.is_empty() { name } else { &held.made }, None);
        let value = self.named(&made, Op::Reshape { shape: dims }, vec![held.value])?;
        if let Some(Known::Value(known)) = self.known.get_mut(name) {
            known.value = value;
        }
        Ok(value)
    }

    /// The value by these dimensions of lana's, whatever it has.
    fn shaped(&mut self, held: &Held, dims: &[usize]) -> Read<Value> {
        match self.shapes[held.value.index()].dims() == dims {
            true => Ok(held.value),
            false => self.emit("dims", Op::Reshape { shape: dims.to_vec() }, &[held.value]),
        }
    }

    /// The constant that is input number `at`; none if the node does without.
    fn constant(&mut self, at: usize) -> Read<Option<Rc<Array>>> {
        match self.input(at)? {
            None => Ok(None),
            Some(Known::Constant(array)) => Ok(Some(array)),
            Some(_) => obstacle(format!("input {at} is not constant")),
        }
    }

    /// The parameter that is input number `at`, of which a copy is about to be made.
    fn parameter(&mut self, at: usize) -> Read<Rc<Array>> {
        match self.constant(at)? {
            Some(array) => match array.data {
                Data::Floats(_) => {
                    self.charge(array.len())?;
                    Ok(array)
                }
                Data::Integers(_) => obstacle(format!("input {at} holds integers, no weights")),
            },
            None => obstacle(format!("lacks input {at}")),
        }
    }

    /// A list of integers that newer operator sets give as input number `at`, older ones as an attribute.
    fn list(&mut self, node: &NodeProto, at: usize, name: &str) -> Read<Option<Vec<i64>>> {
        match self.constant(at)? {
            Some(array) => {
                self.charge(array.len())?;
                Ok(Some(array.as_integers()?.to_vec()))
            }
            None => Ok(attribute(node, name).map(|a| a.ints.clone())),
        }
    }

    /// A number that newer operator sets give as input number `at`, older ones as an attribute.
    fn number(&mut self, node: &NodeProto, at: usize, name: &str) -> Read<Option<f32>> {
        match self.constant(at)? {
            Some(array) => match array.as_number() {
                Some(number) => Ok(Some(number)),
                None => obstacle(format!("{name} of {} numbers", array.len())),
            },
            None => Ok(node::float(node, name)),
        }
    }

    /// Adds an operation; `part` is what it is to the node that is being read, or nothing if it is all of it.
    fn emit(&mut self, part: &str, op: Op, inputs: &[Value]) -> Read<Value> {
        self.emit_with(part, op, inputs, Vec::new(), None)
    }

    /// As [`Importer::emit`], with the values of the operation's parameters. It is named after the initialiser `origin` that
    /// the first of them came from.
    fn emit_with(
        &mut self,
        part: &str,
        op: Op,
        inputs: &[Value],
        parameters: Vec<(&'static str, Tensor)>,
        origin: Option<&str>,
    ) -> Read<Value> {
        let node = &self.file.node[self.at];
        let own = node.name.as_deref().filter(|n| !n.is_empty());
        let kind = node.op_type.as_deref().filter(|_| !parameters.is_empty());
        let base = scope(node, !parameters.is_empty())
            .or_else(|| own.map(|own| path(own, kind)))
            .unwrap_or_else(|| format!("{}_{}", op.kind(), self.at));
        // Exporters keep equal tensors once: then the name says whose they are for the first that reads them only.
        let is_free = |name: &String| !name.is_empty() && !self.names.has(name);
        let from_weight = origin.and_then(|o| o.strip_suffix(".weight")).map(names::safe).filter(is_free);
        let name = match (from_weight, part) {
            (Some(name), _) => name,
            (None, "") => base,
            (None, part) => format!("{base}.{part}"),
        };
        let shapes: Vec<&Shape> = inputs.iter().map(|v| &self.shapes[v.index()]).collect();
        op.infer(&shapes)?;
        let wanted = op.parameters(&shapes);
        for ((suffix, want, _), (_, tensor)) in wanted.iter().zip(&parameters) {
            if *want != tensor.shape {
                return obstacle(format!("{suffix} of shape {:?}, not {want:?}", tensor.shape));
            }
        }
        self.charge(parameters.iter().map(|(_, tensor)| tensor.data.len()).sum())?;
        let value = self.named(&name, op, inputs.to_vec())?;
        let name = self.nodes[self.nodes.len() - 1].name.clone();
        for (suffix, tensor) in parameters {
            self.weights.insert(format!("{name}.{suffix}"), tensor);
        }
        Ok(value)
    }

    fn named(&mut self, name: &str, op: Op, inputs: Vec<Value>) -> Read<Value> {
        let shapes: Vec<&Shape> = inputs.iter().map(|v| &self.shapes[v.index()]).collect();
        let shape = op.infer(&shapes)?;
        if shape.dims().iter().any(|&d| d == 0 || d > LARGEST.pow(2)) {
            return obstacle(format!("result of size {shape}"));
        }
        if let Op::Select { indices, .. } = &op {
            self.charge(indices.len())?;
        }
        let name = self.names.unique(name, op.kind());
        self.shapes.push(shape);
        self.nodes.push(Node { name, op, inputs });
        Ok(Value::of_node(self.nodes.len() - 1))
    }

    /// The shape of a value of the network.
    fn shape(&self, value: Value) -> &Shape {
        &self.shapes[value.index()]
    }

    /// The feature map that is input number `at`.
    fn image(&mut self, at: usize) -> Read<Held> {
        let held = self.value(at)?;
        let is_map = held.dims.len() == 4 && self.left_out(&held) == Some(0);
        match is_map {
            true => Ok(held),
            false => obstacle(format!("of {}, no batch of feature maps", self.shown(&held))),
        }
    }
}
