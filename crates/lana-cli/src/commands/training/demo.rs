use std::path::PathBuf;

use lana::{DemoOptions, Run};
use serde_json::json;

use super::{stage, summary};
use crate::failure::Failure;
use crate::format;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str = "\
Example:
  lana demo
  lana demo --out another-run --budget 0.4x --seed 1";

/// A small real run on images it draws itself, in minutes
///
/// Trains a small teacher on generated images, then accelerates it with all steps, from the latency table to the report.
/// Needs no data, no weights and no network. The same command goes on where an interrupted one stopped.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// The run directory: created, or gone on with
    #[arg(long, value_name = "DIR", default_value = "demo-run")]
    out: PathBuf,

    /// What the student may cost at most: 0.5x (of the teacher's latency), 2ms, params=0.4x …
    #[arg(long, value_name = "BUDGET", default_value = "0.5x")]
    budget: String,

    /// Seed of everything random, the images too
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let options = DemoOptions { budget: self.budget.parse()?, seed: self.seed };
        let result = lana::demo(&self.out, &options, terminal)?;
        let student = &result.student;
        let file = stage::student_file(&self.out, &student.budget);
        if self.json {
            let mut student = output::to_json(student)?;
            student["onnx"] = json!(file);
            return output::json(&json!({
                "run": self.out,
                "teacher": result.teacher,
                "teacher_latency_ms": result.teacher_latency_ms,
                "student": student,
                "report": result.report,
                "seconds": result.seconds,
            }));
        }
        let mut text = summary::table(&result.teacher.name, std::slice::from_ref(student)).to_string();
        let config = Run::open(&self.out)?.config()?;
        text += &format!("\n{}\n", summary::how_measured(&config));
        text += &format!("{}\n\n", comparison(student.ratio(), student.top1 - student.teacher_top1));
        text += &format!("report   {}\n", result.report.display());
        text += &format!("student  {}\n", file.display());
        output::results(&text)?;
        output::error_line(&format!("demo: done ({})", format::duration(result.seconds)));
        Ok(())
    }
}

/// The student against its teacher in a sentence.
fn comparison(ratio: f64, accuracy: f64) -> String {
    format!(
        "The student is {:.2} times as fast as its teacher; its accuracy differs by {:+.2} points.",
        1.0 / ratio,
        accuracy * 100.0
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_comparison_has_a_sign() {
        assert_eq!(
            comparison(0.485, -0.0055),
            "The student is 2.06 times as fast as its teacher; its accuracy differs by -0.55 points."
        );
        assert!(comparison(0.5, 0.001).contains("+0.10 points"));
    }
}
