//! What stands in the files of a run directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use lana_graph::{Cost, Precision};
use lana_latency::Figures;
use lana_torch::Device;
use serde::{Deserialize, Serialize};

use crate::Answers;

/// Accuracy of a network on some images.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Accuracy {
    /// Share of images whose class came first.
    pub top1: f64,
    /// Share of images whose class was among the first five.
    pub top5: f64,
    /// Mean cross-entropy in nats.
    pub loss: f64,
    /// Number of images.
    pub images: u64,
}

impl Accuracy {
    /// Standard error of top-1: `√(p (1 − p) / n)`.
    pub fn top1_error(&self) -> f64 {
        (self.top1 * (1.0 - self.top1) / self.images as f64).sqrt()
    }

    /// Whether top-1 is higher, or the same with a lower loss.
    pub(crate) fn is_better_than(&self, other: &Accuracy) -> bool {
        self.top1 > other.top1 || (self.top1 == other.top1 && self.loss < other.loss)
    }
}

/// All that is said of a network's answers to labelled images.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Assessment {
    /// Accuracy and loss.
    #[serde(flatten)]
    pub accuracy: Accuracy,
    /// Standard error of top-1.
    pub top1_error: f64,
    /// Expected calibration error over 15 bins of confidence.
    pub calibration_error: f64,
    /// Share of images for which the teacher answers the same class, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Images a second, decoding included.
    pub images_per_s: f64,
    /// Which images are answered rightly; none in records of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub right: Option<Answers>,
    /// Class by class.
    pub classes: Vec<ClassAccuracy>,
}

/// Accuracy on the images of one class.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ClassAccuracy {
    /// Its number.
    pub class: usize,
    /// Its name, where the images have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Images of it.
    pub images: u64,
    /// Share of them that were answered rightly; none if there are none.
    pub top1: Option<f64>,
}

/// `teacher/metrics.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TeacherMetrics {
    /// Its name in the zoo.
    pub name: String,
    /// Accuracy on the validation images.
    pub val: Accuracy,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// SHA-256 of the files beside it.
    pub files: BTreeMap<String, String>,
}

/// `pool.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// What `--pool` said.
    pub pool: String,
    /// Rules for some layers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// Layers in the order of the network.
    pub layers: Vec<PoolLayer>,
    /// What stands in no layer takes in memory and on disk.
    #[serde(default)]
    pub outside: Footprint,
}

/// What an operation in its layer, or all that stands in no layer, takes in memory and on disk once it is deployed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Footprint {
    /// Most elements of feature maps, of one image, that are alive at once while it runs.
    pub peak_elements: u64,
    /// Elements of its weights.
    pub weights: u64,
    /// Bytes it takes in the ONNX file, weights in 32 bits.
    pub file_bytes: u64,
}

/// The operations that stand at one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolLayer {
    /// The layer, such as `layer1.0`.
    pub layer: String,
    /// Its stage, such as `layer1`.
    pub stage: String,
    /// Shape in front of it, `[channels, height, width]`.
    pub input: Vec<usize>,
    /// Shape behind it.
    pub output: Vec<usize>,
    /// Operations that apply, the teacher's own first.
    pub operations: Vec<PoolOperation>,
    /// Operations that do not apply, with the reason.
    pub left_out: BTreeMap<String, String>,
    /// What is known once latency is measured; not in the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency: Option<PoolLatency>,
    /// What the operations reached in phase 1, those that are trained; not in the file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub learned: BTreeMap<String, PoolError>,
}

/// Latency of the operations at one layer, from the lookup table of this device.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolLatency {
    /// The layer's own, in milliseconds for a batch.
    pub teacher_ms: f64,
    /// Each operation's as a share of it.
    pub ratios: BTreeMap<String, f64>,
    /// Operations that are not trained because the layer's own is as fast.
    pub slow: Vec<String>,
}

