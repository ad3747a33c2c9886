use std::num::NonZeroUsize;
use std::path::Path;

use lana::{Assessment, EvaluateOptions, NetworkFile, PreprocessingConfig, WeightsSource};

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana evaluate run/budgets/0.5x/student/student.onnx --data cifar10:test_batch.bin
  lana evaluate resnet56_cifar --weights resnet56.safetensors --data cifar10:test_batch.bin --json
  lana evaluate student.onnx --teacher teacher.onnx --data imagefolder:val --classes";

/// Evaluate the accuracy of a network on labelled images
///
/// An ONNX file runs on ONNX Runtime, an architecture of `lana zoo` on libtorch with the weights given.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// An ONNX file, or a name that `lana zoo` lists
    #[arg(value_name = "FILE.onnx|ARCH")]
    network: String,

    /// Weights of the architecture: a file, or a repository of the Hugging Face hub, such as
    /// hf:timm/efficientnet_b2.ra_in1k
    #[arg(long, value_name = "FILE.safetensors|hf:OWNER/REPO")]
    weights: Option<String>,

    #[command(flatten)]
    architecture: super::Network,

    /// A network with whose answers to compare: an ONNX file, or a name that `lana zoo` lists
    #[arg(long, value_name = "FILE.onnx|ARCH")]
    teacher: Option<String>,

    /// Weights of the architecture that --teacher names
    #[arg(long, value_name = "FILE.safetensors|hf:OWNER/REPO", requires = "teacher")]
    teacher_weights: Option<String>,

    /// Images with labels: cifar10:PATH, imagefolder:PATH, webdataset:PATH, parquet:PATH or generated:NAME
    #[arg(long, value_name = "DATA")]
    data: String,

    /// Images in a batch
    #[arg(long, value_name = "N", default_value = "64")]
    batch: NonZeroUsize,

    /// Threads [default: one per core]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Where an architecture runs
    #[arg(long, default_value = "cpu", value_parser = ["cpu", "cuda"])]
    device: String,

    #[command(flatten)]
    preprocessing: super::Preprocessing,

    /// Print the accuracy of every class too
    #[arg(long)]
    classes: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        if self.network.ends_with(".onnx") {
            output::must_exist(Path::new(&self.network))?;
            if self.weights.is_some() {
                return Err(Failure::input(
                    format!("{}: an ONNX file holds its own weights", self.network),
                    "leave --weights out, or give an architecture of `lana zoo` instead of the file",
                ));
            }
            if self.architecture.is_given() {
                return Err(Failure::input(
                    format!("{}: an ONNX file has its own input and classes", self.network),
                    "leave --resolution and --num-classes out, or give an architecture of `lana zoo` instead of the file",
                ));
            }
        }
        let network = network_file(&self.network, self.weights.as_deref())?;
        let teacher = self.teacher.as_deref();
        let options = EvaluateOptions {
            teacher: teacher.map(|t| network_file(t, self.teacher_weights.as_deref())).transpose()?,
            network: self.architecture.options(),
            data: self.data.clone(),
            batch: self.batch.get(),
            threads: self.threads.map_or(0, NonZeroUsize::get),
            device: self.device.clone(),
            preprocessing: self.preprocessing.over(PreprocessingConfig::default()),
        };
        let assessment = lana::evaluate(&network, &options, terminal)?;
        match self.json {
            true => output::json(&assessment),
            false => output::results(&told(&assessment, self.classes)),
        }
    }
}

/// A network and its weights; files must exist.
fn network_file(name: &str, weights: Option<&str>) -> Result<NetworkFile, Failure> {
    if name.ends_with(".onnx") {
        output::must_exist(Path::new(name))?;
    }
    let weights: Option<WeightsSource> = weights.map(str::parse).transpose()?;
    if let Some(WeightsSource::File(file)) = &weights {
        output::must_exist(file)?;
    }
    Ok(NetworkFile { name: name.into(), weights })
}

/// An assessment for people.
fn told(assessment: &Assessment, classes: bool) -> String {
    let accuracy = assessment.accuracy;
    let mut text = format!(
        "top-1              {} ± {:.2}\ntop-5              {}\nloss               {:.4}\ncalibration error  {:.4}\n",
        format::percent(accuracy.top1),
        100.0 * assessment.top1_error,
        format::percent(accuracy.top5),
        accuracy.loss,
        assessment.calibration_error,
    );
    if let Some(agreement) = assessment.agreement {
        text += &format!("agreement          {} of images, with the teacher\n", format::percent(agreement));
    }
    text += &format!(
        "images             {}, {:.0} a second",
        format::count(accuracy.images),
        assessment.images_per_s
    );
    if classes {
        let mut table =
            Table::new(&[("class", Align::Left), ("images", Align::Right), ("top-1", Align::Right)]);
        for class in &assessment.classes {
            let name = class.name.clone().unwrap_or_else(|| class.class.to_string());
            let top1 = class.top1.map_or_else(|| "–".to_string(), format::percent);
            table.row([name, format::count(class.images), top1]);
        }
        text += &format!("\n\n{table}");
    }
    text
}
