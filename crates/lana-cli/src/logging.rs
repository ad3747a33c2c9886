//! Logs on stderr, for those who look inside: `LANA_LOG=debug lana …`.

use std::io::{self, Write};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::failure::Failure;
use crate::progress::BARS;

/// Name of the variable that says what is logged.
const VARIABLE: &str = "LANA_LOG";

/// Starts logging: warnings and errors, or what `LANA_LOG` says (`info`, `lana_latency=debug,warn`, …).
pub(crate) fn start() -> Result<(), Failure> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::WARN.into())
        .with_env_var(VARIABLE)
        .from_env()
        .map_err(|error| {
            Failure::input(
                format!("{VARIABLE}: {error}"),
                "write a level (error, warn, info, debug, trace) or CRATE=LEVEL, several joined by commas",
            )
        })?;
    let logger =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| AboveBars).with_target(true);
    // Failing means that another logger has been set, which then does the work.
    let _ = logger.try_init();
    Ok(())
}

/// Stderr, with the bar out of the way while a line is written.
struct AboveBars;

impl Write for AboveBars {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}
