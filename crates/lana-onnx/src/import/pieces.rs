//! Parts of values, values put together, and what is put around them.

use std::rc::Rc;

use lana_graph::{Op, Tensor};

use super::Importer;
use super::array::Array;
use super::fold::few;
use super::held::{Batch, Held, Known};
use super::node::{Read, dimension, int, obstacle, size, word};
use crate::proto::NodeProto;
use crate::text::listed;

/// What a Slice takes of one dimension, as it stands in the model.
pub(super) struct Cut {
    pub(super) axis: usize,
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

impl Importer<'_> {
    pub(super) fn gather(&mut self, node: &NodeProto) -> Read<Held> {
        if let Some(Known::Constant(array)) = self.input(1)?
            && array.step != 0
        {
            return self.gather_by_image(node, &array);
        }
        let held = self.value(0)?;
        let at = dimension(int(node, "axis").unwrap_or(0), held.dims.len())?;
        let Some(array) = self.constant(1)? else { return obstacle("lacks its indices") };
        let axis = self.own_axis(&held, at)?;
        self.charge(array.len())?;
        let indices = positions(array.as_integers()?, held.dims[at])?;
        let value = self.emit("", Op::Select { axis, indices }, &[held.value])?;
        let mut dims = held.dims.clone();
        dims[at] = array.len();
        let found = held.with(value, dims);
        if array.dims.len() == 1 {
            return Ok(found);
        }
        // A single position takes its dimension away, a table of them adds more.
        let mut whole = self.whole_dims(&found);
        whole.splice(at..=at, array.dims.iter().map(|&d| d as i64));
        self.regrouped(&found, &whole)
    }

    /// From a batch in one row, by places that are the same in every image: how PyTorch writes a view by strides.
    fn gather_by_image(&mut self, node: &NodeProto, array: &Array) -> Read<Held> {
        let held = self.loose(0)?;
        let in_a_row = held.dims.len() == 1 && held.batch == Some(Batch { dim: 0, before: 1 });
        let along_images = array.dims.first() == Some(&1) && array.step == held.elements() as i64;
        if !in_a_row || !along_images || int(node, "axis").unwrap_or(0) != 0 {
            return obstacle("by places that mix images");
        }
        self.charge(array.len())?;
        let indices = positions(array.as_integers()?, held.elements())?;
        let value = self.shaped(&held, &[held.elements()])?;
        let value = match indices.iter().copied().eq(0..held.elements()) {
            true => value,
            false => self.emit("", Op::Select { axis: 0, indices }, &[value])?,
        };
        Ok(Held { value, dims: array.dims.clone(), batch: held.batch, made: self.here() })
    }

