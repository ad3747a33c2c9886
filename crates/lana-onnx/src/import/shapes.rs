//! Other dimensions, in another order, more of them or fewer.

use lana_graph::Op;

use super::Importer;
use super::array::{Array, broadcast};
use super::fold::few;
use super::held::{Batch, Held, without};
use super::node::{Read, dimension, flag, int, ints, obstacle, size, word};
use crate::proto::NodeProto;
use crate::text::listed;

impl Importer<'_> {
    pub(super) fn reshape(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.loose(0)?;
        let Some(wanted) = self.list(node, 1, "shape")? else { return obstacle("lacks its shape") };
        let whole = target(&self.whole_dims(&held), &wanted, flag(node, "allowzero", false))?;
        self.regrouped(&held, &whole)
    }

    pub(super) fn flatten(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.value(0)?;
        let rank = held.dims.len();
        let axis = int(node, "axis").unwrap_or(1);
        let at = if axis == rank as i64 { rank } else { dimension(axis, rank)? };
        let whole = self.whole_dims(&held);
        let side = |dims: &[i64]| dims.iter().try_fold(1_i64, |n, &d| n.checked_mul(d));
        let (Some(front), Some(back)) = (side(&whole[..at]), side(&whole[at..])) else {
            return obstacle(format!("of {}", self.shown(&held)));
        };
        let flat = self.regrouped(&held, &[front, back])?;
        if at == 1 && self.left_out(&held) == Some(0) && self.own_dims(&flat) == [held.elements()] {
            let value = self.emit("", Op::Flatten, &[held.value])?;
            return Ok(Held { value, ..flat });
        }
        Ok(flat)
    }

    pub(super) fn squeeze(&mut self, node: &NodeProto, squeezes: bool) -> Read<Held> {
        let held = self.loose(0)?;
        let axes = self.list(node, 1, "axes")?;
        let whole = self.whole_dims(&held);
        let whole = match squeezes {
            true => squeezed(&whole, axes.as_deref())?,
            false => unsqueezed(&whole, &axes.unwrap_or_default())?,
        };
        self.regrouped(&held, &whole)
    }

    pub(super) fn transpose(&mut self, node: &NodeProto) -> Read<Held> {
        let loose = self.loose(0)?;
        let order = order(ints(node, "perm"), loose.dims.len())?;
        if let Some(shuffled) = self.shuffle(&loose, &order)? {
            return Ok(shuffled);
        }
        let held = self.value(0)?;
        self.turned("", &held, &order)
    }

    /// The dimensions in another order. To move the batch takes no operation.
    pub(super) fn turned(&mut self, part: &str, held: &Held, order: &[usize]) -> Read<Held> {
        let out = self.left_out(held);
        let own = |at: usize| at - usize::from(out.is_some_and(|out| out < at));
        let moved: Vec<usize> = order.iter().filter(|&&at| Some(at) != out).map(|&at| own(at)).collect();
        // Where dimensions of size 1 go does not matter either.
        let sizes = self.own_dims(held);
        let value = match moved.iter().filter(|&&at| sizes[at] != 1).is_sorted() {
            true => held.value,
            false => {
                let value = self.shaped(held, &sizes)?;
                self.emit(part, Op::Transpose { order: moved }, &[value])?
            }
        };
        let now = |dim: usize| order.iter().position(|&at| at == dim).unwrap_or(dim);
        // Where there is no telling where a batch of one is, it is what was left out.
        let batch = match (held.batch, out) {
            (Some(batch), out) if out.is_none_or(|out| out == batch.dim) => {
                Some(Batch { dim: now(batch.dim), ..batch })
            }
            (_, out) => out.map(|out| Batch { dim: now(out), before: 1 }),
        };
        let dims = order.iter().map(|&at| held.dims[at]).collect();
        Ok(Held { value, dims, batch, made: self.here() })
    }

    /// A Transpose of two dimensions that the channels of a feature map are divided into: the shuffle of ShuffleNet.
    fn shuffle(&mut self, held: &Held, order: &[usize]) -> Read<Option<Held>> {
        let Some((channels, ..)) = self.shape(held.value).as_image() else { return Ok(None) };
        let mut swapped: Vec<usize> = (0..order.len()).collect();
        if swapped.len() < 4 || self.left_out(held) != Some(0) {
            return Ok(None);
        }
        swapped.swap(1, 2);
        let (outer, inner) = (held.dims[1], held.dims[2]);
        let own = self.own_dims(held);
        let divides = outer > 0 && inner > 0 && channels % (outer * inner) == 0;
        // Where the value has these dimensions anyway, it is an ordinary Transpose.
        if order != swapped || !divides || own == self.shape(held.value).dims() {
            return Ok(None);
        }
        let value = self.emit("", Op::ShuffleChannels { outer, inner }, &[held.value])?;
        let dims = order.iter().map(|&at| held.dims[at]).collect();
        Ok(Some(Held { value, dims, batch: held.batch, made: self.here() }))
    }

    pub(super) fn expand(&mut self) -> Read<Held> {
        let held = self.value(0)?;
        let Some(wanted) = self.constant(1)? else { return obstacle("lacks its shape") };
        few(wanted.len())?;
        let wanted = wanted.as_integers()?.to_vec();
        let held = held.padded(wanted.len());
        let whole = self.whole_dims(&held);
        let missing = whole.len() - wanted.len();
        let mut dims = held.dims.clone();
        for (at, (&have, want)) in whole[missing..].iter().zip(wanted).enumerate() {
            match (have, want) {
                _ if have == want || want == 1 => {}
                (1, want) => dims[missing + at] = size(want)?,
                _ => return obstacle(format!("of {} to other dimensions", self.shown(&held))),
            }
        }
        self.grown(&held, &dims)
    }

    /// Repeated along dimensions of size 1 until it has `dims`.
    pub(super) fn grown(&mut self, held: &Held, dims: &[usize]) -> Read<Held> {
        let dims = broadcast(&held.dims, dims)?;
        let mut held = held.clone();
        let own = self.own_dims(&held);
        held.value = self.shaped(&held, &own)?;
        for (at, &want) in dims.iter().enumerate() {
            if held.dims[at] == want {
                continue;
            }
            let axis = self.own_axis(&held, at)?;
            self.charge(want)?;
            held.value = self.emit("repeated", Op::Select { axis, indices: vec![0; want] }, &[held.value])?;
            held.dims[at] = want;
        }
        Ok(held)
    }

    pub(super) fn tile(&mut self) -> Read<Held> {
        let mut held = self.value(0)?;
        let Some(repeats) = self.constant(1)? else { return obstacle("lacks its repeats") };
        few(repeats.len())?;
        for (at, repeats) in Vec::try_from(&*repeats)?.into_iter().enumerate() {
            let Some(&have) = held.dims.get(at) else { return obstacle("more repeats than dimensions") };
            if repeats != 1 {
                let axis = self.own_axis(&held, at)?;
                let many = have.saturating_mul(repeats);
                self.charge(many)?;
                let indices = (0..many).map(|index| index % have).collect();
                held.value = self.emit("", Op::Select { axis, indices }, &[held.value])?;
                held.dims[at] = many;
            }
        }
        Ok(held)
    }

    pub(super) fn depth_to_space(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.image(0)?;
        let block = size(int(node, "blocksize").unwrap_or(0))?;
        let [_, c, h, w] = held.dims[..] else { return obstacle("of no feature map") };
        if block == 0 || c % (block * block) != 0 {
            return obstacle(format!("of {c} channels by blocks of {block}"));
        }
        let deep = c / (block * block);
        let (split, order) = match word(node, "mode", "DCR") {
            "DCR" => ([block, block, deep, h, w], [2, 3, 0, 4, 1]),
            "CRD" => ([deep, block, block, h, w], [0, 3, 1, 4, 2]),
            mode => return obstacle(format!("mode {mode}")),
        };
        self.blocks(&held, &split, &order, [deep, h * block, w * block])
    }

    pub(super) fn space_to_depth(&mut self, node: &NodeProto) -> Read<Held> {
        let held = self.image(0)?;
        let block = size(int(node, "blocksize").unwrap_or(0))?;
        let [_, c, h, w] = held.dims[..] else { return obstacle("of no feature map") };
        if block == 0 || h % block != 0 || w % block != 0 {
            return obstacle(format!("of {h}×{w} pixels by blocks of {block}"));
        }
        let (rows, columns) = (h / block, w / block);
        let split = [c, rows, block, columns, block];
        self.blocks(&held, &split, &[2, 4, 0, 1, 3], [c.saturating_mul(block * block), rows, columns])
    }

    /// A feature map by five dimensions, these in another order, and as a feature map again.
    fn blocks(&mut self, held: &Held, split: &[usize], order: &[usize], dims: [usize; 3]) -> Read<Held> {
        let y = self.emit("split", Op::Reshape { shape: split.to_vec() }, &[held.value])?;
        let y = self.emit("turned", Op::Transpose { order: order.to_vec() }, &[y])?;
        let y = self.emit("", Op::Reshape { shape: dims.to_vec() }, &[y])?;
        Ok(held.with(y, [&[1], &dims[..]].concat()))
    }

    /// A constant for one image, as it stands beside a value: by the value's dimensions without the batch. Some of its
    /// own are 1.
    pub(super) fn beside(&mut self, array: &Array, held: &Held) -> Read<Array> {
        self.charge(array.len())?;
        let rank = held.dims.len();
        let mut dims = array.dims.clone();
        while dims.len() > rank && dims[0] == 1 {
            dims.remove(0);
        }
        if dims.len() > rank {
            return obstacle(format!("a constant of {:?} beside {}", array.dims, self.shown(held)));
        }
        dims.splice(0..0, std::iter::repeat_n(1, rank - dims.len()));
        let mut array = array.regrouped(dims)?;
        // One slice for each image of a batch of fixed size, where the model was made for that batch.
        if let Some(Batch { dim, before: 1 }) = held.batch
            && held.dims[dim] == 1
            && array.dims[dim] > 1
        {
            let first = array.selected(dim, &[0]);
            self.charge(array.len())?;
            if array.dims[dim] as i64 != self.batch || first.expanded(&array.dims)? != array {
                return obstacle("a constant that differs from image to image");
            }
            array = first;
        }
        let out = self.left_out(held);
        array.regrouped(without(&array.dims, out))
    }
}

