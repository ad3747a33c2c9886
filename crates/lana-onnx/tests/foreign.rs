//! Models as other tools write them.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Model, float, foreign, int, ints, word};
use lana_graph::{Activation, LayerRules, Op, Shape, discover};
use lana_onnx::import;
use lana_onnx::proto::data_type;
use prost::Message;

#[test]
fn what_exporters_spell_out_is_seen_for_what_it_is() {
    let (kinds, shape) = foreign().read();
    assert_eq!(shape, [5]);
    let expected = "conv2d activation average_pool reshape transpose pad add_parameter linear reshape transpose \
                    transpose mat_mul softmax mat_mul transpose reshape layer_norm activation select reshape linear";
    assert_eq!(kinds.join(" "), expected);
}

/// The same model for one image, for three and for any number is the same network.
#[test]
fn the_size_of_the_batch_makes_no_difference() {
    let any = foreign().graph();
    for batch in [1, 3] {
        let mut model = foreign();
        model.input[0] = batch;
        let (graph, weights) = model.graph();
        assert_eq!(graph.output_shape(), any.0.output_shape());
        assert_eq!(weights, any.1);
        let kinds = |graph: &lana_graph::Graph| -> Vec<&str> {
            let but_shapes = graph.nodes().iter().map(|n| n.op.kind()).filter(|kind| *kind != "reshape");
            but_shapes.collect()
        };
        assert_eq!(kinds(&graph), kinds(&any.0));
    }
}

#[test]
fn a_model_exported_for_a_batch_has_constants_for_each_image() {
    let token = [1.0, 2.0, 3.0, 4.0].repeat(3);
    let model = |token: &[f32]| {
        Model::new(17, &[3, 4, 2, 2])
            .integers("dims", &[3], &[3, 4, 4])
            .node("rows", "Reshape", &["x", "dims"], &[])
            .node("tokens", "Transpose", &["rows"], &[ints("perm", &[0, 2, 1])])
            .numbers("cls", &[3, 1, 4], token)
            .node("joined", "Concat", &["cls", "tokens"], &[int("axis", 1)])
    };
    let (graph, weights) = model(&token).graph();
    assert_eq!(*graph.output_shape(), Shape::of(&[5, 4]));
    let (_, tensor) = weights.iter().next().unwrap();
    assert_eq!(tensor.data[..5], [1.0, 2.0, 3.0, 4.0, 0.0]);
    let mut other = token;
    other[11] = 5.0;
    assert!(model(&other).refusal().contains("differs from image to image"));
}

#[test]
fn images_are_not_mixed() {
    let pooled = |axis: i64| {
        Model::new(17, &[0, 4, 2, 2]).node(
            "mean",
            "ReduceMean",
            &["x"],
            &[ints("axes", &[axis]), int("keepdims", 0)],
        )
    };
    assert_eq!(pooled(1).read().1, [2, 2]);
    assert!(pooled(0).refusal().contains("ReduceMean (`mean`: along the batch"), "{}", pooled(0).refusal());
    let mixed = Model::new(17, &[0, 4, 2, 2])
        .integers("dims", &[2], &[8, -1])
        .node("rows", "Reshape", &["x", "dims"], &[])
        .node("relu", "Relu", &["rows"], &[]);
    let message = mixed.refusal();
    assert!(
        message.contains("[batch, 4, 2, 2] by the dimensions [8, 2·batch]") || message.contains("mixed"),
        "{message}"
    );
}

#[test]
fn every_obstacle_is_named_at_once() {
    let message = Model::new(17, &[0, 3, 4, 4])
        .node("a", "Hardmax", &["x"], &[])
        .node("b", "Relu", &["a"], &[])
        .node("c", "NonMaxSuppression", &["b"], &[])
        .node("d", "Softmax", &["x"], &[int("axis", 0)])
        .node("e", "Add", &["c", "d"], &[])
        .refusal();
    assert_eq!(
        message,
        "3 of the model's nodes cannot be read: Hardmax (`a`); NonMaxSuppression (`c`); Softmax (`d`: along the batch, which \
         would mix images); docs/guide.md (\"ONNX files\") says what can be: write these parts of the network otherwise and \
         export it again"
    );
}

/// What stands behind something unknown is looked at as far as that goes without knowing what it reads.
#[test]
fn what_stands_behind_an_obstacle_is_looked_at_too() {
    let window = [ints("kernel_shape", &[2, 2]), ints("dilations", &[2, 2])];
    let base = || {
        Model::new(20, &[0, 3, 8, 8])
            .floats("terms", &[3])
            .numbers("scales", &[4], &[1.0, 1.0, 2.0, 2.0])
            .node("lost", "Einsum", &["x"], &[])
    };
    for (kind, inputs, attributes, says) in [
        ("MaxPool", vec!["lost"], window.to_vec(), "MaxPool (`y`: dilated)"),
        ("AveragePool", vec!["lost"], vec![], "AveragePool (`y`: without kernel_shape)"),
        ("Resize", vec!["lost", "", "scales"], vec![word("mode", "cubic")], "Resize (`y`: mode cubic, only"),
        ("Gelu", vec!["lost"], vec![word("approximate", "guess")], "Gelu (`y`: approximate guess)"),
        (
            "BatchNormalization",
            vec!["lost", "terms", "terms", "terms", "terms"],
            vec![int("training_mode", 1)],
            "BatchNormalization (`y`: in training mode",
        ),
        ("Cast", vec!["lost"], vec![int("to", 7)], "Cast (`y`: of a value to ONNX data type 7)"),
        ("Sin", vec!["lost"], vec![], "Sin (`y`: only of constants)"),
        ("Pad", vec!["lost"], vec![word("mode", "wrap")], "Pad (`y`: mode wrap)"),
    ] {
        let model = base().node("y", kind, &inputs, &attributes).node("z", "Relu", &["y"], &[]);
        let message = model.refusal();
        let expected = format!("2 of the model's nodes cannot be read: Einsum (`lost`); {says}");
        assert!(message.starts_with(&expected), "{message}");
    }
    // Sizes of what is unknown are numbers all the same, with which anything may be computed.
    let sizes = base()
        .node("shape", "Shape", &["lost"], &[])
        .node("odd", "Mod", &["shape", "shape"], &[])
        .node("y", "Expand", &["x", "odd"], &[]);
    let message = sizes.refusal();
    assert!(message.starts_with("1 of the model's nodes cannot be read: Einsum (`lost`); "), "{message}");
}

