//! Reads ONNX files and writes what lana made of them: `round_trip [--nodes] FILE.onnx OUT.onnx …`.
//!
//! Pairs of files follow one another. With `--nodes` the operations of each network are listed. `cargo xtask parity --onnx`
//! compares what both files compute.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let lists = files.first().is_some_and(|first| first == "--nodes");
    if lists {
        files.remove(0);
    }
    let mut failed = false;
    for pair in files.chunks_exact(2) {
        match round_trip(Path::new(&pair[0]), Path::new(&pair[1]), lists) {
            Ok(summary) => println!("{}: {summary}", pair[0]),
            Err(error) => {
                failed = true;
                println!("{error}");
            }
        }
    }
    if failed || !files.len().is_multiple_of(2) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn round_trip(from: &Path, to: &Path, lists: bool) -> Result<String, Box<dyn std::error::Error>> {
    let (graph, weights) = lana_onnx::import_file(from)?;
    if lists {
        println!("{graph:?}");
    }
    std::fs::write(to, lana_onnx::export(&graph, &weights, &lana_onnx::ExportOptions::default())?)?;
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    graph.nodes().iter().for_each(|node| *kinds.entry(node.op.kind()).or_default() += 1);
    let kinds: Vec<String> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    Ok(kinds.join(", "))
}
