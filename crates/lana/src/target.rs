//! Whether networks can be measured where they will run.
//!
//! A lookup table may come from another device than this: then nothing can be measured here, the selection goes by
//! prediction alone, and more is kept in reserve. This is the one place that decides it.

use lana_latency::{Device, Table};

use crate::LatencyConfig;

/// Share of a latency budget that is kept in reserve where nothing can be measured: tables are good to 5 % at best.
pub(crate) const UNMEASURED: f64 = 0.05;

/// Where a lookup table was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// On this device.
    Here,
    /// On another.
    Elsewhere {
        /// What differs, in words.
        differences: String,
    },
}

impl Target {
    /// Of a table.
    pub(crate) fn of(table: &Table) -> Target {
        match table.check_device(&Device::of(table.deployment.processor)) {
            Ok(()) => Target::Here,
            Err(lana_latency::Error::OtherDevice { differences }) => Target::Elsewhere { differences },
            Err(other) => Target::Elsewhere { differences: other.to_string() },
        }
    }

    /// Whether networks can be measured there.
    pub(crate) fn is_here(&self) -> bool {
        *self == Target::Here
    }

    /// Share of a limit that predictions leave unused.
    pub(crate) fn reserve(&self, latency: &LatencyConfig) -> f64 {
        match self {
            Target::Here => latency.margin,
            Target::Elsewhere { .. } => latency.margin.max(UNMEASURED),
        }
    }
}
