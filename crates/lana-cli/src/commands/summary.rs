//! The table of teacher and students that `accelerate` and `demo` end with.

use lana::{Config, StudentMetrics};

use crate::format;
use crate::output::{Align, Table};

/// Teacher and students: accuracy, measured latency, parameters, MACs, and whether the budget is met.
pub(super) fn table(teacher: &str, students: &[StudentMetrics]) -> Table {
    let mut table = Table::new(&[
        ("network", Align::Left),
        ("top-1", Align::Right),
        ("latency [95 % interval]", Align::Left),
        ("ratio", Align::Right),
        ("parameters", Align::Right),
        ("MACs", Align::Right),
        ("budget", Align::Left),
    ]);
    if let Some(first) = students.first() {
        table.row([
            teacher.to_string(),
            format::percent(first.teacher_top1),
            format!("{} ms", format::milliseconds(first.teacher_measured)),
            format::ratio(1.0),
            format::short(first.teacher_cost.params),
            format::short(first.teacher_cost.macs),
        ]);
    }
    for student in students {
        let measured = &student.measured;
        let met = if student.meets_budget { "met" } else { "NOT met" };
        table.row([
            format!("student {}", student.budget),
            format::percent(student.top1),
            format::latency(measured.median_ms, measured.ci_ms),
            format::ratio(measured.ratio),
            format::short(student.cost.params),
            format::short(student.cost.macs),
            met.to_string(),
        ]);
    }
    table
}

/// What the latencies and accuracies of the table stand for.
pub(super) fn how_measured(config: &Config) -> String {
    let latency = &config.latency;
    format!(
        "Latency: median for {} on {}, {}; ratio to the teacher, measured in turns. Top-1 on {}.",
        match latency.batch {
            1 => "one image".to_string(),
            batch => format!("a batch of {batch}"),
        },
        latency.runtime,
        format::plural(latency.threads, "thread"),
        config.val
    )
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::BTreeMap;

    use lana::{Accuracy, Measured};

    use super::*;

    /// A student as it could be.
    pub(crate) fn student(budget: &str, meets_budget: bool) -> StudentMetrics {
        // Cost belongs to lana-graph, which is not ours to name: its JSON is.
        let cost = |macs: u64, params: u64| {
            serde_json::from_value(serde_json::json!({ "macs": macs, "params": params })).unwrap()
        };
        StudentMetrics {
            budget: budget.into(),
            limit_ms: Some(20.05),
            predicted: 19.0,
            measured: Measured { median_ms: 19.4, ci_ms: [19.2, 19.6], ratio: 0.485, ratio_ci: [0.48, 0.49] },
            teacher_measured: 40.1,
            meets_budget,
            top1: 0.8951,
            teacher_top1: 0.9006,
            val: Accuracy { top1: 0.8951, top5: 0.99, loss: 0.4, images: 10_000 },
            cost: cost(60_000_000, 400_000),
            teacher_cost: cost(125_485_706, 853_018),
            choices: Vec::new(),
            epochs: Vec::new(),
            export_difference: 1e-6,
            files: BTreeMap::new(),
        }
    }

    #[test]
    fn the_table_says_everything() {
        let table = table("resnet56_cifar", &[student("0.5x", true), student("0.34x", false)]).to_string();
        let expected = "\
network           top-1  latency [95 % interval]   ratio  parameters   MACs  budget
resnet56_cifar  90.06 %  40.10 ms                 1.000x        853k   125M
student 0.5x    89.51 %  19.40 ms [19.20, 19.60]  0.485x        400k  60.0M  met
student 0.34x   89.51 %  19.40 ms [19.20, 19.60]  0.485x        400k  60.0M  NOT met
";
        assert_eq!(table, expected);
    }

    #[test]
    fn the_conditions_are_named() {
        let mut config = Config { val: "cifar10:test".into(), ..Config::default() };
        assert_eq!(
            how_measured(&config),
            "Latency: median for one image on onnxruntime, 1 thread; ratio to the teacher, measured in turns. Top-1 on \
             cifar10:test."
        );
        config.latency.batch = 64;
        assert!(how_measured(&config).contains("a batch of 64"));
    }
}
