//! What must be on the machine before anything is fetched or built.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::platform::Platform;
use crate::failure::Failure;

/// Looks for the C++ compiler that torch-sys' build script will call.
pub(super) fn compiler() -> anyhow::Result<()> {
    // Variables such as CXX_x86_64_unknown_linux_gnu are for people who know what they do.
    if env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("CXX_")) {
        return Ok(());
    }
    check_compiler(env::var("CXX").ok().as_deref(), &|name| find_program(name).is_some())
}

fn check_compiler(cxx: Option<&str>, is_there: &dyn Fn(&str) -> bool) -> anyhow::Result<()> {
    if let Some(cxx) = cxx {
        // It may have arguments, or be called through a cache: `ccache g++`.
        let program = cxx.split_whitespace().next().unwrap_or_default();
        if is_there(program) || is_there(cxx) {
            return Ok(());
        }
        return Err(Failure::error(
            format!("the C++ compiler that CXX names was not found: {cxx:?}"),
            "unset CXX, or set it to a compiler that is there, for example CXX=g++",
        ));
    }
    if is_there("c++") {
        return Ok(());
    }
    if let Some(other) = ["g++", "clang++"].into_iter().find(|name| is_there(name)) {
        return Err(Failure::error(
            format!("there is no C++ compiler called c++, but there is {other}"),
            format!("export CXX={other}"),
        ));
    }
    Err(Failure::error(
        "no C++ compiler was found (c++, g++ or clang++)",
        if cfg!(target_os = "macos") {
            "xcode-select --install"
        } else {
            "apt install g++, or dnf install gcc-c++"
        },
    ))
}

/// Looks for Python 3 with pip; returns the interpreter.
pub(super) fn python() -> anyhow::Result<PathBuf> {
    let Some(python) = find_program("python3") else {
        return Err(Failure::error(
            "python3 was not found; setup downloads with its pip",
            "apt install python3 python3-pip (or your system's way); or set LIBTORCH and ORT_DYLIB_PATH",
        ));
    };
    check_pip(&python)?;
    Ok(python)
}

fn check_pip(python: &Path) -> anyhow::Result<()> {
    const HINT: &str = "apt install python3-pip, or python3 -m ensurepip --user";
    match Command::new(python).args(["-m", "pip", "--version"]).output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stderr);
            let last = text.trim_end().lines().last().unwrap_or("no message").to_owned();
            Err(Failure::error(format!("{} -m pip does not work: {last}", python.display()), HINT))
        }
        Err(error) => Err(Failure::error(format!("{} does not start: {error}", python.display()), HINT)),
    }
}

/// The oldest glibc the Linux wheels are made for.
const GLIBC: (u32, u32) = (2, 28);

/// Checks that the C library is new enough for the wheels: pip cannot, as it is told which wheels to take.
pub(super) fn c_library(platform: &Platform) -> anyhow::Result<()> {
    if !platform.is_linux() {
        return Ok(());
    }
    let output = Command::new("getconf").arg("GNU_LIBC_VERSION").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    check_glibc(&text)
}

/// `text` is like `glibc 2.36`; anything else tells nothing and passes.
fn check_glibc(text: &str) -> anyhow::Result<()> {
    let version = text.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    let Some((Ok(major), Ok(minor))) = version.map(|(major, minor)| (major.parse(), minor.parse())) else {
        return Ok(());
    };
    if (major, minor) < GLIBC {
        return Err(Failure::error(
            format!("glibc {major}.{minor} is too old for libtorch, which needs {}.{}", GLIBC.0, GLIBC.1),
            "use a newer system (Ubuntu 20.04, Debian 11, RHEL 8 or later)",
        ));
    }
    Ok(())
}

/// Checks that the file system of `directory` has room for `megabytes`.
pub(super) fn disk_space(directory: &Path, megabytes: u64) -> anyhow::Result<()> {
    let output = Command::new("df").arg("-Pk").arg(directory).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    match free_megabytes(&text) {
        Some(free) if free < megabytes => Err(Failure::error(
            format!("{} has {free} MB of free space; setup needs {megabytes} MB", directory.display()),
            "make room, or move the checkout to a larger disk",
        )),
        // Without `df` there is nothing to go by.
        _ => Ok(()),
    }
}

