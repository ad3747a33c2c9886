use std::path::{Path, PathBuf};

use lana_latency::{Check, CheckOptions, Device, Figures, Plan, Progress, Table};
use serde_json::json;

use crate::failure::Failure;
use crate::format;
use crate::output::{self, Align};
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana profile run
  lana profile run --check
  lana profile run --deployment torch-b64

  lana profile run --bundle edge.lana                     on this machine, then on the device:
  lana profile --from-bundle edge.lana --out edge.json    and back on this machine:
  lana profile run --import edge.json";

/// Step: measure what every operation costs on this device, or on another
///
/// Writes RUN/latency/DEVICE-….json, the lookup table. A run that moves to another device needs this step again, and no
/// other before selection. Does nothing when it is done already. Without --deployment it measures what [latency] in run.toml and
/// the run's budgets speak of.
///
/// For a device that has no room for a run, --bundle writes what it needs into one file; there, --from-bundle measures
/// it, without libtorch, images or run; --import brings the table into the run. From then on budgets of the run speak of
/// that device. Stopped at any moment, the same command goes on where it was.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The run directory that `lana accelerate --out` made
    #[arg(value_name = "RUN", required_unless_present = "from_bundle")]
    run: Option<PathBuf>,

    /// Write what another device needs to measure the table to this file
    #[arg(long, value_name = "FILE", group = "mode")]
    bundle: Option<PathBuf>,

    /// How networks are run, such as cuda-tensorrt-b128-fp16; what is not said is as in the run
    #[arg(long, value_name = "LABEL", conflicts_with_all = ["from_bundle", "import", "force"])]
    deployment: Option<String>,

    /// Measure the table of such a file on this device
    #[arg(long, value_name = "FILE", group = "mode", conflicts_with = "run")]
    from_bundle: Option<PathBuf>,

    /// Where to write that table [default: DEVICE-….json in this folder]
    #[arg(long, value_name = "TABLE.json", requires = "from_bundle")]
    out: Option<PathBuf>,

    /// Bring a table that another device measured into the run
    #[arg(long, value_name = "TABLE.json", group = "mode")]
    import: Option<PathBuf>,

    /// Go by the table of another device that the run has, instead of measuring this one; kept in run.toml
    #[arg(long, group = "mode")]
    force: bool,

    /// Measure the whole teacher and random selections, and show how well the table predicts them
    #[arg(long, conflicts_with_all = ["bundle", "import", "force"])]
    check: bool,

    /// Random selections for --check
    #[arg(long, value_name = "N", default_value = "20", requires = "check")]
    selections: std::num::NonZeroUsize,

    /// Longest time for --check, in seconds
    #[arg(long, value_name = "S", default_value = "180", requires = "check", value_parser = super::measure::positive)]
    time_limit: f64,

    /// Decides which selections --check draws
    #[arg(long, value_name = "N", default_value = "0", requires = "check")]
    seed: u64,

    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        if let Some(bundle) = &self.from_bundle {
            return self.measure(bundle, terminal);
        }
        match &self.run {
            Some(run) => self.on_run(run, terminal),
            None => Err(Failure::input("no run is given", "give the run directory, or --from-bundle FILE")),
        }
    }

    #[cfg(not(feature = "training"))]
    fn on_run(&self, run: &Path, _: &Terminal) -> Result<(), Failure> {
        Err(Failure::input(
            format!(
                "{}: this lana was built without its feature `training` and knows no runs",
                run.display()
            ),
            "here, it measures what --bundle wrote elsewhere: --from-bundle FILE",
        ))
    }

    #[cfg(feature = "training")]
    fn on_run(&self, run: &Path, terminal: &Terminal) -> Result<(), Failure> {
        if let Some(file) = &self.bundle {
            let networks = lana::write_bundle(run, file, self.deployment.as_deref(), terminal)?;
            return self.written(file, networks);
        }
        if let Some(file) = &self.import {
            let imported = lana::import_table(run, file, terminal)?;
            if self.json {
                return output::json(&imported);
            }
            let mut text = format!(
                "{}: teacher {} ms by {}\n",
                imported.table.display(),
                format::milliseconds(imported.teacher_ms),
                imported.deployment
            );
            if !imported.here {
                text += &format!(
                    "Budgets of the run now speak of that device: `table = \"{}\"` under [latency] in run.toml.\n\
                     Networks cannot be timed for it here: `lana select` goes by the table alone.\n",
                    imported.device
                );
            }
            return output::results(&text);
        }
        if self.force {
            let device = lana::force_table(run, terminal)?;
            if self.json {
                return output::json(&json!({ "run": run, "device": device }));
            }
            return output::results(&match device {
                Some(device) => format!(
                    "Budgets of the run now speak of {device}: `table` under [latency] in run.toml.\n\
                     Networks cannot be timed for it here: `lana select` goes by the table alone.\n"
                ),
                None => "The run has a table of this device, which counts.\n".to_string(),
            });
        }
        if !self.check {
            match &self.deployment {
                Some(label) => lana::make_table(run, label, terminal)?,
                None => lana::run_stage(run, lana::Stage::Profile, &[], terminal)?,
            }
            return if self.json { output::json(&json!({ "run": run })) } else { Ok(()) };
        }
        let check = lana::check_table(run, self.deployment.as_deref(), &self.options(), terminal)?;
        if self.json { output::json(&check) } else { output::results(&describe(&check)) }
    }

    fn options(&self) -> CheckOptions {
        CheckOptions { selections: self.selections.get(), time_limit_s: self.time_limit, seed: self.seed }
    }

    #[cfg(feature = "training")]
    fn written(&self, file: &Path, networks: usize) -> Result<(), Failure> {
        if self.json {
            return output::json(&json!({ "bundle": file, "networks": networks }));
        }
        let file = file.display();
        output::results(&format!(
            "{file}: {networks} networks; on the device: lana profile --from-bundle {file}\n"
        ))
    }

    /// On the target device: nothing but lana-latency.
    fn measure(&self, bundle: &Path, terminal: &Terminal) -> Result<(), Failure> {
        let plan = Plan::load(bundle)?;
        let deployment = plan.options().deployment;
        let device = Device::of(deployment.processor);
        let default = || PathBuf::from(format!("{}-{deployment}.json", device.slug()));
        let path = self.out.clone().unwrap_or_else(default);
        let mut table = if path.exists() {
            let table = Table::load(&path)?;
            table.check_device(&device)?;
            if table.networks != plan.networks() || table.deployment != deployment {
                return Err(Failure::input(
                    format!("{}: a table of other networks than the bundle's", path.display()),
                    "give another --out, or delete it",
                ));
            }
            terminal.say(&format!("{}: has been measured already", path.display()));
            table
        } else {
            let mut bar = Bar::new(terminal, "profile");
            let mut say = |line: &str| terminal.say(line);
            let table = plan.measure_to(&path, &mut say, &mut |p| bar.show(p))?;
            terminal.finish(&format!("teacher {} ms", format::milliseconds(table.teacher_ms())));
            table
        };
        if self.check {
            let mut bar = Bar::new(terminal, "check");
            let check = plan.check(&table, &self.options(), &mut |p| bar.show(p))?;
            terminal.finish("done");
            table.check = Some(check);
            table.save(&path)?;
        }
        if self.json {
            return output::json(&json!({
                "table": path,
                "device": table.device,
                "deployment": deployment.to_string(),
                "runtime_version": table.runtime_version,
                "teacher_ms": table.teacher_ms(),
                "seconds": table.seconds,
                "noisy": table.noisy(),
                "check": table.check,
            }));
        }
        let mut text = format!(
            "{}: teacher {} ms by {deployment}, {} noisy entries, in {}\n",
            path.display(),
            format::milliseconds(table.teacher_ms()),
            table.noisy(),
            format::duration(table.seconds)
        );
        if let (true, Some(check)) = (self.check, &table.check) {
            text += &format!("\n{}", describe(check));
        }
        output::results(&text)
    }
}

