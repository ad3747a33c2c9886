//! Bad graphs and bad weights: each is refused with a message that names what is wrong.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Block, network, weights};
use lana_graph::{Activation, Conv2d, Error, Graph, Layer, Node, Op, Shape, Tensor, Value, Weights, Window};
use safetensors::tensor::{Dtype, TensorView};
use std::path::Path;

fn relu(name: &str, input: usize) -> Node {
    let inputs = [Value::INPUT, Value::of_node(0), Value::of_node(1), Value::of_node(2)];
    Node { name: name.into(), op: Op::Activation { kind: Activation::Relu }, inputs: vec![inputs[input]] }
}

fn conv(in_channels: usize, out_channels: usize, groups: usize) -> Conv2d {
    Conv2d {
        in_channels,
        out_channels,
        kernel: [3; 2],
        stride: [1; 2],
        dilation: [1; 2],
        padding: [1; 4],
        groups,
        bias: false,
    }
}

fn graph(nodes: Vec<Node>, layers: Vec<Layer>) -> Result<Graph, Error> {
    let output = Value::of_node(nodes.len().max(1) - 1);
    Graph::new("bad", Shape::image(4, 5, 5), nodes, output, layers)
}

#[track_caller]
fn refused<T>(result: Result<T, Error>, part: &str) {
    match result {
        Ok(_) => panic!("accepted, but `{part}` was expected"),
        Err(error) => assert!(error.to_string().contains(part), "`{error}` does not say `{part}`"),
    }
}

#[test]
fn graphs_that_are_no_graphs() {
    refused(graph(vec![relu("a", 1)], vec![]), "`a` takes a value that no earlier node makes");
    refused(graph(vec![relu("a", 2), relu("b", 1)], vec![]), "`a` takes a value");
    refused(graph(vec![relu("a", 0), relu("a", 1)], vec![]), "repeated name `a`");
    refused(graph(vec![relu("", 0)], vec![]), "empty or repeated");
    refused(graph(vec![], vec![]), "its output is a value that no node makes");
    refused(Graph::new("bad", Shape::image(0, 5, 5), vec![], Value::INPUT, vec![]), "is empty");
}

