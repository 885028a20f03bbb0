//! Cross entropy over a large vocabulary, and the backward pass of a head by hand.
//!
//! The gradient of the logits is computed with the loss, chunk by chunk, so that of their size and
//! type one tensor waits for backward, and none in f32. Tests: at the foot, and `model/tests.rs`.

use burn::optim::GradientsParams;
use burn::tensor::{DType, FloatDType, IndexingUpdateOp, Int, Tensor, TensorData};
use lisa::recompute::HeadPass;

use crate::model::fused;
use crate::model::layers::Projection;
use crate::text::encode::IGNORED;

/// Numbers of the logits that are turned into f32 at a time.
const CHUNK: usize = 1 << 22;

/// Numbers of the weight's gradient that are computed at a time where each product exists twice.
const BLOCK: usize = 1 << 18;

/// Mean cross entropy of logits, `[rows, vocab]`, over the targets that are not ignored.
pub(crate) fn cross_entropy(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    let logits = match fused::cross_entropy(logits, &targets) {
        Ok(loss) => return loss,
        Err(logits) => logits,
    };
    let tracked = logits.is_tracked();
    let (loss, gradient) = loss_of(logits.clone().detach(), targets, tracked);
    match gradient {
        None => loss,
        Some(gradient) => {
            // Worth nothing, with that gradient.
            let carrier = (logits * gradient).sum().cast(FloatDType::F32);
            loss + (carrier.clone() - carrier.detach())
        }
    }
}

/// The loss of logits that are on no tape, and their gradient where it is wanted.
fn loss_of(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    wanted: bool,
) -> (Tensor<1>, Option<Tensor<2>>) {
    let [rows, vocab] = logits.dims();
    let dtype = logits.dtype();
    let ignored = targets.clone().equal_scalar(IGNORED);
    let kept = ignored.clone().bool_not().int();
    let count = kept.clone().sum().clamp_min(1).cast(FloatDType::F32);
    let picked = targets.mask_fill(ignored, 0).reshape([rows, 1]);
    let kept = kept.cast(FloatDType::F32).reshape([rows, 1]);
    // What each row counts for in the mean.
    let share = kept / count.reshape([1, 1]);
    let mut losses = Vec::new();
    let mut gradients = Vec::new();
    let chunk = (CHUNK / vocab.max(1)).clamp(1, rows);
    let mut left = Some(logits);
    for first in (0..rows).step_by(chunk) {
        let part = first..(first + chunk).min(rows);
        // The last chunk takes the logits with it.
        let values = if part.end == rows {
            left.take()
        } else {
            left.clone()
        };
        let Some(values) = values else { break };
        let picked = picked.clone().slice_dim(0, part.clone());
        let share = share.clone().slice_dim(0, part.clone());
        let values = values.slice_dim(0, part).cast(DType::F32);
        let said = values.clone().gather(1, picked.clone());
        let largest = values.clone().max_dim(1);
        let exps = (values - largest.clone()).exp();
        let sums = exps.clone().sum_dim(1);
        losses.push(((sums.clone().log() + largest - said) * share.clone()).sum());
        if wanted {
            let gradient = exps * (share.clone() / sums);
            let gradient = gradient.scatter(1, picked, -share, IndexingUpdateOp::Add);
            gradients.push(gradient.cast(dtype));
        }
    }
    let loss = Tensor::cat(losses, 0).sum();
    let gradient = match gradients.len() {
        0 => None,
        1 => gradients.pop(),
        _ => Some(Tensor::cat(gradients, 0)),
    };
    (loss, gradient)
}

