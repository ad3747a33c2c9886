//! RandAugment (Cubuk et al., 2019) as timm has it: a few operations drawn from a list, at one magnitude.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// RandAugment, written as timm's `--aa`: `rand` and options between dashes.
///
/// | option | meaning | unless given |
/// |---|---|---|
/// | `m9` | magnitude of the operations, 0 to 10 (`mmax`) | 10 |
/// | `n2` | operations per image | 2 |
/// | `p0.5` | probability of each | 0.5 |
/// | `mstd0.5` | standard deviation of the magnitude; above 100: uniform between 0 and the magnitude | 0 |
/// | `mmax10` | largest magnitude | 10 |
/// | `inc1` | operations that all get stronger with the magnitude | `inc0` |
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RandAugment {
    text: String,
    pub(crate) magnitude: f64,
    pub(crate) layers: usize,
    pub(crate) probability: f64,
    pub(crate) deviation: f64,
    pub(crate) most: f64,
    pub(crate) increasing: bool,
}

impl FromStr for RandAugment {
    type Err = Error;

    fn from_str(text: &str) -> Result<RandAugment, Error> {
        let wrong = |part: &str, reason: &str| Error::Setting {
            setting: "auto_augment",
            reason: format!("`{part}` in `{text}`: {reason}; write for example rand-m9-mstd0.5-inc1"),
        };
        let mut parts = text.split('-');
        if parts.next() != Some("rand") {
            return Err(wrong(text, "only RandAugment is known, which begins with `rand`"));
        }
        let mut policy = RandAugment {
            text: text.to_owned(),
            magnitude: 10.0,
            layers: 2,
            probability: 0.5,
            deviation: 0.0,
            most: 10.0,
            increasing: false,
        };
        for part in parts {
            let digits = part.find(|c: char| c.is_ascii_digit()).unwrap_or(part.len());
            let (key, value) = part.split_at(digits);
            let number = |least: f64, most: f64, reason: &str| match value.parse::<f64>() {
                Ok(number) if (least..=most).contains(&number) => Ok(number),
                _ => Err(wrong(part, reason)),
            };
            match key {
                "m" => policy.magnitude = number(0.0, 100.0, "the magnitude is a number from 0 to 100")?,
                "n" => policy.layers = number(1.0, 15.0, "the number of operations is 1 to 15")? as usize,
                "p" => policy.probability = number(0.0, 1.0, "the probability is 0 to 1")?,
                "mstd" => policy.deviation = number(0.0, 1e9, "the standard deviation is a number from 0")?,
                "mmax" => policy.most = number(1.0, 100.0, "the largest magnitude is 1 to 100")?,
                "inc" => policy.increasing = number(0.0, 1.0, "it is inc0 or inc1")? == 1.0,
                _ => {
                    return Err(wrong(
                        part,
                        "there is no such option; there are m, n, p, mstd, mmax and inc",
                    ));
                }
            }
        }
        Ok(policy)
    }
}

impl TryFrom<String> for RandAugment {
    type Error = Error;

    fn try_from(text: String) -> Result<RandAugment, Error> {
        text.parse()
    }
}

impl From<RandAugment> for String {
    fn from(policy: RandAugment) -> String {
        policy.text
    }
}

impl fmt::Display for RandAugment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_read_as_timm_reads_them() {
        let policy: RandAugment = "rand-m9-mstd0.5-inc1".parse().unwrap();
        assert_eq!((policy.magnitude, policy.deviation, policy.increasing), (9.0, 0.5, true));
        assert_eq!((policy.layers, policy.probability, policy.most), (2, 0.5, 10.0));
        assert_eq!(policy.to_string(), "rand-m9-mstd0.5-inc1");
        for (text, part) in [
            ("original", "RandAugment"),
            ("rand-m", "magnitude"),
            ("rand-w0", "no such option"),
            ("rand-p2", "probability"),
            ("rand-n0", "operations"),
        ] {
            let message = text.parse::<RandAugment>().unwrap_err().to_string();
            assert!(message.starts_with("auto_augment: ") && message.contains(part), "{message}");
        }
    }
}
