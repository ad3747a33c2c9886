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
    // What is wrong makes no folder, and what is done leaves the run as it is.
    let (_, setting) = setting(&config)?;
    match known(&config, recipe, &setting, out, progress)? {
        Some(trained) => Ok(trained),
        None => learn(&take_up(&config, out, progress)?, recipe),
    }
}

/// The network that a configuration names, and what its training depends on besides images and recipe.
fn setting(config: &Config) -> Result<(Origin, String)> {
    let origin = teacher::read(config)?;
    let (graph, preprocessing) = (&origin.graph, &origin.preprocessing);
    let (input, output) = (graph.input_shape(), graph.output_shape());
    let setting = format!("{input} to {output}, {preprocessing:?}, seed {}", config.seed);
    Ok((origin, setting))
}

/// The network that was trained like this in a run directory, if one was.
fn known(
    config: &Config,
    recipe: &Recipe,
    setting: &str,
    out: &Path,
    progress: &dyn Progress,
) -> Result<Option<TrainedNetwork>> {
    const ELSEWHERE: &str = "give another --out for a network that is trained otherwise";
    let weights = trained_weights(out);
    let has_teacher = out.join("teacher/metrics.json").is_file();
    let metrics = weights.with_file_name("metrics.json");
    let Some(known) = read_or_redo::<TrainedNetwork>(&metrics, progress)? else {
        return match has_teacher {
            true => {
                let message =
                    format!("{}: the run has a teacher, which was not trained there", out.display());
                Err(Error::input(message, ELSEWHERE))
            }
            false => Ok(None),
        };
    };
    let is_it = (&known.network, &known.train, &known.val) == (&config.teacher, &config.train, &config.val)
        && known.recipe.trains_like(recipe)
        && known.setting == setting;
    if !is_it {
        let message = format!("{}: {} was trained there in another way", out.display(), known.network);
        return Err(Error::input(message, ELSEWHERE));
    }
    if std::fs::read(&weights).is_ok_and(|bytes| sha256(&bytes) == known.sha256) {
        return Ok(Some(known));
    }
    if has_teacher {
        return Err(Error::input(
            format!("{} is missing or damaged", weights.display()),
            "the run has taken the network in, and works without; to train it again give another --out",
        ));
    }
    progress.warn(&format!("{} is missing or damaged; it is trained again", weights.display()));
    Ok(None)
}

/// Trains the teacher of a run that has none yet.
pub(crate) fn learn(context: &Context<'_>, recipe: &Recipe) -> Result<TrainedNetwork> {
    let config = &context.config;
    let (Origin { graph, preprocessing, .. }, setting) = setting(config)?;
    if let Some(known) = known(config, recipe, &setting, context.run.root(), context.progress)? {
        return Ok(known);
    }
    let path = trained_weights(context.run.root());
    let folder = context.run.path("trained");
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
    write_json(&folder.join("metrics.json"), &record)?;
    context.run.event(
        "train",
        serde_json::json!({"network": record.network, "top1": record.assessment.accuracy.top1}),
    )?;
    checkpoint::clear(&folder)?;
    Ok(record)
}
