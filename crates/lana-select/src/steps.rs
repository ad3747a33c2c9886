//! From one solution to the next.
//!
//! Every step looks for the best selection that is diverse from all before it. Two things carry over: multipliers of the
//! last relaxation, which shrink the next instance before its own relaxation is solved; and the proven bound, since
//! whatever is no selection of one step is none of the next.
//!
//! Searching for the optimum below a *cut value* costs the more the higher the cut lies above the bound, so the cut starts
//! where experience with the last steps expects the optimum and rises only when a search ends empty; an empty search is a proof that raises
//! the bound to the cut. With a `gap` a step need not find the best: a *dive* ends at the first selection within the gap of the
//! bound. If it finds none in a number of nodes, a full search just above the bound lifts the bound a little, for this and all
//! later steps, and the two take turns with growing allowances.

use std::time::Instant;

use crate::explorer::KnapsackRecord;
use crate::improve::improve;
use crate::instance::{Instance, Scaled};
use crate::relaxation::Multipliers;
use crate::root::{first_bound, lightest};
use crate::search::{Allowance, Ended, Found, NO_CUT, search};

/// Nodes that the first dive and the first lift of a step may take.
const FIRST_DIVE: u64 = 2_000;
const FIRST_LIFT: u64 = 4_000;
/// Without experience, the first search of a step looks this part of the score above the bound.
const FIRST_WINDOW: i64 = 4_000;
/// How much further each search looks after one that ended empty: without experience, and with it.
const FIRST_WIDENING: f64 = 3.0;
const WIDENING: f64 = 1.5;

/// How a step ended.
pub(crate) enum Step {
    /// Choice indices per layer.
    Found {
        selection: Vec<usize>,
        bound: i64,
        proven: bool,
        nodes: u64,
    },
    NoneLeft,
    OutOfTime,
}

/// What is carried from step to step.
pub(crate) struct Steps<'a> {
    scaled: &'a Scaled,
    earlier: Vec<Vec<usize>>,
    overlap_limit: usize,
    gap: i64,
    threads: usize,
    /// The best bound proven so far; valid for all later steps too.
    bound: i64,
    /// Distance of the best solution from the bound of the relaxation, step by step.
    gaps: Vec<i64>,
    multipliers: Multipliers,
    /// How far the next lift tries to raise the bound.
    lift: i64,
    knapsacks: KnapsackRecord,
}

/// One step in progress.
struct Work<'a> {
    instance: &'a Instance,
    /// Bound of the relaxation.
    relaxed: i64,
    nodes: u64,
    /// The best selection known, and its score.
    best: Option<(i64, Vec<usize>)>,
}

impl Work<'_> {
    /// Whether there is no selection yet that is within `gap` of a bound.
    fn is_open(&self, gap: i64, bound: i64) -> bool {
        self.best.as_ref().is_none_or(|(value, _)| value - gap > bound)
    }

    fn value(&self) -> i64 {
        self.best.as_ref().map_or(NO_CUT, |(value, _)| *value)
    }
}

