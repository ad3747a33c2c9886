//! One budget row and nothing else: dynamic programming over Pareto-optimal partial sums.
//!
//! Layers are added from the last to the first. A state is a selection of the layers added so far, known by its
//! weight and score; of those, only states matter that are not beaten in both by another. Two bounds keep the
//! lists short: a state must leave room for the lightest items of the remaining layers, and its score, completed by the
//! Lagrangian bound of the remaining layers, must not exceed that of a known selection. Since the lists never
//! hold two states alike, ties and copies of the same layer, poison to branch and bound, cost nothing.

use std::time::Instant;

use crate::instance::{FRACTION, Instance};

/// More candidates than this in one layer, and the caller is better served by branch and bound.
const MAX_CANDIDATES: usize = 3_000_000;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct State {
    weight: i64,
    score: i64,
    item: u32,
    parent: u32,
}

/// The best selection of an instance with one budget row and no overlap rows, of those with equal score the lightest,
/// of those the first in lexicographic order of the choices.
///
/// `multiplier` is any multiplier of the row (the better, the shorter the lists), `at_most` the score of a known selection or more. `None`
/// if the lists grow too long or the deadline passes.
pub(crate) fn best(
    instance: &Instance,
    active: &[bool],
    multiplier: i128,
    at_most: i64,
    deadline: Instant,
) -> Option<Vec<usize>> {
    let layers = instance.layers();
    let capacity = instance.capacity[0];
    let weight = |item: usize| instance.weight[item];
    // Of the layers before each layer: lightest weight, and least score plus multiplier times weight.
    let mut lightest = vec![0i64; layers + 1];
    let mut least = vec![0i128; layers + 1];
    let relaxed =
        |item: usize| (i128::from(instance.score[item]) << FRACTION) + multiplier * i128::from(weight(item));
    for layer in 0..layers {
        let items = || instance.range(layer).filter(|&item| active[item]);
        lightest[layer + 1] = lightest[layer] + items().map(weight).min()?;
        least[layer + 1] = least[layer] + items().map(relaxed).min()?;
    }
    let ceiling = (i128::from(at_most) << FRACTION) + multiplier * i128::from(capacity);
    let mut lists: Vec<Vec<State>> = Vec::with_capacity(layers + 1);
    let mut list = vec![State { weight: 0, score: 0, item: 0, parent: 0 }];
    for layer in (0..layers).rev() {
        let items = instance.range(layer).filter(|&item| active[item]);
        if list.len() * items.clone().count() > MAX_CANDIDATES || Instant::now() > deadline {
            return None;
        }
        let mut candidates = Vec::new();
        for item in items {
            for (parent, state) in list.iter().enumerate() {
                let (weight, score) = (state.weight + weight(item), state.score + instance.score[item]);
                let completed =
                    (i128::from(score) << FRACTION) + multiplier * i128::from(weight) + least[layer];
                if weight + lightest[layer] <= capacity && completed <= ceiling {
                    candidates.push(State { weight, score, item: item as u32, parent: parent as u32 });
                }
            }
        }
        // Lightest first, then best, then lowest index: whatever does not improve on the score before it is beaten.
        candidates.sort_unstable();
        let mut score = i64::MAX;
        candidates.retain(|state| {
            let better = state.score < score;
            score = score.min(state.score);
            better
        });
        lists.push(std::mem::replace(&mut list, candidates));
    }
    // Scores fall along the list: the last state is the best, and the lightest with its score.
    let mut state = *list.last()?;
    let mut selection = Vec::with_capacity(layers);
    while let Some(list) = lists.pop() {
        selection.push(state.item as usize);
        state = list[state.parent as usize];
    }
    Some(selection)
}
