//! Networks run and train as the mathematics says.
#![allow(clippy::unwrap_used)]

use lana_graph::{Activation, Graph, GraphBuilder, Op, Shape, Tensor as Array, Value, Weights, Window};
use lana_models::{init, zoo, zoo::ZooOptions};
use lana_torch::{
    Algorithm, Answers, Average, Batch, BatchNorm, Device, Distiller, Evaluation, Exercise, FeatureMaps,
    Imitation, Imitator, Lesson, Matching, Mixture, Network, Tensor, Training, cosine, imitate,
    normalised_error, numbers, without_gradients,
};

fn teacher(name: &str) -> (Graph, Weights) {
    let options = ZooOptions { resolution: Some(32), ..ZooOptions::default() };
    let graph = zoo::build(name, &options).unwrap();
    let mut weights = init::random(&graph, 1);
    // Statistics other than 0 and 1, so that folding has something to do.
    for parameter in graph.parameters() {
        if parameter.name.ends_with("running_var") || parameter.name.ends_with("running_mean") {
            let n = parameter.shape[0];
            let data = (0..n).map(|i| 0.5 + 0.3 * ((i * 7 % 5) as f32)).collect();
            weights.insert(parameter.name, Array { shape: vec![n], data });
        }
    }
    (graph, weights)
}

fn images(n: usize, seed: u64) -> Batch {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 24) as f32 * 2.0 - 1.0
    };
    let pixels: Vec<f32> = (0..n * 3 * 32 * 32).map(|_| next()).collect();
    let labels: Vec<i64> = (0..n as i64).map(|i| i % 10).collect();
    Batch::new(&pixels, &labels, &Shape::image(3, 32, 32), Device::Cpu).unwrap()
}

fn close(a: &Tensor, b: &Tensor, tolerance: f32) {
    assert_eq!(a.size(), b.size());
    let (a, b) = (numbers(a).unwrap(), numbers(b).unwrap());
    let largest = a.iter().fold(1e-6f32, |m, x| m.max(x.abs()));
    for (x, y) in a.iter().zip(&b) {
        assert!((x - y).abs() <= tolerance * largest, "{x} and {y}, largest {largest}");
    }
}

#[test]
fn folded_equals_unfolded() {
    for name in ["resnet20_cifar", "effnetv2_nano_cifar", "resnet18", "resnest14d"] {
        let (graph, weights) = teacher(name);
        let batch = images(4, 3);
        let whole = Network::new(&graph, &weights, Device::Cpu).unwrap();
        let folded = Network::frozen(&graph, &weights, Device::Cpu).unwrap();
        let a = without_gradients(|| whole.forward(&batch.images, BatchNorm::Running)).unwrap();
        let b = without_gradients(|| folded.forward(&batch.images, BatchNorm::Running)).unwrap();
        close(&a, &b, 1e-4);
    }
}

/// Feature maps keep the channels innermost, whatever a network does with their channels.
#[test]
fn parts_of_channels_stay_in_our_layout() {
    let batch = images(2, 3);
    for op in [
        Op::SumParts { parts: 2 },
        Op::SoftmaxParts { parts: 4 },
        Op::ShuffleChannels { outer: 2, inner: 2 },
        Op::MaxPool { window: Window::square(3, 2, 1) },
        Op::AveragePool { window: Window::square(2, 2, 0), count_include_pad: false },
    ] {
        let mut b = GraphBuilder::new("op", Shape::image(3, 32, 32));
        let x = b.conv("conv", b.input(), 8, 3, 1, 1).unwrap();
        let x = b.node("op", op.clone(), &[x]).unwrap();
        let graph = b.finish(x).unwrap();
        let network = Network::new(&graph, &init::random(&graph, 1), Device::Cpu).unwrap();
        let y = without_gradients(|| network.forward(&batch.images, BatchNorm::Running)).unwrap();
        assert_eq!(y.stride()[1], 1, "{op:?}");
    }
}