impl<'a> Steps<'a> {
    pub(crate) fn new(
        scaled: &'a Scaled,
        earlier: Vec<Vec<usize>>,
        overlap_limit: usize,
        gap: i64,
        threads: usize,
    ) -> Steps<'a> {
        let (bound, gaps, multipliers) = (i64::MIN, Vec::new(), Multipliers::default());
        Steps {
            scaled,
            earlier,
            overlap_limit,
            gap,
            threads,
            bound,
            gaps,
            multipliers,
            lift: 0,
            knapsacks: KnapsackRecord::default(),
        }
    }

    /// Adds a solution to be diverse from.
    pub(crate) fn add(&mut self, selection: Vec<usize>) {
        self.earlier.push(selection);
    }

    /// The next solution. Without any, time up to `last_deadline` is spent on finding one; with one, up to `deadline`.
    pub(crate) fn next(&mut self, deadline: Instant, last_deadline: Instant) -> Step {
        let instance = self.scaled.instance(&self.earlier, self.overlap_limit);
        let mut work = Work { instance: &instance, relaxed: i64::MIN, nodes: 0, best: None };
        let is_first = instance.earlier == 0;
        if is_first && instance.budgets() == 1 {
            let Some((bound, multipliers)) = first_bound(&instance) else { return Step::NoneLeft };
            (self.bound, work.relaxed, self.multipliers) = (bound, bound, multipliers);
        } else if self.bound == i64::MIN {
            // The bound of the relaxation, to start from; it may also decide everything.
            let allowance =
                Allowance { deadline: last_deadline, nodes: 0, stop_at_first: false, threads: self.threads };
            if self.search(&mut work, NO_CUT, allowance) == Ended::Complete && work.best.is_none() {
                return Step::NoneLeft;
            }
        }
        let proven = if self.gap == 0 || is_first {
            self.exact(&mut work, deadline)
        } else {
            self.within_gap(&mut work, deadline)
        };
        if work.best.is_none() && !proven {
            match self.any(&mut work, last_deadline) {
                Some(true) => {}
                Some(false) => return Step::NoneLeft,
                None => return Step::OutOfTime,
            }
        }
        if is_first && proven && instance.budgets() == 1 {
            // Of equals the lightest.
            if let Some(selection) = lightest(&instance, work.value() + 1, &self.multipliers) {
                work.best = Some((instance.value(&selection), selection));
            }
        }
        let Some((value, selection)) = work.best else { return Step::NoneLeft };
        self.gaps.push(value - work.relaxed);
        Step::Found {
            selection: selection.iter().map(|&item| instance.choice[item]).collect(),
            bound: self.bound.min(value),
            proven: value - self.gap <= self.bound,
            nodes: work.nodes,
        }
    }

    /// Searches below `cut`, and learns from what is found.
    fn search(&mut self, work: &mut Work<'_>, cut: i64, allowance: Allowance) -> Ended {
        let Found { ended, best, nodes, root_bound, multipliers, .. } =
            search(work.instance, cut, &self.multipliers, allowance, &mut self.knapsacks);
        work.nodes += nodes;
        self.multipliers = multipliers;
        work.relaxed = work.relaxed.max(root_bound);
        self.bound = self.bound.max(root_bound);
        if let Some(selection) = best {
            let value = work.instance.value(&selection);
            if value < work.value() {
                work.best = Some((value, selection));
            }
        }
        if ended == Ended::Complete {
            self.bound = self.bound.max(cut.min(work.value()));
        }
        ended
    }

    /// Looks for any selection at all, and improves it: whether there is one, `None` if time ran out.
    fn any(&mut self, work: &mut Work<'_>, deadline: Instant) -> Option<bool> {
        let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: true, threads: self.threads };
        let ended = self.search(work, NO_CUT, allowance);
        if let Some((value, selection)) = &mut work.best {
            improve(work.instance, selection);
            *value = work.instance.value(selection);
            return Some(true);
        }
        (ended == Ended::Complete).then_some(false)
    }

    /// Finds the optimum; whether that is proven.
    fn exact(&mut self, work: &mut Work<'_>, deadline: Instant) -> bool {
        let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: false, threads: self.threads };
        let mut empty = 0;
        while work.is_open(self.gap, self.bound) {
            if Instant::now() >= deadline {
                return false;
            }
            if empty == 4 && work.best.is_none() {
                // There may be none: find out before raising the cut for ever.
                match self.any(work, deadline) {
                    Some(true) => continue,
                    none => return none.is_some(),
                }
            }
            let cut = self.cut(work, empty).min(work.value());
            match self.search(work, cut, allowance) {
                Ended::Complete => empty += 1,
                Ended::Restart => {}
                Ended::AtFirst | Ended::OutOfTime => return false,
            }
        }
        true
    }

    /// Where a search of a step is to cut, after `empty` searches without a selection: not far above the bound, since
    /// a search costs the more the higher it cuts, but where experience expects the best solution.
    fn cut(&self, work: &Work<'_>, empty: u32) -> i64 {
        if empty > 24 {
            return NO_CUT;
        }
        let floor = self.bound.max(work.relaxed);
        let last = self.gaps.iter().rev().take(2).copied().max().unwrap_or(0);
        let expected = last.max(floor.abs() / FIRST_WINDOW).max(1);
        let widening = if self.gaps.is_empty() { FIRST_WIDENING } else { WIDENING };
        let wider = (expected as f64 * widening.powi(empty as i32)) as i64;
        // At least a good part of the way when the bound has already come close to the guess.
        let wider = wider.min(NO_CUT / 2);
        (work.relaxed + wider + wider / 5).max(floor + 1 + wider / 5).min(NO_CUT)
    }

    /// Finds a selection within the gap of the proven bound; whether it did.
    fn within_gap(&mut self, work: &mut Work<'_>, deadline: Instant) -> bool {
        let (mut dive, mut lift, mut empty) = (FIRST_DIVE, FIRST_LIFT, 0);
        if self.lift == 0 {
            self.lift = self.gap;
        }
        while work.is_open(self.gap, self.bound) {
            if Instant::now() >= deadline {
                return false;
            }
            if empty == 2 && work.best.is_none() {
                match self.any(work, deadline) {
                    Some(true) => continue,
                    none => return none.is_some(),
                }
            }
            let within = (self.bound + self.gap + 1).min(work.value());
            match self.search(
                work,
                within,
                Allowance { deadline, nodes: dive, stop_at_first: true, threads: self.threads },
            ) {
                Ended::AtFirst | Ended::Restart => continue,
                Ended::Complete => {
                    empty += 1;
                    continue;
                }
                Ended::OutOfTime if Instant::now() >= deadline => return false,
                Ended::OutOfTime => dive *= 2,
            }
            let above = (self.bound + self.lift.clamp(1, self.gap)).min(work.value());
            match self.search(
                work,
                above,
                Allowance { deadline, nodes: lift, stop_at_first: true, threads: self.threads },
            ) {
                Ended::AtFirst | Ended::Restart => {}
                Ended::Complete => self.lift += self.lift / 2 + 1,
                Ended::OutOfTime if Instant::now() >= deadline => return false,
                Ended::OutOfTime => {
                    self.lift = (self.lift * 6 / 10).max(1);
                    lift *= 2;
                }
            }
        }
        true
    }
}
