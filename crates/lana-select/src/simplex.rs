//! The linear relaxation: a dense tableau, dual simplex method.
//!
//! Variables are the items (one of each layer, fractions allowed) and one slack per row. The start takes the best item of each
//! layer and ignores the rows; this is optimal but may violate them, which is just what the *dual* simplex method repairs,
//! pivot by pivot, while its objective rises and is a bound all the time. Forbidding an item keeps it dual feasible, so a
//! node of the search continues from its parent's tableau.
//!
//! Only nonbasic columns are stored: `basic = x - t * nonbasic`. Everything is in floating point and scaled to about 1; no result is
//! trusted: the caller turns the multipliers into integers and evaluates the bound exactly.

use crate::instance::{FRACTION, Instance};

/// Column of a variable that may never enter again.
const DEAD: u32 = u32::MAX;
const TOLERANCE: f64 = 1e-9;
/// Smaller pivots would spread rounding errors.
const LEAST_PIVOT: f64 = 1e-8;

/// Factors between ticks and the numbers in the tableau.
#[derive(Debug, Clone)]
pub(crate) struct Units {
    score: f64,
    rows: Vec<f64>,
}

impl Units {
    pub(crate) fn new(instance: &Instance) -> Units {
        let mut units = Units { score: 1.0, rows: vec![1.0; instance.budgets() + instance.earlier] };
        for layer in 0..instance.layers() {
            let spread = |value: &dyn Fn(usize) -> i64| {
                let values = instance.range(layer).map(value);
                let (low, high) = (values.clone().min().unwrap_or(0), values.max().unwrap_or(0));
                (high - low) as f64
            };
            units.score = units.score.max(spread(&|item| instance.score[item]));
            for row in 0..instance.budgets() {
                units.rows[row] = units.rows[row].max(spread(&|item| instance.weights(item)[row]));
            }
        }
        units
    }

    /// A score in ticks as an objective of the tableau.
    pub(crate) fn objective(&self, ticks: i64) -> f64 {
        ticks as f64 / self.score
    }
}

/// How a run of the simplex method ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// No row is violated.
    Optimal,
    /// The objective reached the cut value.
    Cut,
    /// This tableau row cannot be repaired.
    Infeasible(usize),
    /// Too many pivots; bounds are valid all the same.
    Stalled,
}

/// A fractional item and what the next pivot would cost either way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fraction {
    pub(crate) item: usize,
    /// Least rise of the objective if the item is forbidden, and the entering column.
    pub(crate) down: f64,
    pub(crate) down_column: Option<usize>,
    /// Least rise if it is chosen, and the entering column.
    pub(crate) up: f64,
    pub(crate) up_column: Option<usize>,
    pub(crate) row: usize,
}

/// See the module documentation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tableau {
    columns: usize,
    t: Vec<f64>,
    x: Vec<f64>,
    d: Vec<f64>,
    objective: f64,
    basic: Vec<u32>,
    nonbasic: Vec<u32>,
}

impl Tableau {
    /// The start for the active items. Layers with one item and overlap rows that cannot be violated make no row.
    pub(crate) fn new(instance: &Instance, active: &[bool], units: &Units) -> Tableau {
        let mut tableau = Tableau::default();
        let budgets = instance.budgets();
        let mut key = vec![usize::MAX; instance.layers()];
        let mut reach = vec![0i64; instance.earlier];
        for (layer, key) in key.iter_mut().enumerate() {
            let mut touched = vec![false; instance.earlier];
            for item in instance.range(layer).filter(|&item| active[item]) {
                if *key == usize::MAX || instance.score[item] < instance.score[*key] {
                    *key = item;
                }
                instance.uses[item].iter().for_each(|&row| touched[row as usize] = true);
            }
            reach.iter_mut().zip(touched).for_each(|(reach, touched)| *reach += i64::from(touched));
        }
        let items: Vec<usize> =
            (0..instance.items()).filter(|&item| active[item] && key[instance.layer[item]] != item).collect();
        tableau.columns = items.len();
        tableau.nonbasic = items.iter().map(|&item| item as u32).collect();
        tableau.d = items
            .iter()
            .map(|&item| units.objective(instance.score[item] - instance.score[key[instance.layer[item]]]))
            .collect();
        tableau.objective = units.objective(key.iter().map(|&item| instance.score[item]).sum());
        for &key in &key {
            let layer = instance.layer[key];
            let before = tableau.t.len();
            tableau.t.extend(items.iter().map(|&item| f64::from(u8::from(instance.layer[item] == layer))));
            if tableau.t[before..].contains(&1.0) {
                tableau.x.push(1.0);
                tableau.basic.push(key as u32);
            } else {
                tableau.t.truncate(before);
            }
        }
        for row in 0..budgets {
            let unit = units.rows[row];
            let spare =
                instance.capacity[row] - key.iter().map(|&item| instance.weights(item)[row]).sum::<i64>();
            tableau.x.push(spare as f64 / unit);
            tableau.basic.push((instance.items() + row) as u32);
            tableau.t.extend(items.iter().map(|&item| {
                let own = instance.weights(item)[row];
                (own - instance.weights(key[instance.layer[item]])[row]) as f64 / unit
            }));
        }
        for (row, _) in reach.iter().enumerate().filter(|(_, reach)| **reach > instance.overlap_limit) {
            let uses = |item: usize| i64::from(instance.uses[item].contains(&(row as u32)));
            let spare = instance.overlap_limit - key.iter().map(|&item| uses(item)).sum::<i64>();
            tableau.x.push(spare as f64);
            tableau.basic.push((instance.items() + budgets + row) as u32);
            tableau.t.extend(items.iter().map(|&item| (uses(item) - uses(key[instance.layer[item]])) as f64));
        }
        tableau
    }

