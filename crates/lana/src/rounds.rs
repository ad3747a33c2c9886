//! Closing the loop between prediction and measurement.
//!
//! A lookup table is good to some percent; a budget is met to the percent or not at all. So the program only proposes.
//! Each round its solutions are evaluated and measured whole ([`Bench::examine`]), all of them in turns with the teacher. The
//! most accurate that may fit are measured again one by one, in fresh processes ([`Bench::confirm`]), until one fits with
//! the reserve: that is the best so far. Then all measurements correct the tables, and the program is solved again. It ends
//! when the best uses at least [`ENOUGH`] of the budget, or when no better selection exists, and says which.
//!
//! Nothing here knows networks or clocks: what does is behind [`Bench`].

use lana_graph::Cost;
use lana_latency::Deployment;
use lana_select::Solution;
use serde::{Deserialize, Serialize};

use crate::program::Priced;
use crate::target::UNMEASURED;
use crate::{Amount, Budget, Candidate, Ended, Error, Measured, Quantity, Result, Timing};

/// Share of the budget that a selection must use, by measurement, to end the search.
pub(crate) const ENOUGH: f64 = 0.97;
/// A table that predicts measured networks this well (mean relative error) needs no correction.
const GOOD_ENOUGH: f64 = 0.01;
/// Candidates that are measured again one by one, in each round at most.
const CONFIRMED: usize = 6;

/// What a selection is to reach.
#[derive(Clone, Debug)]
pub(crate) struct Goal {
    pub(crate) budget: Budget,
    /// Where it is measured, with the limits on latency; the first is the one that figures without a name speak of.
    pub(crate) deployments: Vec<(Deployment, Option<Amount>)>,
    /// The most of everything that is known exactly.
    pub(crate) exact: Vec<(Quantity, f64)>,
    /// Share of latency budgets to keep in reserve.
    pub(crate) margin: f64,
    /// Rounds at most.
    pub(crate) rounds: usize,
}

/// `budgets/BUDGET/rounds.json`: what has been evaluated so far, so that a killed selection goes on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Rounds {
    pub(crate) settings: String,
    pub(crate) candidates: Vec<Candidate>,
    /// The teacher's latency now, as a multiple of that when the table was made; for each deployment.
    pub(crate) drift: Vec<f64>,
    /// How much larger files are than the sum of their parts, at most.
    pub(crate) size_error: f64,
}

/// What [`Bench::examine`] gives.
pub(crate) struct Examined {
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) drift: Vec<f64>,
    pub(crate) size_error: f64,
}

/// What the program proposes.
pub(crate) enum Proposed {
    Solutions(Vec<Solution>),
    /// Nothing; the error says why.
    OutOfReach(Error),
}

/// How a round went on one deployment.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Prediction {
    pub(crate) deployment: String,
    /// Mean of measured over predicted, and the mean size of the prediction's relative error.
    pub(crate) measured_over_predicted: f64,
    pub(crate) table_error: f64,
}

/// How a round went.
pub(crate) struct Told<'a> {
    pub(crate) round: usize,
    pub(crate) candidates: Vec<&'a Candidate>,
    pub(crate) predictions: Vec<Prediction>,
    /// The best so far, and how much of the budget it uses.
    pub(crate) best: Option<(&'a Candidate, Option<f64>)>,
}

/// The world as the loop sees it.
pub(crate) trait Bench {
    /// Solves the program by the tables as they stand.
    fn solve(&mut self, tables: &[Priced], size_error: f64) -> Result<Proposed>;
    /// Evaluates and measures solutions, which come with their rank.
    fn examine(
        &mut self,
        tables: &[Priced],
        round: usize,
        solutions: &[(usize, Solution)],
    ) -> Result<Examined>;
    /// Measures one candidate by itself, on every deployment where that is possible. May stop early once `hopeless`, given
    /// the deployment's number and what it measured, says that it cannot fit.
    fn confirm(
        &mut self,
        candidate: &Candidate,
        hopeless: &dyn Fn(usize, &Measured) -> bool,
    ) -> Result<Vec<Option<Measured>>>;
    /// Writes down what there is.
    fn keep(&mut self, rounds: &Rounds) -> Result<()>;
    /// Tells how a round went.
    fn tell(&mut self, told: &Told) -> Result<()>;
}

/// What the search found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Index of the candidate that won.
    pub(crate) winner: usize,
    pub(crate) ended: Ended,
    /// Largest share that it uses of any limit.
    pub(crate) used: Option<f64>,
    /// Measured over predicted in the last round, on the first deployment.
    pub(crate) correction: f64,
}

