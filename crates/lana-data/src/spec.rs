//! Data named by a line of text.
//!
//! The command line, the configuration file and the tests all name data in the same way, `scheme:rest`. Parsing
//! looks at the text only; whether the files exist is found out by [`Dataset::open`](crate::Dataset::open).

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{cifar::sorted_files, error::Error};

/// Which images, as written by the user.
///
/// | text | images |
/// |---|---|
/// | `cifar10:PATH` | CIFAR-10's binary version: one file, or all `*.bin` of a folder, sorted by name |
/// | `imagefolder:PATH` | ImageNet's layout, `PATH/CLASS/*.jpg`, classes numbered in the order of their names, or as `?classes=FILE` says |
/// | `webdataset:PATH` | tars of `KEY.jpg` and `KEY.cls` or `KEY.json`: a tar, a folder of tars, or `train-{0000..0004}.tar` |
/// | `parquet:PATH` | image sets of the Hugging Face hub: a file, a folder of them, or `train-{00000..00004}-of-00005.parquet` |
/// | `generated:shapes` | ten classes of drawn shapes; `?seed=0&images=10000&size=32&split=train` |
///
/// ```
/// use lana_data::DataSpec;
///
/// let data: DataSpec = "generated:shapes?split=val".parse().unwrap();
/// assert_eq!(data.to_string(), "generated:shapes?seed=0&images=2000&split=val");
/// assert!("cifra10:data".parse::<DataSpec>().unwrap_err().to_string().contains("cifar10:PATH"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DataSpec {
    /// CIFAR-10's binary version: a file or a folder of `*.bin`.
    Cifar10(PathBuf),
    /// A folder with one folder of images per class.
    ImageFolder {
        /// The folder.
        path: PathBuf,
        /// A file that numbers the classes: JSON (`{"0": ["n01440764", "tench"], …}` or `{"n01440764": 0, …}`) or a text with the
        /// name of a folder in each line. Without it they are numbered in the order of their names.
        classes: Option<PathBuf>,
    },
    /// A tar, a folder of tars, or a pattern with brace ranges.
    WebDataset(String),
    /// A parquet file, a folder of them, or a pattern with brace ranges.
    Parquet(String),
    /// Images drawn by this crate.
    Generated(GeneratedSpec),
}

/// The parameters of `generated:shapes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedSpec {
    /// Chooses the whole set; both splits of one seed are disjoint streams.
    pub seed: u64,
    /// How many images: 10,000 for training and 2,000 for validation unless said otherwise.
    pub images: usize,
    /// Width and height in pixels. Not said: what [`DatasetOptions::size`](crate::DatasetOptions) asks for, or 32.
    pub size: Option<usize>,
    /// Training or validation images.
    pub split: Split,
}

/// Training or validation images.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Split {
    /// To train on.
    Train,
    /// To validate on.
    Val,
}

impl Split {
    fn default_images(self) -> usize {
        match self {
            Split::Train => 10_000,
            Split::Val => 2_000,
        }
    }
}

impl fmt::Display for Split {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Split::Train => "train",
            Split::Val => "val",
        })
    }
}

impl FromStr for DataSpec {
    type Err = Error;

    fn from_str(text: &str) -> Result<DataSpec, Error> {
        let unknown = || Error::UnknownScheme { text: text.to_owned() };
        let (scheme, rest) = text.split_once(':').ok_or_else(unknown)?;
        let empty = |scheme, what, example| Err(Error::EmptySpec { scheme, what, example });
        match scheme {
            "cifar10" if rest.is_empty() => {
                empty("cifar10", "file or folder", "cifar10:data/cifar-10-batches-bin")
            }
            "cifar10" => Ok(DataSpec::Cifar10(rest.into())),
            "imagefolder" if rest.is_empty() => empty("imagefolder", "folder", "imagefolder:imagenet/val"),
            "imagefolder" => Ok(match rest.split_once("?classes=") {
                Some((_, "")) => {
                    return empty("imagefolder", "file of classes", "imagefolder:val?classes=index.json");
                }
                Some((path, classes)) => {
                    DataSpec::ImageFolder { path: path.into(), classes: Some(classes.into()) }
                }
                None => DataSpec::ImageFolder { path: rest.into(), classes: None },
            }),
            "webdataset" if rest.is_empty() => {
                empty("webdataset", "tar", "webdataset:train-{0000..0004}.tar")
            }
            "webdataset" => Ok(DataSpec::WebDataset(rest.to_owned())),
            "parquet" if rest.is_empty() => {
                empty("parquet", "file", "parquet:data/train-{00000..00004}-of-00005.parquet")
            }
            "parquet" => Ok(DataSpec::Parquet(rest.to_owned())),
            "generated" if rest.is_empty() => empty("generated", "set", "generated:shapes"),
            "generated" => Ok(DataSpec::Generated(parse_generated(text, rest)?)),
            _ => Err(unknown()),
        }
    }
}

