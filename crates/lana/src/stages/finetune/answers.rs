//! What the teacher said of the training images, kept for the next training.
//!
//! Order and augmentation of the images are functions of seed, epoch and index alone, so every training of a run by one recipe sees
//! the same batches: the students of other budgets, and the controls. Of these a frozen teacher always says the same. Its logits are
//! written down the first time and read from then on, which saves its forward (kept logits of augmented images: Shen and
//! Xing 2022). They are `teacher/answers/KEY/epoch-N`, a record for each batch. A record that is missing, damaged or of other images is
//! made again, and who needs the room may remove them; but the last bits of logits depend on the threads that made them, so a
//! training goes on with the same bits only while they stay.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::{Progress, sha256};

/// What the answers of a training take at most to be kept.
const LARGEST: u64 = 1 << 30;
/// Of the pixels of a batch every how manieth is compared.
const STRIDE: usize = 97;
/// Bytes of a checksum.
const SUM: usize = 64;

/// The teacher's logits for all batches of a training.
#[derive(Debug)]
pub(super) struct AnswerBook {
    folder: PathBuf,
    /// Numbers of a record: images of a batch times classes.
    logits: usize,
    /// Batches of an epoch.
    batches: usize,
    epochs: usize,
    /// Whether the disk refused to take more.
    failed: AtomicBool,
}

impl AnswerBook {
    /// The answers to batches of `images` images that `key` tells from all others; none where they would take too much.
    pub(super) fn new(
        all: &Path,
        key: &str,
        (images, classes): (usize, usize),
        (epochs, batches): (usize, usize),
    ) -> Option<Self> {
        let name: String = sha256(key.as_bytes()).chars().take(16).collect();
        let logits = images * classes;
        let book =
            AnswerBook { folder: all.join(name), logits, batches, epochs, failed: AtomicBool::new(false) };
        (book.size() <= LARGEST).then_some(book)
    }

    /// Bytes of a record: the logits behind a checksum.
    fn record(&self) -> u64 {
        (SUM + 4 * self.logits) as u64
    }

    fn size(&self) -> u64 {
        self.record().saturating_mul(self.batches as u64).saturating_mul(self.epochs as u64)
    }

    fn file(&self, epoch: u64) -> PathBuf {
        self.folder.join(format!("epoch-{epoch}"))
    }

    /// Whether something stands in every place.
    pub(super) fn is_whole(&self) -> bool {
        let written = |file: &File, number: usize| {
            // Holes are zeros, checksums are letters and digits.
            let mut first = [0];
            file.read_exact_at(&mut first, number as u64 * self.record()).is_ok() && first != [0]
        };
        let whole =
            |epoch| File::open(self.file(epoch)).is_ok_and(|f| (0..self.batches).all(|n| written(&f, n)));
        (0..self.epochs as u64).all(whole)
    }

    /// Removes the answers of other recipes where those of all would take too much together.
    pub(super) fn make_room(&self) {
        let others = || {
            let entries = self.folder.parent().and_then(|all| fs::read_dir(all).ok());
            entries
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.path())
                .filter(|path| *path != self.folder)
        };
        let files = others().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let taken: u64 = files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum();
        if taken + self.size() > LARGEST {
            for folder in others() {
                // Nothing is lost with them, nor if they stay.
                let _ = fs::remove_dir_all(folder);
            }
        }
    }

    /// Where the answers to a batch of an epoch belong.
    pub(super) fn page(self: &Arc<Self>, epoch: u64, number: usize, batch: &lana_data::Batch) -> Page {
        let mut images = Vec::new();
        images.extend(batch.labels.iter().flat_map(|label| label.to_le_bytes()));
        if let Some(mix) = &batch.mix {
            images.extend(mix.partners.iter().flat_map(|label| label.to_le_bytes()));
            images.extend(mix.lam.to_le_bytes());
        }
        images.extend(batch.images.iter().step_by(STRIDE).flat_map(|value| value.to_le_bytes()));
        Page { book: Arc::clone(self), epoch, number, images }
    }
}

