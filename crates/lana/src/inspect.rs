//! Questions that change nothing: status, accuracy, what teachers and operations there are.

use std::path::Path;
use std::time::Instant;

use lana_data::{Loader, LoaderConfig};
use lana_graph::{Cost, LayerRules, Shape};
use lana_latency::{Deployment, Dim, Model, Session};
use lana_models::pool::Pools;
use lana_models::zoo::{self, Preprocessing, ZooOptions};
use lana_torch::{BatchNorm, Network};
use serde::{Deserialize, Serialize};

use crate::context::{Context, assess_on, assessment, decoders, device, open_dataset, transform};
use crate::stages::library::{Library, Trained};
use crate::stages::{export, finetune, pretrain, profile, select};
use crate::{
    Assessment, Config, Error, PoolLatency, PoolRecord, PreprocessingConfig, PretrainPrecision, Progress,
    Result, Run, Scores, Silent, StageStatus, Status, TableStatus, WeightsSource, read_or_redo, teacher,
};

/// A network to evaluate: an ONNX file, or an architecture of the zoo with weights.
#[derive(Clone, Debug)]
pub struct NetworkFile {
    /// The file, or the name that `lana zoo` lists.
    pub name: String,
    /// Weights of an architecture.
    pub weights: Option<WeightsSource>,
}

/// Options of [`evaluate`].
#[derive(Clone, Debug)]
pub struct EvaluateOptions {
    /// A network with whose answers to compare.
    pub teacher: Option<NetworkFile>,
    /// What an architecture differs in from the zoo's own.
    pub network: ZooOptions,
    /// The images.
    pub data: String,
    /// Images in a batch.
    pub batch: usize,
    /// Threads; 0 for one a core.
    pub threads: usize,
    /// `cpu` or `cuda`.
    pub device: String,
    /// How images become its input, where that is not as the network itself says, or as ImageNet's networks have it.
    pub preprocessing: PreprocessingConfig,
}

/// Where the channels of an image stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Layout {
    /// As PyTorch has them: 3×N×N.
    ChannelsFirst,
    /// As TensorFlow has them: N×N×3.
    ChannelsLast,
}

/// Side and layout of a square image with three channels, if these are its dimensions.
fn layout(dims: [usize; 3]) -> Option<(usize, Layout)> {
    match dims {
        [3, height, width] if height == width => Some((height, Layout::ChannelsFirst)),
        [height, width, 3] if height == width => Some((height, Layout::ChannelsLast)),
        _ => None,
    }
}

/// `n` images of three channels with the channels behind the pixels.
fn channels_last(images: &[f32], n: usize) -> Vec<f32> {
    let pixels = images.len() / (3 * n.max(1));
    let mut turned = Vec::with_capacity(images.len());
    for image in images.chunks(3 * pixels.max(1)) {
        turned.extend((0..pixels).flat_map(|at| [image[at], image[pixels + at], image[2 * pixels + at]]));
    }
    turned
}

/// A network that answers images.
enum Answering {
    /// With the layout of its input.
    Onnx(Box<Session>, Layout),
    Torch(Network),
}

impl Answering {
    /// Opens a network; gives its input, its output and its preprocessing too.
    fn open(
        file: &NetworkFile,
        options: &EvaluateOptions,
        threads: usize,
        progress: &dyn Progress,
    ) -> Result<(Self, Shape, Shape, Preprocessing)> {
        let what = &file.name;
        if teacher::is_file(what) {
            let deployment = Deployment { threads, ..Deployment::default() };
            let session = Session::open(&Model::from_file(Path::new(what))?, &deployment)?;
            let dims @ [a, b, c] = session.image_shape()?;
            let (side, layout) = layout(dims).ok_or_else(|| {
                Error::input(
                    format!("{what} takes {a}×{b}×{c}"),
                    "export a classifier of square images with three channels: 3×N×N, or N×N×3 as TensorFlow writes it",
                )
            })?;
            let Some(&Dim::Size(classes)) = session.outputs().first().and_then(|o| o.dims.last()) else {
                return Err(Error::input(
                    format!("{what}: its output has no fixed number of classes"),
                    "export a classifier",
                ));
            };
            let (input, output) = (Shape::image(3, side, side), Shape::vector(classes));
            let preprocessing = teacher::of_file(&input);
            return Ok((Answering::Onnx(Box::new(session), layout), input, output, preprocessing));
        }
        let entry = zoo::entry(what)?;
        let graph = zoo::build(what, &options.network)?;
        let source = file.weights.as_ref().ok_or_else(|| {
            Error::input(
                format!("`{what}` has no weights"),
                "give --weights FILE.safetensors or hf:OWNER/REPO",
            )
        })?;
        source.warn_of_another(what, progress);
        let weights = source.load(progress)?;
        let network = Network::frozen(&graph, &weights, device(&options.device)?)?;
        let (input, output) = (graph.input_shape().clone(), graph.output_shape().clone());
        Ok((Answering::Torch(network), input, output, entry.preprocessing))
    }

