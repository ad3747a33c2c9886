//! Nodes that read nothing but constants, computed at once.
//!
//! Mostly these are shapes: PyTorch writes `x.view(n, -1)` as Shape, Gather, Unsqueeze and Concat in front of a Reshape.
//! Weights are computed with, too, where an exporter leaves that to the runtime.

use super::array::{Array, Data, MOST_DIMENSIONS, broadcast, room, strides};
use super::held::{ANY_BATCH, Known};
use super::node::{Read, attribute, dimension, flag, float, int, ints, obstacle, size};
use super::pieces::{Cut, positions};
use super::{Importer, Obstacle};
use crate::proto::{NodeProto, data_type};

impl Importer<'_> {
    /// What a node gives, if that is the same for every image; none if it is not, or lana cannot compute it.
    pub(super) fn folded(&mut self, node: &NodeProto, inputs: &[Option<Known>]) -> Read<Option<Vec<Array>>> {
        let kind = node.op_type.as_deref().unwrap_or_default();
        match (kind, inputs.first()) {
            ("Constant", _) => return self.written(node).map(|array| Some(vec![array])),
            ("Shape" | "Size", Some(Some(known))) => {
                let dims = match known {
                    Known::Value(held) => self.whole_dims(held),
                    Known::Constant(array) => array.dims.iter().map(|&d| d as i64).collect(),
                    Known::Unknown { .. } => return Err(Obstacle::Upstream),
                };
                if kind == "Size" {
                    let product = dims.iter().try_fold(1_i64, |n, &d| n.checked_mul(d));
                    let product = product.ok_or_else(|| "too many elements".to_string())?;
                    return Ok(Some(vec![Array::integers(Vec::new(), vec![product])]));
                }
                let bound = |name: &str, default: usize| match int(node, name) {
                    None => default,
                    Some(at) if at < 0 => (at + dims.len() as i64).max(0) as usize,
                    Some(at) => (at as usize).min(dims.len()),
                };
                let (start, end) = (bound("start", 0), bound("end", dims.len()));
                return Ok(Some(vec![Array::list(dims[start..end.max(start)].to_vec())]));
            }
            _ => {}
        }
        let mut arrays = Vec::with_capacity(inputs.len());
        for known in inputs {
            match known {
                None => arrays.push(None),
                Some(Known::Constant(array)) => arrays.push(Some(&**array)),
                Some(_) => return Ok(None),
            }
        }
        let Some(Some(x)) = arrays.first().copied() else { return Ok(None) };
        // One is gone through for each dimension that it has, be there nothing in it.
        for array in arrays.iter().flatten() {
            self.charge_for(&array.dims)?;
        }
        // What counts images is still that after these.
        let counts = arrays.iter().flatten().any(|array| array.step != 0);
        if counts && !matches!(kind, "Identity" | "Add" | "Mul" | "Unsqueeze") {
            return obstacle("computes with the number of an image in its batch");
        }
        let second = || arrays.get(1).copied().flatten();
        let result = match kind {
            "Identity" | "Dropout" => x.clone(),
            "Cast" => cast(x, int(node, "to").unwrap_or(0))?,
            "Neg" | "Abs" | "Not" | "Floor" | "Ceil" | "Round" | "Sqrt" | "Reciprocal" | "Exp" | "Log"
            | "Sigmoid" | "Tanh" | "Relu" | "Sin" | "Cos" => unary(kind, x),
            "Add" | "Sub" | "Mul" | "Div" | "Mod" | "Pow" | "Min" | "Max" | "Equal" | "Greater" | "Less"
            | "GreaterOrEqual" | "LessOrEqual" | "And" | "Or" => {
                let Some(y) = second().filter(|_| arrays.len() == 2) else { return Ok(None) };
                self.binary(kind, x, y)?
            }
            "Clip" => {
                let bound = |at: usize, name: &str| match arrays.get(at).copied().flatten() {
                    Some(array) => Some(array.clone()),
                    None => float(node, name).map(|v| Array::floats(Vec::new(), vec![v])),
                };
                let mut clipped = x.clone();
                for (kind, bound) in [("Max", bound(1, "min")), ("Min", bound(2, "max"))] {
                    if let Some(bound) = bound {
                        clipped = self.binary(kind, &clipped, &bound)?;
                    }
                }
                clipped
            }
            // Positions that are mixed once and for all, as EdgeNeXt has them.
            "Conv" if is_pointwise(node) => {
                let Some(kernel) = second() else { return Ok(None) };
                let products = x.len().saturating_mul(kernel.dims.first().copied().unwrap_or(0));
                self.charge(products)?;
                mixed(x, kernel, arrays.get(2).copied().flatten())?
            }
            // Weights that are standardised, as NFNets and BiTs have them.
            "BatchNormalization" => {
                let other = |at: usize| arrays.get(at).copied().flatten();
                let [Some(scale), Some(shift), mean, variance] = [1, 2, 3, 4].map(other) else {
                    return Ok(None);
                };
                let given = match flag(node, "training_mode", false) {
                    true => None,
                    false if mean.is_none() || variance.is_none() => {
                        return obstacle("lacks mean or variance");
                    }
                    false => mean.zip(variance),
                };
                normalised(x, [scale, shift], given, number(node, "epsilon", 1e-5))?
            }
            "CumSum" => {
                let Some(axis) = second().and_then(Array::as_number) else { return Ok(None) };
                if flag(node, "exclusive", false) || flag(node, "reverse", false) {
                    return obstacle("backwards, or without the element itself");
                }
                summed(x, dimension(axis as i64, x.dims.len())?)?
            }
            "Where" => {
                let [Some(condition), Some(yes), Some(no)] = *arrays else { return Ok(None) };
                self.choice(condition, yes, no)?
            }
            "Reshape" => {
                // A constant that was made for the open batch has what it is for one image.
                let of_image = |size: i64| if size % ANY_BATCH == 0 { size / ANY_BATCH } else { size };
                let mut wanted = self.list(node, 1, "shape")?.unwrap_or_default();
                if self.batch == ANY_BATCH {
                    wanted.iter_mut().for_each(|size| *size = of_image(*size));
                }
                let dims: Vec<i64> = x.dims.iter().map(|&d| d as i64).collect();
                let whole = super::shapes::target(&dims, &wanted, flag(node, "allowzero", false))?;
                x.regrouped(whole.into_iter().map(size).collect::<Read<_>>()?)?
            }
            "Flatten" => {
                let axis = int(node, "axis").unwrap_or(1);
                let at =
                    if axis == x.dims.len() as i64 { x.dims.len() } else { dimension(axis, x.dims.len())? };
                let (front, back) = x.dims.split_at(at);
                x.regrouped(vec![front.iter().product(), back.iter().product()])?
            }
            "Squeeze" | "Unsqueeze" => {
                let axes = self.list(node, 1, "axes")?;
                if counts && axes.iter().flatten().any(|&axis| axis <= 0) {
                    return obstacle("moves the number of an image in its batch");
                }
                let dims: Vec<i64> = x.dims.iter().map(|&d| d as i64).collect();
                let whole = match kind {
                    "Squeeze" => super::shapes::squeezed(&dims, axes.as_deref())?,
                    _ => super::shapes::unsqueezed(&dims, &axes.unwrap_or_default())?,
                };
                x.regrouped(whole.into_iter().map(size).collect::<Read<_>>()?)?
            }
            "Transpose" => x.transposed(&super::shapes::order(ints(node, "perm"), x.dims.len())?),
            "Expand" => {
                let Some(wanted) = second() else { return Ok(None) };
                few(wanted.len())?;
                let wanted: Vec<usize> =
                    wanted.as_integers()?.iter().map(|&d| self.per_image(d)).collect::<Read<_>>()?;
                let dims = broadcast(&x.dims, &wanted)?;
                self.charge_for(&dims)?;
                x.expanded(&dims)?
            }
            "Tile" => {
                let Some(repeats) = second() else { return Ok(None) };
                few(repeats.len())?;
                let mut tiled = x.clone();
                for (axis, repeats) in Vec::try_from(repeats)?.into_iter().enumerate().take(x.dims.len()) {
                    let mut dims = tiled.dims.clone();
                    dims[axis] = dims[axis].saturating_mul(repeats);
                    self.charge_for(&dims)?;
                    self.charge(dims[axis])?;
                    let indices: Vec<usize> =
                        (0..dims[axis]).map(|at| at % tiled.dims[axis].max(1)).collect();
                    tiled = tiled.selected(axis, &indices);
                }
                tiled
            }
            "ConstantOfShape" => {
                few(x.len())?;
                let dims: Vec<usize> =
                    x.as_integers()?.iter().map(|&d| self.per_image(d)).collect::<Read<_>>()?;
                self.charge_for(&dims)?;
                let value = match attribute(node, "value").and_then(|a| a.t.as_ref()) {
                    Some(tensor) => self.decoded(tensor)?,
                    None => Array::floats(vec![1], vec![0.0]),
                };
                match value.len() {
                    1 => value.regrouped(Vec::new())?.expanded(&dims)?,
                    count => return obstacle(format!("of {count} numbers, only 1")),
                }
            }
            "Range" => {
                let [Some(start), Some(limit), Some(step)] = *arrays else { return Ok(None) };
                self.range(start, limit, step)?
            }
            "Gather" => {
                let Some(indices) = second() else { return Ok(None) };
                let axis = dimension(int(node, "axis").unwrap_or(0), x.dims.len())?;
                let at = positions(indices.as_integers()?, x.dims[axis])?;
                let mut dims = x.dims.clone();
                dims.splice(axis..=axis, indices.dims.iter().copied());
                self.charge_for(&dims)?;
                x.selected(axis, &at).regrouped(dims)?
            }
            // Biases by the distance of two positions, as LeViT has them.
            "GatherND" => {
                let Some(indices) = second() else { return Ok(None) };
                if int(node, "batch_dims").unwrap_or(0) != 0 {
                    return obstacle("with batch_dims");
                }
                self.pointed(x, indices)?
            }
            "Slice" => {
                let mut sliced = x.clone();
                for Cut { axis, start, end, step } in self.cuts(node, x.dims.len())? {
                    self.charge(sliced.dims[axis].saturating_add(sliced.len()))?;
                    let indices = super::pieces::span(sliced.dims[axis], start, end, step)?;
                    sliced = sliced.selected(axis, &indices);
                }
                sliced
            }
            "Split" => {
                let axis = dimension(int(node, "axis").unwrap_or(0), x.dims.len())?;
                self.charge(x.dims[axis])?;
                let mut from = 0;
                let mut parts = Vec::new();
                for length in self.lengths(node, x.dims[axis])? {
                    self.charge(x.dims[..axis].iter().product())?;
                    parts.push(x.selected(axis, &(from..from + length).collect::<Vec<_>>()));
                    from += length;
                }
                return Ok(Some(parts));
            }
            "Concat" => {
                let axis = dimension(int(node, "axis").unwrap_or(0), x.dims.len())?;
                let arrays: Vec<&Array> = arrays.into_iter().flatten().collect();
                joined(&arrays, axis)?
            }
            "ReduceMean" | "ReduceSum" | "ReduceProd" | "ReduceMax" | "ReduceMin" => {
                let axes = self.list(node, 1, "axes")?;
                let keeps = flag(node, "keepdims", true);
                if axes.as_ref().is_none_or(Vec::is_empty) && flag(node, "noop_with_empty_axes", false) {
                    x.clone()
                } else {
                    reduced(kind, x, axes.as_deref().filter(|axes| !axes.is_empty()), keeps)?
                }
            }
            _ => return Ok(None),
        };
        Ok(Some(vec![result]))
    }

    /// Takes memory, or time, for an array of these dimensions.
    pub(super) fn charge_for(&mut self, dims: &[usize]) -> Read<()> {
        self.charge(room(dims).unwrap_or(usize::MAX))
    }

    /// What a Constant node holds.
    fn written(&mut self, node: &NodeProto) -> Read<Array> {
        let value = |name: &str| attribute(node, name);
        let array = if let Some(tensor) = value("value").and_then(|a| a.t.as_ref()) {
            self.held_in_file(tensor)?
        } else if let Some(found) = value("value_float") {
            Array::floats(Vec::new(), vec![found.f.unwrap_or(0.0)])
        } else if let Some(found) = value("value_floats") {
            Array::floats(vec![found.floats.len()], found.floats.clone())
        } else if let Some(found) = value("value_int") {
            Array::integers(Vec::new(), vec![found.i.unwrap_or(0)])
        } else if let Some(found) = value("value_ints") {
            Array::list(found.ints.clone())
        } else {
            return obstacle("holds neither a tensor nor numbers");
        };
        Ok(Array { origin: node.output.first().cloned(), ..array })
    }

    fn binary(&mut self, kind: &str, x: &Array, y: &Array) -> Read<Array> {
        let dims = broadcast(&x.dims, &y.dims)?;
        self.charge_for(&dims)?;
        let fits = |array: &Array| array.step == 0 || dims.len() == array.dims.len() && dims[0] == 1;
        if !fits(x) || !fits(y) {
            return obstacle("moves the number of an image in its batch");
        }
        let (x, y) = (x.expanded(&dims)?, y.expanded(&dims)?);
        if let (Data::Integers(a), Data::Integers(b)) = (&x.data, &y.data) {
            let pairs = a.iter().zip(b).map(|(&a, &b)| (a, b));
            let data: Option<Vec<i64>> = pairs.map(|(a, b)| whole(kind, a, b)).collect();
            let same = |array: &[i64]| array.windows(2).all(|pair| pair[0] == pair[1]);
            let step = match (x.step, y.step, kind) {
                (0, 0, _) => Some(0),
                (_, _, "Add") => x.step.checked_add(y.step),
                (step, 0, "Mul") if same(b) => step.checked_mul(b.first().copied().unwrap_or(0)),
                (0, step, "Mul") if same(a) => step.checked_mul(a.first().copied().unwrap_or(0)),
                _ => None,
            };
            return match data.zip(step) {
                Some((data, step)) => Ok(Array { step, ..Array::integers(dims, data) }),
                None => obstacle("integers beyond 64 bits, or divided by 0"),
            };
        }
        let (a, b) = (x.to_floats(), y.to_floats());
        let pairs = || a.iter().zip(&b).map(|(&a, &b)| (a, b));
        let truth = |test: fn(&f32, &f32) -> bool| {
            Array::integers(dims.clone(), pairs().map(|(a, b)| i64::from(test(&a, &b))).collect())
        };
        let number =
            |of: fn(f32, f32) -> f32| Array::floats(dims.clone(), pairs().map(|(a, b)| of(a, b)).collect());
        Ok(match kind {
            "Add" => number(|a, b| a + b),
            "Sub" => number(|a, b| a - b),
            "Mul" => number(|a, b| a * b),
            "Div" => number(|a, b| a / b),
            "Mod" => number(|a, b| a % b),
            "Pow" => number(f32::powf),
            "Min" => number(f32::min),
            "Max" => number(f32::max),
            "Equal" => truth(f32::eq),
            "Greater" => truth(f32::gt),
            "Less" => truth(f32::lt),
            "GreaterOrEqual" => truth(f32::ge),
            "LessOrEqual" => truth(f32::le),
            "And" => truth(|a, b| *a != 0.0 && *b != 0.0),
            _ => truth(|a, b| *a != 0.0 || *b != 0.0),
        })
    }

    fn choice(&mut self, condition: &Array, yes: &Array, no: &Array) -> Read<Array> {
        let dims = broadcast(&broadcast(&condition.dims, &yes.dims)?, &no.dims)?;
        self.charge_for(&dims)?;
        let (condition, yes, no) = (condition.expanded(&dims)?, yes.expanded(&dims)?, no.expanded(&dims)?);
        let choose = condition.as_integers()?;
        if let (Data::Integers(a), Data::Integers(b)) = (&yes.data, &no.data) {
            let data = choose.iter().zip(a.iter().zip(b)).map(|(c, (a, b))| if *c != 0 { *a } else { *b });
            return Ok(Array::integers(dims, data.collect()));
        }
        let (a, b) = (yes.to_floats(), no.to_floats());
        let data = choose.iter().zip(a.iter().zip(&b)).map(|(c, (a, b))| if *c != 0 { *a } else { *b });
        Ok(Array::floats(dims, data.collect()))
    }

    /// The parts of `x` to which the rows along the last dimension of `indices` point by their first dimensions.
    fn pointed(&mut self, x: &Array, indices: &Array) -> Read<Array> {
        let fits = |depth: &usize| (1..=x.dims.len()).contains(depth) && x.len() > 0;
        let Some((&depth, rows)) = indices.dims.split_last().filter(|(depth, _)| fits(depth)) else {
            return obstacle(format!("of {:?} by {:?}", x.dims, indices.dims));
        };
        let (front, back) = x.dims.split_at(depth);
        let dims = [rows, back].concat();
        self.charge_for(&dims)?;
        let steps = strides(front);
        let place = |row: &[i64]| -> Read<usize> {
            let along =
                row.iter().zip(front).map(|(at, &length)| positions(std::slice::from_ref(at), length));
            along.zip(&steps).try_fold(0, |sum, (at, step)| Ok(sum + at?[0] * step))
        };
        let places: Vec<usize> =
            indices.as_integers()?.chunks_exact(depth).map(place).collect::<Read<_>>()?;
        let parts = x.regrouped(vec![front.iter().product(), back.iter().product()])?;
        parts.selected(0, &places).regrouped(dims)
    }

    fn range(&mut self, start: &Array, limit: &Array, step: &Array) -> Read<Array> {
        // The numbers of the images in their batch, for the first of them.
        let of_batch = [start, limit, step].map(|array| match &array.data {
            Data::Integers(data) => data.first().copied(),
            Data::Floats(_) => None,
        });
        if of_batch == [Some(0), Some(ANY_BATCH), Some(1)] && self.batch == ANY_BATCH {
            return Ok(Array { step: 1, ..Array::list(vec![0]) });
        }
        let number = |array: &Array| array.as_number().map(f64::from);
        let (Some(from), Some(to), Some(by)) = (number(start), number(limit), number(step)) else {
            return obstacle("of more than three numbers");
        };
        let count = ((to - from) / by).ceil().max(0.0);
        if !(0.0..=super::SPARE_ELEMENTS as f64).contains(&count) {
            return obstacle(format!("from {from} to {to} by {by}"));
        }
        self.charge(count as usize)?;
        let items = (0..count as usize).map(|at| from + at as f64 * by);
        Ok(match (&start.data, &step.data) {
            (Data::Integers(_), Data::Integers(_)) => Array::list(items.map(|x| x as i64).collect()),
            _ => Array::floats(vec![count as usize], items.map(|x| x as f32).collect()),
        })
    }
}

