//! Curves: phase 1 of the operations that were chosen, and fine-tuning.

use std::collections::BTreeSet;

use super::{gallery, nothing};
use crate::report::Report;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Layout, both};
use crate::report::facts::Student;
use crate::report::family::family_of;
use crate::report::format::{counted, escape, fixed, percent, put, three_digits};
use crate::{Assessment, OperationRecord};

pub(in crate::report) fn curves(report: &Report) -> String {
    let mut out = String::from("<h3>Phase 1: operations learn to imitate their layers</h3>\n");
    out.push_str(&phase_one(report));
    out.push_str("<h3>Fine-tuning: the student learns from the teacher</h3>\n");
    out.push_str(&fine_tuning(report));
    out
}

fn phase_one(report: &Report) -> String {
    if report.operations.is_empty() {
        return nothing("No operation has been trained yet.");
    }
    let students = report.finished();
    let chosen: BTreeSet<(&str, &str)> = students
        .iter()
        .flat_map(|s| s.metrics.choices.iter().map(|(layer, operation)| (layer.as_str(), operation.as_str())))
        .collect();
    let is_chosen = |o: &OperationRecord| chosen.contains(&(o.layer.as_str(), o.operation.as_str()));
    let failed = report.operations.iter().filter(|o| o.failed).count();
    let mut out = format!(
        "<p>{} trained{}.</p>\n",
        counted(report.operations.len(), "operation was", "operations were"),
        match failed {
            0 => String::new(),
            n => format!(", of which {n} diverged and cannot be selected"),
        }
    );
    let lines: Vec<&OperationRecord> =
        report.operations.iter().filter(|o| is_chosen(o) && !o.curve.is_empty()).collect();
    let charts = both(|width, class| error_lines(&lines, width, class).unwrap_or_default());
    if !charts.is_empty() {
        out.push_str("<p>Normalised error ‖s−t‖²/‖t‖² of those that were chosen, by images seen:</p>\n");
        out.push_str(&charts);
    } else if students.is_empty() {
        out.push_str(&nothing("No selection has been made yet, so none of them stands out."));
    } else {
        out.push_str(&nothing("None of them was chosen."));
    }
    let beside: Vec<(usize, &OperationRecord, f64)> = report
        .operations
        .iter()
        .filter(|o| !o.failed)
        .filter_map(|o| {
            let place = report.pool.layers.iter().position(|l| l.layer == o.layer)?;
            let ratio = o.error / o.identity_error.filter(|e| *e > 0.0)?;
            (ratio.is_finite() && ratio > 0.0).then_some((place, o, ratio))
        })
        .collect();
    if beside.is_empty() {
        out.push_str(&nothing(
            "No layer of this network can be skipped, so errors have no identity to compare with.",
        ));
        return out;
    }
    let better = beside.iter().filter(|(_, _, ratio)| *ratio < 1.0).count();
    put!(
        out,
        "<p>Final error of each operation as a share of the identity’s, which is what leaving the layer out \
         costs: below 1 \
         the operation has learnt something. {better} of {} have. Large marks were chosen; layers that cannot \
         be skipped are missing.</p>\n",
        beside.len()
    );
    let charts =
        both(|width, class| against_identity(report, &beside, &is_chosen, width, class).unwrap_or_default());
    out.push_str(&charts);
    out
}

fn error_lines(lines: &[&OperationRecord], width: f64, class: &str) -> Option<String> {
    let points = || lines.iter().flat_map(|o| o.curve.iter());
    let x = Axis::from_zero(points().map(|p| p.0 as f64), Scale::Linear)?;
    let y = Axis::fit(points().map(|p| p.1), Scale::Log)?;
    let mut chart = Chart::new(&Layout {
        size: (width, 320.0),
        label: "Normalised error of the chosen operations by images seen",
        x: (x, "images seen"),
        y: (y, "normalised error, logarithmic"),
    });
    for operation in lines {
        let family = family_of(&operation.operation);
        let values: Vec<(f64, f64)> =
            operation.curve.iter().filter(|p| p.1 > 0.0).map(|p| (p.0 as f64, p.1)).collect();
        let title = format!("{} {}: {}", operation.layer, operation.operation, three_digits(operation.error));
        chart.line(&format!("thin {}", family.class), &values, &title);
        if let Some(last) = values.last() {
            chart.point(&format!("solid {}", family.class), family.marker, *last, 3.0, &title);
        }
    }
    Some(chart.finish(class))
}

