//! What is phase 1 worth in the end, and how many images does it need?
//!
//! One selection, the winner of a budget, is fine-tuned from several starts under the same recipe: random weights, what
//! operations take over from the teacher's weights, and phase 1 on so many images. Only the selected operations are trained.

use std::path::Path;

use lana_models::init;
use lana_torch::{BatchNorm, Network};
use serde::{Deserialize, Serialize};

use crate::accelerate::take_up;
use crate::context::{Context, LayerPool, Teacher};
use crate::run::read_or_redo;
use crate::stages::finetune::Trainer;
use crate::stages::library::Library;
use crate::stages::{pretrain, score, select, teacher};
use crate::{Budget, Config, Error, PretrainConfig, Progress, Result, SelectConfig, write_json};

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PretrainingOptions {
    /// Images in phase 1, a row for each.
    pub images: Vec<usize>,
    /// Passes over the training images in fine-tuning; none keeps the run's recipe.
    pub epochs: Option<usize>,
    /// Training images in fine-tuning; none takes all.
    pub finetuned: Option<usize>,
    /// Training images for the loss before fine-tuning.
    pub evaluated: usize,
}

impl Default for PretrainingOptions {
    fn default() -> Self {
        PretrainingOptions {
            images: vec![1_000, 5_000, 10_000, 50_000],
            epochs: None,
            finetuned: None,
            evaluated: 2000,
        }
    }
}

/// One start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainingRow {
    /// In words.
    pub start: String,
    /// Mean normalised error of the selected operations after phase 1; none where there was none.
    pub error: Option<f64>,
    /// Cross-entropy of the assembled network on training images, before fine-tuning, with batch statistics.
    pub loss: f64,
    /// Share of them that it gets right.
    pub top1: f64,
    /// Validation accuracy after each epoch of fine-tuning.
    pub finetuned: Vec<f64>,
    /// Standard error of the last one, by the number of validation images.
    pub error_of_top1: f64,
}

/// Fine-tunes the winner of a budget of `run` from several starts. What it makes, it keeps in `folder`; given again, it goes
/// on there.
///
/// # Errors
/// If the budget has no evaluated selection yet, or a stage fails.
pub fn pretraining_study(
    run: &Path,
    budget: &Budget,
    folder: &Path,
    options: &PretrainingOptions,
    progress: &dyn Progress,
) -> Result<Vec<PretrainingRow>> {
    let (config, choices, layers) = {
        let context = Context::open(run, progress)?;
        let (teacher, _) = context.teacher()?;
        let selection = select::stored(&context, budget)?
            .ok_or_else(|| context.not_ready(&format!("the selection for {budget}"), "select --evaluate"))?;
        let layers: Vec<String> = teacher.graph.layers().iter().map(|layer| layer.name.clone()).collect();
        (context.config, selection.candidates[selection.winner].choices.clone(), layers)
    };
    // Of every layer the selected operation alone.
    let pool_rules = layers.iter().zip(&choices).map(|(layer, choice)| format!("{layer}:{choice}")).collect();
    let mut finetune = config.finetune.clone();
    finetune.epochs = options.epochs.unwrap_or(finetune.epochs);
    let config = Config {
        budgets: Vec::new(),
        pool_rules,
        pretrain: PretrainConfig { keep_slow: true, ..config.pretrain },
        select: SelectConfig::default(),
        finetune,
        ..config
    };
    let mut starts = vec![Start::Random, Start::Teacher];
    starts.extend(options.images.iter().map(|&images| Start::Images(images)));
    starts.into_iter().map(|start| row(start, &config, &choices, folder, options, progress)).collect()
}

/// `row.json`: a row with what it was made by.
#[derive(Serialize, Deserialize)]
struct Stored {
    key: String,
    row: PretrainingRow,
}

#[derive(Clone, Copy)]
enum Start {
    Random,
    Teacher,
    Images(usize),
}

