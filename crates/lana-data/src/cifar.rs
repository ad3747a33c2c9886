//! CIFAR-10's binary version.
//!
//! Records of 3073 bytes without any header: one label byte, then 32x32 pixels as three planes, red, green, blue.
//! <https://www.cs.toronto.edu/~kriz/cifar.html>

use std::{
    fs::{self, File},
    io::{BufReader, Read},
    path::{Path, PathBuf},
};

use crate::{
    error::Error,
    picture::Picture,
    source::{Offsets, Source},
};

const SIDE: usize = 32;
const PIXELS: usize = SIDE * SIDE;
const RECORD: usize = 1 + 3 * PIXELS;
const NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// One or several files of records.
pub(crate) struct Cifar10 {
    files: Vec<Offsets>,
    /// The index of the first image of each file.
    starts: Vec<usize>,
    labels: Vec<u32>,
}

impl Cifar10 {
    /// Reads the labels of a file, or of all `*.bin` files of a folder in the order of their names.
    pub(crate) fn open(path: &Path) -> Result<Cifar10, Error> {
        let mut cifar = Cifar10 { files: Vec::new(), starts: Vec::new(), labels: Vec::new() };
        for path in list(path)? {
            cifar.add(path)?;
        }
        if cifar.labels.is_empty() {
            let (wanted, cure) = ("images", "fetch cifar-10-binary.tar.gz and name its *.bin files");
            return Err(Error::Empty { path: path.to_owned(), wanted, cure });
        }
        Ok(cifar)
    }

    fn add(&mut self, path: PathBuf) -> Result<(), Error> {
        let file = File::open(&path).map_err(|error| Error::io(&path, error))?;
        let bytes = file.metadata().map_err(|error| Error::io(&path, error))?.len();
        if bytes % RECORD as u64 != 0 {
            return Err(Error::RecordSize { path, bytes });
        }
        self.starts.push(self.labels.len());
        let mut reader = BufReader::with_capacity(64 * RECORD, &file);
        let mut record = [0; RECORD];
        for number in 0..bytes / RECORD as u64 {
            reader.read_exact(&mut record).map_err(|error| Error::io(&path, error))?;
            if usize::from(record[0]) >= NAMES.len() {
                let item = format!("{}: image {number}", path.display());
                return Err(Error::LabelOutOfRange { item, label: record[0].into(), classes: NAMES.len() });
            }
            self.labels.push(record[0].into());
        }
        self.files.push(Offsets::new(path, file));
        Ok(())
    }

    /// The file of an image, and the number of its record there.
    fn locate(&self, index: usize) -> (&Offsets, usize) {
        let file = self.starts.partition_point(|&start| start <= index) - 1;
        (&self.files[file], index - self.starts[file])
    }
}

fn list(path: &Path) -> Result<Vec<PathBuf>, Error> {
    if !fs::metadata(path).map_err(|error| Error::io(path, error))?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let files = sorted_files(path, |extension| extension == "bin")?;
    if files.is_empty() {
        let cure = "name the folder that holds data_batch_1.bin (or one such file)";
        return Err(Error::Empty { path: path.to_owned(), wanted: "*.bin file", cure });
    }
    Ok(files)
}

/// The files of a folder whose lower-case extension is wanted, sorted by name; hidden files are left out.
pub(crate) fn sorted_files(folder: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
        let path = entry.map_err(|error| Error::io(folder, error))?.path();
        let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if extension.is_some_and(|e| wanted(&e)) && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Source for Cifar10 {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Picture, Error> {
        let (file, number) = self.locate(index);
        let mut planes = [0; 3 * PIXELS];
        file.read((number * RECORD + 1) as u64, &mut planes)?;
        let (red, rest) = planes.split_at(PIXELS);
        let (green, blue) = rest.split_at(PIXELS);
        let mut pixels = vec![0; 3 * PIXELS];
        for (i, pixel) in pixels.chunks_exact_mut(3).enumerate() {
            pixel.copy_from_slice(&[red[i], green[i], blue[i]]);
        }
        Ok(Picture { width: SIDE, height: SIDE, pixels })
    }

    fn name(&self, index: usize) -> String {
        let (file, number) = self.locate(index);
        format!("{}: image {number}", file.path.display())
    }

    fn decoded_bytes(&self, _most: u64) -> u64 {
        (self.labels.len() * 3 * PIXELS) as u64
    }

    fn classes(&self) -> usize {
        NAMES.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(NAMES.map(String::from).to_vec())
    }
}
