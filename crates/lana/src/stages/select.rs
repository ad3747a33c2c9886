//! Phase 2: the integer program under the budget, its K diverse solutions really evaluated and really timed.
//!
//! Summed scores are optimistic once many layers change, and a table is good to some percent at best. So the program only
//! proposes: each solution is assembled and its loss computed on the scoring images (with batch statistics, as the paper
//! does), each is exported and timed beside the teacher, on every deployment that the budget names. How these measurements
//! lead to the best selection above a floor is in [`crate::rounds`], and how one of these becomes the student in [`finals`]; here is
//! what is measured.
//!
//! Where the lookup table is another device's, nothing can be timed: the selection goes by prediction, with more in
//! reserve, and says so.

use lana_latency::{Model, kendall, measure};
use lana_select::{Problem, Solution, Status};
use lana_torch::Batch;

use crate::context::{Context, Teacher};
use crate::controls::{self, Control};
use crate::footprint::file_size;
use crate::program::{Priced, Program, propose, search_settings, settings};
use crate::rounds::{Bench, Examined, Found, Goal, Proposed, Rounds, Told, runners_up, search};
use crate::stages::export::{measure_options, network_files, to_measured};
use crate::stages::library::Library;
use crate::stages::{depth, finals, profile, score, tables};
use crate::target::{Target, UNMEASURED};
use crate::{
    Budget, Candidate, Candidates, Error, Footprint, Measured, Quantity, Result, Scores, Solutions, Timing,
    fresh, read_or_redo, write_atomic, write_json,
};

/// Rounds for a floor but the first, at most: the tables are corrected by then.
const FURTHER_ROUNDS: usize = 2;

/// Share of a budget that a random selection uses at least, by the tables.
const RANDOM_USES: f64 = 0.98;

/// Seconds for the candidates of a round, all in turns, and for one by itself.
const TOGETHER_S: f64 = 60.0;
const ALONE_S: f64 = 60.0;

/// Selects for a budget, unless that is done.
pub(crate) fn run(context: &Context<'_>, budget: &Budget) -> Result<()> {
    if stored(context, budget)?.is_some() {
        return Ok(());
    }
    let (teacher, _) = context.teacher()?;
    let scores = score::run(context)?;
    let mut tables = tables(context, budget)?;
    let pool = context.pool(&teacher.graph)?;
    let library = Library::of(context, &teacher, &pool)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    let program = Program::new(&context.config, budget, &record, teacher.graph.deployed_cost());
    let title = context.title("select", budget);
    let (searched_by, settings) = (search_settings(&context.config), settings(&context.config));
    let goal = goal(context, budget, &teacher)?;
    let images = score::scoring_images(context, &teacher)?;
    let mut rounds =
        read_or_redo::<Rounds>(&context.budget_dir(budget).join("rounds.json"), context.progress)?
            .filter(|r| r.settings == searched_by && r.drift.len() == goal.deployments.len())
            .unwrap_or_else(|| Rounds::new(searched_by.clone(), goal.deployments.len()));
    if let Some(Target::Elsewhere { differences }) = tables.iter().map(|t| &t.target).find(|t| !t.is_here()) {
        context.progress.warn(&format!(
            "{title}: the lookup table is another device's ({differences}): nothing can be measured here, the selection goes \
             by prediction with {:.0} % in reserve; run `lana measure` on that device with the teacher and the student",
            100.0 * UNMEASURED
        ));
    }
    let ground = Ground { context, budget, teacher: &teacher, library: &library, program, title: &title };
    let mut finalists = ground.finalists(&goal, &scores, &images, &mut tables, &mut rounds)?;
    // What exceeds the reserve is the last resort.
    if finalists.iter().any(|found| found.keeps_reserve) {
        finalists.retain(|found| found.keeps_reserve);
    }
    let indices: Vec<usize> = finalists.iter().map(|found| found.winner).collect();
    let chosen = finals::chosen(context, budget, &teacher, &library, &mut rounds, &indices)?;
    let found = finalists.swap_remove(chosen);
    let result = Candidates {
        budget: budget.to_string(),
        limit_ms: tables.first().and_then(|t| Some(t.amount?.most(t.table.teacher_ms(), t.deployment.batch))),
        candidates: rounds.candidates,
        winner: found.winner,
        correction: found.correction,
        ended: found.ended,
        used: found.used,
        deployments: goal.deployments.iter().map(|(deployment, _)| deployment.to_string()).collect(),
        settings,
    };
    write_json(&context.budget_dir(budget).join("candidates.json"), &result)?;
    let best = &result.candidates[found.winner];
    context.progress.say(&format!("{title}: loss {:.3}; {}", best.loss, result.verdict()));
    context.tell_skipped(&title)?;
    context.run.event(
        &title,
        serde_json::json!({"ended": result.ended, "used": result.used, "rounds": result.rounds(), "loss": best.loss,
            "predicted_ms": best.predicted_ms, "measured": best.measured}),
    )
}

