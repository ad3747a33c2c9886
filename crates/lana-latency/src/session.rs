//! One model, ready to run.

use std::path::Path;
use std::time::{Duration, Instant};

use lana_graph::{Graph, Weights, deploy};
use lana_onnx::ExportOptions;
use ort::logging::LogLevel;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::{TensorElementType, TensorRef, ValueType};

use crate::{Error, OnnxRuntime, Result, random_weights};

/// An ONNX model with the name it has in messages and results: its file's, or one given.
#[derive(Clone)]
pub struct Model {
    name: String,
    bytes: Vec<u8>,
}

impl Model {
    /// Reads a file.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Ok(Model { name: path.display().to_string(), bytes })
    }

    /// The bytes of a file.
    pub fn from_bytes(name: impl Into<String>, bytes: Vec<u8>) -> Self {
        Model { name: name.into(), bytes }
    }

    /// A network in the form in which it is deployed ([`deploy`]), for any batch.
    pub fn from_graph(name: impl Into<String>, graph: &Graph, weights: &Weights) -> Result<Self> {
        let (graph, weights) = deploy(graph, weights)?;
        let bytes = lana_onnx::export(&graph, &weights, &ExportOptions::default())?;
        Ok(Model { name: name.into(), bytes })
    }

    /// As [`Model::from_graph`] with weights that are good for timing alone.
    pub fn with_random_weights(name: impl Into<String>, graph: &Graph) -> Result<Self> {
        Model::from_graph(name, graph, &random_weights(graph, 1))
    }

    /// Its name in messages and results.
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How a model is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Threads that share the work of one operation.
    pub threads: usize,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions { threads: 1 }
    }
}

/// Time of one run.
pub(crate) struct Timed {
    /// From start to end.
    pub(crate) elapsed: Duration,
    /// The part of it in which another process had the core. Known on Linux, for a model with one thread.
    pub(crate) waited: Duration,
}

impl Timed {
    /// Who waited for longer than the run took did so before it began or after its end, while the clock stood: that is no
    /// part of the run.
    fn new(elapsed: Duration, waited: Duration) -> Timed {
        Timed { elapsed, waited: if waited < elapsed { waited } else { Duration::ZERO } }
    }
}

/// How long this thread has been ready to run without a core to run on, ever since it started: the second number of
/// Linux's `schedstat`. It is exact once the thread runs again, unlike the first, the time it ran.
fn waited_for_core() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split_whitespace().nth(1)?.parse().ok().map(Duration::from_nanos)
}

/// A model opened in ONNX Runtime on the CPU.
#[derive(Debug)]
pub struct Session {
    name: String,
    inner: ort::session::Session,
    input: [usize; 3],
    fixed_batch: Option<usize>,
    output: Vec<i64>,
    threads: usize,
}

