//! Images and labels in tars, after the [webdataset](https://github.com/webdataset/webdataset) convention.
//!
//! Files that share a name up to the first dot belong together: `00017.jpg` is the image, `00017.cls` its label, or the integer
//! `label` (or `cls`) in `00017.json`. Each
//! tar is walked once for the offsets of its images; afterwards they are read from there one by one, in any order,
//! by any thread, and the tar is never held in memory.

use std::{
    collections::HashMap,
    fs::File,
    io::{BufReader, Read},
    path::PathBuf,
};

use rayon::prelude::*;

use crate::{
    error::Error,
    picture::{self, EXTENSIONS, Picture},
    source::{KEPT_OPEN, Offsets, Source, expanded},
    spec::list_files,
};

/// The longest JSON file whose label is looked for: labels beside whole segmentations are read, films are not.
const NOTE_BYTES: u64 = 16 << 20;

/// Where an image lies.
struct Entry {
    tar: u32,
    offset: u64,
    bytes: u32,
    /// Its name inside the tar.
    name: Box<str>,
}

/// Tars with the places of their images.
pub(crate) struct WebDataset {
    tars: Vec<Offsets>,
    entries: Vec<Entry>,
    labels: Vec<u32>,
    classes: usize,
}

impl WebDataset {
    /// Indexes a tar, the tars of a folder in the order of their names, or those of a pattern with brace ranges.
    pub(crate) fn open(pattern: &str, most: Option<usize>) -> Result<WebDataset, Error> {
        let cure = "name the folder that holds the tars, or a pattern such as train-{0000..0004}.tar";
        let paths = list_files(pattern, "tar", "*.tar file", cure)?;
        let mut set = WebDataset { tars: Vec::new(), entries: Vec::new(), labels: Vec::new(), classes: 0 };
        let keep = paths.len() <= KEPT_OPEN;
        let indexed: Vec<_> = paths.into_par_iter().map(|path| Index::of(path, keep)).collect();
        for index in indexed {
            let index = index?;
            let tar = set.tars.len() as u32;
            for (offset, bytes, name, label) in index.samples {
                if let Some(classes) = most.filter(|&most| label as usize >= most) {
                    let item = format!("{}: {name}", index.path.display());
                    return Err(Error::LabelOutOfRange { item, label: label.into(), classes });
                }
                set.classes = set.classes.max(label as usize + 1);
                set.labels.push(label);
                set.entries.push(Entry { tar, offset, bytes, name });
            }
            set.tars.push(index.file);
        }
        Ok(set)
    }
}

/// The samples of one tar: offset, bytes, name of the image, label.
struct Index {
    path: PathBuf,
    file: Offsets,
    samples: Vec<(u64, u32, Box<str>, u32)>,
}

/// What has been seen of one sample.
#[derive(Default)]
struct Parts {
    image: Option<(u64, u32, Box<str>)>,
    label: Option<u32>,
    /// What a JSON file says, or why it says nothing.
    note: Option<Result<u32, String>>,
}

