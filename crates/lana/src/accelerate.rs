use std::path::Path;

use lana_data::DataSpec;
use lana_graph::Weights;
use lana_latency::OnnxRuntime;
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

use crate::context::Context;
use crate::stages::{add_budget, export, finetune, pretrain, profile, report, score, select, teacher};
use crate::{Budget, Config, Error, Progress, Result, Run, StudentMetrics, write_atomic};

/// Runs every step for every budget of `config` (for those the run has, if it names none), in the run directory `out`, and
/// writes the report.
///
/// A run that is there is taken up: what is done stays done, budgets that can be met are added. A configuration that contradicts what the
/// run was made with is refused.
pub fn accelerate(config: &Config, out: &Path, progress: &dyn Progress) -> Result<Vec<StudentMetrics>> {
    config.validate()?;
    check_inputs(config)?;
    let mut context = take_up(config, out, progress)?;
    let budgets = match config.budgets.is_empty() {
        true => context.config.budgets.clone(),
        false => config.budgets.clone(),
    };
    if budgets.is_empty() {
        return Err(Error::input("no budget is given", "give --budget, such as --budget 0.5x"));
    }
    run_all(&mut context, &budgets)
}

/// Creates a run, or goes on with one that does not contradict the configuration; keeps the budgets it has.
pub(crate) fn take_up<'a>(config: &Config, out: &Path, progress: &'a dyn Progress) -> Result<Context<'a>> {
    let run = Run::create(out)?;
    let path = run.path("run.toml");
    let mut budgets = Vec::new();
    if path.is_file() {
        let stored = run.config()?;
        if let Some(conflict) = config.conflict(&stored) {
            return Err(Error::input(
                format!("{}: {conflict}", out.display()),
                "leave the option out to go on with the run, or give another --out",
            ));
        }
        budgets = stored.budgets;
    }
    let context = Context::new(run, Config { budgets, ..config.clone() }, progress)?;
    write_atomic(&path, context.config.to_toml().as_bytes())?;
    Ok(context)
}

/// Everything after the configuration is settled. A budget that cannot be met leaves the run's configuration as it was.
pub(crate) fn run_all(context: &mut Context<'_>, budgets: &[Budget]) -> Result<Vec<StudentMetrics>> {
    let known = context.config.budgets.clone();
    context.config.budgets.extend(budgets.iter().filter(|b| !known.contains(b)).cloned());
    let (teacher, _) = teacher::run(context)?;
    if profile::stored(context)?.is_none() {
        // Broken training images show before minutes are spent on the table.
        context.dataset(&context.config.train, &teacher.graph)?;
    }
    profile::run(context)?;
    pretrain::run(context)?;
    score::run(context)?;
    let mut students = Vec::new();
    for budget in budgets {
        select::run(context, budget)?;
        add_budget(context, budget)?;
        finetune::run(context, budget)?;
        students.push(export::run(context, budget)?);
        report::run(context)?;
    }
    Ok(students)
}

/// Looks at every input before anything is made: names, weights, the pool, the runtime.
fn check_inputs(config: &Config) -> Result<()> {
    let graph = zoo::build(&config.teacher, &ZooOptions::default())?;
    if let Some(path) = &config.weights {
        Weights::load(path)?.check(&graph)?;
    }
    Pool::parse(&config.pool)?;
    OnnxRuntime::load()?;
    for spec in [&config.train, &config.val] {
        spec.parse::<DataSpec>()?;
    }
    Ok(())
}
