//! How long networks take: running them, timing them, and lookup tables of what each operation costs.
//!
//! * A [`Deployment`] says how networks run: runtime, processor, precision, batch, threads. A [`Session`] is one [`Model`]
//!   opened so, in ONNX Runtime ([`OnnxRuntime`] finds the library) or, with the crate's feature `torch`, in libtorch.
//! * [`measure`] times several models against each other: interleaved, in a new order every round, each compared with the
//!   first of the same round, so that drift of the machine cancels.
//! * [`measure_files`] does so for ONNX files of any origin.
//! * [`build_table`] prices the operations of a pool at the layers of a teacher, inside the teacher; [`Table`] is what
//!   comes out: it predicts the latency of any selection, is corrected by networks that were measured whole, and belongs
//!   to the [`Device`] it was made on.
//!
//! Only differences within one process can be trusted to a percent: processors change their clock and share their caches.
//! Hence nothing here reports a bare mean; medians come with their 95 % intervals, ratios with theirs.
#![deny(missing_docs)]

mod array;
mod clock;
mod correct;
mod deployment;
mod device;
mod error;
mod files;
mod library;
mod measure;
mod model;
mod pin;
mod port;
mod pricing;
mod random;
mod runtime;
mod sealed;
mod session;
mod statistics;
mod synthetic;
mod table;

pub use array::Element;
pub use correct::Correction;
pub use deployment::{Deployment, Processor, RuntimeKind};
pub use device::{Device, Gpu};
pub use error::Error;
pub use files::{MeasureReport, MeasuredInput, MeasuredModel, measure_files};
pub use lana_graph::Precision;
pub use library::{OnnxRuntime, find_library};
pub use measure::{CALM, MeasureOptions, Measurement, measure, measure_sessions};
pub use model::Model;
pub use port::{Dim, InputShape, NamedDim, Port, Shapes};
pub use pricing::{
    Check, CheckOptions, Checked, Conditions, Figures, LayerCandidates, Plan, Progress, Reading, Subject,
    TableOptions, build_table,
};
pub use runtime::{runtime_version, try_runtime};
pub use sealed::{seal, sha256, unseal, write_atomic};
pub use session::Session;
pub use statistics::kendall;
pub use synthetic::random_weights;
pub use table::{Entry, LayerRow, Table, Whole};

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
