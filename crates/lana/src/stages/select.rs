//! Phase 2: the integer program under the budget, its K diverse solutions really evaluated and really timed.
//!
//! Summed scores are optimistic once many layers change, and a table is good to some percent at best. So the program only
//! proposes: each solution is assembled and its loss computed on the scoring images (with batch statistics, as the paper
//! does), each is exported and timed beside the teacher. What the timings teach corrects the table, and the program is
//! solved again until solutions meet the budget when measured and use what it allows. The least loss among those wins.

use std::collections::BTreeMap;

use lana_graph::{Graph, Weights};
use lana_latency::{Model, Table, measure};
use lana_select::{Choice, Layer, Outcome, Problem, Status};
use lana_torch::{Batch, BatchNorm, Evaluation, Network};
use rayon::prelude::*;

use crate::context::{Context, Teacher};
use crate::stages::export::{fits, fits_size, measure_options, to_measured};
use crate::stages::{profile, score};
use crate::{
    Amount, Budget, Candidate, Candidates, Error, Measured, Quantity, Result, Scores, Solutions,
    read_or_redo, write_json,
};

/// A table that predicts measured networks this well (mean relative error) needs no further round.
const GOOD_ENOUGH: f64 = 0.01;

/// Selects for a budget, unless that is done.
pub(crate) fn run(context: &Context<'_>, budget: &Budget) -> Result<()> {
    if stored(context, budget)?.is_some() {
        return Ok(());
    }
    let (teacher, _) = context.teacher()?;
    let scores = score::run(context)?;
    let mut table =
        profile::stored(context)?.ok_or_else(|| context.not_ready("the latency table", "profile"))?;
    let images = score::scoring_images(context, &teacher)?;
    let config = &context.config.select;
    let limit_ms = budget.latency().map(|amount| match amount {
        Amount::Relative(share) => share * table.teacher_ms(),
        Amount::Absolute(ms) => ms,
    });
    let folder = context.run.budget_dir(budget);
    let title = format!("select {budget}");
    let mut candidates: Vec<Candidate> = Vec::new();
    let mut correction = 1.0;
    context.progress.begin(&title, (config.rounds * config.solutions) as u64, "candidates");
    for round in 0..config.rounds {
        let known: Vec<Vec<String>> = candidates.iter().map(|c| c.choices.clone()).collect();
        let problem = problem(context, budget, &teacher, &scores, &table)?;
        let outcome = lana_select::solve(&problem)?;
        if outcome.status == Status::Infeasible {
            // What the corrected table calls out of reach may have been reached by measurement.
            if candidates.iter().any(|c| c.meets_budget) {
                break;
            }
            return Err(infeasible(budget, &problem, &outcome, &table));
        }
        write_json(&folder.join("solutions.json"), &Solutions { problem, outcome: outcome.clone() })?;
        let fresh: Vec<(usize, &lana_select::Solution)> =
            outcome.solutions.iter().enumerate().filter(|(_, s)| !known.contains(&s.choices)).collect();
        if fresh.is_empty() {
            break;
        }
        let new = examine(context, budget, &teacher, &table, &images, round, &fresh)?;
        candidates.extend(new);
        let measured: Vec<(Vec<String>, f64)> =
            candidates.iter().map(|c| (c.choices.clone(), c.measured.ratio * table.teacher_ms())).collect();
        let last: Vec<&Candidate> = candidates.iter().filter(|c| c.round == round).collect();
        correction = mean(last.iter().map(|c| c.measured.ratio * table.teacher_ms() / c.predicted_ms));
        let error =
            mean(last.iter().map(|c| (c.predicted_ms / (c.measured.ratio * table.teacher_ms()) - 1.0).abs()));
        let inside = last.iter().filter(|c| c.meets_budget).count();
        let rank = rank_correlation(&last);
        context.progress.advance(candidates.len() as u64, &format!("{inside} of {} fit", last.len()));
        context.progress.say(&format!(
            "{title}: round {}: {inside} of {} solutions meet the budget when measured; the table was off by {:.1} % on average",
            round + 1,
            last.len(),
            100.0 * error
        ));
        context.run.event(
            &title,
            serde_json::json!({"round": round, "solutions": last.len(), "meet": inside, "table_error": error,
                "measured_over_predicted": correction, "score_rank_correlation": rank,
                "best_loss": last.iter().map(|c| c.loss).fold(f64::INFINITY, f64::min)}),
        )?;
        if inside > 0 && (error < GOOD_ENOUGH || limit_ms.is_none()) {
            break;
        }
        table.correct(&measured)?;
    }
    let winner = settle(context, budget, &teacher, &mut candidates, limit_ms)?;
    let result = Candidates { budget: budget.to_string(), limit_ms, candidates, winner, correction };
    write_json(&folder.join("candidates.json"), &result)?;
    let best = &result.candidates[winner];
    context
        .progress
        .finish(&format!("loss {:.3} at {:.3} of the teacher's latency", best.loss, best.measured.ratio));
    Ok(())
}

/// The selection that was made for a budget.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<Candidates>> {
    let path = context.run.budget_dir(budget).join("candidates.json");
    Ok(read_or_redo::<Candidates>(&path, context.progress)?.filter(|c| c.winner < c.candidates.len()))
}

