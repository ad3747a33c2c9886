//! Batches in a fixed order, made ahead of time by other threads.
//!
//! The order of an epoch is a function of seed and epoch, the augmentation of an image one of seed, epoch and index.
//! Threads therefore change when a batch is ready, never what is in it, and an interrupted epoch can be taken up at any batch.
//!
//! Work is handed out by the consumer: at the start as many batches as may be in flight, then one more for each
//! that it takes. That bounds the memory, needs no lock, and leaves nothing to wait for when the consumer goes away.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{
    dataset::Dataset,
    error::Error,
    mix::mix,
    random::{Purpose, Random},
    transform::{Draw, Prepared, Transform},
};

/// How images are put into batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoaderConfig {
    /// Images per batch; the last batch of an epoch may have fewer.
    pub batch: usize,
    /// A new random order each epoch instead of the stored one.
    pub shuffle: bool,
    /// Determines order and augmentation.
    pub seed: u64,
    /// Threads that make batches; 0 makes each batch in the calling thread when it is asked for.
    pub workers: usize,
    /// Every batch is full: a last one that is not is left out, and what stands in for an image that does not decode is the
    /// next of the epoch that does. Otherwise batches lack such images.
    pub drop_last: bool,
    /// Batches made ahead of the consumer, at least one per worker.
    pub prefetch: usize,
    /// Only these images, in this order unless shuffled; see [`Dataset::subset`].
    pub subset: Option<Vec<u32>>,
}

impl Default for LoaderConfig {
    fn default() -> Self {
        LoaderConfig {
            batch: 128,
            shuffle: false,
            seed: 0,
            workers: 1,
            drop_last: false,
            prefetch: 4,
            subset: None,
        }
    }
}

/// Some images, ready for the network.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// n x 3 x size x size normalised values (NCHW).
    pub images: Vec<f32>,
    /// The class of each image.
    pub labels: Vec<i64>,
    /// The index of each image in the data set.
    pub indices: Vec<u32>,
    /// The number of images.
    pub n: usize,
    /// What mixup or cutmix did to them; `None` where every image is its own.
    pub mix: Option<Mix>,
}

/// What mixup or cutmix did to a batch: a loss takes `lam * loss(labels) + (1 - lam) * loss(partners)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// The class of the image that each was mixed with. As in timm's batch mode that is the batch in reverse.
    pub partners: Vec<i64>,
    /// The share of each that is its own image, 0 to 1.
    pub lam: f32,
}

/// Makes the batches of any epoch of a data set.
pub struct Loader {
    dataset: Arc<Dataset>,
    transform: Arc<Prepared>,
    config: LoaderConfig,
    images: usize,
}

impl Loader {
    /// Checks the settings; no thread runs until an epoch is asked for.
    ///
    /// # Errors
    ///
    /// A batch of no images, an unusable transform, a subset that is empty or names images that do not exist, or fewer
    /// images than one batch when `drop_last` is set.
    pub fn new(dataset: Arc<Dataset>, transform: Transform, config: LoaderConfig) -> Result<Loader, Error> {
        let wrong = |setting, reason: String| Err(Error::Setting { setting, reason });
        if config.batch == 0 {
            return wrong("batch", "0 images; use at least 1".into());
        }
        if let Some(subset) = &config.subset {
            if subset.is_empty() {
                return wrong("subset", "it has no images; ask for at least 1".into());
            }
            if let Some(&index) = subset.iter().find(|&&index| index as usize >= dataset.len()) {
                dataset.check_index(index as usize)?;
            }
        }
        let images = config.subset.as_ref().map_or(dataset.len(), Vec::len);
        if config.drop_last && images < config.batch {
            let reason = format!(
                "drop_last leaves nothing of {images} images in batches of {}; use smaller batches or keep the last",
                config.batch
            );
            return wrong("batch", reason);
        }
        let transform = Arc::new(Prepared::new(&transform)?);
        Ok(Loader { dataset, transform, config, images })
    }

