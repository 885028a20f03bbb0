//! Matmuls with weights, forward and backward.
//!
//! On flex, Burn's matmul briefly allocates its result twice; one copy is filled with zeros. A
//! weight's gradient is the largest tensor of a step, so it is computed in blocks of rows that fit
//! into the cache.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, flat, tensor_of, values};

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

/// `x^T grad`, of `[rows, from]` and `[rows, to]`.
fn gradient_of_weight(x: &FlexTensor, grad: &FlexTensor) -> FlexTensor {
    let ([_, from], [_, to]) = (x.layout().shape().dims(), grad.layout().shape().dims());
    let block = (BLOCK / to.max(1)).max(1);
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
