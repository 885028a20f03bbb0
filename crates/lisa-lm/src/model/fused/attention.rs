//! Attention with its softmax, block by block along the queries.
//!
//! Heads may lie in memory as the products before them left them, `[batch, seq, heads, dim]`: the
//! products of each head take them as they are, and the result lies the same way. Tests: `tests.rs`.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Bool, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::{FlexTensor, Layout};

use super::BLOCK;
use super::kernels::{Mask, Softmax, SoftmaxBackward, SumGroups};
use super::ops::{Place, apply, mask_of, numbers, tensor_of, with_rows};
use super::rows::{Out, run};

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

    /// First query of each block, how many there are, and how many keys they may see.
    fn blocks(self) -> impl Iterator<Item = (usize, usize, usize)> {
        (0..self.seq).step_by(BLOCK).map(move |first| {
            let end = (first + BLOCK).min(self.seq);
            // Queries are the last of the keys.
            (first, end - first, self.keys - self.seq + end)
        })
    }

    /// `[batch, heads, seq, dim]` as `[batch, key heads, groups, seq, dim]`, in the same memory.
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

    /// Numbers that lie as `[batch, rows, heads, dim]`, as `[batch, heads, rows, dim]`.
    fn heads_of(&self, numbers: Vec<f32>, heads: usize, rows: usize) -> FlexTensor {
        tensor_of(numbers, Shape::new([self.batch, rows, heads, self.dim])).transpose(1, 2)
    }
}

/// What is kept for backward: the inputs, grouped, and the weights of each block.
#[derive(Clone, Debug)]
struct Kept {
    sizes: Sizes,
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    weights: Vec<FlexTensor>,
}

/// As [`attend`](crate::model::attention::attend).
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
    let inputs = [Place::of(q)?, Place::of(k)?, Place::of(v)?];
    let keeps = inputs.iter().any(|input| matches!(input, Place::Taped(_)));
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

/// Puts rows of `[batch, key heads, groups, block, dim]` into `[batch, seq, heads, dim]`.
fn place(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], first: usize) {
    let (part, heads) = (numbers(part), sizes.kv_heads * sizes.groups);
    let rows = part.len() / (sizes.batch * heads * sizes.dim);
    let kernel = SumGroups {
        part,
        rows,
        heads,
        groups: 1,
    };
    kernel.run(sizes, whole, (first, sizes.seq));
}

/// Adds rows of `[batch, key heads, groups, seen, dim]`, over the groups, to `[batch, keys, key heads,
/// dim]`.
fn add(sizes: &Sizes, part: &FlexTensor, whole: &mut [f32], seen: usize) {
    let kernel = SumGroups {
        part: numbers(part),
        rows: seen,
        heads: sizes.kv_heads,
        groups: sizes.groups,
    };
    kernel.run(sizes, whole, (0, sizes.keys));
}

impl SumGroups<'_> {
    /// `whole` is `[batch, all, heads, dim]`, of which the part begins at `first`.
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
                weights: numbers(&weights),
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
