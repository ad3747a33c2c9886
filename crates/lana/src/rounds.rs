//! Closing the loop between prediction and measurement.
//!
//! A lookup table is good to some percent; a budget is met to the percent or not at all. So the program only proposes.
//! Each round its solutions are evaluated and measured whole ([`Bench::examine`]), all of them in turns with the teacher. The
//! most accurate that may fit are measured again one by one, in fresh processes ([`Bench::confirm`]), until one fits with
//! the reserve: that is the best so far. Then all measurements correct the tables, and the program is solved again. It ends
//! when the best uses at least [`ENOUGH`] of the budget, or when no better selection exists, and says which.
//!
//! The sum of scores says where to look; near its optimum it does not rank. So from the second round on half of the
//! proposals are selections that differ from the best so far in a few layers only, and the search climbs from there.
//!
//! All that goes for one *floor*: the share of their layer's multiply-accumulates that operations must have. The loss before fine-tuning
//! ranks selections above the same floor, not those above different ones. So the search goes over the floors one after the
//! other, each with tables that the measurements for all before have corrected.
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
    /// The floor of each round.
    #[serde(default)]
    pub(crate) floors: Vec<f64>,
    /// What finalists have been fine-tuned by.
    #[serde(default)]
    pub(crate) tuned_by: String,
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
    /// Solves the program by the tables as they stand; with a best selection so far, also for what is near it. `seen` has
    /// been examined.
    fn solve(
        &mut self,
        tables: &[Priced],
        size_error: f64,
        best: Option<&Candidate>,
        seen: &[Candidate],
    ) -> Result<Proposed>;
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
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// Index of the candidate that won.
    pub(crate) winner: usize,
    pub(crate) ended: Ended,
    /// Largest share that it uses of any limit.
    pub(crate) used: Option<f64>,
    /// Measured over predicted in the last round, on the first deployment.
    pub(crate) correction: f64,
    /// Whether it meets the budget with the reserve.
    pub(crate) keeps_reserve: bool,
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

    /// Whether a candidate may turn out to fit when it is measured by itself.
    fn may_fit(&self, candidate: &Candidate) -> bool {
        let within = |[_, low, _]: [f64; 3]| low * (1.0 + self.margin) <= 1.0;
        self.fits_exactly(candidate) && self.latency_of(candidate).is_some_and(within)
    }

    /// Whether every limit holds with the reserve, and at the unlucky end of the interval too.
    fn fits_well(&self, candidate: &Candidate) -> bool {
        let within = |[point, _, high]: [f64; 3]| high <= 1.0 && point * (1.0 + self.margin) <= 1.0;
        self.fits_exactly(candidate) && self.latency_of(candidate).is_none_or(within)
    }
}

impl Ended {
    /// How a search that ended so ended for a candidate that uses this share of the budget.
    fn with(self, used: Option<f64>) -> Self {
        let enough = used.is_some_and(|used| used >= ENOUGH);
        match self {
            Ended::OutOfRounds | Ended::Exhausted if enough => Ended::Inside,
            Ended::Inside if !enough => Ended::OutOfRounds,
            other => other,
        }
    }
}

impl Rounds {
    pub(crate) fn new(settings: String, deployments: usize) -> Self {
        let (candidates, floors) = (Vec::new(), Vec::new());
        let tuned_by = String::new();
        Rounds { settings, candidates, floors, tuned_by, drift: vec![1.0; deployments], size_error: 1.0 }
    }
}