/// How well an operation imitates its layer after phase 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolError {
    /// Normalised error `‖s(x) − t(x)‖² / ‖t(x)‖²`.
    pub error: f64,
    /// The same relative to the identity's, where shapes let the layer be skipped: below 1 is better than nothing. The
    /// plain error flatters whatever has a shortcut, which carries most of the feature map's power.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_identity: Option<f64>,
}

/// One operation at one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolOperation {
    /// Its name, such as `narrow-w0.5`.
    pub name: String,
    /// How it is initialised.
    pub initialisation: String,
    /// Multiply-accumulates and parameters, parallel branches counted as the one convolution that is deployed.
    #[serde(flatten)]
    pub cost: Cost,
    /// What it takes in memory and on disk.
    #[serde(default)]
    pub footprint: Footprint,
}

/// `operations/LAYER/OP.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OperationRecord {
    /// The layer.
    pub layer: String,
    /// The operation.
    pub operation: String,
    /// Images it has seen.
    pub images: u64,
    /// Normalised error `‖s(x) − t(x)‖² / ‖t(x)‖²` on training images it has not been trained on last.
    pub error: f64,
    /// The same for the identity, on the same images: what any operation must beat. None where shapes do not agree, or training
    /// diverged.
    pub identity_error: Option<f64>,
    /// Its error before the first update, on the first batch; by it divergence is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_error: Option<f64>,
    /// Images seen and mean normalised error since the point before.
    pub curve: Vec<(u64, f64)>,
    /// Whether training diverged; such an operation is never selected.
    pub failed: bool,
    /// How often training began anew, with half the learning rate, because it had diverged.
    #[serde(default)]
    pub restarts: u32,
    /// Why training ended before all images were seen, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// SHA-256 of the weights beside it.
    pub sha256: String,
}

/// `operations/precision.json`: in what number formats phase 1 computes, where bfloat16 was asked for. Decided once for a run, so
/// that it goes on alike whenever it is interrupted and whoever shares it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainPrecision {
    /// Where that was decided, `cpu` or `cuda`: elsewhere it is decided anew.
    pub device: String,
    /// What operations are trained in.
    pub operations: Precision,
    /// Seconds of one step of some operations in 32 and in 16 bits, where these decided.
    pub seconds: Option<[f64; 2]>,
    /// What the teacher runs in.
    pub teacher: Precision,
    /// By how much its feature maps differ in 16 bits, as a share of their power, at the worst of some layers; none where it was not
    /// tried because operations are trained in 32.
    pub teacher_error: Option<f64>,
}

impl PretrainPrecision {
    /// Its place in the run directory.
    pub(crate) const FILE: &str = "operations/precision.json";
    /// Largest error of the teacher's feature maps with which it runs in 16 bits: well below that of any operation that learns.
    const TOLERANCE: f64 = 1e-3;

    /// Everything in 32 bits.
    pub(crate) fn fp32(device: Device) -> Self {
        let device = device.to_string();
        let (operations, teacher) = (Precision::Fp32, Precision::Fp32);
        PretrainPrecision { device, operations, seconds: None, teacher, teacher_error: None }
    }

    /// Decides on the teacher by the error of its feature maps in 16 bits.
    pub(crate) fn settle_teacher(&mut self, error: f64) {
        self.teacher = if error <= Self::TOLERANCE { Precision::Bf16 } else { Precision::Fp32 };
        self.teacher_error = Some(error);
    }
}

impl fmt::Display for PretrainPrecision {
    /// For people: `operations are trained in bf16, the teacher runs in fp32 (…)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "operations are trained in {}, the teacher runs in {}", self.operations, self.teacher)?;
        match self.teacher_error {
            Some(error) => write!(f, " (in bf16 its feature maps differ by {error:.1e} of their power)"),
            None => Ok(()),
        }
    }
}

/// A mean over images with its standard error.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Its standard error.
    pub stderr: f64,
}

impl Estimate {
    /// From one value for each image.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let (count, sum, squares) =
            values.fold((0.0, 0.0, 0.0), |(count, sum, squares), v| (count + 1.0, sum + v, squares + v * v));
        Self::of_sums(sum, squares, count)
    }

    /// From sum and sum of squares of `count` values.
    pub fn of_sums(sum: f64, squares: f64, count: f64) -> Self {
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        Estimate { mean, stderr: (variance / (count - 1.0).max(1.0)).sqrt() }
    }
}

