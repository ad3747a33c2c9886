//! Controls: what a student must beat to have been worth the search.
//!
//! A student that is faster and nearly as accurate as its teacher proves little by itself. Perhaps leaving out layers would have
//! done as well, or any selection within the budget, or the smaller network of the zoo that anybody could have taken. So each
//! of these is made beside it, under the same recipe, from the same teacher and images, and measured in the same way:
//!
//! - `skip-only`: the best selection of teacher's layers, identities and, of layers of several blocks, the first blocks, selected
//!   as the student is;
//! - `random`: a selection drawn at random among those that meet the budget; nothing is chosen by its loss;
//! - `uniform`: one operation in all layers that offer it (the teacher's own in the others), the best that meets the budget;
//! - a network of the zoo, pretrained or from nothing, whatever its latency;
//! - an ONNX file: what another tool made of the teacher, such as a pruner.
//!
//! The first three are selections for a budget and run through the same stages as the student, in a folder of their own.

mod propose;

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use lana_graph::{Cost, Graph, Weights};
use lana_latency::Deployment;
use lana_models::init;
use lana_models::zoo::{self, ZooOptions};
use serde::{Deserialize, Serialize};

use crate::teacher;
use crate::{
    Accuracy, Assessment, Difference, Error, Measured, Progress, Recipe, Result, StudentMetrics,
    WeightsSource,
};
pub(crate) use propose::{random, uniform};

/// What is made to compare a student with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// The best selection that only leaves out blocks.
    SkipOnly,
    /// A selection drawn at random among those that meet the budget.
    Random,
    /// One operation in all layers that offer it.
    Uniform,
    /// A network of the zoo, with these weights to begin with (random ones if absent), or an ONNX file with its own.
    Network {
        /// Its name, or the file's path.
        name: String,
        /// Where its weights come from.
        weights: Option<WeightsSource>,
    },
}

impl Control {
    /// The controls that are selections, by name.
    const SELECTIONS: [(&'static str, Control); 3] =
        [("skip-only", Control::SkipOnly), ("random", Control::Random), ("uniform", Control::Uniform)];

    /// A control by its name, or the network of the zoo of that name; `weights` are for the latter.
    ///
    /// # Errors
    /// If there is neither, or weights are given for what takes none.
    pub fn new(name: &str, weights: Option<WeightsSource>) -> Result<Self> {
        if let Some((_, control)) = Self::SELECTIONS.iter().find(|(known, _)| *known == name) {
            return match weights {
                None => Ok(control.clone()),
                Some(weights) => Err(Error::input(
                    format!("control `{name}` takes no weights, but {weights} are given"),
                    "leave out --weights: selections are made of the run's own operations",
                )),
            };
        }
        if teacher::is_file(name) {
            if let Some(weights) = weights {
                return Err(Error::input(
                    format!("control {name} is given the weights {weights}, but an ONNX file has its own"),
                    "leave out the weights",
                ));
            }
            if !Path::new(name).is_file() {
                return Err(Error::input(format!("control {name}: there is no such file"), "check the path"));
            }
            return Ok(Control::Network { name: name.into(), weights: None });
        }
        zoo::entry(name).map_err(|_| {
            Error::input(
                format!("control `{name}`: there is no such selection, and no such network"),
                "controls are skip-only, random, uniform, the networks that `lana zoo` lists, and ONNX files",
            )
        })?;
        Ok(Control::Network { name: name.into(), weights })
    }

    /// The network with its first weights, for a teacher's images and classes, fetching what is on the hub; random weights
    /// depend on `seed`. Nothing for selections.
    ///
    /// # Errors
    /// If a file cannot be read, or does not fit the teacher.
    pub(crate) fn begin(
        &self,
        teacher: &Graph,
        seed: u64,
        progress: &dyn Progress,
    ) -> Result<Option<(Graph, Weights)>> {
        let Control::Network { name, weights } = self else { return Ok(None) };
        let (input, classes) = (teacher.input_shape(), teacher.output_shape());
        if teacher::is_file(name) {
            let (graph, weights) = teacher::import(name)?;
            return match (graph.input_shape(), graph.output_shape()) == (input, classes) {
                true => Ok(Some((graph, weights))),
                false => Err(Error::input(
                    format!(
                        "control {name} makes {} of {}, the teacher {classes} of {input}",
                        graph.output_shape(),
                        graph.input_shape(),
                    ),
                    "name a file that takes the teacher's images and knows its classes",
                )),
            };
        }
        let options = ZooOptions {
            num_classes: Some(classes.elements()),
            resolution: input.dims().get(1).copied(),
            ..ZooOptions::default()
        };
        let graph = zoo::build(name, &options)?;
        if graph.input_shape() != input {
            return Err(Error::input(
                format!("control `{name}` takes {}, the teacher {input}", graph.input_shape()),
                "name a network that takes the teacher's images",
            ));
        }
        let weights = match weights {
            None => init::random(&graph, seed),
            Some(source) => {
                source.warn_of_another(name, progress);
                let weights = source.load(progress)?;
                weights.check(&graph)?;
                weights
            }
        };
        Ok(Some((graph, weights)))
    }

    /// Where its files are: under a budget's folder for selections, under the run's for networks.
    pub(crate) fn folder(&self) -> PathBuf {
        let name = match self {
            Control::Network { name, .. } if teacher::is_file(name) => crate::slug(&file_name(name)),
            Control::Network { name, weights: Some(_) } => name.clone(),
            Control::Network { name, weights: None } => format!("{name}-from-nothing"),
            selection => selection.to_string(),
        };
        PathBuf::from("controls").join(name)
    }

    /// The controls that are selections.
    pub(crate) fn selections() -> impl Iterator<Item = Control> {
        Self::SELECTIONS.into_iter().map(|(_, control)| control)
    }
}

impl FromStr for Control {
    type Err = Error;

    /// A control by its name, or `NETWORK=WEIGHTS`.
    fn from_str(text: &str) -> Result<Self> {
        match text.split_once('=') {
            // A path may have the sign in it.
            Some((name, weights)) if !Path::new(text).is_file() => Control::new(name, Some(weights.parse()?)),
            _ => Control::new(text, None),
        }
    }
}

impl fmt::Display for Control {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Control::Network { name, weights } => f.write_str(&network_title(name, weights.is_some())),
            selection => {
                let found = Self::SELECTIONS.iter().find(|(_, control)| control == selection);
                f.write_str(found.map_or("control", |(name, _)| name))
            }
        }
    }
}

