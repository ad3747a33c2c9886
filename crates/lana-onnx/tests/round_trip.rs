//! Networks written and read again, and files that are no networks.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Precision, Shape, Tensor, Value, Weights, Window};
use lana_onnx::{Error, ExportOptions, METADATA_KEY, export, import, import_file};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A network with every operation in six layers.
fn every_operation() -> lana_graph::Result<Graph> {
    let mut b = GraphBuilder::new("every", Shape::image(3, 16, 16)).with_batch_norm(1e-3, 0.01);
    let x = b.input();
    let x = b.conv_full("stem", x, 8, 3, 1, 1, true)?;
    let x = b.batch_norm("stem_bn", x)?;
    let x = b.activation("stem_act", x, Activation::Relu)?;
    let x = b.layer("stage1.0", "stage1", x, |b, x| {
        let y = b.conv("dw", x, 8, 3, 1, 8)?;
        let y = b.batch_norm("bn", y)?;
        let y = b.activation("act", y, Activation::Silu)?;
        let s = b.node("pool", Op::GlobalAveragePool, &[y])?;
        let s = b.conv_full("reduce", s, 2, 1, 1, 1, true)?;
        let s = b.activation("relu6", s, Activation::Relu6)?;
        let s = b.conv_full("expand", s, 8, 1, 1, 1, true)?;
        let s = b.activation("gate", s, Activation::HardSigmoid)?;
        let y = b.node("scale", Op::Mul, &[y, s])?;
        b.add("add", x, y)
    })?;
    let x = b.layer("stage1.1", "stage1", x, |b, x| {
        let y = b.conv("conv", x, 8, 3, 1, 1)?;
        let y = b.activation("act", y, Activation::HardSwish)?;
        b.add("add", y, x)
    })?;
    let x = b.layer("stage2.0", "stage2", x, |b, x| {
        let y = b.conv("conv", x, 16, 3, 2, 1)?;
        let s = b.node("subsample", Op::Subsample { stride: 2 }, &[x])?;
        let s = b.node("pad", Op::PadChannels { before: 4, after: 4 }, &[s])?;
        let y = b.add("add", y, s)?;
        let g = b.activation("gate", y, Activation::Sigmoid)?;
        b.node("scale", Op::Mul, &[g, g])
    })?;
    let x = b.layer("stage3.0", "stage3", x, |b, x| {
        let y = b.node("max", Op::MaxPool { window: Window::square(3, 2, 1) }, &[x])?;
        let window = Window { ceil_mode: true, ..Window::square(3, 2, 0) };
        let y = b.node("average", Op::AveragePool { window, count_include_pad: false }, &[y])?;
        let window = Window { kernel: [1, 2], stride: [1, 1], padding: [0, 1], ceil_mode: false };
        b.node("wide", Op::AveragePool { window, count_include_pad: true }, &[y])
    })?;
    let x = b.layer("stage3.1", "stage3", x, |b, x| {
        let y = b.node("shuffle", Op::ShuffleChannels { outer: 8, inner: 2 }, &[x])?;
        let s = b.node("pool", Op::GlobalAveragePool, &[y])?;
        let s = b.node("shuffle2", Op::ShuffleChannels { outer: 2, inner: 4 }, &[s])?;
        let s = b.node("softmax", Op::SoftmaxParts { parts: 4 }, &[s])?;
        let y = b.node("scale", Op::Mul, &[y, s])?;
        b.node("sum", Op::SumParts { parts: 4 }, &[y])
    })?;
    let x = b.layer("stage3.2", "stage3", x, attention)?;
    let x = b.layer("stage3.3", "stage3", x, from_elsewhere)?;
    let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("hidden", Op::Linear { out_features: 12, bias: false }, &[x])?;
    let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

/// What only networks of other tools are made of.
fn from_elsewhere(b: &mut GraphBuilder, x: Value) -> lana_graph::Result<Value> {
    let [channels, h, w] = *b.shape(x).dims() else { unreachable!("a feature map") };
    let y = b.node("layer_scale", Op::MulParameter { shared: vec![1, 2] }, &[x])?;
    let y = b.activation("tanh", y, Activation::Tanh)?;
    let z = b.node("pad", Op::Pad { pads: vec![[1, 0], [0, 1], [2, 1]], value: 0.5 }, &[x])?;
    let z = b.node("moved", Op::AddParameter { shared: vec![0, 2] }, &[z])?;
    let z = b.node("corners", Op::Resize { size: [2 * h, w + 1], align_corners: true }, &[z])?;
    let z = b.node("resize", Op::Resize { size: [h, w], align_corners: false }, &[z])?;
    let z = b.activation("erf", z, Activation::Erf)?;
    let m = b.node("mean", Op::Mean { axes: vec![0, 2] }, &[z])?;
    let m = b.node("cube", Op::Power { exponent: 3.0 }, &[m])?;
    let m = b.node("shift", Op::Shift { term: 0.5 }, &[m])?;
    let m = b.node("root", Op::Power { exponent: 0.5 }, &[m])?;
    let m = b.node("inverse", Op::Power { exponent: -1.0 }, &[m])?;
    let z = b.node("normal", Op::Mul, &[z, m])?;
    let z = b.add("sum", z, m)?;
    let z = b.node("concat", Op::Concat { axis: 0 }, &[z, y, x])?;
    let z = b.node("range", Op::Select { axis: 0, indices: (1..2 * channels + 1).collect() }, &[z])?;
    b.node("even", Op::Select { axis: 0, indices: (0..channels).map(|i| 2 * i).collect() }, &[z])
}

/// Attention, with every operation that it is made of.
fn attention(b: &mut GraphBuilder, x: Value) -> lana_graph::Result<Value> {
    let reshape = |shape: &[usize]| Op::Reshape { shape: shape.to_vec() };
    let transpose = |order: &[usize]| Op::Transpose { order: order.to_vec() };
    let linear = |out_features, bias| Op::Linear { out_features, bias };
    let shape = b.shape(x).clone();
    let [channels, h, w] = *shape.dims() else { unreachable!("a feature map") };
    let z = b.node("deep", reshape(&[1, h, w, channels]), &[x])?;
    let conv = |bias| Op::Conv3d { out_channels: 1, kernel: [3, 1, 3], padding: [1, 0, 1], bias };
    let z = b.node("conv3d", conv(true), &[z])?;
    let z = b.node("conv3d_plain", conv(false), &[z])?;
    let z = b.node("flat", reshape(&[channels, h, w]), &[z])?;
    let z = b.activation("relu", z, Activation::Relu)?;
    let t = b.node("tokens", reshape(&[channels, h * w]), &[x])?;
    let t = b.node("rows", transpose(&[1, 0]), &[t])?;
    let t = b.node("position", Op::AddParameter { shared: Vec::new() }, &[t])?;
    let t = b.node("norm", Op::LayerNorm { eps: 1e-6 }, &[t])?;
    let q = b.node("q", linear(4, true), &[t])?;
    let q = b.node("q_heads", reshape(&[h * w, 2, 2]), &[q])?;
    let q = b.node("q_rows", transpose(&[1, 0, 2]), &[q])?;
    let q = b.node("q_scale", Op::Scale { factor: 0.7 }, &[q])?;
    let k = b.node("k", linear(4, false), &[t])?;
    let k = b.node("k_heads", reshape(&[h * w, 2, 2]), &[k])?;
    let k = b.node("k_columns", transpose(&[1, 2, 0]), &[k])?;
    let a = b.node("logits", Op::MatMul, &[q, k])?;
    let a = b.node("softmax", Op::Softmax { axis: 2 }, &[a])?;
    let y = b.node("product", Op::MatMul, &[a, q])?;
    let y = b.node("turned", transpose(&[1, 0, 2]), &[y])?;
    let y = b.node("joined", reshape(&[h * w, 4]), &[y])?;
    let y = b.node("out", linear(channels + 1, true), &[y])?;
    let y = b.activation("gelu", y, Activation::Gelu)?;
    let y = b.node("pick", Op::Select { axis: 1, indices: (1..=channels).rev().collect() }, &[y])?;
    let y = b.node("columns", transpose(&[1, 0]), &[y])?;
    let y = b.node("map", reshape(&[channels, h, w]), &[y])?;
    b.add("add", y, z)
}

fn weights_of(graph: &Graph) -> Weights {
    let mut number = 0.0_f32;
    let mut next = || {
        number += 0.37;
        number.sin()
    };
    graph
        .parameters()
        .into_iter()
        .map(|p| {
            let data = (0..p.shape.iter().product()).map(|_| next()).collect();
            (p.name, Tensor { shape: p.shape, data })
        })
        .collect()
}

fn bytes_of(graph: &Graph) -> lana_onnx::Result<Vec<u8>> {
    export(graph, &weights_of(graph), &ExportOptions::default())
}

/// The same file with the metadata under another key, so that only the nodes speak.
fn without_metadata(bytes: &[u8]) -> Vec<u8> {
    let key = METADATA_KEY.as_bytes();
    let at = bytes.windows(key.len()).position(|w| w == key).expect("metadata");
    let mut bytes = bytes.to_vec();
    bytes[at] = b'L';
    bytes
}

#[test]
fn what_acts_in_training_alone_is_not_exported() -> Outcome {
    let network = |drops: bool| {
        let mut b = GraphBuilder::new("drops", Shape::image(3, 4, 4));
        let x = b.input();
        let y = b.conv("conv", x, 3, 1, 1, 1)?;
        let y = if drops { b.node("drop_path", Op::DropPath { rate: 0.1 }, &[y])? } else { y };
        let y = b.add("add", y, x)?;
        let y = b.node("flatten", Op::Flatten, &[y])?;
        let y = if drops { b.node("dropout", Op::Dropout { rate: 0.2 }, &[y])? } else { y };
        let y = b.node("fc", Op::Linear { out_features: 2, bias: true }, &[y])?;
        b.finish(y)
    };
    let (with, without) = (network(true)?, network(false)?);
    let bytes = bytes_of(&with)?;
    assert_eq!(import(&bytes)?.0, with);
    let (read, read_without) =
        (import(&without_metadata(&bytes))?, import(&without_metadata(&bytes_of(&without)?))?);
    assert_eq!(read, read_without);
    // As the last node it has to make the output.
    let mut b = GraphBuilder::new("last", Shape::image(3, 4, 4));
    let x = b.conv("conv", b.input(), 3, 1, 1, 1)?;
    let x = b.node("dropout", Op::Dropout { rate: 0.2 }, &[x])?;
    let last = b.finish(x)?;
    assert_eq!(import(&bytes_of(&last)?)?.0, last);
    Ok(())
}

#[test]
fn every_operation_comes_back() -> Outcome {
    let graph = every_operation()?;
    let weights = weights_of(&graph);
    for batch in [None, Some(1), Some(64)] {
        let options = ExportOptions { batch, ..ExportOptions::default() };
        let (read, read_weights) = import(&export(&graph, &weights, &options)?)?;
        assert_eq!(read, graph);
        assert_eq!(read_weights, weights);
    }
    Ok(())
}

#[test]
fn shuffles_of_any_runs_come_back() -> Outcome {
    for (outer, inner) in [(4, 3), (4, 22), (2, 1), (1, 12), (4, 1)] {
        let mut b = GraphBuilder::new("shuffle", Shape::image(4, 5, 5));
        let x = b.conv("in", b.input(), outer * inner, 3, 1, outer.min(4))?;
        let x = b.node("shuffle", Op::ShuffleChannels { outer, inner }, &[x])?;
        let x = b.conv("out", x, 4, 3, 1, outer.min(4))?;
        let graph = b.finish(x)?;
        let read = import(&without_metadata(&bytes_of(&graph)?))?.0;
        let ops = |g: &Graph| g.nodes().iter().map(|n| n.op.clone()).collect::<Vec<_>>();
        assert_eq!(ops(&read), ops(&graph), "{outer} runs of {inner}");
    }
    Ok(())
}

#[test]
fn nodes_alone_say_all_but_layers() -> Outcome {
    let graph = every_operation()?;
    let (read, weights) = import(&without_metadata(&bytes_of(&graph)?))?;
    assert_eq!(read.nodes(), graph.nodes());
    assert_eq!(read.name(), graph.name());
    assert!(read.layers().is_empty());
    assert_eq!(weights, weights_of(&graph));
    Ok(())
}

#[test]
fn students_come_back() -> Outcome {
    let teacher = every_operation()?;
    let skip = GraphBuilder::new("identity", Shape::image(8, 16, 16));
    let skip = skip.finish(lana_graph::Value::INPUT)?;
    let mut plain = GraphBuilder::new("conv", Shape::image(8, 16, 16));
    let y = plain.conv("conv", plain.input(), 16, 1, 2, 1)?;
    let plain = plain.finish(y)?;
    let student = teacher.replace("stage1.0", &skip)?.replace("stage2.0", &plain)?;
    let (read, weights) = import(&bytes_of(&student)?)?;
    assert_eq!(read, student);
    assert_eq!(weights, weights_of(&student));
    let all_skipped = teacher.layer_graph("stage1.1")?;
    assert_eq!(import(&bytes_of(&all_skipped)?)?.0, all_skipped);
    assert_eq!(import(&bytes_of(&skip)?)?.0, skip);
    Ok(())
}

#[test]
fn awkward_names_come_back() -> Outcome {
    let mut b = GraphBuilder::new("names", Shape::image(2, 4, 4));
    let x = b.conv("logits", b.input(), 2, 3, 1, 1)?;
    let x = b.activation("input", x, Activation::Silu)?;
    let x = b.activation("logits.weight", x, Activation::Relu6)?;
    let x = b.add("logits.weight/min", x, x)?;
    let graph = b.finish(x)?;
    let bytes = bytes_of(&graph)?;
    // A slash would lead into a folder: no network of lana's has one in its names.
    for bytes in [without_metadata(&bytes), bytes] {
        let read = import(&bytes)?.0;
        assert!(read.nodes().iter().map(|n| &n.op).eq(graph.nodes().iter().map(|n| &n.op)));
        assert_eq!(read.nodes()[3].name, "logits.weight.min");
    }
    Ok(())
}

#[test]
fn stale_metadata_is_not_believed() -> Outcome {
    let graph = every_operation()?;
    let mut bytes = bytes_of(&graph)?;
    // Another tool turns the first Relu into something else of the same length.
    let at = bytes.windows(4).position(|w| w == b"Relu").expect("a Relu");
    bytes[at..at + 4].copy_from_slice(b"Relo");
    let Err(Error::Unsupported { list, .. }) = import(&bytes) else { panic!("Relo was read") };
    assert_eq!(list, ["Relo (`stem_act`)"]);
    Ok(())
}

#[test]
fn one_message_lists_every_obstacle() -> Outcome {
    let graph = every_operation()?;
    let mut bytes = bytes_of(&graph)?;
    for (from, to) in [("GlobalAveragePool", "GlobalAveragePoof"), ("HardSwish", "HardSwosh")] {
        let (from, to) = (from.as_bytes(), to.as_bytes());
        while let Some(at) = bytes.windows(from.len()).position(|w| w == from) {
            bytes[at..at + from.len()].copy_from_slice(to);
        }
    }
    let message = import(&bytes).expect_err("nonsense was read").to_string();
    let expected = "4 of the model's nodes cannot be read: GlobalAveragePoof (3: `stage1.0.pool`, `stage3.1.pool`, `pool`); \
                    HardSwosh (`stage1.1.act`); ";
    assert!(message.starts_with(expected), "{message}");
    Ok(())
}

#[test]
fn truncated_files_are_errors() -> Outcome {
    let graph = every_operation()?;
    let weights = weights_of(&graph);
    let bytes = export(&graph, &weights, &ExportOptions::default())?;
    let mut whole = 0;
    for length in 0..bytes.len() {
        if let Ok((read, read_weights)) = import(&bytes[..length]) {
            // Cut exactly between network and metadata the file is a whole model, just without layers.
            assert_eq!((read.nodes(), &read_weights), (graph.nodes(), &weights));
            whole += 1;
        }
    }
    assert!(whole <= 1, "{whole} truncated files were read");
    Ok(())
}

#[test]
fn damaged_files_do_not_panic() -> Outcome {
    let graph = every_operation()?;
    let bytes = bytes_of(&graph)?;
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize
    };
    for _ in 0..3000 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + random() % 4 {
            let at = random() % damaged.len();
            damaged[at] = random() as u8;
        }
        let _ = import(&damaged);
        let _ = import(&without_metadata(&bytes)[..random() % bytes.len()]);
    }
    for _ in 0..1000 {
        let garbage: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        assert!(import(&garbage).is_err());
    }
    Ok(())
}

