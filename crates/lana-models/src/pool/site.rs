//! What an operation must know of the layer whose place it takes.

use lana_graph::{Activation, Graph, GraphBuilder, Op, Value};

use super::NotApplicable;
use crate::blocks::{Ending, Shortcut};

/// The place of a layer, read off the layer's own graph.
#[derive(Clone, Debug)]
pub(super) struct Site<'a> {
    layer: &'a Graph,
    /// Channels that come in.
    pub(super) channels: usize,
    /// Channels that go out.
    pub(super) out: usize,
    /// Factor by which height and width shrink.
    pub(super) stride: usize,
    /// The activation used inside the layer.
    pub(super) activation: Activation,
    /// What makes the gates inside the layer.
    pub(super) gate: Activation,
    /// How the operation ends.
    pub(super) ending: Ending,
    /// `eps` and `momentum` of the layer's normalisation.
    batch_norm: (f64, f64),
}

impl<'a> Site<'a> {
    /// Reads the layer, or says why no convolution can take its place.
    pub(super) fn of(layer: &'a Graph) -> Result<Self, NotApplicable> {
        let (input, output) = (layer.input_shape(), layer.output_shape());
        let (Some((channels, h, w)), Some((out, out_h, out_w))) = (input.as_image(), output.as_image())
        else {
            return Err(NotApplicable::new(format!(
                "the layer maps {input} to {output}, which are not both feature maps"
            )));
        };
        let stride = stride_of([h, w], [out_h, out_w]).ok_or_else(|| {
            NotApplicable::new(format!("no stride makes {h}×{w} into {out_h}×{out_w} pixels"))
        })?;
        let ops = || layer.nodes().iter().map(|n| &n.op);
        // Sigmoids are gates, which say nothing about what the layer computes with.
        let inner = ops().find_map(|op| match op {
            Op::Activation { kind: Activation::Sigmoid | Activation::HardSigmoid } => None,
            Op::Activation { kind } => Some(*kind),
            _ => None,
        });
        let gate = ops().find_map(|op| match op {
            Op::Activation { kind: kind @ (Activation::Sigmoid | Activation::HardSigmoid) } => Some(*kind),
            _ => None,
        });
        let last = layer.output().node().and_then(|n| match &layer.nodes()[n].op {
            Op::Activation { kind } => Some(*kind),
            _ => None,
        });
        let batch_norm = ops().find_map(|op| match op {
            Op::BatchNorm { eps, momentum } => Some((*eps, *momentum)),
            _ => None,
        });
        Ok(Site {
            layer,
            channels,
            out,
            stride,
            activation: inner.unwrap_or(Activation::Relu),
            gate: gate.unwrap_or(Activation::Sigmoid),
            ending: Ending { shortcut: shortcut_of(layer), activation: last },
            batch_norm: batch_norm.unwrap_or((1e-5, 0.1)),
        })
    }

    /// A graph that takes the layer's input, made by `block`.
    pub(super) fn graph(
        &self,
        block: impl FnOnce(&mut GraphBuilder, Value) -> lana_graph::Result<Value>,
    ) -> Result<Graph, NotApplicable> {
        let (eps, momentum) = self.batch_norm;
        let mut b =
            GraphBuilder::new("operation", self.layer.input_shape().clone()).with_batch_norm(eps, momentum);
        let input = b.input();
        let output = block(&mut b, input)?;
        Ok(b.finish(output)?)
    }
}

/// The stride with which a convolution padded by half its kernel makes the output's height and width of the input's.
fn stride_of(input: [usize; 2], output: [usize; 2]) -> Option<usize> {
    (1..=input[0].max(input[1])).find(|&s| input.map(|size| size.div_ceil(s)) == output)
}

/// The residual connection: the input itself where the shape stays, otherwise one like the teacher's own shortcut, be it
/// without parameters or a projection; none where the teacher has none.
fn shortcut_of(layer: &Graph) -> Shortcut {
    if layer.input_shape() == layer.output_shape() {
        return Shortcut::Identity;
    }
    if let Some(projection) = Projection::of(layer) {
        return projection.shortcut;
    }
    let mut stride = 1;
    let mut padding = None;
    for node in layer.nodes() {
        match node.op {
            Op::Subsample { stride: s } => stride = s,
            Op::PadChannels { before, after } => padding = Some((before, after)),
            _ => {}
        }
    }
    let Some((before, after)) = padding else { return Shortcut::None };
    let shortcut = Shortcut::Subsampled { stride, before, after };
    match shortcut.shape(layer.input_shape()).as_ref() == Some(layer.output_shape()) {
        true => shortcut,
        false => Shortcut::None,
    }
}

/// The projection that a layer has as its shortcut, of its first block where it is put together of several: a 1×1 convolution of its
/// input, with BatchNorm.
#[derive(Clone, Copy, Debug)]
pub(super) struct Projection<'a> {
    /// How it is built.
    pub(super) shortcut: Shortcut,
    /// Name of its convolution.
    pub(super) conv: &'a str,
    /// Name of its BatchNorm.
    pub(super) norm: &'a str,
}

impl<'a> Projection<'a> {
    /// Reads it off the layer's graph, if there is one.
    pub(super) fn of(layer: &'a Graph) -> Option<Self> {
        let maker = |value: Value| value.node().map(|n| &layer.nodes()[n]);
        // From the end on: an operation may sum branches, of which one is a 1×1 convolution too, before it adds its shortcut.
        let sums = layer.nodes().iter().rev().filter(|node| node.op == Op::Add);
        let ends = sums.flat_map(|sum| &sum.inputs);
        ends.filter(|end| layer.shape(**end) == layer.output_shape()).find_map(|&end| {
            let norm = maker(end).filter(|n| matches!(n.op, Op::BatchNorm { .. }))?;
            let node = maker(norm.inputs[0])?;
            let Op::Conv2d(conv) = &node.op else { return None };
            let [stride, width_stride] = conv.stride;
            let plain = conv.kernel == [1, 1] && conv.padding == [0; 4] && conv.groups == 1 && !conv.bias;
            if !plain || stride != width_stride {
                return None;
            }
            let (stride, average) = match maker(node.inputs[0]).map(|n| (&n.op, n.inputs[0])) {
                None => (stride, false),
                Some((Op::AveragePool { window, count_include_pad: false }, Value::INPUT))
                    if stride == 1 && *window == Shortcut::halving(window.kernel[0]) =>
                {
                    (window.kernel[0], true)
                }
                Some(_) => return None,
            };
            let shortcut = Shortcut::Projection { out: conv.out_channels, stride, average };
            Some(Projection { shortcut, conv: &node.name, norm: &norm.name })
        })
    }
}
