//! Does it matter that the selection is proven to be the best, and can the scores be trusted? A study on a run's own tables:
//! the same budget spent by the integer program on several kinds of scores, by a rule of thumb and by chance, each network
//! assembled and really evaluated, and how well each kind of score ranks them.

use std::collections::BTreeMap;
use std::path::Path;

use lana_latency::kendall;
use lana_select::{Problem, Solution};
use serde::{Deserialize, Serialize};

use super::around;
use crate::context::Context;
use crate::program::Program;
use crate::stages::library::Library;
use crate::stages::{depth, profile, score, select};
use crate::{Budget, Progress, Result, controls};

/// How much a study looks at.
#[derive(Clone, Debug, PartialEq)]
pub struct StudyOptions {
    /// Solutions of the integer program.
    pub solutions: usize,
    /// Random selections within the budget.
    pub random: usize,
    /// Training images for the loss; others than those of the scores, but for chance.
    pub images: usize,
    /// Steps of scores measured again around the best selection; with none, pairs of layers aren't measured either.
    pub around: usize,
    /// Share of their layer's multiply-accumulates that operations have at least.
    pub floor: f64,
}

impl Default for StudyOptions {
    fn default() -> Self {
        StudyOptions { solutions: 100, random: 100, images: 2000, around: 0, floor: 0.0 }
    }
}

/// A kind of scores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScoreKind {
    /// Divergence from the teacher, each operation alone.
    Kl,
    /// Change of the loss, each operation alone.
    Loss,
    /// Divergence, that of the identity the mean of alone and given other identities: what selection goes by.
    KlByDepth,
    /// Change of the loss, likewise.
    LossByDepth,
}

impl ScoreKind {
    /// All of them.
    pub const ALL: [ScoreKind; 4] =
        [ScoreKind::Kl, ScoreKind::Loss, ScoreKind::KlByDepth, ScoreKind::LossByDepth];

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            ScoreKind::Kl => "KL alone",
            ScoreKind::Loss => "loss alone",
            ScoreKind::KlByDepth => "KL by depth",
            ScoreKind::LossByDepth => "loss by depth",
        }
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
    /// Least, mean and greatest cross-entropy of the assembled networks, before fine-tuning, with batch statistics.
    pub loss: [f64; 3],
    /// Share of images that the network with the least loss gets right.
    pub top1: f64,
    /// Kendall's tau between summed score and that cross-entropy, for each of [`ScoreKind::ALL`].
    pub tau: [f64; 4],
}

