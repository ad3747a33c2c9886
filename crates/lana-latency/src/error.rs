use std::path::PathBuf;

use crate::RuntimeKind;

/// What can go wrong when networks are run and timed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network or its weights are at fault.
    #[error(transparent)]
    Graph(#[from] lana_graph::Error),
    /// A network could not be written as ONNX.
    #[error(transparent)]
    Onnx(#[from] lana_onnx::Error),
    /// ONNX Runtime's library was not found.
    #[error(
        "ONNX Runtime is not here: run `cargo xtask setup` or set ORT_DYLIB_PATH to the file libonnxruntime.so (looked at {list})",
        list = .searched.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", ")
    )]
    MissingLibrary {
        /// Where it was looked for, in that order.
        searched: Vec<PathBuf>,
    },
    /// ONNX Runtime's library could not be loaded.
    #[error("{}: {reason}; run `cargo xtask setup` or set ORT_DYLIB_PATH to another one", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// The loader's reason.
        reason: String,
    },
    /// A runtime is not here, or not with what a deployment needs.
    #[error("{runtime}: {reason}; {cure}")]
    NoRuntime {
        /// The runtime.
        runtime: RuntimeKind,
        /// What is missing.
        reason: String,
        /// What to do.
        cure: String,
    },
    /// A model could not be opened or run.
    #[error("{model}: {reason}")]
    Model {
        /// Its file or name.
        model: String,
        /// What is wrong.
        reason: String,
    },
    /// A model that was opened could not be run.
    #[error("{model}: cannot run with {inputs}: {reason}")]
    Run {
        /// Its file or name.
        model: String,
        /// Names and dimensions of its inputs.
        inputs: String,
        /// The runtime's reason.
        reason: String,
    },
    /// A setting is impossible.
    #[error("{0}")]
    Options(String),
    /// A lookup table does not know a layer or an operation, or was given too few of them.
    #[error("lookup table: {0}")]
    Table(String),
    /// A lookup table was made on another device.
    #[error(
        "the lookup table was made on another device ({differences}): measure this one with `lana profile RUN`, or go by that \
         table all the same with `lana profile RUN --force`"
    )]
    OtherDevice {
        /// What differs.
        differences: String,
    },
    /// A file is not what it should be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and the cure where there is one.
        reason: String,
    },
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
}

impl Error {
    /// Whether it is the arguments or files that are at fault, and not what happened on the way.
    pub fn is_input(&self) -> bool {
        use std::io::ErrorKind::{IsADirectory, NotFound};
        match self {
            Error::Graph(_)
            | Error::Onnx(_)
            | Error::Model { .. }
            | Error::Run { .. }
            | Error::Options(_)
            | Error::File { .. } => true,
            Error::Io { source, .. } => matches!(source.kind(), NotFound | IsADirectory),
            _ => false,
        }
    }
}