fn row(
    start: Start,
    config: &Config,
    choices: &[String],
    folder: &Path,
    options: &PretrainingOptions,
    progress: &dyn Progress,
) -> Result<PretrainingRow> {
    let (name, words) = match start {
        Start::Random => ("random".to_string(), "random weights".to_string()),
        Start::Teacher => ("teacher".to_string(), "the teacher's weights, phase 1 on no image".to_string()),
        Start::Images(images) => (format!("images-{images}"), format!("phase 1 on {images} images")),
    };
    let mut config = config.clone();
    if let Start::Images(images) = start {
        config.pretrain.images = images;
    }
    let mut context = take_up(&config, &folder.join(&name), progress)?;
    let path = context.run.path("row.json");
    let key = format!(
        "{} over {:?} images, evaluated on {}, {config:?}",
        choices.join(","),
        options.finetuned,
        options.evaluated
    );
    if let Some(stored) = read_or_redo::<Stored>(&path, progress)?.filter(|stored| stored.key == key) {
        return Ok(stored.row);
    }
    let (teacher, _) = teacher::run(&context)?;
    let pool = context.pool(&teacher.graph)?;
    let mut error = None;
    let (graph, weights) = match start {
        Start::Images(_) => {
            pretrain::run(&context, None)?;
            error = mean_error(&context, &pool)?;
            Library::of(&context, &teacher, &pool)?.assemble(choices)?
        }
        _ => untrained(start, &context, &teacher, &pool, choices)?,
    };
    context.config.score.images = options.evaluated;
    context.config.seed += 1;
    let network = Network::new(&graph, &weights, context.device)?;
    let mut total = lana_torch::Evaluation::default();
    for batch in score::scoring_images(&context, &teacher)? {
        total.add(&network, &batch, BatchNorm::Batch)?;
    }
    context.config.seed -= 1;
    let trainer = Trainer {
        context: &context,
        teacher: Some(&teacher),
        recipe: &context.config.finetune,
        input: &teacher,
        title: &format!("finetune {name}"),
        key: choices.join(","),
        folder: &context.run.path("finetune"),
        images: options.finetuned,
        held_out: 0,
    };
    let epochs = trainer.train(&graph, &weights)?.epochs;
    let last = epochs.last().map(|epoch| epoch.val);
    let row = PretrainingRow {
        start: words,
        error,
        loss: total.loss(),
        top1: total.top1(),
        finetuned: epochs.iter().map(|epoch| epoch.val.top1).collect(),
        error_of_top1: last.map_or(0.0, |accuracy| accuracy.top1_error()),
    };
    write_json(&path, &Stored { key, row: row.clone() })?;
    Ok(row)
}

/// Mean error of the trained operations on the images that settled their BatchNorms.
fn mean_error(context: &Context<'_>, pool: &[LayerPool]) -> Result<Option<f64>> {
    let mut errors = Vec::new();
    for place in pool {
        for (operation, graph) in &place.operations {
            if let Some(record) = pretrain::record_of(context, &place.layer, operation.name(), graph)? {
                errors.extend((!record.failed).then_some(record.error));
            }
        }
    }
    Ok((!errors.is_empty()).then(|| errors.iter().sum::<f64>() / errors.len() as f64))
}

/// The network of a selection whose operations have not been trained.
fn untrained(
    start: Start,
    context: &Context<'_>,
    teacher: &Teacher,
    pool: &[LayerPool],
    choices: &[String],
) -> Result<(lana_graph::Graph, lana_graph::Weights)> {
    let mut graph = teacher.graph.clone().renamed(format!("{}-student", teacher.graph.name()));
    let mut weights = teacher.weights.clone();
    for (index, (place, choice)) in pool.iter().zip(choices).enumerate() {
        if choice == "teacher" {
            continue;
        }
        let found = place.operations.iter().find(|(operation, _)| operation.name() == *choice);
        let (operation, built) = found.ok_or_else(|| {
            Error::input(
                format!("{}: there is no operation `{choice}`", place.layer),
                "the run was made by another version: make its selection again",
            )
        })?;
        let seed = pretrain::seed(context, index);
        let own = match start {
            Start::Random => init::random(built, seed),
            _ => {
                let own = teacher.graph.layer_weights(&place.layer, &teacher.weights)?;
                operation.initialise(&place.graph, &own, built, seed)?
            }
        };
        graph = graph.replace(&place.layer, built)?;
        teacher.graph.replace_weights(&place.layer, &mut weights, &own)?;
    }
    Ok((graph, weights))
}

/// The rows as a Markdown table.
pub fn pretraining_table(rows: &[PretrainingRow]) -> String {
    let epochs = rows.iter().map(|row| row.finetuned.len()).max().unwrap_or(0);
    let mut text = String::from("| start | mean error | loss before | top-1 before |");
    text += &(1..=epochs).map(|epoch| format!(" after epoch {epoch} |")).collect::<String>();
    text += &format!("\n|{}\n", "---|".repeat(4 + epochs));
    for row in rows {
        let error = row.error.map_or(String::new(), |error| format!("{error:.4}"));
        text += &format!("| {} | {error} | {:.3} | {:.1} % |", row.start, row.loss, 100.0 * row.top1);
        for (epoch, top1) in row.finetuned.iter().enumerate() {
            text += &match epoch + 1 == row.finetuned.len() {
                true => format!(" {:.2} ± {:.2} % |", 100.0 * top1, 100.0 * row.error_of_top1),
                false => format!(" {:.2} % |", 100.0 * top1),
            };
        }
        text.push('\n');
    }
    text
}
