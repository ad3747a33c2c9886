use std::collections::HashMap;
use std::sync::Arc;

use lana_graph::{Activation, Graph, Op, Precision, Role, Tensor as Array, Value, Weights, Window, deploy};
use tch::{Kind, Tensor};

use crate::{Device, Result, fused};

/// Which statistics batch normalisation uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchNorm {
    /// Those of the batch, which also update the running ones: training. (What is dropped at random in training is
    /// the business of [`Network::forward_dropping`].)
    Train,
    /// Those of the batch, while the running ones become the plain mean over the batches so far, of which this is the n-th
    /// (from 1): how they are settled once the weights stay as they are. As long as weights changed, the running ones
    /// lagged behind them.
    Settle(u32),
    /// Those of the batch, leaving the running ones alone: the paper's way to evaluate an assembled student before it is
    /// fine-tuned, whose running statistics belong to other inputs.
    Batch,
    /// The running ones: inference.
    Running,
}

impl BatchNorm {
    /// Weight of this batch in the running statistics, by what the node says it is in training.
    fn momentum(self, momentum: f64) -> f64 {
        match self {
            BatchNorm::Settle(batch) => 1.0 / f64::from(batch.max(1)),
            _ => momentum,
        }
    }
}

/// A graph with its weights on a device, ready to run.
#[derive(Debug)]
pub struct Network {
    graph: Arc<Graph>,
    device: Device,
    precision: Precision,
    names: Arc<Vec<(String, Role)>>,
    tensors: Vec<Tensor>,
    /// For each node where its parameters begin in `tensors`.
    first: Vec<usize>,
    uses: Vec<usize>,
    /// For each node whether its parameters stay as they are in training.
    frozen: Arc<Vec<bool>>,
}

impl Network {
    /// Puts `weights`, which must be those of `graph`, on `device`, not to be trained.
    pub fn new(graph: &Graph, weights: &Weights, device: Device) -> Result<Self> {
        weights.check(graph)?;
        let mut first = vec![0; graph.nodes().len()];
        let (mut names, mut tensors) = (Vec::new(), Vec::new());
        let mut count = 0;
        let parameters = graph.parameters();
        for (node, slot) in first.iter_mut().enumerate() {
            *slot = count;
            count += parameters.iter().filter(|p| p.node == node).count();
        }
        for parameter in parameters {
            if let Some(array) = weights.get(&parameter.name) {
                let mut tensor = to_tensor(array, device)?;
                if parameter.role == Role::Kernel {
                    tensor = channels_last(&tensor)?;
                }
                tensors.push(tensor);
                names.push((parameter.name, parameter.role));
            }
        }
        Ok(Network {
            graph: Arc::new(graph.clone()),
            device,
            precision: Precision::Fp32,
            names: Arc::new(names),
            tensors,
            first,
            uses: graph.uses(),
            frozen: Arc::new(vec![false; graph.nodes().len()]),
        })
    }

    /// The form for inference ([`deploy`]), not to be trained. Layer names and boundaries stay, though the
    /// values' numbers do not: take them from [`Network::graph`].
    pub fn frozen(graph: &Graph, weights: &Weights, device: Device) -> Result<Self> {
        weights.check(graph)?;
        let (graph, weights) = deploy(graph, weights)?;
        Self::new(&graph, &weights, device)
    }

    /// Makes the parameters trainable (all but running statistics).
    pub fn into_trainable(self) -> Self {
        self.into_trainable_but(|_| false)
    }

    /// As [`Network::into_trainable`], but for the nodes of which `frozen` holds, given the name of a parameter: these keep
    /// their parameters, and a BatchNorm among them its running statistics, by which it normalises in training too.
    pub fn into_trainable_but(mut self, frozen: impl Fn(&str) -> bool) -> Self {
        let own = |first: &[usize], node: usize| {
            first[node]..first.get(node + 1).copied().unwrap_or(self.names.len())
        };
        let nodes = 0..self.first.len();
        let kept: Vec<bool> =
            nodes.clone().map(|n| own(&self.first, n).any(|at| frozen(&self.names[at].0))).collect();
        for node in nodes {
            for at in own(&self.first, node) {
                if self.names[at].1.is_trained() && !kept[node] {
                    self.tensors[at] = self.tensors[at].set_requires_grad(true);
                }
            }
        }
        self.frozen = Arc::new(kept);
        self
    }

