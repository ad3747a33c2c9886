//! How a student is trained: a preset, a TOML file, or the section `[finetune]` of a run's configuration.
//!
//! A recipe is all that decides a training beside the network, the images and the seed. `lana recipe NAME` prints a preset
//! with its comments; edited, it is given as `--recipe FILE`. In `[finetune]`, `recipe = "cifar"` (or a file) is what the
//! other keys of the section are put over; keys of `[finetune.augment]` are put over one by one, too.
//!
//! What happens to the images is timm's, in timm's words ([`Augmentation`]). Recipes written before there was a section for it said
//! `crop_padding = N`, and smoothed labels by `label_smoothing`: they are still read, so that old runs stay runs.

mod schedule;

use std::path::Path;

use lana_data::Augmentation;
use lana_graph::{Graph, Layer, Op, Precision, Value, fits};
use lana_models::zoo::with_drops;
use lana_torch::{Algorithm, Average, Matching, Mixture};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Error, Memory, OptimizerKind, Result};
pub use schedule::{Course, ScheduleKind, Shape};

/// The presets by their names.
const PRESETS: [(&str, &str); 3] = [
    ("finetune-short", include_str!("finetune-short.toml")),
    ("cifar", include_str!("cifar.toml")),
    ("imagenet", include_str!("imagenet.toml")),
];

/// How a network is trained on images, with a teacher or without.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default, remote = "Self")]
pub struct Recipe {
    /// Passes over the training images.
    pub epochs: usize,
    /// Images at a time.
    pub batch: BatchSize,
    /// Memory that an automatic batch may take, as `8GiB`; 70 % of what is free if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// Batches whose gradients are averaged for one update.
    pub accumulate: usize,
    /// The update rule: `sgd` (Nesterov momentum), `adamw` or `rmsprop`.
    pub optimizer: OptimizerKind,
    /// Highest learning rate.
    pub learning_rate: f64,
    /// Images an update that the learning rate is meant for: it is scaled by the number there really are (timm's linear
    /// `lr_base_size`). Taken as it is if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub learning_rate_batch: Option<usize>,
    /// Momentum of `sgd` and `rmsprop`.
    pub momentum: f64,
    /// ε of `rmsprop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epsilon: Option<f64>,
    /// Penalty on kernels and matrices; norms and biases have none.
    pub weight_decay: f64,
    /// Largest norm of all gradients together; 0 for none.
    pub clip: f64,
    /// How the learning rate falls: `cosine` or `step`.
    pub schedule: ScheduleKind,
    /// Epochs over which it rises first.
    pub warmup_epochs: f64,
    /// Where it begins to rise.
    pub warmup_lr: f64,
    /// Whether the schedule begins behind the warm-up, not with it.
    pub warmup_prefix: bool,
    /// Where `cosine` ends.
    pub min_lr: f64,
    /// Epochs between the steps of `step`.
    pub decay_epochs: f64,
    /// Factor of each step.
    pub decay_rate: f64,
    /// Share that an average of the weights (and of running statistics) keeps in each update; 0 for no average. Of the
    /// weights and their average the student is what does better on the validation images at the end.
    pub ema: f64,
    /// Whether the average follows faster in the beginning ([`lana_torch::Average`]).
    pub ema_warmup: bool,
    /// Share of the features in front of the classifier that training drops.
    pub dropout: f64,
    /// How often training drops the residual branch of the last layer, of earlier ones in proportion (Huang et al. 2016).
    pub drop_path: f64,
    /// Patterns (`*`, `?`) of parameters, or of what they belong to, that stay as they are. BatchNorms among them use their
    /// running statistics.
    pub freeze: Vec<String>,
    /// Number format of convolutions and matrix products: `fp32` or `bf16` (weights stay in 32 bits). On a processor bf16 is used only
    /// where it is measured to be faster.
    pub precision: Precision,
    /// Weight of the cross-entropy with the labels.
    pub labels: Course,
    /// Weight of the distillation `T² · KL(teacher ‖ student)`.
    pub distillation: Course,
    /// Its temperature T.
    pub temperature: f64,
    /// Weight of the mean difference of feature maps from the teacher's.
    pub features: Course,
    /// How these are compared: `cosine` or `mse` (normalised).
    pub matching: MatchingKind,
    /// Patterns of the layers behind which they are compared; the last layer of each stage if empty.
    pub feature_layers: Vec<String>,
    /// Seconds between checkpoints.
    pub checkpoint_s: f64,
    /// What happens to the images and, in mixing and smoothing, to their labels. The teacher sees the same images.
    ///
    /// In its place `crop_padding = N` is read too, a crop and mirror images as [`Augmentation::crop_flip`] has them, and
    /// `label_smoothing = S`, its `smoothing`.
    pub augment: Augmentation,
}

