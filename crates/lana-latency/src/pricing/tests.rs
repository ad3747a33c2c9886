//! Plans measured on a made-up runtime: no clock.

use lana_graph::{Activation, Graph, GraphBuilder, Value};

use super::gather::{Conditions, Progress, Reading};
use super::plan::{Plan, Subject};
use super::{LayerCandidates, TableOptions};
use crate::random::Random;
use crate::{Deployment, Device, Error, MeasureOptions, Measurement, Result};

/// Three layers alike, one that halves the image, two more alike.
pub(super) fn teacher() -> Graph {
    let block = |b: &mut GraphBuilder, x: Value| {
        let c = b.shape(x).channels();
        let y = b.conv("conv", x, c, 3, 1, 1)?;
        let y = b.batch_norm("bn", y)?;
        let y = b.add("add", x, y)?;
        b.activation("act", y, Activation::Relu)
    };
    let build = || {
        let mut b = GraphBuilder::new("teacher", lana_graph::Shape::image(3, 16, 16));
        let mut x = b.conv("stem", b.input(), 16, 3, 1, 1)?;
        for i in 0..3 {
            x = b.layer(&format!("a.{i}"), "a", x, block)?;
        }
        x = b.layer("b.0", "b", x, |b, x| b.conv("conv", x, 32, 3, 2, 1))?;
        for i in 1..3 {
            x = b.layer(&format!("b.{i}"), "b", x, block)?;
        }
        x = b.conv("head", x, 8, 1, 1, 1)?;
        b.finish(x)
    };
    build().expect("a network")
}

/// A pointwise convolution everywhere, skipping where shapes allow it, and the layer itself.
pub(super) fn candidates(teacher: &Graph) -> Vec<LayerCandidates> {
    let at = |name: &str| -> lana_graph::Result<LayerCandidates> {
        let own = teacher.layer_graph(name)?;
        let (channels, height, _) = own.output_shape().as_image().unwrap_or_default();
        let stride = own.input_shape().as_image().unwrap_or_default().1 / height;
        let mut b = GraphBuilder::new("point", own.input_shape().clone());
        let y = b.conv("conv", b.input(), channels, 1, stride, 1)?;
        let mut operations = vec![("teacher".to_string(), own.clone()), ("point".to_string(), b.finish(y)?)];
        if stride == 1 {
            let skip = GraphBuilder::new("identity", own.input_shape().clone()).finish(Value::INPUT)?;
            operations.push(("identity".into(), skip));
        }
        Ok(LayerCandidates { layer: name.into(), operations })
    };
    teacher.layers().iter().map(|l| at(&l.name).expect("fits")).collect()
}

pub(super) fn options() -> TableOptions {
    let deployment = Deployment { batch: 4, ..Deployment::default() };
    TableOptions { deployment, time_limit_s: Some(100.0), together: 3, whole: 4, ..TableOptions::default() }
}

pub(super) fn plan() -> Plan {
    let teacher = teacher();
    Plan::new(&teacher, &candidates(&teacher), &options()).expect("a plan")
}

fn conditions() -> Conditions {
    Conditions { device: Device::identify(), runtime_version: "made up".into() }
}

/// Milliseconds by multiply-accumulates, and a quarter more for what stands alone, as settling assumes.
fn milliseconds(graph: &Graph) -> f64 {
    let macs = graph.deployed_cost().macs as f64 / 1e5;
    if graph.layers().is_empty() { macs / 0.8 } else { macs }
}

/// A runtime whose ratios are off by `noise` at random.
fn stopwatch(noise: f64) -> impl FnMut(&[Graph], &MeasureOptions) -> Result<Vec<Measurement>> {
    let mut random = Random::new(11);
    move |networks, options| {
        let reference = milliseconds(&networks[0]);
        let of = |(index, graph): (usize, &Graph)| {
            let off = if index == 0 { 1.0 } else { 1.0 + noise * random.normal() };
            let ms = milliseconds(graph) * off;
            Measurement {
                name: graph.name().into(),
                median_ms: ms,
                ci_ms: [0.99 * ms, 1.01 * ms],
                relative_error: noise,
                repeats: options.min_repeats,
                spread: noise,
                waiting: 0.0,
                ratio: ms / reference,
                ratio_ci: [0.99 * ms / reference, 1.01 * ms / reference],
                ratio_error: noise,
            }
        };
        Ok(networks.iter().enumerate().map(of).collect())
    }
}

fn measured(plan: &Plan, noise: f64) -> Vec<Reading> {
    let mut readings = Vec::new();
    plan.measure_with(&mut stopwatch(noise), &mut readings, &mut |_| Ok(()), &mut |_| ()).expect("measured");
    readings
}

