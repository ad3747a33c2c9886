use lana_graph::{Graph, Op, Role, Tensor, Weights};

use crate::random::Random;

/// Random weights whose values stay ordinary from the first node to the last, for timing a network that has none yet.
///
/// Values matter: arithmetic on denormal numbers or infinities takes another time than on ordinary ones. Kernels are
/// normal with half the deviation of He et al. 2015, so that sums along residual connections grow slowly; shifts are
/// random, so that values do not die out where there is no residual connection.
pub fn random_weights(graph: &Graph, seed: u64) -> Weights {
    let mut random = Random::new(seed);
    let mut normal = |count: usize, mean: f64, deviation: f64| -> Vec<f32> {
        (0..count).map(|_| (mean + deviation * random.normal()) as f32).collect()
    };
    graph
        .parameters()
        .into_iter()
        .map(|p| {
            let count = p.shape.iter().product();
            let fan_in = p.shape.iter().skip(1).product::<usize>().max(1) as f64;
            let residual_safe = match graph.nodes()[p.node].op {
                Op::Conv2d(_) => 0.5 * (2.0 / fan_in).sqrt(),
                _ => (1.0 / fan_in).sqrt(),
            };
            let data = match p.role {
                Role::Kernel | Role::Matrix => normal(count, 0.0, residual_safe),
                Role::Scale => normal(count, 1.0, 0.1),
                Role::RunningVariance => normal(count, 1.0, 0.1),
                Role::Bias | Role::Shift | Role::Embedding | Role::RunningMean => normal(count, 0.0, 0.1),
            };
            (p.name, Tensor { shape: p.shape, data })
        })
        .collect()
}
