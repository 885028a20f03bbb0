//! Attention that computes its weights again in the backward pass, in Burn's operations.
//!
//! It keeps queries, keys, values and mask, so that memory grows with the number of tokens and not
//! with its square. Only the scores of one block of queries exist at a time. The additional time is
//! one matmul of queries and keys, and one softmax.

use burn::tensor::{Bool, DType, Tensor};

use super::blocks::{Block, Inputs};
use super::{attend_in_blocks, exponentials};
use crate::model::ops::custom::{CustomBackward, with_backward};
use crate::model::ops::extent::RECOMPUTED;

/// As [`attend`](super::attend), for tensors with autodiff. `None` if the backend is not supported.
pub(super) fn attend(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    scale: f64,
) -> Option<Tensor<4>> {
    let mask = mask.map(|mask| {
        if mask.device().is_autodiff() {
            mask.clone().inner()
        } else {
            mask.clone()
        }
    });
    with_backward([q, k, v], |[q, k, v]| {
        let inputs = Inputs::new(q, k, v, mask.as_ref(), scale);
        (attend_in_blocks(&inputs, RECOMPUTED), inputs)
    })
}

impl CustomBackward<4, 3> for Inputs {
    fn gradients(
        self,
        gradient: Tensor<4>,
        wanted: [bool; 3],
        _: impl FnMut(usize) -> Option<Tensor<4>>,
    ) -> [Option<Tensor<4>>; 3] {
        let [batch, kv_heads, groups, seq, dim] = self.q.dims();
        let dtype = self.v.dtype();
        let gradient = gradient.reshape([batch, kv_heads, groups, seq, dim]);
        let (mut of_q, mut of_k, mut of_v) = (
            Vec::new(),
            SumOverBlocks::default(),
            SumOverBlocks::default(),
        );
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
                of_q.push(of_scores.matmul(k).mul_scalar(self.scale));
            }
        }
        of_q.reverse();
        let of_q = wanted[0].then(|| self.joined(of_q));
        [of_q, of_k.finish(dtype), of_v.finish(dtype)]
    }
}

/// The sum over blocks, from the last to the first, of gradients of the keys that a block sees. In f32,
/// because there may be many blocks.
#[derive(Default)]
struct SumOverBlocks(Option<Tensor<4>>);

impl SumOverBlocks {
    /// Adds `[batch, key heads, seen, head_dim]`. The first block sees all keys.
    fn add(&mut self, part: Tensor<4>) {
        let part = part.cast(DType::F32);
        let [batch, heads, seen, dim] = part.dims();
        self.0 = Some(match self.0.take() {
            None => part,
            Some(sum) => {
                // A slice may be a view of the whole sum, so no slice is kept.
                let head = sum.clone().slice_dim(2, 0..seen) + part;
                sum.slice_assign([0..batch, 0..heads, 0..seen, 0..dim], head)
            }
        });
    }

    fn finish(self, dtype: DType) -> Option<Tensor<4>> {
        self.0.map(|sum| sum.cast(dtype))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Int, TensorData};

    use super::*;
    use crate::model::input::Input;
    use crate::model::mask;
    use crate::model::ops::extent::WRITTEN_OUT;
    use crate::model::ops::usual_scale;

    /// Result and gradients, by this form of attention and by Burn's operations only.
    ///
    /// The inputs are rounded to one dtype, and have another one.
    fn both(
        (seq, past): (usize, usize),
        (rounded, dtype): (DType, DType),
        tracked: [bool; 3],
    ) -> [Vec<Vec<f32>>; 2] {
        let device = Device::flex();
        let values = |heads: usize, rows: usize, step: usize| {
            let value = |i: usize| (i * step % 1009) as f32 / 504.0 - 1.0;
            let values: Vec<f32> = (0..2 * heads * rows * 8).map(value).collect();
            let values = TensorData::new(values, [2, heads, rows, 8]);
            let x = Tensor::<4>::from_data(values, &device);
            x.cast(rounded).cast(dtype)
        };
        let keys = seq + past;
        let inputs = [values(4, seq, 37), values(2, keys, 53), values(2, keys, 71)];
        let gradient = values(4, seq, 89);
        // Two rows with segments and a window.
        let starts = |at: usize| (0..seq).map(move |i| i64::from(i >= at) + i64::from(i > 70));
        let segments: Vec<i64> = starts(3).chain(starts(2)).collect();
        let segments = Tensor::<1, Int>::from_data(segments.as_slice(), &device);
        let segments = segments.reshape([2, seq]);
        let mut input = Input::new(segments.clone());
        input.segments = Some(segments);
        // Earlier keys, and no mask; or a mask.
        let mask = mask::of(&input, 0, Some(600), &device).filter(|_| past == 0);
        // Another scale than the usual one shows whether it is used.
        let scale = if rounded == DType::F32 {
            0.3
        } else {
            usual_scale(8)
        };
        let run = |recomputes: bool| {
            let [q, k, v] = [0, 1, 2].map(|at| {
                let x = Tensor::from_inner(inputs[at].clone());
                if tracked[at] { x.require_grad() } else { x }
            });
            let out = if recomputes {
                attend(&q, &k, &v, mask.as_ref(), scale).unwrap()
            } else {
                let mask = mask.clone().map(Tensor::from_inner);
                let inputs = Inputs::new(q.clone(), k.clone(), v.clone(), mask.as_ref(), scale);
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
        for sizes in [(5, 0), (512, 0), (700, 0), (5, 3)] {
            for tracked in [[true; 3], [true, false, false], [false, true, true]] {
                let [found, expected] = both(sizes, (DType::F32, DType::F32), tracked);
                for (found, expected) in found.iter().flatten().zip(expected.iter().flatten()) {
                    let apart = (found - expected).abs();
                    assert!(apart < 2e-6 * expected.abs().max(1.0), "{found} {expected}");
                }
            }
        }
    }

    #[test]
    fn half_precision_is_nearer_to_f32_than_with_autodiff() {
        for dtype in [DType::BF16, DType::F16] {
            let [found, expected] = both((2100, 0), (dtype, dtype), [true; 3]);
            let [_, exact] = both((2100, 0), (dtype, DType::F32), [true; 3]);
            // The result is as near, and the gradients are nearer.
            let bounds = [1.001, 0.9, 0.95, 0.95];
            let all = found.iter().zip(&expected).zip(&exact).zip(bounds);
            for (((found, expected), exact), most) in all {
                let error = |x: &[f32]| {
                    let apart = x.iter().zip(exact).map(|(x, exact)| (x - exact).powi(2));
                    apart.sum::<f32>()
                };
                let ratio = error(found) / error(expected);
                assert!(ratio < most, "{dtype:?}: {ratio}");
            }
        }
    }
}
