//! Numbers and text as people read them. What is not a finite number reads `–`.

use std::fmt;

/// Space that does not break a number from its unit.
const NBSP: char = '\u{a0}';

/// What stands where there is no number.
pub(super) const NONE: &str = "–";

/// Appends formatted text to a `String`. Writing to a `String` cannot fail, so there is nothing to handle.
macro_rules! put {
    ($out:expr, $($format:tt)*) => {
        $crate::report::format::append(&mut $out, format_args!($($format)*))
    };
}
pub(super) use put;

/// What `put!` calls.
pub(super) fn append(out: &mut String, text: fmt::Arguments<'_>) {
    let _ = fmt::Write::write_fmt(out, text);
}

/// Text that means itself in HTML and in attributes.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A number with so many decimals, or `–`.
pub(super) fn fixed(value: f64, decimals: usize) -> String {
    match value.is_finite() {
        // Adding zero turns -0 into 0.
        true => format!("{:.decimals$}", value + 0.0).replace('-', "−"),
        false => NONE.into(),
    }
}

/// A number with three significant digits, never in exponents above 0.0001.
pub(super) fn three_digits(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if !value.is_finite() => NONE.into(),
        _ if size == 0.0 => "0".into(),
        _ if size < 1e-4 => format!("{value:.1e}"),
        _ => fixed(value, (2.0 - size.log10().floor()).clamp(0.0, 6.0) as usize),
    }
}

/// Decimals with which the largest of some numbers has three digits, for columns of a table.
pub(super) fn decimals(values: impl IntoIterator<Item = f64>) -> usize {
    let largest = values.into_iter().filter(|v| v.is_finite()).fold(0.0, |l: f64, v| l.max(v.abs()));
    if largest > 0.0 { (2.0 - largest.log10().floor()).clamp(0.0, 6.0) as usize } else { 0 }
}

/// Milliseconds: `12.3 ms`.
pub(super) fn ms(value: f64) -> String {
    unit(three_digits(value), "ms")
}

/// A share as per cent: `90.06 %` for 0.9006 and two decimals.
pub(super) fn percent(share: f64, decimals: usize) -> String {
    unit(fixed(100.0 * share, decimals), "%")
}

/// A ratio with two decimals: `1.98x`.
pub(super) fn times(ratio: f64) -> String {
    match ratio.is_finite() {
        true => format!("{ratio:.2}x"),
        false => NONE.into(),
    }
}

/// A large count with its prefix: `0.85 M`, `126 M`, `12.8 k`, `640`.
pub(super) fn count(value: u64) -> String {
    let value = value as f64;
    let (divisor, prefix) = match value {
        v if v >= 1e9 => (1e9, "G"),
        v if v >= 1e5 => (1e6, "M"),
        v if v >= 1e4 => (1e3, "k"),
        _ => return fixed(value, 0),
    };
    match value / divisor < 1.0 {
        true => unit(fixed(value / divisor, 2), prefix),
        false => unit(three_digits(value / divisor), prefix),
    }
}

/// `one` or `many` with the number in front.
pub(super) fn counted(number: usize, one: &str, many: &str) -> String {
    format!("{number}{NBSP}{}", if number == 1 { one } else { many })
}

/// Standard error of a share `p` seen on `images` images: `sqrt(p (1 - p) / n)`.
pub(super) fn standard_error(p: f64, images: u64) -> f64 {
    (p * (1.0 - p) / images as f64).max(0.0).sqrt()
}

fn unit(number: String, unit: &str) -> String {
    match number == NONE {
        true => number,
        false => format!("{number}{NBSP}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_well() {
        let plain = |text: String| text.replace(NBSP, " ");
        assert_eq!(plain(ms(12.345)), "12.3 ms");
        assert_eq!(plain(ms(0.0912)), "0.0912 ms");
        assert_eq!(plain(ms(2345.0)), "2345 ms");
        assert_eq!(plain(ms(f64::NAN)), "–");
        assert_eq!(plain(percent(0.90064, 2)), "90.06 %");
        assert_eq!(plain(count(853_018)), "0.85 M");
        assert_eq!(plain(count(125_747_840)), "126 M");
        assert_eq!(plain(count(12_800)), "12.8 k");
        assert_eq!(plain(count(932)), "932");
        assert_eq!(times(1.984), "1.98x");
        assert_eq!(fixed(-0.0, 1), "0.0");
        assert!((standard_error(0.9, 900) - 0.01).abs() < 1e-12);
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("<a b='c' d=\"e\">&"), "&lt;a b=&#39;c&#39; d=&quot;e&quot;&gt;&amp;");
    }
}
