//! [`attend`]: attention of groups of query heads that share a key head.
//!
//! The query heads of a key head are concatenated along the sequence, `[batch, key heads, groups *
//! seq, head_dim]`, so that keys and values are not copied for each query head. There are four
//! forms: fused; in Burn's operations with its own backward pass ([`recomputed`]); in Burn's
//! operations only; and Burn's own attention, which may be a fused kernel of the backend, for tensors
//! without autodiff and without a mask. (Burn 0.22.1 inverts the mask on LibTorch, so masked attention
//! does not use it.)

use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Tensor};

use super::Form;
use super::extent::{Extent, FUSED, KEPT, RECOMPUTED, WRITTEN_OUT};

mod blocks;
#[cfg(feature = "custom-backward")]
mod recomputed;

use blocks::{Block, Inputs};

/// The factor of the scores in most families, `1 / sqrt(head_dim)`.
pub(crate) fn usual_scale(head_dim: usize) -> f64 {
    (head_dim as f64).powf(-0.5)
}

/// `softmax(q k^T * scale) v`.
///
/// `q` is `[batch, heads, seq, head_dim]`; `k` and `v` are `[batch, key heads, keys, head_dim]`;
/// the mask is `[batch or 1, 1, seq, keys]`, true where a query must not attend to a key.
/// The last query has the position of the last key. Only a single query may have no mask: it attends
/// to every key. Returns `[batch, heads, seq, head_dim]`.
pub(crate) fn attend(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    scale: f64,
) -> Tensor<4> {
    fused!(attention(&q, &k, &v, mask, scale));
    #[cfg(feature = "custom-backward")]
    if let Some(attended) = recomputed::attend(&q, &k, &v, mask, scale) {
        return attended;
    }
    let ([batch, heads, seq, dim], kv_heads) = (q.dims(), k.dims()[1]);
    if mask.is_some() || q.device().is_autodiff() {
        let extent = if q.device().is_autodiff() {
            WRITTEN_OUT
        } else {
            RECOMPUTED
        };
        return attend_in_blocks(&Inputs::new(q, k, v, mask, scale), extent);
    }
    let q = q.reshape([batch, kv_heads, heads / kv_heads * seq, dim]);
    let options = AttentionModuleOptions {
        // With a scale, Burn does not use the fast kernel of a GPU.
        scale: (scale != usual_scale(dim)).then_some(scale),
        ..AttentionModuleOptions::default()
    };
    let weighted = attention(q, k, v, None, None, options);
    weighted.reshape([batch, heads, seq, dim])
}

/// [`attend`] for queries, keys and values in one tensor, `[batch, seq, (heads + 2 key heads) *
/// head_dim]`.
pub(crate) fn attend_joint(
    x: &Tensor<3>,
    [heads, kv_heads]: [usize; 2],
    mask: Option<&Tensor<4, Bool>>,
    scale: f64,
) -> Tensor<4> {
    fused!(joint_attention(x, [heads, kv_heads], mask, scale));
    let [batch, seq, width] = x.dims();
    let dim = width / (heads + 2 * kv_heads);
    let part = |first: usize, count: usize| {
        let part = x.clone().narrow(2, first * dim, count * dim);
        part.reshape([batch, seq, count, dim]).swap_dims(1, 2)
    };
    let (q, k) = (part(0, heads), part(heads, kv_heads));
    attend(q, k, part(heads + kv_heads, kv_heads), mask, scale)
}

/// [`attend`] in Burn's operations only.
///
/// If the inputs are tracked, it keeps one tensor of the size of the scores for the backward pass: the
/// exponentials. Computes only the scores of keys up to the last query of a block.
fn attend_in_blocks(inputs: &Inputs, extent: Extent) -> Tensor<4> {
    let dtype = inputs.v.dtype();
    let blocks = inputs.blocks(extent).map(|Block { v, scores, .. }| {
        // Normalized after the matmul with the values, so that no normalized weights are kept.
        let (sums, weighted) = if scores.is_tracked() {
            // Burn's exponential would keep its result a second time. So it runs on detached scores,
            // and its gradient comes from a term of value 0.
            let values = scores.clone().detach();
            let (exps, sums) = exponentials(values.clone());
            let zero = (scores - values) * exps.clone();
            let weighted = exps.cast(dtype).matmul(v.clone());
            let tracked = zero.clone().cast(dtype).matmul(v.detach());
            (sums + zero.sum_dim(3), weighted + tracked)
        } else {
            let (exps, sums) = exponentials(scores);
            (sums, exps.cast(dtype).matmul(v))
        };
        (weighted.cast(DType::F32) / sums).cast(dtype)
    });
    inputs.joined(blocks.collect())
}

