//! Project tasks, run as `cargo xtask TASK`.
//!
//! One file per task: [`setup`] fetches the native libraries, [`demo`] runs the demonstration, [`test`](mod@test) runs every
//! check. A new task is a file with a `run` function and a variant of [`Task`].
//!
//! xtask itself builds with nothing but Rust and a linker: it must run before libtorch is there.

mod command;
mod demo;
mod failure;
mod setup;
mod test;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Project tasks of lana.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

/// What there is to do.
#[derive(Subcommand)]
enum Task {
    /// Fetch libtorch and ONNX Runtime into third_party/ (does nothing when they are there)
    Setup,
    /// Run `lana demo`, optimised, after setup
    Demo {
        /// Arguments of `lana demo`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Check formatting, lints and documentation, and run every test, after setup
    Test,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Setup => setup::run().map(|()| ExitCode::SUCCESS),
        Task::Demo { arguments } => demo::run(&arguments),
        Task::Test => test::run(),
    };
    result.unwrap_or_else(|error| {
        eprintln!("{}", failure::render(&error));
        ExitCode::FAILURE
    })
}
