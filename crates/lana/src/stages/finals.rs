//! The last choice of a selection: the best of each floor is fine-tuned for a short while, and the one that does best becomes the
//! student.
//!
//! Before fine-tuning a network of thin operations has the lower loss and a network of few wide ones the higher, and after it may be the
//! other way round: by how much depends on network, budget and device. So it is tried. The finalists learn from the same few images
//! by the recipe of the run, and are judged on other training images, which they have not seen: validation images choose nothing.

use std::fs;

use crate::context::{Context, Teacher};
use crate::rounds::Rounds;
use crate::stages::finetune::{self, Trainer};
use crate::stages::library::Library;
use crate::{Accuracy, BatchSize, Budget, Error, Recipe, Result, write_json};

/// Images that finalists are judged on, where there are enough.
const HELD_OUT: usize = 5_000;
/// Share of the training images that may be held out, and of all that the recipe trains on that all finalists together may take.
const SHARE: usize = 4;
/// Images in a batch where the recipe leaves that to the memory there is.
const BATCH: usize = 64;
/// Fewer updates than these tell nothing: then the loss before fine-tuning decides.
const LEAST: usize = 8;

/// Which of `finalists`, indices of candidates, becomes the student: its place among them.
pub(crate) fn chosen(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
    library: &Library<'_>,
    rounds: &mut Rounds,
    finalists: &[usize],
) -> Result<usize> {
    let recipe = &context.config.finetune;
    let all = context.dataset(&context.config.train, teacher)?.len();
    let held_out = HELD_OUT.min(all / SHARE);
    let affordable = recipe.epochs.saturating_mul(all) / SHARE / finalists.len().max(1);
    let images = context.config.select.finalist_images.min(all - held_out).min(affordable);
    let by_loss = |rounds: &Rounds| {
        let loss = |&place: &usize| rounds.candidates[finalists[place]].loss;
        (0..finalists.len()).min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap_or(0)
    };
    let (short, update) = short(recipe);
    if finalists.len() < 2 || held_out == 0 || images < LEAST * update {
        return Ok(by_loss(rounds));
    }
    let tuned_by = format!("{short:?} on {images} images, judged on {held_out}");
    if rounds.tuned_by != tuned_by {
        rounds.candidates.iter_mut().for_each(|candidate| candidate.tuned = None);
        rounds.tuned_by.clone_from(&tuned_by);
    }
    let folder = context.budget_dir(budget).join("finalist");
    for (place, &index) in finalists.iter().enumerate() {
        if rounds.candidates[index].tuned.is_some() {
            continue;
        }
        let choices = rounds.candidates[index].choices.clone();
        let (graph, weights) = library.assemble(&choices)?;
        let title = context.title("select", budget);
        let title = format!("{title}, finalist {} of {}", place + 1, finalists.len());
        // A layer that is frozen may be one that this finalist leaves out.
        let recipe = finetune::trainable(context, &short, &graph, teacher, &title);
        let trainer = Trainer {
            context,
            teacher: Some(teacher),
            recipe: &recipe,
            input: teacher,
            title: &title,
            key: format!("{}; {tuned_by}", choices.join(",")),
            folder: &folder,
            images: Some(images + held_out),
            held_out,
        };
        match trainer.train(&graph, &weights) {
            Ok(trained) => rounds.candidates[index].tuned = Some(trained.assessment.accuracy),
            // What cannot be trained is no student. The checkpoint that the error names goes with the folder.
            Err(Error::Diverged { .. } | Error::Torch(lana_torch::Error::Diverged { .. })) => {
                context.progress.warn(&format!("{title}: diverges, and is left out"));
            }
            Err(other) => return Err(other),
        }
        write_json(&context.budget_dir(budget).join("rounds.json"), rounds)?;
        fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
    }
    let tuned: Vec<Option<Accuracy>> =
        finalists.iter().map(|&index| rounds.candidates[index].tuned).collect();
    Ok(widest_of_the_best(&tuned).unwrap_or_else(|| by_loss(rounds)))
}

/// The most accurate, and of those that differ from it by no more than the standard error of the difference the last, with the highest
/// floor: networks of wide operations gain more by the fine-tuning that follows.
fn widest_of_the_best(tuned: &[Option<Accuracy>]) -> Option<usize> {
    let all = tuned.iter().flatten();
    let best = all.reduce(|a, b| if b.is_better_than(a) { b } else { a })?;
    let as_good =
        |other: &Accuracy| best.top1 - other.top1 <= best.top1_error().hypot(other.top1_error()) + 1e-12;
    tuned.iter().rposition(|accuracy| accuracy.as_ref().is_some_and(as_good))
}

/// The recipe for a single pass over few images, and the images of an update. Where the batch is as large as memory allows it would make few updates of them, and not
/// the same number for all.
fn short(recipe: &Recipe) -> (Recipe, usize) {
    let (batch, accumulate) = match recipe.batch {
        BatchSize::Images(batch) => (batch, recipe.accumulate),
        _ => (BATCH, 1),
    };
    let warmup_epochs = recipe.warmup_epochs.min(0.1);
    let short =
        Recipe { epochs: 1, batch: batch.into(), accumulate, warmup_epochs, ema: 0.0, ..recipe.clone() };
    (short, batch * accumulate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_widest_of_those_that_cannot_be_told_apart() {
        let of = |top1: f64| Some(Accuracy { top1, top5: 1.0, loss: 1.0 - top1, images: 5_000 });
        // Standard errors of differences: about 0.6 to 0.8 points.
        assert_eq!(widest_of_the_best(&[of(0.889), of(0.8774), of(0.8696)]), Some(0));
        assert_eq!(widest_of_the_best(&[of(0.8144), of(0.6022), of(0.8106)]), Some(2));
        assert_eq!(widest_of_the_best(&[of(0.80), None, of(0.85)]), Some(2));
        assert_eq!(widest_of_the_best(&[of(0.80), of(0.85), None]), Some(1));
        assert_eq!(widest_of_the_best(&[None, None]), None);
        assert_eq!(widest_of_the_best(&[]), None);
    }
}
