mod families;

use std::collections::BTreeSet;
use std::path::PathBuf;

use lana::{FamilyInfo, LayerRules, PoolLayer, PoolRecord, pool_families};
use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana pool
  lana pool --teacher resnet56_cifar --layer layer2.0-2
  lana pool --pool 'narrow-*,mbconv-e4-k5'
  lana pool --teacher efficientnet_b2 --pool paper --pool-rule 'blocks.0.*:narrow-*,identity'
  lana pool --families
  lana pool RUN --layer layer2.0-2";

/// List the operations that may stand in the place of a teacher's layers
///
/// Without --layer: every operation, at how many layers it applies, and its share of the layers' MACs and parameters.
/// With --layer: the operations at that layer, and why others do not apply there. Of a run, with the latency that
/// `lana profile` measured, as a share of the layer's own, what is not trained because it is no faster, and the normalised
/// errors that phase 1 reached.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The directory of a run, whose teacher and pool are looked at
    #[arg(conflicts_with_all = ["teacher", "resolution", "num_classes", "group", "pool", "pool_rule"])]
    run: Option<PathBuf>,

    /// The teacher whose layers are looked at
    #[arg(long, value_name = "ARCH", default_value = "resnet56_cifar")]
    teacher: String,

    #[command(flatten)]
    network: super::Network,

    /// Blocks of a stage that follow each other and are one layer, at most; 1 leaves each alone
    #[arg(long, value_name = "N", default_value_t = LayerRules::default().group)]
    group: usize,

    /// Operations: compact, paper, extended, names, patterns such as narrow-*, a hyphen in front takes out; joined by
    /// commas
    #[arg(long, default_value = "compact", allow_hyphen_values = true)]
    pool: String,

    /// Other operations for some layers or stages, such as 'layer1.*:compact,-conv-*'; may be repeated
    #[arg(long, value_name = "LAYERS:OPERATIONS")]
    pool_rule: Vec<String>,

    /// Show one layer, such as layer2.0-2
    #[arg(long)]
    layer: Option<String>,

    /// Of a run: what each family of operations reached in phase 1 against its latency, over all layers that are trained
    /// or at the one that --layer names
    #[arg(long, requires = "run", conflicts_with = "json")]
    by_family: bool,

    /// Show the families of operations: the form of their names, what they are, what they start from
    #[arg(long, conflicts_with_all = [
        "run", "teacher", "resolution", "num_classes", "group", "pool", "pool_rule", "layer", "by_family", "json",
    ])]
    families: bool,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        if self.families {
            return output::results(&forms(&pool_families()));
        }
        let (teacher, mut record) = match &self.run {
            Some(run) => lana::pool_of_run(run)?,
            None => {
                let options = self.network.options();
                let pool = lana::pool(&self.teacher, &options, self.group, &self.pool, &self.pool_rule)?;
                (self.teacher.clone(), pool)
            }
        };
        if let Some(name) = &self.layer {
            let names: Vec<String> = record.layers.iter().map(|layer| layer.layer.clone()).collect();
            record.layers.retain(|layer| layer.layer == *name);
            if record.layers.is_empty() {
                return Err(Failure::input(
                    format!("{teacher} has no layer `{name}`"),
                    format!("its layers are: {}", names.join(", ")),
                ));
            }
        }
        if self.json {
            let mut value = output::to_json(&record)?;
            value["teacher"] = json!(teacher);
            return output::json(&value);
        }
        if self.by_family {
            record.layers.retain(|layer| !layer.learned.is_empty());
            return match record.layers.is_empty() {
                true => Err(Failure::input(
                    "no operation is trained yet",
                    "train them with `lana pretrain RUN`, or `lana accelerate --until pretrain`",
                )),
                false => output::results(&families::table(&record.layers)),
            };
        }
        match (&self.layer, record.layers.first()) {
            (Some(_), Some(layer)) => output::results(&one_layer(layer)),
            _ => output::results(&all_layers(&teacher, &record)),
        }
    }
}

