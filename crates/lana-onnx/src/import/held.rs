//! Values of the network as the model's nodes see them.
//!
//! A model's values have the batch among their dimensions, lana's do not: [`Held`] is a value of the network beside the
//! dimensions by which the model holds it. The batch mostly is the first, but need not be: attention as PyTorch writes it
//! has tokens first, then the batch, and for a while batch and heads are one dimension. So a dimension may hold the batch
//! between two other factors, `before · batch · after`. The elements of *one* image are then in the same order in the
//! model's value and in lana's, and to regroup dimensions, to move the batch, or to add and remove dimensions of size 1
//! takes no operation. Only where an operation is about to read the value does a Reshape make its dimensions lana's own.
//!
//! Where a model leaves its batch open, shapes are computed with a prime for it which no other size is: what is a multiple
//! of that, and only that, has the batch in it.

use std::rc::Rc;

use lana_graph::Value;

use super::Importer;
use super::array::{Array, MOST_DIMENSIONS, elements};
use super::node::{LARGEST, Read, obstacle};
use crate::text::listed;

/// Stands in shapes for a batch of any size: a prime beyond every other size.
pub(super) const ANY_BATCH: i64 = 2_147_483_647;

/// A value of the network, by the dimensions of the model.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) value: Value,
    /// Sizes for one image: where the batch is, without it.
    pub(super) dims: Vec<usize>,
    /// Where the batch is. Unknown only where there is no telling, for a batch of one.
    pub(super) batch: Option<Batch>,
    /// The node that gave it these dimensions.
    pub(super) made: Rc<str>,
}

/// Where the batch is among the dimensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Batch {
    /// In which dimension.
    pub(super) dim: usize,
    /// The factor of that dimension's size that comes before the batch.
    pub(super) before: usize,
}

/// A value of the model as far as it is known.
#[derive(Clone)]
pub(super) enum Known {
    /// A value of the network.
    Value(Held),
    /// The same for every image.
    Constant(Rc<Array>),
    /// What a node gives that cannot be read: whatever reads it is hardly looked at.
    Unknown {
        /// Whether it may differ from image to image.
        of_image: bool,
    },
}

impl Held {
    /// The result of an operation that leaves the batch where it is.
    pub(super) fn with(&self, value: Value, dims: Vec<usize>) -> Self {
        Held { value, dims, batch: self.batch, made: Rc::from("") }
    }

    /// With dimensions of size 1 in front, `rank` in all.
    pub(super) fn padded(mut self, rank: usize) -> Self {
        let missing = rank.saturating_sub(self.dims.len());
        self.dims.splice(0..0, std::iter::repeat_n(1, missing));
        self.batch = self.batch.map(|b| Batch { dim: b.dim + missing, ..b });
        self
    }

    /// Elements of one image.
    pub(super) fn elements(&self) -> usize {
        self.dims.iter().product()
    }
}

impl Importer<'_> {
    /// The dimension that is the batch and nothing else, which lana's shapes leave out.
    pub(super) fn left_out(&self, held: &Held) -> Option<usize> {
        let batch = held.batch.map(|b| b.dim).filter(|&dim| held.dims.get(dim) == Some(&1));
        batch.or((self.batch == 1 && held.dims.first() == Some(&1)).then_some(0))
    }

    /// lana's own dimensions of a value.
    pub(super) fn own_dims(&self, held: &Held) -> Vec<usize> {
        without(&held.dims, self.left_out(held))
    }

    /// The dimensions of the model, with the batch.
    pub(super) fn whole_dims(&self, held: &Held) -> Vec<i64> {
        let batch = |at| if held.batch.is_some_and(|b| b.dim == at) { self.batch } else { 1 };
        held.dims.iter().enumerate().map(|(at, &size)| (size as i64).saturating_mul(batch(at))).collect()
    }

    /// The same elements by other dimensions, those of the model, with the batch.
    pub(super) fn regrouped(&self, held: &Held, whole: &[i64]) -> Read<Held> {
        let wrong = || format!("{} by the dimensions {}", self.shown(held), self.words(whole));
        if whole.len() > MOST_DIMENSIONS {
            return obstacle(format!("{} dimensions, only {MOST_DIMENSIONS}", whole.len()));
        }
        let product = |dims: &[i64]| dims.iter().try_fold(1_i64, |n, &d| n.checked_mul(d));
        if whole.iter().any(|&d| d < 0) || product(whole) != product(&self.whole_dims(held)) {
            return obstacle(wrong());
        }
        // As many elements come before the batch as did.
        let found = held.batch.and_then(|batch| {
            let before = held.dims[..batch.dim].iter().product::<usize>() as i64 * batch.before as i64;
            let mut passed = 1_i64;
            for (dim, &size) in whole.iter().enumerate() {
                let left = before / passed;
                if before % passed == 0 && size % self.batch == 0 && (size / self.batch) % left.max(1) == 0 {
                    return Some(Batch { dim, before: left as usize });
                }
                passed = passed.checked_mul(size).filter(|&p| p > 0 && p <= before)?;
            }
            None
        });
        if found.is_none() && self.batch != 1 {
            return obstacle(format!("{}: the batch would be mixed with other dimensions", wrong()));
        }
        let size = |(dim, &size): (usize, &i64)| match found {
            Some(batch) if batch.dim == dim => (size / self.batch) as usize,
            _ => size as usize,
        };
        let dims: Vec<usize> = whole.iter().enumerate().map(size).collect();
        match elements(&dims) == Some(held.elements()) {
            true => Ok(Held { value: held.value, dims, batch: found, made: self.here() }),
            false => obstacle(wrong()),
        }
    }

    /// The place among lana's dimensions of a dimension of the model.
    pub(super) fn own_axis(&self, held: &Held, axis: usize) -> Read<usize> {
        self.not_batch(held, axis)?;
        match self.left_out(held) {
            Some(out) if out == axis => obstacle("along the batch"),
            Some(out) if out < axis => Ok(axis - 1),
            _ => Ok(axis),
        }
    }

    /// Whether a dimension is free of the batch: what lana does, it does to each image alone.
    pub(super) fn not_batch(&self, held: &Held, axis: usize) -> Read<()> {
        match held.batch {
            Some(batch) if batch.dim == axis && self.batch != 1 => {
                obstacle("along the batch, which would mix images")
            }
            _ => Ok(()),
        }
    }

    /// A size that may hold the open batch, for one image.
    pub(super) fn per_image(&self, size: i64) -> Read<usize> {
        let of_batch = self.batch == ANY_BATCH && size > 0 && size % ANY_BATCH == 0;
        let size = if of_batch { size / ANY_BATCH } else { size };
        match usize::try_from(size) {
            Ok(size) if size <= LARGEST => Ok(size),
            _ => obstacle(format!("a size of {size}")),
        }
    }

    /// The dimensions of a value, in words.
    pub(super) fn shown(&self, held: &Held) -> String {
        self.words(&self.whole_dims(held))
    }

    fn words(&self, whole: &[i64]) -> String {
        let word = |&size: &i64| match size {
            _ if self.batch != ANY_BATCH || size == 0 || size % ANY_BATCH != 0 => size.to_string(),
            ANY_BATCH => "batch".to_string(),
            _ => format!("{}·batch", size / ANY_BATCH),
        };
        listed(&whole.iter().map(word).collect::<Vec<_>>())
    }
}

/// All dimensions but one.
pub(super) fn without(dims: &[usize], out: Option<usize>) -> Vec<usize> {
    let stays = |(at, &size): (usize, &usize)| (Some(at) != out).then_some(size);
    dims.iter().enumerate().filter_map(stays).collect()
}
