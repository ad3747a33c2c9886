//! The list of a component's files, kept beside them: what tells a complete directory from a broken one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// The stamp's name in the component's directory.
const NAME: &str = "setup.json";

/// What was unpacked, from which wheels.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Stamp {
    /// The platform's name.
    platform: String,
    /// The pinned requirements that were asked for.
    requirements: Vec<String>,
    /// The wheels that came.
    pub(super) wheels: Vec<String>,
    /// The bytes unpacked from them.
    #[serde(default)]
    pub(super) wheel_bytes: u64,
    /// Every file by its path in the directory, with its size in bytes.
    pub(super) files: BTreeMap<String, u64>,
}

impl Stamp {
    /// A stamp without files.
    pub(super) fn new(requirements: Vec<String>, platform: &str) -> Self {
        Self {
            platform: platform.to_owned(),
            requirements,
            wheels: Vec::new(),
            wheel_bytes: 0,
            files: BTreeMap::new(),
        }
    }

    /// Writes the stamp into `directory`.
    pub(super) fn write(&self, directory: &Path) -> anyhow::Result<()> {
        let path = directory.join(NAME);
        fs::write(&path, serde_json::to_vec(self)?).with_context(|| format!("writing {}", path.display()))
    }
}

/// Whether `directory` is what setup would make of `requirements`: same versions, every file there with its size.
///
/// # Errors
///
/// What is wrong, in a few words for people.
pub(super) fn verify(directory: &Path, requirements: &[String], platform: &str) -> Result<(), String> {
    if !directory.exists() {
        return Err("not there yet".to_owned());
    }
    let text = fs::read(directory.join(NAME)).map_err(|_| "not complete".to_owned())?;
    let stamp: Stamp = serde_json::from_slice(&text).map_err(|_| format!("{NAME} is damaged"))?;
    if stamp.requirements != requirements {
        return Err(format!("was {}", stamp.requirements.join(", ")));
    }
    if stamp.platform != platform {
        return Err(format!("was for {}", stamp.platform));
    }
    for (name, &size) in &stamp.files {
        match fs::metadata(directory.join(name)) {
            Err(_) => return Err(format!("{name} is missing")),
            Ok(metadata) if metadata.len() != size => {
                return Err(format!("{name} has {} bytes instead of {size}", metadata.len()));
            }
            Ok(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLATFORM: &str = "linux-x86_64";

    fn requirements() -> Vec<String> {
        vec!["torch==2.11.0".to_owned()]
    }

    /// A directory with two files and their stamp.
    fn stamped() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("lib")).unwrap();
        let mut stamp = Stamp::new(requirements(), PLATFORM);
        for (name, text) in [("lib/a.so", "12345"), ("build-version", "2.11.0\n")] {
            fs::write(directory.path().join(name), text).unwrap();
            stamp.files.insert(name.to_owned(), text.len() as u64);
        }
        stamp.write(directory.path()).unwrap();
        directory
    }

    fn problem(directory: &Path) -> String {
        verify(directory, &requirements(), PLATFORM).unwrap_err()
    }

    #[test]
    fn complete_directory_passes() {
        verify(stamped().path(), &requirements(), PLATFORM).unwrap();
    }

    #[test]
    fn truncated_file_is_found() {
        let directory = stamped();
        fs::write(directory.path().join("lib/a.so"), "123").unwrap();
        assert_eq!(problem(directory.path()), "lib/a.so has 3 bytes instead of 5");
    }

    #[test]
    fn missing_file_is_found() {
        let directory = stamped();
        fs::remove_file(directory.path().join("lib/a.so")).unwrap();
        assert_eq!(problem(directory.path()), "lib/a.so is missing");
    }

    #[test]
    fn damaged_or_missing_stamp_is_found() {
        let directory = stamped();
        fs::write(directory.path().join(NAME), "{\"platform\":").unwrap();
        assert_eq!(problem(directory.path()), "setup.json is damaged");
        fs::remove_file(directory.path().join(NAME)).unwrap();
        assert_eq!(problem(directory.path()), "not complete");
        assert_eq!(problem(&directory.path().join("nowhere")), "not there yet");
    }

    #[test]
    fn other_version_or_platform_is_found() {
        let directory = stamped();
        let newer = vec!["torch==2.12.0".to_owned()];
        assert_eq!(verify(directory.path(), &newer, PLATFORM).unwrap_err(), "was torch==2.11.0");
        assert_eq!(
            verify(directory.path(), &requirements(), "macos-aarch64").unwrap_err(),
            "was for linux-x86_64"
        );
    }
}