#[test]
fn nodes_whose_inputs_do_not_fit() {
    let image = Shape::image(4, 5, 5);
    let vector = Shape::vector(4);
    let other = Shape::image(4, 5, 6);
    let gate = Shape::image(4, 1, 1);
    let huge = usize::MAX;
    let deep = Shape::of(&[2, 4, 4, 4]);
    let conv3d = |kernel| Op::Conv3d { out_channels: 3, kernel, padding: [0, 1, 0], bias: false };
    let average = |window| Op::AveragePool { window, count_include_pad: true };
    for (op, inputs, part) in [
        (Op::Conv2d(conv(3, 8, 1)), vec![&image], "convolution of 3 channels on 4×5×5"),
        (Op::Conv2d(conv(4, 6, 4)), vec![&image], "in 4 groups"),
        (Op::Conv2d(conv(4, 6, 0)), vec![&image], "in 0 groups"),
        (Op::Conv2d(conv(4, 0, 1)), vec![&image], "4 to 0 channels"),
        (Op::Conv2d(conv(4, 8, 1)), vec![&vector], "needs a feature map"),
        (Op::Conv2d(Conv2d { kernel: [9, 3], ..conv(4, 8, 1) }), vec![&image], "kernel 9 on 5 padded by 2"),
        (Op::Conv2d(Conv2d { stride: [0, 1], ..conv(4, 8, 1) }), vec![&image], "must be positive"),
        (Op::Conv2d(Conv2d { kernel: [0, 1], ..conv(4, 8, 1) }), vec![&image], "must be positive"),
        (Op::Conv2d(Conv2d { dilation: [1, 0], ..conv(4, 8, 1) }), vec![&image], "must be positive"),
        (Op::Conv2d(Conv2d { dilation: [1, 4], ..conv(4, 8, 1) }), vec![&image], "kernel 9 on 5 padded by 2"),
        (Op::Conv2d(Conv2d { dilation: [huge, 1], ..conv(4, 8, 1) }), vec![&image], "padded by 2"),
        (Op::Conv2d(Conv2d { padding: [huge; 4], ..conv(4, 8, 1) }), vec![&image], "too large"),
        (Op::Conv2d(conv(4, huge, 1)), vec![&image], "too large"),
        (Op::BatchNorm { eps: 0.0, momentum: 0.1 }, vec![&image], "eps 0"),
        (Op::BatchNorm { eps: 1e-5, momentum: f64::NAN }, vec![&image], "momentum NaN"),
        (Op::BatchNorm { eps: 1e-5, momentum: 0.1 }, vec![&vector], "needs a feature map"),
        (Op::Add, vec![&image, &other], "sum of 4×5×5 and 4×5×6"),
        (Op::Add, vec![&image], "takes 2 inputs, not 1"),
        (Op::Mul, vec![&gate, &vector], "product of 4×1×1 and"),
        (Op::Concat { axis: 0 }, vec![&image, &other], "concatenation of 4×5×5 and 4×5×6 along dimension 0"),
        (Op::Concat { axis: 3 }, vec![&image], "concatenation along dimension 3"),
        (Op::Concat { axis: 0 }, vec![], "concat of nothing"),
        (Op::Mean { axes: vec![] }, vec![&image], "mean along the dimensions []"),
        (Op::Mean { axes: vec![1, 1] }, vec![&image], "mean along the dimensions [1, 1]"),
        (Op::Mean { axes: vec![3] }, vec![&image], "mean along the dimensions [3]"),
        (Op::Shift { term: f32::INFINITY }, vec![&image], "a term of inf"),
        (Op::Power { exponent: f32::NAN }, vec![&image], "an exponent of NaN"),
        (Op::AddParameter { shared: vec![2, 1] }, vec![&image], "shared along the dimensions [2, 1]"),
        (Op::MulParameter { shared: vec![3] }, vec![&image], "shared along the dimensions [3]"),
        (Op::Pad { pads: vec![[0, 1]], value: 0.0 }, vec![&image], "around 4×5×5"),
        (Op::Pad { pads: vec![[huge, 1]; 3], value: 0.0 }, vec![&image], "too large"),
        (Op::Resize { size: [0, 4], align_corners: false }, vec![&image], "4×5×5 at 0×4"),
        (Op::SumParts { parts: 3 }, vec![&image], "4 channels in 3 parts"),
        (Op::SumParts { parts: 0 }, vec![&image], "4 channels in 0 parts"),
        (Op::SumParts { parts: 1 }, vec![&image], "a sum of one part"),
        (Op::SoftmaxParts { parts: 8 }, vec![&image], "4 channels in 8 parts"),
        (Op::SoftmaxParts { parts: 2 }, vec![&vector], "needs a feature map"),
        (Op::ShuffleChannels { outer: 2, inner: 4 }, vec![&image], "2 channels in 4 parts"),
        (Op::MaxPool { window: Window::square(3, 0, 1) }, vec![&image], "must be positive"),
        (Op::MaxPool { window: Window::square(3, 2, 2) }, vec![&image], "more than half"),
        (Op::MaxPool { window: Window::square(6, 1, 0) }, vec![&image], "windows of 6 on 5 padded by 0"),
        (average(Window::square(0, 1, 0)), vec![&image], "must be positive"),
        (Op::GlobalAveragePool, vec![&vector], "needs a feature map"),
        (Op::Linear { out_features: 0, bias: true }, vec![&vector], "linear of 0 features"),
        (Op::Subsample { stride: 0 }, vec![&image], "must be positive"),
        (Op::Dropout { rate: 1.0 }, vec![&image], "a rate of 1"),
        (Op::DropPath { rate: f64::NAN }, vec![&image], "a rate of NaN"),
        (Op::PadChannels { before: huge, after: 1 }, vec![&image], "too large"),
        (Op::Reshape { shape: vec![10, 9] }, vec![&image], "4×5×5 by the dimensions [10, 9]"),
        (Op::Reshape { shape: vec![huge, 2] }, vec![&image], "by the dimensions"),
        (Op::Reshape { shape: vec![] }, vec![&image], "by the dimensions"),
        (Op::Transpose { order: vec![0, 2, 2] }, vec![&image], "in the order [0, 2, 2]"),
        (Op::Transpose { order: vec![1, 0] }, vec![&image], "in the order [1, 0]"),
        (Op::Select { axis: 1, indices: vec![4, 5] }, vec![&image], "2 positions along dimension 1"),
        (Op::Select { axis: 3, indices: vec![0] }, vec![&image], "along dimension 3"),
        (Op::Select { axis: 0, indices: vec![] }, vec![&image], "0 positions"),
        (Op::MatMul, vec![&other, &image], "matrix product of 4×5×6 and 4×5×5"),
        (Op::MatMul, vec![&vector, &vector], "matrix product"),
        (Op::Softmax { axis: 3 }, vec![&image], "along dimension 3"),
        (Op::LayerNorm { eps: 0.0 }, vec![&image], "eps 0"),
        (Op::Scale { factor: f32::NAN }, vec![&image], "a factor of NaN"),
        (conv3d([1, 1, 1]), vec![&image], "conv3d of 4×5×5"),
        (conv3d([1, 9, 1]), vec![&deep], "kernel [1, 9, 1] on 2×4×4×4"),
        (conv3d([0, 1, 1]), vec![&deep], "kernel [0, 1, 1]"),
    ] {
        let reason = op.infer(&inputs).expect_err(&format!("{op:?}"));
        assert!(reason.contains(part), "{op:?}: `{reason}` does not say `{part}`");
    }
    assert_eq!(Op::Mul.infer(&[&image, &gate]).unwrap(), image);
    // As PyTorch counts: a window of ceil_mode must not begin in the padding behind.
    for (size, kernel, stride, padding, floor, ceil) in [
        (5, 2, 2, 0, 2, 3),
        (6, 2, 2, 0, 3, 3),
        (7, 3, 2, 1, 4, 4),
        (6, 3, 2, 1, 3, 4),
        (5, 2, 3, 1, 2, 2),
        (2, 2, 2, 0, 1, 1),
    ] {
        for (ceil_mode, count) in [(false, floor), (true, ceil)] {
            let op = Op::MaxPool { window: Window { ceil_mode, ..Window::square(kernel, stride, padding) } };
            let shape = op.infer(&[&Shape::image(1, size, size)]).unwrap();
            assert_eq!(shape, Shape::image(1, count, count), "{op:?} on {size}");
        }
    }
    let window = Window { ceil_mode: true, ..Window::square(2, 2, 0) };
    let (dot, op) = (Shape::image(1, 1, 1), Op::MaxPool { window });
    assert_eq!(op.infer(&[&dot]).unwrap(), dot);
    refused(Graph::new("big", Shape::image(huge, huge, 2), vec![], Value::INPUT, vec![]), "too large");
    let add = Node { name: "sum".into(), op: Op::Add, inputs: vec![Value::INPUT] };
    refused(graph(vec![add], vec![]), "node `sum`: add takes 2 inputs");
}

