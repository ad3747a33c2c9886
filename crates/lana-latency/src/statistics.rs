//! Medians and what can be said about them without assuming a distribution.

/// A sample's median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) interval: [f64; 2],
}

impl Median {
    /// Of a sample, which must not be empty.
    pub(crate) fn of(sample: &[f64]) -> Self {
        let sorted = sorted(sample);
        let (low, high) = interval_ranks(sorted.len());
        Median { value: quantile(&sorted, 0.5), interval: [sorted[low], sorted[high]] }
    }

    /// Standard error as a fraction of the median: half the interval's width, divided by 1.96 as if it were normal.
    pub(crate) fn relative_error(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / (2.0 * 1.96) / self.value.abs().max(f64::MIN_POSITIVE)
    }
}

pub(crate) fn sorted(sample: &[f64]) -> Vec<f64> {
    let mut sorted = sample.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// Quantile of a sorted sample, interpolated.
pub(crate) fn quantile(sorted: &[f64], fraction: f64) -> f64 {
    let at = fraction * (sorted.len() - 1) as f64;
    let (low, high) = (at.floor() as usize, at.ceil() as usize);
    sorted[low] + (sorted[high] - sorted[low]) * (at - low as f64)
}

/// Ranks (from 0) of the two order statistics that enclose the true median with at least 95 % probability: the number of
/// observations below it is binomial with probability 1/2. With fewer than six observations no interval is that sure;
/// then it is the whole range.
fn interval_ranks(count: usize) -> (usize, usize) {
    let mut low = 0;
    // P(at most `low` observations lie below the median) must stay under 2.5 % on each side.
    let mut term = 0.5_f64.powi(count.min(1000) as i32);
    let mut below = term;
    if count > 1000 {
        // The normal approximation, beyond which the powers vanish.
        let half = 0.98 * (count as f64).sqrt();
        low = (count as f64 / 2.0 - half).floor() as usize;
        return (low, count - 1 - low);
    }
    for k in 1..=count / 2 {
        if below > 0.025 {
            break;
        }
        low = k - 1;
        term *= (count - k + 1) as f64 / k as f64;
        below += term;
    }
    (low, count - 1 - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        let sorted = sorted(&[4.0, 1.0, 3.0, 2.0]);
        assert_eq!(quantile(&sorted, 0.5), 2.5);
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 1.0), 4.0);
        assert_eq!(quantile(&[7.0], 0.5), 7.0);
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Ranks from 1 in the usual tables (e.g. Conover, Practical Nonparametric Statistics): n = 6: 1 and 6, n = 10: 2
        // and 9, n = 20: 6 and 15, n = 50: 18 and 33, n = 100: 40 and 61.
        for (count, low, high) in [(6, 1, 6), (10, 2, 9), (20, 6, 15), (50, 18, 33), (100, 40, 61)] {
            assert_eq!(interval_ranks(count), (low - 1, high - 1), "{count} observations");
        }
        for count in 1..6 {
            assert_eq!(interval_ranks(count), (0, count - 1));
        }
        let (low, high) = interval_ranks(2000);
        assert!((950..=960).contains(&low) && low + high == 1999);
    }

    #[test]
    fn one_outlier_moves_nothing() {
        let mut sample: Vec<f64> = (0..21).map(|i| 10.0 + 0.01 * f64::from(i)).collect();
        let clean = Median::of(&sample);
        sample[20] = 1e6;
        assert_eq!(Median::of(&sample).value, clean.value);
        assert_eq!(clean.interval, [10.05, 10.15]);
        assert!(clean.relative_error() < 0.01);
    }
}