/// Every type is named, with some of its nodes and reasons.
#[test]
fn types_are_listed_and_not_each_node() {
    let mut model = Model::new(17, &[0, 3, 8, 8]);
    let mut last = "x".to_string();
    for at in 0..300 {
        let name = format!("n{at}");
        let (kind, attributes) = match at % 3 {
            0 => ("Einsum".to_string(), vec![]),
            1 => ("Gelu".to_string(), vec![word("approximate", &format!("by{}", at / 3))]),
            _ => (format!("Other{at}"), vec![]),
        };
        model = model.node(&name, &kind, &[&last], &attributes);
        last = name;
    }
    let message = model.refusal();
    let expected = "300 of the model's nodes cannot be read: Einsum (100: `n0`, `n3`, `n6`, `n9`, `n12`, `n15` and 94 more); \
                    Gelu (`n1`: approximate by0; `n4`: approximate by1; `n7`: approximate by2; `n10`: approximate by3; 96 more \
                    for other reasons); Other2 (`n2`); Other5 (`n5`); ";
    assert!(message.starts_with(expected), "{message}");
    assert!((2..300).step_by(3).all(|at| message.contains(&format!("Other{at} (`n{at}`)"))), "{message}");
}

/// What is wrong with the model as a whole says what to do about it.
#[test]
fn models_that_are_no_networks_of_images() {
    let base = || Model::new(17, &[0, 3, 4, 4]).node("y", "Relu", &["x"], &[]).proto();
    let refusal =
        |model: &lana_onnx::proto::ModelProto| import(&model.encode_to_vec()).unwrap_err().to_string();
    let mut twice = base();
    let graph = twice.graph.as_mut().unwrap();
    graph.input.push(graph.input[0].clone());
    graph.input[1].name = Some("mask".into());
    assert_eq!(
        refusal(&twice),
        "the model takes 2 inputs (`x`, `mask`), lana's networks take one image; export a module whose forward takes the image \
         alone"
    );
    let mut twice = base();
    let graph = twice.graph.as_mut().unwrap();
    graph.output.push(graph.input[0].clone());
    assert_eq!(
        refusal(&twice),
        "the model gives 2 outputs (`y`, `x`), lana's networks give one; export a module whose forward returns the logits alone"
    );
    for (kind, says) in [
        (data_type::FLOAT16, "holds 16-bit floats, not 32-bit ones; export the network in 32 bits"),
        (data_type::DOUBLE, "holds 64-bit floats, not 32-bit ones; export the network in 32 bits"),
        (data_type::UINT8, "does not hold 32-bit floats; export the network from where"),
    ] {
        let mut model = base();
        let input = &mut model.graph.as_mut().unwrap().input[0];
        input.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = Some(kind);
        assert!(refusal(&model).contains(says), "{}", refusal(&model));
    }
}

/// Those are read whose rules are known; what a node means may change in the next one.
#[test]
fn operator_sets() {
    let of = |opset: i64| Model::new(opset, &[0, 3, 4, 4]).node("y", "Relu", &["x"], &[]);
    for known in [7, 22, 25, 27] {
        assert_eq!(of(known).read().0, ["activation"]);
    }
    for (unknown, cure) in
        [(6, "onnx.version_converter"), (28, "opset_version=17"), (999, "opset_version=17")]
    {
        let message = of(unknown).refusal();
        assert!(message.contains(&format!("operator set {unknown}")) && message.contains(cure), "{message}");
    }
}

/// What the output does not depend on need not be known.
#[test]
fn what_is_not_read_is_left_out() {
    let model = Model::new(17, &[0, 3, 4, 4])
        .node("lost", "Hardmax", &["x"], &[])
        .node("relu", "Relu", &["x"], &[])
        .node("mask", "Dropout", &["relu"], &[])
        .outputs(&["kept", "mask"]);
    assert_eq!(model.read().0, ["activation"]);
}

#[test]
fn images_by_rows_columns_channels_are_turned_once_and_for_all() {
    let model = Model::new(13, &[0, 6, 5, 3])
        .node("nchw", "Transpose", &["x"], &[ints("perm", &[0, 3, 1, 2])])
        .floats("w", &[4, 3, 1, 1])
        .node("conv", "Conv", &["nchw", "w"], &[]);
    let (graph, _) = model.graph();
    assert_eq!(*graph.input_shape(), Shape::image(3, 6, 5));
    assert_eq!(model.read(), (vec!["conv2d"], vec![4, 6, 5]));
}

