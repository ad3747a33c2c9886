//! The lana command line.
//!
//! Arguments go through two stages, as in ripgrep. The *low-level* arguments are what clap understands: each
//! subcommand's `Arguments` struct under `commands`, one file each, texts and numbers with their help. A command's
//! `run` then turns them into what the libraries take (`lana::Config`, `lana::Budget`, …), where whatever is wrong beyond
//! spelling is reported by the library's own error, hint included.
//!
//! Without the feature `training` there is no libtorch, and what is left is for a device that is only measured on:
//! `measure`, `solve` and `profile --from-bundle`.
//!
//! Where things go is decided once and for all here: results on stdout (`output`), everything else on stderr (`progress`,
//! `logging`, and errors from `failure`), and the exit status is 0 for done, 1 for failed, 2 for wrong
//! arguments or input, 3 for a budget that no selection can meet.

// Without that feature some ways of showing things have nothing to show.
#![cfg_attr(not(feature = "training"), allow(dead_code))]

mod commands;
mod failure;
mod format;
mod logging;
mod output;
mod progress;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::Parser;

use failure::Failure;
use progress::Terminal;

/// Makes trained vision networks faster, on the device they are for
///
/// lana takes a trained network (the teacher), images and a budget such as "half the latency", and makes a network
/// (the student) that meets the budget, measured on this device, with the least loss of accuracy it can find.
#[derive(Parser)]
#[command(name = "lana", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Start here:
  lana demo                     a small real run on images it draws itself
  lana accelerate --help        your own images and weights

Exit status: 0 done, 1 failed, 2 wrong arguments or input, 3 no selection can meet the budget.
Results go to stdout, progress to stderr; LANA_LOG=info (debug, trace) shows what happens inside.")]
struct Arguments {
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let terminal = Terminal::new();
    let result = catch_unwind(AssertUnwindSafe(|| {
        logging::start()?;
        arguments.command.run(&terminal)
    }));
    terminal.clear();
    match result {
        Ok(Ok(())) | Ok(Err(Failure::ClosedPipe)) => ExitCode::SUCCESS,
        Ok(Err(failure)) => {
            output::error_line(&format!("error: {}", failure.message()));
            if let Some(hint) = failure.hint() {
                output::error_line(&format!("hint: {hint}"));
            }
            ExitCode::from(failure.exit_status())
        }
        // The panic's own message, with its place in the code, has been printed already.
        Err(_) => {
            output::error_line(
                "error: this is a bug in lana, not in what you gave it; finished work is kept",
            );
            output::error_line("hint: please report the lines above together with the command");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn every_command_has_an_example() {
        for command in super::Arguments::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains(&format!("lana {}", command.get_name())), "{}", command.get_name());
            assert!(command.get_about().is_some(), "{}", command.get_name());
        }
    }
}
