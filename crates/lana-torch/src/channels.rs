use lana_graph::ChannelStatistics;
use tch::{Kind, Tensor};

use crate::Result;

/// Sums over the channels of feature maps `[n, channels, height, width]`, in 64 bits.
#[derive(Debug, Default)]
pub struct ChannelSums {
    sum: Vec<f64>,
    squares: Vec<f64>,
    count: u64,
}

impl ChannelSums {
    /// Adds a batch of maps.
    pub fn add(&mut self, map: &Tensor) -> Result<()> {
        let _guard = tch::no_grad_guard();
        let map = map.f_to_kind(Kind::Double)?;
        let total = |of: &Tensor| -> Result<Vec<f64>> {
            Ok(Vec::try_from(of.f_sum_dim_intlist([0i64, 2, 3].as_slice(), false, Kind::Double)?)?)
        };
        let (sum, squares) = (total(&map)?, total(&map.f_square()?)?);
        if self.sum.is_empty() {
            (self.sum, self.squares) = (vec![0.0; sum.len()], vec![0.0; sum.len()]);
        }
        self.sum.iter_mut().zip(sum).for_each(|(total, more)| *total += more);
        self.squares.iter_mut().zip(squares).for_each(|(total, more)| *total += more);
        let channels = map.size().get(1).copied().unwrap_or(1).max(1) as usize;
        self.count += (map.numel() / channels) as u64;
        Ok(())
    }

    /// Mean and variance of each channel over all that was added.
    pub fn statistics(&self) -> ChannelStatistics {
        let count = self.count.max(1) as f64;
        let mean: Vec<f64> = self.sum.iter().map(|sum| sum / count).collect();
        let variance =
            self.squares.iter().zip(&mean).map(|(squares, mean)| (squares / count - mean * mean).max(0.0));
        ChannelStatistics { variance: variance.collect(), mean }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_add_up_to_mean_and_variance() {
        crate::init();
        // Two images of two channels of two pixels, one at a time.
        let mut sums = ChannelSums::default();
        for values in [[1.0f32, 3.0, 10.0, 10.0], [5.0, 7.0, 10.0, 10.0]] {
            sums.add(&Tensor::from_slice(&values).reshape([1, 2, 1, 2])).unwrap();
        }
        let found = sums.statistics();
        assert_eq!((found.mean, found.variance), (vec![4.0, 10.0], vec![5.0, 0.0]));
    }
}
