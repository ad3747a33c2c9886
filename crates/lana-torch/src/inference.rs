use lana_graph::{Graph, Precision, Weights};
use tch::{Kind, Tensor};

use crate::network::{channels_last, kind_of, to_tensor_of};
use crate::{BatchNorm, Device, Network, Result, numbers, with_kernel_threads, without_gradients};

/// A network in the form for inference ([`Network::frozen`]), run as it would be deployed: one operation after the other
/// (eager mode), channels-last, without autograd, in any [`Precision`].
///
/// It takes and gives 32-bit floats whatever the precision, as the models do that `lana-onnx` exports: what the conversion
/// takes belongs to the run.
#[derive(Debug)]
pub struct Inference {
    network: Network,
    kind: Kind,
    threads: usize,
}

impl Inference {
    /// Puts the network on `device`. On the processor each kernel will use `threads` threads.
    ///
    /// # Errors
    /// If the weights are not those of the graph, or do not fit into the device's memory.
    pub fn new(
        graph: &Graph,
        weights: &Weights,
        device: Device,
        precision: Precision,
        threads: usize,
    ) -> Result<Self> {
        let kind = kind_of(precision);
        let network = Network::frozen(graph, weights, device)?.into_kind(kind)?;
        Ok(Inference { network, kind, threads })
    }

    /// A batch on the device: row-major numbers of `[n, …input shape]`.
    pub fn input(&self, data: &[f32], size: &[usize]) -> Result<Tensor> {
        let size: Vec<i64> = size.iter().map(|&d| d as i64).collect();
        channels_last(&to_tensor_of(data, &size, self.network.device())?)
    }

    /// Runs `work` with as many threads in each kernel as [`Inference::new`] was told, and without gradients: what
    /// calls [`Inference::forward`] should lie within.
    pub fn enter<T>(&self, work: impl FnOnce() -> T) -> T {
        with_kernel_threads(self.threads, || without_gradients(work))
    }

    /// The output for a batch; waits until the device is done.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        // Nothing happens where the kind is the same.
        let y = self.network.forward(&x.f_to_kind(self.kind)?, BatchNorm::Running)?;
        let y = y.f_to_kind(Kind::Float)?;
        self.network.device().synchronize();
        Ok(y)
    }

    /// The output for a batch as row-major numbers.
    pub fn run(&self, data: &[f32], size: &[usize]) -> Result<Vec<f32>> {
        self.enter(|| numbers(&self.forward(&self.input(data, size)?)?))
    }
}