    /// Batches per epoch.
    pub fn batches(&self) -> usize {
        match self.config.drop_last {
            true => self.images / self.config.batch,
            false => self.images.div_ceil(self.config.batch),
        }
    }

    /// Images per epoch, those of a dropped last batch not counted.
    pub fn images(&self) -> usize {
        match self.config.drop_last {
            true => self.images / self.config.batch * self.config.batch,
            false => self.images,
        }
    }

    /// The data set.
    pub fn dataset(&self) -> &Arc<Dataset> {
        &self.dataset
    }

    /// The batches of epoch `epoch`, in order.
    pub fn epoch(&self, epoch: u64) -> Batches {
        self.epoch_from(epoch, 0)
    }

    /// The batches of epoch `epoch` from number `first_batch` on: exactly what [`Loader::epoch`] gives after skipping
    /// that many, without making those.
    pub fn epoch_from(&self, epoch: u64, first_batch: usize) -> Batches {
        let mut order = match &self.config.subset {
            Some(subset) => subset.clone(),
            None => (0..self.dataset.len() as u32).collect(),
        };
        let repeats = self.transform.augmentation().map_or(1, |options| options.aug_repeats.max(1));
        if self.config.shuffle {
            let count = order.len();
            Random::new(Purpose::Shuffle, [self.config.seed, epoch, 0]).draw_to_front(&mut order, count);
        }
        if repeats > 1 {
            order = (0..order.len()).map(|place| order[place / repeats]).collect();
        }
        let plan = Arc::new(Plan {
            dataset: self.dataset.clone(),
            transform: self.transform.clone(),
            order,
            repeats,
            full: self.config.drop_last,
            batch: self.config.batch,
            seed: self.config.seed,
            epoch,
            stop: AtomicBool::new(false),
        });
        let end = self.batches();
        let next = first_batch.min(end);
        // No more threads than batches.
        let workers = self.config.workers.min(end - next);
        let pool = (workers > 0).then(|| Pool::start(&plan, workers));
        let mut batches = Batches { plan, pool, next, asked: next, end, spare: Vec::new() };
        for _ in 0..self.config.prefetch.max(workers) {
            batches.ask();
        }
        batches
    }
}

/// Everything needed to make any batch of one epoch.
struct Plan {
    dataset: Arc<Dataset>,
    transform: Arc<Prepared>,
    order: Vec<u32>,
    repeats: usize,
    full: bool,
    batch: usize,
    seed: u64,
    epoch: u64,
    stop: AtomicBool,
}

impl Plan {
    /// Makes batch `number` in `images`, whose old content does not matter. `None` if it is no longer wanted.
    fn make(&self, number: usize, mut images: Vec<f32>) -> Option<Result<Batch, Error>> {
        let from = number * self.batch;
        let places = from..(from + self.batch).min(self.order.len());
        let values = self.transform.values();
        images.resize(places.len() * values, 0.0);
        let (mut labels, mut indices) = (Vec::with_capacity(places.len()), Vec::with_capacity(places.len()));
        for place in places {
            if self.stop.load(Ordering::Relaxed) {
                return None;
            }
            let out = &mut images[indices.len() * values..][..values];
            match self.place(place, out) {
                Ok(Some(index)) => {
                    labels.push(self.dataset.labels()[index as usize].into());
                    indices.push(index);
                }
                Ok(None) => {}
                Err(error) => return Some(Err(error)),
            }
        }
        let n = indices.len();
        images.truncate(n * values);
        let mix = self.transform.augmentation().filter(|options| options.mixes()).and_then(|options| {
            let mut random = Random::new(Purpose::Mix, [self.seed, self.epoch, number as u64]);
            mix(&mut images, n, options, &mut random)
        });
        let mix = mix.map(|lam| Mix { partners: labels.iter().rev().copied().collect(), lam });
        Some(Ok(Batch { images, labels, indices, n, mix }))
    }

