//! What ONNX Runtime makes of exported networks. Without the library these tests say so and pass.

use std::path::PathBuf;
use std::time::Duration;

use lana_graph::{Activation, Graph, GraphBuilder, Op, Shape, Tensor, Value, Weights, Window};
use lana_latency::{
    Deployment, Device, Dim, Error, LayerCandidates, MeasureOptions, Model, OnnxRuntime, Session, Table,
    TableOptions, build_table, find_library, measure, random_weights,
};
use lana_onnx::ExportOptions;

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

fn run(graph: &Graph, weights: &Weights, images: &[f32], batch: usize) -> lana_latency::Result<Vec<f32>> {
    let bytes = lana_onnx::export(graph, weights, &ExportOptions::default())?;
    Session::open(&Model::from_bytes("test", bytes), &Deployment::default())?.run(images, batch)
}

fn one(name: &str, input: Shape, op: Op) -> lana_graph::Result<Graph> {
    let mut b = GraphBuilder::new(name, input);
    let x = b.node("op", op, &[Value::INPUT])?;
    b.finish(x)
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len());
    for (at, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= 1e-4 * (1.0 + b.abs()), "element {at}: {a}, not {b}");
    }
}

#[test]
fn a_convolution_computed_by_hand() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let mut b = GraphBuilder::new("conv", Shape::image(1, 3, 3));
    let x = b.conv_full("conv", b.input(), 2, 3, 2, 1, true)?;
    let graph = b.finish(x)?;
    let mut kernel = vec![0.0; 18];
    (kernel[4], kernel[5], kernel[9]) = (1.0, 10.0, 1.0);
    let mut weights = Weights::new();
    weights.insert("conv.weight", Tensor { shape: vec![2, 1, 3, 3], data: kernel });
    weights.insert("conv.bias", Tensor { shape: vec![2], data: vec![0.5, -1.0] });
    // Stride 2, padded by 1: the kernel's centre stands on the corners. The first kernel adds ten times the pixel to the
    // right, the second takes the pixel up and left, which is padding but for the last corner.
    let images = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let output = run(&graph, &weights, &images, 1)?;
    close(&output, &[21.5, 3.5, 87.5, 9.5, -1.0, -1.0, -1.0, 4.0]);
    Ok(())
}

