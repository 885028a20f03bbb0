//! Attention with its softmax, forward and backward, block by block along the queries.
//!
//! The heads may have the memory layout of the projections' outputs, `[batch, seq, heads,
//! head_dim]`, or be parts of one projection's output: they are not copied, and the result has the
//! same layout. Only one block of scores exists at a time. Short sequences keep the attention
//! weights for the backward pass; longer ones compute them again, so that memory grows with the
//! number of tokens and not with its square.

use burn::backend::Flex;
use burn::tensor::{Bool, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use super::autodiff::{Operand, apply, mask_of, tensor_of};
use super::rows::row_of;

mod blocks;
mod sizes;

use blocks::{Inputs, Kept};
use sizes::Sizes;

/// As [`attend`](crate::model::ops::attend).
pub(crate) fn attention(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    mask: Option<&Tensor<4, Bool>>,
    scale: f64,
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
        let (out, kept) = Inputs::new(sizes, heads_of, mask, scale).attend(has_autodiff);
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
    [heads, kv_heads]: [usize; 2],
    mask: Option<&Tensor<4, Bool>>,
    scale: f64,
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
        let (out, kept) = Inputs::new(sizes, parts, mask, scale).attend(has_autodiff);
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
