//! Turning readings into costs: no clock here.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::gather::{Conditions, Reading};
use super::is_identity;
use super::plan::{Class, Plan, Subject};
use crate::table::{FORMAT, TEACHER, Whole};
use crate::{Entry, Error, LayerRow, Result, Table};

/// A part timed alone is dearer than inside the network (19 % at batch 64, 37 % at batch 1, measured on ResNet-56): what
/// is left of its time there, and how sure that is.
const ALONE: f64 = 0.8;
const ALONE_ERROR: f64 = 0.2;
/// What the layer's own cost by skipping is good for, however little noise there was.
const SKIPPED_ERROR: f64 = 0.04;
/// An entry less sure than this, as a fraction of the teacher's layer, is noisy.
const NOISY: f64 = 0.1;
/// An error of one entry that counts, as a fraction of the whole teacher.
const COUNTS: f64 = 0.004;

/// All readings of one subject.
#[derive(Clone, Copy)]
struct Merged {
    ratio: f64,
    /// Standard error of the ratio.
    error: f64,
    repeats: usize,
}

/// What a class costs.
#[derive(Clone, Copy, Default)]
struct ClassCost {
    /// Time of the unchanged window, milliseconds.
    window_ms: f64,
    /// Cost of one member and its standard error, milliseconds.
    cost: f64,
    error: f64,
    /// Factor that puts differences in the window on the scale on which all costs add up.
    stretch: f64,
}

/// Cost of a distinct operation.
#[derive(Clone, Copy)]
struct JobCost {
    cost: f64,
    error: f64,
    repeats: usize,
    noisy: bool,
}

/// What the readings come to.
struct Costs {
    teacher_ms: f64,
    teacher_ci_ms: [f64; 2],
    classes: Vec<ClassCost>,
    jobs: Vec<JobCost>,
    /// Cost of stem, head and overhead.
    fixed_ms: f64,
    /// How far the sum missed the teacher before it was put right.
    parts_error: f64,
}

