//! Sums of squares, from which norms are computed. Nothing here waits for the device.

use burn::tensor::{DType, FloatDType, Tensor};

use crate::slicing::slices_of;

/// The sum of the squares of all elements, in f32 or wider: the sum can overflow in f16 and is too
/// imprecise in bf16.
pub(crate) fn sum_of_squares<const D: usize>(tensor: Tensor<D>) -> Tensor<1> {
    sum_of(&tensor, |slice| wide(slice).square().sum())
}

/// The sum of a function of the slices of a tensor, so that its temporary tensors have the size of a
/// slice.
pub(crate) fn sum_of<const D: usize>(
    tensor: &Tensor<D>,
    of: impl Fn(Tensor<D>) -> Tensor<1>,
) -> Tensor<1> {
    let slices = slices_of(tensor);
    if slices.len() == 1 {
        return of(tensor.clone());
    }
    let sums = slices.map(|rows| of(tensor.clone().slice_dim(0, rows)));
    Tensor::cat(sums.collect(), 0).sum()
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

    #[test]
    fn a_tensor_of_several_slices_has_the_sum_of_all_its_elements() {
        let device = Device::flex();
        for dtype in [DType::F32, DType::BF16] {
            // Four slices on a CPU, the last of which is short.
            let tensor = Tensor::<2>::full([601, 400], 2.0, (&device, dtype));
            assert_eq!(slices_of(&tensor).len(), 4);
            let sum = sum_of_squares(tensor);
            assert_eq!(sum.into_scalar::<f32>(), 4.0 * 601.0 * 400.0);
        }
    }
}
