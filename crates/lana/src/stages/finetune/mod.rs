//! Phase 3: the chosen student learns from labels and from what the teacher makes of the same images.
//!
//! [`train`] is the training of any network under a [`Recipe`]; [`trial`] measures before it begins what a recipe leaves open (the
//! batch that fits into memory, number formats, how the cores are used); [`position`] is how far it is, and its files; [`answers`]
//! keeps what the teacher said for the trainings that follow. Here is what the stage reads and writes for the student of a budget.

mod answers;
mod position;
mod train;
mod trial;

use std::path::PathBuf;

use lana_graph::{Graph, Weights};
use serde::{Deserialize, Serialize};

use crate::context::{Context, Teacher};
use crate::run::read_or_redo;
use crate::stages::export::read_network;
use crate::stages::library::Library;
use crate::stages::select;
use crate::{
    Accuracy, Assessment, Budget, EpochRecord, Recipe, Result, checkpoint, sha256, write_atomic, write_json,
};
use position::{Best, Position};
pub(crate) use train::Trainer;
use trial::Settled;

/// `budgets/BUDGET/finetune/finetuned.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The selection that was trained.
    pub(crate) choices: Vec<String>,
    /// How.
    pub(crate) config: Recipe,
    /// What the recipe left open.
    #[serde(default)]
    pub(crate) settled: Option<Settled>,
    /// Validation accuracy before, with batch statistics.
    pub(crate) start: Accuracy,
    /// The curve.
    pub(crate) epochs: Vec<EpochRecord>,
    /// Whether the weights are the average over the training.
    #[serde(default)]
    pub(crate) averaged: bool,
    /// What the weights of `best.safetensors` are.
    #[serde(default)]
    pub(crate) best: Option<Best>,
    /// The trained student on the validation images.
    #[serde(default)]
    pub(crate) assessment: Option<Assessment>,
    /// SHA-256 of the weights beside it.
    pub(crate) sha256: String,
}

/// A fine-tuned student.
pub(crate) struct Finetuned {
    pub(crate) graph: Graph,
    pub(crate) weights: Weights,
    pub(crate) record: Record,
}

/// The recipe, without matching feature maps where the network gives none like the teacher's, and without freezing where it has
/// nothing of those names.
pub(crate) fn trainable(
    context: &Context<'_>,
    recipe: &Recipe,
    graph: &Graph,
    teacher: &Teacher,
    title: &str,
) -> Recipe {
    let mut recipe = recipe.clone();
    if let Err(error) = recipe.matched(graph, &teacher.graph) {
        context.progress.warn(&format!("{title}: {error}; it learns from logits and labels alone"));
        recipe.features = 0.0.into();
    }
    if let Err(error) = recipe.frozen(graph) {
        context.progress.warn(&format!("{title}: {error}; all of it is trained"));
        recipe.freeze.clear();
    }
    recipe
}

fn folder(context: &Context<'_>, budget: &Budget) -> PathBuf {
    context.budget_dir(budget).join("finetune")
}

/// The fine-tuned student of the current selection and recipe, if there is one.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<Finetuned>> {
    let folder = folder(context, budget);
    let Some(record) = read_or_redo::<Record>(&folder.join("finetuned.json"), context.progress)? else {
        return Ok(None);
    };
    let current = select::stored(context, budget)?.map(|c| c.candidates[c.winner].choices.clone());
    if !record.config.trains_like(&context.config.finetune) || current.as_ref() != Some(&record.choices) {
        return Ok(None);
    }
    match read_network(&folder, &record.sha256) {
        Ok((graph, weights)) => Ok(Some(Finetuned { graph, weights, record })),
        Err(error) => {
            context.progress.warn(&format!("{error}; the student is fine-tuned again"));
            Ok(None)
        }
    }
}

/// Epochs done, and seconds left by the epochs so far.
pub(crate) fn progress(context: &Context<'_>, budget: &Budget) -> Result<(u64, Option<f64>)> {
    let total = context.config.finetune.epochs as u64;
    if stored(context, budget)?.is_some() {
        return Ok((total, Some(0.0)));
    }
    let Some((_, position)) = checkpoint::load::<Position>(&folder(context, budget), context.progress)?
    else {
        return Ok((0, None));
    };
    let done = position.epochs.len() as u64;
    let seconds = position.epochs.iter().map(|e| e.seconds).sum::<f64>();
    Ok((done, (done > 0).then(|| seconds / done as f64 * total.saturating_sub(done) as f64)))
}

/// The student that was selected for a budget, before it is fine-tuned.
pub(crate) fn selected(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
) -> Result<(Vec<String>, Graph, Weights)> {
    let selection = select::stored(context, budget)?
        .ok_or_else(|| context.not_ready(&format!("the selection for {budget}"), "select --evaluate"))?;
    let choices = selection.candidates[selection.winner].choices.clone();
    let pool = context.pool(&teacher.graph)?;
    let (graph, weights) = Library::of(context, teacher, &pool)?.assemble(&choices)?;
    Ok((choices, graph, weights))
}

/// Fine-tunes the student of a budget, unless that is done.
pub(crate) fn run(context: &Context<'_>, budget: &Budget) -> Result<()> {
    if stored(context, budget)?.is_some() {
        return Ok(());
    }
    let (teacher, _) = context.teacher()?;
    // The integer program alone has not decided: its solutions are evaluated first.
    select::run(context, budget)?;
    let (choices, graph, weights) = selected(context, budget, &teacher)?;
    let folder = folder(context, budget);
    let trainer = Trainer {
        context,
        teacher: Some(&teacher),
        recipe: &context.config.finetune,
        input: &teacher,
        title: &context.title("finetune", budget),
        key: choices.join(","),
        folder: &folder,
        images: None,
        held_out: 0,
    };
    let trained = trainer.train(&graph, &weights)?;
    let bytes = trained.weights.to_bytes();
    write_atomic(&folder.join("graph.json"), graph.to_json().as_bytes())?;
    write_atomic(&folder.join("weights.safetensors"), &bytes)?;
    let record = Record {
        choices,
        config: context.config.finetune.clone(),
        settled: Some(trained.settled),
        start: trained.start,
        epochs: trained.epochs,
        averaged: trained.averaged,
        best: trained.best,
        assessment: Some(trained.assessment),
        sha256: sha256(&bytes),
    };
    write_json(&folder.join("finetuned.json"), &record)?;
    checkpoint::clear(&folder)
}
