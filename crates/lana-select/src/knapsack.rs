//! A sharper bound for a node: one budget row taken exactly, the other rows by their multipliers.
//!
//! The linear relaxation lets a layer take fractions of two items to use up the last of a budget. Dynamic programming does not:
//! over the layers it keeps, of all partial selections within the node's window, those that no other beats in both weight and
//! penalised score. The window is what lies between the Lagrangian bound and the cut value, usually so narrow that
//! some hundred partial selections remain. If none survives, the node holds nothing below the cut value.
//!
//! All numbers are the exact integers of [`Core::bound`]: an item's reduced value is its score, plus penalties for the row and for the
//! others, less the least of its layer. Taking back the row's own penalty leaves what is minimised here, and since those penalties
//! cancel without any rounding, so does the proof.

use crate::core::Core;

/// Partial selections that dynamic programming may keep in a node.
pub(crate) const MOST_STATES: usize = 3_000;

/// A partial selection.
#[derive(Debug, Clone, Copy)]
struct State {
    /// In the row.
    weight: i64,
    /// Reduced values without the row's penalty.
    value: i64,
    /// Reduced values: what the Lagrangian bound has risen by.
    reduced: i64,
    item: u32,
    parent: u32,
}

/// What is left of a node.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nothing.
    Nothing,
    /// More partial selections than are worth looking at.
    TooMuch,
    /// The best selection if the other rows count by their multipliers only: an item per layer, and a bound on all, above that
    /// of [`Core::bound`] by this.
    Best(Vec<usize>, i64),
}

/// The row that is taken exactly, as [`Core::bound`] has penalised it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row<'a> {
    pub(crate) row: usize,
    /// Penalty of each item in the row.
    pub(crate) penalty: &'a [i64],
    /// Penalty of the capacity.
    pub(crate) capacity: i64,
}

/// Buffers of the dynamic program.
#[derive(Debug, Default)]
pub(crate) struct Knapsack {
    lists: Vec<Vec<State>>,
    shifted: Vec<State>,
    merged: Vec<State>,
    lightest: Vec<i64>,
    dearest: Vec<i64>,
}

impl Knapsack {
    /// Looks at the selections of active items whose bound is at most `window` above the Lagrangian one.
    pub(crate) fn solve(
        &mut self,
        core: &Core,
        active: &[bool],
        reduced: &[i64],
        row: Row<'_>,
        window: i64,
        most: usize,
    ) -> Left {
        let layers = core.layers();
        let capacity = core.capacity[row.row];
        let kept = |item: &usize| active[*item] && reduced[*item] <= window;
        let weight = |item: usize| core.weights(item)[row.row];
        // Of the layers before each: least weight, and largest penalty.
        self.lightest.clear();
        self.lightest.push(0);
        self.dearest.clear();
        self.dearest.push(0);
        for layer in 0..layers {
            let items = || core.range(layer).filter(kept);
            let Some(lightest) = items().map(weight).min() else { return Left::Nothing };
            let dearest = items().map(|item| row.penalty[item]).max().unwrap_or(0);
            self.lightest.push(self.lightest[layer] + lightest);
            self.dearest.push(self.dearest[layer] + dearest);
        }
        self.lists.resize_with(layers + 1, Vec::new);
        self.lists[layers].clear();
        self.lists[layers].push(State { weight: 0, value: 0, reduced: 0, item: 0, parent: 0 });
        let mut total = 0;
        // From the last layer to the first, so that of selections alike the first in order of their items is kept.
        for layer in (0..layers).rev() {
            let (before, after) = self.lists.split_at_mut(layer + 1);
            let (list, from) = (&mut before[layer], &after[0]);
            list.clear();
            for item in core.range(layer).filter(kept) {
                let (own, reduced, penalty) = (weight(item), reduced[item], row.penalty[item]);
                self.shifted.clear();
                for (parent, state) in from.iter().enumerate() {
                    let state = State {
                        weight: state.weight + own,
                        value: state.value + reduced - penalty,
                        reduced: state.reduced + reduced,
                        item: item as u32,
                        parent: parent as u32,
                    };
                    if state.weight + self.lightest[layer] > capacity {
                        break;
                    }
                    let least = (state.value + row.capacity - self.dearest[layer]).max(state.reduced);
                    if least <= window {
                        self.shifted.push(state);
                    }
                }
                merge(list, &self.shifted, &mut self.merged);
                std::mem::swap(list, &mut self.merged);
            }
            if list.is_empty() {
                return Left::Nothing;
            }
            total += list.len();
            if total > most {
                return Left::TooMuch;
            }
        }
        // Values fall along the list: the last is the best, and the lightest of those as good.
        let mut state = self.lists[0][self.lists[0].len() - 1];
        let bound = state.value + row.capacity;
        let mut chosen = vec![0; layers];
        for (layer, chosen) in chosen.iter_mut().enumerate() {
            *chosen = state.item as usize;
            state = self.lists[layer + 1][state.parent as usize];
        }
        Left::Best(chosen, bound)
    }
}

/// Merges two lists by weight, without what is beaten: values fall along each and along the result.
fn merge(a: &[State], b: &[State], merged: &mut Vec<State>) {
    merged.clear();
    let (mut i, mut j, mut least) = (0, 0, i64::MAX);
    while i < a.len() || j < b.len() {
        let first = j >= b.len() || i < a.len() && (a[i].weight, a[i].value) <= (b[j].weight, b[j].value);
        let state = if first {
            i += 1;
            a[i - 1]
        } else {
            j += 1;
            b[j - 1]
        };
        if state.value < least {
            least = state.value;
            merged.push(state);
        }
    }
}
