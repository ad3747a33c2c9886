//! `cargo xtask test`: everything that must hold before a change is merged.

use std::process::ExitCode;

use anyhow::Context;

use crate::failure::{self, Failure};
use crate::{command, parity, setup};

/// One check: cargo's arguments, variables to set, and what to do when it fails.
struct Check {
    arguments: &'static [&'static str],
    variables: &'static [(&'static str, &'static str)],
    hint: &'static str,
}

/// In order of cost, so that what fails quickly fails first.
const CHECKS: &[Check] = &[
    Check {
        arguments: &["fmt", "--all", "--check"],
        variables: &[],
        hint: "`cargo fmt --all` formats the code (`rustup component add rustfmt` installs it)",
    },
    Check {
        arguments: &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"],
        variables: &[],
        hint: "what to mend is above (`rustup component add clippy` installs it)",
    },
    // What is built for devices that are only measured on.
    Check {
        arguments: &[
            "clippy",
            "-p",
            "lana-cli",
            "--no-default-features",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ],
        variables: &[],
        hint: "what needs training or libtorch belongs behind lana-cli's feature `training`",
    },
    Check {
        arguments: &["doc", "--workspace", "--no-deps"],
        variables: &[("RUSTDOCFLAGS", "-Dwarnings")],
        hint: "a doc comment needs mending, see above",
    },
    Check {
        arguments: &["test", "--workspace"],
        variables: &[],
        hint: "the tests that failed are named above",
    },
    // Where nothing else asks for libtorch, this builds without it.
    Check {
        arguments: &["test", "-p", "lana-latency", "--test", "files"],
        variables: &[],
        hint: "lana-latency must do without libtorch unless its feature `torch` is on",
    },
];

/// Sets up, then runs every check; stops at the first that fails. The last compare the zoo with timm, and networks with
/// their PyTorch text.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    setup::run()?;
    for check in CHECKS {
        let line = line(check);
        eprintln!("$ {line}");
        let status = command::cargo()
            .args(check.arguments)
            .envs(check.variables.iter().copied())
            .status()
            .context("starting cargo")?;
        if !status.success() {
            return Err(Failure::error(format!("`{line}` failed ({status})"), check.hint));
        }
    }
    // Where there is no package index, the rest has to do.
    match parity::python() {
        Ok(python) => {
            eprintln!("$ cargo xtask parity");
            let compared = parity::compare(&python, &[], false)?;
            if compared != ExitCode::SUCCESS {
                return Ok(compared);
            }
            eprintln!("$ cargo xtask parity --students");
            parity::students::run(&python, &[])
        }
        Err(error) => {
            eprintln!("parity with timm: skipped\n{}", failure::render(&error));
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The check as one would type it into a shell.
fn line(check: &Check) -> String {
    let variables: String = check.variables.iter().map(|(name, value)| format!("{name}={value} ")).collect();
    variables + &command::describe(check.arguments)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_read_as_they_are_typed() {
        let lines: Vec<String> = CHECKS.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                "cargo fmt --all --check",
                "cargo clippy --workspace --all-targets -- -D warnings",
                "cargo clippy -p lana-cli --no-default-features --all-targets -- -D warnings",
                "RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps",
                "cargo test --workspace",
                "cargo test -p lana-latency --test files",
            ]
        );
    }
}
