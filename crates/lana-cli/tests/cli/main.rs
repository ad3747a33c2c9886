//! The command line from outside: arguments, exit statuses, what goes to stdout and what to stderr.
//!
//! Nothing here trains or measures; whole runs are tested where the pipeline is.

#[cfg(feature = "training")]
mod arguments;
#[cfg(feature = "training")]
mod help;
mod measure;
mod solve;

/// The built binary, with logging as users have it.
fn lana() -> assert_cmd::Command {
    let mut command = assert_cmd::Command::new(env!("CARGO_BIN_EXE_lana"));
    command.env_remove("LANA_LOG");
    command
}
