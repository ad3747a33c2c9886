//! Exports the student, verifies the export against libtorch, and measures it beside the teacher.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lana_graph::{Graph, Weights, deploy};
use lana_latency::{Deployment, MeasureOptions, Measurement, Model, Session, measure};
use lana_onnx::ExportOptions;
use lana_torch::{Batch, BatchNorm, Network};

use crate::context::{Context, Teacher};
use crate::run::{read_or_redo, read_weights};
use crate::stages::finetune::{self, Finetuned};
use crate::stages::select;
use crate::{Amount, Budget, Error, Measured, Result, StudentMetrics, sha256, write_atomic, write_json};

/// Tolerated difference between ONNX Runtime's and libtorch's logits, relative to the largest logit.
const TOLERANCE: f64 = 1e-4;

/// The files of a network: graph and weights in the form that trains, with all branches, and the deployed form, branches
/// merged and batch normalisation folded.
pub(crate) fn network_files(onnx: &str, graph: &Graph, weights: &Weights) -> Result<Vec<(String, Vec<u8>)>> {
    let (folded, folded_weights) = deploy(graph, weights)?;
    let model = lana_onnx::export(&folded, &folded_weights, &ExportOptions::default())?;
    Ok(vec![
        ("graph.json".into(), graph.to_json().into_bytes()),
        ("weights.safetensors".into(), weights.to_bytes()),
        (onnx.into(), model),
    ])
}

/// Gives the student's figures, exporting and measuring it if that has not been done.
pub(crate) fn run(context: &Context<'_>, budget: &Budget) -> Result<StudentMetrics> {
    let folder = context.run.budget_dir(budget).join("student");
    let (teacher, teacher_metrics) = context.teacher()?;
    let winner = select::stored(context, budget)?
        .ok_or_else(|| context.not_ready(&format!("the selection for {budget}"), "select --evaluate"))?;
    let tuned = finetune::stored(context, budget)?
        .ok_or_else(|| context.not_ready(&format!("the fine-tuned student for {budget}"), "finetune"))?;
    if let Some(metrics) = read_or_redo::<StudentMetrics>(&folder.join("metrics.json"), context.progress)?
        && metrics.meets_budget
        && is_whole(&folder, &metrics, &tuned)
    {
        return Ok(metrics);
    }
    let chosen = &winner.candidates[winner.winner];
    let Finetuned { graph, weights, record, .. } = &tuned;

    context.progress.begin("export", 3, "steps");
    let mut files = BTreeMap::new();
    for (name, bytes) in network_files("student.onnx", graph, weights)? {
        write_atomic(&folder.join(&name), &bytes)?;
        files.insert(name, sha256(&bytes));
    }
    context.progress.advance(1, "written");
    let path = folder.join("student.onnx");
    let difference = verify(context, &teacher, &path, graph, weights)?;
    context.progress.advance(2, "verified");

    let models = [Model::from_file(&context.run.path("teacher/teacher.onnx"))?, Model::from_file(&path)?];
    let mut figures = measure(&models, &measure_options(context, 30.0))?;
    if !fits(budget, &to_measured(&figures[1])) {
        // Other programs may have disturbed it; twice is no accident.
        figures = measure(&models, &measure_options(context, 60.0))?;
    }
    let (own, measured) = (&figures[0], to_measured(&figures[1]));
    let limit_ms = winner.limit_ms;
    let meets_budget = fits(budget, &measured) && fits_size(budget, graph, &teacher.graph);
    if !meets_budget {
        context.progress.warn(&format!(
            "{budget}: the student measures {:.3} ms, {:.3} of the teacher, over the budget",
            measured.median_ms, measured.ratio
        ));
    }
    let val = record.epochs.last().map_or(record.start, |e| e.val);
    let metrics = StudentMetrics {
        budget: budget.to_string(),
        limit_ms,
        predicted: chosen.predicted_ms,
        measured,
        teacher_measured: own.median_ms,
        meets_budget,
        top1: val.top1,
        teacher_top1: teacher_metrics.val.top1,
        val,
        cost: graph.deployed_cost(),
        teacher_cost: teacher.graph.deployed_cost(),
        choices: teacher
            .graph
            .layers()
            .iter()
            .map(|l| l.name.clone())
            .zip(chosen.choices.iter().cloned())
            .collect(),
        epochs: record.epochs.clone(),
        export_difference: difference,
        files,
    };
    write_json(&folder.join("metrics.json"), &metrics)?;
    context.progress.finish(&format!("{:.3} of the teacher's latency", measured.ratio));
    context.run.event(
        "export",
        serde_json::json!({"budget": budget.to_string(), "ratio": measured.ratio,
            "median_ms": measured.median_ms, "top1": val.top1, "difference": difference}),
    )?;
    Ok(metrics)
}

