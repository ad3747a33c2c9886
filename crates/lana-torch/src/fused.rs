//! BatchNorm and activation as one operation of autograd: `fused.cpp` says why and how.

use std::ffi::{CStr, c_char};

use lana_graph::Activation;
use tch::Tensor;
use torch_sys::C_tensor;

use crate::{Error, Result};

#[allow(unsafe_code)]
// SAFETY: declared as fused.cpp defines them; a C_tensor is torch-sys' name of an at::Tensor.
unsafe extern "C" {
    fn lana_batch_norm(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        mean: *const C_tensor,
        variance: *const C_tensor,
        momentum: f64,
        eps: f64,
        activation: i64,
        failed: *mut bool,
    ) -> *mut C_tensor;
    fn lana_batch_norm_error() -> *const c_char;
}

/// The number by which fused.cpp knows an activation; none if it does not.
fn number(activation: Option<Activation>) -> Option<i64> {
    Some(match activation {
        None => 0,
        Some(Activation::Relu) => 1,
        Some(Activation::Relu6) => 2,
        Some(Activation::Silu) => 3,
        Some(Activation::HardSwish) => 4,
        Some(
            Activation::Sigmoid
            | Activation::HardSigmoid
            | Activation::Gelu
            | Activation::Tanh
            | Activation::Erf
            | Activation::Elu
            | Activation::Softplus,
        ) => return None,
    })
}

/// Whether an activation can be one with the BatchNorm before it.
pub(crate) fn knows(activation: Activation) -> bool {
    number(Some(activation)).is_some()
}

