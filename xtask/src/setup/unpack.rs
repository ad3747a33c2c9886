//! Unpacking a wheel, which is a zip file.

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::Path;

use anyhow::{Context, ensure};
use zip::ZipArchive;

use super::component::Files;

/// Unpacks the files of `wheel` that `select` gives a place in `directory`; returns their sizes.
///
/// Each file is checked against the size and the CRC-32 the wheel gives for it.
pub(super) fn unpack(
    wheel: &Path,
    directory: &Path,
    select: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Files> {
    let file = File::open(wheel).with_context(|| format!("opening {}", wheel.display()))?;
    let mut archive =
        ZipArchive::new(BufReader::new(file)).with_context(|| format!("reading {}", wheel.display()))?;
    let mut files = Files::new();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).with_context(|| format!("reading {}", wheel.display()))?;
        // A path that leads out of the directory is no file of ours.
        if !entry.is_file() || entry.enclosed_name().is_none() {
            continue;
        }
        let name = entry.name().with_context(|| format!("reading {}", wheel.display()))?.into_owned();
        let Some(place) = select(&name) else { continue };
        let path = directory.join(&place);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).with_context(|| format!("creating {}", parent.display()))?;
        }
        let mut out = File::create(&path).with_context(|| format!("creating {}", path.display()))?;
        // Reading to the end checks the CRC-32.
        let size = io::copy(&mut entry, &mut out)
            .with_context(|| format!("unpacking {name} of {} to {}", wheel.display(), path.display()))?;
        ensure!(size == entry.size(), "{name} has {size} bytes instead of {}", entry.size());
        files.insert(place, size);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A wheel with two files, stored as they are so that a byte can be changed.
    fn wheel(directory: &Path) -> std::path::PathBuf {
        let path = directory.join("a.whl");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        for (name, text) in [("torch/lib/libc10.so", "library text"), ("torch/nn.py", "python")] {
            writer.start_file(name, options).unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn select(path: &str) -> Option<String> {
        path.strip_prefix("torch/lib/").map(|file| format!("lib/{file}"))
    }

    #[test]
    fn selected_files_are_unpacked() {
        let directory = tempfile::tempdir().unwrap();
        let target = directory.path().join("out");
        let files = unpack(&wheel(directory.path()), &target, select).unwrap();
        assert_eq!(files, Files::from([("lib/libc10.so".to_owned(), 12)]));
        assert_eq!(fs::read_to_string(target.join("lib/libc10.so")).unwrap(), "library text");
        assert!(!target.join("nn.py").exists());
    }

    #[test]
    fn changed_byte_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = wheel(directory.path());
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(7).position(|window| window == b"library").unwrap();
        bytes[at] = b'L';
        fs::write(&path, bytes).unwrap();
        let error = unpack(&path, &directory.path().join("out"), select).unwrap_err();
        assert!(format!("{error:#}").contains("libc10.so"), "{error:#}");
    }

    #[test]
    fn truncated_wheel_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let path = wheel(directory.path());
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
        assert!(unpack(&path, &directory.path().join("out"), select).is_err());
    }
}
