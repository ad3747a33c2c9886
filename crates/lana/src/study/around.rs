//! Does the program select better when it knows what other layers have? Two ways to tell it, both by more measurements: scores taken
//! again around a selection, from which it may then go few layers far (sequential linearisation with a trust region), and terms for
//! pairs of neighbouring layers.

use std::collections::BTreeMap;

use lana_select::Problem;

use super::selection::{LATENCY, latency, limit, names};
use crate::Result;
use crate::program::near;

/// Layers that a step may change.
const REGION: usize = 3;
/// Steps of latency that the budget is divided into where pairs are solved for.
const STEPS: usize = 4000;

/// Divergences of selections from the teacher, in their order.
pub(super) type Measure<'a> = dyn Fn(&[Vec<String>]) -> Result<Vec<f64>> + 'a;

/// Selections that were found and measured on the way.
pub(super) struct Trail {
    pub(super) selections: Vec<Vec<String>>,
    /// Networks measured for each step.
    pub(super) measured: Vec<usize>,
}

/// From `from` on, each step measures what every single exchange does to the best selection so far, and looks among those that differ
/// from it in a few layers for the least sums.
pub(super) fn linearised(
    problem: &Problem,
    from: &[String],
    steps: usize,
    measure: &Measure<'_>,
) -> Result<Trail> {
    let mut trail = Trail { selections: Vec::new(), measured: Vec::new() };
    let mut best = from.to_vec();
    for _ in 0..steps {
        let mut exchanges = vec![best.clone()];
        for (index, layer) in problem.layers.iter().enumerate() {
            for choice in layer.choices.iter().filter(|choice| choice.name != best[index]) {
                let mut other = best.clone();
                other[index].clone_from(&choice.name);
                exchanges.push(other);
            }
        }
        let values = measure(&exchanges)?;
        let mut added = values[1..].iter().map(|value| value - values[0]);
        let mut around = problem.clone();
        for (layer, own) in around.layers.iter_mut().zip(&best) {
            for choice in &mut layer.choices {
                choice.score = if choice.name == *own { 0.0 } else { added.next().unwrap_or(f64::NAN) };
            }
            // What gives no finite number is no choice.
            layer.choices.retain(|choice| choice.score.is_finite());
        }
        let (found, least) = step(&near(&around, &best, REGION, std::slice::from_ref(&best)), measure)?;
        trail.measured.push(exchanges.len() + found.len());
        trail.selections.extend(found);
        if let Some(least) = least.filter(|(_, value)| *value < values[0]) {
            best = least.0;
        }
    }
    Ok(trail)
}

/// The same number of measurements as for a [`linearised`] search, spent on what the scores as they are say of selections near the best.
pub(super) fn climbed(
    problem: &Problem,
    from: &[String],
    measured: &[usize],
    measure: &Measure<'_>,
) -> Result<Trail> {
    let mut trail = Trail { selections: Vec::new(), measured: Vec::new() };
    let (mut best, mut lowest) = (from.to_vec(), measure(&[from.to_vec()])?[0]);
    let mut seen = vec![best.clone()];
    for &count in measured {
        let problem = Problem { solutions: count, ..near(problem, &best, REGION, &seen) };
        let (found, least) = step(&problem, measure)?;
        seen.extend(found.iter().cloned());
        trail.measured.push(found.len());
        trail.selections.extend(found);
        if let Some((choices, value)) = least.filter(|(_, value)| *value < lowest) {
            (best, lowest) = (choices, value);
        }
    }
    Ok(trail)
}

/// Solutions of a problem, and the one that measures least.
#[allow(clippy::type_complexity)] // used here alone
fn step(problem: &Problem, measure: &Measure<'_>) -> Result<(Vec<Vec<String>>, Option<(Vec<String>, f64)>)> {
    let solutions = lana_select::solve(&Problem { gap: 0.0, ..problem.clone() })?.solutions;
    let found: Vec<Vec<String>> = solutions.into_iter().map(|solution| solution.choices).collect();
    let values = measure(&found)?;
    let least = found.iter().cloned().zip(values).min_by(|a, b| a.1.total_cmp(&b.1));
    Ok((found, least))
}

