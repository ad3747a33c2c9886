//! ONNX files of any kind, measured. Without ONNX Runtime these tests say so and pass.

use std::path::PathBuf;
use std::time::Duration;

use lana_latency::{
    Deployment, Error, MeasureOptions, MeasureReport, OnnxRuntime, Precision, RuntimeKind, Shapes,
    measure_files,
};
use lana_onnx::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto,
    attribute_type, data_type,
};
use prost::Message;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Whether there is a runtime to test with; the reason is printed if there is none.
fn runtime() -> bool {
    OnnxRuntime::load().inspect_err(|reason| eprintln!("skipped: {reason}")).is_ok()
}

/// An input: its name, what it holds, its dimensions (numbers, names, or `?`).
type Input<'a> = (&'a str, i32, &'a [&'a str]);

fn input((name, element, dims): &Input<'_>) -> ValueInfoProto {
    let dim = dims.iter().map(|dim| DimensionProto {
        dim_value: dim.parse().ok(),
        dim_param: (dim.parse::<i64>().is_err() && *dim != "?").then(|| dim.to_string()),
    });
    let shape = TensorShapeProto { dim: dim.collect() };
    let tensor = TensorTypeProto { elem_type: Some(*element), shape: Some(shape) };
    ValueInfoProto { name: Some(name.to_string()), r#type: Some(TypeProto { tensor_type: Some(tensor) }) }
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.into()],
        name: Some(output.into()),
        op_type: Some(op_type.into()),
        ..NodeProto::default()
    }
}

fn cast(from: &str, to: &str) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("to".into()),
        i: Some(data_type::FLOAT.into()),
        r#type: Some(attribute_type::INT),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node("Cast", &[from], to) }
}

