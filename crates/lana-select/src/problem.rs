//! The problem as its user states it, and the checks on it.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::rules::Rules;

/// Seconds a [`Problem`] without `time_limit_s` may take.
pub const DEFAULT_TIME_LIMIT_S: f64 = 60.0;

/// Layers, what they offer, and what must hold for a selection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Problem {
    /// The layers; a selection takes exactly one choice of each.
    pub layers: Vec<Layer>,
    /// Limits on the sums of costs, by the name of the cost.
    #[serde(default)]
    pub budgets: BTreeMap<String, Budget>,
    /// Choices that must not be taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forbidden: Vec<Members>,
    /// In every layer matched, one of the choices matched must be taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<Members>,
    /// Limits on how many layers take one of some choices.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caps: Vec<Cap>,
    /// How many solutions are wanted.
    #[serde(default = "one")]
    pub solutions: usize,
    /// The largest overlap with each earlier solution, as a fraction of the layers (floor of the product). Solutions
    /// differ in at least one layer even at 1.
    #[serde(default = "default_overlap")]
    pub max_overlap: f64,
    /// Seconds after which the best found so far is returned, marked as not proven; [`DEFAULT_TIME_LIMIT_S`] if
    /// absent. Every step may use three times its equal share of the time left, so that no hard proof starves the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_limit_s: Option<f64>,
    /// Amount of score that may be given away: a step ends as soon as its solution is proven to be within `gap` of the
    /// best possible. Absolute, since sums of scores may be near zero or negative.
    #[serde(default)]
    pub gap: f64,
    /// Threads that the search may use; one per core if absent. More are faster and change nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threads: Option<NonZeroUsize>,
    /// Solutions to be diverse from, found before: one choice name per layer each, also of choices forbidden by now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Vec<String>>,
}

/// A place where one choice must be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    /// Unique name.
    pub name: String,
    /// What can be chosen, at least one.
    pub choices: Vec<Choice>,
}

/// One of the possibilities of a layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// Name, unique within the layer.
    pub name: String,
    /// What the choice adds to the objective, which is minimised: finite, may be negative.
    pub score: f64,
    /// What the choice adds to each cost: finite. Must hold every cost that a budget names; others are
    /// summed and reported.
    #[serde(default)]
    pub costs: BTreeMap<String, f64>,
}

/// Limits, inclusive, on the sum of one cost; at least one end is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Least sum allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<f64>,
    /// Greatest sum allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<f64>,
}

/// Some choices of some layers, by patterns for their names.
///
/// In a pattern, `*` stands for any run of characters (also none), everything else for itself. Every pattern must match
/// something.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Members {
    /// Patterns for layers: those that match at least one.
    pub layers: Vec<String>,
    /// Patterns for choices of these layers: those that match at least one.
    pub choices: Vec<String>,
}

/// Limits, inclusive, on the number of layers that take one of some choices; at least one end is given. Patterns
/// are those of [`Members`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cap {
    /// What messages call it; by its place, `caps[0]`, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Patterns for layers.
    pub layers: Vec<String>,
    /// Patterns for choices of these layers.
    pub choices: Vec<String>,
    /// Least number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min: Option<usize>,
    /// Greatest number allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<usize>,
}

impl Cap {
    /// Its name, or its place among the caps.
    pub(crate) fn label(&self, index: usize) -> String {
        self.name.clone().unwrap_or_else(|| format!("caps[{index}]"))
    }
}

fn one() -> usize {
    1
}

/// Whether sums of such numbers stay far from overflow.
fn is_usable(value: f64) -> bool {
    value.abs() <= 1e300
}

fn default_overlap() -> f64 {
    0.7
}

impl Problem {
    /// A problem that asks for one solution, with the default overlap (0.7), time limit and gap (0).
    pub fn new(layers: Vec<Layer>, budgets: BTreeMap<String, Budget>) -> Problem {
        Problem {
            layers,
            budgets,
            forbidden: Vec::new(),
            forced: Vec::new(),
            caps: Vec::new(),
            solutions: one(),
            max_overlap: default_overlap(),
            time_limit_s: None,
            gap: 0.0,
            threads: None,
            earlier: Vec::new(),
        }
    }

    /// The number of layers in which a solution may equal an earlier one.
    ///
    /// This is the floor of `max_overlap` times the number of layers, forgiving the last digit of the product (0.29 of 100 is
    /// 29), and never all layers: an equal selection is no second solution.
    pub fn overlap_limit(&self) -> usize {
        let layers = self.layers.len();
        let limit = (self.max_overlap * layers as f64 + 1e-9).floor() as usize;
        limit.min(layers.saturating_sub(1))
    }

    /// The smallest sum that `cost` can have with the choices that may be taken, whatever budgets and caps say.
    ///
    /// # Errors
    ///
    /// If a layer has no choices, a choice lacks that cost, or a rule is at fault.
    pub fn smallest_reachable(&self, cost: &str) -> Result<f64, Error> {
        self.extreme(cost, f64::min)
    }

