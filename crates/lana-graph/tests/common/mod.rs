//! Random networks and a plain interpreter for them: the reference that changes of a graph are checked against.
// Each test binary uses a part.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use lana_graph::{Activation, Conv2d, Graph, GraphBuilder, Op, Role, Shape, Tensor, Value, Weights, Window};
use proptest::prelude::*;

/// What a layer of a random network is.
#[derive(Clone, Copy, Debug)]
pub enum Block {
    /// conv-bn-relu, same shape.
    Plain,
    /// Two convolutions and the input, same shape.
    Residual,
    /// Twice the channels, half the resolution, option-A shortcut.
    Wider,
    /// Depthwise with squeeze-and-excitation, same shape.
    Gated,
    /// A convolution with bias in two groups, nothing else; same shape.
    Grouped,
    /// Both poolings, shuffled parts with softmax as weights of the parts, their sum, a projection as shortcut; half the
    /// resolution.
    Split,
    /// Attention of every pixel to every pixel with a position embedding, and a three-dimensional convolution beside it;
    /// same shape.
    Attention,
    /// What other tools' networks are made of besides: concatenation, padding, means, roots, parameters of a channel; same
    /// shape.
    Joined,
    /// Five branches of one input that are one convolution, and one that is not; same shape.
    Branches,
}

pub fn blocks() -> impl Strategy<Value = Vec<Block>> {
    let block = prop_oneof![
        Just(Block::Plain),
        Just(Block::Residual),
        Just(Block::Wider),
        Just(Block::Gated),
        Just(Block::Grouped),
        Just(Block::Split),
        Just(Block::Attention),
        Just(Block::Joined),
        Just(Block::Branches)
    ];
    prop::collection::vec(block, 1..6)
}

/// A network with a stem, these blocks as layers `s.0`, `s.1` … (with a node of no layer between some), and a head.
pub fn network(blocks: &[Block]) -> Graph {
    let mut b = GraphBuilder::new("random", Shape::image(3, 6, 5));
    let x = b.input();
    let mut x = b.conv("stem", x, 4, 3, 1, 1).unwrap();
    for (i, block) in blocks.iter().enumerate() {
        x = b.layer(&format!("s.{i}"), "s", x, |b, x| add(b, x, *block)).unwrap();
        if i % 2 == 1 {
            x = b.activation(&format!("between{i}"), x, Activation::HardSwish).unwrap();
        }
    }
    let x = b.node("pool", Op::GlobalAveragePool, &[x]).unwrap();
    let x = b.node("flatten", Op::Flatten, &[x]).unwrap();
    let x = b.node("drop", Op::Dropout { rate: 0.2 }, &[x]).unwrap();
    let x = b.node("head", Op::Linear { out_features: 3, bias: true }, &[x]).unwrap();
    b.finish(x).unwrap()
}

