//! The configuration of a run: what `run.toml` holds and `--config` takes. Every field has a default but the teacher
//! and the images.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use lana_graph::LayerRules;
use lana_latency::{CALM, Deployment, MeasureOptions, Precision, Processor, RuntimeKind, TableOptions};
use lana_models::zoo::ZooOptions;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::Rules;
use crate::{Budget, Error, Memory, PreprocessingConfig, Recipe, Result, WeightsSource};

/// Everything a run depends on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The teacher: a name that `lana zoo` lists, or an ONNX file.
    pub teacher: String,
    /// Its weights: a safetensors file, or `hf:OWNER/REPO`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightsSource>,
    /// Classes that it tells apart; the zoo's number if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    /// Height and width of its input in pixels; the zoo's resolution if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resolution: Option<usize>,
    /// Which regions of the teacher are layers: changes to what the zoo says or what is found, and how many blocks are one.
    pub layers: LayerRules,
    /// How images become its input, where that is not what the zoo says.
    #[serde(skip_serializing_if = "is_default")]
    pub preprocessing: PreprocessingConfig,
    /// Whether convolutions of an ONNX file that has no normalisation get it (back, where it was folded into them), with statistics
    /// of the training images.
    pub restore_normalisation: bool,
    /// Training images, as `cifar10:PATH`, `imagefolder:PATH`, `webdataset:PATH`, `parquet:PATH` or `generated:NAME`.
    pub train: String,
    /// Validation images, likewise: only for reporting, never for choosing.
    pub val: String,
    /// What students must cost at most. Each gives a student of its own.
    pub budgets: Vec<Budget>,
    /// Operations to try: presets (`compact`, `paper`), names and patterns between commas.
    pub pool: String,
    /// Other operations for some layers, as `LAYERS:OPERATIONS`, such as `layer1.*:compact,-conv-*`. Layers are patterns
    /// of layers or stages; the last rule that fits a layer holds.
    pub pool_rules: Vec<String>,
    /// Where training runs: `cpu` or `cuda`.
    pub device: String,
    /// Seed of everything random.
    pub seed: u64,
    /// Threads of lana's own work (training, decoding); 0 for one a core.
    pub workers: usize,
    /// How latency is measured.
    pub latency: LatencyConfig,
    /// Phase 1.
    pub pretrain: PretrainConfig,
    /// Scoring.
    pub score: ScoreConfig,
    /// Selection.
    pub select: SelectConfig,
    /// Phase 3. The key `recipe` names a preset or a file that the other keys are put over.
    pub finetune: Recipe,
}

/// How latency is measured: the deployment that budgets speak of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LatencyConfig {
    /// The runtime: `onnxruntime`, `tensorrt` or `torch`.
    pub runtime: RuntimeKind,
    /// Where it runs: `cpu` or `cuda`.
    pub processor: Processor,
    /// Number format of weights and feature maps: `fp32`, `fp16` or `bf16`.
    pub precision: Precision,
    /// Images in a batch.
    pub batch: usize,
    /// Threads of the runtime.
    pub threads: usize,
    /// The device that budgets speak of, as its tables in RUN/latency are called; this one if absent. `lana profile RUN
    /// --import` sets it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Longest time for the lookup table, in seconds; 0 for 90 s and 0.75 s more for every network to time.
    pub time_limit_s: f64,
    /// Runs of each network that do not count, in front.
    pub warm_up: usize,
    /// Runs of each network that count, at least, as long as there is time.
    pub repeats: usize,
    /// Relative standard error at which a measurement of whole networks ends; the differences in the lookup table are
    /// measured to 0.3 of it, students and controls to 0.2 of it in each of three processes.
    pub target_error: f64,
    /// Whether measurements stay on the same cores, where the system can.
    pub pin: bool,
    /// Share of the budget that is left unused on purpose, so that a measurement on another day meets it too.
    pub margin: f64,
}