#[test]
fn running_from_a_tap_equals_running_whole_to_the_last_bit() {
    let (graph, weights) = teacher("resnet20_cifar");
    let network = Network::frozen(&graph, &weights, Device::Cpu).unwrap();
    let batch = images(3, 5);
    let taps: Vec<Value> = network.graph().layers().iter().map(|l| l.output).collect();
    let (whole, maps) =
        without_gradients(|| network.forward_tapped(&batch.images, BatchNorm::Running, &taps)).unwrap();
    for (tap, map) in taps.iter().zip(&maps) {
        let rest = without_gradients(|| network.forward_from(*tap, map, BatchNorm::Running)).unwrap();
        assert_eq!(numbers(&whole).unwrap(), numbers(&rest).unwrap());
    }
    // Taps are what the values were: not overwritten by what came later.
    let alone = network.graph().subgraph(Value::INPUT, taps[0], "").unwrap();
    let (_, folded) = lana_graph::fold_batch_norm(&graph, &weights).unwrap();
    let part: Weights = folded
        .iter()
        .filter(|(n, _)| alone.parameters().iter().any(|p| p.name == *n))
        .map(|(n, t)| (n.to_string(), t.clone()))
        .collect();
    let part = Network::new(&alone, &part, Device::Cpu).unwrap();
    let expected = without_gradients(|| part.forward(&batch.images, BatchNorm::Running)).unwrap();
    assert_eq!(numbers(&expected).unwrap(), numbers(&maps[0]).unwrap());
}

#[test]
fn batch_statistics_leave_the_running_ones_alone_and_training_does_not() {
    let (graph, weights) = teacher("resnet20_cifar");
    let network = Network::new(&graph, &weights, Device::Cpu).unwrap();
    let batch = images(8, 6);
    let _ = without_gradients(|| network.forward(&batch.images, BatchNorm::Batch)).unwrap();
    assert_eq!(network.weights().unwrap().get("bn1.running_mean"), weights.get("bn1.running_mean"));
    let _ = without_gradients(|| network.forward(&batch.images, BatchNorm::Train)).unwrap();
    assert_ne!(network.weights().unwrap().get("bn1.running_mean"), weights.get("bn1.running_mean"));
}

#[test]
fn drops_act_in_training_alone_keep_the_mean_and_follow_the_seed() {
    let mut b = GraphBuilder::new("drops", Shape::image(3, 32, 32));
    let x = b.input();
    let y = b.activation("front", x, Activation::Sigmoid).unwrap();
    let y = b.node("drop_path", lana_graph::Op::DropPath { rate: 0.25 }, &[y]).unwrap();
    // The idle drop path passes on what the sum reads, too: this may not be written in place.
    let z = b.activation("act", y, Activation::Relu).unwrap();
    let y = b.add("add", z, y).unwrap();
    let y = b.node("dropout", lana_graph::Op::Dropout { rate: 0.5 }, &[y]).unwrap();
    let graph = b.finish(y).unwrap();
    let network = Network::new(&graph, &Weights::new(), Device::Cpu).unwrap();
    let n = 200;
    let zeros = Tensor::zeros([n, 3, 32, 32], (tch::Kind::Float, tch::Device::Cpu));
    for mode in [BatchNorm::Train, BatchNorm::Batch, BatchNorm::Running] {
        let still = network.forward(&zeros, mode).unwrap();
        assert!(numbers(&still).unwrap().iter().all(|v| *v == 1.0));
    }
    let drop = |seed| numbers(&network.forward_dropping(&zeros, seed).unwrap()).unwrap();
    let dropped = drop(7);
    assert_eq!(dropped, drop(7));
    assert_ne!(dropped, drop(8));
    let mean = dropped.iter().map(|v| f64::from(*v)).sum::<f64>() / dropped.len() as f64;
    assert!((mean - 1.0).abs() < 0.15, "{mean}");
    // Whole samples of the first, half the elements of the second.
    let samples: Vec<bool> = dropped.chunks(3 * 32 * 32).map(|s| s.iter().any(|v| *v != 0.0)).collect();
    let kept = samples.iter().filter(|k| **k).count();
    assert!((130..170).contains(&kept), "{kept} of 200");
    let survivors = dropped.iter().filter(|v| **v != 0.0).count();
    let share = survivors as f64 / (kept * 3 * 32 * 32) as f64;
    assert!((share - 0.5).abs() < 0.01, "{share}");
    assert!(dropped.iter().all(|v| *v == 0.0 || (v - 2.0 / 0.75).abs() < 1e-5));
}

