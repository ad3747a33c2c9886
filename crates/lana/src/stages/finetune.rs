//! Phase 3: the chosen student learns from labels and from the teacher's answers.
//!
//! One thread decodes and runs the teacher on the batches to come, another trains the student on the one at hand.

use std::path::{Path, PathBuf};
use std::time::Instant;

use lana_data::{Augment, Loader, LoaderConfig};
use lana_graph::{Graph, Weights};
use lana_torch::{Algorithm, Batch, BatchNorm, Device, Distiller, Network, Objective, Tensor, cosine};
use serde::{Deserialize, Serialize};

use crate::context::{Context, Teacher};
use crate::run::read_or_redo;
use crate::stages::export::read_network;
use crate::stages::library::Library;
use crate::stages::select;
use crate::{
    Accuracy, Budget, EpochRecord, Error, FinetuneConfig, Result, checkpoint, sha256, write_atomic,
    write_json,
};

/// `budgets/BUDGET/finetune/finetuned.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The selection that was trained.
    pub(crate) choices: Vec<String>,
    /// How.
    pub(crate) config: FinetuneConfig,
    /// Validation accuracy before, with batch statistics.
    pub(crate) start: Accuracy,
    /// The curve.
    pub(crate) epochs: Vec<EpochRecord>,
    /// SHA-256 of the weights beside it.
    pub(crate) sha256: String,
}

/// A fine-tuned student.
pub(crate) struct Finetuned {
    pub(crate) graph: Graph,
    pub(crate) weights: Weights,
    pub(crate) record: Record,
}

fn folder(context: &Context<'_>, budget: &Budget) -> PathBuf {
    context.run.budget_dir(budget).join("finetune")
}

/// The fine-tuned student of the current selection and recipe, if there is one.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<Finetuned>> {
    let folder = folder(context, budget);
    let Some(record) = read_or_redo::<Record>(&folder.join("finetuned.json"), context.progress)? else {
        return Ok(None);
    };
    let recipe =
        FinetuneConfig { checkpoint_s: record.config.checkpoint_s, ..context.config.finetune.clone() };
    let current = select::stored(context, budget)?.map(|c| c.candidates[c.winner].choices.clone());
    if record.config != recipe || current.as_ref() != Some(&record.choices) {
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

/// Fine-tunes the student of a budget, unless that is done.
pub(crate) fn run(context: &Context<'_>, budget: &Budget) -> Result<()> {
    if stored(context, budget)?.is_some() {
        return Ok(());
    }
    let (teacher, _) = context.teacher()?;
    // The integer program alone has not decided: its solutions are evaluated first.
    select::run(context, budget)?;
    let selection = select::stored(context, budget)?
        .ok_or_else(|| context.not_ready(&format!("the selection for {budget}"), "select --evaluate"))?;
    let choices = selection.candidates[selection.winner].choices.clone();
    let pool = context.pool(&teacher.graph)?;
    let (graph, weights) = Library::of(context, &teacher, &pool)?.assemble(&choices)?;
    let folder = folder(context, budget);
    let trainer = Trainer {
        context,
        teacher: Some(&teacher),
        recipe: &context.config.finetune,
        input: &teacher,
        title: &format!("finetune {budget}"),
        key: choices.join(","),
        folder: &folder,
    };
    let (weights, start, epochs) = trainer.train(&graph, &weights)?;
    let bytes = weights.to_bytes();
    write_atomic(&folder.join("graph.json"), graph.to_json().as_bytes())?;
    write_atomic(&folder.join("weights.safetensors"), &bytes)?;
    let config = context.config.finetune.clone();
    let record = Record { choices, config, start, epochs, sha256: sha256(&bytes) };
    write_json(&folder.join("finetuned.json"), &record)?;
    checkpoint::clear(&folder)
}

/// Trains a network on the run's training images, with a teacher or without.
pub(crate) struct Trainer<'a> {
    pub(crate) context: &'a Context<'a>,
    /// Whom to distil from; none to train on labels alone.
    pub(crate) teacher: Option<&'a Teacher>,
    pub(crate) recipe: &'a FinetuneConfig,
    /// The network whose input and preprocessing hold.
    pub(crate) input: &'a Teacher,
    pub(crate) title: &'a str,
    /// What distinguishes this training: a checkpoint of another is not taken up.
    pub(crate) key: String,
    /// Where checkpoints stand.
    pub(crate) folder: &'a Path,
}

