//! Amounts of memory: how they are written, and what this machine has.

use std::fmt;
use std::fs;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::Error;

/// An amount of memory, written as `8GiB`, `500MB` or in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Memory(pub u64);

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

impl FromStr for Memory {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || {
            Error::input(
                format!("`{text}` is no amount of memory: write it as 8GiB, 500MB or as a number of bytes"),
                "",
            )
        };
        let text = text.trim();
        let unit = UNITS.iter().find(|(unit, _)| text.ends_with(unit));
        let (number, factor) = match unit {
            Some((unit, factor)) => (&text[..text.len() - unit.len()], *factor),
            None => (text, 1),
        };
        let number: f64 = number.trim().parse().map_err(|_| wrong())?;
        let bytes = number * factor as f64;
        match bytes.is_finite() && (1.0..1e18).contains(&bytes) {
            true => Ok(Memory(bytes.round() as u64)),
            false => Err(wrong()),
        }
    }
}

impl fmt::Display for Memory {
    /// So that it reads back exactly.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit =
            UNITS[..4].iter().rev().find(|(_, factor)| self.0 >= *factor && self.0.is_multiple_of(*factor));
        match unit {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Memory {
    /// For people: `7.6 GiB`.
    pub(crate) fn rounded(self) -> String {
        match self.0 as f64 / f64::from(1u32 << 30) {
            gib if gib >= 0.95 => format!("{gib:.1} GiB"),
            gib => format!("{:.0} MiB", gib * 1024.0),
        }
    }

    /// Does some work, and gives the most that this process has occupied during it, where the system tells.
    pub(crate) fn peak_of<T>(work: impl FnOnce() -> T) -> (T, Option<Self>) {
        // Linux begins to count the peak anew.
        let counts = fs::write("/proc/self/clear_refs", "5").is_ok();
        let result = work();
        (result, counts.then(|| field("/proc/self/status", "VmHWM:")).flatten())
    }

    /// What this process occupies now, where the system tells.
    pub(crate) fn occupied() -> Option<Self> {
        field("/proc/self/status", "VmRSS:")
    }

    /// What programs could still take without swapping, where the system tells.
    pub(crate) fn available() -> Option<Self> {
        field("/proc/meminfo", "MemAvailable:")
    }
}

/// A line `NAME number kB` of one of Linux' files.
fn field(file: &str, name: &str) -> Option<Memory> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(Memory(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024))
}

impl TryFrom<String> for Memory {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Memory> for String {
    fn from(memory: Memory) -> Self {
        memory.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_back() {
        for (text, bytes) in [
            ("8GiB", 8u64 << 30),
            ("1.5GiB", 3 << 29),
            ("500MB", 500_000_000),
            ("12345", 12345),
            ("64 KiB", 65536),
        ] {
            let memory: Memory = text.parse().unwrap();
            assert_eq!(memory.0, bytes, "{text}");
            assert_eq!(memory.to_string().parse::<Memory>().unwrap(), memory);
        }
        for text in ["", "GiB", "-1GiB", "0", "8 apples", "nan", "1e30GiB"] {
            let error = text.parse::<Memory>().unwrap_err();
            assert_eq!(error.exit_status(), 2, "{text}");
        }
        assert_eq!(Memory(8 << 30).to_string(), "8GiB");
        assert_eq!(Memory(8_160_437_862).rounded(), "7.6 GiB");
    }
}