/// Keras puts its preprocessing in front of the turning, and leaves means and gates with channels last.
#[test]
fn what_keras_does_with_channels_last_is_done_with_channels_first() {
    let model = Model::new(13, &[0, 6, 5, 3])
        .numbers("scale", &[], &[0.5])
        .numbers("mean", &[3], &[0.1, 0.2, 0.3])
        .integers("pads", &[8], &[0, 0, 0, 0, 0, 1, 2, 0])
        .node("scaled", "Mul", &["x", "scale"], &[])
        .node("centred", "Sub", &["scaled", "mean"], &[])
        .node("padded", "Pad", &["centred", "pads"], &[])
        .node("turned", "Transpose", &["padded"], &[ints("perm", &[0, 3, 1, 2])])
        .floats("w", &[4, 3, 2, 2])
        .node("conv", "Conv", &["turned", "w"], &[])
        .node("last", "Transpose", &["conv"], &[ints("perm", &[0, 2, 3, 1])])
        .node("mean_", "ReduceMean", &["last"], &[ints("axes", &[1, 2]), int("keepdims", 0)])
        .integers("map", &[4], &[-1, 1, 1, 4])
        .node("gate", "Reshape", &["mean_", "map"], &[])
        .node("first", "Transpose", &["gate"], &[ints("perm", &[0, 3, 1, 2])])
        .node("gated", "Mul", &["conv", "first"], &[]);
    let (graph, weights) = model.graph();
    assert_eq!(*graph.input_shape(), Shape::image(3, 6, 5));
    let (kinds, shape) = model.read();
    assert_eq!(kinds, ["scale", "add_parameter", "conv2d", "global_average_pool", "mul"]);
    assert_eq!(shape, [4, 6, 6]);
    assert_eq!(weights.get("centred.weight").unwrap().shape, [3, 1, 1]);
    assert_eq!(weights.get("centred.weight").unwrap().data, [-0.1, -0.2, -0.3]);
    let Op::Conv2d(conv) = &graph.nodes()[2].op else { panic!("{:?}", graph.nodes()) };
    assert_eq!(conv.padding, [0, 0, 1, 2]);
}

/// Keras on PyTorch holds maps with channels last, and turns them in front of each convolution and back behind it.
#[test]
fn what_is_turned_for_each_convolution_is_turned_no_more() {
    let conv = |m: Model, name: &str, x: &str, dims: [i64; 4]| {
        let [kernel, first, inner] = ["kernel", "first", "inner"].map(|part| format!("{name}/{part}"));
        let pad = dims[2] / 2;
        m.floats(&kernel, &dims)
            .node(&first, "Transpose", &[x], &[ints("perm", &[0, 3, 1, 2])])
            .node(&inner, "Conv", &[&first, &kernel], &[ints("pads", &[pad; 4])])
            .node(name, "Transpose", &[&inner], &[ints("perm", &[0, 2, 3, 1])])
    };
    let base = || Model::new(17, &[0, 6, 5, 3]).numbers("shift", &[4], &[0.1, 0.2, 0.3, 0.4]);
    let m = conv(base(), "stem", "x", [4, 3, 3, 3]).node("relu", "Relu", &["stem"], &[]);
    // A residual branch, the sum of which is gated.
    let m = conv(m, "branch", "relu", [4, 4, 3, 3])
        .node("sum", "Add", &["branch", "relu"], &[])
        .node("out", "Relu", &["sum"], &[])
        .node("squeezed", "ReduceMean", &["out"], &[ints("axes", &[1, 2])]);
    let m = conv(m, "gate", "squeezed", [4, 4, 1, 1])
        .node("sigmoid", "Sigmoid", &["gate"], &[])
        .node("gated", "Mul", &["out", "sigmoid"], &[])
        .node("moved", "Add", &["gated", "shift"], &[])
        .node("both", "Concat", &["moved", "relu"], &[int("axis", -1)]);
    let (graph, weights) = conv(m, "last", "both", [5, 8, 1, 1])
        .node("mean", "ReduceMean", &["last"], &[ints("axes", &[1, 2]), int("keepdims", 0)])
        .graph();
    let kinds: Vec<&str> = graph.nodes().iter().map(|n| n.op.kind()).collect();
    assert_eq!(
        kinds,
        [
            "conv2d",
            "activation",
            "conv2d",
            "add",
            "activation",
            "global_average_pool",
            "conv2d",
            "activation",
            "mul",
            "add_parameter",
            "concat",
            "conv2d",
            "global_average_pool",
            "reshape"
        ],
        "{graph:?}"
    );
    let find = |name: &str| &graph.nodes()[graph.nodes().iter().position(|n| n.name == name).unwrap()];
    assert_eq!(find("both").op, Op::Concat { axis: 0 });
    assert_eq!(find("moved").op, Op::AddParameter { shared: vec![1, 2] });
    assert_eq!(weights.get("moved.weight").unwrap().shape, [4, 1, 1]);
    assert_eq!(*graph.output_shape(), Shape::vector(5));

    // What reads channels last gets them so, once for all.
    let m = conv(base(), "stem", "x", [4, 3, 1, 1])
        .node("relu", "Relu", &["stem"], &[])
        .floats("dense", &[4, 4])
        .node("a", "MatMul", &["relu", "dense"], &[]);
    let m = conv(m, "again", "relu", [4, 4, 1, 1]).node("y", "Add", &["again", "a"], &[]);
    let (graph, _) = m.graph();
    let kinds: Vec<&str> = graph.nodes().iter().map(|n| n.op.kind()).collect();
    assert_eq!(
        kinds,
        ["conv2d", "activation", "transpose", "linear", "conv2d", "transpose", "add"],
        "{graph:?}"
    );
    assert_eq!(*graph.output_shape(), Shape::of(&[6, 5, 4]));
}