/// BatchNorm by the statistics of the batch with `[weight, bias]`, then the activation. `running` (mean and variance) is moved to the
/// batch's by the share given. None where libtorch's own must be used: on another device, in another format or layout.
#[allow(unsafe_code)]
pub(crate) fn batch_norm(
    x: &Tensor,
    [weight, bias]: [&Tensor; 2],
    running: Option<([&Tensor; 2], f64)>,
    eps: f64,
    activation: Option<Activation>,
) -> Result<Option<Tensor>> {
    let Some(activation) = number(activation) else { return Ok(None) };
    let ([mean, variance], momentum) = match running {
        Some((statistics, momentum)) => (statistics.map(Tensor::as_ptr), momentum),
        None => ([std::ptr::null(); 2], 0.0),
    };
    let mut failed = false;
    // SAFETY: the tensors live through the call, null stands for no statistics, and the result is a new tensor that is ours. No
    // exception passes.
    unsafe {
        let result = lana_batch_norm(
            x.as_ptr(),
            weight.as_ptr(),
            bias.as_ptr(),
            mean,
            variance,
            momentum,
            eps,
            activation,
            &raw mut failed,
        );
        if failed {
            let reason = CStr::from_ptr(lana_batch_norm_error()).to_string_lossy().into_owned();
            return Err(Error::Torch(tch::TchError::Torch(reason)));
        }
        Ok((!result.is_null()).then(|| Tensor::from_ptr(result)))
    }
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;
    use crate::network::channels_last;

    const KNOWN: [Option<Activation>; 5] = [
        None,
        Some(Activation::Relu),
        Some(Activation::Relu6),
        Some(Activation::Silu),
        Some(Activation::HardSwish),
    ];

    fn separate(y: Tensor, activation: Option<Activation>) -> Tensor {
        match activation {
            Some(Activation::Relu) => y.relu(),
            Some(Activation::Relu6) => y.clamp(0.0, 6.0),
            Some(Activation::Silu) => y.silu(),
            Some(Activation::HardSwish) => y.hardswish(),
            _ => y,
        }
    }

    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        let scale = b.abs().max().double_value(&[]).max(1e-6);
        (a - b).abs().max().double_value(&[]) / scale
    }

    #[test]
    fn it_is_what_batch_norm_and_activation_are_one_after_the_other() {
        crate::init();
        tch::manual_seed(5);
        let options = (Kind::Float, Device::Cpu);
        // Few channels, many, and numbers of rows that go into nothing.
        for size in [[3, 3, 5, 7], [4, 4, 8, 8], [2, 16, 9, 9], [5, 40, 3, 3], [2, 96, 6, 5], [1, 1, 1, 3]] {
            for activation in KNOWN {
                let at = format!("{size:?} {activation:?}");
                // Far from zero, as the statistics of a channel may be.
                let x = channels_last(&(Tensor::randn(size, options) * 3.0 + 20.0)).unwrap();
                let d = Tensor::randn(size, options);
                let [weight, bias] = [1.5, 0.7].map(|at| Tensor::randn([size[1]], options) * 0.3 + at);
                let run = |fused: bool| {
                    let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.copy().set_requires_grad(true));
                    let mean = Tensor::full([size[1]], 0.5, options);
                    let variance = Tensor::full([size[1]], 2.0, options);
                    let y = match fused {
                        true => {
                            let running = Some(([&mean, &variance], 0.1));
                            batch_norm(&x, [&weight, &bias], running, 1e-5, activation).unwrap().unwrap()
                        }
                        false => {
                            let running = (Some(&mean), Some(&variance));
                            let y = x.batch_norm(
                                Some(&weight),
                                Some(&bias),
                                running.0,
                                running.1,
                                true,
                                0.1,
                                1e-5,
                                true,
                            );
                            separate(y, activation)
                        }
                    };
                    let loss = (&y * &d).sum(Kind::Float);
                    let gradients = Tensor::run_backward(&[loss], &[&x, &weight, &bias], false, false);
                    [y.detach(), mean, variance].into_iter().chain(gradients).collect::<Vec<_>>()
                };
                let names = ["y", "mean", "variance", "dx", "d_weight", "d_bias"];
                for ((ours, theirs), name) in run(true).iter().zip(run(false)).zip(names) {
                    let apart = apart(ours, &theirs);
                    assert!(apart < 2e-4, "{at}: {name} is {apart} apart");
                }
            }
        }
    }

    #[test]
    fn gradients_that_others_hold_are_left_alone() {
        crate::init();
        tch::manual_seed(7);
        let options = (Kind::Float, Device::Cpu);
        for activation in KNOWN {
            let [x, d, other] =
                [0; 3].map(|_| channels_last(&Tensor::randn([3, 16, 5, 5], options)).unwrap());
            let [weight, bias] = [1.5, 0.7].map(|v| Tensor::full([16], v, options));
            let run = |fused: bool| {
                let [x, other, last] = [&x, &other, &d].map(|t| t.copy().set_requires_grad(true));
                let y = match fused {
                    true => batch_norm(&x, [&weight, &bias], None, 1e-5, activation).unwrap().unwrap(),
                    false => {
                        let none: Option<Tensor> = None;
                        let none = (none.as_ref(), none.as_ref());
                        let (weight, bias) = (Some(&weight), Some(&bias));
                        separate(
                            x.batch_norm(weight, bias, none.0, none.1, true, 0.1, 1e-5, true),
                            activation,
                        )
                    }
                };
                // A sum hands one gradient to both its parts; by another shape they share its memory.
                let sum = (&y + &other).reshape([-1]) + last.permute([0, 2, 3, 1]).reshape([-1]);
                let weights = d.permute([0, 2, 3, 1]).reshape([-1]);
                let loss = (sum.square() * weights).sum(Kind::Float);
                Tensor::run_backward(&[loss], &[&x, &other, &last], false, false)
            };
            for (ours, theirs) in run(true).iter().zip(run(false)) {
                let apart = apart(ours, &theirs);
                assert!(apart < 2e-4, "{activation:?}: {apart}");
            }
        }
    }

    #[test]
    fn threads_change_nothing() {
        crate::init();
        tch::manual_seed(6);
        let options = (Kind::Float, Device::Cpu);
        // Of many blocks, the last of them not full; and of more than are added up at a time.
        for size in [[16, 40, 33, 9], [8, 16, 160, 170]] {
            let x = channels_last(&Tensor::randn(size, options)).unwrap();
            let d = channels_last(&Tensor::randn(size, options)).unwrap();
            let [weight, bias] = [1.5, 0.7].map(|at| Tensor::randn([size[1]], options) * 0.3 + at);
            let run = || {
                let [x, weight, bias] = [&x, &weight, &bias].map(|t| t.copy().set_requires_grad(true));
                let y =
                    batch_norm(&x, [&weight, &bias], None, 1e-5, Some(Activation::Silu)).unwrap().unwrap();
                let gradients =
                    Tensor::run_backward(&[(&y * &d).sum(Kind::Float)], &[&x, &weight, &bias], false, false);
                std::iter::once(y.detach()).chain(gradients).collect::<Vec<_>>()
            };
            let (one, two) = (run(), crate::with_kernel_threads(3, run));
            // What follows the maps is libtorch's; the sum of the loss plays no part in what is compared.
            assert!(one.iter().zip(&two).all(|(a, b)| a.equal(b)), "{size:?}");
        }
    }

    #[test]
    fn what_it_cannot_do_is_left_to_others() {
        let x = Tensor::ones([2, 8, 4, 4], (Kind::Float, Device::Cpu));
        let [weight, bias] = [1.0, 0.0].map(|v| Tensor::full([8], v, (Kind::Float, Device::Cpu)));
        // Channels first; 64-bit; an activation it does not know.
        assert!(batch_norm(&x, [&weight, &bias], None, 1e-5, None).unwrap().is_none());
        let last = channels_last(&x).unwrap();
        assert!(
            batch_norm(&last.to_kind(Kind::Double), [&weight, &bias], None, 1e-5, None).unwrap().is_none()
        );
        let gelu = Some(Activation::Gelu);
        assert!(batch_norm(&last, [&weight, &bias], None, 1e-5, gelu).unwrap().is_none());
    }
}
