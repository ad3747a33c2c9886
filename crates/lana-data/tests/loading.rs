//! The order of batches, their augmentation, and taking up an epoch in the middle.
#![allow(clippy::unwrap_used)] // clippy's exemption covers test functions, not their helpers

use std::{collections::BTreeSet, sync::Arc};

use lana_data::{Augmentation, Batch, DataSpec, Dataset, DatasetOptions, Loader, LoaderConfig, Transform};

fn dataset() -> Arc<Dataset> {
    let spec: DataSpec = "generated:shapes?images=205&size=16".parse().unwrap();
    Arc::new(Dataset::open(&spec, &DatasetOptions::default()).unwrap())
}

fn loader(config: LoaderConfig) -> Loader {
    let transform = Transform::evaluation(16).with_augmentation(Augmentation::crop_flip(2));
    Loader::new(dataset(), transform, config).unwrap()
}

fn shuffled(workers: usize) -> LoaderConfig {
    LoaderConfig { batch: 20, shuffle: true, seed: 11, workers, ..Default::default() }
}

fn collect(batches: lana_data::Batches) -> Vec<Batch> {
    batches.map(Result::unwrap).collect()
}

#[test]
fn the_number_of_workers_changes_nothing() {
    let truth = collect(loader(shuffled(0)).epoch(2));
    assert_eq!(truth.len(), 11);
    assert_eq!(truth[10].n, 5);
    for (workers, prefetch) in [(1, 0), (1, 4), (4, 1), (4, 100)] {
        let config = LoaderConfig { prefetch, ..shuffled(workers) };
        assert_eq!(collect(loader(config).epoch(2)), truth, "{workers} workers, {prefetch} ahead");
    }
}

#[test]
fn an_epoch_taken_up_in_the_middle_is_its_tail() {
    for workers in [0, 3] {
        let loader = loader(shuffled(workers));
        let whole = collect(loader.epoch(5));
        for first in [0, 1, 7, 10, 11, 99] {
            assert_eq!(collect(loader.epoch_from(5, first)), whole[first.min(11)..], "from {first}");
        }
    }
}

#[test]
fn epochs_visit_every_image_once_in_an_order_of_their_own() {
    let loader = loader(shuffled(2));
    let order =
        |epoch| -> Vec<u32> { collect(loader.epoch(epoch)).into_iter().flat_map(|b| b.indices).collect() };
    let (first, second) = (order(0), order(1));
    assert_ne!(first, second);
    assert_eq!(first, order(0));
    for order in [first, second] {
        assert_eq!(order.iter().copied().collect::<BTreeSet<_>>().len(), 205);
    }
}

#[test]
fn augmentation_does_not_depend_on_the_order() {
    let find = |config: LoaderConfig, epoch| {
        collect(loader(config).epoch(epoch))
            .into_iter()
            .find_map(|batch| {
                let place = batch.indices.iter().position(|&index| index == 42)?;
                let values = batch.images.len() / batch.n;
                Some(batch.images[place * values..][..values].to_vec())
            })
            .unwrap()
    };
    let ordered = LoaderConfig { batch: 7, seed: 11, ..Default::default() };
    assert_eq!(find(shuffled(2), 1), find(ordered.clone(), 1));
    // Of a few epochs some must differ from the first: fifty ways to place the image.
    assert!((1..6).any(|epoch| find(ordered.clone(), epoch) != find(ordered.clone(), 0)));
}

#[test]
fn subsets_labels_and_the_last_batch() {
    let set = dataset();
    let subset = set.subset(9, 50);
    assert_eq!(subset, set.subset(9, 50));
    assert_eq!(subset[..20], set.subset(9, 20), "a larger subset extends a smaller one");
    assert_ne!(subset, set.subset(10, 50));
    assert_eq!(set.subset(9, 1000).len(), 205);
    assert_eq!(subset.iter().collect::<BTreeSet<_>>().len(), 50);

    let config =
        LoaderConfig { batch: 20, drop_last: true, subset: Some(subset.clone()), ..Default::default() };
    let loader = loader(config);
    assert_eq!((loader.batches(), loader.images()), (2, 40));
    let batches = collect(loader.epoch(0));
    let indices: Vec<u32> = batches.iter().flat_map(|batch| batch.indices.clone()).collect();
    assert_eq!(indices, subset[..40]);
    for batch in batches {
        assert_eq!((batch.n, batch.images.len()), (20, 20 * 3 * 16 * 16));
        for (&label, &index) in batch.labels.iter().zip(&batch.indices) {
            assert_eq!(label, i64::from(set.labels()[index as usize]));
        }
    }
}

#[test]
fn unusable_settings_are_errors() {
    for (config, part) in [
        (LoaderConfig { batch: 0, ..Default::default() }, "at least 1"),
        (LoaderConfig { subset: Some(vec![]), ..Default::default() }, "at least 1"),
        (LoaderConfig { subset: Some(vec![3, 205]), ..Default::default() }, "no image 205"),
        (LoaderConfig { batch: 206, drop_last: true, ..Default::default() }, "smaller batches"),
    ] {
        let message = Loader::new(dataset(), Transform::evaluation(16), config).err().unwrap().to_string();
        assert!(message.contains(part), "{message}");
    }
}