/// The exponentials of scores relative to the largest of their row, and the sums of the rows.
fn exponentials(scores: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let largest = scores.clone().max_dim(3);
    let exps = (scores - largest).exp();
    (exps.clone(), exps.sum_dim(3))
}

/// Bytes for a batch of rows of `seq` tokens: kept for the backward pass besides queries, keys and values,
/// and needed during it for weights and scores.
pub(crate) fn attention_bytes(
    form: Form,
    rows: usize,
    heads: usize,
    seq: usize,
    dtype: DType,
) -> [u64; 2] {
    let cast = if dtype.size() < 4 { dtype.size() } else { 0 };
    let all = rows * heads;
    let [kept, during] = match form {
        // A block is of one row. Its scores exist twice for a moment, and its weights are kept or computed
        // again.
        Form::Fused => {
            let block = heads * FUSED.block(seq).min(seq) * seq * 4;
            if seq > KEPT {
                [0, 3 * block]
            } else {
                [all * FUSED.scores(seq) * 4, 2 * block]
            }
        }
        // Weights, their gradient, and the product of both in f32; copies in half precision.
        Form::Recomputed => {
            let block = RECOMPUTED.block(seq).min(seq) * seq;
            [0, all * block * (3 * 4 + 2 * cast)]
        }
        // Exponentials in f32, a copy in half precision, and the mask.
        Form::WrittenOut => [all * WRITTEN_OUT.scores(seq) * (4 + 1 + cast), 0],
    };
    [kept as u64, during as u64]
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution, Int};

    use crate::model::input::Input;
    use crate::model::mask;

    #[test]
    fn written_out_and_fused_attention_agree() {
        let plain = Device::default();
        plain.seed(1);
        // One block; several; several of which the last is short.
        for seq in [5, 384, 391] {
            agree(seq, &plain);
        }
    }

    /// A product with a power of two is exact, so it may come before or after a matmul.
    #[test]
    fn every_form_multiplies_the_scores_by_the_scale() {
        let plain = Device::flex();
        plain.seed(2);
        let random =
            |heads, seq| Tensor::<4>::random([2, heads, seq, 8], Distribution::Default, &plain);
        let (k, v) = (random(2, 5), random(2, 5));
        let mask = Tensor::<2, Bool>::tril_mask([5, 5], 0, &plain).reshape([1, 1, 5, 5]);
        let autodiff = plain.clone().autodiff();
        let written_out = autodiff.clone().gradient_checkpointing();
        // All queries, and the last one, which has no mask.
        for (q, mask) in [(random(4, 5), Some(&mask)), (random(4, 1), None)] {
            for device in [&plain, &autodiff, &written_out] {
                for dtype in [DType::F32, DType::BF16] {
                    let on = |x: &Tensor<4>| {
                        Tensor::<4>::from_data(x.to_data(), (device, DType::F32)).cast(dtype)
                    };
                    let run = |factor: f64, scale: f64| {
                        let q = on(&q);
                        let q = if device.is_autodiff() {
                            q.require_grad()
                        } else {
                            q
                        };
                        let scaled = q.clone().mul_scalar(factor);
                        let out = attend(scaled, on(&k), on(&v), mask, scale);
                        let gradient = device.is_autodiff().then(|| {
                            let gradients = out.clone().sum().backward();
                            q.grad(&gradients).unwrap().into_data()
                        });
                        (out.into_data(), gradient)
                    };
                    assert_eq!(run(0.25, 1.0), run(1.0, 0.25), "{device:?}, {dtype:?}");
                }
            }
        }
    }

    fn agree(seq: usize, plain: &Device) {
        let random = |heads| Tensor::<4>::random([2, heads, seq, 8], Distribution::Default, plain);
        let (q, k, v) = (random(4), random(2), random(2));
        let starts = |at: usize| (0..seq).map(move |i| i64::from(i >= at) + i64::from(i > 70));
        let segments: Vec<i64> = starts(3).chain(starts(2)).collect();
        let segments = Tensor::<1, Int>::from_data(segments.as_slice(), plain).reshape([2, seq]);
        let mut input = Input::new(segments.clone());
        input.segments = Some(segments);
        let run = |device: &Device| {
            let on = |x: &Tensor<4>| Tensor::<4>::from_data(x.to_data(), device);
            let mask = mask::of(&input, 0, Some(90), plain);
            attend(on(&q), on(&k), on(&v), mask.as_ref(), usual_scale(8)).into_data()
        };
        // With Burn's gradient checkpointing, operations are not fused, whatever the features are.
        let written_out = plain.clone().autodiff().gradient_checkpointing();
        let (fused, steps) = (run(plain), run(&written_out));
        for (a, b) in fused.iter::<f32>().zip(steps.iter::<f32>()) {
            assert!((a - b).abs() < 1e-6, "{a} {b}");
        }
    }
}