/// The lookup tables of a budget's deployments.
pub(crate) fn tables(context: &Context<'_>, budget: &Budget) -> Result<Vec<Priced>> {
    let latency = &context.config.latency;
    let deployments = budget.deployments(&latency.deployment())?;
    deployments
        .into_iter()
        .map(|(deployment, amount)| {
            let latency = latency.on(deployment);
            let table = profile::table(&context.run, &latency, context.progress)?
                .ok_or_else(|| tables::missing(&context.run, &latency))?;
            Ok(Priced { deployment, amount, target: Target::of(&table), table, drift: 1.0 })
        })
        .collect()
}

/// What a selection for a budget is to reach.
pub(crate) fn goal(context: &Context<'_>, budget: &Budget, teacher: &Teacher) -> Result<Goal> {
    let latency = &context.config.latency;
    let base = latency.deployment();
    let (cost, footprint) = (teacher.graph.deployed_cost(), Footprint::of(&teacher.graph)?);
    let precision = budget.precision(&base)?;
    let size = file_size(&teacher.graph, precision)?;
    let exact = budget.limits().iter().filter_map(|limit| {
        let whole = match limit.quantity {
            Quantity::Latency => return None,
            Quantity::Params => cost.params,
            Quantity::Macs => cost.macs,
            Quantity::Memory => footprint.memory_bytes(precision),
            Quantity::Size => size,
        };
        Some((limit.quantity, limit.amount.most(whole as f64, 1)))
    });
    Ok(Goal {
        budget: budget.clone(),
        deployments: budget.deployments(&base)?,
        exact: exact.collect(),
        margin: latency.margin,
        rounds: context.config.select.rounds,
    })
}

/// The selection that was made for a budget, with the settings that hold.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<Candidates>> {
    let path = context.budget_dir(budget).join("candidates.json");
    let settings = settings(&context.config);
    Ok(read_or_redo::<Candidates>(&path, context.progress)?
        .filter(|c| c.winner < c.candidates.len() && c.settings == settings))
}

/// Whether anything that may be selected can meet a budget, before its operations are trained.
pub(crate) fn check_reachable(context: &Context<'_>, budget: &Budget) -> Result<()> {
    let (teacher, _) = context.teacher()?;
    let tables = tables(context, budget)?;
    let pool = context.pool(&teacher.graph)?;
    let record = profile::record(&context.config.pool, &context.config.pool_rules, &teacher.graph, &pool)?;
    let program = Program::new(&context.config, budget, &record, teacher.graph.deployed_cost())
        .above(context.config.select.least_floor());
    let problem = Problem { solutions: 1, ..program.problem(None, &tables, 1.0)? };
    let outcome = lana_select::solve(&problem)?;
    match outcome.status {
        Status::Infeasible => Err(program.infeasible(&problem, &outcome, &tables)),
        _ => Ok(()),
    }
}

fn no_uniform(budget: &Budget) -> Error {
    Error::Infeasible {
        message: format!("no operation meets {budget} when it stands in all layers that offer it"),
        hint: "widen the pool with faster operations (--pool), or ask for a larger budget".into(),
    }
}

