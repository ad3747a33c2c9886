//! A set of labelled images, all of one square size, whatever they come from.
//!
//! Opening a set lists its images and labels, then decodes everything once, on all cores, if the result fits a bound on
//! memory (50,000 CIFAR images are 150 MB); training then never decodes again. A set that does not fit is decoded image by
//! image when asked for. Images that do not decode are left out while there are few, and can be listed afterwards;
//! since that happens before the first image is handed out, the numbers of the others never change.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::{
    cifar::Cifar10,
    decode::Interpolation,
    error::Error,
    folder::ImageFolder,
    generated::Generated,
    random::{Purpose, Random},
    source::Source,
    spec::DataSpec,
    webdataset::WebDataset,
};

/// How images are brought to one size, and how much memory they may take.
#[derive(Clone, Debug, PartialEq)]
pub struct DatasetOptions {
    /// Width and height of every image in pixels. `None`: 32 for `cifar10` and `generated`, otherwise the shorter side
    /// of the first image.
    pub size: Option<usize>,
    /// The share of the shorter side that is kept, from the middle: timm's `crop_pct`, 0.875 for many ImageNet
    /// networks. 1 keeps the largest square.
    pub crop: f32,
    /// The filter for images of another size.
    pub interpolation: Interpolation,
    /// The number of classes, where it is known from the network: a label beyond it is an error. `None`: 10 for
    /// `cifar10` and `generated`, the number of folders, or the largest label plus one.
    pub classes: Option<usize>,
    /// Decoded images are kept in memory when all of them take at most this many bytes; 1 GiB unless said otherwise.
    pub cache_bytes: u64,
}

impl Default for DatasetOptions {
    fn default() -> Self {
        DatasetOptions {
            size: None,
            crop: 1.0,
            interpolation: Interpolation::default(),
            classes: None,
            cache_bytes: 1 << 30,
        }
    }
}

/// One image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Height x width x 3 bytes, rows from the top, red, green, blue interleaved (HWC).
    pub pixels: Vec<u8>,
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

/// Labelled square RGB images, numbered from 0. Shared between threads behind an `Arc`.
pub struct Dataset {
    data: String,
    source: Box<dyn Source>,
    /// The source's number of each image, when some were skipped.
    kept: Option<Vec<u32>>,
    labels: Vec<u32>,
    side: usize,
    options: DatasetOptions,
    classes: usize,
    class_names: Option<Vec<String>>,
    cache: Option<Vec<u8>>,
    skipped: Vec<Skipped>,
}

impl Dataset {
    /// Lists the images of `spec` and, if they fit [`DatasetOptions::cache_bytes`], decodes them all in parallel.
    ///
    /// # Errors
    ///
    /// Whatever is missing, empty, cut off, unlabelled or wrongly labelled, with the file and the cure; more than 1 %
    /// of images that do not decode (when cached; otherwise the first such image is an error when it is read).
    pub fn open(spec: &DataSpec, options: &DatasetOptions) -> Result<Dataset, Error> {
        check(options)?;
        let mut native = Some(32);
        let source: Box<dyn Source> = match spec {
            DataSpec::Cifar10(path) => Box::new(Cifar10::open(path)?),
            DataSpec::ImageFolder(path) => {
                native = None;
                Box::new(ImageFolder::open(path, options.classes)?)
            }
            DataSpec::WebDataset(pattern) => {
                native = None;
                Box::new(WebDataset::open(pattern, options.classes)?)
            }
            DataSpec::Generated(generated) => {
                let size = generated.size.or(options.size).unwrap_or(32);
                native = Some(size);
                Box::new(Generated::new(generated, size))
            }
        };
        Dataset::new(spec.to_string(), source, native, options)
    }

    pub(crate) fn new(
        data: String,
        source: Box<dyn Source>,
        native: Option<usize>,
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
        let side = match options.size.or(native) {
            Some(side) => side,
            None => first_side(&data, source.as_ref(), labels.len())?,
        };
        let class_names = source.class_names();
        let mut set = Dataset {
            data,
            source,
            kept: None,
            labels,
            side,
            options: options.clone(),
            classes,
            class_names,
            cache: None,
            skipped: Vec::new(),
        };
        if (set.len() as u64).saturating_mul(set.image_bytes() as u64) <= options.cache_bytes {
            set.decode_all()?;
        }
        Ok(set)
    }

