//! Products of matrices. One with a constant is a fully connected layer.

use lana_graph::{Op, Value};

use super::Importer;
use super::array::{Array, broadcast};
use super::held::{Held, Known, without};
use super::node::{Read, flag, float, obstacle};
use crate::proto::NodeProto;

impl Importer<'_> {
    pub(super) fn gemm(&mut self, node: &NodeProto) -> Read<Held> {
        let x = self.value(0)?;
        let (alpha, beta) = (float(node, "alpha").unwrap_or(1.0), float(node, "beta").unwrap_or(1.0));
        if x.dims.len() != 2 {
            return obstacle(format!("of {}", self.shown(&x)));
        }
        let weight = self.parameter(1)?;
        if weight.dims.len() != 2 {
            return obstacle(format!("matrix of {} dimensions", weight.dims.len()));
        }
        let weight = if flag(node, "transB", false) { (*weight).clone() } else { self.columns(&weight)? };
        let bias = self.constant(2)?;
        let terms = bias.as_ref().map_or(0, |array| array.len().max(weight.dims[0]));
        self.charge(terms)?;
        let bias = match bias {
            None => None,
            Some(array) if array.len() == 1 => Some(vec![beta * array.to_floats()[0]; weight.dims[0]]),
            Some(array) if array.dims.last() == Some(&array.len()) => {
                Some(array.to_floats().iter().map(|v| beta * v).collect())
            }
            Some(array) => return obstacle(format!("a bias of {:?}", array.dims)),
        };
        self.linear(&x, weight, alpha, bias)
    }

    /// The last dimension times a matrix of `[outputs, inputs]`.
    fn linear(&mut self, x: &Held, weight: Array, factor: f32, bias: Option<Vec<f32>>) -> Read<Held> {
        self.not_batch(x, x.dims.len() - 1)?;
        let out_features = weight.dims[0];
        let mut tensor = weight.to_tensor();
        if factor != 1.0 {
            tensor.data.iter_mut().for_each(|v| *v *= factor);
        }
        let op = Op::Linear { out_features, bias: bias.is_some() };
        let mut parameters = vec![("weight", tensor)];
        parameters.extend(bias.map(|data| ("bias", lana_graph::Tensor { shape: vec![data.len()], data })));
        let value = self.emit_with("", op, &[x.value], parameters, weight.origin.as_deref())?;
        let mut dims = x.dims.clone();
        if let Some(last) = dims.last_mut() {
            *last = out_features;
        }
        Ok(x.with(value, dims))
    }

    /// A matrix with rows for columns.
    fn columns(&mut self, matrix: &Array) -> Read<Array> {
        self.charge(matrix.len())?;
        Ok(matrix.transposed(&[1, 0]))
    }

    /// A constant as one matrix, if it is that.
    fn matrix(&self, array: &Array) -> Read<Array> {
        match array.dims.as_slice() {
            [front @ .., rows, columns] if front.iter().all(|&d| d == 1) => {
                array.regrouped(vec![*rows, *columns])
            }
            dims => obstacle(format!("by a constant of {dims:?}, which is no matrix")),
        }
    }

    pub(super) fn mat_mul(&mut self) -> Read<Held> {
        match (self.input(0)?, self.input(1)?) {
            (Some(Known::Value(_)), Some(Known::Constant(array))) => {
                let x = self.value(0)?;
                if x.dims.len() < 2 {
                    return obstacle(format!("of {}", self.shown(&x)));
                }
                let matrix = self.matrix(&array)?;
                let weight = self.columns(&matrix)?;
                self.linear(&x, weight, 1.0, None)
            }
            // Transposed, it is the same the other way round.
            (Some(Known::Constant(array)), Some(Known::Value(_))) => {
                let x = self.value(1)?;
                let weight = self.matrix(&array)?;
                let rank = x.dims.len();
                if rank < 2 {
                    return obstacle(format!("of {}", self.shown(&x)));
                }
                let mut order: Vec<usize> = (0..rank).collect();
                order.swap(rank - 1, rank - 2);
                let turned = self.turned("turned", &x, &order)?;
                let product = self.linear(&turned, weight, 1.0, None)?;
                self.turned("back", &product, &order)
            }
            (Some(Known::Value(_)), Some(Known::Value(_))) => {
                let (x, y) = (self.value(0)?, self.value(1)?);
                self.product(x, y)
            }
            _ => obstacle("lacks an input"),
        }
    }

    fn product(&mut self, x: Held, y: Held) -> Read<Held> {
        let rank = x.dims.len().max(y.dims.len());
        let (x, y) = (x.padded(rank), y.padded(rank));
        if rank < 2 || x.batch != y.batch && self.batch != 1 {
            return obstacle(format!("of {} and {}", self.shown(&x), self.shown(&y)));
        }
        self.not_batch(&x, rank - 1)?;
        self.not_batch(&x, rank - 2)?;
        let front = broadcast(&x.dims[..rank - 2], &y.dims[..rank - 2])?;
        let mut values: Vec<Value> = Vec::new();
        let out = self.left_out(&x).filter(|&out| out < rank - 2 && y.dims[out] == 1);
        for held in [&x, &y] {
            let grown = self.grown(held, &[&front, &held.dims[rank - 2..]].concat())?;
            values.push(self.shaped(&grown, &without(&grown.dims, out))?);
        }
        let value = self.emit("", Op::MatMul, &values)?;
        let dims = [&front[..], &[x.dims[rank - 2], y.dims[rank - 1]]].concat();
        Ok(Held { made: self.here(), ..x.with(value, dims) })
    }
}
