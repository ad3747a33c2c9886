//! Measuring ONNX files: anyone's, against each other.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::pin::pin;
use crate::runtime::load;
use crate::{
    Deployment, Device, Error, MeasureOptions, Model, Port, Precision, Processor, Result, Session,
    measure_sessions,
};

/// What [`measure_files`] gives, and `lana measure --json` prints.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasureReport {
    /// One entry a file, in their order.
    pub models: Vec<MeasuredModel>,
    /// The runtime with its version.
    pub runtime: String,
    /// The device.
    pub device: String,
    /// Where on it the files ran.
    pub processor: Processor,
    /// The number format they were run in; files that hold another one by themselves keep it under `fp32`.
    pub precision: Precision,
    /// Images in a batch.
    pub batch: usize,
    /// Threads of the runtime.
    pub threads: usize,
    /// Whether the intervals became as narrow as was asked for before time was up.
    pub settled: bool,
    /// What should be known before the figures are believed.
    pub notes: Vec<String>,
}

/// One file's latency.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MeasuredModel {
    /// The file.
    pub file: String,
    /// Median in milliseconds for one batch.
    pub median_ms: f64,
    /// Its 95 % confidence interval.
    pub ci_ms: [f64; 2],
    /// Ratio to the first file, measured in turns with it.
    pub ratio: f64,
    /// Confidence interval of the ratio.
    pub ratio_ci: [f64; 2],
    /// Runs that counted.
    pub repeats: usize,
    /// Distance of the quartiles as a fraction of the median.
    pub spread: f64,
    /// Part of the time in which other processes held the core.
    pub waiting: f64,
    /// The inputs it was run on.
    pub inputs: Vec<MeasuredInput>,
}

/// An input as it was made up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredInput {
    /// Its name.
    pub name: String,
    /// ONNX's name for what it holds.
    pub element: String,
    /// Its dimensions.
    pub shape: Vec<usize>,
}

/// Part of the time spent waiting for other processes from which on it is worth a note.
const MUCH_WAITING: f64 = 0.05;

/// Measures ONNX files in turns on this device. Without a `batch`, that is the one the files or [`MeasureOptions::shapes`]
/// fix, else 1; the batch of `options` is not looked at.
///
/// # Errors
/// If a file cannot be read or opened, an input cannot be made up (the message names file, input and option), or files
/// take different batches.
pub fn measure_files(
    files: &[PathBuf],
    batch: Option<usize>,
    options: &MeasureOptions,
) -> Result<MeasureReport> {
    let deployment = Deployment { batch: batch.unwrap_or(1), ..options.deployment };
    let runtime = load(&deployment)?;
    let models = files.iter().map(|file| Model::from_file(file)).collect::<Result<Vec<_>>>()?;
    let _pinned = options.pin.then(|| pin(&deployment)).flatten();
    let sessions = models.iter().map(|model| Session::open(model, &deployment));
    let mut sessions = sessions.collect::<Result<Vec<_>>>()?;
    let batch = match batch {
        Some(batch) => batch,
        None => common_batch(&sessions, options)?,
    };
    let deployment = Deployment { batch, ..deployment };
    let figures = measure_sessions(&mut sessions, &MeasureOptions { deployment, ..options.clone() });
    let figures = figures.map_err(|error| match error {
        Error::Run { model, inputs, reason } => {
            let cure = "if the file is for other sizes, give them by --batch, --shape or --dim";
            Error::Run { model, inputs, reason: format!("{}; {cure}", reason.trim_end_matches('.')) }
        }
        other => other,
    })?;

    let mut notes = Vec::new();
    let cores = Device::identify().logical_cores;
    if deployment.threads > cores {
        notes.push(format!("{} threads share {cores} cores: they wait for each other", deployment.threads));
    }
    let settled = figures.iter().all(|m| m.settled);
    if !settled {
        notes.push(format!(
            "time was up before the intervals were as narrow as wanted (standard error {} %): give more with --time-limit",
            (1e8 * options.target).round() / 1e6
        ));
    }
    let waiting = figures.iter().map(|m| m.waiting).fold(0.0, f64::max);
    if waiting > MUCH_WAITING {
        let counted = if deployment.threads == 1 && deployment.processor == Processor::Cpu {
            "it is not in the figures, but their caches were shared"
        } else {
            "it is in the figures"
        };
        notes.push(format!(
            "other processes held the cores for {:.0} % of the time; {counted}",
            100.0 * waiting
        ));
    }
    notes.extend(sessions.iter().filter_map(|s| Some(format!("{}: {}", s.name(), s.note()?))));
    let mut measured = Vec::new();
    for ((file, m), session) in files.iter().zip(figures).zip(&sessions) {
        let shapes = session.resolve(&options.shapes, batch)?;
        measured.push(MeasuredModel {
            file: file.display().to_string(),
            median_ms: m.median_ms,
            ci_ms: m.ci_ms,
            ratio: m.ratio,
            ratio_ci: m.ratio_ci,
            repeats: m.repeats,
            spread: m.spread,
            waiting: m.waiting,
            inputs: session.inputs().iter().zip(shapes).map(|(port, shape)| input(port, shape)).collect(),
        });
    }
    Ok(MeasureReport {
        models: measured,
        runtime: format!("{} {}", deployment.runtime, runtime.version()),
        device: Device::of(deployment.processor).to_string(),
        processor: deployment.processor,
        precision: deployment.precision,
        batch,
        threads: deployment.threads,
        settled,
        notes,
    })
}

fn input(port: &Port, shape: Vec<usize>) -> MeasuredInput {
    let element = port.element.as_ref().map_or_else(Clone::clone, ToString::to_string);
    MeasuredInput { name: port.name.clone(), element, shape }
}

/// The batch that files and shapes ask for.
fn common_batch(sessions: &[Session], options: &MeasureOptions) -> Result<usize> {
    let mut found: Option<(usize, &str)> = None;
    for session in sessions {
        let asked = session.fixed_batch().or_else(|| options.shapes.batch(session.inputs()));
        match (asked, found) {
            (Some(batch), Some((other, first))) if batch != other => {
                return Err(Error::Options(format!(
                    "{} takes batches of {batch}, {first} of {other}: their times cannot be compared",
                    session.name()
                )));
            }
            (Some(batch), _) => found = Some((batch, session.name())),
            (None, _) => {}
        }
    }
    Ok(found.map_or(1, |(batch, _)| batch))
}
