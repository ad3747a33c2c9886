//! Image classification data: from a line of text to batches of numbers.
//!
//! ```
//! use std::sync::Arc;
//! use lana_data::{Augmentation, DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, Transform};
//!
//! let spec: DataSpec = "generated:shapes?images=200".parse()?;
//! let dataset = Arc::new(Dataset::open(&spec, &DatasetOptions::default())?);
//! let transform = Transform::evaluation(32).with_augmentation(Augmentation::crop_flip(4));
//! let loader = Loader::new(dataset, transform, LoaderConfig { shuffle: true, ..Default::default() })?;
//! for batch in loader.epoch(0) {
//!     let batch = batch?;
//!     assert_eq!(batch.images.len(), batch.n * 3 * 32 * 32);
//! }
//! # Ok::<(), lana_data::Error>(())
//! ```
//!
//! The parts, in the order in which an image meets them:
//!
//! - [`DataSpec`]: which images, as the user writes it: `cifar10:PATH`, `imagefolder:PATH`, `webdataset:PATH`,
//!   `parquet:PATH`, `generated:shapes`.
//! - [`Dataset`]: all of them as RGB bytes with a label each; decoded once and kept if they are few, else decoded when needed.
//! - [`Transform`]: crop, [`Augmentation`] and normalisation, from bytes to `f32`.
//! - [`Loader`]: order, batches, and threads that make them ahead of time.
//!
//! Two promises hold throughout. What comes out is a function of the data and the seeds alone: never of the number of
//! threads, and an epoch taken up in the middle goes on as if it had not been interrupted. And what is wrong with
//! the data is said with the name of the file and what to do about it.

mod augmentation;
mod auto_augment;
mod cifar;
mod dataset;
mod error;
mod folder;
mod generated;
mod loader;
mod mix;
mod operation;
mod parquet;
mod picture;
mod random;
mod shapes;
mod source;
mod spec;
mod transform;
mod webdataset;

pub use augmentation::{Augmentation, ColorJitter, EraseMode, TrainInterpolation};
pub use auto_augment::RandAugment;
pub use dataset::{Dataset, DatasetOptions, Sample, Skipped};
pub use error::Error;
pub use loader::{Batch, Batches, Loader, LoaderConfig, Mix};
pub use operation::Operation;
pub use picture::{Area, Interpolation, Picture};
pub use spec::{DataSpec, GeneratedSpec, Split};
pub use transform::{Draw, Transform};
