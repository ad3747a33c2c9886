use lana::{Previous, Quantity, RuleChanges, Selection, Stage};
use serde_json::json;

use super::stage::{self, BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align, Table};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana select run --budget 0.5x
  lana select run --exclude 'stage3.*:identity' --cap '*:identity<=4'
  lana select run --exclude '' --evaluate";

/// Step: find the selection of operations that meets a budget
///
/// Solves the integer program on the scores and the latency table, at once, and shows what changes against the
/// selection before. Budgets and rules are kept in run.toml and hold for later steps, which evaluate and time many
/// solutions before one is fine-tuned; --evaluate does that now. Ends with status 3 if no selection can meet a budget.
///
/// A RULE is LAYERS:OPERATIONS, where * stands for anything; several names go between commas. Rules take the place of
/// those of the same kind that were given before; '' is none. --score is kept as well.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,

    #[command(flatten)]
    budget: BudgetArgument,

    /// Operations that must not be taken; may be given several times
    #[arg(long, value_name = "RULE")]
    exclude: Option<Vec<String>>,

    /// Operations one of which must be taken in each of the layers; may be given several times
    #[arg(long, value_name = "RULE")]
    force: Option<Vec<String>>,

    /// How many layers may take one of the operations: RULE<=N, RULE>=N or RULE=N; may be given several times
    #[arg(long = "cap", value_name = "RULE<=N")]
    caps: Option<Vec<String>>,

    /// What the program adds up: each operation's divergence from the teacher, or its change of the loss [default: kl]
    #[arg(long, value_name = "KIND", value_parser = ["kl", "loss"])]
    score: Option<String>,

    /// Evaluate and measure the best solutions too, and keep the best one that meets the budget by measurement
    #[arg(long)]
    evaluate: bool,

    /// Print one JSON object instead of tables
    #[arg(long, conflicts_with = "evaluate")]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let budgets = self.budget.budgets()?;
        let rules = RuleChanges {
            exclude: self.exclude.clone(),
            force: self.force.clone(),
            caps: self.caps.clone(),
            score: self.score.clone(),
        };
        if self.evaluate && rules == RuleChanges::default() {
            return stage::run(&self.run, Stage::Select, &budgets, terminal);
        }
        let selections = lana::reselect(&self.run.run, &budgets, &rules, terminal)?;
        if self.evaluate {
            return stage::run(&self.run, Stage::Select, &budgets, terminal);
        }
        if self.json {
            return output::json(&json!({ "selections": selections }));
        }
        let mut text: String = selections.iter().map(describe).collect::<Vec<_>>().join("\n");
        if selections.iter().any(|selection| !selection.evaluated) {
            text += &format!(
                "\nBy the tables alone; `lana select {run} --evaluate` tries the best solutions for real, and so does `lana \
                 finetune {run}`.\n",
                run = self.run.run.display()
            );
        }
        output::results(&text)
    }
}

/// A selection in a line, and the layers that changed.
fn describe(selection: &Selection) -> String {
    let proof = match selection.proven {
        true => "proven to be the best".to_string(),
        false => format!("not proven, at least {:.5}", selection.bound),
    };
    let mut head = format!(
        "{}: {} ms predicted ({} of the teacher), score {:.5} ({proof}), {} parameters, {} MACs, feature maps {}, file {}",
        selection.budget,
        format::milliseconds(selection.predicted_ms),
        format::ratio(selection.predicted_ratio),
        selection.score,
        format::short(selection.cost.params),
        format::short(selection.cost.macs),
        Quantity::Memory.show(selection.memory_bytes as f64),
        Quantity::Size.show(selection.size_bytes as f64),
    );
    for other in &selection.others {
        head += &format!(
            "\non {}: {} ms predicted ({} of the teacher)",
            other.deployment,
            format::milliseconds(other.predicted_ms),
            format::ratio(other.predicted_ratio)
        );
    }
    let Some(previous) = selection.previous else {
        let mut table = Table::new(&[("layer", Align::Left), ("operation", Align::Left)]);
        selection.choices.iter().for_each(|(layer, operation)| table.row([layer, operation]));
        return format!("{head}\n{table}");
    };
    let previous = match previous {
        Previous::Evaluated => "the evaluated selection",
        Previous::Solved => "the selection before",
    };
    if selection.changed.is_empty() {
        return format!("{head}\nThe same operations as in {previous}.\n");
    }
    let mut table = Table::new(&[("layer", Align::Left), ("before", Align::Left), ("now", Align::Left)]);
    selection.changed.iter().for_each(|change| table.row([&change.layer, &change.before, &change.now]));
    let (changed, all) = (selection.changed.len(), selection.choices.len());
    format!("{head}\n{changed} of {all} layers differ from {previous}:\n{table}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(previous: Option<&str>) -> Selection {
        let changed = match previous {
            Some("evaluated") => json!([{"layer": "layer1.0", "before": "teacher", "now": "identity"}]),
            _ => json!([]),
        };
        let json = json!({"budget": "0.5x", "predicted_ms": 19.402, "predicted_ratio": 0.485, "score": 0.1234567,
            "bound": 0.12, "proven": previous.is_none(), "params": 400_000, "macs": 60_000_000,
            "choices": [["layer1.0", "identity"], ["layer1.1", "teacher"]], "previous": previous,
            "changed": changed, "evaluated": false, "memory_bytes": 196_608, "size_bytes": 1_600_000,
            "others": [{"deployment": "cpu-onnxruntime-b64-t1-fp32", "predicted_ms": 95.0, "predicted_ratio": 0.47}]});
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn a_selection_is_described() {
        assert_eq!(
            describe(&selection(Some("evaluated"))),
            "0.5x: 19.40 ms predicted (0.485x of the teacher), score 0.12346 (not proven, at least 0.12000), 400k parameters, \
             60.0M MACs, feature maps 196.6kB, file 1.6MB\n\
             on cpu-onnxruntime-b64-t1-fp32: 95.00 ms predicted (0.470x of the teacher)\n1 of 2 layers differ from the evaluated selection:\n\
             layer     before   now\nlayer1.0  teacher  identity\n"
        );
        assert!(
            describe(&selection(Some("solved")))
                .ends_with("\nThe same operations as in the selection before.\n")
        );
        let first = describe(&selection(None));
        assert!(first.contains("(proven to be the best)"));
        assert!(first.ends_with("\nlayer     operation\nlayer1.0  identity\nlayer1.1  teacher\n"), "{first}");
    }
}