fn add(b: &mut GraphBuilder, x: Value, block: Block) -> lana_graph::Result<Value> {
    let channels = b.shape(x).channels();
    let conv_bn = |b: &mut GraphBuilder, n: usize, x, out, kernel, stride, groups| {
        let y = b.conv(&format!("conv{n}"), x, out, kernel, stride, groups)?;
        b.batch_norm(&format!("bn{n}"), y)
    };
    match block {
        Block::Plain => {
            let y = conv_bn(b, 1, x, channels, 3, 1, 1)?;
            b.activation("act", y, Activation::Relu6)
        }
        Block::Residual => {
            let y = conv_bn(b, 1, x, channels + 1, 3, 1, 1)?;
            let y = b.activation("act1", y, Activation::Relu)?;
            let y = conv_bn(b, 2, y, channels, 1, 1, 1)?;
            let y = b.add("add", y, x)?;
            b.activation("act2", y, Activation::Relu)
        }
        Block::Wider => {
            let y = conv_bn(b, 1, x, 2 * channels, 3, 2, 1)?;
            let short = b.node("subsample", Op::Subsample { stride: 2 }, &[x])?;
            let (before, after) = (channels / 2, channels - channels / 2);
            let short = b.node("pad", Op::PadChannels { before, after }, &[short])?;
            b.add("add", y, short)
        }
        Block::Gated => {
            let y = conv_bn(b, 1, x, channels + 2, 1, 1, 1)?;
            let y = b.activation("act1", y, Activation::Silu)?;
            let y = conv_bn(b, 2, y, channels + 2, 5, 1, channels + 2)?;
            let g = b.node("se.pool", Op::GlobalAveragePool, &[y])?;
            let g = b.conv_full("se.reduce", g, 2, 1, 1, 1, true)?;
            let g = b.activation("se.act", g, Activation::Silu)?;
            let g = b.conv_full("se.expand", g, channels + 2, 1, 1, 1, true)?;
            let g = b.activation("se.gate", g, Activation::Sigmoid)?;
            let y = b.node("se.mul", Op::Mul, &[y, g])?;
            let y = conv_bn(b, 3, y, channels, 1, 1, 1)?;
            let y = b.node("drop_path", Op::DropPath { rate: 0.1 }, &[y])?;
            b.add("add", y, x)
        }
        Block::Grouped => b.conv_full("conv", x, channels, 3, 1, 2, true),
        Block::Attention => {
            let (c, h, w) = b.shape(x).as_image().unwrap();
            let reshape = |shape: &[usize]| Op::Reshape { shape: shape.to_vec() };
            let transpose = |order: &[usize]| Op::Transpose { order: order.to_vec() };
            let linear = |out_features, bias| Op::Linear { out_features, bias };
            let t = b.node("tokens", reshape(&[c, h * w]), &[x])?;
            let t = b.node("rows", transpose(&[1, 0]), &[t])?;
            let t = b.node("position", Op::AddParameter { shared: Vec::new() }, &[t])?;
            let t = b.node("norm", Op::LayerNorm { eps: 1e-6 }, &[t])?;
            let q = b.node("q", linear(4, true), &[t])?;
            let q = b.node("q.heads", reshape(&[h * w, 2, 2]), &[q])?;
            let q = b.node("q.rows", transpose(&[1, 0, 2]), &[q])?;
            let q = b.node("q.scale", Op::Scale { factor: 0.75 }, &[q])?;
            let k = b.node("k", linear(4, false), &[t])?;
            let k = b.node("k.heads", reshape(&[h * w, 2, 2]), &[k])?;
            let k = b.node("k.columns", transpose(&[1, 2, 0]), &[k])?;
            let a = b.node("logits", Op::MatMul, &[q, k])?;
            let a = b.node("softmax", Op::Softmax { axis: 2 }, &[a])?;
            let y = b.node("product", Op::MatMul, &[a, q])?;
            let y = b.node("turned", transpose(&[1, 0, 2]), &[y])?;
            let y = b.node("joined", reshape(&[h * w, 4]), &[y])?;
            let y = b.node("out", linear(c + 1, true), &[y])?;
            let y = b.activation("gelu", y, Activation::Gelu)?;
            let y = b.node("pick", Op::Select { axis: 1, indices: (1..=c).rev().collect() }, &[y])?;
            let y = b.node("columns", transpose(&[1, 0]), &[y])?;
            let y = b.node("map", reshape(&[c, h, w]), &[y])?;
            let z = b.node("deep", reshape(&[1, h, w, c]), &[x])?;
            let conv = Op::Conv3d {
                out_channels: 2,
                kernel: [3, 1, 3],
                padding: [1, 0, 1],
                bias: channels % 3 == 1,
            };
            let z = b.node("conv3d", conv, &[z])?;
            let z = b.node("flat", reshape(&[2 * c, h, w]), &[z])?;
            let z = b.node("sum", Op::SumParts { parts: 2 }, &[z])?;
            b.add("add", y, z)
        }
        Block::Joined => {
            let (c, h, w) = b.shape(x).as_image().unwrap();
            let scale = Op::MulParameter { shared: vec![1, 2] };
            let y = b.node("scale", scale, &[x])?;
            let y = b.activation("tanh", y, Activation::Tanh)?;
            let z = b.node("pad", Op::Pad { pads: vec![[1, 0], [0, 1], [2, 1]], value: 0.5 }, &[x])?;
            let z = b.node("shift", Op::AddParameter { shared: vec![0, 2] }, &[z])?;
            let z = b.node("resize", Op::Resize { size: [h, w], align_corners: c % 2 == 0 }, &[z])?;
            let z = b.activation("erf", z, Activation::Erf)?;
            let holes = Conv2d {
                in_channels: c + 1,
                out_channels: c + 1,
                kernel: [2, 3],
                stride: [1; 2],
                dilation: [2, 1],
                padding: [1; 4],
                groups: c + 1,
                bias: true,
            };
            let z = b.node("holes", Op::Conv2d(holes), &[z])?;
            let z = b.activation("elu", z, Activation::Elu)?;
            let z = b.activation("softplus", z, Activation::Softplus)?;
            let z = b.node("log_softmax", Op::LogSoftmax { axis: 1 }, &[z])?;
            let m = b.node("mean", Op::Mean { axes: vec![0, 2] }, &[z])?;
            let m = b.node("square", Op::Power { exponent: 2.0 }, &[m])?;
            let m = b.node("positive", Op::Shift { term: 0.5 }, &[m])?;
            let m = b.node("root", Op::Power { exponent: -0.5 }, &[m])?;
            let z = b.node("normal", Op::Mul, &[z, m])?;
            let z = b.add("sum", z, m)?;
            let z = b.node("concat", Op::Concat { axis: 0 }, &[z, y, x])?;
            b.node("half", Op::Select { axis: 0, indices: (2..c + 2).collect() }, &[z])
        }
        Block::Branches => {
            let one = conv_bn(b, 1, x, channels, 1, 1, 1)?;
            let three = conv_bn(b, 3, x, channels, 3, 1, 1)?;
            let wide = Conv2d {
                in_channels: channels,
                out_channels: channels,
                kernel: [1, 3],
                stride: [1; 2],
                dilation: [1; 2],
                padding: [0, 1, 0, 1],
                groups: 1,
                bias: true,
            };
            let wide = b.node("wide", Op::Conv2d(wide), &[x])?;
            let norm = b.batch_norm("norm", x)?;
            let other = b.activation("other", x, Activation::Silu)?;
            let y = b.add("add1", one, norm)?;
            let y = b.add("add2", y, other)?;
            let z = b.add("add3", three, wide)?;
            let y = b.add("add4", y, z)?;
            b.add("add5", y, x)
        }
        Block::Split => {
            let y = conv_bn(b, 1, x, 6, 1, 1, 1)?;
            let y = b.node("max", Op::MaxPool { window: Window::square(3, 2, 1) }, &[y])?;
            let y = conv_bn(b, 2, y, 12, 3, 1, 2)?;
            let g = b.node("pool", Op::GlobalAveragePool, &[y])?;
            let g = b.node("shuffle", Op::ShuffleChannels { outer: 2, inner: 3 }, &[g])?;
            let g = b.node("weights", Op::SoftmaxParts { parts: 3 }, &[g])?;
            let y = b.node("mul", Op::Mul, &[y, g])?;
            let y = b.node("sum", Op::SumParts { parts: 3 }, &[y])?;
            let y = conv_bn(b, 3, y, channels, 1, 1, 1)?;
            let window = Window { ceil_mode: true, ..Window::square(2, 2, 0) };
            let s = b.node("average", Op::AveragePool { window, count_include_pad: false }, &[x])?;
            let s = conv_bn(b, 4, s, channels, 1, 1, 1)?;
            b.add("add", y, s)
        }
    }
}