    /// Logits for a batch, with so many threads in each kernel.
    fn answer(
        &mut self,
        batch: &lana_data::Batch,
        shape: &Shape,
        threads: usize,
    ) -> Result<lana_torch::Tensor> {
        match self {
            Answering::Onnx(session, layout) => {
                let logits = match layout {
                    Layout::ChannelsFirst => session.run(&batch.images, batch.n)?,
                    Layout::ChannelsLast => session.run(&channels_last(&batch.images, batch.n), batch.n)?,
                };
                Ok(lana_torch::logits(&logits, batch.n)?)
            }
            Answering::Torch(network) => {
                let batch = lana_torch::Batch::new(&batch.images, &batch.labels, shape, network.device())?;
                let run = || network.forward(&batch.images, BatchNorm::Running);
                let run = || lana_torch::without_gradients(run);
                Ok(lana_torch::with_kernel_threads(threads, run)?)
            }
        }
    }
}

/// Evaluates an ONNX file (on ONNX Runtime) or an architecture of the zoo with weights (on libtorch).
pub fn evaluate(
    network: &NetworkFile,
    options: &EvaluateOptions,
    progress: &dyn Progress,
) -> Result<Assessment> {
    lana_torch::init();
    if options.batch == 0 {
        return Err(Error::input("--batch is 0", "it must be at least 1"));
    }
    options.preprocessing.validate()?;
    if options.threads > 1024 {
        return Err(Error::input(format!("--threads is {}", options.threads), "give at most 1024"));
    }
    let threads = match options.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        n => n,
    };
    let what = &network.name;
    let (mut mine, input, output, own) = Answering::open(network, options, threads, progress)?;
    let teacher = options.teacher.as_ref();
    let mut teacher = match teacher.map(|t| Answering::open(t, options, threads, progress)).transpose()? {
        Some((teacher, their_input, their_output, _)) => {
            if (&their_input, &their_output) != (&input, &output) {
                return Err(Error::input(
                    format!("the teacher makes {their_output} of {their_input}, {what} {output} of {input}"),
                    "both must take images of one size and tell the same classes apart",
                ));
            }
            Some(teacher)
        }
        None => None,
    };
    let preprocessing = options.preprocessing.over(own);
    let dataset = open_dataset(&options.data, &input, &output)?;
    progress.begin("evaluate", dataset.len() as u64, "images");
    let workers = decoders(&dataset, threads);
    let config = LoaderConfig { batch: options.batch, workers, ..LoaderConfig::default() };
    let loader = Loader::new(dataset, transform(&input, preprocessing), config)?;
    let names = loader.dataset().class_names();
    let result = match (&mine, &teacher) {
        (Answering::Torch(network), None) => {
            assess_on(&thread_pool(threads)?, network, None, &loader, names)?
        }
        (Answering::Torch(network), Some(Answering::Torch(teacher))) => {
            assess_on(&thread_pool(threads)?, network, Some(teacher), &loader, names)?
        }
        _ => {
            let begun = Instant::now();
            let mut total = lana_torch::Assessment::default();
            for batch in loader.epoch(0) {
                let batch = batch?;
                let logits = mine.answer(&batch, &input, threads)?;
                let theirs = teacher.as_mut().map(|t| t.answer(&batch, &input, threads)).transpose()?;
                total.add_logits(&logits, theirs.as_ref(), &lana_torch::labels(&batch.labels)?)?;
                progress.advance(total.evaluation.images, "");
            }
            assessment(&total, begun.elapsed().as_secs_f64(), names)
        }
    };
    for skipped in loader.dataset().skipped() {
        progress.warn(&format!("skipped {}: {}", skipped.item, skipped.reason));
    }
    if !result.accuracy.loss.is_finite() {
        return Err(Error::input(
            format!("{what}: its answers are not finite numbers"),
            "check the weights, and that --mean and --std are those it was trained with",
        ));
    }
    progress.finish(&format!("top-1 {:.2} %", 100.0 * result.accuracy.top1));
    Ok(result)
}

fn thread_pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|e| Error::input(format!("--threads {threads}: {e}"), "ask for fewer threads"))
}

/// One teacher of the zoo.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZooRow {
    /// Its name.
    pub name: String,
    /// The family it belongs to.
    pub family: String,
    /// Its input, `[channels, height, width]`.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Number of replaceable blocks.
    pub blocks: usize,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
}

