//! Running cargo in the workspace's root.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

/// The workspace's root directory.
///
/// Cargo says at run time where xtask's manifest is; the place it was compiled at is the answer when the binary is
/// started by hand.
pub(crate) fn workspace_root() -> PathBuf {
    let manifest =
        env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().map_or_else(|| manifest.clone(), Path::to_path_buf)
}

/// A `cargo` command that runs in the workspace's root, as the user would have typed it.
///
/// The variables cargo sets for the program it runs (this one) are taken away again, so that the commands share their
/// build products with the user's own: a build script that watches one of them would otherwise run again.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(workspace_root());
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(&name);
        }
    }
    if !crate::setup::libtorch_is_the_users() {
        command.env_remove("LIBTORCH");
    }
    command
}

/// `cargo` and `arguments` as one line, for people.
pub(crate) fn describe<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    arguments
        .iter()
        .fold("cargo".to_owned(), |line, argument| line + " " + &argument.as_ref().to_string_lossy())
}

/// The exit status to hand on for a command that ended with `status`.
pub(crate) fn exit_code(status: ExitStatus) -> ExitCode {
    // A command killed by a signal has no code.
    status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)
}
