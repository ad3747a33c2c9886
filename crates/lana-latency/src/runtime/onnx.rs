//! ONNX Runtime: on the processor, and by its CUDA and TensorRT execution providers.

use std::fmt;
use std::sync::Arc;

use lana_graph::Precision;
use ort::ep::{CUDA, ExecutionProvider, ExecutionProviderDispatch, TensorRT};
use ort::logging::LogLevel;
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::session::{IoBinding, SessionInputValue};
use ort::value::{DynValueRef, Outlet, TensorElementType, TensorRef, ValueType};

use crate::array::{Array, Element, with_elements};
use crate::clock::{Clock, Timed};
use crate::model::OnnxModel;
use crate::port::{Dim, Port};
use crate::runtime::{Answer, Executable, Runtime};
use crate::{Deployment, Error, Model, OnnxRuntime, Processor, Result, RuntimeKind};

/// ONNX Runtime with the execution providers that a deployment needs.
pub(crate) struct Onnx {
    library: &'static OnnxRuntime,
}

impl Onnx {
    /// Makes sure that the library has the providers: the runtime itself would fall back to the processor in silence.
    pub(crate) fn new(library: &'static OnnxRuntime, deployment: &Deployment) -> Result<Self> {
        let has = |name: &str, available: ort::Result<bool>| match available {
            Ok(true) => Ok(()),
            _ => Err(Error::NoRuntime {
                runtime: deployment.runtime,
                reason: format!("{} has no {name} execution provider", library.library().display()),
                cure: format!(
                    "set ORT_DYLIB_PATH to a libonnxruntime.so that has it, such as the one under onnxruntime/capi of PyPI's \
                     onnxruntime-gpu{}",
                    if name == "TensorRT" { " with tensorrt beside it" } else { "" }
                ),
            }),
        };
        if deployment.processor == Processor::Cuda {
            has("CUDA", CUDA::is_available())?;
        }
        if deployment.runtime == RuntimeKind::TensorRt {
            has("TensorRT", TensorRT::is_available())?;
        }
        Ok(Onnx { library })
    }

    /// A builder of sessions on the providers of a deployment. `strict`: a session with a node on the processor is refused.
    fn builder(&self, deployment: &Deployment, strict: bool) -> Result<SessionBuilder> {
        let plain = || -> ort::Result<SessionBuilder> {
            let builder = ort::session::Session::builder(&self.library.environment)?
                // What goes wrong is in the errors it gives.
                .with_log_level(LogLevel::Fatal)?
                .with_optimization_level(GraphOptimizationLevel::All)?
                .with_intra_threads(deployment.threads)?
                .with_inter_threads(1)?
                // Threads may spin while a run lasts, as they do by default, but not beyond: the next run is another
                // session's.
                .with_config_entry("session.force_spinning_stop", "1")?;
            Ok(if strict { builder.with_disable_cpu_fallback()? } else { builder })
        };
        let failed = |what: &str, reason: &ort::Error| {
            Error::NoRuntime {
            runtime: deployment.runtime,
            reason: format!("{} {what}: {}", self.library.library().display(), one_line(reason)),
            cure: "put the libraries that it names (CUDA, cuDNN, TensorRT; PyPI has them as nvidia-* and tensorrt) on \
                   LD_LIBRARY_PATH, in the versions that this ONNX Runtime was built for; `nvidia-smi` must show the GPU"
                .into(),
        }
        };
        let builder = plain().map_err(|e| failed("refuses its settings", &e))?;
        let mut providers: Vec<ExecutionProviderDispatch> = Vec::new();
        if deployment.runtime == RuntimeKind::TensorRt {
            providers.push(TensorRT::default().build().error_on_failure());
        }
        if deployment.processor == Processor::Cuda {
            providers.push(CUDA::default().build().error_on_failure());
        }
        builder
            .with_execution_providers(providers)
            .map_err(|e| failed("cannot start the GPU's execution provider", &e.into()))
    }
}

impl Runtime for Onnx {
    fn version(&self) -> String {
        self.library.version().to_string()
    }

