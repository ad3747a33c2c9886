//! What is exported computes in ONNX Runtime what libtorch computes. Without the runtime these tests say so and pass.

use lana_graph::{Graph, GraphBuilder, Op, Shape, Value, Weights, Window, fold_batch_norm};
use lana_latency::{Model, OnnxRuntime, Session, SessionOptions, random_weights};
use lana_models::zoo::{self, ZooOptions};
use lana_onnx::ExportOptions;
use lana_torch::{Batch, BatchNorm, Device, Network, numbers, without_gradients};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Whether there is a runtime to test with; the reason is printed if there is none.
fn runtime() -> bool {
    match OnnxRuntime::load() {
        Ok(_) => true,
        Err(reason) => {
            eprintln!("skipped: {reason}");
            false
        }
    }
}

/// Largest difference of the two engines on a batch of two, relative to the largest output.
fn difference(graph: &Graph, weights: &Weights) -> Result<f32, Box<dyn std::error::Error>> {
    let elements = graph.input_shape().elements();
    let images: Vec<f32> =
        (0..2 * elements as u64).map(|i| ((i * i % 7919 * 31) % 1000) as f32 / 500.0 - 1.0).collect();
    let batch = Batch::new(&images, &[0, 0], graph.input_shape(), Device::Cpu)?;
    let network = Network::new(graph, weights, Device::Cpu)?;
    let torch = numbers(&without_gradients(|| network.forward(&batch.images, BatchNorm::Running))?)?;
    let (folded, folded_weights) = fold_batch_norm(graph, weights)?;
    let bytes = lana_onnx::export(&folded, &folded_weights, &ExportOptions::default())?;
    let onnx =
        Session::open(&Model::from_bytes("test", bytes), &SessionOptions::default())?.run(&images, 2)?;
    assert_eq!(onnx.len(), torch.len(), "{}", graph.name());
    let largest = torch.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    Ok(onnx.iter().zip(&torch).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest)
}

#[test]
fn poolings_agree_at_every_border() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (kernel, stride) in [(1, 2), (2, 1), (2, 2), (2, 3), (3, 1), (3, 2), (3, 3), (4, 3), (5, 2)] {
        for (padding, (height, width)) in
            (0..=kernel / 2).flat_map(|p| [(1, 2), (3, 6), (7, 8), (5, 4)].map(|size| (p, size)))
        {
            for ceil_mode in [false, true] {
                let window = Window { ceil_mode, ..Window::square(kernel, stride, padding) };
                for op in [
                    Op::MaxPool { window: window.clone() },
                    Op::AveragePool { window: window.clone(), count_include_pad: false },
                    Op::AveragePool { window: window.clone(), count_include_pad: true },
                ] {
                    let mut b = GraphBuilder::new("pool", Shape::image(2, height, width));
                    let Ok(y) = b.node("pool", op.clone(), &[Value::INPUT]) else { continue };
                    let graph = b.finish(y)?;
                    checked += 1;
                    let difference = difference(&graph, &Weights::new());
                    if !difference.as_ref().is_ok_and(|d| *d < 1e-6) {
                        wrong.push(format!("{op:?} on {height}×{width}: {difference:?}"));
                    }
                }
            }
        }
    }
    assert!(checked > 300, "{checked}");
    assert!(wrong.is_empty(), "{} of {checked}: {}", wrong.len(), wrong.join("\n"));
    Ok(())
}

#[test]
fn residual_networks_agree_and_come_back() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    // Odd sizes leave the poolings of the shortcuts with half windows.
    for (name, resolution) in [
        ("resnet18", 49),
        ("resnet50", 32),
        ("resnest14d", 49),
        ("resnest14d", 64),
        ("resnest50d_1s4x24d", 32),
        ("resnest50d_4s2x40d", 45),
    ] {
        let options = ZooOptions { resolution: Some(resolution), ..ZooOptions::default() };
        let graph = zoo::build(name, &options)?;
        let weights = random_weights(&graph, 3);
        let difference = difference(&graph, &weights)?;
        assert!(difference < 1e-4, "{name} at {resolution}: {difference}");
        let bytes = lana_onnx::export(&graph, &weights, &ExportOptions::default())?;
        assert!(lana_onnx::import(&bytes)? == (graph, weights), "{name} at {resolution}");
    }
    Ok(())
}

#[test]
fn inverted_residual_networks_agree_and_come_back() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    // Odd sizes and even ones: TensorFlow's padding differs between them.
    for (name, resolution) in [
        ("efficientnet_b0", 63),
        ("tf_efficientnet_b0", 65),
        ("tf_efficientnet_b0", 66),
        ("tf_efficientnetv2_b0", 61),
        ("mobilenetv2_100", 57),
        ("mobilenetv3_small_100", 67),
    ] {
        // What training drops is no part of what is exported.
        let trained = ZooOptions {
            num_classes: Some(10),
            resolution: Some(resolution),
            drop_rate: 0.2,
            drop_path_rate: 0.2,
        };
        let graph = zoo::build(name, &trained)?;
        let weights = random_weights(&graph, 3);
        let difference = difference(&graph, &weights)?;
        assert!(difference < 1e-4, "{name} at {resolution}: {difference}");
        let plain = zoo::build(name, &ZooOptions { drop_rate: 0.0, drop_path_rate: 0.0, ..trained })?;
        let bytes = lana_onnx::export(&graph, &weights, &ExportOptions::default())?;
        assert!(lana_onnx::import(&bytes)? == (plain, weights), "{name} at {resolution}");
    }
    Ok(())
}