/// Shows the passes of a measurement, a bar each.
struct Bar<'a> {
    terminal: &'a Terminal,
    title: &'static str,
    pass: Option<usize>,
}

impl<'a> Bar<'a> {
    fn new(terminal: &'a Terminal, title: &'static str) -> Self {
        Bar { terminal, title, pass: None }
    }

    fn show(&mut self, p: Progress) {
        if self.pass.replace(p.pass) != Some(p.pass) {
            let again = if p.pass > 0 { ": what is unsure, again" } else { "" };
            self.terminal.begin(&format!("{}{again}", self.title), p.total as u64, "networks");
        }
        self.terminal.advance(p.done as u64, "");
    }
}

/// The figures of a check, and the selections by how many layers they replace.
fn describe(check: &Check) -> String {
    let mut table = output::Table::new(&[
        ("prediction", Align::Left),
        ("networks", Align::Right),
        ("mean error", Align::Right),
        ("worst", Align::Right),
        ("bias", Align::Right),
        ("Kendall", Align::Right),
        ("Spearman", Align::Right),
    ]);
    let rows = [
        ("the table", &check.table),
        ("corrected by all others", &check.leave_one_out),
        ("corrected by half", &check.half),
    ];
    for (title, figures) in rows {
        let Figures { networks, mean, worst, bias, kendall, spearman } = *figures;
        table.row([
            title.to_string(),
            networks.to_string(),
            format!("{:.1} %", 100.0 * mean),
            format!("{:.1} %", 100.0 * worst),
            format!("{:+.1} %", 100.0 * bias),
            format!("{kendall:.2}"),
            format!("{spearman:.2}"),
        ]);
    }
    let mut networks = output::Table::new(&[
        ("layers replaced", Align::Right),
        ("measured", Align::Right),
        ("predicted", Align::Right),
        ("error", Align::Right),
    ]);
    for network in &check.networks {
        networks.row([
            network.replaced.to_string(),
            format::ratio(network.ratio),
            format::ratio(network.predicted),
            format!("{:+.1} %", 100.0 * (network.predicted / network.ratio - 1.0)),
        ]);
    }
    format!(
        "{table}\n{networks}\nRatios to the teacher, {} ms now ({:+.1} % in the table); they are measured to {:.1} % (median \
         standard error).\n",
        format::milliseconds(check.teacher_ms),
        100.0 * check.teacher_error,
        100.0 * check.measured_error
    )
}

