use std::path::PathBuf;
use std::time::Duration;

use lana_latency::{
    CALM, Deployment, InputShape, MeasureOptions, MeasureReport, NamedDim, Precision, Processor, Shapes,
    measure_files,
};

use super::deployment::DeploymentArguments;
use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana measure run/teacher/teacher.onnx run/budgets/0.5x/student/student.onnx --batch 64
  lana measure model.onnx --threads 4 --json
  lana measure a.onnx b.onnx --runtime torch --precision bf16
  lana measure encoder.onnx --dim sequence=77 --shape pixels=1x3x224x224";

/// Measure the latency of ONNX files on this device
///
/// Median latency of a batch with its 95 % confidence interval. Several files are run in turns, so that what disturbs one
/// disturbs all; the ratio is to the first file. Any ONNX file will do, whoever made it; inputs are made up. ONNX Runtime runs
/// files as they are, libtorch those that lana can take in.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Files to measure
    #[arg(value_name = "FILE.onnx", required = true)]
    files: Vec<PathBuf>,

    #[command(flatten)]
    deployment: DeploymentArguments,

    /// Shape of an input, where the file leaves some of it open; the name may be left out if there is only one. May be repeated
    #[arg(long, value_name = "[NAME=]1x3x224x224", help_heading = "Inputs")]
    shape: Vec<InputShape>,

    /// Size of a dimension that the files leave open under a name; the batch needs none. May be repeated
    #[arg(long, value_name = "NAME=N", help_heading = "Inputs")]
    dim: Vec<NamedDim>,

    /// Longest time to spend, in seconds; it ends earlier when the intervals are narrow
    #[arg(long, value_name = "S", default_value = "30", value_parser = positive, help_heading = "Measuring")]
    time_limit: f64,

    /// Standard error to reach, in percent
    #[arg(long, value_name = "PERCENT", default_value = "1", value_parser = positive, help_heading = "Measuring")]
    target_error: f64,

    /// Runs of each file that count, at least, as long as there is time
    #[arg(long, value_name = "N", default_value_t = MeasureOptions::default().min_repeats, help_heading = "Measuring")]
    repeats: usize,

    /// Runs of each file in front that do not count
    #[arg(long, value_name = "N", default_value_t = MeasureOptions::default().warm_up, help_heading = "Measuring")]
    warm_up: usize,

    /// Let the system move the measurement from core to core
    #[arg(long, help_heading = "Measuring")]
    no_pin: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        self.files.iter().try_for_each(|file| output::must_exist(file))?;
        let options = self.options();
        let files = format::plural(self.files.len(), "file");
        terminal.say(&format!("measuring {files} in turns, at most {} s", self.time_limit));
        let report = measure_files(&self.files, self.deployment.batch(), &options)?;
        if self.json {
            return output::json(&report);
        }
        let mut text = format!("{}\n{}\n", table(&report), conditions(&report));
        for note in &report.notes {
            text += &format!("note: {note}\n");
        }
        output::results(&text)
    }

    fn options(&self) -> MeasureOptions {
        MeasureOptions {
            deployment: self.deployment.over(Deployment::default()),
            warm_up: self.warm_up,
            min_repeats: self.repeats,
            time_limit: Duration::try_from_secs_f64(self.time_limit).unwrap_or(Duration::MAX),
            target: self.target_error / 100.0,
            pin: !self.no_pin,
            shapes: Shapes { inputs: self.shape.clone(), dims: self.dim.clone() },
            // As budgets are measured, so that the figures can be compared.
            calm: CALM,
            ..MeasureOptions::default()
        }
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
    let mut text = format!("{} on {}, batch {}, {threads}", report.runtime, report.device, report.batch);
    if report.processor != Processor::Cpu {
        text += &format!(", {}", report.processor);
    }
    if report.precision != Precision::Fp32 {
        text += &format!(", {}", report.precision);
    }
    text
}

/// A positive number.
pub(super) fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() && value > 0.0 => Ok(value),
        _ => Err("it must be a positive number".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lana_latency::{MeasuredModel, RuntimeKind};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(options: &[&str]) -> Result<Arguments, clap::Error> {
        Line::try_parse_from(["measure", "a.onnx"].iter().chain(options)).map(|line| line.arguments)
    }

    #[test]
    fn every_option_reaches_its_field() {
        let options = arguments(&[
            "--runtime=torch",
            "--processor=cuda",
            "--precision=fp16",
            "--batch=128",
            "--threads=2",
            "--shape=x=1x3x8x8",
            "--dim=sequence=77",
            "--time-limit=5",
            "--target-error=0.5",
            "--repeats=7",
            "--warm-up=0",
            "--no-pin",
        ]);
        let options = options.unwrap().options();
        let expected = MeasureOptions {
            deployment: Deployment {
                runtime: RuntimeKind::Torch,
                processor: Processor::Cuda,
                precision: Precision::Fp16,
                batch: 128,
                threads: 2,
            },
            warm_up: 0,
            min_repeats: 7,
            time_limit: Duration::from_secs(5),
            target: 0.005,
            pin: false,
            shapes: Shapes {
                inputs: vec!["x=1x3x8x8".parse().unwrap()],
                dims: vec!["sequence=77".parse().unwrap()],
            },
            calm: CALM,
            ..MeasureOptions::default()
        };
        assert_eq!(options, expected);
        assert_eq!(arguments(&[]).unwrap().options().target, 0.01);
        for wrong in
            ["--runtime=tvm", "--processor=tpu", "--precision=int8", "--shape=x=1xN", "--dim=8", "--batch=0"]
        {
            let error = arguments(&[wrong]).err().expect(wrong).to_string();
            assert!(error.contains(wrong.split('=').next().unwrap()), "{error}");
        }
    }

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
            batch: 64,
            threads: 1,
            settled: true,
            notes: Vec::new(),
        };
        let expected = "\
file            median  95 % interval    ratio  95 % interval
teacher.onnx  12.34 ms  [12.24, 12.44]  1.000x  [0.990, 1.010]
student.onnx  6.000 ms  [5.900, 6.100]  0.486x  [0.476, 0.496]
";
        assert_eq!(table(&report).to_string(), expected);
        assert_eq!(conditions(&report), "onnxruntime 1.32.0 on some-cpu, batch 64, 1 thread");
        let report = MeasureReport { processor: Processor::Cuda, precision: Precision::Fp16, ..report };
        assert_eq!(conditions(&report), "onnxruntime 1.32.0 on some-cpu, batch 64, 1 thread, cuda, fp16");
    }

    #[test]
    fn seconds_are_positive() {
        assert_eq!(positive("0.5"), Ok(0.5));
        for text in ["0", "-1", "nan", "inf", "soon", ""] {
            assert!(positive(text).is_err(), "{text}");
        }
    }
}
