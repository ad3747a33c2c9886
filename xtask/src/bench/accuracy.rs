//! `cargo xtask bench accuracy`: what students keep of the teacher's accuracy, beside their controls.
//!
//! One run of lana for each seed and number of epochs; in it the students of all budgets, then for each budget the controls,
//! all by the same recipe, from the same teacher and images, each measured in turns with the teacher. Every network is a row of
//! `docs/accuracy.jsonl`: rows that are there are made again only if asked for (`--again`), those of other seeds stay, and what a run
//! has done it does not do twice. So the table fills up over many calls.
#![allow(clippy::print_stdout)] // its result

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Subject, lana, prune};
use crate::command::workspace_root;
use crate::setup;

/// What is compared, and on what.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    subject: Subject,
    /// Budgets; may be given several times
    #[arg(long, default_values_t = ["0.5x".to_string(), "0.34x".to_string()])]
    budget: Vec<String>,
    /// Passes over the training images
    #[arg(long, default_value_t = 2)]
    epochs: usize,
    /// Recipe: a preset of `lana recipe` or a TOML file
    #[arg(long, default_value = "finetune-short")]
    recipe: String,
    /// Seed of everything random
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Selections to compare with, and channels-pruned: the teacher with fewer channels, by Torch-Pruning; between commas, '' for none
    #[arg(long, value_delimiter = ',', default_value = "skip-only,random,uniform,channels-pruned")]
    controls: Vec<String>,
    /// Networks to compare with, as NAME (from nothing), NAME=WEIGHTS or FILE.onnx; '' for none
    #[arg(long, value_delimiter = ',', default_values_t = [
        "resnet32_cifar=../shared/weights/resnet32_cifar10.safetensors".to_string(),
        "resnet20_cifar=../shared/weights/resnet20_cifar10.safetensors".to_string(),
    ])]
    networks: Vec<String>,
    /// Images in a batch when latency is measured
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Another setting of the run, a line of run.toml such as 'layers.group = 3'; may be repeated
    #[arg(long, value_name = "KEY = VALUE", requires = "name")]
    with: Vec<String>,
    /// What the students of such settings are called in the table, behind LANA
    #[arg(long, requires = "with")]
    name: Option<String>,
    /// The run directory, counted like all paths from the repository's root
    /// [default: target/bench-accuracy/TEACHER-RECIPE-eEPOCHS-sSEED, with -bBATCH behind it for another batch than 64, and the name]
    #[arg(long)]
    out: Option<PathBuf>,
    /// Look at rows again that are in the table already
    #[arg(long)]
    again: bool,
    /// Only print the table
    #[arg(long)]
    show: bool,
}

/// Keys of a recipe, or of a run.
type Settings = BTreeMap<String, Value>;

/// A network under a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    teacher: String,
    budget: String,
    recipe: String,
    /// Every key of the recipe but the number of epochs, as `lana recipe --json` prints it: names may come to mean something else.
    settings: Settings,
    epochs: usize,
    seed: u64,
    network: String,
    /// What a selection is found by: layers, pool, phase 1, scores and the search, as run.toml has them. Empty for networks that lana
    /// does not select, and for rows made before it was kept.
    #[serde(default)]
    method: Settings,
    /// The training images.
    train: String,
    /// Label of the deployment that latency is of.
    deployment: String,
    /// Share of the teacher's latency, measured.
    ratio: f64,
    ratio_ci: [f64; 2],
    meets_budget: bool,
    top1: f64,
    /// Images it is of.
    images: u64,
    loss: f64,
    /// Share of the images on which it says what the teacher says, where that was looked at.
    agreement: Option<f64>,
    /// Of a control: its top-1 less that of the student beside it, and the standard error by the images that only one of them has right.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    difference: Option<[f64; 2]>,
    params: u64,
    macs: u64,
    /// The teacher's, on the same images.
    teacher_top1: f64,
}

impl Row {
    /// What tells rows apart.
    fn key(&self) -> ([String; 8], usize, u64) {
        let Row { teacher, budget, recipe, epochs, seed, network, train, deployment, .. } = self.clone();
        let [settings, method] =
            [&self.settings, &self.method].map(|keys| serde_json::json!(keys).to_string());
        ([teacher, budget, recipe, settings, train, deployment, network, method], epochs, seed)
    }
}

fn file() -> PathBuf {
    workspace_root().join("docs").join("accuracy.jsonl")
}