#[cfg(test)]
mod tests {
    use lana_latency::Checked;

    use super::*;

    #[test]
    fn a_check_is_shown() {
        let figures =
            Figures { networks: 2, mean: 0.021, worst: 0.034, bias: -0.004, kendall: 1.0, spearman: 1.0 };
        let network = Checked {
            choices: Vec::new(),
            replaced: 12,
            ratio: 0.5,
            error: 0.01,
            predicted: 0.51,
            leave_one_out: 0.5,
        };
        let check = Check {
            created: 0,
            seconds: 1.0,
            teacher_ms: 12.34,
            teacher_error: 0.002,
            measured_error: 0.007,
            table: figures,
            leave_one_out: figures,
            half: Figures { networks: 1, ..figures },
            networks: vec![network.clone(), Checked { replaced: 3, ratio: 0.9, predicted: 0.881, ..network }],
        };
        let expected = "\
prediction               networks  mean error  worst    bias  Kendall  Spearman
the table                       2       2.1 %  3.4 %  -0.4 %     1.00      1.00
corrected by all others         2       2.1 %  3.4 %  -0.4 %     1.00      1.00
corrected by half               1       2.1 %  3.4 %  -0.4 %     1.00      1.00

layers replaced  measured  predicted   error
             12    0.500x     0.510x  +2.0 %
              3    0.900x     0.881x  -2.1 %

Ratios to the teacher, 12.34 ms now (+0.2 % in the table); they are measured to 0.7 % (median standard error).
";
        assert_eq!(describe(&check), expected);
    }
}