impl LatencyConfig {
    /// The same for another deployment.
    pub fn on(&self, deployment: Deployment) -> LatencyConfig {
        let Deployment { runtime, processor, precision, batch, threads } = deployment;
        LatencyConfig { runtime, processor, precision, batch, threads, ..self.clone() }
    }
}

/// Phase 1: training all operations of all layers on the teacher's feature maps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PretrainConfig {
    /// Images every operation sees; more than the data has means several epochs.
    pub images: usize,
    /// Images in a batch. A feature map is many examples: small batches, with more updates for the same images, come much nearer to the
    /// teacher (docs/results.md).
    pub batch: usize,
    /// The update rule: `adamw`, `sgd` (Nesterov) or `rmsprop`, the last two with momentum 0.9.
    pub optimizer: OptimizerKind,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Weight decay of kernels.
    pub weight_decay: f64,
    /// Number format of convolutions and matrix products: `fp32` or `bf16` (weights stay in 32 bits). On a processor bf16 is
    /// used only where it is measured to be faster.
    pub precision: Precision,
    /// Memory that phase 1 may take, as `8GiB`: it takes several passes over the images where one does not fit. 70 % of what is free
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Whether operations stop early whose error no longer falls, or that are slower and worse than another.
    pub early_stop: bool,
    /// Pixels of zero padding from which a random crop is taken; crops and flips are the augmentation.
    pub crop_padding: usize,
    /// Whether operations slower than their teacher layer are trained too, though no latency budget can want them.
    pub keep_slow: bool,
    /// Seconds between checkpoints.
    pub checkpoint_s: f64,
}

/// An update rule by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW.
    #[default]
    AdamW,
    /// Stochastic gradient descent with Nesterov momentum.
    Sgd,
    /// RMSProp as TensorFlow has it.
    RmsProp,
}

impl OptimizerKind {
    /// ε of RMSProp where none is given: timm's.
    pub(crate) const EPSILON: f64 = 1e-10;
}

/// Scoring: each operation alone in its layer's place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenScoreConfig")]
pub struct ScoreConfig {
    /// Training images used, for scores and for the evaluation of candidates.
    pub images: usize,
    /// Images in a batch (whose statistics batch normalisation uses in the operation).
    pub batch: usize,
    /// What the integer program sums: `kl` (divergence from the teacher) or `loss` (change of the loss).
    pub by: String,
}

/// The same as it may be written. Older files say, too, by which `statistics` batch normalisation around the operation works. The
/// teacher's are those that are left: where that is what a file says it is still read, so that old runs stay runs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct WrittenScoreConfig {
    images: usize,
    batch: usize,
    by: String,
    statistics: String,
}

impl Default for WrittenScoreConfig {
    fn default() -> Self {
        let ScoreConfig { images, batch, by } = ScoreConfig::default();
        WrittenScoreConfig { images, batch, by, statistics: "teacher".into() }
    }
}

impl TryFrom<WrittenScoreConfig> for ScoreConfig {
    type Error = String;

    fn try_from(written: WrittenScoreConfig) -> Result<Self, String> {
        let WrittenScoreConfig { images, batch, by, statistics } = written;
        match statistics.as_str() {
            "teacher" => Ok(ScoreConfig { images, batch, by }),
            other => Err(format!(
                "`score.statistics` = \"{other}\" is no more: around a scored operation batch normalisation uses the teacher's \
                 statistics. Take the key out, and remove scores.json and budgets/ of a run that has been scored with it"
            )),
        }
    }
}

