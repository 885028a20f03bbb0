//! The head and its loss, forward and backward, slice by slice.
//!
//! All products are made in blocks that fit into the cache: Burn's matmul on flex allocates its
//! result twice, and the pages of a large allocation are cleared each time.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use burn::backend::Flex;
use burn::backend::ops::FloatTensorOps;
use burn::tensor::{Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops};
use burn_flex::FlexTensor;

use super::autodiff::{Operand, apply, owned, tensor_of, values};
use super::rows::{Out, Rows, exps, largest, row_of, run};
use crate::model::ops::counted::{Counted, largest_slice, slice_of};
use crate::model::ops::head_weight::{Found, HeadWeight};

/// Elements of the logits of a slice: 48 MiB.
const SLICE: usize = 12 << 20;

/// The number of rows in a slice: at most half of them, because a small batch needs little other
/// memory.
fn slice_for(rows: usize, vocab: usize) -> usize {
    slice_of(rows, most_for(rows, vocab))
}

fn most_for(rows: usize, vocab: usize) -> usize {
    (SLICE / vocab.max(1)).min(rows.div_ceil(2))
}

/// The maximum number of elements of a block of a product: 1 MiB.
const BLOCK: usize = 1 << 18;

/// The loss of rows of logits. Writes the gradient of the mean in place of the logits.
struct CrossEntropy<'a> {
    targets: &'a [usize],
    shares: &'a [f32],
    /// Whether the gradient is wanted.
    gradient: bool,
}

impl Rows for CrossEntropy<'_> {
    #[inline(always)]
    fn row(&self, index: usize, logits: &mut [f32], loss: &mut [f32]) {
        let (target, share) = (self.targets[index], self.shares[index]);
        let largest = largest(logits);
        let target_logit = logits[target] - largest;
        let sum = exps(logits, largest);
        loss.fill((sum.ln() - target_logit) * share);
        if self.gradient {
            let factor = share / sum;
            for logit in logits.iter_mut() {
                *logit *= factor;
            }
            logits[target] -= share;
        }
    }
}

/// The weighted mean cross entropy over the rows that count, for hidden states, `[rows, hidden]`.
/// Keeps the gradients of its tracked inputs.
pub(crate) fn head_loss(
    hidden: &Tensor<2>,
    weight: &HeadWeight,
    counted: &Counted,
) -> Option<Tensor<1>> {
    let inputs = [Operand::of(hidden)?, Operand::of(weight.stored())?];
    let wanted = inputs.each_ref().map(Operand::is_tracked);
    let (is_tied, slice) = (weight.is_tied(), slice_for(counted.len(), weight.vocab()));
    apply(HeadLossOp, inputs, |inputs| {
        pass(inputs, is_tied, counted, wanted, slice)
    })
}

/// The loss and the gradients that are asked for, for tensors without autodiff.
pub(crate) fn head_gradients(
    hidden: &Tensor<2>,
    weight: &HeadWeight,
    counted: &Counted,
    wanted: [bool; 2],
) -> Option<Found> {
    let slice = slice_for(counted.len(), weight.vocab());
    in_slices(hidden, weight, counted, wanted, slice)
}

/// [`head_gradients`] with slices of `slice` rows.
pub(crate) fn in_slices(
    hidden: &Tensor<2>,
    weight: &HeadWeight,
    counted: &Counted,
    wanted: [bool; 2],
    slice: usize,
) -> Option<Found> {
    let inputs = [Operand::of(hidden)?, Operand::of(weight.stored())?];
    let [Operand::Plain(hidden), Operand::Plain(stored)] = inputs else {
        return None;
    };
    let inputs = [hidden, stored];
    let (loss, found) = pass(inputs, weight.is_tied(), counted, wanted, slice);
    let tensor = |found: FlexTensor| Tensor::from_primitive::<Flex>(found);
    let found = found.map(|found| found.map(tensor));
    Some((Tensor::from_primitive::<Flex>(loss), found))
}

/// The most bytes that the loss of up to this many rows needs at a time, without the gradients.
pub(crate) fn head_bytes(rows: usize, vocab: usize, width: usize) -> usize {
    let slice = largest_slice(rows, most_for(rows, vocab));
    // Burn allocates the result of a matmul twice.
    4 * (slice * vocab + 2 * BLOCK.max(slice * width))
}