    fn decode_all(&mut self) -> Result<(), Error> {
        let bytes = self.image_bytes();
        let mut cache = vec![0; bytes * self.len()];
        let results: Vec<Result<(), Error>> = cache
            .par_chunks_exact_mut(bytes)
            .enumerate()
            .map(|(index, place)| self.decode(index).map(|pixels| place.copy_from_slice(&pixels)))
            .collect();

        let mut kept = Vec::with_capacity(self.len());
        for (index, result) in results.into_iter().enumerate() {
            match result {
                Ok(()) => kept.push(index as u32),
                Err(Error::Image { item, reason }) => self.skipped.push(Skipped { item, reason }),
                // A disk that fails is no property of the image.
                Err(error) => return Err(error),
            }
        }
        check_broken(&self.data, &self.skipped, self.len())?;
        if !self.skipped.is_empty() {
            for (to, &from) in kept.iter().enumerate() {
                let from = from as usize;
                cache.copy_within(from * bytes..(from + 1) * bytes, to * bytes);
                self.labels[to] = self.labels[from];
            }
            cache.truncate(kept.len() * bytes);
            self.labels.truncate(kept.len());
            self.kept = Some(kept);
        }
        self.cache = Some(cache);
        Ok(())
    }

    /// Decodes the source's image `index` to the size of this set.
    fn decode(&self, index: usize) -> Result<Vec<u8>, Error> {
        let image = self.source.read(index)?;
        image
            .into_square(self.side, self.options.crop, self.options.interpolation)
            .map_err(|reason| Error::Image { item: self.source.name(index), reason })
    }

    fn image_bytes(&self) -> usize {
        self.side * self.side * 3
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

    /// Width and height of every image, in pixels.
    pub fn image_size(&self) -> usize {
        self.side
    }

    /// Channels of every image: 3 (red, green, blue); grey images were made so.
    pub fn channels(&self) -> usize {
        3
    }

    /// The label of every image.
    pub fn labels(&self) -> &[u32] {
        &self.labels
    }

    /// Whether the decoded images are held in memory.
    pub fn is_cached(&self) -> bool {
        self.cache.is_some()
    }

    /// The images that were left out because they do not decode. Always empty for a set that is not cached.
    pub fn skipped(&self) -> &[Skipped] {
        &self.skipped
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
        Ok(Sample { pixels: self.pixels(index)?.into_owned(), label: self.labels[index] })
    }

    /// The pixels of image `index`, without a copy where they are cached.
    pub(crate) fn pixels(&self, index: usize) -> Result<Cow<'_, [u8]>, Error> {
        if index >= self.len() {
            return Err(Error::IndexOutOfRange { data: self.data.clone(), index, len: self.len() });
        }
        let bytes = self.image_bytes();
        match &self.cache {
            Some(cache) => Ok(Cow::Borrowed(&cache[index * bytes..(index + 1) * bytes])),
            None => self.decode(self.origin(index)).map(Cow::Owned),
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
            .field("size", &self.side)
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
        DatasetOptions { crop, .. } if !(*crop > 0.0 && *crop <= 1.0) => {
            wrong("crop", format!("{crop} is no share of the shorter side; use more than 0, at most 1"))
        }
        DatasetOptions { classes: Some(0), .. } => wrong("classes", "0; there is at least one class".into()),
        _ => Ok(()),
    }
}

fn check_broken(data: &str, skipped: &[Skipped], total: usize) -> Result<(), Error> {
    match skipped.first() {
        Some(first) if skipped.len() * 100 > total => Err(Error::TooManyBroken {
            data: data.to_owned(),
            skipped: skipped.len(),
            total,
            first: Box::new(first.clone()),
        }),
        _ => Ok(()),
    }
}

/// The shorter side of the first image that decodes.
fn first_side(data: &str, source: &dyn Source, total: usize) -> Result<usize, Error> {
    let mut skipped = Vec::new();
    for index in 0..total {
        match source.read(index) {
            Ok(image) => return Ok(image.width.min(image.height)),
            Err(Error::Image { item, reason }) => skipped.push(Skipped { item, reason }),
            Err(error) => return Err(error),
        }
        check_broken(data, &skipped, total)?;
    }
    // Reached only without any image, which the formats refuse before.
    Err(Error::Setting { setting: "data", reason: format!("{data} has no images") })
}