impl Goal {
    /// Whether a limit on latency holds.
    fn limits_latency(&self) -> bool {
        self.deployments.iter().any(|(_, amount)| amount.is_some())
    }

    /// Share that a candidate uses of the limits that are known exactly; 0 without one.
    pub(crate) fn used_exactly(&self, cost: &Cost, memory_bytes: u64, size_bytes: u64) -> f64 {
        let amount = |quantity| match quantity {
            Quantity::Params => cost.params as f64,
            Quantity::Macs => cost.macs as f64,
            Quantity::Memory => memory_bytes as f64,
            Quantity::Size => size_bytes as f64,
            Quantity::Latency => 0.0,
        };
        self.exact.iter().map(|(quantity, most)| amount(*quantity) / most).fold(0.0, f64::max)
    }

    /// Whether a network meets every limit, by what was measured.
    pub(crate) fn is_met<'a>(
        &self,
        timings: impl Iterator<Item = (Option<f64>, Option<&'a Measured>, f64)>,
        cost: &Cost,
        memory_bytes: u64,
        size_bytes: u64,
    ) -> bool {
        self.used_exactly(cost, memory_bytes, size_bytes) <= 1.0 + 1e-9
            && self.used_latency(timings).is_none_or(|[point, _, _]| point <= 1.0)
    }

    /// Largest share of a limit on latency, with the ends of its interval. Timings are in the order of the deployments:
    /// the limit in milliseconds, what was measured, what is predicted.
    pub(crate) fn used_latency<'a>(
        &self,
        timings: impl Iterator<Item = (Option<f64>, Option<&'a Measured>, f64)>,
    ) -> Option<[f64; 3]> {
        let shares = self.deployments.iter().zip(timings).filter_map(|((deployment, amount), timing)| {
            let amount = (*amount)?;
            match timing {
                (_, Some(measured), _) => {
                    let [low, high] = amount.used_ci(measured, deployment.batch);
                    Some([amount.used(measured, deployment.batch), low, high])
                }
                (Some(limit), None, predicted) => {
                    let share = predicted / limit;
                    Some([share, share * (1.0 - UNMEASURED), share * (1.0 + UNMEASURED)])
                }
                (None, None, _) => None,
            }
        });
        shares.reduce(|a, b| [a[0].max(b[0]), a[1].max(b[1]), a[2].max(b[2])])
    }

    fn latency_of(&self, candidate: &Candidate) -> Option<[f64; 3]> {
        self.used_latency(candidate.timings())
    }

    /// Largest share that a candidate uses of any limit.
    pub(crate) fn used(&self, candidate: &Candidate) -> Option<f64> {
        let exact = self.used_exactly(&candidate.cost, candidate.memory_bytes, candidate.size_bytes);
        let latency = self.latency_of(candidate).map(|[point, _, _]| point);
        (!self.exact.is_empty()).then_some(exact).into_iter().chain(latency).reduce(f64::max)
    }

    fn fits_exactly(&self, candidate: &Candidate) -> bool {
        self.used_exactly(&candidate.cost, candidate.memory_bytes, candidate.size_bytes) <= 1.0 + 1e-9
    }

    /// Whether every limit holds with the reserve, and at the unlucky end of the interval too.
    fn fits_well(&self, candidate: &Candidate) -> bool {
        let within = |[point, _, high]: [f64; 3]| high <= 1.0 && point * (1.0 + self.margin) <= 1.0;
        self.fits_exactly(candidate) && self.latency_of(candidate).is_none_or(within)
    }
}

impl Rounds {
    pub(crate) fn new(settings: String, deployments: usize) -> Self {
        Rounds { settings, candidates: Vec::new(), drift: vec![1.0; deployments], size_error: 1.0 }
    }

    fn done(&self) -> usize {
        self.candidates.iter().map(|c| c.round + 1).max().unwrap_or(0)
    }
}

