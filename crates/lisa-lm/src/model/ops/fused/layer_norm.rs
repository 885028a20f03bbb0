//! The layer norm, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, made, owned, tensor_of, values, width_of};
use super::rows::{Rows, block_of, dot_about, row_of, run_and_sum, sum};

/// `(x - mean(x)) / sqrt(variance(x) + epsilon)`, times gamma and plus beta in the forward pass.
struct LayerNorm<'a> {
    x: &'a [f32],
    gamma: &'a [f32],
    beta: &'a [f32],
    epsilon: f32,
}

impl LayerNorm<'_> {
    /// The mean of a row, and the reciprocal of its standard deviation.
    #[inline(always)]
    fn mean_and_scale(&self, x: &[f32]) -> (f32, f32) {
        let width = x.len() as f32;
        let mean = sum(x) / width;
        let variance = dot_about(x, x, mean, mean) / width;
        (mean, 1.0 / (variance + self.epsilon).sqrt())
    }
}

impl Rows for LayerNorm<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let x = row_of(self.x, index, out.len());
        let (mean, scale) = self.mean_and_scale(x);
        let parameters = self.gamma.iter().zip(self.beta);
        for ((out, x), (gamma, beta)) in out.iter_mut().zip(x).zip(parameters) {
            *out = (x - mean) * scale * gamma + beta;
        }
    }
}

/// Computes the gradient of x, in place of the gradient of the output, and adds the gradients of gamma and
/// beta to the sums. A row of the outputs is a block of rows of x.
struct LayerNormBackward<'a>(LayerNorm<'a>);

impl Rows for LayerNormBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], sums: &mut [f32]) {
        let norm = &self.0;
        let width = norm.gamma.len();
        let x = block_of(norm.x, index, grad.len(), width);
        let (of_gamma, of_beta) = sums.split_at_mut(sums.len() / 2);
        for (grad, x) in grad.chunks_exact_mut(width).zip(x.chunks_exact(width)) {
            let (mean, scale) = norm.mean_and_scale(x);
            let sums = of_gamma.iter_mut().zip(of_beta.iter_mut());
            for ((of_gamma, of_beta), (x, grad)) in sums.zip(x.iter().zip(&*grad)) {
                *of_gamma += (x - mean) * scale * grad;
                *of_beta += grad;
            }
            for (grad, gamma) in grad.iter_mut().zip(norm.gamma) {
                *grad *= gamma;
            }
            let common = sum(grad) / width as f32;
            let along = dot_about(grad, x, 0.0, mean) * scale * scale / width as f32;
            for (grad, x) in grad.iter_mut().zip(x) {
                *grad = (*grad - common - (x - mean) * along) * scale;
            }
        }
    }
}

/// `(x - mean(x)) / sqrt(variance(x) + epsilon) * gamma + beta` along the last dimension. Keeps x
/// for the backward pass.
pub(crate) fn layer_norm<const D: usize>(
    x: &Tensor<D>,
    gamma: &Tensor<1>,
    beta: Option<&Tensor<1>>,
    epsilon: f64,
) -> Option<Tensor<D>> {
    let epsilon = epsilon as f32;
    let inputs = [Operand::of(x)?, Operand::of(gamma)?, Operand::of(beta?)?];
    apply(LayerNormOp, inputs, |inputs| {
        let [x, gamma, beta] = inputs.map(|input| input.to_contiguous());
        let kernel = LayerNorm {
            x: values(&x),
            gamma: values(&gamma),
            beta: values(&beta),
            epsilon,
        };
        (made(&kernel, &x), (x, gamma, epsilon))
    })
}

#[derive(Debug)]
struct LayerNormOp;

impl Backward<Flex, 3> for LayerNormOp {
    type State = (FlexTensor, FlexTensor, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = owned(grads.consume::<Flex>(&ops.node));
        let (x, gamma, epsilon) = &ops.state;
        let width = width_of(x);
        let kernel = LayerNormBackward(LayerNorm {
            x: values(x),
            gamma: values(gamma),
            beta: &[],
            epsilon: *epsilon,
        });
        let [of_x, of_gamma, of_beta] = ops.parents;
        let trainable = of_gamma.is_some() || of_beta.is_some();
        let sums = if trainable { 2 * width } else { 0 };
        let mut sums = run_and_sum(&kernel, grad.storage_mut(), width, sums);
        if trainable {
            let second = sums.split_off(width);
            for (parent, sums) in [(of_gamma, sums), (of_beta, second)] {
                if let Some(parent) = parent {
                    grads.register::<Flex>(parent.id, tensor_of(sums, Shape::new([width])));
                }
            }
        }
        if let Some(parent) = of_x {
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
