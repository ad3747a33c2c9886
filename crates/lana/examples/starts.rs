//! How near operations are to the teacher before any training: `cargo run --release -p lana --example starts -- TEACHER
//! WEIGHTS DATA POOL [IMAGES [GROUP]]` prints, for each operation of the pool over the layers where it applies, the normalised
//! error of its start from the teacher's weights and that of a random start.
//!
//! The error relative to the feature map's power flatters whatever has a residual connection, since that carries most of
//! the power. So it is also given relative to the error of the shortcut alone (which is skipping the layer, where the
//! shape stays): below 1 is better than nothing.
#![allow(clippy::print_stdout)] // its result

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use lana_data::{DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, Transform};
use lana_graph::{Graph, LayerRules, Weights, discover};
use lana_models::pool::{Operation, Pool};
use lana_models::{init, zoo, zoo::Preprocessing, zoo::ZooOptions};
use lana_torch::{Batch, BatchNorm, Device, Network, Tensor, normalised_error, without_gradients};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [teacher, weights, data, pool, rest @ ..] = arguments.as_slice() else {
        eprintln!("usage: starts TEACHER WEIGHTS DATA POOL [IMAGES [GROUP]]");
        return ExitCode::from(2);
    };
    let images = rest.first().and_then(|text| text.parse().ok()).unwrap_or(256);
    // Blocks of a layer, at most.
    let group = rest.get(1).and_then(|text| text.parse().ok()).unwrap_or(1);
    match table(teacher, Path::new(weights), data, pool, images, group) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The errors of one operation at one layer, from the teacher's weights and from random ones.
struct Errors {
    started: f64,
    random: f64,
    /// Of the shortcut alone.
    shortcut: f64,
}

fn table(
    teacher: &str,
    weights: &Path,
    data: &str,
    pool: &str,
    images: usize,
    group: usize,
) -> Result<(), Box<dyn Error>> {
    let graph = zoo::build(teacher, &ZooOptions::default())?;
    let graph = discover(&graph, &LayerRules { group, ..LayerRules::alone() })?;
    let weights = Weights::load(weights)?;
    weights.check(&graph)?;
    let pool = Pool::parse(pool)?;
    let input = first_images(&graph, data, images)?;
    let network = Network::new(&graph, &weights, Device::Cpu)?;
    let taps: Vec<_> = graph.layers().iter().flat_map(|layer| [layer.input, layer.output]).collect();
    let (_, maps) = without_gradients(|| network.forward_tapped(&input, BatchNorm::Running, &taps))?;

    let mut rows: BTreeMap<usize, Vec<Errors>> = BTreeMap::new();
    for (layer, maps) in graph.layers().iter().zip(maps.chunks_exact(2)) {
        let own = graph.layer_graph(&layer.name)?;
        let own_weights = weights.under(&layer.name);
        let error = |graph: &Graph, weights: &Weights| -> Result<f64, Box<dyn Error>> {
            let network = Network::new(graph, weights, Device::Cpu)?;
            let output = without_gradients(|| network.forward(&maps[0], BatchNorm::Batch))?;
            Ok(normalised_error(&output, &maps[1])?)
        };
        // Nothing but its shortcut is left of it at the start.
        let nothing: Operation = "conv-k1".parse()?;
        let nothing_graph = nothing.build(&own)?;
        let shortcut = error(&nothing_graph, &nothing.initialise(&own, &own_weights, &nothing_graph, 0)?)?;
        for (index, (operation, built)) in pool.operations_for(&own).into_iter().enumerate() {
            let Ok(built) = built else { continue };
            if operation.is_teacher() || operation.is_identity() {
                continue;
            }
            let start = operation.initialise(&own, &own_weights, &built, 0)?;
            let (started, random) = (error(&built, &start)?, error(&built, &init::random(&built, 0))?);
            rows.entry(index).or_default().push(Errors { started, random, shortcut });
        }
    }
    println!("| operation | layers | started | random | started / shortcut | worst | random / shortcut |");
    println!("|---|---|---|---|---|---|---|");
    for (index, errors) in rows {
        let mean = |of: fn(&Errors) -> f64| errors.iter().map(of).sum::<f64>() / errors.len() as f64;
        let worst = errors.iter().map(|e| e.started / e.shortcut).fold(0.0, f64::max);
        println!(
            "| `{}` | {} | {:.4} | {:.4} | {:.3} | {worst:.3} | {:.2} |",
            pool.operations()[index],
            errors.len(),
            mean(|e| e.started),
            mean(|e| e.random),
            mean(|e| e.started / e.shortcut),
            mean(|e| e.random / e.shortcut),
        );
    }
    Ok(())
}

/// The first images of the data as the teacher wants them.
fn first_images(graph: &Graph, data: &str, images: usize) -> Result<Tensor, Box<dyn Error>> {
    let spec: DataSpec = data.parse()?;
    let (_, size, _) = graph.input_shape().as_image().ok_or("the teacher takes no images")?;
    let dataset =
        Arc::new(Dataset::open(&spec, &DatasetOptions { size: Some(size), ..DatasetOptions::default() })?);
    let Preprocessing { mean, std, .. } = zoo::entry(graph.name())?.preprocessing;
    let transform = Transform { mean, std, ..Transform::evaluation(size) };
    let config = LoaderConfig { batch: images.min(dataset.len()), ..LoaderConfig::default() };
    let batch = Loader::new(dataset, transform, config)?.epoch(0).next().ok_or("there are no images")??;
    Ok(Batch::new(&batch.images, &batch.labels, graph.input_shape(), Device::Cpu)?.images)
}
