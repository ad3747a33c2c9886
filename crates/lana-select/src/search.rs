//! Branch and bound over one instance, depth first.
//!
//! A node is a set of active items and the tableau of its linear relaxation. In each node
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

use crate::instance::{FRACTION, Instance};
use crate::simplex::{End, Fraction, Tableau, Units};

/// How a search ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// All was searched.
    Complete,
    /// At the first selection, as asked.
    AtFirst,
    /// At the deadline.
    OutOfTime,
}

#[derive(Default, Clone)]
struct Node {
    active: Vec<bool>,
    tableau: Tableau,
}

/// One search; see the module documentation.
pub(crate) struct Search<'a> {
    instance: &'a Instance,
    units: Units,
    cut: i64,
    /// Added to the bound of what may be skipped: a selection must improve on the best by more than this.
    gap: i64,
    deadline: Instant,
    stop_at_first: bool,
    stack: Vec<Node>,
    reduced: Vec<i128>,
    scratch: Vec<bool>,
    /// The best selection found, one item per layer.
    pub(crate) best: Option<Vec<usize>>,
    /// Nodes looked at.
    pub(crate) nodes: u64,
    /// Proven bound of the root, in ticks; the cut value if that was reached. `i64::MIN` before the root was solved.
    pub(crate) root_bound: i64,
    /// Multipliers of the root.
    pub(crate) root_multipliers: Vec<i128>,
}

/// What a look at a node says.
enum Look {
    /// Nothing below the cut value is left in it.
    Done,
    /// It must be split at this item.
    Branch { item: usize, choose_first: bool },
}

