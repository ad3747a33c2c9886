//! Files that are broken, or made to break whoever reads them: an error that says what is wrong, no panic, and no more memory
//! than the file gives reason for.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Model, foreign, int, ints, word};
use lana_graph::{GraphBuilder, LayerRules, Op, Shape, Weights, discover};
use lana_onnx::proto::{EXTERNAL, ModelProto, StringStringEntryProto, TensorProto, data_type};
use lana_onnx::{ExportOptions, export, import, import_file};
use prost::Message;

/// A stream of numbers (splitmix64).
struct Random(u64);

impl Random {
    fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, count: usize) -> usize {
        (self.draw() % count.max(1) as u64) as usize
    }
}

/// Numbers that are wrong nearly everywhere.
const NUMBERS: [i64; 16] = [
    i64::MIN,
    i64::MIN + 1,
    -(1 << 40),
    -3,
    -1,
    0,
    1,
    2,
    3,
    7,
    64,
    1 << 20,
    1 << 31,
    1 << 40,
    2_147_483_647,
    i64::MAX,
];

#[test]
fn bits_and_bytes_that_are_wrong() {
    let bytes = foreign().bytes();
    let mut random = Random(1);
    for _ in 0..2000 {
        let mut damaged = bytes.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(damaged.len());
            match random.below(4) {
                0 => damaged[at] ^= 1 << random.below(8),
                1 => damaged[at] = random.draw() as u8,
                2 => {
                    let end = (at + random.below(20)).min(damaged.len());
                    damaged.drain(at..end);
                }
                _ => damaged.truncate(at.max(1)),
            }
        }
        let _ = import(&damaged);
    }
    for length in 0..bytes.len() {
        assert!(import(&bytes[..length]).is_err(), "the first {length} bytes were read");
    }
}

/// Well-formed files whose nodes and tensors say other things than they should.
#[test]
fn nodes_that_say_something_else() {
    let proto = foreign().proto();
    let kinds: Vec<String> =
        "Add Mul Sub Div Pow Conv Gemm MatMul Concat Split Slice Gather Reshape Transpose Flatten Squeeze Unsqueeze Expand \
         Tile Pad Resize Softmax ReduceMean ReduceSum MaxPool AveragePool GlobalAveragePool LayerNormalization \
         BatchNormalization InstanceNormalization GroupNormalization Shape Size Range ConstantOfShape Where Cast Clip \
         DepthToSpace SpaceToDepth CumSum GatherND Identity Constant"
            .split_whitespace()
            .map(str::to_string)
            .collect();
    let mut random = Random(2);
    for _ in 0..4000 {
        let mut model = proto.clone();
        for _ in 0..=random.below(3) {
            change(&mut model, &kinds, &mut random);
        }
        let _ = import(&model.encode_to_vec());
    }
}

fn change(model: &mut ModelProto, kinds: &[String], random: &mut Random) {
    let graph = model.graph.as_mut().unwrap();
    let values: Vec<String> = graph.node.iter().flat_map(|n| n.output.clone()).collect();
    let (node, tensor) = (random.below(graph.node.len()), random.below(graph.initializer.len()));
    let number = NUMBERS[random.below(NUMBERS.len())];
    match random.below(12) {
        0 => graph.node[node].op_type = Some(kinds[random.below(kinds.len())].clone()),
        1 => graph.node[node].input.push(values[random.below(values.len())].clone()),
        2 => {
            let count = graph.node[node].input.len();
            let names: Vec<String> =
                graph.initializer.iter().filter_map(|t| t.name.clone()).chain(values).collect();
            graph.node[node].input[random.below(count)] = names[random.below(names.len())].clone();
        }
        3 => graph.node[node].input.clear(),
        4 => graph.node[node].attribute.clear(),
        5 => {
            let names =
                ["axis", "axes", "perm", "pads", "strides", "kernel_shape", "group", "keepdims", "blocksize"];
            let name = names[random.below(names.len())];
            let count = random.below(6);
            let attribute = if count == 0 {
                int(name, number)
            } else {
                ints(name, &(0..count).map(|_| NUMBERS[random.below(NUMBERS.len())]).collect::<Vec<_>>())
            };
            graph.node[node].attribute.insert(0, attribute);
        }
        6 => {
            for attribute in &mut graph.node[node].attribute {
                attribute.ints.iter_mut().for_each(|v| *v = number);
                attribute.i = attribute.i.map(|_| number);
            }
        }
        7 => graph.initializer[tensor].data_type = Some(random.below(18) as i32),
        8 => {
            let count = graph.initializer[tensor].dims.len();
            if count > 0 {
                graph.initializer[tensor].dims[random.below(count)] = number;
            }
        }
        9 => {
            if let Some(at) = graph.initializer[tensor].int64_data.len().checked_sub(1) {
                graph.initializer[tensor].int64_data[at] = number;
            }
        }
        10 => {
            let count = graph.node.len();
            graph.node.swap(node, random.below(count));
        }
        _ => {
            let copy = graph.node[node].clone();
            graph.node.insert(random.below(graph.node.len()), copy);
        }
    }
}

