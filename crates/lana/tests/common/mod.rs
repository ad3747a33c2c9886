//! The two engines side by side.
// Each test binary uses a part.
#![allow(dead_code, unreachable_pub)]

use lana_graph::{Graph, Weights};
use lana_latency::{Deployment, Model, OnnxRuntime, Session};
use lana_torch::{Batch, BatchNorm, Device, Network, numbers, without_gradients};

pub type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Latency where it does not matter what it is: measured in a moment.
pub fn hasty() -> lana::LatencyConfig {
    let latency = lana::LatencyConfig::default();
    lana::LatencyConfig { batch: 2, time_limit_s: 2.0, repeats: 3, target_error: 0.2, ..latency }
}

/// Whether there is a runtime to test with; the reason is printed if there is none.
pub fn runtime() -> bool {
    match OnnxRuntime::load() {
        Ok(_) => true,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

/// Largest difference of the two engines on a batch of two, relative to the largest output.
pub fn difference(graph: &Graph, weights: &Weights) -> Result<f32, Box<dyn std::error::Error>> {
    let images = images(graph, 2);
    let torch = answers(graph, weights, &images)?;
    let model = Model::from_graph(graph.name(), graph, weights)?;
    let onnx = Session::open(&model, &Deployment::default())?.run(&images, 2)?;
    Ok(apart(&torch, &onnx))
}

/// Numbers for `count` inputs of the network.
pub fn images(graph: &Graph, count: usize) -> Vec<f32> {
    let elements = (count * graph.input_shape().elements()) as u64;
    (0..elements).map(|i| ((i * i % 7919 * 31) % 1000) as f32 / 500.0 - 1.0).collect()
}

/// The same as a batch for libtorch.
pub fn batch(graph: &Graph, images: &[f32]) -> Result<Batch, Box<dyn std::error::Error>> {
    let labels = vec![0; images.len() / graph.input_shape().elements()];
    Ok(Batch::new(images, &labels, graph.input_shape(), Device::Cpu)?)
}

/// What libtorch computes, with running statistics.
pub fn answers(
    graph: &Graph,
    weights: &Weights,
    images: &[f32],
) -> Result<Vec<f32>, Box<dyn std::error::Error>> {
    let batch = batch(graph, images)?;
    let network = Network::new(graph, weights, Device::Cpu)?;
    Ok(numbers(&without_gradients(|| network.forward(&batch.images, BatchNorm::Running))?)?)
}

/// Largest difference relative to the largest number.
pub fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    // A maximum would pass over what is no number.
    let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    worst.fold(0.0f32, |m, d| if d.is_nan() { f32::INFINITY } else { m.max(d) }) / largest
}
