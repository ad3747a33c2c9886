//! What a format has to offer: numbered images with labels, read one at a time from any thread.

use std::{fs::File, io, path::PathBuf};

use crate::{error::Error, picture::Picture};

/// How many times the stored bytes of an image its pixels take, at most but for drawings: JPEGs of photographs take 3 to 8.
const EXPANSION: u64 = 8;

/// The images of one format. Labels are known without decoding.
pub(crate) trait Source: Send + Sync {
    /// The label of every image.
    fn labels(&self) -> &[u32];

    /// Reads and decodes image `index`; [`Error::Image`] if its content is broken.
    fn read(&self, index: usize) -> Result<Picture, Error>;

    /// The name of image `index` in messages: its file, and where in it.
    fn name(&self, index: usize) -> String;

    /// About how many bytes all images take when they are decoded; may stop counting beyond `most`.
    fn decoded_bytes(&self, most: u64) -> u64;

    /// The number of classes as far as the format knows.
    fn classes(&self) -> usize;

    /// The names of the classes, where known.
    fn class_names(&self) -> Option<Vec<String>>;
}

/// What images take decoded, by their stored sizes.
pub(crate) fn expanded(sizes: impl Iterator<Item = u64>, most: u64) -> u64 {
    let mut sum = 0;
    for bytes in sizes {
        sum += bytes * EXPANSION;
        if sum > most {
            break;
        }
    }
    sum
}

/// A file read at offsets from many threads at once: no shared position, no lock.
pub(crate) struct Offsets {
    pub(crate) path: PathBuf,
    /// None where the set has so many files that they are opened when they are read.
    file: Option<File>,
}

/// Files of a set that stay open, at most: systems allow a process about a thousand.
pub(crate) const KEPT_OPEN: usize = 128;

impl Offsets {
    pub(crate) fn new(path: PathBuf, file: File) -> Offsets {
        Offsets { path, file: Some(file) }
    }

    /// Lets the file go: it is opened again for every read.
    pub(crate) fn close(&mut self) {
        self.file = None;
    }

    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let result = match &self.file {
            Some(file) => read_exact_at(file, bytes, offset),
            None => File::open(&self.path).and_then(|file| read_exact_at(&file, bytes, offset)),
        };
        result.map_err(|source| match source.kind() {
            // The index was made when the file was whole.
            io::ErrorKind::UnexpectedEof => Error::Truncated {
                path: self.path.clone(),
                detail: format!("nothing at byte {offset}, though it was longer when opened"),
            },
            _ => Error::io(&self.path, source),
        })
    }
}

#[cfg(unix)]
fn read_exact_at(file: &File, bytes: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !bytes.is_empty() {
        match file.seek_read(bytes, offset)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                bytes = &mut bytes[n..];
                offset += n as u64;
            }
        }
    }
    Ok(())
}