/// Goes round until the best selection above a floor uses what the budget allows or no better one exists. `rounds` holds those of
/// floors before, too.
pub(crate) fn search(
    goal: &Goal,
    floor: f64,
    tables: &mut [Priced],
    rounds: &mut Rounds,
    bench: &mut dyn Bench,
) -> Result<Found> {
    let mut correction = 1.0;
    let ended = loop {
        let done = rounds.floors.iter().filter(|other| **other == floor).count();
        if let Some(round) = rounds.floors.iter().rposition(|other| *other == floor) {
            let best = settle(goal, floor, rounds, bench)?;
            let last: Vec<&Candidate> = rounds.candidates.iter().filter(|c| c.round == round).collect();
            let predictions = predictions(goal, tables, &last);
            correction = predictions.first().map_or(1.0, |p| p.measured_over_predicted);
            let sure = predictions.iter().all(|p| p.table_error < GOOD_ENOUGH);
            let used = best.map(|index| goal.used(&rounds.candidates[index]));
            let told_best = best.map(|index| &rounds.candidates[index]).zip(used);
            bench.tell(&Told { round, candidates: last, predictions, best: told_best })?;
            match used {
                Some(_) if !goal.limits_latency() => break Ended::Exact,
                Some(_) if tables.iter().all(|t| !t.target.is_here()) => break Ended::Unmeasured,
                // The first round's selections were chosen by an uncorrected table: better ones may be had for the price of
                // one more.
                Some(Some(used)) if used >= ENOUGH && (round > 0 || sure || goal.rounds == 1) => {
                    break Ended::Inside;
                }
                _ => {}
            }
            if done >= goal.rounds {
                break Ended::OutOfRounds;
            }
        }
        correct(tables, &rounds.candidates)?;
        tables.iter_mut().zip(&rounds.drift).for_each(|(table, drift)| table.drift = *drift);
        let around = best(goal, floor, rounds).map(|index| &rounds.candidates[index]);
        let solutions = match bench.solve(tables, rounds.size_error, around, &rounds.candidates)? {
            Proposed::Solutions(solutions) => solutions,
            // What the corrected table calls out of reach may have been reached by measurement.
            Proposed::OutOfReach(_) if best(goal, floor, rounds).is_some() => {
                break Ended::OutOfReach;
            }
            Proposed::OutOfReach(error) => return Err(error),
        };
        let is_new = |s: &Solution| !rounds.candidates.iter().any(|c| c.choices == s.choices);
        let fresh: Vec<(usize, Solution)> =
            solutions.into_iter().enumerate().filter(|(_, s)| is_new(s)).collect();
        if fresh.is_empty() {
            // All of this floor may have been examined for those before, and none of it measured by itself.
            settle(goal, floor, rounds, bench)?;
            break Ended::Exhausted;
        }
        let examined = bench.examine(tables, rounds.floors.len(), &fresh)?;
        if examined.candidates.is_empty() {
            break Ended::Exhausted;
        }
        rounds.candidates.extend(examined.candidates);
        rounds.floors.push(floor);
        rounds.drift = examined.drift;
        rounds.size_error = rounds.size_error.max(examined.size_error);
        bench.keep(rounds)?;
    };
    let well = best(goal, floor, rounds);
    let Some(winner) = well.or_else(|| any(goal, floor, rounds)) else {
        return Err(out_of_luck(goal, &rounds.candidates));
    };
    let used = goal.used(&rounds.candidates[winner]);
    // With the last resort the budget may be met in another way than the loop ended by.
    Ok(Found { winner, ended: ended.with(used), used, correction, keeps_reserve: well.is_some() })
}

/// The candidates of a floor: above it, and found when it was searched or before. What later floors find is theirs, so that a search
/// that goes on after an interruption ends as it would have.
fn of_floor(floor: f64, rounds: &Rounds) -> impl Iterator<Item = usize> {
    let is_known = move |c: &Candidate| rounds.floors.get(c.round).is_none_or(|found| *found <= floor);
    let is_of = move |c: &Candidate| c.thinnest >= floor && is_known(c);
    (0..rounds.candidates.len()).filter(move |&index| is_of(&rounds.candidates[index]))
}

