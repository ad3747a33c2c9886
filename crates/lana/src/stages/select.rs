//! Phase 2: the integer program under the budget, its K diverse solutions really evaluated and really timed.
//!
//! Summed scores are optimistic once many layers change, and a table is good to some percent at best. So the program only
//! proposes: each solution is assembled and its loss computed on the scoring images (with batch statistics, as the paper
//! does), each is exported and timed beside the teacher. What the timings teach corrects the table, and the program is
//! solved again until solutions meet the budget when measured and use what it allows. The least loss among those wins.

use lana_graph::{Graph, Weights};
use lana_latency::{Model, Table, measure};
use lana_select::{Problem, Status};
use lana_torch::{Batch, BatchNorm, Evaluation, Network};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::context::{Context, Teacher};
use crate::program::{Program, settings};
use crate::stages::export::{fits, fits_size, measure_options, to_measured};
use crate::stages::{profile, score};
use crate::{
    Amount, Budget, Candidate, Candidates, Error, Measured, Result, Solutions, read_or_redo, write_json,
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
    let pool = context.pool(&teacher.graph)?;
    let library = score::trained(context, &pool)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &pool);
    let program =
        Program { config: &context.config, budget, pool: &record, teacher: teacher.graph.deployed_cost() };
    let work = Work { context, budget, teacher: &teacher, library: &library };
    let limit_ms = budget.latency().map(|amount| match amount {
        Amount::Relative(share) => share * table.teacher_ms(),
        Amount::Absolute(ms) => ms,
    });
    let folder = context.run.budget_dir(budget);
    let title = format!("select {budget}");
    let settings = settings(&context.config);
    let rounds_path = folder.join("rounds.json");
    let mut rounds = read_or_redo::<Rounds>(&rounds_path, context.progress)?
        .filter(|r| r.settings == settings)
        .unwrap_or(Rounds { settings: settings.clone(), candidates: Vec::new(), drift: 1.0 });
    let first = rounds.candidates.iter().map(|c| c.round + 1).max().unwrap_or(0);
    let mut correction = 1.0;
    context.progress.begin(&title, (config.rounds * config.solutions) as u64, "candidates");
    context.progress.advance(rounds.candidates.len() as u64, "");
    for round in first..config.rounds {
        if !rounds.candidates.is_empty() {
            table.correct(&on_table_scale(&rounds.candidates, &table))?;
        }
        let problem = program.problem(Some(&scores), &table, rounds.drift)?;
        let outcome = lana_select::solve(&problem)?;
        if outcome.status == Status::Infeasible {
            // What the corrected table calls out of reach may have been reached by measurement.
            if rounds.candidates.iter().any(|c| c.meets_budget) {
                break;
            }
            return Err(program.infeasible(&problem, &outcome, &table));
        }
        write_json(&folder.join("solutions.json"), &Solutions { problem, outcome: outcome.clone() })?;
        let is_new = |s: &lana_select::Solution| !rounds.candidates.iter().any(|c| c.choices == s.choices);
        let fresh: Vec<_> = outcome.solutions.iter().enumerate().filter(|(_, s)| is_new(s)).collect();
        if fresh.is_empty() {
            break;
        }
        let (new, teacher_now) = work.examine(&table, &images, round, &fresh)?;
        // A clock that runs otherwise than when the table was made moves what an absolute budget allows.
        rounds.drift = teacher_now / table.teacher_ms();
        rounds.candidates.extend(new);
        write_json(&rounds_path, &rounds)?;
        let last: Vec<&Candidate> = rounds.candidates.iter().filter(|c| c.round == round).collect();
        let ratio = |c: &&Candidate| c.measured.ratio * table.teacher_ms() / c.predicted_ms;
        correction = mean(last.iter().map(ratio));
        let error = mean(last.iter().map(|c| (1.0 / ratio(c) - 1.0).abs()));
        let inside = last.iter().filter(|c| c.meets_budget).count();
        context.progress.advance(rounds.candidates.len() as u64, &format!("{inside} of {} fit", last.len()));
        context.progress.say(&format!(
            "{title}: round {}: {inside} of {} solutions meet the budget when measured; the table was off by {:.1} % on average",
            round + 1,
            last.len(),
            100.0 * error
        ));
        context.run.event(
            &title,
            serde_json::json!({"round": round, "solutions": last.len(), "meet": inside, "table_error": error,
                "measured_over_predicted": correction, "score_rank_correlation": rank_correlation(&last),
                "best_loss": last.iter().map(|c| c.loss).fold(f64::INFINITY, f64::min)}),
        )?;
        if inside > 0 && (error < GOOD_ENOUGH || limit_ms.is_none()) {
            break;
        }
    }
    let mut candidates = rounds.candidates;
    let winner = work.settle(&mut candidates, limit_ms)?;
    let result =
        Candidates { budget: budget.to_string(), limit_ms, candidates, winner, correction, settings };
    write_json(&folder.join("candidates.json"), &result)?;
    let best = &result.candidates[winner];
    context
        .progress
        .finish(&format!("loss {:.3} at {:.3} of the teacher's latency", best.loss, best.measured.ratio));
    Ok(())
}