/// Whether a list of sizes is not longer than dimensions are many.
pub(super) fn few(sizes: usize) -> Read<()> {
    match sizes <= MOST_DIMENSIONS {
        true => Ok(()),
        false => obstacle(format!("{sizes} dimensions, only {MOST_DIMENSIONS}")),
    }
}

/// An operation of two integers; none if there is no result.
fn whole(kind: &str, a: i64, b: i64) -> Option<i64> {
    Some(match kind {
        "Add" => a.checked_add(b)?,
        "Sub" => a.checked_sub(b)?,
        "Mul" => a.checked_mul(b)?,
        "Div" => a.checked_div(b)?,
        // The sign is the divisor's.
        "Mod" => a.checked_rem(b).map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })?,
        "Pow" => a.checked_pow(u32::try_from(b).ok()?)?,
        "Min" => a.min(b),
        "Max" => a.max(b),
        "Equal" => i64::from(a == b),
        "Greater" => i64::from(a > b),
        "Less" => i64::from(a < b),
        "GreaterOrEqual" => i64::from(a >= b),
        "LessOrEqual" => i64::from(a <= b),
        "And" => i64::from(a != 0 && b != 0),
        _ => i64::from(a != 0 || b != 0),
    })
}

fn unary(kind: &str, x: &Array) -> Array {
    if let (Data::Integers(data), "Neg" | "Abs" | "Not") = (&x.data, kind) {
        let of = |&v: &i64| match kind {
            "Neg" => v.wrapping_neg(),
            "Abs" => v.wrapping_abs(),
            _ => i64::from(v == 0),
        };
        return Array { data: Data::Integers(data.iter().map(of).collect()), ..x.clone() };
    }
    let of = |v: f32| match kind {
        "Neg" => -v,
        "Abs" => v.abs(),
        "Floor" => v.floor(),
        "Ceil" => v.ceil(),
        "Round" => v.round_ties_even(),
        "Sqrt" => v.sqrt(),
        "Reciprocal" => v.recip(),
        "Exp" => v.exp(),
        "Log" => v.ln(),
        "Sigmoid" => 1.0 / (1.0 + (-v).exp()),
        "Tanh" => v.tanh(),
        "Sin" => v.sin(),
        "Cos" => v.cos(),
        "Relu" => v.max(0.0),
        _ => f32::from(v == 0.0),
    };
    Array { data: Data::Floats(x.to_floats().into_iter().map(of).collect()), ..x.clone() }
}

