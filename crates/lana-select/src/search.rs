//! Branch and bound over one instance, on as many threads as allowed.
//!
//! The *cut value* is exclusive: a search looks for selections with a score below it, and every selection found
//! lowers it. A search that comes to its end without a selection has proven that the best is at least the cut value.
//!
//! A small search is one depth-first exploration. A larger one goes in *rounds*: the open nodes on top of the stack are explored a
//! little way, each by itself, by whichever thread is free; then what they found and left open is put together in their
//! order, and the next round begins with the lowest cut value that any of them found. What a round does follows from the
//! nodes it starts with alone, so the result is the same for any number of threads, one included.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use crate::explorer::{Explored, Explorer, KnapsackRecord, Node, Task};
use crate::instance::Instance;
use crate::relaxation::{Multipliers, Units};
use crate::root::{Root, root};

/// Above every sum of scores, and far from overflow.
pub(crate) const NO_CUT: i64 = 1 << 44;

/// Nodes of a search for the best, and of one for any selection, before there are rounds.
const ALONE: u64 = 256;
const ALONE_TO_FIRST: u64 = 2_000;

/// Nodes in a round, and how far each is explored. Much is lost neither at the end of a round, when one thread waits for the
/// other, nor by what one finds being told to the others late.
const ROUND: usize = 32;
const ROUND_NODES: u64 = 128;

/// Open nodes of large problems may come to gigabytes: with this many bytes of them a round takes only the last, which is plain
/// depth-first search, until there are fewer again.
const MOST_BYTES: usize = 64 << 20;

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
    pub(crate) threads: usize,
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
    let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: true, threads: 1 };
    let found = search(instance, NO_CUT, &Multipliers::default(), allowance, &mut KnapsackRecord::default());
    (found.ended != Ended::OutOfTime).then_some(found.best)
}

/// The best selection of an instance; `None` if there is none or time ran out.
pub(crate) fn optimum(instance: &Instance, deadline: Instant) -> Option<Vec<usize>> {
    let allowance = Allowance { deadline, nodes: u64::MAX, stop_at_first: false, threads: 1 };
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
    let units = Units::new(&core);
    let mut task = Task {
        cut: cut - core.constant,
        restart_at: bound - core.constant + (cut - bound) / 2,
        deadline: allowance.deadline,
        nodes: if allowance.stop_at_first { ALONE_TO_FIRST } else { ALONE },
        stop_at_first: allowance.stop_at_first,
        knapsacks: *knapsacks,
    };
    let mut explorers: Vec<Explorer> = (0..allowance.threads.clamp(1, ROUND))
        .map(|_| Explorer::new(instance, &core, &units, task))
        .collect();
    let mut open = vec![Node { active, relaxation }];
    let mut round = 1;
    found.ended = loop {
        let left = allowance.nodes - found.nodes;
        if left == 0 {
            break Ended::OutOfTime;
        }
        task.nodes = task.nodes.min(left);
        let nodes = open.split_off(open.len().saturating_sub(round.min(left.div_ceil(task.nodes) as usize)));
        let mut late = false;
        for explored in explore(&mut explorers, nodes, task) {
            found.nodes += explored.nodes;
            knapsacks.add(explored.knapsacks);
            late |= explored.late;
            open.extend(explored.open);
            if let Some((value, selection)) = explored.best
                && value < task.cut
            {
                task.cut = value;
                found.best = Some(selection);
            }
        }
        task.knapsacks = *knapsacks;
        if found.best.is_some() && allowance.stop_at_first {
            break Ended::AtFirst;
        }
        if open.is_empty() {
            break Ended::Complete;
        }
        if late {
            break Ended::OutOfTime;
        }
        if found.best.is_some() && task.cut <= task.restart_at && found.nodes > 8 {
            break Ended::Restart;
        }
        let bytes: usize = open.iter().map(Node::bytes).sum();
        (round, task.nodes) = (if bytes < MOST_BYTES { ROUND } else { 1 }, ROUND_NODES);
    };
    found
}

/// Explores each of some nodes; results in their order.
fn explore(explorers: &mut [Explorer], nodes: Vec<Node>, task: Task) -> Vec<Explored> {
    if nodes.len() == 1 || explorers.len() == 1 {
        return nodes.into_iter().map(|node| explorers[0].explore(node, task)).collect();
    }
    let places: Vec<Mutex<(Node, Explored)>> =
        nodes.into_iter().map(|node| Mutex::new((node, Explored::default()))).collect();
    let next = AtomicUsize::new(0);
    let work = |explorer: &mut Explorer| {
        // Each place is locked by one thread, once.
        while let Some(Ok(mut place)) =
            places.get(next.fetch_add(1, Ordering::Relaxed)).map(|place| place.lock())
        {
            place.1 = explorer.explore(std::mem::take(&mut place.0), task);
        }
    };
    std::thread::scope(|scope| {
        let (own, others) = explorers.split_at_mut(1);
        for explorer in others {
            scope.spawn(|| work(explorer));
        }
        own.iter_mut().for_each(work);
    });
    places
        .into_iter()
        .map(|place| place.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).1)
        .collect()
}
