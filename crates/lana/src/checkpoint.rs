//! The state of a training in the middle: tensors in a file of their own, and a record that names and vouches for it.
//!
//! The tensors are written first under a name that holds the step, then the record, then older tensors are removed: at
//! every moment the record that stands there belongs to whole tensors.

use std::fs;
use std::path::{Path, PathBuf};

use lana_graph::Weights;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Progress, Result, read_or_redo, sha256, write_atomic, write_json};

#[derive(Serialize, Deserialize)]
struct Record<T> {
    file: String,
    sha256: String,
    state: T,
}

const RECORD: &str = "checkpoint.json";

/// Writes a checkpoint, which replaces the one before.
pub(crate) fn save<T: Serialize>(folder: &Path, step: u64, tensors: &Weights, state: T) -> Result<()> {
    let bytes = tensors.to_bytes();
    let file = format!("checkpoint-{step}.safetensors");
    write_atomic(&folder.join(&file), &bytes)?;
    let record = Record { file: file.clone(), sha256: sha256(&bytes), state };
    if let Err(error) = write_json(&folder.join(RECORD), &record) {
        // Tensors that no record speaks of only take room, of which there may be none left.
        if last::<serde::de::IgnoredAny>(folder).is_none_or(|(path, _)| path != folder.join(&file)) {
            let _ = fs::remove_file(folder.join(&file));
        }
        return Err(error);
    }
    remove_tensors(folder, Some(&file))
}

/// The checkpoint that stands there; none if there is none or it is damaged.
pub(crate) fn load<T: DeserializeOwned>(
    folder: &Path,
    progress: &dyn Progress,
) -> Result<Option<(Weights, T)>> {
    let Some(record) = read_or_redo::<Record<T>>(&folder.join(RECORD), progress)? else { return Ok(None) };
    let path = folder.join(&record.file);
    let bytes = fs::read(&path).unwrap_or_default();
    if sha256(&bytes) != record.sha256 {
        progress.warn(&format!("{} is damaged; the training starts again", path.display()));
        return Ok(None);
    }
    Ok(Some((Weights::from_bytes(&bytes, &path)?, record.state)))
}

/// The file and the state of the checkpoint that stands there, if one can be read, without its tensors.
pub(crate) fn last<T: DeserializeOwned>(folder: &Path) -> Option<(PathBuf, T)> {
    let record = crate::read_json::<Record<T>>(&folder.join(RECORD)).ok()??;
    Some((folder.join(record.file), record.state))
}

/// Removes the checkpoint: the training is finished.
pub(crate) fn clear(folder: &Path) -> Result<()> {
    let record = folder.join(RECORD);
    if record.exists() {
        fs::remove_file(&record).map_err(Error::io(&record))?;
    }
    remove_tensors(folder, None)
}

fn remove_tensors(folder: &Path, keep: Option<&str>) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.starts_with("checkpoint-") && name.ends_with(".safetensors") && Some(name) != keep {
            fs::remove_file(entry.path()).map_err(Error::io(&entry.path()))?;
        }
    }
    Ok(())
}
