//! Running a kernel over rows of f32, and the arithmetic that kernels share.
//!
//! The compiler vectorizes plain loops; `pulp` selects the processor's instruction set at run time.
//! There are no fused multiply-adds, and sums have a fixed order, so the result of a row depends
//! neither on the instruction set nor on the number of threads.

// Only functions inlined into the caller of `pulp` use the selected instruction set.
#![allow(clippy::inline_always)]

use std::slice::ChunksExact;

use pulp::{Arch, Simd, WithSimd};

/// The maximum number of elements that one thread computes. More elements are divided between
/// threads.
const GRAIN: usize = 1 << 14;

/// Elements that are summed in parallel.
const LANES: usize = 32;

/// Computes one row of each output. The last row of the first output may be shorter, and the second output may have width
/// 0.
pub(super) trait Rows: Sync {
    fn row(&self, index: usize, a: &mut [f32], b: &mut [f32]);
}

/// An output: rows of `width` elements.
pub(super) struct Out<'a> {
    elements: &'a mut [f32],
    width: usize,
}

impl<'a> Out<'a> {
    pub(super) fn new(elements: &'a mut [f32], width: usize) -> Self {
        Self { elements, width }
    }

    pub(super) fn none() -> Self {
        Self::new(&mut [], 0)
    }

    fn row(&mut self, index: usize) -> &mut [f32] {
        let end = ((index + 1) * self.width).min(self.elements.len());
        &mut self.elements[index * self.width..end]
    }

    fn split(self, rows: usize) -> (Self, Self) {
        let (left, right) = self.elements.split_at_mut(rows * self.width);
        (Self::new(left, self.width), Self::new(right, self.width))
    }
}

struct Job<'a, K> {
    kernel: &'a K,
    first: usize,
    rows: usize,
    a: Out<'a>,
    b: Out<'a>,
}

impl<K: Rows> WithSimd for Job<'_, K> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let (mut a, mut b) = (self.a, self.b);
        for i in 0..self.rows {
            self.kernel.row(self.first + i, a.row(i), b.row(i));
        }
    }
}

impl<K: Rows> Job<'_, K> {
    fn run(self) {
        if self.rows < 2 || self.a.elements.len() <= GRAIN {
            Arch::new().dispatch(self);
            return;
        }
        let Self { kernel, first, .. } = self;
        let half = self.rows / 2;
        let ((a, c), (b, d)) = (self.a.split(half), self.b.split(half));
        let left = Job {
            kernel,
            first,
            rows: half,
            a,
            b,
        };
        let right = Job {
            kernel,
            first: first + half,
            rows: self.rows - half,
            a: c,
            b: d,
        };
        rayon::join(|| left.run(), || right.run());
    }
}

/// Runs a kernel over all rows of the outputs, on several threads if there are many rows.
pub(super) fn run<K: Rows>(kernel: &K, a: Out<'_>, b: Out<'_>) {
    let rows = a.elements.len().div_ceil(a.width.max(1));
    Job {
        kernel,
        first: 0,
        rows,
        a,
        b,
    }
    .run();
}

/// Changes rows of a gradient in place, and adds up `sums` numbers over all rows. A row of the outputs of `kernel` is a
/// block of rows (`block_of`) with its sums.
pub(super) fn run_and_sum<K: Rows>(
    kernel: &K,
    grad: &mut [f32],
    width: usize,
    sums: usize,
) -> Vec<f32> {
    let block = block_len(width);
    let mut of_blocks = vec![0.0; grad.len().div_ceil(block) * sums];
    run(
        kernel,
        Out::new(grad, block),
        Out::new(&mut of_blocks, sums),
    );
    let mut total = vec![0.0; sums];
    for of_block in of_blocks.chunks(sums.max(1)) {
        for (total, sum) in total.iter_mut().zip(of_block) {
            *total += sum;
        }
    }
    total
}