fn parse_generated(spec: &str, rest: &str) -> Result<GeneratedSpec, Error> {
    let (name, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    if name != "shapes" {
        return Err(Error::UnknownGenerated { name: name.to_owned() });
    }
    let (mut seed, mut images, mut size, mut split) = (0, None, None, Split::Train);
    for text in parameters.split('&').filter(|text| !text.is_empty()) {
        let wrong = |reason: &str| Error::Parameter {
            spec: spec.to_owned(),
            text: text.to_owned(),
            reason: reason.to_owned(),
        };
        let (key, value) = text.split_once('=').ok_or_else(|| wrong("it is not of the form key=value"))?;
        match key {
            "seed" => seed = value.parse().map_err(|_| wrong("the seed is a whole number from 0"))?,
            "images" => match value.parse() {
                Ok(count) if (1..=u32::MAX as usize).contains(&count) => images = Some(count),
                _ => return Err(wrong("the number of images is a whole number from 1 to 4294967295")),
            },
            "size" => match value.parse() {
                Ok(pixels) if (8..=1024).contains(&pixels) => size = Some(pixels),
                _ => return Err(wrong("the size is 8 to 1024 pixels")),
            },
            "split" => {
                split = match value {
                    "train" => Split::Train,
                    "val" => Split::Val,
                    _ => return Err(wrong("the split is train or val")),
                }
            }
            _ => return Err(wrong("there is no such parameter")),
        }
    }
    Ok(GeneratedSpec { seed, images: images.unwrap_or(split.default_images()), size, split })
}

impl fmt::Display for DataSpec {
    /// The text that parses to the same value. Defaults are spelled out, so that a configuration written today
    /// means the same images should the defaults change.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DataSpec::Cifar10(path) => write!(f, "cifar10:{}", path.display()),
            DataSpec::ImageFolder { path, classes } => {
                write!(f, "imagefolder:{}", path.display())?;
                classes.as_ref().map_or(Ok(()), |file| write!(f, "?classes={}", file.display()))
            }
            DataSpec::WebDataset(pattern) => write!(f, "webdataset:{pattern}"),
            DataSpec::Parquet(pattern) => write!(f, "parquet:{pattern}"),
            DataSpec::Generated(GeneratedSpec { seed, images, size, split }) => {
                write!(f, "generated:shapes?seed={seed}&images={images}")?;
                if let Some(size) = size {
                    write!(f, "&size={size}")?;
                }
                write!(f, "&split={split}")
            }
        }
    }
}

/// The files that a path, folder or pattern with brace ranges names.
pub(crate) fn list_files(
    pattern: &str,
    extension: &str,
    wanted: &'static str,
    cure: &'static str,
) -> Result<Vec<PathBuf>, Error> {
    let path = Path::new(pattern);
    // A folder or file may itself have braces in its name.
    if path.is_dir() {
        let files = sorted_files(path, |found| found == extension)?;
        if files.is_empty() {
            return Err(Error::Empty { path: path.to_owned(), wanted, cure });
        }
        return Ok(files);
    }
    if path.exists() {
        return Ok(vec![path.to_owned()]);
    }
    Ok(expand_braces(pattern)?.into_iter().map(PathBuf::from).collect())
}

