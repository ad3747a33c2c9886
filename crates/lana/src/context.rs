//! What every stage works with: the run, its configuration, the teacher, the images.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lana_data::{
    Augmentation, DataSpec, Dataset, DatasetOptions, Interpolation, Loader, LoaderConfig, Transform,
};
use lana_graph::{Graph, Shape, Weights};
use lana_models::pool::{Operation, Pools};
use lana_models::zoo::{self, Preprocessing};
use lana_torch::{Batch, BatchNorm, Device, Evaluation, Network};
use rayon::prelude::*;

use crate::run::read_weights;
use crate::stages::Shard;
use crate::{
    Accuracy, Assessment, Budget, ClassAccuracy, Config, Error, Progress, Recipe, Result, Run,
    TeacherMetrics, read_or_redo, write_atomic,
};

/// A run at work.
pub(crate) struct Context<'a> {
    pub(crate) run: Run,
    pub(crate) config: Config,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) device: Device,
    /// The threads that work on different operations, candidates and batches.
    pub(crate) threads: rayon::ThreadPool,
    /// Images that are open, by their spec: decoding them is worth doing once.
    datasets: Mutex<HashMap<String, Arc<Dataset>>>,
}

/// The teacher as data.
pub(crate) struct Teacher {
    pub(crate) graph: Graph,
    pub(crate) weights: Weights,
    pub(crate) preprocessing: Preprocessing,
}

/// The operations that stand at one layer, the teacher's own not among them.
pub(crate) struct LayerPool {
    pub(crate) layer: String,
    pub(crate) stage: String,
    /// The layer's own graph.
    pub(crate) graph: Graph,
    pub(crate) operations: Vec<(Operation, Graph)>,
    pub(crate) left_out: Vec<(String, String)>,
}

impl<'a> Context<'a> {
    pub(crate) fn new(run: Run, config: Config, progress: &'a dyn Progress) -> Result<Self> {
        config.validate()?;
        lana_torch::init();
        let device = device(&config.device)?;
        let workers = match config.workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let threads = rayon::ThreadPoolBuilder::new().num_threads(workers).build().map_err(|e| {
            Error::input(format!("`workers` = {workers}: {e}"), "ask for fewer threads (--workers)")
        })?;
        Ok(Context { run, config, progress, device, threads, datasets: Mutex::default() })
    }

    /// Takes up an existing run for a single stage.
    pub(crate) fn open(path: &Path, progress: &'a dyn Progress) -> Result<Self> {
        let mut run = Run::open(path)?;
        let config = run.config()?;
        run.lock()?;
        Self::new(run, config, progress)
    }

    /// Takes up an existing run for a part of phase 1.
    pub(crate) fn open_shard(path: &Path, shard: Shard, progress: &'a dyn Progress) -> Result<Self> {
        let mut run = Run::open(path)?;
        let config = run.config()?;
        run.lock_shard(shard)?;
        Self::new(run, config, progress)
    }

    pub(crate) fn workers(&self) -> usize {
        self.threads.current_num_threads()
    }

    /// The teacher that the first stage took in; none if it has to be taken in (again).
    pub(crate) fn stored_teacher(&self) -> Result<Option<(Teacher, TeacherMetrics)>> {
        let folder = self.run.path("teacher");
        let Some(metrics) = read_or_redo::<TeacherMetrics>(&folder.join("metrics.json"), self.progress)?
        else {
            return Ok(None);
        };
        let entry = zoo::entry(&metrics.name)?;
        let graph = zoo::build(&metrics.name, &self.config.zoo_options())?;
        let path = folder.join("weights.safetensors");
        let sum = metrics.files.get("weights.safetensors").cloned().unwrap_or_default();
        match read_weights(&path, &sum, &graph) {
            Ok(weights) => {
                let teacher = Teacher { graph, weights, preprocessing: entry.preprocessing };
                Ok(Some((teacher, metrics)))
            }
            Err(error @ (Error::Damaged { .. } | Error::Io { .. })) => {
                self.progress.warn(&format!("{error}; the teacher is taken in again"));
                Ok(None)
            }
            Err(other) => Err(other),
        }
    }

    /// The teacher, which must have been taken in.
    pub(crate) fn teacher(&self) -> Result<(Teacher, TeacherMetrics)> {
        self.stored_teacher()?.ok_or_else(|| self.not_ready("the teacher", "accelerate --out"))
    }

    pub(crate) fn not_ready(&self, missing: &str, stage: &str) -> Error {
        not_ready(&self.run, missing, stage)
    }

    /// The pool at every layer of the teacher.
    pub(crate) fn pool(&self, teacher: &Graph) -> Result<Vec<LayerPool>> {
        pool_of(&Pools::parse(&self.config.pool, &self.config.pool_rules)?, teacher)
    }

    /// The images `spec`, brought to the teacher's input.
    pub(crate) fn dataset(&self, spec: &str, teacher: &Teacher) -> Result<Arc<Dataset>> {
        let mut open = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(dataset) = open.get(spec) {
            return Ok(Arc::clone(dataset));
        }
        let (input, output) = (teacher.graph.input_shape(), teacher.graph.output_shape());
        let dataset = open_dataset(spec, input, output, self.progress)?;
        open.insert(spec.to_string(), Arc::clone(&dataset));
        Ok(dataset)
    }

