//! Times the solver on generated tables: `cargo bench -p lana-select`.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod generate;

use generate::Family;
use lana_select::{Outcome, Problem, solve};

const FAMILIES: [Family; 11] = [
    Family::independent(27, 10),
    Family::independent(23, 197),
    Family::independent(46, 197),
    Family::independent(100, 50),
    Family::independent(200, 197),
    Family::copies(27, 10, 3, 0.01),
    Family::copies(27, 10, 3, 0.001),
    Family::copies(27, 10, 3, 0.0),
    Family::copies(27, 197, 3, 0.01),
    Family::copies(27, 197, 3, 0.001),
    Family::copies(27, 197, 3, 0.0),
];

fn run(problem: &Problem, solutions: usize, gap: f64, limit: f64) -> Outcome {
    let mut problem = problem.clone();
    problem.solutions = solutions;
    problem.gap = gap;
    problem.time_limit_s = Some(limit);
    solve(&problem).unwrap()
}

fn main() {
    let filter: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let limit = 8.0;
    for family in FAMILIES {
        let name = family.to_string();
        if !filter.is_empty() && !filter.iter().any(|f| name.contains(f.as_str())) {
            continue;
        }
        for share in [0.25, 0.5, 0.7] {
            let seeds = if std::env::var("FULL").is_ok() { 3 } else { 1 };
            for seed in 0..seeds {
                let problem = family.problem(share, seed);
                let first = run(&problem, 1, 0.0, limit);
                let z = first.solutions[0].score;
                print!("{name} {share} #{seed}: z {z:.5} first {:.2} ms", 1e3 * first.elapsed_s);
                let only: Option<usize> = std::env::var("ONLY").ok().map(|t| t.parse().unwrap());
                for (k, relative) in [(10, 0.0), (20, 0.0), (20, 0.001), (100, 0.002), (100, 0.001)] {
                    if only.is_some_and(|only| only != k) {
                        continue;
                    }
                    let outcome = run(&problem, k, relative * z, limit);
                    let proven = outcome.solutions.iter().filter(|s| s.proven).count();
                    let nodes: u64 = outcome.solutions.iter().map(|s| s.nodes).sum();
                    print!(
                        " | {k}@{relative}: {:.2} s {proven}/{} n {nodes} z {:.5}",
                        outcome.elapsed_s,
                        outcome.solutions.len(),
                        outcome.solutions.last().unwrap().score,
                    );
                }
                println!();
            }
        }
    }
}