/// All teachers there are.
pub fn zoo() -> Result<Vec<ZooRow>> {
    Ok(zoo::list()
        .into_iter()
        .map(|e| ZooRow {
            name: e.name,
            family: e.family.to_string(),
            input: [3, e.resolution, e.resolution],
            classes: e.num_classes,
            blocks: e.layers,
            cost: Cost { macs: e.macs, params: e.params },
        })
        .collect())
}

/// One teacher of the zoo with its blocks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZooNetwork {
    /// Its name.
    pub name: String,
    /// The family it belongs to.
    pub family: String,
    /// Where it is described, and whose parameter names it has.
    pub source: String,
    /// Its input, `[channels, height, width]`.
    pub input: [usize; 3],
    /// Number of classes.
    pub classes: usize,
    /// Mean of red, green, blue on the scale 0..1.
    pub mean: [f32; 3],
    /// Standard deviation likewise.
    pub std: [f32; 3],
    /// Share of an image's shorter side that it sees.
    pub crop: f32,
    /// The filter by which images are resized: `bilinear` or `bicubic`.
    pub interpolation: String,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// Its replaceable blocks; the stem and the head are not among them.
    pub blocks: Vec<ZooBlock>,
}

/// A block of a teacher: a layer, or a part of one ([`crate::LayerRules`]: `group`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ZooBlock {
    /// Its name.
    pub block: String,
    /// The stage it belongs to.
    pub stage: String,
    /// Shape of what it takes.
    pub input: Shape,
    /// Shape of what it gives.
    pub output: Shape,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// Its share of the network's multiply-accumulates.
    pub macs_share: f64,
    /// Its share of the network's parameters.
    pub params_share: f64,
}

/// A teacher with its blocks, at another resolution or with other classes than its own if `options` say so.
pub fn zoo_network(name: &str, options: &ZooOptions) -> Result<ZooNetwork> {
    let graph = zoo::build(name, options)?;
    let entry = zoo::entry(name)?;
    let cost = graph.cost();
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let blocks = graph.layers().iter().map(|l| {
        let own = graph.cost_of(l.nodes.clone());
        ZooBlock {
            block: l.name.clone(),
            stage: l.stage.clone(),
            input: graph.shape(l.input).clone(),
            output: graph.shape(l.output).clone(),
            cost: own,
            macs_share: share(own.macs, cost.macs),
            params_share: share(own.params, cost.params),
        }
    });
    let resolution = options.resolution.unwrap_or(entry.resolution);
    Ok(ZooNetwork {
        name: entry.name,
        family: entry.family.to_string(),
        source: entry.source.to_string(),
        input: [3, resolution, resolution],
        classes: options.num_classes.unwrap_or(entry.num_classes),
        mean: entry.preprocessing.mean,
        std: entry.preprocessing.std,
        crop: entry.preprocessing.crop,
        interpolation: entry.preprocessing.interpolation.to_string(),
        cost,
        blocks: blocks.collect(),
    })
}

/// The operations of a pool at every layer of a teacher, of up to `group` blocks each, with rules for some layers
/// ([`Config::pool_rules`]).
pub fn pool(
    teacher: &str,
    options: &ZooOptions,
    group: usize,
    pool: &str,
    rules: &[String],
) -> Result<PoolRecord> {
    let config = Config {
        teacher: teacher.into(),
        num_classes: options.num_classes,
        resolution: options.resolution,
        layers: LayerRules { group, ..LayerRules::default() },
        ..Config::default()
    };
    let graph = teacher::read(&config)?.graph;
    let pools = Pools::parse(pool, rules)?;
    profile::record(pool, rules, &graph, &crate::context::pool_of(&pools, &graph)?)
}

/// The operations of a run, with their latency on this device and their errors after phase 1 as far as these are known;
/// and the teacher's name.
pub fn pool_of_run(path: &Path) -> Result<(String, PoolRecord)> {
    let context = looking(path)?;
    let config = &context.config;
    let graph = match context.stored_teacher()? {
        Some((teacher, _)) => teacher.graph,
        None => teacher::read(config)?.graph,
    };
    let pool = context.pool(&graph)?;
    let mut record = profile::record(&config.pool, &config.pool_rules, &graph, &pool)?;
    for (place, layer) in record.layers.iter_mut().zip(&pool) {
        place.learned = pretrain::learned(&context, layer)?;
    }
    if let Some(table) = profile::stored(&context)? {
        for (place, layer) in record.layers.iter_mut().zip(&pool) {
            let Some(teacher_ms) = table.cost(&place.layer, "teacher") else { continue };
            let cost = |name: &str| Some((name.to_string(), table.cost(&place.layer, name)? / teacher_ms));
            place.latency = Some(PoolLatency {
                teacher_ms,
                ratios: place.operations.iter().filter_map(|o| cost(&o.name)).collect(),
                slow: pretrain::slow(&context, &table, layer),
            });
        }
    }
    Ok((config.teacher.clone(), record))
}

