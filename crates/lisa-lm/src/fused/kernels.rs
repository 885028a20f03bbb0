//! What the operations of this module do to rows of f32 numbers, in one pass each.
//!
//! Plain loops, which the compiler turns into vector instructions; `pulp` picks those of the processor
//! at run time. No step is contracted into another, and each row is added up in the same order, so
//! that the bits are the same on every processor and with any number of threads. Tests: `tests.rs`.

// The vector instructions that `pulp` chose are those of its caller: what is not inlined has none.
#![allow(clippy::inline_always)]

use std::slice::ChunksExact;

use pulp::{Arch, Simd, WithSimd};

/// What a masked score becomes: its exponential is 0 beside any other score, and it is finite, so
/// that a row with nothing to attend to is no NaN.
const MASKED: f32 = -1e30;

/// Numbers below which rows are not shared out among threads.
const GRAIN: usize = 1 << 14;

/// Numbers that are added up side by side.
const LANES: usize = 32;

/// What becomes of one row of each output; the second may be of width 0.
pub(super) trait Rows: Sync {
    fn row(&self, index: usize, a: &mut [f32], b: &mut [f32]);
}

/// An output: rows of `width` numbers.
pub(super) struct Out<'a> {
    numbers: &'a mut [f32],
    width: usize,
}

impl<'a> Out<'a> {
    pub(super) fn new(numbers: &'a mut [f32], width: usize) -> Self {
        Self { numbers, width }
    }

    pub(super) fn none() -> Self {
        Self::new(&mut [], 0)
    }

    fn split(self, rows: usize) -> (Self, Self) {
        let (left, right) = self.numbers.split_at_mut(rows * self.width);
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
        let (a, b) = (self.a, self.b);
        for i in 0..self.rows {
            let first = &mut a.numbers[i * a.width..(i + 1) * a.width];
            let second = &mut b.numbers[i * b.width..(i + 1) * b.width];
            self.kernel.row(self.first + i, first, second);
        }
    }
}

impl<K: Rows> Job<'_, K> {
    fn run(self) {
        if self.rows < 2 || self.a.numbers.len() <= GRAIN {
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

/// Runs a kernel over all rows of the outputs.
pub(super) fn run<K: Rows>(kernel: &K, a: Out<'_>, b: Out<'_>) {
    let rows = a.numbers.len() / a.width.max(1);
    Job {
        kernel,
        first: 0,
        rows,
        a,
        b,
    }
    .run();
}

/// e to the power of x to 2 units in the last place; 0 below the smallest normal number.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    // Adding it leaves the nearest whole number in the lowest bits.
    const ROUND: f32 = 12_582_912.0;
    const LOWEST: f32 = -87.336_54;
    let clamped = x.clamp(LOWEST, 88.376_26);
    let shifted = clamped * std::f32::consts::LOG2_E + ROUND;
    let whole = shifted - ROUND;
    // ln 2 in two parts, the first of which is exact in few bits.
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
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// Folds a row, `LANES` numbers side by side.
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

/// The sum of products.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let (left, right) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = (left.remainder(), right.remainder());
    for (a, b) in left.zip(right) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    for ((lane, a), b) in lanes.iter_mut().zip(rest.0).zip(rest.1) {
        *lane += a * b;
    }
    lanes.into_iter().sum()
}

/// The sum of products of three.
#[inline(always)]
fn dot3(first: &[f32], second: &[f32], third: &[f32]) -> f32 {
    let mut lanes = [0.0; LANES];
    let parts = [first, second, third].map(|row| row.chunks_exact(LANES));
    let [left, middle, right] = parts.each_ref().map(ChunksExact::remainder);
    let mut add = |left: &[f32], middle: &[f32], right: &[f32]| {
        let numbers = left.iter().zip(middle).zip(right);
        for (lane, ((left, middle), right)) in lanes.iter_mut().zip(numbers) {
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

/// Row `index` of `width` numbers.
#[inline(always)]
fn row_of<T>(numbers: &[T], index: usize, width: usize) -> &[T] {
    &numbers[index * width..(index + 1) * width]
}

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

/// The gradients of gate and up, in their places.
pub(super) struct SwiGluBackward<'a> {
    pub(super) grad: &'a [f32],
}

impl Rows for SwiGluBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, gate: &mut [f32], up: &mut [f32]) {
        let grad = row_of(self.grad, index, gate.len());
        for ((gate, up), grad) in gate.iter_mut().zip(up).zip(grad) {
            let (x, open) = (*gate, sigmoid(*gate));
            let through = x * open;
            *gate = grad * *up * (open + through * (1.0 - open));
            *up = grad * through;
        }
    }
}

/// `x / sqrt(mean(x^2) + epsilon) * gamma`.
pub(super) struct RmsNorm<'a> {
    pub(super) x: &'a [f32],
    pub(super) gamma: &'a [f32],
    pub(super) epsilon: f32,
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

/// The gradient of x, in the place of the output's.
pub(super) struct RmsNormBackward<'a>(pub(super) RmsNorm<'a>);

impl Rows for RmsNormBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], _: &mut [f32]) {
        let norm = &self.0;
        let x = row_of(norm.x, index, grad.len());
        let scale = norm.scale(x);
        let along = dot3(grad, norm.gamma, x) * scale * scale * scale / x.len() as f32;
        for ((grad, x), gamma) in grad.iter_mut().zip(x).zip(norm.gamma) {
            *grad = *grad * gamma * scale - x * along;
        }
    }
}

/// The gradient of gamma: one row, which is zero before.
pub(super) struct GammaGradient<'a> {
    pub(super) norm: RmsNorm<'a>,
    pub(super) grad: &'a [f32],
}

