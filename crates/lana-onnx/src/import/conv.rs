//! Convolutions, pooling, and other sizes of feature maps.

use lana_graph::{Conv2d, Op, Window};

use super::Importer;
use super::array::Data;
use super::held::Held;
use super::node::{Obstacle, Read, flag, int, obstacle, size, sizes, word};
use crate::proto::NodeProto;
use crate::text::listed;

impl Importer<'_> {
    pub(super) fn conv(&mut self, node: &NodeProto) -> Read<Held> {
        let weight = self.parameter(1)?;
        match weight.dims.len() {
            3 => return self.conv1d(node),
            5 => return self.conv3d(node),
            _ => {}
        }
        let x = self.image(0)?;
        let [_, channels, height, width] = x.dims[..] else { return obstacle("of no feature map") };
        let [out_channels, _, rows, columns] = *weight.dims else {
            return obstacle(format!("kernel of {} dimensions, only 3 to 5", weight.dims.len()));
        };
        let kernel = [rows, columns];
        let mut dilation = sizes::<2>(node, "dilations")?.unwrap_or([1, 1]);
        // A single row or column has no holes, whatever is said.
        (0..2).filter(|&at| kernel[at] == 1).for_each(|at| dilation[at] = 1);
        let stride = sizes::<2>(node, "strides")?.unwrap_or([1, 1]);
        let span = [0, 1].map(|at| reach(kernel[at], dilation[at]));
        let padding = padding(node, [height, width], span, stride)?;
        let groups = size(int(node, "group").unwrap_or(1))?;
        let bias = self.constant(2)?.is_some();
        let mut parameters = vec![("weight", weight.to_tensor())];
        if bias {
            parameters.push(("bias", self.parameter(2)?.to_tensor()));
        }
        let conv =
            Conv2d { in_channels: channels, out_channels, kernel, stride, dilation, padding, groups, bias };
        let value = self.emit_with("", Op::Conv2d(conv), &[x.value], parameters, weight.origin.as_deref())?;
        Ok(self.map(&x, value))
    }

    /// Along one dimension: that of a feature map one row high.
    fn conv1d(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.value(0)?;
        let weight = self.parameter(1)?;
        let ([1, channels, length], Some(0)) = (&x.dims[..], self.left_out(&x)) else {
            return obstacle(format!("of {} by a kernel of one dimension", self.shown(&x)));
        };
        let (channels, length) = (*channels, *length);
        let [out_channels, _, columns] = weight.dims[..] else { return obstacle("kernel of one dimension") };
        let [apart] = match columns {
            1 => [1],
            _ => sizes::<1>(node, "dilations")?.unwrap_or([1]),
        };
        let span = reach(columns, apart);
        let [step] = sizes::<1>(node, "strides")?.unwrap_or([1]);
        let [left, right] = match word(node, "auto_pad", "NOTSET") {
            "NOTSET" => sizes::<2>(node, "pads")?.unwrap_or([0, 0]),
            "VALID" => [0, 0],
            "SAME_UPPER" => same(length, span, step),
            "SAME_LOWER" => swapped(same(length, span, step)),
            other => return obstacle(format!("auto_pad {other}")),
        };
        let groups = size(int(node, "group").unwrap_or(1))?;
        let bias = self.constant(2)?.is_some();
        let mut kernel = weight.to_tensor();
        kernel.shape.insert(2, 1);
        let mut parameters = vec![("weight", kernel)];
        if bias {
            parameters.push(("bias", self.parameter(2)?.to_tensor()));
        }
        let conv = Conv2d {
            in_channels: channels,
            out_channels,
            kernel: [1, columns],
            stride: [1, step],
            dilation: [1, apart],
            padding: [0, left, 0, right],
            groups,
            bias,
        };
        let row = self.emit("row", Op::Reshape { shape: vec![channels, 1, length] }, &[x.value])?;
        let value = self.emit_with("", Op::Conv2d(conv), &[row], parameters, weight.origin.as_deref())?;
        let (c, _, w) = self.shape(value).as_image().unwrap_or((0, 0, 0));
        Ok(Held { made: self.here(), ..x.with(value, vec![1, c, w]) })
    }

    fn conv3d(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.value(0)?;
        let weight = self.parameter(1)?;
        let pads = sizes::<6>(node, "pads")?.unwrap_or([0; 6]);
        let ones = |name: &str| Ok::<_, Obstacle>(sizes::<3>(node, name)?.is_none_or(|v| v == [1; 3]));
        let padded = word(node, "auto_pad", "NOTSET") == "NOTSET";
        if !ones("strides")? || !ones("dilations")? || pads[..3] != pads[3..] || !padded {
            return obstacle("in three dimensions only with step 1 and the same padding at both ends");
        }
        if int(node, "group").unwrap_or(1) != 1 || self.left_out(&x) != Some(0) {
            return obstacle("in three dimensions only in one group");
        }
        let (kernel, padding) = ([2, 3, 4].map(|at| weight.dims[at]), [pads[0], pads[1], pads[2]]);
        let bias = self.constant(2)?.is_some();
        let op = Op::Conv3d { out_channels: weight.dims[0], kernel, padding, bias };
        let mut parameters = vec![("weight", weight.to_tensor())];
        if bias {
            parameters.push(("bias", self.parameter(2)?.to_tensor()));
        }
        let value = self.emit_with("", op, &[x.value], parameters, weight.origin.as_deref())?;
        Ok(self.map(&x, value))
    }

    /// The result of an operation on feature maps.
    fn map(&self, x: &Held, value: lana_graph::Value) -> Held {
        x.with(value, [&[1], self.shape(value).dims()].concat())
    }

    pub(super) fn pool(&mut self, node: &NodeProto, max: bool) -> Read<Held> {
        let x = self.image(0)?;
        let (height, width) = (x.dims[2], x.dims[3]);
        let Some(kernel) = sizes::<2>(node, "kernel_shape")? else { return obstacle("without kernel_shape") };
        let stride = sizes::<2>(node, "strides")?.unwrap_or([1, 1]);
        let [top, left, bottom, right] = padding(node, [height, width], kernel, stride)?;
        let ceil_mode = flag(node, "ceil_mode", false);
        let count_include_pad = flag(node, "count_include_pad", false);
        let window = |padding, ceil_mode| Window { kernel, stride, padding, ceil_mode };
        let op = |window| match max {
            true => Op::MaxPool { window },
            false => Op::AveragePool { window, count_include_pad },
        };
        // One window that is the whole map.
        if !max && kernel == [height, width] && [top, left, bottom, right] == [0; 4] {
            let value = self.emit("", Op::GlobalAveragePool, &[x.value])?;
            return Ok(self.map(&x, value));
        }
        if [top, left] == [bottom, right] {
            let value = self.emit("", op(window([top, left], ceil_mode)), &[x.value])?;
            return Ok(self.map(&x, value));
        }
        // The odd row and column at the end, as TensorFlow has them, are those that ceil_mode adds; they never count.
        let ceil = op(window([top, left], true));
        let count = |size: usize, pads: usize, axis: usize| {
            let padded = (size + pads).checked_sub(kernel[axis]);
            padded.and_then(|steps| steps.checked_div(stride[axis])).map(|steps| steps + 1)
        };
        let wanted = [count(height, top + bottom, 0), count(width, left + right, 1)];
        let one_more = bottom >= top && right >= left && !ceil_mode;
        let fits = ceil.infer(&[self.shape(x.value)]).is_ok_and(|s| {
            s.as_image().is_some_and(|(_, rows, columns)| wanted == [Some(rows), Some(columns)])
        });
        if one_more && fits && (max || !count_include_pad) {
            let value = self.emit("", ceil, &[x.value])?;
            return Ok(self.map(&x, value));
        }
        if !max && !count_include_pad {
            return obstacle("padding that is not the same on both sides, and does not count");
        }
        // Otherwise it is padded first: by less than anything for a maximum, by zeros where they count.
        let value = if max { f32::MIN } else { 0.0 };
        let pads = vec![[0, 0], [top, bottom], [left, right]];
        let padded = self.emit("padded", Op::Pad { pads, value }, &[x.value])?;
        let value = self.emit("", op(window([0, 0], ceil_mode)), &[padded])?;
        Ok(self.map(&x, value))
    }

    pub(super) fn global_max_pool(&mut self) -> Read<Held> {
        let x = self.image(0)?;
        let kernel = [x.dims[2], x.dims[3]];
        let window = Window { kernel, stride: [1, 1], padding: [0, 0], ceil_mode: false };
        let value = self.emit("", Op::MaxPool { window }, &[x.value])?;
        Ok(self.map(&x, value))
    }

    pub(super) fn global_average_pool(&mut self) -> Read<Held> {
        let x = self.image(0)?;
        let value = self.emit("", Op::GlobalAveragePool, &[x.value])?;
        Ok(self.map(&x, value))
    }

    /// To the nearest pixel by choosing rows and columns, otherwise by bilinear interpolation.
    pub(super) fn resize(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.image(0)?;
        let old = [x.dims[2], x.dims[3]];
        let whole = self.whole_dims(&x);
        // Before operator set 11 the factors were the second input.
        let (at_scales, at_sizes) = if self.opset < 11 { (1, 3) } else { (2, 3) };
        let scales = self.constant(at_scales)?.filter(|array| array.len() > 0);
        let (new, factors) = match (self.constant(at_sizes)?.filter(|array| array.len() > 0), scales) {
            (Some(sizes), _) => {
                let sizes = sizes.as_integers()?;
                if sizes.len() != 4 || sizes[..2] != whole[..2] {
                    return obstacle(format!("to the dimensions {}", listed(sizes)));
                }
                let new = [size(sizes[2])?, size(sizes[3])?];
                (new, [0, 1].map(|at| new[at] as f64 / old[at] as f64))
            }
            (None, Some(scales)) => {
                let Data::Floats(scales) = &scales.data else {
                    return obstacle("by factors that are no floats");
                };
                let &[1.0, 1.0, height, width] = &scales[..] else {
                    return obstacle(format!("by the factors {}", listed(scales)));
                };
                let new = [0, 1].map(|at| ([height, width][at] * old[at] as f32).floor() as i64);
                ([size(new[0])?, size(new[1])?], [f64::from(height), f64::from(width)])
            }
            (None, None) => return obstacle("without sizes and factors"),
        };
        // Before operator set 11 there was one way to say where pixels lie.
        let usual = if self.opset < 11 { "asymmetric" } else { "half_pixel" };
        let place = word(node, "coordinate_transformation_mode", usual);
        match word(node, "mode", "nearest") {
            "nearest" => {
                // It did not say how they are rounded either; all agree on how maps grow.
                let round = match self.opset < 11 {
                    true if factors.iter().any(|&factor| factor < 1.0) => {
                        return obstacle(
                            "to fewer pixels, by which runtimes mean different things before operator set 11",
                        );
                    }
                    true => "floor",
                    false => word(node, "nearest_mode", "round_prefer_floor"),
                };
                let mut value = x.value;
                for (axis, (old, (new, factor))) in
                    old.into_iter().zip(new.into_iter().zip(factors)).enumerate()
                {
                    self.charge(new)?;
                    let indices = (0..new).map(|at| nearest(at, [old, new], factor, place, round));
                    let indices = indices.collect::<Read<Vec<_>>>()?;
                    if !indices.iter().copied().eq(0..old) {
                        let part = ["rows", ""][axis];
                        value = self.emit(part, Op::Select { axis: axis + 1, indices }, &[value])?;
                    }
                }
                Ok(self.map(&x, value))
            }
            "linear" => {
                let whole =
                    (0..2).all(|at| (factors[at] * old[at] as f64 / new[at] as f64 - 1.0).abs() < 1e-5);
                let align_corners = match place {
                    "align_corners" => true,
                    "half_pixel" if whole => false,
                    // They differ where a map becomes one pixel.
                    "pytorch_half_pixel" if whole && new.iter().all(|&size| size > 1) => false,
                    place => return obstacle(format!("linear, coordinates by {place}, factors {factors:?}")),
                };
                let value = self.emit("", Op::Resize { size: new, align_corners }, &[x.value])?;
                Ok(self.map(&x, value))
            }
            mode => obstacle(format!("mode {mode}")),
        }
    }
}