/// EdgeNeXt mixes the sines of its positions by a convolution, for a batch of the size of the image's.
#[test]
fn a_convolution_of_a_constant_is_a_constant() {
    let model = |kernel: &[i64]| {
        Model::new(17, &[0, 2, 2, 2])
            .numbers("grid", &[1, 3, 2, 2], &(1..13).map(|v| v as f32).collect::<Vec<_>>())
            .numbers("w", kernel, &[1.0, 0.0, 0.0, 0.0, 2.0, -1.0])
            .numbers("b", &[2], &[0.5, 0.0])
            .integers("zero", &[], &[0])
            .integers("first", &[1], &[0])
            .integers("sizes", &[3], &[3, 2, 2])
            .integers("rows", &[2], &[-1, 4])
            .node("shape", "Shape", &["x"], &[])
            .node("n", "Gather", &["shape", "zero"], &[int("axis", 0)])
            .node("n1", "Unsqueeze", &["n", "first"], &[])
            .node("grid_dims", "Concat", &["n1", "sizes"], &[int("axis", 0)])
            .node("grids", "Expand", &["grid", "grid_dims"], &[])
            .node("mixed", "Conv", &["grids", "w", "b"], &[ints("kernel_shape", &kernel[2..])])
            .node("dims", "Concat", &["n1", "rows"], &[int("axis", 0)])
            .node("positions", "Reshape", &["mixed", "dims"], &[])
            .node("tokens", "Reshape", &["x", "dims"], &[])
            .node("y", "Add", &["tokens", "positions"], &[])
    };
    let (graph, weights) = model(&[2, 3, 1, 1]).graph();
    assert_eq!(*graph.output_shape(), Shape::of(&[2, 4]));
    assert_eq!(weights.get("y.weight").unwrap().data, [1.5, 2.5, 3.5, 4.5, 1.0, 2.0, 3.0, 4.0]);
    // Wider kernels are not what anybody mixes constants by.
    assert!(model(&[1, 3, 1, 2]).refusal().contains("Conv (`mixed`: input 0 is a constant)"));
    assert!(model(&[2, 3]).refusal().contains("Conv (`mixed`"));
}

/// NFNets and BiTs standardise their weights in every pass; LeViT looks up biases by distance.
#[test]
fn weights_that_are_computed_are_constants() {
    let model = |at: &[i64]| {
        Model::new(20, &[0, 2, 2, 2])
            .numbers("w", &[1, 2, 4], &[1.0, 3.0, 1.0, 3.0, -1.0, -1.0, 3.0, 3.0])
            .numbers("gain", &[2], &[1.0, 2.0])
            .numbers("none", &[2], &[0.0, 0.5])
            .numbers("mean", &[2], &[2.0, 1.0])
            .numbers("variance", &[2], &[1.0, 4.0])
            .numbers("biases", &[2, 2], &[10.0, 20.0, 30.0, 40.0])
            .integers("at", &[4, at.len() as i64 / 4], at)
            .integers("kernel", &[4], &[4, 2, 1, 1])
            .integers("bias", &[3], &[4, 1, 1])
            .node(
                "standard",
                "BatchNormalization",
                &["w", "gain", "none", "mean", "variance"],
                &[float("epsilon", 0.0)],
            )
            .node("square", "Reshape", &["standard", "kernel"], &[])
            .node("found", "GatherND", &["biases", "at"], &[])
            .node("map", "Conv", &["x", "square"], &[ints("kernel_shape", &[1, 1])])
            .node("term", "Reshape", &["found", "bias"], &[])
            .node("y", "Add", &["map", "term"], &[])
    };
    let (graph, weights) = model(&[0, 1, 1, 0, -1, -1, 0, 0]).graph();
    let kernel = weights.iter().find(|(_, tensor)| tensor.shape == [4, 2, 1, 1]).unwrap().1;
    let standard = [-1.0, 1.0, -1.0, 1.0, -1.5, -1.5, 2.5, 2.5];
    assert_eq!(kernel.data, standard);
    assert!(weights.iter().any(|(_, tensor)| tensor.data == [20.0, 30.0, 40.0, 10.0]), "{graph:?}");
    for wrong in [&[0, 1, 2, 0, 0, 0, 0, 0][..], &[0; 12]] {
        assert!(model(wrong).refusal().contains("GatherND (`found`: "));
    }
}

/// One average over all of a map is what others write as GlobalAveragePool.
#[test]
fn a_window_that_is_the_whole_map() {
    let pool = |kind: &str| {
        let attributes = [ints("kernel_shape", &[6, 5]), ints("strides", &[2, 2])];
        Model::new(13, &[0, 3, 6, 5]).node("pool", kind, &["x"], &attributes).read()
    };
    assert_eq!(pool("AveragePool"), (vec!["global_average_pool"], vec![3, 1, 1]));
    assert_eq!(pool("MaxPool"), (vec!["max_pool"], vec![3, 1, 1]));
}

