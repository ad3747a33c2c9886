//! What the operations of a pool cost at the layers of a teacher.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::pricing::BUNDLE;
use crate::sealed::{seal, unseal, write_atomic};
use crate::{Check, Correction, Deployment, Device, Error, Result};

/// Version of the file format.
pub(crate) const FORMAT: u32 = 2;
/// Name that stands for the teacher's own layer, whether or not the pool lists it.
pub(crate) const TEACHER: &str = "teacher";

/// A lookup table: latency of every selection as a sum.
///
/// Costs are marginal, measured inside the teacher: what a layer adds to the network it stands in. Those of the
/// teacher's own layers and the fixed cost add up to the teacher's measured latency. A cost may be negative where the
/// measurement says so; such a row is marked `noisy`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Version of this format.
    pub format: u32,
    /// Where it was measured.
    pub device: Device,
    /// How the networks were run.
    pub deployment: Deployment,
    /// Version of the runtime.
    pub runtime_version: String,
    /// How it was measured, in words.
    pub method: String,
    /// SHA-256 of what it prices: the teacher's structure, the operations of every layer by name and structure.
    pub networks: String,
    /// When, in seconds since 1970.
    pub created: u64,
    /// How long measuring took, seconds.
    pub seconds: f64,
    /// The teacher's name.
    pub teacher: String,
    /// The whole teacher's median, milliseconds.
    pub teacher_measured_ms: f64,
    /// Where that median lies with 95 % probability.
    pub teacher_ci_ms: [f64; 2],
    /// How far the parts, as measured, missed the whole teacher: their sum divided by it, minus 1. Since shared among them.
    pub parts_error: f64,
    /// Stem, head and overhead, milliseconds.
    pub fixed_ms: f64,
    /// The layers in the order of the network.
    pub layers: Vec<LayerRow>,
    /// Random selections that were measured whole when the table was made.
    pub whole: Vec<Whole>,
    /// What [`Table::correct`] last did; none before.
    pub correction: Option<Correction>,
    /// What a check of the table found; none before.
    pub check: Option<Check>,
}

/// A network that was measured whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whole {
    /// Operation of each layer, in their order.
    pub choices: Vec<String>,
    /// Its latency as a multiple of the teacher's, measured in turns with it.
    pub ratio: f64,
    /// Standard error of the ratio.
    pub error: f64,
}

/// One layer of a lookup table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRow {
    /// The layer.
    pub layer: String,
    /// Cost of the teacher's own layer, milliseconds.
    pub teacher_ms: f64,
    /// Standard error of that, milliseconds.
    pub teacher_spread_ms: f64,
    /// What may stand in its place.
    pub operations: Vec<Entry>,
}

/// What one operation costs at one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// The operation.
    pub operation: String,
    /// Cost as measured, milliseconds.
    pub cost_ms: f64,
    /// Standard error of the cost, milliseconds.
    pub spread_ms: f64,
    /// Rounds it was timed for; 0 for the teacher's own layer and for skipping, which follow from others.
    pub repeats: usize,
    /// Entries with the same number share one measurement: operations alike in structure and shapes.
    pub timing: usize,
    /// Whether the cost is negative or little more than noise even after a second, longer measurement.
    pub noisy: bool,
    /// What whole networks taught since, to be added to the cost; milliseconds.
    pub correction_ms: f64,
}

impl Table {
    /// Reads what [`Table::save`] wrote.
    ///
    /// # Errors
    /// If it is not there, damaged, no table, or of another version.
    pub fn load(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        let wrong = |reason: String| Error::File { path: path.to_path_buf(), reason };
        let is_bundle = |text: &str| {
            let value = serde_json::from_str::<serde_json::Value>(text);
            value.is_ok_and(|value| value.get("what").is_some_and(|what| what == BUNDLE))
        };
        let table: Table = unseal(&text).map_err(|e| {
            if is_bundle(&text) {
                return wrong(
                    "is a bundle, not a table: `lana profile --from-bundle` makes one of it".into(),
                );
            }
            wrong(format!(
                "is no whole lookup table ({e}); if it was copied, copy it again, or measure it again"
            ))
        })?;
        match table.format {
            FORMAT => Ok(table),
            other => Err(wrong(format!(
                "is a lookup table of format {other}, this lana reads {FORMAT}; measure it again with `lana profile`"
            ))),
        }
    }

