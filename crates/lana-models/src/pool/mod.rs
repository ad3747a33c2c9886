//! Candidate operations: what may stand in the place of a teacher's layer.
//!
//! A *pool* is a list of [`Operation`]s, each known by its name alone: `mbconv-e3-k5-se0.08` is an MBConv with expansion 3,
//! a 5×5 depthwise kernel and squeeze-and-excitation to 0.08 of the expanded channels. Names parse back, so that a run
//! directory holds nothing but names and weights. Stride, channels, inner activation, normalisation, residual connection
//! and the activation at the end are no part of the name: they come from the layer that is replaced, because only an
//! operation with the layer's input and output shape, and with its range of outputs, can stand in its place. Where the
//! shape changes, the residual connection is like the teacher's: subsampled and padded with zeros, projected (and that
//! from the teacher's weights on), or none.
//!
//! The *paper* pool are the 197 operations of LANA's experiments: see [`Preset::Paper`]. The *compact* pool is a choice of
//! 23 from what those experiments kept selecting (inverted residuals as the
//! most accurate, dense convolutions and bottlenecks as the best compromise, identity to change the depth; no
//! transformers, which were never selected), and the teacher's own layer with fewer channels inside or, where it is put
//! together of several blocks, with fewer blocks or with blocks side by side, which start from the teacher's weights and are therefore
//! nearly right at once. The *extended* pool adds to it what later work shows to
//! pay, first of all other edits of the teacher's own layer: see [`Preset::Extended`].
//!
//! To add a family of operations: a file with a `Family` (grammar of the name, members of the presets, builder, which says
//! where it does not apply, initialisation) and a line in `FAMILIES`.

mod acnet;
mod attention;
mod bottleneck;
mod conv;
mod depth;
mod edit;
mod fused;
mod grouped;
mod lowrank;
mod mbconv;
mod mixconv;
mod moments;
mod name;
mod narrow;
mod own;
mod preset;
mod principal;
mod radix;
mod repvgg;
mod selection;
mod shuffle;
mod site;
mod stack;
mod teacher;
mod wide;

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use lana_graph::{Graph, Tensor, Weights};

use crate::blocks::Shortcut;
use crate::{Error, Result, error::nearest};
use name::{Arguments, Parameter};
use site::{Projection, Site};

pub use preset::Preset;
pub use selection::{Pool, Pools};

/// Every family, in the order in which pools list its members: the one place where a new one is named. Those that start
/// from the teacher's weights come first, since of operations that are the same network somewhere the first one stands.
static FAMILIES: [&Family; 21] = [
    &teacher::TEACHER,
    &teacher::IDENTITY,
    &narrow::FAMILY,
    &depth::FAMILY,
    &wide::FAMILY,
    &own::FAMILY,
    &grouped::FAMILY,
    &radix::FAMILY,
    &lowrank::FAMILY,
    &mbconv::FAMILY,
    &mixconv::FAMILY,
    &fused::FAMILY,
    &bottleneck::FAMILY,
    &conv::FAMILY,
    &stack::FAMILY,
    &shuffle::FAMILY,
    &repvgg::FAMILY,
    &acnet::FAMILY,
    &attention::TRANSFORMER,
    &attention::BOTNET,
    &attention::LAMBDA,
];

/// A kind of operation: how its members are called, built and initialised.
///
/// Nothing here says how an operation is re-parameterised: one that trains with parallel branches is built with them,
/// and [`lana_graph::deploy`] makes one convolution of any such branches, whatever network they stand in.
struct Family {
    /// First word of the name.
    name: &'static str,
    /// What it is, in a sentence.
    summary: &'static str,
    /// The numbers in the name, in their order.
    parameters: &'static [Parameter],
    /// Says why numbers that are fine one by one make no operation anywhere; [`any`] where they always do.
    check: fn(&Arguments) -> Result<(), String>,
    /// Its members in a preset.
    members: fn(Preset) -> Vec<String>,
    /// What it starts from.
    initialisation: &'static str,
    /// Builds the operation in the place of a layer, given by its own graph.
    build: fn(&Graph, &Arguments) -> Result<Graph, NotApplicable>,
    /// Weights to start from.
    initialise: fn(&Start<'_>) -> lana_graph::Result<Weights>,
}

/// The check of families whose numbers always fit together.
fn any(_: &Arguments) -> Result<(), String> {
    Ok(())
}

/// What an operation's first weights are made of.
struct Start<'a> {
    layer: &'a Graph,
    layer_weights: &'a Weights,
    operation: &'a Graph,
    arguments: &'a Arguments,
    seed: u64,
}