    /// All parameters and statistics, in a fixed order.
    pub(crate) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The same network with other tensors, in the order of [`Network::tensors`].
    pub(crate) fn share_with(&self, tensors: &[Tensor]) -> Self {
        Network { tensors: tensors.iter().map(Tensor::shallow_clone).collect(), ..self.share() }
    }

    /// Names of the parameters and statistics, in the order of [`Network::tensors`].
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(|(name, _)| name.as_str())
    }

    /// With every tensor in another number format.
    pub(crate) fn into_kind(mut self, kind: Kind) -> Result<Self> {
        for tensor in &mut self.tensors {
            *tensor = tensor.f_to_kind(kind)?;
        }
        Ok(self)
    }

    /// The same network with convolutions and matrix products, and the feature maps behind them, in another number format.
    /// Weights, their gradients and statistics stay in 32 bits.
    pub fn with_precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// The network as data.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Where it runs.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The parameters that are trained, with their roles, in a fixed order.
    pub(crate) fn trained(&self) -> impl Iterator<Item = (&str, Role, &Tensor)> {
        self.names
            .iter()
            .zip(&self.tensors)
            .filter(|(_, tensor)| tensor.requires_grad())
            .map(|((name, role), tensor)| (name.as_str(), *role, tensor))
    }

    /// The weights as data.
    pub fn weights(&self) -> Result<Weights> {
        self.names.iter().zip(&self.tensors).map(|((n, _), t)| Ok((n.clone(), to_array(t)?))).collect()
    }

    /// Another network of the same graph that shares these tensors, for another thread. Only for networks that are
    /// not being trained.
    pub fn share(&self) -> Self {
        Network {
            graph: Arc::clone(&self.graph),
            device: self.device,
            precision: self.precision,
            names: Arc::clone(&self.names),
            tensors: self.tensors.iter().map(Tensor::shallow_clone).collect(),
            first: self.first.clone(),
            uses: self.uses.clone(),
            frozen: Arc::clone(&self.frozen),
        }
    }

    /// Runs the network on `x` (`[n, channels, height, width]`); gives `[n, …output shape]`.
    pub fn forward(&self, x: &Tensor, mode: BatchNorm) -> Result<Tensor> {
        Ok(self.run(Value::INPUT, x, mode, None, &[])?.0)
    }

    /// Runs the network as a training step does: [`BatchNorm::Train`], with dropout and drop path, which do nothing
    /// otherwise. What they drop depends on `seed` and the shapes alone, so that a training that is resumed goes on as it
    /// would have.
    pub fn forward_dropping(&self, x: &Tensor, seed: u64) -> Result<Tensor> {
        Ok(self.forward_dropping_tapped(x, seed, &[])?.0)
    }

    /// As [`Network::forward_dropping`], and also gives the values `taps`, in their order.
    pub fn forward_dropping_tapped(
        &self,
        x: &Tensor,
        seed: u64,
        taps: &[Value],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.run(Value::INPUT, x, BatchNorm::Train, Some(seed), taps)
    }

    /// Runs the network and also gives the values `taps`, in their order.
    pub fn forward_tapped(
        &self,
        x: &Tensor,
        mode: BatchNorm,
        taps: &[Value],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.run(Value::INPUT, x, mode, None, taps)
    }

    /// Runs the network as far as it takes to give the values `taps`, in their order.
    pub fn tapped(&self, x: &Tensor, mode: BatchNorm, taps: &[Value]) -> Result<Vec<Tensor>> {
        let last = taps.iter().map(|tap| tap.index()).max().unwrap_or(0);
        Ok(self.run_until(last, Value::INPUT, x, mode, None, taps)?.1)
    }

    /// Runs what lies behind the value `from`, given that value. Nothing behind may need an earlier value.
    pub fn forward_from(&self, from: Value, x: &Tensor, mode: BatchNorm) -> Result<Tensor> {
        Ok(self.run(from, x, mode, None, &[])?.0)
    }

    /// As [`Self::forward_from`], and also gives the values `taps`, in their order; each must lie behind `from`.
    pub fn forward_from_tapped(
        &self,
        from: Value,
        x: &Tensor,
        mode: BatchNorm,
        taps: &[Value],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.run(from, x, mode, None, taps)
    }

    fn run(
        &self,
        from: Value,
        x: &Tensor,
        mode: BatchNorm,
        drops: Option<u64>,
        taps: &[Value],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        self.run_until(self.graph.nodes().len(), from, x, mode, drops, taps)
    }

    /// Runs the nodes before `end`.
    fn run_until(
        &self,
        end: usize,
        from: Value,
        x: &Tensor,
        mode: BatchNorm,
        drops: Option<u64>,
        taps: &[Value],
    ) -> Result<(Tensor, Vec<Tensor>)> {
        let graph = &*self.graph;
        let mut values: Vec<Option<Tensor>> = Vec::new();
        values.resize_with(graph.nodes().len() + 1, || None);
        values[from.index()] = Some(x.shallow_clone());
        let mut left = self.uses.clone();
        let mut tapped: HashMap<Value, Tensor> = HashMap::new();
        let mut tap = |value: Value, tensor: &Tensor| {
            if taps.contains(&value) {
                tapped.insert(value, tensor.shallow_clone());
            }
        };
        tap(from, x);
        let mut skipped = None;
        for index in from.index()..end {
            if skipped == Some(index) {
                continue;
            }
            let node = &graph.nodes()[index];
            let mode = if self.frozen[index] { BatchNorm::Running } else { mode };
            let mut inputs = Vec::with_capacity(node.inputs.len());
            let mut mine = false;
            for (place, &value) in node.inputs.iter().enumerate() {
                left[value.index()] -= 1;
                // The last reader takes the value, so that memory is free again (and may be written in place).
                let last = left[value.index()] == 0;
                if place == 0 {
                    mine = last && value != from && !taps.contains(&value);
                }
                let slot = &mut values[value.index()];
                let tensor = if last { slot.take() } else { slot.as_ref().map(Tensor::shallow_clone) };
                inputs.push(tensor.ok_or_else(|| lana_graph::Error::Graph {
                    graph: graph.name().to_string(),
                    reason: format!("`{}` needs a value from before the point the run starts at", node.name),
                })?);
            }
            // What passed through an idle dropout, or only got other dimensions, is still the tensor in front of it.
            let passed_on = node.inputs[0].node().is_some_and(|n| {
                let op = &graph.nodes()[n].op;
                op.is_training_only()
                    || matches!(
                        op,
                        Op::Reshape { .. }
                            | Op::Transpose { .. }
                            | Op::Flatten
                            | Op::Subsample { .. }
                            | Op::Select { .. }
                    )
            });
            // BatchNorm and activation are one where nobody wants what is between them.
            if matches!(node.op, Op::BatchNorm { .. })
                && index + 1 < end
                && !taps.contains(&Value::of_node(index))
                && let Some(activation) = self.activation_behind(index)
                && let Some(result) = self.normalise(index, &inputs[0], mode, Some(activation))?
            {
                tap(Value::of_node(index + 1), &result);
                values[index + 2] = Some(result);
                skipped = Some(index + 1);
                continue;
            }
            let in_place = mine && !passed_on && self.uses[node.inputs[0].index()] == 1;
            let result = self.apply(index, &inputs, mode, drops, in_place)?;
            drop(inputs);
            tap(Value::of_node(index), &result);
            values[index + 1] = Some(result);
        }
        let output = values[graph.output().index()].take().unwrap_or_else(|| x.shallow_clone());
        let tapped = taps.iter().filter_map(|v| tapped.get(v).map(Tensor::shallow_clone)).collect();
        Ok((output, tapped))
    }

    /// What a BatchNorm by the statistics of the batch makes of `x`, and the activation behind it of that, in one go; none where
    /// that must be done by libtorch's own parts.
    fn normalise(
        &self,
        index: usize,
        x: &Tensor,
        mode: BatchNorm,
        activation: Option<Activation>,
    ) -> Result<Option<Tensor>> {
        let (Op::BatchNorm { eps, momentum }, true) =
            (&self.graph.nodes()[index].op, mode != BatchNorm::Running)
        else {
            return Ok(None);
        };
        let p = &self.tensors[self.first[index]..];
        let running = (mode != BatchNorm::Batch).then(|| ([&p[2], &p[3]], mode.momentum(*momentum)));
        fused::batch_norm(x, [&p[0], &p[1]], running, *eps, activation)
    }

    /// The activation that alone reads what a node gives, and directly follows it.
    fn activation_behind(&self, index: usize) -> Option<Activation> {
        let next = self.graph.nodes().get(index + 1)?;
        let Op::Activation { kind } = next.op else { return None };
        let value = Value::of_node(index);
        let alone = next.inputs[0] == value && self.uses[value.index()] == 1;
        (alone && fused::knows(kind)).then_some(kind)
    }

    /// Whether the first input of a node comes from a BatchNorm or a convolution, whose derivatives do not need their
    /// results.
    fn made_by_norm(&self, index: usize) -> bool {
        let nodes = self.graph.nodes();
        let maker = nodes[index].inputs[0].node().map(|node| &nodes[node].op);
        matches!(maker, Some(Op::BatchNorm { .. } | Op::Conv2d(_)))
    }

    fn apply(
        &self,
        index: usize,
        inputs: &[Tensor],
        mode: BatchNorm,
        drops: Option<u64>,
        in_place: bool,
    ) -> Result<Tensor> {
        let op = &self.graph.nodes()[index].op;
        let own = self.first[index]..self.first.get(index + 1).copied().unwrap_or(self.tensors.len());
        let mut reduced = [Vec::new(), Vec::new()];
        let (inputs, p) = match (self.precision, op) {
            (Precision::Fp32, _) => (inputs, &self.tensors[own]),
            (format, Op::Conv2d(_) | Op::Conv3d { .. } | Op::Linear { .. } | Op::MatMul) => {
                for (list, tensors) in reduced.iter_mut().zip([inputs, &self.tensors[own]]) {
                    let kind = kind_of(format);
                    *list = tensors.iter().map(|t| Ok(t.f_to_kind(kind)?)).collect::<Result<_>>()?;
                }
                (&reduced[0][..], &reduced[1][..])
            }
            // Its kernels want map and parameters of one format.
            (_, Op::LayerNorm { .. }) => {
                reduced[0] = vec![inputs[0].f_to_kind(Kind::Float)?];
                (&reduced[0][..], &self.tensors[own])
            }
            _ => (inputs, &self.tensors[own]),
        };
        let x = &inputs[0];
        Ok(match op {
            Op::Conv2d(c) => {
                let bias = c.bias.then(|| &p[1]);
                let [stride, dilation] = [c.stride, c.dilation].map(|pair| pair.map(|v| v as i64));
                let [top, left, bottom, right] = c.padding.map(|v| v as i64);
                if top == bottom && left == right {
                    x.f_conv2d(&p[0], bias, stride, [top, left], dilation, c.groups as i64)?
                } else {
                    let padded = x.f_constant_pad_nd([left, right, top, bottom])?;
                    padded.f_conv2d(&p[0], bias, stride, [0, 0], dilation, c.groups as i64)?
                }
            }
            Op::BatchNorm { eps, momentum } => match self.normalise(index, x, mode, None)? {
                Some(y) => y,
                None => {
                    let [weight, bias] = [&p[0], &p[1]].map(Some);
                    let [mean, variance] = match mode {
                        BatchNorm::Batch => [None, None],
                        _ => [&p[2], &p[3]].map(Some),
                    };
                    let training = mode != BatchNorm::Running;
                    let momentum = mode.momentum(*momentum);
                    x.f_batch_norm(weight, bias, mean, variance, training, momentum, *eps, true)?
                }
            },
            Op::Activation { kind } => {
                let mut x = x.shallow_clone();
                match kind {
                    // Writing in place saves a pass over memory; its derivative needs only the result.
                    Activation::Relu if in_place => x.f_relu_()?,
                    Activation::Relu => x.f_relu()?,
                    Activation::Relu6 => x.f_clamp(0.0, 6.0)?,
                    Activation::Silu => x.f_silu()?,
                    Activation::Sigmoid => x.f_sigmoid()?,
                    Activation::HardSwish => x.f_hardswish()?,
                    Activation::HardSigmoid => x.f_hardsigmoid()?,
                    Activation::Gelu => x.f_gelu("none")?,
                    Activation::Tanh => x.f_tanh()?,
                    Activation::Erf => x.f_erf()?,
                    Activation::Elu => x.f_elu()?,
                    Activation::Softplus => x.f_softplus()?,
                }
            }
            // Nothing needs a sum's parts again, neither forwards nor backwards, but the part may be needed by what made it.
            Op::Add if in_place && self.made_by_norm(index) && x.size() == inputs[1].size() => {
                x.shallow_clone().f_add_(&inputs[1])?
            }
            Op::Add => x.f_add(&inputs[1])?,
            Op::Mul => x.f_mul(&inputs[1])?,
            Op::Concat { axis } => Tensor::f_cat(inputs, *axis as i64 + 1)?,
            Op::SumParts { parts } => {
                // Additions keep our layout. A reduction over the parts does not, and took 10 to 60 times as long.
                let parts = x.f_chunk(*parts as i64, 1)?;
                let mut sum = parts[0].shallow_clone();
                for part in &parts[1..] {
                    sum = sum.f_add(part)?;
                }
                sum
            }
            // What libtorch makes of these is not in our layout.
            Op::SoftmaxParts { parts } => {
                channels_last(&in_parts(x, &[*parts])?.f_softmax(1, None::<Kind>)?.f_flatten(1, 2)?)?
            }
            Op::ShuffleChannels { outer, inner } => {
                channels_last(&in_parts(x, &[*outer, *inner])?.f_transpose(1, 2)?.f_flatten(1, 3)?)?
            }
            Op::MaxPool { window } => {
                let [kernel, stride, padding] = sides(window);
                x.f_max_pool2d(kernel, stride, padding, [1, 1], window.ceil_mode)?
            }
            Op::AveragePool { window, count_include_pad } => {
                let [kernel, stride, padding] = sides(window);
                x.f_avg_pool2d(kernel, stride, padding, window.ceil_mode, *count_include_pad, None::<i64>)?
            }
            Op::GlobalAveragePool => x.f_mean_dim([2i64, 3].as_slice(), true, None::<Kind>)?,
            Op::Mean { axes } => {
                let axes: Vec<i64> = whole(axes).map(|axis| axis + 1).collect();
                x.f_mean_dim(axes.as_slice(), true, None::<Kind>)?
            }
            Op::Flatten => x.f_flatten(1, -1)?,
            Op::Linear { bias, .. } => x.f_linear(&p[0], bias.then(|| &p[1]))?,
            Op::Reshape { shape } => {
                let size: Vec<i64> = std::iter::once(x.size()[0]).chain(whole(shape)).collect();
                x.f_reshape(size.as_slice())?
            }
            Op::Transpose { order } => {
                let order: Vec<i64> = std::iter::once(0).chain(whole(order).map(|at| at + 1)).collect();
                x.f_permute(order.as_slice())?
            }
            // A view: nothing is copied.
            Op::Select { axis, indices } if let Some(step) = even_steps(indices) => {
                let (start, end) = (indices[0] as i64, indices[indices.len() - 1] as i64 + 1);
                x.f_slice(*axis as i64 + 1, start, end, step as i64)?
            }
            Op::Select { axis, indices } => {
                let indices: Vec<i64> = whole(indices).collect();
                let indices = Tensor::f_from_slice(&indices)?.f_to_device(self.device.raw())?;
                x.f_index_select(*axis as i64 + 1, &indices)?
            }
            Op::MatMul => x.f_matmul(&inputs[1])?,
            Op::Softmax { axis } => x.f_softmax(*axis as i64 + 1, None::<Kind>)?,
            Op::LogSoftmax { axis } => x.f_log_softmax(*axis as i64 + 1, None::<Kind>)?,
            Op::LayerNorm { eps } => {
                let size = p[0].size();
                x.f_layer_norm(size.as_slice(), Some(&p[0]), Some(&p[1]), *eps, false)?
            }
            Op::Scale { factor } => x.f_mul_scalar(f64::from(*factor))?,
            Op::Shift { term } => x.f_add_scalar(f64::from(*term))?,
            Op::Power { exponent } => x.f_pow_tensor_scalar(f64::from(*exponent))?,
            Op::AddParameter { .. } => x.f_add(&p[0])?,
            Op::MulParameter { .. } => x.f_mul(&p[0])?,
            Op::Conv3d { padding, bias, .. } => {
                let padding = padding.map(|v| v as i64);
                x.f_conv3d(&p[0], bias.then(|| &p[1]), [1; 3], padding, [1; 3], 1)?
            }
            Op::Subsample { stride } => {
                let s = *stride as i64;
                x.f_slice(2, None, None, s)?.f_slice(3, None, None, s)?
            }
            Op::PadChannels { before, after } => {
                x.f_constant_pad_nd([0, 0, 0, 0, *before as i64, *after as i64])?
            }
            Op::Pad { pads, value } => {
                // libtorch counts from the last dimension.
                let pads: Vec<i64> = pads.iter().rev().flat_map(|pair| pair.map(|n| n as i64)).collect();
                x.f_pad(pads.as_slice(), "constant", f64::from(*value))?
            }
            Op::Resize { size, align_corners } => {
                x.f_upsample_bilinear2d(size.map(|n| n as i64), *align_corners, None::<f64>, None::<f64>)?
            }
            Op::Dropout { rate } | Op::DropPath { rate } => match drops {
                None => x.shallow_clone(),
                Some(seed) => {
                    let mut size = x.size();
                    if matches!(self.graph.nodes()[index].op, Op::DropPath { .. }) {
                        size[1..].fill(1);
                    }
                    let factors =
                        survivors(*rate, size.iter().product::<i64>() as usize, [seed, index as u64]);
                    x.f_mul(&to_tensor_of(&factors, &size, self.device)?)?
                }
            },
        })
    }
}

