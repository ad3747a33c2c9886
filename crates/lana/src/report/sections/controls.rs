//! The student beside what it must beat.

use std::collections::BTreeMap;

use super::nothing;
use crate::report::Report;
use crate::report::format::{NONE, count, counted, escape, fixed, percent, put, standard_error};
use crate::{ControlMetrics, StudentMetrics};

pub(in crate::report) fn controls(report: &Report) -> String {
    if report.controls.is_empty() {
        return nothing(
            "No control has been made: <code>lana finetune RUN --control skip-only</code> (or <code>random</code>, \
             <code>uniform</code>, a network of <code>lana zoo</code>) trains one as the student was trained.",
        );
    }
    let mut out = String::from(
        "<p>What the student must beat: other selections under the same budget, and smaller networks, all trained by \
         distillation from the same teacher on the same images and measured in turns with it.</p>\n",
    );
    let mut budgets: BTreeMap<&str, Vec<&ControlMetrics>> = BTreeMap::new();
    for control in &report.controls {
        budgets.entry(&control.budget).or_default().push(control);
    }
    for (budget, controls) in budgets {
        let student = report.students.iter().map(|(metrics, _)| metrics).find(|s| s.budget == budget);
        put!(out, "<h3>{}</h3>\n", escape(budget));
        if let Some(student) = student {
            put!(out, "<p>{}</p>\n", verdict(student, &controls));
        }
        out.push_str(&table(student, &controls));
    }
    out.push_str(
        "<p class=\"note\">± is the standard error √(p(1−p)/n) by the number of validation images; two trainings that differ in their \
         seed alone differ by about as much again.</p>\n",
    );
    out
}

/// What the comparison says, in a sentence.
fn verdict(student: &StudentMetrics, controls: &[&ControlMetrics]) -> String {
    let comparable: Vec<&&ControlMetrics> = controls.iter().filter(|c| c.same_recipe).collect();
    let error = student.val.top1_error();
    let rivals: Vec<String> = comparable
        .iter()
        .filter(|c| c.rivals(student.ratio(), student.top1, error))
        .map(|c| {
            let apart = 100.0 * (c.val.top1 - student.top1);
            let sign = if apart < 0.0 { "−" } else { "+" };
            format!("<b>{}</b> ({sign}{} points)", escape(&c.control), fixed(apart.abs(), 2))
        })
        .collect();
    match (rivals.is_empty(), comparable.is_empty()) {
        (_, true) => "None of them was trained by the recipe of this run: nothing can be concluded.".into(),
        (true, _) => format!(
            "The student beats {} by more than two standard errors wherever they are at most as slow.",
            counted(comparable.len(), "control", "controls")
        ),
        (false, _) => format!(
            "At most as slow, and as accurate as the student or better (within two standard errors): {}. What is gained \
             by the search is then not proven here; the control may be the simpler network to deploy.",
            rivals.join(", ")
        ),
    }
}

fn table(student: Option<&StudentMetrics>, controls: &[&ControlMetrics]) -> String {
    let mut out = String::from("<table>\n<thead><tr>");
    for title in [
        "",
        "Top-1",
        "Share of the teacher’s latency",
        "Budget met",
        "Agrees with the teacher",
        "Parameters",
        "MACs",
    ] {
        put!(out, "<th scope=\"col\">{title}</th>");
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    let top1 = |p: f64, error: f64| format!("{} ± {}", percent(p, 2), fixed(100.0 * error, 2));
    let met = |met: Option<bool>| match met {
        Some(true) => "<span class=\"yes\">✓ yes</span>",
        Some(false) => "<span class=\"no\">✗ no</span>",
        None => NONE,
    };
    let mut row = |name: &str, cells: [String; 6]| {
        put!(out, "<tr><th scope=\"row\">{name}</th>");
        cells.iter().for_each(|cell| put!(out, "<td>{cell}</td>"));
        out.push_str("</tr>\n");
    };
    if let Some(student) = student {
        let agreement = student.assessment.as_ref().and_then(|assessment| assessment.agreement);
        row(
            "<b>student</b>",
            [
                top1(student.top1, standard_error(student.top1, student.val.images)),
                fixed(student.ratio(), 3),
                met(Some(student.meets_budget)).into(),
                agreement.map_or(NONE.into(), |share| percent(share, 1)),
                count(student.cost.params),
                count(student.cost.macs),
            ],
        );
    }
    for control in controls {
        let note = if control.same_recipe { "" } else { " (another recipe)" };
        row(
            &format!("{}{note}", escape(&control.control)),
            [
                top1(control.val.top1, control.top1_error),
                control.ratio().map_or(NONE.into(), |ratio| fixed(ratio, 3)),
                met(control.meets_budget).into(),
                control.agreement.map_or(NONE.into(), |share| percent(share, 1)),
                count(control.cost.params),
                count(control.cost.macs),
            ],
        );
    }
    out.push_str("</tbody>\n</table>\n");
    out
}