/// The free space in `df -Pk`'s answer: the fourth column of the second line, in KiB.
fn free_megabytes(text: &str) -> Option<u64> {
    // The first column may hold blanks; the last five are blocks, used, free, percentage and place.
    let line = text.lines().nth(1)?;
    let columns: Vec<_> = line.split_whitespace().collect();
    let percentage = columns.iter().position(|column| column.ends_with('%'))?;
    let free: u64 = columns.get(percentage.checked_sub(1)?)?.parse().ok()?;
    Some(free * 1024 / 1_000_000)
}

/// The file that running `name` would start, if there is one.
fn find_program(name: &str) -> Option<PathBuf> {
    if name.is_empty() {
        return None;
    }
    if name.contains('/') {
        return is_program(Path::new(name)).then(|| PathBuf::from(name));
    }
    let path = env::var_os("PATH")?;
    find_in(&path, name)
}

fn find_in(path: &OsStr, name: &str) -> Option<PathBuf> {
    env::split_paths(path).map(|folder| folder.join(name)).find(|file| is_program(file))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::render;

    #[test]
    fn compiler_by_its_usual_name_or_by_cxx() {
        check_compiler(None, &|name| name == "c++").unwrap();
        check_compiler(Some("ccache g++"), &|name| name == "ccache").unwrap();
        check_compiler(Some("/opt/gcc 13/bin/g++"), &|name| name == "/opt/gcc 13/bin/g++").unwrap();
    }

    #[test]
    fn missing_compiler_comes_with_the_cure() {
        let nothing = |_: &str| false;
        let text = render(&check_compiler(None, &nothing).unwrap_err());
        assert!(text.starts_with("error: no C++ compiler"), "{text}");
        assert!(text.contains("\nhint: "), "{text}");
        let text = render(&check_compiler(Some("g++-99"), &nothing).unwrap_err());
        assert!(text.contains("g++-99") && text.contains("\nhint: unset CXX"), "{text}");
        let text = render(&check_compiler(None, &|name| name == "clang++").unwrap_err());
        assert!(text.ends_with("\nhint: export CXX=clang++"), "{text}");
    }

    #[test]
    fn old_glibc_is_refused() {
        check_glibc("glibc 2.36\n").unwrap();
        check_glibc("glibc 2.28\n").unwrap();
        check_glibc("").unwrap();
        assert!(check_glibc("glibc 2.17\n").unwrap_err().to_string().contains("2.17"));
    }

    #[test]
    fn free_space_is_read_from_df() {
        let text = "Filesystem     1024-blocks     Used Available Capacity Mounted on\n\
                    /dev/vda         263108184 13000000  80000000      14% /\n";
        assert_eq!(free_megabytes(text), Some(81_920));
        let text = "Filesystem 1024-blocks Used Available Capacity Mounted on\n\
                    //server/a share 1000 900 100 90% /mnt/a share\n";
        assert_eq!(free_megabytes(text), Some(0));
        assert_eq!(free_megabytes(""), None);
    }

    #[test]
    fn full_disk_comes_with_the_cure() {
        let text = render(&disk_space(Path::new("/"), u64::MAX).unwrap_err());
        assert!(text.contains("free space") && text.contains("\nhint: make room"), "{text}");
        disk_space(Path::new("/"), 0).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn programs_are_files_that_can_be_run() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c++");
        std::fs::write(&file, "").unwrap();
        assert_eq!(find_in(folder.path().as_os_str(), "c++"), None);
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find_in(folder.path().as_os_str(), "c++"), Some(file));
        assert_eq!(find_program(""), None);
    }

    #[cfg(unix)]
    #[test]
    fn python_without_pip_comes_with_the_cure() {
        let text = render(&check_pip(Path::new("false")).unwrap_err());
        assert!(
            text.contains("-m pip does not work") && text.contains("\nhint: apt install python3-pip"),
            "{text}"
        );
        check_pip(Path::new("true")).unwrap();
    }
}
