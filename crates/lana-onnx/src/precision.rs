//! Models in 16-bit floats.

use std::collections::HashSet;

use lana_graph::Precision;

use crate::external::Files;
use crate::lower::{INPUT, OUTPUT};
use crate::proto::{AttributeProto, NodeProto, TensorProto, attribute_type, data_type};
use crate::tensor::{floats, integer_tensor};
use crate::{Error, Result};

/// Turns nodes and initialisers of 32-bit floats into those of another precision; the model's input and output stay what
/// they are, with a Cast behind the one and in front of the other.
pub(crate) fn convert(
    nodes: &mut Vec<NodeProto>,
    initializers: &mut Vec<TensorProto>,
    precision: Precision,
) -> Result<()> {
    let (kind, encode): (i32, fn(f32) -> [u8; 2]) = match precision {
        Precision::Fp32 => return Ok(()),
        Precision::Fp16 => (data_type::FLOAT16, |x| half::f16::from_f32(x).to_le_bytes()),
        Precision::Bf16 => (data_type::BFLOAT16, |x| half::bf16::from_f32(x).to_le_bytes()),
    };
    for tensor in initializers.iter_mut().filter(|t| t.data_type == Some(data_type::FLOAT)) {
        let name = tensor.name.clone().unwrap_or_default();
        let values = floats(tensor, &mut Files::of(None))
            .map_err(|reason| Error::Model(format!("`{name}`: {reason}")))?;
        let largest = values.data.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        if precision == Precision::Fp16 && largest.is_finite() && largest > half::f16::MAX.to_f32() {
            return Err(Error::Model(format!(
                "`{name}` holds {largest:e}, more than fp16 can; use bf16 or fp32"
            )));
        }
        tensor.data_type = Some(kind);
        tensor.raw_data = Some(values.data.iter().flat_map(|&x| encode(x)).collect());
        tensor.float_data.clear();
    }
    let taken: HashSet<String> =
        nodes.iter().flat_map(|n| n.output.iter().chain(&n.input)).cloned().collect();
    let unique = |mut name: String| {
        while taken.contains(&name) {
            name.push('_');
        }
        name
    };
    if precision == Precision::Bf16 {
        axes_as_inputs(nodes, initializers, unique);
    }
    let inner_input = unique(format!("{INPUT}/{precision}"));
    let inner_output = unique(format!("{OUTPUT}/{precision}"));
    for node in nodes.iter_mut() {
        let rename = |names: &mut Vec<String>, from: &str, to: &String| {
            names.iter_mut().filter(|name| *name == from).for_each(|name| name.clone_from(to));
        };
        rename(&mut node.input, INPUT, &inner_input);
        rename(&mut node.output, OUTPUT, &inner_output);
    }
    nodes.insert(0, cast(INPUT, &inner_input, kind));
    nodes.push(cast(&inner_output, OUTPUT, data_type::FLOAT));
    Ok(())
}

/// Gives means their axes as an input, as the operator set that knows bfloat16 wants them.
fn axes_as_inputs(
    nodes: &mut [NodeProto],
    initializers: &mut Vec<TensorProto>,
    unique: impl Fn(String) -> String,
) {
    for node in nodes.iter_mut().filter(|n| n.op_type.as_deref() == Some("ReduceMean")) {
        let axes: Vec<i64> = std::mem::take(&mut node.attribute).into_iter().flat_map(|a| a.ints).collect();
        let name = unique(format!("{}/axes", node.name.as_deref().unwrap_or_default()));
        initializers.push(integer_tensor(&name, &axes));
        node.input.push(name);
    }
}

fn cast(from: &str, to: &str, kind: i32) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("to".into()),
        r#type: Some(attribute_type::INT),
        i: Some(kind.into()),
        ..AttributeProto::default()
    };
    NodeProto {
        input: vec![from.into()],
        output: vec![to.into()],
        name: Some(format!("{to}/cast")),
        op_type: Some("Cast".into()),
        attribute: vec![attribute],
        ..NodeProto::default()
    }
}
