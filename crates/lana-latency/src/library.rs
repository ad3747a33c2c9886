//! Finding and loading ONNX Runtime.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Error, Result};

/// Name of the library without what version and system add.
#[cfg(windows)]
const STEM: &str = "onnxruntime.dll";
#[cfg(target_os = "macos")]
const STEM: &str = "libonnxruntime.dylib";
#[cfg(all(unix, not(target_os = "macos")))]
const STEM: &str = "libonnxruntime.so";

/// ONNX Runtime, loaded. There is one in a process.
pub struct OnnxRuntime {
    pub(crate) environment: ort::environment::Environment,
    library: PathBuf,
    version: String,
}

static LOADED: Mutex<Option<&'static OnnxRuntime>> = Mutex::new(None);

impl OnnxRuntime {
    /// Loads the library on the first call: the file `ORT_DYLIB_PATH` names, else the one beside the running program,
    /// else the one that `cargo xtask setup` fetched.
    ///
    /// # Errors
    /// If it is nowhere, or is older than lana needs.
    pub fn load() -> Result<&'static OnnxRuntime> {
        let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = *loaded {
            return Ok(runtime);
        }
        let library = find_library(&search_path())?;
        let wrong = |reason: String| Error::Library { path: library.clone(), reason };
        let environment = ort::init_from(&library)
            .map_err(|e| wrong(e.to_string()))?
            .with_name("lana")
            .with_telemetry(false)
            .build()
            .map_err(|e| wrong(e.to_string()))?;
        let version = version(&library);
        let runtime: &'static OnnxRuntime =
            Box::leak(Box::new(OnnxRuntime { environment, library, version }));
        *loaded = Some(runtime);
        Ok(runtime)
    }

    /// The file it was loaded from.
    pub fn library(&self) -> &Path {
        &self.library
    }

    /// Its version, such as `1.32.0`.
    pub fn version(&self) -> &str {
        &self.version
    }
}

/// Files and directories to look at, the first find wins.
fn search_path() -> Vec<PathBuf> {
    // Who sets the variable wants that one and no other.
    if let Some(named) = std::env::var_os("ORT_DYLIB_PATH").filter(|v| !v.is_empty()) {
        return vec![named.into()];
    }
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    beside.into_iter().chain(option_env!("LANA_ORT_DYLIB").map(PathBuf::from)).collect()
}

/// The first ONNX Runtime library among `candidates`: files, or directories that may hold one.
///
/// # Errors
/// [`Error::MissingLibrary`] with the cure if there is none.
pub fn find_library(candidates: &[PathBuf]) -> Result<PathBuf> {
    for candidate in candidates {
        if candidate.is_file() {
            return Ok(absolute(candidate));
        }
        let Ok(entries) = std::fs::read_dir(candidate) else { continue };
        let is_library = |path: &PathBuf| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(STEM)) && path.is_file()
        };
        let mut found: Vec<PathBuf> = entries.flatten().map(|e| e.path()).filter(is_library).collect();
        found.sort();
        if let Some(library) = found.pop() {
            return Ok(absolute(&library));
        }
    }
    Err(Error::MissingLibrary { searched: candidates.to_vec() })
}

/// The loader looks for a bare name in the system's directories; a path it takes as it is.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf())
}

/// The version: as the file's full name has it, else as the build says.
fn version(library: &Path) -> String {
    let real = library.canonicalize().unwrap_or_else(|_| library.to_path_buf());
    let name = real.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let numbers = |text: &str| {
        let start = text.find(|c: char| c.is_ascii_digit())?;
        let number: String = text[start..].chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        let number = number.trim_end_matches('.');
        number.contains('.').then(|| number.to_string())
    };
    numbers(&name).or_else(|| numbers(ort::info())).unwrap_or_else(|| "unknown".into())
}