/// A stream of numbers in −1…1 (splitmix64).
pub struct Numbers(pub u64);

impl Numbers {
    pub fn draw(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub fn tensor(&mut self, shape: &[usize]) -> Tensor {
        let data = (0..shape.iter().product()).map(|_| self.draw()).collect();
        Tensor { shape: shape.to_vec(), data }
    }
}

/// Weights of `graph` as training might leave them.
pub fn weights(graph: &Graph, seed: u64) -> Weights {
    let mut numbers = Numbers(seed);
    let all = graph.parameters().into_iter().map(|p| {
        let mut tensor = numbers.tensor(&p.shape);
        if p.role == Role::RunningVariance {
            tensor.data.iter_mut().for_each(|v| *v = v.abs() + 0.1);
        }
        (p.name, tensor)
    });
    all.collect()
}

fn activation(kind: Activation, x: f64) -> f64 {
    let hard = ((x + 3.0).clamp(0.0, 6.0)) / 6.0;
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x * sigmoid,
        Activation::Sigmoid => sigmoid,
        Activation::HardSwish => x * hard,
        Activation::HardSigmoid => hard,
        Activation::Gelu => x * normal(x),
        Activation::Tanh => x.tanh(),
        Activation::Erf => 2.0 * normal(x * std::f64::consts::SQRT_2) - 1.0,
        Activation::Elu if x > 0.0 => x,
        Activation::Elu => x.exp() - 1.0,
        Activation::Softplus => (1.0 + x.exp()).ln(),
    }
}