/// Goes round until the best selection uses what the budget allows or no better one exists.
pub(crate) fn search(
    goal: &Goal,
    tables: &mut [Priced],
    rounds: &mut Rounds,
    bench: &mut dyn Bench,
) -> Result<Found> {
    let mut correction = 1.0;
    let ended = loop {
        let done = rounds.done();
        if done > 0 {
            let best = settle(goal, rounds, bench)?;
            let last: Vec<&Candidate> = rounds.candidates.iter().filter(|c| c.round + 1 == done).collect();
            let predictions = predictions(goal, tables, &last);
            correction = predictions.first().map_or(1.0, |p| p.measured_over_predicted);
            let sure = predictions.iter().all(|p| p.table_error < GOOD_ENOUGH);
            let used = best.map(|index| goal.used(&rounds.candidates[index]));
            let told_best = best.map(|index| &rounds.candidates[index]).zip(used);
            bench.tell(&Told { round: done - 1, candidates: last, predictions, best: told_best })?;
            match used {
                Some(_) if !goal.limits_latency() => break Ended::Exact,
                Some(_) if tables.iter().all(|t| !t.target.is_here()) => break Ended::Unmeasured,
                // The first round's selections were chosen by an uncorrected table: better ones may be had for the price of
                // one more.
                Some(Some(used)) if used >= ENOUGH && (done > 1 || sure || goal.rounds == 1) => {
                    break Ended::Inside;
                }
                _ => {}
            }
            if done >= goal.rounds {
                break Ended::OutOfRounds;
            }
            correct(tables, &rounds.candidates)?;
        }
        tables.iter_mut().zip(&rounds.drift).for_each(|(table, drift)| table.drift = *drift);
        let solutions = match bench.solve(tables, rounds.size_error)? {
            Proposed::Solutions(solutions) => solutions,
            // What the corrected table calls out of reach may have been reached by measurement.
            Proposed::OutOfReach(_) if best(goal, &rounds.candidates).is_some() => break Ended::OutOfReach,
            Proposed::OutOfReach(error) => return Err(error),
        };
        let is_new = |s: &Solution| !rounds.candidates.iter().any(|c| c.choices == s.choices);
        let fresh: Vec<(usize, Solution)> =
            solutions.into_iter().enumerate().filter(|(_, s)| is_new(s)).collect();
        if fresh.is_empty() {
            break Ended::Exhausted;
        }
        let examined = bench.examine(tables, done, &fresh)?;
        if examined.candidates.is_empty() {
            break Ended::Exhausted;
        }
        rounds.candidates.extend(examined.candidates);
        rounds.drift = examined.drift;
        rounds.size_error = rounds.size_error.max(examined.size_error);
        bench.keep(rounds)?;
    };
    let Some(winner) = best(goal, &rounds.candidates).or_else(|| any(goal, &rounds.candidates)) else {
        return Err(out_of_luck(goal, &rounds.candidates));
    };
    let used = goal.used(&rounds.candidates[winner]);
    // With the last resort the budget may be met in another way than the loop ended by.
    let ended = match ended {
        Ended::OutOfRounds | Ended::Exhausted if used.is_some_and(|used| used >= ENOUGH) => Ended::Inside,
        other => other,
    };
    Ok(Found { winner, ended, used, correction })
}

/// The candidate with the least loss that fits with the reserve, where that is settled.
fn best(goal: &Goal, candidates: &[Candidate]) -> Option<usize> {
    let settled = |c: &Candidate| c.confirmed || !goal.limits_latency() || !c.is_measured();
    let fit = (0..candidates.len()).filter(|&i| settled(&candidates[i]) && goal.fits_well(&candidates[i]));
    fit.min_by(|&a, &b| candidates[a].loss.total_cmp(&candidates[b].loss))
}

/// The candidate with the least loss that meets the budget without reserve, where nothing keeps it.
fn any(goal: &Goal, candidates: &[Candidate]) -> Option<usize> {
    let meets = |c: &Candidate| c.meets_budget && (c.confirmed || !c.is_measured());
    let fit = (0..candidates.len()).filter(|&i| meets(&candidates[i]) && goal.fits_exactly(&candidates[i]));
    fit.min_by(|&a, &b| candidates[a].loss.total_cmp(&candidates[b].loss))
}

