//! Attention with its softmax, forward and backward, block by block along the queries.
//!
//! The heads may have the memory layout of the projections' outputs, `[batch, seq, heads,
//! head_dim]`, or be parts of one projection's output: they are not copied, and the result has the
//! same layout. Only one block of scores exists at a time. Short sequences keep the attention
//! weights for the backward pass; longer ones compute them again, so that memory grows with the
//! number of tokens and not with its square.

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
use crate::model::ops::extent::{FUSED, KEPT};

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

/// Queries of one row of the batch.
#[derive(Clone, Copy, Debug)]
struct Block {
    row: usize,
    /// The first query, and the number of queries.
    first: usize,
    queries: usize,
    /// The number of keys up to the last query.
    seen: usize,
}

impl Block {
    /// The queries of `[batch, key heads, groups, seq, dim]`.
    fn queries_of(self, x: &FlexTensor) -> FlexTensor {
        x.narrow(0, self.row, 1).narrow(3, self.first, self.queries)
    }
}

impl Sizes {
    fn scale(&self) -> f32 {
        (self.dim as f64).powf(-0.5) as f32
    }

    fn heads(&self) -> usize {
        self.kv_heads * self.groups
    }

    fn blocks(self) -> impl Iterator<Item = Block> {
        let before = self.keys - self.seq;
        (0..self.batch).flat_map(move |row| {
            FUSED.ranges(self.seq).map(move |(first, end)| Block {
                row,
                first,
                queries: end - first,
                seen: before + end,
            })
        })
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

    /// Heads `first..first + count` of `[batch, seq, all heads * dim]`, as `[batch, count, seq,
    /// dim]`, without a copy.
    fn part(&self, joint: &FlexTensor, first: usize, count: usize) -> FlexTensor {
        let width = (self.heads() + 2 * self.kv_heads) * self.dim;
        let start = joint.layout().start_offset() + first * self.dim;
        let shape = Shape::new([self.batch, count, self.seq, self.dim]);
        let strides = [self.seq * width, self.dim, width, 1].map(|stride| stride as isize);
        let layout = Layout::new(shape, strides.to_vec(), start);
        joint.clone().with_layout(layout)
    }

    /// Values in the order `[batch, rows, heads, dim]`, as a tensor `[batch, heads, rows, dim]`.
    fn heads_of(&self, values: Vec<f32>, heads: usize, rows: usize) -> FlexTensor {
        tensor_of(values, Shape::new([self.batch, rows, heads, self.dim])).transpose(1, 2)
    }
}

/// The inputs, grouped.
#[derive(Clone, Debug)]
struct Inputs {
    sizes: Sizes,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    mask: Option<FlexTensor>,
}

impl Inputs {
    fn new(sizes: Sizes, heads: [FlexTensor; 3], mask: Option<FlexTensor>) -> Self {
        let [q, k, v] = heads.map(|heads| sizes.grouped(heads));
        Self {
            sizes,
            q,
            k,
            v,
            mask,
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
            scale: self.sizes.scale(),
            mask,
        };
        let out = Out::new(scores.storage_mut(), block.seen);
        run(&kernel, out, Out::none());
        scores
    }

    /// The result, `[batch, seq, heads, dim]`, and what the backward pass keeps.
    fn attend(self, has_autodiff: bool) -> (Vec<f32>, Kept) {
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
struct Kept {
    inputs: Inputs,
    weights: Vec<FlexTensor>,
}

impl Kept {
    /// The gradients of q, k and v that are wanted, each `[batch, rows, heads, dim]`; the others
    /// are empty. `grad` is the gradient of the result.
    fn gradients(self, grad: FlexTensor, wanted: [bool; 3]) -> [Vec<f32>; 3] {
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
                scale: sizes.scale(),
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
    let has_autodiff = inputs.iter().any(Operand::has_autodiff);
    apply(AttentionOp, inputs, |heads_of| {
        let (out, kept) = Inputs::new(sizes, heads_of, mask).attend(has_autodiff);
        (sizes.heads_of(out, heads, seq), kept)
    })
}

#[derive(Debug)]
struct AttentionOp;

impl Backward<Flex, 3> for AttentionOp {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let sizes = ops.state.inputs.sizes;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let parts = ops.state.gradients(grad, wanted);
        let (queries, keys) = ((sizes.heads(), sizes.seq), (sizes.kv_heads, sizes.keys));
        let shapes = [queries, keys, keys];
        for ((parent, grad), (heads, rows)) in ops.parents.into_iter().zip(parts).zip(shapes) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, sizes.heads_of(grad, heads, rows));
            }
        }
    }
}

/// As [`attend_joint`](crate::model::ops::attend_joint).
pub(crate) fn joint_attention(
    x: &Tensor<3>,
    heads: usize,
    kv_heads: usize,
    mask: Option<&Tensor<4, Bool>>,
) -> Option<Tensor<4>> {
    let mask = match mask {
        Some(mask) => Some(mask_of(mask)?),
        None => None,
    };
    let [batch, seq, width] = x.dims();
    let sizes = Sizes {
        batch,
        kv_heads,
        groups: heads / kv_heads,
        seq,
        keys: seq,
        dim: width / (heads + 2 * kv_heads),
    };
    let input = Operand::of(x)?;
    let has_autodiff = input.has_autodiff();
    apply(JointOp, [input], |[x]| {
        let x = x.to_contiguous();
        let [q, k, v] = [(0, heads), (heads, kv_heads), (heads + kv_heads, kv_heads)];
        let parts = [q, k, v].map(|(first, count)| sizes.part(&x, first, count));
        let (out, kept) = Inputs::new(sizes, parts, mask).attend(has_autodiff);
        (sizes.heads_of(out, heads, seq), kept)
    })
}

#[derive(Debug)]
struct JointOp;

impl Backward<Flex, 1> for JointOp {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [Some(parent)] = ops.parents else {
            return;
        };
        let sizes = ops.state.inputs.sizes;
        let parts = ops.state.gradients(grad, [true; 3]);
        let tokens = sizes.batch * sizes.seq;
        let width = (sizes.heads() + 2 * sizes.kv_heads) * sizes.dim;
        let mut joint = Vec::with_capacity(tokens * width);
        for token in 0..tokens {
            for part in &parts {
                joint.extend_from_slice(row_of(part, token, part.len() / tokens));
            }
        }
        let shape = Shape::new([sizes.batch, sizes.seq, width]);
        grads.register::<Flex>(parent.id, tensor_of(joint, shape));
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

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
            let inputs = Inputs::new(sizes, [heads(2), heads(1), heads(1)], None);
            let (_, kept) = inputs.attend(true);
            let count = |weights: &FlexTensor| weights.layout().num_elements();
            kept.weights.iter().map(count).sum::<usize>()
        };
        // Two rows of two heads: blocks of 128 queries, each up to its last key.
        assert_eq!(elements_kept(KEPT), 4 * FUSED.scores(KEPT));
        assert_eq!(elements_kept(KEPT + 1), 0);
    }
}
