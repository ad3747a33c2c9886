//! What is timed against what.

use std::collections::HashMap;

use lana_graph::{Graph, GraphBuilder, Shape, Value};
use serde::{Deserialize, Serialize};

use super::{LayerCandidates, TableOptions, is_identity, selections};
use crate::sealed::sha256;
use crate::table::TEACHER;
use crate::{Error, Result};

/// Seconds that every table may take, and what each network adds to that.
const TIME_FOR_ALL: f64 = 90.0;
const TIME_FOR_EACH: f64 = 0.75;

/// What must be timed for a lookup table, and how it becomes one; the module's documentation has the method.
///
/// It holds networks as graphs and names no device. Weights are made when it is measured, so that a plan for thousands of
/// networks is a few megabytes, and any runtime can measure it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    pub(super) teacher: Graph,
    pub(super) options: TableOptions,
    pub(super) classes: Vec<Class>,
    /// What can only be timed alone.
    pub(super) parts: Vec<Part>,
    pub(super) jobs: Vec<Job>,
    /// What was asked for at each layer.
    pub(super) places: Vec<Vec<Place>>,
    /// Selections to time whole: a place's number for each layer, none for the teacher's own.
    pub(super) whole: Vec<Vec<Option<usize>>>,
}

/// Layers alike in structure and shapes.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Class {
    /// Positions of the layers in the teacher.
    pub(super) members: Vec<usize>,
    /// Cut out of the teacher, with the names of the members that it replaces.
    pub(super) window: Graph,
    pub(super) replaced: Vec<String>,
    /// Whether the layer may be left out.
    pub(super) skippable: bool,
}

/// Part of the teacher that is timed alone: a class that cannot be skipped, or stem or head (none).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Part {
    pub(super) class: Option<usize>,
    pub(super) graph: Graph,
}

/// A distinct operation to time, at the class with most members that may use it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Job {
    pub(super) operation: Graph,
    pub(super) class: usize,
}

/// What was asked for at one layer: the operation's name and its job; none for the teacher's own layer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Place {
    pub(super) operation: String,
    pub(super) job: Option<usize>,
}

/// A network of a [`Plan`] that is timed against another: against the whole teacher, or (operations) against the window of
/// their class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Subject {
    /// The teacher against itself: only where there is nothing else to time it with.
    Teacher,
    /// The unchanged window of a class.
    Window(usize),
    /// A part of the teacher alone.
    Part(usize),
    /// A window with its members replaced by an operation.
    Operation(usize),
    /// A random selection.
    Whole(usize),
}

/// What a [`Subject`] is timed against.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Reference {
    Teacher,
    Window(usize),
}

impl Plan {
    /// Plans the table of a teacher. Layers without candidates keep their own operation.
    ///
    /// # Errors
    /// If a layer is unknown, an operation does not fit, or an option is impossible.
    pub fn new(teacher: &Graph, candidates: &[LayerCandidates], options: &TableOptions) -> Result<Plan> {
        options.check()?;
        let (classes, keys) = classes(teacher, options)?;
        let (jobs, places) = jobs(teacher, candidates, &classes, &keys)?;
        let parts = parts(teacher, &classes)?;
        let (teacher, options) = (teacher.clone(), options.clone());
        let plan = Plan { teacher, options, classes, parts, jobs, places, whole: Vec::new() };
        Ok(plan.with_selections(plan.options.whole, plan.options.seed))
    }

    /// The same with other random selections.
    pub(super) fn with_selections(&self, count: usize, seed: u64) -> Plan {
        let choices = |here: &Vec<Place>| (0..here.len()).filter(|&p| here[p].job.is_some()).collect();
        let choices: Vec<Vec<usize>> = self.places.iter().map(choices).collect();
        Plan { whole: selections::stratified(&choices, count, seed), ..self.clone() }
    }

    /// The teacher.
    pub fn teacher(&self) -> &Graph {
        &self.teacher
    }

    /// How it is measured.
    pub fn options(&self) -> &TableOptions {
        &self.options
    }

    /// SHA-256 of what the table will price, see [`Table::networks`](crate::Table::networks).
    pub fn networks(&self) -> String {
        let mut text = key(&self.teacher);
        for (layer, here) in self.teacher.layers().iter().zip(&self.places) {
            text += &format!("\n{}", layer.name);
            for Place { operation, job } in here {
                let own = job.map_or_else(String::new, |job| key(&self.jobs[job].operation));
                text += &format!("\n {operation} {own}");
            }
        }
        sha256(text.as_bytes())
    }

    /// How long measuring may take, in seconds: as the options say, or 90 seconds and three quarters of one for every network.
    pub fn time_limit(&self) -> f64 {
        let grown = TIME_FOR_ALL + TIME_FOR_EACH * self.subjects().len() as f64;
        self.options.time_limit_s.unwrap_or(grown)
    }