/// One step of plain gradient descent (momentum 0) tells the gradient: it must agree with finite differences of the loss.
#[test]
fn gradients_agree_with_finite_differences() {
    let mut b = GraphBuilder::new("small", Shape::image(3, 32, 32));
    let x = b.input();
    let y = b.conv("conv", x, 4, 3, 4, 1).unwrap();
    let y = b.batch_norm("bn", y).unwrap();
    let y = b.activation("act", y, Activation::Silu).unwrap();
    let y = b.node("pool", Op::GlobalAveragePool, &[y]).unwrap();
    let y = b.node("flat", Op::Flatten, &[y]).unwrap();
    let y = b.node("linear", Op::Linear { out_features: 10, bias: true }, &[y]).unwrap();
    check_gradients(
        &b.finish(y).unwrap(),
        &[("conv.weight", 5), ("bn.weight", 2), ("bn.bias", 1), ("linear.weight", 17), ("linear.bias", 3)],
    );
}

/// Everything that a ResNeSt has beyond that, in one small block.
#[test]
fn gradients_pass_poolings_and_parts_of_channels() {
    let mut b = GraphBuilder::new("split", Shape::image(3, 32, 32));
    let x = b.conv("conv", b.input(), 4, 3, 3, 1).unwrap();
    let x = b.batch_norm("bn", x).unwrap();
    let x = b.node("max", Op::MaxPool { window: Window::square(3, 2, 1) }, &[x]).unwrap();
    let y = b.conv("versions", x, 12, 3, 1, 2).unwrap();
    let y = b.batch_norm("bn2", y).unwrap();
    let g = b.node("pool", Op::GlobalAveragePool, &[y]).unwrap();
    let g = b.conv_full("fc", g, 12, 1, 1, 1, true).unwrap();
    let g = b.node("shuffle", Op::ShuffleChannels { outer: 2, inner: 3 }, &[g]).unwrap();
    let g = b.node("softmax", Op::SoftmaxParts { parts: 3 }, &[g]).unwrap();
    let y = b.node("mul", Op::Mul, &[y, g]).unwrap();
    let y = b.node("shuffle2", Op::ShuffleChannels { outer: 3, inner: 2 }, &[y]).unwrap();
    let y = b.node("sum", Op::SumParts { parts: 3 }, &[y]).unwrap();
    let window = Window { ceil_mode: true, ..Window::square(2, 2, 1) };
    let y = b.node("average", Op::AveragePool { window, count_include_pad: true }, &[y]).unwrap();
    let y = b.node("flat", Op::Flatten, &[y]).unwrap();
    let y = b.node("linear", Op::Linear { out_features: 10, bias: true }, &[y]).unwrap();
    check_gradients(
        &b.finish(y).unwrap(),
        &[
            ("conv.weight", 5),
            ("bn.weight", 2),
            ("versions.weight", 70),
            ("bn2.bias", 4),
            ("fc.weight", 40),
            ("fc.bias", 7),
        ],
    );
}

