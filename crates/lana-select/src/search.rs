//! Branch and bound over one instance, depth first.
//!
//! The root shrinks the instance to a [`Core`]: whatever the multipliers of the relaxation show to be of no use below the cut value
//! is dropped, again and again while that helps. A node is a set of active items of the core and its linear relaxation.
//! In each node
//!
//! 1. items that some row alone rules out are dropped, exactly;
//! 2. the dual simplex method runs until it is optimal or its objective reaches the cut value;
//! 3. its multipliers, as integers, give an exact Lagrangian bound, which ends the node or drops items whose own bound reaches the
//!    cut value;
//! 4. for every fractional item, the multipliers after one more pivot (Driebeek's penalty) may show that one of its two sides
//!    reaches the cut value: then the other side is taken without branching;
//! 5. otherwise the item with the largest product of both penalties splits the node; the cheaper side goes first.
//!
//! The *cut value* is exclusive: the search looks for selections with a score below it, and every selection found
//! lowers it. A search that comes to its end without a selection has proven that the best is at least the cut value.

use std::time::Instant;

use crate::core::{Core, FRACTION};
use crate::instance::Instance;
use crate::knapsack::{Knapsack, Left, Row};
use crate::relaxation::{End, Fraction, Multipliers, Relaxation, Scratch, Units};

/// Above every sum of scores, and far from overflow.
pub(crate) const NO_CUT: i64 = 1 << 44;

/// Rounds of dynamic programming in a node, with better multipliers each.
const MOST_ROUNDS: usize = 6;

/// Partial selections that dynamic programming may keep in a node.
const MOST_STATES: usize = 3_000;

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All was searched.
    Complete,
    /// At the first selection, as asked.
    AtFirst,
    /// At the deadline, or after as many nodes as it was given.
    OutOfTime,
    /// At a selection so good that starting again with a smaller core is cheaper than going on.
    Restart,
}

/// How far a search may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowance {
    pub(crate) deadline: Instant,
    pub(crate) nodes: u64,
    /// Whether to end with the first selection.
    pub(crate) stop_at_first: bool,
}

/// What a search found out.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) ended: Ended,
    /// The best selection found, one item of the instance per layer.
    pub(crate) best: Option<Vec<usize>>,
    /// Nodes looked at.
    pub(crate) nodes: u64,
    /// Proven bound of the root, in ticks; the cut value if that was reached.
    pub(crate) root_bound: i64,
    /// Multipliers of the root, by the rows of the instance.
    pub(crate) multipliers: Multipliers,
}

/// Any selection of an instance; `Some(None)` if there is none, `None` if time ran out.
pub(crate) fn any(instance: &Instance, deadline: Instant) -> Option<Option<Vec<usize>>> {
    let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: true };
    let found = search(instance, NO_CUT, &Multipliers::default(), allowance, &mut KnapsackRecord::default());
    (found.ended != Ended::OutOfTime).then_some(found.best)
}

/// The best selection of an instance; `None` if there is none or time ran out.
pub(crate) fn optimum(instance: &Instance, deadline: Instant) -> Option<Vec<usize>> {
    let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: false };
    let (mut cut, mut best, mut knapsacks) = (NO_CUT, None, KnapsackRecord::default());
    loop {
        let found = search(instance, cut, &Multipliers::default(), allowance, &mut knapsacks);
        if let Some(selection) = found.best {
            cut = instance.value(&selection);
            best = Some(selection);
        }
        match found.ended {
            Ended::Complete => return best,
            Ended::Restart if Instant::now() < deadline => {}
            _ => return None,
        }
    }
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

/// Searches an instance for selections with a score below `cut`. `multipliers` are any; good ones save time.
pub(crate) fn search(
    instance: &Instance,
    cut: i64,
    multipliers: &Multipliers,
    allowance: Allowance,
    knapsacks: &mut KnapsackRecord,
) -> Found {
    let mut found = Found {
        ended: Ended::Complete,
        best: None,
        nodes: 0,
        root_bound: cut,
        multipliers: multipliers.clone(),
    };
    let Some(Root { core, active, relaxation, bound }) = root(instance, cut, &mut found.multipliers) else {
        return found;
    };
    found.root_bound = bound.min(cut);
    if core.layers() == 0 {
        // The root has decided every layer: this one selection is still to be judged.
        let selection = core.complete(instance, &[]);
        if instance.value(&selection) < cut && instance.feasible(&selection) {
            found.best = Some(selection);
            found.ended = if allowance.stop_at_first { Ended::AtFirst } else { Ended::Complete };
        }
        return found;
    }
    let mut search = Search {
        instance,
        units: Units::new(&core),
        cut: cut - core.constant,
        allowance,
        restart_at: bound - core.constant + (cut - bound) / 2,
        stack: vec![Node { active, relaxation }],
        reduced: vec![0; core.items()],
        sums: Vec::new(),
        other: Vec::new(),
        scratch: Scratch::default(),
        knapsack: Knapsack::default(),
        penalties: Vec::new(),
        knapsacks,
        best: None,
        nodes: 0,
        core,
    };
    found.ended = search.explore(0);
    found.best = search.best;
    found.nodes = search.nodes;
    found
}

