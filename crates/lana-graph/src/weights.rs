use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensorError, SafeTensors, TensorView, View};

use crate::{Error, Graph, Result};

/// An array of 32-bit floats in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its dimensions; empty for a scalar.
    pub shape: Vec<usize>,
    /// Its elements, as many as the product of the dimensions.
    pub data: Vec<f32>,
}

impl Tensor {
    /// A tensor of one value everywhere.
    pub fn full(shape: &[usize], value: f32) -> Self {
        Tensor { shape: shape.to_vec(), data: vec![value; shape.iter().product()] }
    }

    /// The slices along dimension `axis` at `indices`, in that order.
    ///
    /// # Panics
    /// If an index is outside the dimension.
    pub fn select(&self, axis: usize, indices: &[usize]) -> Self {
        let inner: usize = self.shape[axis + 1..].iter().product();
        let outer: usize = self.shape[..axis].iter().product();
        let size = self.shape[axis];
        let mut data = Vec::with_capacity(outer * indices.len() * inner);
        for o in 0..outer {
            for &i in indices {
                assert!(i < size, "index {i} of {size}");
                let at = (o * size + i) * inner;
                data.extend_from_slice(&self.data[at..at + inner]);
            }
        }
        let mut shape = self.shape.clone();
        shape[axis] = indices.len();
        Tensor { shape, data }
    }
}

/// Named tensors: the values of a graph's parameters, under their full names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Weights {
    tensors: BTreeMap<String, Tensor>,
    origin: String,
}

/// A tensor as a safetensors file holds it. Its bytes are made when they are written: checkpoints are large, and need not be in
/// memory twice.
struct AsBytes<'a>(&'a Tensor);

impl View for AsBytes<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        self.0.data.iter().for_each(|x| bytes.extend_from_slice(&x.to_le_bytes()));
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        4 * self.0.data.len()
    }
}

impl Weights {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads a safetensors file. 16- and 64-bit floats become 32-bit; PyTorch's `num_batches_tracked` counters are left
    /// out; any other integer tensor is an error.
    pub fn load(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// Reads the bytes of a safetensors file; `path` is named in errors.
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self> {
        let wrong = |reason: String| Error::File { path: path.to_path_buf(), reason };
        let file = SafeTensors::deserialize(bytes).map_err(|e| wrong(not_safetensors(bytes, path, &e)))?;
        let mut tensors = BTreeMap::new();
        for (name, view) in file.iter() {
            if name.ends_with("num_batches_tracked") {
                continue;
            }
            let data = floats(&view).ok_or_else(|| {
                wrong(format!("`{name}` holds {:?}, only floats can be weights", view.dtype()))
            })?;
            tensors.insert(name.to_string(), Tensor { shape: view.shape().to_vec(), data });
        }
        Ok(Weights { tensors, origin: format!(" ({})", path.display()) })
    }

    /// The bytes of a safetensors file with these tensors.
    pub fn to_bytes(&self) -> Vec<u8> {
        safetensors::serialize(self.tensors.iter().map(|(name, tensor)| (name, AsBytes(tensor))), None)
            .unwrap_or_default()
    }

    /// The tensor of that name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    /// Adds or replaces a tensor.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) {
        self.tensors.insert(name.into(), tensor);
    }

    /// Takes a tensor out.
    pub fn remove(&mut self, name: &str) -> Option<Tensor> {
        self.tensors.remove(name)
    }

    /// Names and tensors in the order of the names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), t))
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// The tensors whose names begin with `prefix` and a dot, without it: a layer's weights as those of the layer's own
    /// graph.
    pub fn under(&self, prefix: &str) -> Weights {
        let tensors = self.tensors.iter().filter_map(|(name, tensor)| {
            let short = name.strip_prefix(prefix)?.strip_prefix('.')?;
            Some((short.to_string(), tensor.clone()))
        });
        Weights { tensors: tensors.collect(), origin: self.origin.clone() }
    }