/// Selection: the integer program and the real evaluation of its solutions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SelectConfig {
    /// Number K of diverse solutions to evaluate.
    pub solutions: usize,
    /// Largest share of layers in which two solutions may agree.
    pub max_overlap: f64,
    /// Seconds for the integer program.
    pub time_limit_s: f64,
    /// Score that a solution may be worse than the best of its step, in standard errors of a score (the median over all
    /// operations): what is below that is no accuracy. 0 for the exact optimum of each step.
    pub gap: f64,
    /// Rounds of measuring, correcting the table and solving again.
    pub rounds: usize,
    /// Shares of its layer's multiply-accumulates that an operation must have to be selected, the identity aside. A selection is
    /// searched for with each: what is thin imitates well and learns badly. 0 leaves out nothing, 1 everything that is cheaper than
    /// the teacher's own layers but identities and blocks of a layer of several (`depth`, `wide`), which are above every floor.
    pub floors: Vec<f64>,
    /// Selections of each floor, at most, that are fine-tuned on few images before the best of them is taken.
    pub finalists: usize,
    /// Images that each is fine-tuned on; 0 to take the one with the least loss before fine-tuning.
    pub finalist_images: usize,
    /// Operations that must not be selected, as `LAYERS:OPERATIONS`, such as `stage3.*:identity`.
    pub exclude: Vec<String>,
    /// Layers for which one of some operations must be selected, likewise.
    pub force: Vec<String>,
    /// Limits on how many layers take one of some operations, as `LAYERS:OPERATIONS<=N` (or `>=N`, `=N`).
    pub caps: Vec<String>,
}

impl SelectConfig {
    /// The lowest floor: what is below it can never be selected.
    pub(crate) fn least_floor(&self) -> f64 {
        self.floors.iter().copied().reduce(f64::min).unwrap_or(0.0)
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            teacher: String::new(),
            weights: None,
            num_classes: None,
            resolution: None,
            layers: LayerRules::default(),
            preprocessing: PreprocessingConfig::default(),
            restore_normalisation: true,
            train: String::new(),
            val: String::new(),
            budgets: Vec::new(),
            pool: "compact".into(),
            pool_rules: Vec::new(),
            device: "cpu".into(),
            seed: 0,
            workers: 0,
            latency: LatencyConfig::default(),
            pretrain: PretrainConfig::default(),
            score: ScoreConfig::default(),
            select: SelectConfig::default(),
            finetune: Recipe::default(),
        }
    }
}

impl Default for LatencyConfig {
    fn default() -> Self {
        LatencyConfig {
            runtime: RuntimeKind::default(),
            processor: Processor::default(),
            precision: Precision::default(),
            batch: 1,
            threads: 1,
            table: None,
            time_limit_s: 0.0,
            warm_up: 3,
            repeats: 12,
            target_error: 0.01,
            pin: true,
            margin: 0.015,
        }
    }
}

impl Default for PretrainConfig {
    fn default() -> Self {
        PretrainConfig {
            images: 10_240,
            batch: 16,
            optimizer: OptimizerKind::AdamW,
            learning_rate: 3e-3,
            weight_decay: 1e-4,
            precision: Precision::Fp32,
            memory: None,
            early_stop: true,
            crop_padding: 4,
            keep_slow: false,
            checkpoint_s: 120.0,
        }
    }
}

impl Default for ScoreConfig {
    fn default() -> Self {
        ScoreConfig { images: 1024, batch: 256, by: "kl".into() }
    }
}

impl Default for SelectConfig {
    fn default() -> Self {
        SelectConfig {
            solutions: 30,
            max_overlap: 0.7,
            time_limit_s: 20.0,
            gap: 0.5,
            rounds: 4,
            floors: vec![0.0, 0.4, 1.0],
            finalists: 3,
            finalist_images: 12_800,
            exclude: Vec::new(),
            force: Vec::new(),
            caps: Vec::new(),
        }
    }
}

impl LatencyConfig {
    /// How networks will be run.
    pub fn deployment(&self) -> Deployment {
        let LatencyConfig { runtime, processor, precision, batch, threads, .. } = *self;
        Deployment { runtime, processor, precision, batch, threads }
    }