/// What a network is called as a control.
fn network_title(name: &str, pretrained: bool) -> String {
    match teacher::is_file(name) {
        true => file_name(name),
        false => format!("{name}, {}", if pretrained { "pretrained" } else { "from nothing" }),
    }
}

/// The last part of a path.
fn file_name(path: &str) -> String {
    Path::new(path).file_name().map_or_else(|| path.to_string(), |name| name.to_string_lossy().into_owned())
}

impl NetworkControl {
    /// What it is called, as [`Control`] is.
    pub(crate) fn title(&self) -> String {
        network_title(&self.name, self.weights.is_some())
    }

    /// Whether its latency on a deployment is known.
    pub(crate) fn is_measured(&self, deployment: &Deployment) -> bool {
        let label = deployment.to_string();
        self.measured.iter().any(|timed| timed.deployment == label)
    }
}

/// `controls/NAME/control.json`: a network of the zoo, or of a file, that was trained as the students are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NetworkControl {
    /// The network's name in the zoo, or the path of its file.
    pub name: String,
    /// Where its first weights are from, if not from that file; none if they were random.
    pub weights: Option<String>,
    /// SHA-256 of its graph and first weights.
    pub start_sha256: String,
    /// How it was trained.
    pub recipe: Recipe,
    /// Seed of the run.
    pub seed: u64,
    /// Of the trained network on the validation images.
    pub assessment: Assessment,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// Its latency where it was measured, by the deployment's label.
    pub measured: Vec<Timed>,
    /// Largest difference between ONNX Runtime's and libtorch's logits, relative to the largest logit.
    pub export_difference: f64,
    /// SHA-256 of its trained weights.
    pub sha256: String,
}

/// A latency that was measured in turns with the teacher's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timed {
    /// The deployment's label.
    pub deployment: String,
    /// The latency.
    #[serde(flatten)]
    pub measured: Measured,
    /// The teacher's in the same run, in milliseconds.
    pub teacher_ms: f64,
}

/// A control beside the student of a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlMetrics {
    /// The control.
    pub control: String,
    /// The budget it is compared under.
    pub budget: String,
    /// Whether it meets the budget; none where that could not be measured.
    pub meets_budget: Option<bool>,
    /// On each deployment of the budget.
    pub timings: Vec<ControlTiming>,
    /// On the validation images.
    pub val: Accuracy,
    /// Standard error of its top-1 accuracy, by the number of images.
    pub top1_error: f64,
    /// Its top-1 accuracy less the student's; none where there is no student yet.
    #[serde(default)]
    pub difference: Option<Difference>,
    /// Share of the validation images on which it says what the teacher says.
    pub agreement: Option<f64>,
    /// Multiply-accumulates and parameters.
    #[serde(flatten)]
    pub cost: Cost,
    /// Whether it was trained by the recipe of the student; of the run, where there is no student yet.
    pub same_recipe: bool,
    /// Operation of each layer by the layer's name; empty for a network of the zoo.
    pub choices: Vec<(String, String)>,
}

/// A control on one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ControlTiming {
    /// The deployment's label.
    pub deployment: String,
    /// Its latency; none where it was not measured.
    pub measured: Option<Measured>,
}

impl ControlMetrics {
    /// Its latency as a share of the teacher's, on the budget's first deployment.
    pub fn ratio(&self) -> Option<f64> {
        Some(self.timings.first()?.measured?.ratio)
    }

    /// Its top-1 accuracy less that of a student under the same budget.
    pub fn difference_from(&self, student: &StudentMetrics) -> Difference {
        self.difference.unwrap_or_else(|| Difference::between((&self.val, None), (&student.val, None)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_have_names_and_networks_weights() {
        for (name, control) in Control::SELECTIONS {
            assert_eq!(Control::new(name, None).unwrap(), control);
            assert_eq!(
                (control.to_string(), control.folder()),
                (name.into(), format!("controls/{name}").into())
            );
            let error = Control::new(name, Some(PathBuf::from("w.safetensors").into())).unwrap_err();
            assert!(error.to_string().contains("w.safetensors"), "{error}");
        }
        let network = Control::new("resnet20_cifar", None).unwrap();
        assert_eq!(network.folder(), PathBuf::from("controls/resnet20_cifar-from-nothing"));
        let pretrained = Control::new("resnet20_cifar", Some(PathBuf::from("w").into())).unwrap();
        assert_eq!(pretrained.folder(), PathBuf::from("controls/resnet20_cifar"));
        let error = Control::new("skip", None).unwrap_err();
        assert!(error.to_string().contains("skip") && error.hint().unwrap().contains("skip-only"), "{error}");
    }
}
