use std::path::PathBuf;

/// What can be wrong when a network is written as ONNX or read from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The network and its weights do not fit each other, or what was read is no well-formed network.
    #[error(transparent)]
    Graph(#[from] lana_graph::Error),
    /// The bytes are no ONNX model, or one that contradicts itself.
    #[error("not a whole ONNX model: {0}; export or fetch it again")]
    NotOnnx(String),
    /// The model holds nodes that lana has no operation for.
    #[error(
        "{count} of the model's nodes cannot be read: {}; docs/guide.md (\"ONNX files\") says what can be: write these parts of the \
         network otherwise and export it again",
        list.join("; ")
    )]
    Unsupported {
        /// How many such nodes there are.
        count: usize,
        /// Each type of such nodes: the names of some and, where the type alone is fine, what is not.
        list: Vec<String>,
    },
    /// The model as a whole is of a kind that lana does not handle.
    #[error("{0}")]
    Model(String),
    /// One of the above, with the file it concerns.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: Box<Error>,
    },
    /// A file could not be read.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}
