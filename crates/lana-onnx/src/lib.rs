//! ONNX to and from lana's [`Graph`].
//!
//! [`export`] writes a network and its weights as an ONNX model (opset 17, IR version 8) whose input is called `input`
//! and whose output `logits`; initialisers keep lana's parameter names. [`import`] reads models by ONNX's own rules,
//! whoever wrote them, as long as they are made of the operations below. What no ONNX node can say (the network's name,
//! its layers and stages, exact normalisation constants) travels as the network's JSON in the metadata entry
//! [`METADATA_KEY`]. It is believed only if it would export to exactly the nodes in the file, so a model that another
//! tool has changed is read by its nodes, without layers.
//!
//! | lana | ONNX |
//! |---|---|
//! | conv2d, conv3d | Conv |
//! | batch_norm, layer_norm | BatchNormalization, LayerNormalization |
//! | relu, relu6, sigmoid, tanh, erf, elu, softplus | Relu, Clip 0…6, Sigmoid, Tanh, Erf, Elu, Softplus |
//! | hard_swish, hard_sigmoid | HardSwish, HardSigmoid (alpha 1/6, beta 1/2) |
//! | silu, gelu | Sigmoid and Mul; Div, Erf, Add and two Mul |
//! | add, mul, shift, scale, power | Add and Mul, of values and of numbers; Pow, Sqrt, Reciprocal |
//! | add_parameter, mul_parameter | Add and Mul with an initialiser |
//! | max_pool, average_pool, global_average_pool, mean | MaxPool, AveragePool, GlobalAveragePool, ReduceMean |
//! | linear, mat_mul, softmax, log_softmax | Gemm (MatMul and Add on rows), MatMul, Softmax, LogSoftmax |
//! | flatten, reshape, transpose, concat | Flatten, Reshape, Transpose, Concat |
//! | select | Slice where evenly spaced, otherwise Gather |
//! | subsample, pad_channels, pad | Slice with steps, Pad |
//! | resize | Resize (linear) |
//!
//! Many other nodes are read as some of these in a row (Sub, Div, Split, GroupNormalization …): the user's guide lists
//! them.
//!
//! In 16-bit floats ([`ExportOptions::precision`]) a model still takes and gives 32-bit ones: a Cast stands at either end.
//! Such a file is for running, and is not read back.
//!
//! ```
//! use lana_graph::{Activation, GraphBuilder, Shape, Weights};
//!
//! let mut b = GraphBuilder::new("tiny", Shape::image(3, 8, 8));
//! let x = b.activation("act", b.input(), Activation::Silu)?;
//! let graph = b.finish(x)?;
//! let bytes = lana_onnx::export(&graph, &Weights::new(), &lana_onnx::ExportOptions::default())?;
//! assert_eq!(lana_onnx::import(&bytes)?, (graph, Weights::new()));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`Graph`]: lana_graph::Graph
#![deny(missing_docs)]

mod error;
mod export;
mod external;
mod import;
mod lower;
mod precision;
pub mod proto;
mod tensor;
mod text;

pub use error::Error;
pub use export::{ExportOptions, METADATA_KEY, export, file_size};
pub use import::{import, import_file};

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