fn check_gradients(graph: &Graph, places: &[(&str, usize)]) {
    let weights = init::random(graph, 4);
    let batch = images(16, 9);
    let plain = Algorithm::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let training = Training::new(plain);
    let teacher =
        Tensor::from_slice(&(0..160).map(|i| (i % 7) as f32 * 0.3).collect::<Vec<_>>()).view([16, 10]);
    let teacher = Answers { logits: teacher, maps: Vec::new() };
    let mixture = Mixture { distillation: 1.0, temperature: 2.0, ..Mixture::default() };
    let train = |w: &Weights| Distiller::new(graph, w, &training, Device::Cpu).unwrap();
    let loss = |w: &Weights| train(w).step(&batch, Some(&teacher), &mixture, 0.0).unwrap();

    let rate = 1e-2;
    let mut trained = train(&weights);
    trained.step(&batch, Some(&teacher), &mixture, rate).unwrap();
    let after = trained.network().weights().unwrap();
    for &(name, at) in places {
        let before = weights.get(name).unwrap().data[at];
        let gradient = f64::from(before - after.get(name).unwrap().data[at]) / rate;
        let shifted = |by: f32| {
            let mut w = weights.clone();
            let mut tensor = w.get(name).unwrap().clone();
            tensor.data[at] += by;
            w.insert(name, tensor);
            loss(&w)
        };
        let step = 2e-2f32;
        let numeric = (shifted(step) - shifted(-step)) / (2.0 * f64::from(step));
        assert!(
            (gradient - numeric).abs() < 2e-3 + 0.05 * numeric.abs(),
            "{name}[{at}]: {gradient} against {numeric}"
        );
    }
}

#[test]
fn an_operation_equal_to_its_layer_has_no_error_and_a_narrowed_one_learns() {
    let (graph, weights) = teacher("resnet20_cifar");
    let network = Network::frozen(&graph, &weights, Device::Cpu).unwrap();
    let layer = &network.graph().layers()[1];
    let own = graph.layer_graph(&layer.name).unwrap();
    let own_weights = weights.under(&layer.name);
    let twin = Network::new(&own, &own_weights, Device::Cpu).unwrap();
    let maps = |seed| {
        let batch = images(32, seed);
        let (_, mut maps) = without_gradients(|| {
            network.forward_tapped(&batch.images, BatchNorm::Running, &[layer.input, layer.output])
        })
        .unwrap();
        let target = maps.pop().unwrap();
        FeatureMaps::new(maps.pop().unwrap(), target).unwrap()
    };
    let first = maps(20);
    let exact = without_gradients(|| twin.forward(&first.input, BatchNorm::Running)).unwrap();
    assert!(normalised_error(&exact, &first.target).unwrap() < 1e-8);

    let operation: lana_models::pool::Operation = "narrow-w0.5".parse().unwrap();
    let narrow = operation.build(&own).unwrap();
    let start = operation.initialise(&own, &own_weights, &narrow, 0).unwrap();
    let lesson = Lesson::new(Algorithm::AdamW { weight_decay: 0.0 });
    let mut imitator = Imitator::new(&narrow, &start, &lesson, Device::Cpu).unwrap();
    let before = imitator.error_on(&first).unwrap();
    let step = |imitator: &mut Imitator, maps: FeatureMaps, exercise: Exercise| {
        imitate(vec![Imitation { imitator, maps, exercise }], || ()).0.unwrap();
    };
    // What it began with is known after the first step, and stays.
    assert_eq!(imitator.first_loss(), None);
    step(&mut imitator, first.share(), Exercise::Learn(0.1));
    let begun = imitator.first_loss().unwrap();
    assert!((begun - before).abs() < 1e-4 * before, "{begun} is not {before}");
    let mut imitator = Imitator::new(&narrow, &start, &lesson, Device::Cpu).unwrap();
    for at in 0..40 {
        step(&mut imitator, maps(30 + at), Exercise::Learn(cosine(3e-3, at, 40, 2)));
    }
    assert!(imitator.take_loss().is_finite());
    let after = imitator.error_on(&first).unwrap();
    assert!(after < 0.7 * before, "error {before} before, {after} after");

    // The error of skipping the layer is of the batches of the final one, over a checkpoint too.
    assert_eq!(imitator.identity_error(), None);
    step(&mut imitator, maps(80), Exercise::Settle(1));
    let (weights, state) = imitator.checkpoint().unwrap();
    let mut again = Imitator::new(&narrow, &weights, &lesson, Device::Cpu).unwrap();
    again.restore(&state, &imitator.counts()).unwrap();
    assert_eq!(again.counts(), imitator.counts());
    step(&mut again, maps(81), Exercise::Settle(2));
    let skipping = [80, 81].map(|seed| maps(seed).identity_error().unwrap().unwrap());
    let mean = (skipping[0] + skipping[1]) / 2.0;
    let error = again.identity_error().unwrap();
    assert!((error - mean).abs() < 1e-6 * mean, "{error} is not the mean of {skipping:?}");
}