#[test]
fn every_operation_means_what_it_says() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let image: Vec<f32> = (0..2 * 9).map(|i| i as f32 - 8.0).collect();
    let shape = || Shape::image(2, 3, 3);
    let gate = |x: f32| (x + 3.0).clamp(0.0, 6.0) / 6.0;
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let table: [(Activation, &dyn Fn(f32) -> f32); 6] = [
        (Activation::Relu, &|x| x.max(0.0)),
        (Activation::Relu6, &|x| x.clamp(0.0, 6.0)),
        (Activation::Silu, &|x| x * sigmoid(x)),
        (Activation::Sigmoid, &sigmoid),
        (Activation::HardSwish, &|x| x * gate(x)),
        (Activation::HardSigmoid, &gate),
    ];
    for (kind, rule) in table {
        let graph = one("activation", shape(), Op::Activation { kind })?;
        let want: Vec<f32> = image.iter().map(|&x| rule(x)).collect();
        close(&run(&graph, &Weights::new(), &image, 1)?, &want);
    }
    let check = |op: Op, want: &[f32]| -> Outcome {
        close(&run(&one("op", shape(), op)?, &Weights::new(), &image, 1)?, want);
        Ok(())
    };
    check(Op::SumParts { parts: 2 }, &[-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0, 9.0])?;
    // Both channels of a pixel differ by 9.
    let (small, large) = (sigmoid(-9.0), sigmoid(9.0));
    check(Op::SoftmaxParts { parts: 2 }, &[[small; 9], [large; 9]].concat())?;
    check(Op::ShuffleChannels { outer: 2, inner: 1 }, &image)?;
    let graph = one("shuffle", Shape::image(6, 1, 2), Op::ShuffleChannels { outer: 2, inner: 3 })?;
    let twelve: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let shuffled = [0.0, 1.0, 6.0, 7.0, 2.0, 3.0, 8.0, 9.0, 4.0, 5.0, 10.0, 11.0];
    close(&run(&graph, &Weights::new(), &twelve, 1)?, &shuffled);
    let window = Window::square(2, 2, 1);
    check(Op::MaxPool { window: window.clone() }, &[-8.0, -6.0, -2.0, 0.0, 1.0, 3.0, 7.0, 9.0])?;
    let quarters = [-2.0, -3.25, -1.75, -2.0, 0.25, 1.25, 2.75, 7.0];
    check(Op::AveragePool { window: window.clone(), count_include_pad: true }, &quarters)?;
    let means = [-8.0, -6.5, -3.5, -2.0, 1.0, 2.5, 5.5, 7.0];
    check(Op::AveragePool { window, count_include_pad: false }, &means)?;
    check(Op::GlobalAveragePool, &[-4.0, 5.0])?;
    check(Op::Flatten, &image)?;
    check(Op::Subsample { stride: 2 }, &[-8.0, -6.0, -2.0, 0.0, 1.0, 3.0, 7.0, 9.0])?;
    let zeros = [0.0; 9];
    check(Op::PadChannels { before: 1, after: 2 }, &[&zeros, &image[..], &zeros, &zeros].concat())?;

    let graph = one("bn", shape(), Op::BatchNorm { eps: 1e-3, momentum: 0.1 })?;
    let numbers = [
        ("weight", [2.0, 1.0]),
        ("bias", [0.5, 0.0]),
        ("running_mean", [1.0, -1.0]),
        ("running_var", [4.0, 9.0]),
    ];
    let weights: Weights = numbers
        .into_iter()
        .map(|(n, v)| (format!("op.{n}"), Tensor { shape: vec![2], data: v.to_vec() }))
        .collect();
    let want: Vec<f32> = (0..18)
        .map(|i| match i < 9 {
            true => (image[i] - 1.0) / 4.001_f32.sqrt() * 2.0 + 0.5,
            false => (image[i] + 1.0) / 9.001_f32.sqrt(),
        })
        .collect();
    close(&run(&graph, &weights, &image, 1)?, &want);

    let mut b = GraphBuilder::new("head", Shape::image(2, 1, 1));
    let x = b.node("flatten", Op::Flatten, &[Value::INPUT])?;
    let x = b.node("fc", Op::Linear { out_features: 3, bias: true }, &[x])?;
    let graph = b.finish(x)?;
    let mut weights = Weights::new();
    weights.insert("fc.weight", Tensor { shape: vec![3, 2], data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] });
    weights.insert("fc.bias", Tensor { shape: vec![3], data: vec![0.0, 0.0, 1.0] });
    close(&run(&graph, &weights, &[1.0, 10.0, 2.0, 0.0], 2)?, &[21.0, 43.0, 66.0, 2.0, 6.0, 11.0]);
    Ok(())
}