#[test]
fn layers_that_are_no_layers() {
    let layer = |name: &str, nodes: std::ops::Range<usize>, input: usize, output: usize| {
        let at = |v: usize| if v == 0 { Value::INPUT } else { Value::of_node(v - 1) };
        Layer { name: name.into(), stage: "s".into(), nodes, input: at(input), output: at(output) }
    };
    let chain = || vec![relu("a", 0), relu("b", 1), relu("c", 2)];
    graph(chain(), vec![layer("x", 0..1, 0, 1), layer("y", 1..3, 1, 3)]).unwrap();
    for (layers, part) in [
        (vec![layer("x", 0..2, 0, 2), layer("y", 1..3, 1, 3)], "`y` overlaps another"),
        (vec![layer("x", 0..1, 0, 1), layer("x", 1..3, 1, 3)], "`x` stands twice"),
        (vec![layer("x", 2..9, 2, 3)], "reaches beyond"),
        (vec![layer("x", 0..1, 2, 1)], "a value that is not there"),
        (vec![layer("x", 0..1, 0, 9)], "a value that is not there"),
        (vec![layer("x", 1..2, 1, 3)], "does not make its output"),
        (vec![layer("x", 1..1, 1, 0)], "does not make its output"),
        (vec![layer("x", 1..2, 0, 2)], "reads a second value from outside"),
        (vec![layer("x", 0..2, 0, 1)], "has an inner value that is read from outside"),
    ] {
        refused(graph(chain(), layers), part);
    }
}

