//! Measures how fast data sets open and batches are made, in images per second:
//! `cargo run --release -p lana-data --example throughput -- generated:shapes cifar10:data/cifar-10-batches-bin`
#![allow(clippy::print_stdout)]

use std::{sync::Arc, time::Instant};

use lana_data::{Augmentation, DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, Transform};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for spec in std::env::args().skip(1) {
        let spec: DataSpec = spec.parse()?;
        let rate = |images: usize, start: Instant| images as f64 / start.elapsed().as_secs_f64();

        let start = Instant::now();
        let lazy = Dataset::open(&spec, &DatasetOptions { cache_bytes: 0, ..Default::default() })?;
        println!("{spec}: {} images", lazy.len());
        println!("  index              {:>9.0} images/s", rate(lazy.len(), start));

        let start = Instant::now();
        let count = lazy.len().min(20_000);
        for index in 0..count {
            std::hint::black_box(lazy.get(index)?);
        }
        println!("  decode, one thread {:>9.0} images/s", rate(count, start));

        let start = Instant::now();
        let dataset = Arc::new(Dataset::open(&spec, &DatasetOptions::default())?);
        println!("  open, all threads  {:>9.0} images/s", rate(dataset.len(), start));

        let size = dataset.get(0)?.picture.width.min(dataset.get(0)?.picture.height);
        let transform = Transform::evaluation(size).with_augmentation(Augmentation::crop_flip(4));
        for workers in [0, 1, 2] {
            let config = LoaderConfig { shuffle: true, workers, ..Default::default() };
            let loader = Loader::new(dataset.clone(), transform.clone(), config)?;
            let start = Instant::now();
            let mut images = 0;
            for epoch in 0..3 {
                let mut batches = loader.epoch(epoch);
                while let Some(batch) = batches.next() {
                    let batch = batch?;
                    images += batch.n;
                    batches.recycle(batch);
                }
            }
            println!("  load, {workers} workers    {:>9.0} images/s", rate(images, start));
        }
    }
    Ok(())
}
