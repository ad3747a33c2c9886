//! The command, the configuration, the device, and what to type to check the figures.

use crate::Budget;
use crate::report::Report;
use crate::report::format::{NONE, escape, put};

pub(in crate::report) fn reproduce(report: &Report) -> String {
    let mut out = String::from("<p>The run was made by</p>\n");
    let command = match report.command.is_empty() {
        true => "(the command is not known)",
        false => &report.command,
    };
    out.push_str(&shell(command));
    out.push_str(
        "<p>The same command goes on with a run that was cut off, and does nothing twice.</p>\n<dl>\n",
    );
    let mut entry = |name: &str, value: String| put!(out, "<dt>{name}</dt><dd>{}</dd>\n", escape(&value));
    let known = |text: &str| if text.is_empty() { NONE.to_string() } else { text.to_string() };
    entry("report made", known(&report.created));
    if let Some(table) = &report.table {
        entry("latency measured on", known(&table.device));
        entry(
            "runtime",
            format!("{}, batch {}, threads {}", known(&table.runtime), table.batch, table.threads),
        );
    }
    entry("pool", known(&report.pool.pool));
    if let Some(precision) = &report.precision {
        entry("phase 1", precision.to_string());
    }
    if let Some(scores) = &report.scores {
        entry(
            "scores",
            format!("{} training images, batches of {}, seed {}", scores.images, scores.batch, scores.seed),
        );
    }
    for (student, _) in &report.students {
        entry(
            &escape(&format!("export {}", student.budget)),
            format!(
                "ONNX Runtime and libtorch differ by {:.0e} of the largest logit",
                finite(student.export_difference)
            ),
        );
    }
    out.push_str("</dl>\n<p>To measure and evaluate again, in the folder of the run:</p>\n");
    let quote = |text: &str| match text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:/=,{}".contains(c))
    {
        true => text.to_string(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    };
    let students: Vec<String> = report
        .students
        .iter()
        .map(|(s, _)| {
            let folder = s.budget.parse::<Budget>().map_or_else(|_| s.budget.clone(), |b| b.folder());
            quote(&format!("budgets/{folder}/student/student.onnx"))
        })
        .collect();
    let mut lines = String::from("lana measure teacher/teacher.onnx");
    students.iter().for_each(|file| put!(lines, " {file}"));
    if let Some(table) = &report.table {
        put!(lines, " --batch {} --threads {}", table.batch, table.threads);
    }
    let data = report.config("val").unwrap_or_else(|| "DATA".into());
    for file in ["teacher/teacher.onnx".to_string()].iter().chain(&students) {
        put!(lines, "\nlana evaluate {file} --data {}", quote(&data));
    }
    out.push_str(&shell(&lines));
    out.push_str("<p>The configuration, <code>run.toml</code>:</p>\n");
    put!(out, "<pre>{}</pre>\n", escape(report.config_toml.trim_end()));
    out
}

/// Commands, one in a line, that break only between words and can be copied.
fn shell(lines: &str) -> String {
    let mut out = String::from("<pre class=\"shell\">");
    for line in lines.lines() {
        let words: Vec<String> =
            line.split(' ').map(|word| format!("<span>{}</span>", escape(word))).collect();
        put!(out, "<code>{}</code>\n", words.join(" "));
    }
    out.push_str("</pre>\n");
    out
}

/// A number that can be printed: those that are not count as 1, the worst.
fn finite(value: f64) -> f64 {
    if value.is_finite() { value } else { 1.0 }
}