impl<'a> Search<'a> {
    pub(crate) fn new(instance: &'a Instance, cut: i64, gap: i64, deadline: Instant) -> Search<'a> {
        Search {
            instance,
            units: Units::new(instance),
            cut,
            gap,
            deadline,
            stop_at_first: false,
            stack: Vec::new(),
            reduced: vec![0; instance.items()],
            scratch: Vec::new(),
            best: None,
            nodes: 0,
            root_bound: i64::MIN,
            root_multipliers: Vec::new(),
        }
    }

    /// Searches. With `stop_at_first`, ends at the first selection found.
    pub(crate) fn run(&mut self, stop_at_first: bool) -> Ended {
        self.stop_at_first = stop_at_first;
        let mut active = vec![true; self.instance.items()];
        if !self.instance.propagate(&mut active) {
            self.root_bound = self.cut;
            return Ended::Complete;
        }
        let mut tableau = Tableau::new(self.instance, &active, &self.units);
        let mut rebuilt_at = active.len();
        loop {
            let cut = self.units.objective(self.cut - 1) + 1e-9;
            match tableau.solve(&active, cut) {
                End::Infeasible(row) => {
                    let ray = tableau.ray(self.instance, &self.units, row);
                    if self.instance.refutes(&active, &ray) {
                        self.root_bound = self.cut;
                        return Ended::Complete;
                    }
                }
                End::Optimal | End::Cut | End::Stalled => {}
            }
            let pi = tableau.multipliers(self.instance, &self.units);
            let Some(bound) = self.instance.bound(&active, &pi, &mut self.reduced) else {
                self.root_bound = self.cut;
                return Ended::Complete;
            };
            self.root_bound = self.root_bound.max(ceil(bound)).min(self.cut);
            self.root_multipliers = pi;
            if ceil(bound) >= self.cut {
                return Ended::Complete;
            }
            self.drop_items(&mut active, bound);
            if !self.instance.propagate(&mut active) {
                self.root_bound = self.cut;
                return Ended::Complete;
            }
            // A smaller tableau pays in every node below, so start again from what is left.
            let left = active.iter().filter(|active| **active).count();
            if left * 10 > rebuilt_at * 9 {
                break;
            }
            rebuilt_at = left;
            tableau = Tableau::new(self.instance, &active, &self.units);
        }
        self.stack.resize_with(self.stack.len().max(1), Node::default);
        self.stack[0] = Node { active, tableau };
        self.explore(0)
    }

    fn explore(&mut self, depth: usize) -> Ended {
        loop {
            self.nodes += 1;
            if Instant::now() >= self.deadline {
                return Ended::OutOfTime;
            }
            let mut node = std::mem::take(&mut self.stack[depth]);
            let look = self.look(&mut node);
            self.stack[depth] = node;
            if self.stop_at_first && self.best.is_some() {
                return Ended::AtFirst;
            }
            let Look::Branch { item, choose_first } = look else { return Ended::Complete };
            if self.stack.len() == depth + 1 {
                self.stack.push(Node::default());
            }
            let (parents, children) = self.stack.split_at_mut(depth + 1);
            let (parent, child) = (&mut parents[depth], &mut children[0]);
            child.active.clone_from(&parent.active);
            fix(self.instance, &mut child.active, item, choose_first);
            child.tableau.copy_from(&parent.tableau, &child.active);
            fix(self.instance, &mut parent.active, item, !choose_first);
            match self.explore(depth + 1) {
                Ended::Complete => {}
                early => return early,
            }
        }
    }

    fn drop_items(&self, active: &mut [bool], bound: i128) -> bool {
        let mut dropped = false;
        let room = (i128::from(self.cut - 1) << FRACTION) - bound;
        for (active, &reduced) in active.iter_mut().zip(&self.reduced) {
            if *active && reduced > room {
                *active = false;
                dropped = true;
            }
        }
        dropped
    }

    fn look(&mut self, node: &mut Node) -> Look {
        let instance = self.instance;
        loop {
            if !instance.propagate(&mut node.active) {
                return Look::Done;
            }
            // A little beyond the cut value, so that the exact bound, up to rounding the same, reaches it too.
            let cut = self.units.objective(self.cut - 1) + 1e-11;
            let mut end = node.tableau.solve(&node.active, cut);
            loop {
                if let End::Infeasible(row) = end {
                    let ray = node.tableau.ray(instance, &self.units, row);
                    if instance.refutes(&node.active, &ray) {
                        return Look::Done;
                    }
                }
                let pi = node.tableau.multipliers(instance, &self.units);
                let Some(bound) = instance.bound(&node.active, &pi, &mut self.reduced) else {
                    return Look::Done;
                };
                if ceil(bound) >= self.cut {
                    return Look::Done;
                }
                if end == End::Cut {
                    // Rounding kept the exact bound below: go on to the optimum.
                    end = node.tableau.solve(&node.active, f64::INFINITY);
                    continue;
                }
                let before = node.active.clone();
                self.drop_items(&mut node.active, bound);
                if before != node.active {
                    let kept = node.tableau.chosen(instance.items()).all(|item| node.active[item]);
                    if !kept {
                        end = node.tableau.solve(&node.active, cut);
                        continue;
                    }
                }
                break;
            }
            if end != End::Optimal {
                return self.split(node);
            }
            let fractions = node.tableau.fractions(instance.items());
            if fractions.is_empty() {
                if self.record(node) {
                    return Look::Done;
                }
                // Either rounding hid a violated row, or rounding hides that nothing better is left here.
                let pi = node.tableau.multipliers(instance, &self.units);
                match instance.bound(&node.active, &pi, &mut self.reduced) {
                    Some(bound) if ceil(bound) < self.cut => {}
                    _ => return Look::Done,
                }
                return self.split(node);
            }
            if !self.penalise(node, &fractions) {
                return choose(&fractions);
            }
        }
    }

    /// Takes the side that is left of every item with only one. Whether there was any.
    fn penalise(&mut self, node: &mut Node, fractions: &[Fraction]) -> bool {
        let cut = self.units.objective(self.cut - 1);
        let objective = node.tableau.objective();
        let mut changed = false;
        for fraction in fractions {
            for (choose, rise, column) in
                [(false, fraction.down, fraction.down_column), (true, fraction.up, fraction.up_column)]
            {
                let Some(column) = column else { continue };
                if objective + rise <= cut || !node.active[fraction.item] {
                    continue;
                }
                let pi = node.tableau.multipliers_after(self.instance, &self.units, fraction.row, column);
                self.scratch.clone_from(&node.active);
                fix(self.instance, &mut self.scratch, fraction.item, choose);
                let empty = match self.instance.bound(&self.scratch, &pi, &mut self.reduced) {
                    None => true,
                    Some(bound) => ceil(bound) >= self.cut,
                };
                if empty {
                    fix(self.instance, &mut node.active, fraction.item, !choose);
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
        let Some(selection) = selection(self.instance, node) else { return false };
        let value = self.instance.value(&selection);
        if value >= self.cut || !self.instance.feasible(&selection) {
            return false;
        }
        self.cut = value - self.gap;
        self.best = Some(selection);
        self.stop_at_first
    }

    /// Splits a node that the relaxation does not tell how to split; exact even if the relaxation is all wrong.
    fn split(&mut self, node: &Node) -> Look {
        let chosen: Vec<usize> = node.tableau.chosen(self.instance.items()).collect();
        for layer in 0..self.instance.layers() {
            let mut left = self.instance.range(layer).filter(|&item| node.active[item]);
            let (Some(first), Some(_)) = (left.next(), left.next()) else { continue };
            let item = chosen
                .iter()
                .copied()
                .find(|&item| self.instance.layer[item] == layer && node.active[item])
                .unwrap_or(first);
            return Look::Branch { item, choose_first: true };
        }
        // One item per layer is left: the tableau is not needed to judge it.
        self.record(node);
        Look::Done
    }
}

/// The selection of a node whose relaxation is integral.
fn selection(instance: &Instance, node: &Node) -> Option<Vec<usize>> {
    let mut selection = vec![usize::MAX; instance.layers()];
    for item in node.tableau.chosen(instance.items()).filter(|&item| node.active[item]) {
        selection[instance.layer[item]] = item;
    }
    for (layer, item) in selection.iter_mut().enumerate() {
        let mut left = instance.range(layer).filter(|&item| node.active[item]);
        match (left.next(), left.next()) {
            (Some(only), None) => *item = only,
            _ if *item == usize::MAX => return None,
            _ => {}
        }
    }
    Some(selection)
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
fn fix(instance: &Instance, active: &mut [bool], item: usize, choose: bool) {
    if choose {
        for other in instance.range(instance.layer[item]) {
            active[other] &= other == item;
        }
    } else {
        active[item] = false;
    }
}

/// The least whole number of ticks not below a bound.
fn ceil(bound: i128) -> i64 {
    let ticks = -((-bound) >> FRACTION);
    ticks.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64
}

/// Improves a feasible selection by exchanging one item, or two in different layers, while that helps.
pub(crate) fn improve(instance: &Instance, selection: &mut [usize], deadline: Instant) {
    let layers = instance.layers();
    let mut sums: Vec<i64> = (0..instance.budgets())
        .map(|row| selection.iter().map(|&item| instance.weights(item)[row]).sum())
        .collect();
    let mut overlap = vec![0i64; instance.earlier];
    let count = |overlap: &mut [i64], item: usize, change: i64| {
        instance.uses[item].iter().for_each(|&row| overlap[row as usize] += change);
    };
    selection.iter().for_each(|&item| count(&mut overlap, item, 1));
    let exchange = |sums: &mut [i64], overlap: &mut [i64], old: usize, new: usize| {
        for (row, sum) in sums.iter_mut().enumerate() {
            *sum += instance.weights(new)[row] - instance.weights(old)[row];
        }
        count(overlap, old, -1);
        count(overlap, new, 1);
    };
    'again: loop {
        if Instant::now() >= deadline {
            return;
        }
        for first in 0..layers {
            for one in instance.range(first) {
                let old = selection[first];
                if one == old {
                    continue;
                }
                let gain = instance.score[one] - instance.score[old];
                exchange(&mut sums, &mut overlap, old, one);
                let fits = |sums: &[i64], overlap: &[i64]| {
                    sums.iter().zip(&instance.capacity).all(|(sum, capacity)| sum <= capacity)
                        && overlap.iter().all(|&count| count <= instance.overlap_limit)
                };
                if gain < 0 && fits(&sums, &overlap) {
                    selection[first] = one;
                    continue 'again;
                }
                for second in first + 1..layers {
                    for two in instance.range(second) {
                        let other = selection[second];
                        if two == other || gain + instance.score[two] - instance.score[other] >= 0 {
                            continue;
                        }
                        let weights = instance.weights(two).iter().zip(instance.weights(other));
                        let light = weights
                            .zip(sums.iter().zip(&instance.capacity))
                            .all(|((new, old), (sum, capacity))| sum + new - old <= *capacity);
                        if !light {
                            continue;
                        }
                        exchange(&mut sums, &mut overlap, other, two);
                        if fits(&sums, &overlap) {
                            selection[first] = one;
                            selection[second] = two;
                            continue 'again;
                        }
                        exchange(&mut sums, &mut overlap, two, other);
                    }
                }
                exchange(&mut sums, &mut overlap, one, old);
            }
        }
        return;
    }
}
