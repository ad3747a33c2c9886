//! Image sets of the Hugging Face hub: parquet files with a column of images and one of labels.
//!
//! An image is a struct of `bytes` (the JPEG, PNG or WebP) and `path`, a label an integer. Opening reads the labels and, from the
//! files' own descriptions, where each row group lies. An image is then read alone, in any order, by any thread: the pages
//! in front of its own are passed over by their headers, so that about one page, usually a megabyte, is read for it.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parquet::{
    basic::Type,
    column::reader::{ColumnReader, ColumnReaderImpl},
    data_type::DataType,
    errors::ParquetError,
    file::reader::{ChunkReader, FileReader, Length, SerializedFileReader},
    schema::types::SchemaDescriptor,
};
use rayon::prelude::*;

use crate::{
    error::Error,
    picture::{self, Picture},
    source::{KEPT_OPEN, Offsets, Source, expanded},
    spec::list_files,
};

/// Parquet files with the places of their images.
pub(crate) struct Parquet {
    files: Vec<Table>,
    groups: Vec<Group>,
    labels: Vec<u32>,
    classes: usize,
    names: Option<Vec<String>>,
}

/// One open file.
struct Table {
    path: PathBuf,
    reader: SerializedFileReader<Shared>,
    /// The leaf column of the encoded images.
    images: usize,
    bytes: u64,
}

/// A row group.
struct Group {
    file: u32,
    number: u32,
    /// Index of its first image.
    start: usize,
}

impl Parquet {
    /// Reads the labels of a file, of the files of a folder in the order of their names, or of those of a pattern with brace
    /// ranges.
    pub(crate) fn open(pattern: &str) -> Result<Parquet, Error> {
        let cure =
            "name the folder that holds them, or a pattern such as train-{00000..00004}-of-00005.parquet";
        let paths = list_files(pattern, "parquet", "*.parquet file", cure)?;
        let keep = paths.len() <= KEPT_OPEN;
        let opened: Vec<_> = paths.into_par_iter().map(|path| Table::open(path, keep)).collect();
        let mut set =
            Parquet { files: Vec::new(), groups: Vec::new(), labels: Vec::new(), classes: 0, names: None };
        for result in opened {
            let (table, groups, names) = result?;
            for (number, labels) in groups.into_iter().enumerate() {
                let (file, number) = (set.files.len() as u32, number as u32);
                set.groups.push(Group { file, number, start: set.labels.len() });
                for label in labels {
                    let item = || format!("{}: image {}", table.path.display(), set.labels.len());
                    let label = u32::try_from(label).map_err(|_| Error::NoLabel { item: item(), label })?;
                    set.classes = set.classes.max(label as usize + 1);
                    set.labels.push(label);
                }
            }
            set.names = set.names.or(names);
            set.files.push(table);
        }
        if let Some(names) = set.names.take_if(|names| names.len() < set.classes) {
            let reason =
                format!("{pattern} names {} classes, its labels go to {}", names.len(), set.classes - 1);
            return Err(Error::Setting { setting: "data", reason });
        }
        set.classes = set.names.as_ref().map_or(set.classes, Vec::len);
        match set.labels.is_empty() {
            true => {
                Err(Error::Empty { path: pattern.into(), wanted: "images", cure: "fetch the files again" })
            }
            false => Ok(set),
        }
    }

    /// The row group of an image, and its row there.
    fn locate(&self, index: usize) -> (&Table, &Group, usize) {
        // The last that begins there: groups before it may be empty.
        let group = &self.groups[self.groups.partition_point(|group| group.start <= index) - 1];
        (&self.files[group.file as usize], group, index - group.start)
    }
}

type Opened = (Table, Vec<Vec<i64>>, Option<Vec<String>>);

impl Table {
    /// Reads what stands about the images of a file, which stays open if it is to be kept so.
    fn open(path: PathBuf, keep: bool) -> Result<Opened, Error> {
        let io = |error| Error::io(&path, error);
        let file = File::open(&path).map_err(io)?;
        let bytes = file.metadata().map_err(io)?.len();
        let mut file = Offsets::new(path.clone(), file);
        if !keep {
            file.close();
        }
        let shared = Shared { file: Arc::new(file), bytes };
        let broken = |error: ParquetError| Error::Parquet { path: path.clone(), detail: error.to_string() };
        let reader = SerializedFileReader::new(shared).map_err(broken)?;
        let schema = reader.metadata().file_metadata().schema_descr_ptr();
        let images = find(&path, &schema, &["image", "img", "jpg", "png"], true)?;
        let label_column = find(&path, &schema, &["label", "labels", "cls", "fine_label"], false)?;
        let name = schema.column(label_column).name().to_owned();
        let mut labels = Vec::new();
        for group in 0..reader.num_row_groups() {
            let group = reader.get_row_group(group).map_err(broken)?;
            let rows = group.metadata().num_rows() as usize;
            let column = group.get_column_reader(label_column).map_err(broken)?;
            let values: Vec<i64> = match column {
                ColumnReader::Int64ColumnReader(column) => all(column, rows).map_err(broken)?,
                ColumnReader::Int32ColumnReader(column) => {
                    all(column, rows).map_err(broken)?.into_iter().map(i64::from).collect()
                }
                _ => Vec::new(),
            };
            if values.len() != rows {
                let detail = format!("its column {name} has {} integers in {rows} rows", values.len());
                return Err(Error::Parquet { path, detail });
            }
            labels.push(values);
        }
        let names = class_names(&reader, &name);
        Ok((Table { path, reader, images, bytes }, labels, names))
    }

