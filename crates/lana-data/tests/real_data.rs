//! CIFAR-10 itself, where a checkout has it beside it; skipped elsewhere.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // clippy's exemption covers test functions, not their helpers

use std::path::PathBuf;

use lana_data::{Dataset, DatasetOptions};

fn cifar() -> Option<PathBuf> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cifar10");
    if !path.is_dir() {
        println!("skipped: {} does not exist", path.display());
        return None;
    }
    Some(path)
}

fn open(spec: String) -> Dataset {
    Dataset::open(&spec.parse().unwrap(), &DatasetOptions::default()).unwrap()
}

#[test]
fn compressed_and_exact_images_agree() {
    let Some(path) = cifar() else { return };
    let exact = open(format!("cifar10:{}", path.join("lossless-test_batch.bin").display()));
    assert_eq!(exact.len(), 932);

    let jpeg = open(format!("webdataset:{}", path.join("jpeg-test-0000.tar").display()));
    assert_eq!((jpeg.len(), jpeg.classes(), jpeg.get(0).unwrap().picture.width), (10_000, 10, 32));
    assert!(jpeg.skipped().is_empty());
    let mut counts = [0; 10];
    jpeg.labels().iter().for_each(|&label| counts[label as usize] += 1);
    assert_eq!(counts, [1000; 10]);

    assert_eq!(exact.labels(), &jpeg.labels()[..932]);
    let mut worst = 0.0_f64;
    for index in 0..exact.len() {
        let (a, b) = (exact.get(index).unwrap().picture.pixels, jpeg.get(index).unwrap().picture.pixels);
        let sum: u64 = a.iter().zip(&b).map(|(a, b)| u64::from(a.abs_diff(*b))).sum();
        worst = worst.max(sum as f64 / a.len() as f64);
    }
    println!("largest mean difference of an image: {worst:.2} of 255");
    assert!(worst < 20.0, "{worst}");
}

#[test]
fn brace_ranges_name_the_training_set() {
    let Some(path) = cifar() else { return };
    // Not decoded: only the index is of interest.
    let spec = format!("webdataset:{}", path.join("jpeg-train-{0000..0004}.tar").display());
    let options = DatasetOptions { cache_bytes: 0, ..Default::default() };
    let set = Dataset::open(&spec.parse().unwrap(), &options).unwrap();
    assert_eq!(set.len(), 50_000);
    let mut counts = [0; 10];
    set.labels().iter().for_each(|&label| counts[label as usize] += 1);
    assert_eq!(counts, [5000; 10]);
}
