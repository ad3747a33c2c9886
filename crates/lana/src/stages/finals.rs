//! The last choice of a selection: the best few of each floor are fine-tuned for a short while, and the one that does best becomes
//! the student.
//!
//! Before fine-tuning a network of thin operations has the lower loss and a network of few wide ones the higher, and after it may be the
//! other way round: by how much depends on network, budget and device. And of selections that are alike that loss hardly says which can
//! learn more. So it is tried. The finalists learn from the same few images
//! by the recipe of the run, and are judged on other training images, which they have not seen: validation images choose nothing.

use std::fs;

use crate::context::{Context, Teacher};
use crate::rounds::Rounds;
use crate::stages::finetune::{self, Trainer};
use crate::stages::library::Library;
use crate::{Accuracy, Answers, BatchSize, Budget, Candidate, Difference, Error, Recipe, Result, write_json};

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
    let by_loss = |rounds: &Rounds| {
        let loss = |&place: &usize| rounds.candidates[finalists[place]].loss;
        (0..finalists.len()).min_by(|a, b| loss(a).total_cmp(&loss(b))).unwrap_or(0)
    };
    let trial = Trial::of(recipe, context.config.select.finalist_images, all, finalists.len());
    let Some(Trial { images, held_out }) = trial.filter(|_| finalists.len() > 1) else {
        return Ok(by_loss(rounds));
    };
    let (short, _) = short(recipe);
    let tuned_by = format!("{short:?} on {images} images, judged on {held_out}");
    if rounds.tuned_by != tuned_by {
        for candidate in &mut rounds.candidates {
            (candidate.tuned, candidate.tuned_right) = (None, None);
        }
        rounds.tuned_by.clone_from(&tuned_by);
    }
    let folder = context.budget_dir(budget).join("finalist");
    for (place, &index) in finalists.iter().enumerate() {
        // Those of older versions have no answers.
        let Candidate { tuned, tuned_right, .. } = &rounds.candidates[index];
        if tuned.is_some() && tuned_right.is_some() {
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
            Ok(trained) => {
                let candidate = &mut rounds.candidates[index];
                candidate.tuned = Some(trained.assessment.accuracy);
                candidate.tuned_right = trained.assessment.right;
            }
            // What cannot be trained is no student. The checkpoint that the error names goes with the folder.
            Err(Error::Diverged { .. } | Error::Torch(lana_torch::Error::Diverged { .. })) => {
                context.progress.warn(&format!("{title}: diverges, and is left out"));
            }
            Err(other) => return Err(other),
        }
        write_json(&context.budget_dir(budget).join("rounds.json"), rounds)?;
        fs::remove_dir_all(&folder).map_err(Error::io(&folder))?;
    }
    let floors = &context.config.select.floors;
    let tuned = finalists.iter().enumerate().filter_map(|(place, &index)| {
        let Candidate { tuned, tuned_right, thinnest, .. } = &rounds.candidates[index];
        let width = floors.iter().filter(|floor| thinnest >= floor).count();
        Some(Tuned { place, width, accuracy: tuned.as_ref()?, right: tuned_right.as_ref() })
    });
    let tuned: Vec<Tuned<'_>> = tuned.collect();
    Ok(widest_of_the_best(&tuned).unwrap_or_else(|| by_loss(rounds)))
}

/// How many selections of each floor may be finalists: so many that each is fine-tuned on half of the images at least that one of each would be.
pub(crate) fn places(context: &Context<'_>, teacher: &Teacher, floors: usize) -> Result<usize> {
    let all = context.dataset(&context.config.train, teacher)?.len();
    let select = &context.config.select;
    Ok(Trial::places(&context.config.finetune, (select.finalist_images, select.finalists), all, floors))
}

/// What each finalist learns from and is judged on.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Trial {
    images: usize,
    held_out: usize,
}

impl Trial {
    /// For each of so many finalists, of `all` training images; none where they would learn too little to tell anything.
    fn of(recipe: &Recipe, wanted: usize, all: usize, finalists: usize) -> Option<Self> {
        let held_out = HELD_OUT.min(all / SHARE);
        let affordable = Self::together(recipe, all) / finalists.max(1);
        let images = wanted.min(all - held_out).min(affordable);
        let (_, update) = short(recipe);
        (held_out > 0 && images >= LEAST * update).then_some(Trial { images, held_out })
    }

    /// Finalists of each floor, `most` at most.
    fn places(recipe: &Recipe, (wanted, most): (usize, usize), all: usize, floors: usize) -> usize {
        let each =
            |places: usize| Self::of(recipe, wanted, all, places * floors).map_or(0, |trial| trial.images);
        let enough = wanted.min(all - HELD_OUT.min(all / SHARE)).div_ceil(2).max(1);
        let affordable = Self::together(recipe, all) / enough / floors.max(1);
        (2..=most.min(affordable)).rev().find(|&places| each(places) >= enough).unwrap_or(1)
    }

    /// Images that all finalists together may learn from.
    fn together(recipe: &Recipe, all: usize) -> usize {
        recipe.epochs.saturating_mul(all) / SHARE
    }
}