/// The normal distribution function, by Simpson's rule.
fn normal(x: f64) -> f64 {
    let density = |t: f64| (-0.5 * t * t).exp() / std::f64::consts::TAU.sqrt();
    let (x, steps) = (x.clamp(-9.0, 9.0), 1000);
    let step = x / steps as f64;
    let weight = |i: usize| if i == 0 || i == steps { 1.0 } else { 2.0 + 2.0 * (i % 2) as f64 };
    0.5 + (0..=steps).map(|i| weight(i) * density(i as f64 * step)).sum::<f64>() * step / 3.0
}

/// The element of a row-major array at an index.
fn flat(index: &[usize], dims: &[usize]) -> usize {
    index.iter().zip(dims).fold(0, |at, (i, d)| at * d + i)
}

/// Every index of an array, in row-major order.
fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> {
    (0..dims.iter().product::<usize>()).map(move |mut at| {
        let mut index = vec![0; dims.len()];
        for (i, d) in index.iter_mut().zip(dims).rev() {
            (*i, at) = (at % d, at / d);
        }
        index
    })
}

/// What `graph` makes of one sample, in 64-bit floats, slowly.
pub fn run(graph: &Graph, weights: &Weights, input: &[f64]) -> Vec<f64> {
    let mut values = vec![input.to_vec()];
    for (index, node) in graph.nodes().iter().enumerate() {
        let x = &values[node.inputs[0].index()];
        let shapes = graph.input_shapes(index);
        let weight = |suffix: &str| -> Vec<f64> {
            let tensor = weights.get(&format!("{}.{suffix}", node.name)).unwrap();
            tensor.data.iter().map(|w| f64::from(*w)).collect()
        };
        let out_shape = graph.shape(Value::of_node(index));
        let (channels, height, width) = shapes[0].as_image().unwrap_or((shapes[0].elements(), 1, 1));
        let area = height * width;
        let y: Vec<f64> = match &node.op {
            Op::Conv2d(c) => convolve(c, x, (height, width), out_shape.as_image().unwrap(), &weight),
            Op::BatchNorm { eps, .. } => {
                let (scale, shift) = (weight("weight"), weight("bias"));
                let (mean, variance) = (weight("running_mean"), weight("running_var"));
                let normal = |(i, v): (usize, &f64)| {
                    let c = i / area;
                    scale[c] * (v - mean[c]) / (variance[c] + eps).sqrt() + shift[c]
                };
                x.iter().enumerate().map(normal).collect()
            }
            Op::Activation { kind } => x.iter().map(|v| activation(*kind, *v)).collect(),
            Op::Add | Op::Mul => {
                let y = &values[node.inputs[1].index()];
                let at = |index: &[usize], shape: &Shape| {
                    let inside = index.iter().zip(shape.dims()).map(|(&i, &d)| i.min(d - 1));
                    flat(&inside.collect::<Vec<_>>(), shape.dims())
                };
                let pairs = indices(out_shape.dims()).map(|i| (x[at(&i, shapes[0])], y[at(&i, shapes[1])]));
                match node.op {
                    Op::Add => pairs.map(|(a, b)| a + b).collect(),
                    _ => pairs.map(|(a, b)| a * b).collect(),
                }
            }
            Op::Concat { axis } => indices(out_shape.dims())
                .map(|mut index| {
                    let mut part = 0;
                    while index[*axis] >= shapes[part].dims()[*axis] {
                        index[*axis] -= shapes[part].dims()[*axis];
                        part += 1;
                    }
                    values[node.inputs[part].index()][flat(&index, shapes[part].dims())]
                })
                .collect(),
            Op::SumParts { parts } => {
                let mut y = vec![0.0; x.len() / parts];
                for part in x.chunks_exact(x.len() / parts) {
                    y.iter_mut().zip(part).for_each(|(y, x)| *y += x);
                }
                y
            }
            Op::SoftmaxParts { parts } => {
                let part = x.len() / parts;
                let sum = |at: usize| (0..*parts).map(|p| x[p * part + at % part].exp()).sum::<f64>();
                x.iter().enumerate().map(|(at, v)| v.exp() / sum(at)).collect()
            }
            Op::ShuffleChannels { outer, inner } => {
                let run = x.len() / (outer * inner);
                let order = (0..*inner).flat_map(|i| (0..*outer).map(move |o| o * inner + i));
                order.flat_map(|at| x[at * run..][..run].to_vec()).collect()
            }
            Op::MaxPool { window } => pool(window, x, (height, width), out_shape, &|inside, _| {
                inside.iter().copied().fold(f64::NEG_INFINITY, f64::max)
            }),
            Op::AveragePool { window, count_include_pad } => {
                pool(window, x, (height, width), out_shape, &|inside, padded| {
                    let count = if *count_include_pad { padded } else { inside.len() };
                    inside.iter().sum::<f64>() / count as f64
                })
            }
            Op::GlobalAveragePool => {
                x.chunks_exact(area).map(|c| c.iter().sum::<f64>() / area as f64).collect()
            }
            Op::Mean { axes } => {
                let mut y = vec![0.0; out_shape.elements()];
                let count = x.len() / y.len();
                for (mut index, value) in indices(shapes[0].dims()).zip(x) {
                    axes.iter().for_each(|&axis| index[axis] = 0);
                    y[flat(&index, out_shape.dims())] += value / count as f64;
                }
                y
            }
            Op::Flatten => x.clone(),
            Op::Linear { bias, out_features } => {
                let start = if *bias { weight("bias") } else { vec![0.0; *out_features] };
                let rows = weight("weight");
                let size = rows.len() / out_features;
                let dot = |row: &[f64], x: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
                x.chunks_exact(size)
                    .flat_map(|x| {
                        rows.chunks_exact(size)
                            .zip(&start)
                            .map(|(row, b)| dot(row, x) + b)
                            .collect::<Vec<_>>()
                    })
                    .collect()
            }
            Op::Subsample { stride } => (0..channels)
                .flat_map(|c| (0..height).step_by(*stride).map(move |h| (c, h)))
                .flat_map(|(c, h)| (0..width).step_by(*stride).map(move |w| (c, h, w)))
                .map(|(c, h, w)| x[c * area + h * width + w])
                .collect(),
            Op::PadChannels { before, after } => {
                let mut y = vec![0.0; before * area];
                y.extend(x);
                y.resize(y.len() + after * area, 0.0);
                y
            }
            Op::Pad { pads, value } => indices(out_shape.dims())
                .map(|index| {
                    let inside = index.iter().zip(pads).zip(shapes[0].dims());
                    let old = inside.map(|((i, [before, _]), d)| i.checked_sub(*before).filter(|i| i < d));
                    let old: Option<Vec<usize>> = old.collect();
                    old.map_or(f64::from(*value), |old| x[flat(&old, shapes[0].dims())])
                })
                .collect(),
            Op::Resize { size, align_corners } => {
                // The two pixels between which a pixel of the result lies, and how far it is from the first.
                let between = |at: usize, new: usize, old: usize| {
                    let (new, end) = (new as f64, (old - 1) as f64);
                    let place = match align_corners {
                        true => at as f64 * if new > 1.0 { end / (new - 1.0) } else { 0.0 },
                        false => ((at as f64 + 0.5) * old as f64 / new - 0.5).max(0.0),
                    };
                    let low = place.floor().min(end);
                    (low as usize, (low + 1.0).min(end) as usize, place - low)
                };
                let value = |index: Vec<usize>| {
                    let (top, bottom, v) = between(index[1], size[0], height);
                    let (left, right, h) = between(index[2], size[1], width);
                    let at = |row: usize, column: usize| x[index[0] * area + row * width + column];
                    let row = |row: usize| at(row, left) * (1.0 - h) + at(row, right) * h;
                    row(top) * (1.0 - v) + row(bottom) * v
                };
                indices(out_shape.dims()).map(value).collect()
            }
            Op::Dropout { .. } | Op::DropPath { .. } | Op::Reshape { .. } => x.clone(),
            Op::Transpose { order } => {
                let from = |index: &[usize]| {
                    let mut old = vec![0; index.len()];
                    order.iter().zip(index).for_each(|(&at, &i)| old[at] = i);
                    x[flat(&old, shapes[0].dims())]
                };
                indices(out_shape.dims()).map(|index| from(&index)).collect()
            }
            Op::Select { axis, indices: wanted } => indices(out_shape.dims())
                .map(|mut index| {
                    index[*axis] = wanted[index[*axis]];
                    x[flat(&index, shapes[0].dims())]
                })
                .collect(),
            Op::MatMul => {
                let (y, inner) = (&values[node.inputs[1].index()], shapes[0].dims().last().unwrap());
                let term = |index: &[usize], k: usize| {
                    let (mut left, mut right) = (index.to_vec(), index.to_vec());
                    let last = index.len() - 1;
                    (left[last], right[last - 1]) = (k, k);
                    x[flat(&left, shapes[0].dims())] * y[flat(&right, shapes[1].dims())]
                };
                indices(out_shape.dims()).map(|i| (0..*inner).map(|k| term(&i, k)).sum()).collect()
            }
            Op::Softmax { axis } | Op::LogSoftmax { axis } => {
                let log = matches!(node.op, Op::LogSoftmax { .. });
                let along = |index: &[usize]| {
                    let mut other = index.to_vec();
                    let mut sum = 0.0;
                    for i in 0..out_shape.dims()[*axis] {
                        other[*axis] = i;
                        sum += x[flat(&other, out_shape.dims())].exp();
                    }
                    let share = x[flat(index, out_shape.dims())].exp() / sum;
                    if log { share.ln() } else { share }
                };
                indices(out_shape.dims()).map(|index| along(&index)).collect()
            }
            Op::LayerNorm { eps } => {
                let (scale, shift) = (weight("weight"), weight("bias"));
                let size = scale.len() as f64;
                x.chunks_exact(scale.len())
                    .flat_map(|row| {
                        let mean = row.iter().sum::<f64>() / size;
                        let variance = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / size;
                        let normal = |(i, v): (usize, &f64)| {
                            scale[i] * (v - mean) / (variance + eps).sqrt() + shift[i]
                        };
                        row.iter().enumerate().map(normal).collect::<Vec<_>>()
                    })
                    .collect()
            }
            Op::Scale { factor } => x.iter().map(|v| v * f64::from(*factor)).collect(),
            Op::Shift { term } => x.iter().map(|v| v + f64::from(*term)).collect(),
            Op::Power { exponent } => x.iter().map(|v| v.powf(f64::from(*exponent))).collect(),
            Op::AddParameter { shared } | Op::MulParameter { shared } => {
                let w = weight("weight");
                let mut dims = shapes[0].dims().to_vec();
                shared.iter().for_each(|&axis| dims[axis] = 1);
                let of = |mut index: Vec<usize>| {
                    shared.iter().for_each(|&axis| index[axis] = 0);
                    w[flat(&index, &dims)]
                };
                let pairs = x.iter().zip(indices(shapes[0].dims()).map(of));
                match node.op {
                    Op::AddParameter { .. } => pairs.map(|(x, w)| x + w).collect(),
                    _ => pairs.map(|(x, w)| x * w).collect(),
                }
            }
            Op::Conv3d { kernel, padding, bias, .. } => {
                let (w, offset) = (weight("weight"), bias.then(|| weight("bias")));
                let dims = shapes[0].dims();
                let kernel_dims = [&[dims[0]], kernel.as_slice()].concat();
                let at = |index: &[usize]| {
                    let mut sum = offset.as_ref().map_or(0.0, |o| o[index[0]]);
                    for tap in indices(&kernel_dims) {
                        let mut from = vec![tap[0]];
                        from.extend((0..3).filter_map(|d| {
                            (index[d + 1] + tap[d + 1]).checked_sub(padding[d]).filter(|&p| p < dims[d + 1])
                        }));
                        if from.len() == 4 {
                            let per = kernel_dims.iter().product::<usize>();
                            sum += x[flat(&from, dims)] * w[index[0] * per + flat(&tap, &kernel_dims)];
                        }
                    }
                    sum
                };
                indices(out_shape.dims()).map(|index| at(&index)).collect()
            }
        };
        assert_eq!(y.len(), out_shape.elements(), "{}", node.name);
        values.push(y);
    }
    values[graph.output().index()].clone()
}

