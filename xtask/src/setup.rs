//! `cargo xtask setup`: the native libraries lana is built against, from pinned Python wheels.
//!
//! libtorch and ONNX Runtime are published as Python wheels for every platform, and pip knows the user's index, proxy
//! and certificates. So pip downloads the wheels and this module unpacks what is needed of them:
//!
//! ```text
//! third_party/libtorch/{lib,include}     from torch (and, for its libraries to load, two of NVIDIA's)
//! third_party/onnxruntime/lib            from onnxruntime
//! ```
//!
//! No Python runs afterwards. Each directory is unpacked beside its place, every file checked against the wheel's
//! checksums, and then renamed into place; a [`stamp`] in it lists its files, so that later runs can tell in
//! milliseconds whether all is well. Only one set-up runs at a time.

mod component;
mod platform;
mod preflight;
mod provided;
mod stamp;
mod unpack;
mod wheel;

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::command::workspace_root;
use crate::failure::Failure;
use component::Component;
use platform::Platform;
use stamp::Stamp;

pub(crate) use provided::libtorch_is_the_users;

/// The libtorch that `tch` 0.24 is made for.
const TORCH_VERSION: &str = "2.11.0";

/// Where everything is put, in the workspace's root; git ignores it.
fn third_party() -> PathBuf {
    workspace_root().join("third_party")
}

/// The pinned requirements that libtorch is unpacked from on this platform.
pub(crate) fn torch_requirements() -> anyhow::Result<Vec<&'static str>> {
    let platform = platform::detect()?;
    Ok(component::libtorch().sources(platform).map(|source| source.requirement).collect())
}

/// Makes sure that libtorch, ONNX Runtime and a C++ compiler are there. Silent and offline when they are.
pub(crate) fn run() -> anyhow::Result<()> {
    preflight::compiler()?;
    let root = third_party();
    let mut wanted: Vec<Component> = Vec::new();
    if !provided::libtorch()? {
        wanted.push(component::libtorch());
    }
    if !provided::onnxruntime()? {
        wanted.push(component::onnxruntime());
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let platform = platform::detect()?;
    let scratch = root.join(SCRATCH);
    if missing(&root, &wanted, platform).is_empty() && !scratch.exists() {
        return Ok(());
    }

    fs::create_dir_all(&root).with_context(|| format!("creating {}", root.display()))?;
    let _lock = lock(&root)?;
    // Another set-up may have done the work while this one waited.
    remove_scratch(&root)?;
    let missing = missing(&root, &wanted, platform);
    if missing.is_empty() {
        return Ok(());
    }
    let result = fetch(&root, &missing, platform);
    // What a fetch that failed leaves behind is of no use; the error it failed with matters more than this one.
    let cleaned = remove_scratch(&root);
    result.and(cleaned)
}

/// The directory in `third_party` where downloads and half-unpacked libraries live while a set-up runs.
const SCRATCH: &str = ".fetching";

/// The components that are not in place, each with what is wrong with it.
fn missing<'a>(root: &Path, wanted: &'a [Component], platform: &Platform) -> Vec<(&'a Component, String)> {
    wanted
        .iter()
        .filter_map(|component| {
            let directory = root.join(component.directory);
            let problem =
                stamp::verify(&directory, &component.requirements(platform), platform.name).err()?;
            Some((component, problem))
        })
        .collect()
}

/// Fetches `missing` and puts each in its place.
fn fetch(root: &Path, missing: &[(&Component, String)], platform: &Platform) -> anyhow::Result<()> {
    let python = preflight::python()?;
    preflight::c_library(platform)?;
    let needed = missing.iter().map(|(component, _)| component.peak_megabytes(platform)).sum();
    preflight::disk_space(root, needed)?;

    if !platform.tested {
        eprintln!("setup: {} is untested: please tell how it went", platform.name);
    }
    for (component, problem) in missing {
        let place = root.join(component.directory);
        eprintln!(
            "setup: {} ({problem}): fetching about {} MB with pip into {}",
            component.directory,
            component.download_megabytes(platform),
            place.display(),
        );
        let scratch = root.join(SCRATCH);
        fs::create_dir_all(&scratch).with_context(|| format!("creating {}", scratch.display()))?;
        let stamp = build(component, &scratch, &python, platform)?;
        replace(&place, &scratch)?;
        eprintln!(
            "setup: {}: {} files, {} MB, every one checked",
            component.directory,
            stamp.files.len(),
            stamp.wheel_bytes / 1_000_000,
        );
    }
    Ok(())
}

