use lana::ExportFormat;

use super::stage::{BudgetArgument, RunArgument};
use crate::failure::Failure;
use crate::output;
use crate::progress::Terminal;

const EXAMPLE: &str =
    "Example:\n  lana export run --budget 0.5x\n  lana export run --budget 0.5x --format pytorch";

/// Step: write the student as ONNX, verify it and measure it
///
/// The file is compared with the trained network output by output, and measured in turns with the teacher. Prints the
/// path of each file.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    #[command(flatten)]
    run: RunArgument,

    #[command(flatten)]
    budget: BudgetArgument,

    /// What the student is for; a run that is exported already is not measured again
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What a student is exported for.
#[derive(Clone, Copy, Debug, Default, clap::ValueEnum)]
enum Format {
    /// To be deployed: student.onnx
    #[default]
    Onnx,
    /// To be trained on in PyTorch: student.py, which loads the weights beside it
    Pytorch,
    /// The weights alone, in the form that trains: weights.safetensors
    Safetensors,
}

impl From<Format> for ExportFormat {
    fn from(format: Format) -> Self {
        match format {
            Format::Onnx => ExportFormat::Onnx,
            Format::Pytorch => ExportFormat::Pytorch,
            Format::Safetensors => ExportFormat::Safetensors,
        }
    }
}

impl Arguments {
    pub(super) fn run(&self, terminal: &Terminal) -> Result<(), Failure> {
        let budgets = self.budget.budgets()?;
        let paths = lana::export(&self.run.run, self.format.into(), &budgets, terminal)?;
        let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
        output::results(&paths.join("\n"))
    }
}