/// `budgets/BUDGET/rounds.json`: what has been evaluated so far, so that a killed selection goes on.
#[derive(Serialize, Deserialize)]
struct Rounds {
    settings: String,
    candidates: Vec<Candidate>,
    /// The teacher's latency now, as a multiple of that when the table was made.
    drift: f64,
}

/// The selection that was made for a budget, with the settings that hold.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<Candidates>> {
    let path = context.run.budget_dir(budget).join("candidates.json");
    let settings = settings(&context.config);
    Ok(read_or_redo::<Candidates>(&path, context.progress)?
        .filter(|c| c.winner < c.candidates.len() && c.settings == settings))
}

/// Whether anything that may be selected can meet a budget, before its operations are trained.
pub(crate) fn check_reachable(context: &Context<'_>, budget: &Budget, table: &Table) -> Result<()> {
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &pool);
    let program =
        Program { config: &context.config, budget, pool: &record, teacher: teacher.graph.deployed_cost() };
    let problem = Problem { solutions: 1, ..program.problem(None, table, 1.0)? };
    let outcome = lana_select::solve(&problem)?;
    match outcome.status {
        Status::Infeasible => Err(program.infeasible(&problem, &outcome, table)),
        _ => Ok(()),
    }
}

/// Measured networks as the table corrects itself by them: ratios times its own measurement of the teacher.
fn on_table_scale(candidates: &[Candidate], table: &Table) -> Vec<(Vec<String>, f64)> {
    candidates.iter().map(|c| (c.choices.clone(), c.measured.ratio * table.teacher_ms())).collect()
}

/// The student that a selection describes, with the weights of phase 1.
pub(crate) fn assemble(
    context: &Context<'_>,
    teacher: &Teacher,
    choices: &[String],
) -> Result<(Graph, Weights)> {
    let pool = context.pool(&teacher.graph)?;
    let library = score::trained(context, &pool)?;
    assemble_from(&library, teacher, choices)
}