/// A model whose last node gives the output, of whatever type that is.
fn model(inputs: &[Input<'_>], nodes: Vec<NodeProto>, initializer: Vec<TensorProto>) -> Vec<u8> {
    let output = nodes.last().map(|n| n.output[0].clone());
    let model = ModelProto {
        ir_version: Some(8),
        producer_name: Some("tests".into()),
        producer_version: None,
        graph: Some(GraphProto {
            node: nodes,
            name: Some("odd".into()),
            initializer,
            input: inputs.iter().map(input).collect(),
            output: vec![ValueInfoProto { name: output, r#type: None }],
        }),
        opset_import: vec![OperatorSetIdProto { domain: Some(String::new()), version: Some(17) }],
        metadata_props: Vec::new(),
    };
    model.encode_to_vec()
}

/// Files in a folder that goes when this is dropped.
struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new() -> std::io::Result<Self> {
        Ok(Files { folder: tempfile::tempdir()? })
    }

    fn add(&self, name: &str, bytes: Vec<u8>) -> std::io::Result<PathBuf> {
        let path = self.folder.path().join(name);
        std::fs::write(&path, bytes)?;
        Ok(path)
    }
}

fn options(shapes: Shapes) -> MeasureOptions {
    MeasureOptions {
        min_repeats: 3,
        time_limit: Duration::from_millis(50),
        shapes,
        ..MeasureOptions::default()
    }
}

fn measure(file: &PathBuf, batch: Option<usize>, shapes: Shapes) -> Result<MeasureReport, Error> {
    measure_files(std::slice::from_ref(file), batch, &options(shapes))
}

fn shapes(inputs: &[&str], dims: &[&str]) -> Result<Shapes, Error> {
    Ok(Shapes {
        inputs: inputs.iter().map(|s| s.parse()).collect::<Result<_, _>>()?,
        dims: dims.iter().map(|s| s.parse()).collect::<Result<_, _>>()?,
    })
}

#[test]
fn inputs_of_every_kind_are_made_up() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    // A text encoder in miniature: two inputs, one of integers, a named length.
    let tokens: [Input<'_>; 2] = [
        ("ids", data_type::INT64, &["batch", "sequence"]),
        ("mask", data_type::FLOAT, &["batch", "sequence"]),
    ];
    let text = model(&tokens, vec![cast("ids", "x"), node("Add", &["x", "mask"], "y")], vec![]);
    let text = files.add("text.onnx", text)?;
    let report = measure(&text, Some(4), shapes(&[], &["sequence=7"])?)?;
    let shape: Vec<_> =
        report.models[0].inputs.iter().map(|i| (i.element.as_str(), i.shape.as_slice())).collect();
    assert_eq!(shape, [("int64", &[4, 7][..]), ("float", &[4, 7][..])]);
    assert_eq!((report.batch, report.models[0].ratio), (4, 1.0));
    assert!(report.models[0].median_ms > 0.0);
    assert_eq!(measure(&text, None, shapes(&[], &["sequence=7", "batch=3"])?)?.batch, 3);
    let error = measure(&text, None, Shapes::default()).expect_err("no length").to_string();
    assert!(error.contains("text.onnx: its input `ids` (batch×sequence)"), "{error}");
    assert!(error.contains("--dim sequence=N") && error.contains("--shape ids=NxN"), "{error}");

    // Halves, bytes, booleans, a single number.
    for (name, kind, element) in [
        ("half", data_type::FLOAT16, "float16"),
        ("byte", data_type::UINT8, "uint8"),
        ("bool", data_type::BOOL, "bool"),
    ] {
        let one: [Input<'_>; 2] = [("x", kind, &["N", "8"]), ("factor", data_type::FLOAT, &[])];
        let nodes = vec![cast("x", "z"), node("Mul", &["z", "factor"], "y")];
        let file = files.add(&format!("{name}.onnx"), model(&one, nodes, vec![]))?;
        let report = measure(&file, None, Shapes::default())?;
        assert_eq!((report.models[0].inputs[0].element.as_str(), report.batch), (element, 1));
        assert_eq!(report.models[0].inputs[1].shape, [0; 0]);
    }

    // An image of any size, by both options.
    let image: [Input<'_>; 1] = [("x", data_type::FLOAT, &["?", "3", "height", "width"])];
    let image = files.add("image.onnx", model(&image, vec![node("Relu", &["x"], "y")], vec![]))?;
    for given in [shapes(&[], &["height=20", "width=30"])?, shapes(&["2x3x20x30"], &[])?] {
        let report = measure(&image, None, given)?;
        assert_eq!(report.models[0].inputs[0].shape[1..], [3, 20, 30]);
    }
    let error =
        measure(&image, Some(3), shapes(&["x=2x3x20x30"], &[])?).expect_err("two batches").to_string();
    assert!(error.contains("image.onnx") && error.contains("leave --batch out"), "{error}");
    Ok(())
}

#[test]
fn outputs_of_every_kind_are_taken() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    let vector: [Input<'_>; 1] = [("x", data_type::FLOAT, &["batch", "6"])];
    for op in ["ArgMax", "SplitToSequence", "Shape"] {
        let file = files.add(&format!("{op}.onnx"), model(&vector, vec![node(op, &["x"], "y")], vec![]))?;
        let report = measure(&file, Some(2), Shapes::default())?;
        assert!(report.models[0].median_ms > 0.0, "{op}");
    }
    Ok(())
}

#[test]
fn files_of_different_shapes_are_measured_together() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    let relu =
        |dims: &[&str]| model(&[("x", data_type::FLOAT, dims)], vec![node("Relu", &["x"], "y")], vec![]);
    let small = files.add("small.onnx", relu(&["batch", "8"]))?;
    let fixed = files.add("fixed.onnx", relu(&["5", "3", "16", "16"]))?;
    let other = files.add("other.onnx", relu(&["2", "4"]))?;
    let report = measure_files(&[small.clone(), fixed.clone()], None, &options(Shapes::default()))?;
    assert_eq!((report.batch, report.models.len()), (5, 2));
    assert_eq!(report.models[0].inputs[0].shape, [5, 8]);
    assert!(report.models.iter().all(|m| m.repeats >= 3 && m.ratio > 0.0));
    let json = serde_json::to_value(&report)?;
    for field in ["models", "runtime", "device", "batch", "threads"] {
        assert!(!json[field].is_null(), "{field}");
    }
    assert_eq!(json["precision"], "fp32");
    if !report.settled {
        assert!(report.notes.iter().any(|note| note.contains("--time-limit")), "{:?}", report.notes);
    }

    let error =
        measure_files(&[fixed.clone(), other], None, &options(Shapes::default())).expect_err("batches");
    let error = error.to_string();
    assert!(error.contains("other.onnx takes batches of 2") && error.contains("fixed.onnx of 5"), "{error}");
    let error = measure(&fixed, Some(1), Shapes::default()).expect_err("another batch").to_string();
    assert!(error.ends_with("fixed.onnx: takes batches of 5 alone, not of 1"), "{error}");
    let error = measure(&small, None, shapes(&[], &["length=3"])?).expect_err("no such").to_string();
    assert!(error.contains("--dim: no dimension `length`; there are batch"), "{error}");
    Ok(())
}

#[test]
fn what_cannot_be_measured_is_named() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    let words: [Input<'_>; 1] = [("words", data_type::STRING, &["3"])];
    let words = files.add("words.onnx", model(&words, vec![node("Identity", &["words"], "y")], vec![]))?;
    let error = measure(&words, None, Shapes::default()).expect_err("strings").to_string();
    assert!(error.contains("words.onnx: its input `words`"), "{error}");
    let garbage = files.add("garbage.onnx", b"garbage".to_vec())?;
    let error = measure(&garbage, None, Shapes::default()).expect_err("garbage").to_string();
    assert!(error.contains("garbage.onnx: ONNX Runtime cannot open it"), "{error}");
    assert!(error.contains("no ONNX file, or not whole"), "{error}");

    // Nothing to compute, and what only shows when it runs.
    let vector: [Input<'_>; 1] = [("x", data_type::FLOAT, &["batch", "6"])];
    let mut silent = ModelProto::decode(&*model(&vector, vec![node("Relu", &["x"], "y")], vec![]))?;
    silent.graph.iter_mut().for_each(|graph| graph.output.clear());
    let silent = files.add("silent.onnx", silent.encode_to_vec())?;
    let error = measure(&silent, None, Shapes::default()).expect_err("no outputs").to_string();
    assert!(error.contains("silent.onnx: ") && error.contains("no outputs"), "{error}");
    let shape = TensorProto {
        dims: vec![1],
        data_type: Some(data_type::INT64),
        int64_data: vec![12],
        name: Some("twelve".into()),
        ..TensorProto::default()
    };
    let twelve = model(&vector, vec![node("Reshape", &["x", "twelve"], "y")], vec![shape]);
    let twelve = files.add("twelve.onnx", twelve)?;
    assert_eq!(measure(&twelve, Some(2), Shapes::default())?.batch, 2);
    let error = measure(&twelve, None, Shapes::default()).expect_err("six numbers").to_string();
    assert!(error.contains("twelve.onnx: cannot run with `x` 1×6: ") && error.contains("--batch"), "{error}");
    assert!(!error.contains("onnxruntime_src"), "{error}");

    // What lana cannot take in cannot be converted; as it is it runs.
    let odd: [Input<'_>; 1] = [("x", data_type::FLOAT, &["batch", "6"])];
    let odd = files.add("odd.onnx", model(&odd, vec![node("ArgMax", &["x"], "y")], vec![]))?;
    let deployment = Deployment { precision: Precision::Fp16, ..Deployment::default() };
    let half = MeasureOptions { deployment, ..options(Shapes::default()) };
    let error = measure_files(std::slice::from_ref(&odd), None, &half).expect_err("converted").to_string();
    assert!(
        error.contains("odd.onnx: lana cannot convert it to fp16") && error.contains("ArgMax"),
        "{error}"
    );
    Ok(())
}

#[test]
fn weights_may_lie_beside_the_file() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    let weights = TensorProto {
        dims: vec![6],
        data_type: Some(data_type::FLOAT),
        name: Some("w".into()),
        external_data: vec![entry("location", "beside.bin"), entry("offset", "0"), entry("length", "24")],
        data_location: Some(1),
        ..TensorProto::default()
    };
    let vector: [Input<'_>; 1] = [("x", data_type::FLOAT, &["batch", "6"])];
    let file =
        files.add("outside.onnx", model(&vector, vec![node("Mul", &["x", "w"], "y")], vec![weights]))?;
    let error = measure(&file, None, Shapes::default()).expect_err("no weights").to_string();
    assert!(error.contains("outside.onnx: ") && error.contains("beside.bin"), "{error}");
    files.add("beside.bin", vec![0; 24])?;
    assert!(measure(&file, None, Shapes::default())?.models[0].median_ms > 0.0);
    Ok(())
}

#[test]
fn a_gpu_that_is_not_there_is_not_replaced_in_silence() -> Outcome {
    if !runtime() {
        return Ok(());
    }
    let files = Files::new()?;
    let vector: [Input<'_>; 1] = [("x", data_type::FLOAT, &["batch", "6"])];
    let file = files.add("x.onnx", model(&vector, vec![node("Relu", &["x"], "y")], vec![]))?;
    for label in ["cuda", "cuda-tensorrt"] {
        let options = MeasureOptions { deployment: label.parse()?, ..options(Shapes::default()) };
        // On a machine with a GPU and such a library it simply runs.
        if let Err(error) = measure_files(std::slice::from_ref(&file), None, &options) {
            let error = error.to_string();
            assert!(
                error.contains("libonnxruntime")
                    && (error.contains("ORT_DYLIB_PATH") || error.contains("LD_LIBRARY_PATH")),
                "{error}"
            );
        }
    }
    // The crate alone knows no libtorch.
    if cfg!(not(feature = "torch")) {
        let deployment = Deployment { runtime: RuntimeKind::Torch, ..Deployment::default() };
        let options = MeasureOptions { deployment, ..options(Shapes::default()) };
        let error =
            measure_files(std::slice::from_ref(&file), None, &options).expect_err("no libtorch").to_string();
        assert!(
            error.contains("built without libtorch") && error.contains("--runtime onnxruntime"),
            "{error}"
        );
    }
    Ok(())
}
