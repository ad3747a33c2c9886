//! Times the solver on generated tables and on problems from files:
//!
//! ```text
//! cargo bench -p lana-select                       everything
//! cargo bench -p lana-select -- 46x197 --seeds 1   the families whose names contain a word, one seed
//! cargo bench -p lana-select -- --threads 2       on two threads; one unless said
//! cargo bench -p lana-select -- --problem FILE     a problem as `lana solve` reads it, such as a run's
//! cargo bench -p lana-select -- --dump DIR         also writes every problem and its times, for `cargo xtask bench select`
//! ```
//!
//! Each cell is the median over budgets (0.25, 0.5, 0.7 of the teacher) and seeds, and the worst; `n of m` means that only n runs
//! proved all their solutions within the time limit.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a benchmark prints, and may stop at anything odd

mod generate;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Instant;

use generate::Family;
use lana_select::{Outcome, Problem, pareto, solve};

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

/// Title, solutions, and the gap as a share of the best score.
const CASES: [(&str, usize, f64); 6] = [
    ("first", 1, 0.0),
    ("K=10", 10, 0.0),
    ("K=20", 20, 0.0),
    ("K=20 gap 0.1 %", 20, 0.001),
    ("K=100 gap 0.2 %", 100, 0.002),
    ("K=100 gap 0.1 %", 100, 0.001),
];

struct Options {
    names: Vec<String>,
    seeds: u64,
    /// Seconds that one run may take.
    limit: f64,
    threads: NonZeroUsize,
    dump: Option<PathBuf>,
    problems: Vec<PathBuf>,
}

fn options() -> Options {
    let mut options = Options {
        names: Vec::new(),
        seeds: 3,
        limit: 20.0,
        threads: NonZeroUsize::MIN,
        dump: None,
        problems: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} needs a value"));
        match argument.as_str() {
            "--bench" => {} // from cargo
            "--seeds" => options.seeds = value().parse().unwrap(),
            "--limit" => options.limit = value().parse().unwrap(),
            "--threads" => options.threads = value().parse().unwrap(),
            "--dump" => options.dump = Some(value().into()),
            "--problem" => options.problems.push(value().into()),
            _ => options.names.push(argument),
        }
    }
    options
}

fn run(problem: &Problem, solutions: usize, gap: f64, options: &Options) -> Outcome {
    let mut problem = problem.clone();
    problem.solutions = solutions;
    problem.gap = gap;
    problem.time_limit_s = Some(options.limit);
    problem.threads = Some(options.threads);
    solve(&problem).unwrap()
}

/// What one case took, over several problems.
#[derive(Default)]
struct Cell {
    seconds: Vec<f64>,
    proven: usize,
}

impl Cell {
    fn add(&mut self, seconds: f64, proven: bool) {
        self.seconds.push(seconds);
        self.proven += usize::from(proven);
    }

    fn show(&self) -> String {
        let mut sorted = self.seconds.clone();
        sorted.sort_by(f64::total_cmp);
        let (median, worst) = (sorted[sorted.len() / 2], sorted[sorted.len() - 1]);
        let time = format!("{} ({})", duration(median), duration(worst));
        if self.proven == sorted.len() { time } else { format!("{time} {} of {}", self.proven, sorted.len()) }
    }
}

fn duration(seconds: f64) -> String {
    if seconds < 0.1 { format!("{:.1} ms", 1e3 * seconds) } else { format!("{seconds:.2} s") }
}

fn bench(title: &str, problems: &[(String, Problem)], options: &Options) {
    let mut cells: Vec<Cell> = CASES.iter().map(|_| Cell::default()).collect();
    let mut curve = Cell::default();
    for (name, problem) in problems {
        let mut first = 0.0;
        let mut rows = Vec::new();
        for ((case, solutions, gap), cell) in CASES.iter().zip(&mut cells) {
            let outcome = run(problem, *solutions, gap * first, options);
            let proven = outcome.solutions.len() == *solutions && outcome.solutions.iter().all(|s| s.proven);
            let scores: Vec<f64> = outcome.solutions.iter().map(|s| s.score).collect();
            first = scores.first().copied().unwrap_or(0.0).abs();
            cell.add(outcome.elapsed_s, proven);
            rows.push(serde_json::json!({"case": case, "seconds": outcome.elapsed_s, "proven": proven, "scores": scores}));
        }
        let unlimited = Problem { budgets: Default::default(), ..problem.clone() };
        let start = Instant::now();
        let points = pareto(&unlimited, "latency_ms").map_or(0, |curve| curve.points().len());
        curve.add(start.elapsed().as_secs_f64(), points > 0);
        if let Some(folder) = &options.dump {
            write(folder, name, &serde_json::json!({"problem": problem, "ours": rows}));
        }
    }
    let cells: Vec<String> = cells.iter().chain([&curve]).map(Cell::show).collect();
    println!("| {title} | {} |", cells.join(" | "));
}

fn write(folder: &Path, name: &str, value: &serde_json::Value) {
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join(format!("{name}.json")), value.to_string()).unwrap();
}

/// The most memory this process has held so far, where the system tells.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM"))?;
    Some(line.trim_start_matches("VmHWM:").trim().to_owned())
}

fn main() {
    let options = options();
    let titles: Vec<&str> = CASES.iter().map(|(title, ..)| *title).chain(["Pareto curve"]).collect();
    println!("median (worst); at most {} s a run, {} thread(s)", options.limit, options.threads);
    println!("| problem | {} |", titles.join(" | "));
    println!("|---{}|", "|---".repeat(titles.len()));
    for file in &options.problems {
        let problem: Problem = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        bench(&name, &[(name.clone(), problem)], &options);
    }
    for family in FAMILIES {
        let title = family.to_string();
        let wanted = options.names.iter().any(|name| title.contains(name.as_str()));
        let none = options.names.is_empty() && options.problems.is_empty();
        if !wanted && !none {
            continue;
        }
        let mut problems = Vec::new();
        for share in [0.25, 0.5, 0.7] {
            for seed in 0..options.seeds {
                let name = format!("{title} {share} {seed}").replace([' ', ','], "_").replace('%', "pc");
                problems.push((name, family.problem(share, seed)));
            }
        }
        bench(&title, &problems, &options);
    }
    if let Some(memory) = peak_memory() {
        println!("\npeak memory {memory}");
    }
}