pub(crate) fn assemble_from(
    library: &[score::Trained],
    teacher: &Teacher,
    choices: &[String],
) -> Result<(Graph, Weights)> {
    let (layers, own) = (teacher.graph.layers(), &teacher.graph);
    let mut graph = own.clone().renamed(format!("{}-student", own.name()));
    let mut weights = teacher.weights.clone();
    for (index, (layer, choice)) in layers.iter().zip(choices).enumerate() {
        if choice == "teacher" {
            continue;
        }
        let found = library.iter().find(|t| t.layer == index && t.name == *choice);
        let trained = found.ok_or_else(|| {
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

/// What selecting for one budget works with.
struct Work<'a> {
    context: &'a Context<'a>,
    budget: &'a Budget,
    teacher: &'a Teacher,
    library: &'a [score::Trained],
}

impl Work<'_> {
    fn assemble(&self, choices: &[String]) -> Result<(Graph, Weights)> {
        assemble_from(self.library, self.teacher, choices)
    }

    /// Assembles, evaluates and times solutions; gives the teacher's latency of the same run too.
    fn examine(
        &self,
        table: &Table,
        images: &[Batch],
        round: usize,
        solutions: &[(usize, &lana_select::Solution)],
    ) -> Result<(Vec<Candidate>, f64)> {
        let networks =
            solutions.iter().map(|(_, s)| self.assemble(&s.choices)).collect::<Result<Vec<_>>>()?;
        let evaluated = evaluate(self.context, &networks, images)?;
        let (teacher_now, measured) = self.time(&networks, 45.0)?;
        let mut candidates = Vec::new();
        for (((rank, solution), (graph, _)), (evaluation, measured)) in
            solutions.iter().zip(&networks).zip(evaluated.into_iter().zip(measured))
        {
            if !evaluation.loss().is_finite() {
                self.context.progress.warn("a solution gives no finite loss and is left out");
                continue;
            }
            candidates.push(Candidate {
                round,
                rank: *rank,
                choices: solution.choices.clone(),
                score: solution.score,
                predicted_ms: table.predict(&solution.choices)?,
                loss: evaluation.loss(),
                top1: evaluation.top1(),
                measured,
                cost: graph.deployed_cost(),
                meets_budget: fits(self.budget, &measured)
                    && fits_size(self.budget, graph, &self.teacher.graph),
            });
        }
        Ok((candidates, teacher_now))
    }

    /// Latency of the teacher, and of networks measured in turns with it.
    fn time(&self, networks: &[(Graph, Weights)], seconds: f64) -> Result<(f64, Vec<Measured>)> {
        let mut models = vec![Model::from_graph("teacher", &self.teacher.graph, &self.teacher.weights)?];
        for (index, (graph, weights)) in networks.iter().enumerate() {
            models.push(Model::from_graph(format!("candidate {index}"), graph, weights)?);
        }
        let figures = measure(&models, &measure_options(self.context, seconds))?;
        Ok((figures[0].median_ms, figures[1..].iter().map(to_measured).collect()))
    }

    /// The candidate with the least loss that meets the budget, each in turn measured once more by itself with the
    /// teacher: among many noisy timings the one that just fits is likely to have been lucky.
    fn settle(&self, candidates: &mut [Candidate], limit_ms: Option<f64>) -> Result<usize> {
        let mut order: Vec<usize> = (0..candidates.len()).filter(|&i| candidates[i].meets_budget).collect();
        order.sort_by(|&a, &b| candidates[a].loss.total_cmp(&candidates[b].loss));
        let margin = self.context.config.latency.margin;
        let mut alone = vec![false; candidates.len()];
        // The whole reserve first, less of it only where nothing keeps it.
        for reserve in [margin, margin / 2.0, 0.0] {
            for &index in &order {
                if limit_ms.is_none() {
                    return Ok(index);
                }
                if !fits(self.budget, &slowed(&candidates[index].measured, reserve)) {
                    continue;
                }
                if !alone[index] {
                    let network = self.assemble(&candidates[index].choices)?;
                    candidates[index].measured = self.time(&[network], 15.0)?.1[0];
                    candidates[index].meets_budget = fits(self.budget, &candidates[index].measured);
                    alone[index] = true;
                }
                if fits(self.budget, &slowed(&candidates[index].measured, reserve)) {
                    return Ok(index);
                }
            }
        }
        let nearest = candidates.iter().min_by(|a, b| a.measured.ratio.total_cmp(&b.measured.ratio));
        Err(Error::Infeasible {
            message: format!(
                "no solution met {} when measured; the smallest of {} measured latencies was {}",
                self.budget,
                candidates.len(),
                nearest.map_or("none".to_string(), |c| format!(
                    "{:.3} ms ({:.3}x of the teacher)",
                    c.measured.median_ms, c.measured.ratio
                ))
            ),
            hint: "ask for a slightly larger budget, or give more rounds (`rounds` under [select] in run.toml) on a quieter machine"
                .into(),
        })
    }
}

/// Real loss of assembled networks, different networks on different threads.
pub(crate) fn evaluate(
    context: &Context<'_>,
    networks: &[(Graph, Weights)],
    images: &[Batch],
) -> Result<Vec<Evaluation>> {
    let device = context.device;
    let tasks: Vec<_> =
        networks.iter().map(|n| (n, images.iter().map(Batch::share).collect::<Vec<_>>())).collect();
    let results: Vec<Result<Evaluation>> = context.threads.install(|| {
        tasks
            .into_par_iter()
            .with_max_len(1)
            .map(|((graph, weights), images)| {
                let network = Network::new(graph, weights, device)?;
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

/// The measurement as a less lucky one might be: the upper end of its interval, and at least larger by a share.
fn slowed(measured: &Measured, share: f64) -> Measured {
    Measured {
        median_ms: measured.ci_ms[1].max(measured.median_ms * (1.0 + share)),
        ratio: measured.ratio_ci[1].max(measured.ratio * (1.0 + share)),
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