/// Which of `old` pixels is nearest to one of `new`.
fn nearest(at: usize, [old, new]: [usize; 2], factor: f64, place: &str, round: &str) -> Read<usize> {
    let x = at as f64;
    let found = match place {
        "half_pixel" => (x + 0.5) / factor - 0.5,
        "pytorch_half_pixel" if new == 1 => 0.0,
        "pytorch_half_pixel" => (x + 0.5) / factor - 0.5,
        "asymmetric" => x / factor,
        "align_corners" if new == 1 => 0.0,
        "align_corners" => x * (old as f64 - 1.0) / (new as f64 - 1.0),
        _ => return obstacle(format!("coordinates by {place}")),
    };
    let whole = match round {
        "round_prefer_floor" => (found - 0.5).ceil(),
        "round_prefer_ceil" => (found + 0.5).floor(),
        "floor" => found.floor(),
        "ceil" => found.ceil(),
        _ => return obstacle(format!("rounded by {round}")),
    };
    Ok(whole.clamp(0.0, old as f64 - 1.0) as usize)
}

/// Rows and columns at top, left, bottom, right.
fn padding(node: &NodeProto, size: [usize; 2], kernel: [usize; 2], stride: [usize; 2]) -> Read<[usize; 4]> {
    let [[top, bottom], [left, right]] = [0, 1].map(|at| same(size[at], kernel[at], stride[at]));
    match word(node, "auto_pad", "NOTSET") {
        "NOTSET" => Ok(sizes::<4>(node, "pads")?.unwrap_or([0; 4])),
        "VALID" => Ok([0; 4]),
        "SAME_UPPER" => Ok([top, left, bottom, right]),
        "SAME_LOWER" => Ok([bottom, right, top, left]),
        other => obstacle(format!("auto_pad {other}")),
    }
}

/// Padding in front and behind by which a window stands at every `step`-th place, the odd one behind.
fn same(size: usize, kernel: usize, step: usize) -> [usize; 2] {
    let needed = (size.div_ceil(step.max(1)).saturating_sub(1)).saturating_mul(step).saturating_add(kernel);
    let total = needed.saturating_sub(size);
    [total / 2, total - total / 2]
}

/// What a kernel spans whose elements are so far apart.
fn reach(kernel: usize, apart: usize) -> usize {
    kernel.saturating_sub(1).saturating_mul(apart).saturating_add(1)
}

fn swapped([a, b]: [usize; 2]) -> [usize; 2] {
    [b, a]
}