#[test]
fn circles_and_values_made_twice() {
    let circle = Model::new(17, &[0, 3, 4, 4])
        .node("a", "Add", &["x", "b"], &[])
        .node("b", "Relu", &["a"], &[])
        .refusal();
    assert!(circle.contains("`a` reads `b`, which no earlier node makes"), "{circle}");
    assert!(circle.contains("in a circle"), "{circle}");
    let twice = Model::new(17, &[0, 3, 4, 4])
        .node("a", "Relu", &["x"], &[])
        .node("a", "Sigmoid", &["x"], &[])
        .refusal();
    assert!(twice.contains("`a` is made twice"), "{twice}");
    let given = Model::new(17, &[0, 3, 4, 4]).node("x", "Relu", &["x"], &[]).refusal();
    assert!(given.contains("`x` is made twice"), "{given}");
    let missing = Model::new(17, &[0, 3, 4, 4]).node("a", "Add", &["x", "nowhere"], &[]).refusal();
    assert!(missing.contains("reads `nowhere`"), "{missing}");
}

#[test]
fn sizes_that_no_network_has() {
    let huge = 1_i64 << 40;
    let base = || {
        Model::new(17, &[0, 3, 4, 4]).integers("huge", &[1], &[huge]).integers(
            "large",
            &[2],
            &[1 << 20, 1 << 20],
        )
    };
    let filled = base().node("c", "ConstantOfShape", &["huge"], &[]).node("y", "Add", &["x", "c"], &[]);
    assert!(
        filled.refusal().contains("ConstantOfShape (`c`: a size of 1099511627776)"),
        "{}",
        filled.refusal()
    );
    let filled = base().node("c", "ConstantOfShape", &["large"], &[]).node("y", "Add", &["x", "c"], &[]);
    assert!(filled.refusal().contains("far more memory than the file"), "{}", filled.refusal());
    let counted = base()
        .integers("from", &[], &[0])
        .integers("to", &[], &[huge])
        .integers("by", &[], &[1])
        .node("c", "Range", &["from", "to", "by"], &[])
        .node("y", "Add", &["x", "c"], &[]);
    assert!(counted.refusal().contains("Range (`c`"), "{}", counted.refusal());
    let kernel = ints("kernel_shape", &[huge, 1]);
    let pooled = base().node("y", "MaxPool", &["x"], &[kernel]);
    assert!(pooled.refusal().contains("a size of 1099511627776"), "{}", pooled.refusal());
    let mut empty = base().node("y", "Conv", &["x", "w"], &[]);
    empty.initialisers.push(TensorProto {
        dims: vec![huge, huge, huge],
        data_type: Some(data_type::FLOAT),
        name: Some("w".into()),
        ..TensorProto::default()
    });
    assert!(empty.refusal().contains("impossible dimensions"), "{}", empty.refusal());
    empty.initialisers.last_mut().unwrap().dims = vec![1 << 20, 1 << 20];
    assert!(empty.refusal().contains("0 elements for dimensions"), "{}", empty.refusal());
    let input = Model::new(17, &[0, huge, 4, 4]).node("y", "Relu", &["x"], &[]);
    assert!(input.refusal().contains("of known size"), "{}", input.refusal());
}

