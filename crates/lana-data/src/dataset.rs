//! A set of labelled images, each of its own size, whatever they come from.
//!
//! Opening a set lists its images and labels. A set that is small is then decoded at once, on all cores, and kept
//! (50,000 CIFAR images are 150 MB); images of all others are decoded when they are asked for, from what is stored, and
//! forgotten. Images that do not decode are left out and listed while they are few: of a small set before the first
//! image is handed out, so that they have no number; of others when they are met.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use rayon::prelude::*;

use crate::{
    cifar::Cifar10,
    error::Error,
    folder::ImageFolder,
    generated::Generated,
    parquet::Parquet,
    picture::Picture,
    random::{Purpose, Random},
    source::Source,
    spec::DataSpec,
    webdataset::WebDataset,
};

/// What is known of the images in advance, and how much memory they may take.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetOptions {
    /// Width and height of generated images in pixels, where their text does not say; 32 if absent. All others keep their
    /// own size, see [`Transform`](crate::Transform).
    pub size: Option<usize>,
    /// The number of classes, where it is known from the network: a label beyond it is an error. `None`: 10 for
    /// `cifar10` and `generated`, the number of folders, or the largest label plus one.
    pub classes: Option<usize>,
    /// Decoded images are kept in memory when all of them take at most this many bytes; 1 GiB unless said otherwise.
    pub cache_bytes: u64,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        DatasetOptions { size: None, classes: None, cache_bytes: 1 << 30 }
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Its pixels, as they are stored.
    pub picture: Picture,
    /// Its class, from 0.
    pub label: u32,
}

/// An image that was left out because it does not decode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Skipped {
    /// The file, for a tar with the name inside.
    pub item: String,
    /// The decoder's words.
    pub reason: String,
}

/// Labelled RGB images, numbered from 0. Shared between threads behind an `Arc`.
pub struct Dataset {
    data: String,
    source: Box<dyn Source>,
    /// The source's number of each image, when some were skipped before they had one.
    kept: Option<Vec<u32>>,
    labels: Vec<u32>,
    classes: usize,
    class_names: Option<Vec<String>>,
    cache: Option<Vec<Picture>>,
    /// By the source's number.
    skipped: Mutex<BTreeMap<usize, Skipped>>,
}

impl Dataset {
    /// Lists the images of `spec` and, if they fit [`DatasetOptions::cache_bytes`], decodes them all in parallel.
    ///
    /// # Errors
    ///
    /// Whatever is missing, empty, cut off, unlabelled or wrongly labelled, with the file and the cure; more than 1 %
    /// of images that do not decode, of a set that is decoded now.
    pub fn open(spec: &DataSpec, options: &DatasetOptions) -> Result<Dataset, Error> {
        check(options)?;
        let source: Box<dyn Source> = match spec {
            DataSpec::Cifar10(path) => Box::new(Cifar10::open(path)?),
            DataSpec::ImageFolder { path, classes } => {
                Box::new(ImageFolder::open(path, classes.as_deref(), options.classes)?)
            }
            DataSpec::WebDataset(pattern) => Box::new(WebDataset::open(pattern, options.classes)?),
            DataSpec::Parquet(pattern) => Box::new(Parquet::open(pattern)?),
            DataSpec::Generated(generated) => {
                let size = generated.size.or(options.size).unwrap_or(32);
                Box::new(Generated::new(generated, size))
            }
        };
        Dataset::new(spec.to_string(), source, options)
    }

    pub(crate) fn new(
        data: String,
        source: Box<dyn Source>,
        options: &DatasetOptions,
    ) -> Result<Dataset, Error> {
        let labels = source.labels().to_vec();
        let classes = options.classes.unwrap_or(source.classes());
        if let Some(index) = labels.iter().position(|&label| label as usize >= classes) {
            let label = labels[index].into();
            return Err(Error::LabelOutOfRange { item: source.name(index), label, classes });
        }
        if labels.len() > u32::MAX as usize {
            let reason = format!("{} images are more than 4294967295; use fewer shards", labels.len());
            return Err(Error::Setting { setting: "data", reason });
        }
        let class_names = source.class_names();
        let skipped = Mutex::default();
        let mut set =
            Dataset { data, source, kept: None, labels, classes, class_names, cache: None, skipped };
        if set.source.decoded_bytes(options.cache_bytes) <= options.cache_bytes {
            set.decode_all(options.cache_bytes)?;
        }
        Ok(set)
    }

