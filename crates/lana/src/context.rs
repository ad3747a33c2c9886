//! What every stage works with: the run, its configuration, the teacher, the images.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use lana_data::{
    Augmentation, DataSpec, Dataset, DatasetOptions, Interpolation, Loader, LoaderConfig, Transform,
};
use lana_graph::{Graph, Shape, Weights};
use lana_models::pool::{Operation, Pools};
use lana_models::zoo::{self, Preprocessing};
use lana_torch::{Batch, BatchNorm, Device, Evaluation, Network, answered_classes};
use rayon::prelude::*;

use crate::controls::Control;
use crate::run::{read_graph, read_weights};
use crate::stages::Shard;
use crate::teacher::{self, Origin};
use crate::{
    Accuracy, Answers, Assessment, Budget, ClassAccuracy, Config, Error, Progress, Recipe, Result, Run,
    TeacherMetrics, read_or_redo, write_atomic,
};

/// A run at work.
pub(crate) struct Context<'a> {
    pub(crate) run: Run,
    pub(crate) config: Config,
    pub(crate) progress: &'a dyn Progress,
    pub(crate) device: Device,
    /// What is made instead of a budget's student, if it is a control.
    pub(crate) control: Option<Control>,
    /// The threads that work on different operations, candidates and batches.
    pub(crate) threads: rayon::ThreadPool,
    /// Images that are open, by their spec: decoding them is worth doing once.
    datasets: Mutex<BTreeMap<String, Open>>,
}

/// Images that are open.
struct Open {
    dataset: Arc<Dataset>,
    /// Those of which it was told that they do not decode.
    told: HashSet<String>,
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
        Ok(Context { run, config, progress, device, control: None, threads, datasets: Mutex::default() })
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

    /// Where the selection for a budget, its training and what is exported are: the student's, or the control's.
    pub(crate) fn budget_dir(&self, budget: &Budget) -> PathBuf {
        let folder = self.run.budget_dir(budget);
        self.control.as_ref().map_or(folder.clone(), |control| folder.join(control.folder()))
    }

    /// What a step for a budget is called: `select 0.5x`, or `select 0.5x random` for a control.
    pub(crate) fn title(&self, step: &str, budget: &Budget) -> String {
        self.control
            .as_ref()
            .map_or_else(|| format!("{step} {budget}"), |control| format!("{step} {budget} {control}"))
    }