    /// How whole networks are measured, in so many seconds at most.
    pub(crate) fn measure_options(&self, seconds: f64, seed: u64) -> MeasureOptions {
        MeasureOptions {
            deployment: self.deployment(),
            warm_up: self.warm_up,
            min_repeats: self.repeats,
            time_limit: Duration::from_secs_f64(seconds),
            target: self.target_error,
            pin: self.pin,
            seed,
            calm: CALM,
            ..MeasureOptions::default()
        }
    }

    /// How the lookup table is measured.
    pub(crate) fn table_options(&self) -> TableOptions {
        TableOptions {
            deployment: self.deployment(),
            time_limit_s: (self.time_limit_s > 0.0).then_some(self.time_limit_s),
            warm_up: self.warm_up,
            min_repeats: self.repeats,
            target: 0.3 * self.target_error,
            pin: self.pin,
            ..TableOptions::default()
        }
    }
}

impl Config {
    /// Reads a TOML file.
    pub fn load(path: &Path) -> Result<Self> {
        Self::load_with(path, None)
    }

    /// As [`Config::load`], with another recipe than the file names under the keys of its `[finetune]`.
    pub fn load_with(path: &Path, recipe: Option<&str>) -> Result<Self> {
        let before = recipe.map(|recipe| ("finetune", "recipe", toml::Value::from(recipe), true));
        Self::read(path, before)
    }

    /// As [`Config::load`], from the file in a run directory.
    pub(crate) fn load_of_run(path: &Path) -> Result<Self> {
        // Runs that do not say so were made of single blocks.
        Self::read(path, Some(("layers", "group", toml::Value::from(1), false)))
    }

