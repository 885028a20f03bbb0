//! Rows of an embedding, forward and backward.

use burn::backend::Flex;
use burn::tensor::{Int, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};

use super::autodiff::{Operand, apply, flat, tensor_of, values};
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
        let mut whole = vec![0.0; vocab * width];
        for (row, grad) in rows.into_iter().zip(values(&grad).chunks_exact(width)) {
            let sums = &mut whole[row * width..(row + 1) * width];
            for (sum, grad) in sums.iter_mut().zip(grad) {
                *sum += grad;
            }
        }
        grads.register::<Flex>(parent.id, tensor_of(whole, Shape::new([vocab, width])));
    }
}