/// A run that is only looked at, which needs no GPU.
fn looking(path: &Path) -> Result<Context<'static>> {
    let run = Run::open(path)?;
    let config = Config { device: "cpu".into(), ..run.config()? };
    Context::new(run, config, &Silent)
}

/// How far a run is.
pub fn status(path: &Path) -> Result<Status> {
    let context = looking(path)?;
    let stage = |stage: &str, done: u64, total: u64, unit: &str, eta_s: Option<f64>| StageStatus {
        stage: stage.into(),
        done,
        total,
        unit: unit.into(),
        eta_s: if done >= total { Some(0.0) } else { eta_s },
    };
    let teacher = context.stored_teacher()?;
    let mut list = vec![stage("teacher", u64::from(teacher.is_some()), 1, "networks", None)];
    let graph = match &teacher {
        Some((teacher, _)) => teacher.graph.clone(),
        None => teacher::read(&context.config)?.graph,
    };
    let table = profile::stored(&context)?;
    let latency = &context.config.latency;
    let mut deployments = vec![latency.deployment()];
    for budget in &context.config.budgets {
        let named = budget.deployments(&latency.deployment())?.into_iter().map(|(deployment, _)| deployment);
        deployments.extend(named);
    }
    deployments.sort_by_key(ToString::to_string);
    deployments.dedup();
    let mut tables = Vec::new();
    for deployment in &deployments {
        if let Some(table) = profile::table(&context.run, &latency.on(*deployment), &Silent)? {
            tables.push(TableStatus {
                deployment: deployment.to_string(),
                device: table.device.to_string(),
                teacher_ms: table.teacher_ms(),
                noisy: table.noisy(),
                check: table.check.map(|check| check.table),
            });
        }
    }
    list.push(stage("profile", tables.len() as u64, deployments.len() as u64, "tables", None));

    let pool = context.pool(&graph)?;
    let (done, total) = pretrain::count(&context, &pool, table.as_ref())?;
    let ahead = pretrain::remaining_s(&context);
    list.push(stage("pretrain", done, total, "operations", ahead));

    let scores = read_or_redo::<Scores>(&context.run.path("scores.json"), &Silent)?;
    let (mut scored, mut trained) = (0, 0);
    if let Some((teacher, _)) = &teacher {
        let library = Library::of(&context, teacher, &pool)?;
        let is_scored = |t: &&Trained| scores.as_ref().is_some_and(|s| s.has(&pool[t.layer].layer, &t.name));
        trained = library.operations().len() as u64;
        scored = library.operations().iter().filter(is_scored).count() as u64;
    }
    list.push(stage("score", scored, trained.max(1), "operations", None));
    for budget in &context.config.budgets {
        let selected = select::stored(&context, budget)?.is_some();
        list.push(stage(&format!("select {budget}"), u64::from(selected), 1, "selections", None));
        let epochs = context.config.finetune.epochs as u64;
        let (done, left) = finetune::progress(&context, budget)?;
        list.push(stage(&format!("finetune {budget}"), done, epochs, "epochs", left));
        let exported = export::stored(&context, budget)?.is_some();
        list.push(stage(&format!("export {budget}"), u64::from(exported), 1, "students", None));
    }
    let report = context.run.path("report.html").is_file();
    list.push(stage("report", u64::from(report), 1, "pages", None));
    let precision = read_or_redo(&context.run.path(PretrainPrecision::FILE), &Silent)?;
    Ok(Status { stages: list, tables, precision })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_given_as_the_file_takes_them() {
        assert_eq!(layout([3, 32, 32]), Some((32, Layout::ChannelsFirst)));
        assert_eq!(layout([32, 32, 3]), Some((32, Layout::ChannelsLast)));
        assert_eq!(layout([3, 3, 3]), Some((3, Layout::ChannelsFirst)));
        for none in [[1, 32, 32], [3, 32, 16], [32, 16, 3], [4, 4, 4]] {
            assert_eq!(layout(none), None, "{none:?}");
        }
        // Two images of two by one pixels: red, green, blue in their planes.
        let planes = [1.0, 2.0, 10.0, 20.0, 100.0, 200.0, 3.0, 4.0, 30.0, 40.0, 300.0, 400.0];
        let turned = [1.0, 10.0, 100.0, 2.0, 20.0, 200.0, 3.0, 30.0, 300.0, 4.0, 40.0, 400.0];
        assert_eq!(channels_last(&planes, 2), turned);
    }
}
