//! The same program as a file in the LP format of CPLEX, for any other solver.
//!
//! One binary variable per choice that may be taken, `x_LAYER_CHOICE` by index, since names may hold characters that
//! the format does not know; comments at the top say what they stand for. One equality per layer, one row per end of a
//! budget or cap, one per earlier solution. Costs and scores are written as given, with all their digits: what is met with
//! equality here may fail there by rounding.

use std::fmt::{self, Write};

use crate::rules::Rules;
use crate::{Error, Problem};

/// Terms on a line: some readers take no lines of more than 255 characters.
const TERMS: usize = 6;

impl Problem {
    /// The problem of the first solution in CPLEX's LP format: minimise, binary variables `x_LAYER_CHOICE`.
    ///
    /// `earlier` solutions are rows of it; for a second solution, add the first one to them.
    ///
    /// # Errors
    ///
    /// If the problem is not valid.
    pub fn to_lp(&self) -> Result<String, Error> {
        let rules = self.check()?;
        // Validated: every layer has a choice that may be taken.
        let first = rules.allowed[0].iter().position(|&allowed| allowed).unwrap_or(0);
        let mut program = Program { text: String::new(), first: (0, first) };
        // Writing to a string does not fail.
        let _ = program.write(self, &rules);
        Ok(program.text)
    }
}

/// Layer and choice.
type Place = (usize, usize);

struct Program {
    text: String,
    /// Some variable, for sums that would be empty, which the format does not know.
    first: Place,
}

impl Program {
    fn write(&mut self, problem: &Problem, rules: &Rules) -> fmt::Result {
        let variables = || {
            rules.allowed.iter().enumerate().flat_map(|(layer, allowed)| {
                let kept = allowed.iter().enumerate().filter(|(_, allowed)| **allowed);
                kept.map(move |(choice, _)| (layer, choice))
            })
        };
        let choice = |(layer, choice): Place| &problem.layers[layer].choices[choice];
        writeln!(self.text, "\\ {} layers, {} choices", problem.layers.len(), variables().count())?;
        for (layer, index) in variables() {
            let (layer_name, choice_name) = (&problem.layers[layer].name, &choice((layer, index)).name);
            writeln!(self.text, "\\ x_{layer}_{index}: {layer_name:?} {choice_name:?}")?;
        }
        self.text.push_str("Minimize\n");
        self.row("score", variables().map(|place| (place, choice(place).score)))?;
        self.text.push_str("\nSubject To\n");
        for layer in 0..problem.layers.len() {
            let own = variables().filter(|place| place.0 == layer).map(|place| (place, 1.0));
            self.row(&format!("layer_{layer}"), own)?;
            self.text.push_str(" = 1\n");
        }
        for (index, (name, budget)) in problem.budgets.iter().enumerate() {
            writeln!(self.text, "\\ budget {name:?}")?;
            let cost = |place| (place, choice(place).costs.get(name).copied().unwrap_or(0.0));
            self.ends(&format!("budget_{index}"), || variables().map(cost), budget.min, budget.max)?;
        }
        for (index, (cap, counted)) in problem.caps.iter().zip(&rules.counted).enumerate() {
            writeln!(self.text, "\\ cap {:?}", cap.label(index))?;
            let count = || {
                let counts = |&(layer, choice): &Place| counted[layer][choice];
                variables().filter(counts).map(|place| (place, 1.0))
            };
            let (min, max) = (cap.min.map(|min| min as f64), cap.max.map(|max| max as f64));
            self.ends(&format!("cap_{index}"), count, min, max)?;
        }
        for (index, names) in problem.earlier.iter().enumerate() {
            let shared = variables().filter(|&place| choice(place).name == names[place.0]);
            self.row(&format!("overlap_{index}"), shared.map(|place| (place, 1.0)))?;
            writeln!(self.text, " <= {}", problem.overlap_limit())?;
        }
        self.text.push_str("Binary\n");
        for (count, (layer, choice)) in variables().enumerate() {
            let separator = if count % TERMS == TERMS - 1 { "\n" } else { "" };
            write!(self.text, " x_{layer}_{choice}{separator}")?;
        }
        self.text.push_str("\nEnd\n");
        Ok(())
    }

    /// The rows of both ends.
    fn ends<Terms: Iterator<Item = (Place, f64)>>(
        &mut self,
        name: &str,
        terms: impl Fn() -> Terms,
        min: Option<f64>,
        max: Option<f64>,
    ) -> fmt::Result {
        for (end, sign, value) in [("min", ">=", min), ("max", "<=", max)] {
            let Some(value) = value else { continue };
            self.row(&format!("{name}_{end}"), terms())?;
            writeln!(self.text, " {sign} {}", Number(value))?;
        }
        Ok(())
    }

    /// A name and a sum, without a line break after it.
    fn row(&mut self, name: &str, terms: impl Iterator<Item = (Place, f64)>) -> fmt::Result {
        write!(self.text, " {name}:")?;
        let mut terms = terms.filter(|(_, factor)| *factor != 0.0).peekable();
        if terms.peek().is_none() {
            return write!(self.text, " 0 x_{}_{}", self.first.0, self.first.1);
        }
        for (count, ((layer, choice), factor)) in terms.enumerate() {
            if count > 0 && count % TERMS == 0 {
                self.text.push_str("\n  ");
            }
            let sign = if factor < 0.0 { '-' } else { '+' };
            write!(self.text, " {sign} {} x_{layer}_{choice}", Number(factor.abs()))?;
        }
        Ok(())
    }
}

/// A number in as few digits as say it exactly.
struct Number(f64);

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let size = self.0.abs();
        if size == 0.0 || (1e-5..1e15).contains(&size) {
            write!(f, "{}", self.0)
        } else {
            write!(f, "{:e}", self.0)
        }
    }
}
