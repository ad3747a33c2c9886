//! Makes a control ([`crate::controls`]) and gathers those that a run has.
//!
//! Selections run through the stages of the student. A network of the zoo has one of its own, whatever the budgets: trained
//! once, measured on every deployment that a budget of the run names.

use std::path::{Path, PathBuf};

use lana_graph::Graph;
use lana_latency::Deployment;
use lana_models::pool::Operation;
use lana_models::zoo;

use crate::context::{Context, Teacher};
use crate::controls::{Control, ControlMetrics, ControlTiming, NetworkControl, Timed};
use crate::footprint::file_size;
use crate::run::read_or_redo;
use crate::stages::export::{measure_options, read_network, write_verified};
use crate::stages::finetune::{Record, Trainer};
use crate::stages::teacher::restore_normalisation;
use crate::stages::{export, finetune, select, tables};
use crate::teacher;
use crate::{
    Accuracy, Answers, Budget, Difference, Error, Footprint, Recipe, Result, StudentMetrics, WeightsSource,
    checkpoint, fresh, sha256, write_json,
};

/// Rounds of a random selection, of one draw each: that it is unlucky says nothing about the budget.
const DRAWS: usize = 24;

/// Makes a control for budgets, unless that is done. Gives the errors of budgets that such a selection cannot meet, which is no
/// failure.
pub(crate) fn run(
    context: &mut Context<'_>,
    control: &Control,
    budgets: &[Budget],
) -> Result<Vec<(Budget, Error)>> {
    if let Control::Network { name, weights } = control {
        return network(context, control, name, weights.as_ref(), budgets).map(|()| Vec::new());
    }
    let select = context.config.select.clone();
    match control {
        Control::SkipOnly => {
            // Of layers of several blocks the first may stay.
            let pool = context.pool(&context.teacher()?.0.graph)?;
            let is_depth = |name: &str| name.starts_with(Operation::DEPTH);
            let any = pool.iter().flat_map(|place| &place.operations).any(|(o, _)| is_depth(o.name()));
            let rule = if any { "*:identity,teacher,depth-*" } else { "*:identity,teacher" };
            context.config.select.force.push(rule.into());
        }
        Control::Random => context.config.select.rounds = select.rounds.max(DRAWS),
        _ => {}
    }
    if matches!(control, Control::Random | Control::Uniform) {
        // What is drawn is not chosen.
        context.config.select.finalists = 1;
    }
    // They are the rule by themselves.
    context.config.select.floors = vec![0.0];
    context.control = Some(control.clone());
    let make = |budget: &Budget| {
        select::run(context, budget)?;
        finetune::run(context, budget)?;
        export::run(context, budget).map(drop)
    };
    let missed = budgets.iter().filter_map(|budget| match make(budget) {
        Ok(()) => None,
        Err(error @ Error::Infeasible { .. }) => Some(Ok((budget.clone(), error))),
        Err(other) => Some(Err(other)),
    });
    let missed = missed.collect();
    context.control = None;
    context.config.select = select;
    missed
}