/// Why an operation cannot stand in the place of a layer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotApplicable {
    /// The reason, to be read after "does not apply: ".
    pub reason: String,
}

impl NotApplicable {
    fn new(reason: impl Into<String>) -> Self {
        NotApplicable { reason: reason.into() }
    }
}

impl From<lana_graph::Error> for NotApplicable {
    fn from(error: lana_graph::Error) -> Self {
        NotApplicable::new(error.to_string())
    }
}

/// A candidate operation, known by its name. Equal names, equal operations.
#[derive(Clone)]
pub struct Operation {
    family: &'static Family,
    arguments: Arguments,
    name: String,
}

impl Operation {
    /// The teacher's own layer.
    pub const TEACHER: &'static str = "teacher";
    /// The operation that skips a layer.
    pub const IDENTITY: &'static str = "identity";
    /// How the names of those begin that keep some blocks of a layer of several.
    pub const DEPTH: &'static str = "depth-";
    /// How the names of those begin that put blocks of a layer side by side.
    pub const WIDE: &'static str = "wide-";

    /// Its name, such as `mbconv-e3-k5-se0.08`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its family: the first word of the name.
    pub fn family(&self) -> &'static str {
        self.family.name
    }

    /// Whether it is the teacher's own layer.
    pub fn is_teacher(&self) -> bool {
        self.name == Self::TEACHER
    }

    /// Whether it skips the layer.
    pub fn is_identity(&self) -> bool {
        self.name == Self::IDENTITY
    }

    /// Which of operations that are the same network stands: the least.
    fn rank(&self) -> (usize, usize, &str) {
        let family = FAMILIES.iter().position(|f| f.name == self.family.name);
        (family.unwrap_or(FAMILIES.len()), self.name.len(), &self.name)
    }

    /// What it starts from, in words.
    pub fn initialisation(&self) -> &'static str {
        self.family.initialisation
    }

    /// The operation in the place of a layer, given by the layer's own graph ([`Graph::layer_graph`]).
    ///
    /// The result maps the layer's input shape to its output shape, has the operation's name, and names of nodes without
    /// the layer's prefix: what [`Graph::replace`] takes.
    pub fn build(&self, layer: &Graph) -> Result<Graph, NotApplicable> {
        let graph = (self.family.build)(layer, &self.arguments)?.renamed(self.name.as_str());
        if graph.input_shape() != layer.input_shape() || graph.output_shape() != layer.output_shape() {
            let (got, want) = (graph.output_shape(), layer.output_shape());
            return Err(NotApplicable::new(format!("it gives {got} where the layer gives {want}")));
        }
        Ok(graph)
    }

    /// Weights to start from, for the graph that [`Operation::build`] made of the same layer.
    ///
    /// `layer_weights` are the layer's under their short names ([`Weights::under`]). Random weights depend on `seed` and
    /// on the names and shapes of the parameters, so that layers of the same shape start alike unless their seeds differ.
    /// It is an error if the layer's weights are not those of its graph.
    pub fn initialise(
        &self,
        layer: &Graph,
        layer_weights: &Weights,
        operation: &Graph,
        seed: u64,
    ) -> lana_graph::Result<Weights> {
        layer_weights.check(layer)?;
        let arguments = &self.arguments;
        let weights = (self.family.initialise)(&Start { layer, layer_weights, operation, arguments, seed })?;
        weights.check(operation)?;
        Ok(weights)
    }
}

