use std::num::NonZeroUsize;
use std::path::PathBuf;

use lana::{
    Budget, Comparison, Config, Control, ControlOptions, Memory, Preparation, Recipe, Run, StudentMetrics,
};
use serde_json::json;

use super::{finetune, stage, summary};
use crate::commands::deployment::DeploymentArguments;
use crate::failure::Failure;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana accelerate --teacher resnet56_cifar --weights resnet56.safetensors \\
      --train 'webdataset:train-{0000..0004}.tar' --val webdataset:test-0000.tar \\
      --budget 0.5x --batch 64 --threads 1 --out run

A second budget reuses everything but the selection and the fine-tuning:
  lana accelerate --out run --budget 0.34x
  lana accelerate --out run --budget '>=500img/s,size=2MB'

What students must beat, beside them in the report:
  lana accelerate --out run --compare skip-only,resnet20_cifar=resnet20.safetensors";

/// Make a network that meets a latency budget on this device
///
/// Runs all steps: the teacher is evaluated, operations are measured on this device, trained to imitate the teacher's
/// layers, and scored; for each budget a selection is found, fine-tuned, exported to ONNX and measured. The same command
/// goes on where an interrupted one stopped. If RUN exists, options that are left out are those it was made with.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The network to accelerate: a name that `lana zoo` lists, or an ONNX file of a classifier
    #[arg(long, value_name = "ARCH|FILE.onnx")]
    teacher: Option<String>,

    /// The teacher's trained weights: a file, or a repository of the Hugging Face hub, such as
    /// hf:timm/efficientnet_b2.ra_in1k
    #[arg(long, value_name = "FILE.safetensors|hf:OWNER/REPO")]
    weights: Option<String>,

    #[command(flatten)]
    network: super::Network,

    #[command(flatten)]
    preprocessing: super::Preprocessing,

    /// Training images: cifar10:PATH, imagefolder:PATH, webdataset:PATH, parquet:PATH or generated:NAME
    #[arg(long, value_name = "DATA")]
    train: Option<String>,

    /// Validation images, likewise; they are only reported on: nothing is chosen by them but, where a recipe keeps an average of the
    /// weights, which of both becomes the student
    #[arg(long, value_name = "DATA")]
    val: Option<String>,

    /// What the student may cost at most: 0.5x (of the teacher's measured latency), 12ms, >=500img/s (of a batch),
    /// cpu-b1:0.5x,cpu-b64:0.6x (on several deployments), params=0.4x, macs=20M, memory=0.5x (peak of the feature maps of
    /// an image, or 20MB), size=2MB (the ONNX file), or several of these joined by commas. Give the option again for
    /// further students
    #[arg(long, value_name = "BUDGET", allow_hyphen_values = true)]
    budget: Vec<String>,

    /// Networks and selections to compare the students with, each trained by the same recipe and measured in the same way: names
    /// that `lana zoo` lists, as NAME (from nothing) or NAME=WEIGHTS, ONNX files, skip-only, random, uniform; joined by commas
    #[arg(long, value_name = "NAME[=WEIGHTS],…", value_delimiter = ',', conflicts_with = "until")]
    compare: Vec<String>,

    /// The run directory: created, or gone on with
    #[arg(long, value_name = "RUN")]
    out: PathBuf,

    /// Configuration file to start from, such as the run.toml of another run; options win over it
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,

    #[command(flatten)]
    deployment: DeploymentArguments,

    /// End after a step that all budgets share; the same command without it goes on
    #[arg(long, value_name = "STEP", help_heading = "Work")]
    until: Option<Until>,

    /// Where training runs: cpu or cuda [default: cpu]
    #[arg(long, help_heading = "Work")]
    device: Option<String>,

    /// Operations to try: compact, paper, extended, names, patterns such as narrow-*, a hyphen in front takes out; joined by
    /// commas [default: compact]
    #[arg(long, allow_hyphen_values = true, help_heading = "Work")]
    pool: Option<String>,

    /// Blocks of a stage that follow each other and are one layer, at most; 1 leaves each alone [default: 3]
    #[arg(long, value_name = "N", help_heading = "Work")]
    group: Option<usize>,

    /// Other operations for some layers or stages, such as 'layer1.*:compact,-conv-*'; may be repeated
    #[arg(long, value_name = "LAYERS:OPERATIONS", help_heading = "Work")]
    pool_rule: Vec<String>,

    /// Train operations that are no faster than their layer too, though no budget on latency can want them
    #[arg(long, help_heading = "Work")]
    keep_slow: bool,

    /// Images that each operation is trained on [default: 10240]
    #[arg(long, value_name = "N", help_heading = "Work")]
    images: Option<NonZeroUsize>,

    /// Memory that training operations may take, such as 8GiB; what does not fit takes further passes over the images
    /// [default: 70 % of what is free]
    #[arg(long, value_name = "SIZE", help_heading = "Work")]
    memory: Option<Memory>,

    /// How students are fine-tuned: a preset of `lana recipe` or a TOML file; keys under [finetune] in --config win over it
    /// [default: finetune-short]
    #[arg(long, value_name = "NAME|FILE.toml", help_heading = "Work")]
    recipe: Option<String>,

    /// Passes over the training images when students are fine-tuned [default: 2]
    #[arg(long, value_name = "N", help_heading = "Work")]
    epochs: Option<NonZeroUsize>,

    /// Threads that train and decode, 0 for one per core [default: 0]
    #[arg(long, value_name = "N", help_heading = "Work")]
    workers: Option<usize>,

    /// Seed of everything random [default: 0]
    #[arg(long, value_name = "N", help_heading = "Work")]
    seed: Option<u64>,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

