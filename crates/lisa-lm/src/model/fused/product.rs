//! Products with weights, and rows of an embedding.
//!
//! Burn's on flex make each result twice for a moment, once as zeros. A weight's gradient is the largest
//! thing that a step makes, so here a product's is put together from pieces small enough for the cache,
//! and an embedding's is made once. Tests: `tests.rs`.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Int, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::ops::{Place, apply, numbers, tensor_of};
use super::rows::row_of;

/// Numbers of a weight's gradient that are made at a time: 1 MiB.
pub(super) const PIECE: usize = 1 << 18;

/// `[.., from]` times a weight, `[from, to]`. Keeps x where the weight trains, and the weight where x has
/// a gradient.
pub(crate) fn product<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>) -> Option<Tensor<D>> {
    let inputs = [Place::of(x)?, Place::of(weight)?];
    let [keeps_weight, keeps_x] = inputs.each_ref().map(Place::is_tracked);
    apply(ProductOp, inputs, |[x, weight]| {
        let [_, to] = weight.layout().shape().dims();
        let mut shape = x.layout().shape().clone();
        let x = flat(&x);
        let out = Flex::float_matmul(x.clone(), weight.clone());
        shape[D - 1] = to;
        let kept = [keeps_x.then_some(x), keeps_weight.then_some(weight)];
        (out.reshape(shape), kept)
    })
}

/// `[rows, width]` of `[.., width]`.
fn flat(x: &FlexTensor) -> FlexTensor {
    let shape = x.layout().shape();
    let width = shape[shape.num_dims() - 1];
    x.reshape(Shape::new([shape.num_elements() / width.max(1), width]))
}

/// `x^T grad`, of `[rows, from]` and `[rows, to]`.
fn gradient_of_weight(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let ([_, from], [_, to]) = (x.layout().shape().dims(), grad.layout().shape().dims());
    let piece = (PIECE / to.max(1)).max(1);
    if piece >= from {
        return Flex::float_matmul(x.transpose(0, 1), grad.clone());
    }
    let mut whole: Vec<f32> = Vec::with_capacity(from * to);
    for first in (0..from).step_by(piece) {
        let columns = x.narrow(1, first, piece.min(from - first));
        let part = Flex::float_matmul(columns.transpose(0, 1), grad.clone());
        whole.extend_from_slice(numbers(&part));
    }
    tensor_of(whole, Shape::new([from, to]))
}

#[derive(Debug)]
struct ProductOp;

impl Backward<Flex, 2> for ProductOp {
    type State = [Option<FlexTensor>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let mut shape = grad.layout().shape().clone();
        let grad = flat(&grad);
        let [of_x, of_weight] = ops.parents;
        let [x, weight] = ops.state;
        if let (Some(parent), Some(x)) = (of_weight, x) {
            grads.register::<Flex>(parent.id, gradient_of_weight(&x, &grad));
        }
        if let (Some(parent), Some(weight)) = (of_x, weight) {
            let [from, _] = weight.layout().shape().dims();
            let last = shape.num_dims() - 1;
            shape[last] = from;
            let part = Flex::float_matmul(grad, weight.transpose(0, 1));
            grads.register::<Flex>(parent.id, part.reshape(shape));
        }
    }
}

/// Rows of an embedding, `[vocab, width]`, for tokens, `[batch, seq]`. Keeps the tokens.
///
/// # Panics
///
/// A token that has no row, as Burn's.
pub(crate) fn embed(weight: &Tensor<2>, tokens: &Tensor<2, Int>) -> Option<Tensor<3>> {
    let inputs = [Place::of(weight)?];
    let [batch, seq] = tokens.dims();
    let rows: Vec<usize> = tokens.to_data().iter::<i64>().map(|t| t as usize).collect();
    apply(EmbedOp, inputs, |[weight]| {
        let weight = weight.to_contiguous();
        let [vocab, width] = weight.layout().shape().dims();
        let mut out = Vec::with_capacity(rows.len() * width);
        for row in &rows {
            out.extend_from_slice(row_of(numbers(&weight), *row, width));
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
        for (row, grad) in rows.into_iter().zip(numbers(&grad).chunks_exact(width)) {
            let sums = &mut whole[row * width..(row + 1) * width];
            for (sum, grad) in sums.iter_mut().zip(grad) {
                *sum += grad;
            }
        }
        grads.register::<Flex>(parent.id, tensor_of(whole, Shape::new([vocab, width])));
    }
}
