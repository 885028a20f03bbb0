//! Rows of an embedding, with a backward pass that adds to the weight's gradient in place.

use burn::tensor::module;
use burn::tensor::{Int, Tensor};

use super::{add_rows, adds_in_place};
use crate::model::ops::custom::{CustomBackward, with_backward};
use crate::model::ops::zeros;

/// As [`embed`](super::embed). `None` if the backend is not supported or copies what it adds to, or
/// without autodiff.
pub(super) fn embed(weight: &Tensor<2>, tokens: &Tensor<2, Int>) -> Option<Tensor<3>> {
    if !adds_in_place(&weight.device()) {
        return None;
    }
    with_backward([weight], |[weight]| {
        let vocab = weight.dims()[0];
        let tokens = tokens.clone().inner();
        let rows = module::embedding(weight, tokens.clone());
        (rows, Rows { tokens, vocab })
    })
}

/// The rows that were looked up.
#[derive(Clone, Debug)]
struct Rows {
    tokens: Tensor<2, Int>,
    vocab: usize,
}

impl CustomBackward<2, 1, 3> for Rows {
    fn gradients(
        self,
        gradient: Tensor<3>,
        _: [bool; 1],
        mut take: impl FnMut(usize) -> Option<Tensor<2>>,
    ) -> [Option<Tensor<2>>; 1] {
        let shape = [self.vocab, gradient.dims()[2]];
        // A tied head has registered its gradient already.
        let before = take(0).filter(|before| before.dims() == shape);
        let sum = before.unwrap_or_else(|| zeros(shape, &gradient.device(), gradient.dtype()));
        [Some(add_rows(sum, self.tokens, gradient.flatten(0, 1)))]
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{DType, Device, TensorData};

    use super::*;

    fn wave(step: usize, shape: [usize; 2]) -> Tensor<2> {
        let value = |i: usize| (i * step % 101) as f32 / 50.0 - 1.0;
        let values = (0..shape[0] * shape[1]).map(value).collect::<Vec<f32>>();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    /// The gradient of a weight of `[7, 5]` that is looked up twice, and is also multiplied `times` times.
    fn gradient(dtype: DType, times: usize, is_custom: bool) -> Vec<f32> {
        let weight = Tensor::from_inner(wave(37, [7, 5]).cast(dtype)).require_grad();
        let rows = [[[0, 6, 3], [6, 6, 1]], [[2, 6, 0], [0, 1, 1]]].map(|tokens| {
            let tokens = Tensor::<2, Int>::from_data(tokens, &weight.device());
            if is_custom {
                embed(&weight, &tokens).unwrap()
            } else {
                module::embedding(weight.clone(), tokens)
            }
        });
        let factors = Tensor::from_inner(wave(53, [6, 5]).cast(dtype)).reshape([2, 3, 5]);
        let [first, second] = rows.clone();
        let loss = ((first + second.mul_scalar(0.5)) * factors).sum();
        let loss = (0..times).fold(loss, |loss, step| {
            let factors = Tensor::from_inner(wave(61 + step, [7, 5]).cast(dtype));
            loss + (weight.clone() * factors).sum()
        });
        // The first lookup is still referenced, so its node cannot get another id.
        let [first, second] = rows;
        drop(second);
        let found = weight.grad(&loss.backward()).unwrap();
        drop(first);
        assert_eq!((found.dims(), found.dtype()), ([7, 5], dtype));
        found.into_data().iter::<f32>().collect()
    }

    #[test]
    fn the_gradient_is_burns_and_is_added_to_those_of_other_operations() {
        for times in [0, 1, 3] {
            let [found, expected] = [true, false].map(|own| gradient(DType::F32, times, own));
            for (found, expected) in found.iter().zip(&expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
            for (dtype, step) in [(DType::BF16, 2f32.powi(-8)), (DType::F16, 2f32.powi(-11))] {
                for (found, expected) in gradient(dtype, times, true).iter().zip(&expected) {
                    assert!((found - expected).abs() < 8.0 * step, "{found} {expected}");
                }
            }
        }
    }
}
