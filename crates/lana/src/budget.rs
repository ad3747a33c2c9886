//! What a student may cost: how budgets are written, read and named on disk.
//!
//! ```text
//! BUDGET     = LIMIT , LIMIT , …                      all must hold
//! LIMIT      = [DEPLOYMENT:] (0.5x | 12ms | >=500img/s)   latency, on the run's own deployment or on another
//!            | params=A | macs=A | memory=A | size=A      A is a share of the teacher's (0.5x) or an amount (300k, 2MB)
//! DEPLOYMENT = cpu-b1, cuda-tensorrt-b128-fp16 …       what it does not say is as in [latency] of run.toml
//! ```
//!
//! However a budget was typed, [`Budget`] prints it in one way, and [`Budget::folder`] gives it one folder.

use std::fmt;
use std::str::FromStr;

use lana_latency::{Deployment, Precision};
use serde::{Deserialize, Serialize};

use crate::{Error, Measured, Result, sha256};

/// What a limit is put on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantity {
    /// Latency of a batch on a deployment, in milliseconds.
    Latency,
    /// Trained parameters.
    Params,
    /// Multiply-accumulates for one image.
    Macs,
    /// Peak of the feature maps that are alive at once during inference, in bytes for one image
    /// ([`lana_graph::Graph::peak_memory`]).
    Memory,
    /// The ONNX file that is deployed, in bytes.
    Size,
}

impl Quantity {
    /// Every quantity, in the order in which budgets print them.
    pub const ALL: [Quantity; 5] =
        [Quantity::Latency, Quantity::Params, Quantity::Macs, Quantity::Memory, Quantity::Size];

    /// Its name among the costs of the integer program. That of a latency on another deployment than the run's own has
    /// the deployment's label behind it.
    pub fn cost_name(self) -> &'static str {
        match self {
            Quantity::Latency => "latency_ms",
            Quantity::Params => "params",
            Quantity::Macs => "macs",
            Quantity::Memory => "memory_bytes",
            Quantity::Size => "size_bytes",
        }
    }

    /// Its name in budgets.
    pub fn name(self) -> &'static str {
        match self {
            Quantity::Latency => "latency",
            Quantity::Params => "params",
            Quantity::Macs => "macs",
            Quantity::Memory => "memory",
            Quantity::Size => "size",
        }
    }

    /// What it is, in messages.
    pub fn words(self) -> &'static str {
        match self {
            Quantity::Latency => "latency",
            Quantity::Params => "number of parameters",
            Quantity::Macs => "number of multiply-accumulates",
            Quantity::Memory => "peak of the feature maps' memory",
            Quantity::Size => "size of the file",
        }
    }

    /// An amount of it as budgets write it; rounded to four digits.
    pub fn show(self, amount: f64) -> String {
        let digits = |scaled: f64| {
            let places = (3.0 - scaled.abs().max(1e-3).log10().floor()).clamp(0.0, 6.0) as usize;
            let text = format!("{scaled:.places$}");
            match text.contains('.') {
                true => text.trim_end_matches('0').trim_end_matches('.').to_string(),
                false => text,
            }
        };
        if self == Quantity::Latency {
            return format!("{} ms", digits(amount));
        }
        let units = self.units();
        let fits = units.iter().find(|(_, size)| amount >= *size).or(units.last());
        fits.map_or_else(|| digits(amount), |(unit, size)| format!("{}{unit}", digits(amount / size)))
    }

    /// Units that amounts are printed in, the largest first.
    fn units(self) -> &'static [(&'static str, f64)] {
        match self {
            Quantity::Latency => &[("ms", 1.0)],
            Quantity::Params | Quantity::Macs => &[("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0)],
            Quantity::Memory | Quantity::Size => &[("GB", 1e9), ("MB", 1e6), ("kB", 1e3), ("B", 1.0)],
        }
    }

    /// Further units that amounts are read in. What ends in another must stand in front of it.
    fn read_units(self) -> &'static [(&'static str, f64)] {
        const KIB: f64 = 1024.0;
        match self {
            Quantity::Latency => &[("us", 1e-3), ("s", 1e3)],
            Quantity::Params | Quantity::Macs => &[],
            Quantity::Memory | Quantity::Size => {
                &[("GiB", KIB * KIB * KIB), ("MiB", KIB * KIB), ("KiB", KIB), ("kiB", KIB)]
            }
        }
    }
}

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Amount {
    /// A share of the teacher's.
    Relative(f64),
    /// So many milliseconds, parameters, multiply-accumulates or bytes.
    Absolute(f64),
    /// At least so many images in a second, in batches of the deployment.
    Throughput(f64),
}