fn against_identity(
    report: &Report,
    beside: &[(usize, &OperationRecord, f64)],
    is_chosen: &dyn Fn(&OperationRecord) -> bool,
    width: f64,
    class: &str,
) -> Option<String> {
    let y = Axis::fit(beside.iter().map(|b| b.2).chain([1.0]), Scale::Log)?;
    let x = Axis::fit([1.0, report.pool.layers.len() as f64], Scale::Linear)?;
    let mut chart = Chart::new(&Layout {
        size: (width, 300.0),
        label: "Final error of the operations relative to the identity's, by layer",
        x: (x, "layer, counted from the input"),
        y: (y, "error / identity’s error, logarithmic"),
    });
    for large in [false, true] {
        for (place, operation, ratio) in beside.iter().filter(|b| is_chosen(b.1) == large) {
            let family = family_of(&operation.operation);
            let title = format!(
                "{} {}: {} of the identity's error",
                operation.layer,
                operation.operation,
                three_digits(*ratio)
            );
            let (style, radius) = if large { ("solid", 5.0) } else { ("faint", 2.4) };
            let at = ((place + 1) as f64, *ratio);
            chart.point(&format!("{style} {}", family.class), family.marker, at, radius, &title);
        }
    }
    chart.horizontal("limit", 1.0, "no better than skipping");
    Some(chart.finish(class))
}

fn fine_tuning(report: &Report) -> String {
    let students = report.finished();
    let trained: Vec<&Student> = students.iter().filter(|s| !s.metrics.epochs.is_empty()).collect();
    if trained.is_empty() {
        return nothing("No student has been fine-tuned yet.");
    }
    let figures = trained.iter().flat_map(|student| {
        let budget = escape(&student.metrics.budget);
        let seconds: f64 = student.metrics.epochs.iter().map(|e| e.seconds).sum();
        let epochs = counted(student.metrics.epochs.len(), "epoch", "epochs");
        [
            (
                format!("<b>{budget}</b>: top-1 on validation images, {epochs} in {} s", fixed(seconds, 0)),
                epoch_chart(
                    student,
                    "top-1 in %",
                    |e| 100.0 * e.val.top1,
                    Some(student.metrics.teacher_top1),
                ),
            ),
            (
                format!("<b>{budget}</b>: training loss, cross-entropy and distillation"),
                epoch_chart(student, "training loss in nats", |e| e.train_loss, None),
            ),
        ]
        .map(|(caption, chart)| {
            (caption, chart.unwrap_or_else(|| nothing("The training gave no finite numbers.")))
        })
    });
    let mut out = gallery("", figures);
    out.push_str(&assessments(&trained));
    out
}

/// What is said of the students' answers to the validation images, and class by class.
fn assessments(students: &[&Student]) -> String {
    let assessed: Vec<(&str, &Assessment)> = students
        .iter()
        .filter_map(|s| Some((s.metrics.budget.as_str(), s.metrics.assessment.as_ref()?)))
        .collect();
    if assessed.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">budget</th><th scope=\"col\">top-1</th>\
         <th scope=\"col\">top-5</th><th scope=\"col\">loss</th><th scope=\"col\">calibration error</th>\
         <th scope=\"col\">answers as the teacher</th></tr></thead>\n<tbody>\n",
    );
    for (budget, a) in &assessed {
        put!(
            out,
            "<tr><td>{}</td><td>{} ± {}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
            escape(budget),
            percent(a.accuracy.top1, 2),
            fixed(100.0 * a.top1_error, 2),
            percent(a.accuracy.top5, 2),
            fixed(a.accuracy.loss, 4),
            fixed(a.calibration_error, 4),
            a.agreement.map_or("–".into(), |share| percent(share, 2)),
        );
    }
    out.push_str("</tbody></table></div>\n");
    for (budget, a) in &assessed {
        put!(
            out,
            "<details>\n<summary>{}: top-1 class by class</summary>\n\
             <div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">class</th><th scope=\"col\">images</th>\
             <th scope=\"col\">top-1</th></tr></thead>\n<tbody>\n",
            escape(budget)
        );
        for class in &a.classes {
            put!(
                out,
                "<tr><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                class.name.as_deref().map_or_else(|| class.class.to_string(), escape),
                class.images,
                class.top1.map_or("–".into(), |share| percent(share, 1)),
            );
        }
        out.push_str("</tbody></table></div>\n</details>\n");
    }
    out
}

fn epoch_chart(
    student: &Student,
    name: &str,
    value: fn(&crate::EpochRecord) -> f64,
    teacher: Option<f64>,
) -> Option<String> {
    let epochs = &student.metrics.epochs;
    let y = Axis::fit(epochs.iter().map(value).chain(teacher.map(|t| 100.0 * t)), Scale::Linear)?;
    let x = Axis::from_zero(epochs.iter().map(|e| e.epoch as f64), Scale::Linear)?;
    let label = format!("{name} by epoch, {}", student.metrics.budget);
    let mut chart =
        Chart::new(&Layout { size: (390.0, 240.0), label: &label, x: (x, "epochs"), y: (y, name) });
    if let Some(teacher) = teacher {
        chart.horizontal("limit", 100.0 * teacher, &format!("teacher {}", percent(teacher, 1)));
    }
    let values: Vec<(f64, f64)> = epochs.iter().map(|e| (e.epoch as f64, value(e))).collect();
    chart.line(student.series.class, &values, name);
    let few = values.len() <= 20;
    for at in values.iter().skip(if few { 0 } else { values.len() - 1 }) {
        let title = format!("epoch {}: {}", at.0, three_digits(at.1));
        chart.point(&format!("solid {}", student.series.class), student.series.marker, *at, 4.0, &title);
    }
    Some(chart.finish(""))
}