fn cast(x: &Array, to: i64) -> Read<Array> {
    let data = match (i32::try_from(to).unwrap_or(0), &x.data) {
        (data_type::FLOAT | data_type::DOUBLE, _) => Data::Floats(x.to_floats()),
        (data_type::INT64 | data_type::INT32, Data::Integers(_)) => x.data.clone(),
        (data_type::INT64 | data_type::INT32, Data::Floats(data)) => {
            Data::Integers(data.iter().map(|&v| v as i64).collect())
        }
        (data_type::BOOL, Data::Integers(data)) => {
            Data::Integers(data.iter().map(|&v| i64::from(v != 0)).collect())
        }
        (data_type::BOOL, Data::Floats(data)) => {
            Data::Integers(data.iter().map(|&v| i64::from(v != 0.0)).collect())
        }
        _ => return obstacle(format!("to ONNX data type {to}")),
    };
    Ok(Array { data, ..x.clone() })
}

/// Whether a convolution has nothing but a kernel of one pixel: no step, padding or groups.
fn is_pointwise(node: &NodeProto) -> bool {
    let all = |name: &str, wanted: i64| ints(node, name).is_none_or(|v| v.iter().all(|&v| v == wanted));
    all("kernel_shape", 1)
        && all("strides", 1)
        && all("pads", 0)
        && matches!(int(node, "group"), None | Some(1))
}

