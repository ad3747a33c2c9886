//! Numbers as people read them.

/// What stands for a number that is not there.
const NOTHING: &str = "–";

/// A whole number with separators: `12,800`.
pub(crate) fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A large number to three digits with the unit that fits: `853k`, `1.25M`, `125M`.
pub(crate) fn short(value: u64) -> String {
    if value < 1000 {
        return value.to_string();
    }
    let (mut scaled, mut unit) = (value as f64, "");
    for larger in ["k", "M", "G", "T"] {
        // What would be rounded to 1000 takes the next unit.
        if scaled < 999.5 {
            break;
        }
        scaled /= 1000.0;
        unit = larger;
    }
    format!("{}{unit}", three_digits(scaled))
}

/// Three significant digits of a number from 1 to 1000.
fn three_digits(value: f64) -> String {
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}

/// Milliseconds to about four digits, without the unit: `0.412`, `12.35`, `123.4`.
pub(crate) fn milliseconds(value: f64) -> String {
    if !value.is_finite() {
        return NOTHING.into();
    }
    let decimals = match value {
        v if v < 10.0 => 3,
        v if v < 100.0 => 2,
        _ => 1,
    };
    format!("{value:.decimals$}")
}

/// A measured latency with its confidence interval: `12.35 ms [12.20, 12.50]`.
pub(crate) fn latency(median_ms: f64, [low, high]: [f64; 2]) -> String {
    format!("{} ms [{}, {}]", milliseconds(median_ms), milliseconds(low), milliseconds(high))
}

/// A ratio of latencies: `0.485x`.
pub(crate) fn ratio(value: f64) -> String {
    if value.is_finite() { format!("{value:.3}x") } else { NOTHING.into() }
}

/// A share as percentage: `90.06 %`.
pub(crate) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.2} %", share * 100.0) } else { NOTHING.into() }
}

/// A time span: `0.3 s`, `42 s`, `2 min 5 s`, `1 h 3 min`.
pub(crate) fn duration(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return NOTHING.into();
    }
    if seconds < 9.95 {
        return format!("{seconds:.1} s");
    }
    let whole = seconds.round() as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole % 3600 / 60),
    }
}

/// Units in a second: `0.31`, `4.2`, `211`.
pub(crate) fn rate(value: f64) -> String {
    match value {
        v if !v.is_finite() => NOTHING.into(),
        v if v < 1.0 => format!("{v:.2}"),
        v if v < 10.0 => format!("{v:.1}"),
        v => count(v.round() as u64),
    }
}

/// `1 thread`, `2 threads`.
pub(crate) fn plural(number: usize, what: &str) -> String {
    format!("{} {what}{}", count(number as u64), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_have_separators() {
        for (value, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (12_800, "12,800"), (1_234_567, "1,234,567")]
        {
            assert_eq!(count(value), text);
        }
    }

    #[test]
    fn short_numbers_have_three_digits() {
        for (value, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1.00k"),
            (9_994, "9.99k"),
            (9_996, "10.0k"),
            (99_960, "100k"),
            (853_018, "853k"),
            (999_499, "999k"),
            (999_500, "1.00M"),
            (1_250_000, "1.25M"),
            (125_485_706, "125M"),
            (4_100_000_000, "4.10G"),
        ] {
            assert_eq!(short(value), text, "{value}");
        }
    }

    #[test]
    fn times_suit_their_size() {
        for (value, text) in [
            (0.0, "0.0 s"),
            (0.34, "0.3 s"),
            (9.96, "10 s"),
            (59.4, "59 s"),
            (59.6, "1 min 0 s"),
            (125.0, "2 min 5 s"),
            (3599.7, "1 h 0 min"),
            (3780.0, "1 h 3 min"),
            (f64::NAN, "–"),
            (f64::INFINITY, "–"),
        ] {
            assert_eq!(duration(value), text, "{value}");
        }
        assert_eq!(latency(12.34, [9.9, 123.4]), "12.34 ms [9.900, 123.4]");
        assert_eq!(milliseconds(0.41234), "0.412");
        assert_eq!(milliseconds(f64::NAN), "–");
    }

    #[test]
    fn shares_and_ratios() {
        assert_eq!(percent(0.9006), "90.06 %");
        assert_eq!(percent(1.0), "100.00 %");
        assert_eq!(ratio(0.4851), "0.485x");
        assert_eq!(ratio(f64::NAN), "–");
        assert_eq!(rate(0.314), "0.31");
        assert_eq!(rate(4.25), "4.2");
        assert_eq!(rate(2110.4), "2,110");
        assert_eq!(plural(1, "thread"), "1 thread");
        assert_eq!(plural(2, "thread"), "2 threads");
    }
}