    /// Replaces everything under `prefix` by `weights`, whose names get the prefix and a dot.
    pub fn replace_under(&mut self, prefix: &str, weights: &Weights) {
        let dotted = format!("{prefix}.");
        self.tensors.retain(|name, _| !name.starts_with(&dotted));
        for (name, tensor) in &weights.tensors {
            self.tensors.insert(format!("{dotted}{name}"), tensor.clone());
        }
    }

    /// Checks that these are the weights of `graph`: each parameter there with its shape and finite values, nothing else.
    pub fn check(&self, graph: &Graph) -> Result<()> {
        let origin = || self.origin.clone();
        let parameters = graph.parameters();
        for parameter in &parameters {
            let name = parameter.name.clone();
            let Some(tensor) = self.get(&name) else {
                return Err(Error::MissingWeight { name, shape: parameter.shape.clone(), origin: origin() });
            };
            if tensor.shape != parameter.shape {
                let (got, want) = (tensor.shape.clone(), parameter.shape.clone());
                return Err(Error::WeightShape { name, got, want, origin: origin() });
            }
            if let Some(index) = tensor.data.iter().position(|x| !x.is_finite()) {
                return Err(Error::NotFinite { name, index, origin: origin() });
            }
        }
        let known: std::collections::HashSet<&str> = parameters.iter().map(|p| p.name.as_str()).collect();
        match self.tensors.iter().find(|(name, _)| !known.contains(name.as_str())) {
            Some((name, tensor)) => Err(Error::UnexpectedWeight {
                name: name.clone(),
                shape: tensor.shape.clone(),
                origin: origin(),
            }),
            None => Ok(()),
        }
    }
}

impl IntoIterator for Weights {
    type Item = (String, Tensor);
    type IntoIter = std::collections::btree_map::IntoIter<String, Tensor>;

    fn into_iter(self) -> Self::IntoIter {
        self.tensors.into_iter()
    }
}

impl FromIterator<(String, Tensor)> for Weights {
    fn from_iter<I: IntoIterator<Item = (String, Tensor)>>(iter: I) -> Self {
        Weights { tensors: iter.into_iter().collect(), origin: String::new() }
    }
}

/// Why `bytes` are no safetensors file, and what to do about it.
fn not_safetensors(bytes: &[u8], path: &Path, error: &SafeTensorError) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(512)]).trim_start().to_lowercase();
    // A length of eight bytes, then a JSON object of that length, then as many bytes as that says.
    let begins_well = bytes.get(8).is_none_or(|byte| *byte == b'{');
    if bytes.starts_with(b"PK\x03\x04") || bytes.starts_with(b"\x80") {
        let file = path.display();
        format!(
            "is a PyTorch pickle, not safetensors; convert it once with: python3 -c \"import torch, \
             safetensors.torch as s; d = torch.load('{file}', map_location='cpu', weights_only=True); d = \
             d.get('state_dict', d); s.save_file({{k: v.contiguous() for k, v in d.items()}}, '{}')\"",
            path.with_extension("safetensors").display()
        )
    } else if text.starts_with("version https://git-lfs") {
        "is a git-lfs pointer, not the file it stands for; get that with `git lfs pull`, or download it"
            .into()
    } else if text.starts_with('<') {
        "is a web page, not safetensors; download the file itself, on Hugging Face by an address with `resolve` in \
         place of `blob`"
            .into()
    } else if begins_well {
        format!("not a whole safetensors file ({error}); it was cut off or damaged: fetch or export it again")
    } else {
        "not a safetensors file; give the file with the weights, which ends in .safetensors".into()
    }
}

/// The elements as 32-bit floats; none if they are no floats.
fn floats(view: &TensorView<'_>) -> Option<Vec<f32>> {
    let bytes = view.data();
    let two = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    Some(match view.dtype() {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F64 => bytes
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        Dtype::F16 => two().map(|b| half::f16::from_le_bytes(b).to_f32()).collect(),
        Dtype::BF16 => two().map(|b| half::bf16::from_le_bytes(b).to_f32()).collect(),
        _ => return None,
    })
}