/// The channels of every pixel times a matrix, as a convolution with a kernel of one pixel has them.
fn mixed(x: &Array, kernel: &Array, bias: Option<&Array>) -> Read<Array> {
    let (&[images, channels, ref pixels @ ..], &[outputs, inputs, ref window @ ..]) =
        (&x.dims[..], &kernel.dims[..])
    else {
        return obstacle(format!("of {:?} by {:?}", x.dims, kernel.dims));
    };
    let bias = bias.map_or_else(|| vec![0.0; outputs], Array::to_floats);
    let fits = inputs == channels && window.iter().all(|&size| size == 1) && window.len() == pixels.len();
    // Nothing to compute with might be asked for very often.
    if !fits || bias.len() != outputs || x.len() == 0 || kernel.len() == 0 {
        return obstacle(format!("of {:?} by {:?} and {} terms", x.dims, kernel.dims, bias.len()));
    }
    let count: usize = pixels.iter().product();
    let (x, kernel) = (x.to_floats(), kernel.to_floats());
    let mut data = Vec::new();
    for image in 0..images {
        for output in 0..outputs {
            let mut sums = vec![f64::from(bias[output]); count];
            for channel in 0..channels {
                let factor = f64::from(kernel[output * channels + channel]);
                let values = &x[(image * channels + channel) * count..][..count];
                sums.iter_mut().zip(values).for_each(|(sum, &v)| *sum += factor * f64::from(v));
            }
            data.extend(sums.into_iter().map(|sum| sum as f32));
        }
    }
    Ok(Array::floats([&[images, outputs], pixels].concat(), data))
}

