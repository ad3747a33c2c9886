//! What makes a command fail, and how the failure is told.

use std::error::Error;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What is reported: message, cure, exit status.
    Told { message: String, hint: Option<String>, status: u8 },
    /// Whoever read our results has seen enough: no failure at all.
    ClosedPipe,
}

/// Exit statuses.
const FAILED: u8 = 1;
const WRONG_INPUT: u8 = 2;

impl Failure {
    /// A wrong argument or input file, with its cure.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        let hint = hint.into();
        Failure::Told {
            message: message.into(),
            hint: (!hint.is_empty()).then_some(hint),
            status: WRONG_INPUT,
        }
    }

    /// An error of a library, with its causes.
    fn of(error: &dyn Error, hint: Option<String>, status: u8) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message = format!("{message}: {text}");
            }
            source = cause.source();
        }
        Failure::Told { message, hint, status }
    }

    /// What went wrong, in one line.
    pub(crate) fn message(&self) -> String {
        match self {
            Failure::Told { message, .. } => one_line(message),
            Failure::ClosedPipe => String::new(),
        }
    }

    /// The cure in one line, where there is one.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Failure::Told { hint, .. } => hint.as_deref().map(one_line),
            Failure::ClosedPipe => None,
        }
    }

    /// Exit status of the process.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Told { status, .. } => *status,
            Failure::ClosedPipe => 0,
        }
    }
}

#[cfg(feature = "training")]
impl From<lana::Error> for Failure {
    fn from(error: lana::Error) -> Self {
        Failure::of(&error, error.hint(), error.exit_status())
    }
}

impl From<lana_latency::Error> for Failure {
    fn from(error: lana_latency::Error) -> Self {
        Failure::of(&error, None, if error.is_input() { WRONG_INPUT } else { FAILED })
    }
}

impl From<lana_select::Error> for Failure {
    fn from(error: lana_select::Error) -> Self {
        Failure::of(&error, None, if error.is_input() { WRONG_INPUT } else { FAILED })
    }
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_hold_their_causes_once() {
        let failure = Failure::input("first\n  second\n", "do\nthis");
        assert_eq!(failure.message(), "first second");
        assert_eq!(failure.hint().as_deref(), Some("do this"));
        assert_eq!(failure.exit_status(), 2);

        let source = std::io::Error::other("the disk is gone");
        let failure = Failure::from(lana_latency::Error::Io { path: "x.json".into(), source });
        assert_eq!(failure.message(), "x.json: the disk is gone");
        assert_eq!(failure.exit_status(), 1);
    }

    #[test]
    fn a_solver_out_of_time_is_no_wrong_input() {
        assert_eq!(Failure::from(lana_select::Error::TimeLimit { seconds: 1.0 }).exit_status(), 1);
        assert_eq!(Failure::from(lana_select::Error::NoLayers).exit_status(), 2);
    }
}
