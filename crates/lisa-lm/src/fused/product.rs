//! Products with weights.
//!
//! Burn's on flex makes each result twice for a moment, once as zeros. A weight's gradient is the largest
//! thing that a step makes, so here it is put together from pieces small enough for the cache. Tests:
//! `tests.rs`.

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::ops::{Place, apply, numbers, tensor_of};

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
