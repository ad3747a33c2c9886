//! What scoring and evaluation save by sharing: scores that run only what lies behind the layer against the whole network
//! again for each operation, and selections that share the maps of their first layers against each by itself.

use std::path::Path;
use std::time::Instant;

use lana_torch::{Batch, BatchNorm, Network, without_gradients};
use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::stages::library::{Library, Trained};
use crate::stages::{score, select};
use crate::{Error, Progress, Result};

/// Seconds with and without sharing, on one batch and one thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoreSpeed {
    /// Operations that were scored both ways.
    pub operations: usize,
    /// Images in the batch.
    pub images: usize,
    /// Seconds for all of them, the teacher's share included.
    pub behind_s: f64,
    /// Seconds for the whole network with each of them in its place.
    pub whole_s: f64,
    /// Of a selection that the run made, the candidates of the first round: how many, seconds together, seconds each by itself.
    pub candidates: Option<(usize, f64, f64)>,
}

/// Rounds in which both ways take turns; the fastest of each counts.
const ROUNDS: usize = 3;

/// Times the scoring of some operations of a run that has trained them, about `operations` of all, and the evaluation of
/// candidates if it has selected any.
///
/// # Errors
/// If the run has no trained operations, or both ways do not give the same scores.
pub fn score_speed(run: &Path, operations: usize, progress: &dyn Progress) -> Result<ScoreSpeed> {
    let context = Context::open(run, progress)?;
    let (teacher, _) = context.teacher()?;
    let pool = context.pool(&teacher.graph)?;
    let library = Library::of(&context, &teacher, &pool)?;
    let images = score::scoring_images(&context, &teacher)?;
    let first = images.first().map(Batch::share);
    let batch =
        first.ok_or_else(|| Error::input("there is no training image to score by", "check --train"))?;
    let all = library.operations();
    let trained = all.iter().step_by((all.len() / operations.max(1)).max(1)).collect::<Vec<&Trained>>();
    if trained.iter().all(|t| t.is_identity()) {
        return Err(context.not_ready("a trained operation", "pretrain"));
    }
    let rest = score::Rest::of(&teacher, context.device)?;
    let network = &rest.network;
    let layers = network.graph().layers().to_vec();
    let weights = network.weights()?;
    let mut speed = ScoreSpeed {
        operations: trained.len(),
        images: batch.len(),
        behind_s: 0.0,
        whole_s: 0.0,
        candidates: None,
    };
    let (mut teacher_s, mut outcome) = (f64::INFINITY, None);
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        outcome = Some(rest.on(&batch)?);
        context.device.synchronize();
        teacher_s = teacher_s.min(begun.elapsed().as_secs_f64());
    }
    let Some((base, maps)) = outcome else { return Ok(speed) };
    // What the teacher takes serves every operation of the run.
    speed.behind_s = teacher_s * trained.len() as f64 / all.len() as f64;
    progress.begin("score speed", trained.len() as u64, "operations");
    for (done, operation) in trained.iter().enumerate() {
        let layer = &layers[operation.layer];
        let (mut behind_s, mut whole_s) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            let of = score::Task {
                operation,
                rest: rest.share(),
                behind: layer.output,
                input: maps[operation.layer].shallow_clone(),
                base: base.share(),
            };
            let [behind, _] = of.run()?.kl;
            behind_s = behind_s.min(begun.elapsed().as_secs_f64());

            let begun = Instant::now();
            let graph = network.graph().replace(&layer.name, &operation.graph)?;
            let mut all = weights.clone();
            network.graph().replace_weights(&layer.name, &mut all, &operation.weights()?)?;
            let changed = Network::new(&graph, &all, context.device)?;
            let [whole, _] =
                without_gradients(|| base.change(&changed.forward(&batch.images, BatchNorm::Batch)?))?.kl;
            whole_s = whole_s.min(begun.elapsed().as_secs_f64());
            if (whole - behind).abs() > 1e-3 * (1.0 + whole.abs()) {
                return Err(Error::input(
                    format!(
                        "{}: {}: {behind} from behind the layer, {whole} from the whole network",
                        layer.name, operation.name
                    ),
                    "this is a fault of lana: please report it",
                ));
            }
        }
        speed.behind_s += behind_s;
        speed.whole_s += whole_s;
        progress.advance(done as u64 + 1, "");
    }
    progress.finish(&format!("{:.2} times as fast", speed.whole_s / speed.behind_s));
    for budget in &context.config.budgets {
        let Some(found) = select::stored(&context, budget)? else { continue };
        let choices: Vec<&[String]> =
            found.candidates.iter().filter(|c| c.round == 0).map(|c| c.choices.as_slice()).collect();
        let batches = [batch.share()];
        let (mut together_s, mut alone_s) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            let begun = Instant::now();
            library.answers(&context, &choices, &batches)?;
            together_s = together_s.min(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            for one in &choices {
                library.answers(&context, &[one], &batches)?;
            }
            alone_s = alone_s.min(begun.elapsed().as_secs_f64());
        }
        speed.candidates = Some((choices.len(), together_s, alone_s));
        break;
    }
    Ok(speed)
}