/// Makes the rows that are missing, and prints the table.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if !arguments.show {
        setup::run()?;
        let run = workspace_root().join(arguments.out.clone().unwrap_or_else(|| default_run(arguments)));
        let mut missing = Missing { arguments, run, settings: settings(&arguments.recipe)?, begun: false };
        let budgets: Vec<&String> = arguments.budget.iter().collect();
        if arguments.again || !missing.there(&missing.title(STUDENT), &budgets)? {
            missing.students()?;
        }
        let selections = arguments.controls.iter().filter(|name| !name.is_empty());
        let selections = selections.map(|name| Rival::selection(name)).collect::<Vec<_>>();
        let (pruned, selections): (Vec<_>, Vec<_>) =
            selections.into_iter().partition(|rival| matches!(rival, Rival::Pruned));
        for rival in &selections {
            for budget in &budgets {
                missing.make(rival, &[budget])?;
            }
        }
        for network in arguments.networks.iter().filter(|name| !name.is_empty()) {
            missing.make(&Rival::network(network), &budgets)?;
        }
        // Last, since it needs Python and a package index.
        for rival in &pruned {
            for budget in &budgets {
                missing.make(rival, &[budget])?;
            }
        }
    }
    print(&load(&file())?);
    Ok(ExitCode::SUCCESS)
}

/// Where the run is unless that is said.
fn default_run(arguments: &Arguments) -> PathBuf {
    let Arguments { subject, recipe, epochs, seed, batch, name: of_settings, .. } = arguments;
    let mut name = format!("{}-{recipe}-e{epochs}-s{seed}", subject.teacher);
    if *batch != 64 {
        name += &format!("-b{batch}");
    }
    if let Some(of_settings) = of_settings {
        name += &format!("-{}", of_settings.replace(' ', "-"));
    }
    PathBuf::from("target/bench-accuracy").join(name.replace('/', "-"))
}

/// What a student is compared with.
enum Rival<'a> {
    /// A selection that lana makes.
    Selection(&'a str),
    /// The teacher with fewer channels.
    Pruned,
    /// A network of the zoo with its weights, if it has any, or an ONNX file.
    Network(&'a str, Option<&'a str>),
}

impl<'a> Rival<'a> {
    fn selection(name: &'a str) -> Self {
        if name == "channels-pruned" { Rival::Pruned } else { Rival::Selection(name) }
    }

    fn network(text: &'a str) -> Self {
        match text.split_once('=') {
            Some((name, weights)) => Rival::Network(name, Some(weights)),
            None => Rival::Network(text, None),
        }
    }

    /// What it is called in the table, by lana too.
    fn title(&self) -> String {
        match self {
            Rival::Selection(name) => name.to_string(),
            Rival::Pruned => PRUNED.into(),
            Rival::Network(name, Some(_)) => format!("{name}, pretrained"),
            Rival::Network(name, None) if name.ends_with(".onnx") => {
                name.rsplit('/').next().unwrap_or(name).into()
            }
            Rival::Network(name, None) => format!("{name}, from nothing"),
        }
    }
}

/// What is still to be made.
struct Missing<'a> {
    arguments: &'a Arguments,
    run: PathBuf,
    settings: Settings,
    /// Whether the students were looked at.
    begun: bool,
}

