//! Open nodes of a search, depth first.
//!
//! A node is a set of active items of the core and its linear relaxation. In each
//!
//! 1. items that some row alone rules out are dropped, exactly;
//! 2. the dual simplex method runs until it is optimal or its objective reaches the cut value;
//! 3. its multipliers, as integers, give an exact Lagrangian bound, which ends the node or drops items whose own bound reaches the
//!    cut value;
//! 4. for every fractional item, the multipliers after one more pivot (Driebeek's penalty) may show that one of its two sides
//!    reaches the cut value: then the other side is taken without branching;
//! 5. where that has paid, dynamic programming over one budget row looks beyond fractions;
//! 6. otherwise the item with the largest product of both penalties splits the node; the cheaper side goes first.

use std::time::Instant;

use crate::core::{Core, FRACTION, ceil, drop_items, window};
use crate::instance::Instance;
use crate::knapsack::{Knapsack, Left, MOST_STATES, Row};
use crate::relaxation::{End, Fraction, Multipliers, Relaxation, Scratch, Units};

/// Rounds of dynamic programming in a node, with better multipliers each.
const MOST_ROUNDS: usize = 6;

/// A node that is still to be looked at.
#[derive(Default, Clone)]
pub(crate) struct Node {
    pub(crate) active: Vec<bool>,
    pub(crate) relaxation: Relaxation,
}

impl Node {
    /// Memory that it holds.
    pub(crate) fn bytes(&self) -> usize {
        self.active.capacity() + self.relaxation.bytes()
    }
}

/// How far one exploration may go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Task {
    /// Exclusive, without the core's constant.
    pub(crate) cut: i64,
    /// A selection below this ends it: a new root would drop much more.
    pub(crate) restart_at: i64,
    pub(crate) deadline: Instant,
    pub(crate) nodes: u64,
    /// Whether to end with the first selection.
    pub(crate) stop_at_first: bool,
    /// How dynamic programming has done so far.
    pub(crate) knapsacks: KnapsackRecord,
}

/// What an exploration found out.
#[derive(Default)]
pub(crate) struct Explored {
    /// What is left to be looked at, the next last.
    pub(crate) open: Vec<Node>,
    /// The best selection found, one item of the instance per layer, and its score without the core's constant.
    pub(crate) best: Option<(i64, Vec<usize>)>,
    /// Nodes looked at.
    pub(crate) nodes: u64,
    /// Whether the deadline struck.
    pub(crate) late: bool,
    /// What dynamic programming did here.
    pub(crate) knapsacks: KnapsackRecord,
}

/// How often dynamic programming was tried, and ended a node.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct KnapsackRecord {
    nodes: u64,
    tried: u64,
    won: u64,
}

impl KnapsackRecord {
    /// Whether to try again, after all this and `new`: always while it pays (copies of a layer, poison to the relaxation, are nothing
    /// to it), else now and then.
    fn is_worth_it(&self, new: &mut KnapsackRecord) -> bool {
        new.nodes += 1;
        let (tried, won) = (self.tried + new.tried, self.won + new.won);
        let worth = tried < 12 || won * 4 >= tried || (self.nodes + new.nodes).is_multiple_of(128);
        new.tried += u64::from(worth);
        worth
    }

    pub(crate) fn add(&mut self, new: KnapsackRecord) {
        self.nodes += new.nodes;
        self.tried += new.tried;
        self.won += new.won;
        if self.tried >= 64 {
            // What was long ago counts for less.
            (self.tried, self.won) = (32, self.won * 32 / self.tried);
        }
    }
}

/// What a look at a node says.
enum Look {
    /// Nothing below the cut value is left in it.
    Done,
    /// It must be split at this item.
    Branch { item: usize, choose_first: bool },
}

/// Explores nodes of one core; holds the buffers that this takes.
pub(crate) struct Explorer<'a> {
    instance: &'a Instance,
    core: &'a Core,
    units: &'a Units,
    task: Task,
    /// As in the task, until something better is found.
    cut: i64,
    best: Option<Vec<usize>>,
    knapsacks: KnapsackRecord,
    stack: Vec<Node>,
    reduced: Vec<i64>,
    sums: Vec<i64>,
    other: Vec<bool>,
    scratch: Scratch,
    knapsack: Knapsack,
    penalties: Vec<i64>,
}