/// A selection that was looked at.
struct Seen {
    /// Its sum of scores, for each kind.
    sums: [f64; 4],
    loss: f64,
    top1: f64,
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
    let library = Library::of(&context, &teacher, &pool)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    let scoring = score::scoring_images(&context, &teacher)?;
    let mut by_loss = context.config.clone();
    by_loss.score.by = "loss".into();
    let mut by_kl = context.config.clone();
    by_kl.score.by = "kl".into();
    let own_images = std::mem::replace(&mut context.config.score.images, options.images);
    let own_seed = context.config.seed;
    context.config.seed = own_seed.wrapping_add(1);
    let images = score::scoring_images(&context, &teacher)?;
    (context.config.seed, context.config.score.images) = (own_seed, own_images);
    let (mut rows, mut by_chance) = (Vec::new(), Vec::new());
    for budget in budgets {
        let of = |config| Program::new(config, budget, &record, teacher.graph.deployed_cost());
        let tables = select::tables(&context, budget)?;
        let own = of(&context.config).above(options.floor);
        let by_depth = depth::aware(&context, &library, &own, budget, &tables, &scores, &scoring)?;
        let problem = |kind: ScoreKind| -> Result<Problem> {
            let (config, scores) = match kind {
                ScoreKind::Kl => (&by_kl, &scores),
                ScoreKind::Loss => (&by_loss, &scores),
                ScoreKind::KlByDepth => (&by_kl, &by_depth),
                ScoreKind::LossByDepth => (&by_loss, &by_depth),
            };
            let mut problem = of(config).problem(Some(scores), &tables, 1.0)?;
            let teacher = vec!["teacher".to_string(); problem.layers.len()];
            for (index, layer) in problem.layers.iter_mut().enumerate() {
                let mut alone = teacher.clone();
                layer.choices.retain(|choice| {
                    alone[index].clone_from(&choice.name);
                    own.thinnest(&alone) >= options.floor
                });
            }
            Ok(Problem { solutions: options.solutions, ..problem })
        };
        let problems = ScoreKind::ALL.into_iter().map(problem).collect::<Result<Vec<_>>>()?;
        let first = &problems[0];
        let by_latency_alone = first.budgets.keys().eq([LATENCY]);
        if !by_latency_alone
            || !first.caps.is_empty()
            || !first.forbidden.is_empty()
            || !first.forced.is_empty()
        {
            return Err(crate::Error::input(
                format!("budget {budget}: a study compares selections under a latency budget alone"),
                "leave out other limits and rules",
            ));
        }
        let mut ways: Vec<(String, Vec<Vec<String>>)> = Vec::new();
        for (kind, problem) in ScoreKind::ALL.into_iter().zip(&problems) {
            let best = lana_select::solve(&Problem { solutions: 1, gap: 0.0, ..problem.clone() })?;
            let Some(best) = best.solutions.first() else {
                return Err(of(&context.config).infeasible(problem, &best, &tables));
            };
            let gap = 1e-3 * best.score.abs();
            let mut solved: Vec<Vec<String>> = lana_select::solve(&Problem { gap, ..problem.clone() })?
                .solutions
                .into_iter()
                .map(|s: Solution| s.choices)
                .collect();
            if let Some(own) = solved.first_mut() {
                own.clone_from(&best.choices);
            }
            ways.push((format!("the program's first, {}", kind.words()), solved[..1].to_vec()));
            ways.push((format!("best of K = {}, {}", solved.len(), kind.words()), solved));
        }
        ways.push(("greedy, KL per latency".into(), greedy(first).into_iter().collect()));
        if options.around > 0 {
            let (kind, problem) = (ScoreKind::KlByDepth.words(), &problems[ScoreKind::KlByDepth as usize]);
            let measure = |selections: &[Vec<String>]| -> Result<Vec<f64>> {
                let selections: Vec<&[String]> = selections.iter().map(Vec::as_slice).collect();
                let answers = library.answers(&context, &selections, &scoring)?;
                let mean = |all: &[f32]| all.iter().map(|v| f64::from(*v)).sum::<f64>() / all.len() as f64;
                Ok(answers.iter().map(|answers| mean(&answers.divergences)).collect())
            };
            let solved = ways.iter().rfind(|(way, _)| way.ends_with(kind)).map(|(_, way)| way.clone());
            let solved = solved.unwrap_or_default();
            let values = measure(&solved)?;
            let best = solved.iter().zip(values).min_by(|a, b| a.1.total_cmp(&b.1));
            let best = best.map_or(&[][..], |(best, _)| best);
            let again = around::linearised(problem, best, options.around, &measure)?;
            let climbed = around::climbed(problem, best, &again.measured, &measure)?;
            let pairs = around::with_pairs(problem, &solved, &measure)?;
            for (name, trail) in [
                ("scores measured again around the best", again),
                ("near the best by the scores as they are", climbed),
                ("with pairs of neighbouring layers", pairs),
            ] {
                let measured = trail.measured.iter().map(usize::to_string).collect::<Vec<_>>().join(" + ");
                ways.push((format!("{name}, {kind}, {measured} measured"), trail.selections));
            }
        }
        let drawn = controls::random(first, 0.95, options.random, own_seed.wrapping_add(1))?;
        ways.push(("random".into(), drawn.into_iter().map(|solution| solution.choices).collect()));

        let mut all: Vec<&[String]> = ways.iter().flat_map(|(_, way)| way).map(Vec::as_slice).collect();
        all.sort_unstable();
        all.dedup();
        let mut seen: BTreeMap<&[String], Seen> = BTreeMap::new();
        progress.begin(&format!("study {budget}"), all.len() as u64, "networks");
        // A few at a time, so that there is something to see.
        for chunk in all.chunks(32) {
            for (choices, answers) in chunk.iter().zip(library.answers(&context, chunk, &images)?) {
                let sums = std::array::from_fn(|kind| sum(&problems[kind], choices));
                let (loss, top1) = (answers.evaluation.loss(), answers.evaluation.top1());
                seen.insert(*choices, Seen { sums, loss, top1 });
            }
            progress.advance(seen.len() as u64, "");
        }
        progress.finish("evaluated");
        for (method, way) in &ways {
            let looked: Vec<&Seen> = way.iter().filter_map(|choices| seen.get(choices.as_slice())).collect();
            rows.extend(row(&budget.to_string(), method, &looked));
        }
        let random = ways.last().into_iter().flat_map(|(_, way)| way);
        by_chance.extend(random.filter_map(|choices| seen.remove(choices.as_slice())));
    }
    if budgets.len() > 1 {
        let all: Vec<&Seen> = by_chance.iter().collect();
        rows.extend(row("all", "random", &all));
    }
    Ok(rows)
}

