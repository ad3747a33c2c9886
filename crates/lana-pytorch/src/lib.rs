//! A network as PyTorch source that one can read and train.
//!
//! ONNX is for running a student, safetensors hold its weights; who wants to train it on, with a recipe of their own, needs the
//! network as PyTorch has networks: a class. [`student`] writes one, a text that needs nothing but torch:
//!
//! * Modules are nested as the names of the nodes say, so that the weights' names are those of `state_dict()` and a
//!   safetensors file loads with `strict=True`.
//! * A prefix of names that is a part of the network with one result, as blocks are, becomes a class with a `forward` of its own.
//!   Parts of the same structure share the class. Parts numbered 0, 1, 2 … that feed each other become `nn.Sequential`; a layer
//!   that the student does without is an `nn.Identity` there, and the others keep their numbers.
//! * Everything that training does is there: batch normalisation with its momentum, dropout, drop path. Branches that are merged
//!   where a network is deployed stay apart.
//!
//! The same graph gives the same text. Names may come from strangers' files: none of them gets into the text unquoted unless
//! it is a plain Python name.
//!
//! ```
//! use lana_graph::{Activation, GraphBuilder, Op, Shape};
//!
//! let mut b = GraphBuilder::new("tiny", Shape::image(3, 8, 8));
//! let x = b.input();
//! let x = b.layer("stem", "stem", x, |b, x| {
//!     let y = b.conv("conv", x, 16, 3, 1, 1)?;
//!     let y = b.batch_norm("bn", y)?;
//!     b.activation("act", y, Activation::Relu)
//! })?;
//! let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
//! let x = b.node("flatten", Op::Flatten, &[x])?;
//! let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x])?;
//! let graph = b.finish(x)?;
//!
//! let text = lana_pytorch::student(&graph, "weights.safetensors", "Images are scaled to -1 … 1.")?;
//! assert!(text.contains("        self.conv = nn.Conv2d(3, 16, 3, padding=1, bias=False)\n"));
//! assert!(text.contains("        x = self.stem(x)  # [n, 16, 8, 8]\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![deny(missing_docs)]

mod error;
mod names;
mod op;
mod tree;
mod write;

use lana_graph::Graph;

pub use error::Error;

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

/// The text of a Python module with a class `Student` that is `graph`, and a function `load` that fills it with the weights of a
/// safetensors file: by default the file `weights` beside the module. `notes`, paragraphs between line ends, stand in its
/// docstring: what a user must know that the graph does not say, such as the preprocessing of images. Lines of theirs that four
/// spaces indent are code, and are not filled.
///
/// # Errors
/// If a node is named so that no module can be: inside another's parameter, or too deep.
pub fn student(graph: &Graph, weights: &str, notes: &str) -> Result<String> {
    write::module(graph, weights, notes)
}
