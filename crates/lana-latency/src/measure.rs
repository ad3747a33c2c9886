//! Timing models against each other.
//!
//! A machine's speed drifts by more than the differences of interest. So every round runs every model once, in an order
//! shuffled anew (a fixed order moved results by 10 to 16 %: whoever runs after a large network finds cold caches), and
//! each model is compared with the first one *of the same round*; the median of these ratios is what counts. Time in which
//! the thread waited for a core that another process held is left out where the system tells it: on a shared machine that
//! is most of the noise, and no property of the model. With several threads, or a GPU, it cannot be told what such waiting
//! cost; then it is reported alone.
//!
//! Rounds go on until the standard errors are small enough or time is up, and the result says which. Errors are looked
//! at when a fifth more rounds have been made, not after every one: who looks often enough finds a lucky moment.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::array::{Array, Data};
use crate::pin::pin;
use crate::random::Random;
use crate::statistics::{Median, quantile, sorted};
use crate::{Deployment, Element, Error, Model, Port, Result, Session, Shapes};

/// Bytes of one input beyond which nobody can mean to time it.
const LARGEST_INPUT: usize = 8 << 30;
/// How to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureOptions {
    /// How the models are run.
    pub deployment: Deployment,
    /// Rounds that do not count, in front, whatever the time limit: the first ones take memory from the system, which made
    /// EfficientNet-B0 at batch 64 twice as slow.
    pub warm_up: usize,
    /// Rounds that count, at least.
    pub min_repeats: usize,
    /// Rounds that count, at least, whatever the time limit.
    pub fewest: usize,
    /// When to stop, however unsure the result.
    pub time_limit: Duration,
    /// Relative standard error to stop at: of the first model's median and of every other's ratio to it.
    pub target: f64,
    /// Random inputs to take turns with, so that no input stays in the caches.
    pub inputs: usize,
    /// Whether to stay on the same cores meanwhile, where the system can (Linux).
    pub pin: bool,
    /// Sizes for open dimensions of the models' inputs.
    pub shapes: Shapes,
    /// Decides inputs and order.
    pub seed: u64,
    /// Share of the rounds that count: those in which the models together were fastest. 1 for all.
    pub calm: f64,
}

/// A share for [`MeasureOptions::calm`] that keeps out other tenants of a shared machine.
///
/// They slow down memory and caches for seconds at a time, small networks more than large ones, and no clock shows it.
/// ResNet-56 and a student of half its latency, 12 fresh processes of 50 rounds on a virtual machine that did nothing else:
/// medians of the ratio over all rounds had a standard deviation of 2.3 % from process to process (0.471 to 0.502), over the
/// calmest half 1.4 %, 30 % of them 1.1 %, 20 % of them 1.0 %; the median of three processes 1.2 % over all, 0.6 % over the calmest
/// quarter.
pub const CALM: f64 = 0.25;
/// Rounds that are kept at least, if there are as many.
const FEWEST_CALM: usize = 10;

impl Default for MeasureOptions {
    fn default() -> Self {
        MeasureOptions {
            deployment: Deployment::default(),
            warm_up: 3,
            min_repeats: 20,
            fewest: 3,
            time_limit: Duration::from_secs(60),
            target: 0.01,
            inputs: 3,
            pin: true,
            shapes: Shapes::default(),
            seed: 0,
            calm: 1.0,
        }
    }
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Name of the model.
    pub name: String,
    /// Median time of one batch over the rounds that count ([`MeasureOptions::calm`]), milliseconds.
    pub median_ms: f64,
    /// Where the true median lies with 95 % probability, from order statistics (with fewer than six repeats: the range).
    pub ci_ms: [f64; 2],
    /// Standard error of the median as a fraction of it, from the interval.
    pub relative_error: f64,
    /// Rounds that count.
    pub repeats: usize,
    /// Whether the errors of all models came down to the target. If not, time was up before; the intervals hold nevertheless.
    pub settled: bool,
    /// Distance of the quartiles as a fraction of the median: how noisy the machine was.
    pub spread: f64,
    /// Part of the time in which other processes held a core that the model was ready to run on. With one thread it is not
    /// in the times above; with several it is that of the thread that waited longest, and is in them. Known on Linux, else
    /// 0.
    pub waiting: f64,
    /// Time relative to the first model's: median of the ratios of each round.
    pub ratio: f64,
    /// Where the true median ratio lies with 95 % probability.
    pub ratio_ci: [f64; 2],
    /// Standard error of the ratio as a fraction of it.
    pub ratio_error: f64,
}

/// Opens the models in the runtime of the deployment and measures them, see [`measure_sessions`].
///
/// # Errors
/// If the runtime is not here or cannot run a model, or a setting is impossible.
pub fn measure(models: &[Model], options: &MeasureOptions) -> Result<Vec<Measurement>> {
    // Before the runtime starts its threads, which inherit it.
    let _pinned = options.pin.then(|| pin(&options.deployment)).flatten();
    let sessions = models.iter().map(|m| Session::open(m, &options.deployment));
    measure_sessions(&mut sessions.collect::<Result<Vec<_>>>()?, options)
}

