//! What a node can do: the shape rule, the parameters and the multiply-accumulates of each operation.

use serde::{Deserialize, Serialize};

use crate::Shape;

/// An element-wise non-linearity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, 0), 6)`.
    Relu6,
    /// `x · sigmoid(x)`, also called swish.
    Silu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// `x · min(max(x + 3, 0), 6) / 6`.
    HardSwish,
    /// `min(max(x + 3, 0), 6) / 6`.
    HardSigmoid,
    /// `x · Φ(x)` with the normal distribution function Φ (Hendrycks & Gimpel 2016), exactly, not by its approximation.
    Gelu,
    /// The hyperbolic tangent.
    Tanh,
    /// The error function, `2 · Φ(x √2) − 1`.
    Erf,
    /// `x` above zero, `exp(x) − 1` below (Clevert et al. 2016).
    Elu,
    /// `log(1 + exp(x))`.
    Softplus,
}

/// A two-dimensional convolution (cross-correlation, as everywhere in deep learning).
///
/// Parameters: `weight` `[out_channels, in_channels / groups, kernel_h, kernel_w]` and, with `bias`, `bias` `[out_channels]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conv2d {
    /// Channels that come in.
    pub in_channels: usize,
    /// Channels that go out.
    pub out_channels: usize,
    /// Height and width of the kernel.
    pub kernel: [usize; 2],
    /// Step in height and width.
    pub stride: [usize; 2],
    /// How far the elements of the kernel stand apart in height and width: 1 for a kernel without holes.
    #[serde(default = "Conv2d::dense", skip_serializing_if = "Conv2d::is_dense")]
    pub dilation: [usize; 2],
    /// Zeros added at top, left, bottom, right.
    pub padding: [usize; 4],
    /// Number of groups the channels are divided into; equal to `in_channels` for a depthwise convolution.
    pub groups: usize,
    /// Whether a bias is added.
    pub bias: bool,
}

impl Conv2d {
    /// Whether every input channel is convolved on its own, one output channel each.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.in_channels && self.groups == self.out_channels
    }

    /// Whether the kernel has holes.
    pub fn is_dilated(&self) -> bool {
        self.dilation != [1, 1]
    }

    /// Height and width that the kernel spans, holes included.
    pub fn span(&self) -> [usize; 2] {
        [0, 1].map(|at| self.kernel[at].saturating_sub(1).saturating_mul(self.dilation[at]).saturating_add(1))
    }

    fn dense() -> [usize; 2] {
        [1, 1]
    }

    fn is_dense(dilation: &[usize; 2]) -> bool {
        *dilation == [1, 1]
    }
}

/// The windows of a two-dimensional pooling, as in PyTorch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Height and width of a window.
    pub kernel: [usize; 2],
    /// Step in height and width.
    pub stride: [usize; 2],
    /// Rows added above and below, columns added left and right; at most half the kernel.
    pub padding: [usize; 2],
    /// Whether rows and columns that do not fill a window get one too, which reaches beyond the padded map. It must begin
    /// inside, or in the padding before it.
    pub ceil_mode: bool,
}

impl Window {
    /// Square windows without `ceil_mode`.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Window { kernel: [kernel; 2], stride: [stride; 2], padding: [padding; 2], ceil_mode: false }
    }

    /// How many windows stand along a side of `size`, or why none can.
    fn count(&self, size: usize, axis: usize) -> Result<usize, String> {
        let (kernel, stride, padding) = (self.kernel[axis], self.stride[axis], self.padding[axis]);
        if kernel == 0 || stride == 0 {
            return Err("kernel and stride must be positive".into());
        }
        if padding > kernel / 2 {
            return Err(format!("windows of {kernel} padded by {padding}, more than half of them"));
        }
        let padded = size.saturating_add(2 * padding);
        let Some(steps) = padded.checked_sub(kernel) else {
            return match self.ceil_mode && kernel - padded < stride {
                true => Ok(1),
                false => Err(format!("windows of {kernel} on {size} padded by {padding}")),
            };
        };
        let mut count = (steps / stride).saturating_add(1);
        let begins_inside = count.saturating_mul(stride) < size.saturating_add(padding);
        if self.ceil_mode && steps % stride != 0 && begins_inside {
            count += 1;
        }
        Ok(count)
    }
}

