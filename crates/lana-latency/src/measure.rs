//! Timing models against each other.
//!
//! A machine's speed drifts by more than the differences of interest. So every round runs every model once, in an order
//! shuffled anew (a fixed order moved results by 10 to 16 %: whoever runs after a large network finds cold caches), and
//! each model is compared with the first one *of the same round*; the median of these ratios is what counts. Time in which
//! the thread waited for a core that another process held is left out where the system tells it: on a shared machine that
//! is most of the noise, and no property of the model.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::random::Random;
use crate::statistics::{Median, quantile, sorted};
use crate::{Deployment, Error, Model, Result, Session, SessionOptions};

/// Rounds without which there is no median worth the name, whatever the time limit.
const FEWEST_ROUNDS: usize = 3;

/// How to measure.
#[derive(Clone, Debug, PartialEq)]
pub struct MeasureOptions {
    /// How the models are run.
    pub deployment: Deployment,
    /// Rounds that do not count, in front.
    pub warm_up: usize,
    /// Rounds that count, at least.
    pub min_repeats: usize,
    /// When to stop, however unsure the result; three rounds are always run.
    pub time_limit: Duration,
    /// Relative standard error to stop at: of the first model's median and of every other's ratio to it.
    pub target: f64,
    /// Random inputs to take turns with, so that no input stays in the caches.
    pub inputs: usize,
    /// Decides inputs and order.
    pub seed: u64,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        MeasureOptions {
            deployment: Deployment::default(),
            warm_up: 3,
            min_repeats: 20,
            time_limit: Duration::from_secs(60),
            target: 0.01,
            inputs: 3,
            seed: 0,
        }
    }
}

/// What was measured of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Name of the model.
    pub name: String,
    /// Median time of one batch, milliseconds.
    pub median_ms: f64,
    /// Where the true median lies with 95 % probability, from order statistics (with fewer than six repeats: the range).
    pub ci_ms: [f64; 2],
    /// Standard error of the median as a fraction of it, from the interval.
    pub relative_error: f64,
    /// Rounds.
    pub repeats: usize,
    /// Distance of the quartiles as a fraction of the median: how noisy the machine was.
    pub spread: f64,
    /// Part of the time in which other processes held the core; it is not in the times above. Known on Linux for models
    /// with one thread, else 0.
    pub waiting: f64,
    /// Time relative to the first model's: median of the ratios of each round.
    pub ratio: f64,
    /// Where the true median ratio lies with 95 % probability.
    pub ratio_ci: [f64; 2],
    /// Standard error of the ratio as a fraction of it.
    pub ratio_error: f64,
}

/// Opens the models and measures them, see [`measure_sessions`].
pub fn measure(models: &[Model], options: &MeasureOptions) -> Result<Vec<Measurement>> {
    let session_options = SessionOptions { threads: options.deployment.threads };
    let mut sessions =
        models.iter().map(|m| Session::open(m, &session_options)).collect::<Result<Vec<_>>>()?;
    measure_sessions(&mut sessions, options)
}

/// Measures sessions against the first of them. Their threads are as they were opened with.
///
/// # Errors
/// If a setting is impossible, or a session does not take such a batch.
pub fn measure_sessions(sessions: &mut [Session], options: &MeasureOptions) -> Result<Vec<Measurement>> {
    if options.deployment.batch == 0 || options.inputs == 0 {
        return Err(Error::Options("batch and inputs must be at least 1".into()));
    }
    let most = sessions.iter().map(|s| s.input_shape().iter().product::<usize>()).max().unwrap_or(1);
    if options.deployment.batch.checked_mul(most).is_none_or(|numbers| numbers > 1 << 31) {
        return Err(Error::Options(format!(
            "a batch of {} images of {most} numbers each is too large to time; use a smaller batch",
            options.deployment.batch
        )));
    }
    let names: Vec<String> = sessions.iter().map(|s| s.name().to_string()).collect();
    // Sessions of one input size share their inputs.
    let mut random = Random::new(options.seed ^ 0x696e_7075_7473);
    let mut inputs: HashMap<usize, Vec<Vec<f32>>> = HashMap::new();
    let size = |session: &Session| options.deployment.batch * session.input_shape().iter().product::<usize>();
    for session in sessions.iter() {
        let size = size(session);
        inputs.entry(size).or_insert_with(|| {
            let mut one = || (0..size).map(|_| random.normal() as f32).collect();
            (0..options.inputs).map(|_| one()).collect()
        });
    }
    let (mut waited, mut total) = (vec![Duration::ZERO; names.len()], vec![Duration::ZERO; names.len()]);
    let mut measurements = interleave(names, options, |model, round| {
        let session = &mut sessions[model];
        let images = &inputs[&size(session)][(round + model) % options.inputs];
        let timed = session.time(images, options.deployment.batch)?;
        total[model] += timed.elapsed;
        waited[model] += timed.waited;
        Ok((timed.elapsed - timed.waited).as_secs_f64() * 1e3)
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
    for round in 0.. {
        let counted = times[0].len();
        let late = start.elapsed() >= options.time_limit;
        if counted >= FEWEST_ROUNDS && (late || counted >= options.min_repeats && settled(&times, options)) {
            break;
        }
        random.shuffle(&mut order);
        for &model in &order {
            let time = run(model, round)?;
            if round >= options.warm_up || late {
                times[model].push(time);
            }
        }
    }
    Ok(names.into_iter().zip(&times).map(|(name, t)| summary(name, t, &times[0])).collect())
}

/// Whether every result is as sure as it should be.
fn settled(times: &[Vec<f64>], options: &MeasureOptions) -> bool {
    let sure = |sample: &[f64]| Median::of(sample).relative_error() <= options.target;
    sure(&times[0]) && times[1..].iter().all(|t| sure(&ratios(t, &times[0])))
}

fn ratios(times: &[f64], reference: &[f64]) -> Vec<f64> {
    times.iter().zip(reference).map(|(t, r)| t / r).collect()
}

fn summary(name: String, times: &[f64], reference: &[f64]) -> Measurement {
    let median = Median::of(times);
    let ratio = Median::of(&ratios(times, reference));
    let sorted = sorted(times);
    Measurement {
        name,
        median_ms: median.value,
        ci_ms: median.interval,
        relative_error: median.relative_error(),
        repeats: times.len(),
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
        let options = MeasureOptions { min_repeats: 60, target: 0.02, ..MeasureOptions::default() };
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
    fn the_time_limit_holds_but_for_three_rounds() {
        let options = MeasureOptions { time_limit: Duration::ZERO, ..MeasureOptions::default() };
        let result = interleave(names(2), &options, |model, round| Ok((1 + model + round % 3) as f64));
        assert_eq!(result.expect("no error")[1].repeats, FEWEST_ROUNDS);
    }
}