    /// Reads a file, with a key of a section put in: in any case, or where the file has none.
    fn read(path: &Path, put_in: Option<(&str, &str, toml::Value, bool)>) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::io(path))?;
        let read = || -> std::result::Result<Self, toml::de::Error> {
            // As text, so that an error names the line.
            let Some((section, key, value, always)) = put_in else { return toml::from_str(&text) };
            let mut all: toml::Table = toml::from_str(&text)?;
            let section = all.entry(section).or_insert_with(|| toml::Table::new().into());
            match section.as_table_mut() {
                Some(section) if always || !section.contains_key(key) => {
                    drop(section.insert(key.into(), value))
                }
                Some(_) => return toml::from_str(&text),
                None => {}
            }
            all.try_into()
        };
        read().map_err(|e| {
            Error::input(
                format!("{}: {}", path.display(), e.to_string().trim().replace('\n', " ")),
                "`run.toml` in any run directory shows every field",
            )
        })
    }

    /// What the teacher differs in from the zoo's own.
    pub fn zoo_options(&self) -> ZooOptions {
        ZooOptions { num_classes: self.num_classes, resolution: self.resolution, ..ZooOptions::default() }
    }

    /// The configuration as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Checks every field; errors name it.
    pub fn validate(&self) -> Result<()> {
        let wrong = |field: &str, value: String, hint: &str| {
            Err(Error::input(format!("`{field}` is {value}"), format!("{hint}; it is `{field}` in --config")))
        };
        for (field, text) in [("teacher", &self.teacher), ("train", &self.train), ("val", &self.val)] {
            if text.is_empty() {
                return Err(Error::input(
                    format!("`{field}` is not given"),
                    format!("give --{field}, or `{field}` in --config"),
                ));
            }
        }
        self.preprocessing.validate()?;
        let whole = [
            ("batch", self.latency.batch),
            ("threads", self.latency.threads),
            ("latency.repeats", self.latency.repeats),
            ("pretrain.images", self.pretrain.images),
            ("pretrain.batch", self.pretrain.batch),
            ("score.images", self.score.images),
            ("score.batch", self.score.batch),
            ("select.solutions", self.select.solutions),
            ("select.rounds", self.select.rounds),
        ];
        for (field, value) in whole {
            if value == 0 {
                return wrong(field, "0".into(), "it must be at least 1");
            }
        }
        for (field, value, most) in [
            ("threads", self.latency.threads, 1024),
            ("workers", self.workers, 1024),
            ("batch", self.latency.batch, 1 << 20),
            ("pretrain.batch", self.pretrain.batch, 1 << 20),
            ("score.batch", self.score.batch, 1 << 20),
            ("pretrain.crop_padding", self.pretrain.crop_padding, 1024),
        ] {
            if value > most {
                return wrong(field, value.to_string(), &format!("it must be at most {most}"));
            }
        }
        let positive = [
            ("pretrain.learning_rate", self.pretrain.learning_rate),
            ("pretrain.checkpoint_s", self.pretrain.checkpoint_s),
            ("select.time_limit_s", self.select.time_limit_s),
        ];
        for (field, value) in positive {
            if !(value.is_finite() && value > 0.0 && value < 1e9) {
                return wrong(
                    field,
                    value.to_string(),
                    "it must be a positive number below a thousand million",
                );
            }
        }
        let at_least_zero = [
            ("latency.time_limit_s", self.latency.time_limit_s),
            ("pretrain.weight_decay", self.pretrain.weight_decay),
        ];
        for (field, value) in at_least_zero {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(field, value.to_string(), "it must be zero or a positive number");
            }
        }
        if self.pretrain.precision == Precision::Fp16 {
            return wrong(
                "pretrain.precision",
                "fp16".into(),
                "its range is too small for training; use bf16 or fp32",
            );
        }
        if !(0.0..=1.0).contains(&self.select.max_overlap) {
            return wrong(
                "select.max_overlap",
                self.select.max_overlap.to_string(),
                "it must lie between 0 and 1",
            );
        }
        if !(0.0..=1e6).contains(&self.select.gap) {
            return wrong(
                "select.gap",
                self.select.gap.to_string(),
                "it counts standard errors and must be 0 or more",
            );
        }
        let floors = &self.select.floors;
        if floors.is_empty() || !floors.iter().all(|floor| (0.0..=1.0).contains(floor)) {
            return wrong(
                "select.floors",
                format!("{floors:?}"),
                "they are shares of a layer's multiply-accumulates, one at least, each between 0 and 1; [0.0] leaves out nothing",
            );
        }
        if self.select.finalists == 0 {
            return wrong(
                "select.finalists",
                "0".into(),
                "it must be at least 1: the best selection of each floor",
            );
        }
        if !(1e-6..=0.5).contains(&self.latency.target_error) {
            return wrong(
                "latency.target_error",
                self.latency.target_error.to_string(),
                "it is a share of the latency and must lie between 0.000001 and 0.5",
            );
        }
        if let Err(impossible) = self.latency.deployment().check() {
            return Err(Error::input(
                impossible.to_string(),
                "these are --runtime, --processor and --precision, or `[latency]` in --config",
            ));
        }
        if !(0.0..0.5).contains(&self.latency.margin) {
            return wrong("latency.margin", self.latency.margin.to_string(), "it must lie between 0 and 0.5");
        }
        self.finetune.validate("finetune.")?;
        Rules::parse(&self.select)?;
        for budget in &self.budgets {
            budget.deployments(&self.latency.deployment())?;
        }
        let one_of = [
            ("device", &self.device, &["cpu", "cuda"][..]),
            ("score.by", &self.score.by, &["kl", "loss"][..]),
        ];
        for (field, value, known) in one_of {
            if !known.contains(&value.as_str()) {
                return wrong(
                    field,
                    format!("`{value}`"),
                    &format!("it must be one of: {}", known.join(", ")),
                );
            }
        }
        Ok(())
    }

    /// The first field in which two configurations differ that decide what is already in a run (teacher, images,
    /// training of operations, scoring, latency); budgets, selection and fine-tuning may change between calls.
    pub fn conflict(&self, stored: &Config) -> Option<String> {
        let fixed = |c: &Config| Config {
            budgets: Vec::new(),
            workers: 0,
            weights: None,
            device: String::new(),
            select: SelectConfig::default(),
            finetune: Recipe::default(),
            pretrain: PretrainConfig { checkpoint_s: 1.0, memory: None, ..c.pretrain.clone() },
            // Both kinds of scores are taken.
            score: ScoreConfig { by: String::new(), ..c.score.clone() },
            // What networks are run on counts, not how long they are measured.
            latency: LatencyConfig {
                runtime: c.latency.runtime,
                processor: c.latency.processor,
                precision: c.latency.precision,
                batch: c.latency.batch,
                threads: c.latency.threads,
                ..LatencyConfig::default()
            },
            ..c.clone()
        };
        let (mine, theirs) = (flatten(&fixed(self)), flatten(&fixed(stored)));
        // Some fields are not written where nothing is said of them.
        let mut keys = mine.keys().chain(theirs.keys());
        let value = |all: &BTreeMap<String, Value>, key: &str| {
            all.get(key).map_or("not set".to_string(), ToString::to_string)
        };
        keys.find(|key| mine.get(*key) != theirs.get(*key)).map(|key| {
            format!("`{key}` is {}, the run was made with {}", value(&mine, key), value(&theirs, key))
        })
    }
}

