use std::path::PathBuf;

use lana::{StageStatus, TableStatus};

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};

const EXAMPLE: &str = "\
Example:
  lana status run
  lana status run --json";

/// Show what is done of a run, what is left, and how long it will take
///
/// Only reads: it may be called while the run is at work.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The run directory
    #[arg(value_name = "RUN")]
    run: PathBuf,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let status = lana::status(&self.run)?;
        if self.json {
            return output::json(&status);
        }
        let tables: String = status.tables.iter().filter_map(checked).collect();
        let precision =
            status.precision.map_or(String::new(), |precision| format!("Phase 1: {precision}.\n"));
        let stages = &status.stages;
        output::results(&format!("{}\n{tables}{precision}{}", table(stages), conclusion(stages)))
    }
}

/// How well a table predicts, if that has been checked.
fn checked(table: &TableStatus) -> Option<String> {
    let check = table.check?;
    Some(format!(
        "Table {}: mean error {:.1} %, worst {:.1} %, of {} random selections.\n",
        table.deployment,
        100.0 * check.mean,
        100.0 * check.worst,
        check.networks
    ))
}

fn table(stages: &[StageStatus]) -> Table {
    let mut table = Table::new(&[
        ("stage", Align::Left),
        ("done", Align::Right),
        ("of", Align::Right),
        ("", Align::Left),
        ("", Align::Right),
        ("left", Align::Left),
    ]);
    for stage in stages {
        let share = match stage.total {
            0 => String::new(),
            total => format!("{} %", 100 * stage.done.min(total) / total),
        };
        let left = match stage.eta_s {
            _ if is_done(stage) => "done".to_string(),
            Some(seconds) => format::duration(seconds),
            None if stage.done > 0 => "?".to_string(),
            None => String::new(),
        };
        table.row([
            stage.stage.clone(),
            format::count(stage.done),
            format::count(stage.total),
            stage.unit.clone(),
            share,
            left,
        ]);
    }
    table
}

fn is_done(stage: &StageStatus) -> bool {
    stage.total > 0 && stage.done >= stage.total
}

fn conclusion(stages: &[StageStatus]) -> String {
    let open: Vec<&StageStatus> = stages.iter().filter(|stage| !is_done(stage)).collect();
    let Some(next) = open.first() else { return "Everything is done.".into() };
    let known: f64 = open.iter().filter_map(|stage| stage.eta_s).filter(|seconds| seconds.is_finite()).sum();
    match open.iter().all(|stage| stage.eta_s.is_some()) {
        true => format!("{} left.", format::duration(known)),
        false if known > 0.0 => format!("At least {} left.", format::duration(known)),
        false => format!("Next: {}.", next.stage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, done: u64, total: u64, eta_s: Option<f64>) -> StageStatus {
        StageStatus { stage: name.into(), done, total, unit: "images".into(), eta_s }
    }

    #[test]
    fn a_check_is_one_line() {
        let check = lana_latency::Figures {
            networks: 20,
            mean: 0.0134,
            worst: 0.042,
            bias: 0.0,
            kendall: 1.0,
            spearman: 1.0,
        };
        let table = TableStatus {
            deployment: "cpu-onnxruntime-b64-t1-fp32".into(),
            device: "some CPU".into(),
            teacher_ms: 100.0,
            noisy: 2,
            check: Some(check),
        };
        let line =
            "Table cpu-onnxruntime-b64-t1-fp32: mean error 1.3 %, worst 4.2 %, of 20 random selections.\n";
        assert_eq!(checked(&table).as_deref(), Some(line));
        assert_eq!(checked(&TableStatus { check: None, ..table }), None);
    }

    #[test]
    fn a_run_in_the_middle() {
        let stages = [
            stage("profile", 220, 220, Some(0.0)),
            stage("pretrain", 3_200, 12_800, Some(620.0)),
            stage("select 0.5x", 0, 30, None),
            stage("export 0.5x", 0, 0, None),
        ];
        let expected = "\
stage         done      of                 left
profile        220     220  images  100 %  done
pretrain     3,200  12,800  images   25 %  10 min 20 s
select 0.5x      0      30  images    0 %
export 0.5x      0       0  images
";
        assert_eq!(table(&stages).to_string(), expected);
        assert_eq!(conclusion(&stages), "At least 10 min 20 s left.");
        assert_eq!(conclusion(&stages[..2]), "10 min 20 s left.");
        assert_eq!(conclusion(&stages[..1]), "Everything is done.");
        assert_eq!(conclusion(&stages[2..]), "Next: select 0.5x.");
    }
}