/// Where dimensions go: as the attribute says, or back to front.
pub(super) fn order(perm: Option<&[i64]>, rank: usize) -> Read<Vec<usize>> {
    let order: Vec<usize> = match perm {
        Some(perm) => perm.iter().map(|&at| dimension(at, rank)).collect::<Read<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    match sorted.into_iter().eq(0..rank) {
        true => Ok(order),
        false => obstacle(format!("{rank} dimensions in the order {}", listed(&order))),
    }
}

/// What a Reshape makes of dimensions: 0 is that of the same place, -1 what is left.
pub(super) fn target(whole: &[i64], wanted: &[i64], keeps_zero: bool) -> Read<Vec<i64>> {
    let wrong = || format!("{} by the dimensions {}", listed(whole), listed(wanted));
    let mut dims = Vec::with_capacity(wanted.len());
    for (at, &dim) in wanted.iter().enumerate() {
        dims.push(match dim {
            0 if !keeps_zero => *whole.get(at).ok_or_else(wrong)?,
            dim => dim,
        });
    }
    let product = |dims: &[i64]| dims.iter().try_fold(1_i64, |n, &d| n.checked_mul(d));
    if let Some(open) = dims.iter().position(|&d| d == -1) {
        let (have, rest) = (product(whole), product(&[&dims[..open], &dims[open + 1..]].concat()));
        dims[open] = match (have, rest) {
            (Some(have), Some(rest)) if rest > 0 && have % rest == 0 => have / rest,
            _ => return obstacle(wrong()),
        };
    }
    Ok(dims)
}

/// Without the dimensions `axes`, or without all of size 1.
pub(super) fn squeezed(whole: &[i64], axes: Option<&[i64]>) -> Read<Vec<i64>> {
    let mut gone = vec![false; whole.len()];
    match axes {
        Some(axes) => {
            for &axis in axes {
                let at = dimension(axis, whole.len())?;
                if whole[at] != 1 {
                    return obstacle(format!("dimension {axis} of {}", listed(whole)));
                }
                gone[at] = true;
            }
        }
        None => gone.iter_mut().zip(whole).for_each(|(gone, &size)| *gone = size == 1),
    }
    Ok(whole.iter().zip(gone).filter(|(_, gone)| !gone).map(|(&size, _)| size).collect())
}

/// With further dimensions of size 1, whose places in the result are `axes`.
pub(super) fn unsqueezed(whole: &[i64], axes: &[i64]) -> Read<Vec<i64>> {
    let rank = whole.len() + axes.len();
    few(rank)?;
    let places = axes.iter().map(|&axis| dimension(axis, rank)).collect::<Read<Vec<_>>>()?;
    let mut old = whole.iter();
    let dims: Option<Vec<i64>> =
        (0..rank).map(|at| if places.contains(&at) { Some(1) } else { old.next().copied() }).collect();
    match dims.filter(|_| old.next().is_none()) {
        Some(dims) => Ok(dims),
        None => obstacle(format!("dimensions {} beside {}", listed(axes), listed(whole))),
    }
}
