//! The student beside what it must beat.

use std::collections::BTreeMap;

use super::nothing;
use crate::report::Report;
use crate::report::format::{NONE, count, escape, fixed, percent, put, standard_error};
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
        "<p class=\"note\">± is the standard error: of a network’s accuracy √(p(1−p)/n), by the number n of validation images; of a \
         difference by the images that only one of the two has right, where that is known. Two trainings that differ in their seed alone differ \
         by about as much as the former.</p>\n",
    );
    out
}

/// What the comparison says. Controls count where they were trained alike and meet the budget: under it they are as good a deal.
fn verdict(student: &StudentMetrics, controls: &[&ControlMetrics]) -> String {
    let alike = || controls.iter().filter(|control| control.same_recipe);
    let within: Vec<_> = alike().filter(|control| control.meets_budget == Some(true)).collect();
    let rivals: Vec<String> = within
        .iter()
        .filter(|control| control.difference_from(student).is_as_accurate())
        .map(|control| format!("<b>{}</b> ({} points)", escape(&control.control), apart(control, student)))
        .collect();
    let mut out = match (within.len() - rivals.len(), rivals.is_empty()) {
        (0, true) => "No control of this recipe meets the budget: nothing can be concluded.".to_string(),
        (beaten, true) => format!(
            "The student beats {} within the budget by more than two standard errors.",
            if within.len() == 1 { "the one control".to_string() } else { format!("all {beaten} controls") }
        ),
        (_, false) => format!(
            "Within the budget, and as accurate as the student or better (within two standard errors): {}. What is gained by the \
             search is then not proven here; the control may be the simpler network to deploy.",
            rivals.join(", ")
        ),
    };
    let beyond: Vec<_> = alike().filter(|control| control.meets_budget == Some(false)).collect();
    if !beyond.is_empty() {
        put!(
            out,
            " {} over the budget",
            if beyond.len() == 1 {
                "One control is".into()
            } else {
                format!("{} controls are", beyond.len())
            }
        );
        let better: Vec<String> = beyond
            .iter()
            .filter(|control| control.difference_from(student).is_more_accurate())
            .map(|control| {
                let ratio = control.ratio().map_or(NONE.into(), |ratio| fixed(ratio, 3));
                let name = escape(&control.control);
                format!(
                    "<b>{name}</b> ({} points at {ratio} of the teacher’s latency)",
                    apart(control, student)
                )
            })
            .collect();
        out.push_str(&match better.is_empty() {
            true => ".".into(),
            false => format!(
                "; more accurate than the student by more than two standard errors: {}.",
                better.join(", ")
            ),
        });
    }
    if alike().any(|control| control.meets_budget.is_none()) {
        out.push_str(" What was not measured is not counted.");
    }
    if !student.meets_budget {
        out.push_str(" The student itself is over its budget.");
    }
    out
}

/// Points between a control and the student.
fn apart(control: &ControlMetrics, student: &StudentMetrics) -> String {
    let difference = control.difference_from(student);
    let sign = if difference.top1 < 0.0 { "−" } else { "+" };
    format!("{sign}{} ± {}", fixed(100.0 * difference.top1.abs(), 2), fixed(100.0 * difference.error, 2))
}

fn table(student: Option<&StudentMetrics>, controls: &[&ControlMetrics]) -> String {
    let mut out = String::from("<table>\n<thead><tr>");
    for title in [
        "",
        "Top-1",
        "Difference from the student",
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
    let mut row = |name: &str, cells: [String; 7]| {
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
                NONE.into(),
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
                student.map_or(NONE.into(), |student| apart(control, student)),
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
