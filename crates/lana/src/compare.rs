//! Which recipe is best? The student of a run trained under several, from the same weights on the same images.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::context::Context;
use crate::stages::finetune::{self, Trainer};
use crate::{Assessment, Budget, Progress, Recipe, Result, checkpoint, read_or_redo, write_json};

/// What came of one recipe.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecipeRow {
    /// What it is called.
    pub name: String,
    /// The recipe.
    pub recipe: Recipe,
    /// Operations of the student that was trained.
    #[serde(default)]
    pub choices: Vec<String>,
    /// Seed of the run, and training images it was given if not all.
    pub data: (u64, Option<usize>),
    /// Seconds of training and validation.
    pub seconds: f64,
    /// The student on the validation images.
    pub assessment: Assessment,
}

/// Trains the student selected for `budget` under each recipe, on `images` of the training images (all if absent), and gives each row to
/// `told` as soon as it is there. Rows are kept in the run, trainings that were interrupted go on.
///
/// # Errors
/// If no student has been selected for the budget, or a training fails.
pub fn compare_recipes(
    run: &Path,
    budget: &Budget,
    recipes: &[(String, Recipe)],
    images: Option<usize>,
    progress: &dyn Progress,
    mut told: impl FnMut(&RecipeRow),
) -> Result<Vec<RecipeRow>> {
    let context = Context::open(run, progress)?;
    let (teacher, _) = context.teacher()?;
    let (choices, graph, weights) = finetune::selected(&context, budget, &teacher)?;
    for (name, recipe) in recipes {
        recipe.validate(name)?;
    }
    let mut rows = Vec::new();
    for (name, recipe) in recipes {
        let data = (context.config.seed, images);
        let folder = context.budget_dir(budget).join("recipes").join(crate::slug(name));
        let file = folder.join("row.json");
        let before = read_or_redo::<RecipeRow>(&file, progress)?;
        let same =
            |row: &RecipeRow| row.recipe.trains_like(recipe) && row.data == data && row.choices == choices;
        let row = match before.filter(same) {
            Some(row) => row,
            None => {
                let trainer = Trainer {
                    context: &context,
                    teacher: Some(&teacher),
                    recipe,
                    input: &teacher,
                    title: name,
                    key: format!("{} {data:?}", choices.join(",")),
                    folder: &folder,
                    images,
                    held_out: 0,
                };
                let trained = trainer.train(&graph, &weights)?;
                let seconds = trained.epochs.iter().map(|epoch| epoch.seconds).sum();
                let (name, recipe, assessment) = (name.clone(), recipe.clone(), trained.assessment);
                let row = RecipeRow { name, recipe, choices: choices.clone(), data, seconds, assessment };
                write_json(&file, &row)?;
                checkpoint::clear(&folder)?;
                row
            }
        };
        told(&row);
        rows.push(row);
    }
    Ok(rows)
}