    /// What the node takes of each dimension.
    pub(super) fn cuts(&mut self, node: &NodeProto, rank: usize) -> Read<Vec<Cut>> {
        let Some(starts) = self.list(node, 1, "starts")? else { return obstacle("lacks its starts") };
        let Some(ends) = self.list(node, 2, "ends")? else { return obstacle("lacks its ends") };
        let axes = self.list(node, 3, "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.list(node, 4, "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if [ends.len(), axes.len(), steps.len()].iter().any(|&n| n != starts.len()) {
            return obstacle("by lists of different lengths");
        }
        let cuts = starts.into_iter().zip(ends).zip(axes.into_iter().zip(steps));
        let cut = |((start, end), (axis, step))| Ok(Cut { axis: dimension(axis, rank)?, start, end, step });
        let cuts = cuts.map(cut).collect::<Read<Vec<_>>>()?;
        match (0..rank).all(|axis| cuts.iter().filter(|cut| cut.axis == axis).count() <= 1) {
            true => Ok(cuts),
            false => obstacle("twice along one dimension"),
        }
    }

    pub(super) fn slice(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.value(0)?;
        let mut cuts = self.cuts(node, held.dims.len())?;
        // What keeps all of a dimension does nothing, even to that of the batch.
        let whole = self.whole_dims(&held);
        cuts.retain(|cut| {
            cut.step != 1 || cut.start != 0 && cut.start > -whole[cut.axis] || cut.end < whole[cut.axis]
        });
        let coarse = |cut: &Cut| cut.start == 0 && cut.step > 1 && cut.end >= whole[cut.axis];
        if let [first, second] = cuts.as_slice()
            && held.dims.len() == 4
            && self.left_out(&held) == Some(0)
            && [first.axis, second.axis] == [2, 3]
            && first.step == second.step
            && coarse(first)
            && coarse(second)
        {
            let stride = size(first.step)?;
            let value = self.emit("", Op::Subsample { stride }, &[held.value])?;
            let dims = [&[1], self.shape(value).dims()].concat();
            return Ok(held.with(value, dims));
        }
        let mut found = Held { made: Rc::from(""), ..held };
        for Cut { axis: at, start, end, step } in cuts {
            let axis = self.own_axis(&found, at)?;
            self.charge(found.dims[at])?;
            let indices = span(found.dims[at], start, end, step)?;
            found.dims[at] = indices.len();
            found.value = self.emit("", Op::Select { axis, indices }, &[found.value])?;
        }
        Ok(found)
    }

    /// How long the parts are that the node makes of a dimension.
    pub(super) fn lengths(&mut self, node: &NodeProto, whole: usize) -> Read<Vec<usize>> {
        let parts = node.output.len();
        let lengths: Vec<usize> = match self.list(node, 1, "split")? {
            Some(lengths) => lengths.into_iter().map(size).collect::<Read<_>>()?,
            // The last one may be shorter.
            None => {
                let each = whole.div_ceil(parts.max(1));
                (0..parts).map(|part| each.min(whole.saturating_sub(part * each))).collect()
            }
        };
        match lengths.iter().sum::<usize>() == whole && lengths.len() >= parts {
            true => Ok(lengths),
            false => obstacle(format!("of {whole} into {parts} parts of {}", listed(&lengths))),
        }
    }

    pub(super) fn split(&mut self, node: &NodeProto) -> Read<Vec<Held>> {
        let held = self.value(0)?;
        let at = dimension(int(node, "axis").unwrap_or(0), held.dims.len())?;
        let axis = self.own_axis(&held, at)?;
        let lengths = self.lengths(node, held.dims[at])?;
        self.charge(held.dims[at])?;
        let mut from = 0;
        let mut parts = Vec::new();
        for (part, length) in lengths.into_iter().enumerate().take(node.output.len()) {
            let indices = (from..from + length).collect();
            from += length;
            let value = self.emit(&part.to_string(), Op::Select { axis, indices }, &[held.value])?;
            let mut dims = held.dims.clone();
            dims[at] = length;
            parts.push(held.with(value, dims));
        }
        Ok(parts)
    }

    pub(super) fn concat(&mut self, node: &NodeProto) -> Read<Held> {
        let mut held: Vec<Held> = Vec::new();
        let (mut before, mut after): (Vec<Rc<Array>>, Vec<Rc<Array>>) = (Vec::new(), Vec::new());
        for at in 0..node.input.len() {
            match self.input(at)? {
                Some(Known::Constant(array)) if held.is_empty() => before.push(array),
                Some(Known::Constant(array)) => after.push(array),
                _ if !after.is_empty() => return obstacle("a constant between values"),
                _ => held.push(self.value(at)?),
            }
        }
        let Some(first) = held.first().cloned() else { return obstacle("of nothing") };
        let at = dimension(int(node, "axis").unwrap_or(0), first.dims.len())?;
        let axis = self.own_axis(&first, at)?;
        let mut values = Vec::new();
        for one in &held {
            if one.dims.len() != first.dims.len() || one.batch != first.batch && self.batch != 1 {
                return obstacle(format!("{} beside {}", self.shown(&first), self.shown(one)));
            }
            let dims = super::held::without(&one.dims, self.left_out(&first));
            values.push(self.shaped(one, &dims)?);
        }
        let constants = !before.is_empty() || !after.is_empty();
        let mut value = match values.as_slice() {
            [one] => *one,
            _ => self.emit(if constants { "concat" } else { "" }, Op::Concat { axis }, &values)?,
        };
        let mut dims = first.dims.clone();
        dims[at] = held.iter().map(|one| one.dims[at]).sum();
        if constants {
            // A class token, for example: room for it, and then it is added.
            let own = self.shape(value).dims().to_vec();
            let mut parts = Vec::new();
            for array in &before {
                parts.push(self.part(array, &first, axis, &own)?);
            }
            let room = parts.iter().map(|part| part.dims[axis]).sum::<usize>();
            let mut zeros = own.clone();
            zeros[axis] = dims[at];
            self.charge_for(&zeros)?;
            let count = zeros.iter().product();
            parts.push(Array::floats(zeros, vec![0.0; count]));
            for array in &after {
                parts.push(self.part(array, &first, axis, &own)?);
            }
            let all = super::fold::joined(&parts.iter().collect::<Vec<_>>(), axis)?;
            let mut pads = vec![[0, 0]; own.len()];
            pads[axis] = [room, all.dims[axis] - room - dims[at]];
            dims[at] = all.dims[axis];
            let padded = all.to_floats().iter().all(|&v| v == 0.0);
            value = self.emit(if padded { "" } else { "room" }, Op::Pad { pads, value: 0.0 }, &[value])?;
            if !padded {
                let origin = before.iter().chain(&after).find_map(|array| array.origin.clone());
                let weight = vec![("weight", all.to_tensor())];
                let op = Op::AddParameter { shared: Vec::new() };
                value = self.emit_with("", op, &[value], weight, origin.as_deref())?;
            }
        }
        Ok(first.with(value, dims))
    }

    /// A constant as a part of a concatenation of values whose other dimensions are `own`.
    fn part(&mut self, array: &Array, held: &Held, axis: usize, own: &[usize]) -> Read<Array> {
        let array = self.beside(array, held)?;
        let mut dims = own.to_vec();
        dims[axis] = array.dims[axis];
        self.charge_for(&dims)?;
        array.expanded(&dims)
    }

    pub(super) fn pad(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.value(0)?;
        let rank = held.dims.len();
        let Some(given) = self.list(node, 1, "pads")? else { return obstacle("lacks its pads") };
        let value = self.number(node, 2, "value")?.unwrap_or(0.0);
        let axes: Vec<usize> = match self.constant(3)? {
            Some(axes) => {
                few(axes.len())?;
                axes.as_integers()?.iter().map(|&axis| dimension(axis, rank)).collect::<Read<_>>()?
            }
            None => (0..rank).collect(),
        };
        let mut distinct = axes.clone();
        distinct.sort_unstable();
        distinct.dedup();
        if given.len() != 2 * axes.len() || distinct.len() != axes.len() {
            return obstacle(format!("pads {} for the dimensions {}", listed(&given), listed(&axes)));
        }
        let mode = word(node, "mode", "constant");
        let mut found = held;
        let mut pads = vec![[0, 0]; rank];
        for (&at, (&before, &after)) in axes.iter().zip(given[..axes.len()].iter().zip(&given[axes.len()..]))
        {
            if before == 0 && after == 0 {
                continue;
            }
            let axis = self.own_axis(&found, at)?;
            let length = found.dims[at] as i64;
            let indices: Option<Vec<i64>> = match mode {
                // Less than nothing is cut off.
                "constant" if before >= 0 && after >= 0 => None,
                "constant" => {
                    let [front, back] = [before, after].map(|pad| pad.min(0).unsigned_abs());
                    let left = (length as u64).checked_sub(front).and_then(|left| left.checked_sub(back));
                    let Some(left) = left.filter(|&left| left > 0) else {
                        return obstacle(format!("{before} and {after} around {length}"));
                    };
                    self.charge(found.dims[at])?;
                    Some((front as i64..(front + left) as i64).collect())
                }
                "edge" | "reflect" => {
                    let end = length - 1;
                    self.charge(found.dims[at].saturating_add(size(before)?).saturating_add(size(after)?))?;
                    if mode == "reflect" && before.max(after) > end {
                        return obstacle(format!("{before} and {after} mirrored around {length}"));
                    }
                    let at = |place: i64| match mode {
                        "edge" => place.clamp(0, end),
                        _ => end - (end - place.abs()).abs(),
                    };
                    Some((-before..length + after).map(at).collect())
                }
                _ => return obstacle(format!("mode {mode}")),
            };
            if let Some(indices) = indices {
                let indices = positions(&indices, found.dims[at])?;
                found.dims[at] = indices.len();
                found.value = self.emit("cut", Op::Select { axis, indices }, &[found.value])?;
            }
            if mode == "constant" {
                pads[at] = [size(before.max(0))?, size(after.max(0))?];
            }
        }
        if pads.iter().all(|pair| *pair == [0, 0]) {
            return Ok(found);
        }
        let out = self.left_out(&found);
        let own: Vec<[usize; 2]> =
            pads.iter().enumerate().filter(|(at, _)| Some(*at) != out).map(|(_, &pair)| pair).collect();
        let op = match own.as_slice() {
            &[[before, after], [0, 0], [0, 0]] if value == 0.0 => Op::PadChannels { before, after },
            // In front of a maximum any number will do that is less than all others.
            _ => Op::Pad { pads: own, value: value.max(f32::MIN) },
        };
        let value = self.emit("", op, &[found.value])?;
        let wider = found.dims.iter().zip(&pads).map(|(d, [before, after])| d + before + after);
        let dims = wider.collect();
        Ok(found.with(value, dims))
    }

    /// Parts of the channels that have a dimension of their own for a while, and the dimensions behind it.
    pub(super) fn parts(&mut self, at: usize) -> Read<Option<(Held, usize)>> {
        let held = self.loose(at)?;
        let own = self.own_dims(&held);
        let shape = self.shape(held.value);
        let Some((channels, ..)) = shape.as_image() else { return Ok(None) };
        let divided = held.dims.len() >= 3 && self.left_out(&held) == Some(0) && own != shape.dims();
        let parts = own.first().copied().unwrap_or(0);
        Ok((divided && parts > 0 && channels % parts == 0).then_some((held, parts)))
    }

    /// The sum over parts of the channels.
    pub(super) fn sum_parts(&mut self, node: &NodeProto) -> Read<Option<Held>> {
        let Some((held, parts)) = self.parts(0)? else { return Ok(None) };
        let axes = self.list(node, 1, "axes")?;
        if axes.as_deref() != Some(&[1]) || int(node, "keepdims").unwrap_or(1) != 0 || parts < 2 {
            return Ok(None);
        }
        let value = self.emit("", Op::SumParts { parts }, &[held.value])?;
        let mut dims = held.dims.clone();
        dims.remove(1);
        Ok(Some(Held { value, dims, batch: held.batch, made: self.here() }))
    }

    /// The softmax over parts of the channels.
    pub(super) fn softmax_parts(&mut self, axis: usize) -> Read<Option<Held>> {
        let Some((held, parts)) = self.parts(0)? else { return Ok(None) };
        if axis != 1 {
            return Ok(None);
        }
        let value = self.emit("", Op::SoftmaxParts { parts }, &[held.value])?;
        Ok(Some(Held { value, dims: held.dims.clone(), batch: held.batch, made: self.here() }))
    }

    /// A parameter of one number for each place along a dimension of a value, made of a constant or of numbers.
    pub(super) fn along(&self, numbers: Vec<f32>, rank: usize, axis: usize) -> Tensor {
        let mut shape = vec![1; rank];
        shape[axis] = numbers.len();
        Tensor { shape, data: numbers }
    }
}

/// Places along a dimension, those counted from behind too.
pub(super) fn positions(indices: &[i64], length: usize) -> Read<Vec<usize>> {
    let place = |&at: &i64| {
        let from_front = if at < 0 { at.saturating_add(length as i64) } else { at };
        match usize::try_from(from_front) {
            Ok(found) if found < length => Ok(found),
            _ => obstacle(format!("place {at} of {length}")),
        }
    };
    indices.iter().map(place).collect()
}

/// The places that a Slice takes of a dimension.
pub(super) fn span(length: usize, start: i64, end: i64, step: i64) -> Read<Vec<usize>> {
    let length = length as i64;
    let from_front = |at: i64| if at < 0 { at.saturating_add(length) } else { at };
    let (start, end) = (from_front(start), from_front(end));
    let places: Vec<usize> = match step {
        0 => return obstacle("by steps of 0"),
        1.. => {
            let places = start.clamp(0, length)..end.clamp(0, length);
            places.step_by(step as usize).map(|at| at as usize).collect()
        }
        _ => {
            let places = end.clamp(-1, length - 1) + 1..start.clamp(-1, length - 1) + 1;
            places.rev().step_by(step.unsigned_abs() as usize).map(|at| at as usize).collect()
        }
    };
    Ok(places)
}
