//! The run directory: files written whole or not at all, each vouched for by a checksum.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lana_graph::{Graph, Weights};
use lana_latency::{seal, sha256, unseal};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::stages::Shard;
use crate::{Budget, Config, Error, Event, Progress, Result};

/// How long a lock that somebody has is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A run directory.
///
/// JSON files carry the SHA-256 of their content in the field `checksum`; files of weights and networks are vouched for
/// by the JSON file beside them. What is damaged is reported and made again.
#[derive(Debug)]
pub struct Run {
    root: PathBuf,
    /// Held while a process works on the run; the system frees them when the process ends, however it ends.
    _locks: Vec<File>,
}

impl Run {
    /// Opens an existing run for reading.
    pub fn open(root: &Path) -> Result<Self> {
        let run = Run { root: root.to_path_buf(), _locks: Vec::new() };
        match run.path("run.toml").is_file() {
            true => Ok(run),
            false => Err(Error::input(
                format!("{}: not a run directory (it has no run.toml)", root.display()),
                "give the folder that `lana accelerate --out` wrote",
            )),
        }
    }

    /// Creates the directory or takes it up again, and keeps other processes out.
    pub fn create(root: &Path) -> Result<Self> {
        fs::create_dir_all(root).map_err(Error::io(root))?;
        let foreign = !root.join("run.toml").exists()
            && fs::read_dir(root).map_err(Error::io(root))?.flatten().any(|e| {
                !matches!(e.file_name().to_str(), Some("lock" | "run.toml" | "events.jsonl"))
                    && !e.file_name().to_string_lossy().starts_with('.')
            });
        if foreign {
            return Err(Error::input(
                format!("{}: the folder is not empty and not a run directory", root.display()),
                "give --out a new folder, or the folder of the run to go on with",
            ));
        }
        let mut run = Run { root: root.to_path_buf(), _locks: Vec::new() };
        run.lock()?;
        Ok(run)
    }

    /// Keeps other processes out for as long as this value lives.
    pub fn lock(&mut self) -> Result<()> {
        let file = self.lock_file("lock", File::try_lock)?;
        self._locks.push(file);
        sweep(&self.root);
        self.mend_events()
    }

    /// Keeps out those who would work on the whole run, those with the same shard, and those who divide the work into another number
    /// of shards, which would do the same operations again. Others may work on theirs.
    pub fn lock_shard(&mut self, shard: Shard) -> Result<()> {
        let all = self.lock_file("lock", File::try_lock_shared)?;
        let folder = self.path("operations");
        fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
        let mine = self.lock_file(&format!("operations/{}.lock", shard.folder()), File::try_lock)?;
        // Only now that this one's own can be seen: of two that begin at the same time one sees the other, or both do.
        self.refuse_other_divisions(shard)?;
        self._locks.extend([all, mine]);
        sweep(&folder.join(shard.folder()));
        Ok(())
    }

    /// Fails if a process is at work on a shard of another number of shards.
    fn refuse_other_divisions(&self, mine: Shard) -> Result<()> {
        let folder = self.path("operations");
        for entry in fs::read_dir(&folder).map_err(Error::io(&folder))?.flatten() {
            let name = entry.file_name();
            let other = name.to_str().and_then(|name| Shard::of_folder(name.strip_suffix(".lock")?));
            let Some(other) = other.filter(|other| !other.divides_like(mine)) else { continue };
            let path = entry.path();
            match open_lock(&path)?.try_lock_shared() {
                // Left behind by a process that has ended.
                Ok(()) => {}
                Err(TryLockError::Error(source)) => return Err(Error::Unlockable { path, source }),
                Err(TryLockError::WouldBlock) => {
                    let process = fs::read_to_string(&path).unwrap_or_default();
                    return Err(Error::input(
                        format!(
                            "{}: a lana process (number {}) works on shard {other}, and shard {mine} has operations in common with it",
                            self.root.display(),
                            process.trim()
                        ),
                        "wait for it or stop it, or take a part of as many as it has; nothing is lost",
                    ));
                }
            }
        }
        Ok(())
    }

