//! A plan as a file, and measuring one so that nothing is lost when the process ends.
//!
//! The file is what a device needs to make a table: it holds every network as a graph, and the way in which their times
//! become costs. It has no weights: the device makes them itself, from the same seed, and writes the ONNX models that its
//! runtime opens. So it is small, measures what is measured without it, to the bit, and serves every runtime.

use std::fs::OpenOptions;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::gather::{Conditions, Progress, Reading};
use super::plan::Plan;
use crate::sealed::{broken, seal, sha256, write_atomic};
use crate::{Error, Result, Table};

/// What the first field of a bundle says.
pub(crate) const WHAT: &str = "lana bundle";
/// Version of the file format.
const FORMAT: u64 = 1;

/// The file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Bundle {
    what: String,
    format: u64,
    /// The version of lana that wrote it.
    lana: String,
    plan: Plan,
}

impl Plan {
    /// Writes the plan as a file for another device.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let lana = env!("CARGO_PKG_VERSION").to_string();
        let bundle = Bundle { what: WHAT.into(), format: FORMAT, lana, plan: self.clone() };
        let value = seal(&bundle).map_err(|reason| Error::File { path: path.to_path_buf(), reason })?;
        write_atomic(path, format!("{value}\n").as_bytes())
            .map_err(|source| Error::Io { path: path.to_path_buf(), source })
    }

    /// Reads what [`Plan::save`] wrote.
    ///
    /// # Errors
    /// If it is not there, not whole, not a bundle, or one of another version.
    pub fn load(path: &Path) -> Result<Plan> {
        let wrong = |reason: String| Error::File { path: path.to_path_buf(), reason };
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let foreign = || wrong("is no bundle; `lana profile RUN --bundle FILE` writes one".into());
        let again = "copy it again, or write it again with `lana profile RUN --bundle FILE`";
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
        let value: Value = match serde_json::from_slice(&bytes) {
            Ok(value) => value,
            // Its end says more of a bundle that was cut off than of a picture.
            Err(e) if head.contains(WHAT) || head.starts_with("{\"checksum\"") => {
                return Err(wrong(format!("is not whole ({e}); {again}")));
            }
            Err(_) => return Err(foreign()),
        };
        if value.get("what").and_then(Value::as_str) != Some(WHAT) {
            return Err(foreign());
        }
        let format = value.get("format").and_then(Value::as_u64).unwrap_or_default();
        if format != FORMAT {
            let lana = value.get("lana").and_then(Value::as_str).unwrap_or("unknown").to_string();
            return Err(wrong(format!(
                "is a bundle of format {format}, of lana {lana}; this lana, {}, reads format {FORMAT}: use the same version on \
                 both machines",
                env!("CARGO_PKG_VERSION")
            )));
        }
        let value = broken(value).map_err(|reason| wrong(format!("is damaged: {reason}; {again}")))?;
        let bundle: Bundle = serde_json::from_value(value).map_err(|e| {
            wrong(format!("holds what this lana cannot read: {e}; use the same version on both machines"))
        })?;
        bundle.plan.check_whole().map_err(|e| wrong(format!("{e}; {again}")))?;
        Ok(bundle.plan)
    }

    /// What tells the networks of this plan and the way they are run from those of others.
    fn identity(&self) -> String {
        let Plan { teacher, options, classes, parts, jobs, places, whole } = self;
        let all = (teacher, options.deployment, classes, parts, jobs, places, whole);
        sha256(serde_json::to_string(&all).unwrap_or_default().as_bytes())
    }

    /// Measures the table on this device and writes it to `path`. Every finished comparison is noted in a file beside it, with
    /// `.partial` at the end of its name, from which a later call goes on; it goes away when the table is written. Notes of
    /// another plan or another device are left out, and `say` is told so.
    ///
    /// # Errors
    /// As [`Plan::measure`], and if a file cannot be written.
    pub fn measure_to(
        &self,
        path: &Path,
        say: &mut dyn FnMut(&str),
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Table> {
        let conditions = Conditions::here(self)?;
        let mut name = path.file_name().unwrap_or_default().to_os_string();
        name.push(".partial");
        let beside = path.with_file_name(name);
        let (mut notes, mut readings) = Notes::open(&beside, self, &conditions, say)?;
        self.measure(&mut readings, &mut |new| notes.add(new), progress)?;
        let table = self.settle(&readings, &conditions)?;
        table.save(path)?;
        drop(notes);
        std::fs::remove_file(&beside).map_err(|source| Error::Io { path: beside, source })?;
        Ok(table)
    }
}

/// First line of the notes.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    plan: String,
    conditions: Conditions,
}

impl Header {
    fn fits(&self, other: &Header) -> bool {
        let (here, there) = (&self.conditions, &other.conditions);
        self.plan == other.plan
            && here.runtime_version == there.runtime_version
            && here.device.differences(&there.device).is_none()
    }
}

/// Readings as lines of a file.
pub(super) struct Notes {
    path: PathBuf,
    file: std::fs::File,
}

impl Notes {
    /// Opens the file, and gives what stands there for this plan under these conditions. A line that was cut off when the
    /// process ended is dropped.
    pub(super) fn open(
        path: &Path,
        plan: &Plan,
        conditions: &Conditions,
        say: &mut dyn FnMut(&str),
    ) -> Result<(Notes, Vec<Reading>)> {
        let io = |source| Error::Io { path: path.to_path_buf(), source };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(io)?;
        }
        let header = Header { plan: plan.identity(), conditions: conditions.clone() };
        let mut options = OpenOptions::new();
        let mut file = options.create(true).truncate(false).read(true).write(true).open(path).map_err(io)?;
        let text = String::from_utf8_lossy(&std::fs::read(path).map_err(io)?).into_owned();
        let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let mut readings: Vec<Reading> = Vec::new();
        let mut whole = 0;
        if let Some(first) = lines.next() {
            if serde_json::from_str::<Header>(first).is_ok_and(|found| found.fits(&header)) {
                whole = first.len();
                for line in lines {
                    let Ok(new) = serde_json::from_str::<Vec<Reading>>(line) else { break };
                    whole += line.len();
                    readings.extend(new);
                }
                if !readings.is_empty() {
                    say(&format!("going on with {} networks that were timed before", readings.len()));
                }
            } else {
                say(&format!("{}: made for other networks or on another device; begun anew", path.display()));
            }
        }
        file.set_len(whole as u64).map_err(io)?;
        file.seek(std::io::SeekFrom::End(0)).map_err(io)?;
        let mut notes = Notes { path: path.to_path_buf(), file };
        if whole == 0 {
            notes.line(&header)?;
        }
        Ok((notes, readings))
    }

    /// Adds readings.
    pub(super) fn add(&mut self, readings: &[Reading]) -> Result<()> {
        self.line(&readings)
    }

    fn line<T: Serialize>(&mut self, value: &T) -> Result<()> {
        let io = |source: std::io::Error| Error::Io { path: self.path.clone(), source };
        let line = serde_json::to_string(value).map_err(|e| io(e.into()))? + "\n";
        self.file.write_all(line.as_bytes()).and_then(|()| self.file.sync_data()).map_err(io)
    }
}