/// The student that a selection describes, with the weights of phase 1.
pub(crate) fn assemble(
    context: &Context<'_>,
    teacher: &Teacher,
    choices: &[String],
) -> Result<(Graph, Weights)> {
    let pool = context.pool(&teacher.graph)?;
    let library = score::trained(context, &pool)?;
    Assembler { teacher, library: &library }.assemble(choices)
}

struct Assembler<'a> {
    teacher: &'a Teacher,
    library: &'a [score::Trained],
}

impl Assembler<'_> {
    fn assemble(&self, choices: &[String]) -> Result<(Graph, Weights)> {
        let mut graph = self.teacher.graph.clone().renamed(format!("{}-student", self.teacher.graph.name()));
        let mut weights = self.teacher.weights.clone();
        for (index, (layer, choice)) in self.teacher.graph.layers().iter().zip(choices).enumerate() {
            if choice == "teacher" {
                continue;
            }
            let trained =
                self.library.iter().find(|t| t.layer == index && t.name == *choice).ok_or_else(|| {
                    Error::input(
                        format!("{}: the selected operation `{choice}` has no trained weights", layer.name),
                        "delete the budget's folder and give the same command again",
                    )
                })?;
            graph = graph.replace(&layer.name, &trained.graph)?;
            weights.replace_under(&layer.name, &trained.weights);
        }
        Ok((graph, weights))
    }
}

/// The integer program: one operation a layer, least total score, within every limit.
fn problem(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
    scores: &Scores,
    table: &Table,
) -> Result<Problem> {
    let pool = context.pool(&teacher.graph)?;
    let by_kl = context.config.score.by == "kl";
    let mut layers = Vec::new();
    for place in &pool {
        let mut choices = Vec::new();
        let own = std::iter::once(("teacher", place.graph.cost(), 0.0));
        let others = place.operations.iter().filter_map(|(operation, graph)| {
            let score = scores.layers.get(&place.layer)?.get(operation.name())?;
            let value = if by_kl { score.kl.mean } else { score.loss.mean };
            Some((operation.name(), graph.cost(), value))
        });
        for (name, cost, score) in own.chain(others) {
            let Some(latency) = table.cost(&place.layer, name) else { continue };
            let costs = BTreeMap::from([
                (Quantity::Latency.cost_name().to_string(), latency),
                (Quantity::Params.cost_name().to_string(), cost.params as f64),
                (Quantity::Macs.cost_name().to_string(), cost.macs as f64),
            ]);
            choices.push(Choice { name: name.to_string(), score, costs });
        }
        layers.push(Layer { name: place.layer.clone(), choices });
    }
    let whole = teacher.graph.cost();
    let in_layers = pool.iter().map(|l| l.graph.cost()).fold((0, 0), |s, c| (s.0 + c.params, s.1 + c.macs));
    let mut budgets = BTreeMap::new();
    for limit in budget.limits() {
        let (total, fixed) = match limit.quantity {
            Quantity::Latency => (table.teacher_ms(), table.fixed_ms),
            Quantity::Params => (whole.params as f64, (whole.params - in_layers.0) as f64),
            Quantity::Macs => (whole.macs as f64, (whole.macs - in_layers.1) as f64),
        };
        let mut max = match limit.amount {
            Amount::Relative(share) => share * total,
            Amount::Absolute(amount) => amount,
        };
        if limit.quantity == Quantity::Latency {
            max *= 1.0 - context.config.latency.margin;
        }
        budgets.insert(
            limit.quantity.cost_name().to_string(),
            lana_select::Budget { min: None, max: Some(max - fixed) },
        );
    }
    let config = &context.config.select;
    Ok(Problem {
        solutions: config.solutions,
        max_overlap: config.max_overlap,
        time_limit_s: Some(config.time_limit_s),
        ..Problem::new(layers, budgets)
    })
}

/// The message for a budget out of reach, in whole-network terms.
fn infeasible(budget: &Budget, problem: &Problem, outcome: &Outcome, table: &Table) -> Error {
    let latency = Quantity::Latency.cost_name();
    let binding = outcome.infeasible.as_ref();
    let message = match binding {
        Some(i) if i.budget == latency && i.together_with.is_empty() => {
            let least = problem.smallest_reachable(latency).unwrap_or(f64::NAN) + table.fixed_ms;
            format!(
                "no selection meets {budget}: the smallest reachable latency is {least:.3} ms ({:.3}x of the teacher's {:.3} ms); \
                 layer `{}` binds: its cheapest operation, `{}`, takes {:.3} ms; {:.3} ms are outside of all layers",
                least / table.teacher_ms(),
                table.teacher_ms(),
                i.layer,
                i.choice,
                i.layer_cost,
                table.fixed_ms,
            )
        }
        Some(i) => format!("no selection meets {budget}: {}", i.message),
        None => format!("no selection meets {budget}"),
    };
    Error::Infeasible {
        message,
        hint: "ask for a larger budget, or widen the pool with faster operations (--pool)".into(),
    }
}