/// Three layers alike, a strided one, two more alike.
fn teacher() -> lana_graph::Result<Graph> {
    let block = |b: &mut GraphBuilder, x: Value| {
        let c = b.shape(x).channels();
        let y = b.conv("conv1", x, c, 3, 1, 1)?;
        let y = b.batch_norm("bn1", y)?;
        let y = b.activation("act1", y, Activation::Relu)?;
        let y = b.conv("conv2", y, c, 3, 1, 1)?;
        let y = b.batch_norm("bn2", y)?;
        let y = b.add("add", x, y)?;
        b.activation("act2", y, Activation::Relu)
    };
    let mut b = GraphBuilder::new("teacher", Shape::image(3, 16, 16));
    let x = b.input();
    let x = b.conv("stem", x, 16, 3, 1, 1)?;
    let mut x = b.batch_norm("stem_bn", x)?;
    for i in 0..3 {
        x = b.layer(&format!("stage1.{i}"), "stage1", x, block)?;
    }
    x = b.layer("stage2.0", "stage2", x, |b, x| {
        let y = b.conv("conv", x, 32, 3, 2, 1)?;
        let y = b.batch_norm("bn", y)?;
        let s = b.node("subsample", Op::Subsample { stride: 2 }, &[x])?;
        let s = b.node("pad", Op::PadChannels { before: 8, after: 8 }, &[s])?;
        b.add("add", y, s)
    })?;
    for i in 1..3 {
        x = b.layer(&format!("stage2.{i}"), "stage2", x, block)?;
    }
    let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

/// A single convolution from a layer's input to its output shape.
fn plain(layer: &Graph) -> lana_graph::Result<Graph> {
    let (channels, height, _) = layer.output_shape().as_image().unwrap_or_default();
    let (_, input_height, _) = layer.input_shape().as_image().unwrap_or_default();
    let mut b = GraphBuilder::new("plain", layer.input_shape().clone());
    let y = b.conv("conv", b.input(), channels, 3, input_height / height, 1)?;
    let y = b.batch_norm("bn", y)?;
    b.finish(y)
}

fn candidates(teacher: &Graph) -> lana_graph::Result<Vec<LayerCandidates>> {
    let mut list = Vec::new();
    for layer in teacher.layers() {
        let own = teacher.layer_graph(&layer.name)?;
        let mut operations = vec![("plain".to_string(), plain(&own)?)];
        if own.input_shape() == own.output_shape() {
            let skip = GraphBuilder::new("identity", own.input_shape().clone()).finish(Value::INPUT)?;
            operations.push(("identity".into(), skip));
        }
        operations.insert(0, ("teacher".into(), own));
        list.push(LayerCandidates { layer: layer.name.clone(), operations });
    }
    Ok(list)
}

#[test]
fn import_of_export_gives_the_same_outputs() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let graph = teacher()?;
    let graph = graph.replace("stage1.1", &plain(&graph.layer_graph("stage1.1")?)?)?;
    let weights = random_weights(&graph, 3);
    let images: Vec<f32> = (0..2 * 768).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
    let first = run(&graph, &weights, &images, 2)?;
    assert!(first.iter().all(|x| x.is_finite()) && first[..10] != first[10..]);
    let bytes = lana_onnx::export(&graph, &weights, &ExportOptions::default())?;
    let (read, read_weights) = lana_onnx::import(&bytes)?;
    assert_eq!(run(&read, &read_weights, &images, 2)?, first);
    // The batch is symbolic: each image alone gives the same.
    close(&run(&graph, &weights, &images[768..], 1)?, &first[10..]);
    // The folded form is the same function.
    let model = Model::from_graph("folded", &graph, &weights)?;
    let folded =
        Session::open(&model, &Deployment { threads: 2, ..Deployment::default() })?.run(&images, 2)?;
    close(&folded, &first);
    Ok(())
}

#[test]
fn a_fixed_batch_is_kept_to() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let graph = teacher()?;
    let options = ExportOptions { batch: Some(2), ..ExportOptions::default() };
    let bytes = lana_onnx::export(&graph, &random_weights(&graph, 1), &options)?;
    let mut session = Session::open(&Model::from_bytes("b2.onnx", bytes), &Deployment::default())?;
    assert_eq!((session.image_shape()?, session.fixed_batch()), ([3, 16, 16], Some(2)));
    assert_eq!(session.outputs()[0].dims, [Dim::Size(2), Dim::Size(10)]);
    assert_eq!(session.run(&[0.0; 2 * 768], 2)?.len(), 20);
    let error = session.run(&[0.0; 768], 1).expect_err("another batch").to_string();
    assert_eq!(error, "b2.onnx: takes batches of 2 alone, not of 1");
    Ok(())
}

#[test]
fn what_is_no_image_network_is_named() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let graph = one("vector", Shape::vector(5), Op::Activation { kind: Activation::Relu })?;
    let bytes = lana_onnx::export(&graph, &Weights::new(), &ExportOptions::default())?;
    let opened =
        |name: &str, bytes: Vec<u8>| Session::open(&Model::from_bytes(name, bytes), &Deployment::default());
    let open = |name: &str, bytes: Vec<u8>| opened(name, bytes).expect_err("opened").to_string();
    assert_eq!(
        opened("vector.onnx", bytes.clone())?.image_shape().expect_err("no image").to_string(),
        "vector.onnx: its input `input` has 2 dimensions, not the 4 of a batch of images"
    );
    let garbage = open("garbage.onnx", b"garbage".to_vec());
    assert!(garbage.starts_with("garbage.onnx: ONNX Runtime cannot open it"), "{garbage}");
    let cut = open("cut.onnx", bytes[..bytes.len() / 3].to_vec());
    assert!(cut.starts_with("cut.onnx: ") && !cut.contains('\n'), "{cut}");
    Ok(())
}

