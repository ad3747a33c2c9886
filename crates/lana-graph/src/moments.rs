//! What an activation makes of a feature map on average, from weights alone.
//!
//! Behind BatchNorm a channel has mean β and deviation γ over the images a network was trained on. Taken as normal, the mean
//! and the power of what the activation makes of it follow (Nagel et al. 2019, "Data-Free Quantization", section 4.2).

use crate::Activation;

/// Mean and mean square of one channel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Moments {
    /// The mean.
    pub mean: f64,
    /// The mean of the square.
    pub power: f64,
}

impl Moments {
    /// Those of what the activation, if there is one, makes of a normal variable: a sum over ±6 deviations.
    pub fn behind(activation: Option<Activation>, mean: f64, deviation: f64) -> Self {
        const STEPS: i32 = 60;
        const DEVIATIONS: f64 = 6.0;
        let deviation = deviation.abs();
        let (mut total, mut first, mut second) = (0.0, 0.0, 0.0);
        for step in -STEPS..=STEPS {
            let z = DEVIATIONS * f64::from(step) / f64::from(STEPS);
            let density = (-0.5 * z * z).exp();
            let x = mean + deviation * z;
            let y = activation.map_or(x, |kind| apply(kind, x));
            total += density;
            first += density * y;
            second += density * y * y;
        }
        Moments { mean: first / total, power: second / total }
    }

    /// Mean square of what differs from the mean.
    pub fn variance(&self) -> f64 {
        (self.power - self.mean * self.mean).max(0.0)
    }
}

/// The activation of a number. GELU and the error function are those of their usual approximation, near enough for an
/// average.
pub fn apply(kind: Activation, x: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match kind {
        Activation::Relu => x.max(0.0),
        Activation::Relu6 => x.clamp(0.0, 6.0),
        Activation::Silu => x * sigmoid(x),
        Activation::Sigmoid => sigmoid(x),
        Activation::HardSwish => x * (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::HardSigmoid => (x + 3.0).clamp(0.0, 6.0) / 6.0,
        Activation::Gelu => x * sigmoid(1.702 * x),
        Activation::Tanh => x.tanh(),
        // The same approximation of the normal distribution function.
        Activation::Erf => 2.0 * sigmoid(1.702 * std::f64::consts::SQRT_2 * x) - 1.0,
        Activation::Elu => x.max(0.0) + x.min(0.0).exp_m1(),
        Activation::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_of_a_rectified_normal_are_the_known_ones() {
        let relu = Some(Activation::Relu);
        let m = Moments::behind(relu, 0.0, -2.0);
        assert!((m.mean - 2.0 / (2.0 * std::f64::consts::PI).sqrt()).abs() < 2e-3, "{m:?}");
        assert!((m.power - 2.0).abs() < 1e-6, "{m:?}");
        let m = Moments::behind(None, 3.0, 2.0);
        assert!((m.mean - 3.0).abs() < 1e-9 && (m.power - 13.0).abs() < 1e-6, "{m:?}");
        assert!((m.variance() - 4.0).abs() < 1e-6, "{m:?}");
        assert_eq!(Moments::behind(relu, -1.0, 0.0), Moments { mean: 0.0, power: 0.0 });
        // Hardly ever open, but told from one that never is.
        assert!(Moments::behind(relu, -5.0, 1.0).power > 0.0);
    }
}
