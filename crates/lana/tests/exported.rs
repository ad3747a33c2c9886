//! What is exported computes in ONNX Runtime what libtorch computes. Without the runtime these tests say so and pass.

mod common;

use common::{Outcome, difference, runtime};
use lana_graph::{Activation, Conv2d, GraphBuilder, Op, Shape, Value, Weights, Window};
use lana_latency::random_weights;
use lana_models::zoo::{self, ZooOptions};
use lana_onnx::ExportOptions;

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

/// Compares both engines on a teacher with random weights, and reads back what was exported.
fn agrees_and_comes_back(name: &str, options: &ZooOptions) -> Outcome {
    let graph = zoo::build(name, options)?;
    let weights = random_weights(&graph, 3);
    let difference = difference(&graph, &weights)?;
    assert!(difference < 1e-4, "{name} with {options:?}: {difference}");
    let bytes = lana_onnx::export(&graph, &weights, &ExportOptions::default())?;
    assert!(lana_onnx::import(&bytes)? == (graph, weights), "{name} with {options:?}");
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
        agrees_and_comes_back(name, &options)?;
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
        // What training drops is no part of what runs, but of what is read again.
        let trained = ZooOptions {
            num_classes: Some(10),
            resolution: Some(resolution),
            drop_rate: 0.2,
            drop_path_rate: 0.2,
        };
        agrees_and_comes_back(name, &trained)?;
    }
    Ok(())
}

/// A convolution of four channels in two groups.
fn dilated(dilation: [usize; 2], kernel: [usize; 2], padding: [usize; 4]) -> Op {
    let (in_channels, out_channels) = (4, 6);
    let stride = [1, 2];
    Op::Conv2d(Conv2d { in_channels, out_channels, kernel, stride, dilation, padding, groups: 2, bias: true })
}

#[test]
fn operations_of_imported_networks_agree() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let input = Shape::image(4, 6, 5);
    let one = |op: Op| vec![op];
    // The absolute value, away from zero, for powers that want it.
    let positive = |op: Op| vec![Op::Power { exponent: 2.0 }, Op::Shift { term: 0.5 }, op];
    let cases: Vec<Vec<Op>> = vec![
        one(Op::Mean { axes: vec![0] }),
        one(Op::Mean { axes: vec![1, 2] }),
        one(Op::Shift { term: -0.75 }),
        positive(Op::Power { exponent: 0.5 }),
        positive(Op::Power { exponent: -1.0 }),
        one(Op::Power { exponent: 3.0 }),
        one(Op::AddParameter { shared: Vec::new() }),
        one(Op::AddParameter { shared: vec![1, 2] }),
        one(Op::MulParameter { shared: vec![1, 2] }),
        one(Op::MulParameter { shared: vec![0] }),
        one(Op::Pad { pads: vec![[0, 0], [1, 2], [0, 3]], value: 0.0 }),
        one(Op::Pad { pads: vec![[2, 1], [0, 0], [1, 0]], value: -1.5 }),
        one(Op::Resize { size: [9, 11], align_corners: false }),
        one(Op::Resize { size: [9, 11], align_corners: true }),
        one(Op::Resize { size: [3, 2], align_corners: false }),
        one(Op::Activation { kind: Activation::Tanh }),
        one(Op::Activation { kind: Activation::Erf }),
        one(Op::Activation { kind: Activation::Elu }),
        one(Op::Activation { kind: Activation::Softplus }),
        one(Op::LogSoftmax { axis: 0 }),
        one(dilated([1, 2], [3, 3], [1; 4])),
        one(dilated([2, 2], [3, 2], [2, 0, 1, 2])),
    ];
    let mut wrong = Vec::new();
    let mut check = |graph: &lana_graph::Graph, what: String| {
        let found = difference(graph, &random_weights(graph, 5));
        if !found.as_ref().is_ok_and(|difference| *difference < 1e-5) {
            wrong.push(format!("{what}: {found:?}"));
        }
    };
    for ops in cases {
        let mut b = GraphBuilder::new("op", input.clone());
        let mut x = Value::INPUT;
        for (at, op) in ops.iter().enumerate() {
            x = b.node(&format!("op{at}"), op.clone(), &[x])?;
        }
        check(&b.finish(x)?, format!("{ops:?}"));
    }
    // Of several values, and broadcast: a gate for each channel, a map for all channels, a row for all rows.
    for axes in [vec![1, 2], vec![0], vec![1]] {
        for op in [Op::Add, Op::Mul] {
            let mut b = GraphBuilder::new("broadcast", input.clone());
            let small = b.node("small", Op::Mean { axes: axes.clone() }, &[Value::INPUT])?;
            let y = b.node("both", op.clone(), &[Value::INPUT, small])?;
            check(&b.finish(y)?, format!("{op:?} with a mean along {axes:?}"));
        }
    }
    for axis in 0..3 {
        let mut b = GraphBuilder::new("concat", input.clone());
        let other = b.node("other", Op::Activation { kind: Activation::Tanh }, &[Value::INPUT])?;
        let y = b.node("concat", Op::Concat { axis }, &[Value::INPUT, other, Value::INPUT])?;
        check(&b.finish(y)?, format!("concatenation along {axis}"));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
