//! Files that are broken, or made to break whoever reads them: an error that says what is wrong, no panic, and no more memory
//! than the file gives reason for.
#![allow(clippy::unwrap_used)]

mod common;

use std::path::Path;

use common::{Model, foreign, int, ints};
use lana_onnx::proto::{EXTERNAL, ModelProto, StringStringEntryProto, TensorProto, data_type};
use lana_onnx::{import, import_file};
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
    assert!(circle.contains("`a` (Add: reads `b`, which no earlier node makes"), "{circle}");
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
        filled.refusal().contains("`c` (ConstantOfShape: a size of 1099511627776)"),
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
    assert!(counted.refusal().contains("`c` (Range"), "{}", counted.refusal());
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
    assert!(message.contains("`y` (Reshape: floats where integers belong)"), "{message}");
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
        (vec![("location", "missing.bin")], "missing.bin: "),
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
