use std::num::NonZeroUsize;
use std::path::PathBuf;

use std::time::Duration;

use lana::Progress as _;
use lana_latency::{CALM, Deployment, MeasureOptions, MeasureReport, measure_files};

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana measure run/teacher/teacher.onnx run/budgets/0.5x/student/student.onnx --batch 64
  lana measure model.onnx --threads 4 --json";

/// Measure the latency of ONNX files on this device
///
/// Median latency of a batch in ONNX Runtime with its 95 % confidence interval. Several files are run in turns, so that
/// what disturbs one disturbs all; the ratio is to the first file.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files to measure
    #[arg(value_name = "FILE.onnx", required = true)]
    files: Vec<PathBuf>,

    /// Images in a batch
    #[arg(long, value_name = "N", default_value = "1")]
    batch: NonZeroUsize,

    /// Threads of the runtime
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,

    /// Longest time to spend, in seconds; it ends earlier when the intervals are narrow
    #[arg(long, value_name = "S", default_value = "30", value_parser = positive)]
    time_limit: f64,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        self.files.iter().try_for_each(|file| output::must_exist(file))?;
        let count = format::plural(self.files.len(), "file");
        terminal.say(&format!("measuring {count} in turns, at most {} s", self.time_limit));
        let options = MeasureOptions {
            deployment: Deployment { threads: self.threads.get(), ..Deployment::default() },
            time_limit: Duration::from_secs_f64(self.time_limit),
            calm: CALM,
            ..MeasureOptions::default()
        };
        let report =
            measure_files(&self.files, Some(self.batch.get()), &options).map_err(lana::Error::from)?;
        if self.json {
            return output::json(&report);
        }
        output::results(&format!("{}\n{}", table(&report), conditions(&report)))
    }
}

fn table(report: &MeasureReport) -> Table {
    let mut table = Table::new(&[
        ("file", Align::Left),
        ("median", Align::Right),
        ("95 % interval", Align::Left),
        ("ratio", Align::Right),
        ("95 % interval", Align::Left),
    ]);
    for model in &report.models {
        let [low, high] = model.ci_ms;
        let [ratio_low, ratio_high] = model.ratio_ci;
        table.row([
            model.file.clone(),
            format!("{} ms", format::milliseconds(model.median_ms)),
            format!("[{}, {}]", format::milliseconds(low), format::milliseconds(high)),
            format::ratio(model.ratio),
            format!("[{ratio_low:.3}, {ratio_high:.3}]"),
        ]);
    }
    table
}

fn conditions(report: &MeasureReport) -> String {
    let threads = format::plural(report.threads, "thread");
    format!("{} on {}, batch {}, {threads}", report.runtime, report.device, report.batch)
}

/// A positive number of seconds.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("it must be a positive number".into()),
    }
}

#[cfg(test)]
mod tests {
    use lana_latency::{MeasuredModel, Precision, Processor};

    use super::*;

    #[test]
    fn the_first_file_is_the_measure() {
        let model = |file: &str, median_ms: f64, ratio: f64| MeasuredModel {
            file: file.into(),
            median_ms,
            ci_ms: [median_ms - 0.1, median_ms + 0.1],
            ratio,
            ratio_ci: [ratio - 0.01, ratio + 0.01],
            repeats: 20,
            spread: 0.01,
            waiting: 0.0,
            inputs: Vec::new(),
        };
        let report = MeasureReport {
            models: vec![model("teacher.onnx", 12.34, 1.0), model("student.onnx", 6.0, 0.486)],
            runtime: "onnxruntime 1.32.0".into(),
            device: "some-cpu".into(),
            processor: Processor::Cpu,
            precision: Precision::Fp32,
            settled: true,
            notes: Vec::new(),
            batch: 64,
            threads: 1,
        };
        let expected = "\
file            median  95 % interval    ratio  95 % interval
teacher.onnx  12.34 ms  [12.24, 12.44]  1.000x  [0.990, 1.010]
student.onnx  6.000 ms  [5.900, 6.100]  0.486x  [0.476, 0.496]
";
        assert_eq!(table(&report).to_string(), expected);
        assert_eq!(conditions(&report), "onnxruntime 1.32.0 on some-cpu, batch 64, 1 thread");
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "soon", ""] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
