use std::num::NonZeroUsize;
use std::path::PathBuf;

use lana::{Config, Recipe, TrainedNetwork};
use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana train effnetv2_nano_cifar --train 'webdataset:train-{0000..0004}.tar' --val webdataset:test-0000.tar --out run
  lana accelerate --out run --budget 0.5x
  lana train resnet20_cifar --recipe mine.toml --epochs 20 --train cifar10:train --val cifar10:test_batch.bin --out small";

/// Train a network of the zoo from nothing, on labels alone
///
/// For images that there is no trained network for, and for smaller networks to compare a student with (`accelerate --compare
/// NAME=OUT/trained/weights.safetensors`). The folder is a run directory whose teacher is the network: `lana accelerate --out`
/// goes on with it. Goes on where it was interrupted, and does nothing when it is done already.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The network, one that `lana zoo` lists
    #[arg(value_name = "ARCH")]
    network: String,

    #[command(flatten)]
    options: super::Network,

    /// Training images: cifar10:PATH, imagefolder:PATH, webdataset:PATH, parquet:PATH or generated:NAME
    #[arg(long, value_name = "DATA")]
    train: String,

    /// Validation images, likewise
    #[arg(long, value_name = "DATA")]
    val: String,

    /// The run directory: created, or gone on with
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// How it is trained, a preset of `lana recipe` or a TOML file; what is said there of a teacher does not count
    #[arg(long, value_name = "NAME|FILE.toml", default_value = "cifar")]
    recipe: String,

    /// Passes over the training images [default: the recipe's]
    #[arg(long, value_name = "N")]
    epochs: Option<NonZeroUsize>,

    /// Where it is trained: cpu or cuda
    #[arg(long, default_value = "cpu")]
    device: String,

    /// Threads that train and decode, 0 for one per core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,

    /// Seed of everything random
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let mut recipe = Recipe::named(&self.recipe)?;
        if let Some(epochs) = self.epochs {
            recipe.epochs = epochs.get();
        }
        let config = Config {
            teacher: self.network.clone(),
            num_classes: self.options.num_classes,
            resolution: self.options.resolution,
            train: self.train.clone(),
            val: self.val.clone(),
            device: self.device.clone(),
            workers: self.workers,
            seed: self.seed,
            ..Config::default()
        };
        let trained = lana::train(&config, &recipe, &self.out, terminal)?;
        let weights = lana::trained_weights(&self.out);
        if self.json {
            let mut value = output::to_json(&trained)?;
            value["weights"] = json!(weights);
            return output::json(&value);
        }
        output::results(&format!("{}weights  {}\n", told(&trained), weights.display()))
    }
}

/// What it came to.
fn told(trained: &TrainedNetwork) -> String {
    let TrainedNetwork { network, assessment, epochs, cost, .. } = trained;
    format!(
        "{network}: top-1 {} ± {} after {} epochs on {} images of {}; {} parameters, {} MACs\n",
        format::percent(assessment.accuracy.top1),
        format::percent(assessment.top1_error),
        epochs.len(),
        assessment.accuracy.images,
        trained.val,
        format::short(cost.params),
        format::short(cost.macs),
    )
}
