//! Ways to select that need no program: chance, and one operation everywhere.

use std::collections::{BTreeMap, BTreeSet};

use lana_select::{Checker, Problem, Solution};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::Result;

/// Random selections that use at least a share of what a problem allows: a random walk that changes up to two layers at a
/// time, with a look at it after every 20 steps a layer. Gives none if the problem has no solution.
pub(crate) fn random(problem: &Problem, share: f64, count: usize, seed: u64) -> Result<Vec<Solution>> {
    let first = lana_select::solve(&Problem { solutions: 1, earlier: Vec::new(), ..problem.clone() })?;
    let Some(first) = first.solutions.first() else { return Ok(Vec::new()) };
    let checker = Checker::new(problem)?;
    let used = |selection: &[usize]| used(problem, &checker, selection);
    let index = |(layer, name): (&lana_select::Layer, &String)| {
        layer.choices.iter().position(|choice| choice.name == *name).unwrap_or(0)
    };
    let mut selection: Vec<usize> = problem.layers.iter().zip(&first.choices).map(index).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut below = |end: usize| random.random_range(0..end);
    let mut found = Vec::new();
    while found.len() < count {
        for _ in 0..20 * problem.layers.len() {
            let before = selection.clone();
            for _ in 0..2 {
                let layer = below(problem.layers.len());
                selection[layer] = below(problem.layers[layer].choices.len());
            }
            // What uses too little may only come nearer.
            let enough = || used(&selection) >= share.min(used(&before));
            if !checker.admits(&selection) || !enough() {
                selection = before;
            }
        }
        found.push(solution(problem, &checker, &selection));
    }
    Ok(found)
}

/// For every operation the selection that has it in all layers that offer it, and the teacher's own in the others; those that
/// the problem admits, by their scores, as many as solutions are asked for.
pub(crate) fn uniform(problem: &Problem) -> Result<Vec<Solution>> {
    let checker = Checker::new(problem)?;
    let names: BTreeSet<&str> =
        problem.layers.iter().flat_map(|layer| &layer.choices).map(|choice| choice.name.as_str()).collect();
    let mut found = Vec::new();
    for name in names.into_iter().filter(|name| *name != "teacher") {
        let place =
            |layer: &lana_select::Layer, name: &str| layer.choices.iter().position(|c| c.name == name);
        let choose = |layer: &lana_select::Layer| place(layer, name).or_else(|| place(layer, "teacher"));
        let selection: Option<Vec<usize>> = problem.layers.iter().map(choose).collect();
        found.extend(
            selection.filter(|s| checker.admits(s)).map(|selection| solution(problem, &checker, &selection)),
        );
    }
    found.sort_by(|a, b| a.score.total_cmp(&b.score));
    found.truncate(problem.solutions);
    Ok(found)
}

/// The largest share that a selection uses of any budget; 1 where nothing limits from above.
fn used(problem: &Problem, checker: &Checker<'_>, selection: &[usize]) -> f64 {
    let budgets = problem.budgets.iter();
    let shares = budgets
        .filter_map(|(name, budget)| Some((checker.cost(name, selection), budget.max?)))
        .map(|(cost, max)| if max > 0.0 { cost / max } else { 1.0 });
    shares.reduce(f64::max).unwrap_or(1.0)
}

/// A selection as a solution, of which nothing is proven.
fn solution(problem: &Problem, checker: &Checker<'_>, selection: &[usize]) -> Solution {
    let chosen = || problem.layers.iter().zip(selection).map(|(layer, &choice)| &layer.choices[choice]);
    let costs: BTreeMap<String, f64> =
        problem.budgets.keys().map(|name| (name.clone(), checker.cost(name, selection))).collect();
    let score = chosen().map(|choice| choice.score).sum();
    Solution {
        choices: chosen().map(|choice| choice.name.clone()).collect(),
        score,
        costs,
        bound: f64::NEG_INFINITY,
        gap: f64::INFINITY,
        proven: false,
        nodes: 0,
    }
}

#[cfg(test)]
mod tests {
    use lana_select::Members;

    use super::*;
    use crate::sample::problem;

    #[test]
    fn random_selections_use_the_budget_and_differ() {
        let mut problem = problem();
        let found = random(&problem, 0.95, 40, 1).unwrap();
        assert_eq!(found, random(&problem, 0.95, 40, 1).unwrap());
        assert!(found.iter().all(|s| (9.5..=10.0).contains(&s.costs["latency_ms"])));
        let distinct: BTreeSet<_> = found.iter().map(|s| &s.choices).collect();
        assert!(distinct.len() > 3, "{distinct:?}");
        // Rules hold for chance too.
        problem.forbidden = vec![Members { layers: vec!["a".into()], choices: vec!["identity".into()] }];
        let found = random(&problem, 0.95, 40, 1).unwrap();
        assert!(found.len() == 40 && found.iter().all(|s| s.choices[0] != "identity"));
        // Out of reach.
        problem.budgets.values_mut().for_each(|budget| budget.max = Some(-1.0));
        assert_eq!(random(&problem, 0.95, 40, 1).unwrap(), []);
    }

    #[test]
    fn uniform_selections_are_those_that_fit_best_first() {
        let mut problem = problem();
        let all = |name: &str| vec![name.to_string(); 4];
        let names = |found: Vec<Solution>| found.into_iter().map(|s| s.choices).collect::<Vec<_>>();
        assert_eq!(
            names(uniform(&Problem { solutions: 5, ..problem.clone() }).unwrap()),
            [all("half"), all("identity")]
        );
        assert_eq!(names(uniform(&problem).unwrap()), [all("half")]);
        // A layer that does not offer the operation keeps its own.
        problem.layers[1].choices.retain(|choice| choice.name != "half");
        let found = names(uniform(&problem).unwrap());
        assert_eq!(found, [["half", "teacher", "half", "half"].map(String::from).to_vec()]);
    }
}
