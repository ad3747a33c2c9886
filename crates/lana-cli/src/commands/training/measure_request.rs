use std::io::Read;

use crate::failure::Failure;
use crate::output;

const EXAMPLE: &str = "\
Example (lana calls it itself):
  lana measure-request < request.json";

/// Measure networks in this process for another lana process
///
/// What a network takes depends on the process it runs in, so lana measures what counts in several. It writes a request to
/// this command and reads the answer; for measurements of your own there is `lana measure`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut request = String::new();
        std::io::stdin().read_to_string(&mut request).map_err(|error| Failure::Told {
            message: format!("stdin: {error}"),
            hint: None,
            status: 2,
        })?;
        output::results(&lana::measure_request(&request)?)
    }
}
