//! A network with the name it has in messages and results, before any runtime has opened it.

use std::borrow::Cow;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use lana_graph::{Graph, Precision, Weights, deploy};
use lana_onnx::ExportOptions;

use crate::{Error, Result, random_weights};

/// A network to run: one of ours, or an ONNX file of anyone's.
#[derive(Clone)]
pub struct Model {
    name: String,
    source: Source,
}

/// Cheap to clone: a table times hundreds of variants of one network.
#[derive(Clone)]
enum Source {
    /// In the form in which it is deployed.
    Network(Arc<(Graph, Weights)>),
    /// A file, which may have its weights in others beside it.
    File(Arc<Path>),
    Bytes(Arc<[u8]>),
}

/// A model as ONNX Runtime opens it.
pub(crate) enum OnnxModel<'a> {
    File(&'a Path),
    Bytes(Cow<'a, [u8]>),
}

impl Model {
    /// An ONNX file, with weights in further files beside it where it has such. Runtimes read it when they open it.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn from_file(path: &Path) -> Result<Self> {
        // A folder can be opened, but not read.
        let read = File::open(path).and_then(|mut file| file.read(&mut [0]));
        read.map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Ok(Model { name: path.display().to_string(), source: Source::File(path.into()) })
    }

    /// The bytes of an ONNX file.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Model { name: name.into(), source: Source::Bytes(bytes.into()) }
    }

    /// A network in the form in which it is deployed ([`deploy`]), for any batch.
    pub fn from_graph(name: impl Into<String>, graph: &Graph, weights: &Weights) -> Result<Self> {
        weights.check(graph)?;
        Ok(Model { name: name.into(), source: Source::Network(Arc::new(deploy(graph, weights)?)) })
    }

    /// As [`Model::from_graph`] with weights that are good for timing alone.
    pub fn with_random_weights(name: impl Into<String>, graph: &Graph) -> Result<Self> {
        Model::from_graph(name, graph, &random_weights(graph, 1))
    }

    /// Its name in messages and results.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The model as ONNX. Files are taken as they are, whatever precision they were written in, unless 16-bit floats are
    /// asked for.
    pub(crate) fn to_onnx(&self, precision: Precision) -> Result<OnnxModel<'_>> {
        match (&self.source, precision) {
            (Source::File(path), Precision::Fp32) => return Ok(OnnxModel::File(path)),
            (Source::Bytes(bytes), Precision::Fp32) => return Ok(OnnxModel::Bytes(Cow::Borrowed(bytes))),
            _ => {}
        }
        let network = self.to_network().map_err(|reason| {
            self.wrong(format!(
                "lana cannot convert it to {precision}: {reason}; leave the precision out to run it as it is"
            ))
        })?;
        let options = ExportOptions { precision, ..ExportOptions::default() };
        Ok(OnnxModel::Bytes(Cow::Owned(lana_onnx::export(&network.0, &network.1, &options)?)))
    }

    /// The model as a network of ours, or why it is none.
    pub(crate) fn to_network(&self) -> std::result::Result<Arc<(Graph, Weights)>, String> {
        match &self.source {
            Source::Network(network) => Ok(Arc::clone(network)),
            Source::File(path) => imported(&std::fs::read(path).map_err(|e| e.to_string())?),
            Source::Bytes(bytes) => imported(bytes),
        }
    }

    /// An error that concerns this model.
    pub(crate) fn wrong(&self, reason: String) -> Error {
        Error::Model { model: self.name.clone(), reason }
    }
}

fn imported(onnx: &[u8]) -> std::result::Result<Arc<(Graph, Weights)>, String> {
    let (graph, weights) = lana_onnx::import(onnx).map_err(|e| e.to_string())?;
    Ok(Arc::new(deploy(&graph, &weights).map_err(|e| e.to_string())?))
}
