//! Cross entropy of logits over a large vocabulary.
//!
//! The gradient of the logits is computed together with the loss, chunk by chunk. So one tensor of
//! the size and dtype of the logits is kept for the backward pass, and none in f32.

use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Int, Tensor};

#[cfg(feature = "flex")]
use super::fused;
use crate::labels::IGNORED;

/// The maximum number of elements of the logits that are converted to f32 at a time.
const CHUNK: usize = 1 << 22;

/// [`cross_entropy`] of a batch: logits, `[batch, seq, vocab]`, targets and weights, `[batch, seq]`.
pub(crate) fn batch_cross_entropy(
    logits: Tensor<3>,
    targets: Tensor<2, Int>,
    weights: Option<Tensor<2>>,
) -> Tensor<1> {
    let [batch, seq, vocab] = logits.dims();
    let rows = batch * seq;
    let weights = weights.map(|weights| weights.reshape([rows]));
    cross_entropy(
        logits.reshape([rows, vocab]),
        targets.reshape([rows]),
        weights,
    )
}

/// The mean cross entropy of logits, `[rows, vocab]`, over the targets, `[rows]`, that are not
/// [`IGNORED`]; with weights, `[rows]`, the weighted mean. If all targets are ignored, or the sum of
/// their weights is 0, the loss and its gradients are 0.
pub(crate) fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
) -> Tensor<1> {
    // A constant.
    let weights = weights.map(Tensor::inner);
    #[cfg(feature = "flex")]
    let logits = match fused::cross_entropy(logits, &targets, weights.as_ref()) {
        Ok(loss) => return loss,
        Err(logits) => logits,
    };
    if !logits.is_tracked() {
        return in_chunks(logits, targets, weights, false).0;
    }
    let (loss, gradients) = in_chunks(logits.clone().detach(), targets, weights, true);
    // A term of value 0 whose gradient is `gradients`.
    let carrier = (logits * joined(gradients)).sum().cast(FloatDType::F32);
    loss + (carrier.clone() - carrier.detach())
}

/// Like [`cross_entropy`], for logits without autodiff. Also returns their gradient.
pub(crate) fn loss_and_gradient(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
) -> (Tensor<1>, Tensor<2>) {
    #[cfg(feature = "flex")]
    let logits = match fused::loss_and_gradient(logits, &targets, weights.as_ref()) {
        Ok(found) => return found,
        Err(logits) => logits,
    };
    let (loss, gradients) = in_chunks(logits, targets, weights, true);
    (loss, joined(gradients))
}

fn joined(mut chunks: Vec<Tensor<2>>) -> Tensor<2> {
    if chunks.len() == 1 {
        return chunks.remove(0);
    }
    Tensor::cat(chunks, 0)
}

/// The loss of untracked logits, and, if requested, the gradient of each chunk of rows.
fn in_chunks(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    weights: Option<Tensor<1>>,
    wanted: bool,
) -> (Tensor<1>, Vec<Tensor<2>>) {
    let [rows, vocab] = logits.dims();
    let dtype = logits.dtype();
    let ignored = targets.clone().equal_scalar(IGNORED);
    // The weight of each row in the mean.
    let share = match weights {
        None => {
            let kept = ignored.clone().bool_not().int();
            let count = kept.clone().sum().clamp_min(1).cast(FloatDType::F32);
            kept.cast(FloatDType::F32).reshape([rows, 1]) / count.reshape([1, 1])
        }
        Some(weights) => {
            let kept = weights.mask_fill(ignored.clone(), 0).reshape([rows, 1]);
            let sum = kept.clone().sum();
            let none = sum.clone().equal_scalar(0);
            kept / sum.mask_fill(none, 1).reshape([1, 1])
        }
    };
    let picked = targets.mask_fill(ignored, 0).reshape([rows, 1]);
    let mut losses = Vec::new();
    let mut gradients = Vec::new();
    let chunk = (CHUNK / vocab.max(1)).clamp(1, rows);
    let mut left = Some(logits);
    for first in (0..rows).step_by(chunk) {
        let range = first..(first + chunk).min(rows);
        // The last chunk frees the logits.
        let values = if range.end == rows {
            left.take()
        } else {
            left.clone()
        };
        let Some(values) = values else { break };
        let picked = picked.clone().slice_dim(0, range.clone());
        let share = share.clone().slice_dim(0, range.clone());
        let values = values.slice_dim(0, range).cast(DType::F32);
        let target = values.clone().gather(1, picked.clone());
        let largest = values.clone().max_dim(1);
        let exps = (values - largest.clone()).exp();
        let sums = exps.clone().sum_dim(1);
        losses.push(((sums.clone().log() + largest - target) * share.clone()).sum());
        if wanted {
            let gradient = exps * (share.clone() / sums);
            let gradient = gradient.scatter(1, picked, -share, IndexingUpdateOp::Add);
            gradients.push(gradient.cast(dtype));
        }
    }
    (Tensor::cat(losses, 0).sum(), gradients)
}

#[cfg(test)]
mod tests;
