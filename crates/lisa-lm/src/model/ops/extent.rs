//! The attention scores that are computed: block by block along the queries, up to the last key
//! that a query of the block attends to.

/// The value of a masked score. Its exponential is 0 relative to the exponential of any other score. It is
/// finite, so that a row in which every score is masked gives no NaN.
pub(crate) const MASKED: f32 = -1e30;

/// How the queries are divided into blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// The minimum number of queries in a block; the last block may have fewer.
    queries: usize,
    /// The maximum number of blocks.
    blocks: usize,
}

/// For attention in Burn's operations only. The backward pass of a slice costs as much as the backward
/// pass of the whole tensor, so there are few blocks.
pub(super) const WRITTEN_OUT: Extent = Extent {
    queries: 128,
    blocks: 4,
};

/// For attention in Burn's operations that computes its weights again, or has no backward pass.
pub(super) const RECOMPUTED: Extent = Extent {
    queries: 256,
    blocks: usize::MAX,
};

/// For fused attention.
pub(super) const FUSED: Extent = Extent {
    queries: 128,
    blocks: usize::MAX,
};

/// The longest sequence for which fused attention keeps its weights for the backward pass. For
/// longer ones it computes them again: at 1024 tokens they would be half of what a layer keeps, and
/// they grow with the square of the length.
pub(super) const KEPT: usize = 256;

impl Extent {
    /// Queries in a block, for `seq` queries; the last block may have fewer.
    pub(crate) fn block(self, seq: usize) -> usize {
        if self.blocks == usize::MAX {
            return self.queries;
        }
        let blocks = (seq / self.queries).clamp(1, self.blocks);
        seq.div_ceil(blocks).max(1)
    }

    /// The first query of each block, and the end of the block (exclusive).
    pub(crate) fn ranges(self, seq: usize) -> impl Iterator<Item = (usize, usize)> {
        let block = self.block(seq);
        (0..seq)
            .step_by(block)
            .map(move |first| (first, (first + block).min(seq)))
    }

    /// The number of scores of one head that are computed, and kept for the backward pass, for
    /// `seq` tokens.
    pub(crate) fn scores(self, seq: usize) -> usize {
        self.ranges(seq)
            .map(|(first, end)| (end - first) * end)
            .sum()
    }
}
