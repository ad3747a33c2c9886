//! The result in one sentence for each budget, and a table.

use std::collections::BTreeSet;

use super::nothing;
use crate::report::Report;
use crate::report::facts::Student;
use crate::report::format::{NONE, count, escape, ms, percent, put, standard_error, times};
use crate::{Quantity, StudentMetrics};

pub(in crate::report) fn headline(report: &Report) -> String {
    let name = escape(&report.teacher.name);
    let students = report.finished();
    let mut out = format!("<header>\n<p class=\"kicker\">lana report</p>\n<h1>{name}, accelerated</h1>\n");
    if students.is_empty() {
        out.push_str(&nothing(
            "No budget is finished yet: this page shows the teacher and what is known so far.",
        ));
    }
    for student in &students {
        let metrics = student.metrics;
        put!(
            out,
            "<p class=\"headline {}\">{name} at {}: <b>{} faster</b>{}, {} → {}</p>\n",
            student.series.class,
            escape(&metrics.budget),
            times(1.0 / metrics.ratio()),
            if metrics.measured.is_some() { "" } else { " (predicted, not measured)" },
            percent(metrics.teacher_top1, 1),
            percent(metrics.top1, 1)
        );
    }
    out.push_str("</header>\n");
    out.push_str(&table(report, &students));
    for student in students.iter().filter(|s| !s.metrics.verdict.is_empty()) {
        let (budget, verdict) = (escape(&student.metrics.budget), escape(&student.metrics.verdict));
        put!(out, "<p class=\"note\">Selection for {budget}: {verdict}.</p>\n");
    }
    let images = report.teacher.val.images;
    put!(
        out,
        "<p class=\"note\">Accuracy on {images} validation images, ± its standard error √(p(1−p)/n). Latency: "
    );
    out.push_str("median for one batch, below it the 95 % confidence interval");
    if let Some(table) = &report.table {
        put!(
            out,
            "; batch {}, {} on {}, {}",
            table.batch,
            escape(&table.runtime),
            escape(&table.device),
            crate::report::format::counted(table.threads, "thread", "threads")
        );
    }
    out.push_str(". The student’s ratio is measured in turns with the teacher, so that a machine that slows down slows both.</p>\n");
    out
}

fn table(report: &Report, students: &[Student]) -> String {
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    let mut row = |name: &str, teacher: String, student: &dyn Fn(&Student) -> String| {
        rows.push((name.to_string(), [teacher].into_iter().chain(students.iter().map(student)).collect()));
    };
    let top1 = |p: f64, images| {
        format!("{}{}", percent(p, 2), below(&format!("± {}", percent(standard_error(p, images), 2))))
    };
    let interval =
        |[low, high]: [f64; 2], show: fn(f64) -> String| below(&format!("{} to {}", show(low), show(high)));
    let val = report.teacher.val;
    row("Top-1", top1(val.top1, val.images), &|s| top1(s.metrics.top1, s.metrics.val.images));
    row("Top-5", percent(val.top5, 2), &|s| percent(s.metrics.val.top5, 2));
    let teacher_ms = match report.teacher_ms() {
        Some((median, Some(ci))) => ms(median) + &interval(ci, ms),
        Some((median, None)) => ms(median),
        None => NONE.into(),
    };
    row("Latency", teacher_ms, &|s| {
        ms(s.metrics.latency_ms()) + &s.metrics.measured.map_or(below(PREDICTED), |m| interval(m.ci_ms, ms))
    });
    row("Share of the teacher’s latency", "1".into(), &|s| {
        let figure = |v| crate::report::format::fixed(v, 3);
        let below = s.metrics.measured.map_or(below(PREDICTED), |m| interval(m.ratio_ci, figure));
        figure(s.metrics.ratio()) + &below
    });
    let labels: BTreeSet<&str> =
        students.iter().flat_map(|s| &s.metrics.others).map(|t| t.deployment.as_str()).collect();
    let titles: Vec<(&str, String)> =
        labels.into_iter().map(|label| (label, format!("Latency on {}", escape(label)))).collect();
    for (label, title) in &titles {
        row(title, NONE.into(), &|s| {
            let Some(other) = s.metrics.others.iter().find(|t| t.deployment == *label) else {
                return NONE.into();
            };
            match &other.measured {
                Some(m) => {
                    let share = crate::report::format::fixed(m.ratio, 3);
                    ms(m.median_ms) + &below(&format!("{share} of the teacher’s"))
                }
                None => ms(other.predicted_ms) + &below(PREDICTED),
            }
        });
    }
    row("Parameters", count(report.teacher.cost.params), &|s| count(s.metrics.cost.params));
    row("MACs", count(report.teacher.cost.macs), &|s| count(s.metrics.cost.macs));
    if students.iter().any(|s| s.metrics.teacher_memory_bytes > 0) {
        let teacher = |of: fn(&StudentMetrics) -> u64| students.first().map_or(0, |s| of(s.metrics)) as f64;
        let (memory, size) = (teacher(|m| m.teacher_memory_bytes), teacher(|m| m.teacher_size_bytes));
        row("Feature maps of an image, peak", Quantity::Memory.show(memory), &|s| {
            Quantity::Memory.show(s.metrics.memory_bytes as f64)
        });
        row("ONNX file", Quantity::Size.show(size), &|s| Quantity::Size.show(s.metrics.size_bytes as f64));
    }
    if !students.is_empty() {
        row("Budget", NONE.into(), &|s| {
            let limit = s.metrics.limit_ms.map(|v| below(&format!("at most {}", ms(v)))).unwrap_or_default();
            escape(&s.metrics.budget) + &limit
        });
        row("Budget met", NONE.into(), &|s| match s.metrics.meets_budget {
            true => "<span class=\"yes\">✓ yes</span>".into(),
            false => "<span class=\"no\">✗ no</span>".into(),
        });
        row("Share of the budget used", NONE.into(), &|s| {
            s.metrics.used.map_or(NONE.into(), |used| percent(used, 1))
        });
    }
    let mut out = String::from(
        "<div class=\"scroll\"><table class=\"summary\">\n<thead><tr><td></td><th scope=\"col\">teacher</th>",
    );
    for student in students {
        put!(out, "<th scope=\"col\">student {}</th>", escape(&student.metrics.budget));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for (name, cells) in rows {
        put!(out, "<tr><th scope=\"row\">{name}</th>");
        cells.iter().for_each(|cell| put!(out, "<td>{cell}</td>"));
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
    out
}

/// What stands below a latency that could not be measured.
const PREDICTED: &str = "predicted: measure it on its device";

fn below(text: &str) -> String {
    format!("<small>{text}</small>")
}
