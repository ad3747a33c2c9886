//! Teachers by name.
//!
//! Each family of networks has a file with one table that describes its members; [`build`] makes the graph of one and
//! [`list`] tells what there is. Parameter names are those of the weights people have (timm's where timm has the
//! network), so that a safetensors file loads unchanged; the residual blocks are the replaceable layers.
//!
//! To add a family: a file with its table and a function `models`, and a line in `FAMILIES`.

mod cifar_resnet;
mod drops;
mod efficientnet;
mod efficientnetv2;
mod mobilenet;
mod resnet;
mod stages;

use std::fmt;

use lana_graph::Graph;

use crate::{Error, Result, error::nearest};

/// Every family: the one place where a new one is named.
const FAMILIES: &[fn() -> Vec<Model>] =
    &[cifar_resnet::models, resnet::models, efficientnet::models, efficientnetv2::models, mobilenet::models];

/// A network with dropout of `drop_rate` in front of its last fully connected layer, and with drop path at the end of every
/// residual branch of its layers: at the last of them at the rate `drop_path_rate`, at earlier ones in proportion. Rates of 0
/// add nothing; parameters stay as they are.
pub fn with_drops(graph: &Graph, drop_rate: f64, drop_path_rate: f64) -> Result<Graph> {
    let path_rate = |block: usize, blocks: usize| drop_path_rate * (block + 1) as f64 / blocks as f64;
    Ok(drops::add(graph, drop_rate, path_rate)?)
}

/// What to change about a teacher.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ZooOptions {
    /// Classes it tells apart; its own number if none is given.
    pub num_classes: Option<usize>,
    /// Height and width of its input in pixels; its own resolution if none is given.
    pub resolution: Option<usize>,
    /// Share of the features in front of the classifier that training drops ([`lana_graph::Op::Dropout`]); 0 by default,
    /// as in timm.
    pub drop_rate: f64,
    /// How often training drops the residual branch of the last blocks ([`lana_graph::Op::DropPath`]), of earlier ones in
    /// proportion: timm's schedule. 0 by default, as in timm.
    pub drop_path_rate: f64,
}

/// The filter by which images are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interpolation {
    /// The weighted mean of the four pixels around.
    Bilinear,
    /// Cubic convolution over sixteen.
    Bicubic,
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Interpolation::Bilinear => "bilinear",
            Interpolation::Bicubic => "bicubic",
        })
    }
}

/// How images become the network's input: resized so that a square of the share `crop` of their shorter side fills it, cut
/// to that square, then `(x / 255 − mean) / std` for each of red, green, blue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preprocessing {
    /// Mean per channel, of pixels in 0…1.
    pub mean: [f32; 3],
    /// Standard deviation per channel, of pixels in 0…1.
    pub std: [f32; 3],
    /// Share of the shorter side that is kept, from the middle; 1 for the largest square.
    pub crop: f32,
    /// The filter for images of another size.
    pub interpolation: Interpolation,
    /// Whether blue comes first, as in networks that were trained with OpenCV.
    pub bgr: bool,
}

impl Preprocessing {
    /// Statistics of ImageNet, which the published CIFAR weights use too; the largest square.
    pub const IMAGENET: Self = Preprocessing {
        mean: [0.485, 0.456, 0.406],
        std: [0.229, 0.224, 0.225],
        crop: 1.0,
        interpolation: Interpolation::Bicubic,
        bgr: false,
    };
    /// Pixels in −1…1, as Inception had them and many of TensorFlow's networks do; the largest square.
    pub const INCEPTION: Self = Preprocessing { mean: [0.5; 3], std: [0.5; 3], ..Self::IMAGENET };

    /// With another share of the shorter side.
    pub const fn with_crop(self, crop: f32) -> Self {
        Preprocessing { crop, ..self }
    }
}

