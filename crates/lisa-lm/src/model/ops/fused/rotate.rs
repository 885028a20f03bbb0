//! Rotary positions, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, tensor_of, values, with_rows};
use super::rows::{Out, Rows, row_of, run};

/// Rotates heads, `[batch, heads, seq, dim]` of any strides, into `[batch, seq, heads, dim]`.
struct Rotate<'a> {
    x: &'a [f32],
    start: usize,
    /// The strides of batch, head and position.
    strides: [usize; 3],
    heads: usize,
    seq: usize,
    /// `[batch or 1, seq, dim]`.
    cos: &'a [f32],
    /// The same shape, with the sign of the first half changed.
    sin: &'a [f32],
    /// 1, or -1 for the inverse rotation.
    direction: f32,
}

impl Rows for Rotate<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let dim = out.len();
        let head = index % self.heads;
        let position = index / self.heads % self.seq;
        let batch = index / (self.heads * self.seq);
        let [of_batch, of_head, of_position] = self.strides;
        let start = self.start + batch * of_batch + head * of_head + position * of_position;
        let x = &self.x[start..start + dim];
        let rows = self.cos.len() / dim;
        let table = (batch * self.seq + position) % rows;
        let (cos, sin) = (row_of(self.cos, table, dim), row_of(self.sin, table, dim));
        let half = dim / 2;
        for first in [0, half] {
            let (out, other) = (&mut out[first..first + half], &x[half - first..dim - first]);
            let at = first..first + half;
            let values = x[at.clone()].iter().zip(&cos[at.clone()]).zip(&sin[at]);
            for ((out, other), ((x, cos), sin)) in out.iter_mut().zip(other).zip(values) {
                *out = x * cos + other * (self.direction * sin);
            }
        }
    }
}

/// Rotates heads, `[batch, heads, seq, dim]`, by tables of `[batch or 1, 1, seq, dim]`: the
/// cosines, and the sines with the sign of the first half changed. Keeps the tables for the
/// backward pass.
pub(crate) fn rotate(x: &Tensor<4>, cos: &Tensor<4>, sin: &Tensor<4>) -> Option<Tensor<4>> {
    let table = |table: &Tensor<4>| {
        Some(match Operand::of(table)? {
            Operand::Plain(table) => table.to_contiguous(),
            Operand::Autodiff(table) => table.into_primitive().to_contiguous(),
        })
    };
    let (x, tables) = (Operand::of(x)?, [table(cos)?, table(sin)?]);
    apply(RotateOp, [x], |[x]| (rotated(x, &tables, 1.0), tables))
}

#[derive(Debug)]
struct RotateOp;

impl Backward<Flex, 1> for RotateOp {
    type State = [FlexTensor; 2];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let [parent] = ops.parents;
        if let Some(parent) = parent {
            grads.register::<Flex>(parent.id, rotated(grad, &ops.state, -1.0));
        }
    }
}

/// The rotated heads, `[batch, heads, seq, dim]`, with the memory layout `[batch, seq, heads, dim]`
/// of the matmuls before and after them.
fn rotated(x: FlexTensor, [cos, sin]: &[FlexTensor; 2], direction: f32) -> FlexTensor {
    let x = with_rows(x);
    let [batch, heads, seq, dim] = x.layout().shape().dims();
    let strides = |at: usize| x.layout().strides()[at] as usize;
    let mut out = vec![0.0; x.layout().num_elements()];
    let kernel = Rotate {
        x: x.storage(),
        start: x.layout().start_offset(),
        strides: [strides(0), strides(1), strides(2)],
        heads,
        seq,
        cos: values(cos),
        sin: values(sin),
        direction,
    };
    run(&kernel, Out::new(&mut out, dim), Out::none());
    tensor_of(out, Shape::new([batch, seq, heads, dim])).transpose(1, 2)
}
