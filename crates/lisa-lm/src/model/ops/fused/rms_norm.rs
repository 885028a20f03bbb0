//! The RMS norm, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, made, owned, tensor_of, values, width_of};
use super::rows::{Rows, block_of, dot, dot3, row_of, run_and_sum};

/// `x / sqrt(mean(x^2) + epsilon) * gamma`.
struct RmsNorm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    epsilon: f32,
}

impl RmsNorm<'_> {
    #[inline(always)]
    fn scale(&self, x: &[f32]) -> f32 {
        1.0 / (dot(x, x) / x.len() as f32 + self.epsilon).sqrt()
    }
}

impl Rows for RmsNorm<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let x = row_of(self.x, index, out.len());
        let scale = self.scale(x);
        for ((out, x), gamma) in out.iter_mut().zip(x).zip(self.gamma) {
            *out = x * scale * gamma;
        }
    }
}

/// Computes the gradient of x, in place of the gradient of the output, and adds the gradient of gamma to the
/// sums. A row of the outputs is a block of rows of x.
struct RmsNormBackward<'a>(RmsNorm<'a>);

impl Rows for RmsNormBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], of_gamma: &mut [f32]) {
        let norm = &self.0;
        let width = norm.gamma.len();
        let x = block_of(norm.x, index, grad.len(), width);
        for (grad, x) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let scale = norm.scale(x);
            for ((sum, x), grad) in of_gamma.iter_mut().zip(x).zip(&*grad) {
                *sum += x * scale * grad;
            }
            let along = dot3(grad, norm.gamma, x) * scale * scale * scale / width as f32;
            for ((grad, x), gamma) in grad.iter_mut().zip(x).zip(norm.gamma) {
                *grad = *grad * gamma * scale - x * along;
            }
        }
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * gamma` along the last dimension. Keeps x for the backward pass.
pub(crate) fn rms_norm<const D: usize>(
    x: &Tensor<D>,
    gamma: &Tensor<1>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let epsilon = epsilon as f32;
    let inputs = [Operand::of(x)?, Operand::of(gamma)?];
    apply(RmsNormOp, inputs, |[x, gamma]| {
        let (x, gamma) = (x.to_contiguous(), gamma.to_contiguous());
        let kernel = RmsNorm {
            x: values(&x),
            gamma: values(&gamma),
            epsilon,
        };
        (made(&kernel, &x), (x, gamma, epsilon))
    })
}

#[derive(Debug)]
struct RmsNormOp;

impl Backward<Flex, 2> for RmsNormOp {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = owned(grads.consume::<Flex>(&ops.node));
        let (x, gamma, epsilon) = &ops.state;
        let width = width_of(x);
        let kernel = RmsNormBackward(RmsNorm {
            x: values(x),
            gamma: values(gamma),
            epsilon: *epsilon,
        });
        let [of_x, of_gamma] = ops.parents;
        let sums = if of_gamma.is_some() { width } else { 0 };
        let sum = run_and_sum(&kernel, grad.storage_mut(), width, sums);
        if let Some(parent) = of_gamma {
            grads.register::<Flex>(parent.id, tensor_of(sum, Shape::new([width])));
        }
        if let Some(parent) = of_x {
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