/// Factors of dropout for `count` elements: zero for a share of `rate`, `1 / (1 - rate)` for the rest, so that the mean
/// stays.
fn survivors(rate: f64, count: usize, seed: [u64; 2]) -> Vec<f32> {
    // splitmix64 (Steele et al. 2014).
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = seed
        .into_iter()
        .fold(0u64, |state, part| mix(state.wrapping_add(STEP) ^ mix(part.wrapping_add(STEP))));
    let scale = (1.0 / (1.0 - rate)) as f32;
    (1..=count as u64)
        .map(|i| (mix(start.wrapping_add(i.wrapping_mul(STEP))) >> 11) as f64 / (1u64 << 53) as f64)
        .map(|draw| if draw < rate { 0.0 } else { scale })
        .collect()
}

/// `x` with its channels divided into `counts[0]` runs, each of those into `counts[1]` …: `[n, counts…, rest, height,
/// width]`. Nothing is copied.
fn in_parts(x: &Tensor, counts: &[usize]) -> Result<Tensor> {
    let mut sizes: Vec<i64> = counts.iter().map(|&c| c as i64).collect();
    sizes.push(x.size()[1] / sizes.iter().product::<i64>());
    Ok(x.f_unflatten(1, sizes.as_slice())?)
}

/// The step from each of ascending positions to the next, if it is always the same.
fn even_steps(indices: &[usize]) -> Option<usize> {
    let mut steps = indices.windows(2).map(|pair| pair[1].checked_sub(pair[0]));
    let first = steps.next().unwrap_or(Some(1)).filter(|&step| step > 0)?;
    steps.all(|step| step == Some(first)).then_some(first)
}

