//! Does it matter that the selection is proven to be the best? A study on a run's own tables: the same budget spent by the
//! integer program, by a rule of thumb and by chance, each network assembled and really evaluated.

use std::path::Path;

use lana_graph::{Graph, Weights};
use lana_select::{Problem, Solution};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::program::Program;
use crate::stages::{profile, score, select};
use crate::{Budget, Progress, Result};

/// How much a study looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StudyOptions {
    /// Solutions of the integer program.
    pub solutions: usize,
    /// Random selections within the budget.
    pub random: usize,
    /// Training images for the loss; others than those of the scores, but for chance.
    pub images: usize,
}

impl Default for StudyOptions {
    fn default() -> Self {
        StudyOptions { solutions: 100, random: 100, images: 2000 }
    }
}

/// One way of selecting under one budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudyRow {
    /// The budget.
    pub budget: String,
    /// The way.
    pub method: String,
    /// Selections looked at.
    pub selections: usize,
    /// Least, mean and greatest sum of scores.
    pub score: [f64; 3],
    /// Least, mean and greatest cross-entropy of the assembled networks, before fine-tuning, with batch statistics.
    pub loss: [f64; 3],
    /// Share of images that the network with the least loss gets right.
    pub top1: f64,
}

/// Evaluates several ways of selecting on a run that has scores and a latency table.
///
/// # Errors
/// If the run has no scores or table yet, or a budget is out of reach.
pub fn study(
    run: &Path,
    budgets: &[Budget],
    options: &StudyOptions,
    progress: &dyn Progress,
) -> Result<Vec<StudyRow>> {
    let mut context = Context::open(run, progress)?;
    let (teacher, _) = context.teacher()?;
    let scores = score::run(&context)?;
    let pool = context.pool(&teacher.graph)?;
    let library = score::trained(&context, &pool)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    context.config.score.images = options.images;
    context.config.seed = context.config.seed.wrapping_add(1);
    let images = score::scoring_images(&context, &teacher)?;
    let mut rows = Vec::new();
    for budget in budgets {
        let program = Program {
            config: &context.config,
            budget,
            pool: &record,
            teacher: teacher.graph.deployed_cost(),
        };
        let tables = select::tables(&context, budget)?;
        let mut problem = program.problem(Some(&scores), &tables, 1.0)?;
        problem.solutions = options.solutions;
        let by_latency_alone = problem.budgets.keys().eq([LATENCY]);
        if !by_latency_alone
            || !problem.caps.is_empty()
            || !problem.forbidden.is_empty()
            || !problem.forced.is_empty()
        {
            return Err(crate::Error::input(
                format!("budget {budget}: a study compares selections under a latency budget alone"),
                "leave out other limits and rules",
            ));
        }
        let best = lana_select::solve(&Problem { solutions: 1, gap: 0.0, ..problem.clone() })?;
        let Some(first) = best.solutions.first() else {
            return Err(program.infeasible(&problem, &best, &tables));
        };
        problem.gap = 1e-3 * first.score.abs();
        let mut solved: Vec<Vec<String>> =
            lana_select::solve(&problem)?.solutions.into_iter().map(|s: Solution| s.choices).collect();
        if let Some(own) = solved.first_mut() {
            own.clone_from(&first.choices);
        }
        let greedy: Vec<Vec<String>> = greedy(&problem).into_iter().collect();
        let random = random(&problem, &first.choices, options.random, context.config.seed);
        let all: Vec<&Vec<String>> = solved.iter().chain(&greedy).chain(&random).collect();
        let (mut losses, mut hits) = (Vec::new(), Vec::new());
        progress.begin(&format!("study {budget}"), all.len() as u64, "networks");
        // A few at a time: assembled networks take memory.
        for chunk in all.chunks(16) {
            let assemble = |choices: &&Vec<String>| select::assemble_from(&library, &teacher, choices);
            let networks = chunk.iter().map(assemble).collect::<Result<Vec<(Graph, Weights)>>>()?;
            for evaluation in select::evaluate(&context, &networks, &images)? {
                losses.push(evaluation.loss());
                hits.push(evaluation.top1());
            }
            progress.advance(losses.len() as u64, "");
        }
        progress.finish("evaluated");
        let mut add = |method: String, range: std::ops::Range<usize>| {
            if range.is_empty() {
                return;
            }
            let sums: Vec<f64> = all[range.clone()].iter().map(|choices| sum(&problem, choices)).collect();
            let best = range.clone().min_by(|&a, &b| losses[a].total_cmp(&losses[b])).unwrap_or(range.start);
            rows.push(StudyRow {
                budget: budget.to_string(),
                method,
                selections: range.len(),
                score: spread(&sums),
                loss: spread(&losses[range]),
                top1: hits[best],
            });
        };
        add("the program's first".into(), 0..1);
        add("best of the first 10".into(), 0..solved.len().min(10));
        add(format!("best of K = {}", solved.len()), 0..solved.len());
        let (after_greedy, end) = (solved.len() + greedy.len(), all.len());
        add("greedy, score per latency".into(), solved.len()..after_greedy);
        add(format!("random ({})", random.len()), after_greedy..end);
    }
    Ok(rows)
}

fn spread(values: &[f64]) -> [f64; 3] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, values.iter().sum::<f64>() / values.len().max(1) as f64, most]
}

const LATENCY: &str = "latency_ms";