impl Amount {
    /// The most of a quantity that is allowed, where the teacher has `teacher`: for latency the milliseconds of a batch.
    pub fn most(self, teacher: f64, batch: usize) -> f64 {
        match self {
            Amount::Relative(share) => share * teacher,
            Amount::Absolute(amount) => amount,
            Amount::Throughput(rate) => 1e3 * batch as f64 / rate,
        }
    }

    /// How much of a limit on latency a measurement uses: 1 is all of it. Shares of the teacher's latency are held against
    /// the ratio that was measured in turns with it, everything else against the median.
    pub fn used(self, measured: &Measured, batch: usize) -> f64 {
        match self {
            Amount::Relative(share) => measured.ratio / share,
            other => measured.median_ms / other.most(f64::NAN, batch),
        }
    }

    /// The same for the ends of the measurement's interval.
    pub fn used_ci(self, measured: &Measured, batch: usize) -> [f64; 2] {
        match self {
            Amount::Relative(share) => measured.ratio_ci.map(|end| end / share),
            other => measured.ci_ms.map(|end| end / other.most(f64::NAN, batch)),
        }
    }
}

/// One limit.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    /// On what.
    pub quantity: Quantity,
    /// How much.
    pub amount: Amount,
    /// For latency, the label of the deployment where it holds; none for the run's own.
    pub deployment: Option<String>,
}

impl Limit {
    /// The deployment it speaks of, in a run whose own is `base`.
    ///
    /// # Errors
    /// If the label is none, which [`Budget`] does not let pass.
    pub fn on(&self, base: &Deployment) -> Result<Deployment> {
        Ok(match &self.deployment {
            Some(label) => Deployment::parse(label, base)?,
            None => *base,
        })
    }

    /// Its name among the costs of the integer program.
    pub fn cost_name(&self) -> String {
        match &self.deployment {
            Some(label) => format!("{} {label}", self.quantity.cost_name()),
            None => self.quantity.cost_name().to_string(),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.quantity, &self.deployment) {
            (Quantity::Latency, None) => {}
            (Quantity::Latency, Some(label)) => write!(f, "{label}:")?,
            (other, _) => write!(f, "{}=", other.name())?,
        }
        match self.amount {
            Amount::Relative(share) => write!(f, "{share}x"),
            Amount::Throughput(rate) => write!(f, ">={rate}img/s"),
            Amount::Absolute(amount) => {
                // The largest unit in which it is no longer than in the smallest.
                let units = self.quantity.units();
                let short =
                    |size: f64| (amount / size * 1e3).fract() == 0.0 && amount / size * size == amount;
                let unit = units.iter().find(|(_, size)| amount >= *size && short(*size)).or(units.last());
                unit.map_or(Ok(()), |(unit, size)| write!(f, "{}{unit}", amount / size))
            }
        }
    }
}

/// What a student may cost at most: one limit, or several joined by commas that must all hold.
///
/// `0.5x` half the teacher's latency; `12ms`; `>=500img/s`; `cpu-b1:0.5x,cpu-b64:0.6x` on two deployments; `params=0.4x`;
/// `macs=2.5M`; `memory=0.5x`, `memory=20MB` for the feature maps of one image; `size=2MB` for the ONNX file.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    limits: Vec<Limit>,
    text: String,
}

/// Characters of a folder's name up to which it is the budget itself.
const LONGEST_FOLDER: usize = 120;

impl Budget {
    /// The limits, all of which must hold.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }

    /// The limit on a quantity other than latency, where there is one.
    pub fn limit_on(&self, quantity: Quantity) -> Option<&Limit> {
        self.limits.iter().find(|l| l.quantity == quantity)
    }

    /// The deployments on which students for this budget are measured, each with its limit on latency: those it names; the
    /// run's own, without one, if it limits no latency. The first is the one that figures without a name speak of.
    ///
    /// # Errors
    /// If two limits speak of the same deployment.
    pub fn deployments(&self, base: &Deployment) -> Result<Vec<(Deployment, Option<Amount>)>> {
        let mut found: Vec<(Deployment, Option<Amount>)> = Vec::new();
        for limit in self.limits.iter().filter(|l| l.quantity == Quantity::Latency) {
            let deployment = limit.on(base)?;
            if found.iter().any(|(other, _)| *other == deployment) {
                return Err(Error::input(
                    format!("budget `{self}`: two limits on the latency of {deployment}"),
                    "a deployment that a label does not spell out is that of [latency] in run.toml; leave one out",
                ));
            }
            found.push((deployment, Some(limit.amount)));
        }
        if found.is_empty() {
            found.push((*base, None));
        }
        Ok(found)
    }

