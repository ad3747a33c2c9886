use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Number format of weights and feature maps when a network is run. [`Weights`](crate::Weights) are always 32-bit
/// floats; whoever runs or exports them converts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// 16-bit floats of IEEE 754.
    Fp16,
    /// 16-bit floats with the exponent of 32-bit ones.
    Bf16,
}

impl FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let known = [Precision::Fp32, Precision::Fp16, Precision::Bf16];
        let found = known.into_iter().find(|p| p.to_string() == name);
        found.ok_or_else(|| format!("precision `{name}`: it is none of fp32, fp16, bf16"))
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Precision::Fp32 => "fp32",
            Precision::Fp16 => "fp16",
            Precision::Bf16 => "bf16",
        })
    }
}