/// Selections with the least sum of scores and of what neighbouring layers add to each other's: with D for the divergence of the teacher
/// with these operations in it, D(both) - D(one) - D(other). Only between operations that `selections` have there.
pub(super) fn with_pairs(
    problem: &Problem,
    selections: &[Vec<String>],
    measure: &Measure<'_>,
) -> Result<Trail> {
    let offered: Vec<Vec<usize>> = (0..problem.layers.len())
        .map(|index| {
            let taken = |name: &str| selections.iter().any(|choices| choices[index] == name);
            let choices = problem.layers[index].choices.iter().enumerate();
            choices.filter(|(_, choice)| taken(&choice.name)).map(|(choice, _)| choice).collect()
        })
        .collect();
    let name = |layer: usize, choice: usize| problem.layers[layer].choices[choice].name.as_str();
    // Networks in which one or two neighbouring layers are not the teacher's.
    let mut places: Vec<Vec<(usize, usize)>> = Vec::new();
    let changed =
        |layer: usize| offered[layer].iter().copied().filter(move |&choice| name(layer, choice) != "teacher");
    for layer in 0..offered.len() {
        places.extend(changed(layer).map(|choice| vec![(layer, choice)]));
        if layer + 1 < offered.len() {
            places.extend(
                changed(layer).flat_map(|one| {
                    changed(layer + 1).map(move |other| vec![(layer, one), (layer + 1, other)])
                }),
            );
        }
    }
    let network = |place: &Vec<(usize, usize)>| {
        let mut choices = vec!["teacher".to_string(); offered.len()];
        place.iter().for_each(|&(layer, choice)| choices[layer] = name(layer, choice).into());
        choices
    };
    let values = measure(&places.iter().map(network).collect::<Vec<_>>())?;
    let known: BTreeMap<&[(usize, usize)], f64> = places.iter().map(Vec::as_slice).zip(values).collect();
    let together = |one: (usize, usize), other: (usize, usize)| {
        let value = |place: &[(usize, usize)]| known.get(place).copied();
        let pair = value(&[one, other]).zip(value(&[one])).zip(value(&[other]));
        pair.map_or(0.0, |((both, one), other)| both - one - other)
    };
    let mut measured = vec![places.len()];
    let selections = chain(problem, &offered, together);
    measured.push(selections.len());
    Ok(Trail { selections, measured })
}

/// Dynamic programming over layers, their choices and the latency so far: the best of each end.
fn chain(
    problem: &Problem,
    offered: &[Vec<usize>],
    together: impl Fn((usize, usize), (usize, usize)) -> f64,
) -> Vec<Vec<String>> {
    let unit = limit(problem) / STEPS as f64;
    let steps = |layer: usize, choice: usize| {
        let cost = problem.layers[layer].choices[choice].costs.get(LATENCY).copied().unwrap_or(0.0);
        (cost / unit).ceil().max(0.0) as usize
    };
    // By last choice and latency: the least sum, and what it is of.
    let mut ends: BTreeMap<(usize, usize), (f64, Vec<usize>)> = BTreeMap::new();
    for (layer, choices) in offered.iter().enumerate() {
        let mut next: BTreeMap<(usize, usize), (f64, Vec<usize>)> = BTreeMap::new();
        let nothing = BTreeMap::from([((0, 0), (0.0, Vec::new()))]);
        for (&(last, spent), (sum, before)) in if layer == 0 { &nothing } else { &ends } {
            for &choice in choices {
                let spent = spent + steps(layer, choice);
                if spent > STEPS {
                    continue;
                }
                let pair = if layer == 0 { 0.0 } else { together((layer - 1, last), (layer, choice)) };
                let sum = sum + problem.layers[layer].choices[choice].score + pair;
                if next.get(&(choice, spent)).is_none_or(|(least, _)| sum < *least) {
                    let selection = before.iter().copied().chain([choice]).collect();
                    next.insert((choice, spent), (sum, selection));
                }
            }
        }
        ends = next;
    }
    let mut found: Vec<(f64, Vec<usize>)> = ends.into_values().collect();
    found.retain(|(_, selection)| latency(problem, selection) <= limit(problem));
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    found.into_iter().take(problem.solutions).map(|(_, selection)| names(problem, &selection)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::problem;

    /// The sum of a problem's scores, and 5 for identities side by side.
    fn divergence(problem: &Problem, choices: &[String]) -> f64 {
        let of = |(layer, name): (&lana_select::Layer, &String)| {
            layer.choices.iter().find(|choice| choice.name == *name).unwrap().score
        };
        let pairs = choices.windows(2).filter(|pair| pair.iter().all(|name| name == "identity")).count();
        problem.layers.iter().zip(choices).map(of).sum::<f64>() + 5.0 * pairs as f64
    }

    #[test]
    fn pairs_and_new_scores_keep_identities_apart() {
        let mut problem = Problem { solutions: 3, ..problem() };
        // 8 of 16 ms, and halves that cost more than leaving a layer out: two layers must go.
        problem.budgets.get_mut(LATENCY).unwrap().max = Some(8.0);
        for layer in &mut problem.layers {
            layer.choices[1].score = 10.0;
        }
        let measure =
            |all: &[Vec<String>]| Ok(all.iter().map(|choices| divergence(&problem, choices)).collect());
        let alone = lana_select::solve(&problem).unwrap().solutions;
        assert_eq!(alone[0].choices, ["identity", "identity", "teacher", "teacher"]);
        let apart = ["identity", "teacher", "identity", "teacher"];
        let selections: Vec<Vec<String>> =
            ["teacher", "identity"].map(|name| vec![name.to_string(); 4]).into();
        assert_eq!(with_pairs(&problem, &selections, &measure).unwrap().selections[0], apart);
        let trail = linearised(&problem, &alone[0].choices, 1, &measure).unwrap();
        assert_eq!(trail.measured, [1 + 8 + 3]);
        let least = trail
            .selections
            .iter()
            .min_by(|a, b| divergence(&problem, a).total_cmp(&divergence(&problem, b)));
        assert_eq!(least.unwrap(), &apart);
        // As many measurements, and none twice.
        let climbed = climbed(&problem, &alone[0].choices, &[2, 2], &measure).unwrap();
        assert_eq!(climbed.measured, [2, 2]);
        assert!(climbed.selections[..2].iter().all(|one| !climbed.selections[2..].contains(one)));
    }
}