/// Trains a network of the zoo and measures it on all deployments.
fn network(
    context: &Context<'_>,
    control: &Control,
    name: &str,
    source: Option<&WeightsSource>,
    budgets: &[Budget],
) -> Result<()> {
    let (teacher, _) = context.teacher()?;
    let Some((graph, start)) = control.begin(&teacher.graph, context.config.seed, context.progress)? else {
        return Ok(());
    };
    let folder = context.run.path(control.folder());
    let path = folder.join("control.json");
    let title = format!("finetune {control}");
    let recipe = &context.config.finetune;
    let mut first = [graph.to_json().as_bytes(), &start.to_bytes()].concat();
    if teacher::is_file(name) {
        first.push(context.config.restore_normalisation.into());
    }
    let start_sha256 = sha256(&first);
    let same = |record: &NetworkControl| {
        record.recipe.trains_like(recipe)
            && record.start_sha256 == start_sha256
            && record.seed == context.config.seed
    };
    let before = read_or_redo::<NetworkControl>(&path, context.progress)?;
    if let Some(other) = before.as_ref().filter(|record| record.name != name) {
        return Err(Error::input(
            format!("{} is the control {}, not {name}", folder.display(), other.name),
            "rename the new file, or remove that folder",
        ));
    }
    let before = before.filter(same);
    let before = before.and_then(|record| match read_network(&folder, &record.sha256) {
        Ok((graph, weights)) => Some((record, graph, weights)),
        Err(error) => {
            context.progress.warn(&format!("{error}; the control is trained again"));
            None
        }
    });
    let onnx = folder.join("control.onnx");
    let teacher_file = context.run.path("teacher/teacher.onnx");
    let here = |deployment: &Deployment| tables::elsewhere(&context.config.latency.on(*deployment)).is_none();
    let deployments: Vec<Deployment> = deployments(context, budgets)?.into_iter().filter(here).collect();
    let mut record = match before {
        Some((record, graph, weights)) => {
            // What is measured is what the weights say, whatever became of the file.
            if deployments.iter().any(|deployment| !record.is_measured(deployment)) {
                write_verified(context, &teacher, &onnx, &graph, &weights)?;
            }
            record
        }
        None => {
            let mut first = Teacher { graph, weights: start, preprocessing: teacher.preprocessing };
            if teacher::is_file(name) {
                first = restore_normalisation(context, first)?;
            } else if source.is_some() && zoo::entry(name)?.preprocessing != teacher.preprocessing {
                context.progress.warn(&format!(
                    "`{name}` was made for other preprocessing than the teacher; it is trained and evaluated with the teacher's"
                ));
            }
            let Teacher { graph, weights: start, .. } = first;
            // Its maps are of another training: made to give the teacher's it would lose what it knows (docs/results.md).
            let by_answers = Recipe { features: 0.0.into(), ..recipe.clone() };
            let trained_by = finetune::trainable(context, &by_answers, &graph, &teacher, &title);
            let trainer = Trainer {
                context,
                teacher: Some(&teacher),
                recipe: &trained_by,
                input: &teacher,
                title: &title,
                key: format!("{control} {start_sha256} {}", context.config.seed),
                folder: &folder,
                images: None,
                held_out: 0,
            };
            let trained = trainer.train(&graph, &start)?;
            let (_, export_difference) = write_verified(context, &teacher, &onnx, &graph, &trained.weights)?;
            let record = NetworkControl {
                name: name.into(),
                weights: source.map(ToString::to_string),
                start_sha256,
                recipe: recipe.clone(),
                seed: context.config.seed,
                cost: graph.deployed_cost(),
                measured: Vec::new(),
                sha256: sha256(&trained.weights.to_bytes()),
                assessment: trained.assessment,
                export_difference,
            };
            write_json(&path, &record)?;
            checkpoint::clear(&folder)?;
            record
        }
    };
    for deployment in deployments {
        if record.is_measured(&deployment) {
            continue;
        }
        let label = deployment.to_string();
        let options = measure_options(context, deployment, 60.0);
        let (measured, teacher_ms) = fresh::measure(&teacher_file, &onnx, &options, &|_| false)?;
        context
            .progress
            .say(&format!("{control}: {:.3} of the teacher's latency on {label}", measured.ratio));
        record.measured.push(Timed { deployment: label, measured, teacher_ms });
        write_json(&path, &record)?;
    }
    Ok(())
}

/// Where these budgets and those of the run are measured; as the run says if there is none.
fn deployments(context: &Context<'_>, budgets: &[Budget]) -> Result<Vec<Deployment>> {
    let own = context.config.latency.deployment();
    let mut all: Vec<Deployment> = Vec::new();
    for budget in budgets.iter().chain(&context.config.budgets) {
        all.extend(budget.deployments(&own)?.into_iter().map(|(deployment, _)| deployment));
    }
    if all.is_empty() {
        all.push(own);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// The student of a budget, if what was exported is what was trained last; and how it was trained.
pub(crate) fn student(context: &Context<'_>, folder: &Path) -> Result<Option<(StudentMetrics, Recipe)>> {
    let metrics: Option<StudentMetrics> =
        read_or_redo(&folder.join("student/metrics.json"), context.progress)?;
    let record: Option<Record> = read_or_redo(&folder.join("finetune/finetuned.json"), context.progress)?;
    let both = metrics.zip(record);
    Ok(both
        .filter(|(metrics, record)| metrics.files.get("weights.safetensors") == Some(&record.sha256))
        .map(|(metrics, record)| (metrics, record.config)))
}

/// The controls of a run under a budget: selections first, then networks from the slowest to the fastest. What is damaged is left
/// out with a warning.
pub(crate) fn gather(context: &Context<'_>, budget: &Budget) -> Result<Vec<ControlMetrics>> {
    let Some((teacher, _)) = context.stored_teacher()? else { return Ok(Vec::new()) };
    let own = context.run.budget_dir(budget);
    // The student's own recipe: that of the run may have changed since.
    let beside = student(context, &own)?;
    let recipe = beside.as_ref().map_or(&context.config.finetune, |(_, recipe)| recipe);
    let beside = beside.as_ref().map(|(metrics, _)| (&metrics.val, answers(metrics)));
    let mut found = Vec::new();
    for control in Control::selections() {
        if let Some((metrics, trained_by)) = student(context, &own.join(control.folder()))? {
            found.push(of_selection(&control, beside, metrics, trained_by.trains_like(recipe)));
        }
    }
    let mut networks = Vec::new();
    for folder in folders(&context.run.path("controls"))? {
        let Some(record) = read_or_redo::<NetworkControl>(&folder.join("control.json"), context.progress)?
        else {
            continue;
        };
        match of_network(context, budget, &teacher, (beside, recipe), &folder, record) {
            Ok(metrics) => networks.push(metrics),
            Err(error) => context.progress.warn(&format!("{error}; this control is left out")),
        }
    }
    networks.sort_by(|a, b| b.cost.macs.cmp(&a.cost.macs).then_with(|| a.control.cmp(&b.control)));
    found.extend(networks);
    Ok(found)
}

/// The folders in another.
fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(Error::io(folder)(error)),
    };
    found.sort();
    Ok(found)
}

