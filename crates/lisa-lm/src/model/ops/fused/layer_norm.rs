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
use super::rows::{Out, Rows, dot_about, row_of, run, sum};

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

/// Computes the gradient of x, in place of the gradient of the output.
struct LayerNormBackward<'a>(LayerNorm<'a>);

impl Rows for LayerNormBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], _: &mut [f32]) {
        let norm = &self.0;
        let x = row_of(norm.x, index, grad.len());
        let (mean, scale) = norm.mean_and_scale(x);
        for (grad, gamma) in grad.iter_mut().zip(norm.gamma) {
            *grad *= gamma;
        }
        let width = x.len() as f32;
        let common = sum(grad) / width;
        let along = dot_about(grad, x, 0.0, mean) * scale * scale / width;
        for (grad, x) in grad.iter_mut().zip(x) {
            *grad = (*grad - common - (x - mean) * along) * scale;
        }
    }
}

/// The gradients of gamma and beta: one row each, which must be initialized to zero.
struct ParameterGradients<'a> {
    norm: LayerNorm<'a>,
    grad: &'a [f32],
}

impl Rows for ParameterGradients<'_> {
    #[inline(always)]
    fn row(&self, _: usize, of_gamma: &mut [f32], of_beta: &mut [f32]) {
        let width = of_gamma.len();
        for (x, grad) in self.norm.x.chunks(width).zip(self.grad.chunks(width)) {
            let (mean, scale) = self.norm.mean_and_scale(x);
            let sums = of_gamma.iter_mut().zip(of_beta.iter_mut());
            for ((of_gamma, of_beta), (x, grad)) in sums.zip(x.iter().zip(grad)) {
                *of_gamma += (x - mean) * scale * grad;
                *of_beta += grad;
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
        let norm = || LayerNorm {
            x: values(x),
            gamma: values(gamma),
            beta: &[],
            epsilon: *epsilon,
        };
        let [of_x, of_gamma, of_beta] = ops.parents;
        if of_gamma.is_some() || of_beta.is_some() {
            let (mut first, mut second) = (vec![0.0; width], vec![0.0; width]);
            let kernel = ParameterGradients {
                norm: norm(),
                grad: values(&grad),
            };
            let outs = (Out::new(&mut first, width), Out::new(&mut second, width));
            run(&kernel, outs.0, outs.1);
            for (parent, sums) in [(of_gamma, first), (of_beta, second)] {
                if let Some(parent) = parent {
                    grads.register::<Flex>(parent.id, tensor_of(sums, Shape::new([width])));
                }
            }
        }
        if let Some(parent) = of_x {
            let out = Out::new(grad.storage_mut(), width);
            run(&LayerNormBackward(norm()), out, Out::none());
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