#[test]
fn activations_by_their_parts() {
    let of = |nodes: fn(Model) -> Model| {
        let model = Model::new(13, &[0, 3, 4, 4])
            .numbers("three", &[], &[3.0])
            .numbers("zero", &[], &[0.0])
            .numbers("six", &[], &[6.0])
            .numbers("sixth", &[1], &[1.0 / 6.0])
            .numbers("half", &[], &[0.5])
            .numbers("one", &[], &[1.0])
            .numbers("root", &[], &[std::f32::consts::FRAC_1_SQRT_2]);
        let (graph, _) = nodes(model).graph();
        graph.nodes().iter().map(|n| n.op.clone()).collect::<Vec<_>>()
    };
    let act = |kind| vec![Op::Activation { kind }];
    let six = |m: Model| {
        m.node("sum", "Add", &["three", "x"], &[]).node("clip", "Clip", &["sum", "zero", "six"], &[])
    };
    let hard = |m: Model| {
        let m = m.node("sum", "Add", &["x", "three"], &[]).node("clip", "Clip", &["sum", "zero", "six"], &[]);
        m.node("gate", "Div", &["clip", "six"], &[])
    };
    assert_eq!(of(hard), act(Activation::HardSigmoid));
    assert_eq!(
        of(|m| {
            let m =
                m.node("sum", "Add", &["x", "three"], &[]).node("clip", "Clip", &["sum", "zero", "six"], &[]);
            m.node("gate", "Mul", &["clip", "sixth"], &[]).node("y", "Mul", &["x", "gate"], &[])
        }),
        act(Activation::HardSwish)
    );
    assert_eq!(
        of(|m| {
            let m =
                m.node("sum", "Add", &["x", "three"], &[]).node("clip", "Clip", &["sum", "zero", "six"], &[]);
            m.node("y", "Mul", &["clip", "x"], &[]).node("z", "Div", &["y", "six"], &[])
        }),
        act(Activation::HardSwish)
    );
    assert_eq!(
        of(|m| {
            let gate = [float("alpha", 1.0 / 6.0), float("beta", 0.5)];
            m.node("gate", "HardSigmoid", &["x"], &gate).node("y", "Mul", &["gate", "x"], &[])
        }),
        act(Activation::HardSwish)
    );
    // ½ x first, as Keras does.
    assert_eq!(
        of(|m| {
            let m = m.node("h", "Mul", &["x", "half"], &[]).node("s", "Mul", &["x", "root"], &[]);
            let m = m.node("erf", "Erf", &["s"], &[]).node("sum", "Add", &["one", "erf"], &[]);
            m.node("y", "Mul", &["h", "sum"], &[])
        }),
        act(Activation::Gelu)
    );
    assert_eq!(of(six).len(), 2);
}

#[test]
fn activations_that_are_several_operations() {
    let of = |kind: &str, attributes: &[lana_onnx::proto::AttributeProto]| {
        Model::new(18, &[0, 3, 4, 4]).node("y", kind, &["x"], attributes).read().0.join(" ")
    };
    for kind in ["Elu", "Celu", "Softplus"] {
        assert_eq!(of(kind, &[]), "activation", "{kind}");
    }
    assert_eq!(of("Elu", &[float("alpha", 0.5)]), "activation scale activation scale add");
    assert_eq!(of("Selu", &[]), "activation scale activation scale add");
    assert_eq!(of("Celu", &[float("alpha", 2.0)]), "scale activation scale");
    assert_eq!(of("Mish", &[]), "activation activation mul");
}

/// What a network of operations on single elements makes of a number.
fn of_number(graph: &lana_graph::Graph, x: f32) -> f32 {
    let mut values = vec![x];
    for node in graph.nodes() {
        let [a, b] = [0, 1].map(|at| node.inputs.get(at).map_or(0.0, |v| values[v.index()]));
        values.push(match node.op {
            Op::Scale { factor } => a * factor,
            Op::Shift { term } => a + term,
            Op::Add => a + b,
            Op::Activation { kind: Activation::Relu } => a.max(0.0),
            Op::Activation { kind: Activation::Relu6 } => a.clamp(0.0, 6.0),
            ref op => panic!("{op:?}"),
        });
    }
    values[graph.output().index()]
}

/// Bounds that are far away leave alone what is not near them, to the last digit.
#[test]
fn wide_bounds() {
    let clip = |low: f32, high: f32| {
        Model::new(17, &[0, 3, 4, 4]).numbers("low", &[], &[low]).numbers("high", &[], &[high]).node(
            "y",
            "Clip",
            &["x", "low", "high"],
            &[],
        )
    };
    for (low, high) in
        [(-65504.0, 65504.0), (f32::MIN, f32::MAX), (-1e9, 1e9), (f32::NEG_INFINITY, f32::INFINITY)]
    {
        assert_eq!(clip(low, high).read().0.len(), 0, "{low} to {high}");
    }
    assert_eq!(clip(0.0, 1e9).read().0, ["activation"]);
    assert_eq!(clip(-65504.0, 6.0).read().0.join(" "), "scale shift activation shift scale");
    for (low, high) in
        [(-64504.0, 64504.0), (-1e4, 0.5), (-1.0, 1e4), (-100.0, 65.0), (100.0, 200.0), (-5.0, 5.0)]
    {
        let (graph, _) = clip(low, high).graph();
        for x in [0.123_456_79, -2.345_678_9, 1e-5, 60.1, -7e4, 7e4, 150.0, low, high] {
            let (found, wanted) = (of_number(&graph, x), x.clamp(low, high));
            let is_far = low.abs().min(high.abs()) > 64.0 && found != low && found != high;
            let most = if is_far { 0.0 } else { wanted.abs().max(10.0) * 2e-6 };
            assert!((found - wanted).abs() <= most, "{x} from {low} to {high}: {found}");
        }
    }
    for kind in ["Max", "Min"] {
        let model =
            Model::new(17, &[0, 3, 4, 4]).numbers("far", &[], &[if kind == "Max" { -1e4 } else { 1e4 }]);
        let (graph, _) = model.node("y", kind, &["x", "far"], &[]).graph();
        assert_eq!(of_number(&graph, 0.123_456_79), 0.123_456_79);
    }
    for (low, high) in [(f32::NAN, 6.0), (0.0, f32::NAN), (3.0, 1.0), (1e9, f32::MAX), (-1e9, -1e9)] {
        let message = clip(low, high).refusal();
        assert!(message.contains("Clip (`y`: bounds "), "{message}");
    }
}