/// A small file may name one tensor very often: what is copied each time is counted.
#[test]
fn one_tensor_read_by_thousands() {
    let indices: Vec<i64> = (0..100_000).map(|i| i % 16).collect();
    let mut model = Model::new(17, &[0, 16]).integers("indices", &[100_000], &indices);
    let mut names = Vec::new();
    for at in 0..2000 {
        let name = format!("g{at}");
        model = model.node(&name, "Gather", &["x", "indices"], &[int("axis", 1)]);
        names.push(name);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let model = model.node("y", "Concat", &names, &[int("axis", 1)]);
    assert!(model.refusal().contains("far more memory than the file"));
    // Nor do names grow that nodes share.
    let mut model = Model::new(17, &[0, 16]);
    let mut last = "x".to_string();
    for at in 0..5000 {
        let name = format!("r{at}");
        model = model.node(&name, "Relu", &[&last], &[]);
        model.nodes.last_mut().unwrap().name = Some("same".into());
        last = name;
    }
    let (graph, _) = model.graph();
    assert!(graph.nodes().iter().all(|n| n.name.len() < 12));
}

#[test]
fn wrong_types() {
    let conv = |model: Model| model.node("y", "Conv", &["x", "w"], &[]).refusal();
    let base = || Model::new(17, &[0, 3, 4, 4]);
    let message = conv(base().integers("w", &[4, 3, 1, 1], &[0; 12]));
    assert!(message.contains("input 1 holds integers, no weights"), "{message}");
    let mut text = base();
    text.initialisers.push(TensorProto {
        data_type: Some(data_type::STRING),
        name: Some("w".into()),
        ..TensorProto::default()
    });
    assert!(conv(text).contains("elements of ONNX data type 8"));
    let message = base().floats("dims", &[2]).node("y", "Reshape", &["x", "dims"], &[]).refusal();
    assert!(message.contains("Reshape (`y`: floats where integers belong)"), "{message}");
    let message = conv(base().numbers("w", &[4, 3, 1, 1], &[f32::NAN; 12]));
    assert!(message.contains("not finite"), "{message}");
}

/// A convolution whose weights lie in another file.
fn external(entries: &[(&str, &str)]) -> Model {
    let mut model = Model::new(17, &[0, 2, 4, 4]).node("y", "Conv", &["x", "w"], &[]);
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some(key.to_string()),
        value: Some(value.to_string()),
    };
    model.initialisers.push(TensorProto {
        dims: vec![3, 2, 1, 1],
        data_type: Some(data_type::FLOAT),
        name: Some("w".into()),
        data_location: Some(EXTERNAL),
        external_data: entries.iter().map(entry).collect(),
        ..TensorProto::default()
    });
    model
}

fn read_in(folder: &Path, model: &Model) -> Result<lana_graph::Weights, String> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.bytes()).unwrap();
    import_file(&path).map(|(_, weights)| weights).map_err(|e| e.to_string())
}

