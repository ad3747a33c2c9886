//! The linear relaxation of a core: dual simplex method on a small tableau.
//!
//! Variables are the items (one of each layer, fractions allowed) and one slack per row. The start takes the best item of each
//! layer and ignores the rows; this is optimal but may violate them, which is just what the *dual* simplex method repairs,
//! pivot by pivot, while its objective rises and is a bound all the time. Forbidding an item keeps it dual feasible, so a
//! node of the search continues from its parent's tableau.
//!
//! A basis has one variable for every layer and every row, but hardly any of that need be stored (*generalised upper bounds*,
//! Dantzig and Van Slyke 1967). Each layer has one basic item as its *key*; what the keys and the slacks of loose rows are follows
//! from the few other basic items, and there are just as many of those as there are tight rows. So the tableau has some ten
//! rows where a plain one has a hundred. Only nonbasic columns are stored: `basic = x - t * nonbasic`.
//!
//! Everything here is in floating point and scaled to about 1; no result is trusted: the search turns the multipliers into integers
//! and evaluates the bound exactly.

use crate::core::Core;

/// Column of a variable that may never enter again.
const DEAD: u32 = u32::MAX;
const TOLERANCE: f64 = 1e-9;
/// Smaller pivots would spread rounding errors.
const LEAST_PIVOT: f64 = 1e-8;

/// Multipliers of rows that have one, in ticks of score per tick of weight.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Multipliers(pub(crate) Vec<(usize, f64)>);

/// Factors between ticks and the numbers in the tableau, and the weights and capacities in the latter.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    score: f64,
    rows: Vec<f64>,
    /// As [`Core::weight`].
    weight: Vec<f64>,
    capacity: Vec<f64>,
}

impl Units {
    pub(crate) fn new(core: &Core) -> Units {
        let (weight, capacity) = (Vec::new(), Vec::new());
        let mut units = Units { score: 1.0, rows: vec![1.0; core.budgets], weight, capacity };
        for layer in 0..core.layers() {
            let spread = |value: &dyn Fn(usize) -> i64| {
                let values = core.range(layer).map(value);
                let (low, high) = (values.clone().min().unwrap_or(0), values.max().unwrap_or(0));
                (high - low) as f64
            };
            units.score = units.score.max(spread(&|item| core.score[item]));
            for row in 0..core.budgets {
                units.rows[row] = units.rows[row].max(spread(&|item| core.weights(item)[row]));
            }
        }
        units.weight = (0..core.items())
            .flat_map(|item| core.weights(item).iter().zip(&units.rows))
            .map(|(&weight, unit)| weight as f64 / unit)
            .collect();
        units.capacity = (0..core.rows()).map(|row| core.capacity[row] as f64 / units.row(row)).collect();
        units
    }

    /// The weights of an item in the budget rows.
    fn weights(&self, item: usize) -> &[f64] {
        &self.weight[item * self.rows.len()..(item + 1) * self.rows.len()]
    }

    /// A score in ticks as an objective of the tableau.
    pub(crate) fn objective(&self, ticks: i64) -> f64 {
        ticks as f64 / self.score
    }

    fn row(&self, row: usize) -> f64 {
        self.rows.get(row).copied().unwrap_or(1.0)
    }
}

/// How a run of the simplex method ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// No row is violated.
    Optimal,
    /// The objective reached the cut value.
    Cut,
    /// The row of the basis in hand cannot be repaired; [`Relaxation::ray`] says why.
    Infeasible,
    /// Too many pivots; bounds are valid all the same.
    Stalled,
}

/// A basic variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basic {
    /// The item whose row is stored at this position.
    Stored(usize),
    /// The key of this layer.
    Key(usize),
    /// The slack of this row.
    Slack(usize),
}

/// A fractional item and what the next pivot would cost either way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fraction {
    pub(crate) item: usize,
    /// Least rise of the objective if the item is forbidden.
    pub(crate) down: f64,
    /// Least rise if it is chosen.
    pub(crate) up: f64,
    basic: Basic,
}

