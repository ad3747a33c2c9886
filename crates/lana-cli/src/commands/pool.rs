use std::collections::BTreeSet;

use lana::{PoolLayer, PoolRecord};
use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana pool
  lana pool --teacher resnet56_cifar --layer layer2.0
  lana pool --pool 'narrow-*,mbconv-e4-k5'";

/// List the operations that may stand in the place of a teacher's layers
///
/// Without --layer: every operation, at how many layers it applies, and its share of the layers' MACs and parameters.
/// With --layer: the operations at that layer, and why others do not apply there.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The teacher whose layers are looked at
    #[arg(long, value_name = "ARCH", default_value = "resnet56_cifar")]
    teacher: String,

    #[command(flatten)]
    network: super::Network,

    /// Operations: compact, names, patterns such as narrow-*, a hyphen in front takes out; joined by commas
    #[arg(long, default_value = "compact", allow_hyphen_values = true)]
    pool: String,

    /// Show one layer, such as layer2.0
    #[arg(long)]
    layer: Option<String>,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let mut record = lana::pool(&self.teacher, &self.network.options(), &self.pool)?;
        if let Some(name) = &self.layer {
            let names: Vec<String> = record.layers.iter().map(|layer| layer.layer.clone()).collect();
            record.layers.retain(|layer| layer.layer == *name);
            if record.layers.is_empty() {
                return Err(Failure::input(
                    format!("{} has no layer `{name}`", self.teacher),
                    format!("its layers are: {}", names.join(", ")),
                ));
            }
        }
        if self.json {
            return output::json(
                &json!({ "teacher": self.teacher, "pool": record.pool, "layers": record.layers }),
            );
        }
        match (&self.layer, record.layers.first()) {
            (Some(_), Some(layer)) => output::results(&one_layer(layer)),
            _ => output::results(&all_layers(&self.teacher, &record)),
        }
    }
}

/// Shares of the teacher's own layer, which stands first: MACs, parameters.
fn shares(layer: &PoolLayer) -> impl Iterator<Item = (&str, f64, f64)> {
    let teacher = layer.operations.first().map(|operation| operation.cost).unwrap_or_default();
    let share = |value: u64, whole: u64| value as f64 / whole as f64;
    layer.operations.iter().map(move |operation| {
        let cost = operation.cost;
        (operation.name.as_str(), share(cost.macs, teacher.macs), share(cost.params, teacher.params))
    })
}

fn one_layer(layer: &PoolLayer) -> String {
    let mut table = Table::new(&[
        ("operation", Align::Left),
        ("MACs", Align::Right),
        ("", Align::Right),
        ("parameters", Align::Right),
        ("", Align::Right),
    ]);
    for (operation, (_, macs, params)) in layer.operations.iter().zip(shares(layer)) {
        table.row([
            operation.name.clone(),
            format::short(operation.cost.macs),
            format!("{macs:.2}x"),
            format::short(operation.cost.params),
            format!("{params:.2}x"),
        ]);
    }
    let shape = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
    let mut text = format!("{}: {} to {}\n\n{table}", layer.layer, shape(&layer.input), shape(&layer.output));
    if !layer.left_out.is_empty() {
        text += "\nDo not apply:\n";
        for (operation, reason) in &layer.left_out {
            text += &format!("  {operation}: {reason}\n");
        }
    }
    text
}

fn all_layers(teacher: &str, record: &PoolRecord) -> String {
    // In the order of the pool: of the first layer where it is named, applying or not.
    let mut names: Vec<&str> = Vec::new();
    for layer in &record.layers {
        for operation in &layer.operations {
            if !names.contains(&operation.name.as_str()) {
                names.push(&operation.name);
            }
        }
    }
    let nowhere: BTreeSet<&str> = record
        .layers
        .iter()
        .flat_map(|layer| layer.left_out.keys().map(String::as_str))
        .filter(|name| !names.contains(name))
        .collect();
    names.extend(nowhere);

    let mut starts: Vec<&str> = Vec::new();
    let mut table = Table::new(&[
        ("operation", Align::Left),
        ("layers", Align::Right),
        ("MACs", Align::Left),
        ("parameters", Align::Left),
        ("starts from", Align::Left),
    ]);
    for name in names {
        let found: Vec<(f64, f64)> = record
            .layers
            .iter()
            .flat_map(shares)
            .filter(|(operation, ..)| *operation == name)
            .map(|(_, macs, params)| (macs, params))
            .collect();
        let operations = record.layers.iter().flat_map(|layer| &layer.operations);
        let start = match operations.into_iter().find(|operation| operation.name == name) {
            None => String::new(),
            Some(operation) => {
                let start = operation.initialisation.as_str();
                let number = starts.iter().position(|known| *known == start).unwrap_or_else(|| {
                    starts.push(start);
                    starts.len() - 1
                });
                format!("[{}]", number + 1)
            }
        };
        table.row([
            name.to_string(),
            found.len().to_string(),
            range(found.iter().map(|share| share.0)),
            range(found.iter().map(|share| share.1)),
            start,
        ]);
    }
    let mut text = format!(
        "Pool `{}` at the {} layers of {teacher}; MACs and parameters as shares of the layer's.\n\n{table}\n",
        record.pool,
        record.layers.len()
    );
    for (number, start) in starts.iter().enumerate() {
        text += &format!("[{}] {start}\n", number + 1);
    }
    text
}

/// `0.25x` or `0.12x–0.25x`.
fn range(values: impl Iterator<Item = f64>) -> String {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
    let (low, high) = (format!("{low:.2}x"), format!("{high:.2}x"));
    match low == high {
        _ if low.starts_with("inf") => String::new(),
        true => low,
        false => format!("{low}–{high}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        assert_eq!(range([0.25, 0.251].into_iter()), "0.25x");
        assert_eq!(range([0.12, 0.25, 0.2].into_iter()), "0.12x–0.25x");
        assert_eq!(range(std::iter::empty()), "");
    }

    fn record() -> PoolRecord {
        serde_json::from_value(json!({
            "pool": "compact",
            "layers": [
                {"layer": "a", "stage": "a", "input": [16, 32, 32], "output": [16, 32, 32], "operations": [
                    {"name": "teacher", "initialisation": "the teacher", "macs": 4000, "params": 400},
                    {"name": "identity", "initialisation": "nothing", "macs": 0, "params": 0},
                    {"name": "conv-k3", "initialisation": "random", "macs": 2000, "params": 100}],
                 "left_out": {}},
                {"layer": "b", "stage": "b", "input": [16, 32, 32], "output": [32, 16, 16], "operations": [
                    {"name": "teacher", "initialisation": "the teacher", "macs": 4000, "params": 400},
                    {"name": "conv-k3", "initialisation": "random", "macs": 1000, "params": 100}],
                 "left_out": {"identity": "shapes differ"}},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn all_layers_at_a_glance() {
        let expected = "\
Pool `compact` at the 2 layers of net; MACs and parameters as shares of the layer's.

operation  layers  MACs         parameters  starts from
teacher         2  1.00x        1.00x       [1]
identity        1  0.00x        0.00x       [2]
conv-k3         2  0.25x–0.50x  0.25x       [3]

[1] the teacher
[2] nothing
[3] random
";
        assert_eq!(all_layers("net", &record()), expected);
    }

    #[test]
    fn one_layer_in_full() {
        let expected = "\
b: 16×32×32 to 32×16×16

operation   MACs         parameters
teacher    4.00k  1.00x         400  1.00x
conv-k3    1.00k  0.25x         100  0.25x

Do not apply:
  identity: shapes differ
";
        assert_eq!(one_layer(&record().layers[1]), expected);
    }
}