/// `scores.json`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    /// Training images used.
    pub images: u64,
    /// Images that were asked for; more than there are, where `images` are all.
    #[serde(default)]
    pub asked: Option<u64>,
    /// Images in a batch, whose statistics batch normalisation used in the operation.
    pub batch: u64,
    /// Seed that chose the images.
    pub seed: u64,
    /// The teacher's own mean cross-entropy on them.
    pub teacher_loss: f64,
    /// By layer and operation. The teacher's own operation is zero by definition.
    pub layers: BTreeMap<String, BTreeMap<String, Score>>,
    /// Operations that gave no finite loss, by layer: they are not selected.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub failed: BTreeMap<String, BTreeSet<String>>,
}

impl Scores {
    /// Whether an operation has been scored, with whatever result.
    pub fn has(&self, layer: &str, operation: &str) -> bool {
        self.layers.get(layer).is_some_and(|l| l.contains_key(operation))
            || self.failed.get(layer).is_some_and(|l| l.contains(operation))
    }
}

/// What replacing one layer by one operation does to the network.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// Change of the mean cross-entropy in nats.
    pub loss: Estimate,
    /// Divergence `KL(teacher ‖ changed network)` in nats.
    pub kl: Estimate,
}

/// A measured latency.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// Median in milliseconds for one batch.
    pub median_ms: f64,
    /// Its 95 % confidence interval.
    pub ci_ms: [f64; 2],
    /// Ratio to the teacher, measured in turns with it.
    pub ratio: f64,
    /// Confidence interval of the ratio.
    pub ratio_ci: [f64; 2],
}

/// A selection the integer program gave, really evaluated and really timed: an entry of `budgets/BUDGET/candidates.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidate {
    /// Round of solving that gave it, from 0.
    pub round: usize,
    /// Its place in that round's solutions, from 0.
    pub rank: usize,
    /// Operation of each layer, in the order of the network.
    pub choices: Vec<String>,
    /// Sum of the scores: the program's objective.
    pub score: f64,
    /// Latency the table predicts, in milliseconds; on the first deployment of the budget, as what follows.
    pub predicted_ms: f64,
    /// The most that the budget allows there, in milliseconds on the table's scale, if it limits latency.
    #[serde(default)]
    pub limit_ms: Option<f64>,
    /// Its real cross-entropy on the scoring images, assembled with phase-1 weights, batch statistics.
    pub loss: f64,
    /// Its real accuracy on them.
    pub top1: f64,
    /// Latency really measured; none where nothing can be measured because the table is another device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Whether that was measured by itself, in fresh processes, rather than with all others of its round.
    #[serde(default)]
    pub confirmed: bool,
    /// The same on the budget's further deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Timing>,
    /// Multiply-accumulates and parameters of the whole network.
    #[serde(flatten)]
    pub cost: Cost,
    /// Peak of its feature maps, in bytes for one image.
    #[serde(default)]
    pub memory_bytes: u64,
    /// Bytes of its ONNX file.
    #[serde(default)]
    pub size_bytes: u64,
    /// Whether it meets every limit of the budget, by measurement where there is one.
    pub meets_budget: bool,
    /// The least share of its layer's multiply-accumulates that one of its operations has, the teacher's own and identities aside.
    #[serde(default)]
    pub thinnest: f64,
    /// Of a finalist: its accuracy after a short fine-tuning, on training images held out from it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned: Option<Accuracy>,
    /// Which of these images it has right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tuned_right: Option<Answers>,
}

/// A network on one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The deployment's label.
    pub deployment: String,
    /// The most that the budget allows there, in milliseconds, if it limits latency.
    pub limit_ms: Option<f64>,
    /// Latency the table predicts, in milliseconds.
    pub predicted_ms: f64,
    /// Latency really measured; none where nothing can be measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// The teacher's median in the same run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_ms: Option<f64>,
}

