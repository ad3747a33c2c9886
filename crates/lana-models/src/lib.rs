//! Teachers and candidate operations: functions that build [`lana_graph::Graph`]s.
//!
//! LANA (Molchanov et al., ECCV 2022) replaces the *layers* of a trained network, the *teacher*, by cheaper *operations*
//! out of a *pool*. This crate is where both come from, and they are made of the same blocks:
//!
//! * [`blocks`]: what networks are built of: convolution with normalisation, squeeze-and-excitation, the residual block
//!   of ResNets, MBConv and its fused form, the bottleneck.
//! * [`zoo`]: teachers by name, with the parameter names of the weights that people have.
//! * [`pool`]: candidate operations by name, whether they apply to a layer, and the weights they start from.
//! * [`init`]: random weights for a network that is trained from scratch.
//!
//! Nothing here runs a network: graphs and weights are data.
//!
//! ```
//! use lana_models::{init, pool::Pool, zoo, zoo::ZooOptions};
//!
//! let teacher = zoo::build("resnet20_cifar", &ZooOptions::default())?;
//! let weights = init::random(&teacher, 0);
//!
//! let layer = teacher.layer_graph("layer1.0")?;
//! let layer_weights = weights.under("layer1.0");
//! for (operation, graph) in Pool::compact().operations_for(&layer) {
//!     let Ok(graph) = graph else { continue };
//!     let student = teacher.replace("layer1.0", &graph)?;
//!     let mut student_weights = weights.clone();
//!     let start = operation.initialise(&layer, &layer_weights, &graph, 0)?;
//!     student_weights.replace_under("layer1.0", &start);
//!     student_weights.check(&student)?;
//! }
//! # Ok::<(), lana_models::Error>(())
//! ```
#![deny(missing_docs)]

pub mod blocks;
mod error;
pub mod init;
pub mod pool;
pub mod zoo;

pub use error::Error;

/// What functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;
