//! How well a table predicts networks that had no part in making it.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::gather::{Progress, Stopwatch, open_and_measure};
use super::plan::{Plan, Reference, Subject};
use crate::statistics::{kendall, spearman};
use crate::{CALM, Error, MeasureOptions, Result, Table, Whole};

/// How a table is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct CheckOptions {
    /// Random selections to measure whole.
    pub selections: usize,
    /// How long it may take, in seconds; a few rounds are always run.
    pub time_limit_s: f64,
    /// Decides the selections; those that made the table have other seeds.
    pub seed: u64,
}

impl Default for CheckOptions {
    fn default() -> Self {
        CheckOptions { selections: 20, time_limit_s: 180.0, seed: 0 }
    }
}

/// How well a table predicts the teacher and random selections, measured whole in turns with it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// When, in seconds since 1970.
    pub created: u64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// The teacher's latency then, milliseconds.
    pub teacher_ms: f64,
    /// What the table says of the teacher, divided by that, minus 1: how far the machine's speed has moved. Errors of
    /// the selections are of their ratios to the teacher.
    pub teacher_error: f64,
    /// Median standard error of the measured ratios, as a fraction of them: errors below that say nothing.
    pub measured_error: f64,
    /// The table as it is.
    pub table: Figures,
    /// Each selection predicted by the table corrected with all the others.
    pub leave_one_out: Figures,
    /// Every second selection, predicted by the table corrected with the rest.
    pub half: Figures,
    /// The selections.
    pub networks: Vec<Checked>,
}

/// Errors of predictions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// Networks.
    pub networks: usize,
    /// Mean of the relative errors' absolute values.
    pub mean: f64,
    /// Largest of them.
    pub worst: f64,
    /// Mean of the relative errors with their signs: above zero if the table says too much.
    pub bias: f64,
    /// Kendall's tau between prediction and measurement.
    pub kendall: f64,
    /// Spearman's rho between them.
    pub spearman: f64,
}

/// One selection of a [`Check`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checked {
    /// Operation of each layer, in their order.
    pub choices: Vec<String>,
    /// Layers with another operation than the teacher's.
    pub replaced: usize,
    /// Measured latency as a multiple of the teacher's.
    pub ratio: f64,
    /// Standard error of that, as a fraction of it.
    pub error: f64,
    /// What the table says.
    pub predicted: f64,
    /// What the table says when it is corrected by all others.
    pub leave_one_out: f64,
}