impl Candidate {
    /// Its latency in milliseconds: measured, or predicted where nothing can be measured.
    pub fn latency_ms(&self) -> f64 {
        self.measured.map_or(self.predicted_ms, |m| m.median_ms)
    }
}

/// Why a selection ended where it did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The best selection uses what the budget allows: 97 to 100 % of it, measured.
    Inside,
    /// No better selection was found in as many rounds as there may be.
    #[default]
    OutOfRounds,
    /// No better selection exists: the program, by the corrected tables, proposes nothing that was not measured.
    Exhausted,
    /// No better selection exists: by the corrected tables no other meets the budget.
    OutOfReach,
    /// Nothing limits latency: every limit is known exactly.
    Exact,
    /// The tables are another device's: nothing could be measured, the prediction decides.
    Unmeasured,
}

/// `budgets/BUDGET/candidates.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Candidates {
    /// The budget as asked.
    pub budget: String,
    /// Largest latency allowed in milliseconds, if latency is limited.
    pub limit_ms: Option<f64>,
    /// All that were evaluated.
    pub candidates: Vec<Candidate>,
    /// Index of the one that won.
    pub winner: usize,
    /// Factor by which measured latencies exceeded the table's in the last round.
    pub correction: f64,
    /// Why the search ended.
    #[serde(default)]
    pub ended: Ended,
    /// Largest share of any limit that the winner uses, by measurement where there is one.
    #[serde(default)]
    pub used: Option<f64>,
    /// Labels of the budget's deployments; figures without one are those of the first.
    #[serde(default)]
    pub deployments: Vec<String>,
    /// What decided: the table, the score, the settings of the selection. With others it is made again.
    pub settings: String,
}

impl Candidates {
    /// Rounds that were made.
    pub fn rounds(&self) -> usize {
        self.candidates.iter().map(|c| c.round + 1).max().unwrap_or(0)
    }

    /// How the search ended, in a sentence.
    pub fn verdict(&self) -> String {
        let rounds = match self.rounds() {
            1 => "1 round".to_string(),
            rounds => format!("{rounds} rounds"),
        };
        let used =
            self.used.map_or(String::new(), |used| format!("{:.1} % of the budget used", 100.0 * used));
        let measured = |why: &str| format!("{used} when measured, after {rounds}{why}");
        match self.ended {
            Ended::Inside => measured(""),
            Ended::OutOfRounds => measured("; no better selection was found in them"),
            Ended::Exhausted => {
                measured("; no better selection exists: the program proposes none that was not measured")
            }
            Ended::OutOfReach => {
                measured("; no better selection exists: no other meets the budget by the corrected table")
            }
            Ended::Exact => format!("{used}, known exactly"),
            Ended::Unmeasured => {
                format!(
                    "{used} by prediction alone: the lookup table is another device's, where `lana measure` must be run"
                )
            }
        }
    }
}

/// `budgets/BUDGET/solutions.json`: the integer program that was solved last (of the last round, if solutions were
/// evaluated) and its solutions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Solutions {
    /// The program.
    pub problem: lana_select::Problem,
    /// Its solutions.
    pub outcome: lana_select::Outcome,
}

/// One point of the curve of a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochRecord {
    /// Epochs finished.
    pub epoch: usize,
    /// Mean training loss of the epoch (cross-entropy and distillation).
    pub train_loss: f64,
    /// Accuracy on the validation images after it.
    pub val: Accuracy,
    /// The same of the average of the weights, if one is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub average: Option<Accuracy>,
    /// Training images a second.
    #[serde(default)]
    pub images_per_s: f64,
    /// Seconds it took, with validation.
    pub seconds: f64,
}

impl EpochRecord {
    /// Whether the average does better than the weights themselves, and the better accuracy.
    pub fn better(&self) -> (bool, Accuracy) {
        match self.average {
            Some(average) if average.is_better_than(&self.val) => (true, average),
            _ => (false, self.val),
        }
    }
}