impl Missing<'_> {
    /// What a selection is called in the table.
    fn title(&self, selection: &str) -> String {
        match &self.arguments.name {
            Some(name) => format!("{selection}, {name}"),
            None => selection.into(),
        }
    }

    /// Whether a network has a row under every budget.
    fn there(&self, network: &str, budgets: &[&String]) -> anyhow::Result<bool> {
        let Arguments { subject: Subject { teacher, train, .. }, recipe, epochs, seed, batch, .. } =
            self.arguments;
        let rows = load(&file())?;
        let is_it = |row: &Row, budget: &str| {
            row.teacher == *teacher
                && row.recipe == *recipe
                && row.settings == self.settings
                && row.train == file_names(train)
                && (row.epochs, row.seed) == (*epochs, *seed)
                && row.budget == budget
                && row.network == network
                && row.deployment.contains(&format!("-b{batch}-"))
                // How the selections of older rows were found is not known.
                && !(is_selection(&row.network) && row.method.is_empty())
        };
        Ok(budgets.iter().all(|budget| rows.iter().any(|row| is_it(row, budget))))
    }

    /// Makes a control for budgets, and the students before the first; unless it is in the table.
    fn make(&mut self, rival: &Rival<'_>, budgets: &[&String]) -> anyhow::Result<()> {
        let Arguments { again, batch, .. } = self.arguments;
        let shown = match rival {
            Rival::Selection(name) => self.title(name),
            _ => rival.title(),
        };
        if !again && self.there(&shown, budgets)? {
            return Ok(());
        }
        if !self.begun {
            self.students()?;
        }
        let mut command = lana(&["finetune", "--json", "--control"]);
        match rival {
            Rival::Selection(name) | Rival::Network(name, None) => command.arg(name),
            Rival::Network(name, Some(weights)) => command.args([name, "--weights", weights]),
            Rival::Pruned => match prune::pruned(&self.run, budgets[0], *batch)? {
                Some(file) => command.arg(file),
                None => return Ok(()),
            },
        };
        command.arg(&self.run);
        for budget in budgets {
            command.args(["--budget", budget.as_str()]);
        }
        let output = command.stderr(Stdio::inherit()).output().context("starting lana")?;
        match output.status.code() {
            Some(0) => {}
            // No such selection meets the budget: that is a result, and there is no row.
            Some(3) => return Ok(()),
            _ => bail!("{command:?} failed"),
        }
        let record: Value = serde_json::from_slice(&output.stdout).context("reading what lana printed")?;
        let mut found = Vec::new();
        for comparison in record["comparisons"].as_array().context("no comparisons")? {
            if !comparison["student"].is_null() {
                found.extend(self.rows(&comparison["student"], &comparison["controls"])?);
            }
        }
        keep(&file(), found)
    }

    /// Makes the students of all budgets, and their rows.
    fn students(&mut self) -> anyhow::Result<()> {
        let Arguments { subject, budget, epochs, recipe, seed, batch, with, .. } = self.arguments;
        let mut command = subject.accelerate();
        if !with.is_empty() {
            let mut config = self.run.clone().into_os_string();
            config.push(".with.toml");
            let config = PathBuf::from(config);
            let folder = config.parent().context("the run directory is the root")?;
            std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
            std::fs::write(&config, with.join("\n") + "\n")
                .with_context(|| format!("writing {}", config.display()))?;
            command.arg("--config").arg(config);
        }
        command.args(["--recipe", recipe, "--threads", "1"]);
        for budget in budget {
            command.args(["--budget", budget]);
        }
        command.args(["--epochs", &epochs.to_string(), "--seed", &seed.to_string()]);
        command.args(["--batch", &batch.to_string()]).arg("--out").arg(&self.run);
        let status = command.status().context("starting lana")?;
        // A budget out of reach (3) has no student, and no rows; one that is missed in the end (1) has.
        anyhow::ensure!(matches!(status.code(), Some(0 | 1 | 3)), "{command:?} failed");
        self.begun = true;
        let folders = self.run.join("budgets");
        let mut found = Vec::new();
        for folder in std::fs::read_dir(&folders).into_iter().flatten().flatten() {
            let path = folder.path().join("student/metrics.json");
            // A budget that is out of reach has none.
            let Ok(text) = std::fs::read_to_string(&path) else { continue };
            let student: Value =
                serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
            if budget.iter().any(|wanted| student["budget"] == *wanted) {
                found.extend(self.rows(&student, &Value::Null)?);
            }
        }
        keep(&file(), found)
    }

    /// The rows of a student and of all controls trained as it was.
    fn rows(&self, student: &Value, controls: &Value) -> anyhow::Result<Vec<Row>> {
        let teacher_top1 = student["teacher_top1"].as_f64().context("no student")?;
        let budget = student["budget"].as_str().context("no budget")?;
        let deployment = student["deployment"].as_str().unwrap_or_default();
        let method = method(&self.run)?;
        let difference = |value: &Value| -> Option<[f64; 2]> {
            let paired = value["paired"].as_bool()?.then_some(value)?;
            Some([paired["top1"].as_f64()?, paired["error"].as_f64()?])
        };
        let row = |network: &str, value: &Value, measured: &Value, agreement: &Value| -> Option<Row> {
            let Arguments { subject: Subject { teacher, train, .. }, recipe, epochs, seed, .. } =
                self.arguments;
            Some(Row {
                teacher: teacher.clone(),
                budget: budget.into(),
                recipe: recipe.clone(),
                settings: self.settings.clone(),
                epochs: *epochs,
                seed: *seed,
                method: if is_selection(network) { method.clone() } else { Settings::new() },
                network: if is_selection(network) { self.title(network) } else { network.into() },
                train: file_names(train),
                deployment: deployment.into(),
                ratio: measured["ratio"].as_f64()?,
                ratio_ci: [measured["ratio_ci"][0].as_f64()?, measured["ratio_ci"][1].as_f64()?],
                meets_budget: value["meets_budget"].as_bool()?,
                top1: value["val"]["top1"].as_f64()?,
                images: value["val"]["images"].as_u64()?,
                loss: value["val"]["loss"].as_f64()?,
                agreement: agreement.as_f64(),
                difference: difference(&value["difference"]),
                params: value["params"].as_u64()?,
                macs: value["macs"].as_u64()?,
                teacher_top1,
            })
        };
        let mut rows = vec![row(STUDENT, student, &student["measured"], &student["assessment"]["agreement"])];
        for control in controls.as_array().into_iter().flatten() {
            if control["same_recipe"] == true {
                let name = control["control"].as_str().unwrap_or_default();
                // Those that were pruned for other budgets are beside this student too.
                if name.starts_with(prune::FILES) && name != prune::file_name(budget) {
                    continue;
                }
                let name = if name == prune::file_name(budget) { PRUNED } else { name };
                rows.push(row(name, control, &control["timings"][0]["measured"], &control["agreement"]));
            }
        }
        rows.into_iter().collect::<Option<_>>().context("lana printed a comparison that lacks a figure")
    }
}

