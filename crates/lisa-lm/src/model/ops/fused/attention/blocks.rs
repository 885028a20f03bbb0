//! The forward and the backward pass of attention, block by block along the queries.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn_flex::FlexTensor;

use super::sizes::{Block, Sizes};
use crate::model::ops::extent::KEPT;
use crate::model::ops::fused::autodiff::values;
use crate::model::ops::fused::rows::{Out, Rows, row_of, run};
use crate::model::ops::fused::softmax::{Mask, Softmax, SoftmaxBackward};

/// The inputs, grouped.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    pub(super) sizes: Sizes,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    mask: Option<FlexTensor>,
    /// The factor of the scores.
    scale: f32,
}

impl Inputs {
    pub(super) fn new(
        sizes: Sizes,
        heads: [FlexTensor; 3],
        mask: Option<FlexTensor>,
        scale: f64,
    ) -> Self {
        let [q, k, v] = heads.map(|heads| sizes.grouped(heads));
        Self {
            sizes,
            q,
            k,
            v,
            mask,
            scale: scale as f32,
        }
    }

    /// The queries of a block, and the keys and values that they see.
    fn of(&self, block: Block) -> [FlexTensor; 3] {
        let seen = |x: &FlexTensor| x.narrow(0, block.row, 1).narrow(3, 0, block.seen);
        [block.queries_of(&self.q), seen(&self.k), seen(&self.v)]
    }

    /// The attention weights of a block.
    fn weights(&self, block: Block, q: FlexTensor, k: &FlexTensor) -> FlexTensor {
        let mut scores = Flex::float_matmul(q, k.transpose(3, 4));
        let mask = self.mask.as_ref().map(|mask| Mask {
            bytes: mask.storage(),
            seq: self.sizes.seq,
            keys: self.sizes.keys,
            row: block.row,
            first: block.first,
            block: block.queries,
        });
        let kernel = Softmax {
            scale: self.scale,
            mask,
        };
        let out = Out::new(scores.storage_mut(), block.seen);
        run(&kernel, out, Out::none());
        scores
    }

    /// The result, `[batch, seq, heads, dim]`, and what the backward pass keeps.
    pub(super) fn attend(self, has_autodiff: bool) -> (Vec<f32>, Kept) {
        let sizes = self.sizes;
        let heads = sizes.heads();
        let mut out = vec![0.0; sizes.batch * sizes.seq * heads * sizes.dim];
        let mut weights = Vec::new();
        let keeps = has_autodiff && sizes.seq <= KEPT;
        for block in sizes.blocks() {
            let [q, k, v] = self.of(block);
            let of_block = self.weights(block, q, &k);
            let part = Flex::float_matmul(of_block.clone(), v);
            place(&sizes, &part, &mut out, block);
            if keeps {
                weights.push(of_block);
            }
        }
        let kept = Kept {
            inputs: self,
            weights,
        };
        (out, kept)
    }
}

/// The state for the backward pass: the inputs, and the attention weights of each block if they
/// are not computed again.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) inputs: Inputs,
    weights: Vec<FlexTensor>,
}