fn names(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

#[test]
fn without_noise_every_network_is_predicted() {
    let plan = plan();
    let table = plan.settle(&measured(&plan, 0.0), &conditions()).expect("a table");
    assert!(table.parts_error.abs() < 1e-9, "{}", table.parts_error);
    for choices in [
        "teacher teacher teacher teacher teacher teacher",
        "point identity teacher point identity point",
        "identity identity identity teacher point teacher",
    ] {
        let mut graph = plan.teacher().clone();
        for (candidates, choice) in candidates(plan.teacher()).iter().zip(names(choices)) {
            let (_, operation) =
                candidates.operations.iter().find(|(name, _)| name == choice).expect("known");
            graph = graph.replace(&candidates.layer, operation).expect("fits");
        }
        let (predicted, real) = (table.predict(&names(choices)).expect("known"), milliseconds(&graph));
        assert!((predicted / real - 1.0).abs() < 1e-9, "{choices}: {predicted}, not {real}");
    }
    assert_eq!(table.whole.len(), 4);
    assert!(table.correction.as_ref().is_some_and(|c| c.networks == 4 && c.error_before < 1e-9));
}

#[test]
fn every_distinct_operation_is_timed_once() {
    let plan = plan();
    let operations: Vec<Subject> =
        plan.subjects().into_iter().filter(|s| matches!(s, Subject::Operation(_))).collect();
    // Skipping and the pointwise convolution at each of two sizes, and the one that halves the image.
    assert_eq!(operations.len(), 5);
    let readings = measured(&plan, 0.0);
    assert_eq!(readings.len(), plan.subjects().len());
}

#[test]
fn noise_is_measured_again_and_never_hidden() {
    let plan = plan();
    let readings = measured(&plan, 0.3);
    assert!(readings.len() > plan.subjects().len());
    let table = plan.settle(&readings, &conditions()).expect("a table");
    let entries = || table.layers.iter().flat_map(|l| &l.operations);
    assert!(entries().filter(|e| e.cost_ms < 0.0).all(|e| e.noisy));
    assert!(entries().any(|e| e.noisy));
    let sum = table.fixed_ms + table.layers.iter().map(|l| l.teacher_ms).sum::<f64>();
    assert!((sum / table.teacher_ms() - 1.0).abs() < 1e-9);
    // Each reading more makes the result surer.
    let again: Vec<Reading> = readings.iter().chain(&readings).cloned().collect();
    let more = plan.settle(&again, &conditions()).expect("a table");
    let spread = |table: &crate::Table| table.layers[0].operations[1].spread_ms;
    assert!(spread(&more) < 0.8 * spread(&table));
}

#[test]
fn a_stopped_measurement_goes_on() {
    let plan = plan();
    let all = measured(&plan, 0.0);
    let mut readings = Vec::new();
    let mut written = Vec::new();
    // The process dies with the second group.
    let mut keep = |new: &[Reading]| match written.len() {
        0 => {
            written.extend_from_slice(new);
            Ok(())
        }
        _ => Err(Error::Options("killed".into())),
    };
    let error = plan
        .measure_with(&mut stopwatch(0.0), &mut readings, &mut keep, &mut |_| ())
        .expect_err("killed")
        .to_string();
    assert_eq!(error, "killed");
    let before = written.len();
    assert!(before > 0 && before < all.len());
    let mut steps: Vec<Progress> = Vec::new();
    plan.measure_with(&mut stopwatch(0.0), &mut written, &mut |_| Ok(()), &mut |p| steps.push(p))
        .expect("the rest");
    assert_eq!(written.len(), all.len());
    assert_eq!(steps.last().map(|p| (p.done, p.total)), Some((all.len() - before, all.len() - before)));
    let subjects = |readings: &[Reading]| {
        let mut subjects: Vec<Subject> = readings.iter().map(|r| r.subject).collect();
        subjects.sort();
        subjects
    };
    assert_eq!(subjects(&written), subjects(&all));
}

#[test]
fn memory_bounds_what_is_open() {
    let teacher = teacher();
    let mut most = Vec::new();
    for memory in [0, 64 << 20, u64::MAX] {
        let plan = Plan::new(&teacher, &candidates(&teacher), &TableOptions { memory, together: 5, ..options() })
            .expect("a plan");
        let mut open = 0;
        let mut inner = stopwatch(0.0);
        let mut watch = |networks: &[Graph], options: &MeasureOptions| {
            open = open.max(networks.len());
            inner(networks, options)
        };
        plan.measure_with(&mut watch, &mut Vec::new(), &mut |_| Ok(()), &mut |_| ()).expect("measured");
        most.push(open);
    }
    assert_eq!(most, [2, 3, 5]);
}

#[test]
fn what_does_not_fit_is_refused() {
    let plan = plan();
    let readings = measured(&plan, 0.0);
    let settle = |readings: &[Reading]| plan.settle(readings, &conditions()).expect_err("settled").to_string();
    assert!(settle(&readings[1..]).contains("has not been measured"));
    let mut wrong = readings.clone();
    wrong[0].ratio = f64::NAN;
    assert!(settle(&wrong).contains("makes no sense"));

    let teacher = teacher();
    for options in [
        TableOptions { replaced: 0, ..options() },
        TableOptions { together: 1, ..options() },
        TableOptions { min_repeats: 0, ..options() },
        TableOptions { time_limit_s: Some(-1.0), ..options() },
    ] {
        assert!(Plan::new(&teacher, &candidates(&teacher), &options).is_err());
    }
    let text = serde_json::to_string(&plan).expect("JSON");
    let mut read: Plan = serde_json::from_str(&text).expect("a plan");
    read.check().expect("a sound plan");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
    read.jobs.pop();
    assert!(read.check().is_err());
}