/// What a recipe comes to, but for its epochs.
fn settings(recipe: &str) -> anyhow::Result<Settings> {
    let output = lana(&["recipe", recipe, "--json"]).stderr(Stdio::inherit()).output();
    let output = output.context("starting lana")?;
    anyhow::ensure!(output.status.success(), "there is no recipe {recipe}");
    let mut settings: Settings = serde_json::from_slice(&output.stdout).context("reading the recipe")?;
    // How often a checkpoint is written makes no difference.
    settings.retain(|key, _| key != "epochs" && key != "checkpoint_s");
    Ok(settings)
}

/// What a run finds its selections by.
fn method(run: &Path) -> anyhow::Result<Settings> {
    let path = run.join("run.toml");
    let text = std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let all: Value = toml::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    let mut keys = Settings::new();
    for section in ["layers", "pool", "pool_rules", "pretrain", "score", "select"] {
        match &all[section] {
            Value::Null => {}
            Value::Object(of_section) => {
                keys.extend(
                    of_section.iter().map(|(key, value)| (format!("{section}.{key}"), value.clone())),
                );
            }
            value => drop(keys.insert(section.into(), value.clone())),
        }
    }
    // What makes no difference to the result.
    keys.retain(|key, _| {
        !matches!(key.as_str(), "pretrain.checkpoint_s" | "pretrain.memory" | "select.time_limit_s")
    });
    Ok(keys)
}

/// Whether a network of a comparison is one that lana selected.
fn is_selection(network: &str) -> bool {
    [STUDENT, "skip-only", "random", "uniform"].contains(&network)
}

/// Images without the folder they are in, which is another on every machine.
fn file_names(data: &str) -> String {
    let (kind, path) = data.split_once(':').unwrap_or(("", data));
    format!("{kind}:{}", path.rsplit('/').next().unwrap_or(path))
}

/// What students are called in the table.
const STUDENT: &str = "LANA";
/// What the teacher with fewer channels is.
const PRUNED: &str = "channels pruned (Torch-Pruning)";

fn load(path: &Path) -> anyhow::Result<Vec<Row>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(at, line)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), at + 1))
        })
        .collect()
}

/// Adds rows to the file, in place of those with the same key.
fn keep(path: &Path, rows: Vec<Row>) -> anyhow::Result<()> {
    let all: BTreeMap<_, _> = load(path)?.into_iter().chain(rows).map(|row| (row.key(), row)).collect();
    let lines = all.values().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    let fresh = path.with_extension("tmp");
    std::fs::write(&fresh, lines.join("\n") + "\n")
        .with_context(|| format!("writing {}", fresh.display()))?;
    std::fs::rename(&fresh, path).with_context(|| format!("writing {}", path.display()))
}