impl FromStr for Operation {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: String| Error::UnknownOperation {
            name: text.to_string(),
            reason,
            nearest: nearest(
                text,
                Preset::ALL.map(Preset::name).into_iter().chain(known_names().iter().map(String::as_str)),
                3,
            ),
        };
        let (first, rest) = text.split_once('-').map_or((text, None), |(first, rest)| (first, Some(rest)));
        let family = FAMILIES
            .into_iter()
            .find(|f| f.name == first)
            .ok_or_else(|| wrong("is no operation".to_string()))?;
        let arguments = Arguments::parse(family.parameters, rest).map_err(|reason| {
            wrong(format!("is not of the form {}: {reason}", name::grammar(family.name, family.parameters)))
        })?;
        (family.check)(&arguments).map_err(|reason| wrong(format!("can stand nowhere: {reason}")))?;
        let name = format!("{}{}", family.name, arguments);
        Ok(Operation { family, arguments, name })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name)
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Operation({})", self.name)
    }
}

impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// What `lana pool` tells about a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyInfo {
    /// First word of its members' names.
    pub name: &'static str,
    /// The form of its members' names, such as `conv-k<odd number up to 11>`.
    pub grammar: String,
    /// What it is, in a sentence.
    pub summary: &'static str,
    /// What its members start from.
    pub initialisation: &'static str,
    /// Its members in each preset.
    pub members: Vec<(Preset, Vec<String>)>,
}

/// Every family of operations.
pub fn families() -> Vec<FamilyInfo> {
    let info = |f: &Family| FamilyInfo {
        name: f.name,
        grammar: name::grammar(f.name, f.parameters),
        summary: f.summary,
        initialisation: f.initialisation,
        members: Preset::ALL.map(|preset| (preset, (f.members)(preset))).to_vec(),
    };
    FAMILIES.into_iter().map(info).collect()
}

/// The operations of a preset, in order.
fn members(preset: Preset) -> Vec<Operation> {
    // The tables are right: a test parses them all.
    FAMILIES.into_iter().flat_map(|f| (f.members)(preset)).filter_map(|name| name.parse().ok()).collect()
}

/// The operations of every preset, each once.
fn known() -> Vec<Operation> {
    let mut seen = std::collections::HashSet::new();
    Preset::ALL.into_iter().flat_map(members).filter(|o| seen.insert(o.clone())).collect()
}

/// Names of the operations of every preset.
fn known_names() -> Vec<String> {
    FAMILIES.into_iter().flat_map(|f| Preset::ALL.into_iter().flat_map(|p| (f.members)(p))).collect()
}

/// Random weights that make the operation start as its shortcut: in the family tables of everything that has no use for
/// the teacher's weights. Where the shortcut is a projection, that one does start from the teacher's.
fn start_as_shortcut(start: &Start<'_>) -> lana_graph::Result<Weights> {
    let options = crate::init::InitOptions { zero_last_scale: true };
    let mut weights = crate::init::random_with(start.operation, start.seed, options);
    if let (Some(theirs), Some(ours)) = (Projection::of(start.layer), Projection::of(start.operation))
        && theirs.shortcut == ours.shortcut
    {
        for (from, to) in [(theirs.conv, ours.conv), (theirs.norm, ours.norm)] {
            for (name, tensor) in start.layer_weights.under(from).iter() {
                weights.insert(format!("{to}.{name}"), tensor.clone());
            }
        }
    }
    Ok(weights)
}

/// As [`start_as_shortcut`], for operations that sum branches, each with one of the `norms` at its end.
fn start_branches_as_shortcut(start: &Start<'_>, norms: &[&str]) -> lana_graph::Result<Weights> {
    let mut weights = start_as_shortcut(start)?;
    let site = Site::of(start.layer).ok().filter(|s| s.ending.shortcut != Shortcut::None);
    for norm in norms {
        let name = format!("{norm}.weight");
        let scale =
            weights.get(&name).map(|t| Tensor::full(&t.shape, if site.is_some() { 0.0 } else { 1.0 }));
        if let Some(scale) = scale {
            weights.insert(name, scale);
        }
    }
    Ok(weights)
}

/// What [`start_as_shortcut`] does, in words.
const START_AS_SHORTCUT: &str = "random (Kaiming, fan-out); with a residual connection the last BatchNorm's scale is zero, so that it starts as \
     its shortcut, which is the teacher's own where that is a projection";
