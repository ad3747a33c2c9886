//! How operations are packed into passes over the images.
//!
//! A pass needs memory for three things: what stays from step to step (weights and the optimizer's state of its
//! operations), the teacher's feature maps of this batch and the next, and what one step of an operation occupies while it is worked on
//! (its own feature maps, kept for the backward pass), as many times as there are threads. Passes take whole layers where
//! they can: the teacher then runs only as far as the pass' last layer, and operations of a layer, which are compared with
//! each other while they learn, learn together.

use std::collections::BTreeSet;

use lana_graph::{Graph, Role, Value};
use lana_torch::Algorithm;

use crate::context::{Context, LayerPool};
use crate::{Error, Memory, Result};

/// Most that the operations of a pass may keep. It is what a checkpoint writes: a gigabyte every two minutes takes some per
/// cent of the time, and a further pass costs no more than one operation.
const LARGEST_STATE: u64 = 1 << 30;
/// Most that one step of an operation may occupy: where a whole batch takes more (attention on large maps, of which the paper's pool has some,
/// takes up to 43 GiB for 128 images of 32×32 pixels), it is worked on in parts. The same whatever memory there is,
/// since BatchNorm takes the statistics of a part.
const LARGEST_STEP: u64 = 2 << 30;
/// Memory that libtorch's kernels need beside the feature maps (reordered weights, partial sums), and what the
/// allocator cannot use, as a factor on what is computed.
const OVERHEAD: f64 = 1.3;

/// What one operation takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Need {
    /// Bytes kept from step to step.
    state: u64,
    /// Bytes of one step.
    step: u64,
    /// Parts that a batch is worked on in.
    pub(super) parts: usize,
    /// Work of a step, in multiply-accumulates. A byte moved counts too: see [`Need::of`].
    pub(super) work: f64,
}

impl Need {
    /// What a graph takes in training.
    pub(super) fn of(graph: &Graph, batch: usize, algorithm: Algorithm) -> Self {
        let sizes =
            graph.parameters().into_iter().map(|p| (p.role, p.shape.iter().product::<usize>() as u64));
        let buffers = match algorithm {
            Algorithm::Sgd { .. } => 1,
            Algorithm::AdamW { .. } | Algorithm::RmsProp { .. } => 2,
        };
        let (mut all, mut trained) = (0, 0);
        for (role, size) in sizes {
            all += size;
            trained += if Role::is_trained(role) { size } else { 0 };
        }
        let maps = (0..graph.nodes().len()).map(|n| graph.shape(Value::of_node(n)).elements() as u64);
        let largest = maps.clone().max().unwrap_or(0);
        let elements = maps.sum::<u64>() + graph.input_shape().elements() as u64;
        // Going backwards, two gradients stand beside the maps.
        let step = |images: usize| 4 * (images as u64 * (elements + 2 * largest) + 2 * trained);
        let parts =
            (1..batch).find(|&parts| step(batch.div_ceil(parts)) <= LARGEST_STEP).unwrap_or(batch.max(1));
        Need {
            state: 4 * (all + buffers * trained),
            step: step(batch.div_ceil(parts)),
            parts,
            // Forward, and backward twice. ResNet-56's compact pool spends as long on moving an element of its maps through all
            // of a step as on 50 multiply-accumulates.
            work: batch as f64 * (3.0 * graph.cost().macs as f64 + 50.0 * elements as f64),
        }
    }
}

/// The frame in which passes are packed.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    /// The teacher as it runs.
    pub(super) teacher: &'a Graph,
    /// Images in a batch.
    pub(super) batch: usize,
    /// Operations that are worked on at once.
    pub(super) threads: usize,
    /// Memory for everything.
    pub(super) limit: Memory,
    /// What of it is taken already: the program, the images, the teacher's weights.
    pub(super) taken: Memory,
}

impl Frame<'_> {
    /// Bytes of the teacher's maps for two batches: those of layers `first..=last`, and what runs in front of them.
    fn maps(&self, layers: &BTreeSet<usize>) -> u64 {
        let all = self.teacher.layers();
        let values: BTreeSet<Value> = layers.iter().flat_map(|&l| [all[l].input, all[l].output]).collect();
        let kept: usize = values.iter().map(|&v| self.teacher.shape(v).elements()).sum();
        let end = values.last().map_or(0, |v| v.index());
        let largest = (0..end).map(|n| self.teacher.shape(Value::of_node(n)).elements()).max().unwrap_or(0);
        4 * self.batch as u64 * (2 * kept + 3 * largest) as u64
    }

    /// Bytes that a pass over these operations occupies in all.
    pub(super) fn total(&self, pass: &[(usize, Need)]) -> u64 {
        let layers = pass.iter().map(|(layer, _)| *layer).collect();
        let mut steps: Vec<u64> = pass.iter().map(|(_, need)| need.step).collect();
        steps.sort_unstable_by(|a, b| b.cmp(a));
        let work: u64 = steps.iter().take(self.threads).sum();
        let state = state(pass);
        // A checkpoint holds two copies of the state, while nothing is worked on.
        let needed = self.maps(&layers) + state + work.max(2 * state);
        self.taken.0 + (needed as f64 * OVERHEAD) as u64
    }
}