#[test]
fn kernels_with_holes() {
    let model = |attributes: &[lana_onnx::proto::AttributeProto]| {
        let kernel = Model::new(13, &[0, 3, 8, 8]).floats("w", &[4, 3, 3, 1]);
        kernel.node("conv", "Conv", &["x", "w"], &[&[ints("dilations", &[2, 5])], attributes].concat())
    };
    let (graph, _) = model(&[word("auto_pad", "SAME_UPPER")]).graph();
    let Op::Conv2d(conv) = &graph.nodes()[0].op else { panic!("{:?}", graph.nodes()) };
    // One column has no holes.
    assert_eq!((conv.dilation, conv.padding), ([2, 1], [2, 0, 2, 0]));
    assert_eq!(*graph.output_shape(), Shape::image(4, 8, 8));
    assert_eq!(graph.cost().macs, 4 * 8 * 8 * 3 * 3);
    assert_eq!(model(&[]).read().1, [4, 4, 8]);
    let row = Model::new(13, &[1, 3, 8]).floats("w", &[4, 3, 3]);
    let row = row.node("conv", "Conv", &["x", "w"], &[ints("dilations", &[3])]);
    assert!(row.refusal().contains("no batch of images"), "a row is no image");
}

/// Constants for each channel are parameters of as many numbers, and biases where there can be one.
#[test]
fn constants_of_channels() {
    let model = Model::new(13, &[0, 3, 4, 4])
        .floats("conv.weight", &[4, 3, 1, 1])
        .node("conv", "Conv", &["x", "conv.weight"], &[])
        .floats("b", &[1, 4, 1, 1])
        .node("biased", "Add", &["conv", "b"], &[])
        .node("relu", "Relu", &["biased"], &[])
        .floats("scale", &[4, 1, 1])
        .node("scaled", "Mul", &["scale", "relu"], &[])
        .floats("mean", &[4, 1, 1])
        .node("moved", "Sub", &["scaled", "mean"], &[]);
    let (graph, weights) = model.graph();
    let kinds: Vec<&str> = graph.nodes().iter().map(|n| n.op.kind()).collect();
    assert_eq!(kinds, ["conv2d", "activation", "mul_parameter", "add_parameter"]);
    assert_eq!(weights.get("conv.bias").unwrap().shape, [4]);
    assert_eq!(weights.get("scaled.weight").unwrap().shape, [4, 1, 1]);
    assert_eq!(graph.cost().params, 4 * 3 + 4 + 4 + 4);
}

/// BatchNorm by its numbers, as Keras on PyTorch has it, is folded into the convolution: `((w * x) - 1) * f + t`.
#[test]
fn a_factor_and_a_term_for_each_channel() {
    let model = |scale: &str, dims: &[i64]| {
        let model = Model::new(17, &[0, 1, 2, 2])
            .numbers("conv.weight", &[2, 1, 1, 2], &[1.0, 2.0, 3.0, 4.0])
            .numbers("mean", &[2, 1, 1], &[1.0, 1.0])
            .numbers("channels", &[2, 1, 1], &[0.5, -2.0])
            .numbers("pixels", &[2, 2, 1], &[0.5, 0.5, -2.0, -2.5])
            .numbers("beta", dims, &[10.0, 20.0])
            .node("conv", "Conv", &["x", "conv.weight"], &[])
            .node("centred", "Sub", &["conv", "mean"], &[]);
        model.node("scaled", "Mul", &["centred", scale], &[]).node("y", "Add", &["scaled", "beta"], &[])
    };
    let folded = model("channels", &[2, 1, 1]);
    assert_eq!(folded.read(), (vec!["conv2d"], vec![2, 2, 1]));
    let (_, weights) = folded.graph();
    assert_eq!(weights.get("conv.weight").unwrap().data, [0.5, 1.0, -6.0, -8.0]);
    assert_eq!(weights.get("conv.bias").unwrap().data, [9.5, 22.0]);
    // What differs from pixel to pixel is no convolution's.
    for other in [model("pixels", &[2, 1, 1]), model("channels", &[1, 2, 1])] {
        assert_eq!(other.read().0, ["conv2d", "mul_parameter", "add_parameter"]);
    }
    // Nor is a factor alone, as of a layer scale, which is trained as such.
    let scale = Model::new(17, &[0, 1, 2, 2]).floats("w", &[2, 1, 1, 1]).floats("scale", &[2, 1, 1]);
    let scale = scale.node("conv", "Conv", &["x", "w"], &[]).node("y", "Mul", &["conv", "scale"], &[]);
    assert_eq!(scale.read().0, ["conv2d", "mul_parameter"]);
}

