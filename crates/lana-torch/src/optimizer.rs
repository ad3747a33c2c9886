//! Optimizers whose whole state is data, so that training resumes where it stopped. (libtorch's own, as `tch` binds
//! them, keep theirs to themselves.)

use lana_graph::{Role, Weights};
use tch::Tensor;

use crate::network::{to_array, to_tensor};
use crate::{Error, Network, Result};

/// An update rule.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Algorithm {
    /// Stochastic gradient descent with Nesterov momentum, as PyTorch's `SGD(momentum, nesterov=True)`.
    Sgd {
        /// Share of the last step that is kept, 0.9 as a rule.
        momentum: f64,
        /// L2 penalty on kernels and matrices; norms and biases have none.
        weight_decay: f64,
    },
    /// AdamW (Loshchilov & Hutter 2019) with β = (0.9, 0.999), ε = 1e-8.
    AdamW {
        /// Decoupled decay of kernels and matrices; norms and biases have none.
        weight_decay: f64,
    },
    /// RMSProp as TensorFlow has it and timm's `RMSpropTF`: ε inside the square root, a mean square that starts at 1, and the
    /// learning rate within the momentum. EfficientNets were trained with it.
    RmsProp {
        /// Share of the last step that is kept.
        momentum: f64,
        /// L2 penalty on kernels and matrices; norms and biases have none.
        weight_decay: f64,
        /// Share of the mean square that is kept, 0.9 as a rule.
        smoothing: f64,
        /// ε.
        epsilon: f64,
    },
}

/// An update rule with its state for the parameters of one network.
#[derive(Debug)]
pub struct Optimizer {
    algorithm: Algorithm,
    names: Vec<String>,
    decays: Vec<bool>,
    parameters: Vec<Tensor>,
    /// One buffer (momentum) or two (first and second moment; mean square and momentum) for each parameter.
    state: Vec<Vec<Tensor>>,
    steps: u64,
}