/// For what need not be written.
fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A configuration as dotted names and values.
fn flatten(config: &Config) -> BTreeMap<String, Value> {
    let mut flat = BTreeMap::new();
    if let Ok(Value::Object(top)) = serde_json::to_value(config) {
        for (key, value) in top {
            match value {
                Value::Object(section) => {
                    flat.extend(section.into_iter().map(|(k, v)| (format!("{key}.{k}"), v)));
                }
                other => {
                    flat.insert(key, other);
                }
            }
        }
    }
    flat
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_conflicts_as_what_is_said() {
        let plain = Config { teacher: "resnet20_cifar".into(), ..Config::default() };
        let rules = LayerRules { exclude: vec!["layer1.*".into()], ..LayerRules::default() };
        let fewer = Config { layers: rules, ..plain.clone() };
        for (now, before) in [(&plain, &fewer), (&fewer, &plain)] {
            let said = now.conflict(before).unwrap();
            assert!(said.contains("`layers.exclude`") && said.contains("not set"), "{said}");
        }
        assert_eq!(fewer.conflict(&fewer), None);
        let short = Config { select: SelectConfig { rounds: 1, ..SelectConfig::default() }, ..plain.clone() };
        assert_eq!(short.conflict(&plain), None);
    }

    #[test]
    fn runs_that_do_not_say_so_are_of_single_blocks() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("run.toml");
        for (text, group) in [
            ("", 1),
            ("[layers]\nexclude = [\"a\"]", 1),
            ("[layers]\ngroup = 2", 2),
            ("[layers]\ngroup = 0", 0),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(Config::load_of_run(&path).unwrap().layers.group, group, "{text}");
        }
        assert_eq!(Config::default().layers.group, 3);
        let whole = Config::default();
        std::fs::write(&path, whole.to_toml()).unwrap();
        assert_eq!(Config::load_of_run(&path).unwrap(), whole);
        std::fs::write(&path, "[layers]\ngroup = -1").unwrap();
        assert!(Config::load_of_run(&path).unwrap_err().to_string().contains("line 2"));
    }

    #[test]
    fn what_older_runs_say_of_scores_is_read_or_refused_with_a_reason() {
        let read = |text: &str| toml::from_str::<Config>(text);
        let old = read("[score]\nimages = 64\nstatistics = \"teacher\"").unwrap();
        assert_eq!(old.score, ScoreConfig { images: 64, ..ScoreConfig::default() });
        assert!(!old.to_toml().contains("statistics"));
        assert_eq!(read(&old.to_toml()).unwrap(), old);
        let error = read("[score]\nstatistics = \"batch\"").unwrap_err().to_string();
        assert!(error.contains("score.statistics") && error.contains("scores.json"), "{error}");
        let error = read("[score]\nmethod = 1").unwrap_err().to_string();
        assert!(error.contains("unknown field `method`"), "{error}");
    }
}