/// A finalist that was fine-tuned.
struct Tuned<'a> {
    /// Its place among the finalists.
    place: usize,
    /// Floors that it is above.
    width: usize,
    /// On held-out images.
    accuracy: &'a Accuracy,
    right: Option<&'a Answers>,
}

/// The most accurate; but of those that differ from it by no more than the standard error of the difference the one above the highest
/// floor, for networks of wide operations gain more by the fine-tuning that follows, and of these the one with the least loss.
fn widest_of_the_best(tuned: &[Tuned<'_>]) -> Option<usize> {
    let best = tuned.iter().reduce(|a, b| if b.accuracy.is_better_than(a.accuracy) { b } else { a })?;
    let as_good = |other: &&Tuned<'_>| {
        let apart = Difference::between((best.accuracy, best.right), (other.accuracy, other.right));
        apart.top1 <= apart.error + 1e-12
    };
    let by_width = |a: &&Tuned<'_>, b: &&Tuned<'_>| {
        a.width.cmp(&b.width).then_with(|| b.accuracy.loss.total_cmp(&a.accuracy.loss))
    };
    tuned.iter().filter(as_good).max_by(by_width).map(|chosen| chosen.place)
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
    fn more_finalists_where_there_is_time_for_them() {
        let recipe = |epochs, batch: usize| Recipe { epochs, batch: batch.into(), ..Recipe::default() };
        // Eight epochs of 50,000 images: nine learn from 11,111 each.
        let eight = recipe(8, 128);
        assert_eq!(Trial::places(&eight, (12_800, 3), 50_000, 3), 3);
        assert_eq!(Trial::of(&eight, 12_800, 50_000, 9), Some(Trial { images: 11_111, held_out: 5_000 }));
        // Two epochs: three learn from 8,333 each, six would from 4,166.
        assert_eq!(Trial::places(&recipe(2, 128), (12_800, 3), 50_000, 3), 1);
        assert_eq!(Trial::places(&recipe(4, 128), (12_800, 3), 50_000, 3), 2);
        // Few images, many epochs: what there is.
        assert_eq!(Trial::places(&recipe(30, 128), (12_800, 3), 5_000, 3), 3);
        // Eight updates of 1,024 images, or nothing is learnt: never so many that there would be fewer.
        let large = recipe(5, 1024);
        assert_eq!(Trial::places(&large, (12_800, 3), 50_000, 3), 2);
        assert!(
            Trial::of(&large, 12_800, 50_000, 6).is_some() && Trial::of(&large, 12_800, 50_000, 9).is_none()
        );
        for none in [Trial::of(&eight, 0, 50_000, 1), Trial::of(&eight, 12_800, 3, 1)] {
            assert_eq!(none, None);
        }
        assert_eq!(Trial::places(&eight, (0, 3), 50_000, 3), 1);
        // As many as anybody may ask for.
        assert_eq!(Trial::places(&eight, (12_800, usize::MAX), 50_000, 3), 5);
    }

    #[test]
    fn the_widest_of_those_that_cannot_be_told_apart() {
        let chosen = |finalists: &[(usize, f64)]| {
            let of = |top1: f64| Accuracy { top1, top5: 1.0, loss: 1.0 - top1, images: 5_000 };
            let accuracies: Vec<Accuracy> = finalists.iter().map(|(_, top1)| of(*top1)).collect();
            let all = finalists.iter().zip(&accuracies).enumerate();
            let all = all.map(|(place, ((width, _), accuracy))| Tuned {
                place,
                width: *width,
                accuracy,
                right: None,
            });
            widest_of_the_best(&all.collect::<Vec<_>>())
        };
        // Standard errors of differences: about 0.6 to 0.8 points.
        assert_eq!(chosen(&[(1, 0.889), (2, 0.8774), (3, 0.8696)]), Some(0));
        assert_eq!(chosen(&[(1, 0.8144), (2, 0.6022), (3, 0.8106)]), Some(2));
        // Of those that are as wide the one with the least loss.
        assert_eq!(chosen(&[(1, 0.8144), (3, 0.8110), (3, 0.8130), (3, 0.8100)]), Some(2));
        assert_eq!(chosen(&[(3, 0.80), (1, 0.85)]), Some(1));
        assert_eq!(chosen(&[]), None);
        // The same images tell more: of 5,000 all that the one has right, and 20 more.
        let right = |count: usize| (0..5_000).map(|at| at < count).collect::<Vec<_>>();
        let [one, other] = [4_000, 4_020].map(|count| {
            let accuracy = Accuracy { top1: count as f64 / 5e3, top5: 1.0, loss: 1.0, images: 5_000 };
            (accuracy, Answers::new(&right(count)))
        });
        let of = |place, width, (accuracy, right)| Tuned { place, width, accuracy, right: Some(right) };
        let both = [of(0, 3, (&one.0, &one.1)), of(1, 1, (&other.0, &other.1))];
        assert_eq!(widest_of_the_best(&both), Some(1));
    }
}
