//! One side of `cargo xtask bench finetune`: how many images a second a student is trained on by distillation.
//!
//! `finetune dump FOLDER ARCH BATCH` writes teacher, student and images; `finetune time FOLDER THREADS STEPS SKIP MODE` trains, with MODE
//! `together` (teacher, then student, kernels of both on all threads) or `overlapped` (the teacher on another thread). Both do what
//! the stage does: the decoded batch is shared, the teacher frozen.
#![allow(clippy::print_stdout)] // its result

mod sides;

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use lana_graph::{Graph, Tensor as Array, Weights};
use lana_models::{init, zoo, zoo::ZooOptions};
use lana_torch::{
    Algorithm, Answers, Batch, BatchNorm, Device, Distiller, Mixture, Network, Training, with_kernel_threads,
};

use sides::{noise, peak_mb};

type Failure = Box<dyn Error>;

/// Batches that are written; steps go round.
const BATCHES: usize = 4;

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["dump", folder, architecture, batch] => dump(Path::new(folder), architecture, batch.parse()?),
        ["time", folder, threads, steps, skip, mode @ ("together" | "overlapped")] => {
            let overlapped = mode == "overlapped";
            time(Path::new(folder), threads.parse()?, steps.parse()?, skip.parse()?, overlapped)
        }
        _ => {
            Err("usage: finetune dump FOLDER ARCH BATCH | time FOLDER THREADS STEPS SKIP together|overlapped"
                .into())
        }
    }
}

fn dump(folder: &Path, architecture: &str, batch: usize) -> Result<(), Failure> {
    lana_torch::init();
    let graph = zoo::build(architecture, &ZooOptions::default())?;
    let shape = graph.input_shape().clone();
    let pixels = noise(BATCHES * batch * shape.elements());
    fs::create_dir_all(folder)?;
    for (name, seed) in [("teacher", 1), ("student", 2)] {
        let mut weights = init::random(&graph, seed);
        // No residual branch that gives nothing, and statistics that belong to the weights.
        for parameter in graph.parameters() {
            if weights.get(&parameter.name).is_some_and(|t| t.data.iter().all(|v| *v == 0.0))
                && parameter.name.ends_with(".weight")
            {
                weights.insert(parameter.name, Array::full(&parameter.shape, 0.3));
            }
        }
        let network = Network::new(&graph, &weights, Device::Cpu)?;
        let first = Batch::new(&pixels[..batch * shape.elements()], &vec![0; batch], &shape, Device::Cpu)?;
        let _ = lana_torch::without_gradients(|| network.forward(&first.images, BatchNorm::Settle(1)))?;
        fs::write(folder.join(format!("{name}.json")), graph.to_json())?;
        fs::write(folder.join(format!("{name}.safetensors")), network.weights()?.to_bytes())?;
    }
    let shape = [&[BATCHES, batch], shape.dims()].concat();
    let mut all = Weights::new();
    all.insert("images", Array { shape, data: pixels });
    fs::write(folder.join("images.safetensors"), all.to_bytes())?;
    Ok(())
}

fn time(folder: &Path, threads: usize, steps: usize, skip: usize, overlapped: bool) -> Result<(), Failure> {
    lana_torch::init();
    let read = |name: &str| -> Result<(Graph, Weights), Failure> {
        let path: PathBuf = folder.join(name);
        Ok((Graph::load(&path.with_extension("json"))?, Weights::load(&path.with_extension("safetensors"))?))
    };
    let ((graph, weights), (student, start)) = (read("teacher")?, read("student")?);
    let teacher = Network::frozen(&graph, &weights, Device::Cpu)?;
    let training =
        Training { clip: Some(5.0), ..Training::new(Algorithm::Sgd { momentum: 0.9, weight_decay: 1e-4 }) };
    let mut distiller = Distiller::new(&student, &start, &training, Device::Cpu)?;
    let mixture = Mixture { distillation: 1.0, temperature: 2.0, ..Mixture::default() };
    let images = Weights::load(&folder.join("images.safetensors"))?;
    let images = images.get("images").ok_or("no images")?;
    let batch = images.shape[1];
    let shape = graph.input_shape().clone();
    let labels: Vec<i64> = (0..batch as i64).map(|i| i % 10).collect();
    let make = |at: usize| {
        let size = batch * shape.elements();
        let at = at % BATCHES * size;
        Batch::new(&images.data[at..at + size], &labels, &shape, Device::Cpu)
    };
    let answer = |batch: &Batch| Answers::of(&teacher, &batch.images, &[]);
    let (mut begun, mut losses) = (Instant::now(), Vec::new());
    std::thread::scope(|scope| -> Result<(), Failure> {
        let (send, receive) = std::sync::mpsc::sync_channel(3);
        let ahead = teacher.share();
        let make = &make;
        scope.spawn(move || {
            for at in 0..skip + steps {
                let item = make(at).and_then(|batch| {
                    let answers = overlapped.then(|| Answers::of(&ahead, &batch.images, &[])).transpose()?;
                    Ok((batch, answers))
                });
                if send.send(item).is_err() {
                    return;
                }
            }
        });
        for at in 0..skip + steps {
            if at == skip {
                begun = Instant::now();
            }
            let (batch, answers) = receive.recv()??;
            let step = || -> lana_torch::Result<f64> {
                let answers = match answers {
                    Some(answers) => answers,
                    None => answer(&batch)?,
                };
                distiller.step(&batch, Some(&answers), &mixture, 1e-3)
            };
            losses.push(with_kernel_threads(if overlapped { 1 } else { threads }, step)?);
        }
        Ok(())
    })?;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{{\"rate\": {}, \"first_loss\": {}, \"last_loss\": {}, \"peak_mb\": {}}}",
        (steps * batch) as f64 / seconds,
        losses[0],
        losses[losses.len() - 1],
        peak_mb().unwrap_or(0.0)
    );
    Ok(())
}