#[test]
fn a_batch_in_parts_teaches_what_the_whole_does() {
    // Without BatchNorm, which takes the statistics of a part.
    let mut b = GraphBuilder::new("plain", Shape::image(3, 32, 32));
    let x = b.conv("conv", b.input(), 3, 3, 1, 1).unwrap();
    let graph = b.finish(x).unwrap();
    let weights = init::random(&graph, 1);
    let [input, target] = [1, 2].map(|seed| images(10, seed).images);
    let learn = |parts: usize| {
        let lesson = Lesson { parts, ..Lesson::new(Algorithm::Sgd { momentum: 0.9, weight_decay: 0.0 }) };
        let mut imitator = Imitator::new(&graph, &weights, &lesson, Device::Cpu).unwrap();
        for exercise in [Exercise::Learn(0.1), Exercise::Learn(0.1), Exercise::Settle(1)] {
            let maps = FeatureMaps::new(input.shallow_clone(), target.shallow_clone()).unwrap();
            imitate(vec![Imitation { imitator: &mut imitator, maps, exercise }], || ()).0.unwrap();
        }
        (imitator.take_loss(), imitator.network().weights().unwrap())
    };
    let (loss, whole) = learn(1);
    // Ten images in four parts: one is smaller.
    let (loss_in_parts, in_parts) = learn(4);
    assert!((loss - loss_in_parts).abs() < 1e-5 * loss, "{loss} and {loss_in_parts}");
    for (name, tensor) in whole.iter() {
        for (a, b) in tensor.data.iter().zip(&in_parts.get(name).unwrap().data) {
            assert!((a - b).abs() < 1e-5, "{name}: {a} and {b}");
        }
    }
}

#[test]
fn training_continues_from_a_checkpoint_bit_for_bit() {
    let (graph, weights) = teacher("resnet20_cifar");
    let batches: Vec<Batch> = (0..4).map(|i| images(8, 50 + i)).collect();
    for algorithm in [
        Algorithm::Sgd { momentum: 0.9, weight_decay: 1e-4 },
        Algorithm::AdamW { weight_decay: 1e-2 },
        Algorithm::RmsProp { momentum: 0.9, weight_decay: 1e-5, smoothing: 0.9, epsilon: 1e-3 },
    ] {
        let average = Some(Average { decay: 0.9, warm_up: false });
        let training = Training { clip: Some(1.0), average, ..Training::new(algorithm) };
        let new = |w: &Weights| Distiller::new(&graph, w, &training, Device::Cpu).unwrap();
        let mut whole = new(&weights);
        for batch in &batches {
            whole.step(batch, None, &Mixture::default(), 0.01).unwrap();
        }
        let mut first = new(&weights);
        for batch in &batches[..2] {
            first.step(batch, None, &Mixture::default(), 0.01).unwrap();
        }
        let middle = first.checkpoint().unwrap();
        let mut second = new(&middle.under("weights"));
        second.restore(&middle).unwrap();
        for batch in &batches[2..] {
            second.step(batch, None, &Mixture::default(), 0.01).unwrap();
        }
        assert_eq!(whole.checkpoint().unwrap(), second.checkpoint().unwrap());
        let average = whole.average().unwrap();
        assert!(average.weights().unwrap() != whole.network().weights().unwrap());
        assert_eq!(whole.steps(), second.steps());
    }
}

