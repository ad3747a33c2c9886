use std::num::NonZeroUsize;
use std::path::Path;

use lana::{EvaluateOptions, Interpolation, WeightsSource};

use crate::failure::Failure;
use crate::format;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana evaluate run/budgets/0.5x/student/student.onnx --data cifar10:test_batch.bin
  lana evaluate resnet56_cifar --weights resnet56.safetensors --data cifar10:test_batch.bin --json";

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

    /// Images with labels: cifar10:PATH, imagefolder:PATH, webdataset:PATH or generated:NAME
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

    /// Mean of red, green and blue (pixels from 0 to 1) [default: what the network says, else ImageNet's]
    #[arg(long, value_name = "R,G,B", value_parser = triple, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,

    /// Standard deviation, likewise
    #[arg(long, value_name = "R,G,B", value_parser = positive_triple)]
    std: Option<[f32; 3]>,

    /// Share of an image's shorter side that is kept [default: what the network says, else 1]
    #[arg(long, value_name = "SHARE")]
    crop: Option<f32>,

    /// Filter by which images are resized [default: what the network says, else bicubic]
    #[arg(long, value_parser = ["bilinear", "bicubic"])]
    interpolation: Option<String>,

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
        let weights: Option<WeightsSource> = self.weights.as_deref().map(str::parse).transpose()?;
        if let Some(WeightsSource::File(file)) = &weights {
            output::must_exist(file)?;
        }
        let options = EvaluateOptions {
            weights,
            network: self.architecture.options(),
            data: self.data.clone(),
            batch: self.batch.get(),
            threads: self.threads.map_or(0, NonZeroUsize::get),
            device: self.device.clone(),
            mean: self.mean,
            std: self.std,
            crop: self.crop,
            interpolation: self.interpolation.as_deref().map(|name| match name {
                "bilinear" => Interpolation::Bilinear,
                _ => Interpolation::Bicubic,
            }),
        };
        let accuracy = lana::evaluate(&self.network, &options, terminal)?;
        if self.json {
            return output::json(&accuracy);
        }
        output::results(&format!(
            "top-1   {}\ntop-5   {}\nloss    {:.4}\nimages  {}",
            format::percent(accuracy.top1),
            format::percent(accuracy.top5),
            accuracy.loss,
            format::count(accuracy.images)
        ))
    }
}

/// Three numbers between commas.
fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers: Option<Vec<f32>> =
        text.split(',').map(|part| part.trim().parse().ok().filter(|v: &f32| v.is_finite())).collect();
    numbers
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(|| "three numbers between commas, such as 0.485,0.456,0.406".into())
}

/// Three positive numbers between commas.
fn positive_triple(text: &str) -> Result<[f32; 3], String> {
    match triple(text)? {
        values if values.iter().all(|&v| v > 0.0) => Ok(values),
        _ => Err("all three must be greater than 0".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn triples() {
        assert_eq!(triple("0.5, 0,-1"), Ok([0.5, 0.0, -1.0]));
        for text in ["", "1,2", "1,2,3,4", "1,2,x", "1,2,nan", "1,,2"] {
            assert!(triple(text).is_err(), "{text}");
        }
        assert!(positive_triple("1,0,1").is_err());
        assert_eq!(positive_triple("1,2,3"), Ok([1.0, 2.0, 3.0]));
    }
}