/// Replaces every `{0000..0004}` of `pattern` by its numbers, the last brace varying fastest.
///
/// Zero padding is kept: `{08..10}` gives 08, 09, 10. A pattern without braces gives itself.
fn expand_braces(pattern: &str) -> Result<Vec<String>, Error> {
    // More shards than any set has; a typing error such as {0..99999999} should not fill the memory.
    const MOST: u64 = 100_000;
    let wrong = |reason: String| Error::Braces { pattern: pattern.to_owned(), reason };

    let mut names = vec![String::new()];
    let mut rest = pattern;
    while let Some(open) = rest.find('{') {
        let close = rest[open..].find('}').ok_or_else(|| wrong("a brace is not closed".into()))? + open;
        let range = &rest[open + 1..close];
        let (first, last) =
            range.split_once("..").ok_or_else(|| wrong(format!("{{{range}}} is no range")))?;
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| wrong(format!("`{text}` in {{{range}}} is no whole number")))
        };
        let (from, to) = (number(first)?, number(last)?);
        if from > to {
            return Err(wrong(format!("{{{range}}} runs backwards")));
        }
        if (to - from).saturating_add(1).saturating_mul(names.len() as u64) > MOST {
            return Err(wrong(format!("{{{range}}} makes more than {MOST} files")));
        }
        // As the shell does: a leading zero on either end asks for a fixed width.
        let padded = |text: &str| text.len() > 1 && text.starts_with('0');
        let width = if padded(first) || padded(last) { first.len().max(last.len()) } else { 0 };
        names = names
            .iter()
            .flat_map(|name| (from..=to).map(move |n| (name, n)))
            .map(|(name, n)| format!("{name}{}{n:0width$}", &rest[..open]))
            .collect();
        rest = &rest[close + 1..];
    }
    if rest.contains('}') {
        return Err(wrong("a brace is closed that was not opened".into()));
    }
    names.iter_mut().for_each(|name| name.push_str(rest));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specifications_survive_display_and_parse() {
        for text in [
            "cifar10:data/cifar",
            "imagefolder:C:/images",
            "imagefolder:images?classes=index.json",
            "webdataset:a-{0..3}.tar",
            "parquet:data",
            "generated:shapes?seed=1&images=5000&size=32&split=val",
            "generated:shapes?seed=1&images=5000&split=train",
        ] {
            let spec: DataSpec = text.parse().unwrap();
            assert_eq!(spec.to_string(), text);
            assert_eq!(spec.to_string().parse::<DataSpec>().unwrap(), spec);
        }
        let short: DataSpec = "generated:shapes".parse().unwrap();
        assert_eq!(short.to_string(), "generated:shapes?seed=0&images=10000&split=train");
    }

    #[test]
    fn bad_specifications_say_what_is_valid() {
        for (text, part) in [
            ("imagenet", "cifar10:PATH"),
            ("lmdb:x", "webdataset:PATH"),
            ("/some/folder", "imagefolder:PATH"),
            ("cifar10:", "cifar10:data/"),
            ("webdataset:", "{0000..0004}"),
            ("imagefolder:", "imagefolder:imagenet"),
            ("imagefolder:val?classes=", "classes=index.json"),
            ("parquet:", "parquet:data/train"),
            ("generated:", "generated:shapes"),
            ("generated:faces", "generated:shapes"),
            ("generated:shapes?images=0", "images=COUNT"),
            ("generated:shapes?seed=-1", "whole number"),
            ("generated:shapes?size=4", "8 to 1024"),
            ("generated:shapes?split=test", "train|val"),
            ("generated:shapes?colour=red", "no such parameter"),
            ("generated:shapes?seed", "key=value"),
        ] {
            let message = text.parse::<DataSpec>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn braces_expand_with_padding() {
        assert_eq!(expand_braces("a.tar").unwrap(), ["a.tar"]);
        assert_eq!(expand_braces("a-{08..10}.tar").unwrap(), ["a-08.tar", "a-09.tar", "a-10.tar"]);
        assert_eq!(expand_braces("{9..11}").unwrap(), ["9", "10", "11"]);
        assert_eq!(expand_braces("{0..1}/{0..1}").unwrap(), ["0/0", "0/1", "1/0", "1/1"]);
        for bad in ["a{0..", "a{3}", "a{b..c}", "a{4..2}", "a}b", "{0..999999999}"] {
            assert!(matches!(expand_braces(bad), Err(Error::Braces { .. })), "{bad}");
        }
    }
}
