//! The strip: one cell per layer with the operation that stands there, and a bar as high as the layer's latency.

use super::{legend, nothing};
use crate::PoolLayer;
use crate::report::Report;
use crate::report::chart::both;
use crate::report::facts::{Student, short_name};
use crate::report::family::{chip, detail, families, family_of};
use crate::report::format::{NONE, decimals, escape, fixed, ms, put};
use crate::report::svg::{Anchor, Svg, fit_text};

/// Narrowest and widest cell, in pixels.
const CELL: (f64, f64) = (26.0, 56.0);
/// Height of the highest bar, of a cell, and of a whole row of the strip.
const BAR: f64 = 56.0;
const TILE: f64 = 30.0;
const ROW: f64 = 14.0 + BAR + 16.0 + BAR + 3.0 + TILE + 34.0;

pub(in crate::report) fn strip(report: &Report) -> String {
    let students = report.finished();
    if report.pool.layers.is_empty() {
        return nothing("The pool has no layers yet.");
    }
    if students.is_empty() {
        return nothing("No selection has been made yet.");
    }
    let mut out = String::from(
        "<p>Each column is a layer, in the order of the network. Grey bars above: the latency of the teacher’s \
         layer. \
         Coloured bars below: that of the operation in its place, with the teacher’s outlined behind it, to the same \
         scale. Letter and colour give the operation’s family.</p>\n",
    );
    let used = families().filter(|family| {
        students
            .iter()
            .any(|s| s.metrics.choices.iter().any(|(_, operation)| family_of(operation) == *family))
    });
    let entries: Vec<(String, String)> =
        used.map(|f| (chip(f), format!("{}: {}", f.name, f.summary))).collect();
    out.push_str(&legend(&entries));
    for student in &students {
        put!(out, "<h3 class=\"{}\">{}</h3>\n", student.series.class, escape(&student.metrics.budget));
        out.push_str(&summary(report, student));
        out.push_str(&both(|width, class| draw(report, student, width, class)));
        out.push_str(&table(report, student));
    }
    out
}

/// How many layers changed, in words.
fn summary(report: &Report, student: &Student) -> String {
    let chosen: Vec<&str> = report.pool.layers.iter().filter_map(|l| student.choice(&l.layer)).collect();
    let of = |name: &str| chosen.iter().filter(|c| **c == name).count();
    let (kept, skipped) = (of("teacher"), of("identity"));
    let replaced = chosen.len() - kept - skipped;
    format!(
        "<p>Of {} layers, {kept} kept the teacher’s block, {skipped} are skipped, {replaced} have another \
         operation.</p>\n",
        chosen.len()
    )
}

/// Stages in rows: whole ones side by side as far as they fit; one wider than the page is broken.
fn rows(report: &Report, width: f64) -> Vec<Vec<(&str, Vec<&PoolLayer>)>> {
    let room = (width / CELL.0).floor() as usize;
    let mut rows: Vec<Vec<(&str, Vec<&PoolLayer>)>> = Vec::new();
    let mut left = 0;
    for (stage, layers) in report.stages() {
        // Parts of about the same length rather than full rows and a rest.
        let parts = layers.len().div_ceil(room).max(1);
        for part in layers.chunks(layers.len().div_ceil(parts).max(1)) {
            if rows.is_empty() || part.len() + 1 > left {
                rows.push(Vec::new());
                left = room + 1;
            }
            left -= part.len() + 1;
            if let Some(row) = rows.last_mut() {
                row.push((stage, part.to_vec()));
            }
        }
    }
    rows
}

