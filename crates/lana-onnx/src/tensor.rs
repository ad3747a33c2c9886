//! Tensors of the file: written as raw bytes, read from whichever field holds the elements.

use lana_graph::Tensor;

use crate::proto::{EXTERNAL, TensorProto, data_type};

/// A named tensor of 32-bit floats.
pub(crate) fn float_tensor(name: &str, shape: &[usize], data: &[f32]) -> TensorProto {
    TensorProto {
        dims: shape.iter().map(|&n| n as i64).collect(),
        data_type: Some(data_type::FLOAT),
        name: Some(name.into()),
        raw_data: Some(data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}

/// A named list of 64-bit integers.
pub(crate) fn integer_tensor(name: &str, data: &[i64]) -> TensorProto {
    TensorProto {
        dims: vec![data.len() as i64],
        data_type: Some(data_type::INT64),
        name: Some(name.into()),
        raw_data: Some(data.iter().flat_map(|x| x.to_le_bytes()).collect()),
        ..TensorProto::default()
    }
}

/// The dimensions and their product, or why they are impossible.
fn shape(tensor: &TensorProto) -> Result<(Vec<usize>, usize), String> {
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect();
    let count = dims.as_ref().and_then(|d| d.iter().try_fold(1_usize, |n, &d| n.checked_mul(d)));
    dims.zip(count).ok_or_else(|| format!("impossible dimensions {:?}", tensor.dims))
}

/// The elements of a tensor of floats, or why there are none.
pub(crate) fn floats(tensor: &TensorProto) -> Result<Tensor, String> {
    let (shape, count) = shape(tensor)?;
    if tensor.data_location == Some(EXTERNAL) {
        return Err(
            "its elements lie in a separate file, which is not supported: save the model as one file".into(),
        );
    }
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let has_raw = !raw.is_empty();
    let data: Vec<f32> = match tensor.data_type.unwrap_or_default() {
        data_type::FLOAT if has_raw => chunks(raw)?.map(f32::from_le_bytes).collect(),
        data_type::FLOAT => tensor.float_data.clone(),
        data_type::DOUBLE if has_raw => chunks(raw)?.map(|b| f64::from_le_bytes(b) as f32).collect(),
        data_type::DOUBLE => tensor.double_data.iter().map(|&x| x as f32).collect(),
        // 16-bit floats without raw bytes are the low halves of integers.
        data_type::FLOAT16 if has_raw => chunks(raw)?.map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
        data_type::FLOAT16 => {
            tensor.int32_data.iter().map(|&x| half::f16::from_bits(x as u16).to_f32()).collect()
        }
        data_type::BFLOAT16 if has_raw => {
            chunks(raw)?.map(|b| half::bf16::from_le_bytes(b).to_f32()).collect()
        }
        data_type::BFLOAT16 => {
            tensor.int32_data.iter().map(|&x| half::bf16::from_bits(x as u16).to_f32()).collect()
        }
        other => return Err(format!("elements of ONNX data type {other}, only floats can be weights")),
    };
    match data.len() == count {
        true => Ok(Tensor { shape, data }),
        false => Err(format!("{} elements for dimensions {shape:?}", data.len())),
    }
}

/// The elements of a tensor of integers, or why there are none.
pub(crate) fn integers(tensor: &TensorProto) -> Result<Vec<i64>, String> {
    let (dims, count) = shape(tensor)?;
    let raw = tensor.raw_data.as_deref().unwrap_or_default();
    let data: Vec<i64> = match tensor.data_type.unwrap_or_default() {
        data_type::INT64 if !raw.is_empty() => chunks(raw)?.map(i64::from_le_bytes).collect(),
        data_type::INT64 => tensor.int64_data.clone(),
        data_type::INT32 if !raw.is_empty() => chunks(raw)?.map(|b| i32::from_le_bytes(b).into()).collect(),
        data_type::INT32 => tensor.int32_data.iter().map(|&x| x.into()).collect(),
        other => return Err(format!("elements of ONNX data type {other} where integers belong")),
    };
    match data.len() == count {
        true => Ok(data),
        false => Err(format!("{} elements for dimensions {dims:?}", data.len())),
    }
}

fn chunks<const N: usize>(raw: &[u8]) -> Result<impl Iterator<Item = [u8; N]>, String> {
    let (chunks, rest) = raw.as_chunks::<N>();
    match rest.is_empty() {
        true => Ok(chunks.iter().copied()),
        false => Err(format!("{} bytes for elements of {N} bytes", raw.len())),
    }
}
