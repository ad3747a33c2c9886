//! What was proposed at which depth: how often each family stands at each layer, over all selections that were evaluated for a
//! budget. The paper counts the same over its 100 solutions.

use super::{legend, nothing};
use crate::report::Report;
use crate::report::chart::both;
use crate::report::facts::{Student, short_name};
use crate::report::family::{Family, chip, families as all_families, family_of};
use crate::report::format::{escape, put};
use crate::report::svg::{Anchor, Svg, fit_text};

/// Widest column, and height of all columns, in pixels.
const COLUMN: f64 = 56.0;
const HEIGHT: f64 = 110.0;
/// Space between stages.
const GAP: f64 = 10.0;

pub(in crate::report) fn families(report: &Report) -> String {
    let mut students = report.finished();
    students.retain(|student| !student.candidates.candidates.is_empty());
    if students.is_empty() || report.pool.layers.is_empty() {
        return nothing("No selection has been evaluated yet.");
    }
    let mut out = String::from(
        "<p>Each column is a layer, in the order of the network: of all selections that were proposed and evaluated, the share in \
         which an operation of each family stands there. Where a column has one colour, there was hardly a choice.</p>\n",
    );
    let is_used = |family: &&Family| {
        students.iter().any(|student| (0..report.pool.layers.len()).any(|at| count(student, at, family) > 0))
    };
    let entries: Vec<(String, String)> =
        all_families().filter(is_used).map(|f| (chip(f), f.name.to_string())).collect();
    out.push_str(&legend(&entries));
    for student in &students {
        let number = student.candidates.candidates.len();
        let class = student.series.class;
        put!(out, "<h3 class=\"{class}\">{}: {number} selections</h3>\n", escape(&student.metrics.budget));
        out.push_str(&both(|width, class| draw(report, student, width, class)));
    }
    out
}

/// Selections in which a family stands at a layer.
fn count(student: &Student, layer: usize, family: &Family) -> usize {
    let choices = student.candidates.candidates.iter().filter_map(|c| c.choices.get(layer));
    choices.filter(|choice| family_of(choice) == family).count()
}

fn draw(report: &Report, student: &Student, width: f64, class: &str) -> String {
    let stages = report.stages();
    let layers = report.pool.layers.len() as f64;
    let wide = ((width - GAP * (stages.len() as f64 - 1.0)) / layers).min(COLUMN);
    let number = student.candidates.candidates.len();
    let mut svg = Svg::new(width, HEIGHT + 34.0, "Share of each family of operations at each layer");
    let (mut x, mut at) = (0.0, 0);
    for (stage, layers) in stages {
        let begin = x;
        for layer in &layers {
            let mut base = HEIGHT;
            for family in all_families() {
                let count = count(student, at, family);
                if count == 0 {
                    continue;
                }
                let high = HEIGHT * count as f64 / number as f64;
                base -= high;
                let title = format!("{}: {} in {count} of {number} selections", layer.layer, family.name);
                let inner = (wide - 2.0).max(1.0);
                svg.rect(&format!("tile {}", family.class), (x + 1.0, base), (inner, high), &title);
                if high >= 14.0 && inner >= 12.0 {
                    let middle = (x + wide / 2.0, base + high / 2.0 + 4.5);
                    svg.text(&format!("ink {}", family.class), Anchor::Middle, middle, family.letter);
                }
            }
            let middle = (x + wide / 2.0, HEIGHT + 13.0);
            svg.text("tick", Anchor::Middle, middle, &fit_text(short_name(layer), wide));
            (x, at) = (x + wide, at + 1);
        }
        let middle = (begin + (x - begin) / 2.0, HEIGHT + 28.0);
        svg.text("label", Anchor::Middle, middle, &fit_text(stage, x - begin));
        x += GAP;
    }
    svg.finish(class)
}
