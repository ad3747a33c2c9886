//! libtorch behind the same seam as ONNX Runtime.

use std::time::Duration;

use lana_graph::Graph;
use lana_latency::{
    Deployment, LayerCandidates, MeasureOptions, Model, OnnxRuntime, Precision, RuntimeKind, Session,
    TableOptions, build_table, measure, random_weights, runtime_version,
};
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const TORCH: Deployment = Deployment {
    runtime: RuntimeKind::Torch,
    processor: lana_latency::Processor::Cpu,
    precision: Precision::Fp32,
    batch: 2,
    threads: 1,
};

fn network(name: &str) -> Result<Graph, Box<dyn std::error::Error>> {
    let resolution = (!name.contains("cifar")).then_some(64);
    Ok(zoo::build(name, &ZooOptions { resolution, num_classes: Some(7), ..ZooOptions::default() })?)
}

/// Largest difference relative to the largest number.
fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let largest = a.iter().fold(1e-6_f32, |most, x| most.max(x.abs()));
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |most: f32, d| if d.is_nan() { f32::INFINITY } else { most.max(d) }) / largest
}

#[test]
fn both_runtimes_compute_the_same() -> Outcome {
    let here = OnnxRuntime::load().inspect_err(|reason| eprintln!("skipped: {reason}")).is_ok();
    for name in ["resnet20_cifar", "efficientnet_b0"] {
        let graph = network(name)?;
        let model = Model::from_graph(name, &graph, &random_weights(&graph, 5))?;
        let count = 2 * graph.input_shape().elements();
        let images: Vec<f32> = (0..count).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect();
        let run = |deployment: &Deployment| Session::open(&model, deployment)?.run(&images, 2);
        let exact = run(&TORCH)?;
        assert!(exact.iter().all(|x| x.is_finite()) && exact[..7] != exact[7..]);
        if here {
            let onnx = run(&Deployment::default())?;
            assert!(apart(&exact, &onnx) < 1e-4, "{name}: {}", apart(&exact, &onnx));
            let half = run(&Deployment { precision: Precision::Fp16, ..Deployment::default() })?;
            let error = apart(&exact, &half);
            assert!(error > 0.0 && error < 0.05, "{name} in fp16 on ONNX Runtime: {error}");
        }
        // bf16 keeps 8 bits.
        for (precision, tolerance) in [(Precision::Fp16, 0.05), (Precision::Bf16, 0.3)] {
            let error = apart(&exact, &run(&Deployment { precision, ..TORCH })?);
            assert!(error > 0.0 && error < tolerance, "{name} in {precision} on libtorch: {error}");
        }
    }
    Ok(())
}

#[test]
fn onnx_files_run_on_libtorch() -> Outcome {
    let graph = network("resnet20_cifar")?;
    let weights = random_weights(&graph, 5);
    let bytes = lana_onnx::export(&graph, &weights, &lana_onnx::ExportOptions::default())?;
    let images = vec![0.5; 2 * graph.input_shape().elements()];
    let file = Session::open(&Model::from_bytes("file.onnx", bytes), &TORCH)?.run(&images, 2)?;
    let own = Session::open(&Model::from_graph("own", &graph, &weights)?, &TORCH)?.run(&images, 2)?;
    assert!(apart(&own, &file) < 1e-5);
    let error =
        Session::open(&Model::from_bytes("cut.onnx", vec![1, 2, 3]), &TORCH).expect_err("opened").to_string();
    assert!(error.starts_with("cut.onnx: ") && error.contains("ONNX Runtime any file"), "{error}");
    Ok(())
}

#[test]
fn measuring_and_tables_go_through_libtorch() -> Outcome {
    let graph = network("resnet20_cifar")?;
    let models = [Model::with_random_weights("a", &graph)?, Model::with_random_weights("b", &graph)?];
    for deployment in [TORCH, Deployment { threads: 2, ..TORCH }] {
        let time_limit = Duration::from_millis(200);
        let options = MeasureOptions { deployment, time_limit, ..MeasureOptions::default() };
        let result = measure(&models, &options)?;
        assert!(result.iter().all(|m| m.median_ms > 0.0 && m.repeats >= 3));
    }
    let layer = "layer1.1";
    let site = graph.layer_graph(layer)?;
    let operations = Pool::compact().operations_for(&site).into_iter().take(3);
    let operations = operations.filter_map(|(o, g)| Some((o.name().to_string(), g.ok()?))).collect();
    let candidates = [LayerCandidates { layer: layer.into(), operations }];
    let options = TableOptions { deployment: TORCH, time_limit_s: Some(1.0), ..TableOptions::default() };
    let table = build_table(&graph, &candidates, &options, &mut |_| {})?;
    assert_eq!((table.deployment, table.runtime_version), (TORCH, runtime_version(&TORCH)?));
    Ok(())
}

#[test]
fn a_gpu_that_is_not_there_is_an_error_with_a_cure() {
    let deployment = Deployment { processor: lana_latency::Processor::Cuda, ..TORCH };
    // On a machine with a GPU and its libraries there is none.
    if let Err(error) = runtime_version(&deployment) {
        let error = error.to_string();
        assert!(error.starts_with("torch: no CUDA device") && error.contains("nvidia-smi"), "{error}");
    }
}