/// Measures the most accurate candidates that may fit one by one, until one does: among many short timings the one that
/// just fits is likely to have been lucky.
fn settle(goal: &Goal, rounds: &mut Rounds, bench: &mut dyn Bench) -> Result<Option<usize>> {
    let mut order: Vec<usize> = (0..rounds.candidates.len()).collect();
    order.sort_by(|&a, &b| rounds.candidates[a].loss.total_cmp(&rounds.candidates[b].loss));
    let mut confirmed = 0;
    for index in order {
        let candidate = &rounds.candidates[index];
        let open = goal.limits_latency() && candidate.is_measured() && !candidate.confirmed;
        if open {
            let may_fit = goal.fits_exactly(candidate)
                && goal.latency_of(candidate).is_some_and(|[_, low, _]| low * (1.0 + goal.margin) <= 1.0);
            if !may_fit || confirmed == CONFIRMED {
                continue;
            }
            confirmed += 1;
            let hopeless = |number: usize, measured: &Measured| {
                goal.deployments.get(number).is_some_and(|(deployment, amount)| {
                    amount.is_some_and(|amount| amount.used(measured, deployment.batch) > 1.0)
                })
            };
            let measured = bench.confirm(candidate, &hopeless)?;
            let candidate = &mut rounds.candidates[index];
            candidate.take(measured);
            candidate.confirmed = true;
            candidate.meets_budget = goal.is_met(
                candidate.timings(),
                &candidate.cost,
                candidate.memory_bytes,
                candidate.size_bytes,
            );
            bench.keep(rounds)?;
        }
        if goal.fits_well(&rounds.candidates[index]) {
            return Ok(Some(index));
        }
    }
    Ok(best(goal, &rounds.candidates))
}

/// How well the tables predicted a round.
fn predictions(goal: &Goal, tables: &[Priced], last: &[&Candidate]) -> Vec<Prediction> {
    let of = |(number, (table, (deployment, _))): (usize, (&Priced, &(Deployment, Option<Amount>)))| {
        let over: Vec<f64> = last
            .iter()
            .filter_map(|c| {
                let (_, measured, predicted) = c.timings().nth(number)?;
                Some(measured?.ratio * table.table.teacher_ms() / predicted)
            })
            .collect();
        let count = over.len() as f64;
        (!over.is_empty()).then(|| Prediction {
            deployment: deployment.to_string(),
            measured_over_predicted: over.iter().sum::<f64>() / count,
            table_error: over.iter().map(|o| (1.0 / o - 1.0).abs()).sum::<f64>() / count,
        })
    };
    tables.iter().zip(&goal.deployments).enumerate().filter_map(of).collect()
}

/// Corrects each table by all that was measured on its deployment: ratios times its own measurement of the teacher.
fn correct(tables: &mut [Priced], candidates: &[Candidate]) -> Result<()> {
    for (number, priced) in tables.iter_mut().enumerate() {
        let teacher_ms = priced.table.teacher_ms();
        let measured: Vec<(Vec<String>, f64)> = candidates
            .iter()
            .filter_map(|c| Some((c.choices.clone(), c.timings().nth(number)?.1?.ratio * teacher_ms)))
            .collect();
        if !measured.is_empty() {
            priced.table.correct(&measured)?;
        }
    }
    Ok(())
}

fn out_of_luck(goal: &Goal, candidates: &[Candidate]) -> Error {
    let nearest =
        candidates.iter().filter_map(|c| Some((goal.used(c)?, c))).min_by(|a, b| a.0.total_cmp(&b.0)).map(
            |(used, c)| {
                let timing =
                    c.measured.map(|m| format!(" ({:.3} ms, {:.3}x of the teacher)", m.median_ms, m.ratio));
                format!(
                    "; the nearest of {} took {:.3} of it{}",
                    candidates.len(),
                    used,
                    timing.unwrap_or_default()
                )
            },
        );
    Error::Infeasible {
        message: format!("no solution met {} when measured{}", goal.budget, nearest.unwrap_or_default()),
        hint: "ask for a slightly larger budget, or give more rounds (`rounds` under [select] in run.toml) on a quieter machine"
            .into(),
    }
}

impl Candidate {
    /// On each deployment, in the order of the budget's: the limit in milliseconds, what was measured, what is predicted.
    pub(crate) fn timings(&self) -> impl Iterator<Item = (Option<f64>, Option<&Measured>, f64)> {
        let first = (self.limit_ms, self.measured.as_ref(), self.predicted_ms);
        std::iter::once(first).chain(self.others.iter().map(Timing::as_parts))
    }

    /// Whether it was measured anywhere.
    pub(crate) fn is_measured(&self) -> bool {
        self.timings().any(|(_, measured, _)| measured.is_some())
    }

    /// Takes what was measured last; where nothing was, what there is stays.
    fn take(&mut self, measured: Vec<Option<Measured>>) {
        let places =
            std::iter::once(&mut self.measured).chain(self.others.iter_mut().map(|t| &mut t.measured));
        for (place, new) in places.zip(measured) {
            *place = new.or(*place);
        }
    }
}

impl Timing {
    /// The limit in milliseconds, what was measured, what is predicted.
    pub(crate) fn as_parts(&self) -> (Option<f64>, Option<&Measured>, f64) {
        (self.limit_ms, self.measured.as_ref(), self.predicted_ms)
    }
}
