//! Medians and what can be said about them without assuming a distribution.

/// A sample's median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Median {
    pub(crate) value: f64,
    pub(crate) interval: [f64; 2],
}

impl Median {
    /// Of a sample in the order in which it was taken, which must not be empty.
    ///
    /// A slow spell lasts over several rounds, so that each tells less than an independent one would: where observations
    /// stay on the same side of the median for longer than chance would have it, the interval is widened as if there were
    /// so many fewer of them (by the integrated autocorrelation time of the sides; Geyer 1992 says where to end its sum).
    pub(crate) fn of(sample: &[f64]) -> Self {
        let sorted = sorted(sample);
        let value = quantile(&sorted, 0.5);
        let (low, _) = interval_ranks(sorted.len());
        let last = (sorted.len() - 1) as f64;
        let half = (last / 2.0 - low as f64) * correlation_time(sample, value).sqrt();
        let rank = |at: f64| sorted[at.clamp(0.0, last) as usize];
        let interval = [rank((last / 2.0 - half).floor()), rank((last / 2.0 + half).ceil())];
        Median { value, interval }
    }

    /// Standard error as a fraction of the median: half the interval's width, divided by 1.96 as if it were normal.
    pub(crate) fn relative_error(&self) -> f64 {
        (self.interval[1] - self.interval[0]) / (2.0 * 1.96) / self.value.abs().max(f64::MIN_POSITIVE)
    }
}

/// How many observations in a row tell as much as one that is independent; at least 1.
fn correlation_time(sample: &[f64], median: f64) -> f64 {
    let sides: Vec<f64> = sample
        .iter()
        .map(|x| match x.total_cmp(&median) {
            std::cmp::Ordering::Less => -1.0,
            std::cmp::Ordering::Equal => 0.0,
            std::cmp::Ordering::Greater => 1.0,
        })
        .collect();
    let power: f64 = sides.iter().map(|s| s * s).sum();
    if power == 0.0 {
        return 1.0;
    }
    // Long series in blocks, whose sums vary by so much more than independent ones would: the effort stays bounded.
    let blocks: Vec<f64> =
        sides.chunks(sides.len().div_ceil(MOST_BLOCKS)).map(|block| block.iter().sum()).collect();
    let block_power: f64 = blocks.iter().map(|s| s * s).sum();
    let correlation = |lag: usize| {
        blocks.iter().zip(&blocks[lag..]).map(|(a, b)| a * b).sum::<f64>()
            / block_power.max(f64::MIN_POSITIVE)
    };
    // Sums of two neighbours fall towards zero and stay positive; what is not, is noise.
    let pairs = (0..blocks.len() / 2).map(|k| correlation(2 * k) + correlation(2 * k + 1));
    let time = (2.0 * pairs.take_while(|pair| *pair > 0.0).sum::<f64>() - 1.0).max(1.0);
    (time * block_power / power).max(1.0)
}

/// Blocks in which correlations are looked for.
const MOST_BLOCKS: usize = 1000;

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

/// Kendall's tau-b of pairs: 1 if both rank alike, 0 without pairs that differ.
pub fn kendall(pairs: &[(f64, f64)]) -> f64 {
    let (mut agree, mut first, mut second) = (0.0, 0.0, 0.0);
    for (i, a) in pairs.iter().enumerate() {
        for b in &pairs[i + 1..] {
            let (x, y) = (sign(a.0 - b.0), sign(a.1 - b.1));
            agree += x * y;
            first += x.abs();
            second += y.abs();
        }
    }
    if first * second > 0.0 { agree / f64::sqrt(first * second) } else { 0.0 }
}

fn sign(x: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x.signum() }
}

/// Spearman's rho of pairs: the correlation of their ranks, equal values sharing theirs; 0 where one side is all equal.
pub(crate) fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let ranks = |values: Vec<f64>| -> Vec<f64> {
        let below = |x: f64| values.iter().filter(|v| **v < x).count() as f64;
        let equal = |x: f64| values.iter().filter(|v| **v == x).count() as f64;
        values.iter().map(|&x| below(x) + (equal(x) - 1.0) / 2.0).collect()
    };
    let (a, b): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    let (a, b) = (ranks(a), ranks(b));
    let middle = (pairs.len() as f64 - 1.0) / 2.0;
    let product =
        |x: &[f64], y: &[f64]| -> f64 { x.iter().zip(y).map(|(x, y)| (x - middle) * (y - middle)).sum() };
    let scale = (product(&a, &a) * product(&b, &b)).sqrt();
    if scale > 0.0 { product(&a, &b) / scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

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
    fn rank_correlations_by_hand() {
        let first = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10].map(f64::from);
        let second = [2, 1, 4, 3, 6, 5, 8, 7, 10, 9].map(f64::from);
        let pairs: Vec<(f64, f64)> = first.into_iter().zip(second).collect();
        // Five of 45 pairs disagree; the squared differences of the ranks add up to 10.
        assert!((kendall(&pairs) - 35.0 / 45.0).abs() < 1e-12);
        assert!((spearman(&pairs) - (1.0 - 6.0 * 10.0 / 990.0)).abs() < 1e-12);
        let reversed: Vec<(f64, f64)> = first.iter().map(|&x| (x, -x.exp())).collect();
        assert!((kendall(&reversed) + 1.0).abs() < 1e-12 && (spearman(&reversed) + 1.0).abs() < 1e-12);
        assert_eq!((kendall(&[(1.0, 2.0); 3]), spearman(&[])), (0.0, 0.0));
    }

    #[test]
    fn one_outlier_moves_nothing() {
        // Alternating sides.
        let mut sample: Vec<f64> = (0..21).map(|i| 10.0 + 0.01 * f64::from(i * 11 % 21)).collect();
        let clean = Median::of(&sample);
        let largest = sample.iter().position(|x| *x == 10.2).expect("the largest");
        sample[largest] = 1e6;
        assert_eq!(Median::of(&sample).value, clean.value);
        assert_eq!(clean.interval, [10.05, 10.15]);
        assert!(clean.relative_error() < 0.01);
    }

    #[test]
    fn a_slow_spell_is_less_sure_than_noise() {
        // The same numbers, shuffled and in one rise.
        let rise: Vec<f64> = (0..100).map(f64::from).collect();
        let mut mixed = rise.clone();
        Random::new(3).shuffle(&mut mixed);
        let width = |m: Median| m.interval[1] - m.interval[0];
        assert!(width(Median::of(&rise)) > 3.0 * width(Median::of(&mixed)));
    }

    #[test]
    fn intervals_hold_what_they_promise() {
        // Autoregressive noise with median 0: independent, and remembering half or nine tenths of the last value. Without
        // the widening the last two would be covered in 45 and 41 % of the samples.
        let mut random = Random::new(11);
        for (memory, count, least) in
            [(0.0, 20, 0.94), (0.0, 200, 0.94), (0.5, 50, 0.9), (0.9, 400, 0.88), (0.9, 5000, 0.9)]
        {
            let repeats = 1000;
            let mut covered = 0;
            for _ in 0..repeats {
                let mut value = 0.0;
                let mut next = || {
                    value = memory * value + random.normal();
                    value
                };
                let sample: Vec<f64> = (0..50 + count).map(|_| next()).skip(50).collect();
                let [low, high] = Median::of(&sample).interval;
                covered += usize::from(low <= 0.0 && 0.0 <= high);
            }
            let share = covered as f64 / f64::from(repeats);
            assert!(share >= least, "memory {memory}, {count} observations: {share}");
        }
    }
}
