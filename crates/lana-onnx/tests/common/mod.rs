//! Models written node by node, as other tools than lana write them.
// Each test binary uses a part.
#![allow(dead_code, unreachable_pub)]

use lana_onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type, data_type,
};
use prost::Message;

/// A model in the making. The output is what the last node gives.
#[derive(Clone)]
pub struct Model {
    pub opset: i64,
    /// Of the input `x`; a first 0 is a batch of any size.
    pub input: Vec<i64>,
    pub nodes: Vec<NodeProto>,
    pub initialisers: Vec<TensorProto>,
}

impl Model {
    pub fn new(opset: i64, input: &[i64]) -> Self {
        Model { opset, input: input.to_vec(), nodes: Vec::new(), initialisers: Vec::new() }
    }

    /// Adds a node that gives the value of its name.
    pub fn node(mut self, name: &str, kind: &str, inputs: &[&str], attributes: &[AttributeProto]) -> Self {
        self.nodes.push(NodeProto {
            input: inputs.iter().map(|i| i.to_string()).collect(),
            output: vec![name.to_string()],
            name: Some(name.to_string()),
            op_type: Some(kind.to_string()),
            attribute: attributes.to_vec(),
            ..NodeProto::default()
        });
        self
    }

    /// Gives the last node these outputs.
    pub fn outputs(mut self, names: &[&str]) -> Self {
        if let Some(node) = self.nodes.last_mut() {
            node.output = names.iter().map(|name| name.to_string()).collect();
        }
        self
    }

    /// Adds weights, no two of which are alike.
    pub fn floats(self, name: &str, dims: &[i64]) -> Self {
        let count: i64 = dims.iter().product();
        let data: Vec<f32> = (0..count).map(|i| ((i * 37 % 101) as f32 - 50.0) / 64.0 + 1e-3).collect();
        self.numbers(name, dims, &data)
    }

