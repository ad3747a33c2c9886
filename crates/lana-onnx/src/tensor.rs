//! Tensors of the file: written as raw bytes, read from whichever field holds the elements.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Component, Path};

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

/// The bytes of a tensor's elements: its own, or those of another file in `folder`. None if they are in no such form.
fn raw<'a>(
    tensor: &'a TensorProto,
    count: usize,
    width: usize,
    folder: Option<&Path>,
) -> Result<Option<Cow<'a, [u8]>>, String> {
    if tensor.data_location != Some(EXTERNAL) {
        let raw = tensor.raw_data.as_deref().filter(|raw| !raw.is_empty());
        return Ok(raw.map(Cow::Borrowed));
    }
    let length = count.checked_mul(width).ok_or("impossible dimensions")?;
    elsewhere(tensor, length as u64, folder).map(|bytes| Some(Cow::Owned(bytes)))
}

/// `length` bytes of the file that a tensor says its elements lie in.
fn elsewhere(tensor: &TensorProto, length: u64, folder: Option<&Path>) -> Result<Vec<u8>, String> {
    let entry = |key: &str| {
        let found = tensor.external_data.iter().find(|e| e.key.as_deref() == Some(key));
        found.and_then(|e| e.value.as_deref())
    };
    let number = |key: &str| match entry(key).map(str::parse::<u64>) {
        None => Ok(None),
        Some(Ok(number)) => Ok(Some(number)),
        Some(Err(_)) => Err(format!("its elements lie in a separate file, whose {key} is no number")),
    };
    let location = entry("location").ok_or("its elements lie in a separate file that has no name")?;
    // Forwards slashes everywhere, as ONNX has it; nothing that leads out of the folder.
    let parts = Path::new(location).components();
    if location.is_empty() || !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
        return Err(format!("its elements lie in `{location}`, which is not in the folder of the model"));
    }
    let Some(folder) = folder else {
        return Err(format!(
            "its elements lie in a separate file, `{location}`: read the model from its file"
        ));
    };
    let path = folder.join(location);
    let failed = |e: std::io::Error| format!("its elements lie in {}: {e}", path.display());
    let mut file = File::open(&path).map_err(failed)?;
    let size = file.metadata().and_then(|m| match m.is_file() {
        true => Ok(m.len()),
        false => Err(std::io::Error::other("not a file")),
    });
    let (size, offset) = (size.map_err(failed)?, number("offset")?.unwrap_or(0));
    // Before anything is allocated.
    if offset.checked_add(length).is_none_or(|end| end > size)
        || number("length")?.is_some_and(|l| l != length)
    {
        return Err(format!(
            "its elements are {length} bytes at {offset} in {}, which has {size}: fetch or export both files again",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset)).map_err(failed)?;
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The elements of a tensor of floats, or why there are none. Those of other files lie in `folder`.
pub(crate) fn floats(tensor: &TensorProto, folder: Option<&Path>) -> Result<Tensor, String> {
    let (shape, count) = shape(tensor)?;
    let raw = |width| raw(tensor, count, width, folder);
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
        false => Err(format!("{} elements for dimensions {shape:?}", data.len())),
    }
}

/// The dimensions and elements of a tensor of integers, or why there are none. Booleans are 0 and 1. Those of other files
/// lie in `folder`.
pub(crate) fn integers(
    tensor: &TensorProto,
    folder: Option<&Path>,
) -> Result<(Vec<usize>, Vec<i64>), String> {
    let (dims, count) = shape(tensor)?;
    let raw = |width| raw(tensor, count, width, folder);
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
