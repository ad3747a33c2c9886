//! The operations that may be selected, and the networks that selections of them make.

use std::collections::BTreeSet;
use std::path::PathBuf;

use lana_graph::{Graph, Value, Weights};
use lana_torch::{
    Batch, BatchNorm, Evaluation, Network, Tensor, divergence, losses, numbers, without_gradients,
};
use rayon::prelude::*;

use crate::context::{Context, LayerPool, Teacher};
use crate::stages::pretrain;
use crate::{Error, Result};

/// An operation that has weights and may be selected.
pub(crate) struct Trained {
    pub(crate) layer: usize,
    pub(crate) name: String,
    pub(crate) graph: Graph,
    /// Where its weights lie, with their checksum; the identity has none.
    file: Option<(PathBuf, String)>,
}

/// Every operation that can be selected: trained ones, and identities. Weights stay in their files until they are needed:
/// those of a large pool together may be larger than memory.
pub(crate) struct Library<'a> {
    teacher: &'a Teacher,
    operations: Vec<Trained>,
}

impl Trained {
    /// The weights that phase 1 gave it.
    pub(crate) fn weights(&self) -> Result<Weights> {
        match &self.file {
            Some((path, sum)) => crate::run::read_weights(path, sum, &self.graph),
            None => Ok(Weights::new()),
        }
    }

    pub(crate) fn is_identity(&self) -> bool {
        self.file.is_none()
    }
}

impl<'a> Library<'a> {
    /// What the run has of the pool.
    pub(crate) fn of(context: &Context<'_>, teacher: &'a Teacher, pool: &[LayerPool]) -> Result<Self> {
        let mut operations = Vec::new();
        for (layer, place) in pool.iter().enumerate() {
            for (operation, graph) in &place.operations {
                let file = if operation.is_identity() {
                    None
                } else {
                    match pretrain::record_of(context, &place.layer, operation.name(), graph)? {
                        Some(record) if !record.failed => {
                            Some((pretrain::weights_file(context, &record), record.sha256))
                        }
                        _ => continue,
                    }
                };
                operations.push(Trained { layer, name: operation.to_string(), graph: graph.clone(), file });
            }
        }
        Ok(Library { teacher, operations })
    }

    pub(crate) fn operations(&self) -> &[Trained] {
        &self.operations
    }

    /// The network in which `choices`, an operation a layer, stand in the teacher.
    pub(crate) fn assemble(&self, choices: &[String]) -> Result<(Graph, Weights)> {
        let own = &self.teacher.graph;
        if choices.len() != own.layers().len() {
            return Err(Error::input(
                format!("a selection of {} layers, the teacher has {}", choices.len(), own.layers().len()),
                "delete the budget's folder and give the same command again",
            ));
        }
        let mut graph = own.clone().renamed(format!("{}-student", own.name()));
        let mut weights = self.teacher.weights.clone();
        for (index, (layer, choice)) in own.layers().iter().zip(choices).enumerate() {
            if choice == "teacher" {
                continue;
            }
            let found = self.operations.iter().find(|t| t.layer == index && t.name == *choice);
            let trained = found.ok_or_else(|| {
                Error::input(
                    format!("{}: the selected operation `{choice}` has no trained weights", layer.name),
                    "delete the budget's folder and give the same command again",
                )
            })?;
            // By the network as it is now, since names depend on what stands outside of the layer.
            graph.replace_weights(&layer.name, &mut weights, &trained.weights()?)?;
            graph = graph.replace(&layer.name, &trained.graph)?;
        }
        Ok((graph, weights))
    }

