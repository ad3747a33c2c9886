//! Tensors of the file: written as raw bytes, read from whichever field holds the elements.

use std::borrow::Cow;

use lana_graph::Tensor;

use crate::external::Files;
use crate::proto::{EXTERNAL, TensorProto, data_type};
use crate::text::listed;

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
    dims.zip(count).ok_or_else(|| format!("impossible dimensions {}", listed(&tensor.dims)))
}

/// The bytes of a tensor's elements: its own, or those of a file beside the model. None if they are in no such form.
fn raw<'a>(
    tensor: &'a TensorProto,
    count: usize,
    width: usize,
    files: &mut Files<'_>,
) -> Result<Option<Cow<'a, [u8]>>, String> {
    if tensor.data_location != Some(EXTERNAL) {
        let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
        return Ok(raw.map(Cow::Borrowed));
    }
    let length = count.checked_mul(width).ok_or("impossible dimensions")?;
    files.read(tensor, length as u64).map(|bytes| Some(Cow::Owned(bytes)))
}

/// The elements of a tensor of floats, or why there are none.
pub(crate) fn floats(tensor: &TensorProto, files: &mut Files<'_>) -> Result<Tensor, String> {
    let (shape, count) = shape(tensor)?;
    let mut raw = |width| raw(tensor, count, width, files);
    let data: Vec<f32> = match tensor.data_type.unwrap_or_default() {
        data_type::FLOAT => match raw(4)? {
            Some(bytes) => chunks(&bytes)?.map(f32::from_le_bytes).collect(),
            None => tensor.float_data.clone(),
        },
        data_type::DOUBLE => match raw(8)? {
            Some(bytes) => chunks(&bytes)?.map(|b| f64::from_le_bytes(b) as f32).collect(),
            None => tensor.double_data.iter().map(|&x| x as f32).collect(),
        },
        // 16-bit floats without raw bytes are the low halves of integers.
        data_type::FLOAT16 => match raw(2)? {
            Some(bytes) => chunks(&bytes)?.map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
            None => tensor.int32_data.iter().map(|&x| half::f16::from_bits(x as u16).to_f32()).collect(),
        },
        data_type::BFLOAT16 => match raw(2)? {
            Some(bytes) => chunks(&bytes)?.map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
            None => tensor.int32_data.iter().map(|&x| half::bf16::from_bits(x as u16).to_f32()).collect(),
        },
        other => return Err(format!("elements of ONNX data type {other}, only floats can be weights")),
    };
    match data.len() == count {
        true => Ok(Tensor { shape, data }),
        false => Err(format!("{} elements for dimensions {}", data.len(), listed(&shape))),
    }
}

/// The dimensions and elements of a tensor of integers, or why there are none. Booleans are 0 and 1.
pub(crate) fn integers(
    tensor: &TensorProto,
    files: &mut Files<'_>,
) -> Result<(Vec<usize>, Vec<i64>), String> {
    let (dims, count) = shape(tensor)?;
    let mut raw = |width| raw(tensor, count, width, files);
    let data: Vec<i64> = match tensor.data_type.unwrap_or_default() {
        data_type::INT64 => match raw(8)? {
            Some(bytes) => chunks(&bytes)?.map(i64::from_le_bytes).collect(),
            None => tensor.int64_data.clone(),
        },
        data_type::INT32 => match raw(4)? {
            Some(bytes) => chunks(&bytes)?.map(|b| i32::from_le_bytes(b).into()).collect(),
            None => tensor.int32_data.iter().map(|&x| x.into()).collect(),
        },
        data_type::BOOL | data_type::UINT8 => match raw(1)? {
            Some(bytes) => bytes.iter().map(|&b| b.into()).collect(),
            None => tensor.int32_data.iter().map(|&x| x.into()).collect(),
        },
        other => {
            return Err(format!("elements of ONNX data type {other}, only floats, integers and booleans"));
        }
    };
    match data.len() == count {
        true => Ok((dims, data)),
        false => Err(format!("{} elements for dimensions {}", data.len(), listed(&dims))),
    }
}

fn chunks<const N: usize>(raw: &[u8]) -> Result<impl Iterator<Item = [u8; N]>, String> {
    let (chunks, rest) = raw.as_chunks::<N>();
    match rest.is_empty() {
        true => Ok(chunks.iter().copied()),
        false => Err(format!("{} bytes for elements of {N} bytes", raw.len())),
    }
}
