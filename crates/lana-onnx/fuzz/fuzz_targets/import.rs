//! Whatever bytes are read as an ONNX file: an error, or a network with names that may stand anywhere, in which layers are found or
//! not, and which can be written and read again with and without them.
#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use lana_graph::{Graph, LayerRules, Weights, discover};
use lana_onnx::{ExportOptions, Result, export, import, import_file};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok((graph, weights)) = read(bytes) else { return };
    graph.nodes().iter().for_each(|node| assert!(is_safe(&node.name), "{:?}", node.name));
    check(&graph, &weights);
    let Ok(found) = discover(&graph, &LayerRules::default()) else { return };
    assert_eq!(found.nodes(), graph.nodes());
    for layer in found.layers() {
        // What is called the same as another has its place behind it.
        let name = layer.name.replace('@', "");
        assert!(is_safe(&name) && is_safe(&layer.stage) && name.len() < 240, "{:?}", layer.name);
        found.layer_graph(&layer.name).expect("a layer is a network");
    }
    check(&found, &weights);
});

/// Reads a model, from a folder with a file of weights if it names any: that takes much longer.
fn read(bytes: &[u8]) -> Result<(Graph, Weights)> {
    if !bytes.windows(8).any(|part| part == b"location") {
        return import(bytes);
    }
    let path = folder().join("model.onnx");
    fs::write(&path, bytes).expect("a temporary file");
    import_file(&path)
}

/// A folder with `weights.bin`, 1 KiB of small numbers, and nothing that could be mistaken for one elsewhere.
fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("lana-onnx-fuzz-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let numbers = (0..256).map(|n| (n % 11 - 5) as f32 / 8.0);
        let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
        fs::write(folder.join("weights.bin"), bytes).expect("a temporary file");
        folder
    })
}

/// What was read can be written, and read again as the same.
fn check(graph: &Graph, weights: &Weights) {
    let written = export(graph, weights, &ExportOptions::default()).expect("what was read can be written");
    let (again, same) = import(&written).expect("what was written can be read");
    assert_eq!((&again, &same), (graph, weights));
}

/// Whether a name is components of letters, digits, `_` and `-` with dots between them.
fn is_safe(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    let is_part = |part: &str| !part.is_empty() && part.chars().all(is_letter);
    name.len() < 255 && !name.starts_with('-') && name.split('.').all(is_part)
}
