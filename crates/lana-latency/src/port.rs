//! What a model takes and gives, and which of its open dimensions are how large.

use std::fmt;
use std::str::FromStr;

use crate::{Element, Error, Result};

/// An input or output of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Its name in the file.
    pub name: String,
    /// What it holds, or, where it is no tensor of numbers, what it is instead.
    pub element: std::result::Result<Element, String>,
    /// Its dimensions.
    pub dims: Vec<Dim>,
}

/// One dimension of an input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dim {
    /// Always so large.
    Size(usize),
    /// Open, under a name; equal names mean equal sizes.
    Named(String),
    /// Open, without a name.
    Open,
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dim::Size(size) => write!(f, "{size}"),
            Dim::Named(name) => f.write_str(name),
            Dim::Open => f.write_str("?"),
        }
    }
}

/// Names that exporters give to the number of images in a batch.
const BATCH_NAMES: [&str; 6] = ["batch", "batch_size", "batchsize", "batch_dim", "bs", "n"];

impl Port {
    /// Its dimensions as people write them: `batch×3×224×224`.
    pub fn shape(&self) -> String {
        let dims: Vec<String> = self.dims.iter().map(Dim::to_string).collect();
        if dims.is_empty() { "a single number".into() } else { dims.join("×") }
    }

    /// Which dimension counts the images: the one that is called so, else the first. None for single numbers.
    pub(crate) fn batch(&self) -> Option<usize> {
        let named = |d: &Dim| matches!(d, Dim::Named(n) if BATCH_NAMES.contains(&n.to_lowercase().as_str()));
        self.dims.iter().position(named).or((!self.dims.is_empty()).then_some(0))
    }

    /// Channels, height and width, if this is a batch of images of known size; and the only batch it takes, if any.
    pub(crate) fn image(&self) -> Option<([usize; 3], Option<usize>)> {
        match self.dims[..] {
            [ref batch, Dim::Size(c), Dim::Size(h), Dim::Size(w)] if c * h * w > 0 => {
                let fixed = if let Dim::Size(n) = batch { Some(*n) } else { None };
                Some(([c, h, w], fixed))
            }
            _ => None,
        }
    }
}

/// The only batch a model takes, if it takes only one.
pub(crate) fn fixed_batch(inputs: &[Port]) -> Option<usize> {
    // A vector may be anything; what has more dimensions begins with the batch.
    let mut batches = inputs.iter().filter(|i| i.dims.len() > 1).filter_map(|i| Some(&i.dims[i.batch()?]));
    let first = batches.clone().next()?;
    match first {
        Dim::Size(size) if *size > 0 && batches.all(|d| matches!(d, Dim::Size(_))) => Some(*size),
        _ => None,
    }
}

/// Sizes for the open dimensions of models that are measured; none are needed for the batch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shapes {
    /// Whole inputs.
    pub inputs: Vec<InputShape>,
    /// Dimensions by name.
    pub dims: Vec<NamedDim>,
}

/// The shape of one input: `NAME=1x3x224x224`, or without name for models with a single input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputShape {
    /// The input.
    pub input: Option<String>,
    /// All of its dimensions.
    pub dims: Vec<usize>,
}

/// The size of a named dimension: `NAME=N`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedDim {
    /// The dimension.
    pub name: String,
    /// Its size.
    pub size: usize,
}

impl FromStr for InputShape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (input, shape) = match text.rsplit_once('=') {
            Some((name, shape)) => (Some(name.to_string()), shape),
            None => (None, text),
        };
        let dims = shape.split(['x', ',', '×']).map(|d| d.trim().parse().ok().filter(|n| *n > 0)).collect();
        match dims {
            Some(dims) if input.as_deref() != Some("") => Ok(InputShape { input, dims }),
            _ => Err(Error::Options(format!("shape `{text}`: write it as NAME=1x3x224x224 or 1x3x224x224"))),
        }
    }
}

impl FromStr for NamedDim {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.rsplit_once('=').and_then(|(name, size)| Some((name, size.parse().ok()?)));
        match parts {
            Some((name, size)) if !name.is_empty() && size > 0 => {
                Ok(NamedDim { name: name.to_string(), size })
            }
            _ => Err(Error::Options(format!("dimension `{text}`: write it as NAME=N"))),
        }
    }
}

impl Shapes {
    /// The shape that is given for an input, if any; `alone` says that it is the model's only one.
    fn given(&self, port: &Port, alone: bool) -> Option<&[usize]> {
        let fits = |s: &&InputShape| match &s.input {
            Some(name) => *name == port.name,
            None => alone,
        };
        self.inputs.iter().find(fits).map(|s| s.dims.as_slice())
    }

    /// The batch that a given shape or dimension implies for a model.
    pub(crate) fn batch(&self, inputs: &[Port]) -> Option<usize> {
        inputs.iter().filter(|port| port.dims.len() > 1).find_map(|port| {
            let at = port.batch()?;
            match self.given(port, inputs.len() == 1) {
                Some(shape) => shape.get(at).copied(),
                None => self.size_of(&port.dims[at]),
            }
        })
    }

