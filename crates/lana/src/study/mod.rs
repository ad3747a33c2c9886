//! Whether the method does what it claims, tried on a run's own network and images.
//!
//! [`selection`]: can the scores be trusted, and does the proven optimum matter? [`around`]: and if scores knew of other layers? [`pretraining`]: what is phase 1 worth in
//! the end, and how many images does it need?

mod around;
mod pretraining;
mod selection;

pub use pretraining::{PretrainingOptions, PretrainingRow, pretraining_study, pretraining_table};
pub use selection::{ScoreKind, StudyOptions, StudyRow, study, study_table};
