//! The LANA pipeline (Molchanov et al., ECCV 2022): from a trained network, images, a device and a budget to a network
//! that, measured on that device, meets the budget with the least loss of accuracy.
//!
//! The steps, each in its module under `stages`, each resumable, all their results files of a [`Run`] directory:
//!
//! 1. *teacher*: the network and its weights are taken in, evaluated and exported.
//! 2. *profile*: the latency table of the device is measured, operations in the context of the whole network.
//! 3. *pretrain*: every operation of every layer learns to imitate its layer (phase 1).
//! 4. *score*: what replacing one layer by one operation does to the loss.
//! 5. *select*: the integer program under the budget; its K diverse solutions really evaluated and really timed (phase 2).
//! 6. *finetune*: the winner trained with distillation from the teacher (phase 3).
//! 7. *export* and *report*: ONNX verified against libtorch, figures measured again, everything on one page.
//!
//! [`accelerate`] runs them all. [`reselect`] answers at once what the integer program alone would select.
#![deny(missing_docs)]

mod accelerate;
mod budget;
mod checkpoint;
mod clock;
mod compare;
mod config;
mod context;
mod controls;
mod demo;
mod difference;
mod error;
mod footprint;
mod fresh;
mod inspect;
mod layers;
mod memory;
mod preprocessing;
mod program;
mod progress;
mod recipe;
mod records;
pub mod report;
mod reselect;
mod rounds;
mod rules;
mod run;
#[cfg(test)]
mod sample;
mod source;
mod speed;
mod stages;
mod study;
mod target;
mod teacher;
mod train;

pub use accelerate::{Preparation, accelerate, check_controls, prepare};
pub use budget::{Amount, Budget, Limit, Quantity};
pub use compare::{RecipeRow, compare_recipes};
pub use config::{Config, LatencyConfig, OptimizerKind, PretrainConfig, ScoreConfig, SelectConfig};
pub use controls::{Control, ControlMetrics, ControlTiming, NetworkControl, Timed};
pub use demo::{DemoOptions, DemoResult, demo};
pub use difference::{Answers, Difference};
pub use error::Error;
pub use fresh::{MEASURE_COMMAND, measure_in_processes_of, measure_request};
pub use inspect::{
    EvaluateOptions, NetworkFile, ZooBlock, ZooNetwork, ZooRow, evaluate, pool, pool_of_run, status, zoo,
    zoo_network,
};
pub use lana_data::{Augmentation, ColorJitter, EraseMode, RandAugment, TrainInterpolation};
pub use lana_graph::LayerRules;
pub use lana_latency::sha256;
pub use lana_latency::{Deployment, Precision, Processor, RuntimeKind};
pub use lana_models::pool::{FamilyInfo, families as pool_families};
pub use lana_models::zoo::{Interpolation, ZooOptions};
pub use layers::{NetworkLayers, Stretch, layers};
pub use memory::Memory;
pub use preprocessing::{Channels, Filter, PreprocessingConfig};
pub use progress::{Progress, Silent};
pub use recipe::{BatchSize, Course, MatchingKind, Recipe, ScheduleKind, Shape};
pub use records::*;
pub use reselect::{Change, Predicted, Previous, RuleChanges, Selection, reselect};
pub use run::{Run, read_json, read_or_redo, read_weights, write_atomic, write_json};
pub use source::{HubFile, WeightsSource};
pub use speed::{ScoreSpeed, score_speed};
pub use stages::tables::{Imported, check_table, force_table, import_table, make_table, write_bundle};
pub use stages::{
    Comparison, ControlOptions, ExportFormat, FinetuneOptions, PretrainOptions, Shard, Stage, control,
    export, finetune, pretrain, run_stage,
};
pub use study::{
    PretrainingOptions, PretrainingRow, ScoreKind, StudyOptions, StudyRow, pretraining_study,
    pretraining_table, study, study_table,
};

pub use train::{TrainedNetwork, train, trained_weights};

/// What functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A name as part of a path: letters, digits and dots as they are, a hyphen for whatever stands between them.
pub(crate) fn slug(name: &str) -> String {
    let parts = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.').filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-")
}