    pub fn numbers(mut self, name: &str, dims: &[i64], data: &[f32]) -> Self {
        self.initialisers.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type::FLOAT),
            name: Some(name.to_string()),
            raw_data: Some(data.iter().flat_map(|x| x.to_le_bytes()).collect()),
            ..TensorProto::default()
        });
        self
    }

    pub fn integers(mut self, name: &str, dims: &[i64], data: &[i64]) -> Self {
        self.initialisers.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type::INT64),
            name: Some(name.to_string()),
            int64_data: data.to_vec(),
            ..TensorProto::default()
        });
        self
    }

    pub fn proto(&self) -> ModelProto {
        let dim = |&size: &i64| match size {
            0 => DimensionProto { dim_value: None, dim_param: Some("batch".into()) },
            size => DimensionProto { dim_value: Some(size), dim_param: None },
        };
        let shape = TensorShapeProto { dim: self.input.iter().map(dim).collect() };
        let tensor = TensorTypeProto { elem_type: Some(data_type::FLOAT), shape: Some(shape) };
        let input =
            ValueInfoProto { name: Some("x".into()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) };
        let last = self.nodes.last().and_then(|node| node.output.first().cloned());
        ModelProto {
            ir_version: Some(8),
            graph: Some(GraphProto {
                node: self.nodes.clone(),
                name: Some("model".into()),
                initializer: self.initialisers.clone(),
                input: vec![input],
                output: vec![ValueInfoProto { name: last, r#type: None }],
            }),
            opset_import: vec![OperatorSetIdProto { domain: None, version: Some(self.opset) }],
            ..ModelProto::default()
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.proto().encode_to_vec()
    }

    /// What lana makes of it: each operation by its kind, and the shape of what the network gives.
    pub fn read(&self) -> (Vec<&'static str>, Vec<usize>) {
        let (graph, _) = self.graph();
        (graph.nodes().iter().map(|n| n.op.kind()).collect(), graph.output_shape().dims().to_vec())
    }

    pub fn graph(&self) -> (lana_graph::Graph, lana_graph::Weights) {
        match lana_onnx::import(&self.bytes()) {
            Ok(read) => read,
            Err(error) => panic!("{error}"),
        }
    }

    /// What the importer says against it.
    pub fn refusal(&self) -> String {
        match lana_onnx::import(&self.bytes()) {
            Ok((graph, _)) => panic!("it was read: {graph:?}"),
            Err(error) => error.to_string(),
        }
    }
}

fn attribute(name: &str, kind: i32) -> AttributeProto {
    AttributeProto { name: Some(name.into()), r#type: Some(kind), ..AttributeProto::default() }
}

pub fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto { i: Some(value), ..attribute(name, attribute_type::INT) }
}

pub fn ints(name: &str, values: &[i64]) -> AttributeProto {
    AttributeProto { ints: values.to_vec(), ..attribute(name, attribute_type::INTS) }
}

pub fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto { f: Some(value), ..attribute(name, attribute_type::FLOAT) }
}

pub fn word(name: &str, value: &str) -> AttributeProto {
    AttributeProto { s: Some(value.into()), ..attribute(name, attribute_type::STRING) }
}

/// A small network with what exporters write: shapes that are computed, attention with the batch in the middle, a class token,
/// activations and normalisation spelt out.
pub fn foreign() -> Model {
    Model::new(13, &[0, 3, 8, 8])
        .floats("conv.weight", &[4, 3, 3, 3])
        .floats("conv.bias", &[4])
        .node("conv", "Conv", &["x", "conv.weight", "conv.bias"], &[ints("pads", &[1, 1, 1, 1])])
        .node("sigmoid", "Sigmoid", &["conv"], &[])
        .node("silu", "Mul", &["conv", "sigmoid"], &[])
        .node("pool", "AveragePool", &["silu"], &[ints("kernel_shape", &[2, 2]), ints("strides", &[2, 2])])
        // x.flatten(2).transpose(1, 2), by computed dimensions.
        .node("shape", "Shape", &["pool"], &[])
        .integers("zero", &[], &[0])
        .node("n", "Gather", &["shape", "zero"], &[int("axis", 0)])
        .integers("first", &[1], &[0])
        .node("n1", "Unsqueeze", &["n", "first"], &[])
        .integers("rest", &[2], &[4, -1])
        .node("dims", "Concat", &["n1", "rest"], &[int("axis", 0)])
        .node("rows", "Reshape", &["pool", "dims"], &[])
        .node("tokens", "Transpose", &["rows"], &[ints("perm", &[0, 2, 1])])
        // A class token for each image.
        .floats("cls", &[1, 1, 4])
        .integers("cls_rest", &[2], &[1, 4])
        .node("cls_dims", "Concat", &["n1", "cls_rest"], &[int("axis", 0)])
        .node("cls_all", "Expand", &["cls", "cls_dims"], &[])
        .node("joined", "Concat", &["cls_all", "tokens"], &[int("axis", 1)])
        .floats("positions", &[1, 17, 4])
        .node("placed", "Add", &["joined", "positions"], &[])
        // Tokens, batch, features; then heads beside the batch, and back.
        .node("turned", "Transpose", &["placed"], &[ints("perm", &[1, 0, 2])])
        .floats("q.matrix", &[4, 4])
        .floats("q.bias", &[4])
        .node("q_product", "MatMul", &["turned", "q.matrix"], &[])
        .node("q", "Add", &["q.bias", "q_product"], &[])
        .integers("two", &[1], &[2])
        .node("n_heads", "Mul", &["n1", "two"], &[])
        .integers("seventeen", &[1], &[17])
        .node("head_dims", "Concat", &["seventeen", "n_heads", "two"], &[int("axis", 0)])
        .node("q_heads", "Reshape", &["q", "head_dims"], &[])
        .node("q_rows", "Transpose", &["q_heads"], &[ints("perm", &[1, 0, 2])])
        .node("k_columns", "Transpose", &["q_heads"], &[ints("perm", &[1, 2, 0])])
        .node("scores", "MatMul", &["q_rows", "k_columns"], &[])
        .node("attention", "Softmax", &["scores"], &[int("axis", -1)])
        .node("mixed", "MatMul", &["attention", "q_rows"], &[])
        .node("mixed_rows", "Transpose", &["mixed"], &[ints("perm", &[1, 0, 2])])
        .integers("back", &[3], &[17, -1, 4])
        .node("heads_joined", "Reshape", &["mixed_rows", "back"], &[])
        .node("images_first", "Transpose", &["heads_joined"], &[ints("perm", &[1, 0, 2])])
        // Layer normalisation, piece by piece.
        .node("mean", "ReduceMean", &["images_first"], &[ints("axes", &[-1])])
        .node("centred", "Sub", &["images_first", "mean"], &[])
        .numbers("square", &[], &[2.0])
        .node("squared", "Pow", &["centred", "square"], &[])
        .node("variance", "ReduceMean", &["squared"], &[ints("axes", &[-1])])
        .numbers("eps", &[], &[1e-6])
        .node("safe", "Add", &["variance", "eps"], &[])
        .node("deviation", "Sqrt", &["safe"], &[])
        .node("normal", "Div", &["centred", "deviation"], &[])
        .floats("norm.weight", &[4])
        .floats("norm.bias", &[4])
        .node("scaled", "Mul", &["normal", "norm.weight"], &[])
        .node("normed", "Add", &["scaled", "norm.bias"], &[])
        // GELU, piece by piece.
        .numbers("root", &[], &[std::f32::consts::SQRT_2])
        .node("divided", "Div", &["normed", "root"], &[])
        .node("erf", "Erf", &["divided"], &[])
        .numbers("one", &[], &[1.0])
        .node("sum", "Add", &["erf", "one"], &[])
        .node("product", "Mul", &["normed", "sum"], &[])
        .numbers("half", &[], &[0.5])
        .node("gelu", "Mul", &["product", "half"], &[])
        .node("class", "Gather", &["gelu", "zero"], &[int("axis", 1)])
        .floats("head.weight", &[5, 4])
        .floats("head.bias", &[5])
        .node("logits", "Gemm", &["class", "head.weight", "head.bias"], &[int("transB", 1)])
}
