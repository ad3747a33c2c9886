//! Accuracy against measured latency: teacher, candidates, students.

use super::{legend, nothing};
use crate::report::Report;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Layout, both};
use crate::report::format::{escape, fixed, ms, percent, put, standard_error};
use crate::report::svg::{Marker, dashed_symbol, symbol};
use crate::{Accuracy, Candidate, Candidates, StudentMetrics};

pub(in crate::report) fn accuracy(report: &Report) -> String {
    let students = report.finished();
    let Some((teacher_ms, _)) = report.teacher_ms() else {
        return nothing("No latency has been measured yet.");
    };
    let mut out = both(|width, class| draw(report, teacher_ms, width, class).unwrap_or_default());
    if out.is_empty() {
        return nothing("There is nothing yet whose latency and accuracy are both known.");
    }
    let on_validation = format!("teacher, on {} validation images", report.teacher.val.images);
    let mut entries = vec![(symbol("solid f-teacher", Marker::Star), on_validation)];
    for student in &students {
        let (class, marker) = (student.series.class, student.series.marker);
        let budget = &student.metrics.budget;
        let after = format!("student {budget} after fine-tuning, on validation images");
        entries.push((symbol(&format!("solid {class}"), marker), after));
        let before = format!("candidates for {budget} before fine-tuning, on training images");
        entries.push((symbol(&format!("hollow {class}"), marker), before));
    }
    if !students.is_empty() {
        entries.push((dashed_symbol(), "budget".into()));
    }
    out.push_str(&legend(&entries));
    if !students.is_empty() {
        out.push_str(
            "<p class=\"note\"><b>Hollow marks are not comparable with filled ones:</b> candidates are measured on \
             training images before any fine-tuning, assembled from operations as phase 1 left them, with batch \
             statistics. The winner has a heavier outline; an arrow leads to what fine-tuning made of it, on validation images. \
             Bars are 95 % intervals of latency and one standard error of accuracy.</p>\n",
        );
    }
    for student in &students {
        let candidates = &student.candidates.candidates;
        let met = candidates.iter().filter(|c| c.meets_budget).count();
        match candidates.is_empty() {
            true => put!(out, "<p>No candidate was evaluated for {}.</p>\n", escape(&student.metrics.budget)),
            false => put!(
                out,
                "<p>For {}, {met} of {} candidates met the budget {}.</p>\n",
                escape(&student.metrics.budget),
                candidates.len(),
                if student.metrics.measured.is_some() { "when measured" } else { "by prediction" }
            ),
        }
        out.push_str(&finalists(student.candidates));
    }
    out
}

/// What the short fine-tuning of the finalists gave, the most accurate first.
fn finalists(candidates: &Candidates) -> String {
    let all = candidates.candidates.iter().enumerate();
    let mut tuned: Vec<(usize, &Candidate, Accuracy)> =
        all.filter_map(|(index, candidate)| Some((index, candidate, candidate.tuned?))).collect();
    if tuned.is_empty() {
        return String::new();
    }
    tuned.sort_by(|a, b| b.2.top1.total_cmp(&a.2.top1));
    let mut out = String::from(
        "<p>The finalists after a short fine-tuning, on training images held out from it:</p>\n<table>\n<thead><tr>\
         <th scope=\"col\">Thinnest operation, of its layer’s MACs</th><th scope=\"col\">Loss before</th><th scope=\"col\">Loss after</th>\
         <th scope=\"col\">Top-1</th></tr></thead>\n<tbody>\n",
    );
    for (index, candidate, accuracy) in tuned {
        let thinnest = match candidate.thinnest {
            share if share < 1.0 => fixed(share, 2),
            _ => "the teacher’s own".into(),
        };
        put!(
            out,
            "<tr><th scope=\"row\">{thinnest}{}</th><td>{}</td><td>{}</td><td>{} ± {}</td></tr>\n",
            if index == candidates.winner { ", taken" } else { "" },
            fixed(candidate.loss, 3),
            fixed(accuracy.loss, 3),
            percent(accuracy.top1, 2),
            fixed(100.0 * accuracy.top1_error(), 2),
        );
    }
    out.push_str("</tbody>\n</table>\n");
    out
}

/// The interval of a student's latency; a point where it was not measured.
fn interval(metrics: &StudentMetrics) -> [f64; 2] {
    metrics.measured.map_or([metrics.predicted; 2], |m| m.ci_ms)
}

