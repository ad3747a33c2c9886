//! Downloading wheels with pip.

use std::collections::VecDeque;
use std::fs;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

use super::platform::Platform;
use crate::failure::Failure;

/// How many of pip's last lines are searched for the reason it failed.
const LAST_LINES: usize = 8;

/// Downloads the wheel of `requirement` for `platform` into `scratch`; returns its path.
///
/// pip decides where from (`pip config`, `PIP_*`), goes through the user's proxy, and checks the hash the index gives.
/// The wheels are those for CPython 3.11 whatever Python runs pip: no Python will ever load them.
pub(super) fn download(
    requirement: &str,
    scratch: &Path,
    python: &Path,
    platform: &Platform,
) -> anyhow::Result<PathBuf> {
    let folder = scratch.join("wheel");
    let temporary = scratch.join("pip");
    for directory in [&folder, &temporary] {
        fs::create_dir_all(directory).with_context(|| format!("creating {}", directory.display()))?;
    }
    let mut command = Command::new(python);
    command
        .args(["-m", "pip", "download", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"])
        // Half a gigabyte that is needed once has no place in pip's cache.
        .arg("--no-cache-dir")
        .args(["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311"]);
    for tag in platform.tags {
        command.args(["--platform", tag]);
    }
    // pip's temporary files go where there is known to be room, which /tmp may not have.
    command.arg("--dest").arg(&folder).arg(requirement).env("TMPDIR", &temporary).stdin(Stdio::null());

    let last_lines =
        if io::stderr().is_terminal() { run_on_terminal(command)? } else { run_plainly(command)? };
    if let Some(lines) = last_lines {
        // pip's own words are on the screen already, right above.
        let what = format!("pip could not download {requirement}, see above");
        return Err(Failure::error(what, hint(&lines.join("\n"))));
    }
    only_wheel(&folder)
}

/// Runs pip with its progress bar. On failure its words are on the screen already.
fn run_on_terminal(mut command: Command) -> anyhow::Result<Option<Vec<String>>> {
    let status = command.stdout(io::stderr()).status().context("starting pip")?;
    Ok((!status.success()).then(Vec::new))
}

/// Runs pip without progress bar and repeats its lines; on failure returns the last of them.
fn run_plainly(mut command: Command) -> anyhow::Result<Option<Vec<String>>> {
    let (reader, writer) = io::pipe().context("starting pip")?;
    command.args(["--progress-bar", "off", "--no-input"]);
    command.stdout(writer.try_clone().context("starting pip")?).stderr(writer);
    let mut child = command.spawn().context("starting pip")?;
    // The command holds the pipe's writing end, and the reading below ends when the last one is closed.
    drop(command);
    let mut last = VecDeque::with_capacity(LAST_LINES + 1);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("reading what pip says")?;
        let line = String::from_utf8_lossy(&line).trim_end().to_owned();
        eprintln!("  {line}");
        last.push_back(line);
        if last.len() > LAST_LINES {
            last.pop_front();
        }
    }
    let status = child.wait().context("waiting for pip")?;
    Ok((!status.success()).then(|| last.into()))
}

/// The cure that fits what pip said.
fn hint(lines: &str) -> &'static str {
    const NETWORK: &[&str] =
        &["Connection", "connection", "Retrying", "timed out", "resolve", "ProxyError", "SSL"];
    if lines.contains("No space left") {
        "make room on the disk of the checkout, then run `cargo xtask setup` again"
    } else if NETWORK.iter().any(|word| lines.contains(word)) {
        "check the network and `python3 -m pip config list` (HTTPS_PROXY, PIP_INDEX_URL), then run `cargo xtask setup` again"
    } else if lines.contains("No matching distribution") {
        "pip's index lacks this wheel, or cannot be reached: check the network and `python3 -m pip config list`"
    } else {
        "check the network and `python3 -m pip config list`; or set LIBTORCH and ORT_DYLIB_PATH to libraries you have"
    }
}

/// The one wheel in `folder`.
fn only_wheel(folder: &Path) -> anyhow::Result<PathBuf> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "whl") {
            wheels.push(path);
        }
    }
    match wheels.pop() {
        Some(wheel) if wheels.is_empty() => Ok(wheel),
        Some(_) => bail!("pip put more than one wheel into {}", folder.display()),
        None => bail!("pip put no wheel into {}", folder.display()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn last_lines_of_a_failing_pip_are_kept() {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            "i=0; while [ $i -lt 20 ]; do echo line $i; i=$((i+1)); done; echo bad >&2; exit 1",
        ]);
        let lines = run_plainly(command).unwrap().unwrap();
        assert_eq!(lines.len(), LAST_LINES);
        assert_eq!(lines.last().unwrap(), "bad");
    }

    #[cfg(unix)]
    #[test]
    fn a_pip_that_succeeds_has_nothing_to_tell() {
        assert_eq!(run_plainly(Command::new("true")).unwrap(), None);
    }

    #[test]
    fn hints_fit() {
        assert!(hint("OSError: [Errno 28] No space left on device").starts_with("make room"));
        assert!(
            hint("WARNING: Retrying (Retry(total=4\nERROR: No matching distribution").contains("network")
        );
        assert!(hint("ERROR: No matching distribution found for torch==2.11.0").contains("lacks this wheel"));
        assert!(hint("").contains("LIBTORCH"));
    }

    #[test]
    fn exactly_one_wheel_is_expected() {
        let folder = tempfile::tempdir().unwrap();
        assert!(only_wheel(folder.path()).is_err());
        fs::write(folder.path().join("a.whl"), "").unwrap();
        fs::write(folder.path().join("note.txt"), "").unwrap();
        assert_eq!(only_wheel(folder.path()).unwrap(), folder.path().join("a.whl"));
        fs::write(folder.path().join("b.whl"), "").unwrap();
        assert!(only_wheel(folder.path()).is_err());
    }
}
