//! Timing what a plan asks for.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use lana_graph::{Graph, Value};
use serde::{Deserialize, Serialize};

use super::plan::{Plan, Reference, Subject};
use crate::random::Random;
use crate::{CALM, Device, MeasureOptions, Measurement, Model, Result, measure, runtime_version};

/// Part of the time for timing everything once; the rest is for what is unsure after that.
const FIRST_PASS: f64 = 0.8;
/// How often what is unsure is timed again, at most.
const PASSES: usize = 4;
/// Rounds without which an interval says little: a network has these, whatever the time, unless somebody limits it. Then
/// it has the fewest that make a median.
const FEW: usize = 6;
const FEWEST: usize = 3;

/// What was measured of one [`Subject`] in one go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// What was timed.
    pub subject: Subject,
    /// Its time as a multiple of its reference's: median over rounds.
    pub ratio: f64,
    /// Standard error of the ratio as a fraction of it.
    pub error: f64,
    /// Rounds.
    pub repeats: usize,
    /// Median of its reference, milliseconds.
    pub reference_ms: f64,
    /// Where that median lies with 95 % probability.
    pub reference_ci_ms: [f64; 2],
    /// Its share of the time that measuring took, seconds.
    pub seconds: f64,
}

/// Where and on what readings were made.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conditions {
    /// The device.
    pub device: Device,
    /// Version of the runtime.
    pub runtime_version: String,
}

impl Conditions {
    /// Those of this process for a plan.
    ///
    /// # Errors
    /// If the runtime is missing.
    pub fn here(plan: &Plan) -> Result<Self> {
        let deployment = &plan.options.deployment;
        Ok(Conditions {
            device: Device::of(deployment.processor),
            runtime_version: runtime_version(deployment)?,
        })
    }
}

/// How far measuring is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Progress {
    /// 0 while everything is timed for the first time, then 1 and so on while what is unsure is timed again.
    pub pass: usize,
    /// Networks timed in this pass.
    pub done: usize,
    /// Networks to time in this pass.
    pub total: usize,
    /// Time since measuring began (or went on) here.
    pub elapsed: Duration,
    /// Estimate of the time left for this pass.
    pub remaining: Duration,
}

/// Times networks against the first of them.
pub(super) type Stopwatch<'a> = dyn FnMut(&[Graph], &MeasureOptions) -> Result<Vec<Measurement>> + 'a;

/// The stopwatch of this device.
pub(super) fn open_and_measure(networks: &[Graph], options: &MeasureOptions) -> Result<Vec<Measurement>> {
    let models = networks.iter().map(|g| Model::with_random_weights(g.name(), g));
    measure(&models.collect::<Result<Vec<_>>>()?, options)
}

/// Networks of one plan that are timed together.
pub(super) struct Group {
    pub(super) reference: Reference,
    pub(super) subjects: Vec<Subject>,
    /// Roughly what timing them takes, in multiply-accumulates.
    pub(super) effort: f64,
}

impl Plan {
    /// Measures what `readings` do not hold yet on this device, and adds it to them; after that, as long as there is time,
    /// what is unsure once more. `keep` is given the new readings as soon as there are some: whoever writes them down loses
    /// little when the process ends.
    ///
    /// # Errors
    /// If the runtime is missing or cannot run a network, or what `keep` gives.
    pub fn measure(
        &self,
        readings: &mut Vec<Reading>,
        keep: &mut dyn FnMut(&[Reading]) -> Result<()>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        self.measure_with(&mut open_and_measure, readings, keep, progress)
    }