    /// The number format of the deployed network: that of the first deployment.
    ///
    /// # Errors
    /// As [`Budget::deployments`].
    pub fn precision(&self, base: &Deployment) -> Result<Precision> {
        Ok(self.deployments(base)?.first().map_or(base.precision, |(deployment, _)| deployment.precision))
    }

    /// Its folder under `budgets/`: the budget with `@` for the colon and `500imgps` for `>=500img/s`, which file
    /// systems take; long ones are cut, with a hash behind.
    pub fn folder(&self) -> String {
        let name = self.text.replace(':', "@").replace(">=", "").replace("img/s", "imgps");
        match name.len() > LONGEST_FOLDER {
            true => format!("{}-{}", &name[..LONGEST_FOLDER - 17], &sha256(name.as_bytes())[..16]),
            false => name,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

const HOW: &str = "write `0.5x` (share of the teacher's latency), `12ms`, `>=500img/s`, `cpu-b64:0.5x` (on a deployment), \
    `params=0.4x`, `macs=20M`, `memory=0.5x`, `size=2MB`, or several joined by commas";

impl FromStr for Budget {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| Error::input(format!("budget `{text}`: {why}"), HOW);
        let mut limits: Vec<Limit> = Vec::new();
        let clean: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        for part in clean.split(',') {
            let limit = limit(part).map_err(|why| wrong(&why))?;
            if limits.iter().any(|l| l.quantity == limit.quantity && l.deployment == limit.deployment) {
                return Err(wrong("two limits on the same quantity"));
            }
            limits.push(limit);
        }
        // One way to write each budget, so that one budget has one folder.
        limits.sort_by(|a, b| (a.quantity, &a.deployment).cmp(&(b.quantity, &b.deployment)));
        let text = limits.iter().map(Limit::to_string).collect::<Vec<_>>().join(",");
        Ok(Budget { limits, text })
    }
}

/// Reads one limit, without spaces; or says what is wrong with it.
fn limit(part: &str) -> std::result::Result<Limit, String> {
    let (label, rest) = match part.split_once(':') {
        Some((label, rest)) => (Some(canonical_label(label)?), rest),
        None => (None, part),
    };
    let (quantity, amount) = match rest.split_once('=') {
        // `>=` of a throughput, not a name.
        _ if rest.starts_with('>') => (Quantity::Latency, rest),
        Some((name, amount)) => {
            let known = Quantity::ALL.into_iter().find(|q| q.name() == name);
            let names = Quantity::ALL.map(Quantity::name).join(", ");
            (known.ok_or_else(|| format!("`{name}` is none of {names}"))?, amount)
        }
        None => (Quantity::Latency, rest),
    };
    if let (Some(label), false) = (&label, quantity == Quantity::Latency) {
        return Err(format!(
            "`{label}:` goes with a latency; {} is the same on every device",
            quantity.name()
        ));
    }
    let amount = read_amount(quantity, amount)?;
    Ok(Limit { quantity, amount, deployment: label })
}

fn read_amount(quantity: Quantity, text: &str) -> std::result::Result<Amount, String> {
    // Beyond these nothing is meant, and numbers would need more digits than a folder's name has.
    let number = |digits: &str| digits.parse::<f64>().ok().filter(|v| (1e-9..=1e18).contains(v));
    if let Some(rate) = text.strip_prefix(">=") {
        let digits = ["images/s", "img/s"].into_iter().find_map(|unit| rate.strip_suffix(unit));
        return match (quantity, digits) {
            (Quantity::Latency, Some(digits)) => number(digits)
                .map(Amount::Throughput)
                .ok_or_else(|| "a throughput must be a positive number of images: write >=500img/s".into()),
            _ => Err("only a throughput is a limit from below: write >=500img/s".into()),
        };
    }
    if text.ends_with("img/s") || text.ends_with("images/s") {
        return Err("a throughput is a limit from below: write >=500img/s".into());
    }
    if let Some(digits) = text.strip_suffix('x') {
        let share = number(digits).map(Amount::Relative);
        return share.ok_or_else(|| "a share must be a positive number such as 0.5x".into());
    }
    let units = quantity.read_units().iter().chain(quantity.units());
    let amount = units.filter_map(|(unit, factor)| Some(number(text.strip_suffix(unit)?)? * factor)).next();
    match amount {
        Some(amount) if quantity != Quantity::Latency && amount < 1.0 => {
            let name = quantity.name();
            Err(format!("an amount below one; a share of the teacher's ends in x, such as {name}=0.4x"))
        }
        Some(amount) => Ok(Amount::Absolute(amount)),
        None => Err("neither a share such as 0.5x nor an amount with its unit".into()),
    }
}

/// A deployment's label with its parts in one order.
fn canonical_label(label: &str) -> std::result::Result<String, String> {
    Deployment::parse(label, &Deployment::default()).map_err(|e| e.to_string())?;
    let place = |part: &str| match part {
        "cpu" | "cuda" => 0,
        "onnxruntime" | "tensorrt" | "torch" => 1,
        part if part.starts_with('b') && part != "bf16" => 2,
        part if part.starts_with('t') => 3,
        _ => 4,
    };
    let mut parts: Vec<(usize, String)> = Vec::new();
    for part in label.split('-') {
        let place = place(part);
        // Numbers without zeros in front.
        let number = part.get(1..).filter(|_| matches!(place, 2 | 3)).and_then(|n| n.parse::<usize>().ok());
        parts.push((place, number.map_or_else(|| part.to_string(), |n| format!("{}{n}", &part[..1]))));
    }
    parts.sort();
    Ok(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().join("-"))
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
        use Amount::{Absolute, Relative, Throughput};
        use Quantity::{Latency, Macs, Memory, Params, Size};
        for (text, printed, quantity, amount) in [
            ("0.5x", "0.5x", Latency, Relative(0.5)),
            ("latency=0.50x", "0.5x", Latency, Relative(0.5)),
            ("12ms", "12ms", Latency, Absolute(12.0)),
            ("250us", "0.25ms", Latency, Absolute(0.25)),
            ("latency=1.5s", "1500ms", Latency, Absolute(1500.0)),
            (">= 500 img/s", ">=500img/s", Latency, Throughput(500.0)),
            ("latency=>=1e3images/s", ">=1000img/s", Latency, Throughput(1e3)),
            ("params=0.4x", "params=0.4x", Params, Relative(0.4)),
            ("params=300k", "params=300k", Params, Absolute(300e3)),
            ("params=1234567", "params=1234.567k", Params, Absolute(1_234_567.0)),
            ("macs=2.5M", "macs=2.5M", Macs, Absolute(2.5e6)),
            ("memory=0.5x", "memory=0.5x", Memory, Relative(0.5)),
            ("memory=20MB", "memory=20MB", Memory, Absolute(20e6)),
            ("memory=1MiB", "memory=1048.576kB", Memory, Absolute(1_048_576.0)),
            ("size=2048kB", "size=2.048MB", Size, Absolute(2_048e3)),
            ("size=700B", "size=700B", Size, Absolute(700.0)),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget.limits(), [Limit { quantity, amount, deployment: None }], "{text}");
            assert_eq!(budget.to_string(), printed);
            assert_eq!(printed.parse::<Budget>().unwrap(), budget);
        }
        assert_eq!("0.5x, params=0.6x".parse::<Budget>().unwrap().limits().len(), 2);
    }

