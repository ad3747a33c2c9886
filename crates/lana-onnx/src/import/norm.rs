//! Normalisation, and what goes over whole dimensions.

use lana_graph::{Op, Tensor, Value, Window};

use super::Importer;
use super::array::Array;
use super::fold::number;
use super::held::Held;
use super::node::{Read, decimal, dimension, flag, int, obstacle, size};
use crate::proto::NodeProto;
use crate::text::listed;

impl Importer<'_> {
    pub(super) fn batch_norm(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.value(0)?;
        // Vectors and sequences are feature maps one pixel wide.
        let map: Vec<usize> = match (x.dims.as_slice(), self.left_out(&x)) {
            (&[1, c], Some(0)) => vec![c, 1, 1],
            (&[1, c, length], Some(0)) => vec![c, length, 1],
            (&[1, c, h, w], Some(0)) => vec![c, h, w],
            (&[_, features], _) => return self.features_norm(node, &x, features),
            _ => return obstacle(format!("of {}", self.shown(&x))),
        };
        let eps = decimal(number(node, "epsilon", 1e-5));
        // Digits beyond the seventh are the subtraction's.
        let momentum = ((1.0 - decimal(number(node, "momentum", 0.9))) * 1e7).round() / 1e7;
        let names = ["weight", "bias", "running_mean", "running_var"];
        let mut parameters = Vec::new();
        let mut origin = None;
        for (at, name) in names.into_iter().enumerate() {
            let array = self.parameter(at + 1)?;
            if at == 0 {
                origin.clone_from(&array.origin);
            }
            parameters.push((name, array.to_tensor()));
        }
        let value = self.shaped(&x, &map)?;
        let op = Op::BatchNorm { eps, momentum };
        let value = self.emit_with("", op, &[value], parameters, origin.as_deref())?;
        Ok(Held { made: self.here(), ..x.with(value, x.dims.clone()) })
    }

    /// Batch normalisation of every token's features: a factor and a term for each.
    fn features_norm(&mut self, node: &NodeProto, x: &Held, features: usize) -> Read<Held> {
        self.own_axis(x, 1)?;
        let eps = f64::from(number(node, "epsilon", 1e-5));
        let mut numbers = Vec::new();
        for at in 1..5 {
            let array = self.parameter(at)?;
            if array.len() != features {
                return obstacle(format!("parameters of {:?} for {features} features", array.dims));
            }
            numbers.push(array.to_floats());
        }
        let [scale, shift, mean, variance] = &numbers[..] else { return obstacle("lacks parameters") };
        let factor = |at: usize| f64::from(scale[at]) / (f64::from(variance[at]) + eps).sqrt();
        let factors: Vec<f32> = (0..features).map(|at| factor(at) as f32).collect();
        let term = |at: usize| f64::from(shift[at]) - f64::from(mean[at]) * factor(at);
        let terms: Vec<f32> = (0..features).map(|at| term(at) as f32).collect();
        let rank = self.own_dims(x).len();
        let [factors, terms] = [factors, terms].map(|numbers| self.along(numbers, rank, rank - 1));
        let value = self.parametrised("scale", x, x.value, factors, None, false)?;
        let value = self.parametrised("", x, value, terms, None, true)?;
        Ok(x.with(value, x.dims.clone()))
    }

    pub(super) fn layer_norm(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.value(0)?;
        let at = dimension(int(node, "axis").unwrap_or(-1), x.dims.len())?;
        for axis in at..x.dims.len() {
            self.own_axis(&x, axis)?;
        }
        let axis = self.own_axis(&x, at)?;
        let own = self.own_dims(&x);
        let last: usize = own[axis..].iter().product();
        let flat = |array: &Array| match array.len() == last {
            true => Ok(Tensor { shape: vec![last], data: array.to_floats() }),
            false => obstacle(format!("parameters of {:?} for {last} elements", array.dims)),
        };
        let weight = self.parameter(1)?;
        let factors = flat(&weight)?;
        let bias = match self.constant(2)? {
            Some(array) => flat(&array)?,
            None => Tensor::full(&[last], 0.0),
        };
        let eps = decimal(number(node, "epsilon", 1e-5));
        let parameters = vec![("weight", factors), ("bias", bias)];
        let value = self.shaped(&x, &[&own[..axis], &[last]].concat())?;
        let op = Op::LayerNorm { eps };
        let value = self.emit_with("", op, &[value], parameters, weight.origin.as_deref())?;
        Ok(Held { made: self.here(), ..x.with(value, x.dims.clone()) })
    }

    pub(super) fn instance_norm(&mut self, node: &NodeProto) -> Read<Held> {
        let channels = match self.value(0)?.dims.get(1) {
            Some(&channels) => channels,
            None => return obstacle("without channels"),
        };
        self.grouped_norm(node, channels)
    }

    pub(super) fn group_norm(&mut self, node: &NodeProto) -> Read<Held> {
        let groups = size(int(node, "num_groups").unwrap_or(0))?;
        self.grouped_norm(node, groups)
    }

    /// Each group of channels is brought to mean 0 and variance 1, then each channel scaled and moved.
    fn grouped_norm(&mut self, node: &NodeProto, groups: usize) -> Read<Held> {
        let x = self.value(0)?;
        let [1, channels, ..] = x.dims[..] else { return obstacle(format!("of {}", self.shown(&x))) };
        if self.left_out(&x) != Some(0) || groups == 0 || channels % groups != 0 {
            return obstacle(format!("of {} in {groups} groups", self.shown(&x)));
        }
        let y = self.shaped(&x, &[groups, x.elements() / groups])?;
        let y = self.standardised(y, number(node, "epsilon", 1e-5))?;
        let mut y =
            self.emit("channels", Op::Reshape { shape: vec![channels, x.elements() / channels] }, &[y])?;
        for (at, adds) in [(1, false), (2, true)] {
            let array = self.parameter(at)?;
            self.charge(channels)?;
            let numbers = array.to_floats();
            // Before operator set 21 there was one for each group.
            let numbers = match numbers.len() {
                n if n == groups && n != channels => {
                    numbers.iter().flat_map(|&v| std::iter::repeat_n(v, channels / groups)).collect()
                }
                _ => numbers,
            };
            let weight = vec![("weight", self.along(numbers, 2, 0))];
            let shared = if x.elements() > channels { vec![1] } else { Vec::new() };
            let (op, part) = match adds {
                true => (Op::AddParameter { shared }, ""),
                false => (Op::MulParameter { shared }, "scale"),
            };
            y = self.emit_with(part, op, &[y], weight, None)?;
        }
        Ok(Held { made: self.here(), ..x.with(y, x.dims.clone()) })
    }

    /// The rows of a matrix, each with mean 0 and variance 1: `(x − mean) / √(variance + eps)`.
    fn standardised(&mut self, x: Value, eps: f32) -> Read<Value> {
        let mean = self.emit("mean", Op::Mean { axes: vec![1] }, &[x])?;
        let minus = self.emit("minus", Op::Scale { factor: -1.0 }, &[mean])?;
        let centred = self.emit("centred", Op::Add, &[x, minus])?;
        let y = self.emit("square", Op::Power { exponent: 2.0 }, &[centred])?;
        let y = self.emit("variance", Op::Mean { axes: vec![1] }, &[y])?;
        let y = self.emit("eps", Op::Shift { term: eps }, &[y])?;
        let y = self.emit("deviation", Op::Power { exponent: -0.5 }, &[y])?;
        self.emit("standard", Op::Mul, &[centred, y])
    }

    pub(super) fn softmax(&mut self, node: &NodeProto, log: bool) -> Read<Held> {
        let rank = self.loose(0)?.dims.len();
        let usual = if self.opset < 13 { 1 } else { -1 };
        let at = dimension(int(node, "axis").unwrap_or(usual), rank)?;
        let softmax = |axis| if log { Op::LogSoftmax { axis } } else { Op::Softmax { axis } };
        if self.opset >= 13
            && !log
            && let Some(found) = self.softmax_parts(at)?
        {
            return Ok(found);
        }
        let x = self.value(0)?;
        let axis = self.own_axis(&x, at)?;
        let own = self.own_dims(&x);
        // Before operator set 13 everything from the axis on was one dimension.
        if self.opset < 13 && axis + 1 != own.len() {
            for later in at..rank {
                self.own_axis(&x, later)?;
            }
            let flat = [&own[..axis], &[own[axis..].iter().product()]].concat();
            let value = self.shaped(&x, &flat)?;
            let value = self.emit("", softmax(axis), &[value])?;
            return Ok(Held { made: self.here(), ..x.with(value, x.dims.clone()) });
        }
        let value = self.emit("", softmax(axis), &[x.value])?;
        Ok(x.with(value, x.dims.clone()))
    }

    pub(super) fn reduce(&mut self, node: &NodeProto, kind: &str) -> Read<Held> {
        if kind == "ReduceSum"
            && let Some(found) = self.sum_parts(node)?
        {
            return Ok(found);
        }
        let x = self.value(0)?;
        let rank = x.dims.len();
        let axes = self.list(node, 1, "axes")?.filter(|axes| !axes.is_empty());
        let all: Vec<usize> = match axes {
            Some(axes) => axes.into_iter().map(|axis| dimension(axis, rank)).collect::<Read<_>>()?,
            None if flag(node, "noop_with_empty_axes", false) => Vec::new(),
            None => (0..rank).collect(),
        };
        let mut axes = Vec::new();
        for &at in &all {
            // Of one image there is nothing to reduce.
            if self.batch != 1 || self.left_out(&x) != Some(at) {
                axes.push(self.own_axis(&x, at)?);
            }
        }
        axes.sort_unstable();
        axes.dedup();
        let own = self.own_dims(&x);
        let count = axes.iter().map(|&axis| own[axis]).product::<usize>() as f32;
        let of_map = own.len() == 3 && axes == [1, 2];
        let mean = match of_map {
            true => Op::GlobalAveragePool,
            false => Op::Mean { axes: axes.clone() },
        };
        let (square, root, sum) =
            (Op::Power { exponent: 2.0 }, Op::Power { exponent: 0.5 }, Op::Scale { factor: count });
        let ops = match kind {
            _ if axes.is_empty() && kind != "ReduceL2" && kind != "ReduceSumSquare" => Vec::new(),
            "ReduceMean" => vec![mean],
            "ReduceSum" => vec![mean, sum],
            "ReduceMax" if of_map => {
                let window =
                    Window { kernel: [own[1], own[2]], stride: [1, 1], padding: [0, 0], ceil_mode: false };
                vec![Op::MaxPool { window }]
            }
            "ReduceSumSquare" if !axes.is_empty() => vec![square, mean, sum],
            "ReduceL2" if !axes.is_empty() => vec![square, mean, sum, root],
            _ => return obstacle(format!("of {} along {}", self.shown(&x), listed(&all))),
        };
        let value = self.chain(x.value, ops)?;
        let mut dims = x.dims.clone();
        all.iter().for_each(|&at| dims[at] = 1);
        let found = x.with(value, dims);
        if flag(node, "keepdims", true) {
            return Ok(found);
        }
        let whole = self.whole_dims(&found).into_iter().enumerate();
        let whole: Vec<i64> = whole.filter(|(at, _)| !all.contains(at)).map(|(_, size)| size).collect();
        self.regrouped(&found, &whole)
    }
}
