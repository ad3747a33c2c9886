//! The integer program of a budget: from pool, scores, latency table and rules to a [`Problem`], and what its answers
//! mean for the whole network. Knows no network and no weights.

use std::collections::BTreeMap;

use lana_graph::Cost;
use lana_latency::Table;
use lana_select::{Choice, Layer, LimitKind, Outcome, Problem, Solution};

use crate::rules::Rules;
use crate::stages::profile;
use crate::{Amount, Budget, Config, Error, PoolRecord, Quantity, Result, Scores};

/// What the program of one budget is made of.
#[derive(Clone, Copy)]
pub(crate) struct Program<'a> {
    pub(crate) config: &'a Config,
    pub(crate) budget: &'a Budget,
    pub(crate) pool: &'a PoolRecord,
    /// Cost of the whole teacher.
    pub(crate) teacher: Cost,
}

impl Program<'_> {
    /// The integer program: one operation a layer, least total score, within every limit, under the rules. Without scores, every operation
    /// of the pool with none: what could be reached. `drift` is the teacher's latency now over that in the table.
    pub(crate) fn problem(&self, scores: Option<&Scores>, table: &Table, drift: f64) -> Result<Problem> {
        let by_kl = self.config.score.by == "kl";
        let mut layers = Vec::new();
        for place in &self.pool.layers {
            let choices = place.operations.iter().filter_map(|operation| {
                let score = match scores {
                    Some(scores) if operation.name != "teacher" => {
                        let score = scores.layers.get(&place.layer)?.get(&operation.name)?;
                        if by_kl { score.kl.mean } else { score.loss.mean }
                    }
                    _ => 0.0,
                };
                let costs = BTreeMap::from([
                    (Quantity::Latency.cost_name().to_string(), table.cost(&place.layer, &operation.name)?),
                    (Quantity::Params.cost_name().to_string(), operation.cost.params as f64),
                    (Quantity::Macs.cost_name().to_string(), operation.cost.macs as f64),
                ]);
                Some(Choice { name: operation.name.clone(), score, costs })
            });
            layers.push(Layer { name: place.layer.clone(), choices: choices.collect() });
        }
        let mut budgets = BTreeMap::new();
        let outside = self.outside();
        for limit in self.budget.limits() {
            let (total, fixed) = match limit.quantity {
                Quantity::Latency => (table.teacher_ms(), table.fixed_ms),
                Quantity::Params => (self.teacher.params as f64, outside.params as f64),
                Quantity::Macs => (self.teacher.macs as f64, outside.macs as f64),
            };
            let mut max = match limit.amount {
                Amount::Relative(share) => share * total,
                Amount::Absolute(amount) if limit.quantity == Quantity::Latency => amount / drift,
                Amount::Absolute(amount) => amount,
            };
            if limit.quantity == Quantity::Latency {
                max *= 1.0 - self.config.latency.margin;
            }
            let bound = lana_select::Budget { min: None, max: Some(max - fixed) };
            budgets.insert(limit.quantity.cost_name().to_string(), bound);
        }
        let select = &self.config.select;
        let Rules { forbidden, forced, caps } = Rules::parse(select)?;
        let problem = Problem {
            forbidden,
            forced,
            caps,
            solutions: select.solutions,
            max_overlap: select.max_overlap,
            time_limit_s: Some(select.time_limit_s),
            gap: scores.map_or(0.0, |scores| select.gap * standard_error(scores, by_kl)),
            ..Problem::new(layers, budgets)
        };
        problem.validate().map_err(|error| self.as_written(error))?;
        Ok(problem)
    }

    /// Costs of what stands in no layer.
    fn outside(&self) -> Cost {
        let own = self.pool.layers.iter().filter_map(|layer| layer.operations.first());
        let (params, macs) = own.fold((0, 0), |sum, o| (sum.0 + o.cost.params, sum.1 + o.cost.macs));
        Cost {
            params: self.teacher.params.saturating_sub(params),
            macs: self.teacher.macs.saturating_sub(macs),
        }
    }

    /// Costs of the whole network with a solution's operations.
    pub(crate) fn cost(&self, solution: &Solution) -> Cost {
        let outside = self.outside();
        let sum =
            |quantity: Quantity| solution.costs.get(quantity.cost_name()).map_or(0, |sum| sum.round() as u64);
        Cost { params: outside.params + sum(Quantity::Params), macs: outside.macs + sum(Quantity::Macs) }
    }

    /// An error about a rule, in the words in which the rule was given.
    fn as_written(&self, error: lana_select::Error) -> Error {
        use lana_select::Error as E;
        if !matches!(
            error,
            E::UnmatchedLayer { .. }
                | E::UnmatchedChoice { .. }
                | E::Contradiction { .. }
                | E::CrossedCap { .. }
                | E::CapTooHigh { .. }
        ) {
            return error.into();
        }
        let select = &self.config.select;
        let mut message = error.to_string();
        for (field, name, rules) in
            [("forbidden", "exclude", &select.exclude), ("forced", "force", &select.force)]
        {
            for (index, rule) in rules.iter().enumerate() {
                message = message.replace(&format!("`{field}[{index}]`"), &format!("{name} `{rule}`"));
            }
        }
        Error::input(
            message,
            "pool.json in the run lists layers and operations; rules stand under [select] in run.toml",
        )
    }

    /// The message for a budget out of reach, in whole-network terms.
    pub(crate) fn infeasible(&self, problem: &Problem, outcome: &Outcome, table: &Table) -> Error {
        let latency = Quantity::Latency.cost_name();
        let budget = self.budget;
        let message = match outcome.infeasible.as_ref() {
            Some(i) if i.kind == LimitKind::Budget && i.budget == latency && i.together_with.is_empty() => {
                let least = problem.smallest_reachable(latency).unwrap_or(f64::NAN) + table.fixed_ms;
                format!(
                    "no selection meets {budget} (with {:.1} % in reserve): the smallest reachable latency is {least:.3} ms, \
                     {:.4}x of the teacher's {:.3} ms; layer `{}` binds: its cheapest operation, `{}`, takes {:.3} ms; \
                     {:.3} ms are outside of all layers",
                    100.0 * self.config.latency.margin,
                    least / table.teacher_ms(),
                    table.teacher_ms(),
                    i.layer,
                    i.choice,
                    i.layer_cost,
                    table.fixed_ms,
                )
            }
            Some(i) => format!("{budget}: {}", i.message),
            None => format!("no selection meets {budget}"),
        };
        let mut hint =
            "ask for a larger budget, or widen the pool with faster operations (--pool)".to_string();
        if !(problem.forbidden.is_empty() && problem.forced.is_empty() && problem.caps.is_empty()) {
            hint += ", or relax the rules (--exclude, --force, --cap; '' for none)";
        }
        Error::Infeasible { message, hint }
    }
}

/// The median standard error of the scores.
fn standard_error(scores: &Scores, by_kl: bool) -> f64 {
    let all = scores.layers.values().flat_map(BTreeMap::values);
    let mut errors: Vec<f64> = all
        .map(|score| if by_kl { score.kl.stderr } else { score.loss.stderr })
        .filter(|e| e.is_finite())
        .collect();
    errors.sort_by(f64::total_cmp);
    errors.get(errors.len() / 2).copied().unwrap_or(0.0)
}

/// What a selection depends on besides the run's trainings.
pub(crate) fn settings(config: &Config) -> String {
    let (select, latency) = (&config.select, &config.latency);
    let mut text = format!(
        "{} by {}, margin {}, K {}, overlap {}, gap {}, rounds {}",
        profile::table_name(latency),
        config.score.by,
        latency.margin,
        select.solutions,
        select.max_overlap,
        select.gap,
        select.rounds,
    );
    for (name, rules) in [("exclude", &select.exclude), ("force", &select.force), ("caps", &select.caps)] {
        if !rules.is_empty() {
            text += &format!(", {name} {}", rules.join("; "));
        }
    }
    text
}