/// The loss, and the gradients of the hidden states and the weight if they are wanted, with slices of
/// `slice` rows.
fn pass(
    [hidden, weight]: [FlexTensor; 2],
    is_tied: bool,
    counted: &Counted,
    [of_hidden, of_weight]: [bool; 2],
    slice: usize,
) -> (FlexTensor, [Option<FlexTensor>; 2]) {
    let stored = weight.layout().shape().clone();
    let columns = if is_tied {
        weight.transpose(0, 1)
    } else {
        weight
    };
    let [width, vocab] = columns.layout().shape().dims();
    let hidden = gather(&hidden, counted, width);
    let count = counted.len();
    let shape = Shape::new([slice.min(count), vocab]);
    let mut logits = tensor_of(vec![0.0; shape.num_elements()], shape);
    let mut losses = vec![0.0; count];
    let mut hidden_gradient = Vec::with_capacity(if of_hidden { count * width } else { 0 });
    let mut weight_gradient = vec![0.0; if of_weight { stored.num_elements() } else { 0 }];
    for first in (0..count).step_by(slice) {
        let rows = slice.min(count - first);
        let x = hidden.narrow(0, first, rows);
        let values: &mut [f32] = &mut logits.storage_mut()[..rows * vocab];
        write_product(&x, &columns, values);
        let kernel = CrossEntropy {
            targets: &counted.targets[first..],
            shares: &counted.shares[first..],
            gradient: of_hidden || of_weight,
        };
        let losses = &mut losses[first..first + rows];
        run(&kernel, Out::new(values, vocab), Out::new(losses, 1));
        let gradient = logits.narrow(0, 0, rows);
        if of_hidden {
            let part = Flex::float_matmul(gradient.clone(), columns.transpose(0, 1));
            hidden_gradient.extend_from_slice(self::values(&part));
        }
        if of_weight {
            let (from, to) = if is_tied {
                (&gradient, &x)
            } else {
                (&x, &gradient)
            };
            add_product(from, to, is_tied, first == 0, &mut weight_gradient);
        }
    }
    let loss = losses.iter().sum();
    let found = [
        of_hidden.then(|| scatter(hidden_gradient, counted, width)),
        of_weight.then(|| tensor_of(weight_gradient, stored)),
    ];
    (tensor_of(vec![loss], Shape::new([1])), found)
}

/// The rows that count, of `[rows, width]`.
fn gather(hidden: &FlexTensor, counted: &Counted, width: usize) -> FlexTensor {
    let hidden = hidden.to_contiguous();
    if counted.is_all() {
        return hidden;
    }
    let mut rows = Vec::with_capacity(counted.len() * width);
    for row in &counted.rows {
        rows.extend_from_slice(row_of(values(&hidden), *row, width));
    }
    tensor_of(rows, Shape::new([counted.len(), width]))
}

/// Rows for all positions: those that count, and 0 elsewhere.
fn scatter(rows: Vec<f32>, counted: &Counted, width: usize) -> FlexTensor {
    let shape = Shape::new([counted.positions(), width]);
    if counted.is_all() {
        return tensor_of(rows, shape);
    }
    let mut all = vec![0.0; shape.num_elements()];
    for (row, values) in counted.rows.iter().zip(rows.chunks_exact(width)) {
        all[row * width..(row + 1) * width].copy_from_slice(values);
    }
    tensor_of(all, shape)
}

/// Writes `x columns`, of `[rows, width]` and `[width, vocab]`, block by block along the vocabulary.
fn write_product(x: &FlexTensor, columns: &FlexTensor, out: &mut [f32]) {
    let ([rows, _], [_, vocab]) = (x.layout().shape().dims(), columns.layout().shape().dims());
    let block = (BLOCK / rows.max(1)).max(1);
    for first in (0..vocab).step_by(block) {
        let width = block.min(vocab - first);
        let part = Flex::float_matmul(x.clone(), columns.narrow(1, first, width));
        let parts = values(&part).chunks_exact(width);
        for (row, part) in out.chunks_exact_mut(vocab).zip(parts) {
            row[first..first + width].copy_from_slice(part);
        }
    }
}

/// Adds `from^T to`, of `[rows, a]` and `[rows, b]`, to `out`, `[a, b]`, or writes it if `out` is
/// still 0. Works in blocks along the first dimension or the second one.
fn add_product(
    from: &FlexTensor,
    to: &FlexTensor,
    along_first: bool,
    is_new: bool,
    out: &mut [f32],
) {
    let ([_, a], [_, b]) = (from.layout().shape().dims(), to.layout().shape().dims());
    let from = from.transpose(0, 1);
    let (long, short) = if along_first { (a, b) } else { (b, a) };
    let block = (BLOCK / short.max(1)).max(1);
    for first in (0..long).step_by(block) {
        let size = block.min(long - first);
        let (part, width, column) = if along_first {
            (
                Flex::float_matmul(from.narrow(0, first, size), to.clone()),
                b,
                0,
            )
        } else {
            let to = to.narrow(1, first, size);
            (Flex::float_matmul(from.clone(), to), size, first)
        };
        let row = if along_first { first } else { 0 };
        let parts = values(&part).chunks_exact(width.max(1));
        for (sums, part) in out.chunks_exact_mut(b.max(1)).skip(row).zip(parts) {
            let sums = &mut sums[column..column + width];
            if is_new {
                sums.copy_from_slice(part);
                continue;
            }
            for (sum, part) in sums.iter_mut().zip(part) {
                *sum += part;
            }
        }
    }
}

#[derive(Debug)]
struct HeadLossOp;

impl Backward<Flex, 2> for HeadLossOp {
    type State = [Option<FlexTensor>; 2];

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let factor = values(&grads.consume::<Flex>(&ops.node).to_contiguous())[0];
        for (parent, gradient) in ops.parents.into_iter().zip(ops.state) {
            let (Some(parent), Some(gradient)) = (parent, gradient) else {
                continue;
            };
            let mut gradient = owned(gradient);
            if factor != 1.0 {
                let values: &mut [f32] = gradient.storage_mut();
                for value in values {
                    *value *= factor;
                }
            }
            grads.register::<Flex>(parent.id, gradient);
        }
    }
}