fn state(pass: &[(usize, Need)]) -> u64 {
    pass.iter().map(|(_, need)| need.state).sum()
}

/// One pass over the images.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pass {
    /// Which of the operations that were packed.
    pub(super) operations: Vec<usize>,
    /// What it occupies.
    pub(super) memory: Memory,
}

/// Packs operations, given by their layer (ascending) and what they take. Fails with the operation that fits nowhere.
pub(super) fn pack(
    operations: &[(usize, Need)],
    frame: &Frame<'_>,
) -> std::result::Result<Vec<Pass>, (usize, Memory)> {
    let fits = |pass: &[(usize, Need)]| frame.total(pass) <= frame.limit.0 && state(pass) <= LARGEST_STATE;
    let mut passes = Vec::new();
    let mut begin = 0;
    while begin < operations.len() {
        let mut end = begin;
        while end < operations.len() {
            let layer = operations[end].0;
            let next = end + operations[end..].iter().take_while(|(l, _)| *l == layer).count();
            if !fits(&operations[begin..next]) {
                break;
            }
            end = next;
        }
        if end == begin {
            // The layer alone is too much: as many of its operations as go.
            let layer = operations[begin].0;
            end = begin + 1;
            while end < operations.len() && operations[end].0 == layer && fits(&operations[begin..=end]) {
                end += 1;
            }
            let alone = Memory(frame.total(&operations[begin..=begin]));
            if alone > frame.limit {
                return Err((begin, alone));
            }
        }
        let memory = Memory(frame.total(&operations[begin..end]));
        passes.push(Pass { operations: (begin..end).collect(), memory });
        begin = end;
    }
    Ok(passes)
}

/// Memory that training may take: what is asked for, else 70 % of what is free.
pub(crate) fn limit(asked: Option<Memory>, taken: Memory) -> Memory {
    let free = || Memory::available().map(|m| Memory(m.0 / 10 * 7 + taken.0));
    asked.or_else(free).unwrap_or(Memory(8 << 30))
}

/// What to say of an operation that fits nowhere.
pub(super) fn too_little(
    context: &Context<'_>,
    place: &LayerPool,
    operation: &str,
    needs: Memory,
    limit: Memory,
) -> Error {
    Error::input(
        format!(
            "phase 1 may take {}, but {operation} at {} alone needs {}",
            limit.rounded(),
            place.layer,
            needs.rounded()
        ),
        format!(
            "give more (--memory SIZE), or change {}: fewer `workers`, a smaller `pretrain.batch`, or a `pool` without the \
             operation (`{},-{operation}`)",
            context.run.path("run.toml").display(),
            context.config.pool
        ),
    )
}

/// One part of the work, for several processes that share a run: part `index` (from 1) of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// More parts than any pool has layers, or any site has machines.
const MOST_SHARDS: usize = 10_000;

impl std::str::FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let numbers = text.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
        match numbers {
            Some((index, count)) if (1..=count).contains(&index) && count <= MOST_SHARDS => {
                Ok(Shard { index, count })
            }
            // All in the message: the command line shows no more of an argument that does not parse.
            _ => Err(Error::input(
                format!(
                    "shard `{text}` is not of the form K/N with 1 <= K <= N <= {MOST_SHARDS}, such as 2/4: the second of four \
                     parts, each for a process of its own"
                ),
                "",
            )),
        }
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index, self.count)
    }
}

impl Shard {
    /// Its name in the run directory.
    pub(crate) fn folder(self) -> String {
        format!("shard-{}-of-{}", self.index, self.count)
    }

    /// The part that has such a name in the run directory.
    pub(crate) fn of_folder(name: &str) -> Option<Self> {
        let (index, count) = name.strip_prefix("shard-")?.split_once("-of-")?;
        format!("{index}/{count}").parse().ok()
    }

    /// Whether both divide the work into as many parts.
    pub(crate) fn divides_like(self, other: Self) -> bool {
        self.count == other.count
    }

    /// Which operations are this part's, given the layer (ascending) and the work of *all* operations of the run, done or not:
    /// so that every process, at any time, divides alike. Layers stay whole where there are enough of them.
    pub(super) fn part(self, operations: &[(usize, f64)]) -> Vec<bool> {
        let layers: BTreeSet<usize> = operations.iter().map(|(layer, _)| *layer).collect();
        let group = |i: usize| if layers.len() >= self.count { operations[i].0 } else { i };
        let total: f64 = operations.iter().map(|(_, work)| work).sum();
        let mut mine = Vec::with_capacity(operations.len());
        let (mut before, mut begin) = (0.0, 0);
        while begin < operations.len() {
            let end =
                (begin..operations.len()).find(|&i| group(i) != group(begin)).unwrap_or(operations.len());
            let work: f64 = operations[begin..end].iter().map(|(_, work)| work).sum();
            let middle = (before + work / 2.0) / total.max(f64::MIN_POSITIVE);
            let shard = ((middle * self.count as f64) as usize).min(self.count - 1);
            mine.resize(end, shard + 1 == self.index);
            (before, begin) = (before + work, end);
        }
        mine
    }
}