#[test]
fn tensors_in_other_files() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let numbers: Vec<f32> = (0..8).map(|n| n as f32).collect();
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    for place in ["weights.bin", "sub/weights.bin", "../secret.bin"] {
        std::fs::write(folder.join(place), &bytes).unwrap();
    }
    for place in ["weights.bin", "sub/weights.bin"] {
        let model = external(&[("location", place), ("offset", "8"), ("length", "24")]);
        let weights = read_in(&folder, &model).unwrap();
        assert_eq!(weights.iter().next().unwrap().1.data, numbers[2..8]);
        // Without a folder there is no telling where that is.
        assert!(model.refusal().contains("read the model from its file"), "{}", model.refusal());
    }
    let absolute = home.path().join("secret.bin");
    for place in ["../secret.bin", "sub/../../secret.bin", absolute.to_str().unwrap(), "", "."] {
        let message = read_in(&folder, &external(&[("location", place)])).unwrap_err();
        assert!(message.contains("which is not in the folder of the model"), "{place}: {message}");
    }
    for (entries, part) in [
        (vec![("location", "missing.bin")], "`missing.bin`: "),
        (vec![("location", "sub")], "sub"),
        (vec![], "a separate file that has no name"),
        (vec![("location", "weights.bin"), ("offset", "12")], "24 bytes at 12 in"),
        (vec![("location", "weights.bin"), ("offset", "18446744073709551615")], "24 bytes at"),
        (vec![("location", "weights.bin"), ("offset", "-1")], "whose offset is no number"),
        (vec![("location", "weights.bin"), ("length", "20")], "24 bytes at 0"),
    ] {
        let message = read_in(&folder, &external(&entries)).unwrap_err();
        assert!(message.contains(part), "{entries:?}: {message}");
    }
    // Dimensions that the file cannot fill are no reason to make room for them.
    let mut huge = external(&[("location", "weights.bin")]);
    huge.initialisers[0].dims = vec![1 << 20, 1 << 20, 1, 1];
    assert!(read_in(&folder, &huge).unwrap_err().contains("which has 32"));
}

/// Whether a name may stand in the path of a file, in a table and in a program.
fn is_safe(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_letter);
    name.len() < 255 && !name.starts_with('-') && name.split('.').all(is_part)
}

/// Names of nodes and weights become those of layers, and these parts of paths.
#[test]
fn names_that_are_paths_and_worse() {
    let long = "x".repeat(5000);
    let names = [
        "../../../../tmp/evil",
        "/tmp/evil/out",
        "a/b/../c",
        "..",
        "",
        "bad\nname\x1b[31mred\x07",
        "a,b:c*",
        "слой\u{202e}",
        "--out",
        &long,
        "a/b/../c",
    ];
    // Weights have their names as well as nodes.
    for of_weights in [false, true] {
        let mut model = Model::new(17, &[0, 4, 8, 8]);
        let mut last = "x".to_string();
        for (at, name) in names.iter().enumerate() {
            let (conv, relu) = (format!("conv{at}"), format!("relu{at}"));
            let weight = if of_weights { format!("{name}.weight") } else { format!("w{at}") };
            if !model.initialisers.iter().any(|t| t.name.as_deref() == Some(&weight)) {
                model = model.floats(&weight, &[4, 4, 3, 3]);
            }
            model = model.node(&conv, "Conv", &[&last, &weight], &[ints("pads", &[1; 4])]);
            if !of_weights {
                model.nodes.last_mut().unwrap().name = Some(name.to_string());
            }
            model = model.node(&relu, "Relu", &[&conv], &[]);
            last = relu;
        }
        let (graph, weights) = model.graph();
        for name in graph.nodes().iter().map(|n| n.name.as_str()).chain(weights.iter().map(|(name, _)| name))
        {
            assert!(is_safe(name), "{name:?}");
        }
        for layer in discover(&graph, &LayerRules::default()).unwrap().layers() {
            assert!(is_safe(&layer.name), "{:?}", layer.name);
        }
        let mut proto = model.proto();
        proto.graph.as_mut().unwrap().name = Some("../\x1b[31m".into());
        assert_eq!(import(&proto.encode_to_vec()).unwrap().0.name(), "_31m");
    }
}

/// What lana's own files say of themselves is text that anybody can change.
#[test]
fn layers_that_are_called_what_nothing_should_be() {
    for (name, is_believed) in [("stage1.0", true), ("../../evil", false), ("a\nb", false), ("-x", false)] {
        let mut b = GraphBuilder::new("net", Shape::image(3, 8, 8));
        let x = b.layer(name, "stage1", b.input(), |b, x| b.node("act", Op::Flatten, &[x])).unwrap();
        let graph = b.finish(x).unwrap();
        let bytes = export(&graph, &Weights::new(), &ExportOptions::default()).unwrap();
        let (read, _) = import(&bytes).unwrap();
        assert_eq!(read == graph, is_believed, "{name}");
        assert_eq!(read.layers().is_empty(), !is_believed);
        assert!(read.nodes().iter().all(|n| is_safe(&n.name)), "{read:?}");
    }
}

