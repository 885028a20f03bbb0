//! Attention that computes its weights again in the backward pass, in Burn's operations.
//!
//! It keeps queries, keys, values and mask, so that memory grows with the number of tokens and not
//! with its square. Only the scores of one block of queries exist at a time. The additional time is
//! one matmul of queries and keys, and one softmax.

use burn::tensor::{Bool, DType, Tensor};

use super::attend_in_blocks;
use super::blocks::{Block, Inputs, scale};
use crate::model::ops::custom::{CustomBackward, with_backward};
use crate::model::ops::extent::RECOMPUTED;

/// As [`attend`](super::attend), for tensors with autodiff. `None` if the backend is not supported.
pub(super) fn attend(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
) -> Option<Tensor<4>> {
    let mask = mask.map(|mask| {
        if mask.device().is_autodiff() {
            mask.clone().inner()
        } else {
            mask.clone()
        }
    });
    with_backward([q, k, v], |[q, k, v]| {
        let inputs = Inputs::new(q, k, v, mask.as_ref());
        (attend_in_blocks(&inputs, RECOMPUTED), inputs)
    })
}

/// The exponentials of scores relative to the largest of their row, and the sums of the rows.
fn exponentials(scores: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
    let exps = (scores.clone() - scores.max_dim(3)).exp();
    (exps.clone(), exps.sum_dim(3))
}

impl CustomBackward<4, 3> for Inputs {
    fn gradients(self, gradient: Tensor<4>, wanted: [bool; 3]) -> [Option<Tensor<4>>; 3] {
        let [batch, kv_heads, groups, seq, dim] = self.q.dims();
        let dtype = self.v.dtype();
        let gradient = gradient.reshape([batch, kv_heads, groups, seq, dim]);
        let (mut of_q, mut of_k, mut of_v) =
            (Vec::new(), SumOverBlocks::new(), SumOverBlocks::new());
        let mut end = seq;
        for block in self.blocks(RECOMPUTED).rev() {
            let Block {
                queries,
                q,
                k,
                v,
                scores,
            } = block;
            let first = end - queries;
            let gradient = gradient.clone().slice_dim(3, first..end);
            let gradient = gradient.reshape([batch, kv_heads, groups * queries, dim]);
            end = first;
            let (exps, sums) = exponentials(scores);
            let weights = exps / sums;
            if wanted[2] {
                let weights = weights.clone().cast(dtype);
                of_v.add(weights.transpose().matmul(gradient.clone()));
            }
            if !wanted[0] && !wanted[1] {
                continue;
            }
            let of_weights = gradient.matmul(v.transpose()).cast(DType::F32);
            let mean = (of_weights.clone() * weights.clone()).sum_dim(3);
            let of_scores = ((of_weights - mean) * weights).cast(dtype);
            if wanted[1] {
                of_k.add(of_scores.clone().transpose().matmul(q));
            }
            if wanted[0] {
                of_q.push(of_scores.matmul(k).mul_scalar(scale(dim)));
            }
        }
        of_q.reverse();
        let of_q = wanted[0].then(|| self.joined(of_q));
        [of_q, of_k.finish(dtype), of_v.finish(dtype)]
    }
}

/// The sum over blocks, from the last to the first, of gradients of the keys that a block sees. In f32,
/// because there may be many blocks.
struct SumOverBlocks {
    /// Of the keys that the last block added sees.
    sum: Option<Tensor<4>>,
    /// Of the keys after them, which no further block sees: from the last keys to the first.
    done: Vec<Tensor<4>>,
}

impl SumOverBlocks {
    fn new() -> Self {
        Self {
            sum: None,
            done: Vec::new(),
        }
    }

    /// Adds `[batch, key heads, seen, head_dim]`.
    fn add(&mut self, part: Tensor<4>) {
        let part = part.cast(DType::F32);
        let seen = part.dims()[2];
        self.sum = Some(match self.sum.take() {
            None => part,
            Some(sum) => {
                let before = sum.dims()[2];
                self.done.push(sum.clone().slice_dim(2, seen..before));
                sum.slice_dim(2, 0..seen) + part
            }
        });
    }

