use lana::ZooNetwork;
use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana zoo
  lana zoo efficientnet_b2
  lana zoo efficientnet_b2 --resolution 192 --num-classes 100 --json";

/// List the teachers there are, or the blocks of one
///
/// Their parameter names are those of the weights people have, so that a safetensors file loads unchanged. MACs are the
/// multiply-accumulates for one image, counted as fvcore does, whose counts timm publishes. `lana layers` shows which blocks
/// become one layer.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The teacher whose blocks are shown; all teachers if it is not given
    #[arg(value_name = "ARCH")]
    name: Option<String>,

    #[command(flatten)]
    network: super::Network,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let Some(name) = &self.name else { return self.list() };
        let network = lana::zoo_network(name, &self.network.options())?;
        if self.json { output::json(&network) } else { output::results(&blocks(&network)) }
    }

    fn list(&self) -> Result<(), Failure> {
        if self.network.is_given() {
            return Err(Failure::input(
                "--resolution and --num-classes are those of one teacher",
                "name it, such as `lana zoo efficientnet_b2 --resolution 192`",
            ));
        }
        let rows = lana::zoo()?;
        if self.json {
            return output::json(&json!({ "teachers": rows }));
        }
        let mut table = Table::new(&[
            ("teacher", Align::Left),
            ("family", Align::Left),
            ("input", Align::Left),
            ("classes", Align::Right),
            ("blocks", Align::Right),
            ("parameters", Align::Right),
            ("MACs", Align::Right),
        ]);
        for row in rows {
            table.row([
                row.name,
                row.family,
                row.input.map(|size| size.to_string()).join("×"),
                format::count(row.classes as u64),
                format::count(row.blocks as u64),
                format::short(row.cost.params),
                format::short(row.cost.macs),
            ]);
        }
        output::results(&table.to_string())
    }
}

/// What there is to say about a network, and its blocks as a table.
fn blocks(network: &ZooNetwork) -> String {
    let list = |values: [f32; 3]| values.map(|v| v.to_string()).join(", ");
    let mut table = Table::new(&[
        ("block", Align::Left),
        ("input", Align::Left),
        ("output", Align::Left),
        ("MACs", Align::Right),
        ("share", Align::Right),
        ("parameters", Align::Right),
        ("share", Align::Right),
    ]);
    let mut row = |name: &str, input: String, output: String, [macs, params]: [u64; 2], shares: [f64; 2]| {
        table.row([
            name.to_string(),
            input,
            output,
            format::short(macs),
            format::percent(shares[0]),
            format::short(params),
            format::percent(shares[1]),
        ]);
    };
    let mut rest = ([network.cost.macs, network.cost.params], [1.0, 1.0]);
    for block in &network.blocks {
        let shares = [block.macs_share, block.params_share];
        let costs = [block.cost.macs, block.cost.params];
        row(&block.block, block.input.to_string(), block.output.to_string(), costs, shares);
        for kind in 0..2 {
            rest.0[kind] -= costs[kind];
            rest.1[kind] -= shares[kind];
        }
    }
    row("stem and head", String::new(), String::new(), rest.0, rest.1);
    format!(
        "{} ({}): {}\ninput {} of pixels with mean {} and deviation {}, {} of the shorter side, {}; {} classes\n\
         {} blocks, {} parameters, {} MACs\n\n{table}",
        network.name,
        network.family,
        network.source,
        network.input.map(|size| size.to_string()).join("×"),
        list(network.mean),
        list(network.std),
        format::percent(f64::from(network.crop)),
        network.interpolation,
        format::count(network.classes as u64),
        format::count(network.blocks.len() as u64),
        format::short(network.cost.params),
        format::short(network.cost.macs),
    )
}
