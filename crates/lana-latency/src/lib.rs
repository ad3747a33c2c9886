//! How long networks take: running them, timing them, and lookup tables of what each operation costs.
//!
//! * [`OnnxRuntime`] loads the runtime's library; [`Session`] runs one [`Model`] on it.
//! * [`measure`] times several models against each other: interleaved, in a new order every round, each compared with the
//!   first of the same round, so that drift of the machine cancels.
//! * [`build_table`] prices the operations of a pool at the layers of a teacher, inside the teacher; [`Table`] is what
//!   comes out: it predicts the latency of any selection, is corrected by networks that were measured whole, and belongs
//!   to the [`Device`] it was made on.
//!
//! Only differences within one process can be trusted to a percent: processors change their clock and share their caches.
//! Hence nothing here reports a bare mean; medians come with their 95 % intervals, ratios with theirs.
#![deny(missing_docs)]

mod correct;
mod deployment;
mod device;
mod error;
mod library;
mod measure;
mod pricing;
mod random;
mod session;
mod statistics;
mod synthetic;
mod table;

pub use correct::Correction;
pub use deployment::{Deployment, Precision, Processor, RuntimeKind};
pub use device::Device;
pub use error::Error;
pub use library::{OnnxRuntime, find_library};
pub use measure::{MeasureOptions, Measurement, measure, measure_sessions};
pub use pricing::{LayerCandidates, Progress, TableOptions, build_table};
pub use session::{Model, Session, SessionOptions};
pub use synthetic::random_weights;
pub use table::{Entry, LayerRow, Table};

/// What functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;