impl Plan {
    /// The table that readings of this plan make.
    ///
    /// # Errors
    /// If a subject of the plan has not been read, or a reading makes no sense.
    pub fn settle(&self, readings: &[Reading], conditions: &Conditions) -> Result<Table> {
        let merged = self.merge(readings)?;
        let costs = self.costs(readings, &merged);
        let whole = (0..self.whole.len()).map(|index| {
            let Merged { ratio, error, .. } = merged[&Subject::Whole(index)];
            Whole { choices: self.selection(index), ratio, error }
        });
        let mut table = Table {
            format: FORMAT,
            device: conditions.device.clone(),
            deployment: self.options.deployment,
            runtime_version: conditions.runtime_version.clone(),
            method: self.method(),
            networks: self.networks(),
            created: SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs()),
            seconds: readings.iter().map(|r| r.seconds).sum(),
            teacher: self.teacher.name().to_string(),
            teacher_measured_ms: costs.teacher_ms,
            teacher_ci_ms: costs.teacher_ci_ms,
            parts_error: costs.parts_error,
            fixed_ms: costs.fixed_ms,
            layers: self.rows(&costs),
            whole: whole.collect(),
            correction: None,
            check: None,
        };
        table.correct(&[])?;
        Ok(table)
    }

    /// Operations that are hardly known, or of whose cost so much is unknown that it counts in the whole network; the most
    /// milliseconds first.
    pub(super) fn doubtful(&self, readings: &[Reading]) -> Result<Vec<Subject>> {
        let merged = self.merge(readings)?;
        let costs = self.costs(readings, &merged);
        let doubt = |job: &JobCost| job.error.max(-job.cost);
        let jobs = costs.jobs.iter().enumerate();
        let mut found: Vec<(f64, usize)> = jobs
            .filter(|(_, job)| job.noisy || job.error > COUNTS * costs.teacher_ms)
            .map(|(index, job)| (doubt(job), index))
            .collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0));
        Ok(found.into_iter().map(|(_, job)| Subject::Operation(job)).collect())
    }

    /// Several readings of a subject count by their rounds.
    fn merge(&self, readings: &[Reading]) -> Result<BTreeMap<Subject, Merged>> {
        let mut all: BTreeMap<Subject, Vec<&Reading>> = BTreeMap::new();
        for reading in readings {
            let sound = [reading.ratio, reading.reference_ms].iter().all(|x| x.is_finite() && *x > 0.0)
                && reading.error.is_finite()
                && reading.repeats > 0;
            if !sound {
                return Err(Error::Table(format!("the reading of {:?} makes no sense", reading.subject)));
            }
            all.entry(reading.subject).or_default().push(reading);
        }
        if let Some(missing) = self.subjects().into_iter().find(|s| !all.contains_key(s)) {
            return Err(Error::Table(format!("{missing:?} has not been measured")));
        }
        let merge = |(subject, readings): (Subject, Vec<&Reading>)| {
            let repeats: usize = readings.iter().map(|r| r.repeats).sum();
            let weight = |r: &Reading| r.repeats as f64 / repeats as f64;
            let ratio = readings.iter().map(|r| weight(r) * r.ratio).sum();
            let variance: f64 = readings.iter().map(|r| (weight(r) * r.error * r.ratio).powi(2)).sum();
            (subject, Merged { ratio, error: variance.sqrt(), repeats })
        };
        Ok(all.into_iter().map(merge).collect())
    }

    fn costs(&self, readings: &[Reading], merged: &BTreeMap<Subject, Merged>) -> Costs {
        let against_teacher = |r: &&Reading| !matches!(r.subject, Subject::Operation(_));
        let mut teacher: Vec<&Reading> = readings.iter().filter(against_teacher).collect();
        teacher.sort_by(|a, b| a.reference_ms.total_cmp(&b.reference_ms));
        let middle = teacher.get(teacher.len() / 2);
        let (teacher_ms, teacher_ci_ms) =
            middle.map_or((0.0, [0.0; 2]), |r| (r.reference_ms, r.reference_ci_ms));

        let mut classes = Vec::new();
        for index in 0..self.classes.len() {
            let window_ms = merged[&Subject::Window(index)].ratio * teacher_ms;
            let mut found = ClassCost { window_ms, stretch: 1.0, ..ClassCost::default() };
            let skipping = self.jobs.iter().position(|j| j.class == index && is_identity(&j.operation));
            if let Some(job) = skipping {
                let (delta, error) = self.difference(job, &found, merged);
                (found.cost, found.error) = (-delta, error);
            }
            classes.push(found);
        }
        let mut fixed = 0.0;
        for (index, part) in self.parts.iter().enumerate() {
            let value = merged[&Subject::Part(index)].ratio * teacher_ms * ALONE;
            match part.class {
                Some(class) => (classes[class].cost, classes[class].error) = (value, value * ALONE_ERROR),
                None => fixed += value,
            }
        }
        let (fixed_ms, parts_error) = self.reconcile(&mut classes, fixed, teacher_ms);
        let job = |index: usize| {
            let job = &self.jobs[index];
            let class = &classes[job.class];
            let (delta, error) = self.difference(index, class, merged);
            let cost =
                if is_identity(&job.operation) { class.cost } else { class.cost + delta * class.stretch };
            let noisy = cost < 0.0 || error > NOISY * class.cost.abs();
            JobCost { cost, error, repeats: merged[&Subject::Operation(index)].repeats, noisy }
        };
        let jobs = (0..self.jobs.len()).map(job).collect();
        Costs { teacher_ms, teacher_ci_ms, classes, jobs, fixed_ms, parts_error }
    }

    /// What an operation costs more than its class's own layer, with the standard error; milliseconds.
    fn difference(&self, job: usize, class: &ClassCost, merged: &BTreeMap<Subject, Merged>) -> (f64, f64) {
        let Merged { ratio, error, .. } = merged[&Subject::Operation(job)];
        let scale = class.window_ms / self.classes[self.jobs[job].class].replaced.len() as f64;
        ((ratio - 1.0) * scale, error * scale)
    }

    /// Makes all parts add up to the teacher: what is missing or too much is shared among them by how unsure each is (its
    /// variance). Gives what stem, head and overhead cost, and how far the sum was off.
    fn reconcile(&self, costs: &mut [ClassCost], fixed: f64, teacher_ms: f64) -> (f64, f64) {
        let unsure = |class: &Class, cost: &ClassCost| match class.skippable {
            true => cost.error.max(SKIPPED_ERROR * cost.cost.abs()),
            false => cost.error,
        };
        let (mut sum, mut variance) = (fixed, (fixed * ALONE_ERROR).powi(2));
        for (class, cost) in self.classes.iter().zip(costs.iter()) {
            let count = class.members.len() as f64;
            sum += cost.cost * count;
            variance += (unsure(class, cost) * count).powi(2);
        }
        let missing = teacher_ms - sum;
        let mut shared = 0.0;
        if variance > 0.0 {
            for (class, cost) in self.classes.iter().zip(costs.iter_mut()) {
                let count = class.members.len() as f64;
                let part = missing * (unsure(class, cost) * count).powi(2) / variance;
                // The window's share of the whole was off, not the ratios inside it.
                if class.skippable && cost.cost > 0.0 {
                    cost.stretch = 1.0 + part / count / cost.cost;
                }
                cost.cost += part / count;
                shared += part;
            }
        }
        (fixed + missing - shared, sum / teacher_ms - 1.0)
    }

    fn rows(&self, costs: &Costs) -> Vec<LayerRow> {
        let mut rows = Vec::new();
        for (position, layer) in self.teacher.layers().iter().enumerate() {
            let class = self.classes.iter().position(|c| c.members.contains(&position));
            let own = class.map_or_else(ClassCost::default, |c| costs.classes[c]);
            let operations = self.places[position].iter().map(|place| {
                let entry = |cost_ms: f64, spread_ms: f64, repeats: usize, noisy: bool| Entry {
                    operation: place.operation.clone(),
                    cost_ms,
                    spread_ms,
                    repeats,
                    // 0 is the teacher's own.
                    timing: place.job.map_or(0, |j| j + 1),
                    noisy,
                    correction_ms: 0.0,
                };
                match place.job {
                    None => entry(own.cost, own.error, 0, false),
                    Some(job) if is_identity(&self.jobs[job].operation) => {
                        entry(0.0, own.error, 0, costs.jobs[job].noisy)
                    }
                    Some(job) => {
                        let JobCost { cost, error, repeats, noisy } = costs.jobs[job];
                        entry(cost, error, repeats, noisy)
                    }
                }
            });
            let operations: Vec<Entry> = operations.collect();
            debug_assert!(operations.iter().all(|e| e.operation != TEACHER || e.timing == 0));
            let (teacher_ms, teacher_spread_ms) = (own.cost, own.error);
            rows.push(LayerRow { layer: layer.name.clone(), teacher_ms, teacher_spread_ms, operations });
        }
        rows
    }

    fn method(&self) -> String {
        let context = match self.options.neighbours {
            Some(n) => format!("a window of the teacher with {n} layers on either side"),
            None => "the whole teacher".into(),
        };
        format!(
            "up to {} like-shaped neighbouring layers replaced at once inside {context}; median of ratios per shuffled \
             round; fitted to {} random selections measured whole",
            self.options.replaced,
            self.whole.len()
        )
    }
}
