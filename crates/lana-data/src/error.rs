//! What can go wrong, said so that it can be put right.
//!
//! Data is where users' mistakes arrive: a mistyped path, half a download, a folder one level too high. Every
//! message therefore has three parts: the file or text at fault, what is wrong with it, and what to do about it.

use std::path::{Path, PathBuf};

use crate::dataset::Skipped;

/// Everything this crate can fail with. The message names the file and the cure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The text before the colon of a data specification is no known scheme (or there is no colon).
    #[error(
        "`{text}` is no data specification: write one of cifar10:PATH (cifar10:data/cifar-10-batches-bin), \
         imagefolder:PATH (imagefolder:imagenet/val), webdataset:PATH (webdataset:train-{{0000..0004}}.tar), \
         parquet:PATH (parquet:data/train-{{00000..00004}}-of-00005.parquet), generated:NAME (generated:shapes)"
    )]
    UnknownScheme {
        /// The whole specification.
        text: String,
    },

    /// A specification such as `cifar10:` that names nothing.
    #[error("`{scheme}:` names no {what}: write for example {example}")]
    EmptySpec {
        /// The scheme.
        scheme: &'static str,
        /// What should follow the colon.
        what: &'static str,
        /// A complete specification.
        example: &'static str,
    },

    /// `generated:NAME` with a name that nothing generates.
    #[error("generated:{name}: there is no generated set of that name; use generated:shapes")]
    UnknownGenerated {
        /// The name asked for.
        name: String,
    },

    /// A `key=value` of a generated set that cannot be understood.
    #[error(
        "`{text}` in `{spec}`: {reason}; known are seed=INTEGER, images=COUNT, size=PIXELS, split=train|val"
    )]
    Parameter {
        /// The whole specification.
        spec: String,
        /// The parameter as written.
        text: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A brace range that does not expand.
    #[error("`{pattern}`: {reason}; write ranges as {{0000..0004}}, both ends included")]
    Braces {
        /// The path pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },

    /// A file or folder that is not there.
    #[error(
        "{}: no such file or folder; check the spelling, and that it is relative to the current folder",
        path.display()
    )]
    Missing {
        /// The path.
        path: PathBuf,
    },

    /// A file where a folder belongs.
    #[error("{}: {reason}", path.display())]
    WrongKind {
        /// The path.
        path: PathBuf,
        /// What was expected, and the cure.
        reason: &'static str,
    },

    /// The operating system refused to read.
    #[error("{}: cannot be read ({source}); check its permissions and the disk", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },

    /// A folder or file with nothing usable in it.
    #[error("{}: holds no {wanted}; {cure}", path.display())]
    Empty {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What to do.
        cure: &'static str,
    },

    /// A CIFAR file that is not a whole number of records.
    #[error(
        "{}: {bytes} bytes are not a multiple of 3073 (one label byte and 32x32x3 pixels), so it is cut off or not \
         CIFAR-10's binary version; fetch cifar-10-binary.tar.gz again",
        path.display()
    )]
    RecordSize {
        /// The path.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },

    /// A label beyond the number of classes.
    #[error(
        "{item}: label {label} is out of range for {classes} classes (0 to {}); check that the data belong to this \
         network, and that labels count from 0",
        classes.saturating_sub(1)
    )]
    LabelOutOfRange {
        /// The image, with its file.
        item: String,
        /// Its label.
        label: u64,
        /// The number of classes.
        classes: usize,
    },

    /// More class folders than classes.
    #[error(
        "{}: {found} class folders for {classes} classes; check that the data belong to this network, and remove \
         folders that are no classes",
        path.display()
    )]
    TooManyClasses {
        /// The folder.
        path: PathBuf,
        /// Its class folders.
        found: usize,
        /// The number of classes asked for.
        classes: usize,
    },

    /// An image in a tar without its label.
    #[error(
        "{}: {image} has no label; every image needs a file {key}.cls beside it that holds the class as an integer, \
         or {key}.json with it as `label` (if the tar is cut off, fetch it again)",
        path.display()
    )]
    MissingLabel {
        /// The tar.
        path: PathBuf,
        /// The image inside it.
        image: String,
        /// The name the two share.
        key: String,
    },

    /// A label that is no integer.
    #[error("{}: {key}.cls holds `{text}`; write the class as an ASCII integer that counts from 0", path.display())]
    BadLabel {
        /// The tar.
        path: PathBuf,
        /// The name of the sample.
        key: String,
        /// The start of what it holds.
        text: String,
    },

    /// A JSON file without a label, where there is no other.
    #[error(
        "{}: {key}.json {reason}; write the class as `\"label\": 3`, an integer that counts from 0, or put it into {key}.cls",
        path.display()
    )]
    BadNote {
        /// The tar.
        path: PathBuf,
        /// The name of the sample.
        key: String,
        /// What is wrong with it.
        reason: String,
    },

    /// Two images or two labels of one name in one tar.
    #[error("{}: {key} has two {what}; give every sample a name of its own", path.display())]
    Duplicate {
        /// The tar.
        path: PathBuf,
        /// The name of the sample.
        key: String,
        /// `images` or `labels`.
        what: &'static str,
    },

    /// A tar that ends before its content does.
    #[error("{}: is cut off ({detail}); fetch or write it again", path.display())]
    Truncated {
        /// The tar.
        path: PathBuf,
        /// Where it stops.
        detail: String,
    },

    /// A file that is no tar.
    #[error("{}: is not a readable tar ({detail}); unpack it if it is compressed, or fetch it again", path.display())]
    Tar {
        /// The path.
        path: PathBuf,
        /// The cause.
        detail: String,
    },

    /// A file that is no parquet, or a damaged one.
    #[error("{}: is not a readable parquet file ({detail}); fetch it again", path.display())]
    Parquet {
        /// The path.
        path: PathBuf,
        /// The cause.
        detail: String,
    },

    /// A parquet file without a column of images or of labels, or with several of which none has a usual name.
    #[error("{}: no column is known to hold the {wanted}; it has {columns}", path.display())]
    Columns {
        /// The path.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
        /// What there is.
        columns: String,
    },

    /// A row whose label is negative.
    #[error("{item}: label {label}; sets without labels, such as many test sets, cannot be used")]
    NoLabel {
        /// The image.
        item: String,
        /// Its label.
        label: i64,
    },

    /// A file of classes that cannot be understood, or that lacks one.
    #[error("{}: {reason}; it should be JSON such as {{\"0\": [\"n01440764\", \"tench\"]}} or {{\"n01440764\": 0}}, or the folders' names line by line", path.display())]
    ClassIndex {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },

    /// An image that does not decode.
    #[error("{item}: cannot be decoded ({reason}); replace or remove it")]
    Image {
        /// The image, with its file.
        item: String,
        /// The decoder's words.
        reason: String,
    },

    /// More than one image in a hundred does not decode.
    #[error(
        "{data}: {skipped} of {total} images cannot be decoded, more than the 1 % that is tolerated; the first is \
         {} ({}); replace or remove them, or fetch the data again",
        first.item,
        first.reason
    )]
    TooManyBroken {
        /// The specification of the data.
        data: String,
        /// How many are broken.
        skipped: usize,
        /// How many there are.
        total: usize,
        /// The first of them.
        first: Box<Skipped>,
    },

    /// A setting that cannot work.
    #[error("{setting}: {reason}")]
    Setting {
        /// The name of the setting.
        setting: &'static str,
        /// What is wrong, and the cure.
        reason: String,
    },

    /// An index beyond the data.
    #[error("{data}: there is no image {index}, it has {len} (0 to {})", len.saturating_sub(1))]
    IndexOutOfRange {
        /// The specification of the data.
        data: String,
        /// The index asked for.
        index: usize,
        /// The number of images.
        len: usize,
    },

    /// A loader thread that panicked: a defect of lana, reported instead of a hang.
    #[error(
        "a loader thread panicked while making batch {batch}: {message}; this is a defect of lana, please report it"
    )]
    WorkerPanic {
        /// The batch it was making.
        batch: usize,
        /// The panic's message.
        message: String,
    },
}

impl Error {
    /// An I/O error at `path`; "not found" becomes [`Error::Missing`], whose cure is another.
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Error {
        if source.kind() == std::io::ErrorKind::NotFound {
            Error::Missing { path: path.to_owned() }
        } else {
            Error::Io { path: path.to_owned(), source }
        }
    }
}