fn draw(report: &Report, teacher_ms: f64, width: f64, class: &str) -> Option<String> {
    let students = report.finished();
    let candidates = || students.iter().flat_map(|s| s.candidates.candidates.iter());
    let limits = students.iter().filter_map(|s| s.candidates.limit_ms.or(s.metrics.limit_ms));
    let measured = students.iter().flat_map(|s| interval(s.metrics));
    let x = Axis::fit(
        candidates().map(|c| c.latency_ms()).chain(measured).chain(limits).chain([teacher_ms]),
        Scale::Linear,
    )?;
    let teacher = report.teacher.val;
    let spread =
        |p: f64, images| [p - standard_error(p, images), p + standard_error(p, images)].map(|v| 100.0 * v);
    let y = Axis::fit(
        candidates()
            .map(|c| 100.0 * c.top1)
            .chain(spread(teacher.top1, teacher.images))
            .chain(students.iter().flat_map(|s| spread(s.metrics.top1, s.metrics.val.images))),
        Scale::Linear,
    )?;
    let mut chart = Chart::new(&Layout {
        size: (width, if width > 500.0 { 440.0 } else { 340.0 }),
        label: "Top-1 accuracy against measured latency of teacher, candidates and students",
        x: (x, "measured latency in ms"),
        y: (y, "top-1 accuracy in %"),
    });
    let teacher_at = (teacher_ms, 100.0 * teacher.top1);
    chart.reserve(teacher_at, 8.0);
    for student in &students {
        chart.reserve((student.metrics.latency_ms(), 100.0 * student.metrics.top1), 8.0);
    }
    for student in &students {
        let series = student.series;
        if let Some(limit) = student.candidates.limit_ms.or(student.metrics.limit_ms) {
            chart.vertical(&format!("limit {}", series.class), limit);
        }
        for (index, candidate) in student.candidates.candidates.iter().enumerate() {
            let winner = index == student.candidates.winner;
            let at = (candidate.latency_ms(), 100.0 * candidate.top1);
            let title = format!(
                "candidate {} of round {}{}: {} on training images before fine-tuning, {}{}",
                candidate.rank + 1,
                candidate.round + 1,
                if winner { ", the winner" } else { "" },
                percent(candidate.top1, 2),
                ms(candidate.latency_ms()),
                if candidate.meets_budget { "" } else { ", over the budget" }
            );
            let weight = if winner { "hollow heavy" } else { "hollow" };
            chart.point(
                &format!("{weight} {}", series.class),
                series.marker,
                at,
                if winner { 6.5 } else { 4.5 },
                &title,
            );
        }
    }
    for student in &students {
        if let Some(limit) = student.candidates.limit_ms.or(student.metrics.limit_ms) {
            chart.name_vertical(limit, &format!("budget {}", ms(limit)));
        }
    }
    for student in &students {
        let (metrics, series) = (student.metrics, student.series);
        let at = (metrics.latency_ms(), 100.0 * metrics.top1);
        if let Some(winner) = student.candidates.candidates.get(student.candidates.winner) {
            chart.arrow(series.class, (winner.latency_ms(), 100.0 * winner.top1), at, 8.0);
        }
        let [low, high] = spread(metrics.top1, metrics.val.images);
        chart.line(series.class, &[(at.0, low), (at.0, high)], "standard error");
        let [from, to] = interval(metrics);
        chart.line(series.class, &[(from, at.1), (to, at.1)], "95 % interval");
        let title = format!("student {}: {}, {}", metrics.budget, percent(metrics.top1, 2), ms(at.0));
        chart.point(&format!("solid {}", series.class), series.marker, at, 6.5, &title);
        chart.label(at, 8.0, &format!("{}: {} %", metrics.budget, fixed(at.1, 1)));
    }
    let [low, high] = spread(teacher.top1, teacher.images);
    chart.line("f-teacher", &[(teacher_ms, low), (teacher_ms, high)], "standard error");
    let title = format!("teacher: {}, {}", percent(teacher.top1, 2), ms(teacher_ms));
    chart.point("solid f-teacher", Marker::Star, teacher_at, 7.0, &title);
    chart.label(teacher_at, 8.0, &format!("teacher: {} %", fixed(teacher_at.1, 1)));
    Some(chart.finish(class))
}
