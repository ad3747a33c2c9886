use std::io::Read;
use std::path::PathBuf;

use lana_select::{Outcome, Problem, Status};

use crate::failure::Failure;
use crate::output;

const EXAMPLE: &str = r#"Example:
  lana solve problem.json
  echo '{"layers":[{"name":"a","choices":[
      {"name":"teacher","score":0.0,"costs":{"latency_ms":2.0}},
      {"name":"identity","score":0.5,"costs":{"latency_ms":0.0}}]}],
    "budgets":{"latency_ms":{"max":1.0}},"solutions":1}' | lana solve -"#;

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

    /// Print the object on one line
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let (name, text) = self.read()?;
        let problem: Problem = serde_json::from_slice(&text).map_err(|error| {
            Failure::input(
                format!("{name}: {error}"),
                "`lana solve --help` shows a problem; numbers must be finite",
            )
        })?;
        let outcome = lana_select::solve(&problem)?;
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
                .map_err(|source| lana::Error::Io { path: self.problem.clone(), source }.into());
        }
        let mut text = Vec::new();
        match std::io::stdin().lock().read_to_end(&mut text) {
            Ok(_) => Ok(("stdin".into(), text)),
            Err(source) => Err(lana::Error::Io { path: "stdin".into(), source }.into()),
        }
    }
}

/// What the exit status and stderr say about an outcome.
fn conclude(outcome: &Outcome) -> Result<(), Failure> {
    if outcome.status == Status::Infeasible {
        let infeasible = outcome.infeasible.as_ref().map(|i| i.message.clone());
        let shortfall = outcome.shortfall.as_ref().map(|s| s.message.clone());
        let message = infeasible.or(shortfall).unwrap_or_else(|| "no selection meets the budgets".into());
        return Err(Failure::Lana(lana::Error::Infeasible { message, hint: String::new() }));
    }
    if let Some(shortfall) = &outcome.shortfall {
        output::error_line(&format!("warning: {}", shortfall.message));
    }
    Ok(())
}
