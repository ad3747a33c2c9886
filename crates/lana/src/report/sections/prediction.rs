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
    if students.iter().all(|s| s.candidates.candidates.is_empty()) {
        return nothing("No candidate has been measured yet.");
    }
    let mut out = String::from(
        "<p>The lookup table adds up what single operations cost; only measuring the assembled network tells \
         the truth. \
         Marks on the line are predicted exactly, marks above it are slower than predicted. After each round the table \
         is corrected by what was measured, and the program is solved again if nothing met the budget.</p>\n",
    );
    let measured: Vec<&Student> = students.iter().filter(|s| !s.candidates.candidates.is_empty()).collect();
    let last = measured.iter().flat_map(|s| &s.candidates.candidates).map(|c| c.round).max().unwrap_or(0);
    let mut entries: Vec<(String, String)> = (0..=last.min(ROUNDS.len() - 1))
        .map(|round| (symbol("hollow", ROUNDS[round]), format!("round {}", round + 1)))
        .collect();
    entries.push((symbol("solid", Marker::Star), "the exported student".into()));
    out.push_str(&legend(&entries));
    out.push_str(&gallery("", measured.iter().map(|s| (words(s), draw(s).unwrap_or_default()))));
    out.push_str(&table(&measured));
    out
}

/// Relative error of the prediction: positive if the network is slower than predicted.
fn error(candidate: &Candidate) -> Option<f64> {
    let error = candidate.measured.median_ms / candidate.predicted_ms - 1.0;
    error.is_finite().then_some(error)
}

/// Number, mean, mean size and largest size of errors.
fn statistics<'a>(candidates: impl Iterator<Item = &'a Candidate>) -> Option<(usize, f64, f64, f64)> {
    let errors: Vec<f64> = candidates.filter_map(error).collect();
    let number = errors.len() as f64;
    (!errors.is_empty()).then(|| {
        let mean = errors.iter().sum::<f64>() / number;
        let size = errors.iter().map(|e| e.abs()).sum::<f64>() / number;
        (errors.len(), mean, size, errors.iter().fold(0.0, |w: f64, e| w.max(e.abs())))
    })
}

fn words(student: &Student) -> String {
    let mut out = format!("<b>{}</b>", escape(&student.metrics.budget));
    if let Some((_, _, size, worst)) = statistics(student.candidates.candidates.iter()) {
        put!(out, ": wrong by {} on average, {} at worst", percent(size, 1), percent(worst, 1));
    }
    out
}

fn draw(student: &Student) -> Option<String> {
    let candidates = &student.candidates.candidates;
    let own = (student.metrics.predicted, student.metrics.measured.median_ms);
    let values = candidates.iter().flat_map(|c| [c.predicted_ms, c.measured.median_ms]).chain([own.0, own.1]);
    let both = Axis::fit(values.chain(student.candidates.limit_ms), Scale::Linear)?;
    let label =
        format!("Predicted against measured latency of the candidates for {}", student.metrics.budget);
    let mut chart = Chart::new(&Layout {
        size: (390.0, 330.0),
        label: &label,
        x: (both, "predicted latency in ms"),
        y: (both, "measured latency in ms"),
    });
    chart.line("diagonal", &[(both.low(), both.low()), (both.high(), both.high())], "predicted exactly");
    let class = student.series.class;
    if let Some(limit) = student.candidates.limit_ms {
        chart.horizontal(&format!("limit {class}"), limit, &format!("budget {}", ms(limit)));
    }
    for candidate in candidates {
        let title = format!(
            "candidate {} of round {}: predicted {}, measured {}",
            candidate.rank + 1,
            candidate.round + 1,
            ms(candidate.predicted_ms),
            ms(candidate.measured.median_ms)
        );
        let marker = ROUNDS[candidate.round.min(ROUNDS.len() - 1)];
        let at = (candidate.predicted_ms, candidate.measured.median_ms);
        chart.point(&format!("hollow {class}"), marker, at, 4.5, &title);
    }
    let title = format!("the exported student: predicted {}, measured {}", ms(own.0), ms(own.1));
    chart.point(&format!("solid {class}"), Marker::Star, own, 6.0, &title);
    Some(chart.finish(""))
}

fn table(students: &[&Student]) -> String {
    let mut out = String::from(
        "<div class=\"scroll\"><table>\n<thead><tr><th scope=\"col\">budget</th><th scope=\"col\">round</th><th \
         scope=\"col\">number</th>\
         <th scope=\"col\">bias</th><th scope=\"col\">error</th><th scope=\"col\">worst</th></tr></thead>\n<tbody>\n",
    );
    for student in students {
        let candidates = &student.candidates.candidates;
        let last = candidates.iter().map(|c| c.round).max().unwrap_or(0);
        for round in 0..=last {
            let Some((number, mean, size, worst)) =
                statistics(candidates.iter().filter(|c| c.round == round))
            else {
                continue;
            };
            put!(
                out,
                "<tr><th scope=\"row\">{}</th><td>{}</td><td>{number}</td><td>{}</td><td>{}</td><td>{}</td></tr>\n",
                escape(&student.metrics.budget),
                round + 1,
                percent(mean, 1),
                percent(size, 1),
                percent(worst, 1)
            );
        }
    }
    out.push_str(
        "</tbody>\n</table></div>\n<p class=\"note\">By round: number of candidates; bias, the mean by which \
         measured exceeded \
         predicted; the mean size of the error, and its worst.</p>\n",
    );
    for student in students {
        put!(
            out,
            "<p class=\"note\">{}: in the last round, measured latencies were {} times the table’s.</p>\n",
            escape(&student.metrics.budget),
            fixed(student.candidates.correction, 3)
        );
    }
    out
}