/// timm's `RMSpropTF(lr=0.1, alpha=0.9, eps=1e-3, momentum=0.9, weight_decay=0.01)`, by hand, on one kernel of one number.
#[test]
fn rmsprop_is_tensorflows() {
    let mut b = GraphBuilder::new("one", Shape::image(1, 1, 1));
    let x = b.conv("conv", b.input(), 2, 1, 1, 1).unwrap();
    let x = b.node("flatten", lana_graph::Op::Flatten, &[x]).unwrap();
    let graph = b.finish(x).unwrap();
    let mut weights = init::random(&graph, 1);
    let kernel = lana_graph::Tensor { shape: vec![2, 1, 1, 1], data: vec![0.5, -0.5] };
    weights.insert("conv.weight", kernel);
    let rule = Algorithm::RmsProp { momentum: 0.9, weight_decay: 0.01, smoothing: 0.9, epsilon: 1e-3 };
    let mut distiller = Distiller::new(&graph, &weights, &Training::new(rule), Device::Cpu).unwrap();
    let batch = Batch::new(&[2.0], &[0], &Shape::image(1, 1, 1), Device::Cpu).unwrap();
    let (mut w, mut square, mut velocity) = ([0.5f64, -0.5], [1.0f64; 2], [0.0f64; 2]);
    for _ in 0..5 {
        let p = 1.0 / (1.0 + (2.0 * (w[1] - w[0])).exp());
        let gradients = [2.0 * (p - 1.0), 2.0 * (1.0 - p)];
        for i in 0..2 {
            let gradient = gradients[i] + 0.01 * w[i];
            square[i] += (gradient * gradient - square[i]) * 0.1;
            velocity[i] = 0.9 * velocity[i] + 0.1 * gradient / (square[i] + 1e-3).sqrt();
            w[i] -= velocity[i];
        }
        distiller.step(&batch, None, &Mixture::default(), 0.1).unwrap();
    }
    let got = distiller.network().weights().unwrap();
    for (a, b) in got.get("conv.weight").unwrap().data.iter().zip(w) {
        assert!((f64::from(*a) - b).abs() < 1e-5, "{a} and {b}");
    }
}

#[test]
fn frozen_parts_stay_and_use_their_own_statistics() {
    let graph = teacher("resnet20_cifar").0;
    let weights = init::random(&graph, 6);
    let names = graph.parameters().into_iter().map(|p| p.name);
    let frozen: Vec<String> = names.filter(|n| n.starts_with("layer1.") || n.starts_with("bn1.")).collect();
    let rule = Algorithm::Sgd { momentum: 0.9, weight_decay: 1e-2 };
    let training = Training { frozen: frozen.clone(), ..Training::new(rule) };
    let mut distiller = Distiller::new(&graph, &weights, &training, Device::Cpu).unwrap();
    let batch = images(8, 5);
    let loss = distiller.step(&batch, None, &Mixture::default(), 0.1).unwrap();
    // Residual branches begin with a factor of zero, behind which nothing learns in the first step.
    distiller.step(&batch, None, &Mixture::default(), 0.1).unwrap();
    let after = distiller.network().weights().unwrap();
    let changed = |name: &str| after.get(name) != weights.get(name);
    for parameter in graph.parameters() {
        let stays = frozen.contains(&parameter.name);
        assert_eq!(changed(&parameter.name), !stays, "{}", parameter.name);
    }
    let mut plain = Distiller::new(&graph, &weights, &Training::new(rule), Device::Cpu).unwrap();
    assert!(plain.step(&batch, None, &Mixture::default(), 0.1).unwrap() != loss);
}

