//! Budgets and caps alike: limits on sums over the choices taken, each end by itself.

use crate::rules::Rules;
use crate::{BudgetEnd, LimitKind, Problem};

/// One end of a budget or cap, in `<=` form.
#[derive(Debug, Clone)]
pub(crate) struct Limit {
    /// Name of the budget or cap.
    pub(crate) name: String,
    pub(crate) kind: LimitKind,
    pub(crate) end: BudgetEnd,
    /// Where the end lies, as stated.
    pub(crate) asked: f64,
    /// What each choice adds, per layer; negated for a `min`.
    pub(crate) values: Vec<Vec<f64>>,
}

impl Limit {
    /// All ends of the budgets, then of the caps.
    pub(crate) fn all(problem: &Problem, rules: &Rules) -> Vec<Limit> {
        let mut limits = Vec::new();
        for (name, budget) in &problem.budgets {
            let max = budget.max.map(|max| Limit::cost(problem, name, max));
            let min = budget.min.map(|min| Limit::cost(problem, name, min).into_min());
            limits.extend(max.into_iter().chain(min));
        }
        for (index, (cap, counted)) in problem.caps.iter().zip(&rules.counted).enumerate() {
            let count = |asked: usize| Limit {
                name: cap.label(index),
                kind: LimitKind::Cap,
                end: BudgetEnd::Max,
                asked: asked as f64,
                values: counted
                    .iter()
                    .map(|counted| counted.iter().map(|&counted| f64::from(u8::from(counted))).collect())
                    .collect(),
            };
            limits.extend(cap.max.map(count));
            limits.extend(cap.min.map(|min| count(min).into_min()));
        }
        limits
    }

    /// The upper end of a budget.
    pub(crate) fn cost(problem: &Problem, cost: &str, max: f64) -> Limit {
        // Validated: choices have the costs of the budgets.
        let value = |choice: &crate::Choice| choice.costs.get(cost).copied().unwrap_or(0.0);
        let values = problem.layers.iter().map(|layer| layer.choices.iter().map(value).collect());
        Limit {
            name: cost.to_owned(),
            kind: LimitKind::Budget,
            end: BudgetEnd::Max,
            asked: max,
            values: values.collect(),
        }
    }

    fn into_min(mut self) -> Limit {
        self.values.iter_mut().flatten().for_each(|value| *value = -*value);
        Limit { end: BudgetEnd::Min, ..self }
    }

    /// Turns a stated sum into one of `values`, or back.
    pub(crate) fn signed(&self, value: f64) -> f64 {
        match self.end {
            BudgetEnd::Max => value,
            BudgetEnd::Min => 0.0 - value,
        }
    }

    /// The nearest sum that the allowed choices can have, as stated.
    pub(crate) fn reachable(&self, rules: &Rules) -> f64 {
        let least = self.values.iter().zip(&rules.allowed).map(|(values, allowed)| {
            let kept = values.iter().zip(allowed).filter(|(_, allowed)| **allowed);
            kept.map(|(value, _)| *value).fold(f64::INFINITY, f64::min)
        });
        self.signed(least.sum())
    }

    /// "budget `latency_ms`", "cap `identities`".
    pub(crate) fn title(&self) -> String {
        match self.kind {
            LimitKind::Budget => format!("budget `{}`", self.name),
            LimitKind::Cap => format!("cap `{}`", self.name),
        }
    }
}
