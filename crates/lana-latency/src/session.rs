//! One model, opened in the runtime of a deployment.

use crate::array::{Array, Data};
use crate::clock::Timed;
use crate::port::fixed_batch;
use crate::runtime::{Answer, Executable, load};
use crate::{Deployment, Error, Model, Port, Result, Shapes};

/// A model that is ready to run.
#[derive(Debug)]
pub struct Session {
    name: String,
    executable: Box<dyn Executable>,
    /// The inputs that were loaded, for messages.
    loaded: String,
}

impl Session {
    /// Opens a model in the runtime of a deployment.
    ///
    /// # Errors
    /// If no runtime can run networks so, or it is not here, or cannot read the model.
    pub fn open(model: &Model, deployment: &Deployment) -> Result<Self> {
        let executable = load(deployment)?.open(model, deployment)?;
        Ok(Session { name: model.name().into(), executable, loaded: String::new() })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it takes.
    pub fn inputs(&self) -> &[Port] {
        self.executable.inputs()
    }

    /// What it gives.
    pub fn outputs(&self) -> &[Port] {
        self.executable.outputs()
    }

    /// The only batch it takes, if the model fixes one.
    pub fn fixed_batch(&self) -> Option<usize> {
        fixed_batch(self.inputs())
    }

    /// What should be known of how it runs, such as parts of it that are not where they were wanted.
    pub fn note(&self) -> Option<String> {
        self.executable.note()
    }

    /// Channels, height and width of the images it takes.
    ///
    /// # Errors
    /// If it does not take one batch of images of a known size, as 32-bit floats, and give 32-bit floats.
    pub fn image_shape(&self) -> Result<[usize; 3]> {
        let [input] = self.inputs() else {
            return self.wrong(format!("takes {} inputs, not one batch of images", self.inputs().len()));
        };
        let input_wrong = |what: String| self.wrong(format!("its input `{}` {what}", input.name));
        match &input.element {
            Ok(crate::Element::F32) => {}
            Ok(other) => return input_wrong(format!("holds {other}, not 32-bit floats")),
            Err(other) => return input_wrong(format!("is a {other}, no tensor of 32-bit floats")),
        }
        if !matches!(self.outputs().first().map(|o| &o.element), Some(Ok(crate::Element::F32))) {
            return self.wrong("its first output is no tensor of 32-bit floats".into());
        }
        if input.dims.len() != 4 {
            let rank = input.dims.len();
            return input_wrong(format!("has {rank} dimensions, not the 4 of a batch of images"));
        }
        match input.image() {
            Some((shape, _)) => Ok(shape),
            None => input_wrong(format!(
                "has no fixed size ({}); export the model with fixed channels, height and width",
                input.shape()
            )),
        }
    }

    /// The first output for a batch of images, both in row-major order.
    ///
    /// # Errors
    /// If [`Session::image_shape`] has one, or these are no such images.
    pub fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        let [c, h, w] = self.image_shape()?;
        if let Some(fixed) = self.fixed_batch().filter(|fixed| *fixed != batch) {
            return self.wrong(format!("takes batches of {fixed} alone, not of {batch}"));
        }
        match Array::new(vec![batch, c, h, w], Data::F32(images.into())) {
            Some(input) if batch > 0 => {
                let output = self.executable.run(&[input]);
                self.named(output)
            }
            _ => {
                self.wrong(format!("{} numbers are no batch of {batch} images of {c}×{h}×{w}", images.len()))
            }
        }
    }

    /// The dimensions of every input at a batch.
    pub(crate) fn resolve(&self, shapes: &Shapes, batch: usize) -> Result<Vec<Vec<usize>>> {
        self.named(shapes.resolve(self.inputs(), batch))
    }

    /// See [`Executable::load`].
    pub(crate) fn load(&mut self, sets: &[Vec<Array>]) -> Result<()> {
        let shown = |(port, array): (&Port, &Array)| {
            let dims: Vec<String> = array.dims().iter().map(usize::to_string).collect();
            format!("`{}` {}", port.name, dims.join("×"))
        };
        let inputs = self.inputs().iter().zip(sets.first().into_iter().flatten());
        self.loaded = inputs.map(shown).collect::<Vec<_>>().join(", ");
        let loaded = self.executable.load(sets);
        self.named(loaded)
    }

    /// See [`Executable::time`].
    pub(crate) fn time(&mut self, set: usize) -> Result<Timed> {
        self.executable.time(set).map_err(|reason| Error::Run {
            model: self.name.clone(),
            inputs: self.loaded.clone(),
            reason,
        })
    }

    fn named<T>(&self, answer: Answer<T>) -> Result<T> {
        answer.or_else(|reason| self.wrong(reason))
    }

    fn wrong<T>(&self, reason: String) -> Result<T> {
        Err(Error::Model { model: self.name.clone(), reason })
    }
}
