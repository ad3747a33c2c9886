//! Generated problems: tables such as scoring and profiling give, of several sizes.

use std::collections::BTreeMap;
use std::fmt;

use lana_select::{Budget, Choice, Layer, Problem};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A kind of table.
#[derive(Clone, Copy)]
pub(crate) struct Family {
    /// Layers of the network.
    pub(crate) layers: usize,
    /// Choices of each layer.
    pub(crate) choices: usize,
    /// Groups of layers that share one table but for this much relative noise; `None` if every layer has its own.
    pub(crate) copies: Option<(usize, f64)>,
}

impl Family {
    pub(crate) const fn independent(layers: usize, choices: usize) -> Family {
        Family { layers, choices, copies: None }
    }

    pub(crate) const fn copies(layers: usize, choices: usize, groups: usize, noise: f64) -> Family {
        Family { layers, choices, copies: Some((groups, noise)) }
    }

    /// One problem; `share` is the budget as a share of the latency of all teacher layers.
    pub(crate) fn problem(&self, share: f64, seed: u64) -> Problem {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut layers: Vec<Layer> = Vec::new();
        let (groups, noise) = self.copies.unwrap_or((self.layers, 0.0));
        for group in 0..groups {
            let table = table(&mut random, self.choices);
            for copy in 0..self.layers / groups {
                let mut noisy = |value: f64| value * (1.0 + noise * random.random_range(-1.0..=1.0));
                let choices = table.iter().enumerate().map(|(index, &(score, latency))| Choice {
                    name: match index {
                        0 => "teacher".to_owned(),
                        1 => "identity".to_owned(),
                        _ => format!("op{index}"),
                    },
                    score: noisy(score),
                    costs: BTreeMap::from([("latency_ms".to_owned(), noisy(latency))]),
                });
                layers.push(Layer { name: format!("s{group}.b{copy}"), choices: choices.collect() });
            }
        }
        let teacher: f64 = layers.iter().map(|layer| layer.choices[0].costs["latency_ms"]).sum();
        let budget = Budget { min: None, max: Some(share * teacher) };
        Problem::new(layers, BTreeMap::from([("latency_ms".to_owned(), budget)]))
    }
}

/// Scores and latencies of one layer: the teacher costs no loss, identity no time, and between and beyond them loss falls
/// with time along a convex curve, with noise as between operations of different kinds.
fn table(random: &mut ChaCha8Rng, choices: usize) -> Vec<(f64, f64)> {
    let price = random.random_range(0.5..1.5);
    let weight = random.random_range(0.1..0.5);
    (0..choices)
        .map(|index| {
            let part: f64 = match index {
                0 => return (0.0, price),
                1 => 0.0,
                _ => random.random_range(0.02..1.2),
            };
            let missing = (1.0 - part).max(0.0);
            let noise = random.random_range(0.8..1.3);
            (weight * (missing * missing + 0.02) * noise, price * part)
        })
        .collect()
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.layers, self.choices)?;
        match self.copies {
            None => Ok(()),
            Some((groups, noise)) => {
                write!(f, " of {groups} tables")?;
                if noise > 0.0 { write!(f, ", noise {} %", 100.0 * noise) } else { write!(f, ", copies") }
            }
        }
    }
}