impl Optimizer {
    /// An optimizer for the trainable parameters of `network`, at its start.
    pub fn new(network: &Network, algorithm: Algorithm) -> Result<Self> {
        let buffers = match algorithm {
            Algorithm::Sgd { .. } => 1,
            Algorithm::AdamW { .. } | Algorithm::RmsProp { .. } => 2,
        };
        let (mut names, mut decays, mut parameters, mut state) = (vec![], vec![], vec![], vec![]);
        for (name, role, tensor) in network.trained() {
            names.push(name.to_string());
            decays.push(matches!(role, Role::Kernel | Role::Matrix));
            parameters.push(tensor.shallow_clone());
            let zeros = (0..buffers).map(|_| Ok(tensor.detach().f_zeros_like()?));
            let mut own = zeros.collect::<Result<Vec<_>>>()?;
            if let (Algorithm::RmsProp { .. }, Some(square)) = (algorithm, own.first_mut()) {
                let _ = square.f_fill_(1.0)?;
            }
            state.push(own);
        }
        Ok(Optimizer { algorithm, names, decays, parameters, state, steps: 0 })
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// Computes the gradients of `loss` and takes one step with learning rate `rate`. The gradients' common norm is
    /// scaled down to `clip` where it is above (as PyTorch's `clip_grad_norm_`).
    pub fn step(&mut self, loss: &Tensor, rate: f64, clip: Option<f64>) -> Result<()> {
        let gradients = self.gradients(loss)?;
        self.update(gradients, rate, clip)
    }

    /// The gradients of `loss`, one for each parameter. The autograd graph behind it is gone afterwards.
    pub(crate) fn gradients(&self, loss: &Tensor) -> Result<Vec<Tensor>> {
        Ok(Tensor::f_run_backward(&[loss], &self.parameters, false, false)?)
    }

    /// Takes one step along these gradients, which it consumes.
    pub(crate) fn update(&mut self, mut gradients: Vec<Tensor>, rate: f64, clip: Option<f64>) -> Result<()> {
        let _guard = tch::no_grad_guard();
        if let Some(limit) = clip {
            let norm = norm(&gradients)?;
            let factor = norm.f_add_scalar(1e-6)?.f_reciprocal()?.f_mul_scalar(limit)?.f_clamp_max(1.0)?;
            for gradient in &mut gradients {
                let _ = gradient.f_mul_(&factor)?;
            }
        }
        self.steps += 1;
        for (i, gradient) in gradients.iter_mut().enumerate() {
            let parameter = &mut self.parameters[i];
            match (self.algorithm, self.state[i].as_mut_slice()) {
                (Algorithm::Sgd { momentum, weight_decay }, [velocity]) => {
                    if self.decays[i] && weight_decay > 0.0 {
                        let _ = gradient.f_add_(&parameter.f_mul_scalar(weight_decay)?)?;
                    }
                    let _ = velocity.f_mul_scalar_(momentum)?.f_add_(gradient)?;
                    let _ = gradient.f_add_(&velocity.f_mul_scalar(momentum)?)?.f_mul_scalar_(-rate)?;
                    let _ = parameter.f_add_(gradient)?;
                }
                (Algorithm::AdamW { weight_decay }, [mean, square]) => {
                    let (b1, b2) = (0.9f64, 0.999f64);
                    let steps = self.steps as f64;
                    if self.decays[i] && weight_decay > 0.0 {
                        let _ = parameter.f_mul_scalar_(1.0 - rate * weight_decay)?;
                    }
                    let _ = mean.f_lerp_(gradient, 1.0 - b1)?;
                    let _ =
                        square.f_mul_scalar_(b2)?.f_add_(&gradient.f_square()?.f_mul_scalar_(1.0 - b2)?)?;
                    let bias = (1.0 - b2.powf(steps)).sqrt();
                    let mut divisor = square.f_sqrt()?;
                    let _ = divisor.f_mul_scalar_(1.0 / bias)?.f_add_scalar_(1e-8)?;
                    let mut update = mean.f_div(&divisor)?;
                    let _ = update.f_mul_scalar_(-rate / (1.0 - b1.powf(steps)))?;
                    let _ = parameter.f_add_(&update)?;
                }
                (Algorithm::RmsProp { momentum, weight_decay, smoothing, epsilon }, [square, velocity]) => {
                    if self.decays[i] && weight_decay > 0.0 {
                        let _ = gradient.f_add_(&parameter.f_mul_scalar(weight_decay)?)?;
                    }
                    let _ = square.f_lerp_(&gradient.f_square()?, 1.0 - smoothing)?;
                    let divisor = square.f_add_scalar(epsilon)?.f_sqrt()?;
                    let mut update = gradient.f_div(&divisor)?;
                    let _ = update.f_mul_scalar_(rate)?;
                    let _ = velocity.f_mul_scalar_(momentum)?.f_add_(&update)?;
                    let _ = parameter.f_sub_(velocity)?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The state as data: `NAME.N` for buffer N of parameter NAME, and `steps`.
    pub fn state(&self) -> Result<Weights> {
        let mut state = Weights::new();
        for (name, buffers) in self.names.iter().zip(&self.state) {
            for (n, buffer) in buffers.iter().enumerate() {
                state.insert(format!("{name}.{n}"), to_array(buffer)?);
            }
        }
        // Exact in 32-bit floats up to 2^24 steps each.
        let steps = vec![(self.steps >> 24) as f32, (self.steps & 0xff_ffff) as f32];
        state.insert("steps", lana_graph::Tensor { shape: vec![2], data: steps });
        Ok(state)
    }

    /// Takes up a state given by [`Optimizer::state`].
    pub fn restore(&mut self, state: &Weights) -> Result<()> {
        let steps = state.get("steps").filter(|t| t.data.len() == 2);
        let steps = steps.ok_or_else(|| Error::Checkpoint("it lacks `steps`".into()))?;
        self.steps = ((steps.data[0] as u64) << 24) | steps.data[1] as u64;
        for (i, name) in self.names.iter().enumerate() {
            for (n, buffer) in self.state[i].iter_mut().enumerate() {
                let key = format!("{name}.{n}");
                let saved = state.get(&key).filter(|t| t.shape.iter().map(|&d| d as i64).eq(buffer.size()));
                let saved = saved.ok_or_else(|| Error::Checkpoint(format!("it lacks `{key}`")))?;
                let device = if buffer.device().is_cuda() { crate::Device::Cuda } else { crate::Device::Cpu };
                buffer.copy_(&to_tensor(saved, device)?);
            }
        }
        Ok(())
    }
}

/// The norm of all gradients together.
pub(crate) fn norm(gradients: &[Tensor]) -> Result<Tensor> {
    let norms: Vec<Tensor> = gradients.iter().map(|g| g.f_norm()).collect::<std::result::Result<_, _>>()?;
    Ok(Tensor::f_stack(&norms, 0)?.f_norm()?)
}

/// Adds the gradients of a further part of a batch to those so far.
pub(crate) fn add_gradients(sum: &mut Vec<Tensor>, more: Vec<Tensor>) -> Result<()> {
    if sum.is_empty() {
        *sum = more;
        return Ok(());
    }
    for (sum, gradient) in sum.iter_mut().zip(&more) {
        let _ = sum.f_add_(gradient)?;
    }
    Ok(())
}

/// The learning rate at `step` of `total`: a linear rise over the first `warm_up` steps, then half a cosine to zero.
pub fn cosine(peak: f64, step: u64, total: u64, warm_up: u64) -> f64 {
    if step < warm_up {
        return peak * (step + 1) as f64 / warm_up as f64;
    }
    let done = (step - warm_up) as f64 / (total.saturating_sub(warm_up)).max(1) as f64;
    peak * 0.5 * (1.0 + (std::f64::consts::PI * done.min(1.0)).cos())
}