/// What the search for one budget stands on, whatever the floor.
struct Ground<'a> {
    context: &'a Context<'a>,
    budget: &'a Budget,
    teacher: &'a Teacher,
    library: &'a Library<'a>,
    program: Program<'a>,
    title: &'a str,
}

impl Ground<'_> {
    /// The best selections above each floor.
    fn finalists(
        &self,
        goal: &Goal,
        scores: &Scores,
        images: &[Batch],
        tables: &mut [Priced],
        rounds: &mut Rounds,
    ) -> Result<Vec<Found>> {
        let Ground { context, budget, teacher, library, .. } = *self;
        let config = &context.config.select;
        let mut floors = config.floors.clone();
        floors.sort_by(f64::total_cmp);
        floors.dedup();
        let most = finals::places(context, teacher, floors.len())?;
        let mut finalists: Vec<Found> = Vec::new();
        let mut before = None;
        for (number, floor) in floors.iter().enumerate() {
            let program = self.program.above(*floor);
            // A floor under which there is nothing more is none.
            let forbidden = match program.problem(None, tables, 1.0) {
                Ok(problem) => Some(problem.forbidden),
                // It leaves a layer without any choice.
                Err(Error::Infeasible { .. }) if number > 0 => continue,
                Err(other) => return Err(other),
            };
            if before == forbidden {
                continue;
            }
            before = forbidden;
            // What is not solved for needs no better scores.
            let scores = match context.control {
                Some(Control::Random | Control::Uniform) => scores.clone(),
                _ => depth::aware(context, library, &program, budget, tables, scores, images)?,
            };
            let title = match number {
                0 => self.title.to_string(),
                _ => format!("{}, operations from {floor} of their layer", self.title),
            };
            let goal = Goal {
                rounds: if number > 0 { goal.rounds.min(FURTHER_ROUNDS) } else { goal.rounds },
                ..goal.clone()
            };
            context.progress.begin(&title, (goal.rounds * config.solutions) as u64, "candidates");
            let mut work = Work {
                context,
                budget,
                goal: &goal,
                teacher,
                library,
                images,
                scores: &scores,
                program,
                title: &title,
                before: rounds.candidates.len(),
            };
            match search(&goal, *floor, tables, rounds, &mut work) {
                Ok(found) => {
                    let places = (most, config.max_overlap);
                    let others = runners_up(&goal, *floor, rounds, &mut work, &found, places)?;
                    let best = &rounds.candidates[found.winner];
                    context.progress.finish(&format!("loss {:.3}", best.loss));
                    for found in std::iter::once(found).chain(others) {
                        if finalists.iter().all(|other| other.winner != found.winner) {
                            finalists.push(found);
                        }
                    }
                }
                // Wide operations alone may be too slow.
                Err(Error::Infeasible { .. }) if number > 0 => context.progress.finish("out of reach"),
                Err(other) => return Err(other),
            }
        }
        Ok(finalists)
    }
}

/// What selecting for one budget works with.
struct Work<'a> {
    context: &'a Context<'a>,
    budget: &'a Budget,
    goal: &'a Goal,
    teacher: &'a Teacher,
    library: &'a Library<'a>,
    images: &'a [Batch],
    scores: &'a Scores,
    program: Program<'a>,
    title: &'a str,
    /// Candidates of the floors before.
    before: usize,
}

