//! Selection by the integer program alone, at once: what the tables say, without evaluating or timing anything.

use std::path::Path;

use lana_graph::Cost;
use lana_select::{Problem, Status};
use serde::{Deserialize, Serialize};

use crate::context::not_ready;
use crate::program::{Priced, Program, settings};
use crate::stages::{depth, profile, tables};
use crate::target::Target;
use crate::{
    Budget, Candidates, Config, Error, PoolRecord, Progress, Result, Run, Scores, Silent, Solutions,
    TeacherMetrics, read_or_redo, write_atomic, write_json,
};

/// Rules of the selection that take the place of those kept in run.toml; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleChanges {
    /// Operations that must not be taken, as `LAYERS:OPERATIONS`. An empty text is no rule: it clears.
    pub exclude: Option<Vec<String>>,
    /// Layers that must take one of some operations, likewise.
    pub force: Option<Vec<String>>,
    /// Limits on how many layers take one of some operations, as `LAYERS:OPERATIONS<=N`.
    pub caps: Option<Vec<String>>,
    /// What to select by: `kl` or `loss`.
    pub score: Option<String>,
}

impl RuleChanges {
    fn apply(&self, config: &mut Config) {
        if let Some(by) = &self.score {
            config.score.by.clone_from(by);
        }
        let select = &mut config.select;
        for (change, rules) in [
            (&self.exclude, &mut select.exclude),
            (&self.force, &mut select.force),
            (&self.caps, &mut select.caps),
        ] {
            if let Some(new) = change {
                *rules =
                    new.iter().map(|rule| rule.trim().to_string()).filter(|rule| !rule.is_empty()).collect();
            }
        }
    }
}

/// What the integer program selects for a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Selection {
    /// The budget as asked.
    pub budget: String,
    /// Latency the table predicts, in milliseconds.
    pub predicted_ms: f64,
    /// The same as a share of the teacher's.
    pub predicted_ratio: f64,
    /// The same on the budget's further deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Predicted>,
    /// Peak of the feature maps, in bytes for one image.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Bytes of the ONNX file, by the sum of its parts.
    #[serde(default)]
    pub size_bytes: u64,
    /// Sum of the scores.
    pub score: f64,
    /// No selection within the budget and the rules has a lower one.
    pub bound: f64,
    /// Whether the selection is proven to be the best.
    pub proven: bool,
    /// Multiply-accumulates and parameters of the whole network.
    #[serde(flatten)]
    pub cost: Cost,
    /// Operation of each layer, with the layer's name.
    pub choices: Vec<(String, String)>,
    /// What it was compared with.
    pub previous: Option<Previous>,
    /// The layers in which it differs from the previous selection.
    pub changed: Vec<Change>,
    /// Whether candidates have been evaluated and timed under the same settings and rules.
    pub evaluated: bool,
}

/// Latency of a selection on one deployment, by its lookup table.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Predicted {
    /// The deployment's label.
    pub deployment: String,
    /// Milliseconds.
    pub predicted_ms: f64,
    /// The same as a share of the teacher's.
    pub predicted_ratio: f64,
}

/// The selection before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Previous {
    /// The winner of an evaluation.
    Evaluated,
    /// The best by the tables.
    Solved,
}

/// A layer whose operation changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// The layer.
    pub layer: String,
    /// Its operation in the previous selection.
    pub before: String,
    /// Its operation now.
    pub now: String,
}

