//! Rows of an embedding, and their gradient.
//!
//! The rows are added to the gradient that a tied head has found, in place (`in_place`), on flex and GPUs
//! that this crate has a feature for. In half precision they are summed in f32 first: a sum of many rows
//! in bf16 stops at 256 times the size of a row, and the rows of a frequent token are many. So the rows
//! of each token are summed in a tensor that has a row for each different token of the batch, and then
//! added to the gradient once. A second gradient of the whole vocabulary in f32 never exists.
//!
//! Cost of half precision: while the gradient is computed, up to six tensors of the size of the hidden
//! state in half precision. The tokens are copied to the host.

#[cfg(feature = "custom-backward")]
mod in_place;

use std::collections::HashMap;

use burn::tensor::module;
use burn::tensor::{DType, Device, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};

use super::{is_flex, zeros};

/// Rows of an embedding, `[vocab, width]`, for tokens, `[batch, seq]`: `[batch, seq, width]`.
///
/// # Panics
///
/// Panics if a token has no row.
pub(crate) fn embed(weight: Tensor<2>, tokens: Tensor<2, Int>) -> Tensor<3> {
    #[cfg(feature = "custom-backward")]
    if let Some(rows) = in_place::embed(&weight, &tokens) {
        return rows;
    }
    if weight.is_tracked() && is_half(weight.dtype()) {
        return embed_half(weight, &tokens);
    }
    module::embedding(weight, tokens)
}

/// Whether rows are added to a gradient in place on this device. LibTorch copies the gradient.
pub(crate) fn adds_in_place(device: &Device) -> bool {
    is_flex(device) || device.memory_pool_usage().is_some()
}

fn is_half(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16)
}

/// The tokens of a batch.
struct Distinct {
    /// Each token once, `[distinct]`, in the order in which they come first.
    tokens: Tensor<1, Int>,
    /// For each position of the batch, the index of its token in `tokens`, `[positions]`.
    indices: Tensor<1, Int>,
}

impl Distinct {
    fn of(tokens: &Tensor<2, Int>) -> Self {
        let (mut seen, mut distinct) = (HashMap::new(), Vec::new());
        let index = |token: i64| {
            *seen.entry(token).or_insert_with(|| {
                distinct.push(token);
                distinct.len() as i64 - 1
            })
        };
        let indices = tokens.to_data().iter::<i64>().map(index).collect();
        let device = tokens.device();
        Self {
            tokens: ints(distinct, &device),
            indices: ints(indices, &device),
        }
    }
}

fn ints(values: Vec<i64>, device: &Device) -> Tensor<1, Int> {
    let shape = [values.len()];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// [`embed`] for a tracked weight in half precision.
fn embed_half(weight: Tensor<2>, tokens: &Tensor<2, Int>) -> Tensor<3> {
    let ([batch, seq], [_, width]) = (tokens.dims(), weight.dims());
    let dtype = weight.dtype();
    let Distinct { tokens, indices } = Distinct::of(tokens);
    // Of these operations, the backward pass keeps only the indices.
    let rows = weight.select(0, tokens).cast(FloatDType::F32);
    let rows = rows.select(0, indices).cast(dtype);
    rows.reshape([batch, seq, width])
}

/// Adds rows, `[positions, width]`, to the rows of these indices, `[batch, seq]`. Half precision is
/// summed in f32.
pub(crate) fn add_rows(to: Tensor<2>, indices: Tensor<2, Int>, rows: Tensor<2>) -> Tensor<2> {
    let dtype = rows.dtype();
    if !is_half(dtype) {
        return to.select_assign(0, indices.flatten(0, 1), rows, IndexingUpdateOp::Add);
    }
    let distinct = Distinct::of(&indices);
    let (count, [_, width]) = (distinct.tokens.dims()[0], rows.dims());
    let sums = zeros([count, width], &rows.device(), DType::F32);
    let rows = rows.cast(FloatDType::F32);
    let sums = sums.select_assign(0, distinct.indices, rows, IndexingUpdateOp::Add);
    to.select_assign(0, distinct.tokens, sums.cast(dtype), IndexingUpdateOp::Add)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Token 2 at 1000 positions, token 0 at two.
    fn tokens(device: &Device) -> Tensor<2, Int> {
        let tokens: Vec<i64> = (0..1002)
            .map(|i| if i % 500 == 7 { 0 } else { 2 })
            .collect();
        Tensor::from_data(TensorData::new(tokens, [2, 501]), device)
    }

    fn values(tensor: Tensor<2>) -> Vec<f32> {
        tensor.into_data().iter::<f32>().collect()
    }

    #[test]
    fn a_thousand_rows_of_one_token_add_up_in_half_precision() {
        for dtype in [DType::BF16, DType::F16, DType::F32] {
            let device = Device::flex();
            let rows = Tensor::ones([1002, 1], (&device, dtype));
            let before = Tensor::from_data([[0.5], [0.25], [24.0]], (&device, dtype));
            let sum = add_rows(before, tokens(&device), rows);
            assert_eq!((sum.dtype(), values(sum)), (dtype, vec![2.5, 0.25, 1024.0]));

            // The same on an autodiff graph, where the gradient of each position is 2, and with Burn's
            // operations.
            let device = device.autodiff();
            for device in [device.clone(), device.gradient_checkpointing()] {
                let weight =
                    Tensor::from_data([[3.0], [5.0], [7.0]], (&device, dtype)).require_grad();
                let embedded = embed(weight.clone(), tokens(&device));
                assert_eq!((embedded.dims(), embedded.dtype()), ([2, 501, 1], dtype));
                let first: Vec<f32> = embedded.clone().into_data().iter::<f32>().take(9).collect();
                assert_eq!(first, [7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 7.0, 3.0, 7.0]);
                let grads = (embedded * 2.0).cast(DType::F32).sum().backward();
                let found = weight.grad(&grads).unwrap();
                assert_eq!(
                    (found.dtype(), values(found)),
                    (dtype, vec![4.0, 0.0, 2000.0])
                );
            }
        }
    }
}
