//! Times the solver on layers that look alike: 27 layers in 3 groups of 9 copies with noise, 17 choices each.
//!
//! `cargo run --release -p lana-select --example identical_layers -- [noise] [solutions] [time_limit_s] [gap]`
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;

use lana_select::{Budget, Choice, Error, Layer, Problem, solve};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn main() -> Result<(), Error> {
    let argument = |index: usize, default: f64| {
        std::env::args().nth(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or(default)
    };
    for fraction in [0.5, 0.34] {
        for seed in 0..3 {
            let mut problem = problem(seed, fraction, argument(1, 0.01));
            problem.solutions = argument(2, 20.0) as usize;
            problem.time_limit_s = Some(argument(3, 10.0));
            problem.gap = argument(4, 0.0);
            let outcome = solve(&problem)?;
            let nodes: u64 = outcome.solutions.iter().map(|solution| solution.nodes).sum();
            let proven = outcome.solutions.iter().filter(|solution| solution.proven).count();
            let (first, last) = (&outcome.solutions[0], &outcome.solutions[outcome.solutions.len() - 1]);
            println!(
                "budget {fraction} seed {seed}: {:?}, {} solutions, {proven} proven, {:.3} s, {nodes} nodes, score {:.5} to {:.5}, bound {:.5}",
                outcome.status,
                outcome.solutions.len(),
                outcome.elapsed_s,
                first.score,
                last.score,
                last.bound,
            );
        }
    }
    Ok(())
}

fn problem(seed: u64, fraction: f64, noise: f64) -> Problem {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut layers = Vec::new();
    let mut total = 0.0;
    for group in 0..3 {
        // Scores fall with latency along a noisy convex curve; the first choice is the unchanged layer, the last skips it.
        let price = random.random_range(0.5..1.5);
        let loss = random.random_range(0.1..0.4);
        let mut table = vec![(0.0, price)];
        for _ in 0..15 {
            let part: f64 = random.random_range(0.05..0.95);
            let score = loss * (1.0 - part).powi(2) * random.random_range(0.7..1.3);
            table.push((score, price * part));
        }
        table.push((loss * random.random_range(1.0..1.5), 0.0));
        for copy in 0..9 {
            let mut choices = Vec::new();
            for (index, &(score, latency)) in table.iter().enumerate() {
                let mut near = |value: f64| value * (1.0 + noise * random.random_range(-1.0..1.0));
                let costs = BTreeMap::from([("latency_ms".to_owned(), near(latency))]);
                choices.push(Choice { name: format!("c{index}"), score: near(score), costs });
            }
            total += choices[0].costs["latency_ms"];
            layers.push(Layer { name: format!("s{group}.b{copy}"), choices });
        }
    }
    let budget = Budget { min: None, max: Some(total * fraction) };
    Problem::new(layers, BTreeMap::from([("latency_ms".to_owned(), budget)]))
}