#[test]
fn graph_files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("graph.json");
    refused(Graph::load(&path), "graph.json");
    for (text, part) in [
        ("", "not a network"),
        ("{}", "missing field"),
        (r#"{"name":"x","input":[1],"output":0,"nodes":[],"layers":[],"more":1}"#, "unknown field `more`"),
        (r#"{"name":"x","input":[1],"output":4,"nodes":[],"layers":[]}"#, "no node makes"),
    ] {
        std::fs::write(&path, text).unwrap();
        refused(Graph::load(&path), part);
        refused(Graph::load(&path), "graph.json");
    }
    let good = network(&[Block::Gated]);
    std::fs::write(&path, good.to_json()).unwrap();
    assert_eq!(Graph::load(&path).unwrap(), good);
}

#[test]
fn weights_that_are_not_the_networks() {
    let graph = network(&[Block::Residual]);
    let good = weights(&graph, 0);
    good.check(&graph).unwrap();
    let file = Path::new("w.safetensors");
    let good = Weights::from_bytes(&good.to_bytes(), file).unwrap();
    good.check(&graph).unwrap();
    let name = "s.0.conv2.weight";

    let mut missing = good.clone();
    let kernel = missing.remove(name).unwrap();
    assert!(matches!(missing.check(&graph), Err(Error::MissingWeight { .. })));
    refused(missing.check(&graph), "weights lack `s.0.conv2.weight` (shape [4, 5, 1, 1]) (w.safetensors)");

    let mut more = good.clone();
    more.insert("fc.weight", Tensor::full(&[2], 0.0));
    assert!(matches!(more.check(&graph), Err(Error::UnexpectedWeight { .. })));
    refused(more.check(&graph), "`fc.weight`");

    let mut shape = good.clone();
    shape.insert(name, Tensor { shape: vec![5, 4, 1, 1], data: kernel.data.clone() });
    assert!(matches!(shape.check(&graph), Err(Error::WeightShape { .. })));
    refused(shape.check(&graph), "shape [5, 4, 1, 1], the network wants [4, 5, 1, 1]");

    for bad in [f32::NAN, f32::INFINITY] {
        let mut broken = good.clone();
        let mut kernel = kernel.clone();
        kernel.data[3] = bad;
        broken.insert(name, kernel);
        assert!(matches!(broken.check(&graph), Err(Error::NotFinite { index: 3, .. })));
        refused(broken.check(&graph), "not finite (element 3)");
    }
}

#[test]
fn weight_files_that_are_none() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    assert!(matches!(Weights::load(&path), Err(Error::Io { .. })));
    let good = weights(&network(&[Block::Plain]), 0).to_bytes();
    for length in [0, 4, 8, 100, good.len() / 2, good.len() - 1] {
        std::fs::write(&path, &good[..length]).unwrap();
        refused(Weights::load(&path), "not a whole safetensors file");
        refused(Weights::load(&path), "w.safetensors");
    }
    for start in [&b"PK\x03\x04rest of a zip"[..], &b"\x80\x02}q\x00."[..]] {
        std::fs::write(&path, start).unwrap();
        refused(Weights::load(&path), "PyTorch pickle");
        refused(Weights::load(&path), "save_file");
    }
    for (content, word) in [
        (&b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"[..], "git-lfs pointer"),
        (b"\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
        (b"epoch,loss\n1,2.30\n2,1.90\n", "not a safetensors file"),
    ] {
        std::fs::write(&path, content).unwrap();
        refused(Weights::load(&path), word);
    }
    std::fs::write(&path, &good).unwrap();
    assert_eq!(Weights::load(&path).unwrap().to_bytes(), good);
}

#[test]
fn other_floats_become_32_bit_and_counters_are_left_out() {
    let values = [1.5f32, -0.25, 0.0, 65504.0];
    let half: Vec<u8> = values.iter().flat_map(|v| half::f16::from_f32(*v).to_le_bytes()).collect();
    let brain: Vec<u8> =
        [1.5f32, -0.25, 0.0, 3e38].iter().flat_map(|v| half::bf16::from_f32(*v).to_le_bytes()).collect();
    let double: Vec<u8> = values.iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let counter = 7i64.to_le_bytes();
    let view = |dtype, shape: &[usize], data| TensorView::new(dtype, shape.to_vec(), data).unwrap();
    let file = |tensors: Vec<(&str, TensorView<'_>)>| safetensors::serialize(tensors, None).unwrap();
    let bytes = file(vec![
        ("half", view(Dtype::F16, &[2, 2], &half)),
        ("brain", view(Dtype::BF16, &[4], &brain)),
        ("double", view(Dtype::F64, &[1, 4], &double)),
        ("bn.num_batches_tracked", view(Dtype::I64, &[], &counter)),
    ]);
    let weights = Weights::from_bytes(&bytes, Path::new("mixed")).unwrap();
    assert_eq!(weights.len(), 3);
    assert_eq!(*weights.get("half").unwrap(), Tensor { shape: vec![2, 2], data: values.to_vec() });
    assert_eq!(*weights.get("double").unwrap(), Tensor { shape: vec![1, 4], data: values.to_vec() });
    let brain = &weights.get("brain").unwrap().data;
    assert_eq!(brain[..3], values[..3]);
    assert!((brain[3] / 3e38 - 1.0).abs() < 1.0 / 256.0);

    let bytes = file(vec![("labels", view(Dtype::I64, &[], &counter))]);
    refused(
        Weights::from_bytes(&bytes, Path::new("mixed")),
        "`labels` holds I64, only floats can be weights",
    );
}

#[test]
fn slices_of_tensors() {
    let tensor = Tensor { shape: vec![2, 3, 2], data: (0..12).map(|v| v as f32).collect() };
    let of = |axis: usize, indices: &[usize]| tensor.select(axis, indices);
    assert_eq!(of(0, &[1]), Tensor { shape: vec![1, 3, 2], data: vec![6., 7., 8., 9., 10., 11.] });
    assert_eq!(of(1, &[2, 0]), Tensor { shape: vec![2, 2, 2], data: vec![4., 5., 0., 1., 10., 11., 6., 7.] });
    assert_eq!(of(2, &[1]), Tensor { shape: vec![2, 3, 1], data: vec![1., 3., 5., 7., 9., 11.] });
    assert_eq!(of(1, &[0, 1, 2]), tensor);
    assert_eq!(of(1, &[]).data.len(), 0);
    assert!(std::panic::catch_unwind(|| tensor.select(1, &[3])).is_err());
}

#[test]
fn names_under_a_prefix_end_at_a_dot() {
    let mut weights = Weights::new();
    for name in ["layer1.1.conv", "layer1.10.conv", "layer1.1", "layer1.1.se.fc"] {
        weights.insert(name, Tensor::full(&[1], 1.0));
    }
    let names = |w: &Weights| w.iter().map(|(n, _)| n.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&weights.under("layer1.1")), ["conv", "se.fc"]);
    let mut new = Weights::new();
    new.insert("x", Tensor::full(&[1], 2.0));
    weights.replace_under("layer1.1", &new);
    assert_eq!(names(&weights), ["layer1.1", "layer1.1.x", "layer1.10.conv"]);
}