/// Measures sessions against the first of them. They must have been opened for the same deployment, but for the batch.
///
/// # Errors
/// If a setting is impossible, or a session does not take such a batch.
pub fn measure_sessions(sessions: &mut [Session], options: &MeasureOptions) -> Result<Vec<Measurement>> {
    options.deployment.check()?;
    if options.inputs == 0 || options.fewest == 0 {
        return Err(Error::Options(
            "a model is measured on at least one input, for at least one round".into(),
        ));
    }
    if !(options.calm > 0.0 && options.calm <= 1.0) {
        return Err(Error::Options(format!(
            "the share of calm rounds is {}, not above 0 and at most 1",
            options.calm
        )));
    }
    let ports: Vec<&[Port]> = sessions.iter().map(|s| s.inputs()).collect();
    options.shapes.check_used(&ports)?;
    // Sessions with inputs of one shape share them.
    let mut random = Random::new(options.seed ^ 0x696e_7075_7473);
    let mut known: HashMap<(Element, Vec<usize>), Vec<Array>> = HashMap::new();
    for session in sessions.iter_mut() {
        let mut inputs = Vec::new();
        for (port, dims) in
            session.inputs().iter().zip(session.resolve(&options.shapes, options.deployment.batch)?)
        {
            let element = port.element.clone().map_err(|what| Error::Model {
                model: session.name().into(),
                reason: format!("its input `{}` is a {what}, for which lana has no values", port.name),
            })?;
            let bytes = dims.iter().try_fold(Data::width(element), |n, &d| n.checked_mul(d));
            if bytes.is_none_or(|bytes| bytes > LARGEST_INPUT) {
                return Err(Error::Options(format!(
                    "{}: its input `{}` with {} is too large to time; use a smaller batch",
                    session.name(),
                    port.name,
                    dims.iter().map(usize::to_string).collect::<Vec<_>>().join("×")
                )));
            }
            let arrays = known.entry((element, dims.clone())).or_insert_with(|| {
                (0..options.inputs).map(|_| Array::sample(element, dims.clone(), &mut random)).collect()
            });
            inputs.push(arrays.clone());
        }
        let set = |number: usize| inputs.iter().map(|arrays| arrays[number].clone()).collect();
        let sets: Vec<Vec<Array>> = (0..options.inputs).map(set).collect();
        session.load(&sets)?;
    }
    let _pinned = options.pin.then(|| pin(&options.deployment)).flatten();
    let names: Vec<String> = sessions.iter().map(|s| s.name().to_string()).collect();
    let (mut waited, mut total) = (vec![Duration::ZERO; names.len()], vec![Duration::ZERO; names.len()]);
    let mut measurements = interleave(names, options, |model, round| {
        let timed = sessions[model].time((round + model) % options.inputs)?;
        total[model] += timed.elapsed;
        waited[model] += timed.waited;
        Ok(timed.counted.as_secs_f64() * 1e3)
    })?;
    for (measurement, (waited, total)) in measurements.iter_mut().zip(waited.iter().zip(&total)) {
        measurement.waiting = waited.as_secs_f64() / total.as_secs_f64().max(f64::MIN_POSITIVE);
    }
    Ok(measurements)
}

/// Runs rounds of `run(model, round)`, which gives milliseconds, until they suffice.
fn interleave(
    names: Vec<String>,
    options: &MeasureOptions,
    mut run: impl FnMut(usize, usize) -> Result<f64>,
) -> Result<Vec<Measurement>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let start = Instant::now();
    let mut random = Random::new(options.seed);
    let mut order: Vec<usize> = (0..names.len()).collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); names.len()];
    // Rounds after which to look whether they suffice.
    let mut look = options.min_repeats.max(options.fewest);
    let mut sure = false;
    for round in 0.. {
        let counted = times[0].len();
        let late = start.elapsed() >= options.time_limit;
        if counted >= look || late && counted >= options.fewest {
            sure = settled(&times, options);
            if sure || late {
                break;
            }
            look = counted + counted.div_ceil(5);
        }
        random.shuffle(&mut order);
        for &model in &order {
            let time = run(model, round)?;
            if round >= options.warm_up {
                times[model].push(time);
            }
        }
    }
    let kept = calm(&times, options.calm);
    let summaries = names.into_iter().zip(&kept).map(|(name, t)| summary(name, t, &kept[0], sure));
    Ok(summaries.collect())
}

/// The times of the rounds in which the models together, each on its own scale, took least.
fn calm(times: &[Vec<f64>], share: f64) -> Vec<Vec<f64>> {
    let count = times[0].len();
    let keep = ((share * count as f64).ceil() as usize).max(FEWEST_CALM);
    if keep >= count {
        return times.to_vec();
    }
    let scales: Vec<f64> = times.iter().map(|t| quantile(&sorted(t), 0.5).max(f64::MIN_POSITIVE)).collect();
    let level = |round: usize| times.iter().zip(&scales).map(|(t, scale)| t[round] / scale).sum::<f64>();
    let mut rounds: Vec<(f64, usize)> = (0..count).map(|round| (level(round), round)).collect();
    rounds.sort_by(|a, b| a.0.total_cmp(&b.0));
    rounds.truncate(keep);
    // In the order in which they were made: intervals look at it.
    rounds.sort_by_key(|&(_, round)| round);
    times.iter().map(|t| rounds.iter().map(|&(_, round)| t[round]).collect()).collect()
}