/// Accuracy of the student, and what it answers where that is known.
type Beside<'a> = Option<(&'a Accuracy, Option<&'a Answers>)>;

fn answers(metrics: &StudentMetrics) -> Option<&Answers> {
    metrics.assessment.as_ref()?.right.as_ref()
}

fn of_selection(
    control: &Control,
    student: Beside<'_>,
    metrics: StudentMetrics,
    same_recipe: bool,
) -> ControlMetrics {
    let difference = student.map(|student| Difference::between((&metrics.val, answers(&metrics)), student));
    let first = ControlTiming { deployment: metrics.deployment, measured: metrics.measured };
    let others = metrics
        .others
        .into_iter()
        .map(|timing| ControlTiming { deployment: timing.deployment, measured: timing.measured });
    ControlMetrics {
        control: control.to_string(),
        budget: metrics.budget,
        meets_budget: metrics.measured.map(|_| metrics.meets_budget),
        timings: std::iter::once(first).chain(others).collect(),
        val: metrics.val,
        top1_error: metrics.val.top1_error(),
        difference,
        agreement: metrics.assessment.and_then(|assessment| assessment.agreement),
        cost: metrics.cost,
        same_recipe,
        choices: metrics.choices,
    }
}

fn of_network(
    context: &Context<'_>,
    budget: &Budget,
    teacher: &Teacher,
    (student, recipe): (Beside<'_>, &Recipe),
    folder: &Path,
    record: NetworkControl,
) -> Result<ControlMetrics> {
    let goal = select::goal(context, budget, teacher)?;
    let timings: Vec<ControlTiming> = goal
        .deployments
        .iter()
        .map(|(deployment, _)| {
            let deployment = deployment.to_string();
            let timed = record.measured.iter().find(|timed| timed.deployment == deployment);
            ControlTiming { measured: timed.map(|timed| timed.measured), deployment }
        })
        .collect();
    let measured: Option<Vec<_>> = timings.iter().map(|timing| timing.measured.as_ref()).collect();
    let meets_budget = match measured {
        Some(measured) => {
            let graph = Graph::load(&folder.join("graph.json"))?;
            let precision = budget.precision(&context.config.latency.deployment())?;
            let (memory, size) =
                (Footprint::of(&graph)?.memory_bytes(precision), file_size(&graph, precision)?);
            let parts = measured.into_iter().map(|measured| (None, Some(measured), f64::NAN));
            Some(goal.is_met(parts, &record.cost, memory, size))
        }
        None => None,
    };
    let val = record.assessment.accuracy;
    let own = (&val, record.assessment.right.as_ref());
    Ok(ControlMetrics {
        control: record.title(),
        budget: budget.to_string(),
        meets_budget,
        timings,
        val,
        top1_error: record.assessment.top1_error,
        difference: student.map(|student| Difference::between(own, student)),
        agreement: record.assessment.agreement,
        cost: record.cost,
        same_recipe: record.recipe.trains_like(recipe),
        choices: Vec::new(),
    })
}
