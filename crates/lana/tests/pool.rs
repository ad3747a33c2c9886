//! Operations in the place of layers: they learn, and are deployed as what they learnt.

mod common;

use common::{Outcome, answers, apart, batch, difference, images, runtime};
use lana_graph::{Graph, LayerRules, Op, Tensor, Weights, deploy, discover};
use lana_latency::random_weights;
use lana_models::init;
use lana_models::pool::{Operation, Pool};
use lana_models::zoo::{self, ZooOptions};
use lana_onnx::{ExportOptions, METADATA_KEY};
use lana_torch::{
    Algorithm, BatchNorm, Device, Exercise, FeatureMaps, Imitation, Imitator, Lesson, Network, imitate,
    without_gradients,
};

/// A layer of a teacher with random weights.
fn place(
    teacher: &str,
    resolution: Option<usize>,
    layer: &str,
) -> Result<(Graph, Weights), lana_models::Error> {
    let graph = zoo::build(teacher, &ZooOptions { resolution, ..ZooOptions::default() })?;
    // A name such as `layer1.0-2` is that of several blocks.
    let graph = match layer.contains('-') {
        true => discover(&graph, &LayerRules { group: 3, ..LayerRules::alone() })?,
        false => graph,
    };
    let own = graph.layer_graph(layer)?;
    let weights = init::random(&own, 5);
    Ok((own, weights))
}

/// Strided and plain layers, with and without a shortcut, of even and of odd sizes.
const PLACES: [(&str, Option<usize>, &str); 13] = [
    ("efficientnet_b2", Some(37), "blocks.0.0"),
    ("efficientnet_b2", Some(37), "blocks.1.0"),
    ("efficientnet_b2", Some(37), "blocks.2.1"),
    ("tf_efficientnetv2_b3", Some(48), "blocks.1.0"),
    ("tf_efficientnetv2_b3", Some(48), "blocks.3.1"),
    ("resnest50d", Some(40), "layer1.1"),
    ("resnest50d", Some(40), "layer2.0"),
    ("resnet56_cifar", None, "layer2.0"),
    ("resnet56_cifar", None, "layer3.1"),
    ("resnet20_cifar", None, "layer2.0-2"),
    ("resnet20_cifar", None, "layer3.0-2"),
    ("resnet50", Some(40), "layer1.0-2"),
    ("tf_efficientnetv2_b3", Some(48), "blocks.3.0-2"),
];

/// Of each family some members that differ.
const OPERATIONS: [&str; 16] = [
    "mbconv-e1-k1-se0.04",
    "mbconv-e3-k5-se0.025",
    "fused-e3-k3",
    "stack-k3-w0.25",
    "stack-k1-w2",
    "bottleneck-k5-w0.2",
    "conv-k5",
    "shuffle-k5-w0.5",
    "repvgg-k3",
    "repvgg-k5",
    "vit-d1-w32-h4",
    "botnet-w0.25",
    "lambda-w0.25",
    "mbconv-e1-k3-eca",
    "mixconv-e3-k5",
    "acnet-k3",
];

/// Edits of the teacher's layer, which begin close to it, where they apply.
const EDITS: [&str; 8] = [
    "narrow-w0.5",
    "own-nogate",
    "own-k3",
    "own-relu",
    "grouped-g2",
    "lowrank-r0.25",
    "own-nogate-relu",
    "radix-r1",
];

/// Those of layers of several blocks.
const OF_SEVERAL: [&str; 3] = ["depth-n1", "wide-w1.5", "wide-w2"];