#[cfg(test)]
mod tests {
    use lana_models::zoo::{self, ZooOptions};

    use super::*;

    const ADAMW: Algorithm = Algorithm::AdamW { weight_decay: 0.0 };

    fn needs(count: usize) -> (Graph, Vec<(usize, Need)>) {
        let teacher = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
        let mut all = Vec::new();
        for (index, layer) in teacher.layers().iter().enumerate() {
            let own = teacher.layer_graph(&layer.name).unwrap();
            all.extend(std::iter::repeat_n((index, Need::of(&own, 128, ADAMW)), count));
        }
        (teacher, all)
    }

    #[test]
    fn everything_goes_in_one_pass_where_it_fits_and_in_several_where_not() {
        let (teacher, all) = needs(6);
        let frame = |limit: u64| Frame {
            teacher: &teacher,
            batch: 128,
            threads: 2,
            limit: Memory(limit),
            taken: Memory(100 << 20),
        };
        let passes = pack(&all, &frame(8 << 30)).unwrap();
        assert_eq!(passes.len(), 1);
        assert_eq!(passes[0].operations.len(), all.len());

        let tight = passes[0].memory.0 * 2 / 3;
        let passes = pack(&all, &frame(tight)).unwrap();
        assert!(passes.len() > 1);
        let together: Vec<usize> = passes.iter().flat_map(|p| p.operations.clone()).collect();
        assert_eq!(together, (0..all.len()).collect::<Vec<_>>());
        assert!(passes.iter().all(|p| p.memory.0 <= tight));

        let (operation, needed) = pack(&all, &frame(101 << 20)).unwrap_err();
        assert!(operation == 0 && needed.0 > 101 << 20);
    }

    #[test]
    fn the_paper_pool_fits_into_eight_gibibytes() {
        let teacher = zoo::build("resnet56_cifar", &ZooOptions::default()).unwrap();
        let pool = lana_models::pool::Pool::parse("paper").unwrap();
        let mut all = Vec::new();
        for (index, layer) in teacher.layers().iter().enumerate() {
            // Layers of a stage are alike; three of each will do.
            if index % 3 != 0 {
                continue;
            }
            let own = teacher.layer_graph(&layer.name).unwrap();
            let graphs = pool.operations_for(&own).into_iter().filter_map(|(_, graph)| graph.ok());
            all.extend(graphs.map(|graph| (index, Need::of(&graph, 128, ADAMW))));
        }
        let limit = Memory(8 << 30);
        let taken = Memory(400 << 20);
        let passes = pack(&all, &Frame { teacher: &teacher, batch: 128, threads: 2, limit, taken }).unwrap();
        assert!(passes.iter().all(|p| p.memory <= limit));
        // Transformers have up to 25 million parameters: it is their state that asks for passes.
        assert!(
            all.len() > 1000 && passes.len() <= 20,
            "{} operations in {} passes",
            all.len(),
            passes.len()
        );
        // Only attention needs parts of batches.
        let in_parts = all.iter().filter(|(_, need)| need.parts > 1).count();
        assert!(in_parts > 0 && in_parts < all.len() / 10, "{in_parts} of {}", all.len());
    }

    #[test]
    fn shards_divide_all_operations_evenly_whatever_is_done() {
        let all: Vec<(usize, f64)> = (0..120).map(|i| (i / 8, 1.0 + (i % 8) as f64)).collect();
        for count in [1, 2, 4, 7, 40] {
            let parts: Vec<Vec<bool>> =
                (1..=count).map(|i| format!("{i}/{count}").parse::<Shard>().unwrap().part(&all)).collect();
            for i in 0..all.len() {
                assert_eq!(parts.iter().filter(|p| p[i]).count(), 1, "operation {i} of {count} shards");
            }
            if count <= 7 {
                let sizes: Vec<usize> = parts.iter().map(|p| p.iter().filter(|m| **m).count()).collect();
                assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 8, "{sizes:?}");
            }
        }
        for text in ["0/4", "5/4", "4", "a/b", "1/0", "1/10001"] {
            let error = text.parse::<Shard>().unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
            let message = error.to_string();
            assert!(
                message.contains(text) && message.contains("K/N") && message.contains("2/4"),
                "{message}"
            );
        }
        let shard: Shard = "2/4".parse().unwrap();
        assert_eq!(Shard::of_folder(&shard.folder()), Some(shard));
        for name in ["shard-2-of-4.lock", "shard-5-of-4", "layer1.0", "shard-"] {
            assert_eq!(Shard::of_folder(name), None, "{name}");
        }
    }
}