    /// What selections answer to images, with the statistics of each batch.
    ///
    /// Selections that begin alike give the same feature maps up to the first layer in which they differ. In alphabetical
    /// order those that begin alike follow each other; each goes on from the last map that it shares with the one before.
    /// The teacher answers once.
    pub(crate) fn answers(
        &self,
        context: &Context<'_>,
        selections: &[&[String]],
        images: &[Batch],
    ) -> Result<Vec<Answers>> {
        let mut order: Vec<usize> = (0..selections.len()).collect();
        order.sort_by_key(|&index| selections[index]);
        // As many pieces as there are workers, so that none is idle; fewer pieces share more.
        let pieces = context.threads.current_num_threads().div_ceil(images.len().max(1));
        let piece = order.len().div_ceil(pieces).max(1);
        let device = context.device;
        let teacher = Network::frozen(&self.teacher.graph, &self.teacher.weights, device)?;
        let mut tasks = Vec::new();
        for batch in images {
            let logits = without_gradients(|| teacher.forward(&batch.images, BatchNorm::Running))?;
            let parts = order.chunks(piece).map(|part| (part, batch.share(), logits.shallow_clone()));
            tasks.extend(parts);
        }
        let run = |(part, batch, logits): (_, Batch, Tensor)| {
            let part: &[usize] = part;
            let choices: Vec<&[String]> = part.iter().map(|&index| selections[index]).collect();
            let network = |choices: &[String]| -> Result<Network> {
                let (graph, weights) = self.assemble(choices)?;
                Ok(Network::new(&graph, &weights, device)?)
            };
            let answers = without_gradients(|| together(&choices, network, &batch, &logits))?;
            Ok((part, answers))
        };
        // In the order of the batches, whoever is done first.
        let results: Vec<Result<(&[usize], Vec<Answers>)>> =
            context.threads.install(|| tasks.into_par_iter().with_max_len(1).map(run).collect());
        let mut all = vec![Answers::default(); selections.len()];
        for result in results {
            let (part, answers) = result?;
            for (index, answers) in part.iter().zip(answers) {
                all[*index].extend(answers);
            }
        }
        Ok(all)
    }
}

/// What a network answered to images, in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Answers {
    pub(crate) evaluation: Evaluation,
    /// Cross-entropy of each image.
    pub(crate) losses: Vec<f32>,
    /// Divergence from the teacher of each image.
    pub(crate) divergences: Vec<f32>,
}

impl Answers {
    fn extend(&mut self, other: Answers) {
        self.evaluation.merge(&other.evaluation);
        self.losses.extend(other.losses);
        self.divergences.extend(other.divergences);
    }
}

/// Runs selections, in alphabetical order, on one batch.
fn together(
    selections: &[&[String]],
    network: impl Fn(&[String]) -> Result<Network>,
    batch: &Batch,
    teacher: &Tensor,
) -> Result<Vec<Answers>> {
    let shared = shared(selections);
    // Maps in front of layers, of the selection before; deeper ones last.
    let mut maps: Vec<(usize, Tensor)> = Vec::new();
    let mut all = Vec::with_capacity(selections.len());
    for (index, choices) in selections.iter().enumerate() {
        let network = network(choices)?;
        let in_front = |layer: usize| network.graph().layers().get(layer).map(|l| l.input);
        maps.retain(|(layer, _)| *layer <= shared[index]);
        let begun = maps.last().map(|(layer, _)| *layer);
        let (from, map) = match maps.last() {
            Some((layer, map)) => (in_front(*layer).unwrap_or(Value::INPUT), map),
            None => (Value::INPUT, &batch.images),
        };
        let needed: Vec<(usize, Value)> = later(&shared[index + 1..])
            .into_iter()
            .filter(|layer| begun.is_none_or(|begun| *layer > begun))
            .filter_map(|layer| Some((layer, in_front(layer)?)))
            .collect();
        let taps: Vec<Value> = needed.iter().map(|(_, value)| *value).collect();
        let (logits, tapped) = network.forward_from_tapped(from, map, BatchNorm::Batch, &taps)?;
        maps.extend(needed.into_iter().map(|(layer, _)| layer).zip(tapped));
        let mut answers = Answers {
            losses: numbers(&losses(&logits, &batch.labels)?)?,
            divergences: numbers(&divergence(&logits, teacher)?)?,
            ..Answers::default()
        };
        answers.evaluation.add_logits(&logits, &batch.labels)?;
        all.push(answers);
    }
    Ok(all)
}

/// In how many leading layers each selection agrees with the one before it.
fn shared(selections: &[&[String]]) -> Vec<usize> {
    let agree = |a: &[String], b: &[String]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let with_last = selections.windows(2).map(|pair| agree(pair[0], pair[1]));
    std::iter::once(0).chain(with_last).take(selections.len()).collect()
}