/// Assembles, evaluates and times solutions.
fn examine(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
    table: &Table,
    images: &[Batch],
    round: usize,
    solutions: &[(usize, &lana_select::Solution)],
) -> Result<Vec<Candidate>> {
    let pool = context.pool(&teacher.graph)?;
    let library = score::trained(context, &pool)?;
    let assembler = Assembler { teacher, library: &library };
    let networks =
        solutions.iter().map(|(_, s)| assembler.assemble(&s.choices)).collect::<Result<Vec<_>>>()?;
    let evaluated = evaluate(context, &networks, images)?;
    let measured = time(context, teacher, &networks, 60.0)?;
    solutions
        .iter()
        .zip(&networks)
        .zip(evaluated.into_iter().zip(measured))
        .map(|(((rank, solution), (graph, _)), (evaluation, measured))| {
            Ok(Candidate {
                round,
                rank: *rank,
                choices: solution.choices.clone(),
                score: solution.score,
                predicted_ms: table.predict(&solution.choices)?,
                loss: evaluation.loss(),
                top1: evaluation.top1(),
                measured,
                cost: graph.cost(),
                meets_budget: fits(context, budget, &measured) && fits_size(budget, graph, &teacher.graph),
            })
        })
        .collect()
}

/// Real loss of assembled networks, different networks on different threads.
fn evaluate(
    context: &Context<'_>,
    networks: &[(Graph, Weights)],
    images: &[Batch],
) -> Result<Vec<Evaluation>> {
    let tasks: Vec<_> =
        networks.iter().map(|n| (n, images.iter().map(Batch::share).collect::<Vec<_>>())).collect();
    let results: Vec<Result<Evaluation>> = context.threads.install(|| {
        tasks
            .into_par_iter()
            .with_max_len(1)
            .map(|((graph, weights), images)| {
                let network = Network::new(graph, weights, context.device)?;
                let mut evaluation = Evaluation::default();
                for batch in &images {
                    evaluation.add(&network, batch, BatchNorm::Batch)?;
                }
                Ok(evaluation)
            })
            .collect()
    });
    results.into_iter().collect()
}

/// Latencies of networks measured in turns with the teacher.
fn time(
    context: &Context<'_>,
    teacher: &Teacher,
    networks: &[(Graph, Weights)],
    seconds: f64,
) -> Result<Vec<Measured>> {
    let mut models = vec![Model::from_graph("teacher", &teacher.graph, &teacher.weights)?];
    for (index, (graph, weights)) in networks.iter().enumerate() {
        models.push(Model::from_graph(format!("candidate {index}"), graph, weights)?);
    }
    let figures = measure(&models, &measure_options(context, seconds))?;
    Ok(figures[1..].iter().map(to_measured).collect())
}

/// The candidate with the least loss that meets the budget, each in turn measured once more by itself with the teacher:
/// among many noisy timings the one that just fits is likely to have been lucky.
fn settle(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
    candidates: &mut [Candidate],
    limit_ms: Option<f64>,
) -> Result<usize> {
    let mut order: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].meets_budget).collect();
    order.sort_by(|&a, &b| candidates[a].loss.total_cmp(&candidates[b].loss));
    for &index in &order {
        if limit_ms.is_none() {
            return Ok(index);
        }
        let network = assemble(context, teacher, &candidates[index].choices)?;
        let measured = time(context, teacher, &[network], 15.0)?[0];
        candidates[index].measured = measured;
        candidates[index].meets_budget =
            fits(context, budget, &tightened(&measured, context.config.latency.margin / 2.0))
                && candidates[index].meets_budget;
        if candidates[index].meets_budget {
            return Ok(index);
        }
    }
    let nearest = candidates.iter().min_by(|a, b| a.measured.ratio.total_cmp(&b.measured.ratio));
    Err(Error::Infeasible {
        message: format!(
            "no solution met {budget} when measured; the fastest of {} measured took {}",
            candidates.len(),
            nearest.map_or("nothing".to_string(), |c| format!(
                "{:.3} ms ({:.3}x of the teacher)",
                c.measured.median_ms, c.measured.ratio
            ))
        ),
        hint: "ask for a slightly larger budget, or give more rounds (select.rounds) on a quieter machine"
            .into(),
    })
}

/// The measurement as it would be with the latency larger by a share.
fn tightened(measured: &Measured, share: f64) -> Measured {
    Measured {
        median_ms: measured.median_ms * (1.0 + share),
        ratio: measured.ratio * (1.0 + share),
        ..*measured
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0usize), |(s, n), v| (s + v, n + 1));
    sum / count.max(1) as f64
}

/// Kendall's tau between summed score and real loss: how far the program's objective can be trusted.
fn rank_correlation(candidates: &[&Candidate]) -> f64 {
    let (mut agree, mut pairs) = (0i64, 0i64);
    for (i, a) in candidates.iter().enumerate() {
        for b in &candidates[i + 1..] {
            let product = (a.score - b.score) * (a.loss - b.loss);
            if product != 0.0 {
                agree += if product > 0.0 { 1 } else { -1 };
                pairs += 1;
            }
        }
    }
    agree as f64 / pairs.max(1) as f64
}