/// What the zoo knows about a teacher, at its own resolution and number of classes.
#[derive(Clone, Debug, PartialEq)]
pub struct ZooEntry {
    /// Its name.
    pub name: String,
    /// The family it belongs to.
    pub family: &'static str,
    /// Where it is described, and whose parameter names it has.
    pub source: &'static str,
    /// Height and width of its input, in pixels.
    pub resolution: usize,
    /// Classes it tells apart.
    pub num_classes: usize,
    /// How pixels become its input.
    pub preprocessing: Preprocessing,
    /// Replaceable layers.
    pub layers: usize,
    /// Trained parameters.
    pub params: u64,
    /// Multiply-accumulates for one image.
    pub macs: u64,
}

/// Makes the graph of a teacher of that name.
type Builder = Box<dyn Fn(&str, Size) -> lana_graph::Result<Graph>>;

/// A member of a family's table.
struct Model {
    name: String,
    family: &'static str,
    source: &'static str,
    resolution: usize,
    num_classes: usize,
    preprocessing: Preprocessing,
    build: Builder,
}

/// What [`ZooOptions`] come to.
#[derive(Clone, Copy)]
struct Size {
    num_classes: usize,
    resolution: usize,
    drop_rate: f64,
    drop_path_rate: f64,
}

impl Size {
    /// The network with what training drops at random; `schedule` gives the share of the drop path rate that holds for
    /// block number so many of so many.
    fn with_drops(&self, graph: Graph, schedule: impl Fn(usize, usize) -> f64) -> lana_graph::Result<Graph> {
        match self.drop_rate == 0.0 && self.drop_path_rate == 0.0 {
            true => Ok(graph),
            false => drops::add(&graph, self.drop_rate, |block, blocks| {
                self.drop_path_rate * schedule(block, blocks)
            }),
        }
    }
}

impl Model {
    fn graph(&self, options: &ZooOptions) -> Result<Graph> {
        let size = Size {
            num_classes: options.num_classes.unwrap_or(self.num_classes),
            resolution: options.resolution.unwrap_or(self.resolution),
            drop_rate: options.drop_rate,
            drop_path_rate: options.drop_path_rate,
        };
        let wrong = |reason: String| Err(Error::Option { model: self.name.clone(), reason });
        if size.num_classes == 0 {
            return wrong("a network needs at least one class".into());
        }
        // Smaller inputs leave nothing but padding to the last stages.
        if size.resolution < 8 {
            return wrong(format!("a resolution of {} is too small, the least is 8", size.resolution));
        }
        for (what, rate) in [("drop rate", size.drop_rate), ("drop path rate", size.drop_path_rate)] {
            if !(0.0..1.0).contains(&rate) {
                return wrong(format!(
                    "a {what} of {rate} is no share: it must be at least 0 and less than 1"
                ));
            }
        }
        Ok((self.build)(&self.name, size)?)
    }

    fn entry(&self) -> Result<ZooEntry> {
        let graph = self.graph(&ZooOptions::default())?;
        let cost = graph.cost();
        Ok(ZooEntry {
            name: self.name.clone(),
            family: self.family,
            source: self.source,
            resolution: self.resolution,
            num_classes: self.num_classes,
            preprocessing: self.preprocessing,
            layers: graph.layers().len(),
            params: cost.params,
            macs: cost.macs,
        })
    }
}

fn models() -> impl Iterator<Item = Model> {
    FAMILIES.iter().flat_map(|family| family())
}

fn find(name: &str) -> Result<Model> {
    models().find(|m| m.name == name).ok_or_else(|| {
        let names: Vec<String> = models().map(|m| m.name).collect();
        Error::UnknownModel {
            name: name.to_string(),
            nearest: nearest(name, names.iter().map(String::as_str), 3),
        }
    })
}

/// The graph of the teacher `name`, 3×resolution×resolution in, one value per class out.
pub fn build(name: &str, options: &ZooOptions) -> Result<Graph> {
    find(name)?.graph(options)
}

/// What the zoo knows about the teacher `name`.
pub fn entry(name: &str) -> Result<ZooEntry> {
    find(name)?.entry()
}

/// Every teacher there is, family by family.
pub fn list() -> Vec<ZooEntry> {
    // The tables are right (a test builds them all), so that nothing is left out here.
    models().filter_map(|m| m.entry().ok()).collect()
}