    /// Waits until this process alone has the lock `name`, and keeps it for as long as the result lives.
    pub(crate) fn wait_for(&self, name: &str) -> Result<File> {
        let path = self.path(name);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(Error::io(folder))?;
        }
        let file = open_lock(&path)?;
        file.lock().map_err(|source| Error::Unlockable { path, source })?;
        Ok(file)
    }

    /// Opens a file, locks it by `take`, and leaves this process' number in it.
    fn lock_file(&self, name: &str, take: impl Fn(&File) -> Result<(), TryLockError>) -> Result<File> {
        let path = self.path(name);
        let mut file = open_lock(&path)?;
        // A child that is just being started has what its parent had open until it becomes another program.
        let patience = Instant::now() + PATIENCE;
        let taken = loop {
            match take(&file) {
                Err(TryLockError::WouldBlock) if Instant::now() < patience => sleep(PATIENCE / 20),
                done => break done,
            }
        };
        taken.map_err(|error| match error {
            TryLockError::Error(source) => Error::Unlockable { path: path.clone(), source },
            TryLockError::WouldBlock => {
                let process = fs::read_to_string(&path).unwrap_or_default().trim().to_string();
                Error::Busy { run: self.root.display().to_string(), process }
            }
        })?;
        file.set_len(0).and_then(|()| write!(file, "{}", std::process::id())).map_err(Error::io(&path))?;
        Ok(file)
    }

    fn mend_events(&self) -> Result<()> {
        // A line that a crash cut off must not swallow the next.
        let events = self.path("events.jsonl");
        if fs::read(&events).is_ok_and(|text| text.last().is_some_and(|b| *b != b'\n')) {
            let mut file = OpenOptions::new().append(true).open(&events).map_err(Error::io(&events))?;
            file.write_all(b"\n").map_err(Error::io(&events))?;
        }
        Ok(())
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path under it.
    pub fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.root.join(relative)
    }

    /// `budgets/BUDGET`, with the budget as [`Budget::folder`] writes it.
    pub fn budget_dir(&self, budget: &Budget) -> PathBuf {
        self.path("budgets").join(budget.folder())
    }

    /// `operations/LAYER/OP` without extension.
    pub fn operation(&self, layer: &str, operation: &str) -> PathBuf {
        self.path("operations").join(layer).join(operation)
    }

    /// The configuration the run was made with.
    pub fn config(&self) -> Result<Config> {
        Config::load_of_run(&self.path("run.toml"))
    }

    /// Adds a line to `events.jsonl`.
    pub fn event(&self, stage: &str, fields: serde_json::Value) -> Result<()> {
        let path = self.path("events.jsonl");
        let time = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |d| d.as_secs_f64());
        let fields = match fields {
            serde_json::Value::Object(map) => map,
            other => serde_json::Map::from_iter([("value".to_string(), other)]),
        };
        let event = Event { time: (time * 1e3).round() / 1e3, stage: stage.into(), fields };
        let line = serde_json::to_string(&event).unwrap_or_default() + "\n";
        let mut file = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::io(&path))?;
        file.write_all(line.as_bytes()).map_err(Error::io(&path))
    }

    /// All events so far. A last line cut off by a crash is left out.
    pub fn events(&self) -> Vec<Event> {
        let text = fs::read_to_string(self.path("events.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

/// Opens a file that is there to be locked.
fn open_lock(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true).read(true).open(path).map_err(Error::io(path))
}

/// Removes what killed processes had begun to write: a checkpoint can be a gigabyte. Nobody else writes here now. What cannot be
/// removed is in nobody's way.
fn sweep(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            sweep(&path);
        } else if name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1) {
            let _ = fs::remove_file(&path);
        }
    }
}

/// How names of unfinished files begin and end.
const TEMPORARY: (&str, &str) = (".", ".tmp");

/// Writes a file so that it is there whole or not at all: temporary name, fsync, rename.
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    lana_latency::write_atomic(path, bytes).map_err(Error::io(path))
}

/// Writes a JSON object with its checksum.
pub fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<()> {
    let damaged = |reason: String| Error::Damaged { path: path.to_path_buf(), reason };
    let value = seal(value).map_err(damaged)?;
    let text = serde_json::to_string_pretty(&value).map_err(|e| damaged(e.to_string()))?;
    write_atomic(path, (text + "\n").as_bytes())
}

/// Reads a JSON object written by [`write_json`]: none if there is no file, an error if it is damaged.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => {
            return Err(Error::Damaged { path: path.to_path_buf(), reason: "it is not text".into() });
        }
        Err(e) => return Err(Error::io(path)(e)),
    };
    unseal(&text).map(Some).map_err(|reason| Error::Damaged { path: path.to_path_buf(), reason })
}

/// As [`read_json`], but a damaged file is reported and taken as missing, so that the caller makes it again.
pub fn read_or_redo<T: DeserializeOwned>(path: &Path, progress: &dyn Progress) -> Result<Option<T>> {
    match read_json(path) {
        Err(error @ Error::Damaged { .. }) => {
            progress.warn(&format!("{error}; it is made again"));
            Ok(None)
        }
        other => other,
    }
}

/// Reads a graph that `sum` vouches for.
pub(crate) fn read_graph(path: &Path, sum: &str) -> Result<Graph> {
    check_sum(&fs::read(path).map_err(Error::io(path))?, sum, path)?;
    Ok(Graph::load(path)?)
}

fn check_sum(bytes: &[u8], sum: &str, path: &Path) -> Result<()> {
    match sha256(bytes) == sum {
        true => Ok(()),
        false => Err(Error::Damaged {
            path: path.to_path_buf(),
            reason: "its checksum is not the one noted beside it".into(),
        }),
    }
}

/// Reads weights that `sum` vouches for and that must be those of `graph`.
pub fn read_weights(path: &Path, sum: &str, graph: &Graph) -> Result<Weights> {
    let bytes = fs::read(path).map_err(Error::io(path))?;
    check_sum(&bytes, sum, path)?;
    let weights = Weights::from_bytes(&bytes, path)?;
    weights.check(graph)?;
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_lock_that_is_held_is_told_from_a_file_system_without_locks() {
        let folder = tempfile::TempDir::new().unwrap();
        let run = Run { root: folder.path().to_path_buf(), _locks: Vec::new() };
        let held = run.lock_file("lock", File::try_lock).unwrap();
        let error = run.lock_file("lock", File::try_lock).unwrap_err();
        let own = std::process::id().to_string();
        assert!(matches!(&error, Error::Busy { process, .. } if *process == own), "{error}");
        drop(held);
        for kind in [io::ErrorKind::Unsupported, io::ErrorKind::Other] {
            let error = run.lock_file("lock", |_| Err(TryLockError::Error(kind.into()))).unwrap_err();
            assert!(matches!(error, Error::Unlockable { .. }), "{error}");
            assert!(!error.to_string().contains("another lana process"), "{error}");
            assert!(error.hint().is_some_and(|hint| hint.contains("file system")), "{error}");
        }
        run.lock_file("lock", File::try_lock).unwrap();
    }
}
