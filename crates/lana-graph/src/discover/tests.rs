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
