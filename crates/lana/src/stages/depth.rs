//! What leaving a layer out costs when other layers are left out too.
//!
//! A score is taken with everything else as in the teacher. Neighbouring layers of a residual network do similar work: any
//! one of them can be spared, all of them can't, and a sum of such scores picks too shallow a network. So for each budget a
//! preliminary selection is solved for, and the identity is scored once more at each layer: what it adds when those layers
//! are left out that the preliminary selection leaves out. With S for those layers and D for the divergence from the
//! teacher (or the loss) of the network without them, that is D(S with the layer) - D(S without it).
//!
//! The program takes the mean of both scores. Where layers interact in pairs, the first score knows nothing of the other
//! layers and the second counts each pair twice, once for either layer; their mean is the Shapley value of the layer, and
//! the sum over S is D(S) exactly. That holds where both are taken alike; here the second normalises by the statistics of the
//! batch, as candidates do, so that it also knows what renormalisation repairs. Measured, the mean selects better networks
//! than the first score alone, and than the mean of both taken with the batch's statistics (docs/results.md).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lana_models::pool::Operation;
use lana_select::Problem;
use lana_torch::Batch;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::program::{Priced, Program, search_settings};
use crate::stages::library::{Answers, Library};
use crate::{Budget, Estimate, Result, Score, Scores, read_or_redo, write_json};

/// `budgets/BUDGET/depth.json`, for a floor above 0 `depth-FLOOR.json`: scores of the identity, given other identities.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Depth {
    /// Layers that the preliminary selection leaves out.
    left_out: BTreeSet<String>,
    /// The scores that it was solved with, by layer, and what they were taken on: it holds for these.
    alone: BTreeMap<String, Score>,
    images: u64,
    seed: u64,
    /// What else the preliminary selection depended on.
    #[serde(default)]
    settings: String,
    /// What leaving a layer out adds to the others.
    given: BTreeMap<String, Score>,
}

/// Scores in which that of the identity is the mean of both; computes what is missing.
pub(crate) fn aware(
    context: &Context<'_>,
    library: &Library<'_>,
    program: &Program<'_>,
    budget: &Budget,
    tables: &[Priced],
    scores: &Scores,
    images: &[Batch],
) -> Result<Scores> {
    if let Some(depth) = stored(&context.budget_dir(budget), scores, program, context.progress)? {
        return Ok(depth.applied(scores));
    }
    let problem = Problem { solutions: 1, ..program.problem(Some(scores), tables, 1.0)? };
    let Some(preliminary) = lana_select::solve(&problem)?.solutions.into_iter().next() else {
        // Out of reach, which is said where the budget is solved for.
        return Ok(scores.clone());
    };
    let names: Vec<&str> = problem.layers.iter().map(|layer| layer.name.as_str()).collect();
    let may: Vec<usize> = (0..names.len())
        .filter(|&l| problem.layers[l].choices.iter().any(|c| c.name == Operation::IDENTITY))
        .collect();
    let left_out: BTreeSet<usize> =
        may.iter().copied().filter(|&layer| preliminary.choices[layer] == Operation::IDENTITY).collect();
    let without = |layers: &BTreeSet<usize>| -> Vec<String> {
        let choice = |layer| if layers.contains(&layer) { Operation::IDENTITY } else { "teacher" };
        (0..names.len()).map(|layer| choice(layer).to_string()).collect()
    };
    // S itself, and S with or without each layer.
    let mut selections = vec![without(&left_out)];
    for layer in &may {
        let mut toggled = left_out.clone();
        if !toggled.remove(layer) {
            toggled.insert(*layer);
        }
        selections.push(without(&toggled));
    }
    context.progress.begin(&format!("depth {budget}"), selections.len() as u64, "networks");
    let selections: Vec<&[String]> = selections.iter().map(Vec::as_slice).collect();
    let answers = library.answers(context, &selections, images)?;
    let (base, toggled) = (&answers[0], &answers[1..]);
    let mut given = BTreeMap::new();
    for (layer, other) in may.iter().zip(toggled) {
        let sign = if left_out.contains(layer) { -1.0 } else { 1.0 };
        let added = |of: fn(&Answers) -> &[f32]| {
            Estimate::of(of(other).iter().zip(of(base)).map(|(a, b)| sign * (f64::from(*a) - f64::from(*b))))
        };
        let score = Score { loss: added(|a| &a.losses), kl: added(|a| &a.divergences) };
        if score.loss.mean.is_finite() && score.kl.mean.is_finite() {
            given.insert(names[*layer].to_string(), score);
        }
    }
    let depth = Depth {
        left_out: left_out.iter().map(|&layer| names[layer].to_string()).collect(),
        alone: alone(scores),
        images: scores.images,
        seed: scores.seed,
        settings: search_settings(program.config),
        given,
    };
    write_json(&path(&context.budget_dir(budget), program.floor), &depth)?;
    context.progress.finish(&format!("{} of {} layers left out at first", depth.left_out.len(), names.len()));
    Ok(depth.applied(scores))
}