    /// Writes the table, with a checksum.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let value = seal(self).map_err(|reason| Error::File { path: path.to_path_buf(), reason })?;
        write_atomic(path, format!("{value:#}\n").as_bytes())
            .map_err(|source| Error::Io { path: path.to_path_buf(), source })
    }

    /// The teacher's latency: what relative budgets refer to.
    pub fn teacher_ms(&self) -> f64 {
        self.teacher_measured_ms
    }

    /// Cost of an operation at a layer with what whole networks taught; `teacher` is known at every layer.
    pub fn cost(&self, layer: &str, operation: &str) -> Option<f64> {
        self.layers.iter().find(|row| row.layer == layer)?.cost(operation)
    }

    /// Latency of a selection in milliseconds: one operation's name for each layer, in their order.
    ///
    /// # Errors
    /// If there are more or fewer names than layers, or one is not in the table.
    pub fn predict(&self, selection: &[impl AsRef<str>]) -> Result<f64> {
        self.check_length(selection.len())?;
        let mut sum = self.fixed_ms;
        for (row, operation) in self.layers.iter().zip(selection) {
            sum += row.cost(operation.as_ref()).ok_or_else(|| row.unknown(operation.as_ref()))?;
        }
        Ok(sum)
    }

    pub(crate) fn check_length(&self, got: usize) -> Result<()> {
        match self.layers.len() {
            want if want == got => Ok(()),
            want => Err(Error::Table(format!("a selection of {got} operations for {want} layers"))),
        }
    }

    /// Entries that are negative or hardly known.
    pub fn noisy(&self) -> usize {
        self.layers.iter().flat_map(|row| &row.operations).filter(|entry| entry.noisy).count()
    }

    /// Layers that a selection gives another operation than the teacher's.
    pub(crate) fn replaced(&self, selection: &[String]) -> usize {
        let is_own = |(row, name): &(&LayerRow, &String)| {
            *name == TEACHER || row.entry(name).is_some_and(|entry| entry.timing == 0)
        };
        selection.len() - self.layers.iter().zip(selection).filter(is_own).count()
    }

    /// Refuses a table that was made on another device.
    pub fn check_device(&self, device: &Device) -> Result<()> {
        match self.device.differences(device) {
            None => Ok(()),
            Some(differences) => Err(Error::OtherDevice { differences }),
        }
    }
}

impl LayerRow {
    /// Cost of an operation here, corrected.
    pub fn cost(&self, operation: &str) -> Option<f64> {
        match self.entry(operation) {
            Some(entry) => Some(entry.cost_ms + entry.correction_ms),
            None => (operation == TEACHER).then_some(self.teacher_ms),
        }
    }

    pub(crate) fn entry(&self, operation: &str) -> Option<&Entry> {
        self.operations.iter().find(|e| e.operation == operation)
    }

    pub(crate) fn unknown(&self, operation: &str) -> Error {
        let known: Vec<&str> = self.operations.iter().map(|e| e.operation.as_str()).collect();
        Error::Table(format!(
            "no operation `{operation}` at layer `{}`; there are {TEACHER}, {}",
            self.layer,
            known.join(", ")
        ))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    fn entry(operation: &str, cost_ms: f64, timing: usize) -> Entry {
        Entry {
            operation: operation.into(),
            cost_ms,
            spread_ms: 0.01,
            repeats: 20,
            timing,
            noisy: false,
            correction_ms: 0.0,
        }
    }

    /// Four layers of 2 ms and 1.5 ms fixed; `half` costs 1 ms, `skip` nothing.
    pub(crate) fn sample() -> Table {
        let row = |layer: &str| LayerRow {
            layer: layer.into(),
            teacher_ms: 2.0,
            teacher_spread_ms: 0.02,
            operations: vec![entry("half", 1.0, 1), entry("skip", 0.0, 2)],
        };
        Table {
            format: FORMAT,
            device: Device::identify(),
            deployment: Deployment::default(),
            runtime_version: "1.32.0".into(),
            method: "made up".into(),
            networks: "none".into(),
            created: 0,
            seconds: 0.1,
            teacher: "four".into(),
            teacher_measured_ms: 9.5,
            teacher_ci_ms: [9.4, 9.6],
            parts_error: 0.0,
            fixed_ms: 1.5,
            layers: ["a", "b", "c", "d"].map(row).into(),
            whole: Vec::new(),
            correction: None,
            check: None,
        }
    }

    #[test]
    fn predictions_are_sums() {
        let table = sample();
        assert_eq!(table.predict(&["teacher"; 4]).expect("known"), table.teacher_ms());
        assert_eq!(
            table.predict(&["half", "skip", "teacher", "half"]).expect("known"),
            1.5 + 1.0 + 2.0 + 1.0
        );
        let error = table.predict(&["half", "skip"]).expect_err("too few").to_string();
        assert_eq!(error, "lookup table: a selection of 2 operations for 4 layers");
        let error = table.predict(&["half", "best", "half", "half"]).expect_err("unknown").to_string();
        assert!(error.contains("no operation `best` at layer `b`; there are teacher, half, skip"), "{error}");
    }

    #[test]
    fn json_keeps_everything() {
        let mut table = sample();
        table.layers[1].operations[0].cost_ms = 0.1 + 0.2;
        let path = std::env::temp_dir().join(format!("lana-table-{}.json", std::process::id()));
        table.save(&path).expect("temporary file");
        let read = Table::load(&path);
        let text = std::fs::read_to_string(&path).expect("a table");
        let refused = |text: &str| {
            std::fs::write(&path, text).expect("temporary file");
            Table::load(&path).expect_err("a damaged table was read").to_string()
        };
        let (cut, changed) = (refused(&text[..200]), refused(&text.replace("9.5", "8.5")));
        table.format += 1;
        table.save(&path).expect("temporary file");
        let other = Table::load(&path).expect_err("another format was read").to_string();
        std::fs::remove_file(&path).expect("temporary file");
        table.format -= 1;
        assert_eq!(read.expect("a table"), table);
        assert!(cut.contains(&*path.to_string_lossy()) && cut.contains("measure it again"), "{cut}");
        assert!(changed.contains("checksum"), "{changed}");
        assert!(other.contains("lana profile"), "{other}");
    }

    #[test]
    fn another_device_is_refused() {
        let mut table = sample();
        assert!(table.check_device(&Device::identify()).is_ok());
        table.device.logical_cores += 1;
        let error = table.check_device(&Device::identify()).expect_err("refused").to_string();
        assert!(error.contains("logical cores") && error.contains("lana profile"), "{error}");
    }
}