#[test]
fn messages_name_the_file_and_the_fault() {
    assert_eq!(
        import(b"").expect_err("nothing was read").to_string(),
        "not a whole ONNX model: it holds no network; export or fetch it again"
    );
    let path = std::env::temp_dir().join(format!("lana-onnx-{}.onnx", std::process::id()));
    let missing = import_file(&path).expect_err("a missing file was read").to_string();
    assert!(missing.contains(&*path.to_string_lossy()), "{missing}");
    std::fs::write(&path, b"hello").expect("temporary file");
    let garbage = import_file(&path).expect_err("garbage was read").to_string();
    std::fs::remove_file(&path).expect("temporary file");
    assert!(garbage.contains(&*path.to_string_lossy()), "{garbage}");
    assert!(garbage.contains("not a whole ONNX model"), "{garbage}");
}

#[test]
fn foreign_weights_are_refused() -> Outcome {
    let graph = every_operation()?;
    let error = export(&graph, &Weights::new(), &ExportOptions::default()).expect_err("no weights");
    assert!(error.to_string().contains("weights lack `stem.weight`"), "{error}");
    Ok(())
}

#[test]
fn the_size_of_a_file_is_known_before_it_is_written() -> Outcome {
    let teacher = every_operation()?;
    let skip = GraphBuilder::new("skip", Shape::image(8, 4, 4)).finish(Value::INPUT)?;
    for graph in [teacher.layer_graph("stage1.1")?, skip, teacher] {
        for precision in [Precision::Fp32, Precision::Fp16, Precision::Bf16] {
            let options = ExportOptions { precision, ..ExportOptions::default() };
            let bytes = export(&graph, &weights_of(&graph), &options)?;
            let size = lana_onnx::file_size(&graph, precision)?;
            assert_eq!(size, bytes.len() as u64, "{} {precision}", graph.name());
        }
    }
    Ok(())
}
