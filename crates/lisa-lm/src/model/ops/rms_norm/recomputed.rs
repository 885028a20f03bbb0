//! RMS norm with its own backward pass: it keeps its input, and no copy of it in f32.

use burn::tensor::{FloatDType, Tensor};

use super::{scale, written_out};
use crate::model::ops::custom::{CustomBackward, with_backward};

/// As [`rms_norm`](super::rms_norm). `None` if the backend is not supported.
pub(super) fn rms_norm<const D: usize>(
    x: &Tensor<D>,
    gamma: &Tensor<D>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    with_backward([x, gamma], |[x, gamma]| {
        let normed = written_out(x.clone(), gamma.clone(), epsilon);
        (normed, Norm { x, gamma, epsilon })
    })
}

#[derive(Clone, Debug)]
struct Norm<const D: usize> {
    x: Tensor<D>,
    /// `[1, .., width]`.
    gamma: Tensor<D>,
    epsilon: f64,
}

impl<const D: usize> CustomBackward<D, 2> for Norm<D> {
    fn gradients(
        self,
        gradient: Tensor<D>,
        wanted: [bool; 2],
        _: impl FnMut(usize) -> Option<Tensor<D>>,
    ) -> [Option<Tensor<D>>; 2] {
        let wide = |x: Tensor<D>| x.cast(FloatDType::F32);
        let (of_x, of_gamma) = (self.x.dtype(), self.gamma.dtype());
        let (x, gradient) = (wide(self.x), wide(gradient));
        let scale = scale(x.clone(), self.epsilon);
        let quotient = x * scale.clone();
        let gamma_gradient = wanted[1].then(|| {
            let product = gradient.clone() * quotient.clone();
            (0..D - 1).fold(product, Tensor::sum_dim).cast(of_gamma)
        });
        let x_gradient = wanted[0].then(|| {
            let gradient = gradient * wide(self.gamma);
            let mean = (gradient.clone() * quotient.clone()).mean_dim(D - 1);
            ((gradient - quotient * mean) * scale).cast(of_x)
        });
        [x_gradient, gamma_gradient]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    /// The result and the gradients, for inputs that are rounded to a dtype and have another one.
    fn all((rounded, dtype): (DType, DType), recomputes: bool) -> Vec<Vec<f32>> {
        let values = |step: usize, shape: [usize; 3]| {
            let value = |i: usize| ((i * step % 1009) as f32 / 504.0 - 1.0) * 3.0;
            let values: Vec<f32> = (0..shape.iter().product()).map(value).collect();
            let x = Tensor::<3>::from_data(TensorData::new(values, shape), &Device::flex());
            Tensor::from_inner(x.cast(rounded).cast(dtype))
        };
        let x = values(37, [3, 5, 16]).require_grad();
        let gamma = values(53, [1, 1, 16]).require_grad();
        let normed = if recomputes {
            rms_norm(&x, &gamma, 1e-5).unwrap()
        } else {
            written_out(x.clone(), gamma.clone(), 1e-5)
        };
        let grads = (normed.clone() * values(71, [3, 5, 16])).sum().backward();
        [
            normed.inner(),
            x.grad(&grads).unwrap(),
            gamma.grad(&grads).unwrap(),
        ]
        .map(|x| x.into_data().iter::<f32>().collect())
        .to_vec()
    }

    #[test]
    fn the_gradients_are_those_of_autodiff() {
        let f32s = (DType::F32, DType::F32);
        let (found, expected) = (all(f32s, true), all(f32s, false));
        for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
            let apart = (found - expected).abs();
            assert!(apart < 1e-5 * expected.abs().max(1.0), "{found} {expected}");
        }
    }

    #[test]
    fn half_precision_is_rounded_once_or_twice() {
        for (dtype, step) in [(DType::BF16, 2f32.powi(-8)), (DType::F16, 2f32.powi(-11))] {
            let (found, exact) = (all((dtype, dtype), true), all((dtype, DType::F32), true));
            for (found, exact) in found.iter().zip(&exact) {
                let largest = exact.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
                for (found, exact) in found.iter().zip(exact) {
                    let apart = (found - exact).abs();
                    let allowed = 2.0 * step * exact.abs() + 1e-6 * largest;
                    assert!(apart <= allowed, "{dtype:?}: {found} {exact}");
                }
            }
        }
    }
}