/// Selects for budgets (all of the run's if empty) by the integer program alone, which takes a moment: only pool.json,
/// scores.json and the latency table are read.
///
/// New budgets and rules are kept in run.toml and hold for all later steps, each budget's solution in its solutions.json. Nothing
/// is kept if some budget cannot be met.
pub fn reselect(
    path: &Path,
    budgets: &[Budget],
    rules: &RuleChanges,
    progress: &dyn Progress,
) -> Result<Vec<Selection>> {
    let mut run = Run::open(path)?;
    let mut config = run.config()?;
    run.lock()?;
    rules.apply(&mut config);
    config
        .budgets
        .extend(budgets.iter().filter(|b| !config.budgets.contains(b)).cloned().collect::<Vec<_>>());
    config.validate()?;
    let budgets = if budgets.is_empty() { config.budgets.clone() } else { budgets.to_vec() };
    if budgets.is_empty() {
        return Err(Error::input("no budget is given", "give --budget, such as --budget 0.5x"));
    }
    let missing = |what: &str, stage: &str| not_ready(&run, what, stage);
    let teacher = read_or_redo::<TeacherMetrics>(&run.path("teacher/metrics.json"), progress)?
        .ok_or_else(|| missing("the teacher", "accelerate --out"))?;
    let pool = read_or_redo::<PoolRecord>(&run.path("pool.json"), progress)?
        .ok_or_else(|| missing("the pool", "profile"))?;
    let scores = read_or_redo::<Scores>(&run.path("scores.json"), progress)?
        .ok_or_else(|| missing("the scores", "score"))?;
    let mut found = Vec::new();
    for budget in &budgets {
        let mut tables = Vec::new();
        for (deployment, amount) in budget.deployments(&config.latency.deployment())? {
            let latency = config.latency.on(deployment);
            let table =
                profile::table(&run, &latency, progress)?.ok_or_else(|| tables::missing(&run, &latency))?;
            tables.push(Priced { deployment, amount, target: Target::of(&table), table, drift: 1.0 });
        }
        let program = Program::new(&config, budget, &pool, teacher.cost).above(config.select.least_floor());
        // What an evaluation found out about the identity, if there was one.
        let scores = depth::stored(&run.budget_dir(budget), &scores, &program, progress)?
            .map_or_else(|| scores.clone(), |depth| depth.applied(&scores));
        let problem = Problem { solutions: 1, gap: 0.0, ..program.problem(Some(&scores), &tables, 1.0)? };
        let outcome = lana_select::solve(&problem)?;
        let Some(solution) = outcome.solutions.first().filter(|_| outcome.status != Status::Infeasible)
        else {
            return Err(program.infeasible(&problem, &outcome, &tables));
        };
        let folder = run.budget_dir(budget);
        // What is damaged here is made again by other steps; until then there is nothing to compare with.
        let candidates = read_or_redo::<Candidates>(&folder.join("candidates.json"), &Silent)?
            .filter(|c| c.winner < c.candidates.len());
        let evaluated = candidates.as_ref().is_some_and(|c| c.settings == settings(&config));
        let before = match candidates {
            Some(mut c) => Some((Previous::Evaluated, c.candidates.swap_remove(c.winner).choices)),
            None => read_or_redo::<Solutions>(&folder.join("solutions.json"), &Silent)?
                .and_then(|s| s.outcome.solutions.into_iter().next())
                .map(|s| (Previous::Solved, s.choices)),
        };
        let before = before.filter(|(_, choices)| choices.len() == solution.choices.len());
        let layers = || pool.layers.iter().map(|place| place.layer.clone());
        let changed = before.iter().flat_map(|(_, before)| {
            layers()
                .zip(before)
                .zip(&solution.choices)
                .filter(|((_, before), now)| before != now)
                .map(|((layer, before), now)| Change { layer, before: before.clone(), now: now.clone() })
        });
        let predicted = tables.iter().map(|priced| {
            let predicted_ms = priced.table.predict(&solution.choices)?;
            let predicted_ratio = predicted_ms / priced.table.teacher_ms();
            Ok(Predicted { deployment: priced.deployment.to_string(), predicted_ms, predicted_ratio })
        });
        let predicted = predicted.collect::<Result<Vec<_>>>()?;
        let footprint = program.footprint(solution);
        let precision = budget.precision(&config.latency.deployment())?;
        let selection = Selection {
            budget: budget.to_string(),
            predicted_ms: predicted.first().map_or(f64::NAN, |p| p.predicted_ms),
            predicted_ratio: predicted.first().map_or(f64::NAN, |p| p.predicted_ratio),
            others: predicted.into_iter().skip(1).collect(),
            memory_bytes: footprint.memory_bytes(precision),
            size_bytes: footprint.size_bytes(precision),
            score: solution.score,
            bound: solution.bound,
            proven: solution.proven,
            cost: program.cost(solution),
            choices: layers().zip(solution.choices.iter().cloned()).collect(),
            previous: before.as_ref().map(|(previous, _)| *previous),
            changed: changed.collect(),
            evaluated,
        };
        found.push((folder, Solutions { problem, outcome }, selection));
    }
    if config != run.config()? {
        write_atomic(&run.path("run.toml"), config.to_toml().as_bytes())?;
    }
    let keep = |(folder, solutions, selection): (std::path::PathBuf, Solutions, Selection)| {
        write_json(&folder.join("solutions.json"), &solutions)?;
        Ok(selection)
    };
    found.into_iter().map(keep).collect()
}
