use std::path::Path;

use lana_data::DataSpec;
use lana_graph::Graph;
use lana_latency::{OnnxRuntime, Table, try_runtime};
use lana_models::pool::Pools;

use crate::context::Context;
use crate::stages::{export, finetune, pretrain, profile, report, score, select, tables};
use crate::train::trained_weights;
use crate::{
    Budget, Config, Control, Error, Progress, Result, Run, StudentMetrics, stages, teacher, write_atomic,
};

/// Runs every step for every budget of `config` (for those the run has, if it names none), in the run directory `out`, and
/// writes the report.
///
/// A run that is there is taken up: what is done stays done, budgets that can be met are added. A configuration that contradicts what the
/// run was made with is refused.
pub fn accelerate(config: &Config, out: &Path, progress: &dyn Progress) -> Result<Vec<StudentMetrics>> {
    config.validate()?;
    check_inputs(config, out, progress)?;
    let mut context = take_up(config, out, progress)?;
    let budgets = budgets(config, &context)?;
    let students = run_all(&mut context, &budgets)?;
    if !config.budgets.is_empty() {
        return Ok(students);
    }
    let all = context.config.budgets.iter().map(|budget| export::stored(&context, budget));
    Ok(all.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// A step that all budgets share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Preparation {
    /// The latency table.
    Profile,
    /// Phase 1.
    Pretrain,
    /// The scores.
    Score,
}

/// As [`accelerate`], but ends after one of the steps that all budgets share. No budget need be named.
pub fn prepare(config: &Config, out: &Path, last: Preparation, progress: &dyn Progress) -> Result<()> {
    config.validate()?;
    check_inputs(config, out, progress)?;
    let mut context = take_up(config, out, progress)?;
    take_in(&mut context, &config.budgets)?;
    if last >= Preparation::Pretrain {
        pretrain::run(&context, None)?;
    }
    if last >= Preparation::Score {
        score::run(&context)?;
    }
    Ok(())
}

/// The budgets to work on.
fn budgets(config: &Config, context: &Context<'_>) -> Result<Vec<Budget>> {
    let mut budgets = config.budgets.clone();
    if budgets.is_empty() {
        // Going on: what is finished stays as it is, whatever the recipe says by now.
        for budget in context.config.budgets.clone() {
            if export::stored(context, &budget)?.is_none_or(|student| !student.meets_budget) {
                budgets.push(budget);
            }
        }
        if context.config.budgets.is_empty() {
            return Err(Error::input("no budget is given", "give --budget, such as --budget 0.5x"));
        }
    }
    Ok(budgets)
}

/// Creates a run, or goes on with one that does not contradict the configuration; keeps the budgets it has.
pub(crate) fn take_up<'a>(config: &Config, out: &Path, progress: &'a dyn Progress) -> Result<Context<'a>> {
    let run = Run::create(out)?;
    let path = run.path("run.toml");
    let (mut budgets, mut weights) = (Vec::new(), config.weights.clone());
    if path.is_file() {
        let stored = run.config()?;
        // Until the teacher stands in the run nothing depends on the configuration.
        let begun = run.path("teacher/metrics.json").is_file();
        if let (true, Some(conflict)) = (begun, config.conflict(&stored)) {
            return Err(Error::input(
                format!("{}: {conflict}", out.display()),
                "say the same again or leave the option (or --config) out to go on with the run, or give another --out",
            ));
        }
        if begun && weights != stored.weights {
            // The run has its own copy of the weights, and says where that is from.
            if weights.is_some() {
                progress.warn("the run keeps the weights that its teacher was taken in with; another --weights needs another --out");
            }
            weights = stored.weights;
        }
        budgets = stored.budgets;
    }
    let context = Context::new(run, Config { budgets, weights, ..config.clone() }, progress)?;
    write_atomic(&path, context.config.to_toml().as_bytes())?;
    Ok(context)
}