/// The least ratios of reduced cost to pivot, for a variable that moves down and one that moves up. In lanes, since this is
/// where a third of the time goes.
fn least_ratios(alpha: &[f64], d: &[f64]) -> (f64, f64) {
    const LANES: usize = 4;
    let (mut down, mut up) = ([f64::INFINITY; LANES], [f64::INFINITY; LANES]);
    let mut step = |alpha: &[f64], d: &[f64]| {
        for lane in 0..alpha.len().min(LANES) {
            let ratio = d[lane] / alpha[lane];
            let fall = if alpha[lane] > LEAST_PIVOT { ratio } else { f64::INFINITY };
            let rise = if alpha[lane] < -LEAST_PIVOT { -ratio } else { f64::INFINITY };
            down[lane] = if fall < down[lane] { fall } else { down[lane] };
            up[lane] = if rise < up[lane] { rise } else { up[lane] };
        }
    };
    let (chunks, rest) = (alpha.chunks_exact(LANES), alpha.len() / LANES * LANES);
    for (alpha, d) in chunks.zip(d.chunks_exact(LANES)) {
        step(alpha, d);
    }
    step(&alpha[rest..], &d[rest..]);
    let least = |lanes: [f64; LANES]| lanes.into_iter().fold(f64::INFINITY, f64::min).max(0.0);
    (least(down), least(up))
}

/// Buffers that nodes share.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Row of the tableau in hand.
    alpha: Vec<f64>,
    /// Values of the keys.
    keys: Vec<f64>,
    /// Values of the slacks; meaningless for tight rows.
    slacks: Vec<f64>,
    kept: Vec<usize>,
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Relaxation {
    /// Key item of each layer.
    key: Vec<u32>,
    /// The other basic items, with their values and rows.
    basic: Vec<u32>,
    x: Vec<f64>,
    t: Vec<f64>,
    /// The nonbasic variables: items, then `items + row` for the slack of a tight row.
    nonbasic: Vec<u32>,
    /// Reduced costs.
    d: Vec<f64>,
    tight: Vec<bool>,
    /// What the keys would leave of each row if they stood alone.
    base: Vec<f64>,
    objective: f64,
}

impl Relaxation {
    /// The start: the best active item of every layer.
    pub(crate) fn new(core: &Core, active: &[bool], units: &Units) -> Relaxation {
        let mut relaxation = Relaxation { tight: vec![false; core.rows()], ..Relaxation::default() };
        let mut score = 0;
        for layer in 0..core.layers() {
            let items = || core.range(layer).filter(|&item| active[item]);
            let key = items().min_by_key(|&item| core.score[item]).unwrap_or(core.start[layer]);
            relaxation.key.push(key as u32);
            score += core.score[key];
            for item in items().filter(|&item| item != key) {
                relaxation.nonbasic.push(item as u32);
                relaxation.d.push(units.objective(core.score[item] - core.score[key]));
            }
        }
        relaxation.objective = units.objective(score);
        relaxation.base = units.capacity.clone();
        for layer in 0..core.layers() {
            take(core, units, &mut relaxation.base, relaxation.key[layer] as usize, 1.0);
        }
        relaxation
    }

    /// Makes an item the key of its layer.
    fn set_key(&mut self, core: &Core, units: &Units, layer: usize, item: u32) {
        take(core, units, &mut self.base, self.key[layer] as usize, -1.0);
        take(core, units, &mut self.base, item as usize, 1.0);
        self.key[layer] = item;
    }

    fn columns(&self) -> usize {
        self.nonbasic.len()
    }

    fn row(&self, index: usize) -> &[f64] {
        &self.t[index * self.columns()..(index + 1) * self.columns()]
    }

    /// Drops the columns that are of no use.
    pub(crate) fn forget(&mut self, active: &[bool], scratch: &mut Scratch) {
        let kept = &mut scratch.kept;
        kept.clear();
        kept.extend((0..self.columns()).filter(|&column| usable(self.nonbasic[column], active)));
        let columns = self.columns();
        if kept.len() == columns {
            return;
        }
        let mut write = 0;
        for row in 0..self.basic.len() {
            for &column in kept.iter() {
                self.t[write] = self.t[row * columns + column];
                write += 1;
            }
        }
        self.t.truncate(write);
        for (index, &column) in kept.iter().enumerate() {
            self.d[index] = self.d[column];
            self.nonbasic[index] = self.nonbasic[column];
        }
        self.d.truncate(kept.len());
        self.nonbasic.truncate(kept.len());
    }

