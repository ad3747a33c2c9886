//! The start of a search: what multipliers leave of an instance.
//!
//! The root shrinks the instance to a [`Core`]: whatever the multipliers of the relaxation show to be of no use below the cut value
//! is dropped, again and again while that helps.

use crate::core::{Core, ceil, drop_items, window};
use crate::instance::Instance;
use crate::knapsack::{Knapsack, Left, MOST_STATES, Row};
use crate::relaxation::{End, Multipliers, Relaxation, Scratch, Units};

/// What is left of an instance below a cut value.
pub(crate) struct Root {
    pub(crate) core: Core,
    pub(crate) active: Vec<bool>,
    /// Solved.
    pub(crate) relaxation: Relaxation,
    pub(crate) bound: i64,
}

/// Shrinks an instance below a cut value; `None` if nothing is below it. `multipliers` (by the rows of the instance) are used first,
/// and become those of the relaxation.
pub(crate) fn root(instance: &Instance, cut: i64, multipliers: &mut Multipliers) -> Option<Root> {
    if instance.has_empty_layer() {
        return None;
    }
    let mut left_over = vec![true; instance.items()];
    let mut scratch = Scratch::default();
    let mut sums = Vec::new();
    let mut root_bound = i64::MIN;
    let mut carried = !multipliers.0.is_empty();
    loop {
        let core = Core::new(instance, &left_over);
        let units = Units::new(&core);
        let mut active = vec![true; core.items()];
        if !core.propagate(&mut active, &mut sums) {
            return None;
        }
        let below = cut - core.constant;
        let mut relaxation = Relaxation::default();
        let pi = if carried {
            on_core(&core, multipliers)
        } else {
            relaxation = Relaxation::new(&core, &active, &units);
            let end =
                relaxation.solve(&core, &active, &units, units.objective(below - 1) + 1e-9, &mut scratch);
            if end == End::Infeasible {
                let ray = relaxation.ray(&core, &active, &units, &scratch);
                if core.refutes(&active, &ray) {
                    return None;
                }
            }
            let pi = relaxation.multipliers(&core, &units);
            let rows = pi.0.iter().map(|&(row, pi)| (core.row_origin[row], pi));
            *multipliers = Multipliers(rows.collect());
            pi
        };
        let mut reduced = vec![0; core.items()];
        let bound = core.bound(&active, &pi, &mut reduced)?;
        root_bound = root_bound.max(ceil(bound).saturating_add(core.constant));
        if root_bound >= cut {
            return None;
        }
        drop_items(&mut active, &reduced, below, bound);
        if !core.propagate(&mut active, &mut sums) {
            return None;
        }
        let left = active.iter().filter(|active| **active).count();
        // A smaller core pays in every node below, so start again from what is left.
        if !carried && left * 10 >= core.items() * 9 {
            return Some(Root { core, active, relaxation, bound: root_bound });
        }
        carried = false;
        core.to_instance(&active, &mut left_over);
    }
}

/// Multipliers of an instance's rows, by the rows of a core.
fn on_core(core: &Core, multipliers: &Multipliers) -> Multipliers {
    let rows = core.row_origin.iter().enumerate().filter_map(|(row, origin)| {
        multipliers.0.iter().find(|(other, _)| other == origin).map(|&(_, pi)| (row, pi))
    });
    Multipliers(rows.collect())
}

/// Good multipliers for an instance with one budget row and nothing else, and the bound they prove; `None` if it has no
/// selection. The bound is concave in the one multiplier, so halving an interval finds its peak.
pub(crate) fn first_bound(instance: &Instance) -> Option<(i64, Multipliers)> {
    if instance.has_empty_layer() {
        return None;
    }
    let core = Core::new(instance, &vec![true; instance.items()]);
    let mut active = vec![true; core.items()];
    if !core.propagate(&mut active, &mut Vec::new()) {
        return None;
    }
    let capacity = core.capacity[0] as f64;
    // The weight that the best items take at a multiplier falls with it; at the peak it passes the capacity.
    let too_heavy = |pi: f64| {
        let weights = (0..core.layers()).map(|layer| {
            let items = core.range(layer).filter(|&item| active[item]);
            let value = |item: &usize| core.score[*item] as f64 + pi * core.weight[*item] as f64;
            let best = items.min_by(|a, b| value(a).total_cmp(&value(b)));
            best.map_or(0.0, |item| core.weight[item] as f64)
        });
        weights.sum::<f64>() > capacity
    };
    let (mut low, mut high) = (0.0, 0.0);
    if too_heavy(0.0) {
        let spread = |values: &[i64]| {
            let (low, high) = (values.iter().min(), values.iter().max());
            (high.copied().unwrap_or(0) - low.copied().unwrap_or(0)).max(1) as f64
        };
        high = spread(&core.score) / spread(&core.weight);
        for _ in 0..60 {
            if !too_heavy(high) {
                break;
            }
            high *= 2.0;
        }
        for _ in 0..30 {
            let middle = 0.5 * (low + high);
            *if too_heavy(middle) { &mut low } else { &mut high } = middle;
        }
    }
    let pi = Multipliers(vec![(0, high)]);
    let bound = core.bound(&active, &pi, &mut vec![0; core.items()])?;
    Some((ceil(bound) + core.constant, pi))
}

/// The best selection below `cut` of an instance with one budget row and nothing else; of those with the least score the
/// lightest, of those the first in order of the choices. `None` also if there are too many to look at.
pub(crate) fn lightest(instance: &Instance, cut: i64, multipliers: &Multipliers) -> Option<Vec<usize>> {
    let Root { core, active, relaxation, .. } = root(instance, cut, &mut multipliers.clone())?;
    let pi = relaxation.multipliers(&core, &Units::new(&core));
    let (mut reduced, mut penalty, mut capacity) = (vec![0; core.items()], Vec::new(), 0);
    let bound = core.bound_with(&active, &pi, &mut reduced, Some((0, &mut penalty, &mut capacity)))?;
    let window = window(cut - core.constant, bound);
    // A row that does not bind has no multiplier, and so no penalties.
    penalty.resize(core.items(), 0);
    let row = Row { row: 0, penalty: &penalty, capacity };
    match Knapsack::default().solve(&core, &active, &reduced, row, window, 100 * MOST_STATES) {
        Left::Best(chosen, _) => Some(core.complete(instance, &chosen)),
        _ => None,
    }
}
