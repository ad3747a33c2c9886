use std::path::{Path, PathBuf};
use std::time::Instant;

use lana_data::Augmentation;

use crate::accelerate::{run_all, take_up};
use crate::train::{learn, trained_weights};
use crate::{
    Budget, Config, Error, LatencyConfig, PretrainConfig, Progress, Recipe, Result, ScoreConfig,
    SelectConfig, StudentMetrics, TeacherMetrics,
};

/// Options of [`demo`].
#[derive(Clone, Debug)]
pub struct DemoOptions {
    /// What the student may cost.
    pub budget: Budget,
    /// Seed of images and training.
    pub seed: u64,
}

/// What [`demo`] gives.
#[derive(Clone, Debug)]
pub struct DemoResult {
    /// The teacher that was trained.
    pub teacher: TeacherMetrics,
    /// Its latency in milliseconds, where it could be measured.
    pub teacher_latency_ms: Option<f64>,
    /// The student.
    pub student: StudentMetrics,
    /// The page.
    pub report: PathBuf,
    /// Seconds this call took.
    pub seconds: f64,
}

/// The teacher of the demonstration.
const TEACHER: &str = "effnetv2_nano_cifar";

/// A small real run from start to report: draws images, trains a teacher on them, accelerates it.
pub fn demo(out: &Path, options: &DemoOptions, progress: &dyn Progress) -> Result<DemoResult> {
    let begun = Instant::now();
    let config = Config {
        teacher: TEACHER.into(),
        weights: Some(trained_weights(out).into()),
        train: format!("generated:shapes?seed={}&images=6000&split=train", options.seed),
        val: format!("generated:shapes?seed={}&images=1500&split=val", options.seed),
        seed: options.seed,
        latency: LatencyConfig {
            batch: 16,
            time_limit_s: 30.0,
            target_error: 0.02,
            ..LatencyConfig::default()
        },
        pretrain: PretrainConfig { images: 1_536, batch: 16, crop_padding: 2, ..PretrainConfig::default() },
        score: ScoreConfig { images: 512, batch: 128, ..ScoreConfig::default() },
        select: SelectConfig { solutions: 8, time_limit_s: 5.0, rounds: 2, ..SelectConfig::default() },
        finetune: Recipe {
            epochs: 3,
            batch: 64.into(),
            learning_rate: 0.03,
            augment: Augmentation::crop_flip(2),
            ..Recipe::default()
        },
        ..Config::default()
    };
    let mut context = take_up(&config, out, progress)?;
    let recipe = Recipe { epochs: 6, learning_rate: 0.1, weight_decay: 5e-4, ..config.finetune.clone() };
    learn(&context, &recipe)?;
    let students = run_all(&mut context, std::slice::from_ref(&options.budget))?;
    let (_, teacher) = context.teacher()?;
    let Some(student) = students.into_iter().next() else {
        return Err(Error::input("no student was made", "delete the run's folder and try again"));
    };
    Ok(DemoResult {
        teacher,
        teacher_latency_ms: student.teacher_measured,
        student,
        report: context.run.path("report.html"),
        seconds: begun.elapsed().as_secs_f64(),
    })
}