    /// The sums of all keys.
    fn finish(self, dtype: DType) -> Option<Tensor<4>> {
        let first = self.sum?;
        let sum = if self.done.is_empty() {
            first
        } else {
            let done = self.done.into_iter().rev();
            Tensor::cat([first].into_iter().chain(done).collect(), 2)
        };
        Some(sum.cast(dtype))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, TensorData};

    use super::*;
    use crate::model::input::Input;
    use crate::model::mask;
    use crate::model::ops::extent::WRITTEN_OUT;

    /// Result and gradients, by this form of attention and by Burn's operations only.
    fn both(seq: usize, dtype: DType, tracked: [bool; 3]) -> [Vec<Vec<f32>>; 2] {
        let device = Device::flex();
        let values = |heads: usize, step: usize| {
            let value = |i: usize| (i * step % 1009) as f32 / 504.0 - 1.0;
            let values: Vec<f32> = (0..2 * heads * seq * 8).map(value).collect();
            let values = TensorData::new(values, [2, heads, seq, 8]);
            Tensor::<4>::from_data(values, &device).cast(dtype)
        };
        let inputs = [values(4, 37), values(2, 53), values(2, 71)];
        let gradient = values(4, 89);
        // Two rows with segments and a window.
        let starts = |at: usize| (0..seq).map(move |i| i64::from(i >= at) + i64::from(i > 70));
        let segments: Vec<i64> = starts(3).chain(starts(2)).collect();
        let segments = Tensor::<1, Int>::from_data(segments.as_slice(), &device);
        let segments = segments.reshape([2, seq]);
        let mut input = Input::new(segments.clone());
        input.segments = Some(segments);
        let mask = mask::of(&input, 0, Some(600), &device);
        let run = |recomputes: bool| {
            let [q, k, v] = [0, 1, 2].map(|at| {
                let x = Tensor::from_inner(inputs[at].clone());
                if tracked[at] { x.require_grad() } else { x }
            });
            let out = if recomputes {
                attend(&q, &k, &v, mask.as_ref()).unwrap()
            } else {
                let mask = mask.clone().map(Tensor::from_inner);
                let inputs = Inputs::new(q.clone(), k.clone(), v.clone(), mask.as_ref());
                attend_in_blocks(&inputs, WRITTEN_OUT)
            };
            let loss = (out.clone() * Tensor::from_inner(gradient.clone())).sum();
            let grads = loss.backward();
            let found = [q, k, v].map(|x| x.grad(&grads));
            assert_eq!(found.each_ref().map(Option::is_some), tracked);
            let all = [Some(out.inner())].into_iter().chain(found).flatten();
            all.map(|x| x.into_data().iter::<f32>().collect()).collect()
        };
        [run(true), run(false)]
    }

    #[test]
    fn the_gradients_are_those_of_autodiff() {
        // One block; several; several of which the last is short.
        for seq in [5, 512, 700] {
            for tracked in [[true; 3], [true, false, false], [false, true, true]] {
                let [found, expected] = both(seq, DType::F32, tracked);
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let apart = (found - expected).abs();
                    assert!(apart < 2e-6 * expected.abs().max(1.0), "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn half_precision_is_as_near_to_f32_as_with_autodiff() {
        let rounded = |dtype| both(700, dtype, [true; 3]);
        for dtype in [DType::BF16, DType::F16] {
            let [found, expected] = rounded(dtype);
            let [exact, _] = both(700, DType::F32, [true; 3]);
            for ((found, expected), exact) in found.iter().zip(&expected).zip(&exact) {
                let error = |x: &[f32]| {
                    let apart = x.iter().zip(exact).map(|(x, exact)| (x - exact).powi(2));
                    apart.sum::<f32>()
                };
                assert!(error(found) < 1.1 * error(expected), "{dtype:?}");
            }
        }
    }
}
