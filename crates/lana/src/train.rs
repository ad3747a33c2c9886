//! Training a network of the zoo from nothing, on labels alone: a teacher for images that nobody has one for, or the smaller network
//! that a student is to be compared with.
//!
//! The run directory that it is trained in can be gone on with: its teacher is the network, its weights are those.

use std::path::{Path, PathBuf};

use lana_graph::{Cost, Weights};
use lana_models::init;
use serde::{Deserialize, Serialize};

use crate::accelerate::take_up;
use crate::context::{Context, Teacher};
use crate::run::read_or_redo;
use crate::stages::finetune::Trainer;
use crate::teacher::{self, Origin};
use crate::{
    Assessment, Config, EpochRecord, Error, Progress, Recipe, Result, checkpoint, sha256, write_atomic,
    write_json,
};

/// `trained/metrics.json`: a network that was trained from nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TrainedNetwork {
    /// Its name in the zoo.
    pub network: String,
    /// The images it was trained on.
    pub train: String,
    /// The images that `assessment` is of.
    pub val: String,
    /// How it was trained.
    pub recipe: Recipe,
    /// What else it depends on: input, classes, seed.
    pub setting: String,
    /// What it is right on.
    pub assessment: Assessment,
    /// The curve.
    pub epochs: Vec<EpochRecord>,
    /// Whether the weights are the average over the training.
    pub averaged: bool,
    /// Multiply-accumulates and parameters.
    pub cost: Cost,
    /// SHA-256 of the weights beside it.
    pub sha256: String,
}

/// Where the weights of a network are that was trained in a run directory.
pub fn trained_weights(run: &Path) -> PathBuf {
    run.join("trained").join("weights.safetensors")
}

/// Trains the network that `config` calls its teacher by `recipe` from random weights, in the run directory `out`, which then has it
/// as its teacher; goes on where that was interrupted, and does nothing if it is done.
///
/// # Errors
/// If it is no network of the zoo, images cannot be read, training diverges, or the run has a teacher already that was not trained so.
pub fn train(
    config: &Config,
    recipe: &Recipe,
    out: &Path,
    progress: &dyn Progress,
) -> Result<TrainedNetwork> {
    if teacher::is_file(&config.teacher) {
        return Err(Error::input(
            format!("{}: only networks of the zoo are trained from nothing", config.teacher),
            "`lana zoo` lists them; a network of your own is trained by the tool it comes from",
        ));
    }
    recipe.validate("")?;
    let config = Config { weights: Some(trained_weights(out).into()), ..config.clone() };
    // A name that is wrong makes no folder.
    teacher::read(&config)?;
    learn(&take_up(&config, out, progress)?, recipe)
}

/// Trains the teacher of a run that has none yet.
pub(crate) fn learn(context: &Context<'_>, recipe: &Recipe) -> Result<TrainedNetwork> {
    let config = &context.config;
    let Origin { graph, preprocessing, .. } = teacher::read(config)?;
    let path = trained_weights(context.run.root());
    let folder = context.run.path("trained");
    let metrics = folder.join("metrics.json");
    let setting = format!(
        "{} to {}, {preprocessing:?}, seed {}",
        graph.input_shape(),
        graph.output_shape(),
        config.seed
    );
    let is_it = |known: &TrainedNetwork| {
        (&known.network, &known.train, &known.val) == (&config.teacher, &config.train, &config.val)
            && known.recipe.trains_like(recipe)
            && known.setting == setting
    };
    let known = read_or_redo::<TrainedNetwork>(&metrics, context.progress)?;
    if let Some(known) = known.filter(is_it) {
        if std::fs::read(&path).is_ok_and(|bytes| sha256(&bytes) == known.sha256) {
            return Ok(known);
        }
        context.progress.warn(&format!("{} is missing or damaged; it is trained again", path.display()));
    }
    if context.run.path("teacher/metrics.json").is_file() {
        return Err(Error::input(
            format!(
                "{}: the run has a teacher, which was not trained like this",
                context.run.root().display()
            ),
            "give another --out for a network that is trained otherwise",
        ));
    }
    let start = init::random(&graph, config.seed);
    let network = Teacher { graph, weights: Weights::new(), preprocessing };
    let trainer = Trainer {
        context,
        teacher: None,
        recipe,
        input: &network,
        title: "train",
        key: format!("{} {setting}", config.teacher),
        folder: &folder,
        images: None,
        held_out: 0,
    };
    let trained = trainer.train(&network.graph, &start)?;
    let bytes = trained.weights.to_bytes();
    write_atomic(&path, &bytes)?;
    let record = TrainedNetwork {
        network: config.teacher.clone(),
        train: config.train.clone(),
        val: config.val.clone(),
        recipe: recipe.clone(),
        setting,
        assessment: trained.assessment,
        epochs: trained.epochs,
        averaged: trained.averaged,
        cost: network.graph.deployed_cost(),
        sha256: sha256(&bytes),
    };
    write_json(&metrics, &record)?;
    context.run.event(
        "train",
        serde_json::json!({"network": record.network, "top1": record.assessment.accuracy.top1}),
    )?;
    checkpoint::clear(&folder)?;
    Ok(record)
}