impl Bench for Work<'_> {
    fn solve(
        &mut self,
        tables: &[Priced],
        size_error: f64,
        best: Option<&Candidate>,
        seen: &[Candidate],
    ) -> Result<Proposed> {
        let problem = self.program.problem(Some(self.scores), tables, size_error)?;
        match &self.context.control {
            // The first that fits, whatever its loss.
            Some(Control::Random) if best.is_some() => return Ok(Proposed::Solutions(Vec::new())),
            Some(Control::Random) => {
                let seed = self.context.config.seed.wrapping_add(seen.len() as u64);
                let drawn = controls::random(&problem, RANDOM_USES, 1, seed)?;
                if !drawn.is_empty() {
                    return Ok(Proposed::Solutions(drawn));
                }
            }
            Some(Control::Uniform) => {
                let solutions = controls::uniform(&problem)?;
                return Ok(match solutions.is_empty() {
                    false => Proposed::Solutions(solutions),
                    true => Proposed::OutOfReach(no_uniform(self.budget)),
                });
            }
            _ => {}
        }
        let (outcome, solutions) = propose(&problem, best, seen)?;
        if outcome.status == Status::Infeasible {
            return Ok(Proposed::OutOfReach(self.program.infeasible(&problem, &outcome, tables)));
        }
        let path = self.context.budget_dir(self.budget).join("solutions.json");
        write_json(&path, &Solutions { problem, outcome })?;
        Ok(Proposed::Solutions(solutions))
    }

    fn examine(
        &mut self,
        tables: &[Priced],
        round: usize,
        solutions: &[(usize, Solution)],
    ) -> Result<Examined> {
        let selections: Vec<&[String]> = solutions.iter().map(|(_, s)| s.choices.as_slice()).collect();
        let answers = self.library.answers(self.context, &selections, self.images)?;
        let mut sound = Vec::new();
        let mut models = vec![Model::from_graph("teacher", &self.teacher.graph, &self.teacher.weights)?];
        for ((rank, solution), answer) in solutions.iter().zip(answers) {
            let evaluation = answer.evaluation;
            // What gives no finite loss need not be timed.
            if !evaluation.loss().is_finite() {
                self.context.progress.warn("a solution gives no finite loss and is left out");
                continue;
            }
            let (graph, weights) = self.library.assemble(&solution.choices)?;
            models.push(Model::from_graph(format!("candidate {rank}"), &graph, &weights)?);
            sound.push((*rank, solution, graph, evaluation));
        }
        let (mut drift, mut measured) = (Vec::new(), Vec::new());
        for priced in tables {
            let options = measure_options(self.context, priced.deployment, TOGETHER_S);
            if sound.is_empty() || !priced.target.is_here() {
                drift.push(priced.drift);
                measured.push((None, vec![None; sound.len()]));
                continue;
            }
            // All in turns with the teacher.
            let figures = measure(&models, &options)?;
            let teacher_now = figures[0].median_ms;
            // A clock that runs otherwise than when the table was made moves what an absolute budget allows.
            drift.push(teacher_now / priced.table.teacher_ms());
            measured.push((
                Some(teacher_now),
                figures[1..].iter().map(|figure| Some(to_measured(figure))).collect::<Vec<_>>(),
            ));
        }
        let precision = self.budget.precision(&self.context.config.latency.deployment())?;
        let (mut candidates, mut size_error) = (Vec::new(), 1.0_f64);
        for (index, (rank, solution, graph, evaluation)) in sound.iter().enumerate() {
            let footprint = Footprint::of(graph)?;
            let size_bytes = file_size(graph, precision)?;
            let foretold = self.program.footprint(solution).size_bytes(precision);
            size_error = size_error.max(size_bytes as f64 / foretold.max(1) as f64);
            let timing = |number: usize| -> Result<Timing> {
                let priced = &tables[number];
                let (teacher_ms, measured) = &measured[number];
                Ok(Timing {
                    deployment: priced.deployment.to_string(),
                    limit_ms: priced.limit_ms(),
                    predicted_ms: priced.table.predict(&solution.choices)?,
                    measured: measured[index],
                    teacher_ms: *teacher_ms,
                })
            };
            let first = timing(0)?;
            let mut candidate = Candidate {
                round,
                rank: *rank,
                choices: solution.choices.clone(),
                score: solution.score,
                predicted_ms: first.predicted_ms,
                limit_ms: first.limit_ms,
                loss: evaluation.loss(),
                top1: evaluation.top1(),
                measured: first.measured,
                confirmed: false,
                others: (1..tables.len()).map(timing).collect::<Result<_>>()?,
                cost: graph.deployed_cost(),
                memory_bytes: footprint.memory_bytes(precision),
                size_bytes,
                meets_budget: false,
                thinnest: self.program.thinnest(&solution.choices),
                tuned: None,
                tuned_right: None,
            };
            candidate.meets_budget = self.goal.is_met(
                candidate.timings(),
                &candidate.cost,
                candidate.memory_bytes,
                candidate.size_bytes,
            );
            candidates.push(candidate);
        }
        Ok(Examined { candidates, drift, size_error })
    }

    fn confirm(
        &mut self,
        candidate: &Candidate,
        hopeless: &dyn Fn(usize, &Measured) -> bool,
    ) -> Result<Vec<Option<Measured>>> {
        let (graph, weights) = self.library.assemble(&candidate.choices)?;
        let folder = self.context.budget_dir(self.budget);
        // Any name but a student's: it goes again at once.
        let path = folder.join("candidate.onnx");
        for (name, bytes) in network_files("candidate.onnx", &graph, &weights)? {
            if name == "candidate.onnx" {
                write_atomic(&path, &bytes)?;
            }
        }
        let teacher = self.context.run.path("teacher/teacher.onnx");
        let mut found = vec![None; self.goal.deployments.len()];
        for (number, (deployment, _)) in self.goal.deployments.iter().enumerate() {
            let measurable =
                candidate.timings().nth(number).is_some_and(|(_, measured, _)| measured.is_some());
            if measurable {
                let options = measure_options(self.context, *deployment, ALONE_S);
                let (measured, _) = fresh::measure(&teacher, &path, &options, &|m| hopeless(number, m))?;
                found[number] = Some(measured);
                if hopeless(number, &measured) {
                    break;
                }
            }
        }
        std::fs::remove_file(&path).map_err(Error::io(&path))?;
        Ok(found)
    }

    fn keep(&mut self, rounds: &Rounds) -> Result<()> {
        self.context.progress.advance((rounds.candidates.len() - self.before) as u64, "");
        write_json(&self.context.budget_dir(self.budget).join("rounds.json"), rounds)
    }

    fn tell(&mut self, told: &Told) -> Result<()> {
        let inside = told.candidates.iter().filter(|c| c.meets_budget).count();
        let measured = told.candidates.iter().any(|c| c.is_measured());
        let tables: Vec<String> = told
            .predictions
            .iter()
            .map(|p| match told.predictions.len() {
                1 => format!("the table was off by {:.1} % on average", 100.0 * p.table_error),
                _ => format!("{}: the table was off by {:.1} %", p.deployment, 100.0 * p.table_error),
            })
            .collect();
        let best = match &told.best {
            Some((best, Some(used))) => {
                format!("; best so far: loss {:.3} at {:.1} % of the budget", best.loss, 100.0 * used)
            }
            Some((best, None)) => format!("; best so far: loss {:.3}", best.loss),
            None => "; none fits with the reserve yet".into(),
        };
        self.context.progress.say(&format!(
            "{}: round {}: {inside} of {} solutions meet the budget {}{}{}{best}",
            self.title,
            told.round + 1,
            told.candidates.len(),
            if measured { "when measured" } else { "by prediction" },
            if tables.is_empty() { "" } else { "; " },
            tables.join(", "),
        ));
        let first = told.predictions.first();
        // How far the program's objective can be trusted.
        let ranks: Vec<(f64, f64)> = told.candidates.iter().map(|c| (c.score, c.loss)).collect();
        self.context.run.event(
            self.title,
            serde_json::json!({"round": told.round, "solutions": told.candidates.len(), "meet": inside,
                "table_error": first.map(|p| p.table_error),
                "measured_over_predicted": first.map(|p| p.measured_over_predicted),
                "deployments": told.predictions,
                "score_rank_correlation": kendall(&ranks),
                "best_loss": told.best.map(|(best, _)| best.loss), "best_used": told.best.and_then(|(_, used)| used)}),
        )
    }
}
