//! Activations that keep their inputs only, and compute the rest again in the backward pass, in Burn's
//! operations.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;

use super::{Activation, in_f32};
use crate::model::ops::custom::{CustomBackward, with_backward};

/// The activation of `x`. `None` if the backend is not supported.
pub(super) fn apply(activation: Activation, x: &Tensor<3>) -> Option<Tensor<3>> {
    with_backward([x], |[x]| {
        let result = activation.of(in_f32(x.clone())).cast(x.dtype());
        (result, Single { activation, x })
    })
}

/// The activation of `gate`, times `up`. `None` if the backend is not supported.
pub(super) fn gated(activation: Activation, gate: &Tensor<3>, up: &Tensor<3>) -> Option<Tensor<3>> {
    with_backward([gate, up], |[gate, up]| {
        let result = activation.of(in_f32(gate.clone())) * in_f32(up.clone());
        let result = result.cast(gate.dtype());
        (
            result,
            Gated {
                activation,
                gate,
                up,
            },
        )
    })
}

#[derive(Clone, Debug)]
struct Single {
    activation: Activation,
    x: Tensor<3>,
}

impl CustomBackward<3, 1> for Single {
    fn gradients(
        self,
        gradient: Tensor<3>,
        _: [bool; 1],
        _: impl FnMut(usize) -> Option<Tensor<3>>,
    ) -> [Option<Tensor<3>>; 1] {
        let dtype = self.x.dtype();
        let (_, slope) = share_and_slope(self.activation, &in_f32(self.x));
        [Some((in_f32(gradient) * slope).cast(dtype))]
    }
}

#[derive(Clone, Debug)]
struct Gated {
    activation: Activation,
    gate: Tensor<3>,
    up: Tensor<3>,
}

impl CustomBackward<3, 2> for Gated {
    fn gradients(
        self,
        gradient: Tensor<3>,
        wanted: [bool; 2],
        _: impl FnMut(usize) -> Option<Tensor<3>>,
    ) -> [Option<Tensor<3>>; 2] {
        let dtype = self.gate.dtype();
        let (gate, gradient) = (in_f32(self.gate), in_f32(gradient));
        let (share, slope) = share_and_slope(self.activation, &gate);
        let of_up = wanted[1].then(|| (gate * share * gradient.clone()).cast(dtype));
        let of_gate = wanted[0].then(|| (gradient * in_f32(self.up) * slope).cast(dtype));
        [of_gate, of_up]
    }
}

/// The share of `x` that is the activation, between 0 and 1, and the derivative of the activation.
fn share_and_slope(activation: Activation, x: &Tensor<3>) -> (Tensor<3>, Tensor<3>) {
    let (share, slope_of_share) = match activation {
        Activation::Silu => {
            let share = sigmoid(x.clone());
            (share.clone(), share.clone() * (1.0 - share))
        }
        Activation::Gelu => {
            let share = ((x.clone() * FRAC_1_SQRT_2).erf() + 1.0) * 0.5;
            let density = (x.clone().square() * -0.5).exp() * (2.0 * PI).powf(-0.5);
            (share, density)
        }
        Activation::GeluTanh => {
            // (1 + tanh(u)) / 2 is sigmoid(2 u); u is sqrt(2 / pi) (x + 0.044715 x^3).
            let (linear, cubic) = (2.0 * (2.0 / PI).sqrt(), 0.044_715);
            let square = x.clone().square();
            let share = sigmoid(x.clone() * (square.clone() * cubic + 1.0) * linear);
            let slope = (square * (3.0 * cubic) + 1.0) * linear;
            (share.clone(), share.clone() * (1.0 - share) * slope)
        }
    };
    let slope = share.clone() + x.clone() * slope_of_share;
    (share, slope)
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    const ALL: [Activation; 3] = [Activation::Silu, Activation::Gelu, Activation::GeluTanh];

    /// Results and gradients of an activation and of its gated form, in a dtype, for inputs that are
    /// rounded to another one.
    fn all(
        activation: Activation,
        (rounded, dtype): (DType, DType),
        recomputes: bool,
    ) -> Vec<Vec<f32>> {
        let values = |step: usize| {
            let value = |i: usize| ((i * step % 1009) as f32 / 504.0 - 1.0) * 5.0;
            let values: Vec<f32> = (0..3 * 7 * 11).map(value).collect();
            let values = TensorData::new(values, [3, 7, 11]);
            let x = Tensor::<3>::from_data(values, &Device::flex());
            Tensor::from_inner(x.cast(rounded).cast(dtype))
        };
        let (gate, up, gradient) = (
            values(37).require_grad(),
            values(53).require_grad(),
            values(71),
        );
        let (single, product) = if recomputes {
            let single = apply(activation, &gate).unwrap();
            (single, gated(activation, &gate, &up).unwrap())
        } else {
            // An autodiff graph serves one backward pass.
            let single = || activation.of(gate.clone());
            (single(), single() * up.clone())
        };
        let mut found = Vec::new();
        for result in [single, product] {
            let grads = (result.clone() * gradient.clone()).sum().backward();
            let gradients = [&gate, &up].map(|x| x.grad(&grads));
            let gradients = gradients.into_iter().flatten();
            found.extend([result.inner()].into_iter().chain(gradients));
        }
        let values = |x: Tensor<3>| x.into_data().iter::<f32>().collect();
        found.into_iter().map(values).collect()
    }

    #[test]
    fn the_gradients_are_those_of_autodiff() {
        for activation in ALL {
            let [found, expected] =
                [true, false].map(|own| all(activation, (DType::F32, DType::F32), own));
            assert_eq!(found.len(), 5);
            for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                let apart = (found - expected).abs();
                // Of products of up to 125.
                assert!(apart < 3e-5 * expected.abs().max(1.0), "{found} {expected}");
            }
        }
    }

    #[test]
    fn half_precision_is_rounded_once() {
        for activation in ALL {
            for (dtype, step) in [(DType::BF16, 2f32.powi(-8)), (DType::F16, 2f32.powi(-11))] {
                let [found, exact] =
                    [dtype, DType::F32].map(|wide| all(activation, (dtype, wide), true));
                for (found, exact) in found.iter().flatten().zip(exact.iter().flatten()) {
                    let apart = (found - exact).abs();
                    assert!(apart <= step * exact.abs() + 1e-7, "{found} {exact}");
                }
            }
        }
    }
}
