//! How networks will be run: what a budget on latency speaks of.

use std::fmt;
use std::str::FromStr;

use lana_graph::Precision;
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What runs a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuntimeKind {
    /// ONNX Runtime with its own kernels for the processor (on a GPU: the CUDA execution provider).
    #[default]
    OnnxRuntime,
    /// ONNX Runtime with the TensorRT execution provider.
    TensorRt,
    /// libtorch, one operation after the other (PyTorch's eager mode).
    Torch,
}

/// Where it runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Processor {
    /// The processor.
    #[default]
    Cpu,
    /// The first NVIDIA GPU that CUDA shows.
    Cuda,
}

/// How networks will be run.
///
/// Written as a label, `cpu-b1` or `cuda-tensorrt-b128-fp16`: processor, runtime, batch, threads, precision between
/// hyphens, each at most once; what is not said is as in [`Deployment::default`] or, with [`Deployment::parse`], as in
/// another deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deployment {
    /// What runs them.
    pub runtime: RuntimeKind,
    /// Where.
    pub processor: Processor,
    /// Number format.
    pub precision: Precision,
    /// Images in a batch.
    pub batch: usize,
    /// Threads that share the work of one operation (on the processor).
    pub threads: usize,
}

impl Default for Deployment {
    /// ONNX Runtime on one thread of the processor, one image at a time.
    fn default() -> Self {
        Deployment {
            runtime: RuntimeKind::default(),
            processor: Processor::default(),
            precision: Precision::default(),
            batch: 1,
            threads: 1,
        }
    }
}

/// Threads beyond which nobody can mean it: starting them alone takes minutes.
const MOST_THREADS: usize = 1024;

/// What runs what, for messages.
const COMBINATIONS: &str = "onnxruntime runs fp32 and fp16 on cpu, and fp32, fp16 and bf16 on cuda; tensorrt runs all three on \
     cuda; torch all three on both";

impl Deployment {
    /// Whether a runtime can run networks so at all.
    ///
    /// # Errors
    /// If none can, with what is possible.
    pub fn check(&self) -> Result<()> {
        let wrong = |why: &str| Err(Error::Options(format!("{self}: {why}; {COMBINATIONS}")));
        match (self.runtime, self.processor, self.precision) {
            _ if self.batch == 0 => Err(Error::Options("a batch holds at least one image".into())),
            _ if self.threads == 0 => Err(Error::Options("a model needs at least one thread".into())),
            _ if self.threads > MOST_THREADS => Err(Error::Options(format!(
                "{} threads: at most {MOST_THREADS} can be asked for",
                self.threads
            ))),
            (RuntimeKind::TensorRt, Processor::Cpu, _) => wrong("TensorRT needs a GPU (--processor cuda)"),
            (RuntimeKind::OnnxRuntime, Processor::Cpu, Precision::Bf16) => {
                wrong("ONNX Runtime has no bf16 on the processor")
            }
            _ => Ok(()),
        }
    }

    /// Reads a label; what it does not say is as in `base`.
    ///
    /// # Errors
    /// If a part is unknown, given twice, or a number is none.
    pub fn parse(label: &str, base: &Deployment) -> Result<Self> {
        let wrong = |why: String| Error::Options(format!("deployment `{label}`: {why}"));
        let mut deployment = *base;
        let mut seen = [false; 5];
        for part in label.split('-') {
            let (slot, fits) = match part {
                "cpu" => (0, set(&mut deployment.processor, Processor::Cpu)),
                "cuda" => (0, set(&mut deployment.processor, Processor::Cuda)),
                "onnxruntime" => (1, set(&mut deployment.runtime, RuntimeKind::OnnxRuntime)),
                "tensorrt" => (1, set(&mut deployment.runtime, RuntimeKind::TensorRt)),
                "torch" => (1, set(&mut deployment.runtime, RuntimeKind::Torch)),
                "fp32" => (2, set(&mut deployment.precision, Precision::Fp32)),
                "fp16" => (2, set(&mut deployment.precision, Precision::Fp16)),
                "bf16" => (2, set(&mut deployment.precision, Precision::Bf16)),
                _ => {
                    let number = |digits: &str| digits.parse::<usize>().ok().filter(|n| *n > 0);
                    match (part.strip_prefix('b').and_then(number), part.strip_prefix('t').and_then(number)) {
                        (Some(batch), _) => (3, set(&mut deployment.batch, batch)),
                        (_, Some(threads)) => (4, set(&mut deployment.threads, threads)),
                        _ => {
                            return Err(wrong(format!(
                                "`{part}` is none of cpu, cuda, onnxruntime, tensorrt, torch, fp32, fp16, bf16, bN (batch), tN (threads)"
                            )));
                        }
                    }
                }
            };
            if std::mem::replace(&mut seen[slot], fits) {
                return Err(wrong(format!("`{part}` contradicts or repeats a part in front of it")));
            }
        }
        Ok(deployment)
    }
}