/// Everything after the configuration is settled. A budget out of reach is taken out of the run again; the others are
/// worked on before it is reported.
pub(crate) fn run_all(context: &mut Context<'_>, budgets: &[Budget]) -> Result<Vec<StudentMetrics>> {
    take_in(context, budgets)?;
    let mut out_of_reach = None;
    let mut refuse = |context: &mut Context<'_>, budget: &Budget, error: Error| match error {
        error @ Error::Infeasible { .. } => {
            context.progress.warn(&error.to_string());
            out_of_reach.get_or_insert(error);
            context.set_budgets(|known| known.retain(|b| b != budget))
        }
        other => Err(other),
    };
    let mut left = Vec::new();
    for budget in budgets {
        match select::check_reachable(context, budget) {
            Ok(()) => left.push(budget.clone()),
            Err(error) => refuse(context, budget, error)?,
        }
    }
    let mut students = Vec::new();
    if !left.is_empty() {
        pretrain::run(context, None)?;
        score::run(context)?;
    }
    for budget in &left {
        if let Err(error) = select::run(context, budget) {
            refuse(context, budget, error)?;
            continue;
        }
        finetune::run(context, budget)?;
        students.push(export::run(context, budget)?);
        report::run(context)?;
    }
    match out_of_reach {
        Some(error) => Err(error),
        None => {
            report::run(context)?;
            Ok(students)
        }
    }
}

/// Takes in the teacher, notes the budgets and measures the latency table.
fn take_in(context: &mut Context<'_>, budgets: &[Budget]) -> Result<Table> {
    let (teacher, _) = stages::teacher::run(context)?;
    context.set_budgets(|known| {
        known.extend(budgets.iter().filter(|b| !known.contains(b)).cloned().collect::<Vec<_>>())
    })?;
    if profile::stored(context)?.is_none() {
        // Broken training images show before minutes are spent on the table.
        context.dataset(&context.config.train, &teacher)?;
    }
    profile::run(context)
}

/// Looks at what controls are made of, for what is missing, broken or does not fit the teacher should not be told after hours.
///
/// # Errors
/// If a file cannot be read or fits no such teacher, or two controls have one name.
pub fn check_controls(
    config: &Config,
    out: &Path,
    controls: &[Control],
    progress: &dyn Progress,
) -> Result<()> {
    if controls.is_empty() {
        return Ok(());
    }
    let teacher = teacher_graph(config, out)?;
    for (at, control) in controls.iter().enumerate() {
        if controls[..at].iter().any(|other| other != control && other.folder() == control.folder()) {
            return Err(Error::input(
                format!("two controls are called {control}"),
                "give their files different names",
            ));
        }
        control.begin(&teacher, config.seed, progress)?;
    }
    Ok(())
}

/// The teacher's graph, from its origin or where that is a file that the run has a copy of, from there.
fn teacher_graph(config: &Config, out: &Path) -> Result<Graph> {
    match teacher::is_file(&config.teacher) && is_taken_in(out) {
        true => Ok(Graph::load(&out.join("teacher/graph.json"))?),
        false => Ok(teacher::read(config)?.graph),
    }
}

fn is_taken_in(out: &Path) -> bool {
    out.join("teacher/metrics.json").is_file()
}

/// Looks at every input before anything is made: names, weights, the pool, the runtime.
fn check_inputs(config: &Config, out: &Path, progress: &dyn Progress) -> Result<()> {
    let is_taken_in = is_taken_in(out);
    let file = teacher::is_file(&config.teacher);
    let graph = teacher_graph(config, out)?;
    match &config.weights {
        _ if is_taken_in || file => {}
        Some(source) if *source == trained_weights(out).into() && !trained_weights(out).is_file() => {
            return Err(Error::input(
                format!("{}: its network has not been trained to the end", out.display()),
                "give the same `lana train` command again: it goes on where it was",
            ));
        }
        Some(source) => {
            source.warn_of_another(&config.teacher, progress);
            source.load(progress)?.check(&graph)?;
        }
        None => {
            return Err(Error::input(
                format!("teacher `{}` has no weights", config.teacher),
                "give --weights FILE.safetensors or hf:OWNER/REPO: an untrained teacher has nothing to teach",
            ));
        }
    }
    Pools::parse(&config.pool, &config.pool_rules)?.check(&graph)?;
    // Exports are verified by ONNX Runtime, whatever measures them.
    OnnxRuntime::load()?;
    let own = config.latency.deployment();
    let mut deployments = vec![own];
    for budget in &config.budgets {
        deployments.extend(budget.deployments(&own)?.into_iter().map(|(deployment, _)| deployment));
    }
    deployments.sort();
    deployments.dedup();
    for deployment in deployments {
        // Another machine's are imported.
        if tables::elsewhere(&config.latency.on(deployment)).is_none() {
            try_runtime(&deployment)?;
        }
    }
    for spec in [&config.train, &config.val] {
        spec.parse::<DataSpec>()?;
    }
    Ok(())
}
