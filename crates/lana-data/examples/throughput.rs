//! Measures how fast data sets open and batches are made, in images per second, and how much memory that takes:
//! `cargo run --release -p lana-data --example throughput -- generated:shapes imagefolder:imagenet/val`
//!
//! With `--json` only what `cargo xtask bench data` compares: random resized crops of 224 pixels, one worker, nothing kept; and the
//! memory after each fifth of the epoch.
#![allow(clippy::print_stdout)]

use std::{error::Error, sync::Arc, time::Instant};

use lana_data::{
    Augmentation, DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, TrainInterpolation, Transform,
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let json = arguments.first().is_some_and(|first| first == "--json");
    for spec in arguments.drain(usize::from(json)..) {
        let spec: DataSpec = spec.parse()?;
        let start = Instant::now();
        let dataset =
            Arc::new(Dataset::open(&spec, &DatasetOptions { cache_bytes: 0, ..DatasetOptions::default() })?);
        if json {
            let (rate, memory) = load(&dataset, imagenet(), 1, 1)?;
            println!(
                "{{\"rate\": {rate}, \"peak_mb\": {}, \"memory_mb\": {memory:.1?}}}",
                memory_mb("VmHWM:")
            );
            continue;
        }
        let rate = |images: usize, start: Instant| images as f64 / start.elapsed().as_secs_f64();
        println!("{spec}: {} images", dataset.len());
        println!("  index              {:>9.0} images/s", rate(dataset.len(), start));

        let start = Instant::now();
        let count = dataset.len().min(20_000);
        for index in 0..count {
            std::hint::black_box(dataset.get(index)?);
        }
        println!("  decode, one thread {:>9.0} images/s", rate(count, start));
        for workers in [0, 1, 2] {
            let (rate, memory) = load(&dataset, imagenet(), workers, 3)?;
            println!(
                "  load, {workers} workers    {rate:>9.0} images/s, memory after each fifth of three epochs {memory:.0?} MB"
            );
        }
    }
    Ok(())
}

/// What torchvision's reference training does.
fn imagenet() -> Transform {
    let interpolation = TrainInterpolation::Bilinear;
    let augmentation = Augmentation { scale: Some([0.08, 1.0]), interpolation, ..Augmentation::default() };
    Transform::evaluation(224).with_augmentation(augmentation)
}

/// Parts of an epoch after which memory is looked at.
const PARTS: usize = 5;

/// Images per second over some epochs, and the memory after each part of each.
fn load(
    dataset: &Arc<Dataset>,
    transform: Transform,
    workers: usize,
    epochs: u64,
) -> Result<(f64, Vec<f64>), Box<dyn Error>> {
    let config = LoaderConfig { batch: 64, shuffle: true, workers, ..LoaderConfig::default() };
    let loader = Loader::new(dataset.clone(), transform, config)?;
    let (start, mut images, mut memory) = (Instant::now(), 0, Vec::new());
    for epoch in 0..epochs {
        let (mut batches, mut done) = (loader.epoch(epoch), 0);
        while let Some(batch) = batches.next() {
            let batch = batch?;
            let before = done * PARTS / dataset.len();
            done += batch.n;
            if done * PARTS / dataset.len() > before {
                memory.push(memory_mb("VmRSS:"));
            }
            batches.recycle(batch);
        }
        images += done;
    }
    Ok((images as f64 / start.elapsed().as_secs_f64(), memory))
}

/// A line of what the system says of this process's memory, such as the largest resident so far; 0 where it does not say.
fn memory_mb(line: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|text| text.strip_prefix(line));
    line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok()).map_or(0.0, |kb| kb / 1024.0)
}
