//! A drawing with two axes in which things are placed by their values.

use super::axis::Axis;
use super::svg::{Anchor, Marker, Svg};

/// Width of a letter in labels, in pixels: an upper estimate for the usual sans-serif fonts at 12 pixels.
const LETTER: f64 = 7.2;

/// What a chart looks like before anything is drawn into it.
#[derive(Clone, Debug)]
pub(super) struct Layout<'a> {
    /// Size in pixels.
    pub(super) size: (f64, f64),
    /// What it shows, for those who do not see it.
    pub(super) label: &'a str,
    /// Horizontal axis and its name.
    pub(super) x: (Axis, &'a str),
    /// Vertical axis and its name, which stands above it.
    pub(super) y: (Axis, &'a str),
}

/// A chart being drawn.
#[derive(Debug)]
pub(super) struct Chart {
    svg: Svg,
    x: Axis,
    y: Axis,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
    taken: Vec<[f64; 4]>,
}

impl Chart {
    /// Axes, ticks and grid.
    pub(super) fn new(layout: &Layout) -> Self {
        let (width, height) = layout.size;
        let mut svg = Svg::new(width, height, layout.label);
        let (x, y) = (layout.x.0, layout.y.0);
        let y_ticks = y.ticks((height / 45.0) as usize);
        let widest = y_ticks.iter().map(|t| t.1.chars().count()).max().unwrap_or(1) as f64;
        let named = !layout.x.1.is_empty();
        let (left, right) = (widest * LETTER + 8.0, width - 10.0);
        let top = if layout.y.1.is_empty() { 8.0 } else { 26.0 };
        let bottom = height - if named { 40.0 } else { 20.0 };
        svg.text("axis-name", Anchor::Start, (0.0, 13.0), layout.y.1);
        svg.text("axis-name", Anchor::End, (right, height - 6.0), layout.x.1);
        for (value, label) in y_ticks {
            let at = bottom - y.place(value) * (bottom - top);
            svg.line("grid", (left, at), (right, at));
            svg.text("tick", Anchor::End, (left - 5.0, at + 4.0), &label);
        }
        for (value, label) in x.ticks((width / 70.0) as usize) {
            let at = left + x.place(value) * (right - left);
            svg.line("grid", (at, top), (at, bottom));
            let half = 0.5 * LETTER * label.chars().count() as f64;
            svg.text("tick", Anchor::Middle, (at.min(width - half), bottom + 16.0), &label);
        }
        svg.line("axis", (left, bottom), (right, bottom));
        Chart { svg, x, y, left, right, top, bottom, taken: Vec::new() }
    }

    /// Where values lie in the drawing.
    pub(super) fn at(&self, x: f64, y: f64) -> (f64, f64) {
        (
            self.left + self.x.place(x) * (self.right - self.left),
            self.bottom - self.y.place(y) * (self.bottom - self.top),
        )
    }

    /// A point.
    pub(super) fn point(&mut self, class: &str, marker: Marker, value: (f64, f64), radius: f64, title: &str) {
        let at = self.at(value.0, value.1);
        self.svg.marker(class, marker, at, radius, title);
    }

    /// Keeps labels off a point.
    pub(super) fn reserve(&mut self, value: (f64, f64), radius: f64) {
        let (x, y) = self.at(value.0, value.1);
        self.taken.push([x - radius, y - radius, x + radius, y + radius]);
    }

    /// A line through points.
    pub(super) fn line(&mut self, class: &str, values: &[(f64, f64)], title: &str) {
        let points: Vec<_> = values.iter().map(|v| self.at(v.0, v.1)).collect();
        self.svg.path(class, &points, title);
    }

    /// An arrow between two points that ends so many pixels before the second.
    pub(super) fn arrow(&mut self, class: &str, from: (f64, f64), to: (f64, f64), before: f64) {
        let (from, to) = (self.at(from.0, from.1), self.at(to.0, to.1));
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        let length = dx.hypot(dy);
        if !length.is_finite() || length < 3.0 * before {
            return;
        }
        let (ux, uy) = (dx / length, dy / length);
        let start = (from.0 + ux * before, from.1 + uy * before);
        let tip = (to.0 - ux * before, to.1 - uy * before);
        let barb = |side: f64| (tip.0 - 7.0 * ux - side * 4.0 * uy, tip.1 - 7.0 * uy + side * 4.0 * ux);
        self.svg.path(&format!("{class} arrow"), &[start, tip], "fine-tuning");
        self.svg.path(class, &[barb(1.0), tip, barb(-1.0)], "fine-tuning");
    }

    /// A vertical line over the whole height.
    pub(super) fn vertical(&mut self, class: &str, x: f64) {
        let at = self.at(x, self.y.low()).0;
        self.svg.line(class, (at, self.top), (at, self.bottom));
    }

    /// The name of a vertical line, beside its top.
    pub(super) fn name_vertical(&mut self, x: f64, name: &str) {
        let at = self.at(x, self.y.low()).0;
        let wide = LETTER * name.chars().count() as f64;
        let (anchor, from) = match at + 4.0 + wide > self.right {
            true => (Anchor::End, at - 4.0 - wide),
            false => (Anchor::Start, at + 4.0),
        };
        // Names of lines close to each other, and points at the top, push the name down.
        let mut y = self.top + 11.0;
        while y < self.bottom - 20.0 && self.is_taken([from, y - 11.0, from + wide, y + 3.0]) {
            y += 15.0;
        }
        self.taken.push([from, y - 11.0, from + wide, y + 3.0]);
        self.svg.text("label", anchor, (if anchor == Anchor::End { at - 4.0 } else { at + 4.0 }, y), name);
    }

    /// A horizontal line over the whole width with its name above its right end.
    pub(super) fn horizontal(&mut self, class: &str, y: f64, name: &str) {
        let at = self.at(self.x.low(), y).1;
        self.svg.line(class, (self.left, at), (self.right, at));
        let below = at < self.top + 14.0;
        self.svg.text(
            "label",
            Anchor::End,
            (self.right - 2.0, if below { at + 14.0 } else { at - 4.0 }),
            name,
        );
    }

    /// A label near a point, where there is room.
    pub(super) fn label(&mut self, value: (f64, f64), radius: f64, text: &str) {
        let (x, y) = self.at(value.0, value.1);
        let (wide, away) = (LETTER * text.chars().count() as f64, radius + 4.0);
        let places = [
            (x + away, y + 4.0),
            (x - away - wide, y + 4.0),
            (x - wide / 2.0, y - away - 2.0),
            (x - wide / 2.0, y + away + 11.0),
            (x + away, y - away - 2.0),
            (x + away, y + away + 10.0),
            (x - away - wide, y - away - 2.0),
            (x - away - wide, y + away + 10.0),
        ];
        let free = |&(px, py): &(f64, f64)| {
            let inside =
                px >= self.left && px + wide <= self.svg.width() && py > self.top && py < self.bottom;
            inside && !self.is_taken([px, py - 11.0, px + wide, py + 3.0])
        };
        let inside = |&(px, _): &(f64, f64)| px >= 0.0 && px + wide <= self.svg.width();
        let place = places.iter().find(|p| free(p)).or_else(|| places.iter().find(|p| inside(p)));
        let (px, py) = *place.unwrap_or(&places[2]);
        self.taken.push([px, py - 11.0, px + wide, py + 3.0]);
        self.svg.text("label", Anchor::Start, (px, py), text);
    }

    /// The chart as an element.
    pub(super) fn finish(self, class: &str) -> String {
        self.svg.finish(class)
    }

    fn is_taken(&self, [left, top, right, bottom]: [f64; 4]) -> bool {
        self.taken.iter().any(|t| left < t[2] && right > t[0] && top < t[3] && bottom > t[1])
    }
}

/// A drawing made twice, for screens and paper and for phones, of which the style shows one.
pub(super) fn both(draw: impl Fn(f64, &str) -> String) -> String {
    draw(820.0, "wide") + &draw(360.0, "slim")
}
