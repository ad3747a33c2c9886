//! Measuring in fresh processes.
//!
//! What a network takes depends a little on the process it runs in (where its memory lies, which pages are large) and
//! much on what the machine did that minute. So what counts, the winner and the exported student, is measured in several
//! processes one after the other, and the difference between them is part of the uncertainty. The processes are the
//! program itself, called with a hidden command that the command line has; where there is none (a program that uses this
//! crate), the sessions are opened anew instead.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use lana_latency::{CALM, Deployment, MeasureOptions, Measurement, Model};
use serde::{Deserialize, Serialize};

use crate::stages::export::to_measured;
use crate::{Error, Measured, Result};

/// The hidden command that a program passes on to [`measure_request`].
pub const MEASURE_COMMAND: &str = "measure-request";

/// Processes that the measurement of a network is spread over.
pub(crate) const PROCESSES: usize = 3;

/// Standard deviation of a ratio from process to process that is assumed where the processes at hand show less: three say
/// little about how far apart they may be. Measured with [`CALM`] on a virtual machine of two cores, ResNet-56 at batch 64:
/// 1.0 % over twelve processes.
const BETWEEN: f64 = 0.01;

/// Share of the error that a measurement may have at which that of one of these processes ends: a process that is only as sure as the
/// whole shall be tells nothing of the difference between them.
const SURER: f64 = 0.2;

static PROGRAM: OnceLock<PathBuf> = OnceLock::new();

/// Says which program measures in fresh processes: it must pass standard input to [`measure_request`] and print what that
/// gives when it is called with [`MEASURE_COMMAND`]. The first call holds.
pub fn measure_in_processes_of(program: PathBuf) {
    let _ = PROGRAM.set(program);
}

/// What a fresh process is asked for.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    /// ONNX files; ratios are to the first.
    files: Vec<PathBuf>,
    deployment: Deployment,
    warm_up: usize,
    repeats: usize,
    pin: bool,
    time_limit_s: f64,
    /// Relative standard error to stop at.
    target: f64,
    seed: u64,
}

/// Answers a request of this crate, in a fresh process: JSON in, JSON out.
///
/// # Errors
/// If it is none, or the measurement fails.
pub fn measure_request(request: &str) -> Result<String> {
    let wrong = |e: serde_json::Error| {
        Error::input(
            format!("not a request to measure: {e}"),
            "this command is lana's own; use `lana measure`",
        )
    };
    let request: Request = serde_json::from_str(request).map_err(wrong)?;
    serde_json::to_string(&here(&request)?).map_err(wrong)
}

/// Measures a network beside the teacher in several processes, one after the other; gives what they say together and the
/// teacher's median. Stops as soon as `hopeless` says so of what there is.
pub(crate) fn measure(
    teacher: &Path,
    network: &Path,
    options: &MeasureOptions,
    hopeless: &dyn Fn(&Measured) -> bool,
) -> Result<(Measured, f64)> {
    let mut found: Vec<[Measurement; 2]> = Vec::new();
    for process in 0..PROCESSES {
        let request = Request {
            files: vec![teacher.to_path_buf(), network.to_path_buf()],
            deployment: options.deployment,
            warm_up: options.warm_up,
            repeats: options.min_repeats,
            pin: options.pin,
            time_limit_s: options.time_limit.as_secs_f64() / PROCESSES as f64,
            target: SURER * options.target,
            seed: options.seed.wrapping_add(process as u64),
        };
        let measurements = match PROGRAM.get() {
            Some(program) => elsewhere(program, &request)?,
            None => here(&request)?,
        };
        let Ok(pair) = <[Measurement; 2]>::try_from(measurements) else {
            return Err(Error::input(
                "a fresh process measured something else",
                "this is a fault of lana: please report it",
            ));
        };
        found.push(pair);
        if hopeless(&together(&found).0) {
            break;
        }
    }
    Ok(together(&found))
}

/// Several processes' measurements as one: means of medians and ratios, with intervals in which both what each process is
/// unsure of and the difference between them has its part.
fn together(found: &[[Measurement; 2]]) -> (Measured, f64) {
    let all: Vec<Measured> = found.iter().map(|[_, own]| to_measured(own)).collect();
    let (median_ms, ci_ms) = pooled(all.iter().map(|m| (m.median_ms, m.ci_ms)));
    let (ratio, ratio_ci) = pooled(all.iter().map(|m| (m.ratio, m.ratio_ci)));
    let (teacher, _) = pooled(found.iter().map(|[teacher, _]| (teacher.median_ms, teacher.ci_ms)));
    (Measured { median_ms, ci_ms, ratio, ratio_ci }, teacher)
}