fn limit(problem: &Problem) -> f64 {
    problem.budgets.get(LATENCY).and_then(|budget| budget.max).unwrap_or(f64::INFINITY)
}

fn sum(problem: &Problem, choices: &[String]) -> f64 {
    let pairs = problem.layers.iter().zip(choices);
    pairs.filter_map(|(layer, name)| layer.choices.iter().find(|c| c.name == *name)).map(|c| c.score).sum()
}

/// Latency of choices by index.
fn latency(problem: &Problem, selection: &[usize]) -> f64 {
    let pairs = problem.layers.iter().zip(selection);
    pairs.map(|(layer, &choice)| layer.choices[choice].costs.get(LATENCY).copied().unwrap_or(0.0)).sum()
}

fn names(problem: &Problem, selection: &[usize]) -> Vec<String> {
    let pairs = problem.layers.iter().zip(selection);
    pairs.map(|(layer, &choice)| layer.choices[choice].name.clone()).collect()
}

/// From the teacher on, always the exchange that costs the least score for the time it saves, until the budget is met.
fn greedy(problem: &Problem) -> Option<Vec<String>> {
    let teacher = |layer: &lana_select::Layer| layer.choices.iter().position(|c| c.name == "teacher");
    let mut selection: Vec<usize> = problem.layers.iter().map(teacher).collect::<Option<_>>()?;
    while latency(problem, &selection) > limit(problem) {
        let mut best: Option<(f64, usize, usize)> = None;
        for (index, layer) in problem.layers.iter().enumerate() {
            let own = &layer.choices[selection[index]];
            for (choice, other) in layer.choices.iter().enumerate() {
                let saved = own.costs.get(LATENCY)? - other.costs.get(LATENCY)?;
                let price = (other.score - own.score) / saved;
                if saved > 0.0 && best.is_none_or(|(least, ..)| price < least) {
                    best = Some((price, index, choice));
                }
            }
        }
        let (_, layer, choice) = best?;
        selection[layer] = choice;
    }
    Some(names(problem, &selection))
}

/// Random selections that use 95 to 100 % of the budget: a random walk that changes up to two layers at a time, with a look
/// at it every few hundred steps.
fn random(problem: &Problem, start: &[String], count: usize, seed: u64) -> Vec<Vec<String>> {
    let index = |(layer, name): (&lana_select::Layer, &String)| {
        layer.choices.iter().position(|choice| choice.name == *name).unwrap_or(0)
    };
    let mut selection: Vec<usize> = problem.layers.iter().zip(start).map(index).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |end: usize| random.random_range(0..end);
    let steps = 20 * problem.layers.len();
    let mut found = Vec::new();
    while found.len() < count {
        for _ in 0..steps {
            let before = selection.clone();
            for _ in 0..2 {
                let layer = below(problem.layers.len());
                selection[layer] = below(problem.layers[layer].choices.len());
            }
            let now = latency(problem, &selection);
            if now > limit(problem) || now < 0.95 * limit(problem) {
                selection = before;
            }
        }
        found.push(names(problem, &selection));
    }
    found
}

/// The rows as a Markdown table.
pub fn study_table(rows: &[StudyRow]) -> String {
    let mut text = String::from(
        "| budget | selection | sum of scores | loss of the best | mean loss | worst | top-1 of the best |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        text += &format!(
            "| {} | {} | {:.3} … {:.3} | {:.3} | {:.3} | {:.3} | {:.1} % |\n",
            row.budget,
            row.method,
            row.score[0],
            row.score[2],
            row.loss[0],
            row.loss[1],
            row.loss[2],
            100.0 * row.top1
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lana_select::{Choice, Layer};

    use super::*;

    fn problem() -> Problem {
        let choice = |name: &str, score: f64, ms: f64| Choice {
            name: name.into(),
            score,
            costs: BTreeMap::from([(LATENCY.to_string(), ms)]),
        };
        let layer = |name: &str, scale: f64| Layer {
            name: name.into(),
            choices: vec![
                choice("teacher", 0.0, 4.0),
                choice("half", 0.1 * scale, 2.0),
                choice("identity", scale, 0.0),
            ],
        };
        let layers = vec![layer("a", 1.0), layer("b", 2.0), layer("c", 3.0), layer("d", 4.0)];
        let budget = lana_select::Budget { min: None, max: Some(10.0) };
        Problem::new(layers, BTreeMap::from([(LATENCY.to_string(), budget)]))
    }

    #[test]
    fn greedy_takes_the_cheapest_exchange_first() {
        assert_eq!(greedy(&problem()).unwrap(), ["half", "half", "half", "teacher"]);
    }

    #[test]
    fn random_selections_use_the_budget_and_differ() {
        let problem = problem();
        let start: Vec<String> = ["half", "half", "half", "teacher"].map(String::from).to_vec();
        let found = random(&problem, &start, 40, 1);
        assert_eq!(found, random(&problem, &start, 40, 1));
        let index = |choices: &Vec<String>| -> Vec<usize> {
            problem
                .layers
                .iter()
                .zip(choices)
                .map(|(layer, name)| layer.choices.iter().position(|c| c.name == *name).unwrap())
                .collect()
        };
        for choices in &found {
            let ms = latency(&problem, &index(choices));
            assert!((9.5..=10.0).contains(&ms), "{ms}");
        }
        let distinct: std::collections::BTreeSet<_> = found.iter().collect();
        assert!(distinct.len() > 3, "{distinct:?}");
    }
}
