//! The steps of the method, one file each. Every step reads what it needs from the run directory, does what is not done
//! yet, and writes what it finds there.

pub(crate) mod control;
pub(crate) mod depth;
pub(crate) mod export;
pub(crate) mod finals;
pub(crate) mod finetune;
pub(crate) mod library;
pub(crate) mod precision;
pub(crate) mod pretrain;
pub(crate) mod profile;
pub(crate) mod report;
pub(crate) mod score;
pub(crate) mod select;
pub(crate) mod tables;
pub(crate) mod teacher;

pub use export::ExportFormat;
pub use pretrain::Shard;

use std::path::{Path, PathBuf};

use crate::context::Context;
use crate::{Budget, Control, ControlMetrics, Memory, Progress, Recipe, Result, StudentMetrics};

/// A step that can run alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Measure the latency table.
    Profile,
    /// Train the operations (phase 1).
    Pretrain,
    /// Score each operation alone in its layer's place.
    Score,
    /// Solve the integer program, evaluate and time its solutions (phase 2).
    Select,
    /// Train the chosen student (phase 3).
    Finetune,
    /// Export, verify and measure the student.
    Export,
    /// Write the page.
    Report,
}

/// Runs one step on an existing run; what it needs must be there, what is done stays done. `budgets` are those to work
/// on, all of the run's if empty; a new one is added to the run.
pub fn run_stage(run: &Path, stage: Stage, budgets: &[Budget], progress: &dyn Progress) -> Result<()> {
    let mut context = Context::open(run, progress)?;
    context.add_budgets(budgets)?;
    match stage {
        Stage::Profile => profile::run(&context).map(drop),
        Stage::Pretrain => pretrain::run(&context, None),
        Stage::Score => score::run(&context).map(drop),
        Stage::Select => each(&context, budgets, select::run),
        Stage::Finetune => each(&context, budgets, finetune::run),
        Stage::Export => each(&context, budgets, |c, b| export::run(c, b).map(drop)),
        Stage::Report => report::run(&context).map(drop),
    }
}

/// What may be said to phase 1 alone.
#[derive(Clone, Copy, Debug, Default)]
pub struct PretrainOptions {
    /// The part of the work that this process takes, for several that share a run; all of it if absent.
    pub shard: Option<Shard>,
    /// Memory it may take, instead of what the run says.
    pub memory: Option<Memory>,
}

/// Runs phase 1 on an existing run. With a shard, others may work on theirs at the same time, on this machine or on another
/// that sees the same files.
pub fn pretrain(run: &Path, options: &PretrainOptions, progress: &dyn Progress) -> Result<()> {
    let mut context = match options.shard {
        Some(shard) => Context::open_shard(run, shard, progress)?,
        None => Context::open(run, progress)?,
    };
    context.config.pretrain.memory = options.memory.or(context.config.pretrain.memory);
    pretrain::run(&context, options.shard)
}

/// Exports the students of an existing run, for `budgets` or all of the run's, and gives the file of each in a format. What is
/// exported already stays as it is.
pub fn export(
    run: &Path,
    format: ExportFormat,
    budgets: &[Budget],
    progress: &dyn Progress,
) -> Result<Vec<PathBuf>> {
    let mut context = Context::open(run, progress)?;
    context.add_budgets(budgets)?;
    context.budgets(budgets)?.iter().map(|budget| export::file(&context, budget, format)).collect()
}

/// What may be said to phase 3 alone.
#[derive(Clone, Debug, Default)]
pub struct FinetuneOptions {
    /// The recipe that takes the place of the run's; the run's if absent.
    pub recipe: Option<Recipe>,
}

/// Runs phase 3 on an existing run, for `budgets` or all of the run's. A recipe becomes the run's.
pub fn finetune(
    run: &Path,
    options: &FinetuneOptions,
    budgets: &[Budget],
    progress: &dyn Progress,
) -> Result<()> {
    let mut context = Context::open(run, progress)?;
    context.add_budgets(budgets)?;
    if let Some(recipe) = &options.recipe {
        context.set_recipe(recipe)?;
    }
    each(&context, budgets, finetune::run)
}

/// What may be said to controls.
#[derive(Clone, Debug)]
pub struct ControlOptions {
    /// Which.
    pub controls: Vec<Control>,
    /// The recipe that takes the place of the run's; the run's if absent.
    pub recipe: Option<Recipe>,
}

/// The student of a budget and what it is compared with.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Comparison {
    /// The budget.
    pub budget: Budget,
    /// The student, if there is one yet.
    pub student: Option<StudentMetrics>,
    /// All controls that the run has under this budget.
    pub controls: Vec<ControlMetrics>,
}

/// Makes controls beside the students of an existing run: selects those that are selections, trains them by the run's recipe,
/// exports and measures them, writes the report, and gives what there is to compare. For `budgets` or all of the run's; a network of
/// the zoo is made once for all. What is done stays done.
///
/// A budget that such a selection cannot meet is told and passed over.
///
/// # Errors
/// If no control can meet any of the budgets, or one of them fails.
pub fn control(
    run: &Path,
    options: &ControlOptions,
    budgets: &[Budget],
    progress: &dyn Progress,
) -> Result<Vec<Comparison>> {
    let mut context = Context::open(run, progress)?;
    if let Some(recipe) = &options.recipe {
        context.set_recipe(recipe)?;
    }
    let budgets = context.budgets(budgets)?;
    for budget in &budgets {
        // A student that was trained since it was exported would be compared by what it was before.
        if finetune::stored(&context, budget)?.is_some() {
            export::run(&context, budget)?;
        }
    }
    let (mut reached, mut missed) = (Vec::new(), Vec::new());
    for control in &options.controls {
        let out_of_reach = control::run(&mut context, control, &budgets)?;
        let is_met = |budget: &&Budget| !out_of_reach.iter().any(|(other, _)| other == *budget);
        reached.extend(budgets.iter().filter(is_met).cloned());
        for (_, error) in out_of_reach {
            progress.warn(&format!("{control}: {error}"));
            missed.push(error);
        }
    }
    // Not before: a budget that is out of reach is not the run's.
    context.add_budgets(&reached)?;
    report::run(&context)?;
    if let (true, Some(error)) = (reached.is_empty(), missed.into_iter().next()) {
        return Err(error);
    }
    let compare = |budget: Budget| {
        let own = control::student(&context, &context.run.budget_dir(&budget))?;
        let (student, controls) = (own.map(|(metrics, _)| metrics), control::gather(&context, &budget)?);
        Ok(Comparison { budget, student, controls })
    };
    budgets.into_iter().map(compare).collect()
}

fn each(
    context: &Context<'_>,
    budgets: &[Budget],
    step: impl Fn(&Context<'_>, &Budget) -> Result<()>,
) -> Result<()> {
    context.budgets(budgets)?.iter().try_for_each(|budget| step(context, budget))
}
