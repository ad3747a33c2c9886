//! The result in one sentence for each budget, and a table.

use super::nothing;
use crate::report::Report;
use crate::report::facts::Student;
use crate::report::format::{NONE, count, escape, ms, percent, put, standard_error, times};

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
            "<p class=\"headline {}\">{name} at {}: <b>{} faster</b>, {} → {}</p>\n",
            student.series.class,
            escape(&metrics.budget),
            times(1.0 / metrics.measured.ratio),
            percent(metrics.teacher_top1, 1),
            percent(metrics.top1, 1)
        );
    }
    out.push_str("</header>\n");
    out.push_str(&table(report, &students));
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
    let mut rows: Vec<(&str, Vec<String>)> = Vec::new();
    let mut row = |name, teacher: String, student: &dyn Fn(&Student) -> String| {
        rows.push((name, [teacher].into_iter().chain(students.iter().map(student)).collect()));
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
        ms(s.metrics.measured.median_ms) + &interval(s.metrics.measured.ci_ms, ms)
    });
    row("Share of the teacher’s latency", "1".into(), &|s| {
        crate::report::format::fixed(s.metrics.measured.ratio, 3)
            + &interval(s.metrics.measured.ratio_ci, |v| crate::report::format::fixed(v, 3))
    });
    row("Parameters", count(report.teacher.cost.params), &|s| count(s.metrics.cost.params));
    row("MACs", count(report.teacher.cost.macs), &|s| count(s.metrics.cost.macs));
    if !students.is_empty() {
        row("Budget", NONE.into(), &|s| {
            let limit = s.metrics.limit_ms.map(|v| below(&format!("at most {}", ms(v)))).unwrap_or_default();
            escape(&s.metrics.budget) + &limit
        });
        row("Budget met", NONE.into(), &|s| match s.metrics.meets_budget {
            true => "<span class=\"yes\">✓ yes</span>".into(),
            false => "<span class=\"no\">✗ no</span>".into(),
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

fn below(text: &str) -> String {
    format!("<small>{text}</small>")
}