#[test]
fn accumulated_batches_are_one_large_one_where_there_are_no_statistics() {
    let mut b = GraphBuilder::new("plain", Shape::image(3, 32, 32));
    let x = b.conv("conv", b.input(), 4, 3, 2, 1).unwrap();
    let x = b.node("pool", lana_graph::Op::GlobalAveragePool, &[x]).unwrap();
    let x = b.node("flatten", lana_graph::Op::Flatten, &[x]).unwrap();
    let graph = b.finish(x).unwrap();
    let weights = init::random(&graph, 2);
    let whole = images(12, 3);
    let pixels = numbers(&whole.images.contiguous()).unwrap();
    let labels: Vec<i64> = (0..12).map(|i| i % 4).collect();
    let part = |from: usize, to: usize| {
        let size = 3 * 32 * 32;
        Batch::new(&pixels[from * size..to * size], &labels[from..to], &Shape::image(3, 32, 32), Device::Cpu)
            .unwrap()
    };
    let whole = part(0, 12);
    let parts = [part(0, 4), part(4, 8), part(8, 12)];
    let training = Training { clip: Some(0.1), ..Training::new(Algorithm::AdamW { weight_decay: 0.1 }) };
    let new = || Distiller::new(&graph, &weights, &training, Device::Cpu).unwrap();
    let (mut together, mut apart) = (new(), new());
    let mixture = Mixture { smoothing: 0.1, ..Mixture::default() };
    for _ in 0..3 {
        let a = together.step(&whole, None, &mixture, 0.01).unwrap();
        let b = apart.step_in_parts(parts.each_ref().map(|p| (p, None)), &mixture, 0.01).unwrap();
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    let (a, b) = (together.network().weights().unwrap(), apart.network().weights().unwrap());
    for (x, y) in a.get("conv.weight").unwrap().data.iter().zip(&b.get("conv.weight").unwrap().data) {
        assert!((x - y).abs() < 1e-4, "{x} and {y}");
    }
}

#[test]
fn the_loss_of_mixed_and_smoothed_labels_is_divided_among_them() {
    let mut b = GraphBuilder::new("bias", Shape::image(3, 32, 32));
    let x = b.conv("conv", b.input(), 3, 3, 2, 1).unwrap();
    let x = b.node("pool", lana_graph::Op::GlobalAveragePool, &[x]).unwrap();
    let x = b.node("flatten", lana_graph::Op::Flatten, &[x]).unwrap();
    let graph = b.finish(x).unwrap();
    let weights = init::random(&graph, 5);
    let rule = Algorithm::Sgd { momentum: 0.0, weight_decay: 0.0 };
    let pixels = numbers(&images(3, 8).images.contiguous()).unwrap();
    let loss = |labels: [i64; 3], mixed: Option<([i64; 3], f64)>, smoothing: f64| {
        let mut batch = Batch::new(&pixels, &labels, &Shape::image(3, 32, 32), Device::Cpu).unwrap();
        if let Some((partners, lam)) = mixed {
            batch = batch.mixed_with(&partners, lam).unwrap();
        }
        let mut distiller = Distiller::new(&graph, &weights, &Training::new(rule), Device::Cpu).unwrap();
        distiller.step(&batch.share(), None, &Mixture { smoothing, ..Mixture::default() }, 0.0).unwrap()
    };
    let (own, partners) = ([0, 1, 2], [2, 1, 0]);
    let (a, b) = (loss(own, None, 0.0), loss(partners, None, 0.0));
    assert!((loss(own, Some((partners, 0.3)), 0.0) - (0.3 * a + 0.7 * b)).abs() < 1e-6);
    // Each class once for each image: the labels evenly spread.
    let even = (0..3).map(|class| loss([class; 3], None, 0.0)).sum::<f64>() / 3.0;
    assert!((loss(own, None, 0.1) - (0.9 * a + 0.1 * even)).abs() < 1e-6);
    let expected = 0.9 * (0.3 * a + 0.7 * b) + 0.1 * even;
    assert!((loss(own, Some((partners, 0.3)), 0.1) - expected).abs() < 1e-6);
}

#[test]
fn a_student_learns_its_teachers_feature_maps() {
    let (graph, start) = (teacher("resnet20_cifar").0, init::random(&teacher("resnet20_cifar").0, 77));
    let mut weights = init::random(&graph, 78);
    for parameter in graph.parameters() {
        // No residual branch that gives nothing.
        if parameter.name.ends_with("bn2.weight") {
            weights.insert(parameter.name, Array::full(&parameter.shape, 1.0));
        }
    }
    let network = Network::frozen(&graph, &weights, Device::Cpu).unwrap();
    let matched = |graph: &Graph| -> Vec<_> {
        ["layer1.2", "layer3.2"].map(|name| graph.layer(name).unwrap().1.output).into()
    };
    let batch = images(16, 9);
    let answers = Answers::of(&network, &batch.images, &matched(network.graph())).unwrap();
    assert_eq!(answers.maps.len(), 2);
    for matching in [Matching::Cosine, Matching::NormalisedMse] {
        let training =
            Training { matched: matched(&graph), ..Training::new(Algorithm::AdamW { weight_decay: 0.0 }) };
        let mut student = Distiller::new(&graph, &start, &training, Device::Cpu).unwrap();
        // Nothing but the maps.
        let mixture = Mixture { labels: 0.0, features: 1.0, matching, ..Mixture::default() };
        let losses: Vec<f64> =
            (0..12).map(|_| student.step(&batch, Some(&answers), &mixture, 3e-3).unwrap()).collect();
        assert!(losses[11] < 0.8 * losses[0], "{matching:?}: {losses:?}");
        // Without them, nothing is left.
        let nothing = Mixture { features: 0.0, ..mixture };
        assert_eq!(student.step(&batch, Some(&answers), &nothing, 3e-3).unwrap(), 0.0);
    }
}

#[test]
fn evaluation_counts_as_defined() {
    let mut evaluation = Evaluation::default();
    let logits = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0, 0.0, 9.0, 1.0, 2.0, 3.0, 4.0];
    evaluation.add_numbers(&logits, &[0, 0]).unwrap();
    assert_eq!((evaluation.right, evaluation.right5, evaluation.images), (1, 1, 2));
    let row = |x: &[f32], label: usize| {
        let sum: f64 = x.iter().map(|v| f64::from(*v).exp()).sum();
        sum.ln() - f64::from(x[label])
    };
    let expected = (row(&logits[..6], 0) + row(&logits[6..], 0)) / 2.0;
    assert!((evaluation.loss() - expected).abs() < 1e-5);
}

