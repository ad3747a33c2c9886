//! How fast phase 1 is: `cargo xtask bench phase1` runs this beside a PyTorch script of the paper's schedule.
//!
//! `phase1 dump FOLDER TEACHER POOL BATCH [WEIGHTS DATA]` writes the teacher, the operations that are to be trained, their first weights and a few
//! batches of images, so that both sides do the same work. `phase1 time FOLDER THREADS STEPS [SKIP]` trains all operations on these
//! batches as `lana pretrain` does and prints one JSON object; SKIP steps come before the clock starts.
#![allow(clippy::print_stdout)] // its result

mod sides;

use std::error::Error;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use lana_data::{DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, Transform};
use lana_graph::{Graph, Tensor as Array, Weights};
use lana_models::pool::Pool;
use lana_models::{init, zoo, zoo::ZooOptions};
use lana_torch::{
    Algorithm, Batch, BatchNorm, Device, Exercise, Imitation, Imitator, Lesson, Network, Tensor,
    feature_maps, imitate,
};

use sides::{noise, peak_mb};

type Failure = Box<dyn Error>;

/// Batches that are dumped; steps go round them.
const BATCHES: usize = 4;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["dump", folder, teacher, pool, batch, rest @ ..] => batch
            .parse()
            .map_err(Failure::from)
            .and_then(|batch| dump(Path::new(folder), teacher, pool, batch, rest)),
        ["time", folder, threads, steps, skip] => {
            (|| time(Path::new(folder), threads.parse()?, steps.parse()?, skip.parse()?))()
        }
        _ => {
            eprintln!(
                "usage: phase1 dump FOLDER TEACHER POOL BATCH [WEIGHTS DATA] | phase1 time FOLDER THREADS STEPS SKIP"
            );
            return ExitCode::from(2);
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn dump(folder: &Path, teacher: &str, pool: &str, batch: usize, real: &[&str]) -> Result<(), Failure> {
    let graph = zoo::build(teacher, &ZooOptions::default())?;
    let (weights, images) = match real {
        [weights, data] => (Weights::load(Path::new(weights))?, images(&graph, data, batch)?),
        _ => {
            let images = noise(BATCHES * batch * graph.input_shape().elements());
            (settled(&graph, &init::random(&graph, 0), &images[..images.len() / BATCHES])?, images)
        }
    };
    weights.check(&graph)?;
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder.join("operations"))?;
    fs::write(folder.join("teacher.json"), graph.to_json())?;
    fs::write(folder.join("teacher.safetensors"), weights.to_bytes())?;
    let shape = [&[BATCHES, batch], graph.input_shape().dims()].concat();
    let mut all = Weights::new();
    all.insert("images", Array { shape, data: images });
    fs::write(folder.join("images.safetensors"), all.to_bytes())?;
    let pool = Pool::parse(pool)?;
    for (index, layer) in graph.layers().iter().enumerate() {
        let own = graph.layer_graph(&layer.name)?;
        let own_weights = weights.under(&layer.name);
        for (operation, built) in pool.operations_for(&own) {
            let Ok(built) = built else { continue };
            if operation.is_teacher() || operation.is_identity() {
                continue;
            }
            let start = operation.initialise(&own, &own_weights, &built, index as u64)?;
            let base = folder.join("operations").join(format!("{index:03}.{operation}"));
            fs::write(format!("{}.json", base.display()), built.to_json())?;
            fs::write(format!("{}.safetensors", base.display()), start.to_bytes())?;
        }
    }
    Ok(())
}

/// The first images of a data set, as numbers.
fn images(graph: &Graph, data: &str, batch: usize) -> Result<Vec<f32>, Failure> {
    let (preprocessing, size) = (zoo::entry(graph.name())?.preprocessing, graph.input_shape().dims()[1]);
    let options = DatasetOptions { size: Some(size), ..DatasetOptions::default() };
    let dataset = Arc::new(Dataset::open(&data.parse::<DataSpec>()?, &options)?);
    let transform =
        Transform { mean: preprocessing.mean, std: preprocessing.std, ..Transform::evaluation(size) };
    let loader = Loader::new(dataset, transform, LoaderConfig { batch, ..LoaderConfig::default() })?;
    let mut numbers = Vec::new();
    for batch in loader.epoch(0).take(BATCHES) {
        numbers.extend(batch?.images);
    }
    Ok(numbers)
}

