//! Random numbers that are a function of where they are used.
//!
//! Nothing in this crate keeps a running generator: each use makes one from a purpose and up to three numbers
//! (say seed, epoch and image). So what an image looks like never depends on which thread drew before, and an epoch
//! can be entered anywhere. ChaCha8's stream is fixed by its definition; the few distributions are written out here
//! because those of the `rand` crate may change their values between releases.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// What random numbers are for; numbers for different purposes are independent.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    /// The order of an epoch: seed, epoch.
    Shuffle = 1,
    /// The augmentation of one image: seed, epoch, index.
    Augment = 2,
    /// The images of a subset: seed.
    Subset = 3,
    /// A generated image: seed, split, index.
    Draw = 4,
    /// The order of the classes of ten generated images: seed, split, index / 10.
    Classes = 5,
    /// Mixup or cutmix of one batch: seed, epoch, batch.
    Mix = 6,
}

/// A generator for one purpose at one place.
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    pub(crate) fn new(purpose: Purpose, place: [u64; 3]) -> Random {
        // The numbers are the key itself, so no two places can collide.
        let mut key = [0; 32];
        for (chunk, value) in key.chunks_exact_mut(8).zip([purpose as u64].into_iter().chain(place)) {
            chunk.copy_from_slice(&value.to_le_bytes());
        }
        Random(ChaCha8Rng::from_seed(key))
    }

    /// Uniform in [0, 1), a multiple of 2^-24.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [low, high).
    pub(crate) fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Uniform in 0..bound, without bias (Lemire, "Fast random integer generation in an interval", 2019).
    ///
    /// # Panics
    ///
    /// If `bound` is 0.
    pub(crate) fn below(&mut self, bound: u32) -> u32 {
        assert!(bound > 0, "no number is below 0");
        loop {
            let product = u64::from(self.0.next_u32()) * u64::from(bound);
            // The lowest 2^32 mod bound products would make some results likelier.
            if product as u32 >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }

    /// True with the given probability.
    pub(crate) fn chance(&mut self, probability: f32) -> bool {
        self.unit() < probability
    }

    /// Puts a uniformly drawn selection of `count` items, in uniformly drawn order, at the front (Fisher and Yates).
    ///
    /// The first items do not depend on `count`: a larger selection extends a smaller one.
    pub(crate) fn draw_to_front<T>(&mut self, items: &mut [T], count: usize) {
        for i in 0..count.min(items.len()) {
            let j = i + self.below((items.len() - i) as u32) as usize;
            items.swap(i, j);
        }
    }

    /// Uniform in [0, 1), a multiple of 2^-53.
    pub(crate) fn unit64(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high), in 64 bits.
    pub(crate) fn uniform(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit64()
    }

    /// Standard normal (Box and Muller, 1958; the second number is not kept).
    pub(crate) fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit64()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit64()).cos()
    }

    /// Beta(alpha, alpha), from two gamma variates.
    pub(crate) fn beta(&mut self, alpha: f64) -> f64 {
        // In logarithms: for a small alpha both variates may be below all numbers.
        let (a, b) = (self.log_gamma_variate(alpha), self.log_gamma_variate(alpha));
        1.0 / (1.0 + (b - a).exp())
    }

    /// The logarithm of a gamma variate (Marsaglia and Tsang, "A simple method for generating gamma variables", 2000).
    fn log_gamma_variate(&mut self, alpha: f64) -> f64 {
        if alpha < 1.0 {
            let boost = (1.0 - self.unit64()).ln() / alpha;
            return self.log_gamma_variate(alpha + 1.0) + boost;
        }
        let d = alpha - 1.0 / 3.0;
        let c = 1.0 / (9.0 * d).sqrt();
        loop {
            let x = self.normal();
            let v = (1.0 + c * x).powi(3);
            if v > 0.0 && (1.0 - self.unit64()).ln() < 0.5 * x * x + d - d * v + d * v.ln() {
                return (d * v).ln();
            }
        }
    }

    /// Random bytes in bulk.
    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_never_changes() {
        // Saved runs rely on these: a change of them changes every shuffle and every generated image.
        let mut random = Random::new(Purpose::Shuffle, [1, 2, 3]);
        let drawn: Vec<u32> = (0..6).map(|_| random.below(1000)).collect();
        assert_eq!(drawn, [865, 785, 7, 761, 501, 382]);
    }

    #[test]
    fn draws_are_uniform_and_selections_nest() {
        let mut random = Random::new(Purpose::Subset, [0; 3]);
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[random.below(7) as usize] += 1;
        }
        assert!(counts.iter().all(|&n| (9_500..10_500).contains(&n)), "{counts:?}");

        let pick = |count| {
            let mut items: Vec<u32> = (0..100).collect();
            Random::new(Purpose::Subset, [7, 0, 0]).draw_to_front(&mut items, count);
            items[..count].to_vec()
        };
        assert_eq!(pick(10), pick(60)[..10]);
    }

    #[test]
    fn normal_and_beta_have_their_moments() {
        let mut random = Random::new(Purpose::Mix, [1; 3]);
        let mut moments = |draw: &mut dyn FnMut(&mut Random) -> f64| {
            let values: Vec<f64> = (0..40_000).map(|_| draw(&mut random)).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len() as f64;
            (mean, variance)
        };
        let (mean, variance) = moments(&mut |random| random.normal());
        assert!(mean.abs() < 0.02 && (variance - 1.0).abs() < 0.03, "{mean} {variance}");
        for alpha in [0.1, 0.2, 0.8, 1.0, 4.0] {
            let (mean, variance) = moments(&mut |random| random.beta(alpha));
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!(
                (mean - 0.5).abs() < 0.01 && (variance - expected).abs() < 0.005,
                "{alpha}: {mean} {variance}"
            );
        }
    }
}
