//! Errors that say what is wrong in one line and how to cure it in another.

use std::fmt;

/// An error with its cure.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What is wrong, in one line.
    what: String,
    /// What the user can do about it, in one line.
    hint: String,
}

impl Failure {
    /// An error that says `what` is wrong, and under it `hint`, the cure.
    pub(crate) fn error(what: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Self { what: what.into(), hint: hint.into() })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failure {}

/// The text to print for `error`: `error:` and its chain of causes, then `hint:` where there is one.
pub(crate) fn render(error: &anyhow::Error) -> String {
    match error.downcast_ref::<Failure>() {
        Some(failure) => format!("error: {error:#}\nhint: {}", failure.hint),
        None => format!("error: {error:#}"),
    }
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn hint_stands_on_its_own_line_below_the_causes() {
        let error = Failure::error("python3 was not found", "apt install python3");
        assert_eq!(render(&error), "error: python3 was not found\nhint: apt install python3");

        let result: anyhow::Result<()> = Err(error);
        let wrapped = result.context("fetching torch").unwrap_err();
        assert_eq!(
            render(&wrapped),
            "error: fetching torch: python3 was not found\nhint: apt install python3"
        );
    }

    #[test]
    fn without_a_hint_there_is_one_line() {
        assert_eq!(render(&anyhow::anyhow!("broken")), "error: broken");
    }
}