    #[test]
    fn one_budget_prints_in_one_way() {
        for (text, printed) in [
            ("size=2MB,0.5x", "0.5x,size=2MB"),
            ("cpu-b64:0.6x,cpu-b1:0.5x", "cpu-b1:0.5x,cpu-b64:0.6x"),
            ("b01-cpu:12ms", "cpu-b1:12ms"),
            ("bf16-b8-torch-cuda-t2:0.5x", "cuda-torch-b8-t2-bf16:0.5x"),
            (
                "memory=0.5x,macs=1G,cpu-b64:>=500img/s,params=3M",
                "cpu-b64:>=500img/s,params=3M,macs=1G,memory=0.5x",
            ),
            ("cpu-b1:0.5x,0.7x", "0.7x,cpu-b1:0.5x"),
        ] {
            let budget: Budget = text.parse().unwrap();
            assert_eq!(budget.to_string(), printed, "{text}");
            assert_eq!(printed.parse::<Budget>().unwrap(), budget);
        }
    }

    #[test]
    fn wrong_budgets_say_so() {
        for (text, word) in [
            ("", "neither"),
            ("x", "share"),
            ("0x", "share"),
            ("-1ms", "neither"),
            ("nanx", "share"),
            ("infms", "neither"),
            ("12", "neither"),
            ("12 apples", "neither"),
            ("weight=3", "none of latency, params, macs, memory, size"),
            ("0.5x,12ms", "two limits"),
            ("cpu-b1:0.5x,b1-cpu:12ms", "two limits"),
            ("1e999ms", "neither"),
            ("params=0.4", "below one"),
            ("size=0.4MBx", "share"),
            ("memory=20ms", "neither"),
            ("500img/s", ">=500img/s"),
            (">=12ms", "throughput"),
            (">=0img/s", "positive number of images"),
            (">12ms", "neither"),
            ("params>=3", "none of"),
            ("gpu-b1:0.5x", "deployment `gpu-b1`"),
            (":0.5x", "deployment ``"),
            ("cpu-b1:params=3k", "goes with a latency"),
            ("cpu-b1:cpu-b2:0.5x", "share"),
            ("1e-300x", "share"),
        ] {
            let error = text.parse::<Budget>().unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("budget `{text}`")), "{text}: {error}");
            assert!(message.contains(word), "{text}: {error}");
            assert_eq!(error.exit_status(), 2);
        }
    }

    #[test]
    fn every_budget_has_a_folder_of_its_own_that_file_systems_take() {
        let long = "cuda-onnxruntime-b128-t1-fp16:0.30000000000000004x,cuda-tensorrt-b128-t1-fp16:0.30000000000000004x,\
                    cuda-torch-b128-t1-fp16:0.30000000000000004x,params=0.5x";
        let other = long.replace("params=0.5x", "params=0.6x");
        let texts =
            ["0.5x", "cpu-b1:0.5x", ">=500img/s", "500ms", "cpu-b1:>=500img/s,size=2MB", long, &other];
        let folders: Vec<String> = texts.iter().map(|t| t.parse::<Budget>().unwrap().folder()).collect();
        assert_eq!(folders[..4], ["0.5x", "cpu-b1@0.5x", "500imgps", "500ms"]);
        for (index, folder) in folders.iter().enumerate() {
            assert!(!folder.contains(['<', '>', ':', '"', '/', '\\', '|', '?', '*', ' ']), "{folder}");
            assert!(folder.len() <= LONGEST_FOLDER && !folder.ends_with('.'), "{folder}");
            assert!(!folders[..index].contains(folder), "{folder}");
        }
    }

    #[test]
    fn deployments_are_those_of_the_latencies() {
        let base = Deployment { batch: 64, ..Deployment::default() };
        let of = |text: &str| text.parse::<Budget>().unwrap().deployments(&base);
        assert_eq!(of("params=0.5x").unwrap(), [(base, None)]);
        assert_eq!(of("0.5x").unwrap(), [(base, Some(Amount::Relative(0.5)))]);
        let two = of("cpu-b1:0.5x,cpu-t2:0.6x").unwrap();
        assert_eq!((two[0].0.batch, two[0].0.threads, two[1].0.batch, two[1].0.threads), (1, 1, 64, 2));
        let error = of("0.5x,cpu-b64:12ms").unwrap_err();
        assert!(
            error.to_string().contains("two limits on the latency of cpu-onnxruntime-b64-t1-fp32"),
            "{error}"
        );
    }

    #[test]
    fn amounts_of_latency() {
        let measured =
            Measured { median_ms: 128.0, ci_ms: [120.0, 136.0], ratio: 0.5, ratio_ci: [0.48, 0.52] };
        assert_eq!(Amount::Throughput(500.0).most(1.0, 64), 128.0);
        assert_eq!(Amount::Throughput(500.0).used(&measured, 64), 1.0);
        assert_eq!(Amount::Absolute(64.0).used(&measured, 64), 2.0);
        assert_eq!(Amount::Relative(0.5).used_ci(&measured, 64), [0.96, 1.04]);
    }

    #[test]
    fn amounts_are_shown_to_four_digits() {
        for (quantity, amount, text) in [
            (Quantity::Latency, 12.34567, "12.35 ms"),
            (Quantity::Latency, 0.012345, "0.01235 ms"),
            (Quantity::Params, 853_018.0, "853k"),
            (Quantity::Macs, 125_747_840.0, "125.7M"),
            (Quantity::Memory, 196_608.0, "196.6kB"),
            (Quantity::Size, 12.0, "12B"),
            (Quantity::Params, 0.0, "0"),
        ] {
            assert_eq!(quantity.show(amount), text);
        }
    }
}