/// What is left of an instance below a cut value.
struct Root {
    core: Core,
    active: Vec<bool>,
    /// Solved.
    relaxation: Relaxation,
    bound: i64,
}

/// Shrinks an instance below a cut value; `None` if nothing is below it. `multipliers` (by the rows of the instance) are used first,
/// and become those of the relaxation.
fn root(instance: &Instance, cut: i64, multipliers: &mut Multipliers) -> Option<Root> {
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

#[derive(Default, Clone)]
struct Node {
    active: Vec<bool>,
    relaxation: Relaxation,
}

struct Search<'a> {
    instance: &'a Instance,
    core: Core,
    units: Units,
    /// Exclusive, without the core's constant.
    cut: i64,
    /// Cut value at which the root would drop much more.
    restart_at: i64,
    allowance: Allowance,
    stack: Vec<Node>,
    reduced: Vec<i64>,
    sums: Vec<i64>,
    other: Vec<bool>,
    scratch: Scratch,
    knapsack: Knapsack,
    penalties: Vec<i64>,
    knapsacks: &'a mut KnapsackRecord,
    best: Option<Vec<usize>>,
    nodes: u64,
}

/// How often dynamic programming was tried, and ended a node.
#[derive(Debug, Default)]
pub(crate) struct KnapsackRecord {
    nodes: u64,
    tried: u64,
    won: u64,
}

impl KnapsackRecord {
    /// Whether to try again: always while it pays (copies of a layer, poison to the relaxation, are nothing to it), else now
    /// and then.
    fn is_worth_it(&mut self) -> bool {
        self.nodes += 1;
        let worth = self.tried < 12 || self.won * 4 >= self.tried || self.nodes.is_multiple_of(128);
        self.tried += u64::from(worth);
        if self.tried == 64 {
            // What was long ago counts for less.
            (self.tried, self.won) = (32, self.won / 2);
        }
        worth
    }
}

/// What a look at a node says.
enum Look {
    /// Nothing below the cut value is left in it.
    Done,
    /// It must be split at this item.
    Branch { item: usize, choose_first: bool },
}

