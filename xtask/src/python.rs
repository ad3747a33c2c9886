//! Virtual environments of Python for the tasks that compare with Python packages.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::failure::Failure;

/// A virtual environment: where it is and what is in it.
pub(crate) struct Environment<'a> {
    /// Its directory.
    pub(crate) home: PathBuf,
    /// Requirements that pip installs with what they need.
    pub(crate) packages: &'a [&'a str],
    /// Requirements that pip installs alone.
    pub(crate) alone: &'a [&'a str],
    /// A script that it runs last, if any.
    pub(crate) finish: Option<PathBuf>,
    /// What to say if it cannot be made.
    pub(crate) hint: &'a str,
}

impl Environment<'_> {
    /// Its Python, after making the environment if it is not there.
    pub(crate) fn python(&self) -> anyhow::Result<PathBuf> {
        let python = self.home.join("bin").join("python");
        // Written last: what an interrupted call leaves is made again, and so is what had other packages.
        let marker = self.home.join("lana-packages");
        let wanted = [self.packages, self.alone].concat().join("\n");
        if std::fs::read_to_string(&marker).is_ok_and(|there| there == wanted) {
            return Ok(python);
        }
        eprintln!("fetching {} into {}", wanted.replace('\n', ", "), self.home.display());
        let failed = |what: String| Failure::error(what, self.hint);
        let made = Command::new("python3").args(["-m", "venv", "--clear"]).arg(&self.home).status();
        if !made.is_ok_and(|status| status.success()) {
            return Err(failed("python3 -m venv failed".into()));
        }
        for (packages, option) in [(self.packages, None), (self.alone, Some("--no-deps"))] {
            if packages.is_empty() {
                continue;
            }
            let mut pip = Command::new(&python);
            pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"]);
            pip.args(option).args(packages);
            if !pip.status().is_ok_and(|status| status.success()) {
                return Err(failed(format!("pip could not install {}", packages.join(", "))));
            }
        }
        if let Some(script) = &self.finish
            && !Command::new(&python).arg(script).status().is_ok_and(|status| status.success())
        {
            return Err(failed(format!("{} failed", script.display())));
        }
        std::fs::write(&marker, wanted).with_context(|| format!("writing {}", marker.display()))?;
        Ok(python)
    }
}

/// A file of the directory `xtask`.
pub(crate) fn script(path: impl AsRef<Path>) -> PathBuf {
    crate::command::workspace_root().join("xtask").join(path)
}
