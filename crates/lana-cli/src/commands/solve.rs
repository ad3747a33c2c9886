use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use lana_select::{Curve, Outcome, Point, Problem, Status};
use serde::Serialize;

use crate::failure::Failure;
use crate::output;

const EXAMPLE: &str = r#"Example:
  lana solve problem.json --solutions 10
  lana solve problem.json --pareto latency_ms
  lana solve problem.json --format lp > problem.lp
  echo '{"layers":[{"name":"a","choices":[
      {"name":"teacher","score":0.0,"costs":{"latency_ms":2.0}},
      {"name":"half","score":0.1,"costs":{"latency_ms":1.0}},
      {"name":"identity","score":0.5,"costs":{"latency_ms":0.0}}]}],
    "budgets":{"latency_ms":{"max":1.0}},
    "forbidden":[{"layers":["*"],"choices":["identity"]}]}' | lana solve -"#;

/// Solve the integer program alone: JSON in, JSON out
///
/// Picks one choice per layer with the least total score within all budgets, then, if more solutions are asked for, the
/// best ones that overlap with those before in at most max_overlap of the layers. The result goes to stdout in any case;
/// if no selection meets the budgets, the exit status is 3 and stderr says which budget binds, and where.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The problem, or - for stdin
    #[arg(value_name = "PROBLEM.json")]
    problem: PathBuf,

    /// All the best trades of score for this cost instead, exactly
    #[arg(long, value_name = "COST")]
    pareto: Option<String>,

    /// With --pareto, name the choices of every point
    #[arg(long, requires = "pareto")]
    choices: bool,

    /// json solves; lp writes the program for another solver, without solving it
    #[arg(long, value_enum, default_value_t, conflicts_with = "pareto")]
    format: Format,

    /// How many solutions, whatever the problem says
    #[arg(long, value_name = "K")]
    solutions: Option<usize>,

    /// Amount of score that may be given away for speed, whatever the problem says
    #[arg(long, value_name = "SCORE")]
    gap: Option<f64>,

    /// Longest time in seconds, whatever the problem says
    #[arg(long, value_name = "SECONDS")]
    time_limit: Option<f64>,

    /// Threads of the search, one per core unless said; the result is the same for any number
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,

    /// Print the object on one line
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

/// What is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Format {
    #[default]
    Json,
    Lp,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (name, text) = self.read()?;
        let problem = self.problem(&name, &text)?;
        // What is wrong with the numbers is wrong in that file.
        let in_file = |error: lana_select::Error| match error.is_input() {
            true => Failure::input(format!("{name}: {error}"), ""),
            false => error.into(),
        };
        if self.format == Format::Lp {
            return output::results(&problem.to_lp().map_err(in_file)?);
        }
        if let Some(cost) = &self.pareto {
            let started = Instant::now();
            let curve = lana_select::pareto(&problem, cost).map_err(in_file)?;
            let elapsed_s = started.elapsed().as_secs_f64();
            output::stream(|stdout| self.write_curve(stdout, cost, &curve, elapsed_s))?;
            return if curve.points().is_empty() { explain_empty(problem, cost) } else { Ok(()) };
        }
        let outcome = lana_select::solve(&problem).map_err(in_file)?;
        match self.json {
            true => output::json(&outcome)?,
            false => output::indented_json(&outcome)?,
        }
        conclude(&outcome)
    }

    /// The file's name for messages, and what it holds.
    fn read(&self) -> Result<(String, Vec<u8>), Failure> {
        if self.problem.as_os_str() != "-" {
            output::must_exist(&self.problem)?;
            let name = self.problem.display().to_string();
            let text = std::fs::read(&self.problem);
            return text
                .map(|text| (name, text))
                .map_err(|error| unreadable(&self.problem.display().to_string(), &error));
        }
        let mut text = Vec::new();
        match std::io::stdin().lock().read_to_end(&mut text) {
            Ok(_) => Ok(("stdin".into(), text)),
            Err(error) => Err(unreadable("stdin", &error)),
        }
    }

    /// The problem as the options change it.
    fn problem(&self, name: &str, text: &[u8]) -> Result<Problem, Failure> {
        let hint = "`lana solve --help` shows a problem; numbers must be finite";
        let mut json = serde_json::Deserializer::from_slice(text);
        let read = serde_path_to_error::deserialize::<_, Problem>(&mut json).map_err(|error| {
            let place = match error.path().to_string() {
                path if path == "." || path == "?" => String::new(),
                path => format!("{path}: "),
            };
            Failure::input(format!("{name}: {place}{}", error.inner()), hint)
        });
        let mut problem = read?;
        json.end().map_err(|error| Failure::input(format!("{name}: {error}"), hint))?;
        problem.solutions = self.solutions.unwrap_or(problem.solutions);
        problem.gap = self.gap.unwrap_or(problem.gap);
        problem.time_limit_s = self.time_limit.or(problem.time_limit_s);
        problem.threads = self.threads.or(problem.threads);
        Ok(problem)
    }

    /// An object, with a point on each line unless all is to be on one.
    fn write_curve(&self, out: &mut dyn Write, cost: &str, curve: &Curve, elapsed_s: f64) -> io::Result<()> {
        let new_line = if self.json { "" } else { "\n" };
        write!(out, "{{\"cost\":{},\"points\":[", serde_json::to_string(cost)?)?;
        for (index, point) in curve.points().iter().enumerate() {
            let choices = self.choices.then(|| curve.selection(index));
            let separator = if index > 0 { "," } else { "" };
            write!(out, "{separator}{new_line}")?;
            serde_json::to_writer(&mut *out, &Row { point: *point, choices })?;
        }
        writeln!(out, "{new_line}],\"elapsed_s\":{elapsed_s}}}")
    }
}

/// A point of a curve as it is written.
#[derive(Serialize)]
struct Row {
    #[serde(flatten)]
    point: Point,
    #[serde(skip_serializing_if = "Option::is_none")]
    choices: Option<Vec<String>>,
}

/// Why a curve has no points: no selection meets the budget, or none of the best does.
fn explain_empty(problem: Problem, cost: &str) -> Result<(), Failure> {
    let outcome = lana_select::solve(&Problem { solutions: 1, ..problem })?;
    if outcome.status == Status::Infeasible {
        return conclude(&outcome);
    }
    output::error_line(&format!("warning: no point of the curve lies within the budget for `{cost}`"));
    Ok(())
}

fn unreadable(name: &str, error: &std::io::Error) -> Failure {
    Failure::Told { message: format!("{name}: {error}"), hint: None, status: 1 }
}

/// Exit status where no selection meets the budgets.
const INFEASIBLE: u8 = 3;

/// What the exit status and stderr say about an outcome.
fn conclude(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.status == Status::Infeasible {
        let infeasible = outcome.infeasible.as_ref().map(|i| i.message.clone());
        let shortfall = outcome.shortfall.as_ref().map(|s| s.message.clone());
        let message = infeasible.or(shortfall).unwrap_or_else(|| "no selection meets the budgets".into());
        return Err(Failure::Told { message, hint: None, status: INFEASIBLE });
    }
    if let Some(shortfall) = &outcome.shortfall {
        output::error_line(&format!("warning: {}", shortfall.message));
    }
    Ok(())
}