#[test]
fn numbers_without_an_opposite() {
    for (pads, says) in [
        ([0, 0, i64::MIN, 0, 0, 0, 0, 0], "-9223372036854775808 and 0 around 4"),
        ([0, 0, 0, 0, 0, 0, i64::MIN, 0], "0 and -9223372036854775808 around 4"),
        ([0, 0, -(1 << 62), 0, 0, 0, -(1 << 62), 0], "around 4"),
        ([0, 0, -3, 0, 0, 0, -1, 0], "-3 and -1 around 4"),
        ([0, 0, -3, 0, 0, 0, i64::MAX, 0], "a size of 9223372036854775807"),
    ] {
        let model = Model::new(17, &[0, 3, 4, 4]).integers("pads", &[8], &pads);
        for mode in ["constant", "edge", "reflect"] {
            let model = model.clone().node("y", "Pad", &["x", "pads"], &[word("mode", mode)]);
            let message = model.refusal();
            assert!(mode != "constant" || message.contains(says), "{message}");
        }
    }
    let cut = Model::new(17, &[0, 3, 4, 4]).integers("pads", &[8], &[0, 0, -3, 0, 0, 0, 2, 0]);
    assert_eq!(cut.node("y", "Pad", &["x", "pads"], &[]).read().1, [3, 3, 4]);
    // The same dimension twice.
    let twice =
        Model::new(17, &[0, 3, 4, 4]).integers("pads", &[4], &[1; 4]).integers("axes", &[2], &[2, -2]);
    let twice = twice.node("y", "Pad", &["x", "pads", "", "axes"], &[]);
    assert!(twice.refusal().contains("for the dimensions [2, 2]"), "{}", twice.refusal());
}

/// Something of so many elements that only its dimensions are ever asked for.
fn by_its_dimensions(model: Model, name: &str) -> String {
    model
        .node("shape", "Shape", &[name], &[])
        .integers("first", &[], &[0])
        .node("size", "Gather", &["shape", "first"], &[])
        .node("number", "Cast", &["size"], &[int("to", data_type::FLOAT.into())])
        .node("y", "Add", &["x", "number"], &[])
        .refusal()
}

/// Dimensions beside one of 0 hold nothing, and yet are gone through.
#[test]
fn nothing_that_takes_forever() {
    let base = || Model::new(17, &[0, 3, 4, 4]);
    let with = |dims: &[i64]| {
        let mut model = base();
        model.initialisers.push(TensorProto {
            dims: dims.to_vec(),
            data_type: Some(data_type::FLOAT),
            name: Some("e".into()),
            ..TensorProto::default()
        });
        model
    };
    let huge = 1 << 40;
    for (dims, kind, attributes) in [
        (vec![huge, 0], "Concat", vec![int("axis", 1)]),
        (vec![0, huge, huge, huge], "Transpose", vec![ints("perm", &[3, 2, 1, 0])]),
    ] {
        let model = with(&dims).node("k", kind, &["e", "e"], &attributes);
        let message = by_its_dimensions(model, "k");
        assert!(message.contains("impossible dimensions"), "{message}");
    }
    // Made by a node.
    let filled = base().integers("dims", &[3], &[1 << 20, 1 << 20, 0]);
    let filled = filled.node("e", "ConstantOfShape", &["dims"], &[]);
    let message = by_its_dimensions(filled.node("k", "Concat", &["e", "e"], &[int("axis", 2)]), "k");
    assert!(message.contains("far more memory"), "{message}");
    let regrouped = with(&[0]).integers("dims", &[4], &[0, 1 << 20, 1 << 20, 1 << 20]);
    let message = by_its_dimensions(regrouped.node("k", "Reshape", &["e", "dims"], &[]), "k");
    assert!(message.contains("[0] by the dimensions [0, 1048576, 1048576, 1048576]"), "{message}");
    // Few, but read very often.
    let names = vec!["e"; 200_000];
    let message = by_its_dimensions(with(&[1 << 20, 0]).node("k", "Concat", &names, &[int("axis", 1)]), "k");
    assert!(message.contains("far more memory"), "{message}");
    // An empty tensor is nothing unusual.
    let empty = with(&[0]).numbers("scales", &[4], &[1.0, 1.0, 2.0, 2.0]);
    let empty = empty.node("y", "Resize", &["x", "e", "scales"], &[word("mode", "linear")]);
    assert_eq!(empty.read().1, [3, 8, 8]);
}

