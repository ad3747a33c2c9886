//! A network with the name it has in messages and results, before any runtime has opened it.

use std::borrow::Cow;
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
    Onnx(Arc<[u8]>),
}

impl Model {
    /// Reads an ONNX file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Ok(Model::from_bytes(path.display().to_string(), bytes))
    }

    /// The bytes of an ONNX file.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Model { name: name.into(), source: Source::Onnx(bytes.into()) }
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
    pub(crate) fn to_onnx(&self, precision: Precision) -> Result<Cow<'_, [u8]>> {
        if let (Source::Onnx(bytes), Precision::Fp32) = (&self.source, precision) {
            return Ok(Cow::Borrowed(bytes));
        }
        let network = self.to_network().map_err(|reason| {
            self.wrong(format!(
                "lana cannot convert it to {precision}: {reason}; leave the precision out to run it as it is"
            ))
        })?;
        let options = ExportOptions { precision, ..ExportOptions::default() };
        Ok(Cow::Owned(lana_onnx::export(&network.0, &network.1, &options)?))
    }

    /// The model as a network of ours, or why it is none.
    pub(crate) fn to_network(&self) -> std::result::Result<Arc<(Graph, Weights)>, String> {
        match &self.source {
            Source::Network(network) => Ok(Arc::clone(network)),
            Source::Onnx(bytes) => {
                let (graph, weights) = lana_onnx::import(bytes).map_err(|e| e.to_string())?;
                Ok(Arc::new(deploy(&graph, &weights).map_err(|e| e.to_string())?))
            }
        }
    }

    /// An error that concerns this model.
    pub(crate) fn wrong(&self, reason: String) -> Error {
        Error::Model { model: self.name.clone(), reason }
    }
}
