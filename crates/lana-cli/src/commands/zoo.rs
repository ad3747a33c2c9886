use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana zoo
  lana zoo --json";

/// List the teachers there are
///
/// Their parameter names are those of the weights people have, so that a safetensors file loads unchanged.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let rows = lana::zoo()?;
        if self.json {
            return output::json(&json!({ "teachers": rows }));
        }
        let mut table = Table::new(&[
            ("teacher", Align::Left),
            ("family", Align::Left),
            ("input", Align::Left),
            ("classes", Align::Right),
            ("layers", Align::Right),
            ("parameters", Align::Right),
            ("MACs", Align::Right),
        ]);
        for row in rows {
            table.row([
                row.name,
                row.family,
                row.input.map(|size| size.to_string()).join("×"),
                format::count(row.classes as u64),
                format::count(row.layers as u64),
                format::short(row.cost.params),
                format::short(row.cost.macs),
            ]);
        }
        output::results(&table.to_string())
    }
}
