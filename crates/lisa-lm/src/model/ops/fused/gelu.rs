//! GELU, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, made, owned, values, width_of};
use super::rows::{Out, Rows, exp, row_of, run};

/// The factor of x by GELU, and the derivative of GELU at x.
#[inline(always)]
fn share<const TANH: bool>(x: f32) -> (f32, f32) {
    // 2 sqrt(2 / pi), and 1 / sqrt(2 pi).
    const LINEAR: f32 = 1.595_769_2;
    const CUBIC: f32 = LINEAR * 0.044_715;
    const DENSITY: f32 = 0.398_942_3;
    if TANH {
        // 0.5 (1 + tanh(u)) is sigmoid(2 u); u is sqrt(2 / pi) (x + 0.044715 x^3).
        let square = x * x;
        let below = exp(-x * (LINEAR + CUBIC * square));
        let share = 1.0 / (1.0 + below);
        let slope = LINEAR + 3.0 * CUBIC * square;
        // 1 - share, without its rounding error.
        let rest = below * share;
        return (share, share + x * share * rest * slope);
    }
    // The upper tail of the normal distribution over the exponential is smooth: a polynomial in
    // 1 / (1 + 0.23 |x|), fitted to a relative error of 4e-8.
    let far = x.abs();
    let t = 1.0 / (1.0 + 0.23 * far);
    let mut series = -0.076_736_02;
    for factor in [
        0.281_462_67,
        -0.258_292_53,
        0.276_901_63,
        -0.014_329_088,
        0.110_726_4,
        0.088_294_59,
        0.091_972_33,
    ] {
        series = series * t + factor;
    }
    let bell = exp(-0.5 * far * far);
    let tail = series * t * bell;
    let share = if x < 0.0 { tail } else { 1.0 - tail };
    (share, share + x * bell * DENSITY)
}

struct Gelu<'a, const TANH: bool>(&'a [f32]);

impl<const TANH: bool> Rows for Gelu<'_, TANH> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let x = row_of(self.0, index, out.len());
        for (out, x) in out.iter_mut().zip(x) {
            *out = x * share::<TANH>(*x).0;
        }
    }
}

/// Computes the gradient of x, in place of the gradient of the output.
struct GeluBackward<'a, const TANH: bool>(&'a [f32]);

impl<const TANH: bool> Rows for GeluBackward<'_, TANH> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], _: &mut [f32]) {
        let x = row_of(self.0, index, grad.len());
        for (grad, x) in grad.iter_mut().zip(x) {
            *grad *= share::<TANH>(*x).1;
        }
    }
}

/// GELU, exact or in its tanh approximation. Keeps x for the backward pass.
pub(crate) fn gelu<const TANH: bool>(x: &Tensor<3>) -> Option<Tensor<3>> {
    apply(GeluOp::<TANH>, [Operand::of(x)?], |[x]| {
        let x = x.to_contiguous();
        (made(&Gelu::<TANH>(values(&x)), &x), x)
    })
}

#[derive(Debug)]
struct GeluOp<const TANH: bool>;

impl<const TANH: bool> Backward<Flex, 1> for GeluOp<TANH> {
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let mut grad = owned(grads.consume::<Flex>(&ops.node));
        let width = width_of(&grad);
        let kernel = GeluBackward::<TANH>(values(&ops.state));
        run(&kernel, Out::new(grad.storage_mut(), width), Out::none());
        if let [Some(parent)] = ops.parents {
            grads.register::<Flex>(parent.id, grad);
        }
    }
}