impl Rows for GammaGradient<'_> {
    #[inline(always)]
    fn row(&self, _: usize, sum: &mut [f32], _: &mut [f32]) {
        let width = sum.len();
        for (x, grad) in self.norm.x.chunks(width).zip(self.grad.chunks(width)) {
            let scale = self.norm.scale(x);
            for ((sum, x), grad) in sum.iter_mut().zip(x).zip(grad) {
                *sum += x * scale * grad;
            }
        }
    }
}

/// Rotates heads, `[batch, heads, seq, dim]` in any order in memory, into `[batch, seq, heads, dim]`.
pub(super) struct Rotate<'a> {
    pub(super) x: &'a [f32],
    pub(super) start: usize,
    /// Of batch, head and place in the row.
    pub(super) strides: [usize; 3],
    pub(super) heads: usize,
    pub(super) seq: usize,
    /// `[batch or 1, seq, dim]`.
    pub(super) cos: &'a [f32],
    /// The same, negative in the first half.
    pub(super) sin: &'a [f32],
    /// 1, or -1 to turn back.
    pub(super) direction: f32,
}

impl Rows for Rotate<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let dim = out.len();
        let head = index % self.heads;
        let place = index / self.heads % self.seq;
        let batch = index / (self.heads * self.seq);
        let [of_batch, of_head, of_place] = self.strides;
        let start = self.start + batch * of_batch + head * of_head + place * of_place;
        let x = &self.x[start..start + dim];
        let rows = self.cos.len() / dim;
        let table = (batch * self.seq + place) % rows;
        let (cos, sin) = (row_of(self.cos, table, dim), row_of(self.sin, table, dim));
        let half = dim / 2;
        for first in [0, half] {
            let (out, other) = (&mut out[first..first + half], &x[half - first..dim - first]);
            let at = first..first + half;
            let numbers = x[at.clone()].iter().zip(&cos[at.clone()]).zip(&sin[at]);
            for ((out, other), ((x, cos), sin)) in out.iter_mut().zip(other).zip(numbers) {
                *out = x * cos + other * (self.direction * sin);
            }
        }
    }
}

/// The softmax of scores, in their place: rows of `[batch, key heads, groups, block, seen]`.
pub(super) struct Softmax<'a> {
    pub(super) scale: f32,
    pub(super) mask: Option<Mask<'a>>,
}

/// Which scores are masked: bytes of `[batch or 1, groups, seq, keys]`.
pub(super) struct Mask<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) kv_heads: usize,
    pub(super) groups: usize,
    pub(super) seq: usize,
    pub(super) keys: usize,
    /// The first query of the block, and how many there are.
    pub(super) first: usize,
    pub(super) block: usize,
}

impl Mask<'_> {
    #[inline(always)]
    fn row(&self, index: usize, seen: usize) -> &[u8] {
        let query = self.first + index % self.block;
        let group = index / self.block % self.groups;
        let batch = index / (self.block * self.groups * self.kv_heads);
        let rows = self.bytes.len() / self.keys;
        let row = ((batch * self.groups + group) * self.seq + query) % rows;
        &self.bytes[row * self.keys..row * self.keys + seen]
    }
}

impl Rows for Softmax<'_> {
    #[inline(always)]
    fn row(&self, index: usize, scores: &mut [f32], _: &mut [f32]) {
        match &self.mask {
            None => {
                for score in scores.iter_mut() {
                    *score *= self.scale;
                }
            }
            Some(mask) => {
                let mask = mask.row(index, scores.len());
                for (score, masked) in scores.iter_mut().zip(mask) {
                    let value = *score * self.scale;
                    *score = if *masked == 0 { value } else { MASKED };
                }
            }
        }
        let largest = fold(scores, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        for score in scores.iter_mut() {
            *score = exp(*score - largest);
        }
        let share = 1.0 / fold(scores, 0.0, |a, b| a + b);
        for score in scores.iter_mut() {
            *score *= share;
        }
    }
}

/// The gradient of the scores, in the place of the weights'.
pub(super) struct SoftmaxBackward<'a> {
    pub(super) weights: &'a [f32],
    pub(super) scale: f32,
}

impl Rows for SoftmaxBackward<'_> {
    #[inline(always)]
    fn row(&self, index: usize, grad: &mut [f32], _: &mut [f32]) {
        let weights = row_of(self.weights, index, grad.len());
        let mean = dot(grad, weights);
        for (grad, weight) in grad.iter_mut().zip(weights) {
            *grad = (*grad - mean) * weight * self.scale;
        }
    }
}

/// The cross entropy of rows of logits, and in their place the gradient of its mean.
pub(super) struct CrossEntropy<'a> {
    /// The number of the right logit; none where the row does not count.
    pub(super) targets: &'a [Option<usize>],
    /// What a row counts for in the mean.
    pub(super) share: f32,
}

impl Rows for CrossEntropy<'_> {
    #[inline(always)]
    fn row(&self, index: usize, logits: &mut [f32], loss: &mut [f32]) {
        let Some(target) = self.targets[index] else {
            logits.fill(0.0);
            loss.fill(0.0);
            return;
        };
        let largest = fold(logits, f32::NEG_INFINITY, |a, b| if b > a { b } else { a });
        let said = logits[target] - largest;
        for logit in logits.iter_mut() {
            *logit = exp(*logit - largest);
        }
        let sum = fold(logits, 0.0, |a, b| a + b);
        loss.fill((sum.ln() - said) * self.share);
        let factor = self.share / sum;
        for logit in logits.iter_mut() {
            *logit *= factor;
        }
        logits[target] -= self.share;
    }
}