/// The table, over seeds.
fn print(rows: &[Row]) {
    /// By network.
    type Group<'a> = BTreeMap<String, Vec<&'a Row>>;
    let mut groups: BTreeMap<(&str, &str, String, usize), Group> = BTreeMap::new();
    for row in rows {
        let group = groups.entry((&row.teacher, &row.budget, title(row, rows), row.epochs)).or_default();
        group.entry(network_title(row, rows)).or_default().push(row);
    }
    println!(
        "| teacher | budget | recipe, epochs | network | top-1 | ± | seeds | ratio | budget met | beside LANA | agreement | parameters |"
    );
    println!("|{}", "---|".repeat(12));
    for ((teacher, budget, recipe, epochs), networks) in groups {
        let mut networks: Vec<(f64, String, Vec<&Row>)> =
            networks.into_iter().map(|(name, rows)| (mean(&rows, |row| row.top1), name, rows)).collect();
        networks.sort_by(|a, b| b.0.total_cmp(&a.0));
        for (top1, name, rows) in networks {
            println!(
                "| {teacher} | {budget} | {recipe}, {epochs} | {name} | {:.2} % | {:.2} | {} | {:.3} | {} | {} | {:.1} % | {:.2} M |",
                100.0 * top1,
                100.0 * standard_error(&rows),
                rows.len(),
                mean(&rows, |row| row.ratio),
                if rows.iter().all(|row| row.meets_budget) { "yes" } else { "no" },
                difference(&rows).map_or(String::new(), |[points, error]| {
                    format!("{:+.2} ± {:.2}", 100.0 * points, 100.0 * error)
                }),
                100.0 * mean(&rows, |row| row.agreement.unwrap_or(f64::NAN)),
                mean(&rows, |row| row.params as f64) / 1e6,
            );
        }
    }
}

/// The name of a row's recipe, and what tells it from others of that name.
fn title(row: &Row, rows: &[Row]) -> String {
    let others = rows.iter().filter(|other| other.recipe == row.recipe);
    format!("{}{}", row.recipe, differing(&row.settings, others.map(|other| &other.settings)))
}

/// The name of a row's network, and what tells its settings from others of that name.
fn network_title(row: &Row, rows: &[Row]) -> String {
    let others = rows.iter().filter(|other| other.network == row.network).map(|other| &other.method);
    match row.method.is_empty() && others.clone().any(|other| !other.is_empty()) {
        true => format!("{}, settings not kept", row.network),
        false => format!("{}{}", row.network, differing(&row.method, others)),
    }
}

/// The keys that others have otherwise.
fn differing<'a>(own: &Settings, others: impl Iterator<Item = &'a Settings> + Clone) -> String {
    // Rows of which no keys are known say nothing about them.
    let others = others.filter(|other| !other.is_empty());
    let keys = own.iter().filter(|(key, value)| others.clone().any(|other| other.get(*key) != Some(*value)));
    // How maps are compared that are not tells nothing.
    let compares = own.get("features").is_none_or(|weight| *weight != 0.0);
    let keys = keys.filter(|(key, _)| compares || !["matching", "feature_layers"].contains(&key.as_str()));
    keys.map(|(key, value)| format!(" {key} {}", in_words(value))).collect::<Vec<_>>().join(",")
}

/// A value of a recipe, which may change in the course of the training.
fn in_words(value: &Value) -> String {
    match (&value["from"], &value["to"]) {
        (Value::Null, _) | (_, Value::Null) => value.to_string(),
        (from, to) => format!("{from} to {to}"),
    }
}

fn mean(rows: &[&Row], what: impl Fn(&Row) -> f64) -> f64 {
    rows.iter().map(|row| what(row)).sum::<f64>() / rows.len() as f64
}

/// Of the mean top-1 accuracy: by the number of images, which are the same for all seeds, and by the spread over seeds.
fn standard_error(rows: &[&Row]) -> f64 {
    let (n, top1) = (rows.len() as f64, mean(rows, |row| row.top1));
    let by_images = top1 * (1.0 - top1) / mean(rows, |row| row.images as f64);
    let by_seeds = match rows.len() {
        1 => 0.0,
        _ => mean(rows, |row| (row.top1 - top1).powi(2)) / (n - 1.0),
    };
    (by_images + by_seeds).sqrt()
}

