use std::path::PathBuf;

use crate::Shape;

/// What can be wrong with a graph, with weights, or with the files they come from.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operation was given inputs it cannot take.
    #[error("node `{node}`: {reason}")]
    Shape {
        /// Name of the node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// The graph as a whole is not well formed (order of nodes, names, layers).
    #[error("graph `{graph}`: {reason}")]
    Graph {
        /// Name of the graph.
        graph: String,
        /// What is wrong.
        reason: String,
    },
    /// A layer was asked for that the graph does not have.
    #[error("graph `{graph}` has no layer `{layer}`; its layers are {known}")]
    UnknownLayer {
        /// Name of the graph.
        graph: String,
        /// The name asked for.
        layer: String,
        /// The names there are.
        known: String,
    },
    /// A replacement does not have the layer's input and output shape.
    #[error(
        "operation `{operation}` maps {got_in} to {got_out}, but layer `{layer}` maps {want_in} to {want_out}"
    )]
    Replacement {
        /// Name of the replacing graph.
        operation: String,
        /// Name of the layer.
        layer: String,
        /// The operation's input shape.
        got_in: Box<Shape>,
        /// The operation's output shape.
        got_out: Box<Shape>,
        /// The layer's input shape.
        want_in: Box<Shape>,
        /// The layer's output shape.
        want_out: Box<Shape>,
    },
    /// A parameter of the graph is missing among the weights.
    #[error("weights lack `{name}` (shape {shape:?}){origin}")]
    MissingWeight {
        /// The parameter.
        name: String,
        /// The shape the graph gives it.
        shape: Vec<usize>,
        /// Where the weights came from, or nothing.
        origin: String,
    },
    /// The weights hold tensors that the graph has no parameter for.
    #[error("weights hold `{name}` (shape {shape:?}), which the network does not have{origin}")]
    UnexpectedWeight {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Where the weights came from, or nothing.
        origin: String,
    },
    /// A tensor has another shape than the parameter.
    #[error("weight `{name}` has shape {got:?}, the network wants {want:?}{origin}")]
    WeightShape {
        /// The parameter.
        name: String,
        /// Shape in the file.
        got: Vec<usize>,
        /// Shape the graph gives it.
        want: Vec<usize>,
        /// Where the weights came from, or nothing.
        origin: String,
    },
    /// A tensor holds NaN or an infinity.
    #[error("weight `{name}` holds a value that is not finite (element {index}){origin}")]
    NotFinite {
        /// The parameter.
        name: String,
        /// Flat index of the first such element.
        index: usize,
        /// Where the weights came from, or nothing.
        origin: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the cure where there is one.
        reason: String,
    },
}