    pub(crate) fn loader(
        &self,
        dataset: &Arc<Dataset>,
        teacher: &Teacher,
        augmentation: Option<Augmentation>,
        config: LoaderConfig,
    ) -> Result<Loader> {
        let transform = transform(teacher.graph.input_shape(), teacher.preprocessing);
        let transform = Transform { augmentation, ..transform };
        Ok(Loader::new(Arc::clone(dataset), transform, config)?)
    }

    /// A loader that gives every image once, in order, without augmentation.
    pub(crate) fn plain_loader(
        &self,
        dataset: &Arc<Dataset>,
        teacher: &Teacher,
        batch: usize,
        subset: Option<Vec<u32>>,
    ) -> Result<Loader> {
        self.loader(dataset, teacher, None, LoaderConfig { batch, subset, ..LoaderConfig::default() })
    }

    pub(crate) fn batch(&self, batch: &lana_data::Batch, teacher: &Graph) -> Result<Batch> {
        Ok(Batch::new(&batch.images, &batch.labels, teacher.input_shape(), self.device)?)
    }

    /// Accuracy of a network on all images of a loader, batches divided among the threads.
    pub(crate) fn accuracy(&self, network: &Network, loader: &Loader, mode: BatchNorm) -> Result<Accuracy> {
        accuracy_on(&self.threads, network, loader, mode)
    }

    /// Everything about a network on all images of a loader, whose classes have these names; and how often `teacher` agrees.
    pub(crate) fn assess(
        &self,
        network: &Network,
        teacher: Option<&Network>,
        loader: &Loader,
        names: Option<&[String]>,
    ) -> Result<Assessment> {
        assess_on(&self.threads, network, teacher, loader, names)
    }

    /// Changes the budgets of the run, in memory and in `run.toml`.
    pub(crate) fn set_budgets(&mut self, change: impl FnOnce(&mut Vec<Budget>)) -> Result<()> {
        let before = self.config.budgets.clone();
        change(&mut self.config.budgets);
        match self.config.budgets == before {
            true => Ok(()),
            false => write_atomic(&self.run.path("run.toml"), self.config.to_toml().as_bytes()),
        }
    }

    /// Adds budgets to those of the run.
    pub(crate) fn add_budgets(&mut self, budgets: &[Budget]) -> Result<()> {
        self.set_budgets(|known| {
            known.extend(budgets.iter().filter(|b| !known.contains(b)).cloned().collect::<Vec<_>>())
        })
    }

    /// Changes the recipe of the run, in memory and in `run.toml`.
    pub(crate) fn set_recipe(&mut self, recipe: &Recipe) -> Result<()> {
        recipe.validate("")?;
        if self.config.finetune == *recipe {
            return Ok(());
        }
        self.config.finetune = recipe.clone();
        write_atomic(&self.run.path("run.toml"), self.config.to_toml().as_bytes())
    }

    /// The budgets asked for, or those of the configuration.
    pub(crate) fn budgets(&self, asked: &[Budget]) -> Result<Vec<Budget>> {
        let budgets = if asked.is_empty() { self.config.budgets.clone() } else { asked.to_vec() };
        match budgets.is_empty() {
            true => Err(Error::input("no budget is given", "give --budget, such as --budget 0.5x")),
            false => Ok(budgets),
        }
    }
}

/// Something is missing that the command of a stage makes.
pub(crate) fn not_ready(run: &Run, missing: &str, stage: &str) -> Error {
    let run = run.root().display().to_string();
    Error::NotReady { missing: missing.into(), command: format!("lana {stage} {run}"), run }
}

/// The operations that stand at every layer of a teacher.
pub(crate) fn pool_of(pools: &Pools, teacher: &Graph) -> Result<Vec<LayerPool>> {
    pools.check(teacher)?;
    let mut layers = Vec::new();
    for layer in teacher.layers() {
        let graph = teacher.layer_graph(&layer.name)?;
        let (mut operations, mut left_out) = (Vec::new(), Vec::new());
        for (operation, built) in pools.at(layer).operations_for(&graph) {
            match built {
                _ if operation.is_teacher() => {}
                Ok(built) => operations.push((operation, built)),
                Err(reason) => left_out.push((operation.to_string(), reason.to_string())),
            }
        }
        let (layer, stage) = (layer.name.clone(), layer.stage.clone());
        layers.push(LayerPool { layer, stage, graph, operations, left_out });
    }
    Ok(layers)
}

/// Opens images for a network with that input and output.
pub(crate) fn open_dataset(
    spec: &str,
    input: &Shape,
    output: &Shape,
    progress: &dyn Progress,
) -> Result<Arc<Dataset>> {
    let spec: DataSpec = spec.parse()?;
    let size = input.dims().get(1).copied();
    let options = DatasetOptions { size, classes: Some(output.elements()), ..DatasetOptions::default() };
    let dataset = Dataset::open(&spec, &options)?;
    for skipped in dataset.skipped() {
        progress.warn(&format!("skipped {}: {}", skipped.item, skipped.reason));
    }
    Ok(Arc::new(dataset))
}