impl<'a> Explorer<'a> {
    pub(crate) fn new(instance: &'a Instance, core: &'a Core, units: &'a Units, task: Task) -> Explorer<'a> {
        Explorer {
            instance,
            core,
            units,
            task,
            cut: task.cut,
            best: None,
            knapsacks: KnapsackRecord::default(),
            stack: Vec::new(),
            reduced: vec![0; core.items()],
            sums: Vec::new(),
            other: Vec::new(),
            scratch: Scratch::default(),
            knapsack: Knapsack::default(),
            penalties: Vec::new(),
        }
    }

    /// Explores a node and what is below it as far as the task goes.
    pub(crate) fn explore(&mut self, node: Node, task: Task) -> Explored {
        (self.task, self.cut, self.best, self.knapsacks) = (task, task.cut, None, KnapsackRecord::default());
        match self.stack.first_mut() {
            Some(first) => *first = node,
            None => self.stack.push(node),
        }
        let (mut explored, mut depth) = (Explored::default(), 0);
        loop {
            explored.late = explored.nodes.is_multiple_of(16) && Instant::now() >= task.deadline;
            let ends = self.best.is_some()
                && (task.stop_at_first || self.cut <= task.restart_at && explored.nodes > 8);
            if ends || explored.late || explored.nodes == task.nodes {
                explored.open = self.stack.drain(..=depth).collect();
                break;
            }
            explored.nodes += 1;
            let mut node = std::mem::take(&mut self.stack[depth]);
            let look = self.look(&mut node);
            self.stack[depth] = node;
            match look {
                Look::Branch { item, choose_first } => {
                    self.branch(depth, item, choose_first);
                    depth += 1;
                }
                Look::Done if depth > 0 => depth -= 1,
                Look::Done => break,
            }
        }
        explored.best = self.best.take().map(|selection| (self.cut, selection));
        explored.knapsacks = self.knapsacks;
        explored
    }

    /// Splits the node at `depth`: one side goes on top of it, the other takes its place.
    fn branch(&mut self, depth: usize, item: usize, choose_first: bool) {
        if self.stack.len() == depth + 1 {
            self.stack.push(Node::default());
        }
        let (parents, children) = self.stack.split_at_mut(depth + 1);
        let (parent, child) = (&mut parents[depth], &mut children[0]);
        child.active.clone_from(&parent.active);
        fix(self.core, &mut child.active, item, choose_first);
        child.relaxation.copy_from(&parent.relaxation);
        fix(self.core, &mut parent.active, item, !choose_first);
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
                let end = node.relaxation.solve(self.core, &node.active, self.units, cut, &mut self.scratch);
                if end == End::Infeasible {
                    let ray = node.relaxation.ray(self.core, &node.active, self.units, &self.scratch);
                    if self.core.refutes(&node.active, &ray) {
                        return Look::Done;
                    }
                }
                let pi = node.relaxation.multipliers(self.core, self.units);
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
            if node.relaxation.uses_inactive(self.core, &node.active) && end == End::Optimal {
                continue;
            }
            if end != End::Optimal {
                return self.split(node);
            }
            let fractions = node.relaxation.fractions(self.core, self.units, &mut self.scratch);
            if fractions.is_empty() {
                if self.record(node) {
                    return Look::Done;
                }
                // Either rounding hid a violated row, or rounding hides that nothing better is left here.
                let pi = node.relaxation.multipliers(self.core, self.units);
                match self.core.bound(&node.active, &pi, &mut self.reduced) {
                    Some(bound) if ceil(bound) < self.cut => {}
                    _ => return Look::Done,
                }
                return self.split(node);
            }
            if self.penalise(node, &fractions) {
                continue;
            }
            if self.task.knapsacks.is_worth_it(&mut self.knapsacks) && self.beyond_fractions(node) {
                return Look::Done;
            }
            return choose(&fractions);
        }
    }

    /// Whether dynamic programming over one budget shows that nothing below the cut value is left. What it finds on the
    /// way may be a selection worth keeping.
    fn beyond_fractions(&mut self, node: &mut Node) -> bool {
        let mut pi = node.relaxation.multipliers(self.core, self.units);
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
                self.knapsack.solve(self.core, &node.active, &self.reduced, exactly, window, MOST_STATES);
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
                    self.core,
                    self.units,
                    fraction,
                    choose,
                    &mut self.scratch,
                );
                // A side that no pivot leads to is empty, as its child will find and prove.
                let Some(pi) = pi else { continue };
                self.other.clone_from(&node.active);
                fix(self.core, &mut self.other, fraction.item, choose);
                let empty = match self.core.bound(&self.other, &pi, &mut self.reduced) {
                    None => true,
                    Some(bound) => ceil(bound) >= self.cut,
                };
                if empty {
                    fix(self.core, &mut node.active, fraction.item, !choose);
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
        let mut chosen = node.relaxation.chosen(self.core);
        for (layer, item) in chosen.iter_mut().enumerate() {
            let mut left = self.core.range(layer).filter(|&item| node.active[item]);
            if let (Some(only), None) = (left.next(), left.next()) {
                *item = only;
            } else if !node.active[*item] {
                return false;
            }
        }
        self.keep(&chosen) && self.task.stop_at_first
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
        let chosen = node.relaxation.chosen(self.core);
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