impl Kept {
    /// The gradients of q, k and v that are wanted, each `[batch, rows, heads, dim]`; the others
    /// are empty. `grad` is the gradient of the result.
    pub(super) fn gradients(self, grad: FlexTensor, wanted: [bool; 3]) -> [Vec<f32>; 3] {
        let inputs = self.inputs;
        let sizes = inputs.sizes;
        let grad = sizes.grouped(grad);
        let rows = [
            sizes.seq * sizes.heads(),
            sizes.keys * sizes.kv_heads,
            sizes.keys * sizes.kv_heads,
        ];
        let zeros = |index: usize| {
            let count = sizes.batch * rows[index] * sizes.dim;
            vec![0.0; if wanted[index] { count } else { 0 }]
        };
        let [mut dq, mut dk, mut dv] = [zeros(0), zeros(1), zeros(2)];
        let mut kept = self.weights.into_iter();
        for block in sizes.blocks() {
            let [q, k, v] = inputs.of(block);
            let weights = match kept.next() {
                Some(weights) => weights,
                None => inputs.weights(block, q.clone(), &k),
            };
            let grad = block.queries_of(&grad);
            if wanted[2] {
                let part = Flex::float_matmul(weights.transpose(3, 4), grad.clone());
                add(&sizes, &part, &mut dv, block);
            }
            if !wanted[0] && !wanted[1] {
                continue;
            }
            let mut scores = Flex::float_matmul(grad, v.transpose(3, 4));
            let kernel = SoftmaxBackward {
                weights: values(&weights),
                scale: inputs.scale,
            };
            let out = Out::new(scores.storage_mut(), block.seen);
            run(&kernel, out, Out::none());
            drop(weights);
            if wanted[1] {
                let part = Flex::float_matmul(scores.transpose(3, 4), q);
                add(&sizes, &part, &mut dk, block);
            }
            if wanted[0] {
                let part = Flex::float_matmul(scores, k);
                place(&sizes, &part, &mut dq, block);
            }
        }
        [dq, dk, dv]
    }
}

/// Adds rows of `[key heads, groups, queries, dim]` to those of `[batch, seq, heads, dim]`.
fn place(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], block: Block) {
    let kernel = SumGroups {
        part: values(part),
        rows: block.queries,
        heads: sizes.heads(),
        groups: 1,
    };
    kernel.run(sizes.dim, whole, block.row * sizes.seq + block.first);
}

/// Adds rows of `[key heads, groups, seen, dim]`, summed over the groups, to `[batch, keys, key
/// heads, dim]`.
fn add(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], block: Block) {
    let kernel = SumGroups {
        part: values(part),
        rows: block.seen,
        heads: sizes.kv_heads,
        groups: sizes.groups,
    };
    kernel.run(sizes.dim, whole, block.row * sizes.keys);
}

/// Adds rows of `[heads, groups, rows, dim]`, summed over the groups, to those of `[rows, heads,
/// dim]`.
#[derive(Clone, Copy)]
struct SumGroups<'a> {
    part: &'a [f32],
    heads: usize,
    groups: usize,
    rows: usize,
}

impl Rows for SumGroups<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let (row, head) = (index / self.heads, index % self.heads);
        for group in 0..self.groups {
            let part = (head * self.groups + group) * self.rows + row;
            let part = row_of(self.part, part, out.len());
            for (out, x) in out.iter_mut().zip(part) {
                *out += x;
            }
        }
    }
}

impl SumGroups<'_> {
    /// `whole` is `[all, heads, dim]`; the rows are added to its rows from `first` on.
    fn run(self, dim: usize, whole: &mut [f32], first: usize) {
        let width = self.heads * dim;
        let place = &mut whole[first * width..(first + self.rows) * width];
        run(&self, Out::new(place, dim), Out::none());
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;
    use crate::model::ops::extent::FUSED;

    #[test]
    fn only_short_sequences_keep_attention_weights() {
        let elements_kept = |seq: usize| {
            let sizes = Sizes {
                batch: 2,
                kv_heads: 1,
                groups: 2,
                seq,
                keys: seq,
                dim: 4,
            };
            let heads = |count: usize| {
                let zeros = TensorData::zeros::<f32, _>([2, count, seq, 4]);
                FlexTensor::from_data(zeros)
            };
            let inputs = Inputs::new(sizes, [heads(2), heads(1), heads(1)], None, 0.5);
            let (_, kept) = inputs.attend(true);
            let count = |weights: &FlexTensor| weights.layout().num_elements();
            kept.weights.iter().map(count).sum::<usize>()
        };
        // Two rows of two heads: blocks of 128 queries, each up to its last key.
        assert_eq!(elements_kept(KEPT), 4 * FUSED.scores(KEPT));
        assert_eq!(elements_kept(KEPT + 1), 0);
    }
}