/// Whether every result is as sure as it should be.
fn settled(times: &[Vec<f64>], options: &MeasureOptions) -> bool {
    let times = &calm(times, options.calm);
    let sure = |sample: &[f64]| Median::of(sample).relative_error() <= options.target;
    sure(&times[0]) && times[1..].iter().all(|t| sure(&ratios(t, &times[0])))
}

fn ratios(times: &[f64], reference: &[f64]) -> Vec<f64> {
    times.iter().zip(reference).map(|(t, r)| t / r).collect()
}

fn summary(name: String, times: &[f64], reference: &[f64], settled: bool) -> Measurement {
    let median = Median::of(times);
    let ratio = Median::of(&ratios(times, reference));
    let sorted = sorted(times);
    Measurement {
        name,
        median_ms: median.value,
        ci_ms: median.interval,
        relative_error: median.relative_error(),
        repeats: times.len(),
        settled,
        spread: (quantile(&sorted, 0.75) - quantile(&sorted, 0.25)) / median.value,
        waiting: 0.0,
        ratio: ratio.value,
        ratio_ci: ratio.interval,
        ratio_error: ratio.relative_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|i| format!("m{i}")).collect()
    }

    #[test]
    fn drift_cancels_in_ratios() {
        // The machine slows down by half over the measurement, each model in its own noise of 2 %.
        let options = MeasureOptions { min_repeats: 60, target: 1.0, ..MeasureOptions::default() };
        let mut noise = Random::new(7);
        let result = interleave(names(3), &options, |model, round| {
            let drift = 1.0 + 0.005 * round as f64;
            Ok([10.0, 5.0, 20.0][model] * drift * (1.0 + 0.02 * noise.normal()))
        })
        .expect("no error");
        assert_eq!(result[0].ratio, 1.0);
        assert!((result[1].ratio - 0.5).abs() < 0.01, "{:?}", result[1]);
        assert!((result[2].ratio - 2.0).abs() < 0.04, "{:?}", result[2]);
        for m in &result {
            assert!(m.ci_ms[0] <= m.median_ms && m.median_ms <= m.ci_ms[1]);
            assert!(m.repeats >= 60);
        }
    }

    #[test]
    fn every_round_runs_every_model_in_a_new_order() {
        let options =
            MeasureOptions { warm_up: 2, min_repeats: 10, target: 1.0, ..MeasureOptions::default() };
        let mut rounds: Vec<Vec<usize>> = Vec::new();
        let result = interleave(names(4), &options, |model, round| {
            rounds.resize(rounds.len().max(round + 1), Vec::new());
            rounds[round].push(model);
            Ok(1.0)
        })
        .expect("no error");
        assert_eq!((rounds.len(), result[3].repeats), (12, 10));
        assert!(rounds.iter().any(|r| r != &rounds[0]));
        for mut round in rounds {
            round.sort_unstable();
            assert_eq!(round, [0, 1, 2, 3]);
        }
    }

    #[test]
    fn calm_rounds_keep_other_tenants_out() {
        // Two rounds of three are disturbed: the second model by half, the first by a fifth.
        let run = |options: &MeasureOptions| {
            let mut noise = Random::new(3);
            interleave(names(2), options, |model, round| {
                let disturbed = if round % 3 == 0 { 1.0 } else { [1.2, 1.5][model] };
                Ok([10.0, 5.0][model] * disturbed * (1.0 + 0.005 * noise.normal()))
            })
            .expect("no error")
        };
        let options = MeasureOptions { min_repeats: 90, warm_up: 0, ..MeasureOptions::default() };
        assert!(run(&options)[1].ratio > 0.6);
        let result = run(&MeasureOptions { calm: CALM, ..options });
        assert!(
            (result[1].ratio - 0.5).abs() < 0.005 && (result[0].median_ms - 10.0).abs() < 0.05,
            "{result:?}"
        );
        assert_eq!(result[0].repeats, 23);
    }

    #[test]
    fn the_time_limit_holds_but_for_three_rounds() {
        let options = MeasureOptions { time_limit: Duration::ZERO, ..MeasureOptions::default() };
        let result = interleave(names(2), &options, |model, round| Ok((1 + model + round % 3) as f64));
        let result = result.expect("no error");
        assert_eq!((result[1].repeats, result[1].settled), (options.fewest, false));
    }

    #[test]
    fn a_result_that_is_sure_says_so() {
        let options = MeasureOptions { min_repeats: 10, ..MeasureOptions::default() };
        let result = interleave(names(2), &options, |_, round| Ok(1.0 + 1e-4 * (round % 2) as f64));
        let result = result.expect("no error");
        assert_eq!((result[0].repeats, result[0].settled, result[1].settled), (10, true, true));
    }
}