/// `budgets/BUDGET/student/metrics.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StudentMetrics {
    /// The budget as asked, in its own unit.
    pub budget: String,
    /// Largest latency allowed, in milliseconds, if latency is limited.
    pub limit_ms: Option<f64>,
    /// Latency the (corrected) table predicted, in milliseconds.
    pub predicted: f64,
    /// The same as a share of the teacher's, by the table.
    #[serde(default)]
    pub predicted_ratio: f64,
    /// Latency of the exported student, measured in turns with the teacher; none where nothing can be measured because the
    /// lookup table is another device's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
    /// Latency of the teacher in the same run, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher_measured: Option<f64>,
    /// Whether the student meets the budget, by measurement where there is one.
    pub meets_budget: bool,
    /// Label of the deployment that the latencies above are of: the first that the budget names.
    #[serde(default)]
    pub deployment: String,
    /// The same on the budget's further deployments.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<Timing>,
    /// Largest share that it uses of any limit of the budget.
    #[serde(default)]
    pub used: Option<f64>,
    /// How the selection ended, in a sentence.
    #[serde(default)]
    pub verdict: String,
    /// Peak of its feature maps, in bytes for one image.
    #[serde(default)]
    pub memory_bytes: u64,
    /// The teacher's.
    #[serde(default)]
    pub teacher_memory_bytes: u64,
    /// Bytes of `student.onnx`, at the deployment's precision.
    #[serde(default)]
    pub size_bytes: u64,
    /// The same of the teacher's.
    #[serde(default)]
    pub teacher_size_bytes: u64,
    /// Accuracy on the validation images.
    pub top1: f64,
    /// The teacher's.
    pub teacher_top1: f64,
    /// All figures of the student on the validation images.
    pub val: Accuracy,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// The teacher's.
    pub teacher_cost: Cost,
    /// Operation of each layer by the layer's name.
    pub choices: Vec<(String, String)>,
    /// The curve of fine-tuning.
    pub epochs: Vec<EpochRecord>,
    /// The student on the validation images in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assessment: Option<Assessment>,
    /// Largest difference between ONNX Runtime's and libtorch's logits, relative to the largest logit.
    pub export_difference: f64,
    /// SHA-256 of the files beside it.
    pub files: BTreeMap<String, String>,
}

impl StudentMetrics {
    /// Its latency in milliseconds: measured, or predicted where nothing can be measured.
    pub fn latency_ms(&self) -> f64 {
        self.measured.map_or(self.predicted, |m| m.median_ms)
    }

    /// The same as a share of the teacher's.
    pub fn ratio(&self) -> f64 {
        self.measured.map_or(self.predicted_ratio, |m| m.ratio)
    }
}

/// What one line of `events.jsonl` holds beside its time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Seconds since 1970.
    pub time: f64,
    /// The stage.
    pub stage: String,
    /// What happened, as a JSON object.
    #[serde(flatten)]
    pub fields: serde_json::Map<String, serde_json::Value>,
}

/// What `lana status` shows of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its stages, in their order.
    pub stages: Vec<StageStatus>,
    /// The lookup tables that its budgets speak of, as far as they have been made.
    pub tables: Vec<TableStatus>,
    /// In what number formats phase 1 computes, where that had to be decided.
    pub precision: Option<PretrainPrecision>,
}

/// A lookup table of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// How networks were run.
    pub deployment: String,
    /// The device, in words.
    pub device: String,
    /// The teacher's latency, milliseconds.
    pub teacher_ms: f64,
    /// Entries that are negative or hardly known.
    pub noisy: usize,
    /// How well it predicts random selections, if that has been checked.
    pub check: Option<Figures>,
}

/// One stage of a run as `lana status` shows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StageStatus {
    /// `teacher`, `profile`, `pretrain`, `score`, then `select`, `finetune` and `export` with their budget.
    pub stage: String,
    /// Units done.
    pub done: u64,
    /// Units in all.
    pub total: u64,
    /// Name of the unit.
    pub unit: String,
    /// Seconds left by the rate seen so far; none before anything is known.
    pub eta_s: Option<f64>,
}
