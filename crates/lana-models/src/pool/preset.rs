//! Lists of operations under one name: `compact`, `paper`, `extended`.

use std::fmt;

/// A list of operations that `--pool` takes by its name. Each family says which of its members stand in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Preset {
    /// 23 operations: what LANA's experiments kept selecting, the teacher's own layer with fewer channels inside, and of layers of several
    /// blocks the first ones, and their blocks side by side.
    Compact,
    /// The 197 operations of LANA's experiments (Molchanov et al. 2022, section 3).
    ///
    /// Teacher, identity, 54 inverted residuals, 93 dense convolutions and 48 with attention. The paper gives the values
    /// that are varied, which make 128 dense ones, but not which of them were left out. Here those are
    ///
    /// * the eleven that another operation is already: two stacked 1×1 convolutions (`stack-k1-*`), which are the fused
    ///   inverted residual with a 1×1 kernel (`fused-e*-k1`), and RepVGG's with a 1×1 kernel, whose branches are all the
    ///   same convolution;
    /// * of the 117 others the 24 that take the most multiply-accumulates, all more than five dense 3×3 convolutions of the
    ///   layer's channels, where what stays takes less: two and a half residual blocks could hardly make anything faster.
    ///
    /// 93 stay: 19 `stack`, 31 `bottleneck`, 36 `shuffle`, 4 `conv`, 3 `repvgg`. In a wide layer whose shape stays all 197
    /// apply, and are 197 different networks. In narrow ones widths round to the same number of channels, and some layers
    /// have the form of a member of the pool (basic blocks are `stack-k3-w1`): twins stand once.
    Paper,
    /// The compact pool, and what later work shows to pay: edits of the teacher's own layer that start from its weights
    /// (without gates, smaller kernels, ReLU, more groups, fewer splits, low rank), mixed kernels, ECA, ACNet.
    Extended,
}

impl Preset {
    /// All there are.
    pub const ALL: [Preset; 3] = [Preset::Compact, Preset::Paper, Preset::Extended];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Compact => "compact",
            Preset::Paper => "paper",
            Preset::Extended => "extended",
        }
    }

    /// The preset of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|p| p.name() == name)
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Names as they are written in a table.
pub(super) fn listed(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The names of every combination of some numbers, the last key running fastest; 0 leaves its key out.
pub(super) fn grid(family: &str, keys: &[(&str, &[f64])]) -> Vec<String> {
    keys.iter().fold(vec![family.to_string()], |names, (key, numbers)| {
        let with = |name: &String, number: &f64| match *number == 0.0 {
            true => name.clone(),
            false => format!("{name}-{key}{number}"),
        };
        names.iter().flat_map(|name| numbers.iter().map(move |number| with(name, number))).collect()
    })
}

/// Kernels of the paper's dense convolutions.
pub(super) const KERNELS: [f64; 4] = [1.0, 3.0, 5.0, 7.0];

/// Widths of the paper's dense convolutions.
const WIDTHS: [f64; 10] = [0.0625, 0.1, 0.125, 0.2, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0];

/// Widths of the paper's bottlenecks with attention.
pub(super) const ATTENTION_WIDTHS: [f64; 6] = [0.25, 0.5, 1.0, 2.0, 3.0, 4.0];

/// Members of the paper's dense families: kernel and width. `macs` are the multiply-accumulates for a pixel in units of
/// the layer's channels squared.
pub(super) fn dense(family: &str, kernels: &[f64], macs: fn(f64, f64) -> f64) -> Vec<String> {
    // Five 3×3 convolutions: see `Preset::Paper`.
    let most = 5.0 * 9.0;
    let widths = |k: f64| WIDTHS.into_iter().filter(move |&w| macs(k, w) <= most);
    kernels
        .iter()
        .copied()
        .flat_map(|k| grid(family, &[("k", &[k]), ("w", &widths(k).collect::<Vec<_>>())]))
        .collect()
}

/// Members of the paper's inverted residuals, fused or not.
pub(super) fn inverted(family: &str) -> Vec<String> {
    grid(family, &[("e", &[1.0, 3.0, 6.0]), ("k", &[1.0, 3.0, 5.0]), ("se", &[0.0, 0.04, 0.025])])
}