/// Of some candidates the one with the least loss that is as wanted.
fn least_loss(floor: f64, rounds: &Rounds, is_wanted: impl Fn(&Candidate) -> bool) -> Option<usize> {
    let wanted = of_floor(floor, rounds).filter(|&index| is_wanted(&rounds.candidates[index]));
    wanted.min_by(|&a, &b| rounds.candidates[a].loss.total_cmp(&rounds.candidates[b].loss))
}

/// The candidate with the least loss that fits with the reserve, where that is settled.
fn best(goal: &Goal, floor: f64, rounds: &Rounds) -> Option<usize> {
    let settled = |c: &Candidate| c.confirmed || !goal.limits_latency() || !c.is_measured();
    least_loss(floor, rounds, |c| settled(c) && goal.fits_well(c))
}

/// The candidate with the least loss that meets the budget without reserve, where nothing keeps it.
fn any(goal: &Goal, floor: f64, rounds: &Rounds) -> Option<usize> {
    let meets = |c: &Candidate| c.meets_budget && (c.confirmed || !c.is_measured());
    least_loss(floor, rounds, |c| meets(c) && goal.fits_exactly(c))
}

/// Measures the most accurate candidates that may fit one by one, until one does: among many short timings the one that
/// just fits is likely to have been lucky.
fn settle(goal: &Goal, floor: f64, rounds: &mut Rounds, bench: &mut dyn Bench) -> Result<Option<usize>> {
    let order = by_loss(floor, rounds);
    let mut confirmed = 0;
    for index in order {
        let candidate = &rounds.candidates[index];
        let open = goal.limits_latency() && candidate.is_measured() && !candidate.confirmed;
        if open {
            if !goal.may_fit(candidate) || confirmed == CONFIRMED {
                continue;
            }
            confirmed += 1;
            confirm(goal, rounds, bench, index)?;
        }
        if goal.fits_well(&rounds.candidates[index]) {
            return Ok(Some(index));
        }
    }
    Ok(best(goal, floor, rounds))
}

/// The candidates of a floor, those with the least loss first.
fn by_loss(floor: f64, rounds: &Rounds) -> Vec<usize> {
    let mut order: Vec<usize> = of_floor(floor, rounds).collect();
    order.sort_by(|&a, &b| rounds.candidates[a].loss.total_cmp(&rounds.candidates[b].loss));
    order
}

/// Measures a candidate by itself.
fn confirm(goal: &Goal, rounds: &mut Rounds, bench: &mut dyn Bench, index: usize) -> Result<()> {
    let hopeless = |number: usize, measured: &Measured| {
        goal.deployments.get(number).is_some_and(|(deployment, amount)| {
            amount.is_some_and(|amount| amount.used(measured, deployment.batch) > 1.0)
        })
    };
    let measured = bench.confirm(&rounds.candidates[index], &hopeless)?;
    let candidate = &mut rounds.candidates[index];
    candidate.take(measured);
    candidate.confirmed = true;
    candidate.meets_budget =
        goal.is_met(candidate.timings(), &candidate.cost, candidate.memory_bytes, candidate.size_bytes);
    bench.keep(rounds)
}

/// Behind the best of a floor others, so that there are `most`: the most accurate that meet the budget with the reserve and agree with
/// none before them in more than `max_overlap` of the layers.
pub(crate) fn runners_up(
    goal: &Goal,
    floor: f64,
    rounds: &mut Rounds,
    bench: &mut dyn Bench,
    found: &Found,
    (most, max_overlap): (usize, f64),
) -> Result<Vec<Found>> {
    let order = by_loss(floor, rounds);
    let mut chosen = vec![found.winner];
    // Counted whether measured now or before, so that a search that goes on after an interruption ends as it would have.
    let mut confirmed = 0;
    for index in order.into_iter().skip_while(|&index| index != found.winner).skip(1) {
        if chosen.len() >= most || !found.keeps_reserve {
            break;
        }
        let candidate = &rounds.candidates[index];
        if chosen.iter().any(|&other| overlap(candidate, &rounds.candidates[other]) > max_overlap) {
            continue;
        }
        if goal.limits_latency() && candidate.is_measured() {
            if !(candidate.confirmed || goal.may_fit(candidate)) || confirmed == CONFIRMED {
                continue;
            }
            confirmed += 1;
            if !candidate.confirmed {
                confirm(goal, rounds, bench, index)?;
            }
        }
        if goal.fits_well(&rounds.candidates[index]) {
            chosen.push(index);
        }
    }
    let runner_up = |&winner: &usize| {
        let used = goal.used(&rounds.candidates[winner]);
        Found { winner, used, ended: found.ended.with(used), ..found.clone() }
    };
    Ok(chosen[1..].iter().map(runner_up).collect())
}

