//! ImageNet's layout: a folder per class, images inside.
//!
//! Classes are numbered in the order of their folders' names, as torchvision's `ImageFolder` numbers them, so the labels
//! agree with networks trained there.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cifar::sorted_files,
    decode::{self, EXTENSIONS, Rgb},
    error::Error,
    source::Source,
};

/// The images of a folder of folders, listed but not read.
pub(crate) struct ImageFolder {
    classes: Vec<String>,
    files: Vec<PathBuf>,
    labels: Vec<u32>,
}

impl ImageFolder {
    /// Lists `path`; at most `most` classes, where a number is given.
    pub(crate) fn open(path: &Path, most: Option<usize>) -> Result<ImageFolder, Error> {
        if !fs::metadata(path).map_err(|error| Error::io(path, error))?.is_dir() {
            let reason = "is a file; imagefolder takes the folder that holds one folder per class";
            return Err(Error::WrongKind { path: path.to_owned(), reason });
        }
        let mut folders = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| Error::io(path, error))? {
            let entry = entry.map_err(|error| Error::io(path, error))?;
            // `.cache`, `.git` and the like are no classes.
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if entry.path().is_dir() && !hidden {
                folders.push(entry.path());
            }
        }
        folders.sort();
        if folders.is_empty() {
            let cure = "put the images of each class into a folder of their own: FOLDER/CLASS/IMAGE.jpg";
            return Err(Error::Empty { path: path.to_owned(), wanted: "class folder", cure });
        }
        if let Some(classes) = most.filter(|&most| folders.len() > most) {
            return Err(Error::TooManyClasses { path: path.to_owned(), found: folders.len(), classes });
        }

        let mut found = ImageFolder { classes: Vec::new(), files: Vec::new(), labels: Vec::new() };
        for folder in folders {
            let files = sorted_files(&folder, |extension| EXTENSIONS.contains(&extension))?;
            if files.is_empty() {
                // Skipping it would shift the numbers of all classes after it.
                let (wanted, cure) = ("jpg, jpeg, png or webp image", "add images or remove the folder");
                return Err(Error::Empty { path: folder, wanted, cure });
            }
            found.labels.resize(found.labels.len() + files.len(), found.classes.len() as u32);
            found.files.extend(files);
            let name = folder.file_name().unwrap_or_default().to_string_lossy();
            found.classes.push(name.into_owned());
        }
        Ok(found)
    }
}

impl Source for ImageFolder {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Rgb, Error> {
        let path = &self.files[index];
        let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
        decode::decode(&bytes).map_err(|reason| Error::Image { item: self.name(index), reason })
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn classes(&self) -> usize {
        self.classes.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(self.classes.clone())
    }
}