impl Search<'_> {
    fn explore(&mut self, depth: usize) -> Ended {
        loop {
            self.nodes += 1;
            let late = self.nodes.is_multiple_of(16) && Instant::now() >= self.allowance.deadline;
            if late || self.nodes > self.allowance.nodes {
                return Ended::OutOfTime;
            }
            let mut node = std::mem::take(&mut self.stack[depth]);
            let look = self.look(&mut node);
            self.stack[depth] = node;
            if self.best.is_some() && self.allowance.stop_at_first {
                return Ended::AtFirst;
            }
            if self.best.is_some() && self.cut <= self.restart_at && self.nodes > 8 {
                return Ended::Restart;
            }
            let Look::Branch { item, choose_first } = look else { return Ended::Complete };
            if self.stack.len() == depth + 1 {
                self.stack.push(Node::default());
            }
            let (parents, children) = self.stack.split_at_mut(depth + 1);
            let (parent, child) = (&mut parents[depth], &mut children[0]);
            child.active.clone_from(&parent.active);
            fix(&self.core, &mut child.active, item, choose_first);
            child.relaxation.copy_from(&parent.relaxation);
            fix(&self.core, &mut parent.active, item, !choose_first);
            match self.explore(depth + 1) {
                Ended::Complete => {}
                early => return early,
            }
        }
    }

    fn look(&mut self, node: &mut Node) -> Look {
        loop {
            if !self.core.propagate(&mut node.active, &mut self.sums) {
                return Look::Done;
            }
            node.relaxation.forget(&node.active, &mut self.scratch);
            // A little beyond the cut value, so that the exact bound, up to rounding the same, reaches it too.
            let mut cut = self.units.objective(self.cut - 1) + 1e-11;
            let end = loop {
                let end =
                    node.relaxation.solve(&self.core, &node.active, &self.units, cut, &mut self.scratch);
                if end == End::Infeasible {
                    let ray = node.relaxation.ray(&self.core, &node.active, &self.units, &self.scratch);
                    if self.core.refutes(&node.active, &ray) {
                        return Look::Done;
                    }
                }
                let pi = node.relaxation.multipliers(&self.core, &self.units);
                let Some(bound) = self.core.bound(&node.active, &pi, &mut self.reduced) else {
                    return Look::Done;
                };
                if ceil(bound) >= self.cut {
                    return Look::Done;
                }
                if end != End::Cut {
                    drop_items(&mut node.active, &self.reduced, self.cut, bound);
                    break end;
                }
                // Rounding kept the exact bound below: go on to the optimum.
                cut = f64::INFINITY;
            };
            if node.relaxation.uses_inactive(&self.core, &node.active) && end == End::Optimal {
                continue;
            }
            if end != End::Optimal {
                return self.split(node);
            }
            let fractions = node.relaxation.fractions(&self.core, &self.units, &mut self.scratch);
            if fractions.is_empty() {
                if self.record(node) {
                    return Look::Done;
                }
                // Either rounding hid a violated row, or rounding hides that nothing better is left here.
                let pi = node.relaxation.multipliers(&self.core, &self.units);
                match self.core.bound(&node.active, &pi, &mut self.reduced) {
                    Some(bound) if ceil(bound) < self.cut => {}
                    _ => return Look::Done,
                }
                return self.split(node);
            }
            if self.penalise(node, &fractions) {
                continue;
            }
            if self.knapsacks.is_worth_it() && self.beyond_fractions(node) {
                return Look::Done;
            }
            return choose(&fractions);
        }
    }

    /// Whether dynamic programming over one budget shows that nothing below the cut value is left. What it finds on the
    /// way may be a selection worth keeping.
    fn beyond_fractions(&mut self, node: &mut Node) -> bool {
        let mut pi = node.relaxation.multipliers(&self.core, &self.units);
        let Some(&(row, _)) = pi.0.iter().find(|(row, _)| *row < self.core.budgets) else { return false };
        let mut open = i128::from(i64::MAX);
        for _ in 0..MOST_ROUNDS {
            let mut capacity = 0;
            let told = Some((row, &mut self.penalties, &mut capacity));
            let bound = self.core.bound_with(&node.active, &pi, &mut self.reduced, told);
            let Some(bound) = bound else { return true };
            let window = window(self.cut, bound);
            let exactly = Row { row, penalty: &self.penalties, capacity };
            let left =
                self.knapsack.solve(&self.core, &node.active, &self.reduced, exactly, window, MOST_STATES);
            let (chosen, rise) = match left {
                Left::Nothing => {
                    self.knapsacks.won += 1;
                    return true;
                }
                Left::TooMuch => return false,
                Left::Best(chosen, rise) => (chosen, rise),
            };
            self.keep(&chosen);
            let above = i128::from(bound) + i128::from(rise);
            let left = (i128::from(self.cut) << FRACTION) - above;
            if left <= 0 {
                return true;
            }
            // Another round only while the rounds close the window fast enough.
            if left * 8 > open * 7 || left * 2 > i128::from(window) {
                return false;
            }
            open = left;
            self.steer(&mut pi, &chosen, left as f64 / (1u64 << FRACTION) as f64);
        }
        false
    }

    /// Moves the multipliers of overlap rows towards what makes `chosen`, the best selection by the old ones, less good where
    /// it violates a row (a subgradient step, as long as Polyak's for a rise of `rise`).
    fn steer(&self, pi: &mut Multipliers, chosen: &[usize], rise: f64) {
        let mut excess: Vec<i64> = self.core.capacity.iter().map(|capacity| -capacity).collect();
        chosen.iter().for_each(|&item| self.core.for_uses(item, |row| excess[row] += 1));
        let mut old = vec![0.0; self.core.rows()];
        pi.0.iter().for_each(|&(row, value)| old[row] = value);
        let moves = |row: &usize| excess[*row] > 0 || old[*row] > 0.0;
        let rows: Vec<usize> = (self.core.budgets..self.core.rows()).filter(moves).collect();
        let norm: f64 = rows.iter().map(|&row| (excess[row] * excess[row]) as f64).sum();
        if norm == 0.0 {
            return;
        }
        pi.0.retain(|(row, _)| *row < self.core.budgets);
        for row in rows {
            let value = old[row] + rise * excess[row] as f64 / norm;
            if value > 0.0 {
                pi.0.push((row, value));
            }
        }
    }

    /// Takes the side that is left of every item with only one. Whether there was any.
    fn penalise(&mut self, node: &mut Node, fractions: &[Fraction]) -> bool {
        let cut = self.units.objective(self.cut - 1);
        let objective = node.relaxation.objective();
        let mut changed = false;
        for fraction in fractions {
            for (choose, rise) in [(false, fraction.down), (true, fraction.up)] {
                if objective + rise <= cut || !node.active[fraction.item] {
                    continue;
                }
                let pi = node.relaxation.multipliers_after(
                    &self.core,
                    &self.units,
                    fraction,
                    choose,
                    &mut self.scratch,
                );
                // A side that no pivot leads to is empty, as its child will find and prove.
                let Some(pi) = pi else { continue };
                self.other.clone_from(&node.active);
                fix(&self.core, &mut self.other, fraction.item, choose);
                let empty = match self.core.bound(&self.other, &pi, &mut self.reduced) {
                    None => true,
                    Some(bound) => ceil(bound) >= self.cut,
                };
                if empty {
                    fix(&self.core, &mut node.active, fraction.item, !choose);
                    changed = true;
                    break;
                }
            }
        }
        changed
    }

    /// Stores the selection of an integral node if it is feasible and below the cut value; whether the
    /// node is thereby done.
    fn record(&mut self, node: &Node) -> bool {
        let mut chosen = node.relaxation.chosen(&self.core);
        for (layer, item) in chosen.iter_mut().enumerate() {
            let mut left = self.core.range(layer).filter(|&item| node.active[item]);
            if let (Some(only), None) = (left.next(), left.next()) {
                *item = only;
            } else if !node.active[*item] {
                return false;
            }
        }
        self.keep(&chosen) && self.allowance.stop_at_first
    }

    /// Stores a selection if it is feasible and below the cut value; whether it was.
    fn keep(&mut self, chosen: &[usize]) -> bool {
        let value: i64 = chosen.iter().map(|&item| self.core.score[item]).sum();
        if value >= self.cut {
            return false;
        }
        let selection = self.core.complete(self.instance, chosen);
        if !self.instance.feasible(&selection) {
            return false;
        }
        self.cut = value;
        self.best = Some(selection);
        true
    }

    /// Splits a node that the relaxation does not tell how to split; exact even if the relaxation is all wrong.
    fn split(&mut self, node: &Node) -> Look {
        let chosen = node.relaxation.chosen(&self.core);
        for (layer, &chosen) in chosen.iter().enumerate() {
            let mut left = self.core.range(layer).filter(|&item| node.active[item]);
            let (Some(first), Some(_)) = (left.next(), left.next()) else { continue };
            let item = if node.active[chosen] { chosen } else { first };
            return Look::Branch { item, choose_first: true };
        }
        // One item per layer is left: the relaxation is not needed to judge it.
        self.record(node);
        Look::Done
    }
}

