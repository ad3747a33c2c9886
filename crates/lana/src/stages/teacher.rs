//! Takes the teacher in: builds it, checks its weights, evaluates it, exports it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use lana_graph::{Value, unfold_batch_norm, unnormalised_convolutions};
use lana_torch::{BatchNorm, ChannelSums, Network, without_gradients};

use crate::context::{Context, Teacher};
use crate::teacher::{self, Origin};
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
    let Origin { graph, weights, preprocessing } = teacher::read(config)?;
    let weights = match (weights, &config.weights) {
        (Some(own), _) => own,
        (None, Some(source)) => source.load(context.progress)?,
        (None, None) => {
            return Err(Error::input(
                format!("teacher `{}` has no weights", config.teacher),
                "give --weights FILE.safetensors or hf:OWNER/REPO: an untrained teacher has nothing to teach",
            ));
        }
    };
    weights.check(&graph)?;
    let mut teacher = Teacher { graph, weights, preprocessing };
    if teacher::is_file(&config.teacher) {
        teacher = restore_normalisation(context, teacher)?;
    }

    let val = context.dataset(&config.val, &teacher)?;
    context.progress.begin("teacher", val.len() as u64, "images");
    let network = Network::frozen(&teacher.graph, &teacher.weights, context.device)?;
    let loader = context.plain_loader(&val, &teacher, 250, None)?;
    let accuracy = context.accuracy(&network, &loader, BatchNorm::Running)?;
    context.progress.finish(&format!("top-1 {:.2} %", 100.0 * accuracy.top1));
    let chance = 1.0 / teacher.graph.output_shape().elements() as f64;
    if teacher::is_file(&config.teacher) && accuracy.top1 < near_chance(chance, accuracy.images) {
        let message = format!(
            "teacher {}: right on {:.2} % of the validation images, which is hardly better than chance among {:.0} classes",
            config.teacher,
            100.0 * accuracy.top1,
            1.0 / chance
        );
        return Err(Error::input(message, cure(&context.answers(&network, &loader)?, chance)));
    }
    if accuracy.top1 < chance + 0.1 * (1.0 - chance) {
        context.progress.warn(&format!(
            "the teacher is right on only {:.1} % of the validation images: check weights, preprocessing and the order of the classes",
            100.0 * accuracy.top1
        ));
    }
    let files = write_network(context, &teacher)?;
    let metrics = TeacherMetrics {
        name: teacher::title(&config.teacher),
        val: accuracy,
        cost: teacher.graph.deployed_cost(),
        files,
    };
    write_json(&context.run.path("teacher/metrics.json"), &metrics)?;
    context.tell_skipped("teacher")?;
    context.run.event("teacher", serde_json::json!({"top1": accuracy.top1, "images": accuracy.images}))?;
    Ok((teacher, metrics))
}

/// What a teacher that has learned anything is above: a fiftieth of the way from chance to certainty, and what chance gives in one case
/// of a thousand.
fn near_chance(chance: f64, images: u64) -> f64 {
    let luck = 3.0 * (chance * (1.0 - chance) / images.max(1) as f64).sqrt();
    chance + luck.max(0.02 * (1.0 - chance))
}

/// What may make a teacher as bad as chance, by the class of each image and the one that it answers. Classes in a wrong order leave it
/// able to tell them apart; wrong preprocessing does not.
fn cure(answers: &[(i64, i64)], chance: f64) -> String {
    let reordered = reordered(answers);
    // Few images of each class are easily told apart by chance.
    let is_clear = reordered > (3.0 * chance).max(0.3) && answers.len() as f64 * chance >= 10.0;
    let order = "folders count by their sorted names, or by ?classes=FILE";
    match is_clear {
        true => format!(
            "the order of the classes is wrong: in another one it would be right on {:.0} %; {order}",
            100.0 * reordered
        ),
        false => format!(
            "give its preprocessing (--mean, --std, --value-range, --channels, --crop, --interpolation) and check the order of \
             the classes: {order}"
        ),
    }
}