    fn open(&self, model: &Model, deployment: &Deployment) -> Result<Box<dyn Executable>> {
        let onnx = model.to_onnx(deployment.precision)?;
        let open = |strict: bool| -> Result<ort::Result<ort::session::Session>> {
            let mut builder = self.builder(deployment, strict)?;
            Ok(match &onnx {
                OnnxModel::File(path) => builder.commit_from_file(path),
                OnnxModel::Bytes(bytes) => builder.commit_from_memory(bytes),
            })
        };
        let (mut inner, mut note) = (open(deployment.processor == Processor::Cuda)?, None);
        if let (Processor::Cuda, Err(refused)) = (deployment.processor, &inner) {
            // Shapes are often computed on the processor, which costs nothing; but whoever reads the figures should know.
            note = Some(format!("some of its operations run on the processor ({})", one_line(refused)));
            inner = open(false)?;
        }
        let inner = inner.map_err(|e| {
            let reason = one_line(&e);
            let reason = match reason.strip_prefix("Load model from ").and_then(|r| r.split_once(" failed:"))
            {
                Some((_, reason)) => reason,
                None => &reason,
            };
            let reason = reason.trim().trim_end_matches('.');
            let cure = match deployment.precision {
                _ if ["rotobuf parsing failed", "No graph was found"].iter().any(|w| reason.contains(w)) => {
                    "; it is no ONNX file, or not whole: export or copy it again".into()
                }
                Precision::Fp32 => String::new(),
                precision => format!("; if it lacks {precision} for an operation, use another precision"),
            };
            model.wrong(format!("ONNX Runtime cannot open it: {reason}{cure}"))
        })?;
        if inner.outputs().is_empty() {
            return Err(model.wrong("it has no outputs, so that nothing in it would be computed".into()));
        }
        let ports = |outlets: &[Outlet]| outlets.iter().map(port).collect();
        Ok(Box::new(OnnxExecutable {
            inputs: ports(inner.inputs()),
            outputs: ports(inner.outputs()),
            inner,
            sets: Vec::new(),
            clock: Clock::new(deployment),
            on_gpu: deployment.processor == Processor::Cuda,
            note,
        }))
    }
}

/// A session of ONNX Runtime.
struct OnnxExecutable {
    // In front of the session, which must outlive what is bound to it.
    sets: Vec<Set>,
    inner: ort::session::Session,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
    clock: Clock,
    on_gpu: bool,
    note: Option<String>,
}

/// Inputs that can be run with at once.
enum Set {
    /// In memory that sessions share.
    Host(Vec<DynValueRef<'static>>),
    /// In the GPU's memory, where the outputs go too.
    Bound(Box<IoBinding>),
}

impl OnnxExecutable {
    fn bind(&self, values: &[DynValueRef<'static>]) -> ort::Result<IoBinding> {
        let mut binding = self.inner.create_binding()?;
        for (port, value) in self.inputs.iter().zip(values) {
            // Copies to where the session wants the input.
            binding.bind_input(&port.name, value)?;
        }
        let gpu = MemoryInfo::new(AllocationDevice::CUDA, 0, AllocatorType::Device, MemoryType::Default)?;
        for port in &self.outputs {
            binding.bind_output_to_device(&port.name, &gpu)?;
        }
        binding.synchronize_inputs()?;
        Ok(binding)
    }

    fn load_values(&mut self, sets: &[Vec<Array>]) -> ort::Result<()> {
        self.sets.clear();
        for set in sets {
            let values = set.iter().map(value).collect::<ort::Result<Vec<_>>>()?;
            self.sets.push(if self.on_gpu {
                Set::Bound(Box::new(self.bind(&values)?))
            } else {
                Set::Host(values)
            });
        }
        Ok(())
    }
}

impl Executable for OnnxExecutable {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    fn load(&mut self, sets: &[Vec<Array>]) -> Answer<()> {
        self.load_values(sets).map_err(|e| one_line(&e))
    }

    fn time(&mut self, set: usize) -> Answer<Timed> {
        let timed = match &self.sets[set] {
            Set::Host(values) => {
                let inputs: Vec<SessionInputValue<'_>> = values.iter().map(|v| (&**v).into()).collect();
                self.clock.time(|| self.inner.run(inputs.as_slice()))
            }
            Set::Bound(binding) => self.clock.time(|| {
                let outputs = self.inner.run_binding(binding)?;
                binding.synchronize_outputs()?;
                ort::Result::Ok(outputs)
            }),
        };
        timed.map_err(|e| one_line(&e))
    }