/// Random weights whose BatchNorms know the statistics of `images`, without which the maps of a deep network go beyond all
/// numbers.
fn settled(graph: &Graph, weights: &Weights, images: &[f32]) -> Result<Weights, Failure> {
    lana_torch::init();
    let labels = vec![0; images.len() / graph.input_shape().elements()];
    let images = Batch::new(images, &labels, graph.input_shape(), Device::Cpu)?;
    let network = Network::new(graph, weights, Device::Cpu)?;
    let _ = network.forward(&images.images, BatchNorm::Settle(1))?;
    Ok(network.weights()?)
}

fn time(folder: &Path, threads: usize, steps: usize, skip: usize) -> Result<(), Failure> {
    lana_torch::init();
    let threads = rayon::ThreadPoolBuilder::new().num_threads(threads).build()?;
    let graph = Graph::load(&folder.join("teacher.json"))?;
    let teacher = Network::frozen(&graph, &Weights::load(&folder.join("teacher.safetensors"))?, Device::Cpu)?;
    let mut names: Vec<_> = fs::read_dir(folder.join("operations"))?
        .filter_map(|entry| Some(entry.ok()?.path()).filter(|p| p.extension().is_some_and(|e| e == "json")))
        .collect();
    names.sort();
    let lesson = Lesson::new(Algorithm::AdamW { weight_decay: 1e-4 });
    let mut imitators = Vec::new();
    // Multiplications and additions for one image: a network forwards, the operations also backwards, which takes twice that.
    let mut flops = 2 * graph.cost().macs;
    for path in names {
        let layer: usize = path.file_name().and_then(|n| n.to_str()).unwrap_or_default()[..3].parse()?;
        let weights =
            Weights::load(&path.with_extension("").with_extension("safetensors")).or_else(|_| {
                Weights::load(Path::new(&path.display().to_string().replace(".json", ".safetensors")))
            })?;
        let operation = Graph::load(&path)?;
        flops += 6 * operation.cost().macs;
        imitators.push((layer, Imitator::new(&operation, &weights, &lesson, Device::Cpu)?));
    }
    let images = Weights::load(&folder.join("images.safetensors"))?;
    let images = images.get("images").ok_or("no images")?;
    let batch = images.shape[1];
    let labels = vec![0; batch];
    let batches = images
        .data
        .chunks_exact(batch * graph.input_shape().elements())
        .map(|pixels| Batch::new(pixels, &labels, graph.input_shape(), Device::Cpu))
        .collect::<Result<Vec<_>, _>>()?;
    let layers: Vec<usize> = (0..graph.layers().len()).collect();
    let layers = layers.as_slice();
    let mut maps = feature_maps(&teacher, &batches[0].images, layers)?;
    let mut begun = Instant::now();
    let mut first = 0.0;
    for step in 0..skip + steps {
        if step == skip {
            begun = Instant::now();
        }
        let tasks = imitators
            .iter_mut()
            .map(|(layer, imitator)| Imitation {
                imitator,
                maps: maps[*layer].share(),
                exercise: Exercise::Learn(1e-3),
            })
            .collect();
        let next = batches[(step + 1) % batches.len()].images.shallow_clone();
        let teacher = teacher.share();
        let (result, next) =
            threads.install(|| imitate(tasks, move || feature_maps(&teacher, &next, layers)));
        result?;
        maps = next?;
        if step == 0 {
            first = imitators.iter_mut().map(|(_, i)| i.take_loss()).sum::<f64>() / imitators.len() as f64;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let last = imitators.iter_mut().map(|(_, i)| i.take_loss()).sum::<f64>() / imitators.len() as f64;
    let value = serde_json::json!({
        "seconds": seconds, "images": steps * batch, "operations": imitators.len(),
        "rate": (steps * batch * imitators.len()) as f64 / seconds,
        "first_error": first, "mean_error": last, "peak_mb": peak_mb(),
        "gflops": (steps * batch) as f64 * flops as f64 / seconds / 1e9,
        "matmul_gflops": threads.install(matmul_gflops),
    });
    println!("{value}");
    Ok(())
}

/// What the machine reaches at best: products of square matrices of 32-bit floats, one after the other on every thread.
fn matmul_gflops() -> f64 {
    const SIDE: i64 = 1536;
    const PRODUCTS: usize = 20;
    let rates = rayon::broadcast(|_| {
        let ones = vec![1.0f32; (SIDE * SIDE) as usize];
        let matrices = [0; 2].map(|_| Tensor::from_slice(&ones).reshape([SIDE, SIDE]));
        let product = || matrices[0].matmul(&matrices[1]);
        drop(product());
        let begun = Instant::now();
        (0..PRODUCTS).for_each(|_| drop(product()));
        PRODUCTS as f64 * 2.0 * (SIDE as f64).powi(3) / begun.elapsed().as_secs_f64() / 1e9
    });
    rates.into_iter().sum()
}