/// Mean of values with 95 % intervals, and its own.
fn pooled(values: impl Iterator<Item = (f64, [f64; 2])> + Clone) -> (f64, [f64; 2]) {
    let count = values.clone().count().max(1) as f64;
    let mean = values.clone().map(|v| v.0).sum::<f64>() / count;
    let within = values.clone().map(|(_, [low, high])| ((high - low) / 3.92).powi(2)).sum::<f64>() / count;
    let between = values.map(|v| (v.0 - mean).powi(2)).sum::<f64>() / (count - 1.0).max(1.0);
    // What the processes differ by has what each is unsure of in it already.
    let variance = between.max(within).max((BETWEEN * mean).powi(2)) / count;
    let half = 1.96 * variance.sqrt();
    (mean, [mean - half, mean + half])
}

fn here(request: &Request) -> Result<Vec<Measurement>> {
    let models = request.files.iter().map(|f| Model::from_file(f)).collect::<Result<Vec<_>, _>>()?;
    let options = MeasureOptions {
        deployment: request.deployment,
        warm_up: request.warm_up,
        min_repeats: request.repeats,
        pin: request.pin,
        time_limit: Duration::try_from_secs_f64(request.time_limit_s).unwrap_or(Duration::MAX),
        target: request.target,
        seed: request.seed,
        calm: CALM,
        ..MeasureOptions::default()
    };
    Ok(lana_latency::measure(&models, &options)?)
}

fn elsewhere(program: &Path, request: &Request) -> Result<Vec<Measurement>> {
    let failed = |reason: String| Error::Fresh { program: program.to_path_buf(), reason };
    let text = serde_json::to_string(request).map_err(|e| failed(e.to_string()))?;
    let mut child = Command::new(program)
        .arg(MEASURE_COMMAND)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut input) = child.stdin.take() {
        // A child that ended before it read has said why on its own.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let line =
            said.lines().find(|l| l.starts_with("error: ")).or(said.lines().last()).unwrap_or_default();
        let ended =
            output.status.code().map_or("was killed".to_string(), |c| format!("ended with status {c}"));
        return Err(failed(format!("it {ended}: {}", line.trim_start_matches("error: "))));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| failed(format!("its answer is not whole: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(ratio: f64, half: f64) -> [Measurement; 2] {
        let one = |ms: f64, ratio: f64, half: f64| Measurement {
            name: "m".into(),
            median_ms: ms,
            ci_ms: [ms * (1.0 - half), ms * (1.0 + half)],
            relative_error: half / 1.96,
            repeats: 20,
            settled: true,
            spread: 0.0,
            waiting: 0.0,
            ratio,
            ratio_ci: [ratio * (1.0 - half), ratio * (1.0 + half)],
            ratio_error: half / 1.96,
        };
        [one(10.0, 1.0, half), one(10.0 * ratio, ratio, half)]
    }

    #[test]
    fn processes_that_differ_are_less_sure() {
        let (alike, teacher) = together(&[pair(0.5, 0.001), pair(0.5, 0.001), pair(0.5, 0.001)]);
        assert!((alike.ratio - 0.5).abs() < 1e-12 && teacher == 10.0);
        // Never surer than processes are known to be alike.
        let half = (alike.ratio_ci[1] - alike.ratio_ci[0]) / 2.0 / alike.ratio;
        assert!((half - 1.96 * BETWEEN / 3.0_f64.sqrt()).abs() < 1e-9, "{half}");
        let (apart, _) = together(&[pair(0.48, 0.001), pair(0.5, 0.001), pair(0.52, 0.001)]);
        assert!((apart.ratio - 0.5).abs() < 1e-12);
        assert!(apart.ratio_ci[1] > 0.52 && apart.ratio_ci[0] < 0.48, "{apart:?}");
        let (unsure, _) = together(&[pair(0.5, 0.1)]);
        assert!((unsure.ratio_ci[1] - 0.55).abs() < 1e-3, "{unsure:?}");
    }

    #[test]
    fn what_is_no_request_is_said() {
        let error = measure_request("{}").unwrap_err();
        assert!(error.to_string().contains("not a request") && error.exit_status() == 2, "{error}");
    }

    #[test]
    fn a_program_that_cannot_measure_is_named() {
        let request = Request {
            files: Vec::new(),
            deployment: Deployment::default(),
            warm_up: 1,
            repeats: 3,
            pin: false,
            time_limit_s: 1.0,
            target: 0.01,
            seed: 0,
        };
        let error = elsewhere(Path::new("/no/such/program"), &request).unwrap_err();
        assert!(error.to_string().contains("/no/such/program") && error.hint().is_some(), "{error}");
    }
}