#[test]
fn a_missing_library_says_what_to_do() {
    let searched = vec![PathBuf::from("/nowhere"), PathBuf::from("/nowhere/libonnxruntime.so")];
    let error = find_library(&searched).expect_err("nothing there");
    assert!(matches!(error, Error::MissingLibrary { .. }));
    let text = error.to_string();
    assert!(text.contains("run `cargo xtask setup` or set ORT_DYLIB_PATH"), "{text}");
    assert!(text.contains("/nowhere/libonnxruntime.so"), "{text}");
}

#[test]
fn models_are_measured_together() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let graph = teacher()?;
    let small = one("small", Shape::image(3, 4, 4), Op::GlobalAveragePool)?;
    let models =
        [Model::with_random_weights("teacher", &graph)?, Model::with_random_weights("small", &small)?];
    let deployment = Deployment { batch: 2, ..Deployment::default() };
    let options =
        MeasureOptions { deployment, time_limit: Duration::from_millis(300), ..MeasureOptions::default() };
    let result = measure(&models, &options)?;
    assert_eq!((result[0].name.as_str(), result[0].ratio), ("teacher", 1.0));
    assert!(result.iter().all(|m| m.median_ms > 0.0 && m.repeats >= 3 && m.ratio_ci[0] <= m.ratio_ci[1]));
    assert!(
        measure(&models, &MeasureOptions { deployment: Deployment { batch: 0, ..deployment }, ..options })
            .is_err()
    );
    Ok(())
}

#[test]
fn a_table_adds_up() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let teacher = teacher()?;
    let candidates = candidates(&teacher)?;
    for neighbours in [Some(1), None] {
        let options = TableOptions {
            time_limit_s: Some(2.0),
            min_repeats: 4,
            together: 3,
            whole: 3,
            neighbours,
            ..TableOptions::default()
        };
        let mut steps = Vec::new();
        let table =
            build_table(&teacher, &candidates, &options, &mut |p| steps.push((p.pass, p.done, p.total)))?;
        assert!(steps.is_sorted() && steps.iter().all(|(_, done, total)| done <= total));
        assert_eq!(steps.last().map(|(_, done, total)| done == total), Some(true));

        let sum: f64 = table.fixed_ms + table.layers.iter().map(|l| l.teacher_ms).sum::<f64>();
        assert!((sum / table.teacher_ms() - 1.0).abs() < 1e-9, "{sum} of {}", table.teacher_ms());
        assert!((table.predict(&["teacher"; 6])? / sum - 1.0).abs() < 1e-9);
        let mixed = ["identity", "plain", "teacher", "plain", "identity", "plain"];
        assert!(table.predict(&mixed)?.is_finite());
        // Alike in structure and shapes, hence timed once.
        let timing = |layer: usize| table.layers[layer].operations[1].timing;
        assert_eq!([timing(0), timing(0), timing(4)], [timing(1), timing(2), timing(5)]);
        assert!(timing(0) != timing(3) && timing(3) != timing(4));
        assert!(table.layers.iter().flat_map(|l| &l.operations).all(|e| e.spread_ms.is_finite()));
        table.check_device(&Device::identify())?;

        let read: Table = serde_json::from_str(&serde_json::to_string(&table)?)?;
        assert_eq!(read, table);
    }
    Ok(())
}

#[test]
fn operations_that_do_not_fit_are_refused() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let teacher = teacher()?;
    let wrong = plain(&teacher.layer_graph("stage2.0")?)?;
    let table = |layer: &str| {
        let candidates =
            [LayerCandidates { layer: layer.into(), operations: vec![("plain".into(), wrong.clone())] }];
        build_table(&teacher, &candidates, &TableOptions::default(), &mut |_| {})
            .expect_err("priced")
            .to_string()
    };
    assert!(table("stage1.0").contains("layer `stage1.0`"));
    assert!(table("stage9.0").contains("no layer `stage9.0`"));
    Ok(())
}