    /// Makes the image at one place of the epoch, and gives its index; `None` if it does not decode and needs no other.
    fn place(&self, place: usize, out: &mut [f32]) -> Result<Option<u32>, Error> {
        let attempts = if self.full { self.order.len() } else { 1 };
        for place in (place..place + attempts).map(|place| place % self.order.len()) {
            let index = self.order[place];
            let repeat = (place % self.repeats) as u32;
            let draw = Draw { seed: self.seed, epoch: self.epoch, index, repeat };
            if let Some(picture) = self.dataset.picture_or_skip(index as usize)? {
                let item = |reason| Error::Image { item: self.dataset.name(index as usize), reason };
                self.transform.apply(&picture, draw, out).map_err(item)?;
                return Ok(Some(index));
            }
        }
        Ok(None)
    }
}

/// A batch to make, and a buffer to make it in.
type Job = (usize, Vec<f32>);
type Made = (usize, Result<Batch, Error>);

struct Pool {
    jobs: Sender<Job>,
    made: Receiver<Made>,
    /// Batches that were ready before their turn.
    early: BTreeMap<usize, Result<Batch, Error>>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    fn start(plan: &Arc<Plan>, workers: usize) -> Pool {
        // Neither queue needs a bound: the consumer never asks for more than it may.
        let (jobs, todo) = unbounded::<Job>();
        let (done, made) = unbounded();
        let threads = (0..workers)
            .map(|_| {
                let (plan, todo, done) = (plan.clone(), todo.clone(), done.clone());
                thread::spawn(move || work(&plan, &todo, &done))
            })
            .collect();
        Pool { jobs, made, early: BTreeMap::new(), threads }
    }
}

fn work(plan: &Plan, todo: &Receiver<Job>, done: &Sender<Made>) {
    for (number, buffer) in todo {
        // Without this a defect in a decoder would leave the consumer waiting for a batch that never comes.
        let result = match catch_unwind(AssertUnwindSafe(|| plan.make(number, buffer))) {
            Ok(Some(result)) => result,
            Ok(None) => return,
            Err(panic) => {
                let text = panic.downcast_ref::<&str>().map(|text| text.to_string());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                let message = text.unwrap_or_else(|| "no message".into());
                Err(Error::WorkerPanic { batch: number, message })
            }
        };
        if done.send((number, result)).is_err() {
            return;
        }
    }
}

/// The batches of one epoch, in order. After an error there are no more; dropping it stops the workers.
pub struct Batches {
    plan: Arc<Plan>,
    pool: Option<Pool>,
    /// The number of the batch to hand out next.
    next: usize,
    /// Batches before this one have been asked for.
    asked: usize,
    end: usize,
    spare: Vec<Vec<f32>>,
}

impl Batches {
    /// Takes back a batch that is no longer needed, to make another one in its memory: worth it for large batches,
    /// which would otherwise be mapped and unmapped by the kernel each time.
    pub fn recycle(&mut self, batch: Batch) {
        // Each batch taken asks for one more; more buffers than that would never be used.
        if self.spare.len() < 2 {
            self.spare.push(batch.images);
        }
    }

    /// Hands the next batch to the workers, if there is one.
    fn ask(&mut self) {
        if let Some(pool) = &self.pool
            && self.asked < self.end
        {
            let buffer = self.spare.pop().unwrap_or_default();
            // It cannot fail: the workers keep their end until ours is dropped.
            let _ = pool.jobs.send((self.asked, buffer));
            self.asked += 1;
        }
    }

    fn receive(&mut self) -> Option<Result<Batch, Error>> {
        let Some(pool) = &mut self.pool else {
            let buffer = self.spare.pop().unwrap_or_default();
            return self.plan.make(self.next, buffer);
        };
        loop {
            if let Some(result) = pool.early.remove(&self.next) {
                return Some(result);
            }
            let (number, result) = pool.made.recv().unwrap_or_else(|_| {
                // Every worker is gone without a word; `work` has no such way out, but a hang would be worse.
                let message = "the loader threads ended early".into();
                (self.next, Err(Error::WorkerPanic { batch: self.next, message }))
            });
            pool.early.insert(number, result);
        }
    }
}

