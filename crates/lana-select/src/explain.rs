//! Why a problem has no selection: which limit cannot be met, and what could be reached.

use std::time::{Duration, Instant};

use crate::instance::Scaled;
use crate::limit::Limit;
use crate::rules::Rules;
use crate::search::{any, optimum};
use crate::{BudgetEnd, Infeasible, LimitKind, Problem};

/// The limit that makes a problem without selections infeasible; `None` if it is only the earlier solutions, or if time ran
/// out.
pub(crate) fn explain(problem: &Problem, rules: &Rules, deadline: Instant) -> Option<Infeasible> {
    // An explanation may take a moment beyond the limit: without it the answer is of little use.
    let deadline = deadline.max(Instant::now() + Duration::from_millis(200));
    let limits = Limit::all(problem, rules);
    let limits: Vec<&Limit> = limits.iter().collect();
    if let Some(limit) = limits.iter().find(|limit| meets(problem, rules, &[limit], deadline) == Some(false))
    {
        return Some(infeasible(problem, rules, limit, Some(limit.reachable(rules)), &[]));
    }
    // The first that cannot be met together with those before it, ...
    let count =
        (2..=limits.len()).find(|&count| meets(problem, rules, &limits[..count], deadline) == Some(false))?;
    let limit = limits[count - 1];
    // ... and of those the ones that it takes.
    let mut others = limits[..count - 1].to_vec();
    for index in (0..others.len()).rev() {
        let mut fewer = others.clone();
        fewer.remove(index);
        if meets(problem, rules, &[fewer.as_slice(), &[limit]].concat(), deadline) == Some(false) {
            others = fewer;
        }
    }
    let reachable = nearest(rules, &others, limit, deadline);
    Some(infeasible(problem, rules, limit, reachable, &others))
}

/// Whether some selection meets the limits; `None` if time ran out.
fn meets(problem: &Problem, rules: &Rules, limits: &[&Limit], deadline: Instant) -> Option<bool> {
    let instance = Scaled::with(&scores(problem), rules, limits).instance(&[], 0);
    any(&instance, deadline).map(|found| found.is_some())
}

/// The nearest sum to `limit` that selections within `others` have.
fn nearest(rules: &Rules, others: &[&Limit], limit: &Limit, deadline: Instant) -> Option<f64> {
    let instance = Scaled::with(&limit.values, rules, others).instance(&[], 0);
    let best = optimum(&instance, deadline)?;
    let sum = best.iter().enumerate().map(|(layer, &item)| limit.values[layer][instance.choice[item]]).sum();
    Some(limit.signed(sum))
}

/// Scores as given, per layer and choice.
pub(crate) fn scores(problem: &Problem) -> Vec<Vec<f64>> {
    problem.layers.iter().map(|layer| layer.choices.iter().map(|choice| choice.score).collect()).collect()
}

fn infeasible(
    problem: &Problem,
    rules: &Rules,
    limit: &Limit,
    reachable: Option<f64>,
    others: &[&Limit],
) -> Infeasible {
    // Of each layer the choice nearest to the end, of all layers the one where that is farthest from helping.
    let nearest =
        limit.values.iter().zip(&rules.allowed).enumerate().filter_map(|(layer, (values, allowed))| {
            let kept = values.iter().zip(allowed).enumerate().filter(|(_, (_, allowed))| **allowed);
            let (choice, (&value, _)) = kept.min_by(|(_, (a, _)), (_, (b, _))| a.total_cmp(b))?;
            Some((layer, choice, value))
        });
    let (layer, choice, value) = nearest.max_by(|a, b| a.2.total_cmp(&b.2)).unwrap_or((0, 0, 0.0));
    let layer_cost = limit.signed(value);
    let layer = &problem.layers[layer];
    let choice = layer.choices[choice].name.clone();
    let mut together_with: Vec<String> = others.iter().map(|other| other.name.clone()).collect();
    together_with.dedup();
    let mut titles: Vec<String> = others.iter().map(|other| other.title()).collect();
    titles.dedup();
    let together =
        if titles.is_empty() { String::new() } else { format!(" together with {}", titles.join(" and ")) };
    let (end, superlative, cure) = match limit.end {
        BudgetEnd::Max => ("max", "smallest", "raise"),
        BudgetEnd::Min => ("min", "largest", "lower"),
    };
    let (sum, kind) = match limit.kind {
        LimitKind::Budget => ("sum", "budget"),
        LimitKind::Cap => ("count", "cap"),
    };
    let reach =
        reachable.map_or(String::new(), |value| format!(": the {superlative} reachable {sum} is {value}"));
    let binds = match (limit.kind, limit.end) {
        (LimitKind::Budget, _) => format!("it contributes {layer_cost} even with `{choice}`"),
        (LimitKind::Cap, BudgetEnd::Max) if layer_cost == 1.0 => "every choice it may take counts".to_owned(),
        (LimitKind::Cap, BudgetEnd::Min) if layer_cost == 0.0 => "no choice it may take counts".to_owned(),
        (LimitKind::Cap, _) => String::new(),
    };
    let binding =
        if binds.is_empty() { String::new() } else { format!("layer `{}` binds, {binds}: ", layer.name) };
    let message = format!(
        "no selection meets {} {end} {}{together}{reach}; {binding}{cure} the {kind}, or give a layer a choice that helps",
        limit.title(),
        limit.asked,
    );
    Infeasible {
        budget: limit.name.clone(),
        kind: limit.kind,
        end: limit.end,
        asked: limit.asked,
        reachable,
        layer: layer.name.clone(),
        choice,
        layer_cost,
        together_with,
        message,
    }
}