/// Share of images that would be right if each class were called by another name, none twice: those that are confused most often
/// first.
fn reordered(answers: &[(i64, i64)]) -> f64 {
    let mut counts: BTreeMap<(i64, i64), usize> = BTreeMap::new();
    answers.iter().for_each(|pair| *counts.entry(*pair).or_default() += 1);
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let (mut labels, mut names, mut right) = (BTreeSet::new(), BTreeSet::new(), 0);
    for ((label, name), count) in counts {
        if !labels.contains(&label) && !names.contains(&name) {
            labels.insert(label);
            names.insert(name);
            right += count;
        }
    }
    right as f64 / answers.len().max(1) as f64
}

/// Images whose feature maps say what normalisation to put back.
const STATISTICS: usize = 512;
/// Elements of all feature maps that are held at a time.
const HELD: usize = 1 << 26;

/// Puts normalisation behind the convolutions of a file that have none, with the statistics of training images: back, where it
/// was folded into them, which the file does not say. The network computes what it did. Unless the configuration wants it left as
/// it is.
pub(super) fn restore_normalisation(context: &Context<'_>, teacher: Teacher) -> Result<Teacher> {
    if !context.config.restore_normalisation {
        return Ok(teacher);
    }
    let convolutions = unnormalised_convolutions(&teacher.graph);
    if convolutions.is_empty() {
        return Ok(teacher);
    }
    let taps: Vec<Value> = convolutions.iter().map(|&index| Value::of_node(index)).collect();
    let elements: usize = taps.iter().map(|tap| teacher.graph.shape(*tap).elements()).sum();
    let images = context.dataset(&context.config.train, &teacher)?;
    let count = STATISTICS.min(images.len());
    let subset = (0..count).map(|index| (index * images.len() / count) as u32).collect();
    let loader =
        context.plain_loader(&images, &teacher, (HELD / elements.max(1)).clamp(1, 64), Some(subset))?;
    context.progress.begin("normalisation", count as u64, "images");
    // As it is, so that every convolution's own result can be looked at.
    let network = Network::new(&teacher.graph, &teacher.weights, context.device)?;
    let mut sums: Vec<ChannelSums> = taps.iter().map(|_| ChannelSums::default()).collect();
    for batch in loader.epoch(0) {
        let batch = context.batch(&batch?, &teacher.graph)?;
        let maps = without_gradients(|| network.tapped(&batch.images, BatchNorm::Running, &taps))?;
        sums.iter_mut().zip(&maps).try_for_each(|(sum, map)| sum.add(map))?;
    }
    let statistics: Vec<_> = sums.iter().map(ChannelSums::statistics).collect();
    let (graph, weights) = unfold_batch_norm(&teacher.graph, &teacher.weights, &convolutions, &statistics)?;
    context.progress.finish(&format!("put behind {} convolutions that had none", convolutions.len()));
    Ok(Teacher { graph, weights, ..teacher })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_near_chance_depends_on_classes_and_images() {
        assert!((near_chance(0.001, 50_000) - 0.02098).abs() < 1e-9);
        assert!((near_chance(0.1, 10_000) - 0.118).abs() < 1e-9);
        assert!((near_chance(0.5, 100) - 0.65).abs() < 1e-9);
    }

    #[test]
    fn classes_in_another_order_are_told_from_wrong_preprocessing() {
        // A hundred images of ten classes: three classes on, nine times of ten.
        let turned = |image: i64| (image % 10, (image % 10 + 3 + i64::from(image >= 90)) % 10);
        let shifted: Vec<_> = (0..100).map(turned).collect();
        assert!((reordered(&shifted) - 0.9).abs() < 1e-9);
        let said = cure(&shifted, 0.1);
        assert!(said.contains("order of the classes is wrong") && said.contains("90 %"), "{said}");
        // All are called the same.
        let blind: Vec<_> = (0..100).map(|image| (image % 10, 4)).collect();
        assert!((reordered(&blind) - 0.1).abs() < 1e-9);
        assert!(cure(&blind, 0.1).contains("--mean"));
        // One image of each class can always be called something.
        assert!(cure(&shifted[..10], 0.1).contains("--mean"));
        assert_eq!(reordered(&[]), 0.0);
    }
}