fn draw(report: &Report, student: &Student, width: f64, class: &str) -> String {
    let rows = rows(report, width);
    let gap = 10.0;
    let cells =
        |row: &[(&str, Vec<&PoolLayer>)]| row.iter().map(|(_, layers)| layers.len()).sum::<usize>() as f64;
    let fit =
        rows.iter().map(|row| (width - gap * (row.len() as f64 - 1.0)) / cells(row)).fold(CELL.1, f64::min);
    let cost = |layer: &str, operation: Option<&str>| report.price(layer, operation?).map(|p| p.ms.max(0.0));
    let all = report.pool.layers.iter();
    let highest = all
        .flat_map(|l| [cost(&l.layer, Some("teacher")), cost(&l.layer, student.choice(&l.layer))])
        .flatten()
        .fold(0.0, f64::max);
    let scale = if highest > 0.0 { BAR / highest } else { 0.0 };
    let mut svg = Svg::new(
        width,
        rows.len() as f64 * ROW,
        "Operation and latency of each layer, teacher above, student below",
    );
    for (index, row) in rows.iter().enumerate() {
        let top = index as f64 * ROW;
        let (teacher_base, student_base) = (top + 14.0 + BAR, top + 14.0 + BAR + 16.0 + BAR);
        svg.text("tick", Anchor::Start, (1.5, top + 10.0), "teacher");
        svg.text("tick", Anchor::Start, (1.5, teacher_base + 12.0), "student");
        let mut x = 0.0;
        for (stage, layers) in row {
            let stage_wide = fit * layers.len() as f64;
            for layer in layers {
                let name = &layer.layer;
                let operation = student.choice(name);
                let (before, after) = (cost(name, Some("teacher")), cost(name, operation));
                let family = family_of(operation.unwrap_or_default());
                let title = format!(
                    "{name}: {}, {} → {}",
                    operation.unwrap_or(NONE),
                    before.map_or(NONE.into(), ms),
                    after.map_or(NONE.into(), ms)
                );
                let (inner, wide) = (x + 1.5, fit - 3.0);
                if let Some(before) = before {
                    let high = before * scale;
                    svg.rect("solid f-teacher", (inner, teacher_base - high), (wide, high), &title);
                    svg.rect("ghost", (inner + 0.5, student_base - high), (wide - 1.0, high), &title);
                }
                if let Some(after) = after {
                    let high = after * scale;
                    svg.rect(
                        &format!("solid {}", family.class),
                        (inner, student_base - high),
                        (wide, high),
                        &title,
                    );
                }
                let tile = student_base + 3.0;
                svg.rect(&format!("tile {}", family.class), (inner, tile), (wide, TILE), &title);
                let ink = format!("ink {}", family.class);
                let middle = x + fit / 2.0;
                let detail = operation.map(detail).unwrap_or_default();
                match detail.is_empty() {
                    true => svg.text(&ink, Anchor::Middle, (middle, tile + 19.5), family.letter),
                    false => {
                        svg.text(&ink, Anchor::Middle, (middle, tile + 13.5), family.letter);
                        svg.text(&format!("{ink} fine"), Anchor::Middle, (middle, tile + 25.5), &detail);
                    }
                }
                svg.text(
                    "tick",
                    Anchor::Middle,
                    (middle, tile + TILE + 13.0),
                    &fit_text(short_name(layer), fit),
                );
                x += fit;
            }
            svg.line("axis", (x - stage_wide + 1.5, teacher_base), (x - 1.5, teacher_base));
            svg.line("axis", (x - stage_wide + 1.5, student_base), (x - 1.5, student_base));
            let stage_name = fit_text(stage, stage_wide);
            svg.text(
                "label",
                Anchor::Middle,
                (x - stage_wide / 2.0, student_base + 3.0 + TILE + 28.0),
                &stage_name,
            );
            x += gap;
        }
    }
    svg.finish(class)
}

fn table(report: &Report, student: &Student) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table class=\"layers\">\n<thead><tr><th scope=\"col\">layer</th><th \
         scope=\"col\">operation</th>\
         <th scope=\"col\">ms<small>teacher → student</small></th><th \
         scope=\"col\">score<small>nats</small></th></tr></thead>\n<tbody>\n",
    );
    let named = report.pool.layers.iter().map(|l| (&l.layer, student.choice(&l.layer)));
    let digits = decimals(named.flat_map(|(layer, operation)| {
        ["teacher", operation.unwrap_or_default()].map(|o| report.price(layer, o).map_or(0.0, |p| p.ms))
    }));
    let (mut noisy, mut before_sum, mut after_sum) = (false, 0.0, 0.0);
    for layer in &report.pool.layers {
        let operation = student.choice(&layer.layer);
        let mut cell = |price: Option<crate::report::Price>, sum: &mut f64| {
            price.map_or(NONE.into(), |p| {
                *sum += p.ms;
                noisy |= p.noisy;
                format!("{}{}", fixed(p.ms, digits), if p.noisy { "*" } else { "" })
            })
        };
        let before = cell(report.price(&layer.layer, "teacher"), &mut before_sum);
        let after = cell(operation.and_then(|o| report.price(&layer.layer, o)), &mut after_sum);
        let score =
            operation.and_then(|o| report.score(&layer.layer, o)).map_or(NONE.into(), |s| fixed(s, 3));
        let family = family_of(operation.unwrap_or_default());
        put!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{} {}</td><td>{before} → {after}</td><td>{score}</td></tr>\n",
            escape(&layer.layer),
            chip(family),
            escape(operation.unwrap_or(NONE))
        );
    }
    put!(
        out,
        "<tr class=\"total\"><th scope=\"row\">sum</th><td></td><td>{} → \
         {}</td><td></td></tr>\n</tbody>\n</table></div>\n",
        fixed(before_sum, digits),
        fixed(after_sum, digits)
    );
    put!(
        out,
        "<p class=\"note\">Latencies are the lookup table’s. The score is the {} that the operation causes \
         alone, in an otherwise unchanged teacher.",
        report.score_name()
    );

    out.push_str(if noisy { " * The measurement scattered.</p>\n" } else { "</p>\n" });
    out
}