/// Every slice along the second dimension less its mean, by its standard deviation, then scaled and moved: by the mean and the variance
/// that are given, or its own.
fn normalised(x: &Array, terms: [&Array; 2], given: Option<(&Array, &Array)>, eps: f32) -> Read<Array> {
    let &[outer, channels, ..] = &x.dims[..] else { return obstacle(format!("of {:?}", x.dims)) };
    let of_channels = |array: &Array| array.len() == channels;
    if !terms.into_iter().all(of_channels)
        || given.is_some_and(|(mean, variance)| !of_channels(mean) || !of_channels(variance))
        || x.len() == 0
    {
        let terms = terms.into_iter().chain(given.into_iter().flat_map(|(mean, variance)| [mean, variance]));
        let lengths: Vec<usize> = terms.map(Array::len).collect();
        return obstacle(format!("terms of {lengths:?} numbers for {channels} channels"));
    }
    let [scale, shift] = terms.map(Array::to_floats);
    let given = given.map(|(mean, variance)| (mean.to_floats(), variance.to_floats()));
    let mut data = x.to_floats();
    let run = x.len() / outer / channels;
    for channel in 0..channels {
        let of = |data: &[f32], f: &dyn Fn(f64) -> f64| {
            let runs = (0..outer).flat_map(|o| &data[(o * channels + channel) * run..][..run]);
            runs.map(|&v| f(f64::from(v))).sum::<f64>() / (outer * run) as f64
        };
        let (mean, variance) = match &given {
            Some((mean, variance)) => (f64::from(mean[channel]), f64::from(variance[channel])),
            None => {
                let mean = of(&data, &|v| v);
                (mean, of(&data, &|v| (v - mean).powi(2)))
            }
        };
        let factor = f64::from(scale[channel]) / (variance + f64::from(eps)).sqrt();
        for o in 0..outer {
            for v in &mut data[(o * channels + channel) * run..][..run] {
                *v = ((f64::from(*v) - mean) * factor + f64::from(shift[channel])) as f32;
            }
        }
    }
    Ok(Array { data: Data::Floats(data), ..x.clone() })
}

