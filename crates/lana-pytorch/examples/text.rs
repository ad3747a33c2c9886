//! Prints the PyTorch text of a network: `cargo run -p lana-pytorch --example text -- GRAPH.json > network.py`. Its weights are expected
//! beside it, as weights.safetensors.
#![allow(clippy::print_stdout)] // its result

use std::path::PathBuf;

use lana_graph::Graph;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path: PathBuf = std::env::args_os().nth(1).ok_or("usage: text GRAPH.json")?.into();
    print!("{}", lana_pytorch::student(&Graph::load(&path)?, "weights.safetensors", "")?);
    Ok(())
}