fn row(budget: &str, method: &str, looked: &[&Seen]) -> Option<StudyRow> {
    let best = looked.iter().min_by(|a, b| a.loss.total_cmp(&b.loss))?;
    let losses: Vec<f64> = looked.iter().map(|seen| seen.loss).collect();
    let tau = |kind: usize| kendall(&looked.iter().map(|s| (s.sums[kind], s.loss)).collect::<Vec<_>>());
    Some(StudyRow {
        budget: budget.into(),
        method: method.into(),
        selections: looked.len(),
        loss: spread(&losses),
        top1: best.top1,
        tau: std::array::from_fn(tau),
    })
}

fn spread(values: &[f64]) -> [f64; 3] {
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    [least, values.iter().sum::<f64>() / values.len().max(1) as f64, most]
}

pub(super) const LATENCY: &str = "latency_ms";

pub(super) fn limit(problem: &Problem) -> f64 {
    problem.budgets.get(LATENCY).and_then(|budget| budget.max).unwrap_or(f64::INFINITY)
}

fn sum(problem: &Problem, choices: &[String]) -> f64 {
    let pairs = problem.layers.iter().zip(choices);
    pairs.filter_map(|(layer, name)| layer.choices.iter().find(|c| c.name == *name)).map(|c| c.score).sum()
}

/// Latency of choices by index.
pub(super) fn latency(problem: &Problem, selection: &[usize]) -> f64 {
    let pairs = problem.layers.iter().zip(selection);
    pairs.map(|(layer, &choice)| layer.choices[choice].costs.get(LATENCY).copied().unwrap_or(0.0)).sum()
}

pub(super) fn names(problem: &Problem, selection: &[usize]) -> Vec<String> {
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

/// The rows as a Markdown table.
pub fn study_table(rows: &[StudyRow]) -> String {
    let mut text = String::from(
        "| budget | selection | networks | loss of the best | mean | worst | top-1 of the best |",
    );
    let taus = ScoreKind::ALL.iter().map(|kind| format!(" tau, {} |", kind.words())).collect::<String>();
    text += &format!("{taus}\n|{}\n", "---|".repeat(7 + ScoreKind::ALL.len()));
    for row in rows {
        let StudyRow { budget, method, selections, loss: [least, mean, worst], .. } = row;
        let top1 = 100.0 * row.top1;
        text += &format!(
            "| {budget} | {method} | {selections} | {least:.3} | {mean:.3} | {worst:.3} | {top1:.1} % |"
        );
        for tau in row.tau {
            text += &if *selections > 2 { format!(" {tau:.2} |") } else { " |".into() };
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::problem;

    #[test]
    fn greedy_takes_the_cheapest_exchange_first() {
        assert_eq!(greedy(&problem()).unwrap(), ["half", "half", "half", "teacher"]);
    }
}