#[test]
fn operations_learn_and_are_exported_as_they_learnt() -> Outcome {
    let runtime = runtime();
    let mut wrong = Vec::new();
    let mut edits = 0;
    for (teacher, resolution, layer) in PLACES {
        let (own, own_weights) = place(teacher, resolution, layer)?;
        let pixels = images(&own, 4);
        let input = batch(&own, &pixels)?.images;
        let network = Network::new(&own, &own_weights, Device::Cpu)?;
        let target = without_gradients(|| network.forward(&input, BatchNorm::Batch))?;
        let maps = FeatureMaps::new(input, target)?;
        let lesson = Lesson::new(Algorithm::AdamW { weight_decay: 1e-4 });
        let single: Vec<&str> = OPERATIONS.into_iter().chain(EDITS).collect();
        for name in if layer.contains('-') { OF_SEVERAL.to_vec() } else { single } {
            let at = format!("{name} at {layer} of {teacher}");
            let operation: Operation = name.parse()?;
            let graph = match operation.build(&own) {
                Ok(graph) => graph,
                Err(_) if EDITS.contains(&name) => continue,
                Err(reason) => return Err(format!("{at}: {reason}").into()),
            };
            edits += usize::from(EDITS.contains(&name));
            let start = operation.initialise(&own, &own_weights, &graph, 1)?;
            let mut imitator = Imitator::new(&graph, &start, &lesson, Device::Cpu)?;
            let before = imitator.error_on(&maps)?;
            for _ in 0..4 {
                let exercise = Exercise::Learn(2e-3);
                imitate(vec![Imitation { imitator: &mut imitator, maps: maps.share(), exercise }], || ()).0?;
            }
            let after = imitator.error_on(&maps)?;
            // Of what is right from the start nothing is to be learnt.
            if after.is_nan() || (after >= before && before > 1e-3) {
                wrong.push(format!("{at}: from {before} to {after}"));
            }
            let weights = imitator.network().weights()?;
            weights.check(&graph)?;
            // What is deployed computes the same, in libtorch and in ONNX Runtime.
            let (deployed, deployed_weights) = deploy(&graph, &weights)?;
            let (theirs, ours) =
                (answers(&deployed, &deployed_weights, &pixels)?, answers(&graph, &weights, &pixels)?);
            let folded = apart(&ours, &theirs);
            if folded.is_nan() || folded > 1e-5 {
                wrong.push(format!("{at}: {folded} apart when deployed"));
            }
            if runtime {
                let difference = difference(&graph, &weights)?;
                if difference.is_nan() || difference > 1e-4 {
                    wrong.push(format!("{at}: {difference} apart in ONNX Runtime"));
                }
            }
            // And is read again from its nodes alone.
            let bytes =
                without_metadata(lana_onnx::export(&deployed, &deployed_weights, &ExportOptions::default())?);
            let (read, read_weights) = lana_onnx::import(&bytes).map_err(|e| format!("{at}: {e}"))?;
            let reading = apart(&theirs, &answers(&read, &read_weights, &pixels)?);
            if reading.is_nan() || reading > 1e-5 || read.cost() != deployed.cost() {
                wrong.push(format!("{at}: {reading} apart when read again"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(edits >= 30, "{edits}");
    Ok(())
}

/// The same file with the metadata under another key.
fn without_metadata(mut bytes: Vec<u8>) -> Vec<u8> {
    let key = METADATA_KEY.as_bytes();
    if let Some(at) = bytes.windows(key.len()).position(|w| w == key) {
        bytes[at] = b'L';
    }
    bytes
}

#[test]
fn the_whole_pools_run_in_both_engines() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let (own, _) = place("resnet20_cifar", None, "layer3.0")?;
    let mut checked = 0;
    let mut wrong = Vec::new();
    for (operation, graph) in Pool::parse("paper,extended")?.operations_for(&own) {
        let Ok(graph) = graph else { continue };
        let difference = difference(&graph, &random_weights(&graph, 2))?;
        if difference.is_nan() || difference > 1e-4 {
            wrong.push(format!("{operation}: {difference}"));
        }
        checked += 1;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked > 150, "{checked}");
    Ok(())
}

#[test]
fn branches_are_deployed_as_one_convolution() -> Outcome {
    for (name, layer, branches, of_convs) in [
        ("repvgg-k5", "layer1.1", 4, 2),
        ("repvgg-k5", "layer2.0", 2, 2),
        ("acnet-k5", "layer1.1", 4, 3),
        ("acnet-k5", "layer2.0", 3, 3),
    ] {
        let (own, own_weights) = place("resnet20_cifar", None, layer)?;
        let operation: Operation = name.parse()?;
        let graph = operation.build(&own)?;
        let sums = |g: &Graph| g.nodes().iter().filter(|n| n.op == Op::Add).count();
        let convs = |g: &Graph| g.nodes().iter().filter(|n| matches!(n.op, Op::Conv2d(_))).count();
        let weights = random_weights(&graph, 9);
        let (deployed, deployed_weights) = deploy(&graph, &weights)?;
        // Where the shape changes the shortcut is no convolution, and its sum stays.
        let shortcut = usize::from(layer == "layer2.0");
        assert_eq!((convs(&graph), convs(&deployed)), (of_convs, 1), "{name} at {layer}");
        assert_eq!((sums(&graph), sums(&deployed)), (branches - 1 + shortcut, shortcut), "{layer}");
        let pixels = images(&graph, 3);
        let apart =
            apart(&answers(&graph, &weights, &pixels)?, &answers(&deployed, &deployed_weights, &pixels)?);
        assert!(apart < 1e-5, "{layer}: {apart}");
        // It is chosen by what it costs when deployed.
        let (whole, one) = (graph.cost(), graph.deployed_cost());
        assert!(one.macs < whole.macs && one.params < whole.params, "{layer}");
        let start = operation.initialise(&own, &own_weights, &graph, 0)?;
        assert!(start.get("bn_dense.weight").is_some_and(|t| t.data.iter().all(|s| *s == 0.0)));
    }
    Ok(())
}

#[test]
fn edits_of_the_teacher_start_as_near_as_they_can() -> Outcome {
    for (teacher, resolution, layer) in PLACES {
        let (own, own_weights) = place(teacher, resolution, layer)?;
        let pixels = images(&own, 3);
        let theirs = answers(&own, &own_weights, &pixels)?;
        let away = |name: &str| -> Result<Option<f32>, Box<dyn std::error::Error>> {
            let operation: Operation = name.parse()?;
            let Ok(graph) = operation.build(&own) else { return Ok(None) };
            let start = operation.initialise(&own, &own_weights, &graph, 1)?;
            Ok(Some(apart(&theirs, &answers(&graph, &start, &pixels)?)))
        };
        for whole in ["lowrank-r1", "grouped-g1", "narrow-w1"] {
            let apart = away(whole)?.unwrap_or(0.0);
            assert!(apart < 1e-5, "{whole} at {layer} of {teacher}: {apart}");
        }
        for changed in ["lowrank-r0.25", "grouped-g2", "own-relu", "own-k3"] {
            let apart = away(changed)?.unwrap_or(1.0);
            assert!(apart > 1e-4, "{changed} at {layer} of {teacher}: {apart}");
        }
    }
    Ok(())
}

#[test]
fn a_gate_that_depends_on_no_image_is_taken_out_without_a_trace() -> Outcome {
    for (teacher, resolution, layer, gate) in [
        ("efficientnet_b2", Some(37), "blocks.2.1", "se.conv_reduce"),
        ("efficientnet_b2", Some(37), "blocks.0.0", "se.conv_reduce"),
        ("tf_efficientnetv2_b3", Some(48), "blocks.3.1", "se.conv_reduce"),
        ("resnest50d", Some(40), "layer1.1", "conv2.fc1"),
        ("resnest50d", Some(40), "layer2.0", "conv2.fc1"),
    ] {
        let (own, mut weights) = place(teacher, resolution, layer)?;
        // The gate's first matrix looks at nothing, its biases are whatever they are.
        let name = format!("{gate}.weight");
        let deaf = weights.get(&name).map(|t| Tensor::full(&t.shape, 0.0)).ok_or("no gate")?;
        weights.insert(name, deaf);
        let biases: Vec<String> = weights.iter().map(|(n, _)| n.to_string()).collect();
        for name in biases.iter().filter(|n| n.contains("conv_expand.bias") || n.contains("fc2.bias")) {
            if let Some(mut bias) = weights.remove(name) {
                bias.data.iter_mut().enumerate().for_each(|(i, b)| *b = (i % 5) as f32 * 0.4 - 0.7);
                weights.insert(name.clone(), bias);
            }
        }
        let operation: Operation = "own-nogate".parse()?;
        let graph = operation.build(&own)?;
        let start = operation.initialise(&own, &weights, &graph, 1)?;
        let pixels = images(&own, 3);
        let apart = apart(&answers(&own, &weights, &pixels)?, &answers(&graph, &start, &pixels)?);
        assert!(apart < 1e-5, "{layer} of {teacher}: {apart}");
    }
    Ok(())
}
