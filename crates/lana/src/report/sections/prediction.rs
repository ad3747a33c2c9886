//! How well the lookup table predicts latency.

use super::{gallery, legend, nothing};
use crate::Candidate;
use crate::report::Report;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Layout};
use crate::report::facts::Student;
use crate::report::format::{escape, fixed, ms, percent, put};
use crate::report::svg::{Marker, symbol};

/// Markers of rounds, in order; later ones share the last.
const ROUNDS: [Marker; 4] = [Marker::Circle, Marker::Square, Marker::Triangle, Marker::Diamond];

pub(in crate::report) fn prediction(report: &Report) -> String {
    let students = report.finished();
    let checked = checked(report);
    if students.iter().all(|s| s.candidates.candidates.is_empty()) {
        return nothing("No candidate has been measured yet.") + &checked;
    }
    let shown: Vec<Shown> = students.iter().flat_map(shown).collect();
    if shown.is_empty() {
        return nothing(
            "Nothing could be measured: the lookup table is another device’s. Run <code>lana measure</code> there with \
             the teacher’s and the student’s files.",
        ) + &checked;
    }
    let mut out = String::from(
        "<p>The lookup table adds up what single operations cost; only measuring the assembled network tells \
         the truth. \
         Marks on the line are predicted exactly, marks above it are slower than predicted. After each round the tables \
         are corrected by all that was measured, and the program is solved again, until the best selection uses what the \
         budget allows or no better one is found.</p>\n",
    );
    let points = || shown.iter().flat_map(|s| &s.points);
    let last = points().map(|p| p.round).max().unwrap_or(0);
    let mut entries: Vec<(String, String)> = (0..=last.min(ROUNDS.len() - 1))
        .map(|round| (symbol("hollow", ROUNDS[round]), format!("round {}", round + 1)))
        .collect();
    entries.push((symbol("solid", Marker::Star), "the exported student".into()));
    out.push_str(&checked);
    out.push_str(&legend(&entries));
    out.push_str(&gallery("", shown.iter().map(|s| (words(s), draw(s).unwrap_or_default()))));
    out.push_str(&table(&shown));
    for student in &students {
        put!(
            out,
            "<p class=\"note\">{}: in the last round, measured latencies were {} times the table’s.</p>\n",
            escape(&student.metrics.budget),
            fixed(student.candidates.correction, 3)
        );
    }
    out
}

/// How well the table as it was made predicts networks that no program chose.
fn checked(report: &Report) -> String {
    let Some(check) = report.table.as_ref().and_then(|table| table.check) else { return String::new() };
    format!(
        "<p>The table as it was made, checked with {} random selections (<code>lana profile --check</code>): wrong by {} on \
         average, {} at worst; bias {}; rank correlation {} (Kendall).</p>\n",
        check.networks,
        percent(check.mean, 1),
        percent(check.worst, 1),
        percent(check.bias, 1),
        fixed(check.kendall, 2)
    )
}

/// One network that was measured.
struct Point {
    round: usize,
    rank: usize,
    /// Milliseconds.
    predicted: f64,
    measured: f64,
}

/// All that was measured for one budget on one deployment.
struct Shown<'a> {
    student: &'a Student<'a>,
    /// The budget, with the deployment where there are several.
    title: String,
    points: Vec<Point>,
    /// The exported student, predicted and measured.
    own: Option<(f64, f64)>,
    limit: Option<f64>,
}

/// What there is to show of a student, by deployment.
fn shown<'a>(student: &'a Student<'a>) -> Vec<Shown<'a>> {
    let (metrics, candidates) = (student.metrics, &student.candidates.candidates);
    let several = !metrics.others.is_empty();
    let first = (
        metrics.deployment.as_str(),
        student.candidates.limit_ms,
        metrics.measured.map(|m| (metrics.predicted, m.median_ms)),
    );
    let others = metrics.others.iter().map(|other| {
        let own = other.measured.map(|m| (other.predicted_ms, m.median_ms));
        (other.deployment.as_str(), other.limit_ms, own)
    });
    let each = std::iter::once(first).chain(others).enumerate();
    each.map(|(number, (deployment, limit, own))| Shown {
        student,
        title: match several {
            true => format!("{} on {deployment}", metrics.budget),
            false => metrics.budget.clone(),
        },
        points: candidates.iter().filter_map(|c| point(c, number)).collect(),
        own,
        limit,
    })
    .filter(|shown| !shown.points.is_empty())
    .collect()
}

