use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// What a limit is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Latency on the device, in milliseconds.
    Latency,
    /// Trained parameters.
    Params,
    /// Multiply-accumulates for one image.
    Macs,
}

impl Quantity {
    /// Its name among the costs of the integer program.
    pub fn cost_name(self) -> &'static str {
        match self {
            Quantity::Latency => "latency_ms",
            Quantity::Params => "params",
            Quantity::Macs => "macs",
        }
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A share of the teacher's.
    Relative(f64),
    /// So many milliseconds, parameters or multiply-accumulates.
    Absolute(f64),
}

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// On what.
    pub quantity: Quantity,
    /// How much.
    pub amount: Amount,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.quantity {
            Quantity::Latency => {}
            other => write!(f, "{}=", other.cost_name())?,
        }
        match (self.quantity, self.amount) {
            (_, Amount::Relative(share)) => write!(f, "{share}x"),
            (Quantity::Latency, Amount::Absolute(ms)) => write!(f, "{ms}ms"),
            (_, Amount::Absolute(amount)) => {
                let units = [("G", 1e9), ("M", 1e6), ("k", 1e3)];
                match units.iter().find(|(_, size)| amount >= *size && (amount / size * 1e3).fract() == 0.0) {
                    Some((unit, size)) => write!(f, "{}{unit}", amount / size),
                    None => write!(f, "{amount}"),
                }
            }
        }
    }
}

/// What a student may cost at most: one limit, or several joined by commas that must all hold.
///
/// `0.5x` half the teacher's latency; `12ms`; `params=0.4x`; `params=300k`; `macs=2.5M`; `0.5x,params=0.6x`.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    limits: Vec<Limit>,
    text: String,
}

impl Budget {
    /// The limits, all of which must hold.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The limit on latency, where there is one.
    pub fn latency(&self) -> Option<Amount> {
        self.limits.iter().find(|l| l.quantity == Quantity::Latency).map(|l| l.amount)
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::input(
                format!("budget `{text}`: {why}"),
                "write `0.5x` (share of the teacher's latency), `12ms`, `params=0.4x`, `macs=20M`, or several joined by commas",
            )
        };
        let mut limits: Vec<Limit> = Vec::new();
        let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        for part in clean.split(',') {
            let (quantity, amount) = match part.split_once('=') {
                Some(("params", amount)) => (Quantity::Params, amount),
                Some(("macs", amount)) => (Quantity::Macs, amount),
                Some(("latency", amount)) => (Quantity::Latency, amount),
                Some((other, _)) => {
                    return Err(wrong(&format!("`{other}` is none of latency, params, macs")));
                }
                None => (Quantity::Latency, part),
            };
            let units: &[(&str, f64)] = match quantity {
                Quantity::Latency => &[("ms", 1.0), ("us", 1e-3), ("s", 1e3)],
                _ => &[("k", 1e3), ("M", 1e6), ("G", 1e9), ("", 1.0)],
            };
            let number = |digits: &str| digits.parse::<f64>().ok().filter(|v| v.is_finite() && *v > 0.0);
            let amount = match amount.strip_suffix('x') {
                Some(digits) => number(digits)
                    .map(Amount::Relative)
                    .ok_or_else(|| wrong("a share must be a positive number such as 0.5x"))?,
                None => units
                    .iter()
                    .find_map(|(unit, factor)| {
                        Some(Amount::Absolute(number(amount.strip_suffix(unit)?)? * factor))
                    })
                    .ok_or_else(|| wrong("neither a share such as 0.5x nor an amount with its unit"))?,
            };
            if quantity != Quantity::Latency && matches!(amount, Amount::Absolute(n) if n < 1.0) {
                return Err(wrong(
                    "an amount below one; a share of the teacher's ends in x, such as params=0.4x",
                ));
            }
            if limits.iter().any(|l| l.quantity == quantity) {
                return Err(wrong("two limits on the same quantity"));
            }
            limits.push(Limit { quantity, amount });
        }
        // One way to write each budget, so that one budget has one folder.
        let text = limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(",");
        Ok(Budget { limits, text })
    }
}

impl Serialize for Budget {
    fn serialize<S: serde::Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Budget {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_parse_and_print() {
        for (text, printed, quantity, amount) in [
            ("0.5x", "0.5x", Quantity::Latency, Amount::Relative(0.5)),
            ("latency=0.50x", "0.5x", Quantity::Latency, Amount::Relative(0.5)),
            ("12ms", "12ms", Quantity::Latency, Amount::Absolute(12.0)),
            ("250us", "0.25ms", Quantity::Latency, Amount::Absolute(0.25)),
            ("latency=1.5s", "1500ms", Quantity::Latency, Amount::Absolute(1500.0)),
            ("params=0.4x", "params=0.4x", Quantity::Params, Amount::Relative(0.4)),
            ("params=300k", "params=300k", Quantity::Params, Amount::Absolute(300e3)),
            ("params=1234567", "params=1234.567k", Quantity::Params, Amount::Absolute(1_234_567.0)),
            ("macs=2.5M", "macs=2.5M", Quantity::Macs, Amount::Absolute(2.5e6)),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget.limits(), [Limit { quantity, amount }], "{text}");
            assert_eq!(budget.to_string(), printed);
            assert_eq!(printed.parse::<Budget>().unwrap(), budget);
        }
        assert_eq!("0.5x, params=0.6x".parse::<Budget>().unwrap().limits().len(), 2);
    }

    #[test]
    fn wrong_budgets_say_so() {
        for text in [
            "",
            "x",
            "0x",
            "-1ms",
            "nanx",
            "infms",
            "12",
            "12 apples",
            "size=3",
            "0.5x,12ms",
            "1e999ms",
            "params=0.4",
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            assert!(error.to_string().contains("budget"), "{text}: {error}");
            assert_eq!(error.exit_status(), 2);
        }
    }
}