/// What has been computed for a budget, in its folder, if it belongs to these scores and settings of the selection.
pub(crate) fn stored(
    folder: &Path,
    scores: &Scores,
    program: &Program<'_>,
    progress: &dyn crate::Progress,
) -> Result<Option<Depth>> {
    let belongs = |d: &Depth| {
        (d.images, d.seed) == (scores.images, scores.seed)
            && d.alone == alone(scores)
            && d.settings == search_settings(program.config)
    };
    Ok(read_or_redo::<Depth>(&path(folder, program.floor), progress)?.filter(belongs))
}

fn path(folder: &Path, floor: f64) -> PathBuf {
    folder.join(if floor > 0.0 { format!("depth-{floor}.json") } else { "depth.json".into() })
}

/// The identity's own scores.
fn alone(scores: &Scores) -> BTreeMap<String, Score> {
    let own = |(layer, all): (&String, &BTreeMap<String, Score>)| {
        Some((layer.clone(), *all.get(Operation::IDENTITY)?))
    };
    scores.layers.iter().filter_map(own).collect()
}

impl Depth {
    pub(crate) fn applied(&self, scores: &Scores) -> Scores {
        let mut scores = scores.clone();
        for (layer, given) in &self.given {
            if let Some(own) = scores.layers.get_mut(layer).and_then(|all| all.get_mut(Operation::IDENTITY)) {
                *own = Score { loss: mean(own.loss, given.loss), kl: mean(own.kl, given.kl) };
            }
        }
        scores
    }
}

/// Of two estimates from the same images: their errors may go together.
fn mean(a: Estimate, b: Estimate) -> Estimate {
    Estimate { mean: (a.mean + b.mean) / 2.0, stderr: (a.stderr + b.stderr) / 2.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_layers_that_interact_in_pairs_the_means_sum_to_the_whole() {
        // D of a set: 0.1 for each layer and 0.3 for each pair. Alone 0.1; last of three 0.1 + 2 · 0.3; all three 1.2.
        let same =
            |mean| Score { loss: Estimate { mean, stderr: 0.01 }, kl: Estimate { mean, stderr: 0.01 } };
        let names = ["a", "b", "c"];
        let of = |mean| names.iter().map(|n| (n.to_string(), same(mean))).collect::<BTreeMap<_, _>>();
        let mut scores = Scores { images: 10, ..Scores::default() };
        for name in names {
            scores.layers.insert(name.into(), BTreeMap::from([(Operation::IDENTITY.into(), same(0.1))]));
        }
        let left_out = names.iter().map(|n| n.to_string()).collect();
        let depth = Depth {
            left_out,
            alone: alone(&scores),
            images: 10,
            given: of(0.7),
            seed: 0,
            settings: String::new(),
        };
        let applied = depth.applied(&scores);
        let sum: f64 = applied.layers.values().map(|l| l[Operation::IDENTITY].kl.mean).sum();
        assert!((sum - 1.2).abs() < 1e-12, "{sum}");
        // The scores they came from stay.
        assert_eq!(scores.layers["a"][Operation::IDENTITY], same(0.1));
    }
}
