//! The part of an instance that a search is about: what is left after the root has dropped items.
//!
//! Layers with one item left become constants, overlap rows that can no longer be violated disappear, and weights count
//! from the lightest item of their layer. What remains is small (some tens of layers with a handful of items each), lies flat
//! in memory, and is what every node works on.
//!
//! Here is also all that is exact about a node: propagation, and the Lagrangian bound in 64-bit fixed point.

use crate::instance::Instance;
use crate::relaxation::Multipliers;

/// No item.
pub(crate) const NONE: u32 = u32::MAX;

/// Binary digits after the point of bounds. Sums of scores have up to 37 digits before it.
pub(crate) const FRACTION: u32 = 16;

/// Products of multipliers and capacities stay below this many ticks; a multiplier beyond that is cut, which is valid. Many
/// budget rows share what room there is ([`ROWS_WITH_ROOM`]).
const LARGEST_PENALTY: f64 = (1u64 << 40) as f64;

/// As many rows at the largest penalty fit in an item's value with ease.
const ROWS_WITH_ROOM: usize = 16;

/// Likewise for a single use of an item by an overlap row: hundreds of them must fit in an item's value.
const LARGEST_OVERLAP_PENALTY: f64 = (1u64 << 36) as f64;

/// See the module documentation.
#[derive(Debug, Clone)]
pub(crate) struct Core {
    /// First item of each layer, and the number of items at the end.
    pub(crate) start: Vec<usize>,
    /// Layer of each item.
    pub(crate) layer: Vec<usize>,
    /// Score of each item.
    pub(crate) score: Vec<i64>,
    /// The number of budget rows.
    pub(crate) budgets: usize,
    /// Weight of each item above the lightest of its layer, item by item, one per budget row.
    pub(crate) weight: Vec<i64>,
    /// What the lightest items leave of each budget row; then the capacity left of each overlap row.
    pub(crate) capacity: Vec<i64>,
    /// Words of 64 overlap rows that `uses` has per item.
    words: usize,
    /// The overlap rows that count each item, as bits.
    uses: Vec<u64>,
    /// For each overlap row and layer the item that it counts, or [`NONE`].
    members: Vec<u32>,
    /// Scores of the layers that are decided.
    pub(crate) constant: i64,
    /// The items of the instance that are decided.
    decided: Vec<usize>,
    /// The item of the instance that each item is.
    origin: Vec<usize>,
    /// The row of the instance that each row is.
    pub(crate) row_origin: Vec<usize>,
}

impl Core {
    /// The core of the active items. Every layer must have one, and no row may be violated by the layers with only one.
    pub(crate) fn new(instance: &Instance, active: &[bool]) -> Core {
        let budgets = instance.budgets();
        let mut core = Core {
            start: vec![0],
            layer: Vec::new(),
            score: Vec::new(),
            budgets,
            weight: Vec::new(),
            capacity: instance.capacity.clone(),
            words: 0,
            uses: Vec::new(),
            members: Vec::new(),
            constant: 0,
            decided: Vec::new(),
            origin: Vec::new(),
            row_origin: (0..budgets).collect(),
        };
        let mut room = vec![instance.overlap_limit; instance.earlier];
        let mut reach = vec![0i64; instance.earlier];
        let mut last = vec![usize::MAX; instance.earlier];
        for layer in 0..instance.layers() {
            let items = || instance.range(layer).filter(|&item| active[item]);
            for (row, capacity) in core.capacity.iter_mut().enumerate() {
                *capacity -= items().map(|item| instance.weights(item)[row]).min().unwrap_or(0);
            }
            if items().nth(1).is_none() {
                for item in items() {
                    core.constant += instance.score[item];
                    core.decided.push(item);
                    instance.uses[item].iter().for_each(|&row| room[row as usize] -= 1);
                }
                continue;
            }
            for item in items() {
                core.layer.push(core.start.len() - 1);
                core.score.push(instance.score[item]);
                core.origin.push(item);
                for row in 0..budgets {
                    let least = items().map(|other| instance.weights(other)[row]).min().unwrap_or(0);
                    core.weight.push(instance.weights(item)[row] - least);
                }
                for &row in &instance.uses[item] {
                    if last[row as usize] != layer {
                        last[row as usize] = layer;
                        reach[row as usize] += 1;
                    }
                }
            }
            core.start.push(core.layer.len());
        }
        let rows: Vec<usize> = (0..instance.earlier).filter(|&row| reach[row] > room[row]).collect();
        core.words = rows.len().div_ceil(64);
        core.uses = vec![0; core.items() * core.words];
        core.members = vec![NONE; rows.len() * core.layers()];
        let mut place = vec![usize::MAX; instance.earlier];
        for (index, &row) in rows.iter().enumerate() {
            place[row] = index;
            core.capacity.push(room[row]);
            core.row_origin.push(budgets + row);
        }
        for (item, &origin) in core.origin.iter().enumerate() {
            for &row in &instance.uses[origin] {
                let index = place[row as usize];
                if index != usize::MAX {
                    core.uses[item * core.words + index / 64] |= 1 << (index % 64);
                    core.members[index * (core.start.len() - 1) + core.layer[item]] = item as u32;
                }
            }
        }
        core
    }