/// Feature maps of both networks, each with the other's at the same place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Matched {
    pub(crate) student: Vec<Value>,
    pub(crate) teacher: Vec<Value>,
}

/// How feature maps are compared, by its name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MatchingKind {
    /// By the cosine between channels.
    Cosine,
    /// By the normalised mean squared error.
    #[default]
    Mse,
}

/// Images in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchSize {
    /// As many (a power of two) as memory allows.
    Auto,
    /// So many.
    Images(usize),
}

impl From<usize> for BatchSize {
    fn from(images: usize) -> Self {
        BatchSize::Images(images)
    }
}

impl Serialize for BatchSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            BatchSize::Auto => serializer.serialize_str("auto"),
            BatchSize::Images(images) => serializer.serialize_u64(*images as u64),
        }
    }
}

impl<'de> Deserialize<'de> for BatchSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(usize),
            Word(String),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Number(images)) => Ok(BatchSize::Images(images)),
            Ok(Written::Word(word)) if word == "auto" => Ok(BatchSize::Auto),
            _ => Err(serde::de::Error::custom("`batch` must be a number of images, or \"auto\"")),
        }
    }
}

impl Default for Recipe {
    /// The preset `finetune-short`.
    fn default() -> Self {
        Recipe {
            epochs: 2,
            batch: BatchSize::Images(128),
            memory: None,
            accumulate: 1,
            optimizer: OptimizerKind::Sgd,
            learning_rate: 0.02,
            learning_rate_batch: None,
            momentum: 0.9,
            epsilon: None,
            weight_decay: 1e-4,
            clip: 5.0,
            schedule: ScheduleKind::Cosine,
            warmup_epochs: 0.25,
            warmup_lr: 2e-4,
            warmup_prefix: true,
            min_lr: 0.0,
            decay_epochs: 2.4,
            decay_rate: 0.97,
            ema: 0.0,
            ema_warmup: true,
            dropout: 0.0,
            drop_path: 0.0,
            freeze: Vec::new(),
            precision: Precision::Fp32,
            labels: 1.0.into(),
            distillation: 1.0.into(),
            temperature: 4.0,
            features: Course::Changing { from: 256.0, to: 0.0, shape: Shape::Linear },
            matching: MatchingKind::Mse,
            feature_layers: Vec::new(),
            checkpoint_s: 120.0,
            augment: Augmentation::default(),
        }
    }
}

impl Serialize for Recipe {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Recipe::serialize(self, serializer)
    }
}

impl<'de> Deserialize<'de> for Recipe {
    /// Keys that are given over the preset or file named by `recipe`, or over the default.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error as _;
        let mut keys = serde_json::Map::deserialize(deserializer)?;
        let base = match keys.remove("recipe") {
            None => Recipe::default(),
            Some(serde_json::Value::String(name)) => Recipe::named(&name).map_err(D::Error::custom)?,
            Some(other) => {
                return Err(D::Error::custom(format!("`recipe` is {other}, not a name or a file")));
            }
        };
        let mut all = match serde_json::to_value(&base).map_err(D::Error::custom)? {
            serde_json::Value::Object(all) => all,
            other => return Err(D::Error::custom(format!("a recipe became {other}"))),
        };
        let augment = augment_of(&base.augment, &mut keys).map_err(D::Error::custom)?;
        check_keys("augment.", &augment, |keys| Augmentation::deserialize(keys).map(drop))
            .map_err(D::Error::custom)?;
        all.extend(keys);
        all.insert("augment".into(), augment);
        let all = serde_json::Value::Object(all);
        check_keys("", &all, |keys| Recipe::deserialize(keys).map(drop)).map_err(D::Error::custom)?;
        Recipe::deserialize(all).map_err(D::Error::custom)
    }
}