/// Each element with those before it along a dimension.
fn summed(x: &Array, axis: usize) -> Read<Array> {
    let mut sums = x.clone();
    let stride = strides(&x.dims)[axis];
    let first = |at: usize| (at / stride).is_multiple_of(x.dims[axis]);
    match &mut sums.data {
        Data::Floats(data) => {
            for at in (0..data.len()).filter(|&at| !first(at)) {
                data[at] += data[at - stride];
            }
        }
        Data::Integers(data) => {
            for at in (0..data.len()).filter(|&at| !first(at)) {
                data[at] = data[at].wrapping_add(data[at - stride]);
            }
        }
    }
    Ok(sums)
}

/// One behind the other along a dimension.
pub(super) fn joined(arrays: &[&Array], axis: usize) -> Read<Array> {
    let Some(first) = arrays.first() else { return obstacle("of nothing") };
    let mut dims = first.dims.clone();
    dims[axis] = 0;
    for array in arrays {
        let fits = array.dims.len() == dims.len()
            && array.dims.iter().zip(&first.dims).enumerate().all(|(at, (a, b))| at == axis || a == b);
        if !fits {
            return obstacle(format!("{:?} beside {:?} along dimension {axis}", first.dims, array.dims));
        }
        dims[axis] += array.dims[axis];
    }
    let outer: usize = dims[..axis].iter().product();
    let runs = (0..outer).flat_map(|o| {
        arrays.iter().map(move |array| {
            let run: usize = array.dims[axis..].iter().product();
            (*array, o * run..(o + 1) * run)
        })
    });
    let data = match arrays.iter().all(|array| matches!(array.data, Data::Integers(_))) {
        true => {
            let mut data = Vec::new();
            for (array, run) in runs {
                data.extend_from_slice(&array.as_integers()?[run]);
            }
            Data::Integers(data)
        }
        false => {
            let floats: Vec<(&Array, Vec<f32>)> = arrays.iter().map(|a| (*a, a.to_floats())).collect();
            let mut data = Vec::new();
            for o in 0..outer {
                for (array, values) in &floats {
                    let run: usize = array.dims[axis..].iter().product();
                    data.extend_from_slice(&values[o * run..(o + 1) * run]);
                }
            }
            Data::Floats(data)
        }
    };
    Ok(Array { dims, data, origin: None, step: 0 })
}