    /// Everything that is timed.
    pub fn subjects(&self) -> Vec<Subject> {
        let mut subjects: Vec<Subject> = (0..self.classes.len()).map(Subject::Window).collect();
        subjects.extend((0..self.parts.len()).map(Subject::Part));
        subjects.extend((0..self.whole.len()).map(Subject::Whole));
        if subjects.is_empty() {
            subjects.push(Subject::Teacher);
        }
        subjects.extend((0..self.jobs.len()).map(Subject::Operation));
        subjects
    }

    pub(super) fn reference(&self, subject: Subject) -> Reference {
        match subject {
            Subject::Operation(job) => Reference::Window(self.jobs[job].class),
            _ => Reference::Teacher,
        }
    }

    pub(super) fn reference_network(&self, reference: Reference) -> &Graph {
        match reference {
            Reference::Teacher => &self.teacher,
            Reference::Window(class) => &self.classes[class].window,
        }
    }

    /// The network to time.
    pub(super) fn network(&self, subject: Subject) -> Result<Graph> {
        Ok(match subject {
            Subject::Teacher => self.teacher.clone(),
            Subject::Window(class) => self.classes[class].window.clone(),
            Subject::Part(part) => self.parts[part].graph.clone(),
            Subject::Operation(job) => {
                let Job { operation, class } = &self.jobs[job];
                let mut graph = self.classes[*class].window.clone();
                for layer in &self.classes[*class].replaced {
                    graph = graph.replace(layer, operation)?;
                }
                graph
            }
            Subject::Whole(index) => {
                let mut graph = self.teacher.clone();
                for (position, choice) in self.whole[index].iter().enumerate() {
                    if let Some(job) = choice.and_then(|place| self.places[position][place].job) {
                        let layer = &self.teacher.layers()[position].name;
                        graph = graph.replace(layer, &self.jobs[job].operation)?;
                    }
                }
                graph
            }
        })
    }

    /// The operations of a random selection.
    pub(super) fn selection(&self, index: usize) -> Vec<String> {
        let name = |(position, choice): (usize, &Option<usize>)| match choice {
            Some(place) => self.places[position][*place].operation.clone(),
            None => TEACHER.to_string(),
        };
        self.whole[index].iter().enumerate().map(name).collect()
    }

    /// Refuses a plan, read from a file, whose parts do not fit each other.
    pub(super) fn check_whole(&self) -> Result<()> {
        self.options.check()?;
        let wrong = |what: String| Err(Error::Options(format!("the plan {what}")));
        let layers = self.teacher.layers().len();
        if self.places.len() != layers || self.whole.iter().any(|w| w.len() != layers) {
            return wrong(format!("is not for the {layers} layers of its teacher"));
        }
        let known = |class: usize| class < self.classes.len();
        let job_known = |place: &Place| place.job.is_none_or(|j| j < self.jobs.len());
        let place_known =
            |(at, choice): (usize, &Option<usize>)| choice.is_none_or(|c| c < self.places[at].len());
        let sound =
            self.classes.iter().all(|c| !c.replaced.is_empty() && c.members.iter().all(|&m| m < layers))
                && self.parts.iter().all(|p| p.class.is_none_or(known))
                && self.jobs.iter().all(|j| known(j.class))
                && self.places.iter().flatten().all(job_known)
                && self.whole.iter().all(|w| w.iter().enumerate().all(place_known));
        match sound {
            true => Ok(()),
            false => wrong("refers to a class, an operation or a layer that it does not hold".into()),
        }
    }
}

/// Structure of a network without names: what decides its latency.
fn key(graph: &Graph) -> String {
    let nodes: Vec<String> = graph
        .nodes()
        .iter()
        .map(|n| format!("{:?}{:?}", n.op, n.inputs.iter().map(|v| v.index()).collect::<Vec<_>>()))
        .collect();
    // What an operation without effect computes is not asked.
    let nodes = if is_identity(graph) { String::new() } else { nodes.join(";") };
    format!("{}>{}@{}", graph.input_shape(), nodes, graph.output().index())
}

/// The classes, and what the layers of each are made of.
fn classes(teacher: &Graph, options: &TableOptions) -> Result<(Vec<Class>, Vec<String>)> {
    let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
    for (position, layer) in teacher.layers().iter().enumerate() {
        let key = key(&teacher.layer_graph(&layer.name)?);
        match groups.iter_mut().find(|(k, _)| *k == key) {
            Some((_, members)) => members.push(position),
            None => groups.push((key, vec![position])),
        }
    }
    let class = |(key, members): (String, Vec<usize>)| {
        let chosen = neighbouring(&members, options.replaced);
        let window = window(teacher, chosen[0], chosen[chosen.len() - 1], options.neighbours);
        let replaced = chosen.iter().map(|&m| teacher.layers()[m].name.clone()).collect();
        let first = &teacher.layers()[members[0]];
        let skippable = teacher.shape(first.input) == teacher.shape(first.output);
        (Class { members, window, replaced, skippable }, key)
    };
    Ok(groups.into_iter().map(class).unzip())
}

