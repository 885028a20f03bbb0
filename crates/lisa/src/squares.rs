//! Sums of squares, from which norms are computed. Nothing here waits for the device.

use burn::tensor::{DType, FloatDType, Tensor};

/// The sum of the squares of all elements, in f32 or wider: the sum can overflow in f16 and is too
/// imprecise in bf16.
pub(crate) fn sum_of_squares<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    wide(tensor).square().sum()
}

/// Converts half precision to f32; other dtypes do not change.
pub(crate) fn wide<const D: usize>(tensor: Tensor<D>) -> Tensor<D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(FloatDType::F32),
        _ => tensor,
    }
}

/// A sum of one-element tensors, on the device of the first term.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sum(Option<Tensor<1>>);

impl Sum {
    /// Adds a term, which may be on another device.
    pub(crate) fn add(&mut self, term: Tensor<1>) {
        self.0 = Some(match self.0.take() {
            Some(sum) => {
                let term = term.to_device(&sum.device());
                sum + term
            }
            None => term,
        });
    }

    /// The sum; `None` if nothing was added.
    pub(crate) fn total(self) -> Option<Tensor<1>> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Device;

    #[test]
    fn squares_of_half_precision_are_summed_in_f32() {
        let device = Device::flex();
        let tensor = Tensor::<2>::full([20, 20], 100.0, (&device, DType::F16));
        let mut sum = Sum::default();
        sum.add(sum_of_squares(tensor.clone()));
        sum.add(sum_of_squares(tensor));
        assert_eq!(sum.total().unwrap().into_scalar::<f32>(), 8e6);
        assert!(Sum::default().total().is_none());
    }
}