/// Lists as long as dimensions never are, of a few bytes each.
#[test]
fn lists_that_go_on_and_on() {
    let many = 1 << 20;
    let base = || {
        Model::new(17, &[0, 3, 4, 4])
            .integers("many", &[1], &[many])
            .integers("zero", &[], &[0])
            .integers("end", &[], &[many])
            .integers("one", &[], &[1])
            .node("zeros", "ConstantOfShape", &["many"], &[])
            .node("range", "Range", &["zero", "end", "one"], &[])
    };
    for kind in ["Unsqueeze", "Squeeze", "Expand", "Reshape", "Tile", "Pad"] {
        let mut model = base();
        let mut names = Vec::new();
        for at in 0..50 {
            names.push(format!("y{at}"));
            model = model.node(&names[at], kind, &["x", "range"], &[]);
        }
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let message = model.node("y", "Sum", &names, &[]).refusal();
        assert!(message.contains(kind) && message.len() < 2000, "{kind}: {} letters", message.len());
    }
}

/// Hundreds of thousands of nodes take no time, unless each of them is looked at for each.
#[test]
fn nodes_beyond_counting() {
    let base = |kind: &str, inputs: &[&str]| {
        let mut model = Model::new(17, &[0, 3, 4, 4])
            .numbers("one", &[], &[1.0])
            .numbers("two", &[], &[2.0])
            .integers("flat", &[2], &[0, -1])
            .integers("map", &[4], &[0, 3, 4, 4]);
        let mut last = "x".to_string();
        for at in 0..100_000 {
            let name = format!("n{at}");
            let inputs: Vec<&str> = std::iter::once(last.as_str()).chain(inputs.iter().copied()).collect();
            model = model.node(&name, kind, &inputs, &[]);
            last = name;
        }
        model
    };
    assert_eq!(base("Mul", &["one"]).node("y", "Relu", &["n99999"], &[]).read().0, ["activation"]);
    assert_eq!(base("Mul", &["two"]).graph().0.nodes().len(), 100_000);
    assert_eq!(base("Identity", &[]).node("y", "Relu", &["n99999"], &[]).read().0, ["activation"]);
    // Nor do messages grow with them.
    let message = base("Einsum", &[]).refusal();
    let expected = "100000 of the model's nodes cannot be read: Einsum (100000: `n0`, `n1`, `n2`, `n3`, `n4`, `n5` and 99994 more); ";
    assert!(message.starts_with(expected), "{message}");
}