impl Iterator for Batches {
    type Item = Result<Batch, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.end {
            return None;
        }
        let result = self.receive()?;
        self.next += 1;
        if result.is_err() {
            self.end = self.next;
        }
        self.ask();
        match result {
            // None of its images decodes.
            Ok(batch) if batch.n == 0 => self.next(),
            result => Some(result),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error may end it early.
        (0, Some(self.end - self.next))
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        self.plan.stop.store(true, Ordering::Relaxed);
        if let Some(pool) = self.pool.take() {
            drop(pool.jobs);
            // At most one image is still in the making in each.
            for thread in pool.threads {
                let _ = thread.join();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{augmentation::Augmentation, dataset::DatasetOptions, picture::Picture, source::Source};

    /// Images that count up, and one that fails or panics when it is read.
    struct Faulty {
        labels: Vec<u32>,
        fault: Option<(usize, bool)>,
    }

    impl Source for Faulty {
        fn labels(&self) -> &[u32] {
            &self.labels
        }
        fn read(&self, index: usize) -> Result<Picture, Error> {
            match self.fault {
                Some((at, true)) if at == index => panic!("image {index} is cursed"),
                Some((at, false)) if at == index => {
                    Err(Error::Truncated { path: self.name(index).into(), detail: "broken".into() })
                }
                _ => Ok(Picture { width: 4, height: 4, pixels: vec![index as u8; 48] }),
            }
        }
        fn name(&self, index: usize) -> String {
            format!("faulty {index}")
        }
        fn decoded_bytes(&self, _most: u64) -> u64 {
            4800
        }
        fn classes(&self) -> usize {
            1
        }
        fn class_names(&self) -> Option<Vec<String>> {
            None
        }
    }

    fn loader(fault: Option<(usize, bool)>, config: LoaderConfig) -> Loader {
        let source = Faulty { labels: vec![0; 100], fault };
        // Not cached, so that reading happens in the workers.
        let options = DatasetOptions { cache_bytes: 0, ..Default::default() };
        let dataset = Dataset::new("faulty".into(), Box::new(source), &options).unwrap();
        let transform = Transform::evaluation(4).with_augmentation(Augmentation::crop_flip(1));
        Loader::new(Arc::new(dataset), transform, config).unwrap()
    }

    #[test]
    fn a_fault_reaches_the_consumer_in_its_turn() {
        for panics in [false, true] {
            for workers in [1, 4] {
                let config = LoaderConfig { batch: 10, workers, ..Default::default() };
                let results: Vec<_> = loader(Some((35, panics)), config).epoch(0).collect();
                assert_eq!(results.len(), 4, "three batches, then the error, then nothing");
                assert!(results[..3].iter().all(Result::is_ok));
                let message = results[3].as_ref().unwrap_err().to_string();
                assert!(
                    message.contains(if panics { "image 35 is cursed" } else { "faulty 35" }),
                    "{message}"
                );
            }
        }
    }

    /// Images of one value, their number; every one in `broken` does not decode.
    struct Damaged(Vec<u32>, Vec<usize>);

    impl Source for Damaged {
        fn labels(&self) -> &[u32] {
            &self.0
        }
        fn read(&self, index: usize) -> Result<Picture, Error> {
            match self.1.contains(&index) {
                true => Err(Error::Image { item: self.name(index), reason: "broken".into() }),
                false => Ok(Picture { width: 4, height: 4, pixels: vec![index as u8; 48] }),
            }
        }
        fn name(&self, index: usize) -> String {
            format!("image {index}")
        }
        fn decoded_bytes(&self, _most: u64) -> u64 {
            u64::MAX
        }
        fn classes(&self) -> usize {
            1
        }
        fn class_names(&self) -> Option<Vec<String>> {
            None
        }
    }

    fn damaged(broken: &[usize], config: LoaderConfig) -> Loader {
        let source = Damaged(vec![0; 200], broken.to_vec());
        let dataset = Dataset::new("damaged".into(), Box::new(source), &DatasetOptions::default()).unwrap();
        Loader::new(Arc::new(dataset), Transform::evaluation(4), config).unwrap()
    }

    #[test]
    fn broken_images_are_left_out_or_replaced() {
        for workers in [0, 3] {
            let config = LoaderConfig { batch: 10, workers, ..Default::default() };
            let loader = damaged(&[0, 15], config.clone());
            let batches: Vec<_> = loader.epoch(0).map(Result::unwrap).collect();
            assert_eq!((batches[0].n, batches[1].n, batches[2].n), (9, 9, 10));
            assert_eq!(batches[0].indices, [1, 2, 3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(batches[0].images.len(), 9 * 48);
            assert_eq!(
                loader.dataset().skipped().iter().map(|s| s.item.as_str()).collect::<Vec<_>>(),
                ["image 0", "image 15"]
            );

            let full = damaged(&[0, 199], LoaderConfig { drop_last: true, ..config });
            let batches: Vec<_> = full.epoch(0).map(Result::unwrap).collect();
            assert_eq!(batches[0].indices, [1, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
            assert_eq!(batches[19].indices[9], 1, "the next that decodes, from the start again");
        }
        let config = LoaderConfig { batch: 1, ..Default::default() };
        assert_eq!(damaged(&[0, 3], config.clone()).epoch(0).count(), 198, "no batch is empty");
        let error = damaged(&[3, 7, 9], config).epoch(0).find_map(Result::err).unwrap().to_string();
        assert!(error.contains("3 of 200") && error.contains("image 3"), "{error}");
    }

    #[test]
    fn repeats_show_an_image_several_times_in_a_row() {
        let options = Augmentation { aug_repeats: 3, ..Augmentation::crop_flip(2) };
        let source = Faulty { labels: vec![0; 100], fault: None };
        let dataset = Dataset::new("faulty".into(), Box::new(source), &DatasetOptions::default()).unwrap();
        let transform = Transform::evaluation(4).with_augmentation(options);
        let config = LoaderConfig { batch: 100, shuffle: true, ..Default::default() };
        let loader = Loader::new(Arc::new(dataset), transform, config).unwrap();
        let batch = loader.epoch(0).next().unwrap().unwrap();
        assert_eq!(batch.n, 100);
        assert!(
            batch.indices[..99].chunks_exact(3).all(|three| three[0] == three[1] && three[1] == three[2])
        );
        assert_ne!(batch.images[..48], batch.images[48..96]);
    }

    #[test]
    fn dropping_early_ends_the_workers() {
        let loader = loader(None, LoaderConfig { batch: 1, workers: 3, ..Default::default() });
        for taken in [0, 1, 5] {
            let mut batches = loader.epoch(0);
            let plan = Arc::downgrade(&batches.plan);
            assert_eq!(batches.by_ref().take(taken).count(), taken);
            drop(batches);
            assert_eq!(plan.strong_count(), 0, "a worker still holds the plan");
        }
    }

    #[test]
    fn recycled_buffers_change_nothing() {
        let config = LoaderConfig { batch: 16, shuffle: true, workers: 2, ..Default::default() };
        let fresh: Vec<_> = loader(None, config.clone()).epoch(3).map(Result::unwrap).collect();
        let mut batches = loader(None, config).epoch(3);
        for expected in fresh {
            let batch = batches.next().unwrap().unwrap();
            assert_eq!(batch, expected);
            batches.recycle(batch);
        }
        assert!(batches.next().is_none());
    }
}
