//! The published CIFAR-10 ResNets on real images: libtorch and the exported file must agree with what is known of them.
//! Skipped, with a printed reason, where the data is not there.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use lana::{EvaluateOptions, NetworkFile, Silent, evaluate};
use lana_graph::{Weights, fold_batch_norm};
use lana_models::{zoo, zoo::ZooOptions};
use lana_onnx::{ExportOptions, export};

#[test]
fn exported_teachers_are_as_accurate_as_on_libtorch() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared");
    let images = shared.join("data/cifar10/lossless-test_batch.bin");
    if !images.is_file() {
        println!("skipped: {} is not there", images.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    // Images of 932 that are answered right, from the accuracies published with the weights.
    for (depth, right) in [(20, 854), (32, 867), (44, 871), (56, 863)] {
        let name = format!("resnet{depth}_cifar");
        let path = shared.join(format!("weights/resnet{depth}_cifar10.safetensors"));
        let options = EvaluateOptions {
            teacher: None,
            network: ZooOptions::default(),
            data: format!("cifar10:{}", images.display()),
            batch: 64,
            threads: 2,
            device: "cpu".into(),
            preprocessing: lana::PreprocessingConfig::default(),
        };
        let weighted = NetworkFile { name: name.clone(), weights: Some(path.clone().into()) };
        let torch = evaluate(&weighted, &options, &Silent).unwrap().accuracy;

        let graph = zoo::build(&name, &ZooOptions::default()).unwrap();
        let weights = Weights::load(&path).unwrap();
        let (folded, folded_weights) = fold_batch_norm(&graph, &weights).unwrap();
        let file = folder.path().join(format!("{name}.onnx"));
        std::fs::write(&file, export(&folded, &folded_weights, &ExportOptions::default()).unwrap()).unwrap();
        let exported = NetworkFile { name: file.to_str().unwrap().into(), weights: None };
        let options = EvaluateOptions { teacher: Some(weighted), ..options };
        let assessment = evaluate(&exported, &options, &Silent).unwrap();
        assert!(assessment.agreement > Some(0.998), "{name}: {:?}", assessment.agreement);
        assert!(assessment.calibration_error > 0.0 && assessment.calibration_error < 0.1, "{name}");
        assert_eq!(assessment.classes.len(), 10);
        let onnx = assessment.accuracy;

        assert_eq!((torch.images, onnx.images), (932, 932));
        assert_eq!(torch.top1, onnx.top1, "{name}");
        assert_eq!((torch.top1 * 932.0).round() as i64, right, "{name}");
        assert!((torch.loss - onnx.loss).abs() < 1e-5, "{name}: {} and {}", torch.loss, onnx.loss);
    }
}
