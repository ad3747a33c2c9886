//! Constants of a model: weights, and the integers that shapes are computed with.

use lana_graph::Tensor;

use super::node::{LARGEST, Obstacle, Read, obstacle};
use crate::text::listed;

/// Nothing in a network has more dimensions.
pub(super) const MOST_DIMENSIONS: usize = 16;

/// A constant. Booleans are integers, 0 and 1.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Array {
    pub(super) dims: Vec<usize>,
    pub(super) data: Data,
    /// The initialiser it comes from, be it turned or regrouped: parameters are named after it.
    pub(super) origin: Option<String>,
    /// Where it counts the images of a batch, along its first dimension: the elements are those for the first, this is what
    /// every further one adds.
    pub(super) step: i64,
}

/// Elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    Floats(Vec<f32>),
    Integers(Vec<i64>),
}

impl Array {
    pub(super) fn floats(dims: Vec<usize>, data: Vec<f32>) -> Self {
        Array { dims, data: Data::Floats(data), origin: None, step: 0 }
    }

    pub(super) fn integers(dims: Vec<usize>, data: Vec<i64>) -> Self {
        Array { dims, data: Data::Integers(data), origin: None, step: 0 }
    }

    /// A list of integers.
    pub(super) fn list(data: Vec<i64>) -> Self {
        Array::integers(vec![data.len()], data)
    }

    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Floats(data) => data.len(),
            Data::Integers(data) => data.len(),
        }
    }

    /// As floats, whatever they are.
    pub(super) fn to_floats(&self) -> Vec<f32> {
        match &self.data {
            Data::Floats(data) => data.clone(),
            Data::Integers(data) => data.iter().map(|&x| x as f32).collect(),
        }
    }

    /// As a parameter.
    pub(super) fn to_tensor(&self) -> Tensor {
        Tensor { shape: self.dims.clone(), data: self.to_floats() }
    }

    /// The integers; none are there where it holds floats.
    pub(super) fn as_integers(&self) -> Read<&[i64]> {
        match &self.data {
            Data::Integers(data) => Ok(data),
            Data::Floats(_) => obstacle("floats where integers belong"),
        }
    }

    /// The only element, if there is just one.
    pub(super) fn as_number(&self) -> Option<f32> {
        match &self.data {
            Data::Floats(data) if data.len() == 1 => Some(data[0]),
            Data::Integers(data) if data.len() == 1 => Some(data[0] as f32),
            _ => None,
        }
    }

    /// The elements at these places, by these dimensions.
    pub(super) fn picked(&self, dims: Vec<usize>, places: impl Iterator<Item = usize>) -> Self {
        let data = match &self.data {
            Data::Floats(data) => Data::Floats(places.map(|at| data[at]).collect()),
            Data::Integers(data) => Data::Integers(places.map(|at| data[at]).collect()),
        };
        Array { dims, data, origin: self.origin.clone(), step: self.step }
    }

    /// The same elements by other dimensions of as many elements.
    pub(super) fn regrouped(&self, dims: Vec<usize>) -> Read<Self> {
        let fits = elements(&dims) == Some(self.len())
            && dims.len() <= MOST_DIMENSIONS
            && room(&dims).is_some_and(|room| room <= self.len().max(LARGEST));
        match fits {
            true => Ok(Array { dims, ..self.clone() }),
            false => obstacle(format!("{:?} by the dimensions {}", self.dims, listed(&dims))),
        }
    }

    /// The dimensions in another order, which holds each of them once.
    pub(super) fn transposed(&self, order: &[usize]) -> Self {
        let strides = strides(&self.dims);
        let dims: Vec<usize> = order.iter().map(|&at| self.dims[at]).collect();
        let strides: Vec<usize> = order.iter().map(|&at| strides[at]).collect();
        self.picked(dims.clone(), places(&dims, &strides))
    }

    /// A dimension with these of its slices.
    pub(super) fn selected(&self, axis: usize, indices: &[usize]) -> Self {
        let mut dims = self.dims.clone();
        let inner: usize = dims[axis + 1..].iter().product();
        let (outer, size) = (dims[..axis].iter().product::<usize>(), dims[axis]);
        dims[axis] = indices.len();
        let slices = (0..outer).flat_map(|o| indices.iter().map(move |i| (o * size + i) * inner));
        self.picked(dims, slices.flat_map(|at| at..at + inner))
    }

    /// Repeated along dimensions of size 1, and along new ones in front, until it has `dims`.
    pub(super) fn expanded(&self, dims: &[usize]) -> Read<Self> {
        let Some(missing) = dims.len().checked_sub(self.dims.len()) else {
            return obstacle(format!("{:?} as {}", self.dims, listed(dims)));
        };
        if dims.len() > MOST_DIMENSIONS {
            return obstacle(format!("{} dimensions, only {MOST_DIMENSIONS}", dims.len()));
        }
        let mut steps = vec![0; missing];
        for ((&have, &want), stride) in self.dims.iter().zip(&dims[missing..]).zip(strides(&self.dims)) {
            match have {
                _ if have == want => steps.push(stride),
                1 => steps.push(0),
                _ => return obstacle(format!("{:?} as {}", self.dims, listed(dims))),
            }
        }
        Ok(self.picked(dims.to_vec(), places(dims, &steps)))
    }
}

impl TryFrom<&Array> for Vec<usize> {
    type Error = Obstacle;

    /// A list of sizes.
    fn try_from(array: &Array) -> Read<Self> {
        array.as_integers()?.iter().map(|&v| super::node::size(v)).collect()
    }
}

/// How many elements an array of these dimensions has; none if they are too many to count.
pub(super) fn elements(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))
}

/// How many elements an array of these dimensions would have if none were 0: what goes through an array does so for each of them,
/// though there may be nothing in it.
pub(super) fn room(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |n, &d| n.checked_mul(d.max(1)))
}

/// The dimensions that two arrays of these have together, element by element.
pub(super) fn broadcast(a: &[usize], b: &[usize]) -> Read<Vec<usize>> {
    let rank = a.len().max(b.len());
    let of = |dims: &[usize], at: usize| (at + dims.len()).checked_sub(rank).map_or(1, |at| dims[at]);
    let dims = (0..rank).map(|at| match (of(a, at), of(b, at)) {
        (x, y) if x == y => Ok(x),
        (1, other) | (other, 1) => Ok(other),
        _ => obstacle(format!("{} beside {}", listed(a), listed(b))),
    });
    dims.collect()
}

/// How far apart in memory neighbours along each dimension are.
pub(super) fn strides(dims: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; dims.len()];
    for at in (1..dims.len()).rev() {
        strides[at - 1] = strides[at] * dims[at];
    }
    strides
}

/// Where in memory the elements of an array of `dims` lie whose neighbours along each dimension are `steps` apart, in
/// row-major order.
pub(super) fn places(dims: &[usize], steps: &[usize]) -> impl Iterator<Item = usize> {
    let (dims, steps) = (dims.to_vec(), steps.to_vec());
    let count = elements(&dims).unwrap_or(0);
    let mut index = vec![0; dims.len()];
    let mut place = 0;
    (0..count).map(move |_| {
        let here = place;
        for at in (0..dims.len()).rev() {
            index[at] += 1;
            place += steps[at];
            if index[at] < dims[at] {
                break;
            }
            place -= steps[at] * dims[at];
            index[at] = 0;
        }
        here
    })
}
