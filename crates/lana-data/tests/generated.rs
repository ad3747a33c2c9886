//! What `generated:shapes` promises.
#![allow(clippy::unwrap_used)] // clippy's exemption covers test functions, not their helpers

use std::collections::HashSet;

use lana_data::{Dataset, DatasetOptions, Sample};

fn open(parameters: &str, options: &DatasetOptions) -> Dataset {
    Dataset::open(&format!("generated:shapes?{parameters}").parse().unwrap(), options).unwrap()
}

fn samples(parameters: &str) -> Vec<Sample> {
    let set = open(parameters, &DatasetOptions::default());
    (0..set.len()).map(|index| set.get(index).unwrap()).collect()
}

#[test]
fn images_are_a_function_of_seed_split_and_index() {
    let all = samples("images=200");
    // Not of their number, nor of whether they were drawn ahead or on demand.
    assert_eq!(samples("images=73")[..], all[..73]);
    let lazy = open("images=200", &DatasetOptions { cache_bytes: 0, ..Default::default() });
    assert!(!lazy.is_cached());
    assert_eq!(lazy.get(199).unwrap(), all[199]);

    let mut distinct: HashSet<Vec<u8>> = all.iter().map(|sample| sample.picture.pixels.clone()).collect();
    for other in ["images=200&split=val", "images=200&seed=1"] {
        distinct.extend(samples(other).into_iter().map(|sample| sample.picture.pixels));
    }
    assert_eq!(distinct.len(), 600, "splits and seeds share no image");
}

#[test]
fn the_images_never_change() {
    // FNV-1a over a hundred images: runs that are resumed, and figures that are published, rely on them.
    let hash = samples("images=100")
        .iter()
        .flat_map(|s| &s.picture.pixels)
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    assert_eq!(hash, 0x2095_6f4f_4a5e_1ba0, "{hash:#x}");
}

#[test]
fn classes_are_balanced_at_every_length() {
    let set = open("images=1005&seed=3&split=val", &DatasetOptions::default());
    assert_eq!(set.classes(), 10);
    assert_eq!(set.class_names().unwrap().len(), 10);
    for length in [10, 500, 1000, 1005] {
        let mut counts = [0usize; 10];
        set.labels()[..length].iter().for_each(|&label| counts[label as usize] += 1);
        let (least, most) = (counts.iter().min().unwrap(), counts.iter().max().unwrap());
        assert!(most - least <= 1, "{counts:?}");
    }
    // And the order is not that of the labels.
    assert_ne!(set.labels()[..10], (0..10).collect::<Vec<u32>>()[..]);
}

#[test]
fn size_comes_from_the_text_or_the_options() {
    let options = DatasetOptions { size: Some(48), ..Default::default() };
    assert_eq!(open("images=3", &options).get(0).unwrap().picture.width, 48);
    assert_eq!(open("images=3&size=16", &options).get(0).unwrap().picture.width, 16);
}

#[test]
fn class_cannot_be_told_from_the_mean_colour() {
    // The mean colours of the classes lie as close together as chance puts them.
    let mut sums = [[0.0_f64; 3]; 10];
    let samples = samples("images=3000");
    for sample in &samples {
        for pixel in sample.picture.pixels.chunks_exact(3) {
            for (sum, &value) in sums[sample.label as usize].iter_mut().zip(pixel) {
                *sum += f64::from(value);
            }
        }
    }
    for channel in 0..3 {
        let means: Vec<f64> = sums.iter().map(|sum| sum[channel] / (300.0 * 1024.0)).collect();
        let spread =
            means.iter().cloned().fold(f64::MIN, f64::max) - means.iter().cloned().fold(f64::MAX, f64::min);
        assert!(spread < 25.0, "{means:?}");
    }
}
