//! Files beside the model that hold elements of its tensors.
//!
//! The model says which, so that nothing is opened but ordinary files in its own folder, and little more is read of them than they
//! hold: a model of a few bytes may name one large file a thousand times.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Error, Read, Seek, SeekFrom};
use std::path::{Component, Path, PathBuf};

use crate::proto::TensorProto;
use crate::text::shown;

/// Bytes that may be read again beside those of one whole file. Tensors may share their elements, but hardly all of them.
const SPARE: u64 = 1 << 26;

/// The files in the folder of a model.
pub(crate) struct Files<'a> {
    folder: Option<&'a Path>,
    /// How many bytes have been read of each.
    read: HashMap<PathBuf, u64>,
    /// Bytes that have been read beyond what the files hold.
    again: u64,
}

impl<'a> Files<'a> {
    /// Those in a folder; none are known where the model is no file.
    pub(crate) fn of(folder: Option<&'a Path>) -> Self {
        Files { folder, read: HashMap::new(), again: 0 }
    }

    /// How many bytes have been read that were read before.
    pub(crate) fn again(&self) -> u64 {
        self.again
    }

    /// `length` bytes of the file that a tensor says its elements lie in.
    pub(crate) fn read(&mut self, tensor: &TensorProto, length: u64) -> Result<Vec<u8>, String> {
        let entry = |key: &str| {
            let found = tensor.external_data.iter().find(|e| e.key.as_deref() == Some(key));
            found.and_then(|e| e.value.as_deref())
        };
        let number = |key: &str| match entry(key).map(str::parse::<u64>) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(format!("its elements lie in a separate file, whose {key} is no number")),
        };
        let location = entry("location").ok_or("its elements lie in a separate file that has no name")?;
        let path = self.path(location)?;
        let shown = shown(location);
        let failed = |e: Error| format!("its elements lie in `{shown}`: {e}");
        // Before it is opened: whoever opens a pipe waits until somebody writes to it.
        let size = path.metadata().and_then(|m| match m.is_file() {
            true => Ok(m.len()),
            false => Err(Error::other("not a file")),
        });
        let (size, offset) = (size.map_err(failed)?, number("offset")?.unwrap_or(0));
        // Before anything is allocated.
        if offset.checked_add(length).is_none_or(|end| end > size)
            || number("length")?.is_some_and(|l| l != length)
        {
            return Err(format!(
                "its elements are {length} bytes at {offset} in `{shown}`, which has {size}"
            ));
        }
        let read = self.read.entry(path.clone()).or_default();
        self.again += length.saturating_sub(size - *read);
        *read = size.min(*read + length);
        if self.again > SPARE + size {
            return Err(format!(
                "its elements lie in `{shown}`, of which tensors take far more than it holds"
            ));
        }
        let mut bytes = Vec::new();
        let mut file = File::open(&path).map_err(failed)?;
        file.seek(SeekFrom::Start(offset)).map_err(failed)?;
        file.take(length).read_to_end(&mut bytes).map_err(failed)?;
        Ok(bytes)
    }

    /// Where a file lies, if that is in the folder, whatever links there are.
    fn path(&self, location: &str) -> Result<PathBuf, String> {
        // Forwards slashes everywhere, as ONNX has it; nothing that leads out of the folder.
        let parts = Path::new(location).components();
        let shown = shown(location);
        let outside = || format!("its elements lie in `{shown}`, which is not in the folder of the model");
        if location.is_empty() || !parts.clone().all(|part| matches!(part, Component::Normal(_))) {
            return Err(outside());
        }
        let Some(folder) = self.folder else {
            return Err(format!(
                "its elements lie in a separate file, `{shown}`: read the model from its file"
            ));
        };
        // A model that is named without its folder lies in this one.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let path = folder.join(location);
        let failed = |e: Error| format!("its elements lie in `{shown}`: {e}");
        let (real, folder) = (path.canonicalize().map_err(failed)?, folder.canonicalize().map_err(failed)?);
        match real.starts_with(&folder) {
            true => Ok(real),
            false => Err(format!("{}: a link leads elsewhere; copy the file there", outside())),
        }
    }
}