    /// The largest sum that `cost` can have with the choices that may be taken, whatever budgets and caps say.
    ///
    /// # Errors
    ///
    /// If a layer has no choices, a choice lacks that cost, or a rule is at fault.
    pub fn largest_reachable(&self, cost: &str) -> Result<f64, Error> {
        self.extreme(cost, f64::max)
    }

    fn extreme(&self, cost: &str, better: fn(f64, f64) -> f64) -> Result<f64, Error> {
        if let Some(layer) = self.layers.iter().find(|layer| layer.choices.is_empty()) {
            return Err(Error::NoChoices { layer: layer.name.clone() });
        }
        let rules = Rules::new(self)?;
        let mut sum = 0.0;
        for (layer, allowed) in self.layers.iter().zip(&rules.allowed) {
            let mut best = None;
            for (choice, _) in layer.choices.iter().zip(allowed).filter(|(_, allowed)| **allowed) {
                let value = *choice.costs.get(cost).ok_or_else(|| Error::UnknownCost {
                    layer: layer.name.clone(),
                    choice: choice.name.clone(),
                    cost: cost.to_owned(),
                })?;
                best = Some(best.map_or(value, |so_far| better(so_far, value)));
            }
            sum += best.unwrap_or(0.0);
        }
        Ok(sum)
    }

    /// Checks everything that [`solve`](crate::solve) relies on; `solve` calls it.
    ///
    /// # Errors
    ///
    /// The first fault found, with its place and its cure.
    pub fn validate(&self) -> Result<(), Error> {
        self.check().map(drop)
    }

    /// Validates, and resolves the rules on the way.
    pub(crate) fn check(&self) -> Result<Rules, Error> {
        if self.layers.is_empty() {
            return Err(Error::NoLayers);
        }
        if self.solutions == 0 {
            return Err(Error::NoSolutions);
        }
        if !(0.0..=1.0).contains(&self.max_overlap) {
            return Err(Error::BadOverlap { value: self.max_overlap });
        }
        if let Some(value) = self.time_limit_s
            && (value.is_nan() || value < 0.0)
        {
            return Err(Error::BadTimeLimit { value });
        }
        if !self.gap.is_finite() || self.gap < 0.0 {
            return Err(Error::BadGap { value: self.gap });
        }
        self.validate_budgets()?;
        let mut layer_names = HashSet::with_capacity(self.layers.len());
        let mut choice_names = HashSet::new();
        for layer in &self.layers {
            if !layer_names.insert(layer.name.as_str()) {
                return Err(Error::DuplicateLayer { layer: layer.name.clone() });
            }
            self.validate_layer(layer, &mut choice_names)?;
        }
        self.validate_earlier()?;
        Rules::new(self)
    }

    fn validate_budgets(&self) -> Result<(), Error> {
        for (name, budget) in &self.budgets {
            for (end, value) in [("min", budget.min), ("max", budget.max)] {
                if let Some(value) = value
                    && !is_usable(value)
                {
                    return Err(Error::BadBudget { budget: name.clone(), end, value });
                }
            }
            match (budget.min, budget.max) {
                (None, None) => return Err(Error::EmptyBudget { budget: name.clone() }),
                (Some(min), Some(max)) if min > max => {
                    return Err(Error::CrossedBudget { budget: name.clone(), min, max });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// `names` is only there to be used again.
    fn validate_layer<'a>(&self, layer: &'a Layer, names: &mut HashSet<&'a str>) -> Result<(), Error> {
        if layer.choices.is_empty() {
            return Err(Error::NoChoices { layer: layer.name.clone() });
        }
        names.clear();
        for choice in &layer.choices {
            let place = || (layer.name.clone(), choice.name.clone());
            if !names.insert(choice.name.as_str()) {
                let (layer, choice) = place();
                return Err(Error::DuplicateChoice { layer, choice });
            }
            if !is_usable(choice.score) {
                let (layer, choice_name) = place();
                return Err(Error::BadScore { layer, choice: choice_name, value: choice.score });
            }
            for (cost, &value) in &choice.costs {
                if !is_usable(value) {
                    let (layer, choice) = place();
                    return Err(Error::BadCost { layer, choice, cost: cost.clone(), value });
                }
            }
            if let Some(cost) = self.budgets.keys().find(|cost| !choice.costs.contains_key(*cost)) {
                let (layer, choice) = place();
                return Err(Error::MissingCost { layer, choice, cost: cost.clone() });
            }
        }
        Ok(())
    }

    fn validate_earlier(&self) -> Result<(), Error> {
        for (index, names) in self.earlier.iter().enumerate() {
            if names.len() != self.layers.len() {
                return Err(Error::EarlierLength { index, found: names.len(), expected: self.layers.len() });
            }
            for (layer, name) in self.layers.iter().zip(names) {
                if !layer.choices.iter().any(|choice| choice.name == *name) {
                    return Err(Error::EarlierChoice {
                        index,
                        layer: layer.name.clone(),
                        choice: name.clone(),
                    });
                }
            }
        }
        Ok(())
    }
}
