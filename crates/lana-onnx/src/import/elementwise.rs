//! What is done to every element by itself, and to pairs of elements.
//!
//! lana has few such operations. Many others are some of these in a row, exactly but for rounding, and are read as that:
//! `x − y` as `x + (−1) · y`, a division as a product with the power of −1, bounds other than 0 and 6 as moved and
//! stretched ones.

use lana_graph::{Activation, Op, Tensor, Value};

use super::Importer;
use super::array::{Array, broadcast};
use super::fold::number;
use super::held::{Held, Known, without};
use super::node::{Obstacle, Read, int, obstacle, word};
use crate::proto::{NodeProto, data_type};

impl Importer<'_> {
    /// Operations one behind the other; the last one is what the node gives.
    pub(super) fn chain(&mut self, x: Value, ops: impl IntoIterator<Item = Op>) -> Read<Value> {
        let ops: Vec<Op> = ops.into_iter().collect();
        let last = ops.len().saturating_sub(1);
        let mut value = x;
        for (at, op) in ops.into_iter().enumerate() {
            let part = if at == last { String::new() } else { format!("{}{at}", op.kind()) };
            value = self.emit(&part, op, &[value])?;
        }
        Ok(value)
    }

    pub(super) fn activation(&mut self, node: &NodeProto, kind: &str) -> Read<Held> {
        let act = |kind| vec![Op::Activation { kind }];
        let ops = match kind {
            "Relu" => act(Activation::Relu),
            "Sigmoid" => act(Activation::Sigmoid),
            "HardSwish" => act(Activation::HardSwish),
            "Tanh" => act(Activation::Tanh),
            "Erf" => act(Activation::Erf),
            "Softplus" => act(Activation::Softplus),
            "HardSigmoid" => hard_sigmoid(number(node, "alpha", 0.2), number(node, "beta", 0.5)),
            "Clip" => {
                let bounds = (self.number(node, 1, "min")?, self.number(node, 2, "max")?);
                let x = self.value(0)?;
                let value = self.clip(x.value, bounds.0, bounds.1)?;
                return Ok(x.with(value, x.dims.clone()));
            }
            "Neg" => vec![Op::Scale { factor: -1.0 }],
            "Sqrt" => vec![Op::Power { exponent: 0.5 }],
            "Reciprocal" => vec![Op::Power { exponent: -1.0 }],
            "Cast" => match int(node, "to").and_then(|to| i32::try_from(to).ok()) {
                Some(data_type::FLOAT) => return self.loose(0),
                to => return obstacle(format!("of a value to ONNX data type {}", to.unwrap_or(0))),
            },
            "Gelu" => match word(node, "approximate", "none") {
                "none" => act(Activation::Gelu),
                "tanh" => return self.gelu_by_tanh(),
                other => return obstacle(format!("approximated by {other}")),
            },
            "LeakyRelu" => {
                let slope = Slope::Number(number(node, "alpha", 0.01));
                return self.leaky(slope);
            }
            "PRelu" => {
                let slope = self.parameter(1)?;
                return match slope.as_number() {
                    Some(slope) => self.leaky(Slope::Number(slope)),
                    None => self.leaky(Slope::Channels((*slope).clone())),
                };
            }
            "Abs" => return self.leaky(Slope::Number(-1.0)),
            "Elu" => return self.elu(number(node, "alpha", 1.0), 1.0),
            // As ONNX has its numbers.
            "Selu" => {
                return self.elu(number(node, "alpha", 1.673_263_2), number(node, "gamma", 1.050_701));
            }
            "Celu" => match number(node, "alpha", 1.0) {
                1.0 => act(Activation::Elu),
                alpha if alpha.is_normal() => vec![
                    Op::Scale { factor: (1.0 / f64::from(alpha)) as f32 },
                    Op::Activation { kind: Activation::Elu },
                    Op::Scale { factor: alpha },
                ],
                alpha => return obstacle(format!("alpha {alpha}")),
            },
            "Mish" => return self.mish(),
            _ => return Err(Obstacle::Type),
        };
        let x = self.value(0)?;
        let value = self.chain(x.value, ops)?;
        Ok(x.with(value, x.dims.clone()))
    }

    /// `x · σ(2 √(2/π) (x + 0.044715 x³))`, which is `x · (1 + tanh(…)) / 2`.
    fn gelu_by_tanh(&mut self) -> Read<Held> {
        let x = self.value(0)?;
        let y = self.emit("square", Op::Power { exponent: 2.0 }, &[x.value])?;
        let y = self.emit("part", Op::Scale { factor: 0.044_715 }, &[y])?;
        let y = self.emit("sum", Op::Shift { term: 1.0 }, &[y])?;
        let y = self.emit("cube", Op::Mul, &[x.value, y])?;
        let factor = (2.0 * (2.0 / std::f64::consts::PI).sqrt()) as f32;
        let y = self.emit("scaled", Op::Scale { factor }, &[y])?;
        let gate = self.emit("gate", Op::Activation { kind: Activation::Sigmoid }, &[y])?;
        let y = self.emit("", Op::Mul, &[x.value, gate])?;
        Ok(x.with(y, x.dims.clone()))
    }

    /// `factor · x` above zero, `factor · alpha · (exp(x) − 1)` below: `alpha · elu(x) + (1 − alpha) · relu(x)`, times the factor.
    fn elu(&mut self, alpha: f32, factor: f32) -> Read<Held> {
        let x = self.value(0)?;
        let elu = Op::Activation { kind: Activation::Elu };
        let value = if alpha == 1.0 {
            let scale = (factor != 1.0).then_some(Op::Scale { factor });
            self.chain(x.value, [elu].into_iter().chain(scale))?
        } else {
            let curve = self.emit("curve", elu, &[x.value])?;
            let curve = self.emit("curved", Op::Scale { factor: factor * alpha }, &[curve])?;
            let relu = self.emit("above", Op::Activation { kind: Activation::Relu }, &[x.value])?;
            let relu = self.emit("straight", Op::Scale { factor: factor * (1.0 - alpha) }, &[relu])?;
            self.emit("", Op::Add, &[curve, relu])?
        };
        Ok(x.with(value, x.dims.clone()))
    }

    /// `x · tanh(softplus(x))` (Misra 2019).
    fn mish(&mut self) -> Read<Held> {
        let x = self.value(0)?;
        let gate = self.emit("softplus", Op::Activation { kind: Activation::Softplus }, &[x.value])?;
        let gate = self.emit("gate", Op::Activation { kind: Activation::Tanh }, &[gate])?;
        let value = self.emit("", Op::Mul, &[x.value, gate])?;
        Ok(x.with(value, x.dims.clone()))
    }

    /// `min(max(x, low), high)`.
    fn clip(&mut self, x: Value, low: Option<f32>, high: Option<f32>) -> Read<Value> {
        // What lies beyond all that a network computes bounds nothing.
        let low = low.filter(|low| low.is_nan() || *low > -BEYOND);
        let high = high.filter(|high| high.is_nan() || *high < BEYOND);
        if [low, high].iter().flatten().any(|bound| bound.is_nan() || bound.abs() >= BEYOND)
            || low.zip(high).is_some_and(|(low, high)| low >= high)
        {
            let word = |bound: Option<f32>| bound.map_or("none".to_string(), |bound| bound.to_string());
            return obstacle(format!("bounds {} and {}", word(low), word(high)));
        }
        // Moved by a large number and back, a small one has lost its digits: then only what is beyond the bound is moved.
        let (near_low, far_low) = near_or_far(low);
        let (near_high, far_high) = near_or_far(high);
        let relu = Op::Activation { kind: Activation::Relu };
        let shift = |term: f32| (term != 0.0).then_some(Op::Shift { term });
        let scale = |factor: f32| (factor != 1.0).then_some(Op::Scale { factor });
        let ops = match (near_low, near_high) {
            (None, None) => vec![],
            (Some(low), None) => vec![shift(-low), Some(relu.clone()), shift(low)],
            (None, Some(high)) => {
                vec![scale(-1.0), shift(high), Some(relu.clone()), shift(-high), scale(-1.0)]
            }
            (Some(low), Some(high)) => {
                let relu6 = Op::Activation { kind: Activation::Relu6 };
                let width = f64::from(high) - f64::from(low);
                let (down, up) = ((6.0 / width) as f32, (width / 6.0) as f32);
                vec![shift(-low), scale(down), Some(relu6), scale(up), shift(low)]
            }
        };
        let mut ops: Vec<Op> = ops.into_iter().flatten().collect();
        if far_low.is_none() && far_high.is_none() {
            if ops.is_empty() {
                ops.push(Op::Scale { factor: 1.0 });
            }
            return self.chain(x, ops);
        }
        let mut value = x;
        for op in ops {
            value = self.emit(op.kind(), op, &[value])?;
        }
        // x + relu(low − x), then x − relu(x − high).
        if let Some(low) = far_low {
            let y = self.emit("negative", Op::Scale { factor: -1.0 }, &[value])?;
            let y = self.emit("missing", Op::Shift { term: low }, &[y])?;
            let y = self.emit("below", relu.clone(), &[y])?;
            let part = if far_high.is_some() { "low" } else { "" };
            value = self.emit(part, Op::Add, &[value, y])?;
        }
        if let Some(high) = far_high {
            let y = self.emit("excess", Op::Shift { term: -high }, &[value])?;
            let y = self.emit("above", relu, &[y])?;
            let y = self.emit("taken", Op::Scale { factor: -1.0 }, &[y])?;
            value = self.emit("", Op::Add, &[value, y])?;
        }
        Ok(value)
    }

    /// `relu(x) − slope · relu(−x)`.
    fn leaky(&mut self, slope: Slope) -> Read<Held> {
        let x = self.value(0)?;
        let relu = Op::Activation { kind: Activation::Relu };
        let above = self.emit("above", relu.clone(), &[x.value])?;
        let y = self.emit("negative", Op::Scale { factor: -1.0 }, &[x.value])?;
        let below = self.emit("below", relu, &[y])?;
        let below = match slope {
            Slope::Number(slope) => self.emit("sloped", Op::Scale { factor: -slope }, &[below])?,
            Slope::Channels(array) => {
                let mut slopes = self.beside(&array, &x)?.to_tensor();
                slopes.data.iter_mut().for_each(|v| *v = -*v);
                self.parametrised("sloped", &x, below, slopes, None, false)?
            }
        };
        let value = self.emit("", Op::Add, &[above, below])?;
        Ok(x.with(value, x.dims.clone()))
    }

    /// A value plus, or times, a parameter.
    pub(super) fn parametrised(
        &mut self,
        part: &str,
        held: &Held,
        value: Value,
        tensor: Tensor,
        origin: Option<&str>,
        adds: bool,
    ) -> Read<Value> {
        let own = self.own_dims(held);
        let same = tensor.shape.iter().zip(&own).enumerate();
        let shared = same.filter(|(_, (have, want))| **have == 1 && **want > 1).map(|(at, _)| at).collect();
        let op = if adds { Op::AddParameter { shared } } else { Op::MulParameter { shared } };
        self.emit_with(part, op, &[value], vec![("weight", tensor)], origin)
    }

    pub(super) fn arithmetic(&mut self, kind: &str) -> Read<Held> {
        let count = self.file.node[self.at].input.len();
        if count != 2 {
            return self.sum(kind, count);
        }
        match (self.input(0)?, self.input(1)?) {
            (Some(Known::Value(_)), Some(Known::Value(_))) => {
                let (x, y) = (self.value(0)?, self.value(1)?);
                self.pair(kind, &x, &y)
            }
            (Some(Known::Value(_)), Some(Known::Constant(array))) => {
                let x = self.value(0)?;
                self.beside_constant(kind, x, &array, false)
            }
            (Some(Known::Constant(array)), Some(Known::Value(_))) => {
                let x = self.value(1)?;
                self.beside_constant(kind, x, &array, true)
            }
            _ => obstacle("lacks an input"),
        }
    }

    /// The sum of any number of values.
    fn sum(&mut self, kind: &str, count: usize) -> Read<Held> {
        if kind != "Sum" || count == 0 {
            return obstacle(format!("of {count} inputs"));
        }
        let mut sum = self.value(0)?;
        for at in 1..count {
            let next = self.value(at)?;
            sum = self.pair("Add", &sum, &next)?;
        }
        Ok(sum)
    }

    /// Two values by dimensions that fit each other, and the dimensions of what is made of their elements.
    fn fitted(&mut self, x: &Held, y: &Held) -> Read<(Value, Value, Held)> {
        let rank = x.dims.len().max(y.dims.len());
        let (a, b) = (x.clone().padded(rank), y.clone().padded(rank));
        if a.batch != b.batch && self.batch != 1 {
            return obstacle(format!("{} beside {}", self.shown(x), self.shown(y)));
        }
        let dims = broadcast(&a.dims, &b.dims)?;
        let out = self.left_out(&a).filter(|&out| b.dims[out] == 1);
        let first = self.shaped(&a, &without(&a.dims, out))?;
        let second = self.shaped(&b, &without(&b.dims, out))?;
        Ok((first, second, a.with(first, dims)))
    }

    fn pair(&mut self, kind: &str, x: &Held, y: &Held) -> Read<Held> {
        let (a, b, held) = self.fitted(x, y)?;
        let negative = Op::Scale { factor: -1.0 };
        let relu = Op::Activation { kind: Activation::Relu };
        let value = match kind {
            "Add" | "Sum" => self.emit("", Op::Add, &[a, b])?,
            "Sub" => {
                let b = self.emit("negative", negative, &[b])?;
                self.emit("", Op::Add, &[a, b])?
            }
            "Mul" => {
                // lana's gate is the second factor.
                let swapped = self.shape(a).elements() < self.shape(b).elements();
                self.emit("", Op::Mul, &if swapped { [b, a] } else { [a, b] })?
            }
            "Div" => {
                let b = self.emit("reciprocal", Op::Power { exponent: -1.0 }, &[b])?;
                self.emit("", Op::Mul, &[a, b])?
            }
            // max(a, b) = a + relu(b − a), min(a, b) = a − relu(a − b).
            "Max" => {
                let minus = self.emit("negative", negative, &[a])?;
                let more = self.emit("difference", Op::Add, &[b, minus])?;
                let more = self.emit("above", relu, &[more])?;
                self.emit("", Op::Add, &[a, more])?
            }
            "Min" => {
                let minus = self.emit("negative", negative.clone(), &[b])?;
                let more = self.emit("difference", Op::Add, &[a, minus])?;
                let more = self.emit("above", relu, &[more])?;
                let less = self.emit("below", negative, &[more])?;
                self.emit("", Op::Add, &[a, less])?
            }
            _ => return obstacle("of two values"),
        };
        Ok(Held { value, ..held })
    }

    /// A value and a constant; `first` says that the constant is the first of both.
    fn beside_constant(&mut self, kind: &str, x: Held, array: &Array, first: bool) -> Read<Held> {
        let held = x.padded(array.dims.len());
        if let Some(c) = array.as_number() {
            let term = |term| Op::Shift { term };
            let factor = |factor| Op::Scale { factor };
            let power = |exponent| Op::Power { exponent };
            let ops = match (kind, first) {
                ("Add" | "Sum", _) => vec![term(c)],
                ("Sub", false) => vec![term(-c)],
                ("Sub", true) => vec![factor(-1.0), term(c)],
                ("Mul", _) => vec![factor(c)],
                ("Div", false) => vec![factor((1.0 / f64::from(c)) as f32)],
                ("Div", true) => vec![power(-1.0), factor(c)],
                ("Pow", false) => vec![power(c)],
                ("Max" | "Min", _) => {
                    let (low, high) = if kind == "Max" { (Some(c), None) } else { (None, Some(c)) };
                    let value = self.clip(held.value, low, high)?;
                    return Ok(held.with(value, held.dims.clone()));
                }
                _ => return obstacle("of a number to the power of a value"),
            };
            let value = self.chain(held.value, ops)?;
            return Ok(held.with(value, held.dims.clone()));
        }
        let adds = matches!(kind, "Add" | "Sum" | "Sub");
        if !adds && !matches!(kind, "Mul" | "Div") {
            return obstacle(format!("of a value and a constant of {:?}", array.dims));
        }
        let mut tensor = self.beside(array, &held)?.to_tensor();
        let out = self.left_out(&held);
        let mut wanted = tensor.shape.clone();
        if let Some(out) = out {
            wanted.insert(out, 1);
        }
        let mut held = self.grown(&held, &wanted)?;
        let origin = array.origin.clone();
        match (kind, first) {
            ("Sub", false) => tensor.data.iter_mut().for_each(|v| *v = -*v),
            ("Sub", true) => held.value = self.emit("negative", Op::Scale { factor: -1.0 }, &[held.value])?,
            ("Div", false) => tensor.data.iter_mut().for_each(|v| *v = (1.0 / f64::from(*v)) as f32),
            ("Div", true) => {
                held.value = self.emit("reciprocal", Op::Power { exponent: -1.0 }, &[held.value])?
            }
            _ => {}
        }
        let value = self.parametrised("", &held, held.value, tensor, origin.as_deref(), adds)?;
        Ok(held.with(value, held.dims.clone()))
    }
}

/// The largest number of 16 bits: exporters bound by it, or by larger ones, what must not become infinite.
const BEYOND: f32 = 65504.0;

/// Bounds up to this are computed with: what is moved by it and back keeps five digits behind the point.
const NEAR: f32 = 64.0;

/// A bound that may be computed with, or one that may not.
fn near_or_far(bound: Option<f32>) -> (Option<f32>, Option<f32>) {
    match bound {
        Some(bound) if bound.abs() <= NEAR => (Some(bound), None),
        bound => (None, bound),
    }
}

/// How much of what is negative a leaky activation lets through.
enum Slope {
    Number(f32),
    Channels(Array),
}

/// `min(max(alpha · x + beta, 0), 1)`.
fn hard_sigmoid(alpha: f32, beta: f32) -> Vec<Op> {
    if (alpha - 1.0 / 6.0).abs() < 1e-6 && beta == 0.5 {
        return vec![Op::Activation { kind: Activation::HardSigmoid }];
    }
    vec![
        Op::Scale { factor: 6.0 * alpha },
        Op::Shift { term: 6.0 * beta },
        Op::Activation { kind: Activation::Relu6 },
        Op::Scale { factor: 1.0 / 6.0 },
    ]
}