/// TensorFlow pads by what is needed, the odd row at the end.
#[test]
fn padding_as_tensorflow_has_it() {
    let pool = |kind: &str, more: &[lana_onnx::proto::AttributeProto]| {
        let base = [ints("kernel_shape", &[3, 3]), ints("strides", &[2, 2])];
        Model::new(13, &[0, 3, 8, 8]).node("pool", kind, &["x"], &[&base[..], more].concat())
    };
    for kind in ["MaxPool", "AveragePool"] {
        for more in [word("auto_pad", "SAME_UPPER"), ints("pads", &[0, 0, 1, 1])] {
            let (kinds, shape) = pool(kind, &[more]).read();
            assert_eq!((kinds.len(), shape), (1, vec![3, 4, 4]));
        }
    }
    let counted = pool("AveragePool", &[ints("pads", &[0, 0, 1, 1]), int("count_include_pad", 1)]);
    assert_eq!(counted.read(), (vec!["pad", "average_pool"], vec![3, 4, 4]));
    let first = pool("MaxPool", &[word("auto_pad", "SAME_LOWER")]);
    assert_eq!(first.read(), (vec!["pad", "max_pool"], vec![3, 4, 4]));
    // A Pad in front of a convolution is the convolution's.
    let conv = Model::new(13, &[0, 3, 8, 8])
        .integers("pads", &[8], &[0, 0, 0, 1, 0, 0, 1, 2])
        .node("padded", "Pad", &["x", "pads"], &[])
        .floats("w", &[2, 3, 3, 3])
        .node("conv", "Conv", &["padded", "w"], &[ints("strides", &[2, 2])]);
    assert_eq!(conv.read(), (vec!["conv2d"], vec![2, 4, 5]));
}

#[test]
fn parts_of_values() {
    let model = |kind: &str, inputs: &[&str], attributes: &[lana_onnx::proto::AttributeProto]| {
        Model::new(13, &[0, 6, 4, 4])
            .integers("starts", &[1], &[-1])
            .integers("ends", &[1], &[i64::MIN])
            .integers("axis", &[1], &[1])
            .integers("back", &[1], &[-2])
            .integers("table", &[2, 2], &[0, -1, 2, 3])
            .node("y", kind, inputs, attributes)
    };
    let (graph, _) = model("Slice", &["x", "starts", "ends", "axis", "back"], &[]).graph();
    assert_eq!(graph.nodes()[0].op, Op::Select { axis: 0, indices: vec![5, 3, 1] });
    let (graph, _) = model("Gather", &["x", "table"], &[int("axis", 1)]).graph();
    assert_eq!(*graph.output_shape(), Shape::of(&[2, 2, 4, 4]));
    assert_eq!(graph.nodes()[0].op, Op::Select { axis: 0, indices: vec![0, 5, 2, 3] });
    let split = model("Split", &["x"], &[int("axis", 1)]).outputs(&["a", "b", "c"]);
    let (graph, _) = split.node("sum", "Sum", &["a", "b", "c"], &[]).graph();
    assert_eq!(graph.nodes()[1].op, Op::Select { axis: 0, indices: vec![2, 3] });
    let mirrored = Model::new(13, &[0, 1, 3, 3]).integers("pads", &[8], &[0, 0, 2, 0, 0, 0, 1, 0]).node(
        "y",
        "Pad",
        &["x", "pads"],
        &[word("mode", "reflect")],
    );
    assert_eq!(mirrored.graph().0.nodes()[0].op, Op::Select { axis: 1, indices: vec![2, 1, 0, 1, 2, 1] });
}

#[test]
fn other_sizes() {
    let resize = |attributes: &[lana_onnx::proto::AttributeProto]| {
        Model::new(13, &[0, 2, 3, 4]).numbers("scales", &[4], &[1.0, 1.0, 2.0, 1.5]).node(
            "y",
            "Resize",
            &["x", "", "scales"],
            attributes,
        )
    };
    let nearest = [word("coordinate_transformation_mode", "asymmetric"), word("nearest_mode", "floor")];
    let (graph, _) = resize(&nearest).graph();
    assert_eq!(graph.nodes()[0].op, Op::Select { axis: 1, indices: vec![0, 0, 1, 1, 2, 2] });
    assert_eq!(graph.nodes()[1].op, Op::Select { axis: 2, indices: vec![0, 0, 1, 2, 2, 3] });
    let (graph, _) = resize(&[word("mode", "linear")]).graph();
    assert_eq!(graph.nodes()[0].op, Op::Resize { size: [6, 6], align_corners: false });
    // Before operator set 11 pixels lay elsewhere where nothing is said.
    let old = |height: f32, attributes: &[lana_onnx::proto::AttributeProto]| {
        let model = Model::new(10, &[0, 2, 3, 4]).numbers("scales", &[4], &[1.0, 1.0, height, 1.5]);
        model.node("y", "Resize", &["x", "scales"], attributes)
    };
    let (graph, _) = old(2.0, &[]).graph();
    assert_eq!(graph.nodes()[0].op, Op::Select { axis: 1, indices: vec![0, 0, 1, 1, 2, 2] });
    assert_eq!(graph.nodes()[1].op, Op::Select { axis: 2, indices: vec![0, 0, 1, 2, 2, 3] });
    assert!(old(0.5, &[]).refusal().contains("to fewer pixels"), "{}", old(0.5, &[]).refusal());
    let linear = old(2.0, &[word("mode", "linear")]).refusal();
    assert!(linear.contains("linear, coordinates by asymmetric"), "{linear}");
    assert!(
        resize(&[word("mode", "cubic")])
            .refusal()
            .contains("Resize (`y`: mode cubic, only nearest and linear)")
    );
}