/// The layers in front of which later selections go on from a map of this one, given how much each agrees with the one
/// before it: where none in between has left the way earlier.
fn later(shared: &[usize]) -> BTreeSet<usize> {
    let mut least = usize::MAX;
    shared
        .iter()
        .filter(|&&count| {
            let reaches = count <= least;
            least = least.min(count);
            reaches
        })
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use lana_models::init;
    use lana_models::pool::Pools;
    use lana_models::zoo::{self, Preprocessing, ZooOptions};
    use lana_torch::Device;

    use super::*;
    use crate::context::pool_of;

    /// Of a small network with weights by chance: the identities alone, which need no training.
    fn library(teacher: &Teacher) -> Library<'_> {
        let pool = pool_of(&Pools::parse("identity", &[]).unwrap(), &teacher.graph).unwrap();
        let mut operations = Vec::new();
        for (layer, place) in pool.into_iter().enumerate() {
            for (operation, graph) in place.operations {
                operations.push(Trained { layer, name: operation.to_string(), graph, file: None });
            }
        }
        Library { teacher, operations }
    }

    #[test]
    fn selections_that_share_maps_answer_as_each_by_itself() {
        let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
        let weights = init::random(&graph, 3);
        let preprocessing = Preprocessing::IMAGENET;
        let teacher = Teacher { graph, weights, preprocessing };
        let library = library(&teacher);
        let may: Vec<usize> = library.operations.iter().map(|t| t.layer).collect();
        assert!(may.len() >= 6, "{may:?}");
        let layers = teacher.graph.layers().len();
        let without = |out: &[usize]| -> Vec<String> {
            let choice = |layer| if out.contains(&layer) { "identity" } else { "teacher" };
            (0..layers).map(|layer| choice(layer).to_string()).collect()
        };
        let (first, last) = (may[0], may[may.len() - 1]);
        let mut all = [
            without(&[]),
            without(&[first]),
            without(&[last]),
            without(&[first, last]),
            without(&[first, may[2]]),
            without(&[may[1], may[2], last]),
            without(&may),
        ];
        all.sort();
        let all: Vec<&[String]> = all.iter().map(Vec::as_slice).collect();
        let shape = teacher.graph.input_shape();
        let pixels: Vec<f32> =
            (0..4 * shape.elements()).map(|i| ((i * 37 % 101) as f32 - 50.0) / 30.0).collect();
        let cpu = Device::Cpu;
        let batch = Batch::new(&pixels, &[0, 3, 5, 9], shape, cpu).unwrap();
        let network = |choices: &[String]| -> Result<Network> {
            let (graph, weights) = library.assemble(choices)?;
            Ok(Network::new(&graph, &weights, cpu)?)
        };
        let logits = without_gradients(|| {
            Network::frozen(&teacher.graph, &teacher.weights, cpu)?.forward(&batch.images, BatchNorm::Running)
        })
        .unwrap();
        let shared = without_gradients(|| together(&all, network, &batch, &logits)).unwrap();
        let mut distinct = BTreeSet::new();
        for (choices, answers) in all.iter().zip(&shared) {
            let alone = without_gradients(|| together(&[choices], network, &batch, &logits)).unwrap();
            assert_eq!(answers.losses, alone[0].losses, "{choices:?}");
            assert_eq!(answers.divergences, alone[0].divergences, "{choices:?}");
            assert_eq!(answers.evaluation, alone[0].evaluation, "{choices:?}");
            distinct.insert(format!("{:?}", answers.losses));
        }
        assert_eq!(distinct.len(), all.len(), "networks that differ answer differently");
    }

    fn selections(words: &[&str]) -> Vec<Vec<String>> {
        words.iter().map(|word| word.chars().map(String::from).collect()).collect()
    }

    #[test]
    fn selections_go_on_where_they_part() {
        let all = selections(&["aaaa", "aaba", "aabb", "abaa", "baaa"]);
        let all: Vec<&[String]> = all.iter().map(Vec::as_slice).collect();
        let shared = shared(&all);
        assert_eq!(shared, [0, 2, 3, 1, 0]);
        // The first keeps what the second, fourth and fifth go on from; the third agrees with the second further than that.
        assert_eq!(later(&shared[1..]), BTreeSet::from([0, 1, 2]));
        assert_eq!(later(&shared[2..]), BTreeSet::from([0, 1, 3]));
        assert_eq!(later(&shared[5..]), BTreeSet::new());
    }
}
