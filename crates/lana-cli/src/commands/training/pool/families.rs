//! What each family of operations reached in phase 1, against its latency.

use lana::PoolLayer;

use crate::output::{Align, Table};

/// Latencies, as shares of the layer's own, within which the best of a family is looked for.
const WITHIN: [f64; 4] = [0.25, 0.5, 0.75, 1.0];

/// One family at the layers that are looked at.
struct Family<'a> {
    name: &'a str,
    operations: usize,
    trained: usize,
    /// Of the operations that are timed.
    latency: Option<(f64, f64)>,
    /// By layer: latency and error of the operations that are timed and trained.
    reached: Vec<Vec<(f64, f64)>>,
}

/// The table of the families at some layers. Errors are relative to the identity's where all layers can be skipped.
pub(super) fn table(layers: &[PoolLayer]) -> String {
    let skippable = layers.iter().all(|l| l.learned.values().all(|e| e.to_identity.is_some()));
    let mut families: Vec<Family<'_>> = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        // The teacher's own needs no training; skipping is the measure.
        for operation in
            layer.operations.iter().filter(|o| !["teacher", "identity"].contains(&o.name.as_str()))
        {
            let name = operation.name.split('-').next().unwrap_or_default();
            let at = families.iter().position(|f| f.name == name).unwrap_or_else(|| {
                let reached = vec![Vec::new(); layers.len()];
                families.push(Family { name, operations: 0, trained: 0, latency: None, reached });
                families.len() - 1
            });
            let family = &mut families[at];
            family.operations += 1;
            let error = layer.learned.get(&operation.name);
            family.trained += usize::from(error.is_some());
            let Some(ratio) = layer.latency.as_ref().and_then(|l| l.ratios.get(&operation.name)) else {
                continue;
            };
            let (low, high) = family.latency.unwrap_or((*ratio, *ratio));
            family.latency = Some((low.min(*ratio), high.max(*ratio)));
            if let Some(error) = error {
                let error = if skippable { error.to_identity.unwrap_or(error.error) } else { error.error };
                family.reached[index].push((*ratio, error));
            }
        }
    }
    let within = WITHIN.map(|share| format!("≤ {share}x"));
    let mut columns = vec![
        ("family", Align::Left),
        ("operations", Align::Right),
        ("trained", Align::Right),
        ("latency", Align::Left),
    ];
    columns.extend(within.iter().map(|text| (text.as_str(), Align::Right)));
    columns.push(("any", Align::Right));
    let mut table = Table::new(&columns);
    for family in &families {
        let latency =
            family.latency.map_or(String::new(), |(low, high)| super::range([low, high].into_iter()));
        let mut cells =
            vec![family.name.to_string(), family.operations.to_string(), family.trained.to_string(), latency];
        cells.extend(WITHIN.into_iter().chain([f64::INFINITY]).map(|share| family.best(share)));
        table.row(cells);
    }
    let names: Vec<&str> = layers.iter().map(|layer| layer.layer.as_str()).collect();
    format!(
        "Least normalised error{} that a family reaches within a latency, as a share of the layer's own;\n{}{}.\n\n{table}",
        if skippable { " relative to the identity's" } else { "" },
        if layers.len() > 1 {
            "geometric mean over the layers where it has such an operation: "
        } else {
            "layer "
        },
        names.join(", "),
    )
}

impl Family<'_> {
    /// The least error within a latency: geometric mean over the layers, with their number where some have no such
    /// operation.
    fn best(&self, share: f64) -> String {
        let least = |reached: &Vec<(f64, f64)>| {
            reached
                .iter()
                .filter(|(ratio, _)| *ratio <= share)
                .map(|(_, error)| *error)
                .min_by(f64::total_cmp)
        };
        let best: Vec<f64> = self.reached.iter().filter_map(least).collect();
        if best.is_empty() {
            return String::new();
        }
        let mean = (best.iter().map(|error| error.ln()).sum::<f64>() / best.len() as f64).exp();
        match best.len() == self.reached.len() {
            true => format!("{mean:.3}"),
            false => format!("({} of {}) {mean:.3}", best.len(), self.reached.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_each_family_within_each_latency() {
        let layer = |name: &str, errors: [f64; 3]| -> PoolLayer {
            let operation =
                |name: &str| serde_json::json!({"name": name, "initialisation": "", "macs": 1, "params": 1});
            let operations = ["teacher", "conv-k1", "conv-k3", "narrow-w0.5"].map(operation);
            let error = |e: f64| serde_json::json!({"error": e / 10.0, "to_identity": e});
            serde_json::from_value(serde_json::json!({
                "layer": name, "stage": name, "input": [1, 1, 1], "output": [1, 1, 1],
                "operations": operations,
                "left_out": {},
                "latency": {"teacher_ms": 1.0, "slow": [],
                    "ratios": {"teacher": 1.0, "conv-k1": 0.2, "conv-k3": 0.6, "narrow-w0.5": 0.7}},
                "learned": {"conv-k1": error(errors[0]), "conv-k3": error(errors[1]), "narrow-w0.5": error(errors[2])},
            }))
            .expect("a layer")
        };
        let mut layers = [layer("a", [0.9, 0.4, 0.02]), layer("b", [0.4, 0.1, 0.08])];
        let expected = "\
Least normalised error relative to the identity's that a family reaches within a latency, as a share of the layer's own;
geometric mean over the layers where it has such an operation: a, b.

family  operations  trained  latency      ≤ 0.25x  ≤ 0.5x  ≤ 0.75x   ≤ 1x    any
conv             4        4  0.20x–0.60x    0.600   0.600    0.200  0.200  0.200
narrow           2        2  0.70x                           0.040  0.040  0.040
";
        assert_eq!(table(&layers), expected);
        layers[0].learned.remove("conv-k1");
        layers[0].learned.remove("conv-k3");
        assert!(table(&layers).contains("(1 of 2) 0.400"), "{}", table(&layers));
    }
}