/// What one node computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Op {
    /// A convolution.
    Conv2d(Conv2d),
    /// Batch normalisation over the channels (Ioffe & Szegedy 2015). Parameters: `weight`, `bias`, `running_mean`,
    /// `running_var`, each `[channels]`.
    BatchNorm {
        /// Added to the variance under the root.
        eps: f64,
        /// Weight of a new batch in the running statistics, as in PyTorch (0.1 by default).
        momentum: f64,
    },
    /// An element-wise non-linearity.
    Activation {
        /// Which one.
        kind: Activation,
    },
    /// Sum of two values. Where one of them has a single slice along a dimension, it stands for as many as the other has.
    Add,
    /// Product of two values by the same rule: of a feature map and a `[channels, 1, 1]` gate, for example, which comes
    /// second.
    Mul,
    /// Values one behind the other along a dimension; in all others they agree.
    Concat {
        /// The dimension, counted from 0 behind the batch.
        axis: usize,
    },
    /// The sum of `parts` equal runs of channels: from `parts · c` channels to `c`, the first of them the sum of channels
    /// 0, c, 2c …
    SumParts {
        /// How many runs the channels are divided into.
        parts: usize,
    },
    /// Softmax across `parts` equal runs of channels: channels 0, c, 2c … of a pixel become weights that sum to one. The
    /// radix softmax of split attention (Zhang et al. 2020).
    SoftmaxParts {
        /// How many runs the channels are divided into.
        parts: usize,
    },
    /// Another order of the channels: `outer` runs of `inner` runs become `inner` runs of `outer` runs. With as many
    /// channels as `outer · inner` it is the channel shuffle of ShuffleNet (Zhang et al. 2018).
    ShuffleChannels {
        /// How many runs the channels are divided into.
        outer: usize,
        /// How many runs each of those is divided into.
        inner: usize,
    },
    /// The largest element of each window; padding counts as minus infinity.
    MaxPool {
        /// The windows.
        window: Window,
    },
    /// The mean of each window.
    AveragePool {
        /// The windows.
        window: Window,
        /// Whether the zeros of the padding count in the mean. What `ceil_mode` adds beyond them never does.
        count_include_pad: bool,
    },
    /// Mean over height and width, which become 1.
    GlobalAveragePool,
    /// Mean along any other dimensions, which become 1.
    Mean {
        /// The dimensions, counted from 0 behind the batch, in ascending order.
        axes: Vec<usize>,
    },
    /// A feature map as a vector.
    Flatten,
    /// A fully connected layer on the last dimension: on a vector, or on each row of what has more dimensions, as on each
    /// token of a transformer. Parameters: `weight` `[out_features, in_features]`, `bias` `[out_features]`.
    Linear {
        /// Length of the result.
        out_features: usize,
        /// Whether a bias is added.
        bias: bool,
    },
    /// The same elements in the same order by other dimensions.
    Reshape {
        /// The dimensions behind the batch.
        shape: Vec<usize>,
    },
    /// The dimensions in another order.
    Transpose {
        /// For each dimension of the result the one it was, both counted from 0 behind the batch.
        order: Vec<usize>,
    },
    /// The slices at `indices` along a dimension, in that order; one may stand several times.
    Select {
        /// The dimension, counted from 0 behind the batch.
        axis: usize,
        /// Positions along it.
        indices: Vec<usize>,
    },
    /// Product of matrices, `[…, m, k]` times `[…, k, n]`, one for each index of the dimensions in front, which agree.
    MatMul,
    /// Softmax along a dimension.
    Softmax {
        /// The dimension, counted from 0 behind the batch.
        axis: usize,
    },
    /// The logarithm of the softmax along a dimension.
    LogSoftmax {
        /// The dimension, counted from 0 behind the batch.
        axis: usize,
    },
    /// Layer normalisation over the last dimension (Ba et al. 2016). Parameters: `weight`, `bias`, each as long as that.
    LayerNorm {
        /// Added to the variance under the root.
        eps: f64,
    },
    /// Every element times a number.
    Scale {
        /// The number.
        factor: f32,
    },
    /// Every element plus a number.
    Shift {
        /// The number.
        term: f32,
    },
    /// Every element to the power of a number: root, reciprocal, square.
    Power {
        /// The number.
        exponent: f32,
    },
    /// The input plus a trained tensor, the same for every sample: a learned position embedding. Parameter: `weight`, of the
    /// input's shape but for the shared dimensions, which are 1.
    AddParameter {
        /// Dimensions along which the tensor is one and the same, counted from 0 behind the batch.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shared: Vec<usize>,
    },
    /// The input times a trained tensor, the same for every sample: the layer scale of ConvNeXt (Liu et al. 2022, after
    /// Touvron et al. 2021). Parameter: `weight`, as that of [`Op::AddParameter`].
    MulParameter {
        /// Dimensions along which the tensor is one and the same, counted from 0 behind the batch.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        shared: Vec<usize>,
    },
    /// A three-dimensional convolution of step 1 on `[channels, depth, height, width]`.
    ///
    /// Parameters: `weight` `[out_channels, in_channels, kernel…]` and, with `bias`, `bias` `[out_channels]`.
    Conv3d {
        /// Channels that go out.
        out_channels: usize,
        /// Size of the kernel in each dimension.
        kernel: [usize; 3],
        /// Zeros added at both ends of each dimension.
        padding: [usize; 3],
        /// Whether a bias is added.
        bias: bool,
    },
    /// Every `stride`-th row and column: the spatial half of the parameter-free shortcut (option A of He et al. 2015).
    Subsample {
        /// Step in height and width.
        stride: usize,
    },
    /// Channels of zeros before and after: the other half of option A.
    PadChannels {
        /// Zero channels in front.
        before: usize,
        /// Zero channels behind.
        after: usize,
    },
    /// Slices of one number before and after, along any dimensions.
    Pad {
        /// For each dimension behind the batch how many stand before and behind it.
        pads: Vec<[usize; 2]>,
        /// The number.
        value: f32,
    },
    /// A feature map at another height and width, by bilinear interpolation.
    Resize {
        /// Height and width of the result.
        size: [usize; 2],
        /// Whether the centres of the corner pixels stay where they are, rather than the map's edges.
        align_corners: bool,
    },
    /// While training, sets each element to zero with probability `rate` and scales the others by `1 / (1 - rate)`
    /// (Srivastava et al. 2014); otherwise the identity.
    Dropout {
        /// Share of the elements set to zero.
        rate: f64,
    },
    /// While training, sets whole samples to zero with probability `rate` and scales the others by `1 / (1 - rate)`:
    /// stochastic depth (Huang et al. 2016) at the end of a residual branch; otherwise the identity.
    DropPath {
        /// Share of the samples set to zero.
        rate: f64,
    },
}