    /// Becomes a copy of `other` without the columns that are of no use.
    pub(crate) fn copy_from(&mut self, other: &Tableau, active: &[bool]) {
        let kept: Vec<usize> =
            (0..other.columns).filter(|&column| usable(other.nonbasic[column], active)).collect();
        self.columns = kept.len();
        self.t.clear();
        for row in other.t.chunks_exact(other.columns.max(1)) {
            self.t.extend(kept.iter().map(|&column| row[column]));
        }
        self.x.clone_from(&other.x);
        self.d.clear();
        self.d.extend(kept.iter().map(|&column| other.d[column]));
        self.nonbasic.clear();
        self.nonbasic.extend(kept.iter().map(|&column| other.nonbasic[column]));
        self.basic.clone_from(&other.basic);
        self.objective = other.objective;
    }

    fn row(&self, row: usize) -> &[f64] {
        &self.t[row * self.columns..(row + 1) * self.columns]
    }

    /// Whether the value of a basic variable must change, and by how much.
    fn violation(&self, row: usize, active: &[bool]) -> f64 {
        let variable = self.basic[row] as usize;
        let x = self.x[row];
        if x < 0.0 {
            -x
        } else if variable < active.len() && !active[variable] {
            x
        } else {
            0.0
        }
    }

    /// Repairs rows until none is violated or the objective exceeds `cut`.
    pub(crate) fn solve(&mut self, active: &[bool], cut: f64) -> End {
        for (column, &variable) in self.nonbasic.iter().enumerate() {
            if !usable(variable, active) {
                // Dual feasibility does not bind a column that never enters.
                self.d[column] = 0.0;
            }
        }
        for variable in &mut self.nonbasic {
            if !usable(*variable, active) {
                *variable = DEAD;
            }
        }
        for _ in 0..200 + 20 * self.x.len() {
            if self.objective > cut {
                return End::Cut;
            }
            let mut worst = (TOLERANCE, None);
            for row in 0..self.x.len() {
                let violation = self.violation(row, active);
                if violation > worst.0 {
                    worst = (violation, Some(row));
                }
            }
            let Some(row) = worst.1 else { return End::Optimal };
            let sign = if self.x[row] < 0.0 { -1.0 } else { 1.0 };
            let Some((column, _)) = self.entering(row, sign) else { return End::Infeasible(row) };
            self.pivot(row, column, active);
        }
        End::Stalled
    }

    /// The column that keeps all reduced costs nonnegative when the basic variable of `row` moves: down to its bound
    /// for `sign` 1, up for -1. Also the ratio of reduced cost to pivot.
    fn entering(&self, row: usize, sign: f64) -> Option<(usize, f64)> {
        let mut best: Option<(usize, f64, f64)> = None;
        for (column, (&t, &d)) in self.row(row).iter().zip(&self.d).enumerate() {
            let pivot = sign * t;
            if pivot <= LEAST_PIVOT || self.nonbasic[column] == DEAD {
                continue;
            }
            let ratio = d.max(0.0) / pivot;
            let better = best.is_none_or(|(_, least, size)| {
                ratio < least - 1e-13 || (ratio <= least + 1e-13 && pivot > size)
            });
            if better {
                best = Some((column, ratio, pivot));
            }
        }
        best.map(|(column, ratio, _)| (column, ratio))
    }