    /// Decodes everything, if that turns out to take no more than `most` bytes.
    fn decode_all(&mut self, most: u64) -> Result<(), Error> {
        let taken = AtomicU64::new(0);
        let results: Vec<Option<Result<Picture, Error>>> = (0..self.len())
            .into_par_iter()
            .map(|index| {
                if taken.load(Ordering::Relaxed) > most {
                    return None;
                }
                let result = self.source.read(index);
                if let Ok(picture) = &result {
                    taken.fetch_add(picture.pixels.len() as u64, Ordering::Relaxed);
                }
                Some(result)
            })
            .collect();
        if taken.into_inner() > most {
            return Ok(());
        }
        let (mut kept, mut cache) = (Vec::with_capacity(self.len()), Vec::with_capacity(self.len()));
        for (index, result) in results.into_iter().flatten().enumerate() {
            match result {
                Ok(picture) => {
                    kept.push(index as u32);
                    cache.push(picture);
                }
                Err(Error::Image { item, reason }) => self.skip(index, Skipped { item, reason })?,
                // A disk that fails is no property of the image.
                Err(error) => return Err(error),
            }
        }
        if kept.len() < self.len() {
            self.labels = kept.iter().map(|&from| self.labels[from as usize]).collect();
            self.kept = Some(kept);
        }
        self.cache = Some(cache);
        Ok(())
    }

    /// Notes that the source's image `index` does not decode.
    fn skip(&self, index: usize, image: Skipped) -> Result<(), Error> {
        let mut skipped = self.skipped.lock().unwrap_or_else(PoisonError::into_inner);
        skipped.insert(index, image);
        let total = self.source.labels().len();
        match skipped.first_key_value() {
            Some((_, first)) if skipped.len() * 100 > total => Err(Error::TooManyBroken {
                data: self.data.clone(),
                skipped: skipped.len(),
                total,
                first: Box::new(first.clone()),
            }),
            _ => Ok(()),
        }
    }

    /// The number of images.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no image; [`Dataset::open`] never returns such a set.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The number of classes; labels are less than this.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// The name of each class in the order of their labels, where the format has names.
    pub fn class_names(&self) -> Option<&[String]> {
        self.class_names.as_deref()
    }

    /// The label of every image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Whether the decoded images are held in memory.
    pub fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    /// The images that were left out so far because they do not decode, in the order of the data. Of a set that is not held in
    /// memory they are found as they are met.
    pub fn skipped(&self) -> Vec<Skipped> {
        self.skipped.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Where image `index` comes from, for messages and reports: its file, and where in it.
    ///
    /// # Panics
    ///
    /// If there is no such image.
    pub fn name(&self, index: usize) -> String {
        assert!(index < self.len(), "there is no image {index}");
        self.source.name(self.origin(index))
    }

    fn origin(&self, index: usize) -> usize {
        self.kept.as_ref().map_or(index, |kept| kept[index] as usize)
    }

    /// Image `index`, from memory or decoded now.
    ///
    /// # Errors
    ///
    /// If there is no such image; if the set is not cached and the image cannot be read.
    pub fn get(&self, index: usize) -> Result<Sample, Error> {
        Ok(Sample { picture: self.picture(index)?.into_owned(), label: self.labels[index] })
    }

    /// Image `index`, without a copy where it is cached.
    fn picture(&self, index: usize) -> Result<Cow<'_, Picture>, Error> {
        self.check_index(index)?;
        match &self.cache {
            Some(cache) => Ok(Cow::Borrowed(&cache[index])),
            None => self.source.read(self.origin(index)).map(Cow::Owned),
        }
    }

    /// The same; `None` for an image that does not decode, which is noted.
    pub(crate) fn picture_or_skip(&self, index: usize) -> Result<Option<Cow<'_, Picture>>, Error> {
        match self.picture(index) {
            Ok(picture) => Ok(Some(picture)),
            Err(Error::Image { item, reason }) => {
                self.skip(self.origin(index), Skipped { item, reason }).map(|()| None)
            }
            Err(error) => Err(error),
        }
    }

    /// An error for an index beyond the data.
    pub(crate) fn check_index(&self, index: usize) -> Result<(), Error> {
        match index < self.len() {
            true => Ok(()),
            false => Err(Error::IndexOutOfRange { data: self.data.clone(), index, len: self.len() }),
        }
    }

    /// `count` different images drawn at random (all of them if there are no more), as a function of `seed` alone; for
    /// [`LoaderConfig::subset`](crate::LoaderConfig::subset). A larger subset of the same seed extends a smaller one.
    pub fn subset(&self, seed: u64, count: usize) -> Vec<u32> {
        let mut indices: Vec<u32> = (0..self.len() as u32).collect();
        let count = count.min(indices.len());
        Random::new(Purpose::Subset, [seed, 0, 0]).draw_to_front(&mut indices, count);
        indices.truncate(count);
        indices
    }
}

impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("data", &self.data)
            .field("images", &self.len())
            .field("classes", &self.classes)
            .field("cached", &self.is_cached())
            .finish_non_exhaustive()
    }
}

fn check(options: &DatasetOptions) -> Result<(), Error> {
    let wrong = |setting, reason: String| Err(Error::Setting { setting, reason });
    match options {
        DatasetOptions { size: Some(size), .. } if !(1..=4096).contains(size) => {
            wrong("size", format!("{size} pixels; use 1 to 4096"))
        }
        DatasetOptions { classes: Some(0), .. } => wrong("classes", "0; there is at least one class".into()),
        _ => Ok(()),
    }
}
