//! Plans measured on a made-up runtime: no clock.

use lana_graph::{Activation, Graph, GraphBuilder, Value};

use super::bundle::Notes;
use super::check::CheckOptions;
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
                settled: true,
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
        let plan =
            Plan::new(&teacher, &candidates(&teacher), &TableOptions { memory, together: 5, ..options() })
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
    let settle =
        |readings: &[Reading]| plan.settle(readings, &conditions()).expect_err("settled").to_string();
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
    read.check_whole().expect("a sound plan");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), text);
    read.jobs.pop();
    assert!(read.check_whole().is_err());
}

/// A file in the temporary folder that goes away with the value.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Temporary(std::env::temp_dir().join(format!("lana-{name}-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // It may never have been written.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn a_bundle_is_the_plan() {
    let file = Temporary::new("bundle");
    let plan = plan();
    plan.save(&file.0).expect("saved");
    let read = Plan::load(&file.0).expect("a bundle");
    assert_eq!(serde_json::to_string(&read).expect("JSON"), serde_json::to_string(&plan).expect("JSON"));
    assert_eq!(read.networks(), plan.networks());
    let readings = measured(&plan, 0.02);
    let tables = [&plan, &read].map(|p| p.settle(&readings, &conditions()).expect("a table").layers);
    assert_eq!(tables[0], tables[1]);
    assert_eq!(measured(&read, 0.0).len(), read.subjects().len());
}

#[test]
fn what_is_no_bundle_is_named() {
    let file = Temporary::new("no-bundle");
    let refused = |bytes: &[u8]| {
        std::fs::write(&file.0, bytes).expect("temporary file");
        let text = Plan::load(&file.0).expect_err("read").to_string();
        assert!(text.contains(&*file.0.to_string_lossy()), "{text}");
        text
    };
    plan().save(&file.0).expect("saved");
    let whole = std::fs::read_to_string(&file.0).expect("a bundle");
    for cut in [30, 100, whole.len() / 2, whole.len() - 2] {
        let text = refused(&whole.as_bytes()[..cut]);
        assert!(text.contains("is not whole") && text.contains("lana profile RUN --bundle"), "{text}");
    }
    let other = whole.replacen("\"batch\":4", "\"batch\":8", 1);
    assert!(other != whole && refused(other.as_bytes()).contains("damaged: its checksum"));
    for foreign in [&b"PK\x03\x04"[..], b"", b"{}", b"[1, 2]", b"{\"what\": \"a song\"}", &[0xff; 300]] {
        assert!(refused(foreign).contains("is no bundle"), "{foreign:?}");
    }
    let other = whole.replacen("\"format\":1", "\"format\":7", 1);
    assert!(refused(other.as_bytes()).contains("reads format 1: use the same version on both machines"));
    assert!(matches!(Plan::load(std::path::Path::new("/nowhere/b")), Err(Error::Io { .. })));
}

#[test]
fn notes_survive_the_end_of_a_process() {
    let file = Temporary::new("notes");
    let plan = plan();
    let all = measured(&plan, 0.01);
    let open = |conditions: &Conditions| {
        let mut said = Vec::new();
        let (notes, readings) =
            Notes::open(&file.0, &plan, conditions, &mut |line| said.push(line.to_string())).expect("notes");
        (notes, readings, said.join("; "))
    };
    let (mut notes, before, said) = open(&conditions());
    assert!(before.is_empty() && said.is_empty());
    notes.add(&all[..3]).expect("written");
    notes.add(&all[3..5]).expect("written");
    drop(notes);
    // Killed in the middle of a line.
    let text = std::fs::read_to_string(&file.0).expect("notes");
    std::fs::write(&file.0, &text[..text.len() - 20]).expect("temporary file");
    let (mut notes, before, said) = open(&conditions());
    assert_eq!(before, all[..3]);
    assert!(said.contains("going on with 3 networks"), "{said}");
    notes.add(&all[3..]).expect("written");
    drop(notes);
    assert_eq!(open(&conditions()).1, all);
    // Another device begins anew.
    let mut other = conditions();
    other.device.logical_cores += 1;
    let (_, before, said) = open(&other);
    assert!(before.is_empty() && said.contains("begun anew"), "{said}");
}

#[test]
fn a_check_tells_bias_and_order() {
    let plan = plan();
    let mut table = plan.settle(&measured(&plan, 0.0), &conditions()).expect("a table");
    let options = CheckOptions { selections: 6, ..CheckOptions::default() };
    let check = |table: &crate::Table| {
        plan.check_with(&mut stopwatch(0.0), table, &options, &mut |_| ()).expect("checked")
    };
    let right = check(&table);
    assert_eq!((right.networks.len(), right.table.networks, right.half.networks), (6, 6, 3));
    assert!(right.table.worst < 1e-9 && right.teacher_error.abs() < 1e-9, "{right:?}");
    assert!((right.table.kendall - 1.0).abs() < 1e-9 && (right.table.spearman - 1.0).abs() < 1e-9);
    // Other selections than those that made the table.
    assert!(right.networks.iter().all(|n| table.whole.iter().all(|w| w.choices != n.choices)));
    // All operations too cheap: a correction by some of the networks sees it in the others.
    table.whole.clear();
    for entry in table.layers.iter_mut().flat_map(|l| &mut l.operations).filter(|e| e.operation == "point") {
        entry.cost_ms *= 0.5;
    }
    let wrong = check(&table);
    assert!(wrong.table.bias < -0.01 && wrong.table.worst >= wrong.table.mean, "{wrong:?}");
    assert!(wrong.leave_one_out.mean < 0.7 * wrong.table.mean, "{wrong:?}");
    let mut with = table.clone();
    with.check = Some(wrong);
    let text = serde_json::to_string(&with).expect("JSON");
    assert_eq!(serde_json::from_str::<crate::Table>(&text).expect("a table"), with);
}