/// Between controls and the students beside them, in the mean over seeds, with its standard error: by the images, which are the same for all
/// seeds, and by the spread over seeds.
fn difference(rows: &[&Row]) -> Option<[f64; 2]> {
    // Rows that were made before it was looked at have none: then nothing is known of the mean.
    let all = rows.iter().map(|row| row.difference).collect::<Option<Vec<[f64; 2]>>>()?;
    let n = all.len() as f64;
    let mean = |what: &dyn Fn(&[f64; 2]) -> f64| all.iter().map(what).sum::<f64>() / n;
    let top1 = mean(&|[top1, _]| *top1);
    let by_images = mean(&|[_, error]| error * error);
    let by_seeds = if all.len() > 1 { mean(&|[own, _]| (own - top1).powi(2)) / (n - 1.0) } else { 0.0 };
    (!all.is_empty()).then(|| [top1, (by_images + by_seeds).sqrt()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(network: &str, seed: u64, top1: f64) -> Row {
        Row {
            teacher: "resnet56_cifar".into(),
            budget: "0.5x".into(),
            recipe: "finetune-short".into(),
            settings: BTreeMap::from([("temperature".into(), 2.0.into()), ("batch".into(), 128.into())]),
            epochs: 2,
            seed,
            network: network.into(),
            method: Settings::new(),
            train: "webdataset:train.tar".into(),
            deployment: "cpu-onnxruntime-b64-t1-fp32".into(),
            ratio: 0.49,
            ratio_ci: [0.485, 0.495],
            meets_budget: true,
            top1,
            images: 10_000,
            loss: 0.4,
            agreement: Some(0.93),
            difference: None,
            params: 400_000,
            macs: 60_000_000,
            teacher_top1: 0.9,
        }
    }

    #[test]
    fn rows_add_up_and_the_same_row_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("accuracy.jsonl");
        keep(&path, vec![row("LANA", 0, 0.88), row("random", 0, 0.8)]).unwrap();
        keep(&path, vec![row("LANA", 1, 0.9), row("random", 0, 0.81)]).unwrap();
        let rows = load(&path).unwrap();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows.iter().find(|r| r.network == "random").unwrap().top1, 0.81);
        let students: Vec<&Row> = rows.iter().filter(|r| r.network == "LANA").collect();
        assert!((mean(&students, |r| r.top1) - 0.89).abs() < 1e-12);
        let by_images = 0.89f64 * 0.11 / 1e4;
        assert!((standard_error(&students) - (by_images + 0.01f64.powi(2)).sqrt()).abs() < 1e-12);
        assert!((standard_error(&students[..1]) - (0.88f64 * 0.12 / 1e4).sqrt()).abs() < 1e-12);
        let mut warmer = row("LANA", 0, 0.89);
        warmer.settings.insert("temperature".into(), 4.0.into());
        assert_eq!(title(&warmer, &rows), "finetune-short temperature 4.0");
        keep(&path, vec![warmer]).unwrap();
        assert_eq!(load(&path).unwrap().len(), 4);
        // A weight that changes, and how maps are compared where they are.
        let weights = serde_json::json!({"from": 256.0, "to": 0.0, "shape": "linear"});
        let [none, some] = [(0.0.into(), "cosine"), (weights, "mse")].map(|(weight, matching)| {
            let mut row = row("LANA", 0, 0.89);
            row.recipe = "cifar".into();
            row.settings
                .extend([("features".to_string(), weight), ("matching".to_string(), matching.into())]);
            row
        });
        let both = [none, some];
        let titles = both.iter().map(|row| title(row, &both)).collect::<Vec<_>>();
        assert_eq!(titles, ["cifar features 0.0", "cifar features 256.0 to 0.0, matching \"mse\""]);
        // Another way to select is another row, told from the first by what differs.
        let [mut single, mut grouped] = [row("LANA", 0, 0.88), row("LANA", 0, 0.89)];
        for (row, group) in [(&mut single, 1), (&mut grouped, 3)] {
            row.method =
                BTreeMap::from([("layers.group".into(), group.into()), ("pool".into(), "compact".into())]);
        }
        keep(&path, vec![single.clone(), grouped.clone()]).unwrap();
        let rows = load(&path).unwrap();
        assert_eq!(rows.len(), 6);
        assert_eq!(network_title(&grouped, &rows), "LANA layers.group 3");
        assert_eq!(network_title(&single, &rows), "LANA layers.group 1");
        let before = rows.iter().find(|row| row.network == "LANA" && row.method.is_empty()).unwrap();
        assert_eq!(network_title(before, &rows), "LANA, settings not kept");
        // Three seeds: the images are the same, the spread is divided among them.
        let seeds =
            [0.01, 0.02, 0.03].map(|top1| Row { difference: Some([top1, 0.003]), ..row("random", 0, 0.8) });
        let [points, error] = difference(&seeds.iter().collect::<Vec<_>>()).unwrap();
        assert!((points - 0.02).abs() < 1e-12, "{points}");
        assert!((error - (0.003f64.powi(2) + 1e-4 / 3.0).sqrt()).abs() < 1e-12, "{error}");
        assert_eq!(difference(&[&single]), None);
        std::fs::write(&path, "{\n").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("line 1"));
    }
}