    /// The teacher that the first stage took in; none if it has to be taken in (again).
    pub(crate) fn stored_teacher(&self) -> Result<Option<(Teacher, TeacherMetrics)>> {
        let folder = self.run.path("teacher");
        let Some(metrics) = read_or_redo::<TeacherMetrics>(&folder.join("metrics.json"), self.progress)?
        else {
            return Ok(None);
        };
        let sum = |name: &str| metrics.files.get(name).cloned().unwrap_or_default();
        let read = || {
            let (graph, preprocessing) = match teacher::is_file(&self.config.teacher) {
                // As it was taken in, whatever became of the file.
                true => {
                    let graph = read_graph(&folder.join("graph.json"), &sum("graph.json"))?;
                    let preprocessing = teacher::preprocessing(&self.config, &graph)?;
                    (graph, preprocessing)
                }
                false => {
                    let Origin { graph, preprocessing, .. } = teacher::read(&self.config)?;
                    (graph, preprocessing)
                }
            };
            let weights =
                read_weights(&folder.join("weights.safetensors"), &sum("weights.safetensors"), &graph)?;
            Ok(Teacher { graph, weights, preprocessing })
        };
        match read() {
            Ok(teacher) => Ok(Some((teacher, metrics))),
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
        if let Some(open) = open.get(spec) {
            return Ok(Arc::clone(&open.dataset));
        }
        let dataset = open_dataset(spec, teacher.graph.input_shape(), teacher.graph.output_shape())?;
        open.insert(spec.to_string(), Open { dataset: Arc::clone(&dataset), told: HashSet::new() });
        drop(open);
        self.tell_skipped("images")?;
        Ok(dataset)
    }

    /// Warns of images that were left out since this was last called, and lists them in the run's events. Stages call it when they
    /// end: of images that are not held in memory nobody knows before.
    pub(crate) fn tell_skipped(&self, stage: &str) -> Result<()> {
        let mut open = self.datasets.lock().unwrap_or_else(PoisonError::into_inner);
        for (spec, Open { dataset, told }) in open.iter_mut() {
            let mut skipped = dataset.skipped();
            skipped.retain(|image| told.insert(image.item.clone()));
            let Some(first) = skipped.first() else { continue };
            self.progress.warn(&format!(
                "{stage}: {} of {} images of {spec} do not decode and were left out, the first {} ({}); events.jsonl lists them",
                skipped.len(),
                dataset.len(),
                first.item,
                first.reason
            ));
            let listed: Vec<_> = skipped
                .iter()
                .map(|image| serde_json::json!({"item": image.item, "reason": image.reason}))
                .collect();
            self.run.event(stage, serde_json::json!({"data": spec, "left_out": listed}))?;
        }
        Ok(())
    }

    /// A loader with as many decoding threads as the images need ([`decoders`]).
    pub(crate) fn loader(
        &self,
        dataset: &Arc<Dataset>,
        teacher: &Teacher,
        augmentation: Option<Augmentation>,
        config: LoaderConfig,
    ) -> Result<Loader> {
        let transform = transform(teacher.graph.input_shape(), teacher.preprocessing);
        let transform = Transform { augmentation, ..transform };
        let config = LoaderConfig { workers: decoders(dataset, self.workers()), ..config };
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

    /// Of all images of a loader, their class and the one that a network answers.
    pub(crate) fn answers(&self, network: &Network, loader: &Loader) -> Result<Vec<(i64, i64)>> {
        let mut all = Vec::new();
        for batch in loader.epoch(0) {
            let batch = batch?;
            let answers = answered_classes(network, &self.batch(&batch, network.graph())?)?;
            all.extend(batch.labels.iter().copied().zip(answers));
        }
        Ok(all)
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
pub(crate) fn open_dataset(spec: &str, input: &Shape, output: &Shape) -> Result<Arc<Dataset>> {
    let spec: DataSpec = spec.parse()?;
    let size = input.dims().get(1).copied();
    let options = DatasetOptions { size, classes: Some(output.elements()), ..DatasetOptions::default() };
    Ok(Arc::new(Dataset::open(&spec, &options)?))
}

/// Threads that decode at most: each has a batch of its own in the making (77 MB for 128 images of 224 pixels).
const MOST_DECODERS: usize = 16;

/// Threads that make batches of images: one where the pixels are in memory, which has little to do; else one for each
/// core, up to [`MOST_DECODERS`], since decoding a photograph takes as long as a small network does. They sleep as long as batches lie
/// ready, and what is in a batch does not depend on their number.
pub(crate) fn decoders(dataset: &Dataset, cores: usize) -> usize {
    if dataset.is_cached() { 1 } else { cores.min(MOST_DECODERS) }
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
        bgr: preprocessing.bgr,
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
        right: Some(Answers::new(&counted.right)),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::fs;

    use lana_models::{init, zoo::ZooOptions};

    use super::*;

    /// One pixel.
    const PNG: &[u8] = b"\x89PNG\x0d\x0a\x1a\x0a\x00\x00\x00\x0dIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x02\x00\x00\x00\x90wS\xde\x00\x00\x00\x0cIDATx\xdac8\x91b\x04\x00\x03V\x01_\xd6\xeaW\xfe\x00\x00\x00\x00IEND\xaeB`\x82";

    #[derive(Default)]
    struct Warned(Mutex<Vec<String>>);

    impl Progress for Warned {
        fn warn(&self, line: &str) {
            self.0.lock().unwrap().push(line.into());
        }
    }

    #[test]
    fn images_that_do_not_decode_are_told_of_once_and_listed() {
        let folder = tempfile::TempDir::new().unwrap();
        let images = |name: &str| {
            let root = folder.path().join(name);
            fs::create_dir_all(root.join("cat")).unwrap();
            for image in 0..200 {
                fs::write(root.join(format!("cat/{image:03}.png")), PNG).unwrap();
            }
            fs::write(root.join("cat/017.png"), &PNG[..50]).unwrap();
            format!("imagefolder:{}", root.display())
        };
        let (train, val) = (images("train"), images("val"));
        let graph = zoo::build("resnet20_cifar", &ZooOptions::default()).unwrap();
        let preprocessing = zoo::entry("resnet20_cifar").unwrap().preprocessing;
        let teacher = Teacher { weights: init::random(&graph, 1), graph, preprocessing };
        let run = Run::create(&folder.path().join("run")).unwrap();
        let config = Config {
            teacher: "resnet20_cifar".into(),
            train: train.clone(),
            val: val.clone(),
            workers: 3,
            ..Config::default()
        };
        let warned = Warned::default();
        let context = Context::new(run, config, &warned).unwrap();

        // One set is held in memory, and checked when it is opened ...
        let kept = context.dataset(&train, &teacher).unwrap();
        assert_eq!((kept.len(), decoders(&kept, 3)), (199, 1));
        let told = || warned.0.lock().unwrap().len();
        assert_eq!(told(), 1);
        context.tell_skipped("score").unwrap();
        assert_eq!(told(), 1);
        // ... the other is not, and shows in passing.
        let options = DatasetOptions { classes: Some(10), cache_bytes: 0, ..DatasetOptions::default() };
        let set = Arc::new(Dataset::open(&val.parse().unwrap(), &options).unwrap());
        assert_eq!(decoders(&set, 3), 3);
        let open = Open { dataset: Arc::clone(&set), told: HashSet::new() };
        context.datasets.lock().unwrap().insert(val.clone(), open);
        context.tell_skipped("score").unwrap();
        assert_eq!(told(), 1);
        let loader = context.plain_loader(&set, &teacher, 50, None).unwrap();
        assert_eq!(loader.epoch(0).map(|batch| batch.unwrap().n).sum::<usize>(), 199);
        for _ in 0..2 {
            context.tell_skipped("score").unwrap();
        }
        let lines = warned.0.lock().unwrap().clone();
        assert!(
            lines.len() == 2 && lines[1].contains("score: 1 of 200") && lines[1].contains("017.png"),
            "{lines:?}"
        );
        let events = context.run.events();
        let listed: Vec<_> =
            events.iter().map(|e| (e.stage.as_str(), e.fields["left_out"][0]["item"].as_str())).collect();
        assert!(
            matches!(listed[..], [("images", Some(a)), ("score", Some(b))] if a.contains("train") && b.contains("val")),
            "{listed:?}"
        );
    }
}