/// Whether the files beside the metrics are those they speak of, and of the newest training.
fn is_whole(folder: &Path, metrics: &StudentMetrics, tuned: &Finetuned) -> bool {
    metrics.files.get("weights.safetensors") == Some(&sha256(&tuned.weights.to_bytes()))
        && metrics
            .files
            .iter()
            .all(|(name, sum)| std::fs::read(folder.join(name)).is_ok_and(|bytes| sha256(&bytes) == *sum))
}

/// Runs the exported file and libtorch on the same images; gives the largest difference.
fn verify(
    context: &Context<'_>,
    teacher: &Teacher,
    path: &Path,
    graph: &Graph,
    weights: &Weights,
) -> Result<f64> {
    let val = context.dataset(&context.config.val, teacher)?;
    let loader = context.plain_loader(&val, teacher, 64.min(val.len()), None)?;
    let Some(batch) = loader.epoch(0).next() else {
        return Err(Error::input("there is no validation image", "check --val"));
    };
    let batch = batch?;
    let network = Network::new(graph, weights, context.device)?;
    let input = Batch::new(&batch.images, &batch.labels, graph.input_shape(), context.device)?;
    let expected = lana_torch::numbers(&lana_torch::without_gradients(|| {
        network.forward(&input.images, BatchNorm::Running)
    })?)?;
    let deployment = Deployment { threads: context.workers(), ..Deployment::default() };
    let mut session = Session::open(&Model::from_file(path)?, &deployment)?;
    let got = session.run(&batch.images, batch.n)?;
    let largest = expected.iter().fold(0.0f64, |m, x| m.max(f64::from(x.abs())));
    if let Some(bad) = expected.iter().chain(&got).find(|x| !x.is_finite()) {
        return Err(Error::Export {
            path: path.to_path_buf(),
            difference: f64::from(*bad),
            limit: TOLERANCE,
        });
    }
    let difference = expected.iter().zip(&got).fold(0.0f64, |m, (a, b)| m.max(f64::from((a - b).abs())))
        / largest.max(1e-12);
    if difference.is_nan() || difference > TOLERANCE || expected.len() != got.len() {
        return Err(Error::Export { path: path.to_path_buf(), difference, limit: TOLERANCE });
    }
    Ok(difference)
}

/// The student of a budget as it was exported.
pub(crate) fn stored(context: &Context<'_>, budget: &Budget) -> Result<Option<StudentMetrics>> {
    read_or_redo(&context.run.budget_dir(budget).join("student/metrics.json"), context.progress)
}

pub(crate) fn measure_options(context: &Context<'_>, seconds: f64) -> MeasureOptions {
    let latency = &context.config.latency;
    MeasureOptions {
        deployment: latency.deployment(),
        time_limit: Duration::from_secs_f64(seconds),
        seed: context.config.seed,
        ..MeasureOptions::default()
    }
}

pub(crate) fn to_measured(m: &Measurement) -> Measured {
    Measured { median_ms: m.median_ms, ci_ms: m.ci_ms, ratio: m.ratio, ratio_ci: m.ratio_ci }
}

/// Whether a measured latency meets the budget: relative budgets by the ratio measured in turns with the teacher.
pub(crate) fn fits(budget: &Budget, measured: &Measured) -> bool {
    match budget.latency() {
        None => true,
        Some(Amount::Relative(share)) => measured.ratio <= share,
        Some(Amount::Absolute(ms)) => measured.median_ms <= ms,
    }
}

/// Whether parameters and multiply-accumulates meet the budget.
pub(crate) fn fits_size(budget: &Budget, student: &Graph, teacher: &Graph) -> bool {
    let (own, whole) = (student.deployed_cost(), teacher.deployed_cost());
    budget.limits().iter().all(|limit| {
        let (value, reference) = match limit.quantity {
            crate::Quantity::Latency => return true,
            crate::Quantity::Params => (own.params as f64, whole.params as f64),
            crate::Quantity::Macs => (own.macs as f64, whole.macs as f64),
        };
        match limit.amount {
            Amount::Relative(share) => value <= share * reference,
            Amount::Absolute(amount) => value <= amount,
        }
    })
}

/// Reads back a stored network of the run.
pub(crate) fn read_network(folder: &Path, sum: &str) -> Result<(Graph, Weights)> {
    let graph = Graph::load(&folder.join("graph.json"))?;
    let weights = read_weights(&folder.join("weights.safetensors"), sum, &graph)?;
    Ok((graph, weights))
}