    pub(super) fn measure_with(
        &self,
        stopwatch: &mut Stopwatch<'_>,
        readings: &mut Vec<Reading>,
        keep: &mut dyn FnMut(&[Reading]) -> Result<()>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<()> {
        let begun = Instant::now();
        let limit = self.time_limit();
        for pass in 0..=PASSES {
            let spent: f64 = readings.iter().map(|r| r.seconds).sum();
            let (subjects, until) = match pass {
                0 => (self.unread(readings), FIRST_PASS * limit),
                _ => (self.unsure(readings, limit - spent)?, limit),
            };
            if subjects.is_empty() {
                if pass == 0 { continue } else { break }
            }
            let groups = self.groups(&subjects, readings.len())?;
            let mut effort: f64 = groups.iter().map(|g| g.effort).sum();
            let (mut seconds, mut done, mut finished) = (0.0, 0, 0.0);
            for group in groups {
                let share = (until - spent - seconds).max(0.0) * group.effort / effort;
                let new = self.time(stopwatch, &group, share, readings.len())?;
                keep(&new)?;
                done += new.len();
                seconds += new.iter().map(|r| r.seconds).sum::<f64>();
                readings.extend(new);
                effort -= group.effort;
                finished += group.effort;
                progress(Progress {
                    pass,
                    done,
                    total: subjects.len(),
                    elapsed: begun.elapsed(),
                    remaining: Duration::try_from_secs_f64(seconds / finished * effort).unwrap_or_default(),
                });
            }
        }
        Ok(())
    }

    fn unread(&self, readings: &[Reading]) -> Vec<Subject> {
        let read = |subject: &Subject| readings.iter().any(|r| r.subject == *subject);
        self.subjects().into_iter().filter(|s| !read(s)).collect()
    }

    /// What should be timed again, the worst first, and no more of it than there are `seconds` for.
    fn unsure(&self, readings: &[Reading], seconds: f64) -> Result<Vec<Subject>> {
        let mut took: BTreeMap<Subject, f64> = BTreeMap::new();
        for reading in readings {
            let most = took.entry(reading.subject).or_default();
            *most = most.max(reading.seconds);
        }
        let mut left = seconds;
        let doubtful = self.doubtful(readings)?.into_iter();
        Ok(doubtful
            .take_while(|subject| {
                left -= took.get(subject).copied().unwrap_or_default();
                left >= 0.0
            })
            .collect())
    }

    /// Groups of networks with one reference, in random order, so that the machine's drift has nothing to do with what is
    /// timed, and the time left can be told from the time spent.
    pub(super) fn groups(&self, subjects: &[Subject], seed: usize) -> Result<Vec<Group>> {
        let mut random = Random::new(self.options.seed.wrapping_add(seed as u64) ^ 0x6772_6f75_7073);
        let mut by_reference: BTreeMap<Reference, Vec<Subject>> = BTreeMap::new();
        for &subject in subjects {
            by_reference.entry(self.reference(subject)).or_default().push(subject);
        }
        let batch = self.options.deployment.batch;
        let mut groups = Vec::new();
        for (reference, mut subjects) in by_reference {
            random.shuffle(&mut subjects);
            let first = Needs::of(self.reference_network(reference), batch);
            let empty = || (Group { reference, subjects: Vec::new(), effort: first.effort }, first.memory);
            let (mut group, mut memory) = empty();
            for subject in subjects {
                let needs = Needs::of(&self.network(subject)?, batch);
                let full = group.subjects.len() + 1 >= self.options.together
                    || memory.saturating_add(needs.memory) > self.options.memory;
                if full && !group.subjects.is_empty() {
                    groups.push(group);
                    (group, memory) = empty();
                }
                group.subjects.push(subject);
                group.effort += needs.effort;
                memory = memory.saturating_add(needs.memory);
            }
            groups.push(group);
        }
        random.shuffle(&mut groups);
        Ok(groups)
    }

    fn time(
        &self,
        stopwatch: &mut Stopwatch<'_>,
        group: &Group,
        seconds: f64,
        seed: usize,
    ) -> Result<Vec<Reading>> {
        let begun = Instant::now();
        let mut networks = vec![self.reference_network(group.reference).clone()];
        for &subject in &group.subjects {
            networks.push(self.network(subject)?);
        }
        let measured = stopwatch(
            &networks,
            &MeasureOptions {
                deployment: self.options.deployment,
                warm_up: self.options.warm_up,
                min_repeats: self.options.min_repeats,
                time_limit: Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX),
                target: self.options.target,
                seed: self.options.seed.wrapping_add(seed as u64),
                calm: CALM,
                pin: self.options.pin,
                fewest: if self.options.time_limit_s.is_some() { FEWEST } else { FEW },
                ..MeasureOptions::default()
            },
        )?;
        let seconds = begun.elapsed().as_secs_f64() / group.subjects.len() as f64;
        let Some((reference, others)) = measured.split_first() else { return Ok(Vec::new()) };
        let reading = |(&subject, m): (&Subject, &Measurement)| Reading {
            subject,
            ratio: m.ratio,
            error: m.ratio_error,
            repeats: m.repeats,
            reference_ms: reference.median_ms,
            reference_ci_ms: reference.ci_ms,
            seconds,
        };
        Ok(group.subjects.iter().zip(others).map(reading).collect())
    }
}

/// What timing a network takes, roughly, before it has been run.
#[derive(Clone, Copy)]
struct Needs {
    /// In multiply-accumulates.
    effort: f64,
    /// In bytes.
    memory: u64,
}

/// A number of a feature map takes as long as so many multiply-accumulates (ResNet-56 on one core of an EPYC: 38 thousand
/// million multiply-accumulates a second, 1.2 thousand million numbers).
const PER_ELEMENT: f64 = 30.0;
/// Opening a network takes as long as so many (about 30 ms).
const OPENING: f64 = 1e9;
/// Runs of a network, warm-up included, that its opening is set against.
const RUNS: f64 = 14.0;
/// Memory of an open network apart from its feature maps and weights, in bytes.
const SESSION: u64 = 16 << 20;

impl Needs {
    fn of(graph: &Graph, batch: usize) -> Needs {
        let deployed = graph.deployed();
        let graph = deployed.as_ref().unwrap_or(graph);
        let cost = graph.cost();
        let elements: usize =
            (0..graph.nodes().len()).map(|n| graph.shape(Value::of_node(n)).elements()).sum();
        let batch = batch as u64;
        Needs {
            effort: RUNS * batch as f64 * (cost.macs as f64 + PER_ELEMENT * elements as f64) + OPENING,
            // Runtimes take memory in ever larger pieces, up to twice of what they use, and repack weights.
            memory: SESSION + 4 * (2 * batch.saturating_mul(graph.peak_memory()) + 2 * cost.params),
        }
    }
}