/// Downloads and unpacks `component` into the directory of its name in `scratch`, and stamps it.
fn build(component: &Component, scratch: &Path, python: &Path, platform: &Platform) -> anyhow::Result<Stamp> {
    let directory = scratch.join(component.directory);
    let mut stamp = Stamp::new(component.requirements(platform), platform.name);
    for source in component.sources(platform) {
        let file = wheel::download(source.requirement, scratch, python, platform)?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        eprintln!("  unpacking {name}");
        let files = unpack::unpack(&file, &directory, |path| (source.select)(path, platform))?;
        stamp.wheels.push(name);
        stamp.wheel_bytes += files.values().sum::<u64>();
        stamp.files.extend(files);
        // As soon as possible: a wheel is as large as what it holds.
        fs::remove_file(&file).with_context(|| format!("removing {}", file.display()))?;
    }
    stamp.files.extend((component.finish)(&directory, platform)?);
    stamp.write(&directory)?;
    Ok(stamp)
}

/// Puts the directory of `place`'s name in `scratch` in its place; what was there goes with the scratch directory.
fn replace(place: &Path, scratch: &Path) -> anyhow::Result<()> {
    let name = place.file_name().context("a component has a name")?;
    if fs::symlink_metadata(place).is_ok() {
        let old = scratch.join("old");
        fs::rename(place, &old).with_context(|| format!("moving the old {} away", place.display()))?;
    }
    fs::rename(scratch.join(name), place).with_context(|| format!("renaming into {}", place.display()))?;
    remove_if_there(scratch)
}

/// Takes the lock that keeps two set-ups from running at once; waits for the other one.
fn lock(root: &Path) -> anyhow::Result<File> {
    let path = root.join("setup.lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("opening {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::WouldBlock) => {
            eprintln!("setup: waiting for another set-up of this checkout to finish")
        }
        Err(TryLockError::Error(error)) => {
            return Err(Failure::error(
                format!("cannot lock {}: {error}", path.display()),
                "put the checkout on a file system that has file locks",
            ));
        }
    }
    file.lock().with_context(|| format!("locking {}", path.display()))?;
    Ok(file)
}

/// Removes what a set-up that was interrupted has left.
fn remove_scratch(root: &Path) -> anyhow::Result<()> {
    remove_if_there(&root.join(SCRATCH))
}

/// Removes a directory with all that is in it; no directory is fine too.
fn remove_if_there(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("removing {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_of_an_interrupted_setup_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let half = root.path().join(SCRATCH).join("libtorch/lib");
        fs::create_dir_all(&half).unwrap();
        fs::write(half.join("libtorch_cpu.so"), "half").unwrap();
        remove_scratch(root.path()).unwrap();
        assert!(!root.path().join(SCRATCH).exists());
        remove_scratch(root.path()).unwrap();
    }

    #[test]
    fn a_new_directory_takes_the_place_of_an_old_one() {
        let root = tempfile::tempdir().unwrap();
        let place = root.path().join("libtorch");
        let scratch = root.path().join(SCRATCH);
        fs::create_dir_all(&place).unwrap();
        fs::write(place.join("old"), "old").unwrap();
        fs::create_dir_all(scratch.join("libtorch")).unwrap();
        fs::write(scratch.join("libtorch/new"), "new").unwrap();
        replace(&place, &scratch).unwrap();
        assert!(place.join("new").exists());
        assert!(!place.join("old").exists());
        assert!(!scratch.exists());
    }

    #[test]
    fn everything_is_missing_from_an_empty_directory() {
        let root = tempfile::tempdir().unwrap();
        let wanted = [component::libtorch(), component::onnxruntime()];
        let missing = missing(root.path(), &wanted, &platform::PLATFORMS[0]);
        let problems: Vec<_> = missing.iter().map(|(c, problem)| (c.directory, problem.as_str())).collect();
        assert_eq!(problems, [("libtorch", "not there yet"), ("onnxruntime", "not there yet")]);
    }

    #[test]
    fn a_second_setup_is_kept_out() {
        let root = tempfile::tempdir().unwrap();
        let first = lock(root.path()).unwrap();
        let second = File::options().write(true).open(root.path().join("setup.lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        second.try_lock().unwrap();
    }
}