/// The loss of normed hidden states, `[batch, seq, width]`, with a backward pass by hand: only the
/// norm is on the tape, and of the logits nothing is kept but their gradient.
pub(crate) fn head_pass(
    h: Tensor<3>,
    projection: &Projection<'_>,
    targets: Tensor<2, Int>,
) -> HeadPass {
    let param = projection.weight();
    let trains = param.is_require_grad();
    if projection.has_bias() || !(h.is_tracked() || trains) {
        let logits = projection.forward(h);
        let [batch, seq, vocab] = logits.dims();
        let logits = logits.reshape([batch * seq, vocab]);
        return cross_entropy(logits, targets.reshape([batch * seq])).into();
    }
    let shape @ [batch, seq, width] = h.dims();
    let rows = h.clone().inner().reshape([batch * seq, width]);
    let turned = matches!(projection, Projection::Tied(_));
    // `[width, vocab]`.
    let weight = param.val().inner();
    let weight = if turned { weight.transpose() } else { weight };
    let logits = rows.clone().matmul(weight.clone());
    let targets = targets.reshape([batch * seq]).inner();
    let (loss, gradient) = match fused::loss_and_gradient(logits, &targets) {
        Ok((loss, gradient)) => (loss, Some(gradient)),
        Err(logits) => loss_of(logits, targets, true),
    };
    let loss = Tensor::from_inner(loss);
    let Some(gradient) = gradient else {
        return loss.into();
    };
    let id = param.id;
    HeadPass::custom(loss, move |factor| {
        let gradient = if factor == 1.0 {
            gradient
        } else {
            gradient.mul_scalar(factor)
        };
        let grads = h.is_tracked().then(|| {
            let upstream = gradient.clone().matmul(weight.transpose()).reshape(shape);
            (h * Tensor::from_inner(upstream)).sum().backward()
        });
        let mut by_hand = GradientsParams::new();
        if trains {
            by_hand.register(id, weight_gradient(rows, gradient, turned));
        }
        (grads, by_hand)
    })
}

/// `rows^T gradient`, `[width, vocab]`, or turned round, `[vocab, width]`.
///
/// Flex allocates each result of a product twice for a moment, so there it is put together block by
/// block along the vocabulary. Other devices keep an account of their memory, and make it at once.
fn weight_gradient(rows: Tensor<2>, gradient: Tensor<2>, turned: bool) -> Tensor<2> {
    let (device, dtype) = (rows.device(), rows.dtype());
    let product = |gradient: Tensor<2>| {
        if turned {
            gradient.transpose().matmul(rows.clone())
        } else {
            rows.clone().transpose().matmul(gradient)
        }
    };
    let ([_, width], [_, vocab]) = (rows.dims(), gradient.dims());
    if device.memory_pool_usage().is_some() || width * vocab <= BLOCK {
        return product(gradient);
    }
    let shape = if turned {
        [vocab, width]
    } else {
        [width, vocab]
    };
    let zeros = TensorData::zeros::<f32, _>(shape).convert_dtype(dtype);
    let mut whole = Tensor::<2>::from_data(zeros, (&device, dtype));
    let block = (BLOCK / width).max(1);
    for first in (0..vocab).step_by(block) {
        let part = first..(first + block).min(vocab);
        let values = product(gradient.clone().slice_dim(1, part.clone()));
        let place = if turned {
            [part, 0..width]
        } else {
            [0..width, part]
        };
        whole = whole.slice_assign(place, values);
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    #[test]
    fn a_gradient_in_blocks_is_that_of_one_product() {
        let device = Device::flex();
        device.seed(3);
        let random = |shape| Tensor::<2>::random(shape, Distribution::Default, &device);
        // Two blocks along the vocabulary, the last of which is short.
        let (width, vocab) = (64, BLOCK / 64 + 5);
        let (rows, gradient) = (random([3, width]), random([3, vocab]));
        let product = rows.clone().transpose().matmul(gradient.clone());
        for (turned, expected) in [(false, product.clone()), (true, product.transpose())] {
            let found = weight_gradient(rows.clone(), gradient.clone(), turned);
            assert_eq!(found.dims(), expected.dims());
            let apart = (found - expected).abs().max().into_scalar::<f32>();
            assert!(apart < 1e-6, "{turned}: {apart}");
        }
    }
}
