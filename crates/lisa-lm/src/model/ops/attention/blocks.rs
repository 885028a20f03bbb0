//! [`Inputs`]: the inputs of attention, block by block along the queries.

use burn::tensor::{Bool, DType, Tensor};

use crate::model::ops::extent::{Extent, MASKED};

/// Queries, keys, values and mask.
#[derive(Clone, Debug)]
pub(super) struct Inputs {
    /// `[batch, key heads, groups, seq, head_dim]`, multiplied by the scale.
    pub(super) q: Tensor<5>,
    /// `[batch, key heads, keys, head_dim]`.
    pub(super) k: Tensor<4>,
    pub(super) v: Tensor<4>,
    /// `[batch or 1, 1, seq, keys]`.
    pub(super) mask: Option<Tensor<4, Bool>>,
    /// The factor of the scores, for the gradient of the queries.
    #[cfg_attr(not(feature = "custom-backward"), allow(dead_code))]
    pub(super) scale: f64,
}

/// Some queries, and the keys and values up to the last one that a query attends to.
#[cfg_attr(not(feature = "custom-backward"), allow(dead_code))]
pub(super) struct Block {
    pub(super) queries: usize,
    /// `[batch, key heads, groups * queries, head_dim]`.
    pub(super) q: Tensor<4>,
    /// `[batch, key heads, seen, head_dim]`.
    pub(super) k: Tensor<4>,
    pub(super) v: Tensor<4>,
    /// In f32: `[batch, key heads, groups * queries, seen]`.
    pub(super) scores: Tensor<4>,
}

impl Inputs {
    /// For `q` of `[batch, heads, seq, head_dim]`.
    pub(super) fn new(
        q: Tensor<4>,
        k: Tensor<4>,
        v: Tensor<4>,
        mask: Option<&Tensor<4, Bool>>,
        scale: f64,
    ) -> Self {
        let ([batch, heads, seq, dim], kv_heads) = (q.dims(), k.dims()[1]);
        let q = q.mul_scalar(scale);
        Self {
            q: q.reshape([batch, kv_heads, heads / kv_heads, seq, dim]),
            k,
            v,
            mask: mask.cloned(),
            scale,
        }
    }

    /// The blocks, in order.
    pub(super) fn blocks(&self, extent: Extent) -> impl DoubleEndedIterator<Item = Block> {
        let ranges: Vec<_> = extent.ranges(self.q.dims()[3]).collect();
        ranges
            .into_iter()
            .map(|(first, end)| self.block(first, end))
    }

    fn block(&self, first: usize, end: usize) -> Block {
        let [batch, kv_heads, groups, seq, dim] = self.q.dims();
        let keys = self.k.dims()[2];
        let seen = keys - seq + end;
        let queries = end - first;
        let rows = groups * queries;
        // Slicing the whole tensor would add operations to the autodiff graph.
        let up_to = |x: &Tensor<4>| {
            if seen == keys {
                x.clone()
            } else {
                x.clone().slice_dim(2, 0..seen)
            }
        };
        let q = if queries == seq {
            self.q.clone()
        } else {
            self.q.clone().slice_dim(3, first..end)
        };
        let (q, k, v) = (
            q.reshape([batch, kv_heads, rows, dim]),
            up_to(&self.k),
            up_to(&self.v),
        );
        let scores = q.clone().matmul(k.clone().transpose()).cast(DType::F32);
        let scores = match &self.mask {
            Some(mask) => {
                // The query heads that share a key head share the mask, too.
                let shape = [batch, kv_heads, groups, queries, seen];
                let mask: Tensor<5, Bool> = mask.clone().unsqueeze_dim(2);
                let mask = mask.slice_dim(3, first..end).slice_dim(4, 0..seen);
                let scores = scores.reshape(shape).mask_fill(mask.expand(shape), MASKED);
                scores.reshape([batch, kv_heads, rows, seen])
            }
            None => scores,
        };
        Block {
            queries,
            q,
            k,
            v,
            scores,
        }
    }

    /// The results of all blocks, each `[batch, key heads, groups * queries, head_dim]`, as one tensor,
    /// `[batch, heads, seq, head_dim]`.
    pub(super) fn joined(&self, blocks: Vec<Tensor<4>>) -> Tensor<4> {
        let [batch, kv_heads, groups, seq, dim] = self.q.dims();
        let shape = |rows: usize| [batch, kv_heads, groups, rows / groups, dim];
        let mut blocks = blocks.into_iter().map(|x| {
            let rows = x.dims()[2];
            x.reshape(shape(rows))
        });
        let joined = if blocks.len() == 1 {
            blocks.next().expect("there is one")
        } else {
            Tensor::cat(blocks.collect(), 3)
        };
        joined.reshape([batch, kv_heads * groups, seq, dim])
    }
}
