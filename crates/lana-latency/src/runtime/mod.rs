//! The runtimes behind one seam.
//!
//! [`load`] gives the [`Runtime`] of a deployment, or says why there is none; it opens a [`Model`] as an [`Executable`].
//! Nothing outside this folder knows which runtime it is. What the time of a run includes:
//!
//! * *ONNX Runtime on the processor*: a call of the session's `Run` on arrays in memory, outputs allocated by the runtime.
//! * *ONNX Runtime on a GPU* (CUDA or TensorRT): the same by an IoBinding, inputs and outputs in the GPU's memory, until the
//!   GPU is done. Copying images to the GPU is not in it: that is the same for every network with the same input, and is
//!   hidden behind the computation where throughput matters.
//! * *libtorch*: one forward pass of the network, BatchNorm folded, channels-last, without autograd, operation after
//!   operation as PyTorch's eager mode does, until the GPU is done. Input and output are on the device. Python's own share
//!   in launching operations is not there, nor are graph compilers (`torch.compile`).
//!
//! In 16-bit floats the conversion of the input from 32 bits, and of the output back, is part of the run.

mod onnx;
#[cfg(feature = "torch")]
mod torch;

use std::fmt;

use lana_graph::{Activation, GraphBuilder, Shape};

use crate::array::Array;
use crate::clock::Timed;
use crate::{Deployment, Model, OnnxRuntime, Port, Result, RuntimeKind, Session};

/// What a runtime answers: on failure its reason in words, to which the caller adds the model's name.
pub(crate) type Answer<T> = std::result::Result<T, String>;

/// Opens models.
pub(crate) trait Runtime {
    /// Its version, such as `1.32.0`.
    fn version(&self) -> String;

    /// Makes a model ready to run, with every optimisation there is.
    fn open(&self, model: &Model, deployment: &Deployment) -> Result<Box<dyn Executable>>;
}

/// A model that a runtime has opened.
pub(crate) trait Executable: fmt::Debug {
    /// What it takes.
    fn inputs(&self) -> &[Port];

    /// What it gives.
    fn outputs(&self) -> &[Port];

    /// Brings sets of inputs to where the runtime wants them, in place of those before.
    fn load(&mut self, sets: &[Vec<Array>]) -> Answer<()>;

    /// Runs one of the loaded sets to the end.
    fn time(&mut self, set: usize) -> Answer<Timed>;

    /// The first output for inputs, which must be 32-bit floats.
    fn run(&mut self, inputs: &[Array]) -> Answer<Vec<f32>>;

    /// What should be known of how it runs, such as parts of it that are not where they were wanted.
    fn note(&self) -> Option<String> {
        None
    }
}

/// The runtime of a deployment, its library loaded.
///
/// # Errors
/// If no runtime can run networks so, or this one is not here; with the cure.
pub(crate) fn load(deployment: &Deployment) -> Result<Box<dyn Runtime>> {
    deployment.check()?;
    match deployment.runtime {
        RuntimeKind::OnnxRuntime | RuntimeKind::TensorRt => {
            Ok(Box::new(onnx::Onnx::new(OnnxRuntime::load()?, deployment)?))
        }
        #[cfg(feature = "torch")]
        RuntimeKind::Torch => Ok(Box::new(torch::Torch::new(deployment)?)),
        #[cfg(not(feature = "torch"))]
        RuntimeKind::Torch => Err(crate::Error::NoRuntime {
            runtime: deployment.runtime,
            reason: "this lana was built without libtorch".into(),
            cure: "use --runtime onnxruntime, or a lana that was built with its default features".into(),
        }),
    }
}

/// Version of the runtime of a deployment, such as `1.32.0`; loads it.
///
/// # Errors
/// If no runtime can run networks so, or this one is not here; with the cure.
pub fn runtime_version(deployment: &Deployment) -> Result<String> {
    Ok(load(deployment)?.version())
}

/// Runs a small network as a deployment says: whatever is missing shows before hours have gone into the rest.
///
/// # Errors
/// If no runtime can run networks so, or this one is not here, or a library or device that it needs; with the cure.
pub fn try_runtime(deployment: &Deployment) -> Result<()> {
    let mut b = GraphBuilder::new("trial", Shape::image(8, 8, 8));
    let x = b.conv("conv", b.input(), 8, 3, 1, 1)?;
    let x = b.activation("act", x, Activation::Relu)?;
    let graph = b.finish(x)?;
    let deployment = Deployment { batch: 1, ..*deployment };
    let mut session = Session::open(&Model::with_random_weights("trial", &graph)?, &deployment)?;
    session.run(&[1.0; 512], 1).map(drop)
}