/// Reads every key by itself, so that the error names the one that is wrong.
fn check_keys(
    section: &str,
    keys: &serde_json::Value,
    read: impl Fn(serde_json::Value) -> serde_json::Result<()>,
) -> std::result::Result<(), String> {
    for (key, value) in keys.as_object().into_iter().flatten() {
        let alone = serde_json::Map::from_iter([(key.clone(), value.clone())]);
        if let Err(error) = read(alone.into()) {
            let error = error.to_string();
            return Err(match error.contains(&format!("`{key}`")) {
                true => error,
                false => format!("`{section}{key}`: {error}"),
            });
        }
    }
    Ok(())
}

/// The augmentation that keys of a recipe make of another, and takes them away: those of `augment`, or the two that stood for it.
fn augment_of(
    base: &Augmentation,
    keys: &mut serde_json::Map<String, serde_json::Value>,
) -> std::result::Result<serde_json::Value, String> {
    let given = keys.remove("augment");
    let older = ["crop_padding", "label_smoothing"].map(|key| keys.remove(key));
    if given.is_some() && older.iter().any(Option::is_some) {
        return Err("`crop_padding` and `label_smoothing` are older words for keys of `augment` (crop_padding, smoothing): \
                    give them there"
            .into());
    }
    let [padding, smoothing] = older;
    let mut base = base.clone();
    if let Some(padding) = padding {
        let padding = usize::deserialize(padding).map_err(|e| format!("`crop_padding`: {e}"))?;
        base = Augmentation { smoothing: base.smoothing, ..Augmentation::crop_flip(padding) };
    }
    if let Some(smoothing) = smoothing {
        base.smoothing = f64::deserialize(smoothing).map_err(|e| format!("`label_smoothing`: {e}"))?;
    }
    match (serde_json::to_value(&base).map_err(|e| e.to_string())?, given) {
        (serde_json::Value::Object(mut all), Some(serde_json::Value::Object(given))) => {
            all.extend(given);
            Ok(all.into())
        }
        (_, Some(other)) => Err(format!("`augment` is {other}, not a table of keys")),
        (base, None) => Ok(base),
    }
}

