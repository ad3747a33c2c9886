use lana::{LayerRules, NetworkLayers, Stretch};

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana layers model.onnx
  lana layers model.onnx --exclude 'features.0*' --merge 'features.1*'
  lana layers efficientnet_b2 --json";

/// Show which regions of a network can be replaced, and what stays
///
/// In an ONNX file they are found: residual and inverted-residual blocks, convolutions with their normalisation and activation,
/// inception modules and transformer blocks are one block each; the stem and the classifier stay. Up to three blocks of a stage that
/// follow each other are one layer. Patterns for names of blocks (* stands for anything) and --group change that; [layers] in
/// run.toml holds the same for a run.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// An ONNX file, or a name that `lana zoo` lists
    #[arg(value_name = "FILE.onnx|ARCH")]
    network: String,

    #[command(flatten)]
    options: super::Network,

    /// Convolutions and blocks of the stem and the head that shall be layers too (a fully connected classifier cannot be one); may be
    /// given several times
    #[arg(long, value_name = "PATTERN")]
    include: Vec<String>,

    /// Blocks that shall stay as they are; may be given several times
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Blocks to divide where they can be divided; the parts are not grouped again; may be given several times
    #[arg(long, value_name = "PATTERN")]
    split: Vec<String>,

    /// Blocks that shall be one layer, with what stands between them; may be given several times
    #[arg(long, value_name = "PATTERN")]
    merge: Vec<String>,

    /// Blocks of a stage that follow each other and are one layer, at most; 1 leaves each alone
    #[arg(long, value_name = "N", default_value_t = LayerRules::default().group)]
    group: usize,

    /// Print one JSON object instead of a tree
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let rules = LayerRules {
            include: self.include.clone(),
            exclude: self.exclude.clone(),
            split: self.split.clone(),
            merge: self.merge.clone(),
            group: self.group,
        };
        let found = lana::layers(&self.network, &self.options.options(), &rules)?;
        if self.json { output::json(&found) } else { output::results(&tree(&found)) }
    }
}

/// The stretches of a network, layers under their stages.
fn tree(found: &NetworkLayers) -> String {
    let mut table = Table::new(&[
        ("", Align::Left),
        ("input", Align::Left),
        ("output", Align::Left),
        ("MACs", Align::Right),
        ("share", Align::Right),
        ("parameters", Align::Right),
    ]);
    let is_layer = |stretch: &&Stretch| stretch.stage.is_some();
    let mut stage = None;
    for stretch in &found.stretches {
        let name = match &stretch.stage {
            Some(own) => {
                if stage != Some(own) {
                    table.row([own.as_str(), "", "", "", "", ""]);
                }
                format!("  {}", stretch.name)
            }
            None => format!("({})", stretch.name),
        };
        stage = stretch.stage.as_ref();
        table.row(row(name, stretch));
        for block in &stretch.blocks {
            table.row(row(format!("    {}", block.name), block));
        }
    }
    let layers = found.stretches.iter().filter(is_layer);
    let blocks: usize = layers.clone().map(|layer| layer.blocks.len().max(1)).sum();
    let layers = layers.count();
    let share: f64 = found.stretches.iter().filter(is_layer).map(|stretch| stretch.macs_share).sum();
    format!(
        "{}: {} to {}, {} MACs, {} parameters\n{}{}: {} of the MACs; what is in brackets stays\n\n{table}",
        found.network,
        found.input,
        found.output,
        format::short(found.cost.macs),
        format::short(found.cost.params),
        format::plural(layers, "layer"),
        if blocks > layers { format!(" of {}", format::plural(blocks, "block")) } else { String::new() },
        format::percent(share),
    )
}

fn row(name: String, stretch: &Stretch) -> [String; 6] {
    [
        name,
        stretch.input.to_string(),
        stretch.output.to_string(),
        format::short(stretch.cost.macs),
        format::percent(stretch.macs_share),
        format::short(stretch.cost.params),
    ]
}
