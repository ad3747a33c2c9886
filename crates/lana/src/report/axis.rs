//! Axes: from values to places, and the ticks a reader expects.

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Scale {
    /// Evenly.
    Linear,
    /// By the square root of the absolute value, with its sign: shows small values beside large ones, and zero.
    Root,
    /// By the logarithm; values must be positive.
    Log,
}

impl Scale {
    fn forward(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Root => value.signum() * value.abs().sqrt(),
            Scale::Log => value.max(f64::MIN_POSITIVE).ln(),
        }
    }

    fn backward(self, value: f64) -> f64 {
        match self {
            Scale::Linear => value,
            Scale::Root => value.signum() * value * value,
            Scale::Log => value.exp(),
        }
    }
}

/// An axis from a lowest to a highest value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
}

impl Axis {
    /// An axis on which all finite values have room; none if there is none. On [`Scale::Log`] only positive ones count.
    pub(super) fn fit(values: impl IntoIterator<Item = f64>, scale: Scale) -> Option<Self> {
        let usable = values.into_iter().filter(|v| v.is_finite() && (scale != Scale::Log || *v > 0.0));
        let (low, high) = usable.fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return None;
        }
        let (mut from, mut to) = (scale.forward(low), scale.forward(high));
        // A single value gets a tenth of itself on both sides.
        let span = match to - from {
            span if span > 1e-9 * to.abs() => span,
            _ => (0.2 * to.abs()).max(1e-6),
        };
        from -= 0.06 * span;
        to += 0.06 * span;
        if scale == Scale::Linear && low >= 0.0 && from < 0.0 {
            from = 0.0;
        }
        Some(Axis { scale, low: scale.backward(from), high: scale.backward(to) })
    }

    /// As [`Axis::fit`], with room for zero.
    pub(super) fn from_zero(values: impl IntoIterator<Item = f64>, scale: Scale) -> Option<Self> {
        let fitted = Axis::fit(values.into_iter().chain([0.0]), scale)?;
        Some(Axis { low: if fitted.low > -1e-12 { 0.0 } else { fitted.low }, ..fitted })
    }

    /// Where a value lies: 0 at the lower end, 1 at the upper.
    pub(super) fn place(&self, value: f64) -> f64 {
        let (from, to) = (self.scale.forward(self.low), self.scale.forward(self.high));
        (self.scale.forward(value) - from) / (to - from)
    }

    /// The lowest value.
    pub(super) fn low(&self) -> f64 {
        self.low
    }

    /// The highest value.
    pub(super) fn high(&self) -> f64 {
        self.high
    }

    /// About `wanted` round values with their labels, in ascending order.
    pub(super) fn ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let wanted = wanted.max(2);
        let mut ticks = match self.scale {
            Scale::Linear => self.even_ticks(wanted),
            Scale::Root | Scale::Log => self.uneven_ticks(wanted),
        };
        // Less than a decade on a logarithmic axis: even steps say more.
        if ticks.len() < 2 {
            ticks = self.even_ticks(wanted);
        }
        ticks
    }

    fn even_ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let raw = (self.high - self.low) / wanted as f64;
        let power = raw.log10().floor();
        let base = 10f64.powf(power);
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|m| m * base).into_iter().find(|s| *s >= raw * 0.999).unwrap_or(base);
        let decimals = (-(step * 1.001).log10().floor()).max(0.0) as usize;
        let (first, last) = ((self.low / step - 1e-9).ceil(), (self.high / step + 1e-9).floor());
        let number = (last - first).clamp(-1.0, 50.0) as i64 + 1;
        (0..number).map(|i| (first + i as f64) * step).map(|v| (v, label(v, decimals))).collect()
    }

    /// Zero, then powers of ten, then fives and twos, as long as they keep their distance.
    fn uneven_ticks(&self, wanted: usize) -> Vec<(f64, String)> {
        let gap = 0.8 / wanted as f64;
        let largest = self.high.abs().max(self.low.abs());
        let top = largest.log10().ceil() as i32;
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let mut offer = |value: f64, decimals: usize| {
            let place = self.place(value);
            let free = ticks.iter().all(|(v, _)| (self.place(*v) - place).abs() >= gap);
            if (-1e-9..=1.0 + 1e-9).contains(&place) && free {
                ticks.push((value, label(value, decimals)));
            }
        };
        if self.scale == Scale::Root {
            offer(0.0, 0);
        }
        for multiple in [1.0, 5.0, 2.0, 3.0] {
            for power in (top - 12..=top).rev() {
                let value = multiple * 10f64.powi(power);
                let decimals = (-power).max(0) as usize;
                offer(value, decimals);
                if self.scale == Scale::Root {
                    offer(-value, decimals);
                }
            }
        }
        ticks.sort_by(|a, b| a.0.total_cmp(&b.0));
        ticks
    }
}

fn label(value: f64, decimals: usize) -> String {
    let value = if value.abs() < 1e-12 { 0.0 } else { value };
    match value.abs() {
        size if size >= 1e6 => format!("{}M", value / 1e6),
        size if size >= 1e4 => format!("{}k", value / 1e3),
        _ if decimals > 4 => format!("{value:.0e}"),
        _ => format!("{value:.decimals$}").replace('-', "−"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: Axis, wanted: usize) -> Vec<String> {
        axis.ticks(wanted).into_iter().map(|t| t.1).collect()
    }

    #[test]
    fn ticks_are_round() {
        let axis = |v: [f64; 2], scale| Axis::fit(v, scale).expect("values are finite");
        assert_eq!(labels(axis([0.0, 1.0], Scale::Linear), 5), ["0.0", "0.5", "1.0"]);
        assert_eq!(labels(axis([81.0, 89.5], Scale::Linear), 5), ["82", "84", "86", "88", "90"]);
        assert_eq!(labels(axis([0.0, 12_000.0], Scale::Linear), 4), ["0", "5000", "10k"]);
        assert_eq!(labels(axis([0.001, 1.0], Scale::Log), 4), ["0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(axis([0.0, 1.0], Scale::Root), 4), ["0", "0.1", "0.5", "1"]);
    }

    #[test]
    fn odd_values_do_no_harm() {
        assert_eq!(Axis::fit([f64::NAN, f64::INFINITY], Scale::Linear), None);
        assert_eq!(Axis::fit([0.0, -1.0], Scale::Log), None);
        for scale in [Scale::Linear, Scale::Root, Scale::Log] {
            for values in [[3.0, 3.0], [1e-9, 1e9], [5e-7, 6e-7]] {
                let axis = Axis::fit(values, scale).expect("values are finite");
                assert!(!axis.ticks(4).is_empty(), "{scale:?} {values:?}");
                assert!((0.0..=1.0).contains(&axis.place(values[0])), "{scale:?} {values:?}");
            }
        }
        let zero = Axis::fit([0.0, 0.0], Scale::Linear).expect("zero is finite");
        assert!(zero.place(0.0).is_finite() && zero.ticks(4).len() < 60);
    }
}
