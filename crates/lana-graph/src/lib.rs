//! The network as data.
//!
//! A network in lana is a [`Graph`] (nodes in topological order, one output value each, static shapes but for the
//! batch) beside named [`Weights`]. It knows no engine: `lana-torch` executes it, `lana-onnx` writes it, `lana-latency`
//! times it, and zoo teachers, candidate operations, students and imports are all the same thing.
//!
//! * [`Op`]: what a node does, its shape rule, parameters and multiply-accumulates.
//! * [`Graph`] and [`GraphBuilder`]: nodes, values, shapes; checked when made and when read from a file.
//! * [`Layer`]: a replaceable region with one input and one output. [`Graph::replace`] is the only way a student is
//!   made; [`Graph::subgraph`] cuts a layer or the rest of the network behind it out as a network of its own.
//! * [`discover`]: finds the layers of a network that does not say where they are.
//! * [`deploy`]: the form in which a network is exported and timed: parallel branches merged into one convolution, and
//!   each BatchNorm folded into the convolution before it ([`fold_batch_norm`]).
//! * [`Graph::peak_memory`]: how much of the feature maps is alive at once.
//! * [`channels`]: which channels belong together, hence how a block is narrowed inside.
//!
//! ```
//! use lana_graph::{Activation, GraphBuilder, Shape};
//!
//! let mut b = GraphBuilder::new("tiny", Shape::image(3, 8, 8));
//! let x = b.input();
//! let y = b.conv("conv", x, 16, 3, 1, 1)?;
//! let y = b.batch_norm("bn", y)?;
//! let y = b.activation("act", y, Activation::Relu)?;
//! let graph = b.finish(y)?;
//! assert_eq!(graph.output_shape(), &Shape::image(16, 8, 8));
//! // The convolution, and two for each element that the BatchNorm gives.
//! assert_eq!(graph.cost().macs, 3 * 16 * 9 * 64 + 2 * 16 * 64);
//! # Ok::<(), lana_graph::Error>(())
//! ```
#![deny(missing_docs)]

mod builder;
pub mod channels;
mod cost;
mod discover;
mod error;
mod fold;
mod graph;
mod memory;
mod merge;
pub mod moments;
mod op;
mod pattern;
mod precision;
mod replace;
mod shape;
mod unfold;
mod weights;

pub use builder::GraphBuilder;
pub use cost::Cost;
pub use discover::{LayerRules, discover, group};
pub use error::Error;
pub use fold::fold_batch_norm;
pub use graph::{Graph, Layer, Node, Parameter, Value};
pub use merge::deploy;
pub use op::{Activation, Conv2d, Op, Role, Window};
pub use pattern::fits;
pub use precision::Precision;
pub use shape::Shape;
pub use unfold::{ChannelStatistics, unfold_batch_norm, unnormalised_convolutions};
pub use weights::{Tensor, Weights};

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
