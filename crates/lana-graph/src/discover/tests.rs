//! Small networks of every kind, and what is found in them.

use super::*;
use crate::{Activation, GraphBuilder, Op, Shape, Tensor, Weights};

type Built = Result<Graph>;

fn names(graph: &Graph, rules: &LayerRules) -> Vec<String> {
    discover(graph, rules).unwrap().layers().iter().map(|layer| layer.name.clone()).collect()
}

/// Convolutions in a chain, with pooling and a classifier of two matrices.
fn vgg() -> Built {
    let mut b = GraphBuilder::new("vgg", Shape::image(3, 16, 16));
    let mut x = b.input();
    for (at, channels) in [(0, 8), (3, 8), (6, 16), (9, 16)] {
        x = b.conv(&format!("features.{at}"), x, channels, 3, 1, 1)?;
        x = b.batch_norm(&format!("features.{}", at + 1), x)?;
        x = b.activation(&format!("features.{}", at + 2), x, Activation::Relu)?;
        if at == 3 {
            x = b.node("pool", Op::MaxPool { window: crate::Window::square(2, 2, 0) }, &[x])?;
        }
    }
    x = b.node("flatten", Op::Flatten, &[x])?;
    x = b.node("classifier", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

#[test]
fn convolutions_in_a_chain_are_layers_but_the_first() {
    let graph = vgg().unwrap();
    let found = discover(&graph, &LayerRules::alone()).unwrap();
    assert_eq!(names(&graph, &LayerRules::alone()), ["features.3", "features.6", "features.9"]);
    assert!(found.layers().iter().all(|layer| layer.nodes.len() == 3));
    // All stand in one list, which tells nothing of stages.
    let stages: Vec<&str> = found.layers().iter().map(|layer| layer.stage.as_str()).collect();
    assert_eq!(stages, ["stage1", "stage2", "stage2"]);
    // The layers take part in everything else: any of them can be cut out.
    assert_eq!(found.layer_graph("features.6").unwrap().nodes().len(), 3);
}

/// Two stages of a ConvNeXt with one block each, and a convolution that reduces the map between them.
fn convnext() -> Built {
    let norm = |b: &mut GraphBuilder, name: &str, x| {
        let x = b.node(&format!("{name}.Transpose"), Op::Transpose { order: vec![1, 2, 0] }, &[x])?;
        let x = b.node(name, Op::LayerNorm { eps: 1e-6 }, &[x])?;
        b.node(&format!("{name}.Transpose_1"), Op::Transpose { order: vec![2, 0, 1] }, &[x])
    };
    let mut b = GraphBuilder::new("convnext", Shape::image(3, 32, 32));
    let x = b.input();
    let x = b.conv("features.0.0", x, 8, 4, 4, 1)?;
    let mut x = norm(&mut b, "features.0.1", x)?;
    for (stage, channels) in [(1, 8), (3, 16)] {
        let name = |part: &str| format!("features.{stage}.0.{part}");
        let y = b.conv(&name("dw"), x, channels, 7, 1, channels)?;
        let y = norm(&mut b, &name("norm"), y)?;
        let y = b.conv(&name("expand"), y, 4 * channels, 1, 1, 1)?;
        let y = b.activation(&name("act"), y, Activation::Gelu)?;
        let y = b.conv(&name("project"), y, channels, 1, 1, 1)?;
        x = b.add(&name("add"), y, x)?;
        if stage == 1 {
            x = norm(&mut b, "features.2.0", x)?;
            x = b.conv("features.2.1", x, 16, 2, 2, 1)?;
        }
    }
    let x = b.node("pool", Op::GlobalAveragePool, &[x])?;
    let x = norm(&mut b, "norm", x)?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("head", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

#[test]
fn layer_normalisation_belongs_to_the_convolution_behind_it() {
    let graph = convnext().unwrap();
    let found = discover(&graph, &LayerRules::alone()).unwrap();
    let nodes = |at: usize| {
        let nodes = &graph.nodes()[found.layers()[at].nodes.clone()];
        nodes.iter().map(|node| node.op.kind()).collect::<Vec<_>>()
    };
    assert_eq!(names(&graph, &LayerRules::alone()), ["features.1.0", "features.2", "features.3.0"]);
    assert_eq!(nodes(1), ["transpose", "layer_norm", "transpose", "conv2d"]);
    // They are one unit: there is nothing to split.
    let split = LayerRules { split: vec!["features.2".into()], ..LayerRules::alone() };
    assert!(discover(&graph, &split).unwrap_err().to_string().contains("has parts"));
    // What normalises in front of a block is the block's or stays outside, as behind the stem.
    assert_eq!(found.layers()[0].nodes.start, 4);
}

#[test]
fn layers_whose_nodes_are_called_otherwise_are_cut_out_and_put_back_with_their_weights() {
    let graph = vgg().unwrap();
    let rules = LayerRules { group: 2, ..LayerRules::alone() };
    for rules in [LayerRules::alone(), rules] {
        let found = discover(&graph, &rules).unwrap();
        let weights: Weights = found
            .parameters()
            .into_iter()
            .enumerate()
            .map(|(at, p)| (p.name, Tensor::full(&p.shape, at as f32 + 1.0)))
            .collect();
        for layer in found.layers() {
            let own = found.layer_graph(&layer.name).unwrap();
            let own_weights = found.layer_weights(&layer.name, &weights).unwrap();
            own_weights.check(&own).unwrap();
            let student = found.replace(&layer.name, &own).unwrap();
            let mut student_weights = weights.clone();
            found.replace_weights(&layer.name, &mut student_weights, &own_weights).unwrap();
            student_weights.check(&student).unwrap();
            let values = |graph: &Graph, weights: &Weights| -> Vec<f32> {
                graph.parameters().iter().map(|p| weights.get(&p.name).unwrap().data[0]).collect()
            };
            assert_eq!(values(&student, &student_weights), values(&found, &weights));
        }
        assert!(found.layer_weights("nowhere", &weights).is_err());
    }
}

#[test]
fn rules_change_what_is_found() {
    let graph = vgg().unwrap();
    let rules = |change: fn(&mut LayerRules)| {
        let mut rules = LayerRules::alone();
        change(&mut rules);
        rules
    };
    let include = rules(|r| r.include = vec!["features.0".into()]);
    assert_eq!(names(&graph, &include).len(), 4);
    let exclude = rules(|r| r.exclude = vec!["*.6".into()]);
    assert_eq!(names(&graph, &exclude), ["features.3", "features.9"]);
    // With the pooling between the first and the second.
    let merge = rules(|r| r.merge = vec!["features.*".into()]);
    let merged = discover(&graph, &merge).unwrap();
    assert_eq!(merged.layers().len(), 1);
    assert_eq!(merged.layers()[0].nodes, 3..13);
    assert_eq!(merged.layers()[0].name, "features.3-9");
    let group = rules(|r| r.group = 2);
    // Of the first stage there is one alone, the pooling stands behind it.
    assert_eq!(names(&graph, &group), ["features.3", "features.6-9"]);
    let plain = discover(&graph, &LayerRules::alone()).unwrap();
    assert_eq!(super::group(&plain, 2).unwrap().layers(), discover(&graph, &group).unwrap().layers());
    assert_eq!(super::group(&plain, 1).unwrap().layers(), plain.layers());
    for wrong in [
        rules(|r| r.include = vec!["stem".into()]),
        rules(|r| r.exclude = vec!["stem".into()]),
        rules(|r| r.split = vec!["stem".into()]),
        rules(|r| r.merge = vec!["stem".into()]),
    ] {
        let error = discover(&graph, &wrong).unwrap_err().to_string();
        assert!(error.contains("`stem`") && error.contains("features.0"), "{error}");
    }
    // What fits but changes nothing is said too.
    for (wrong, said) in [
        (rules(|r| r.split = vec!["features.3".into()]), "has parts"),
        (rules(|r| r.merge = vec!["features.3".into()]), "follow each other"),
        (rules(|r| r.exclude = vec!["*".into()]), "leaves no layer"),
    ] {
        let error = discover(&graph, &wrong).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// Writes something that takes a value and gives one of the same shape, by a name.
type Part = fn(&mut GraphBuilder, &str, Value) -> Result<Value>;

fn act(kind: Activation) -> Op {
    Op::Activation { kind }
}

/// Nodes one behind the other, called by what they follow: `Clip_3.0`, `Clip_3.1` …
fn chain(b: &mut GraphBuilder, name: &str, mut x: Value, ops: &[Op]) -> Result<Value> {
    for (at, op) in ops.iter().enumerate() {
        x = b.node(&format!("{name}.{at}"), op.clone(), &[x])?;
    }
    Ok(x)
}

/// As ONNX files are read that have what there is no operation for.
const ACTIVATIONS: [(&str, Part); 6] = [
    ("LeakyRelu", |b, name, x| {
        let above = b.node(&format!("{name}.above"), act(Activation::Relu), &[x])?;
        let ops = [Op::Scale { factor: -1.0 }, act(Activation::Relu), Op::Scale { factor: -0.1 }];
        let below = chain(b, name, x, &ops)?;
        b.add(name, above, below)
    }),
    ("PRelu", |b, name, x| {
        let above = b.node(&format!("{name}.above"), act(Activation::Relu), &[x])?;
        let slopes = Op::MulParameter { shared: vec![1, 2] };
        let below = chain(b, name, x, &[Op::Scale { factor: -1.0 }, act(Activation::Relu), slopes])?;
        b.add(name, above, below)
    }),
    ("Mish", |b, name, x| {
        let gate = chain(b, name, x, &[act(Activation::Softplus), act(Activation::Tanh)])?;
        b.node(name, Op::Mul, &[x, gate])
    }),
    ("Selu", |b, name, x| {
        let curve = chain(b, &format!("{name}.c"), x, &[act(Activation::Elu), Op::Scale { factor: 1.7 }])?;
        let above = chain(b, &format!("{name}.a"), x, &[act(Activation::Relu), Op::Scale { factor: -0.7 }])?;
        b.add(name, curve, above)
    }),
    ("Gelu", |b, name, x| {
        let cube = [Op::Power { exponent: 2.0 }, Op::Scale { factor: 0.04 }, Op::Shift { term: 1.0 }];
        let cube = chain(b, &format!("{name}.x"), x, &cube)?;
        let cube = b.node(&format!("{name}.cube"), Op::Mul, &[x, cube])?;
        let gate = chain(b, name, cube, &[Op::Scale { factor: 1.6 }, act(Activation::Sigmoid)])?;
        b.node(name, Op::Mul, &[x, gate])
    }),
    ("Clip", |b, name, x| {
        let to = [Op::Shift { term: 1.0 }, Op::Scale { factor: 3.0 }];
        let back = [Op::Scale { factor: 1.0 / 3.0 }, Op::Shift { term: -1.0 }];
        chain(b, name, x, &[&to[..], &[act(Activation::Relu6)], &back].concat())
    }),
];

/// Rows of a matrix, or channels of a map, brought to mean 0 and deviation 1.
fn standardised(b: &mut GraphBuilder, name: &str, x: Value, mean: &Op) -> Result<Value> {
    let minus = chain(b, &format!("{name}.mean"), x, &[mean.clone(), Op::Scale { factor: -1.0 }])?;
    let centred = b.add(&format!("{name}.centred"), x, minus)?;
    let ops =
        [Op::Power { exponent: 2.0 }, mean.clone(), Op::Shift { term: 1e-5 }, Op::Power { exponent: -0.5 }];
    let inverse = chain(b, &format!("{name}.deviation"), centred, &ops)?;
    b.node(&format!("{name}.standard"), Op::Mul, &[centred, inverse])
}

fn affine(b: &mut GraphBuilder, name: &str, x: Value, shared: Vec<usize>) -> Result<Value> {
    let x = b.node(&format!("{name}.scale"), Op::MulParameter { shared: shared.clone() }, &[x])?;
    b.node(name, Op::AddParameter { shared }, &[x])
}

const NORMALISATIONS: [(&str, Part); 4] = [
    ("BatchNormalization", |b, name, x| b.batch_norm(name, x)),
    // As PyTorch's exporters write it.
    ("GroupNorm", |b, name, x| {
        let map = b.shape(x).dims().to_vec();
        let groups = vec![2, map.iter().product::<usize>() / 2];
        let y = b.node(&format!("{name}.groups"), Op::Reshape { shape: groups }, &[x])?;
        let y = standardised(b, name, y, &Op::Mean { axes: vec![1] })?;
        let y = affine(b, &format!("{name}.ones"), y, vec![1])?;
        let y = b.node(&format!("{name}.back"), Op::Reshape { shape: map }, &[y])?;
        affine(b, name, y, vec![1, 2])
    }),
    // As the operators of ONNX are read.
    ("GroupNormalization", |b, name, x| {
        let map = b.shape(x).dims().to_vec();
        let elements: usize = map.iter().product();
        let rows = |rows: usize| Op::Reshape { shape: vec![rows, elements / rows] };
        let y = b.node(&format!("{name}.groups"), rows(2), &[x])?;
        let y = standardised(b, name, y, &Op::Mean { axes: vec![1] })?;
        let y = b.node(&format!("{name}.channels"), rows(map[0]), &[y])?;
        let y = affine(b, &format!("{name}.own"), y, vec![1])?;
        b.node(name, Op::Reshape { shape: map }, &[y])
    }),
    ("InstanceNorm", |b, name, x| {
        let y = standardised(b, name, x, &Op::GlobalAveragePool)?;
        affine(b, name, y, vec![1, 2])
    }),
];

/// A ResNet of three blocks whose normalisation and activations have names that tell nothing.
fn resnet(norm: Part, activation: Part) -> Built {
    let mut b = GraphBuilder::new("resnet", Shape::image(3, 16, 16));
    let mut number = 0;
    let mut follow = |b: &mut GraphBuilder, part: Part, x| {
        number += 1;
        part(b, &format!("Node_{number}"), x)
    };
    let x = b.input();
    let x = b.conv("conv1", x, 8, 3, 2, 1)?;
    let x = follow(&mut b, norm, x)?;
    let x = follow(&mut b, activation, x)?;
    let mut x = b.node("pool", Op::MaxPool { window: crate::Window::square(2, 2, 0) }, &[x])?;
    for block in 0..3 {
        let y = b.conv(&format!("layer1.{block}.conv1"), x, 8, 3, 1, 1)?;
        let y = follow(&mut b, norm, y)?;
        let y = follow(&mut b, activation, y)?;
        let y = b.conv(&format!("layer1.{block}.conv2"), y, 8, 3, 1, 1)?;
        let y = follow(&mut b, norm, y)?;
        let y = b.add(&format!("Add_{block}"), y, x)?;
        x = follow(&mut b, activation, y)?;
    }
    head(b, x)
}

/// The same convolutions in a chain.
fn plain(norm: Part, activation: Part) -> Built {
    let mut b = GraphBuilder::new("plain", Shape::image(3, 16, 16));
    let mut x = b.input();
    for at in 0..4 {
        x = b.conv(&format!("features.{at}"), x, 8, 3, 1, 1)?;
        x = norm(&mut b, &format!("Norm_{at}"), x)?;
        x = activation(&mut b, &format!("Act_{at}"), x)?;
    }
    head(b, x)
}

fn head(mut b: GraphBuilder, x: Value) -> Built {
    let x = b.node("pool_at_the_end", Op::GlobalAveragePool, &[x])?;
    let x = b.node("flatten", Op::Flatten, &[x])?;
    let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x])?;
    b.finish(x)
}

/// The layers are these, are one stage, stand next to each other, and the last reaches to the pooling.
fn are_in_a_row(graph: &Graph, expected: &[&str], case: &str) {
    let found = discover(graph, &LayerRules::alone()).unwrap();
    let layers = found.layers();
    assert_eq!(layers.iter().map(|l| l.name.as_str()).collect::<Vec<_>>(), expected, "{case}");
    assert!(layers.windows(2).all(|pair| pair[0].output == pair[1].input), "{case}");
    assert!(layers.iter().all(|layer| layer.stage == layers[0].stage), "{case}");
    let end = graph.nodes().iter().position(|node| node.name == "pool_at_the_end").unwrap();
    assert_eq!(layers.last().unwrap().nodes.end, end, "{case}");
    assert_eq!(super::group(&found, 3).unwrap().layers().len(), 1, "{case}");
}

#[test]
fn what_follows_a_block_is_its_own_in_however_many_nodes() {
    let relu: Part = |b, name, x| b.activation(name, x, Activation::Relu);
    for (norm_name, norm) in NORMALISATIONS {
        for (name, activation) in ACTIVATIONS.into_iter().chain([("Relu", relu)]) {
            let case = format!("{norm_name}, {name}");
            are_in_a_row(&resnet(norm, activation).unwrap(), &["layer1.0", "layer1.1", "layer1.2"], &case);
            are_in_a_row(
                &plain(norm, activation).unwrap(),
                &["features.1", "features.2", "features.3"],
                &case,
            );
        }
    }
    // Nor does it matter if nothing normalises.
    for (name, activation) in ACTIVATIONS {
        let resnet = resnet(|_, _, x| Ok(x), activation).unwrap();
        are_in_a_row(&resnet, &["layer1.0", "layer1.1", "layer1.2"], name);
    }
}

#[test]
fn an_activation_of_several_nodes_ends_a_fused_block_as_one_node_does() {
    // A convolution and a narrow one behind it are an inverted residual only if the second has no activation.
    for (activated, expected) in [(false, 1), (true, 2)] {
        let (_, leaky) = ACTIVATIONS[0];
        let (_, norm) = NORMALISATIONS[2];
        let mut b = GraphBuilder::new("fused", Shape::image(3, 8, 8));
        let x = b.input();
        let x = b.conv("stem", x, 8, 3, 1, 1).unwrap();
        let x = b.conv("expand", x, 32, 3, 1, 1).unwrap();
        let x = norm(&mut b, "norm1", x).unwrap();
        let x = leaky(&mut b, "act1", x).unwrap();
        let x = b.conv("project", x, 8, 1, 1, 1).unwrap();
        let mut x = norm(&mut b, "norm2", x).unwrap();
        if activated {
            x = leaky(&mut b, "act2", x).unwrap();
        }
        // Else it stood alone in front of the head.
        x = b.conv("last", x, 8, 3, 1, 1).unwrap();
        let graph = head(b, x).unwrap();
        assert_eq!(names(&graph, &LayerRules::alone()).len(), expected + 1);
    }
}

#[test]
fn what_has_nothing_to_replace_is_no_layer() {
    let mut b = GraphBuilder::new("pools", Shape::image(3, 16, 16));
    let window = || crate::Window::square(3, 1, 1);
    let x = b.input();
    let x = b.conv("stem", x, 8, 3, 1, 1).unwrap();
    let x = b.conv("one", x, 8, 3, 1, 1).unwrap();
    let most = b.node("most", Op::MaxPool { window: window() }, &[x]).unwrap();
    let x = b.add("sum", x, most).unwrap();
    let x = b.conv("two", x, 8, 3, 1, 1).unwrap();
    // The mean and the largest side by side, as the head of some networks.
    let mean = b.node("mean", Op::GlobalAveragePool, &[x]).unwrap();
    let most = Op::MaxPool { window: crate::Window::square(16, 1, 0) };
    let most = b.node("largest", most, &[x]).unwrap();
    let x = b.node("both", Op::Concat { axis: 0 }, &[mean, most]).unwrap();
    let x = b.node("flatten", Op::Flatten, &[x]).unwrap();
    let x = b.node("fc", Op::Linear { out_features: 10, bias: true }, &[x]).unwrap();
    let graph = b.finish(x).unwrap();
    assert_eq!(names(&graph, &LayerRules::default()), ["one", "two"]);
}

/// Residual blocks whose normalisation and activation both the convolutions and the shortcut see, as in a WideResNet; `name` gives
/// the nodes theirs by block and part.
fn shared_norms(norm: Part, name: fn(usize, &str) -> String) -> Built {
    let relu = Activation::Relu;
    let mut b = GraphBuilder::new("wide", Shape::image(3, 16, 16));
    let x = b.input();
    let mut x = b.conv("stem", x, 8, 3, 1, 1)?;
    for block in 0..4 {
        let name = |part: &str| name(block, part);
        let (channels, stride) = if block < 2 { (8, 1) } else { (16, if block == 2 { 2 } else { 1 }) };
        let y = norm(&mut b, &name("bn1"), x)?;
        let seen = b.activation(&format!("Relu_{block}"), y, relu)?;
        let shortcut = b.conv(&name("sc"), seen, channels, 1, stride, 1)?;
        let y = b.conv(&name("conv1"), seen, channels, 3, stride, 1)?;
        let y = norm(&mut b, &name("bn2"), y)?;
        let y = b.activation(&format!("Relu_in_{block}"), y, relu)?;
        let y = b.conv(&name("conv2"), y, channels, 3, 1, 1)?;
        x = b.add(&format!("Add_{block}"), shortcut, y)?;
    }
    let x = norm(&mut b, "norm", x)?;
    let x = b.activation("last_relu", x, relu)?;
    head(b, x)
}

#[test]
fn a_normalisation_that_a_shortcut_sees_too_belongs_to_the_block_behind_it() {
    for (case, norm) in NORMALISATIONS {
        let graph = shared_norms(norm, |block, part| format!("b.{block}.{part}")).unwrap();
        let found = discover(&graph, &LayerRules::alone()).unwrap();
        assert_eq!(names(&graph, &LayerRules::alone()), ["b.0", "b.1", "b.2", "b.3"], "{case}");
        assert_eq!(found.layers()[0].nodes.start, 1, "{case}");
        assert_eq!(names(&graph, &LayerRules::default()), ["b.0-1", "b.2-3"], "{case}");
        // The last one is the head's.
        let last = &graph.nodes()[found.layers()[3].nodes.end - 1];
        assert_eq!(last.name, "Add_3", "{case}");
    }
    // Where names tell nothing, the first is the stem's, as in other networks.
    let graph = shared_norms(NORMALISATIONS[0].1, |block, part| format!("{part}_{block}")).unwrap();
    let found = discover(&graph, &LayerRules::alone()).unwrap();
    let begin: Vec<&str> =
        found.layers().iter().map(|layer| graph.nodes()[layer.nodes.start].name.as_str()).collect();
    assert_eq!(begin, ["sc_0", "bn1_1", "bn1_2", "bn1_3"]);
    assert_eq!(super::group(&found, 3).unwrap().layers().len(), 2);
}

#[test]
fn a_normalisation_behind_a_sum_is_the_blocks_if_it_is_called_so() {
    let mut b = GraphBuilder::new("net", Shape::image(3, 16, 16));
    let x = b.input();
    let mut x = b.conv("stem", x, 8, 3, 1, 1).unwrap();
    for block in 0..3 {
        let name = |part: &str| format!("b.{block}.{part}");
        let y = b.conv(&name("conv"), x, 8, 3, 1, 1).unwrap();
        let y = b.add(&name("add"), y, x).unwrap();
        let y = b.batch_norm(&name("bn"), y).unwrap();
        x = b.activation(&name("act"), y, Activation::Relu).unwrap();
    }
    are_in_a_row(&head(b, x).unwrap(), &["b.0", "b.1", "b.2"], "");
}

/// Inverted residuals in one list, the second and the fifth of stride 2, between a stem and a convolution of the head.
fn mobile() -> Built {
    let mut b = GraphBuilder::new("mobile", Shape::image(3, 32, 32));
    let relu = |b: &mut GraphBuilder, name: &str, x| b.activation(name, x, Activation::Relu6);
    let x = b.input();
    let mut x = b.conv("stem", x, 8, 3, 1, 1)?;
    for block in 0..6 {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let stride = if [1, 4].contains(&block) { 2 } else { 1 };
        let y = b.conv(&name("exp"), x, 24, 1, 1, 1)?;
        let y = relu(&mut b, &name("act1"), y)?;
        let y = b.conv(&name("dw"), y, 24, 3, stride, 24)?;
        let y = relu(&mut b, &name("act2"), y)?;
        x = b.conv(&name("proj"), y, 8, 1, 1, 1)?;
    }
    let x = b.conv("headconv", x, 32, 1, 1, 1)?;
    let x = relu(&mut b, "act", x)?;
    head(b, x)
}

/// Name and stage of each layer.
fn staged(graph: &Graph, rules: &LayerRules) -> Vec<[String; 2]> {
    let found = discover(graph, rules).unwrap();
    found.layers().iter().map(|layer| [layer.name.clone(), layer.stage.clone()]).collect()
}

#[test]
fn a_rule_for_one_block_leaves_the_others_as_they_are() {
    let graph = mobile().unwrap();
    let plain = staged(&graph, &LayerRules::default());
    assert_eq!(plain, [["blocks.0", "stage1"], ["blocks.1-3", "stage2"], ["blocks.4-5", "stage3"]]);
    let rules = |change: fn(&mut LayerRules)| {
        let mut rules = LayerRules::default();
        change(&mut rules);
        staged(&graph, &rules)
    };
    let include = rules(|r| r.include = vec!["headconv".into()]);
    assert_eq!(include[..3], plain);
    assert_eq!(include[3..], [["headconv", "head"]]);
    let include = rules(|r| r.include = vec!["stem".into()]);
    assert_eq!(include[0], ["stem", "stem"]);
    assert_eq!(include[1..], plain);
    // What was divided is not put together again, neither with its own nor with others.
    let split = rules(|r| r.split = vec!["blocks.1".into()]);
    assert_eq!(
        split,
        [
            ["blocks.0", "stage1"],
            ["blocks.1.exp", "stage2"],
            ["blocks.1.dw", "stage2"],
            ["blocks.1.proj", "stage2"],
            ["blocks.2-3", "stage2"],
            ["blocks.4-5", "stage3"],
        ]
    );
    assert_eq!(rules(|r| r.split = vec!["blocks.*".into()]).len(), 18);
    let merge = rules(|r| r.merge = vec!["blocks.?".into()]);
    assert_eq!(merge, [["blocks", "stage1"]]);
    let exclude = rules(|r| r.exclude = vec!["blocks.2".into()]);
    assert_eq!(
        exclude,
        [["blocks.0", "stage1"], ["blocks.1", "stage2"], ["blocks.3", "stage2"], ["blocks.4-5", "stage3"]]
    );
    // Groups have names, too, which are not those of blocks.
    let group = LayerRules { exclude: vec!["blocks.4-5".into()], ..LayerRules::default() };
    let error = discover(&graph, &group).unwrap_err().to_string();
    assert!(error.contains("before they are grouped: blocks.4, blocks.0"), "{error}");
}

#[test]
fn groups_give_maps_of_one_resolution() {
    let graph = discover(&mobile().unwrap(), &LayerRules::alone()).unwrap();
    // As if they were all of one stage.
    let layers = graph.layers().iter().map(|layer| Layer { stage: "blocks".into(), ..layer.clone() });
    let nodes = graph.nodes().to_vec();
    let graph =
        Graph::new("net", graph.input_shape().clone(), nodes, graph.output(), layers.collect()).unwrap();
    let grouped = super::group(&graph, 3).unwrap();
    let names: Vec<&str> = grouped.layers().iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["blocks.0", "blocks.1-3", "blocks.4-5"]);
}
