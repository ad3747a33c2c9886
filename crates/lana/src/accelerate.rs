use std::path::Path;

use crate::context::Context;
use crate::stages::{add_budgets, export, finetune, pretrain, profile, report, score, select, teacher};
use crate::{Config, Error, Progress, Result, Run, StudentMetrics, write_atomic};

/// Runs every step for every budget of `config`, in the run directory `out`, and writes the report.
///
/// A run that is there is taken up: what is done stays done, budgets are added. A configuration that contradicts what the
/// run was made with is refused.
pub fn accelerate(config: &Config, out: &Path, progress: &dyn Progress) -> Result<Vec<StudentMetrics>> {
    config.validate()?;
    let run = Run::create(out)?;
    let mut config = config.clone();
    let path = run.path("run.toml");
    if path.is_file() {
        let stored = run.config()?;
        if let Some(conflict) = config.conflict(&stored) {
            return Err(Error::input(
                format!("{}: {conflict}", out.display()),
                "leave the option out to go on with the run, or give another --out",
            ));
        }
        let asked = std::mem::replace(&mut config.budgets, stored.budgets);
        config
            .budgets
            .extend(asked.iter().filter(|b| !config.budgets.contains(b)).cloned().collect::<Vec<_>>());
    }
    if config.budgets.is_empty() {
        return Err(Error::input("no budget is given", "give --budget, such as --budget 0.5x"));
    }
    let mut context = Context::new(run, config, progress)?;
    check_inputs(&context)?;
    write_atomic(&path, context.config.to_toml().as_bytes())?;
    run_all(&mut context)
}

/// Everything after the configuration is settled.
pub(crate) fn run_all(context: &mut Context<'_>) -> Result<Vec<StudentMetrics>> {
    let budgets = context.config.budgets.clone();
    add_budgets(context, &budgets)?;
    teacher::run(context)?;
    profile::run(context)?;
    pretrain::run(context)?;
    score::run(context)?;
    let mut students = Vec::new();
    for budget in &budgets {
        select::run(context, budget)?;
        finetune::run(context, budget)?;
        students.push(export::run(context, budget)?);
    }
    report::run(context)?;
    Ok(students)
}

/// Looks at every input before hours are spent: names, files, the pool, the device's runtime.
fn check_inputs(context: &Context<'_>) -> Result<()> {
    let config = &context.config;
    lana_models::zoo::entry(&config.teacher)?;
    lana_models::pool::Pool::parse(&config.pool)?;
    lana_latency::OnnxRuntime::load()?;
    for spec in [&config.train, &config.val] {
        spec.parse::<lana_data::DataSpec>()?;
    }
    Ok(())
}