fn point(candidate: &Candidate, number: usize) -> Option<Point> {
    let (_, measured, predicted) = candidate.timings().nth(number)?;
    let measured = measured?.median_ms;
    Some(Point { round: candidate.round, rank: candidate.rank, predicted, measured })
}

/// Relative error of the prediction: positive if the network is slower than predicted.
fn error(point: &Point) -> Option<f64> {
    let error = point.measured / point.predicted - 1.0;
    error.is_finite().then_some(error)
}

/// Number, mean, mean size and largest size of errors.
fn statistics<'a>(points: impl Iterator<Item = &'a Point>) -> Option<(usize, f64, f64, f64)> {
    let errors: Vec<f64> = points.filter_map(error).collect();
    let number = errors.len() as f64;
    (!errors.is_empty()).then(|| {
        let mean = errors.iter().sum::<f64>() / number;
        let size = errors.iter().map(|e| e.abs()).sum::<f64>() / number;
        (errors.len(), mean, size, errors.iter().fold(0.0, |w: f64, e| w.max(e.abs())))
    })
}

fn words(shown: &Shown) -> String {
    let mut out = format!("<b>{}</b>", escape(&shown.title));
    if let Some((_, bias, size, worst)) = statistics(shown.points.iter()) {
        put!(
            out,
            ": wrong by {} on average, {} at worst; bias {}",
            percent(size, 1),
            percent(worst, 1),
            percent(bias, 1)
        );
    }
    out
}

fn draw(shown: &Shown) -> Option<String> {
    let own = shown.own;
    let values = shown.points.iter().flat_map(|p| [p.predicted, p.measured]);
    let values = values.chain(own.into_iter().flat_map(|(a, b)| [a, b]));
    let both = Axis::fit(values.chain(shown.limit), Scale::Linear)?;
    let label = format!("Predicted against measured latency of the candidates for {}", shown.title);
    let mut chart = Chart::new(&Layout {
        size: (390.0, 330.0),
        label: &label,
        x: (both, "predicted latency in ms"),
        y: (both, "measured latency in ms"),
    });
    chart.line("diagonal", &[(both.low(), both.low()), (both.high(), both.high())], "predicted exactly");
    let class = shown.student.series.class;
    if let Some(limit) = shown.limit {
        chart.horizontal(&format!("limit {class}"), limit, &format!("budget {}", ms(limit)));
    }
    for point in &shown.points {
        let title = format!(
            "candidate {} of round {}: predicted {}, measured {}",
            point.rank + 1,
            point.round + 1,
            ms(point.predicted),
            ms(point.measured)
        );
        let marker = ROUNDS[point.round.min(ROUNDS.len() - 1)];
        chart.point(&format!("hollow {class}"), marker, (point.predicted, point.measured), 4.5, &title);
    }
    if let Some(own) = own {
        let title = format!("the exported student: predicted {}, measured {}", ms(own.0), ms(own.1));
        chart.point(&format!("solid {class}"), Marker::Star, own, 6.0, &title);
    }
    Some(chart.finish(""))
}

fn table(all: &[Shown]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">budget</th><th scope=\"col\">round</th><th \
         scope=\"col\">number</th>\
         <th scope=\"col\">bias</th><th scope=\"col\">error</th><th scope=\"col\">worst</th></tr></thead>\n<tbody>\n",
    );
    for shown in all {
        let mut row = |round: String, points: &mut dyn Iterator<Item = &Point>| {
            let Some((number, mean, size, worst)) = statistics(points) else { return };
            put!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{round}</td><td>{number}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape(&shown.title),
                percent(mean, 1),
                percent(size, 1),
                percent(worst, 1)
            );
        };
        let last = shown.points.iter().map(|p| p.round).max().unwrap_or(0);
        for round in 0..=last {
            row((round + 1).to_string(), &mut shown.points.iter().filter(|p| p.round == round));
        }
        if last > 0 {
            row("all".into(), &mut shown.points.iter());
        }
    }
    out.push_str(
        "</tbody>\n</table></div>\n<p class=\"note\">By round: number of candidates; bias, the mean by which \
         measured exceeded \
         predicted (with what the machine was faster or slower than when the table was made); the mean size of the error, \
         and its worst.</p>\n",
    );
    out
}
