//! Libraries the user already has: `LIBTORCH`, `LIBTORCH_USE_PYTORCH` and `ORT_DYLIB_PATH`.
//!
//! They are checked, so that a mistake is told before two minutes of compiling, and nothing is fetched in their place.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{TORCH_VERSION, third_party};
use crate::failure::Failure;

/// Whether the user brings libtorch; its version and files are checked.
pub(super) fn libtorch() -> anyhow::Result<bool> {
    // torch-sys looks for the variable only, not for what it is set to, and before LIBTORCH.
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        check_pytorch(Path::new(if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" }))?;
        return Ok(true);
    }
    match users_libtorch() {
        Some(directory) => check_libtorch(&directory).map(|()| true),
        None => Ok(false),
    }
}

/// Whether libtorch is the user's, and not that of `third_party`.
pub(crate) fn libtorch_is_the_users() -> bool {
    users_libtorch().is_some()
}

/// `LIBTORCH` where the user has set it: cargo sets it too, to our own directory, as `.cargo/config.toml` says.
fn users_libtorch() -> Option<PathBuf> {
    let directory = PathBuf::from(env::var_os("LIBTORCH")?);
    (!is_same(&directory, &third_party().join("libtorch"))).then_some(directory)
}

/// Whether two paths name one place, which need not exist yet.
fn is_same(a: &Path, b: &Path) -> bool {
    let resolve = |path: &Path| {
        // As far up as needed to find a folder that exists, its links resolved.
        path.ancestors().find_map(|ancestor| {
            let rest = path.strip_prefix(ancestor).ok()?;
            Some(ancestor.canonicalize().ok()?.join(rest))
        })
    };
    a == b || resolve(a).is_some_and(|a| resolve(b) == Some(a))
}

/// Whether the user brings ONNX Runtime.
pub(super) fn onnxruntime() -> anyhow::Result<bool> {
    match env::var_os("ORT_DYLIB_PATH") {
        Some(path) => check_onnxruntime(Path::new(&path)).map(|()| true),
        None => Ok(false),
    }
}

fn check_onnxruntime(path: &Path) -> anyhow::Result<()> {
    if path.is_file() {
        return Ok(());
    }
    Err(Failure::error(
        format!("ORT_DYLIB_PATH is set to {path:?}, which is not a file"),
        "set it to the full path of libonnxruntime, or unset it to have setup fetch ONNX Runtime",
    ))
}

/// Checks what `LIBTORCH` is set to.
fn check_libtorch(directory: &Path) -> anyhow::Result<()> {
    let fail = |what: String| {
        Err(Failure::error(
            format!("LIBTORCH is set to {directory:?}, {what}"),
            format!(
                "set it to the full path of a libtorch {TORCH_VERSION}, or unset it to have setup fetch one"
            ),
        ))
    };
    if !directory.is_dir() {
        return fail("which is not a folder".to_owned());
    }
    if !directory.is_absolute() {
        return fail("which is not a full path".to_owned());
    }
    // torch-sys lets the two be elsewhere.
    for (folder, variable) in [("lib", "LIBTORCH_LIB"), ("include", "LIBTORCH_INCLUDE")] {
        let parent = env::var_os(variable).map_or_else(|| directory.to_path_buf(), PathBuf::from);
        if !parent.join(folder).is_dir() {
            return fail(format!("but {} is not a folder", parent.join(folder).display()));
        }
    }
    match fs::read_to_string(directory.join("build-version")) {
        Ok(version) if !is_right_version(&version) => fail(format!("which is libtorch {}", version.trim())),
        _ => Ok(()),
    }
}

/// Checks the PyTorch that `python` has.
fn check_pytorch(python: &Path) -> anyhow::Result<()> {
    // Asking for the version takes 50 ms, importing torch several seconds.
    const PROGRAM: &str = "
try:
    from importlib.metadata import version
    print(version('torch'))
except Exception:
    import torch
    print(torch.__version__)
";
    let fail = |what: String| {
        Err(Failure::error(
            format!("LIBTORCH_USE_PYTORCH is set, but {what}"),
            format!(
                "activate the environment that has PyTorch {TORCH_VERSION}, or unset LIBTORCH_USE_PYTORCH to have setup \
                 fetch libtorch"
            ),
        ))
    };
    match Command::new(python).args([OsStr::new("-c"), OsStr::new(PROGRAM)]).output() {
        Err(error) => fail(format!("{} does not start: {error}", python.display())),
        Ok(output) if !output.status.success() => {
            let text = String::from_utf8_lossy(&output.stderr);
            fail(format!(
                "{} has no PyTorch: {}",
                python.display(),
                text.trim_end().lines().last().unwrap_or_default()
            ))
        }
        Ok(output) => {
            let version = String::from_utf8_lossy(&output.stdout);
            if is_right_version(&version) {
                return Ok(());
            }
            fail(format!("{} has PyTorch {}", python.display(), version.trim()))
        }
    }
}

/// Whether `version`, like `2.11.0+cu130`, is the one torch-sys takes; it can be told to take any.
fn is_right_version(version: &str) -> bool {
    env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_some()
        || version.trim().split('+').next() == Some(TORCH_VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::render;

    #[test]
    fn local_versions_are_the_same_version() {
        assert!(is_right_version("2.11.0\n"));
        assert!(is_right_version("2.11.0+cu130"));
        assert!(!is_right_version("2.11.1"));
        assert!(!is_right_version("2.10.0+cpu"));
        assert!(!is_right_version(""));
    }

    #[test]
    fn libtorch_of_the_user_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let problem = || render(&check_libtorch(directory.path()).unwrap_err());
        assert!(problem().contains("lib is not a folder"), "{}", problem());
        fs::create_dir(directory.path().join("lib")).unwrap();
        assert!(problem().contains("include is not a folder"), "{}", problem());
        fs::create_dir(directory.path().join("include")).unwrap();
        check_libtorch(directory.path()).unwrap();
        fs::write(directory.path().join("build-version"), "2.11.0+cpu").unwrap();
        check_libtorch(directory.path()).unwrap();
        fs::write(directory.path().join("build-version"), "2.5.1+cpu\n").unwrap();
        assert!(problem().contains("which is libtorch 2.5.1+cpu\nhint: set it"), "{}", problem());

        let nowhere = directory.path().join("nowhere");
        assert!(render(&check_libtorch(&nowhere).unwrap_err()).contains("not a folder\nhint: "));
        assert!(check_libtorch(Path::new("")).is_err());
        assert!(check_libtorch(Path::new("src")).is_err());
    }

    #[test]
    fn onnxruntime_of_the_user_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("libonnxruntime.so");
        assert!(render(&check_onnxruntime(&file).unwrap_err()).contains("not a file\nhint: "));
        fs::write(&file, "").unwrap();
        check_onnxruntime(&file).unwrap();
        assert!(check_onnxruntime(directory.path()).is_err());
    }

    #[test]
    fn missing_python_comes_with_the_cure() {
        let text = render(&check_pytorch(Path::new("/nowhere/python3")).unwrap_err());
        assert!(
            text.contains("LIBTORCH_USE_PYTORCH is set, but") && text.contains("\nhint: activate"),
            "{text}"
        );
    }

    #[cfg(unix)]
    #[test]
    fn paths_are_compared_as_places() {
        let root = tempfile::tempdir().unwrap();
        let real = root.path().join("real");
        fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, root.path().join("link")).unwrap();
        assert!(is_same(&real.join("third_party/libtorch"), &root.path().join("link/third_party/libtorch")));
        assert!(!is_same(&real.join("libtorch"), &root.path().join("libtorch")));
        assert!(is_same(Path::new("/a/b"), Path::new("/a/b")));
    }
}
