//! Rows of an embedding, forward and backward.
//!
//! The gradient of the rows is added to the weight's gradient in place.

use std::sync::Arc;

use burn::backend::Flex;
use burn::tensor::{Int, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use super::autodiff::{Operand, apply, flat, owned, tensor_of, values};
use super::rows::row_of;

/// Rows of an embedding, `[vocab, width]`, for tokens, `[batch, seq]`. Keeps the tokens for the
/// backward pass.
///
/// # Panics
///
/// Panics if a token has no row.
pub(crate) fn embed(weight: &Tensor<2>, tokens: &Tensor<2, Int>) -> Option<Tensor<3>> {
    let inputs = [Operand::of(weight)?];
    let [batch, seq] = tokens.dims();
    let rows: Vec<usize> = tokens.to_data().iter::<i64>().map(|t| t as usize).collect();
    apply(EmbedOp, inputs, |[weight]| {
        let weight = weight.to_contiguous();
        let [vocab, width] = weight.layout().shape().dims();
        let mut out = Vec::with_capacity(rows.len() * width);
        for row in &rows {
            out.extend_from_slice(row_of(values(&weight), *row, width));
        }
        let out = tensor_of(out, Shape::new([batch, seq, width]));
        (out, (rows, vocab))
    })
}

#[derive(Debug)]
struct EmbedOp;

impl Backward<Flex, 1> for EmbedOp {
    type State = (Vec<usize>, usize);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = flat(&grads.consume::<Flex>(&ops.node)).to_contiguous();
        let [parent] = ops.parents;
        let Some(parent) = parent else { return };
        let (rows, vocab) = ops.state;
        let [_, width] = grad.layout().shape().dims();
        let shape = Shape::new([vocab, width]);
        // A tied head has registered its gradient already, and the rows are added to it in place.
        // Burn removes gradients of intermediate nodes only, so this operation's own node, which
        // is no longer needed, gets the id of the weight.
        let mut node = ops.node;
        let before = Arc::get_mut(&mut node).map(|node| node.id = parent.id);
        let before = before.map(|()| {
            // Burn panics if there is no gradient; this one changes none.
            let zero = tensor_of(vec![0.0], Shape::new([1, 1]));
            grads.register::<Flex>(parent.id, zero);
            grads.consume::<Flex>(&node)
        });
        let mut whole = match before {
            Some(before) if *before.layout().shape() == shape => owned(before),
            _ => tensor_of(vec![0.0; vocab * width], shape),
        };
        let sums: &mut [f32] = whole.storage_mut();
        for (row, grad) in rows.into_iter().zip(values(&grad).chunks_exact(width)) {
            let sums = &mut sums[row * width..(row + 1) * width];
            for (sum, grad) in sums.iter_mut().zip(grad) {
                *sum += grad;
            }
        }
        grads.register::<Flex>(parent.id, whole);
    }
}