    /// The size that is given for a named dimension, if any.
    fn size_of(&self, dim: &Dim) -> Option<usize> {
        let Dim::Named(name) = dim else { return None };
        self.dims.iter().find(|d| d.name == *name).map(|d| d.size)
    }

    /// The dimensions that every input of a model gets, in their order.
    ///
    /// # Errors
    /// In words, if one is open that nothing is said of, or cannot be what is said of it.
    pub(crate) fn resolve(
        &self,
        inputs: &[Port],
        batch: usize,
    ) -> std::result::Result<Vec<Vec<usize>>, String> {
        if let Some(fixed) = fixed_batch(inputs).filter(|fixed| *fixed != batch) {
            return Err(format!("takes batches of {fixed} alone, not of {batch}"));
        }
        inputs.iter().map(|port| self.dims_of(port, batch, inputs.len() == 1)).collect()
    }

    fn dims_of(&self, port: &Port, batch: usize, alone: bool) -> std::result::Result<Vec<usize>, String> {
        let wrong = |what: String| Err(format!("its input `{}` ({}) {what}", port.name, port.shape()));
        if let Some(given) = self.given(port, alone) {
            let fits = |(dim, size): (&Dim, &usize)| !matches!(dim, Dim::Size(own) if own != size);
            if given.len() != port.dims.len() || !port.dims.iter().zip(given).all(fits) {
                let given: Vec<String> = given.iter().map(usize::to_string).collect();
                return wrong(format!("cannot have the shape {} of --shape", given.join("x")));
            }
            return match port.batch() {
                Some(at) if port.dims.len() > 1 && given[at] != batch => wrong(format!(
                    "has batches of {} by --shape, not of {batch}; leave --batch out, or give the same",
                    given[at]
                )),
                _ => Ok(given.to_vec()),
            };
        }
        if port.dims.contains(&Dim::Size(0)) {
            return wrong("holds nothing: there is nothing to time".into());
        }
        let size = |(at, dim): (usize, &Dim)| match (dim, self.size_of(dim)) {
            (Dim::Size(size), _) => Some(*size),
            (_, Some(given)) => Some(given),
            _ => (port.batch() == Some(at)).then_some(batch),
        };
        let sizes: Vec<Option<usize>> = port.dims.iter().enumerate().map(size).collect();
        let open = || sizes.iter().zip(&port.dims).filter(|(size, _)| size.is_none()).map(|(_, dim)| dim);
        if open().any(|dim| *dim == Dim::Open) {
            return wrong(format!("has an open dimension: give --shape {}={}", port.name, example(port)));
        }
        let names: Vec<String> = open().map(|dim| format!("--dim {dim}=N")).collect();
        if !names.is_empty() {
            return wrong(format!(
                "has an open dimension: give {}, or its whole shape with --shape {}={}",
                names.join(" "),
                port.name,
                example(port)
            ));
        }
        match port.batch().and_then(|at| sizes[at]) {
            Some(size)
                if size != batch
                    && port.dims.len() > 1
                    && self.batch(std::slice::from_ref(port)) == Some(size) =>
            {
                wrong(format!(
                    "has batches of {size} by --dim, not of {batch}; leave --batch out, or give the same"
                ))
            }
            _ => Ok(sizes.into_iter().flatten().collect()),
        }
    }

    /// Reports what was said of inputs and dimensions that no model has.
    pub(crate) fn check_used(&self, models: &[&[Port]]) -> Result<()> {
        let ports = || models.iter().flat_map(|m| m.iter());
        for shape in &self.inputs {
            let used = match &shape.input {
                Some(name) => ports().any(|p| p.name == *name),
                None => models.iter().any(|m| m.len() == 1),
            };
            if !used {
                let mut known: Vec<&str> = ports().map(|p| p.name.as_str()).collect();
                known.sort_unstable();
                known.dedup();
                return Err(Error::Options(match &shape.input {
                    Some(name) => format!("--shape: no input `{name}`; there are {}", known.join(", ")),
                    None => format!(
                        "--shape needs the input's name, as NAME=1x3x224x224: there are {}",
                        known.join(", ")
                    ),
                }));
            }
        }
        for dim in &self.dims {
            let mut known: Vec<&str> = ports()
                .flat_map(|p| &p.dims)
                .filter_map(|d| if let Dim::Named(name) = d { Some(name.as_str()) } else { None })
                .collect();
            if !known.contains(&dim.name.as_str()) {
                known.sort_unstable();
                known.dedup();
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Error::Options(format!("--dim: no dimension `{}`; there are {known}", dim.name)));
            }
        }
        Ok(())
    }
}