/// Each family by the form of its members' names, with what they are and how many of them stand in which preset.
fn forms(families: &[FamilyInfo]) -> String {
    let mut text = String::new();
    for family in families {
        let counts = family.members.iter().filter(|(_, members)| !members.is_empty());
        let presets: Vec<String> =
            counts.map(|(preset, members)| format!("{preset} {}", members.len())).collect();
        text += &format!(
            "{}\n  {}\n  starts from: {}\n  members of presets: {}\n\n",
            family.grammar,
            family.summary,
            family.initialisation,
            presets.join(", ")
        );
    }
    text + "Parts in brackets may be left out. Any name of such a form may be given to --pool, in a preset or not.\n"
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
    let mut columns = vec![
        ("operation", Align::Left),
        ("MACs", Align::Right),
        ("", Align::Right),
        ("parameters", Align::Right),
        ("", Align::Right),
    ];
    columns.extend(layer.latency.is_some().then_some(("latency", Align::Right)));
    let is_trained = !layer.learned.is_empty();
    if is_trained {
        columns.extend([("error", Align::Right), ("to identity's", Align::Right)]);
    }
    let mut table = Table::new(&columns);
    for (operation, (_, macs, params)) in layer.operations.iter().zip(shares(layer)) {
        let mut cells = vec![
            operation.name.clone(),
            format::short(operation.cost.macs),
            format!("{macs:.2}x"),
            format::short(operation.cost.params),
            format!("{params:.2}x"),
        ];
        if let Some(latency) = &layer.latency {
            let ratio = latency.ratios.get(&operation.name);
            cells.push(ratio.map_or(String::new(), |ratio| format!("{ratio:.2}x")));
        }
        if is_trained {
            let learned = layer.learned.get(&operation.name);
            let number = |value: Option<f64>| value.map_or(String::new(), |value| format!("{value:.3}"));
            cells.push(number(learned.map(|learned| learned.error)));
            cells.push(number(learned.and_then(|learned| learned.to_identity)));
        }
        table.row(cells);
    }
    let shape = |dims: &[usize]| dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("×");
    let mut text = format!("{}: {} to {}\n\n{table}", layer.layer, shape(&layer.input), shape(&layer.output));
    if let Some(latency) = &layer.latency {
        text += &format!("\nThe layer's own latency is {:.3} ms.\n", latency.teacher_ms);
        if !latency.slow.is_empty() {
            text += &format!("Not trained, for the layer is as fast: {}\n", latency.slow.join(", "));
        }
    }
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
    let measured = record.layers.iter().any(|layer| layer.latency.is_some());
    let mut columns = vec![
        ("operation", Align::Left),
        ("layers", Align::Right),
        ("MACs", Align::Left),
        ("parameters", Align::Left),
    ];
    if measured {
        columns.extend([("latency", Align::Left), ("too slow at", Align::Right)]);
    }
    columns.push(("starts from", Align::Left));
    let mut table = Table::new(&columns);
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
        let mut cells = vec![
            name.to_string(),
            found.len().to_string(),
            range(found.iter().map(|share| share.0)),
            range(found.iter().map(|share| share.1)),
        ];
        if measured {
            let latencies = || record.layers.iter().filter_map(|layer| layer.latency.as_ref());
            cells.push(range(latencies().filter_map(|latency| latency.ratios.get(name)).copied()));
            let slow = latencies().filter(|latency| latency.slow.iter().any(|slow| slow == name)).count();
            cells.push(if slow > 0 { slow.to_string() } else { String::new() });
        }
        cells.push(start);
        table.row(cells);
    }
    let mut text = format!(
        "Pool `{}` at the {} layers of {teacher}; {} as shares of the layer's.\n\n{table}\n",
        [vec![record.pool.clone()], record.rules.clone()].concat().join("`, `"),
        record.layers.len(),
        if measured { "MACs, parameters and latency" } else { "MACs and parameters" }
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

    #[test]
    fn families_show_the_form_of_names() {
        let text = forms(&pool_families());
        assert!(
            text.starts_with("teacher\n  the teacher's own layer\n  starts from: the teacher's weights\n"),
            "{text}"
        );
        for part in [
            "\nmbconv-e<number up to 16>-k<odd number up to 11>[-se<number up to 1>][-eca]\n",
            "  members of presets: compact 3, extended 3\n",
            "  members of presets: paper 36\n",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert_eq!(text.matches("starts from: ").count(), pool_families().len());
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
    fn latency_stands_beside_once_it_is_measured() {
        let mut record = record();
        record.layers[1].latency = Some(lana::PoolLatency {
            teacher_ms: 0.5,
            ratios: [("teacher".to_string(), 1.0), ("conv-k3".to_string(), 1.25)].into(),
            slow: vec!["conv-k3".into()],
        });
        let expected = "\
b: 16×32×32 to 32×16×16

operation   MACs         parameters         latency
teacher    4.00k  1.00x         400  1.00x    1.00x
conv-k3    1.00k  0.25x         100  0.25x    1.25x

The layer's own latency is 0.500 ms.
Not trained, for the layer is as fast: conv-k3

Do not apply:
  identity: shapes differ
";
        assert_eq!(one_layer(&record.layers[1]), expected);
        let all = all_layers("net", &record);
        assert!(
            all.contains("conv-k3         2  0.25x–0.50x  0.25x       1.25x              1  [3]"),
            "{all}"
        );
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