fn reduced(kind: &str, x: &Array, axes: Option<&[i64]>, keeps: bool) -> Read<Array> {
    let rank = x.dims.len();
    let axes: Vec<usize> = match axes {
        Some(axes) => axes.iter().map(|&axis| dimension(axis, rank)).collect::<Read<_>>()?,
        None => (0..rank).collect(),
    };
    let along = |at: &usize| axes.contains(at);
    let kept: Vec<usize> = (0..rank).filter(|at| !along(at)).collect();
    let order: Vec<usize> = kept.iter().copied().chain((0..rank).filter(along)).collect();
    let turned = x.transposed(&order);
    let of = |at: usize| if along(&at) { 1 } else { x.dims[at] };
    let dims: Vec<usize> =
        if keeps { (0..rank).map(of).collect() } else { kept.iter().map(|&at| x.dims[at]).collect() };
    let count: usize = (0..rank).filter(along).map(|at| x.dims[at]).product();
    if count == 0 {
        return obstacle("of nothing");
    }
    if let Data::Integers(data) = &turned.data {
        let of = |run: &[i64]| {
            let mut items = run.iter().copied();
            let first = items.next()?;
            match kind {
                "ReduceSum" | "ReduceMean" => {
                    let sum = items.try_fold(first, i64::checked_add)?;
                    Some(if kind == "ReduceMean" { sum / count as i64 } else { sum })
                }
                "ReduceProd" => items.try_fold(first, i64::checked_mul),
                "ReduceMax" => Some(items.fold(first, i64::max)),
                _ => Some(items.fold(first, i64::min)),
            }
        };
        let data: Option<Vec<i64>> = data.chunks_exact(count).map(of).collect();
        return match data {
            Some(data) => Ok(Array::integers(dims, data)),
            None => obstacle("integers beyond 64 bits"),
        };
    }
    let of = |run: &[f32]| {
        let items = run.iter().map(|&v| f64::from(v));
        let value = match kind {
            "ReduceSum" => items.sum(),
            "ReduceMean" => items.sum::<f64>() / count as f64,
            "ReduceProd" => items.product(),
            "ReduceMax" => items.fold(f64::NEG_INFINITY, f64::max),
            _ => items.fold(f64::INFINITY, f64::min),
        };
        value as f32
    };
    Ok(Array::floats(dims, turned.to_floats().chunks_exact(count).map(of).collect()))
}

/// The number an attribute has, or one that is usual.
pub(super) fn number(node: &NodeProto, name: &str, usual: f32) -> f32 {
    float(node, name).unwrap_or(usual)
}