/// What to write for an input's shape.
fn example(port: &Port) -> String {
    let dims: Vec<String> = port
        .dims
        .iter()
        .map(|d| if let Dim::Size(size) = d { size.to_string() } else { "N".into() })
        .collect();
    dims.join("x")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, dims: &[Dim]) -> Port {
        Port { name: name.into(), element: Ok(Element::F32), dims: dims.to_vec() }
    }

    fn named(name: &str) -> Dim {
        Dim::Named(name.into())
    }

    #[test]
    fn the_batch_is_the_dimension_called_so_or_the_first() {
        for (dims, batch) in [
            (vec![], None),
            (vec![named("unk__1"), Dim::Size(3)], Some(0)),
            (vec![named("sequence"), named("Batch_Size"), Dim::Size(8)], Some(1)),
            (vec![Dim::Open, Dim::Open], Some(0)),
        ] {
            assert_eq!(port("x", &dims).batch(), batch, "{dims:?}");
        }
    }

    #[test]
    fn open_dimensions_are_filled() {
        let tokens = port("ids", &[named("batch"), named("sequence")]);
        let image = port("pixels", &[Dim::Open, Dim::Size(3), Dim::Size(8), Dim::Size(8)]);
        let scale = port("scale", &[]);
        let inputs = [tokens, image, scale];
        let shapes = Shapes { inputs: vec![], dims: vec!["sequence=77".parse().unwrap()] };
        assert_eq!(shapes.resolve(&inputs, 4), Ok(vec![vec![4, 77], vec![4, 3, 8, 8], vec![]]));
        let error = Shapes::default().resolve(&inputs, 4).unwrap_err();
        assert!(error.contains("`ids` (batch×sequence)") && error.contains("--dim sequence=N"), "{error}");
        let error = shapes.resolve(&[port("x", &[named("n"), named("h"), named("w")])], 1).unwrap_err();
        assert!(error.contains("--dim h=N --dim w=N, or") && error.contains("--shape x=NxNxN"), "{error}");
        let error = shapes.resolve(&[port("x", &[Dim::Size(0), Dim::Size(8)])], 1).unwrap_err();
        assert!(error.contains("(0×8) holds nothing"), "{error}");
        // A batch by its name.
        let five =
            Shapes { inputs: vec![], dims: vec!["batch=5".parse().unwrap(), "sequence=7".parse().unwrap()] };
        let tokens = [port("ids", &[named("batch"), named("sequence")])];
        assert_eq!((five.batch(&tokens), five.resolve(&tokens, 5)), (Some(5), Ok(vec![vec![5, 7]])));
        let error = five.resolve(&tokens, 4).unwrap_err();
        assert!(error.contains("batches of 5 by --dim, not of 4"), "{error}");
        let error = Shapes::default().resolve(&[port("x", &[Dim::Open, Dim::Open])], 1).unwrap_err();
        assert!(error.contains("--shape x=NxN"), "{error}");
    }

    #[test]
    fn whole_shapes_win_and_must_fit() {
        let inputs = [port("x", &[named("n"), Dim::Size(3), named("h"), named("w")])];
        let shapes = |text: &str| Shapes { inputs: vec![text.parse().unwrap()], dims: vec![] };
        for text in ["x=2x3x20x30", "2x3x20x30", "x=2,3,20,30"] {
            assert_eq!(shapes(text).resolve(&inputs, 2), Ok(vec![vec![2, 3, 20, 30]]));
            assert_eq!(shapes(text).batch(&inputs), Some(2));
        }
        let error = shapes("x=2x3x20x30").resolve(&inputs, 4).unwrap_err();
        assert!(error.contains("batches of 2") && error.contains("--batch"), "{error}");
        for text in ["x=2x4x20x30", "x=2x3x20"] {
            assert!(shapes(text).resolve(&inputs, 2).unwrap_err().contains("--shape"));
        }
        let error = shapes("y=1x3").check_used(&[&inputs]).unwrap_err().to_string();
        assert!(error.contains("no input `y`; there are x"), "{error}");
        let dims = Shapes { inputs: vec![], dims: vec!["width=4".parse().unwrap()] };
        let error = dims.check_used(&[&inputs]).unwrap_err().to_string();
        assert!(error.contains("no dimension `width`; there are h, n, w"), "{error}");
    }

    #[test]
    fn a_fixed_batch_is_the_only_one() {
        let fixed = [port("x", &[Dim::Size(2), Dim::Size(8)]), port("scale", &[Dim::Size(7)])];
        assert_eq!(fixed_batch(&fixed), Some(2));
        assert_eq!(Shapes::default().resolve(&fixed, 1), Err("takes batches of 2 alone, not of 1".into()));
        assert_eq!(Shapes::default().resolve(&fixed, 2), Ok(vec![vec![2, 8], vec![7]]));
        // Priors and the like have a first dimension that is no batch.
        let mixed = [port("x", &[named("n"), Dim::Size(8)]), port("priors", &[Dim::Size(9), Dim::Size(4)])];
        assert_eq!(fixed_batch(&mixed), None);
        assert_eq!(fixed_batch(&[port("vector", &[Dim::Size(7)])]), None);
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "x=", "=1x3", "1x0", "x=1xa", "x=-1x3"] {
            let error = text.parse::<InputShape>().expect_err(text).to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
        for text in ["", "n", "n=", "=3", "n=0", "n=x"] {
            assert!(text.parse::<NamedDim>().is_err(), "{text}");
        }
    }
}
