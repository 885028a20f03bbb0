//! Matmuls with weights, and with a bias, forward and backward.
//!
//! On flex, Burn's matmul briefly allocates its result twice; one copy is filled with zeros. A
//! weight's gradient is the largest tensor of a step, so it is computed in blocks of rows that fit
//! into the cache.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, flat, tensor_of, values, width_of};
use super::rows::{Out, Rows, run};

/// The maximum number of elements of a weight's gradient that are computed at a time: 1 MiB.
pub(super) const BLOCK: usize = 1 << 18;

/// `[.., from]` times a weight, `[from, to]`. Keeps x if the weight is tracked, and the weight if x
/// is tracked.
pub(crate) fn product<const D: usize>(x: &Tensor<D>, weight: &Tensor<2>) -> Option<Tensor<D>> {
    let inputs = [Operand::of(x)?, Operand::of(weight)?];
    let [keeps_weight, keeps_x] = inputs.each_ref().map(Operand::is_tracked);
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

/// The same plus a bias, `[to]`, which is added to the result of the matmul in place.
pub(crate) fn product_and_bias<const D: usize>(
    x: &Tensor<D>,
    weight: &Tensor<2>,
    bias: &Tensor<1>,
) -> Option<Tensor<D>> {
    let inputs = [Operand::of(x)?, Operand::of(weight)?, Operand::of(bias)?];
    let [keeps_weight, keeps_x, _] = inputs.each_ref().map(Operand::is_tracked);
    apply(BiasedOp, inputs, |[x, weight, bias]| {
        let [_, to] = weight.layout().shape().dims();
        let mut shape = x.layout().shape().clone();
        let x = flat(&x);
        let mut out = Flex::float_matmul(x.clone(), weight.clone());
        let bias = bias.to_contiguous();
        let out_rows = Out::new(out.storage_mut(), to);
        run(&AddBias(values(&bias)), out_rows, Out::none());
        shape[D - 1] = to;
        let kept = [keeps_x.then_some(x), keeps_weight.then_some(weight)];
        (out.reshape(shape), kept)
    })
}

/// Adds a row to each row.
struct AddBias<'a>(&'a [f32]);

impl Rows for AddBias<'_> {
    #[inline(always)]
    fn row(&self, _: usize, out: &mut [f32], _: &mut [f32]) {
        for (out, bias) in out.iter_mut().zip(self.0) {
            *out += bias;
        }
    }
}

/// The sum of all rows: one row, which must be initialized to zero.
struct SumRows<'a>(&'a [f32]);

impl Rows for SumRows<'_> {
    #[inline(always)]
    fn row(&self, _: usize, sum: &mut [f32], _: &mut [f32]) {
        for row in self.0.chunks_exact(sum.len()) {
            for (sum, x) in sum.iter_mut().zip(row) {
                *sum += x;
            }
        }
    }
}

/// `x^T grad`, of `[rows, from]` and `[rows, to]`.
fn gradient_of_weight(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let ([_, from], [_, to]) = (x.layout().shape().dims(), grad.layout().shape().dims());
    // Matmuls of a few rows are inefficient.
    let block = (BLOCK / to.max(1)).max(64);
    if block >= from {
        return Flex::float_matmul(x.transpose(0, 1), grad.clone());
    }
    let mut whole: Vec<f32> = Vec::with_capacity(from * to);
    for first in (0..from).step_by(block) {
        let columns = x.narrow(1, first, block.min(from - first));
        let part = Flex::float_matmul(columns.transpose(0, 1), grad.clone());
        whole.extend_from_slice(values(&part));
    }
    tensor_of(whole, Shape::new([from, to]))
}

/// What the backward pass keeps: x if the weight is tracked, and the weight if x is tracked.
type Kept = [Option<FlexTensor>; 2];

/// Registers the gradients of x and of the weight, from the gradient of the result.
fn register(
    [of_x, of_weight]: [Option<NodeId>; 2],
    [x, weight]: Kept,
    grad: &FlexTensor,
    grads: &mut Gradients,
) {
    let mut shape = grad.layout().shape().clone();
    let grad = flat(grad);
    if let (Some(parent), Some(x)) = (of_weight, x) {
        grads.register::<Flex>(parent, gradient_of_weight(&x, &grad));
    }
    if let (Some(parent), Some(weight)) = (of_x, weight) {
        let [from, _] = weight.layout().shape().dims();
        let last = shape.num_dims() - 1;
        shape[last] = from;
        let part = Flex::float_matmul(grad, weight.transpose(0, 1));
        grads.register::<Flex>(parent, part.reshape(shape));
    }
}

#[derive(Debug)]
struct ProductOp;

impl Backward<Flex, 2> for ProductOp {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let parents = ops.parents.map(|parent| parent.map(|node| node.id));
        register(parents, ops.state, &grad, grads);
    }
}

#[derive(Debug)]
struct BiasedOp;

impl Backward<Flex, 3> for BiasedOp {
    type State = Kept;

    fn backward(self, ops: Ops<Kept, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [of_x, of_weight, of_bias] = ops.parents.map(|parent| parent.map(|node| node.id));
        if let Some(parent) = of_bias {
            let (grad, width) = (grad.to_contiguous(), width_of(&grad));
            let mut sum = vec![0.0; width];
            run(
                &SumRows(values(&grad)),
                Out::new(&mut sum, width),
                Out::none(),
            );
            grads.register::<Flex>(parent, tensor_of(sum, Shape::new([width])));
        }
        register([of_x, of_weight], ops.state, &grad, grads);
    }
}