/// Share of the layers in which two candidates agree.
fn overlap(one: &Candidate, other: &Candidate) -> f64 {
    let same = one.choices.iter().zip(&other.choices).filter(|(a, b)| a == b).count();
    same as f64 / one.choices.len().max(1) as f64
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

#[cfg(test)]
mod tests {
    use lana_select::{Problem, Status};

    use super::*;
    use crate::program::{Program, propose};
    use crate::sample;
    use crate::{Config, PoolRecord, Scores, SelectConfig};

    const LAYERS: usize = 12;

    /// A world in which the table is wrong by operation and network, and every measurement is noisy.
    struct World {
        config: Config,
        budget: Budget,
        pool: PoolRecord,
        scores: Scores,
        goal: Goal,
        /// What operations really cost, as a multiple of the table; one factor for each deployment.
        bias: Vec<f64>,
        noise: f64,
        dice: u64,
        floor: f64,
        examined: usize,
        confirmed: usize,
        rounds: usize,
        /// Dies at this call of `examine` or `confirm`.
        dies_at: Option<usize>,
        calls: usize,
        kept: Option<String>,
    }

    impl World {
        fn new(budget: &str, bias: &[f64], noise: f64, seed: u64) -> Self {
            let config = Config {
                select: SelectConfig {
                    solutions: 12,
                    time_limit_s: 20.0,
                    floors: vec![0.0],
                    ..SelectConfig::default()
                },
                ..Config::default()
            };
            let budget: Budget = budget.parse().unwrap();
            let base = config.latency.deployment();
            let whole = sample::cost(LAYERS);
            let exact = budget.limits().iter().filter(|l| l.quantity != Quantity::Latency);
            let goal = Goal {
                deployments: budget.deployments(&base).unwrap(),
                exact: exact.map(|l| (l.quantity, l.amount.most(whole.params as f64, 1))).collect(),
                budget: budget.clone(),
                margin: config.latency.margin,
                rounds: config.select.rounds,
            };
            World {
                config,
                budget,
                pool: sample::pool(LAYERS),
                scores: sample::scores(LAYERS),
                goal,
                bias: bias.to_vec(),
                noise,
                dice: seed,
                floor: 0.0,
                examined: 0,
                confirmed: 0,
                rounds: 0,
                dies_at: None,
                calls: 0,
                kept: None,
            }
        }

        fn tables(&self) -> Vec<Priced> {
            let each = self.goal.deployments.iter();
            each.map(|(deployment, amount)| sample::priced(LAYERS, *deployment, *amount, 1.0)).collect()
        }

        fn program(&self) -> Program<'_> {
            let (config, budget, pool) = (&self.config, &self.budget, &self.pool);
            Program::new(config, budget, pool, sample::cost(LAYERS)).above(self.floor)
        }

        /// Roughly normal.
        fn normal(&mut self) -> f64 {
            let mut sum = -6.0;
            for _ in 0..12 {
                self.dice =
                    self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                sum += (self.dice >> 11) as f64 / (1_u64 << 53) as f64;
            }
            sum
        }

        /// Ratio to the teacher as it really is: operations are off by different amounts, and replaced neighbours help
        /// each other.
        fn truth(&self, choices: &[String], deployment: usize) -> f64 {
            let mut ms = sample::FIXED_MS;
            for (index, choice) in choices.iter().enumerate() {
                let place = sample::OPERATIONS.iter().position(|o| o.0 == choice).unwrap();
                let own = sample::OPERATIONS[place].1 * sample::LAYER_MS;
                let off = match place {
                    0 | 5 => 1.0,
                    place => self.bias[deployment] * (1.0 + 0.02 * (place as f64 - 2.5)),
                };
                let quirk = 1.0 + 0.01 * ((index * 5 + place * 3) % 7) as f64 / 3.0 - 0.01;
                ms += own * off * if place == 0 { 1.0 } else { quirk };
            }
            ms / (LAYERS as f64 * sample::LAYER_MS + sample::FIXED_MS)
        }

        fn measure(&mut self, choices: &[String], deployment: usize, noise: f64) -> Measured {
            let ratio = self.truth(choices, deployment) * (1.0 + noise * self.normal());
            let teacher = LAYERS as f64 * sample::LAYER_MS + sample::FIXED_MS;
            let ci = [ratio * (1.0 - 1.96 * noise), ratio * (1.0 + 1.96 * noise)];
            Measured { median_ms: ratio * teacher, ci_ms: ci.map(|r| r * teacher), ratio, ratio_ci: ci }
        }

        fn live(&mut self) -> Result<()> {
            self.calls += 1;
            match self.dies_at == Some(self.calls) {
                true => Err(Error::input("killed for the test", "")),
                false => Ok(()),
            }
        }

        fn search(&mut self, rounds: &mut Rounds) -> Result<Found> {
            let (goal, mut tables) = (self.goal.clone(), self.tables());
            search(&goal, self.floor, &mut tables, rounds, self)
        }

        fn run(&mut self) -> (Rounds, Result<Found>) {
            let mut rounds = Rounds::new(String::new(), self.goal.deployments.len());
            let found = self.search(&mut rounds);
            (rounds, found)
        }
    }

    impl Bench for World {
        fn solve(
            &mut self,
            tables: &[Priced],
            size_error: f64,
            best: Option<&Candidate>,
            seen: &[Candidate],
        ) -> Result<Proposed> {
            let problem: Problem = self.program().problem(Some(&self.scores), tables, size_error)?;
            let (outcome, solutions) = propose(&problem, best, seen)?;
            Ok(match outcome.status {
                Status::Infeasible => {
                    Proposed::OutOfReach(self.program().infeasible(&problem, &outcome, tables))
                }
                _ => Proposed::Solutions(solutions),
            })
        }

        fn examine(
            &mut self,
            tables: &[Priced],
            round: usize,
            solutions: &[(usize, Solution)],
        ) -> Result<Examined> {
            self.live()?;
            let mut candidates = Vec::new();
            for (rank, solution) in solutions {
                self.examined += 1;
                let choices = &solution.choices;
                let timing = |world: &mut World, number: usize| Timing {
                    deployment: tables[number].deployment.to_string(),
                    limit_ms: tables[number].limit_ms(),
                    predicted_ms: tables[number].table.predict(choices).unwrap(),
                    measured: tables[number]
                        .target
                        .is_here()
                        .then(|| world.measure(choices, number, world.noise)),
                    teacher_ms: None,
                };
                let first = timing(self, 0);
                let others: Vec<Timing> = (1..tables.len()).map(|number| timing(self, number)).collect();
                let footprint = self.program().footprint(solution);
                let mut candidate = Candidate {
                    round,
                    rank: *rank,
                    choices: choices.clone(),
                    score: solution.score,
                    predicted_ms: first.predicted_ms,
                    limit_ms: first.limit_ms,
                    // Layers that change make each other worse.
                    loss: 0.3 + solution.score + 0.8 * solution.score.powi(2) + 0.01 * self.normal(),
                    top1: 0.5,
                    measured: first.measured,
                    confirmed: false,
                    others,
                    cost: self.program().cost(solution),
                    memory_bytes: footprint.memory_bytes(Default::default()),
                    size_bytes: footprint.size_bytes(Default::default()),
                    meets_budget: false,
                    thinnest: self.program().thinnest(choices),
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
            Ok(Examined { candidates, drift: vec![1.0; tables.len()], size_error: 1.0 })
        }

        fn confirm(
            &mut self,
            candidate: &Candidate,
            _: &dyn Fn(usize, &Measured) -> bool,
        ) -> Result<Vec<Option<Measured>>> {
            self.live()?;
            self.confirmed += 1;
            let noise = self.noise / 3.0;
            Ok((0..self.goal.deployments.len())
                .map(|number| Some(self.measure(&candidate.choices, number, noise)))
                .collect())
        }

        fn keep(&mut self, rounds: &Rounds) -> Result<()> {
            self.kept = Some(serde_json::to_string(rounds).unwrap());
            Ok(())
        }

        fn tell(&mut self, told: &Told) -> Result<()> {
            assert!(!told.candidates.is_empty());
            self.rounds = told.round + 1;
            Ok(())
        }
    }

    #[test]
    fn the_loop_ends_inside_the_budget_however_wrong_the_table_is() {
        let (mut cases, mut inside, mut rounds_in_all) = (0, 0, 0);
        for budget in ["0.3x", "0.5x", "0.7x"] {
            for bias in [0.9, 0.96, 1.0, 1.05, 1.12] {
                for (seed, noise) in [(1, 0.0), (2, 0.006), (3, 0.012)] {
                    let mut world = World::new(budget, &[bias], noise, seed);
                    let (rounds, found) = world.run();
                    let what = format!("{budget}, table off by {bias}, noise {noise}");
                    let found = found.unwrap_or_else(|e| panic!("{what}: {e}"));
                    let winner = &rounds.candidates[found.winner];
                    let share: f64 = budget.trim_end_matches('x').parse().unwrap();
                    let truth = world.truth(&winner.choices, 0) / share;
                    // Never above the budget but for noise: measured again it stays within a percent.
                    assert!(truth <= 1.002, "{what}: {truth}");
                    assert!(winner.confirmed && winner.meets_budget, "{what}");
                    assert!(world.rounds <= 4, "{what}");
                    let used = found.used.unwrap();
                    assert_eq!(
                        found.ended == Ended::Inside,
                        used >= ENOUGH,
                        "{what}: {used}, {:?}",
                        found.ended
                    );
                    cases += 1;
                    inside += usize::from(truth >= 0.965);
                    rounds_in_all += world.rounds;
                    // Nothing better that was confirmed was passed over.
                    let better =
                        |c: &&Candidate| c.confirmed && c.loss < winner.loss && world.goal.fits_well(c);
                    assert_eq!(rounds.candidates.iter().filter(better).count(), 0, "{what}");
                }
            }
        }
        assert!(inside * 10 >= cases * 9, "{inside} of {cases} use what the budget allows");
        assert!(rounds_in_all <= 3 * cases, "{rounds_in_all} rounds for {cases} cases");
    }

    #[test]
    fn several_deployments_are_all_met() {
        for seed in 0..4 {
            let mut world = World::new("cpu-b1:0.5x,cpu-b64:0.55x", &[1.06, 0.95], 0.006, seed);
            let (rounds, found) = world.run();
            let winner = &rounds.candidates[found.unwrap().winner];
            assert_eq!(winner.others.len(), 1);
            assert!(world.truth(&winner.choices, 0) <= 0.5 * 1.002);
            assert!(world.truth(&winner.choices, 1) <= 0.55 * 1.002);
        }
    }

    #[test]
    fn it_ends_where_no_better_selection_exists() {
        // Everything of the teacher is allowed: no selection uses the budget.
        let (rounds, found) = World::new("1.2x", &[1.0], 0.003, 5).run();
        let found = found.unwrap();
        assert!(matches!(found.ended, Ended::Exhausted | Ended::OutOfRounds), "{:?}", found.ended);
        assert!(found.used.unwrap() < ENOUGH);
        // The teacher itself, or what was as good by chance.
        let teacher = rounds.candidates.iter().find(|c| c.choices.iter().all(|c| c == "teacher")).unwrap();
        assert!(rounds.candidates[found.winner].loss <= teacher.loss);

        // Far out of reach is said before anything is measured.
        let mut world = World::new("0.01x", &[1.0], 0.003, 5);
        let error = world.run().1.unwrap_err();
        assert!(error.exit_status() == 3 && world.examined == 0, "{error}");

        // What is out of reach by measurement alone, too.
        let mut world = World::new("0.3x", &[3.0], 0.003, 5);
        world.config.select.exclude = vec!["*:identity".into()];
        let error = world.run().1.unwrap_err();
        assert!(error.exit_status() == 3 && world.examined > 0, "{error}");
    }

    #[test]
    fn limits_that_are_known_exactly_need_one_round() {
        let mut world = World::new("params=0.6x", &[1.0], 0.01, 1);
        let (rounds, found) = world.run();
        let found = found.unwrap();
        assert_eq!((found.ended, world.rounds, world.confirmed), (Ended::Exact, 1, 0));
        let winner = &rounds.candidates[found.winner];
        assert!(winner.cost.params as f64 <= 0.6 * sample::cost(LAYERS).params as f64);
        assert!(found.used.unwrap() <= 1.0);
    }

    #[test]
    fn a_table_of_another_device_decides_alone() {
        let mut world = World::new("0.5x", &[1.0], 0.01, 1);
        let mut tables = world.tables();
        tables[0].target = crate::target::Target::Elsewhere { differences: "everything".into() };
        let mut rounds = Rounds::new(String::new(), 1);
        let goal = world.goal.clone();
        let found = search(&goal, 0.0, &mut tables, &mut rounds, &mut world).unwrap();
        assert_eq!((found.ended, world.confirmed, world.rounds), (Ended::Unmeasured, 0, 1));
        let winner = &rounds.candidates[found.winner];
        assert!(winner.measured.is_none() && winner.meets_budget);
        let share = winner.predicted_ms / tables[0].table.teacher_ms() / 0.5;
        assert!(share <= 1.0 - UNMEASURED + 1e-9, "{share}");
    }

    #[test]
    fn each_floor_has_its_best_and_the_next_knows_the_tables_error() {
        let mut world = World::new("0.5x", &[1.12], 0.003, 3);
        let mut rounds = Rounds::new(String::new(), 1);
        let goal = world.goal.clone();
        let mut tables = world.tables();
        let (mut winners, mut found_at) = (Vec::new(), Vec::new());
        for floor in [0.0, 0.4, 1.0] {
            world.floor = floor;
            let before = rounds.floors.len();
            let found = search(&goal, floor, &mut tables, &mut rounds, &mut world).unwrap();
            let winner = &rounds.candidates[found.winner];
            assert!(winner.thinnest >= floor && winner.confirmed && winner.meets_budget, "{floor}");
            assert!(rounds.floors[before..].iter().all(|other| *other == floor));
            // For the first floor the table is wrong by 12 %; for the others it is corrected.
            let first = rounds.candidates.iter().filter(|c| c.round == before);
            let off: Vec<f64> = first.map(|c| c.measured.unwrap().median_ms / c.predicted_ms - 1.0).collect();
            let off = off.iter().map(|off| off.abs()).sum::<f64>() / off.len() as f64;
            assert!(if floor == 0.0 { off > 0.03 } else { off < 0.03 }, "{floor}: off by {off}");
            winners.push(winner.loss);
            let winner = found.winner;
            let others = runners_up(&goal, floor, &mut rounds, &mut world, &found, (3, 0.8)).unwrap();
            let all: Vec<usize> = std::iter::once(&found).chain(&others).map(|found| found.winner).collect();
            assert!(all[0] == winner && (floor > 0.0 || all.len() == 3), "{floor}: {all:?}");
            for (place, &index) in all.iter().enumerate() {
                let candidate = &rounds.candidates[index];
                assert!(
                    candidate.confirmed && candidate.thinnest >= floor && goal.fits_well(candidate),
                    "{floor}"
                );
                let before = all[..place].iter().map(|&other| &rounds.candidates[other]);
                assert!(before.into_iter().all(|other| overlap(candidate, other) <= 0.8), "{floor}");
                assert!(place < 2 || rounds.candidates[all[place - 1]].loss <= candidate.loss, "{floor}");
            }
            found_at.push((floor, winner));
        }
        // A search that goes on after it was killed takes each floor's candidates again, not what later floors found.
        for (floor, winner) in found_at {
            world.floor = floor;
            let again = search(&goal, floor, &mut tables, &mut rounds.clone(), &mut world).unwrap();
            assert_eq!(again.winner, winner, "{floor}");
        }
        assert!(winners[0] <= winners[2]);
    }

    #[test]
    fn finalists_are_the_same_after_an_interruption() {
        let finalists = |world: &mut World, rounds: &mut Rounds| -> Result<Vec<usize>> {
            let found = world.search(rounds)?;
            let goal = world.goal.clone();
            let others = runners_up(&goal, 0.0, rounds, world, &found, (4, 0.9))?;
            Ok(std::iter::once(&found).chain(&others).map(|found| found.winner).collect())
        };
        let mut world = World::new("0.5x", &[1.08], 0.0, 9);
        let mut rounds = Rounds::new(String::new(), 1);
        world.search(&mut rounds).unwrap();
        let (searched, calls) = (world.kept.clone().unwrap(), world.calls);
        let whole = finalists(&mut world, &mut rounds).unwrap();
        assert!(whole.len() > 2 && world.calls > calls + 1, "{whole:?}");
        for at in 1..=world.calls - calls {
            let mut world = World::new("0.5x", &[1.08], 0.0, 9);
            world.dies_at = Some(at);
            let mut rounds: Rounds = serde_json::from_str(&searched).unwrap();
            assert!(finalists(&mut world, &mut rounds).is_err(), "{at}");
            world.dies_at = None;
            let mut rounds: Rounds = serde_json::from_str(world.kept.as_ref().unwrap_or(&searched)).unwrap();
            assert_eq!(finalists(&mut world, &mut rounds).unwrap(), whole, "{at}");
        }
    }

    #[test]
    fn a_killed_search_goes_on_where_it_was() {
        let mut whole = World::new("0.5x", &[1.08], 0.0, 9);
        let (_, found) = whole.run();
        let found = found.unwrap();
        let (calls, examined, used) = (whole.calls, whole.examined, found.used);
        assert!(calls > 2);
        for at in 1..=calls {
            let mut world = World::new("0.5x", &[1.08], 0.0, 9);
            world.dies_at = Some(at);
            let error = world.run().1.unwrap_err();
            assert!(error.to_string().contains("killed"), "{error}");
            let mut rounds = match &world.kept {
                Some(text) => serde_json::from_str(text).unwrap(),
                None => Rounds::new(String::new(), 1),
            };
            world.dies_at = None;
            let again = world.search(&mut rounds).unwrap();
            // Losses have noise of their own, so that the winner may be another; nothing was evaluated twice.
            assert!((again.used.unwrap() - used.unwrap()).abs() < 0.05, "{at}");
            assert!(world.rounds <= 4 && world.examined <= 4 * 12, "{at}: {}", world.examined);
            let distinct: std::collections::BTreeSet<_> =
                rounds.candidates.iter().map(|c| &c.choices).collect();
            assert_eq!(distinct.len(), rounds.candidates.len());
        }
        assert!(examined > 0);
    }
}
