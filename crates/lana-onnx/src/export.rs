use lana_graph::{Graph, Precision, Shape, Weights};
use prost::Message;

use crate::Result;
use crate::lower::{INPUT, OUTPUT, lower};
use crate::precision;
use crate::proto::{
    DimensionProto, GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorShapeProto,
    TensorTypeProto, TypeProto, ValueInfoProto, data_type,
};
use crate::tensor::float_tensor;

/// Key of the metadata entry that holds the network as JSON: what ONNX itself cannot say.
pub const METADATA_KEY: &str = "lana.graph";

/// Version of the operator set: the first whose runtimes (ONNX Runtime 1.12, TensorRT 8.5) are everywhere.
const OPSET: i64 = 17;
/// Version of the file format that belongs to that operator set.
const IR_VERSION: i64 = 8;
/// The same for bfloat16, which convolutions and pooling have had since this operator set alone.
const BF16_VERSIONS: (i64, i64) = (22, 10);

/// How a network is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportOptions {
    /// Name of the program that writes the file.
    pub producer: String,
    /// Its version.
    pub producer_version: String,
    /// Images in a batch; none for a symbolic dimension `batch`, so that the file takes any number.
    pub batch: Option<usize>,
    /// Number format of the weights and of every value between input and output, which stay 32-bit floats.
    pub precision: Precision,
}

impl Default for ExportOptions {
    fn default() -> Self {
        ExportOptions {
            producer: "lana".into(),
            producer_version: env!("CARGO_PKG_VERSION").into(),
            batch: None,
            precision: Precision::Fp32,
        }
    }
}

/// The bytes of an ONNX file with this network.
///
/// # Errors
/// If the weights are not those of the graph, or a number is too large for the precision.
pub fn export(graph: &Graph, weights: &Weights, options: &ExportOptions) -> Result<Vec<u8>> {
    weights.check(graph)?;
    let mut lowered = lower(graph);
    let mut initializer: Vec<_> =
        weights.iter().map(|(name, tensor)| float_tensor(name, &tensor.shape, &tensor.data)).collect();
    initializer.append(&mut lowered.constants);
    precision::convert(&mut lowered.nodes, &mut initializer, options.precision)?;
    let content = GraphProto {
        node: lowered.nodes,
        name: Some(graph.name().to_string()),
        initializer,
        input: vec![value_info(INPUT, graph.input_shape(), options.batch)],
        output: vec![value_info(OUTPUT, graph.output_shape(), options.batch)],
    };
    Ok(model(graph, content, options).encode_to_vec())
}

/// What stands around the graph in the file.
fn model(graph: &Graph, content: GraphProto, options: &ExportOptions) -> ModelProto {
    let (opset, ir_version) = match options.precision {
        Precision::Fp32 | Precision::Fp16 => (OPSET, IR_VERSION),
        Precision::Bf16 => BF16_VERSIONS,
    };
    ModelProto {
        ir_version: Some(ir_version),
        producer_name: Some(options.producer.clone()),
        producer_version: Some(options.producer_version.clone()),
        graph: Some(content),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(opset) }],
        metadata_props: vec![StringStringEntryProto {
            key: Some(METADATA_KEY.into()),
            value: Some(graph.to_json()),
        }],
    }
}

/// Bytes of the file that [`export`] writes for a network, by [`ExportOptions::default`] but for the precision, whatever its
/// weights.
///
/// # Errors
/// If a constant of the network is too large for the precision.
pub fn file_size(graph: &Graph, precision: Precision) -> Result<u64> {
    let varint = |value: u64| u64::from(64 - (value | 1).leading_zeros()).div_ceil(7);
    let mut lowered = lower(graph);
    precision::convert(&mut lowered.nodes, &mut lowered.constants, precision)?;
    let width = match precision {
        Precision::Fp32 => 4,
        Precision::Fp16 | Precision::Bf16 => 2,
    };
    let initialisers = graph.parameters().into_iter().map(|p| {
        // Without its elements; an empty field takes the two bytes of its tag and length.
        let without = float_tensor(&p.name, &p.shape, &[]).encoded_len() as u64 - 2;
        let data = (p.shape.iter().product::<usize>() * width) as u64;
        let tensor = without + 1 + varint(data) + data;
        1 + varint(tensor) + tensor
    });
    let rest = GraphProto {
        node: lowered.nodes,
        name: Some(graph.name().to_string()),
        initializer: lowered.constants,
        input: vec![value_info(INPUT, graph.input_shape(), None)],
        output: vec![value_info(OUTPUT, graph.output_shape(), None)],
    };
    let content = rest.encoded_len() as u64 + initialisers.sum::<u64>();
    let options = ExportOptions { precision, ..ExportOptions::default() };
    let around = model(graph, GraphProto::default(), &options);
    // The empty graph takes a tag and a length of one byte.
    Ok(around.encoded_len() as u64 - 2 + 1 + varint(content) + content)
}

fn value_info(name: &str, shape: &Shape, batch: Option<usize>) -> ValueInfoProto {
    let number = |n: usize| DimensionProto { dim_value: Some(n as i64), dim_param: None };
    let first = batch.map_or(DimensionProto { dim_value: None, dim_param: Some("batch".into()) }, &number);
    let dim = std::iter::once(first).chain(shape.dims().iter().map(|&n| number(n))).collect();
    let tensor = TensorTypeProto { elem_type: Some(data_type::FLOAT), shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: Some(name.into()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}