    pub(crate) fn layers(&self) -> usize {
        self.start.len() - 1
    }

    pub(crate) fn items(&self) -> usize {
        self.layer.len()
    }

    /// The number of rows: budgets first, then overlaps.
    pub(crate) fn rows(&self) -> usize {
        self.capacity.len()
    }

    pub(crate) fn range(&self, layer: usize) -> std::ops::Range<usize> {
        self.start[layer]..self.start[layer + 1]
    }

    pub(crate) fn weights(&self, item: usize) -> &[i64] {
        &self.weight[item * self.budgets..(item + 1) * self.budgets]
    }

    /// Calls `each` with every overlap row that counts an item; rows are numbered from the first budget.
    pub(crate) fn for_uses(&self, item: usize, mut each: impl FnMut(usize)) {
        for (word, &bits) in self.uses[item * self.words..(item + 1) * self.words].iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                each(self.budgets + word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }

    /// Whether overlap row `row` (numbered from the first budget) counts an item.
    pub(crate) fn counts(&self, row: usize, item: usize) -> bool {
        let index = row - self.budgets;
        self.uses[item * self.words + index / 64] >> (index % 64) & 1 == 1
    }

    /// The items that overlap row `row` (numbered from the first budget) counts, layer by layer.
    pub(crate) fn members(&self, row: usize) -> &[u32] {
        let index = row - self.budgets;
        &self.members[index * self.layers()..(index + 1) * self.layers()]
    }

    /// The selection of the instance that takes these items, one per layer of the core.
    pub(crate) fn complete(&self, instance: &Instance, chosen: &[usize]) -> Vec<usize> {
        let mut selection = vec![0; instance.layers()];
        let items = self.decided.iter().copied().chain(chosen.iter().map(|&item| self.origin[item]));
        for item in items {
            selection[instance.layer[item]] = item;
        }
        selection
    }

    /// Clears what is not in this core of the items of an instance.
    pub(crate) fn to_instance(&self, active: &[bool], all: &mut [bool]) {
        all.fill(false);
        self.decided.iter().for_each(|&item| all[item] = true);
        for (&origin, &active) in self.origin.iter().zip(active) {
            all[origin] = active;
        }
    }

    /// The Lagrangian bound over the active items, in ticks with [`FRACTION`] binary digits, without the constant.
    ///
    /// For any multipliers `pi >= 0`, `sum over layers of min over items of (score + pi w)  -  pi capacity` is at most the
    /// score of every feasible selection; all rounding here makes it smaller. `reduced` receives how much each active item lies above
    /// the least of its layer, so that bound plus that is a bound on the selections that contain it. `None` if a
    /// layer has no active item.
    pub(crate) fn bound(&self, active: &[bool], pi: &Multipliers, reduced: &mut [i64]) -> Option<i64> {
        self.bound_with(active, pi, reduced, None)
    }

    /// [`Core::bound`] that also tells the penalties of one budget row: of every item, and of the capacity.
    pub(crate) fn bound_with(
        &self,
        active: &[bool],
        pi: &Multipliers,
        reduced: &mut [i64],
        mut told: Option<(usize, &mut Vec<i64>, &mut i64)>,
    ) -> Option<i64> {
        let mut bound = 0i128;
        for (value, &score) in reduced.iter_mut().zip(&self.score) {
            *value = score << FRACTION;
        }
        for &(row, pi) in &pi.0 {
            let capacity = self.capacity[row];
            // The multiplier in ticks of score per tick of weight, as mantissa times a power of two.
            let most = if row < self.budgets {
                LARGEST_PENALTY / self.budgets.div_ceil(ROWS_WITH_ROOM) as f64
            } else {
                LARGEST_OVERLAP_PENALTY
            };
            let pi = pi.min(most / (capacity.max(1) as f64));
            if row < self.budgets {
                let (mantissa, shift) = fixed_point(pi);
                let penalty = |weight: i64| ((i128::from(mantissa) * i128::from(weight)) >> shift) as i64;
                for (item, value) in reduced.iter_mut().enumerate() {
                    let weight = self.weight[item * self.budgets + row].min(capacity.saturating_add(1));
                    *value += penalty(weight);
                }
                let whole = penalty(capacity) + 1;
                bound -= i128::from(whole);
                if let Some((_, penalties, capacity)) = told.take_if(|(told, ..)| *told == row) {
                    penalties.clear();
                    let weights = self.weight.iter().skip(row).step_by(self.budgets);
                    penalties.extend(weights.map(|&weight| penalty(weight.min(self.capacity[row] + 1))));
                    *capacity = whole;
                }
            } else {
                let pi = (pi * (1u64 << FRACTION) as f64) as i64;
                for &item in self.members(row) {
                    if item != NONE {
                        reduced[item as usize] += pi;
                    }
                }
                bound -= i128::from(pi) * i128::from(capacity);
            }
        }
        for layer in 0..self.layers() {
            let range = self.range(layer);
            let mut least = i64::MAX;
            for (&value, &active) in reduced[range.clone()].iter().zip(&active[range.clone()]) {
                if active {
                    least = least.min(value);
                }
            }
            if least == i64::MAX {
                return None;
            }
            reduced[range].iter_mut().for_each(|value| *value -= least);
            bound += i128::from(least);
        }
        Some(bound.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64)
    }

    /// Whether `pi` proves that the active items admit no selection at all: every selection's weighted sum of
    /// weights exceeds the weighted sum of capacities.
    pub(crate) fn refutes(&self, active: &[bool], pi: &Multipliers) -> bool {
        let scale = pi.0.iter().map(|&(_, pi)| pi).fold(0.0, f64::max);
        if scale <= 0.0 || !scale.is_finite() {
            return false;
        }
        let pi: Vec<(usize, i128)> =
            pi.0.iter().map(|&(row, pi)| (row, (pi / scale * (1u64 << 60) as f64) as i128)).collect();
        let mut excess: i128 = pi.iter().map(|&(row, pi)| -pi * i128::from(self.capacity[row])).sum();
        for layer in 0..self.layers() {
            let value = |item: usize| -> i128 {
                let parts = pi.iter().map(|&(row, pi)| {
                    if row < self.budgets {
                        pi * i128::from(self.weight[item * self.budgets + row])
                    } else if self.counts(row, item) {
                        pi
                    } else {
                        0
                    }
                });
                parts.sum()
            };
            match self.range(layer).filter(|&item| active[item]).map(value).min() {
                None => return true,
                Some(least) => excess += least,
            }
        }
        excess > 0
    }

    /// Drops items that cannot be completed to a selection that meets some single row. False if a row cannot be
    /// met at all.
    pub(crate) fn propagate(&self, active: &mut [bool], scratch: &mut Vec<i64>) -> bool {
        loop {
            let mut changed = false;
            for row in 0..self.budgets {
                scratch.clear();
                let mut spare = self.capacity[row];
                for layer in 0..self.layers() {
                    let mut least = i64::MAX;
                    for item in self.range(layer) {
                        if active[item] {
                            least = least.min(self.weight[item * self.budgets + row]);
                        }
                    }
                    if least == i64::MAX {
                        return false;
                    }
                    scratch.push(least);
                    spare -= least;
                }
                if spare < 0 {
                    return false;
                }
                for (item, active) in active.iter_mut().enumerate() {
                    let above = self.weight[item * self.budgets + row] - scratch[self.layer[item]];
                    if *active && above > spare {
                        *active = false;
                        changed = true;
                    }
                }
            }
            if self.rows() > self.budgets {
                match self.propagate_overlaps(active, scratch) {
                    None => return false,
                    Some(dropped) => changed |= dropped,
                }
            } else if (0..self.layers()).any(|layer| !self.range(layer).any(|item| active[item])) {
                return false;
            }
            if !changed {
                return true;
            }
        }
    }

    /// The same for the overlap rows; whether items were dropped, `None` if a row cannot be met.
    fn propagate_overlaps(&self, active: &mut [bool], forced: &mut Vec<i64>) -> Option<bool> {
        forced.clear();
        forced.resize(self.rows(), 0);
        let mut only = Vec::with_capacity(self.layers());
        for layer in 0..self.layers() {
            let mut left = self.range(layer).filter(|&item| active[item]);
            let (first, second) = (left.next()?, left.next());
            only.push(second.is_none());
            if second.is_none() {
                self.for_uses(first, |row| forced[row] += 1);
            }
        }
        let mut changed = false;
        for (row, (&forced, &capacity)) in forced.iter().zip(&self.capacity).enumerate().skip(self.budgets) {
            if forced > capacity {
                return None;
            }
            if forced < capacity {
                continue;
            }
            for (&item, &only) in self.members(row).iter().zip(&only) {
                if item != NONE && !only && active[item as usize] {
                    active[item as usize] = false;
                    changed = true;
                }
            }
        }
        Some(changed)
    }
}

/// Drops the items whose own bound reaches the cut value.
pub(crate) fn drop_items(active: &mut [bool], reduced: &[i64], cut: i64, bound: i64) {
    let room = window(cut, bound);
    for (active, &reduced) in active.iter_mut().zip(reduced) {
        *active &= reduced <= room;
    }
}

/// How far above a bound the scores below a cut value lie at most; -1 if there are none.
pub(crate) fn window(cut: i64, bound: i64) -> i64 {
    let window = ((i128::from(cut) - 1) << FRACTION) - i128::from(bound);
    window.clamp(-1, i128::from(i64::MAX / 4)) as i64
}

/// The least whole number of ticks not below a bound.
pub(crate) fn ceil(bound: i64) -> i64 {
    -((-bound) >> FRACTION)
}

/// A number as mantissa and shift: `value 2^FRACTION = mantissa / 2^shift`, rounded down, mantissa below 2^52.
fn fixed_point(value: f64) -> (i64, u32) {
    let mut shift = 0;
    let mut scaled = value * (1u64 << FRACTION) as f64;
    while scaled < (1u64 << 50) as f64 && shift < 60 {
        scaled *= 2.0;
        shift += 1;
    }
    (scaled.min((1u64 << 62) as f64) as i64, shift)
}
