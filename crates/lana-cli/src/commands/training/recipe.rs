use lana::Recipe;

use crate::failure::Failure;
use crate::output;

const EXAMPLE: &str = "\
Example:
  lana recipe
  lana recipe cifar > mine.toml
  lana finetune run --recipe mine.toml";

/// Print how students are trained: a preset to edit, or what a file comes to
///
/// Of a preset the text is printed with its comments; of a file every key, those too that it leaves out.
#[derive(clap::Args)]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// A preset or a TOML file; the names of the presets if it is not given
    #[arg(value_name = "NAME|FILE.toml")]
    name: Option<String>,

    /// Print one JSON object with every key instead of TOML
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) fn run(&self) -> Result<(), Failure> {
        let Some(name) = &self.name else {
            let names: Vec<&str> = Recipe::presets().collect();
            return match self.json {
                true => output::json(&serde_json::json!({ "recipes": names })),
                false => output::results(&names.join("\n")),
            };
        };
        let recipe = Recipe::named(name)?;
        match (self.json, Recipe::preset(name)) {
            (true, _) => output::json(&recipe),
            (false, Some(text)) => output::results(text.trim_end()),
            (false, None) => output::results(recipe.to_toml().trim_end()),
        }
    }
}