/// The place of one batch's answers.
#[derive(Debug)]
pub(super) struct Page {
    book: Arc<AnswerBook>,
    epoch: u64,
    number: usize,
    /// What tells the batch from others.
    images: Vec<u8>,
}

impl Page {
    fn sum(&self, logits: &[u8]) -> String {
        sha256(&[&self.images, logits].concat())
    }

    /// The logits, image after image, if they stand there.
    pub(super) fn read(&self) -> Option<Vec<f32>> {
        let file = File::open(self.book.file(self.epoch)).ok()?;
        let mut record = vec![0; self.book.record() as usize];
        file.read_exact_at(&mut record, self.number as u64 * self.book.record()).ok()?;
        let (sum, logits) = record.split_at(SUM);
        let value = |bytes: &[u8]| f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        (sum == self.sum(logits).as_bytes()).then(|| logits.chunks_exact(4).map(value).collect())
    }

    /// Writes them down. Where the disk is full, what was written goes again: a checkpoint needs the room more.
    pub(super) fn write(&self, logits: &[f32], progress: &dyn Progress) {
        let book = &self.book;
        if logits.len() != book.logits || book.failed.load(Ordering::Relaxed) {
            return;
        }
        let path = book.file(self.epoch);
        let bytes: Vec<u8> = logits.iter().flat_map(|value| value.to_le_bytes()).collect();
        let record = [self.sum(&bytes).as_bytes(), &bytes].concat();
        let write = || {
            fs::create_dir_all(&book.folder)?;
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
            file.write_all_at(&record, self.number as u64 * book.record())
        };
        if let Err(error) = write()
            && !book.failed.swap(true, Ordering::Relaxed)
        {
            let _ = fs::remove_dir_all(&book.folder);
            progress.warn(&format!("{}: {error}; the teacher's answers are not kept", path.display()));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Silent;

    fn batch(seed: u32) -> lana_data::Batch {
        let images = (0..4 * 300).map(|at| (at * seed) as f32).collect();
        lana_data::Batch { images, labels: vec![1, 2, 3, 4], indices: vec![0, 1, 2, 3], n: 4, mix: None }
    }

    #[test]
    fn answers_are_those_of_the_very_images_or_none() {
        let folder = tempfile::tempdir().unwrap();
        let open = |key: &str| Arc::new(AnswerBook::new(folder.path(), key, (4, 3), (2, 2)).unwrap());
        let book = open("a");
        let logits: Vec<f32> = (0..12).map(|at| at as f32 / 7.0).collect();
        assert_eq!(book.page(0, 1, &batch(1)).read(), None);
        book.page(0, 1, &batch(1)).write(&logits, &Silent);
        assert_eq!(open("a").page(0, 1, &batch(1)).read(), Some(logits.clone()));
        // Other images, another place, another recipe; the place before it is a hole.
        assert_eq!(book.page(0, 1, &batch(2)).read(), None);
        assert_eq!(book.page(0, 0, &batch(1)).read(), None);
        assert_eq!(book.page(1, 1, &batch(1)).read(), None);
        assert_eq!(open("b").page(0, 1, &batch(1)).read(), None);
        // A bit that fell over.
        let file = book.file(0);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(&file, bytes).unwrap();
        assert_eq!(book.page(0, 1, &batch(1)).read(), None);

        assert!(!book.is_whole());
        for (epoch, number) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            book.page(epoch, number, &batch(1)).write(&logits, &Silent);
        }
        assert!(book.is_whole() && !open("b").is_whole());
        // As long as a whole one, with holes.
        open("b").page(1, 1, &batch(1)).write(&logits, &Silent);
        open("b").page(0, 1, &batch(1)).write(&logits, &Silent);
        assert!(!open("b").is_whole());
        assert!(AnswerBook::new(folder.path(), "c", (256, 1000), (100, 5000)).is_none());
        open("b").make_room();
        assert!(book.is_whole(), "small ones stay");
    }
}