    fn run(&mut self, inputs: &[Array]) -> Answer<Vec<f32>> {
        let mut run = || -> ort::Result<Vec<f32>> {
            let values = inputs.iter().map(value).collect::<ort::Result<Vec<_>>>()?;
            let inputs: Vec<SessionInputValue<'_>> = values.iter().map(|v| (&**v).into()).collect();
            let outputs = self.inner.run(inputs.as_slice())?;
            Ok(outputs[0].try_extract_tensor::<f32>()?.1.to_vec())
        };
        run().map_err(|e| one_line(&e))
    }

    fn note(&self) -> Option<String> {
        self.note.clone()
    }
}

impl fmt::Debug for OnnxExecutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnnxExecutable").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// An array as the runtime knows it, in the same memory.
fn value(array: &Array) -> ort::Result<DynValueRef<'static>> {
    let dims = array.dims().to_vec();
    with_elements!(array.data(), values => Ok(TensorRef::from_array_view((dims, Arc::clone(values)))?.into_dyn()))
}

fn port(outlet: &Outlet) -> Port {
    let name = outlet.name().to_string();
    let ValueType::Tensor { ty, shape, dimension_symbols } = outlet.dtype() else {
        return Port { name, element: Err(outlet.dtype().to_string()), dims: Vec::new() };
    };
    let dims = shape.iter().enumerate().map(|(at, &size)| match usize::try_from(size) {
        Ok(size) => Dim::Size(size),
        Err(_) => match dimension_symbols.get(at).filter(|symbol| !symbol.is_empty()) {
            Some(symbol) => Dim::Named(symbol.clone()),
            None => Dim::Open,
        },
    });
    Port { name, element: element(*ty).ok_or_else(|| ty.to_string()), dims: dims.collect() }
}

fn element(ty: TensorElementType) -> Option<Element> {
    Some(match ty {
        TensorElementType::Float32 => Element::F32,
        TensorElementType::Float16 => Element::F16,
        TensorElementType::Bfloat16 => Element::Bf16,
        TensorElementType::Float64 => Element::F64,
        TensorElementType::Int8 => Element::I8,
        TensorElementType::Uint8 => Element::U8,
        TensorElementType::Int16 => Element::I16,
        TensorElementType::Uint16 => Element::U16,
        TensorElementType::Int32 => Element::I32,
        TensorElementType::Uint32 => Element::U32,
        TensorElementType::Int64 => Element::I64,
        TensorElementType::Uint64 => Element::U64,
        TensorElementType::Bool => Element::Bool,
        _ => return None,
    })
}

/// The runtime's messages run over several lines: the first one says it.
fn one_line(error: &ort::Error) -> String {
    without_source(error.to_string().lines().next().unwrap_or_default())
}

/// A message without the place in the runtime's own source, `/onnxruntime_src/…/file.cc:12 void f(const T&) `, that may stand
/// in it.
fn without_source(message: &str) -> String {
    let Some((before, place)) = message.split_once("/onnxruntime_src/") else { return message.into() };
    // It ends with the function's arguments, which may have brackets of their own.
    let mut depth = 0_usize;
    let end = place.char_indices().find_map(|(at, c)| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        (c == ')' && depth == 0).then_some(at + 1)
    });
    let Some(rest) = end.and_then(|end| place.get(end..)) else { return message.into() };
    let rest = rest.strip_prefix(" const").unwrap_or(rest);
    format!("{before}{}", rest.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_without_the_runtimes_source() {
        for (message, shown) in [
            ("plain", "plain"),
            (
                "Node 'y' Status Message: /onnxruntime_src/a/reshape_helper.h:91 R::R(const A<int (B)>&, bool) a == b was false.",
                "Node 'y' Status Message: a == b was false.",
            ),
            ("/onnxruntime_src/a.cc:1 int f() const Unsupported (99)", "Unsupported (99)"),
            ("/onnxruntime_src/a.cc:1 cut", "/onnxruntime_src/a.cc:1 cut"),
        ] {
            assert_eq!(without_source(message), shown);
        }
    }
}
