//! What becomes of one row in each operation. Tests: `tests.rs`.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use super::rows::{Rows, dot, dot3, exps, largest, row_of, sigmoid};
use crate::model::attention::MASKED;

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
        let largest = largest(scores);
        let share = 1.0 / exps(scores, largest);
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

/// Adds rows of `[heads, groups, rows, dim]`, over the groups, to those of `[rows, heads, dim]`.
#[derive(Clone, Copy)]
pub(super) struct SumGroups<'a> {
    pub(super) part: &'a [f32],
    pub(super) heads: usize,
    pub(super) groups: usize,
    pub(super) rows: usize,
}

impl Rows for SumGroups<'_> {
    #[inline(always)]
    fn row(&self, index: usize, out: &mut [f32], _: &mut [f32]) {
        let (row, head) = (index / self.heads, index % self.heads);
        for group in 0..self.groups {
            let part = (head * self.groups + group) * self.rows + row;
            let part = row_of(self.part, part, out.len());
            for (out, x) in out.iter_mut().zip(part) {
                *out += x;
            }
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
        let largest = largest(logits);
        let said = logits[target] - largest;
        let sum = exps(logits, largest);
        loss.fill((sum.ln() - said) * self.share);
        let factor = self.share / sum;
        for logit in logits.iter_mut() {
            *logit *= factor;
        }
        logits[target] -= self.share;
    }
}
