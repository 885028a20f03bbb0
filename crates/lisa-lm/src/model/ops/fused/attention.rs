//! Attention with its softmax, forward and backward, block by block along the queries.
//!
//! The heads may have the memory layout of the projections' outputs, `[batch, seq, heads,
//! head_dim]`: they are not copied, and the result has the same layout.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Bool, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::{FlexTensor, Layout};

use super::autodiff::{Operand, apply, mask_of, tensor_of, values, with_rows};
use super::rows::{Out, Rows, row_of, run};
use super::softmax::{Mask, Softmax, SoftmaxBackward};
use crate::model::ops::extent::FUSED;

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    batch: usize,
    kv_heads: usize,
    /// Query heads for each key head.
    groups: usize,
    seq: usize,
    keys: usize,
    dim: usize,
}

impl Sizes {
    fn scale(&self) -> f32 {
        (self.dim as f64).powf(-0.5) as f32
    }

    /// The first query of each block, the number of queries, and the number of keys up to its last
    /// query.
    fn blocks(self) -> impl Iterator<Item = (usize, usize, usize)> {
        let before = self.keys - self.seq;
        FUSED
            .ranges(self.seq)
            .map(move |(first, end)| (first, end - first, before + end))
    }

    /// `[batch, heads, seq, dim]` as `[batch, key heads, groups, seq, dim]`, without a copy.
    fn grouped(&self, heads: FlexTensor) -> FlexTensor {
        let heads = with_rows(heads);
        let layout = heads.layout();
        let (start, old) = (layout.start_offset(), layout.strides());
        let [_, all, rows, dim] = layout.shape().dims();
        let groups = all / self.kv_heads;
        let shape = Shape::new([self.batch, self.kv_heads, groups, rows, dim]);
        let strides = vec![old[0], old[1] * groups as isize, old[1], old[2], old[3]];
        heads.with_layout(Layout::new(shape, strides, start))
    }

    /// Values in the order `[batch, rows, heads, dim]`, as a tensor `[batch, heads, rows, dim]`.
    fn heads_of(&self, values: Vec<f32>, heads: usize, rows: usize) -> FlexTensor {
        tensor_of(values, Shape::new([self.batch, rows, heads, self.dim])).transpose(1, 2)
    }
}

/// The state for the backward pass: the inputs, grouped, and the attention weights of each block.
#[derive(Clone, Debug)]
struct Kept {
    sizes: Sizes,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    weights: Vec<FlexTensor>,
}

/// As [`attend`](crate::model::ops::attend).
pub(crate) fn attention(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
) -> Option<Tensor<4>> {
    let mask = match mask {
        Some(mask) => Some(mask_of(mask)?),
        None => None,
    };
    let [batch, heads, seq, dim] = q.dims();
    let [_, kv_heads, keys, _] = k.dims();
    let sizes = Sizes {
        batch,
        kv_heads,
        groups: heads / kv_heads,
        seq,
        keys,
        dim,
    };
    let inputs = [Operand::of(q)?, Operand::of(k)?, Operand::of(v)?];
    let keeps = inputs
        .iter()
        .any(|input| matches!(input, Operand::Autodiff(_)));
    apply(AttentionOp, inputs, |[q, k, v]| {
        let (q, k, v) = (sizes.grouped(q), sizes.grouped(k), sizes.grouped(v));
        let mut out = vec![0.0; batch * seq * heads * dim];
        let mut weights = Vec::new();
        for (first, block, seen) in sizes.blocks() {
            let (q, k, v) = (
                q.narrow(3, first, block),
                k.narrow(3, 0, seen),
                v.narrow(3, 0, seen),
            );
            let mut scores = Flex::float_matmul(q, k.transpose(3, 4));
            let mask = mask.as_ref().map(|mask| Mask {
                bytes: mask.storage(),
                kv_heads,
                groups: sizes.groups,
                seq,
                keys,
                first,
                block,
            });
            let kernel = Softmax {
                scale: sizes.scale(),
                mask,
            };
            run(&kernel, Out::new(scores.storage_mut(), seen), Out::none());
            let part = Flex::float_matmul(scores.clone(), v);
            place(&sizes, &part, &mut out, first);
            if keeps {
                weights.push(scores);
            }
        }
        let kept = Kept {
            sizes,
            q,
            k,
            v,
            weights,
        };
        (sizes.heads_of(out, heads, seq), kept)
    })
}