/// Sizes and positions as libtorch counts them.
fn whole(numbers: &[usize]) -> impl Iterator<Item = i64> {
    numbers.iter().map(|&n| n as i64)
}

/// Kernel, stride and padding for libtorch.
fn sides(window: &Window) -> [[i64; 2]; 3] {
    [window.kernel, window.stride, window.padding].map(|pair| pair.map(|v| v as i64))
}

/// Runs `work` without recording anything for gradients, on this thread.
pub fn without_gradients<T>(work: impl FnOnce() -> T) -> T {
    let _guard = tch::no_grad_guard();
    work()
}

/// The elements of a tensor in row-major order.
pub fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    Ok(to_array(tensor)?.data)
}

pub(crate) fn kind_of(precision: Precision) -> Kind {
    match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Fp16 => Kind::Half,
        Precision::Bf16 => Kind::BFloat16,
    }
}

/// The same values with the channels innermost in memory.
pub(crate) fn channels_last(x: &Tensor) -> Result<Tensor> {
    if x.dim() != 4 {
        return Ok(x.shallow_clone());
    }
    Ok(x.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_permute([0, 3, 1, 2])?)
}

pub(crate) fn to_tensor(array: &Array, device: Device) -> Result<Tensor> {
    let size: Vec<i64> = array.shape.iter().map(|&d| d as i64).collect();
    to_tensor_of(&array.data, &size, device)
}

pub(crate) fn to_tensor_of(data: &[f32], size: &[i64], device: Device) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(data)?.f_reshape(size)?.f_to_device(device.raw())?)
}

pub(crate) fn to_array(tensor: &Tensor) -> Result<Array> {
    let shape: Vec<usize> = tensor.size().iter().map(|&d| d as usize).collect();
    let flat = tensor.detach().f_to_device(tch::Device::Cpu)?.f_contiguous()?;
    let mut data = vec![0.0f32; shape.iter().product()];
    let count = data.len();
    flat.f_copy_data(&mut data, count)?;
    Ok(Array { shape, data })
}