    /// The stored bytes of one image.
    fn image(&self, group: u32, row: usize) -> Result<Option<Vec<u8>>, ParquetError> {
        let group = self.reader.get_row_group(group as usize)?;
        let ColumnReader::ByteArrayColumnReader(mut column) = group.get_column_reader(self.images)? else {
            return Err(ParquetError::General("the images are no bytes".into()));
        };
        column.skip_records(row)?;
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        column.read_records(1, Some(&mut levels), None, &mut values)?;
        Ok(values.pop().map(|value| value.data().to_vec()))
    }
}

/// Every value of a column without gaps.
fn all<T: DataType>(mut column: ColumnReaderImpl<T>, rows: usize) -> Result<Vec<T::T>, ParquetError> {
    let (mut levels, mut values) = (Vec::new(), Vec::new());
    let mut read = 0;
    while read < rows {
        let (records, _, _) = column.read_records(rows - read, Some(&mut levels), None, &mut values)?;
        if records == 0 {
            break;
        }
        read += records;
    }
    Ok(values)
}

/// The leaf column of the images (`NAME.bytes`) or labels (`NAME`), by the names people give; the only one of its kind, if
/// none has such a name.
fn find(path: &Path, schema: &SchemaDescriptor, names: &[&str], images: bool) -> Result<usize, Error> {
    let fits = |column: usize| {
        let column = schema.column(column);
        let kind = match images {
            true => column.physical_type() == Type::BYTE_ARRAY && column.name() == "bytes",
            false => {
                matches!(column.physical_type(), Type::INT64 | Type::INT32)
                    && column.path().parts().len() == 1
            }
        };
        kind && column.max_rep_level() == 0
    };
    let fitting: Vec<usize> = (0..schema.num_columns()).filter(|&column| fits(column)).collect();
    let named =
        |name: &&str| fitting.iter().find(|&&c| schema.column(c).path().parts()[0] == **name).copied();
    let only = (fitting.len() == 1).then(|| fitting[0]);
    names.iter().find_map(named).or(only).ok_or_else(|| Error::Columns {
        path: path.to_owned(),
        wanted: if images {
            "images (a struct `image` with the field `bytes`)"
        } else {
            "labels (integers, `label`)"
        },
        columns: schema.columns().iter().map(|c| c.path().string()).collect::<Vec<_>>().join(", "),
    })
}

/// The names of the classes that `datasets` wrote into the file, if it did.
fn class_names(reader: &SerializedFileReader<Shared>, label: &str) -> Option<Vec<String>> {
    let notes = reader.metadata().file_metadata().key_value_metadata()?;
    let text = notes.iter().find(|note| note.key == "huggingface")?.value.as_deref()?;
    let notes: serde_json::Value = serde_json::from_str(text).ok()?;
    let names = notes.pointer(&format!("/info/features/{label}/names"))?.as_array()?;
    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
}

/// A file that many threads read, each at its own place.
struct Shared {
    file: Arc<Offsets>,
    bytes: u64,
}

impl Length for Shared {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Shared {
    type T = BufReader<At>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        // Used for the headers of pages, of which one is a few dozen bytes.
        Ok(BufReader::with_capacity(1 << 10, At { file: self.file.clone(), at: start, end: self.bytes }))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let mut bytes = vec![0; length];
        self.file.read(start, &mut bytes).map_err(|error| ParquetError::External(Box::new(error)))?;
        Ok(bytes.into())
    }
}

/// A place in a shared file.
struct At {
    file: Arc<Offsets>,
    at: u64,
    end: u64,
}

impl Read for At {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.end.saturating_sub(self.at) as usize);
        self.file.read(self.at, &mut bytes[..count]).map_err(io::Error::other)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Source for Parquet {
    fn labels(&self) -> &[u32] {
        &self.labels
    }

    fn read(&self, index: usize) -> Result<Picture, Error> {
        let (table, group, row) = self.locate(index);
        let broken = |reason| Error::Image { item: self.name(index), reason };
        let bytes = table
            .image(group.number, row)
            .map_err(|error| Error::Parquet { path: table.path.clone(), detail: error.to_string() })?;
        let bytes = bytes.ok_or_else(|| broken("the row has no bytes".into()))?;
        picture::decode(&bytes).map_err(broken)
    }

    fn name(&self, index: usize) -> String {
        let (table, group, row) = self.locate(index);
        format!("{}: row {row} of row group {}", table.path.display(), group.number)
    }

    fn decoded_bytes(&self, most: u64) -> u64 {
        expanded(self.files.iter().map(|table| table.bytes), most)
    }

    fn classes(&self) -> usize {
        self.classes
    }

    fn class_names(&self) -> Option<Vec<String>> {
        self.names.clone()
    }
}