/// How pixels become numbers for a network: cut, resized and normalised as its preprocessing says.
pub(crate) fn transform(input: &Shape, preprocessing: Preprocessing) -> Transform {
    Transform {
        crop: preprocessing.crop,
        interpolation: match preprocessing.interpolation {
            zoo::Interpolation::Bilinear => Interpolation::Bilinear,
            zoo::Interpolation::Bicubic => Interpolation::Bicubic,
        },
        mean: preprocessing.mean,
        std: preprocessing.std,
        ..Transform::evaluation(input.dims().get(1).copied().unwrap_or(1))
    }
}

/// Accuracy of a network on all images of a loader, batches divided among `threads`.
pub(crate) fn accuracy_on(
    threads: &rayon::ThreadPool,
    network: &Network,
    loader: &Loader,
    mode: BatchNorm,
) -> Result<Accuracy> {
    let mut total = Evaluation::default();
    let part = |[network]: &[Network; 1], batch: &Batch| {
        let mut part = Evaluation::default();
        part.add(network, batch, mode)?;
        Ok(part)
    };
    over_batches(threads, loader, || [network.share()], part, |part| total.merge(&part))?;
    Ok(accuracy(&total))
}

/// Everything about a network on all images of a loader, batches divided among `threads`.
pub(crate) fn assess_on(
    threads: &rayon::ThreadPool,
    network: &Network,
    teacher: Option<&Network>,
    loader: &Loader,
    names: Option<&[String]>,
) -> Result<Assessment> {
    let begun = Instant::now();
    let mut total = lana_torch::Assessment::default();
    let networks = || (network.share(), teacher.map(Network::share));
    let part = |(network, teacher): &(Network, Option<Network>), batch: &Batch| {
        let mut part = lana_torch::Assessment::default();
        part.add(network, teacher.as_ref(), batch, BatchNorm::Running)?;
        Ok(part)
    };
    over_batches(threads, loader, networks, part, |part| total.merge(&part))?;
    Ok(assessment(&total, begun.elapsed().as_secs_f64(), names))
}

/// Gives every batch of a loader to `part`, with networks shared for it, on some of `threads`; what comes of it to `merge`, in
/// order.
fn over_batches<N: Send + Shared, P: Send>(
    threads: &rayon::ThreadPool,
    loader: &Loader,
    share: impl Fn() -> N,
    part: impl Fn(&N, &Batch) -> Result<P> + Sync,
    mut merge: impl FnMut(P),
) -> Result<()> {
    let mut batches = loader.epoch(0);
    loop {
        // As many batches at a time as there are threads: memory stays bounded, and nothing is shared.
        let round = batches.by_ref().take(threads.current_num_threads()).collect::<Result<Vec<_>, _>>()?;
        if round.is_empty() {
            return Ok(());
        }
        let tasks: Vec<_> = round.into_iter().map(|batch| (share(), batch)).collect();
        let parts: Vec<Result<P>> = threads.install(|| {
            tasks
                .into_par_iter()
                .map(|(networks, batch)| {
                    let first = networks.first();
                    let shape = first.graph().input_shape();
                    let batch = Batch::new(&batch.images, &batch.labels, shape, first.device())?;
                    part(&networks, &batch)
                })
                .collect()
        });
        for part in parts {
            merge(part?);
        }
    }
}

/// Networks that a thread has to itself.
trait Shared {
    /// That which says what images look like, and where they belong.
    fn first(&self) -> &Network;
}

impl Shared for [Network; 1] {
    fn first(&self) -> &Network {
        &self[0]
    }
}

impl Shared for (Network, Option<Network>) {
    fn first(&self) -> &Network {
        &self.0
    }
}

/// What was counted in so many seconds, in figures.
pub(crate) fn assessment(
    counted: &lana_torch::Assessment,
    seconds: f64,
    names: Option<&[String]>,
) -> Assessment {
    let accuracy = accuracy(&counted.evaluation);
    let classes = counted.classes.iter().enumerate().map(|(class, &(images, right))| ClassAccuracy {
        class,
        name: names.and_then(|names| names.get(class).cloned()),
        images,
        top1: (images > 0).then(|| right as f64 / images as f64),
    });
    Assessment {
        accuracy,
        top1_error: accuracy.top1_error(),
        calibration_error: counted.calibration_error(),
        agreement: counted.agreement(),
        images_per_s: accuracy.images as f64 / seconds,
        classes: classes.collect(),
    }
}

pub(crate) fn accuracy(evaluation: &Evaluation) -> Accuracy {
    Accuracy {
        top1: evaluation.top1(),
        top5: evaluation.top5(),
        loss: evaluation.loss(),
        images: evaluation.images,
    }
}

/// The device by its name on the command line.
pub(crate) fn device(name: &str) -> Result<Device> {
    match name {
        "cuda" => Ok(Device::cuda()?),
        _ => Ok(Device::Cpu),
    }
}
