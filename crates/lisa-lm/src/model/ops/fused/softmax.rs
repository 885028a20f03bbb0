//! The softmax of attention scores, forward and backward.

// See `rows.rs`.
#![allow(clippy::inline_always)]

use super::rows::{Rows, dot, exps, largest, row_of};
use crate::model::ops::extent::MASKED;

/// Computes the softmax of scaled and masked scores in place: rows of `[key heads,
/// groups, block, seen]`, of one row of the batch.
pub(super) struct Softmax<'a> {
    pub(super) scale: f32,
    pub(super) mask: Option<Mask<'a>>,
}

/// The mask: bytes of `[batch or 1, seq, keys]`; a score is masked if its byte is not 0.
pub(super) struct Mask<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) seq: usize,
    pub(super) keys: usize,
    /// The row of the batch, the first query of the block, and the number of queries.
    pub(super) row: usize,
    pub(super) first: usize,
    pub(super) block: usize,
}

impl Mask<'_> {
    #[inline(always)]
    fn row(&self, index: usize, seen: usize) -> &[u8] {
        let query = self.first + index % self.block;
        let rows = self.bytes.len() / self.keys;
        let row = (self.row * self.seq + query) % rows;
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

/// Computes the gradient of the scores, in place of the gradient of the weights.
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