impl Index {
    /// Walks a tar, which stays open if it is to be kept so.
    fn of(path: PathBuf, keep: bool) -> Result<Index, Error> {
        let io = |error| Error::io(&path, error);
        let file = File::open(&path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if metadata.is_dir() {
            let reason = "is a folder; name the tars in it, for example FOLDER/train-{0000..0004}.tar";
            return Err(Error::WrongKind { path, reason });
        }
        let length = metadata.len();
        if length == 0 {
            return Err(Error::Truncated { path, detail: "it is empty".into() });
        }

        let mut order: Vec<Box<str>> = Vec::new();
        let mut samples: HashMap<Box<str>, Parts> = HashMap::new();
        let tar_error = |error: std::io::Error| {
            let (path, detail) = (path.clone(), error.to_string());
            // What the tar crate says of a header that is cut in two has no kind of its own.
            if error.kind() == std::io::ErrorKind::UnexpectedEof || detail.contains("entire block") {
                Error::Truncated { path, detail }
            } else {
                Error::Tar { path, detail }
            }
        };
        // Headers are 512 bytes with the contents between them: seeking past these reads little of a large tar, and a
        // buffer of a few kilobytes still serves the run of small files that CIFAR-sized sets are.
        let mut archive = tar::Archive::new(BufReader::with_capacity(16 << 10, &file));
        for entry in archive.entries_with_seek().map_err(tar_error)? {
            let mut entry = entry.map_err(tar_error)?;
            let (offset, bytes) = (entry.raw_file_position(), entry.size());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let end = offset.saturating_add(bytes);
            if end > length {
                let detail = format!("{name} should end at byte {end}, the file has {length}");
                return Err(Error::Truncated { path, detail });
            }
            let (key, extension) = split_name(&name);
            let is_image = EXTENSIONS.contains(&extension.as_str());
            if !entry.header().entry_type().is_file()
                || !(is_image || extension == "cls" || extension == "json")
            {
                continue;
            }
            let parts = samples.entry(key.into()).or_insert_with(|| {
                order.push(key.into());
                Parts::default()
            });
            let duplicate = |what| Error::Duplicate { path: path.clone(), key: key.to_owned(), what };
            if is_image {
                if parts.image.is_some() {
                    return Err(duplicate("images"));
                }
                let bytes = u32::try_from(bytes).map_err(|_| Error::Tar {
                    path: path.clone(),
                    detail: format!("{name} has {bytes} bytes, more than any image"),
                })?;
                parts.image = Some((offset, bytes, name.as_str().into()));
            } else if extension == "json" {
                // Other files of a sample may be anything: one without a label is no error as long as there is a `cls`.
                let mut text = Vec::new();
                entry.by_ref().take(NOTE_BYTES).read_to_end(&mut text).map_err(tar_error)?;
                parts.note = Some(if bytes > NOTE_BYTES {
                    Err(format!("has {bytes} bytes, of which {NOTE_BYTES} are looked at most"))
                } else {
                    label_of(&text)
                });
            } else {
                if parts.label.is_some() {
                    return Err(duplicate("labels"));
                }
                // A label is a few digits; whatever else is behind the name need not be read.
                let mut text = Vec::new();
                entry.by_ref().take(32).read_to_end(&mut text).map_err(tar_error)?;
                let text = String::from_utf8_lossy(&text);
                let label = text.trim().parse().map_err(|_| Error::BadLabel {
                    path: path.clone(),
                    key: key.to_owned(),
                    text: text.trim().to_owned(),
                })?;
                parts.label = Some(label);
            }
        }

        // A tar that lost its end between two files looks whole but for the zeros that should follow the last.
        let mut last = [0; 512];
        let end = Offsets::new(path.clone(), file.try_clone().map_err(io)?);
        end.read(length.saturating_sub(512), &mut last)?;
        if last != [0; 512] {
            let detail = format!("no end mark after its {} samples", order.len());
            return Err(Error::Truncated { path, detail });
        }

        let mut found = Vec::with_capacity(order.len());
        for key in order {
            let Parts { image, label, note } = samples.remove(&key).unwrap_or_default();
            // A label without an image is what is left when somebody removes a bad image.
            let Some((offset, bytes, name)) = image else { continue };
            match (label, note) {
                (Some(label), _) | (None, Some(Ok(label))) => found.push((offset, bytes, name, label)),
                (None, Some(Err(reason))) => return Err(Error::BadNote { path, key: key.into(), reason }),
                (None, None) => {
                    return Err(Error::MissingLabel { path, image: name.into(), key: key.into() });
                }
            }
        }
        if found.is_empty() {
            let wanted = "image with a label";
            let cure = "it should hold pairs such as 00000.jpg (or jpeg, png, webp) and 00000.cls";
            return Err(Error::Empty { path, wanted, cure });
        }
        let mut file = Offsets::new(path.clone(), file);
        if !keep {
            file.close();
        }
        Ok(Index { path, file, samples: found })
    }
}

/// The label in a sample's JSON file, or why there is none.
fn label_of(text: &[u8]) -> Result<u32, String> {
    let note: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("is no JSON: {error}"))?;
    let held = || ["label", "cls"].iter().filter_map(|key| Some((key, note.get(key)?)));
    // One of the two may be the class in words.
    let number = held().find_map(|(_, label)| label.as_u64()?.try_into().ok());
    number.ok_or_else(|| match held().next() {
        None => "has neither `label` nor `cls`".into(),
        Some((key, label)) => {
            let label: String = label.to_string().chars().take(40).collect();
            format!("has the `{key}` {label}, which is no integer from 0")
        }
    })
}

/// Splits at the first dot of the file name: `a.b/c.jpg` is `a.b/c` and `jpg`, the extension in lower case.
fn split_name(name: &str) -> (&str, String) {
    let start = name.rfind('/').map_or(0, |slash| slash + 1);
    // Files that macOS puts beside each file it packs.
    if name[start..].starts_with('.') {
        return (name, String::new());
    }
    match name[start..].find('.') {
        Some(dot) => (&name[..start + dot], name[start + dot + 1..].to_ascii_lowercase()),
        None => (name, String::new()),
    }
}

impl Source for WebDataset {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Picture, Error> {
        let entry = &self.entries[index];
        let mut bytes = vec![0; entry.bytes as usize];
        self.tars[entry.tar as usize].read(entry.offset, &mut bytes)?;
        picture::decode(&bytes).map_err(|reason| Error::Image { item: self.name(index), reason })
    }

    fn name(&self, index: usize) -> String {
        let entry = &self.entries[index];
        format!("{}: {}", self.tars[entry.tar as usize].path.display(), entry.name)
    }

    fn decoded_bytes(&self, most: u64) -> u64 {
        expanded(self.entries.iter().map(|entry| entry.bytes.into()), most)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn class_names(&self) -> Option<Vec<String>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_at_the_first_dot() {
        assert_eq!(split_name("00017.jpg"), ("00017", "jpg".into()));
        assert_eq!(split_name("./a.b/c.seg.PNG"), ("./a.b/c", "seg.png".into()));
        assert_eq!(split_name("d/._00017.jpg"), ("d/._00017.jpg", String::new()));
        assert_eq!(split_name("README"), ("README", String::new()));
    }
}
