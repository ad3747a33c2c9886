//! Random weights to start training from.
//!
//! The rules are those of timm's networks: kernels normal with variance 2 / fan-out (He et al. 2015, "Delving Deep"),
//! BatchNorm the identity, fully connected layers uniform within ±1/√fan-in as in PyTorch, position embeddings normal with
//! deviation 0.02 (Dosovitskiy et al. 2021). A tensor's values depend on the
//! seed and on its name and shape, not on the tensors before it: two networks that share a block start alike in it.

use lana_graph::{Graph, Op, Role, Tensor, Weights};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// How to initialise where there is a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InitOptions {
    /// Start the scale of the last BatchNorm of each residual branch at zero, so that the block starts as its shortcut
    /// (Goyal et al. 2017, section 5.1). Branches without a residual connection are left alone: they would give nothing.
    pub zero_last_scale: bool,
}

/// Random weights for `graph`: the same for the same seed.
pub fn random(graph: &Graph, seed: u64) -> Weights {
    random_with(graph, seed, InitOptions::default())
}

/// As [`random`], with options.
pub fn random_with(graph: &Graph, seed: u64, options: InitOptions) -> Weights {
    let zeroed = if options.zero_last_scale { last_batch_norms(graph) } else { Vec::new() };
    graph
        .parameters()
        .into_iter()
        .map(|p| {
            let elements = p.shape.iter().product::<usize>();
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(name_hash(&p.name));
            let data = match p.role {
                Role::Kernel => {
                    let groups = match &graph.nodes()[p.node].op {
                        Op::Conv2d(c) => c.groups,
                        _ => 1,
                    };
                    let fan_out = p.shape[0] / groups * p.shape[2..].iter().product::<usize>();
                    normal(&mut rng, elements, (2.0 / fan_out as f64).sqrt())
                }
                Role::Matrix => uniform(&mut rng, elements, p.shape[1]),
                Role::Bias => match &graph.nodes()[p.node].op {
                    Op::Linear { .. } => {
                        let fan_in = graph.input_shapes(p.node)[0].dims().last().copied();
                        uniform(&mut rng, elements, fan_in.unwrap_or(1))
                    }
                    _ => vec![0.0; elements],
                },
                Role::Scale if zeroed.contains(&p.node) => vec![0.0; elements],
                Role::Scale | Role::RunningVariance => vec![1.0; elements],
                Role::Shift | Role::RunningMean => vec![0.0; elements],
                Role::Embedding => normal(&mut rng, elements, 0.02),
            };
            (p.name, Tensor { shape: p.shape, data })
        })
        .collect()
}

/// The BatchNorms that end a residual branch: those read by a sum, and by nothing else. Of two (a branch and a shortcut
/// with a projection) it is the first input, see [`crate::blocks::Ending`].
fn last_batch_norms(graph: &Graph) -> Vec<usize> {
    let uses = graph.uses();
    let sums = graph.nodes().iter().filter(|n| n.op == Op::Add);
    sums.filter_map(|sum| {
        let mut ends = sum.inputs.iter().filter(|v| uses[v.index()] == 1).filter_map(|v| v.node());
        // Drop path stands between the branch and the sum.
        let before = |n: usize| match &graph.nodes()[n] {
            node if node.op.is_training_only() => node.inputs[0].node(),
            _ => Some(n),
        };
        ends.find_map(|n| before(n).filter(|&n| matches!(graph.nodes()[n].op, Op::BatchNorm { .. })))
    })
    .collect()
}

/// `count` normal values (Box & Muller 1958) of mean 0.
fn normal(rng: &mut ChaCha8Rng, count: usize, deviation: f64) -> Vec<f32> {
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt() * deviation;
        let angle = std::f64::consts::TAU * rng.random::<f64>();
        values.extend([(radius * angle.cos()) as f32, (radius * angle.sin()) as f32]);
    }
    values.truncate(count);
    values
}

/// `count` values uniform within ±1/√`fan_in`.
fn uniform(rng: &mut ChaCha8Rng, count: usize, fan_in: usize) -> Vec<f32> {
    let bound = 1.0 / (fan_in as f64).sqrt();
    (0..count).map(|_| ((rng.random::<f64>() * 2.0 - 1.0) * bound) as f32).collect()
}

/// FNV-1a, 64 bits: the same on every platform and in every version.
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}
