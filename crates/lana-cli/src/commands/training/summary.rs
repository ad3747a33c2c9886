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
            first.teacher_measured.map_or("–".into(), |ms| format!("{} ms", format::milliseconds(ms))),
            format::ratio(1.0),
            format::short(first.teacher_cost.params),
            format::short(first.teacher_cost.macs),
        ]);
    }
    for student in students {
        let latency = match &student.measured {
            Some(measured) => format::latency(measured.median_ms, measured.ci_ms),
            None => format!("{} ms predicted", format::milliseconds(student.predicted)),
        };
        let met = match (student.meets_budget, &student.measured) {
            (true, Some(_)) => "met",
            (true, None) => "met by prediction",
            (false, _) => "NOT met",
        };
        table.row([
            format!("student {}", student.budget),
            format::percent(student.top1),
            latency,
            format::ratio(student.ratio()),
            format::short(student.cost.params),
            format::short(student.cost.macs),
            met.to_string(),
        ]);
    }
    table
}

/// A line for each student and further deployment, and one for how each selection ended.
pub(super) fn details(students: &[StudentMetrics]) -> String {
    let mut text = String::new();
    for student in students {
        for other in &student.others {
            let latency = match &other.measured {
                Some(m) => format!(
                    "{}, {} of the teacher",
                    format::latency(m.median_ms, m.ci_ms),
                    format::ratio(m.ratio)
                ),
                None => format!("{} ms predicted", format::milliseconds(other.predicted_ms)),
            };
            text += &format!("student {} on {}: {latency}\n", student.budget, other.deployment);
        }
        if !student.verdict.is_empty() {
            text += &format!("selection for {}: {}\n", student.budget, student.verdict);
        }
    }
    text
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

    use lana::{Accuracy, Measured, Timing};

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
            predicted_ratio: 0.475,
            measured: Some(Measured {
                median_ms: 19.4,
                ci_ms: [19.2, 19.6],
                ratio: 0.485,
                ratio_ci: [0.48, 0.49],
            }),
            teacher_measured: Some(40.1),
            meets_budget,
            deployment: "cpu-onnxruntime-b1-t1-fp32".into(),
            others: Vec::new(),
            used: Some(0.97),
            verdict: "97.0 % of the budget used when measured, after 2 rounds".into(),
            memory_bytes: 0,
            teacher_memory_bytes: 0,
            size_bytes: 0,
            teacher_size_bytes: 0,
            top1: 0.8951,
            teacher_top1: 0.9006,
            val: Accuracy { top1: 0.8951, top5: 0.99, loss: 0.4, images: 10_000 },
            cost: cost(60_000_000, 400_000),
            teacher_cost: cost(125_485_706, 853_018),
            choices: Vec::new(),
            assessment: None,
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
    fn what_was_not_measured_says_so() {
        let mut unmeasured = student("0.5x", true);
        (unmeasured.measured, unmeasured.teacher_measured) = (None, None);
        unmeasured.others.push(Timing {
            deployment: "cpu-onnxruntime-b64-t1-fp32".into(),
            limit_ms: Some(100.0),
            predicted_ms: 95.0,
            measured: None,
            teacher_ms: None,
        });
        let table = table("resnet56_cifar", std::slice::from_ref(&unmeasured)).to_string();
        assert!(table.contains("19.00 ms predicted") && table.contains("met by prediction"), "{table}");
        assert_eq!(
            details(&[unmeasured]),
            "student 0.5x on cpu-onnxruntime-b64-t1-fp32: 95.00 ms predicted\n\
             selection for 0.5x: 97.0 % of the budget used when measured, after 2 rounds\n"
        );
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
