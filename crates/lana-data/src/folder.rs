//! ImageNet's layout: a folder per class, images inside.
//!
//! Classes are numbered in the order of their folders' names, as torchvision's `ImageFolder` numbers them, so the labels
//! agree with networks trained there; or as a file says, where a folder has only some of the classes or others order.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    cifar::sorted_files,
    error::Error,
    picture::{self, EXTENSIONS, Picture},
    source::{Source, expanded},
};

/// The images of a folder of folders, listed but not read.
pub(crate) struct ImageFolder {
    classes: Vec<String>,
    files: Vec<PathBuf>,
    labels: Vec<u32>,
}

impl ImageFolder {
    /// Lists `path`, with classes numbered by the file `index` if there is one; at most `most` classes, where a number is given.
    pub(crate) fn open(path: &Path, index: Option<&Path>, most: Option<usize>) -> Result<ImageFolder, Error> {
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

        let index = index.map(ClassIndex::read).transpose()?;
        let mut found = ImageFolder { classes: Vec::new(), files: Vec::new(), labels: Vec::new() };
        for folder in folders {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let label = match &index {
                Some(index) => index.number(&name)?,
                None => found.classes.len() as u32,
            };
            let files = sorted_files(&folder, |extension| EXTENSIONS.contains(&extension))?;
            if files.is_empty() {
                // Skipping it would shift the numbers of all classes after it.
                let (wanted, cure) = ("jpg, jpeg, png or webp image", "add images or remove the folder");
                return Err(Error::Empty { path: folder, wanted, cure });
            }
            found.labels.resize(found.labels.len() + files.len(), label);
            found.files.extend(files);
            if index.is_none() {
                found.classes.push(name);
            }
        }
        if let Some(index) = index {
            found.classes = index.names;
        }
        Ok(found)
    }
}

/// The classes of a file, in the order of their numbers.
struct ClassIndex {
    path: PathBuf,
    /// Names of folders; empty where the file leaves a number out.
    names: Vec<String>,
}

impl ClassIndex {
    fn read(path: &Path) -> Result<ClassIndex, Error> {
        let text = fs::read_to_string(path).map_err(|error| Error::io(path, error))?;
        let wrong = |reason: String| Error::ClassIndex { path: path.to_owned(), reason };
        let mut classes: Vec<(usize, String)> = Vec::new();
        if text.trim_start().starts_with('{') {
            let json: serde_json::Map<String, serde_json::Value> =
                serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
            for (key, value) in json {
                // Number to names, of which the first is the folder's, or folder to number.
                let first = value.as_array().and_then(|names| names.first()).unwrap_or(&value);
                let class = match (first.as_str(), key.parse(), first.as_u64()) {
                    (Some(name), Ok(number), _) => (number, name.to_owned()),
                    (None, _, Some(number)) => (number as usize, key),
                    _ => return Err(wrong(format!("`{key}` is neither a class nor has one"))),
                };
                classes.push(class);
            }
        } else {
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
            classes.extend(lines.map(str::to_owned).enumerate());
        }
        let most = classes
            .iter()
            .map(|&(number, _)| number)
            .max()
            .ok_or_else(|| wrong("it has no classes".into()))?;
        // A typing error should not fill the memory.
        if most >= 10_000_000 {
            return Err(wrong(format!("class {most} is too high a number")));
        }
        let mut names = vec![String::new(); most + 1];
        for (number, name) in classes {
            if !names[number].is_empty() {
                return Err(wrong(format!("class {number} is both {} and {name}", names[number])));
            }
            names[number] = name;
        }
        Ok(ClassIndex { path: path.to_owned(), names })
    }

    /// The number of a folder. Lines of a text may go on after its name: `n01440764 tench`.
    fn number(&self, folder: &str) -> Result<u32, Error> {
        let whole = self.names.iter().position(|name| name == folder);
        let begins = || self.names.iter().position(|name| name.split_whitespace().next() == Some(folder));
        whole.or_else(begins).map(|number| number as u32).ok_or_else(|| Error::ClassIndex {
            path: self.path.clone(),
            reason: format!("the folder {folder} is not in it"),
        })
    }
}

impl Source for ImageFolder {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Picture, Error> {
        let path = &self.files[index];
        let bytes = fs::read(path).map_err(|error| Error::io(path, error))?;
        picture::decode(&bytes).map_err(|reason| Error::Image { item: self.name(index), reason })
    }

    fn name(&self, index: usize) -> String {
        self.files[index].display().to_string()
    }

    fn decoded_bytes(&self, most: u64) -> u64 {
        // A file that is gone says so when it is read.
        expanded(self.files.iter().map(|path| fs::metadata(path).map_or(0, |data| data.len())), most)
    }

    fn classes(&self) -> usize {
        self.classes.len()
    }

    fn class_names(&self) -> Option<Vec<String>> {
        Some(self.classes.clone())
    }
}
