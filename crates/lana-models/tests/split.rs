//! Edits of split attention, run by the reference interpreter: what they start from is near the layer.
#![allow(clippy::unwrap_used)]

#[path = "../../lana-graph/tests/common/mod.rs"]
mod common;

use common::{Numbers, run};
use lana_graph::{Activation, Graph, GraphBuilder, Op, Shape, Tensor, Value, Weights};
use lana_models::blocks::{AverageDown, Ending, ResNestBlock, Shortcut};
use lana_models::init;
use lana_models::pool::Operation;

fn layer(radix: usize, stride: usize) -> Graph {
    let mut b = GraphBuilder::new("layer", Shape::image(16, 6, 6));
    let shortcut = if stride == 1 { Shortcut::Identity } else { Shortcut::None };
    let block = ResNestBlock {
        out: 16,
        hidden: 32,
        radix,
        cardinality: 1,
        stride,
        average_down: AverageDown::First,
        activation: Activation::Relu,
        ending: Ending { shortcut, activation: Some(Activation::Relu) },
    };
    let output = block.build(&mut b, Value::INPUT).unwrap();
    b.finish(output).unwrap()
}

fn samples(graph: &Graph) -> Vec<Vec<f64>> {
    let mut numbers = Numbers(3);
    let one = |_| (0..graph.input_shape().elements()).map(|_| f64::from(numbers.draw()) * 1.7).collect();
    (0..6).map(one).collect()
}

/// The weights with the statistics that BatchNorms have on the samples, as after training.
fn settled(graph: &Graph, mut weights: Weights, samples: &[Vec<f64>]) -> Weights {
    for (index, node) in graph.nodes().iter().enumerate() {
        let Op::BatchNorm { .. } = node.op else { continue };
        let before = graph.nodes()[..index].to_vec();
        let (name, shape) = (graph.name(), graph.input_shape().clone());
        let before = Graph::new(name, shape, before, node.inputs[0], Vec::new()).unwrap();
        let channels = before.output_shape().channels();
        let outputs: Vec<Vec<f64>> = samples.iter().map(|x| run(&before, &weights, x)).collect();
        let area = outputs[0].len() / channels;
        let (mut means, mut variances) = (Vec::new(), Vec::new());
        for c in 0..channels {
            let values = || outputs.iter().flat_map(|y| &y[c * area..][..area]);
            let count = values().count() as f64;
            let mean = values().sum::<f64>() / count;
            means.push(mean as f32);
            variances.push((values().map(|x| (x - mean).powi(2)).sum::<f64>() / count) as f32);
        }
        for (suffix, data) in [("running_mean", means), ("running_var", variances)] {
            weights.insert(format!("{}.{suffix}", node.name), Tensor { shape: vec![channels], data });
        }
    }
    weights
}

/// Weights as of a trained layer: scales and shifts differ from channel to channel.
fn learnt(graph: &Graph, samples: &[Vec<f64>]) -> Weights {
    let mut weights = init::random(graph, 5);
    let mut numbers = Numbers(11);
    let norms: Vec<String> = graph
        .nodes()
        .iter()
        .filter(|n| matches!(n.op, Op::BatchNorm { .. }))
        .map(|n| n.name.clone())
        .collect();
    for norm in norms {
        for (suffix, middle, spread) in [("weight", 0.8, 0.6), ("bias", 0.0, 0.5)] {
            let name = format!("{norm}.{suffix}");
            let mut tensor = weights.get(&name).unwrap().clone();
            tensor.data.iter_mut().for_each(|x| *x = middle + spread * numbers.draw());
            weights.insert(name, tensor);
        }
    }
    settled(graph, weights, samples)
}

