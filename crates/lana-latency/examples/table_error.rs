//! How well a lookup table predicts whole networks: `table_error [TEACHER] [BATCH] [SELECTIONS] [NEIGHBOURS|whole]`.
//!
//! Builds the table of the compact pool for a teacher of the zoo, then measures random selections whole, and prints the
//! errors of their predictions, uncorrected and after a correction by half of them.
#![allow(clippy::print_stdout)]

use std::time::{Duration, Instant};

use lana_latency::{
    Deployment, LayerCandidates, MeasureOptions, Model, OnnxRuntime, TableOptions, build_table, measure,
};
use lana_models::pool::Pool;
use lana_models::zoo::{self, ZooOptions};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "resnet56_cifar".into());
    let batch = arguments.next().map_or(Ok(64), |a| a.parse())?;
    let selections: usize = arguments.next().map_or(Ok(10), |a| a.parse())?;
    let neighbours = match arguments.next().as_deref() {
        None => TableOptions::default().neighbours,
        Some("whole") => None,
        Some(number) => Some(number.parse()?),
    };

    println!("ONNX Runtime {}", OnnxRuntime::load()?.version());
    let teacher = zoo::build(&name, &ZooOptions::default())?;
    let mut candidates = Vec::new();
    for layer in teacher.layers() {
        let graph = teacher.layer_graph(&layer.name)?;
        let operations = Pool::compact().operations_for(&graph).into_iter();
        let operations = operations.filter_map(|(o, g)| Some((o.name().to_string(), g.ok()?))).collect();
        candidates.push(LayerCandidates { layer: layer.name.clone(), operations });
    }
    let deployment = Deployment { batch, ..Deployment::default() };
    let options = TableOptions { deployment, neighbours, ..TableOptions::default() };
    let start = Instant::now();
    let mut table = build_table(&teacher, &candidates, &options, &mut |_| {})?;
    let noisy = table.layers.iter().flat_map(|l| &l.operations).filter(|e| e.noisy).count();
    println!(
        "table of {name} at batch {batch}: {:.0} s, {noisy} noisy entries",
        start.elapsed().as_secs_f64()
    );
    println!(
        "teacher {:.2} ms {:?}, fixed {:.2} ms, sum of parts {:+.1} %",
        table.teacher_ms(),
        table.teacher_ci_ms,
        table.fixed_ms,
        100.0 * table.parts_error
    );
    let rows: Vec<String> = table.layers.iter().map(|l| format!("{} {:.2}", l.layer, l.teacher_ms)).collect();
    println!("{}", rows.join(", "));

    let mut state = 1_u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    let mut models = vec![Model::with_random_weights("teacher", &teacher)?];
    let mut chosen = Vec::new();
    for number in 0..selections {
        let mut student = teacher.clone();
        let mut names = Vec::new();
        for site in &candidates {
            let (name, graph) = &site.operations[random(site.operations.len())];
            student = student.replace(&site.layer, graph)?;
            names.push(name.clone());
        }
        models.push(Model::with_random_weights(format!("selection {number}"), &student)?);
        chosen.push(names);
    }
    let options = MeasureOptions {
        deployment,
        min_repeats: 20,
        target: 0.003,
        time_limit: Duration::from_secs(90),
        ..MeasureOptions::default()
    };
    let measured = measure(&models, &options)?;
    println!(
        "teacher now {:.2} ms in {} rounds, {:.0} % of the time waiting",
        measured[0].median_ms,
        measured[0].repeats,
        100.0 * measured[0].waiting
    );
    let truth: Vec<f64> = measured[1..].iter().map(|m| m.ratio * table.teacher_ms()).collect();
    let errors = |table: &lana_latency::Table| -> Result<Vec<f64>, lana_latency::Error> {
        chosen.iter().zip(&truth).map(|(s, t)| Ok(100.0 * (table.predict(s)? / t - 1.0))).collect()
    };
    let show = |title: &str, errors: &[f64]| {
        let mean = errors.iter().map(|e| e.abs()).sum::<f64>() / errors.len().max(1) as f64;
        let bias = errors.iter().sum::<f64>() / errors.len().max(1) as f64;
        let list: Vec<String> = errors.iter().map(|e| format!("{e:+.1}")).collect();
        println!("{title}: mean |error| {mean:.2} %, bias {bias:+.2} %: {}", list.join(" "));
    };
    let ratios: Vec<String> = measured[1..].iter().map(|m| format!("{:.3}", m.ratio)).collect();
    println!("ratios {}", ratios.join(" "));
    show("uncorrected", &errors(&table)?);
    for taught in [1, selections / 2] {
        let pairs: Vec<(Vec<String>, f64)> =
            chosen.iter().cloned().zip(truth.iter().copied()).take(taught).collect();
        table.correct(&pairs)?;
        show(&format!("after {taught} measured, the others"), &errors(&table)?[taught..]);
    }
    Ok(())
}