/// The elements of a block of rows. It depends on nothing but the width, and so does the order of sums.
#[inline(always)]
fn block_len(width: usize) -> usize {
    (GRAIN / width).max(1) * width
}

/// The first `len` elements of block `index` of rows of `width` elements.
#[inline(always)]
pub(super) fn block_of(elements: &[f32], index: usize, len: usize, width: usize) -> &[f32] {
    let start = index * block_len(width);
    &elements[start..start + len]
}

/// e^x with an error of at most 2 units in the last place; 0 below the smallest normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding this constant rounds to an integer, which is then in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.336_54;
    let clamped = x.clamp(LOWEST, 88.376_26);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 as a sum of two terms; the first term has few bits.
    let r = (clamped - whole * (355.0 / 512.0)) - whole * -2.121_944_4e-4;
    let mut series = 1.987_569_1e-4;
    for factor in [
        1.398_2e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_65,
        0.5,
        1.0,
        1.0,
    ] {
        series = series * r + factor;
    }
    let exponent = shifted.to_bits().wrapping_sub(ROUND.to_bits());
    let power = f32::from_bits(exponent.wrapping_add(127) << 23);
    if x < LOWEST { 0.0 } else { series * power }
}

#[inline(always)]
pub(super) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Folds a row, `LANES` elements in parallel.
#[inline(always)]
fn fold(row: &[f32], start: f32, of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [start; LANES];
    let chunks = row.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, x) in lanes.iter_mut().zip(chunk) {
            *lane = of(*lane, *x);
        }
    }
    for (lane, x) in lanes.iter_mut().zip(rest) {
        *lane = of(*lane, *x);
    }
    lanes.into_iter().fold(start, of)
}

/// The largest element of a row.
#[inline(always)]
pub(super) fn largest(row: &[f32]) -> f32 {
    fold(row, f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
}

/// Replaces a row by the exponentials of its elements minus `largest`; returns their sum.
#[inline(always)]
pub(super) fn exps(row: &mut [f32], largest: f32) -> f32 {
    for x in row.iter_mut() {
        *x = exp(*x - largest);
    }
    sum(row)
}

/// The sum of a row.
#[inline(always)]
pub(super) fn sum(row: &[f32]) -> f32 {
    fold(row, 0.0, |a, b| a + b)
}

/// The sum of products.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    dot_by(a, b, |a, b| a * b)
}

/// The sum of products of the distances from two values.
#[inline(always)]
pub(super) fn dot_about(a: &[f32], b: &[f32], from: f32, other: f32) -> f32 {
    dot_by(a, b, |a, b| (a - from) * (b - other))
}

/// The sum of a function of two elements.
#[inline(always)]
fn dot_by(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = (left.remainder(), right.remainder());
    for (a, b) in left.zip(right) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += of(*a, *b);
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(rest.0).zip(rest.1) {
        *lane += of(*a, *b);
    }
    lanes.into_iter().sum()
}

/// The sum of products of three elements.
#[inline(always)]
pub(super) fn dot3(first: &[f32], second: &[f32], third: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let parts = [first, second, third].map(|row| row.chunks_exact(LANES));
    let [left, middle, right] = parts.each_ref().map(ChunksExact::remainder);
    let mut add = |left: &[f32], middle: &[f32], right: &[f32]| {
        let elements = left.iter().zip(middle).zip(right);
        for (lane, ((left, middle), right)) in lanes.iter_mut().zip(elements) {
            *lane += left * middle * right;
        }
    };
    let [a, b, c] = parts;
    for ((left, middle), right) in a.zip(b).zip(c) {
        add(left, middle, right);
    }
    add(left, middle, right);
    lanes.into_iter().sum()
}

/// Row `index` of rows of `width` elements.
#[inline(always)]
pub(super) fn row_of<T>(elements: &[T], index: usize, width: usize) -> &[T] {
    &elements[index * width..(index + 1) * width]
}
