//! [`Sizes`] of a call of attention, the memory layouts of its heads, and its [`Block`]s of queries.

use burn::tensor::Shape;
use burn_flex::{FlexTensor, Layout};

use crate::model::ops::extent::FUSED;
use crate::model::ops::fused::autodiff::{tensor_of, with_rows};

/// Sizes of one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) kv_heads: usize,
    /// Query heads for each key head.
    pub(super) groups: usize,
    pub(super) seq: usize,
    pub(super) keys: usize,
    pub(super) dim: usize,
}

/// Queries of one row of the batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Block {
    pub(super) row: usize,
    /// The first query, and the number of queries.
    pub(super) first: usize,
    pub(super) queries: usize,
    /// The number of keys up to the last query.
    pub(super) seen: usize,
}

impl Block {
    /// The queries of `[batch, key heads, groups, seq, dim]`.
    pub(super) fn queries_of(self, x: &FlexTensor) -> FlexTensor {
        x.narrow(0, self.row, 1).narrow(3, self.first, self.queries)
    }
}

impl Sizes {
    pub(super) fn heads(&self) -> usize {
        self.kv_heads * self.groups
    }

    pub(super) fn blocks(self) -> impl Iterator<Item = Block> {
        let before = self.keys - self.seq;
        (0..self.batch).flat_map(move |row| {
            FUSED.ranges(self.seq).map(move |(first, end)| Block {
                row,
                first,
                queries: end - first,
                seen: before + end,
            })
        })
    }

    /// `[batch, heads, seq, dim]` as `[batch, key heads, groups, seq, dim]`, without a copy.
    pub(super) fn grouped(&self, heads: FlexTensor) -> FlexTensor {
        let heads = with_rows(heads);
        let layout = heads.layout();
        let (start, old) = (layout.start_offset(), layout.strides());
        let [_, all, rows, dim] = layout.shape().dims();
        let groups = all / self.kv_heads;
        let shape = Shape::new([self.batch, self.kv_heads, groups, rows, dim]);
        let strides = vec![old[0], old[1] * groups as isize, old[1], old[2], old[3]];
        heads.with_layout(Layout::new(shape, strides, start))
    }

    /// Heads `first..first + count` of `[batch, seq, all heads * dim]`, as `[batch, count, seq,
    /// dim]`, without a copy.
    pub(super) fn part(&self, joint: &FlexTensor, first: usize, count: usize) -> FlexTensor {
        let width = (self.heads() + 2 * self.kv_heads) * self.dim;
        let start = joint.layout().start_offset() + first * self.dim;
        let shape = Shape::new([self.batch, count, self.seq, self.dim]);
        let strides = [self.seq * width, self.dim, width, 1].map(|stride| stride as isize);
        let layout = Layout::new(shape, strides.to_vec(), start);
        joint.clone().with_layout(layout)
    }

    /// Values in the order `[batch, rows, heads, dim]`, as a tensor `[batch, heads, rows, dim]`.
    pub(super) fn heads_of(&self, values: Vec<f32>, heads: usize, rows: usize) -> FlexTensor {
        tensor_of(values, Shape::new([self.batch, rows, heads, self.dim])).transpose(1, 2)
    }
}
