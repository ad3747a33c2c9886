//! libtorch, one operation after the other.

use lana_graph::{Graph, Weights};
use lana_torch::{Device, Inference, Tensor};

use crate::array::{Array, Data, Element};
use crate::clock::{Clock, Timed};
use crate::port::{Dim, Port};
use crate::runtime::{Answer, Executable, Runtime};
use crate::{Deployment, Error, Model, Processor, Result};

/// libtorch on one device.
pub(crate) struct Torch {
    device: Device,
}

impl Torch {
    /// Prepares the process as lana does wherever it runs libtorch: with glibc's own thresholds, every large tensor would cost
    /// page faults, 30 to 40 % of the time, which deployments avoid by an allocator such as jemalloc.
    pub(crate) fn new(deployment: &Deployment) -> Result<Self> {
        lana_torch::init();
        let device = match deployment.processor {
            Processor::Cpu => Device::Cpu,
            Processor::Cuda => Device::cuda().map_err(|e| Error::NoRuntime {
                runtime: deployment.runtime,
                reason: e.to_string(),
                cure: "`nvidia-smi` must show the GPU; --processor cpu needs none".into(),
            })?,
        };
        Ok(Torch { device })
    }
}

impl Runtime for Torch {
    fn version(&self) -> String {
        lana_torch::LIBTORCH.into()
    }

    fn open(&self, model: &Model, deployment: &Deployment) -> Result<Box<dyn Executable>> {
        let network = model.to_network().map_err(|reason| {
            model.wrong(format!("{reason}; libtorch runs what lana can take in, ONNX Runtime any file"))
        })?;
        let (graph, weights): (&Graph, &Weights) = (&network.0, &network.1);
        let inference = Inference::new(graph, weights, self.device, deployment.precision, deployment.threads)
            .map_err(|e| model.wrong(reason(&e)))?;
        let port = |name: &str, dims: &[usize]| Port {
            name: name.into(),
            element: Ok(Element::F32),
            dims: [Dim::Named("batch".into())]
                .into_iter()
                .chain(dims.iter().map(|&d| Dim::Size(d)))
                .collect(),
        };
        Ok(Box::new(TorchExecutable {
            inputs: vec![port("input", graph.input_shape().dims())],
            outputs: vec![port("logits", graph.output_shape().dims())],
            inference,
            sets: Vec::new(),
            clock: Clock::new(deployment),
        }))
    }
}

/// A network on libtorch's device.
#[derive(Debug)]
struct TorchExecutable {
    inference: Inference,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    sets: Vec<Tensor>,
    clock: Clock,
}

impl Executable for TorchExecutable {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn load(&mut self, sets: &[Vec<Array>]) -> Answer<()> {
        self.sets.clear();
        for set in sets {
            let (data, dims) = only(set)?;
            self.sets.push(self.inference.input(data, dims).map_err(|e| reason(&e))?);
        }
        Ok(())
    }

    fn time(&mut self, set: usize) -> Answer<Timed> {
        let input = &self.sets[set];
        self.inference.enter(|| self.clock.time(|| self.inference.forward(input))).map_err(|e| reason(&e))
    }

    fn run(&mut self, inputs: &[Array]) -> Answer<Vec<f32>> {
        let (data, dims) = only(inputs)?;
        self.inference.run(data, dims).map_err(|e| reason(&e))
    }
}

/// The one batch of floats that our networks take.
fn only(inputs: &[Array]) -> Answer<(&[f32], &[usize])> {
    match inputs {
        [input] => match input.data() {
            Data::F32(data) => Ok((data, input.dims())),
            _ => Err("takes 32-bit floats".into()),
        },
        _ => Err(format!("takes one input, not {}", inputs.len())),
    }
}

/// libtorch's messages end in a trace of its calls: the first line says it.
fn reason(error: &lana_torch::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}
