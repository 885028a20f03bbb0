//! `silu(gate) * up`, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::Tensor;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, made, owned, values, width_of};
use super::rows::{Out, Rows, exp, row_of, run, sigmoid};

/// `silu(gate) * up`.
pub(super) struct SwiGlu<'a> {
    pub(super) gate: &'a [f32],
    pub(super) up: &'a [f32],
}

impl Rows for SwiGlu<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let gate = row_of(self.gate, index, out.len());
        let up = row_of(self.up, index, out.len());
        for ((out, gate), up) in out.iter_mut().zip(gate).zip(up) {
            *out = gate * sigmoid(*gate) * up;
        }
    }
}

/// Computes the gradients of gate and up, in place of gate and up.
pub(super) struct SwiGluBackward<'a> {
    pub(super) grad: &'a [f32],
}

impl Rows for SwiGluBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, gate: &mut [f32], up: &mut [f32]) {
        let grad = row_of(self.grad, index, gate.len());
        for ((gate, up), grad) in gate.iter_mut().zip(up).zip(grad) {
            let (x, below) = (*gate, exp(-*gate));
            let open = 1.0 / (1.0 + below);
            let through = x * open;
            // 1 - open, without its rounding error.
            let rest = below * open;
            *gate = grad * *up * (open + through * rest);
            *up = grad * through;
        }
    }
}

/// `silu(gate) * up`. Keeps gate and up for the backward pass.
pub(crate) fn swiglu(gate: &Tensor<3>, up: &Tensor<3>) -> Option<Tensor<3>> {
    let inputs = [Operand::of(gate)?, Operand::of(up)?];
    apply(SwiGluOp, inputs, |[gate, up]| {
        let (gate, up) = (gate.to_contiguous(), up.to_contiguous());
        let kernel = SwiGlu {
            gate: values(&gate),
            up: values(&up),
        };
        (made(&kernel, &gate), [gate, up])
    })
}

#[derive(Debug)]
struct SwiGluOp;

impl Backward<Flex, 2> for SwiGluOp {
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node).to_contiguous();
        let [gate, up] = ops.state;
        let width = width_of(&grad);
        let (mut gate, mut up) = (owned(gate), owned(up));
        let kernel = SwiGluBackward {
            grad: values(&grad),
        };
        run(
            &kernel,
            Out::new(gate.storage_mut(), width),
            Out::new(up.storage_mut(), width),
        );
        for (parent, grad) in ops.parents.into_iter().zip([gate, up]) {
            if let Some(parent) = parent {
                grads.register::<Flex>(parent.id, grad);
            }
        }
    }
}