/// Error of an operation that starts from the teacher, as it is and with its BatchNorms' statistics on the samples (as in
/// training), and of the same one that starts at random; relative to the power of what the layer gives beyond its mean.
fn errors(name: &str, own: &Graph, weights: &Weights, samples: &[Vec<f64>]) -> [f64; 3] {
    let operation: Operation = name.parse().unwrap();
    let graph = operation.build(own).unwrap();
    let start = operation.initialise(own, weights, &graph, 1).unwrap();
    let random = settled(&graph, init::random(&graph, 2), samples);
    let training = settled(&graph, start.clone(), samples);
    [start, training, random].map(|w| {
        let (mut off, mut power) = (0.0, 0.0);
        for x in samples {
            let (theirs, ours) = (run(own, weights, x), run(&graph, &w, x));
            let mean = theirs.iter().sum::<f64>() / theirs.len() as f64;
            off += theirs.iter().zip(&ours).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            power += theirs.iter().map(|a| (a - mean).powi(2)).sum::<f64>();
        }
        off / power
    })
}

#[test]
fn split_attention_is_narrowed_and_merged_from_the_teachers_weights() {
    for (radix, stride) in [(2, 1), (2, 2), (4, 1)] {
        let own = layer(radix, stride);
        let samples = samples(&own);
        let weights = learnt(&own, &samples);
        let of = |name: &str| errors(name, &own, &weights, &samples);
        assert!(of("narrow-w1")[0] < 1e-12);
        let mut before = 0.0;
        for name in ["narrow-w0.75", "narrow-w0.5", "narrow-w0.25"] {
            let [_, started, random] = of(name);
            println!("radix {radix}, stride {stride}: {name} {started:.3}, random {random:.3}");
            assert!(started > before && started < 0.7 * random, "{name}: {started}, random {random}");
            before = started;
        }
        let fewer: &[&str] = if radix == 4 { &["radix-r2", "radix-r1"] } else { &["radix-r1"] };
        for name in fewer {
            let [as_it_is, started, random] = of(name);
            println!(
                "radix {radix}, stride {stride}: {name} {as_it_is:.3}, {started:.3}, random {random:.3}"
            );
            for started in [as_it_is, started] {
                assert!(started > 1e-3 && started < 0.4 * random, "{name}: {started}, random {random}");
            }
        }
    }
}

#[test]
fn one_version_that_counts_stays_as_it_is() {
    // The others give nothing whatever they see: merged with it they leave it alone but for its gate.
    let own = layer(2, 1);
    let samples = samples(&own);
    let mut weights = learnt(&own, &samples);
    for (suffix, value) in [("weight", 0.0), ("bias", -1.0)] {
        let name = format!("conv2.bn0.{suffix}");
        let mut tensor = weights.get(&name).unwrap().clone();
        tensor.data[32..].fill(value);
        weights.insert(name, tensor);
    }
    // Gates that look at nothing.
    let logits = weights.get("conv2.fc2.weight").unwrap();
    let deaf = Tensor::full(&logits.shape, 0.0);
    weights.insert("conv2.fc2.weight", deaf);
    let weights = settled(&own, weights, &samples);
    let [started, ..] = errors("radix-r1", &own, &weights, &samples);
    assert!(started < 1e-6, "{started}");
}

#[test]
fn fewer_splits_are_fewer_versions() {
    let own = layer(4, 1);
    let built = |name: &str| name.parse::<Operation>().unwrap().build(&own);
    let has = |graph: &Graph, op: &Op| graph.nodes().iter().any(|n| n.op == *op);
    for (name, versions) in [("radix-r2", 2), ("radix-r1", 1)] {
        let graph = built(name).unwrap();
        let shape = |name: &str| graph.parameters().into_iter().find(|p| p.name == name).unwrap().shape;
        assert_eq!(shape("conv2.conv.weight"), [32 * versions, 32 / versions, 3, 3], "{name}");
        assert_eq!(shape("conv2.fc2.weight")[0], 32 * versions, "{name}");
        assert_eq!(has(&graph, &Op::SoftmaxParts { parts: versions }), versions > 1, "{name}");
        let elements =
            |g: &Graph| (0..g.nodes().len()).map(|n| g.shape(Value::of_node(n)).elements()).sum::<usize>();
        assert!(elements(&graph) < elements(&own) && graph.cost().macs < own.cost().macs, "{name}");
    }
    for name in ["radix-r4", "radix-r3", "radix-r8"] {
        assert!(built(name).unwrap_err().to_string().contains("no split attention"), "{name}");
    }
}