fn set<T>(field: &mut T, value: T) -> bool {
    *field = value;
    true
}

impl FromStr for Deployment {
    type Err = Error;

    fn from_str(label: &str) -> Result<Self> {
        Deployment::parse(label, &Deployment::default())
    }
}

impl FromStr for RuntimeKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = [RuntimeKind::OnnxRuntime, RuntimeKind::TensorRt, RuntimeKind::Torch];
        known.into_iter().find(|kind| kind.to_string() == name).ok_or_else(|| {
            Error::Options(format!("runtime `{name}`: it is none of onnxruntime, tensorrt, torch"))
        })
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            RuntimeKind::OnnxRuntime => "onnxruntime",
            RuntimeKind::TensorRt => "tensorrt",
            RuntimeKind::Torch => "torch",
        })
    }
}

impl FromStr for Processor {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let known = [Processor::Cpu, Processor::Cuda];
        known
            .into_iter()
            .find(|processor| processor.to_string() == name)
            .ok_or_else(|| Error::Options(format!("processor `{name}`: it is none of cpu, cuda")))
    }
}

impl fmt::Display for Processor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Processor::Cpu => "cpu",
            Processor::Cuda => "cuda",
        })
    }
}

impl fmt::Display for Deployment {
    /// The whole label, such as `cpu-onnxruntime-b1-t1-fp32`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Deployment { runtime, processor, precision, batch, threads } = self;
        write!(f, "{processor}-{runtime}-b{batch}-t{threads}-{precision}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_parse_and_print() {
        let base = Deployment { batch: 64, threads: 2, ..Deployment::default() };
        for (label, printed) in [
            ("cpu", "cpu-onnxruntime-b64-t2-fp32"),
            ("cpu-b1", "cpu-onnxruntime-b1-t2-fp32"),
            ("fp16-cuda-tensorrt-b128", "cuda-tensorrt-b128-t2-fp16"),
            ("torch-bf16-t1", "cpu-torch-b64-t1-bf16"),
        ] {
            let deployment = Deployment::parse(label, &base).expect(label);
            assert_eq!(deployment.to_string(), printed);
            assert_eq!(printed.parse::<Deployment>().expect("printed"), deployment);
        }
    }

    #[test]
    fn what_no_runtime_can_do_is_refused_with_what_they_can() {
        for label in ["tensorrt", "cpu-tensorrt-fp16", "onnxruntime-bf16"] {
            let error = label.parse::<Deployment>().expect("a label").check().expect_err(label).to_string();
            assert!(error.contains("torch all three on both"), "{error}");
        }
        for label in
            ["cpu", "fp16", "torch-bf16", "torch-fp16", "cuda-tensorrt-fp16", "cuda-bf16", "cuda-torch-b128"]
        {
            label.parse::<Deployment>().expect("a label").check().expect(label);
        }
        for deployment in [
            Deployment { batch: 0, ..Deployment::default() },
            Deployment { threads: 0, ..Deployment::default() },
            Deployment { threads: 5000, ..Deployment::default() },
        ] {
            assert!(deployment.check().is_err());
        }
    }

    #[test]
    fn wrong_labels_say_so() {
        for label in ["", "gpu", "b0", "cpu-cuda", "b1-b1", "t", "cpu--b1", "b-1"] {
            let error = label.parse::<Deployment>().expect_err(label).to_string();
            assert!(error.contains("deployment `"), "{error}");
        }
    }
}
