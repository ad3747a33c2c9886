//! Score against latency: what each layer's operations offer, and which was taken.

use super::{gallery, legend, nothing};
use crate::PoolLayer;
use crate::report::Report;
use crate::report::axis::{Axis, Scale};
use crate::report::chart::{Chart, Layout};
use crate::report::facts::Student;
use crate::report::family::{families, family_of};
use crate::report::format::{escape, ms, put, three_digits};
use crate::report::svg::{Marker, symbol};

/// An operation with its cost in milliseconds and its score.
type Offer<'a> = (&'a str, f64, f64);

pub(in crate::report) fn trade(report: &Report) -> String {
    if report.scores.is_none() {
        return nothing("The operations have not been scored yet.");
    }
    if report.table.is_none() {
        return nothing("The latency of the operations has not been measured yet.");
    }
    let students = report.finished();
    let shown: Vec<Offer> = report.pool.layers.iter().flat_map(|layer| offers(report, layer)).collect();
    if shown.is_empty() {
        return nothing("No operation has both a score and a latency.");
    }
    let mut out = format!(
        "<p>Every mark is an operation in its layer: to the left is faster, below is closer to the teacher ({} in \
         nats on a square-root scale). The line joins those that no other beats in both. Layers of a stage share their axes.</p>\n",
        report.score_name()
    );
    let used = families().filter(|f| shown.iter().any(|(operation, ..)| family_of(operation) == *f));
    let mut entries: Vec<(String, String)> =
        used.map(|f| (symbol(&format!("solid {}", f.class), f.marker), f.name.to_string())).collect();
    entries.extend(students.iter().map(|s| {
        let ring = symbol(&format!("ring {}", s.series.class), s.series.marker);
        (ring, format!("chosen for {}", s.metrics.budget))
    }));
    out.push_str(&legend(&entries));
    for (stage, layers) in report.stages() {
        let all: Vec<Offer> = layers.iter().flat_map(|layer| offers(report, layer)).collect();
        let axes = (
            Axis::from_zero(all.iter().map(|o| o.1), Scale::Linear),
            Axis::from_zero(all.iter().map(|o| o.2), Scale::Root),
        );
        put!(out, "<h3>{}</h3>\n", escape(stage));
        let (Some(x), Some(y)) = axes else { continue };
        let figures =
            layers.iter().map(|layer| (caption(layer, &students), draw(report, layer, &students, x, y)));
        out.push_str(&gallery("small", figures));
    }
    out
}

/// Operations of a layer whose latency and score are both known, fastest first.
fn offers<'a>(report: &'a Report, layer: &'a PoolLayer) -> Vec<Offer<'a>> {
    let names = layer.operations.iter().map(|o| o.name.as_str());
    let mut offers: Vec<Offer> = names
        .filter_map(|o| Some((o, report.price(&layer.layer, o)?.ms, report.score(&layer.layer, o)?)))
        .collect();
    offers.sort_by(|a, b| a.1.total_cmp(&b.1).then(a.2.total_cmp(&b.2)));
    offers
}

fn caption(layer: &PoolLayer, students: &[Student]) -> String {
    let mut out = format!("<b>{}</b>", escape(&layer.layer));
    for student in students {
        if let Some(operation) = student.choice(&layer.layer) {
            put!(out, "<br/>{}: {}", escape(&student.metrics.budget), escape(operation));
        }
    }
    out
}

fn draw(report: &Report, layer: &PoolLayer, students: &[Student], x: Axis, y: Axis) -> String {
    let offers = offers(report, layer);
    if offers.is_empty() {
        return nothing("Nothing is known of this layer.");
    }
    let label = format!("Score against latency of the operations of {}", layer.layer);
    let layout = Layout { size: (190.0, 150.0), label: &label, x: (x, ""), y: (y, "") };
    let mut chart = Chart::new(&layout);
    let mut least = f64::INFINITY;
    let mut front: Vec<(f64, f64)> = Vec::new();
    for &(_, cost, score) in &offers {
        if score < least {
            // Steps: until the next better operation, nothing better can be had.
            if !front.is_empty() {
                front.push((cost, least));
            }
            front.push((cost, score));
            least = score;
        }
    }
    chart.line("front", &front, "operations that no other beats in both");
    for &(operation, cost, score) in &offers {
        let family = family_of(operation);
        let title = format!("{operation}: {}, score {}", ms(cost), three_digits(score));
        let radius = if family.marker == Marker::Star { 3.8 } else { 3.2 };
        chart.point(&format!("solid {}", family.class), family.marker, (cost, score), radius, &title);
    }
    for (index, student) in students.iter().enumerate() {
        let chosen = student.choice(&layer.layer);
        if let Some((operation, cost, score)) = offers.iter().find(|o| Some(o.0) == chosen) {
            let class = format!("ring {}", student.series.class);
            let title = format!("{operation}, chosen for {}", student.metrics.budget);
            chart.point(&class, student.series.marker, (*cost, *score), 6.5 + 2.0 * index as f64, &title);
        }
    }
    chart.finish("")
}