/// A tensor that is large for a file of its size is copied as often as there is reason for, however many nodes want to.
#[test]
fn one_constant_wanted_by_thousands() {
    let mut model = Model::new(17, &[0, 3, 4, 4]).integers("dims", &[4], &[1 << 12, 1 << 12, 1, 1]).node(
        "w",
        "ConstantOfShape",
        &["dims"],
        &[],
    );
    let mut names = Vec::new();
    for at in 0..2000 {
        names.push(format!("y{at}"));
        model = model.node(&names[at], "Conv", &["x", "w"], &[]);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = model.node("y", "Sum", &names, &[]).refusal();
    assert!(message.contains("takes far more memory than the file"), "{message}");
}

/// Nodes in the reverse order, say, are one fault.
#[test]
fn one_reason_is_given_once() {
    let mut model = Model::new(17, &[0, 3, 4, 4]);
    for at in 0..20 {
        model = model.node(&format!("n{at}"), "Relu", &[&format!("n{}", at + 1)], &[]);
    }
    let message = model.node("y", "Add", &["n0", "n1"], &[]).refusal();
    assert_eq!(message.matches("which no earlier node makes").count(), 1, "{message}");
    assert!(
        message.contains("`n0` reads `n1`, `n1` reads `n2`") && message.contains("and 14 more"),
        "{message}"
    );
    // Whatever names are, they are shown as text.
    let odd = Model::new(17, &[0, 3, 4, 4]).node("y\x1b[31m", "Relu", &["x\n"], &[]);
    assert!(odd.refusal().contains("`y\\u{1b}[31m` reads `x\\n`"), "{}", odd.refusal());
}

/// Whoever opens a pipe waits for somebody to write to it, and a link may lead anywhere.
#[cfg(unix)]
#[test]
fn files_that_are_none() {
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("model");
    std::fs::create_dir_all(folder.join("sub")).unwrap();
    let pipe = folder.join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let bytes: Vec<u8> = [1.0_f32; 6].iter().flat_map(|x| x.to_le_bytes()).collect();
    for place in ["secret.bin", "model/sub/weights.bin"] {
        std::fs::write(home.path().join(place), &bytes).unwrap();
    }
    let link = |to: &str, from: &str| std::os::unix::fs::symlink(to, folder.join(from)).unwrap();
    link("../secret.bin", "out.bin");
    link("sub/weights.bin", "in.bin");
    link("..", "up");
    link("/dev/zero", "zero");
    for (place, says) in [
        ("pipe", "`pipe`: not a file"),
        ("out.bin", "not in the folder of the model: a link leads elsewhere"),
        ("up/secret.bin", "not in the folder of the model: a link leads elsewhere"),
        ("zero", "not in the folder of the model: a link leads elsewhere"),
    ] {
        let message = read_in(&folder, &external(&[("location", place)])).unwrap_err();
        assert!(message.contains(says), "{message}");
    }
    // One that stays in the folder is fine, and so is a folder that is a link itself.
    assert!(read_in(&folder, &external(&[("location", "in.bin")])).is_ok());
    assert!(read_in(&folder.join("up/model"), &external(&[("location", "in.bin")])).is_ok());
}

/// A hundred tensors that name one file take no more than it holds gives reason for.
#[test]
fn one_file_named_by_many_tensors() {
    let folder = tempfile::tempdir().unwrap();
    let side = 512_i64;
    let size = (side * side * 4) as u64;
    std::fs::File::create(folder.path().join("weights.bin")).unwrap().set_len(4 * size).unwrap();
    let model = |count: usize, distinct: usize| {
        let mut model = Model::new(17, &[0, side]);
        let mut last = "x".to_string();
        for at in 0..count {
            let (name, weight) = (format!("y{at}"), format!("w{at}"));
            let offset = (at % distinct) as u64 * size;
            let tensor = external(&[("location", "weights.bin"), ("offset", &offset.to_string())]);
            let tensor = tensor.initialisers.into_iter().next().unwrap();
            model.initialisers.push(TensorProto {
                dims: vec![side, side],
                name: Some(weight.clone()),
                ..tensor
            });
            // Each is read twice.
            model = model.node(&format!("{name}_"), "MatMul", &[&last, &weight], &[]);
            model = model.node(&name, "MatMul", &[&format!("{name}_"), &weight], &[]);
            last = name;
        }
        model
    };
    // One behind the other, or shared by two.
    assert_eq!(read_in(folder.path(), &model(4, 4)).unwrap().len(), 8);
    assert_eq!(read_in(folder.path(), &model(8, 4)).unwrap().len(), 16);
    let message = read_in(folder.path(), &model(100, 1)).unwrap_err();
    assert!(message.contains("`weights.bin`, of which tensors take far more than it holds"), "{message}");
}