/// From operator set 18 on, axes of reductions are an input.
#[test]
fn reductions_old_and_new() {
    let old = Model::new(11, &[0, 4, 3, 3]).node(
        "y",
        "ReduceMean",
        &["x"],
        &[ints("axes", &[2, 3]), int("keepdims", 0)],
    );
    let new = Model::new(18, &[0, 4, 3, 3]).integers("axes", &[2], &[-1, -2]).node(
        "y",
        "ReduceMean",
        &["x", "axes"],
        &[int("keepdims", 0)],
    );
    for model in [old, new] {
        assert_eq!(model.read(), (vec!["global_average_pool", "reshape"], vec![4]));
    }
}

/// A MobileNetV2 of Keras by tf2onnx: its blocks are found, stem and head stay.
#[test]
fn layers_of_a_converted_network() {
    let clip = |m: Model, name: &str, x: &str| m.node(name, "Clip", &[x, "zero", "six"], &[]);
    let conv = |m: Model, name: &str, x: &str, dims: [i64; 4], stride: i64, group: i64| {
        let (kernel, bias) = (format!("{name}/kernel"), format!("{name}/bias"));
        let m = m.floats(&kernel, &dims).floats(&bias, &dims[..1]);
        let padding = if stride == 2 { ints("pads", &[0; 4]) } else { word("auto_pad", "SAME_UPPER") };
        let attributes = [ints("strides", &[stride; 2]), padding, int("group", group)];
        m.node(name, "Conv", &[x, &kernel, &bias], &attributes)
    };
    let padded = |m: Model, name: &str, x: &str| m.node(name, "Pad", &[x, "pads"], &[]);
    let mut m = Model::new(13, &[0, 32, 32, 3])
        .numbers("zero", &[], &[0.0])
        .numbers("six", &[], &[6.0])
        .integers("pads", &[8], &[0, 0, 0, 0, 0, 0, 1, 1])
        .node("turned", "Transpose", &["x"], &[ints("perm", &[0, 3, 1, 2])]);
    m = conv(padded(m, "Conv1_pad", "turned"), "Conv1", "Conv1_pad", [8, 3, 3, 3], 2, 1);
    m = clip(m, "Conv1_relu", "Conv1");
    let mut x = "Conv1_relu".to_string();
    for (block, stride) in [(1, 2), (2, 1), (3, 2), (4, 1)] {
        let name = |part: &str| format!("block_{block}_{part}");
        m = conv(m, &name("expand"), &x, [24, 8, 1, 1], 1, 1);
        m = clip(m, &name("expand_relu"), &name("expand"));
        let mut y = name("expand_relu");
        if stride == 2 {
            m = padded(m, &name("pad"), &y);
            y = name("pad");
        }
        m = conv(m, &name("depthwise"), &y, [24, 1, 3, 3], stride, 24);
        m = clip(m, &name("depthwise_relu"), &name("depthwise"));
        m = conv(m, &name("project"), &name("depthwise_relu"), [8, 24, 1, 1], 1, 1);
        let end = if stride == 1 { "add" } else { "project" };
        if stride == 1 {
            m = m.node(&name("add"), "Add", &[&x, &name("project")], &[]);
        }
        x = name(end);
    }
    m = conv(m, "Conv_1", &x, [16, 8, 1, 1], 1, 1);
    m = clip(m, "out_relu", "Conv_1");
    m = m
        .node("last", "Transpose", &["out_relu"], &[ints("perm", &[0, 2, 3, 1])])
        .node("mean", "ReduceMean", &["last"], &[ints("axes", &[1, 2]), int("keepdims", 0)])
        .floats("predictions/kernel", &[16, 5])
        .node("product", "MatMul", &["mean", "predictions/kernel"], &[])
        .floats("predictions/bias", &[5])
        .node("sum", "Add", &["product", "predictions/bias"], &[])
        .node("predictions", "Softmax", &["sum"], &[int("axis", -1)]);
    let (graph, _) = m.graph();
    let found = discover(&graph, &LayerRules::alone()).unwrap();
    let layers: Vec<String> = found
        .layers()
        .iter()
        .map(|layer| {
            let node = |at: usize| graph.nodes()[at].name.as_str();
            format!("{}: {} to {}", layer.name, node(layer.nodes.start), node(layer.nodes.end - 1))
        })
        .collect();
    assert_eq!(
        layers,
        [
            "block_1: block_1_expand to block_1_project",
            "block_2: block_2_expand to block_2_add",
            "block_3: block_3_expand to block_3_project",
            "block_4: block_4_expand to block_4_add",
        ]
    );
    // Padding, bias and the mean are parts of what there is a word for.
    let kinds: Vec<&str> = graph.nodes().iter().map(|n| n.op.kind()).collect();
    assert_eq!(
        kinds[kinds.len() - 5..],
        ["activation", "global_average_pool", "reshape", "linear", "softmax"]
    );
    assert!(!kinds.contains(&"pad") && !kinds.contains(&"transpose"), "{kinds:?}");
}