impl Recipe {
    /// Names of the presets.
    pub fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.iter().map(|(name, _)| *name)
    }

    /// A preset as it is written, with comments; what is not in it is as in `finetune-short`.
    pub fn preset(name: &str) -> Option<&'static str> {
        PRESETS.iter().find(|(preset, _)| *preset == name).map(|(_, text)| *text)
    }

    /// The preset of that name, or the recipe in that file.
    pub fn named(name: &str) -> Result<Self> {
        thread_local! {
            /// Recipes that are being read: a file may name another as what it is put over.
            static OPEN: std::cell::RefCell<Vec<String>> = const { std::cell::RefCell::new(Vec::new()) };
        }
        let circle = OPEN.with_borrow(|open| open.iter().any(|other| other == name));
        if circle {
            return Err(Error::input(
                format!("recipe `{name}` is put over itself"),
                "name another recipe or preset in its key `recipe`",
            ));
        }
        OPEN.with_borrow_mut(|open| open.push(name.into()));
        let read = Self::read(name);
        OPEN.with_borrow_mut(Vec::pop);
        read
    }

    fn read(name: &str) -> Result<Self> {
        let (text, shown) = match Self::preset(name) {
            Some(text) => (text.to_string(), format!("recipe `{name}`")),
            None => {
                let path = Path::new(name);
                if !path.exists() {
                    let known: Vec<&str> = Self::presets().collect();
                    return Err(Error::input(
                        format!("recipe `{name}`: neither a preset nor a file"),
                        format!("presets are {}; `lana recipe NAME` prints one to edit", known.join(", ")),
                    ));
                }
                (std::fs::read_to_string(path).map_err(Error::io(path))?, path.display().to_string())
            }
        };
        let recipe: Recipe = toml::from_str(&text).map_err(|e| {
            Error::input(
                format!("{shown}: {}", e.to_string().trim().replace('\n', " ")),
                "`lana recipe finetune-short` shows the keys",
            )
        })?;
        recipe.validate("").map_err(|error| match error {
            Error::Input { message, hint } => Error::input(format!("{shown}: {message}"), hint),
            other => other,
        })?;
        Ok(recipe)
    }

    /// The recipe as TOML.
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_default()
    }

    /// Whether two recipes train alike: they may differ in when checkpoints are written.
    pub(crate) fn trains_like(&self, other: &Recipe) -> bool {
        Recipe { checkpoint_s: other.checkpoint_s, memory: other.memory, ..self.clone() } == *other
    }

    /// Checks every key; errors name it, with `section` in front.
    pub(crate) fn validate(&self, section: &str) -> Result<()> {
        let wrong = |key: &str, value: String, hint: &str| {
            Err(Error::input(format!("`{section}{key}` is {value}"), hint.to_string()))
        };
        let batch = match self.batch {
            BatchSize::Images(images) => images,
            BatchSize::Auto => 1,
        };
        for (key, value, most) in [
            ("epochs", self.epochs, 1 << 20),
            ("batch", batch, 1 << 20),
            ("accumulate", self.accumulate, 1 << 16),
            ("learning_rate_batch", self.learning_rate_batch.unwrap_or(1), 1 << 24),
        ] {
            if !(1..=most).contains(&value) {
                return wrong(key, value.to_string(), &format!("it must be at least 1 and at most {most}"));
            }
        }
        self.augment.validate().map_err(|error| match error {
            lana_data::Error::Setting { setting, reason } => {
                let (value, hint) = reason.split_once("; ").unwrap_or((&reason, "see `lana recipe`"));
                Error::input(format!("`{section}augment.{setting}` is {value}"), hint.to_string())
            }
            other => other.into(),
        })?;
        let positive = [
            ("learning_rate", self.learning_rate),
            ("temperature", self.temperature),
            ("checkpoint_s", self.checkpoint_s),
            ("decay_epochs", self.decay_epochs),
            ("epsilon", self.epsilon.unwrap_or(1.0)),
        ];
        for (key, value) in positive {
            if !(value.is_finite() && value > 0.0 && value < 1e9) {
                return wrong(
                    key,
                    value.to_string(),
                    "it must be a positive number below a thousand million",
                );
            }
        }
        let at_least_zero = [
            ("weight_decay", self.weight_decay),
            ("clip", self.clip),
            ("warmup_epochs", self.warmup_epochs),
            ("warmup_lr", self.warmup_lr),
            ("min_lr", self.min_lr),
        ];
        let weights =
            [("labels", self.labels), ("distillation", self.distillation), ("features", self.features)];
        let ends = weights.into_iter().flat_map(|(key, course)| course.ends().map(|value| (key, value)));
        for (key, value) in at_least_zero.into_iter().chain(ends) {
            if !(value.is_finite() && value >= 0.0) {
                return wrong(key, value.to_string(), "it must be zero or a positive number");
            }
        }
        if [self.labels, self.distillation, self.features].iter().all(|course| course.ends() == [0.0; 2]) {
            return Err(Error::input(
                format!("`{section}labels`, `{section}distillation` and `{section}features` are all 0"),
                "give one of them a weight: without one nothing is learned",
            ));
        }
        let shares = [
            ("momentum", self.momentum),
            ("ema", self.ema),
            ("dropout", self.dropout),
            ("drop_path", self.drop_path),
        ];
        for (key, value) in shares {
            if !(0.0..1.0).contains(&value) {
                return wrong(key, value.to_string(), "it is a share: at least 0 and less than 1");
            }
        }
        if !(self.decay_rate > 0.0 && self.decay_rate <= 1.0) {
            return wrong("decay_rate", self.decay_rate.to_string(), "it must be positive and at most 1");
        }
        if self.precision == Precision::Fp16 {
            return wrong(
                "precision",
                "fp16".into(),
                "its range is too small for training; use bf16 or fp32",
            );
        }
        Ok(())
    }

    /// The update rule.
    pub(crate) fn algorithm(&self) -> Algorithm {
        let Recipe { momentum, weight_decay, .. } = *self;
        match self.optimizer {
            OptimizerKind::Sgd => Algorithm::Sgd { momentum, weight_decay },
            OptimizerKind::AdamW => Algorithm::AdamW { weight_decay },
            OptimizerKind::RmsProp => Algorithm::RmsProp {
                momentum,
                weight_decay,
                smoothing: 0.9,
                epsilon: self.epsilon.unwrap_or(OptimizerKind::EPSILON),
            },
        }
    }

    /// The average to keep, if any.
    pub(crate) fn average(&self) -> Option<Average> {
        (self.ema > 0.0).then_some(Average { decay: self.ema, warm_up: self.ema_warmup })
    }

    /// The learning rate after `epochs` of training, in batches of `batch` images.
    pub(crate) fn rate(&self, epochs: f64, batch: usize) -> f64 {
        let scale = self.learning_rate_batch.map_or(1.0, |b| (batch * self.accumulate) as f64 / b as f64);
        scale * self.rate_as_given(epochs)
    }

    /// What is minimised when a share of `done` (0 to 1) of the training is over.
    pub(crate) fn mixture(&self, done: f64) -> Mixture {
        Mixture {
            labels: self.labels.at(done),
            smoothing: self.augment.smoothing,
            distillation: self.distillation.at(done),
            temperature: self.temperature,
            features: self.features.at(done),
            matching: match self.matching {
                MatchingKind::Cosine => Matching::Cosine,
                MatchingKind::Mse => Matching::NormalisedMse,
            },
        }
    }

    /// Names of the parameters of a network that stay as they are.
    pub(crate) fn frozen(&self, graph: &Graph) -> Result<Vec<String>> {
        let parameters = graph.parameters();
        for pattern in &self.freeze {
            if !parameters.iter().any(|p| belongs(pattern, &p.name)) {
                return Err(Error::input(
                    format!("`freeze`: no parameter of {} fits `{pattern}`", graph.name()),
                    "patterns are of names such as layer1.0.conv1.weight, or of their beginnings up to a dot; graph.json \
                     has them",
                ));
            }
        }
        let frozen = |name: &str| self.freeze.iter().any(|pattern| belongs(pattern, name));
        Ok(parameters.into_iter().map(|p| p.name).filter(|name| frozen(name)).collect())
    }

    /// The feature maps that are compared, if any are: those behind layers of the same name.
    pub(crate) fn matched(&self, student: &Graph, teacher: &Graph) -> Result<Matched> {
        let mut matched = Matched::default();
        if self.features.ends().iter().all(|&weight| weight == 0.0) {
            return Ok(matched);
        }
        let layers = teacher.layers();
        let last_of_stage = |at: usize| layers.get(at + 1).is_none_or(|next| next.stage != layers[at].stage);
        let wanted: Vec<&Layer> = match self.feature_layers.as_slice() {
            [] => (0..layers.len()).filter(|&at| last_of_stage(at)).map(|at| &layers[at]).collect(),
            patterns => {
                layers.iter().filter(|l| patterns.iter().any(|pattern| fits(pattern, &l.name))).collect()
            }
        };
        if wanted.is_empty() {
            return Err(Error::input(
                format!("`feature_layers`: no layer of {} fits", teacher.name()),
                format!("its layers are {} …", layers.first().map_or("none", |l| &l.name)),
            ));
        }
        for layer in wanted {
            let mine = student.layers().iter().find(|other| other.name == layer.name);
            let alike = |mine: &&Layer| student.shape(mine.output) == teacher.shape(layer.output);
            let mine = mine.filter(alike).ok_or_else(|| {
                Error::input(
                    format!(
                        "{} gives no feature map like the teacher's behind {}",
                        student.name(),
                        layer.name
                    ),
                    "set `features = 0`, or name layers that both have by `feature_layers`",
                )
            })?;
            matched.student.push(mine.output);
            matched.teacher.push(layer.output);
        }
        Ok(matched)
    }

    /// The network with what the recipe drops in training, instead of what the network itself said.
    pub(crate) fn with_drops(&self, graph: &Graph) -> Result<Graph> {
        let nodes = graph.nodes().iter().cloned().map(|mut node| {
            if let Op::DropPath { rate } | Op::Dropout { rate } = &mut node.op {
                *rate = 0.0;
                // The recipe's own gets the name.
                node.name.push_str(".idle");
            }
            node
        });
        let (input, layers) = (graph.input_shape().clone(), graph.layers().to_vec());
        let plain = Graph::new(graph.name(), input, nodes.collect(), graph.output(), layers)?;
        Ok(with_drops(&plain, self.dropout, self.drop_path)?)
    }
}

/// Whether a pattern fits a name or what stands in front of one of its dots.
fn belongs(pattern: &str, name: &str) -> bool {
    let dots = name.match_indices('.').map(|(at, _)| at);
    dots.chain([name.len()]).any(|end| fits(pattern, &name[..end]))
}

#[cfg(test)]
mod tests;
