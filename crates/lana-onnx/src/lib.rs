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
//! | conv2d | Conv (two-dimensional, not dilated) |
//! | batch_norm | BatchNormalization |
//! | relu, relu6, sigmoid, hard_swish | Relu, Clip 0…6, Sigmoid, HardSwish |
//! | silu | Sigmoid and Mul |
//! | hard_sigmoid | HardSigmoid (alpha 1/6, beta 1/2) |
//! | add, mul | Add, Mul |
//! | global_average_pool, flatten | GlobalAveragePool, Flatten |
//! | linear | Gemm |
//! | subsample | Slice with steps |
//! | pad_channels | Pad with zeros |
//!
//! In 16-bit floats ([`ExportOptions::precision`]) a model still takes and gives 32-bit ones: a Cast stands at either end.
//! Such a file is for running, and is not read back.
//!
//! Identity and Constant nodes are read too.
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
mod import;
mod lower;
mod precision;
pub mod proto;
mod tensor;

pub use error::Error;
pub use export::{ExportOptions, METADATA_KEY, export, file_size};
pub use import::{import, import_file};

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
