//! A drawing that grows shape by shape. Colours come from classes that `style.css` defines, so that one drawing serves
//! light screens, dark screens and paper.

use super::format::{escape, put};

/// Shape of a point. Families and budgets differ in shape as well as in colour.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Marker {
    /// ●
    Circle,
    /// ■
    Square,
    /// ◆
    Diamond,
    /// ▲
    Triangle,
    /// ✕
    Cross,
    /// ✚
    Plus,
    /// ★
    Star,
    /// ⬟
    Pentagon,
}

impl Marker {
    /// Its outline around the origin, with about the area of a circle of radius 1.
    fn outline(self) -> Vec<(f64, f64)> {
        let turn = |corners: usize, radius: f64| -> Vec<(f64, f64)> {
            let angle = |i| std::f64::consts::TAU * (i as f64 / corners as f64 - 0.25);
            (0..corners).map(|i| (radius * angle(i).cos(), radius * angle(i).sin())).collect()
        };
        let plus = |a: f64, b: f64| {
            let (a, b) = (a, b);
            [
                (-b, -a),
                (b, -a),
                (b, -b),
                (a, -b),
                (a, b),
                (b, b),
                (b, a),
                (-b, a),
                (-b, b),
                (-a, b),
                (-a, -b),
                (-b, -b),
            ]
        };
        match self {
            Marker::Circle => turn(20, 1.0),
            Marker::Square => vec![(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)],
            Marker::Diamond => turn(4, 1.3),
            Marker::Triangle => turn(3, 1.4),
            Marker::Pentagon => turn(5, 1.15),
            Marker::Plus => plus(1.25, 0.38).to_vec(),
            Marker::Cross => {
                let r = std::f64::consts::FRAC_1_SQRT_2;
                plus(1.25, 0.34).map(|(x, y)| (r * (x - y), r * (x + y))).to_vec()
            }
            Marker::Star => {
                let (outer, inner) = (turn(5, 1.5), turn(10, 0.62));
                (0..5).flat_map(|i| [outer[i], inner[2 * i + 1]]).collect()
            }
        }
    }
}

/// Where text is tied to its place.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Anchor {
    /// It begins there.
    Start,
    /// Its middle is there.
    Middle,
    /// It ends there.
    End,
}

/// A drawing in its own units, which are CSS pixels where the page has room.
#[derive(Debug)]
pub(super) struct Svg {
    width: f64,
    height: f64,
    label: String,
    body: String,
}

impl Svg {
    /// An empty drawing; `label` says what it shows to those who do not see it.
    pub(super) fn new(width: f64, height: f64, label: &str) -> Self {
        Svg { width, height, label: label.into(), body: String::new() }
    }

    /// Its width.
    pub(super) fn width(&self) -> f64 {
        self.width
    }

    /// A straight line.
    pub(super) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        if !all_finite(&[from, to]) {
            return;
        }
        let ((x1, y1), (x2, y2)) = (from, to);
        put!(
            self.body,
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        );
    }

    /// A rectangle, with a text that shows when it is pointed at.
    pub(super) fn rect(&mut self, class: &str, corner: (f64, f64), size: (f64, f64), title: &str) {
        if !all_finite(&[corner, size]) {
            return;
        }
        let (width, height) = (size.0.max(0.0), size.1.max(0.0));
        put!(
            self.body,
            "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"",
            corner.0,
            corner.1
        );
        match title.is_empty() {
            true => self.body.push_str("/>"),
            false => put!(self.body, "><title>{}</title></rect>", escape(title)),
        }
    }

    /// A line through points; those that are not finite are left out.
    pub(super) fn path(&mut self, class: &str, points: &[(f64, f64)], title: &str) {
        let mut steps = String::new();
        for (x, y) in points.iter().filter(|p| all_finite(&[**p])) {
            let step = if steps.is_empty() { "M" } else { "L" };
            put!(steps, "{step}{x:.1} {y:.1}");
        }
        if !steps.is_empty() {
            put!(
                self.body,
                "<path class=\"line {class}\" d=\"{steps}\"><title>{}</title></path>",
                escape(title)
            );
        }
    }

    /// A point.
    pub(super) fn marker(&mut self, class: &str, marker: Marker, at: (f64, f64), radius: f64, title: &str) {
        if !all_finite(&[at]) {
            return;
        }
        let (x, y) = at;
        if marker == Marker::Circle {
            put!(self.body, "<circle class=\"{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius:.1}\">");
            put!(self.body, "<title>{}</title></circle>", escape(title));
            return;
        }
        put!(self.body, "<polygon class=\"{class}\" points=\"");
        for (dx, dy) in marker.outline() {
            put!(self.body, "{:.1},{:.1} ", x + radius * dx, y + radius * dy);
        }
        put!(self.body, "\"><title>{}</title></polygon>", escape(title));
    }

    /// Text on the baseline at `at`.
    pub(super) fn text(&mut self, class: &str, anchor: Anchor, at: (f64, f64), text: &str) {
        if !all_finite(&[at]) {
            return;
        }
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        put!(
            self.body,
            "<text class=\"{class}\" text-anchor=\"{anchor}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            at.0,
            at.1,
            escape(text)
        );
    }

    /// The drawing as an element; it shrinks with the page but does not grow beyond its own size.
    pub(super) fn finish(self, class: &str) -> String {
        let Svg { width, height, label, body } = self;
        let label = escape(&label);
        format!(
            "<svg class=\"{class}\" viewBox=\"0 0 {width:.0} {height:.0}\" style=\"max-width:{width:.0}px\" role=\"img\" \
             aria-label=\"{label}\">{body}</svg>\n"
        )
    }
}

/// One marker with its class, for legends in running text.
pub(super) fn symbol(class: &str, marker: Marker) -> String {
    let mut svg = Svg::new(16.0, 16.0, "");
    svg.marker(class, marker, (8.0, 8.0), 5.0, "");
    svg.finish("symbol")
        .replace(" role=\"img\" aria-label=\"\"", " aria-hidden=\"true\"")
        .replace("<title></title>", "")
}

/// A dashed upright line, for legends.
pub(super) fn dashed_symbol() -> String {
    "<svg class=\"symbol\" viewBox=\"0 0 16 16\" aria-hidden=\"true\"><line class=\"limit\" x1=\"8\" y1=\"0\" x2=\"8\" \
     y2=\"16\"/></svg>"
        .into()
}

/// As much of the end of a name as fits: layers of a stage differ at the end.
pub(super) fn fit_text(text: &str, width: f64) -> String {
    let (length, room) = (text.chars().count(), ((width / 6.7).floor() as usize).max(1));
    match length > room {
        true => text.chars().skip(length - room).collect(),
        false => text.into(),
    }
}

fn all_finite(points: &[(f64, f64)]) -> bool {
    points.iter().all(|(x, y)| x.is_finite() && y.is_finite())
}
