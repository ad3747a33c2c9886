//! Where the teacher's time goes: one bar for each layer.

use super::nothing;
use crate::report::Report;
use crate::report::chart::both;
use crate::report::format::{escape, fixed, ms, percent, put};
use crate::report::svg::{Anchor, Svg};

pub(in crate::report) fn profile(report: &Report) -> String {
    let Some(table) = &report.table else {
        return nothing("The latency of the layers has not been measured yet.");
    };
    let mut bars: Vec<Bar> = Vec::new();
    let macs = report.teacher.cost.macs as f64;
    for layer in &report.pool.layers {
        let Some(price) = report.price(&layer.layer, "teacher") else { continue };
        let own = layer.operations.iter().find(|o| o.name == "teacher").map(|o| o.cost.macs as f64 / macs);
        bars.push(Bar {
            name: layer.layer.clone(),
            class: "f-teacher",
            ms: price.ms,
            macs: own.filter(|m| m.is_finite()),
            noisy: price.noisy,
        });
    }
    if table.fixed_ms.is_finite() {
        bars.push(Bar {
            name: "outside of layers".into(),
            class: "f-other",
            ms: table.fixed_ms,
            macs: None,
            noisy: false,
        });
    }
    let total: f64 = bars.iter().map(|b| b.ms).sum();
    if bars.is_empty() || total <= 0.0 {
        return nothing("The lookup table says nothing of the teacher’s layers.");
    }
    let mut out = format!(
        "<p>Cost of the teacher’s own layers by the lookup table of {}. They add up to {}; the whole teacher measured {}. \
         {} lie outside of all layers (stem, head, overhead) and cannot be won. Ticks mark the layer’s share of \
         multiply-accumulates: where the bar is longer, the layer is dearer than its arithmetic.</p>\n",
        escape(&table.device),
        ms(total),
        ms(table.teacher_ms),
        percent(table.fixed_ms / total, 1)
    );
    out.push_str(&both(|width, class| draw(&bars, total, width, class)));
    if bars.iter().any(|b| b.noisy) {
        out.push_str("<p class=\"note\">* The measurement scattered: little more than noise.</p>\n");
    }
    out
}

/// The time of one layer of the teacher, or of what stands in none.
struct Bar {
    name: String,
    class: &'static str,
    ms: f64,
    /// Share of the multiply-accumulates.
    macs: Option<f64>,
    noisy: bool,
}

fn draw(bars: &[Bar], total: f64, width: f64, class: &str) -> String {
    const ROW: f64 = 21.0;
    let longest = bars.iter().map(|b| b.name.chars().count()).max().unwrap_or(0) as f64;
    let left = (longest * 7.0 + 8.0).min(width * 0.4);
    let right = width - 108.0;
    let most = bars.iter().map(|b| (b.ms / total).max(b.macs.unwrap_or(0.0))).fold(0.0, f64::max);
    let mut svg = Svg::new(width, bars.len() as f64 * ROW + 4.0, "Latency of each layer of the teacher");
    for (index, Bar { name, class: bar, ms: cost, macs, noisy }) in bars.iter().enumerate() {
        let top = index as f64 * ROW + 2.0;
        let room = (left / 7.0) as usize;
        let skip = name.chars().count().saturating_sub(room.max(4));
        svg.text("tick", Anchor::End, (left - 6.0, top + 14.0), &name.chars().skip(skip).collect::<String>());
        let place = |share: f64| (right - left) * share / most;
        let title = format!("{name}: {}, {}", ms(*cost), percent(cost / total, 1));
        svg.rect(
            &format!("solid {bar}"),
            (left, top + 3.0),
            (place(cost / total).max(0.0), ROW - 6.0),
            &title,
        );
        if let Some(share) = macs {
            let at = left + place(*share);
            svg.line("macs", (at, top + 1.5), (at, top + ROW - 1.5));
        }
        let mut value = String::new();
        let star = if *noisy { "*" } else { "" };
        put!(value, "{}{star}  {} %", ms(*cost), fixed(100.0 * cost / total, 1));
        svg.text("tick", Anchor::End, (width, top + 14.0), &value);
    }
    svg.finish(class)
}