#[test]
fn wrong_input_is_an_error_with_names() {
    let (graph, weights) = teacher("resnet20_cifar");
    let mut broken = weights.clone();
    broken.remove("layer1.0.conv1.weight");
    let error = Network::new(&graph, &broken, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("layer1.0.conv1.weight"), "{error}");
    let error = Batch::new(&[0.0; 10], &[1], &Shape::image(3, 32, 32), Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("3×32×32"), "{error}");
    let batch = images(4, 1);
    let huge = Algorithm::Sgd { momentum: 0.9, weight_decay: 0.0 };
    let mut distiller = Distiller::new(&graph, &weights, &Training::new(huge), Device::Cpu).unwrap();
    let error = (0..20)
        .find_map(|_| distiller.step(&batch, None, &Mixture::default(), 1e30).err())
        .unwrap()
        .to_string();
    assert!(error.contains("learning rate"), "{error}");
}

#[test]
fn learning_rate_rises_then_falls() {
    assert_eq!(cosine(1.0, 0, 100, 10), 0.1);
    assert_eq!(cosine(1.0, 9, 100, 10), 1.0);
    assert_eq!(cosine(1.0, 10, 100, 10), 1.0);
    assert!((cosine(1.0, 55, 100, 10) - 0.5).abs() < 1e-12);
    assert!(cosine(1.0, 100, 100, 10).abs() < 1e-12);
}