/// Drops the items whose own bound reaches the cut value.
fn drop_items(active: &mut [bool], reduced: &[i64], cut: i64, bound: i64) {
    let room = window(cut, bound);
    for (active, &reduced) in active.iter_mut().zip(reduced) {
        *active &= reduced <= room;
    }
}

/// How far above a bound the scores below a cut value lie at most; -1 if there are none.
fn window(cut: i64, bound: i64) -> i64 {
    let window = ((i128::from(cut) - 1) << FRACTION) - i128::from(bound);
    window.clamp(-1, i128::from(i64::MAX / 4)) as i64
}

fn choose(fractions: &[Fraction]) -> Look {
    let weight = |fraction: &Fraction| fraction.down.clamp(1e-9, 1e9) * fraction.up.clamp(1e-9, 1e9);
    let mut best = fractions[0];
    for fraction in &fractions[1..] {
        if weight(fraction) > weight(&best) {
            best = *fraction;
        }
    }
    Look::Branch { item: best.item, choose_first: best.up <= best.down }
}

/// Chooses an item (drops the rest of its layer) or forbids it.
fn fix(core: &Core, active: &mut [bool], item: usize, choose: bool) {
    if choose {
        for other in core.range(core.layer[item]) {
            active[other] &= other == item;
        }
    } else {
        active[item] = false;
    }
}

/// The least whole number of ticks not below a bound.
fn ceil(bound: i64) -> i64 {
    -((-bound) >> FRACTION)
}
