//! Takes the teacher in: builds it, checks its weights, evaluates it, exports it.

use std::collections::BTreeMap;
use std::fs;

use lana_models::zoo;
use lana_torch::{BatchNorm, Network};

use crate::context::{Context, Teacher};
use crate::{Error, Result, TeacherMetrics, sha256, write_atomic, write_json};

/// Gives the teacher, taking it in if that has not been done.
pub(crate) fn run(context: &Context<'_>) -> Result<(Teacher, TeacherMetrics)> {
    if let Some(stored) = context.stored_teacher()? {
        let is_whole = |(name, sum): (&String, &String)| {
            fs::read(context.run.path("teacher").join(name)).is_ok_and(|bytes| sha256(&bytes) == *sum)
        };
        if !stored.1.files.iter().all(is_whole) {
            context.progress.warn("files of the teacher are damaged; they are written again");
            write_network(context, &stored.0)?;
        }
        return Ok(stored);
    }
    let config = &context.config;
    let entry = zoo::entry(&config.teacher)?;
    let graph = zoo::build(&config.teacher, &config.zoo_options())?;
    let Some(source) = &config.weights else {
        return Err(Error::input(
            format!("teacher `{}` has no weights", config.teacher),
            "give --weights FILE.safetensors or hf:OWNER/REPO: an untrained teacher has nothing to teach",
        ));
    };
    let weights = source.load(context.progress)?;
    weights.check(&graph)?;
    let teacher = Teacher { graph, weights, preprocessing: entry.preprocessing };

    let val = context.dataset(&config.val, &teacher)?;
    context.progress.begin("teacher", val.len() as u64, "images");
    let network = Network::frozen(&teacher.graph, &teacher.weights, context.device)?;
    let loader = context.plain_loader(&val, &teacher, 250, None)?;
    let accuracy = context.accuracy(&network, &loader, BatchNorm::Running)?;
    context.progress.finish(&format!("top-1 {:.2} %", 100.0 * accuracy.top1));
    let chance = 1.0 / teacher.graph.output_shape().elements() as f64;
    if accuracy.top1 < 2.0 * chance {
        context.progress.warn(&format!(
            "the teacher is right on only {:.1} % of the validation images: check weights, preprocessing and the order of the classes",
            100.0 * accuracy.top1
        ));
    }
    let files = write_network(context, &teacher)?;
    let metrics = TeacherMetrics {
        name: config.teacher.clone(),
        val: accuracy,
        cost: teacher.graph.deployed_cost(),
        files,
    };
    write_json(&context.run.path("teacher/metrics.json"), &metrics)?;
    context.tell_skipped("teacher")?;
    context.run.event("teacher", serde_json::json!({"top1": accuracy.top1, "images": accuracy.images}))?;
    Ok((teacher, metrics))
}

fn write_network(context: &Context<'_>, teacher: &Teacher) -> Result<BTreeMap<String, String>> {
    let folder = context.run.path("teacher");
    fs::create_dir_all(&folder).map_err(Error::io(&folder))?;
    super::export::network_files("teacher.onnx", &teacher.graph, &teacher.weights)?
        .into_iter()
        .map(|(name, bytes)| {
            write_atomic(&folder.join(&name), &bytes)?;
            Ok((name, sha256(&bytes)))
        })
        .collect()
}