/// What a parameter is for, hence how it is initialised and whether it is trained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Kernel of a convolution.
    Kernel,
    /// Matrix of a fully connected layer.
    Matrix,
    /// Bias of a convolution or a fully connected layer.
    Bias,
    /// Scale of a normalisation (γ).
    Scale,
    /// Shift of a normalisation (β).
    Shift,
    /// A tensor added to a value: a position embedding.
    Embedding,
    /// Running mean: updated by training, not by the optimizer.
    RunningMean,
    /// Running variance: updated by training, not by the optimizer.
    RunningVariance,
}

impl Role {
    /// Whether an optimizer changes it.
    pub fn is_trained(self) -> bool {
        !matches!(self, Role::RunningMean | Role::RunningVariance)
    }
}

impl Op {
    /// The operation's name in messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Conv2d(_) => "conv2d",
            Op::BatchNorm { .. } => "batch_norm",
            Op::Activation { .. } => "activation",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Concat { .. } => "concat",
            Op::SumParts { .. } => "sum_parts",
            Op::SoftmaxParts { .. } => "softmax_parts",
            Op::ShuffleChannels { .. } => "shuffle_channels",
            Op::MaxPool { .. } => "max_pool",
            Op::AveragePool { .. } => "average_pool",
            Op::GlobalAveragePool => "global_average_pool",
            Op::Mean { .. } => "mean",
            Op::Flatten => "flatten",
            Op::Linear { .. } => "linear",
            Op::Reshape { .. } => "reshape",
            Op::Transpose { .. } => "transpose",
            Op::Select { .. } => "select",
            Op::MatMul => "mat_mul",
            Op::Softmax { .. } => "softmax",
            Op::LogSoftmax { .. } => "log_softmax",
            Op::LayerNorm { .. } => "layer_norm",
            Op::Scale { .. } => "scale",
            Op::Shift { .. } => "shift",
            Op::Power { .. } => "power",
            Op::AddParameter { .. } => "add_parameter",
            Op::MulParameter { .. } => "mul_parameter",
            Op::Conv3d { .. } => "conv3d",
            Op::Subsample { .. } => "subsample",
            Op::PadChannels { .. } => "pad_channels",
            Op::Pad { .. } => "pad",
            Op::Resize { .. } => "resize",
            Op::Dropout { .. } => "dropout",
            Op::DropPath { .. } => "drop_path",
        }
    }

    /// Whether the operation does something while training only, and nothing afterwards.
    pub fn is_training_only(&self) -> bool {
        matches!(self, Op::Dropout { .. } | Op::DropPath { .. })
    }

    /// How many values the operation takes; none if it takes any number from one on.
    pub fn arity(&self) -> Option<usize> {
        match self {
            Op::Concat { .. } => None,
            Op::Add | Op::Mul | Op::MatMul => Some(2),
            _ => Some(1),
        }
    }

    /// The shape of the result, or why the inputs do not fit.
    pub fn infer(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        let shape = self.infer_any_size(inputs)?;
        // Nonsense from a damaged file must not overflow the arithmetic of costs, nor be allocated.
        let parameters = self.parameters(inputs);
        for dims in parameters.iter().map(|(_, dims, _)| dims.as_slice()).chain([shape.dims()]) {
            if !Shape::is_sane(dims) {
                return Err(format!("{} with a tensor of shape {dims:?}, which is too large", self.kind()));
            }
        }
        Ok(shape)
    }

    fn infer_any_size(&self, inputs: &[&Shape]) -> Result<Shape, String> {
        match self.arity() {
            Some(arity) if inputs.len() != arity => {
                return Err(format!("{} takes {arity} inputs, not {}", self.kind(), inputs.len()));
            }
            None if inputs.is_empty() => return Err(format!("{} of nothing", self.kind())),
            _ => {}
        }
        let image = |s: &Shape| s.as_image().ok_or(format!("{} needs a feature map, not {s}", self.kind()));
        let x = inputs[0];
        match self {
            Op::Conv2d(conv) => {
                let (c, h, w) = image(x)?;
                if c != conv.in_channels {
                    return Err(format!("convolution of {} channels on {x}", conv.in_channels));
                }
                if conv.out_channels == 0
                    || conv.groups == 0
                    || c % conv.groups != 0
                    || conv.out_channels % conv.groups != 0
                {
                    return Err(format!("{c} to {} channels in {} groups", conv.out_channels, conv.groups));
                }
                if [conv.kernel, conv.stride, conv.dilation].as_flattened().contains(&0) {
                    return Err("kernel, stride and dilation must be positive".into());
                }
                let [top, left, bottom, right] = conv.padding;
                let out = |size: usize, pad: usize, axis: usize| {
                    let (padded, span) = (size.saturating_add(pad), conv.span()[axis]);
                    match padded.checked_sub(span) {
                        Some(steps) => Ok((steps / conv.stride[axis]).saturating_add(1)),
                        None => Err(format!("kernel {span} on {size} padded by {pad}")),
                    }
                };
                Ok(Shape::image(
                    conv.out_channels,
                    out(h, top.saturating_add(bottom), 0)?,
                    out(w, left.saturating_add(right), 1)?,
                ))
            }
            Op::BatchNorm { eps, momentum } => {
                image(x)?;
                if !(eps.is_finite() && *eps > 0.0 && (0.0..=1.0).contains(momentum)) {
                    return Err(format!("batch normalisation with eps {eps}, momentum {momentum}"));
                }
                Ok(x.clone())
            }
            Op::Activation { .. } => Ok(x.clone()),
            Op::Add => broadcast(x, inputs[1]).ok_or_else(|| format!("sum of {x} and {}", inputs[1])),
            Op::Mul => broadcast(x, inputs[1]).ok_or_else(|| format!("product of {x} and {}", inputs[1])),
            Op::Concat { axis } => {
                let mut dims = x.dims().to_vec();
                let Some(size) = dims.get_mut(*axis) else {
                    return Err(format!("concatenation along dimension {axis} of {x}"));
                };
                *size = 0;
                for y in inputs {
                    let others = |s: &Shape| {
                        let sizes = s.dims().iter().enumerate().filter(|(at, _)| at != axis);
                        sizes.map(|(_, &size)| size).collect::<Vec<_>>()
                    };
                    if y.dims().len() != dims.len() || others(y) != others(x) {
                        return Err(format!("concatenation of {x} and {y} along dimension {axis}"));
                    }
                    dims[*axis] = dims[*axis].saturating_add(y.dims()[*axis]);
                }
                Ok(Shape::of(&dims))
            }
            Op::SumParts { parts } => {
                let (c, h, w) = image(x)?;
                if *parts == 1 {
                    return Err("a sum of one part".into());
                }
                Ok(Shape::image(run_length(c, *parts)?, h, w))
            }
            Op::SoftmaxParts { parts } => {
                run_length(image(x)?.0, *parts)?;
                Ok(x.clone())
            }
            Op::ShuffleChannels { outer, inner } => {
                run_length(run_length(image(x)?.0, *outer)?, *inner)?;
                Ok(x.clone())
            }
            Op::MaxPool { window } | Op::AveragePool { window, .. } => {
                let (c, h, w) = image(x)?;
                Ok(Shape::image(c, window.count(h, 0)?, window.count(w, 1)?))
            }
            Op::GlobalAveragePool => Ok(Shape::image(image(x)?.0, 1, 1)),
            Op::Mean { axes } => {
                let ascending = axes.windows(2).all(|pair| pair[0] < pair[1]);
                if axes.is_empty() || !ascending || axes.iter().any(|&axis| axis >= x.dims().len()) {
                    return Err(format!("mean along the dimensions {axes:?} of {x}"));
                }
                Ok(Shape::of(&with_ones(x, axes)))
            }
            Op::Flatten => Ok(Shape::vector(x.elements())),
            Op::Linear { out_features, .. } => match x.dims() {
                [rows @ .., _] if *out_features > 0 => Ok(Shape::of(&[rows, &[*out_features]].concat())),
                _ => Err(format!("linear of {out_features} features on {x}")),
            },
            Op::Reshape { shape } => {
                let reshaped = Shape::of(shape);
                match !shape.is_empty() && Shape::is_sane(shape) && reshaped.elements() == x.elements() {
                    true => Ok(reshaped),
                    false => Err(format!("{x} by the dimensions {shape:?}")),
                }
            }
            Op::Transpose { order } => {
                let mut sorted = order.clone();
                sorted.sort_unstable();
                match sorted.into_iter().eq(0..x.dims().len()) {
                    true => Ok(Shape::of(&order.iter().map(|&at| x.dims()[at]).collect::<Vec<_>>())),
                    false => Err(format!("dimensions of {x} in the order {order:?}")),
                }
            }
            Op::Select { axis, indices } => {
                let mut dims = x.dims().to_vec();
                match dims.get_mut(*axis) {
                    Some(size) if !indices.is_empty() && indices.iter().all(|i| i < size) => {
                        *size = indices.len();
                        Ok(Shape::of(&dims))
                    }
                    _ => Err(format!("{} positions along dimension {axis} of {x}", indices.len())),
                }
            }
            Op::MatMul => match (x.dims(), inputs[1].dims()) {
                ([rest @ .., m, k], [other @ .., l, n]) if k == l && rest == other => {
                    Ok(Shape::of(&[rest, &[*m, *n]].concat()))
                }
                _ => Err(format!("matrix product of {x} and {}", inputs[1])),
            },
            Op::Softmax { axis } | Op::LogSoftmax { axis } => match *axis < x.dims().len() {
                true => Ok(x.clone()),
                false => Err(format!("softmax along dimension {axis} of {x}")),
            },
            Op::LayerNorm { eps } => match eps.is_finite() && *eps > 0.0 {
                true => Ok(x.clone()),
                false => Err(format!("layer normalisation with eps {eps}")),
            },
            Op::Scale { factor } if factor.is_finite() => Ok(x.clone()),
            Op::Scale { factor } => Err(format!("a factor of {factor}")),
            Op::Shift { term } if term.is_finite() => Ok(x.clone()),
            Op::Shift { term } => Err(format!("a term of {term}")),
            Op::Power { exponent } if exponent.is_finite() => Ok(x.clone()),
            Op::Power { exponent } => Err(format!("an exponent of {exponent}")),
            Op::AddParameter { shared } | Op::MulParameter { shared } => {
                let ascending = shared.windows(2).all(|pair| pair[0] < pair[1]);
                match ascending && shared.iter().all(|&axis| axis < x.dims().len()) {
                    true => Ok(x.clone()),
                    false => Err(format!("a parameter for {x} shared along the dimensions {shared:?}")),
                }
            }
            Op::Conv3d { out_channels, kernel, padding, .. } => {
                let [_, sizes @ ..] = x.dims() else { return Err(format!("conv3d of {x}")) };
                let mut dims = vec![*out_channels];
                for (at, size) in sizes.iter().enumerate() {
                    let padded = padding.get(at).and_then(|p| p.checked_mul(2)?.checked_add(*size));
                    match (padded, kernel.get(at)) {
                        (Some(padded), Some(&k)) if k > 0 && k <= padded => dims.push(padded - k + 1),
                        _ => return Err(format!("kernel {kernel:?} on {x} padded by {padding:?}")),
                    }
                }
                match dims.len() == 4 && *out_channels > 0 {
                    true => Ok(Shape::of(&dims)),
                    false => Err(format!("conv3d of {x} to {out_channels} channels")),
                }
            }
            Op::Subsample { stride } => {
                let (c, h, w) = image(x)?;
                if *stride == 0 {
                    return Err("stride must be positive".into());
                }
                Ok(Shape::image(c, h.div_ceil(*stride), w.div_ceil(*stride)))
            }
            Op::PadChannels { before, after } => {
                let (c, h, w) = image(x)?;
                Ok(Shape::image(c.saturating_add(*before).saturating_add(*after), h, w))
            }
            Op::Pad { pads, value } => {
                if pads.len() != x.dims().len() || !value.is_finite() {
                    return Err(format!("{pads:?} slices of {value} around {x}"));
                }
                let wider = x.dims().iter().zip(pads);
                let dims = wider.map(|(d, [before, after])| d.saturating_add(*before).saturating_add(*after));
                Ok(Shape::of(&dims.collect::<Vec<_>>()))
            }
            Op::Resize { size: [height, width], .. } => match (image(x)?.0, *height, *width) {
                (c, 1.., 1..) => Ok(Shape::image(c, *height, *width)),
                _ => Err(format!("{x} at {height}×{width}")),
            },
            Op::Dropout { rate } | Op::DropPath { rate } => match (0.0..1.0).contains(rate) {
                true => Ok(x.clone()),
                false => Err(format!("a rate of {rate}, which is not in 0..1")),
            },
        }
    }

    /// Parameters by their name within the node, with shape and role, in a fixed order.
    pub fn parameters(&self, inputs: &[&Shape]) -> Vec<(&'static str, Vec<usize>, Role)> {
        match self {
            Op::Conv2d(c) => {
                let kernel = vec![c.out_channels, c.in_channels / c.groups.max(1), c.kernel[0], c.kernel[1]];
                let mut list = vec![("weight", kernel, Role::Kernel)];
                if c.bias {
                    list.push(("bias", vec![c.out_channels], Role::Bias));
                }
                list
            }
            Op::BatchNorm { .. } => {
                let c = vec![inputs[0].channels()];
                vec![
                    ("weight", c.clone(), Role::Scale),
                    ("bias", c.clone(), Role::Shift),
                    ("running_mean", c.clone(), Role::RunningMean),
                    ("running_var", c, Role::RunningVariance),
                ]
            }
            Op::Linear { out_features, bias } => {
                let in_features = inputs[0].dims().last().copied().unwrap_or(0);
                let mut list = vec![("weight", vec![*out_features, in_features], Role::Matrix)];
                if *bias {
                    list.push(("bias", vec![*out_features], Role::Bias));
                }
                list
            }
            Op::LayerNorm { .. } => {
                let size = inputs[0].dims().last().copied().unwrap_or(0);
                vec![("weight", vec![size], Role::Scale), ("bias", vec![size], Role::Shift)]
            }
            Op::AddParameter { shared } => vec![("weight", with_ones(inputs[0], shared), Role::Embedding)],
            Op::MulParameter { shared } => vec![("weight", with_ones(inputs[0], shared), Role::Scale)],
            Op::Conv3d { out_channels, kernel, bias, .. } => {
                let shape = [&[*out_channels, inputs[0].channels()], kernel.as_slice()].concat();
                let mut list = vec![("weight", shape, Role::Kernel)];
                if *bias {
                    list.push(("bias", vec![*out_channels], Role::Bias));
                }
                list
            }
            _ => Vec::new(),
        }
    }

    /// Multiply-accumulates for one sample, as fvcore counts them and timm publishes them: those of convolutions, fully
    /// connected layers and products of matrices, two for each element that a BatchNorm gives, five for a layer
    /// normalisation. Other element-wise work does not count.
    pub fn macs(&self, inputs: &[&Shape], output: &Shape) -> u64 {
        match self {
            Op::Conv2d(c) => {
                output.elements() as u64
                    * (c.in_channels / c.groups.max(1) * c.kernel[0] * c.kernel[1]) as u64
            }
            Op::Linear { out_features, .. } => (inputs[0].elements() * out_features) as u64,
            Op::BatchNorm { .. } => 2 * output.elements() as u64,
            Op::LayerNorm { .. } => 5 * output.elements() as u64,
            Op::MatMul => inputs[0].elements() as u64 * output.dims().last().map_or(0, |&n| n as u64),
            Op::Conv3d { kernel, .. } => {
                output.elements() as u64 * (inputs[0].channels() * kernel.iter().product::<usize>()) as u64
            }
            _ => 0,
        }
    }
}

/// Channels in each of `parts` runs, or why they cannot be divided.
fn run_length(channels: usize, parts: usize) -> Result<usize, String> {
    match channels.checked_rem(parts) {
        Some(0) => Ok(channels / parts),
        _ => Err(format!("{channels} channels in {parts} parts")),
    }
}

/// The shape of what is made of two values element by element, or none where they do not fit.
fn broadcast(x: &Shape, y: &Shape) -> Option<Shape> {
    let pairs = x.dims().iter().zip(y.dims());
    let dims = pairs.map(|(&a, &b)| match (a, b) {
        _ if a == b => Some(a),
        (1, other) | (other, 1) => Some(other),
        _ => None,
    });
    let dims: Option<Vec<usize>> = dims.collect();
    dims.filter(|_| x.dims().len() == y.dims().len()).map(|dims| Shape::of(&dims))
}

/// The dimensions of `x`, but 1 for `axes`.
fn with_ones(x: &Shape, axes: &[usize]) -> Vec<usize> {
    let size = |(at, &size)| if axes.contains(&at) { 1 } else { size };
    x.dims().iter().enumerate().map(size).collect()
}