/// Where to end.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Until {
    /// The latency table is measured
    Profile,
    /// The operations are trained
    Pretrain,
    /// The operations are scored
    Score,
}

impl From<Until> for Preparation {
    fn from(until: Until) -> Self {
        match until {
            Until::Profile => Preparation::Profile,
            Until::Pretrain => Preparation::Pretrain,
            Until::Score => Preparation::Score,
        }
    }
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let config = self.to_config()?;
        if let Some(until) = self.until {
            return Ok(lana::prepare(&config, &self.out, until.into(), terminal)?);
        }
        let controls = self.compare.iter().map(|text| text.parse());
        let controls = controls.collect::<lana::Result<Vec<Control>>>()?;
        lana::check_controls(&config, &self.out, &controls, terminal)?;
        let students = lana::accelerate(&config, &self.out, terminal)?;
        // A control that fails takes nothing away from the students.
        let (comparisons, failed) = match self.comparisons(controls, &students, terminal) {
            Ok(comparisons) => (comparisons, None),
            Err(failure) => (Vec::new(), Some(failure)),
        };
        let report = self.out.join("report.html");
        let files: Vec<PathBuf> =
            students.iter().map(|student| stage::student_file(&self.out, &student.budget)).collect();
        if self.json {
            let students = students.iter().zip(&files).map(|(student, file)| {
                let mut value = output::to_json(student)?;
                value["onnx"] = json!(file);
                Ok(value)
            });
            let students = students.collect::<Result<Vec<_>, Failure>>()?;
            let teacher = config.teacher;
            let mut all =
                json!({ "run": self.out, "teacher": teacher, "students": students, "report": report });
            if !comparisons.is_empty() {
                all["comparisons"] = json!(comparisons);
            }
            output::json(&all)?;
        } else {
            let mut text = summary::table(&config.teacher, &students).to_string();
            text += &format!("\n{}{}\n\n", summary::details(&students), summary::how_measured(&config));
            for comparison in &comparisons {
                text += &format!("{}\n", finetune::compared(comparison));
            }
            text += &format!("report   {}\n", report.display());
            for file in &files {
                text += &format!("student  {}\n", file.display());
            }
            output::results(&text)?;
        }
        match (students.iter().find(|student| !student.meets_budget), failed) {
            (Some(student), _) => Err(over_budget(student)),
            (None, Some(failure)) => Err(failure),
            (None, None) => Ok(()),
        }
    }

    /// The students beside what they are to be compared with.
    fn comparisons(
        &self,
        controls: Vec<Control>,
        students: &[StudentMetrics],
        terminal: &Terminal,
    ) -> Result<Vec<Comparison>, Failure> {
        let budgets = students.iter().map(|student| student.budget.parse());
        let budgets = budgets.collect::<lana::Result<Vec<Budget>>>()?;
        if controls.is_empty() {
            return Ok(Vec::new());
        }
        let options = ControlOptions { controls, recipe: None };
        Ok(lana::control(&self.out, &options, &budgets, terminal)?)
    }

    /// The second stage: a configuration file or the run's own, the options over it, all of it checked.
    fn to_config(&self) -> Result<Config, Failure> {
        let stored = self.out.join("run.toml");
        let base = match &self.config {
            Some(file) => Config::load_with(file, self.recipe.as_deref())?,
            None if stored.is_file() => Run::open(&self.out)?.config()?,
            None => Config::default(),
        };
        let config = self.over(base)?;
        config.validate()?;
        if config.budgets.is_empty() && self.until.is_none() {
            return Err(Failure::input(
                "no budget is given",
                "give --budget, such as 0.5x (half the teacher's latency), 12ms or params=0.4x",
            ));
        }
        Ok(config)
    }

    /// The options that are given, over a configuration.
    fn over(&self, mut config: Config) -> Result<Config, Failure> {
        fn set<T: Clone>(field: &mut T, option: &Option<T>) {
            if let Some(value) = option {
                field.clone_from(value);
            }
        }
        set(&mut config.teacher, &self.teacher);
        set(&mut config.train, &self.train);
        set(&mut config.val, &self.val);
        set(&mut config.pool, &self.pool);
        if !self.pool_rule.is_empty() {
            config.pool_rules.clone_from(&self.pool_rule);
        }
        set(&mut config.layers.group, &self.group);
        config.pretrain.keep_slow |= self.keep_slow;
        set(&mut config.device, &self.device);
        set(&mut config.seed, &self.seed);
        set(&mut config.workers, &self.workers);
        config.latency = config.latency.on(self.deployment.over(config.latency.deployment()));
        set(&mut config.pretrain.images, &self.images.map(NonZeroUsize::get));
        config.pretrain.memory = self.memory.or(config.pretrain.memory);
        if let (Some(recipe), None) = (&self.recipe, &self.config) {
            config.finetune = Recipe::named(recipe)?;
        }
        set(&mut config.finetune.epochs, &self.epochs.map(NonZeroUsize::get));
        config.preprocessing = self.preprocessing.over(config.preprocessing);
        config.num_classes = self.network.num_classes.or(config.num_classes);
        config.resolution = self.network.resolution.or(config.resolution);
        if let Some(weights) = &self.weights {
            config.weights = Some(weights.parse()?);
        }
        if !self.budget.is_empty() {
            config.budgets = stage::budgets(&self.budget)?;
        }
        Ok(config)
    }
}