    /// Memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        let numbers = self.x.capacity() + self.t.capacity() + self.d.capacity() + self.base.capacity();
        let variables = self.key.capacity() + self.basic.capacity() + self.nonbasic.capacity();
        8 * numbers + 4 * variables + self.tight.capacity()
    }

    /// Becomes a copy of `other`.
    pub(crate) fn copy_from(&mut self, other: &Relaxation) {
        self.key.clone_from(&other.key);
        self.basic.clone_from(&other.basic);
        self.x.clone_from(&other.x);
        self.t.clone_from(&other.t);
        self.nonbasic.clone_from(&other.nonbasic);
        self.d.clone_from(&other.d);
        self.tight.clone_from(&other.tight);
        self.base.clone_from(&other.base);
        self.objective = other.objective;
    }

    /// Values of keys and slacks, from those of the other basic items.
    fn derive(&self, core: &Core, units: &Units, scratch: &mut Scratch) {
        let Scratch { keys, slacks, .. } = scratch;
        keys.clear();
        keys.resize(core.layers(), 1.0);
        slacks.clear();
        slacks.extend_from_slice(&self.base);
        for (&item, &x) in self.basic.iter().zip(&self.x) {
            let layer = core.layer[item as usize];
            keys[layer] -= x;
            take(core, units, slacks, item as usize, x);
            take(core, units, slacks, self.key[layer] as usize, -x);
        }
    }

    /// The row of a basic variable, into `scratch.alpha`.
    fn derive_row(&self, core: &Core, units: &Units, basic: Basic, alpha: &mut Vec<f64>) {
        alpha.clear();
        match basic {
            Basic::Stored(index) => alpha.extend_from_slice(self.row(index)),
            Basic::Key(layer) => {
                let range = core.range(layer);
                alpha.extend(
                    self.nonbasic
                        .iter()
                        .map(|&variable| f64::from(u8::from(range.contains(&(variable as usize))))),
                );
                for (index, &item) in self.basic.iter().enumerate() {
                    if core.layer[item as usize] == layer {
                        alpha.iter_mut().zip(self.row(index)).for_each(|(a, t)| *a -= t);
                    }
                }
            }
            Basic::Slack(row) => {
                let coefficient = |item: usize| self.above_key(core, units, row, item);
                alpha.extend(self.nonbasic.iter().map(|&variable| {
                    if (variable as usize) < core.items() { coefficient(variable as usize) } else { 0.0 }
                }));
                for (index, &item) in self.basic.iter().enumerate() {
                    let factor = coefficient(item as usize);
                    if factor != 0.0 {
                        alpha.iter_mut().zip(self.row(index)).for_each(|(a, t)| *a -= factor * t);
                    }
                }
            }
        }
    }

    /// The coefficient of an item in a row, less that of its layer's key.
    fn above_key(&self, core: &Core, units: &Units, row: usize, item: usize) -> f64 {
        let key = self.key[core.layer[item]] as usize;
        if row < core.budgets {
            units.weights(item)[row] - units.weights(key)[row]
        } else {
            f64::from(u8::from(core.counts(row, item))) - f64::from(u8::from(core.counts(row, key)))
        }
    }

    /// Repairs rows until none is violated or the objective exceeds `cut`.
    pub(crate) fn solve(
        &mut self,
        core: &Core,
        active: &[bool],
        units: &Units,
        cut: f64,
        scratch: &mut Scratch,
    ) -> End {
        for _ in 0..200 + 20 * (core.layers() + core.rows()) {
            if self.objective > cut {
                return End::Cut;
            }
            self.derive(core, units, scratch);
            let mut worst = (TOLERANCE, None);
            let mut consider = |violation: f64, basic: Basic, sign: f64| {
                if violation > worst.0 {
                    worst = (violation, Some((basic, sign, violation)));
                }
            };
            let mut item = |item: u32, x: f64, basic: Basic| {
                if x < 0.0 {
                    consider(-x, basic, -1.0);
                } else if !active[item as usize] {
                    consider(x, basic, 1.0);
                }
            };
            for (index, (&variable, &x)) in self.basic.iter().zip(&self.x).enumerate() {
                item(variable, x, Basic::Stored(index));
            }
            for (layer, (&variable, &x)) in self.key.iter().zip(&scratch.keys).enumerate() {
                item(variable, x, Basic::Key(layer));
            }
            for (row, (&x, &tight)) in scratch.slacks.iter().zip(&self.tight).enumerate() {
                if !tight {
                    consider(-x, Basic::Slack(row), -1.0);
                }
            }
            let Some((basic, sign, violation)) = worst.1 else { return End::Optimal };
            let mut alpha = std::mem::take(&mut scratch.alpha);
            self.derive_row(core, units, basic, &mut alpha);
            let entering = self.entering(&alpha, sign);
            if let Some(column) = entering {
                let x = sign * violation;
                self.pivot(core, units, active, basic, x, column, &alpha);
            }
            scratch.alpha = alpha;
            if entering.is_none() {
                return End::Infeasible;
            }
        }
        End::Stalled
    }

    /// The column that keeps all reduced costs nonnegative when the basic variable of row `alpha` moves: down to its bound
    /// for `sign` 1, up for -1. That with the least ratio of reduced cost to pivot; of equals the one with the largest pivot.
    fn entering(&self, alpha: &[f64], sign: f64) -> Option<usize> {
        let (mut best, mut least, mut size) = (None, 0.0, 0.0);
        for (column, (&t, &d)) in alpha.iter().zip(&self.d).enumerate() {
            let pivot = sign * t;
            if pivot <= LEAST_PIVOT || d == f64::INFINITY {
                continue;
            }
            // d / pivot against least / size, without dividing.
            let (new, old) = (d.max(0.0) * size, least * pivot);
            if best.is_none() || new < old || (new == old && pivot > size) {
                (best, least, size) = (Some(column), d.max(0.0), pivot);
            }
        }
        best
    }

    /// Exchanges the basic variable with row `alpha` and value `x` for the one of `column`.
    #[allow(clippy::too_many_arguments)] // the node in hand and one exchange
    fn pivot(
        &mut self,
        core: &Core,
        units: &Units,
        active: &[bool],
        leaving: Basic,
        x: f64,
        column: usize,
        alpha: &[f64],
    ) {
        let columns = self.columns();
        let inverse = 1.0 / alpha[column];
        let step = x * inverse;
        for (row, x) in self.t.chunks_exact_mut(columns).zip(&mut self.x) {
            let factor = row[column];
            if factor == 0.0 {
                continue;
            }
            let scaled = factor * inverse;
            row.iter_mut().zip(alpha).for_each(|(t, a)| *t -= scaled * a);
            row[column] = -scaled;
            *x -= factor * step;
        }
        let reduced = self.d[column];
        let scaled = reduced * inverse;
        self.d.iter_mut().zip(alpha).for_each(|(d, a)| *d -= scaled * a);
        self.d[column] = -scaled;
        self.objective += reduced * step;

        let entering = self.nonbasic[column] as usize;
        let out = match leaving {
            Basic::Stored(index) => self.basic[index] as usize,
            Basic::Key(layer) => self.key[layer] as usize,
            Basic::Slack(row) => core.items() + row,
        };
        self.nonbasic[column] = out as u32;
        if !usable(out as u32, active) {
            self.nonbasic[column] = DEAD;
            self.d[column] = f64::INFINITY;
        }
        let new_row = |t: &mut [f64]| {
            t.iter_mut().zip(alpha).for_each(|(t, a)| *t = a * inverse);
            t[column] = inverse;
        };
        // Which stored row becomes free: that of the leaving item, or of the item that becomes the key in its place.
        let free = match leaving {
            Basic::Stored(index) => Some(index),
            Basic::Slack(row) => {
                self.tight[row] = true;
                None
            }
            Basic::Key(layer) => {
                if entering < core.items() && core.layer[entering] == layer {
                    self.set_key(core, units, layer, entering as u32);
                    return;
                }
                let heir = self.basic.iter().position(|&item| core.layer[item as usize] == layer);
                // Without another basic item in its layer, a key's row has nonzeros in that layer only.
                let Some(heir) = heir else { return };
                self.set_key(core, units, layer, self.basic[heir]);
                Some(heir)
            }
        };
        if entering >= core.items() {
            self.tight[entering - core.items()] = false;
            if let Some(free) = free {
                self.basic.swap_remove(free);
                self.x.swap_remove(free);
                let last = self.basic.len();
                self.t.copy_within(last * columns..(last + 1) * columns, free * columns);
                self.t.truncate(last * columns);
            }
            return;
        }
        match free {
            Some(free) => {
                self.basic[free] = entering as u32;
                self.x[free] = step;
                new_row(&mut self.t[free * columns..(free + 1) * columns]);
            }
            None => {
                self.basic.push(entering as u32);
                self.x.push(step);
                let end = self.t.len();
                self.t.resize(end + columns, 0.0);
                new_row(&mut self.t[end..]);
            }
        }
    }

    pub(crate) fn objective(&self) -> f64 {
        self.objective
    }

    /// The multipliers of the tight rows.
    pub(crate) fn multipliers(&self, core: &Core, units: &Units) -> Multipliers {
        self.slack_values(core, units, |column| self.d[column])
    }

    /// The multipliers after one more pivot, which forbids the item of `fraction` or chooses it; `None` if no pivot does.
    pub(crate) fn multipliers_after(
        &self,
        core: &Core,
        units: &Units,
        fraction: &Fraction,
        choose: bool,
        scratch: &mut Scratch,
    ) -> Option<Multipliers> {
        self.derive_row(core, units, fraction.basic, &mut scratch.alpha);
        let alpha = &scratch.alpha;
        let column = self.entering(alpha, if choose { -1.0 } else { 1.0 })?;
        let step = self.d[column] / alpha[column];
        // The leaving variable is an item: it has no multiplier.
        Some(self.slack_values(core, units, |other| {
            if other == column { 0.0 } else { self.d[other] - step * alpha[other] }
        }))
    }

    /// The combination of rows which shows that the last row tried by [`Relaxation::solve`] cannot be repaired.
    pub(crate) fn ray(&self, core: &Core, active: &[bool], units: &Units, scratch: &Scratch) -> Multipliers {
        // The row in hand is still in `alpha`: it belongs to the worst violation.
        let mut worst: (f64, Option<usize>, f64) = (0.0, None, -1.0);
        let items = self.basic.iter().zip(&self.x).chain(self.key.iter().zip(&scratch.keys));
        for (&item, &x) in items {
            let (violation, sign) = if x < 0.0 {
                (-x, -1.0)
            } else if active[item as usize] {
                (0.0, -1.0)
            } else {
                (x, 1.0)
            };
            if violation > worst.0 {
                worst = (violation, None, sign);
            }
        }
        for (row, (&x, &tight)) in scratch.slacks.iter().zip(&self.tight).enumerate() {
            if !tight && -x > worst.0 {
                worst = (-x, Some(row), -1.0);
            }
        }
        let (_, row, sign) = worst;
        let mut pi = self.slack_values(core, units, |column| -sign * scratch.alpha[column]);
        if let Some(row) = row {
            pi.0.push((row, units.score / units.row(row)));
        }
        pi
    }

    fn slack_values(&self, core: &Core, units: &Units, value: impl Fn(usize) -> f64) -> Multipliers {
        let items = core.items();
        let slacks = self
            .nonbasic
            .iter()
            .enumerate()
            .filter(|(_, variable)| **variable != DEAD && **variable as usize >= items);
        let values = slacks.map(|(column, &variable)| {
            let row = variable as usize - items;
            (row, value(column) * units.score / units.row(row))
        });
        Multipliers(values.filter(|(_, value)| *value > 0.0).collect())
    }

    /// Items at a value strictly between 0 and 1, after [`Relaxation::solve`] came to its end.
    pub(crate) fn fractions(&self, core: &Core, units: &Units, scratch: &mut Scratch) -> Vec<Fraction> {
        let is_fraction = |x: f64| (1e-7..=1.0 - 1e-7).contains(&x);
        let stored = self.basic.iter().zip(&self.x).enumerate();
        let stored = stored.map(|(index, (&item, &x))| (item, x, Basic::Stored(index)));
        let keys = self.key.iter().zip(&scratch.keys).enumerate();
        let keys = keys.map(|(layer, (&item, &x))| (item, x, Basic::Key(layer)));
        let found: Vec<_> = stored.chain(keys).filter(|(_, x, _)| is_fraction(*x)).collect();
        let mut fractions = Vec::with_capacity(found.len());
        for (item, x, basic) in found {
            let (down, up) = match basic {
                Basic::Stored(index) => least_ratios(self.row(index), &self.d),
                _ => {
                    self.derive_row(core, units, basic, &mut scratch.alpha);
                    least_ratios(&scratch.alpha, &self.d)
                }
            };
            fractions.push(Fraction { item: item as usize, down: down * x, up: up * (1.0 - x), basic });
        }
        fractions
    }

    /// Of each layer the item at one half or more, or the key.
    pub(crate) fn chosen(&self, core: &Core) -> Vec<usize> {
        let mut chosen: Vec<usize> = self.key.iter().map(|&key| key as usize).collect();
        for (&item, &x) in self.basic.iter().zip(&self.x) {
            if x >= 0.5 {
                chosen[core.layer[item as usize]] = item as usize;
            }
        }
        chosen
    }

    /// Whether an item has a part in the solution.
    pub(crate) fn uses_inactive(&self, core: &Core, active: &[bool]) -> bool {
        let mut keys = vec![1.0; core.layers()];
        for (&item, &x) in self.basic.iter().zip(&self.x) {
            keys[core.layer[item as usize]] -= x;
            if !active[item as usize] && x > TOLERANCE {
                return true;
            }
        }
        self.key.iter().zip(&keys).any(|(&key, &x)| !active[key as usize] && x > TOLERANCE)
    }
}

fn usable(variable: u32, active: &[bool]) -> bool {
    variable != DEAD && active.get(variable as usize).copied().unwrap_or(true)
}

/// Takes `x` of an item's weights from what is left of the rows.
fn take(core: &Core, units: &Units, rows: &mut [f64], item: usize, x: f64) {
    rows.iter_mut().zip(units.weights(item)).for_each(|(row, weight)| *row -= x * weight);
    core.for_uses(item, |row| rows[row] -= x);
}