/// Adds rows of `[batch, key heads, groups, block, dim]` to those of `[batch, seq, heads, dim]`.
fn place(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], first: usize) {
    let (part, heads) = (values(part), sizes.kv_heads * sizes.groups);
    let rows = part.len() / (sizes.batch * heads * sizes.dim);
    let kernel = SumGroups {
        part,
        rows,
        heads,
        groups: 1,
    };
    kernel.run(sizes, whole, (first, sizes.seq));
}

/// Adds rows of `[batch, key heads, groups, seen, dim]`, summed over the groups, to `[batch, keys,
/// key heads, dim]`.
fn add(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], seen: usize) {
    let kernel = SumGroups {
        part: values(part),
        rows: seen,
        heads: sizes.kv_heads,
        groups: sizes.groups,
    };
    kernel.run(sizes, whole, (0, sizes.keys));
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
    /// `whole` is `[batch, all, heads, dim]`; the rows are added to its rows from `first` on.
    fn run(self, sizes: &Sizes, whole: &mut [f32], (first, all): (usize, usize)) {
        let width = self.heads * sizes.dim;
        let each = self.part.len() / sizes.batch;
        for (batch, whole) in whole.chunks_exact_mut(all * width).enumerate() {
            let kernel = SumGroups {
                part: &self.part[batch * each..(batch + 1) * each],
                ..self
            };
            let place = &mut whole[first * width..(first + self.rows) * width];
            run(&kernel, Out::new(place, sizes.dim), Out::none());
        }
    }
}

#[derive(Debug)]
struct AttentionOp;

impl Backward<Flex, 3> for AttentionOp {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let Kept {
            sizes,
            q,
            k,
            v,
            weights,
        } = ops.state;
        let grad = sizes.grouped(grad);
        let heads = sizes.kv_heads * sizes.groups;
        let [of_q, of_k, of_v] = ops.parents;
        let zeros = |rows: usize, heads: usize, wanted: bool| {
            let count = sizes.batch * rows * heads * sizes.dim;
            vec![0.0; if wanted { count } else { 0 }]
        };
        let mut dq = zeros(sizes.seq, heads, of_q.is_some());
        let mut dk = zeros(sizes.keys, sizes.kv_heads, of_k.is_some());
        let mut dv = zeros(sizes.keys, sizes.kv_heads, of_v.is_some());
        for ((first, block, seen), weights) in sizes.blocks().zip(weights) {
            let (q, grad) = (q.narrow(3, first, block), grad.narrow(3, first, block));
            let (k, v) = (k.narrow(3, 0, seen), v.narrow(3, 0, seen));
            if of_v.is_some() {
                let part = Flex::float_matmul(weights.transpose(3, 4), grad.clone());
                add(&sizes, &part, &mut dv, seen);
            }
            if of_q.is_none() && of_k.is_none() {
                continue;
            }
            let mut scores = Flex::float_matmul(grad, v.transpose(3, 4));
            let kernel = SoftmaxBackward {
                weights: values(&weights),
                scale: sizes.scale(),
            };
            run(&kernel, Out::new(scores.storage_mut(), seen), Out::none());
            drop(weights);
            if of_k.is_some() {
                let part = Flex::float_matmul(scores.transpose(3, 4), q);
                add(&sizes, &part, &mut dk, seen);
            }
            if of_q.is_some() {
                let part = Flex::float_matmul(scores, k);
                place(&sizes, &part, &mut dq, first);
            }
        }
        let parts = [
            (of_q, dq, heads, sizes.seq),
            (of_k, dk, sizes.kv_heads, sizes.keys),
            (of_v, dv, sizes.kv_heads, sizes.keys),
        ];
        for (parent, grad, heads, rows) in parts {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, sizes.heads_of(grad, heads, rows));
            }
        }
    }
}