    fn pivot(&mut self, row: usize, column: usize, active: &[bool]) {
        let columns = self.columns;
        let (before, rest) = self.t.split_at_mut(row * columns);
        let (pivot_row, after) = rest.split_at_mut(columns);
        let inverse = 1.0 / pivot_row[column];
        pivot_row.iter_mut().for_each(|t| *t *= inverse);
        pivot_row[column] = inverse;
        self.x[row] *= inverse;
        let x = self.x[row];
        let others = before
            .chunks_exact_mut(columns)
            .zip(0..row)
            .chain(after.chunks_exact_mut(columns).zip(row + 1..));
        for (other, index) in others {
            let factor = other[column];
            if factor == 0.0 {
                continue;
            }
            other.iter_mut().zip(pivot_row.iter()).for_each(|(t, p)| *t -= factor * p);
            other[column] = -factor * inverse;
            self.x[index] -= factor * x;
        }
        let reduced = self.d[column];
        self.d.iter_mut().zip(pivot_row.iter()).for_each(|(d, p)| *d -= reduced * p);
        self.d[column] = -reduced * inverse;
        self.objective += reduced * x;
        std::mem::swap(&mut self.basic[row], &mut self.nonbasic[column]);
        if !usable(self.nonbasic[column], active) {
            self.nonbasic[column] = DEAD;
            self.d[column] = 0.0;
        }
    }

    pub(crate) fn objective(&self) -> f64 {
        self.objective
    }

    /// The multipliers of all rows as integers with [`FRACTION`] binary digits.
    pub(crate) fn multipliers(&self, instance: &Instance, units: &Units) -> Vec<i128> {
        let mut pi = vec![0; instance.budgets() + instance.earlier];
        for (&variable, &d) in self.nonbasic.iter().zip(&self.d) {
            set_multiplier(&mut pi, instance, units, variable, d);
        }
        pi
    }

    /// The multipliers after one pivot from `row` to `column`.
    pub(crate) fn multipliers_after(
        &self,
        instance: &Instance,
        units: &Units,
        row: usize,
        column: usize,
    ) -> Vec<i128> {
        let mut pi = vec![0; instance.budgets() + instance.earlier];
        let values = self.row(row);
        let step = self.d[column] / values[column];
        for (other, (&variable, &d)) in self.nonbasic.iter().zip(&self.d).enumerate() {
            let d = if other == column { 0.0 } else { d - step * values[other] };
            set_multiplier(&mut pi, instance, units, variable, d);
        }
        set_multiplier(&mut pi, instance, units, self.basic[row], -step);
        pi
    }

    /// The combination of rows which shows that `row` cannot be repaired, as integers.
    pub(crate) fn ray(&self, instance: &Instance, units: &Units, row: usize) -> Vec<i128> {
        let mut pi = vec![0; instance.budgets() + instance.earlier];
        let sign = if self.x[row] < 0.0 { 1.0 } else { -1.0 };
        for (&variable, &t) in self.nonbasic.iter().zip(self.row(row)) {
            set_multiplier(&mut pi, instance, units, variable, sign * t);
        }
        set_multiplier(&mut pi, instance, units, self.basic[row], sign);
        pi
    }

    /// Items at a value strictly between 0 and 1.
    pub(crate) fn fractions(&self, items: usize) -> Vec<Fraction> {
        let mut fractions = Vec::new();
        for row in 0..self.x.len() {
            let (item, x) = (self.basic[row] as usize, self.x[row]);
            if item >= items || !(1e-7..=1.0 - 1e-7).contains(&x) {
                continue;
            }
            let down = self.entering(row, 1.0);
            let up = self.entering(row, -1.0);
            fractions.push(Fraction {
                item,
                down: down.map_or(f64::INFINITY, |(_, ratio)| ratio * x),
                down_column: down.map(|(column, _)| column),
                up: up.map_or(f64::INFINITY, |(_, ratio)| ratio * (1.0 - x)),
                up_column: up.map(|(column, _)| column),
                row,
            });
        }
        fractions
    }

    /// The items at a value of one half or more.
    pub(crate) fn chosen(&self, items: usize) -> impl Iterator<Item = usize> + '_ {
        let pairs = self.basic.iter().zip(&self.x);
        pairs.filter(move |(item, x)| (**item as usize) < items && **x >= 0.5).map(|(item, _)| *item as usize)
    }
}

fn usable(variable: u32, active: &[bool]) -> bool {
    variable != DEAD && active.get(variable as usize).copied().unwrap_or(true)
}

/// Stores `value` (in tableau units) as the multiplier of the row whose slack `variable` is, if it is a slack.
fn set_multiplier(pi: &mut [i128], instance: &Instance, units: &Units, variable: u32, value: f64) {
    let items = instance.items();
    if variable == DEAD || (variable as usize) < items || value <= 0.0 {
        return;
    }
    let row = variable as usize - items;
    let ticks = value * units.score / units.rows[row] * (1u64 << FRACTION) as f64;
    // Any value is valid; this one keeps products with weights (up to 2^48) within 128 bits.
    pi[row] = ticks.min((1u128 << 70) as f64).round() as i128;
}