fn convolve(
    c: &Conv2d,
    x: &[f64],
    (height, width): (usize, usize),
    (out, out_height, out_width): (usize, usize, usize),
    weight: &dyn Fn(&str) -> Vec<f64>,
) -> Vec<f64> {
    let kernel = weight("weight");
    let bias = if c.bias { weight("bias") } else { vec![0.0; out] };
    let (per_group_in, per_group_out) = (c.in_channels / c.groups, out / c.groups);
    let mut y = Vec::new();
    for (o, start) in bias.iter().enumerate() {
        for h in 0..out_height {
            for w in 0..out_width {
                let mut sum = *start;
                for i in 0..per_group_in {
                    for kh in 0..c.kernel[0] {
                        for kw in 0..c.kernel[1] {
                            let row = h * c.stride[0] + kh * c.dilation[0];
                            let column = w * c.stride[1] + kw * c.dilation[1];
                            let (Some(row), Some(column)) =
                                (row.checked_sub(c.padding[0]), column.checked_sub(c.padding[1]))
                            else {
                                continue;
                            };
                            if row < height && column < width {
                                let channel = o / per_group_out * per_group_in + i;
                                let k = ((o * per_group_in + i) * c.kernel[0] + kh) * c.kernel[1] + kw;
                                sum += kernel[k] * x[(channel * height + row) * width + column];
                            }
                        }
                    }
                }
                y.push(sum);
            }
        }
    }
    y
}

