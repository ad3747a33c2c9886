//! Whether a selection meets what a problem asks for, without solving it.

use crate::rules::Rules;
use crate::{Error, Problem};

/// Tells of any selection whether it meets a problem's budgets, rules and caps: for other ways of selecting than
/// [`solve`](crate::solve), such as chance.
///
/// Sums are compared as they are, without the tolerance that the solver has for rounding errors.
#[derive(Debug, Clone)]
pub struct Checker<'a> {
    problem: &'a Problem,
    rules: Rules,
}

impl<'a> Checker<'a> {
    /// Checks the problem and resolves its rules.
    ///
    /// # Errors
    ///
    /// As [`Problem::validate`].
    pub fn new(problem: &'a Problem) -> Result<Checker<'a>, Error> {
        Ok(Checker { problem, rules: problem.check()? })
    }

    /// Whether a choice may be taken: not forbidden, and one of the forced choices where a layer has such.
    ///
    /// # Panics
    ///
    /// If there is no such layer or choice.
    pub fn may_take(&self, layer: usize, choice: usize) -> bool {
        self.rules.allowed[layer][choice]
    }

    /// What a selection, the index of a choice for each layer, adds up to of a cost; 0 for a cost that it does not have.
    ///
    /// # Panics
    ///
    /// If an index is out of bounds.
    pub fn cost(&self, name: &str, selection: &[usize]) -> f64 {
        let chosen = self.problem.layers.iter().zip(selection).map(|(layer, &choice)| &layer.choices[choice]);
        chosen.map(|choice| choice.costs.get(name).copied().unwrap_or(0.0)).sum()
    }

    /// Whether a selection meets everything.
    ///
    /// # Panics
    ///
    /// If an index is out of bounds.
    pub fn admits(&self, selection: &[usize]) -> bool {
        let taken = || selection.iter().enumerate();
        taken().all(|(layer, &choice)| self.may_take(layer, choice))
            && self.problem.budgets.iter().all(|(name, budget)| {
                let cost = self.cost(name, selection);
                budget.min.is_none_or(|min| cost >= min) && budget.max.is_none_or(|max| cost <= max)
            })
            && self.problem.caps.iter().zip(&self.rules.counted).all(|(cap, counted)| {
                let number = taken().filter(|(layer, choice)| counted[*layer][**choice]).count();
                cap.min.is_none_or(|min| number >= min) && cap.max.is_none_or(|max| number <= max)
            })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Budget, Cap, Choice, Layer, Members};

    fn problem() -> Problem {
        let choice = |name: &str, ms: f64| Choice {
            name: name.into(),
            score: -ms,
            costs: BTreeMap::from([("ms".to_string(), ms)]),
        };
        let layer = |name: &str| Layer {
            name: name.into(),
            choices: vec![choice("teacher", 4.0), choice("half", 2.0), choice("identity", 0.0)],
        };
        let budget = Budget { min: None, max: Some(6.0) };
        Problem::new(vec![layer("a"), layer("b")], BTreeMap::from([("ms".to_string(), budget)]))
    }

    fn admitted(problem: &Problem) -> Vec<[usize; 2]> {
        let checker = Checker::new(problem).unwrap();
        let all = (0..9).map(|at| [at / 3, at % 3]);
        all.filter(|selection| checker.admits(selection)).collect()
    }

    #[test]
    fn budgets_rules_and_caps_all_count() {
        let mut problem = problem();
        assert_eq!(admitted(&problem).len(), 8, "all but both teachers");
        let members =
            |layer: &str, choice: &str| Members { layers: vec![layer.into()], choices: vec![choice.into()] };
        problem.forbidden = vec![members("a", "identity")];
        assert_eq!(admitted(&problem).len(), 5);
        problem.caps = vec![Cap {
            layers: vec!["*".into()],
            choices: vec!["half".into()],
            min: Some(1),
            max: Some(1),
            ..Cap::default()
        }];
        assert_eq!(admitted(&problem), [[0, 1], [1, 0], [1, 2]]);
        problem.forced = vec![members("b", "identity")];
        assert_eq!(admitted(&problem), [[1, 2]]);
        // What it admits is what the solver finds.
        assert_eq!(crate::solve(&problem).unwrap().solutions[0].choices, ["half", "identity"]);
    }

    #[test]
    fn a_faulty_rule_is_an_error() {
        let mut problem = problem();
        problem.caps =
            vec![Cap { layers: vec!["c".into()], choices: vec!["*".into()], max: Some(1), ..Cap::default() }];
        assert!(Checker::new(&problem).is_err());
    }
}
