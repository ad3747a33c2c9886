//! What makes a command fail, and how the failure is told.

use std::error::Error as _;

/// Why a command did not end well.
#[derive(Debug)]
pub(crate) enum Failure {
    /// What the library reports.
    Lana(lana::Error),
    /// What only the command line knows: message, hint, exit status.
    Other { message: String, hint: Option<String>, status: u8 },
    /// Whoever read our results has seen enough: no failure at all.
    ClosedPipe,
}

impl Failure {
    /// A wrong argument or input file, with its cure.
    pub(crate) fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure::Lana(lana::Error::input(message, hint))
    }

    /// What went wrong, in one line.
    pub(crate) fn message(&self) -> String {
        let text = match self {
            Failure::Lana(error) => {
                let mut text = error.to_string();
                let mut source = error.source();
                while let Some(cause) = source {
                    let cause_text = cause.to_string();
                    if !text.contains(&cause_text) {
                        text = format!("{text}: {cause_text}");
                    }
                    source = cause.source();
                }
                text
            }
            Failure::Other { message, .. } => message.clone(),
            Failure::ClosedPipe => String::new(),
        };
        one_line(&text)
    }

    /// The cure in one line, where there is one.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Failure::Lana(error) => error.hint().map(|hint| one_line(&hint)),
            Failure::Other { hint, .. } => hint.as_deref().map(one_line),
            Failure::ClosedPipe => None,
        }
    }

    /// Exit status of the process.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Lana(error) => error.exit_status(),
            Failure::Other { status, .. } => *status,
            Failure::ClosedPipe => 0,
        }
    }
}

impl From<lana::Error> for Failure {
    fn from(error: lana::Error) -> Self {
        Failure::Lana(error)
    }
}

impl From<lana_latency::Error> for Failure {
    fn from(error: lana_latency::Error) -> Self {
        Failure::Lana(lana::Error::Latency(error))
    }
}

impl From<lana_select::Error> for Failure {
    fn from(error: lana_select::Error) -> Self {
        Failure::Lana(lana::Error::Select(error))
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
        let failure = Failure::from(lana::Error::Io { path: "x.json".into(), source });
        assert_eq!(failure.message(), "x.json: the disk is gone");
        assert_eq!(failure.exit_status(), 1);
    }

    #[test]
    fn a_solver_out_of_time_is_no_wrong_input() {
        assert_eq!(Failure::from(lana_select::Error::TimeLimit { seconds: 1.0 }).exit_status(), 1);
        assert_eq!(Failure::from(lana_select::Error::NoLayers).exit_status(), 2);
    }
}