/// Each window reduced to a number, given its elements and how many there are with those of the padding.
fn pool(
    window: &Window,
    x: &[f64],
    (height, width): (usize, usize),
    out: &Shape,
    reduce: &dyn Fn(&[f64], usize) -> f64,
) -> Vec<f64> {
    let (channels, rows, columns) = out.as_image().unwrap();
    // Positions of a window in the padded map, whose end nothing reaches beyond.
    let span = |at: usize, axis: usize, size: usize| {
        let start = at * window.stride[axis];
        start..(start + window.kernel[axis]).min(size + 2 * window.padding[axis])
    };
    let mut y = Vec::new();
    for map in x.chunks_exact(height * width).take(channels) {
        for (h, w) in (0..rows).flat_map(|h| (0..columns).map(move |w| (h, w))) {
            let (vertical, horizontal) = (span(h, 0, height), span(w, 1, width));
            let count = vertical.len() * horizontal.len();
            let pixels = vertical.flat_map(|row| horizontal.clone().map(move |column| (row, column)));
            let inside: Vec<f64> = pixels
                .filter_map(|(row, column)| {
                    let (row, column) =
                        (row.checked_sub(window.padding[0])?, column.checked_sub(window.padding[1])?);
                    (row < height && column < width).then(|| map[row * width + column])
                })
                .collect();
            y.push(reduce(&inside, count));
        }
    }
    y
}

/// A sample for `graph`.
pub fn sample(graph: &Graph, seed: u64) -> Vec<f64> {
    let mut numbers = Numbers(seed ^ 0xabcd);
    (0..graph.input_shape().elements()).map(|_| f64::from(numbers.draw())).collect()
}

/// Largest difference of two results, relative to the largest value.
pub fn difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    let size = a.iter().fold(1.0, |m: f64, v| m.max(v.abs()));
    a.iter().zip(b).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / size
}