impl Plan {
    /// Measures the teacher and random selections of the plan on this device, and compares them with a table that was
    /// made here.
    ///
    /// # Errors
    /// If the table is another teacher's or another device's, or the runtime cannot run a network.
    pub fn check(
        &self,
        table: &Table,
        options: &CheckOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Check> {
        self.check_with(&mut open_and_measure, table, options, progress)
    }

    pub(super) fn check_with(
        &self,
        stopwatch: &mut Stopwatch<'_>,
        table: &Table,
        options: &CheckOptions,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Check> {
        let begun = Instant::now();
        let plan = self.with_selections(options.selections, options.seed ^ 0x0063_6865_636b);
        if plan.whole.is_empty() {
            return Err(Error::Options(
                "a check needs at least one selection and one operation to select".into(),
            ));
        }
        let subjects: Vec<Subject> = (0..plan.whole.len()).map(Subject::Whole).collect();
        let groups = plan.groups(&subjects, options.seed as usize)?;
        let mut effort: f64 = groups.iter().map(|g| g.effort).sum();
        let (mut teacher, mut wholes) = (Vec::new(), vec![None; plan.whole.len()]);
        let (mut done, mut finished) = (0, 0.0);
        for group in groups {
            let mut networks = vec![plan.reference_network(Reference::Teacher).clone()];
            for &subject in &group.subjects {
                networks.push(plan.network(subject)?);
            }
            let left = (options.time_limit_s - begun.elapsed().as_secs_f64()).max(0.0);
            let measured = stopwatch(
                &networks,
                &MeasureOptions {
                    deployment: self.options.deployment,
                    warm_up: self.options.warm_up,
                    min_repeats: self.options.min_repeats,
                    time_limit: Duration::try_from_secs_f64(left * group.effort / effort).unwrap_or_default(),
                    target: self.options.target,
                    seed: options.seed.wrapping_add(done as u64),
                    calm: CALM,
                    pin: self.options.pin,
                    ..MeasureOptions::default()
                },
            )?;
            let Some((reference, others)) = measured.split_first() else { continue };
            teacher.push(reference.median_ms);
            for (subject, m) in group.subjects.iter().zip(others) {
                if let Subject::Whole(index) = subject {
                    let choices = plan.selection(*index);
                    wholes[*index] = Some(Whole { choices, ratio: m.ratio, error: m.ratio_error });
                }
            }
            (done, finished, effort) =
                (done + group.subjects.len(), finished + group.effort, effort - group.effort);
            let elapsed = begun.elapsed();
            let remaining = elapsed.mul_f64((effort / finished).max(0.0));
            progress(Progress { pass: 0, done, total: subjects.len(), elapsed, remaining });
        }
        teacher.sort_by(f64::total_cmp);
        let teacher_ms = teacher[teacher.len() / 2];
        let wholes: Vec<Whole> = wholes.into_iter().flatten().collect();
        let mut check = compare(table, &wholes)?;
        check.teacher_ms = teacher_ms;
        check.teacher_error = table.teacher_ms() / teacher_ms - 1.0;
        check.seconds = begun.elapsed().as_secs_f64();
        check.created = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |d| d.as_secs());
        Ok(check)
    }
}

/// The figures of a check, without the circumstances.
fn compare(table: &Table, wholes: &[Whole]) -> Result<Check> {
    let scale = table.teacher_ms();
    let predict = |table: &Table, whole: &Whole| Ok::<_, Error>(table.predict(&whole.choices)? / scale);
    let taught_by = |chosen: &dyn Fn(usize) -> bool| {
        let taught = wholes.iter().enumerate().filter(|(i, _)| chosen(*i));
        let pairs: Vec<_> = taught.map(|(_, w)| (w.choices.clone(), w.ratio * scale)).collect();
        let mut corrected = table.clone();
        corrected.correct(&pairs)?;
        Ok::<_, Error>(corrected)
    };
    let half = taught_by(&|i| i % 2 == 0)?;
    let mut networks = Vec::new();
    let mut by_half = Vec::new();
    for (index, whole) in wholes.iter().enumerate() {
        if index % 2 == 1 {
            by_half.push((predict(&half, whole)?, whole.ratio));
        }
        networks.push(Checked {
            replaced: table.replaced(&whole.choices),
            ratio: whole.ratio,
            error: whole.error,
            predicted: predict(table, whole)?,
            leave_one_out: predict(&taught_by(&|i| i != index)?, whole)?,
            choices: whole.choices.clone(),
        });
    }
    let mut errors: Vec<f64> = wholes.iter().map(|w| w.error).collect();
    errors.sort_by(f64::total_cmp);
    let pairs = |of: fn(&Checked) -> f64| networks.iter().map(|n| (of(n), n.ratio)).collect::<Vec<_>>();
    Ok(Check {
        created: 0,
        seconds: 0.0,
        teacher_ms: 0.0,
        teacher_error: 0.0,
        measured_error: errors.get(errors.len() / 2).copied().unwrap_or_default(),
        table: figures(&pairs(|n| n.predicted)),
        leave_one_out: figures(&pairs(|n| n.leave_one_out)),
        half: figures(&by_half),
        networks,
    })
}

/// Of predictions and measurements.
fn figures(pairs: &[(f64, f64)]) -> Figures {
    let errors: Vec<f64> = pairs.iter().map(|(predicted, measured)| predicted / measured - 1.0).collect();
    let count = errors.len().max(1) as f64;
    Figures {
        networks: errors.len(),
        mean: errors.iter().map(|e| e.abs()).sum::<f64>() / count,
        worst: errors.iter().map(|e| e.abs()).fold(0.0, f64::max),
        bias: errors.iter().sum::<f64>() / count,
        kendall: kendall(pairs),
        spearman: spearman(pairs),
    }
}