/// How far training is: what stands beside the tensors of its checkpoint.
#[derive(Serialize, Deserialize)]
struct Position {
    key: String,
    recipe: FinetuneConfig,
    step: u64,
    start: Accuracy,
    epochs: Vec<EpochRecord>,
    loss_sum: f64,
    loss_count: u64,
    seconds: f64,
}

impl Trainer<'_> {
    /// Gives the trained weights, the accuracy before, and the curve.
    pub(crate) fn train(
        &self,
        graph: &Graph,
        weights: &Weights,
    ) -> Result<(Weights, Accuracy, Vec<EpochRecord>)> {
        // With a teacher the other cores run it; without one they would be idle.
        let threads = if self.teacher.is_some() { 1 } else { self.context.workers() };
        lana_torch::with_kernel_threads(threads, || self.train_on(graph, weights))
    }

    fn train_on(&self, graph: &Graph, weights: &Weights) -> Result<(Weights, Accuracy, Vec<EpochRecord>)> {
        let Trainer { context, recipe, input, .. } = self;
        let train = context.dataset(&context.config.train, input)?;
        let val = context.dataset(&context.config.val, input)?;
        let batch = recipe.batch.min(train.len());
        let loader_config = LoaderConfig {
            batch,
            shuffle: true,
            seed: context.config.seed.wrapping_add(1),
            drop_last: true,
            ..LoaderConfig::default()
        };
        let augment = Augment::CropFlip { padding: recipe.crop_padding };
        let loader = context.loader(&train, input, augment, loader_config)?;
        let val_loader = context.plain_loader(&val, input, 250, None)?;
        let per_epoch = loader.batches() as u64;
        let total = per_epoch * recipe.epochs as u64;
        let warm_up = (per_epoch / 4).clamp(1, (total / 4).max(1));

        let (mut distiller, mut position) = self.take_up(graph, weights, &val_loader)?;
        let progress = context.progress;
        progress.begin(self.title, total * batch as u64, "images");
        progress.advance(position.step * batch as u64, "");
        let mut saved = Instant::now();
        while position.step < total {
            let epoch = position.step / per_epoch;
            let first = (position.step % per_epoch) as usize;
            let teacher = match self.teacher {
                Some(t) => Some(Network::frozen(&t.graph, &t.weights, context.device)?),
                None => None,
            };
            let mut clock = Instant::now();
            let shape = input.graph.input_shape().clone();
            let (device, loader) = (context.device, &loader);
            std::thread::scope(|scope| -> Result<()> {
                let (send, receive) = crossbeam_channel::bounded(3);
                scope.spawn(move || {
                    for batch in loader.epoch_from(epoch, first) {
                        let item = prepare(batch, &shape, teacher.as_ref(), device);
                        let failed = item.is_err();
                        // The receiver is gone when training stopped with an error of its own.
                        if send.send(item).is_err() || failed {
                            return;
                        }
                    }
                });
                for item in receive {
                    let (batch, logits) = item?;
                    let rate = cosine(recipe.learning_rate, position.step, total, warm_up);
                    let loss = distiller.step(&batch, logits.as_ref(), rate)?;
                    position.step += 1;
                    position.loss_sum += loss;
                    position.loss_count += 1;
                    if position.step % 8 == 0 {
                        let mean = position.loss_sum / position.loss_count as f64;
                        progress.advance(position.step * batch.len() as u64, &format!("loss {mean:.3}"));
                    }
                    if saved.elapsed().as_secs_f64() > recipe.checkpoint_s {
                        position.seconds += clock.elapsed().as_secs_f64();
                        clock = Instant::now();
                        self.save(&distiller, &position)?;
                        saved = Instant::now();
                    }
                }
                Ok(())
            })?;
            if position.step != (epoch + 1) * per_epoch {
                return Err(Error::input(
                    "the training images ended early",
                    "check that the data did not change during the run",
                ));
            }
            let accuracy = context.accuracy(distiller.network(), &val_loader, BatchNorm::Running)?;
            position.seconds += clock.elapsed().as_secs_f64();
            let record = EpochRecord {
                epoch: epoch as usize + 1,
                train_loss: position.loss_sum / position.loss_count.max(1) as f64,
                val: accuracy,
                seconds: position.seconds,
            };
            position.epochs.push(record);
            (position.loss_sum, position.loss_count, position.seconds) = (0.0, 0, 0.0);
            progress.say(&format!(
                "{}: epoch {} of {}, loss {:.3}, validation top-1 {:.2} %",
                self.title,
                record.epoch,
                recipe.epochs,
                record.train_loss,
                100.0 * accuracy.top1
            ));
            context.run.event(self.title, serde_json::json!(record))?;
            self.save(&distiller, &position)?;
            saved = Instant::now();
        }
        let top1 = position.epochs.last().map_or(position.start.top1, |e| e.val.top1);
        progress.finish(&format!("top-1 {:.2} %", 100.0 * top1));
        Ok((distiller.network().weights()?, position.start, position.epochs))
    }

    fn take_up(&self, graph: &Graph, weights: &Weights, val: &Loader) -> Result<(Distiller, Position)> {
        let recipe = self.recipe;
        let algorithm = Algorithm::Sgd { momentum: 0.9, weight_decay: recipe.weight_decay };
        let objective = Objective { distillation: recipe.distillation, temperature: recipe.temperature };
        let device = self.context.device;
        let new = |weights: &Weights| Distiller::new(graph, weights, algorithm, objective, Some(5.0), device);
        if let Some((all, position)) = checkpoint::load::<Position>(self.folder, self.context.progress)?
            && position.key == self.key
            && (FinetuneConfig { checkpoint_s: recipe.checkpoint_s, ..position.recipe.clone() }) == *recipe
        {
            let mut distiller = new(&all.under("weights"))?;
            distiller.restore(&all.under("optimizer"))?;
            self.context.progress.say(&format!("{} goes on at step {}", self.title, position.step));
            return Ok((distiller, position));
        }
        let distiller = new(weights)?;
        let start = self.context.accuracy(distiller.network(), val, BatchNorm::Batch)?;
        let position = Position {
            key: self.key.clone(),
            recipe: recipe.clone(),
            step: 0,
            start,
            epochs: Vec::new(),
            loss_sum: 0.0,
            loss_count: 0,
            seconds: 0.0,
        };
        Ok((distiller, position))
    }

    fn save(&self, distiller: &Distiller, position: &Position) -> Result<()> {
        let (weights, optimizer) = distiller.checkpoint()?;
        let mut all = Weights::new();
        all.replace_under("weights", &weights);
        all.replace_under("optimizer", &optimizer);
        checkpoint::save(self.folder, position.step, &all, position)
    }
}

/// A decoded batch on the device, with the teacher's logits for it.
fn prepare(
    batch: Result<lana_data::Batch, lana_data::Error>,
    shape: &lana_graph::Shape,
    teacher: Option<&Network>,
    device: Device,
) -> Result<(Batch, Option<Tensor>)> {
    let batch = batch?;
    let batch = Batch::new(&batch.images, &batch.labels, shape, device)?;
    let logits = match teacher {
        Some(teacher) => {
            Some(lana_torch::without_gradients(|| teacher.forward(&batch.images, BatchNorm::Running))?)
        }
        None => None,
    };
    Ok((batch, logits))
}