/// A student that met its budget when it was selected, but not in the last measurement.
fn over_budget(student: &StudentMetrics) -> Failure {
    Failure::Told {
        message: format!(
            "the student for budget {} is over it in the final measurement ({:.3}x of the teacher's latency; {:.1} % of the \
             budget used)",
            student.budget,
            student.ratio(),
            100.0 * student.used.unwrap_or(f64::NAN)
        ),
        hint: Some(
            "measure again with `lana measure` when nothing else runs, or ask for a slightly smaller budget: \
             everything before selection is reused"
                .into(),
        ),
        status: 1,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use lana::{Budget, Precision, PretrainConfig, Processor, RuntimeKind};

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(options: &[&str]) -> Arguments {
        Line::try_parse_from(std::iter::once(&"accelerate").chain(options)).unwrap().arguments
    }

    #[test]
    fn the_help_names_the_defaults_that_hold() {
        let help = <Line as clap::CommandFactory>::command().render_help().to_string();
        let config = Config::default();
        for (option, default) in [
            ("--images", config.pretrain.images.to_string()),
            ("--epochs", config.finetune.epochs.to_string()),
            ("--batch", config.latency.batch.to_string()),
            ("--threads", config.latency.threads.to_string()),
            ("--workers", config.workers.to_string()),
            ("--seed", config.seed.to_string()),
            ("--pool", config.pool.clone()),
            ("--device", config.device.clone()),
            ("--runtime", config.latency.runtime.to_string()),
            ("--processor", config.latency.processor.to_string()),
            ("--precision", config.latency.precision.to_string()),
        ] {
            let after = help.split(option).nth(1).unwrap_or_default();
            let shown = after.split("[default: ").nth(1).and_then(|text| text.split(']').next());
            assert_eq!(shown, Some(default.as_str()), "{option}");
        }
    }

    fn stored() -> Config {
        Config {
            teacher: "resnet20_cifar".into(),
            weights: Some("a.safetensors".parse().unwrap()),
            train: "cifar10:train".into(),
            val: "cifar10:val".into(),
            budgets: vec!["0.5x".parse::<Budget>().unwrap()],
            seed: 7,
            pretrain: PretrainConfig { images: 640, ..PretrainConfig::default() },
            ..Config::default()
        }
    }

    #[test]
    fn every_option_reaches_its_field() {
        let config = arguments(&[
            "--teacher=resnet56_cifar",
            "--weights=w.safetensors",
            "--num-classes=10",
            "--resolution=64",
            "--train=generated:shapes",
            "--val=generated:shapes?split=val",
            "--budget=0.5x,params=0.6x",
            "--budget=12ms",
            "--runtime=torch",
            "--processor=cuda",
            "--precision=bf16",
            "--batch=64",
            "--threads=2",
            "--device=cuda",
            "--pool=-narrow-*",
            "--images=1000",
            "--memory=8GiB",
            "--epochs=3",
            "--workers=5",
            "--seed=9",
            "--out=run",
        ])
        .over(Config::default())
        .unwrap();
        let mut expected = Config {
            teacher: "resnet56_cifar".into(),
            weights: Some("w.safetensors".parse().unwrap()),
            num_classes: Some(10),
            resolution: Some(64),
            train: "generated:shapes".into(),
            val: "generated:shapes?split=val".into(),
            budgets: vec!["0.5x,params=0.6x".parse().unwrap(), "12ms".parse().unwrap()],
            pool: "-narrow-*".into(),
            device: "cuda".into(),
            seed: 9,
            workers: 5,
            ..Config::default()
        };
        expected.latency.runtime = RuntimeKind::Torch;
        expected.latency.processor = Processor::Cuda;
        expected.latency.precision = Precision::Bf16;
        expected.latency.batch = 64;
        expected.latency.threads = 2;
        expected.pretrain.images = 1000;
        expected.pretrain.memory = Some(Memory(8 << 30));
        expected.finetune.epochs = 3;
        assert_eq!(config, expected);
    }

    #[test]
    fn what_is_left_out_stays() {
        assert_eq!(arguments(&["--out=run"]).over(stored()).unwrap(), stored());
        let config = arguments(&["--out=run", "--budget=0.34x", "--seed=0"]).over(stored()).unwrap();
        assert_eq!(config, Config { budgets: vec!["0.34x".parse().unwrap()], seed: 0, ..stored() });
    }

    #[test]
    fn a_run_gives_what_is_left_out_and_a_file_wins_over_it() {
        let folder = tempfile::tempdir().unwrap();
        let out = format!("--out={}", folder.path().display());
        // Nothing there: the teacher is missing.
        let failure = arguments(&[&out]).to_config().unwrap_err();
        assert!(failure.message().contains("`teacher`"), "{}", failure.message());
        assert_eq!(failure.exit_status(), 2);

        std::fs::write(folder.path().join("run.toml"), stored().to_toml()).unwrap();
        assert_eq!(arguments(&[&out]).to_config().unwrap(), stored());
        assert_eq!(arguments(&[&out, "--epochs=2"]).to_config().unwrap().finetune.epochs, 2);

        let other = Config { teacher: "resnet32_cifar".into(), ..stored() };
        let file = folder.path().join("other.toml");
        std::fs::write(&file, other.to_toml()).unwrap();
        let option = format!("--config={}", file.display());
        assert_eq!(arguments(&[&out, &option]).to_config().unwrap(), other);
        assert_eq!(arguments(&[&out, &option, "--seed=3"]).to_config().unwrap(), Config { seed: 3, ..other });
    }

    #[test]
    fn what_to_compare_with_is_looked_at_first() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("run.toml"), stored().to_toml()).unwrap();
        let out = format!("--out={}", folder.path().display());
        let cut_off = folder.path().join("cut-off.onnx");
        std::fs::write(&cut_off, [8, 7, 18]).unwrap();
        let cut_off = format!("--compare={}", cut_off.display());
        for (compare, told) in [
            (cut_off.as_str(), "cut-off.onnx"),
            ("--compare=", "no such selection"),
            ("--compare=skip-only,resnet21", "resnet21"),
            ("--compare=resnet20_cifar=missing.safetensors", "missing.safetensors"),
            ("--compare=random=w.safetensors", "takes no weights"),
        ] {
            let failure = arguments(&[&out, compare]).run(&Terminal::new()).unwrap_err();
            assert!(failure.message().contains(told), "{}", failure.message());
        }
    }

    #[test]
    fn a_budget_is_needed_and_must_make_sense() {
        let folder = tempfile::tempdir().unwrap();
        let out = format!("--out={}", folder.path().display());
        let options = ["--teacher=resnet20_cifar", "--train=a:b", "--val=a:b", &out];
        let failure = arguments(&options).to_config().unwrap_err();
        assert!(failure.message().contains("budget"), "{}", failure.message());

        let options = [&options[..], &["--budget=12"]].concat();
        let failure = arguments(&options).to_config().unwrap_err();
        assert!(failure.message().contains("budget `12`"), "{}", failure.message());
        assert!(failure.hint().unwrap().contains("0.5x"));
        assert_eq!(failure.exit_status(), 2);
    }

    #[test]
    fn a_student_over_its_budget_is_a_failure_that_says_by_how_much() {
        let failure = over_budget(&crate::commands::training::summary::tests::student("0.34x", false));
        assert_eq!(failure.exit_status(), 1);
        assert!(failure.message().contains("0.34x") && failure.message().contains("0.485x"));
    }
}