impl Session {
    /// Opens a model with every optimisation of the graph that the runtime has.
    ///
    /// # Errors
    /// If the runtime is missing, cannot read the model, or the model does not take one batch of images of a known size.
    pub fn open(model: &Model, options: &SessionOptions) -> Result<Self> {
        let runtime = OnnxRuntime::load()?;
        let wrong = |reason: String| Error::Model { model: model.name.clone(), reason };
        if options.threads == 0 {
            return Err(Error::Options("a model needs at least one thread".into()));
        }
        let inner = builder(runtime, options)
            .and_then(|mut b| b.commit_from_memory(&model.bytes))
            .map_err(|e| wrong(format!("ONNX Runtime cannot open it: {}", one_line(&e))))?;
        let [input] = inner.inputs() else {
            return Err(wrong(format!("takes {} inputs, not one batch of images", inner.inputs().len())));
        };
        let input_wrong = |what: String| wrong(format!("its input `{}` {what}", input.name()));
        let ValueType::Tensor { ty, shape, .. } = input.dtype() else {
            return Err(input_wrong("is no tensor".into()));
        };
        if *ty != TensorElementType::Float32 {
            return Err(input_wrong(format!("holds {ty}, not 32-bit floats")));
        }
        let &[batch, channels, height, width] = &shape[..] else {
            let rank = shape.len();
            return Err(input_wrong(format!("has {rank} dimensions, not the 4 of a batch of images")));
        };
        let known = |n: i64| usize::try_from(n).ok().filter(|n| *n > 0);
        let (Some(c), Some(h), Some(w)) = (known(channels), known(height), known(width)) else {
            return Err(input_wrong(format!(
                "has no fixed size ({channels}×{height}×{width}); export the model with fixed channels, height and width"
            )));
        };
        let Some(ValueType::Tensor { ty: TensorElementType::Float32, shape: output, .. }) =
            inner.outputs().first().map(|o| o.dtype())
        else {
            return Err(wrong("its first output is no tensor of 32-bit floats".into()));
        };
        let output = output[..].to_vec();
        Ok(Session {
            name: model.name.clone(),
            input: [c, h, w],
            fixed_batch: known(batch),
            output,
            threads: options.threads,
            inner,
        })
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Channels, height and width of the images it takes.
    pub fn input_shape(&self) -> [usize; 3] {
        self.input
    }

    /// The only batch it takes, if the model fixes one.
    pub fn fixed_batch(&self) -> Option<usize> {
        self.fixed_batch
    }

    /// Dimensions of its first output; -1 where they depend on the input.
    pub fn output_shape(&self) -> &[i64] {
        &self.output
    }

    /// The first output for a batch of images, both in row-major order.
    pub fn run(&mut self, images: &[f32], batch: usize) -> Result<Vec<f32>> {
        self.check(images, batch)?;
        let [c, h, w] = self.input;
        let outcome = TensorRef::from_array_view(([batch, c, h, w], images)).and_then(|input| {
            let outputs = self.inner.run(ort::inputs![input])?;
            Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
        });
        outcome.map_err(|e| Error::Model { model: self.name.clone(), reason: one_line(&e) })
    }

    /// How long one run takes.
    pub(crate) fn time(&mut self, images: &[f32], batch: usize) -> Result<Timed> {
        self.check(images, batch)?;
        let [c, h, w] = self.input;
        let outcome = TensorRef::from_array_view(([batch, c, h, w], images)).and_then(|input| {
            let before = waited_for_core();
            let start = Instant::now();
            let outputs = self.inner.run(ort::inputs![input])?;
            let elapsed = start.elapsed();
            let after = waited_for_core();
            drop(outputs);
            let waited = match (before, after) {
                (Some(before), Some(after)) if self.threads == 1 => after.saturating_sub(before),
                _ => Duration::ZERO,
            };
            Ok(Timed::new(elapsed, waited))
        });
        outcome.map_err(|e| Error::Model { model: self.name.clone(), reason: one_line(&e) })
    }

    fn check(&self, images: &[f32], batch: usize) -> Result<()> {
        let wrong = |reason: String| Err(Error::Model { model: self.name.clone(), reason });
        if let Some(fixed) = self.fixed_batch.filter(|fixed| *fixed != batch) {
            return wrong(format!("takes batches of {fixed} alone, not of {batch}"));
        }
        let [c, h, w] = self.input;
        if batch == 0 || images.len() != batch * c * h * w {
            return wrong(format!("{} numbers are no batch of {batch} images of {c}×{h}×{w}", images.len()));
        }
        Ok(())
    }
}

fn builder(runtime: &OnnxRuntime, options: &SessionOptions) -> ort::Result<SessionBuilder> {
    Ok(ort::session::Session::builder(&runtime.environment)?
        .with_log_level(LogLevel::Error)?
        .with_optimization_level(GraphOptimizationLevel::All)?
        .with_intra_threads(options.threads)?
        .with_inter_threads(1)?
        // Threads may spin while a run lasts, as they do by default, but not beyond: the next run is another session's.
        .with_config_entry("session.force_spinning_stop", "1")?)
}

/// The runtime's messages run over several lines with its own source files in them: the first line says it.
fn one_line(error: &ort::Error) -> String {
    error.to_string().lines().next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_always_takes_time() {
        let ms = Duration::from_millis;
        let run = |elapsed, waited| Timed::new(ms(elapsed), ms(waited)).waited;
        assert_eq!([run(10, 0), run(10, 4), run(10, 10), run(10, 14)], [ms(0), ms(4), ms(0), ms(0)]);
    }
}