/// The middle of the longest run of neighbours.
fn neighbouring(members: &[usize], most: usize) -> Vec<usize> {
    let runs = members.chunk_by(|a, b| a + 1 == *b);
    let longest = runs.max_by_key(|r| r.len()).unwrap_or_default();
    let count = longest.len().min(most);
    let start = (longest.len() - count) / 2;
    longest[start..start + count].to_vec()
}

/// The teacher from `neighbours` layers before the first to as many behind the last. The whole of it where that is asked
/// for, or where a connection passes around the window.
fn window(teacher: &Graph, first: usize, last: usize, neighbours: Option<usize>) -> Graph {
    let cut = neighbours.and_then(|n| {
        let layers = teacher.layers();
        let from = if first < n { Value::INPUT } else { layers[first - n].input };
        let to = layers.get(last + n).map_or(teacher.output(), |l| l.output);
        teacher.subgraph(from, to, "").ok()
    });
    // A layer that the cut lost could not be replaced.
    let whole = |g: &Graph| (first..=last).all(|l| g.layer(&teacher.layers()[l].name).is_ok());
    cut.filter(whole).unwrap_or_else(|| teacher.clone())
}

/// Distinct operations, and which of them each layer's candidates are.
fn jobs(
    teacher: &Graph,
    candidates: &[LayerCandidates],
    classes: &[Class],
    keys: &[String],
) -> Result<(Vec<Job>, Vec<Vec<Place>>)> {
    let mut class_of = vec![0; teacher.layers().len()];
    for (index, class) in classes.iter().enumerate() {
        class.members.iter().for_each(|&m| class_of[m] = index);
    }
    let mut jobs: Vec<Job> = Vec::new();
    let mut places: Vec<Vec<Place>> = vec![Vec::new(); teacher.layers().len()];
    // Skipping is timed at every class that can be skipped, because it prices the class itself.
    let mut skips = HashMap::new();
    for (index, class) in classes.iter().enumerate().filter(|(_, c)| c.skippable) {
        let input = teacher.shape(teacher.layers()[class.members[0]].input).clone();
        skips.insert(index, jobs.len());
        jobs.push(Job { operation: skip(input)?, class: index });
    }
    let mut known: HashMap<String, usize> = HashMap::new();
    for candidate in candidates {
        let (position, layer) = teacher.layer(&candidate.layer)?;
        let class = class_of[position];
        let shapes = (teacher.shape(layer.input), teacher.shape(layer.output));
        for (name, operation) in &candidate.operations {
            if (operation.input_shape(), operation.output_shape()) != shapes {
                // Reports what does not fit.
                teacher.replace(&candidate.layer, operation)?;
            }
            let key = key(operation);
            let job = if key == keys[class] {
                None
            } else if is_identity(operation) {
                skips.get(&class).copied()
            } else {
                let index = *known.entry(key).or_insert_with(|| {
                    jobs.push(Job { operation: operation.clone(), class });
                    jobs.len() - 1
                });
                // The more members, the less noise.
                let count = |class: usize| classes[class].replaced.len();
                if count(class) > count(jobs[index].class) {
                    jobs[index].class = class;
                }
                Some(index)
            };
            places[position].push(Place { operation: name.clone(), job });
        }
    }
    Ok((jobs, places))
}

fn skip(shape: Shape) -> Result<Graph> {
    Ok(GraphBuilder::new("identity", shape).finish(Value::INPUT)?)
}

/// What can only be timed alone: a layer of each class that cannot be skipped, stem and head.
fn parts(teacher: &Graph, classes: &[Class]) -> Result<Vec<Part>> {
    let mut parts = Vec::new();
    for (index, class) in classes.iter().enumerate().filter(|(_, c)| !c.skippable) {
        let graph = teacher.layer_graph(&teacher.layers()[class.members[0]].name)?;
        parts.push(Part { class: Some(index), graph });
    }
    if let (Some(first), Some(last)) = (teacher.layers().first(), teacher.layers().last()) {
        for (from, to) in [(Value::INPUT, first.input), (last.output, teacher.output())] {
            // A vector between layers cannot be fed as images; then the rest is shared without that part.
            if from != to && teacher.shape(from).as_image().is_some() {
                parts.extend(teacher.subgraph(from, to, "").ok().map(|graph| Part { class: None, graph }));
            }
        }
    }
    Ok(parts)
}
