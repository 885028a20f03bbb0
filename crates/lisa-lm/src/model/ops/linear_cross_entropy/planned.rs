//! [`HeadSizes`]: the memory of the loss, for plans.

use burn::tensor::DType;

use super::{NARROW, most_on};
use crate::model::ops::Form;
use crate::model::ops::counted::largest_slice;
#[cfg(feature = "flex")]
use crate::model::ops::fused;

/// What the memory of the loss depends on.
#[derive(Clone, Copy)]
pub(crate) struct HeadSizes {
    /// The positions of a batch. As many of them may count, or fewer.
    pub(crate) rows: usize,
    pub(crate) width: usize,
    pub(crate) vocab: usize,
    pub(crate) is_tied: bool,
    /// The width of the rows of a product that is added to the logits, or 0.
    pub(crate) added: usize,
    pub(crate) dtype: DType,
    pub(crate) form: Form,
    /// Whether the loss is computed on flex.
    pub(crate) flex: bool,
}

/// The most bytes that the loss needs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadBytes {
    /// With the gradient of the hidden states, if the weight is frozen.
    pub(crate) frozen: u64,
    /// In addition if the weight is trainable, besides its gradient.
    pub(crate) weight: u64,
}

/// Bytes of an element in f32.
const WIDE: usize = size_of::<f32>();

impl HeadSizes {
    pub(crate) fn bytes(self) -> HeadBytes {
        let of_hidden = self.rows * self.width * self.dtype.size();
        let (frozen, trained) = match self.form {
            #[cfg(feature = "flex")]
            Form::Fused if self.added == 0 => {
                let bytes = fused::head_bytes(self.rows, self.vocab, self.width);
                (bytes, bytes)
            }
            _ if self.flex => self.on_flex(),
            _ => self.on_others(),
        };
        HeadBytes {
            frozen: (of_hidden + frozen + self.of_added()) as u64,
            weight: (trained - frozen) as u64,
        }
    }

    fn slice(self) -> usize {
        largest_slice(self.rows, most_on(!self.flex, self.vocab))
    }

    /// Elements of the logits of a slice, and of the weight.
    fn elements(self) -> [usize; 2] {
        [self.slice() * self.vocab, self.vocab * self.width]
    }

    /// Bytes of an element of the weight's gradient that exists next to a product that is added to it. It is
    /// in f32 if there are many slices.
    fn of_sum(self) -> usize {
        match self.rows.div_ceil(self.slice()) {
            1 => 0,
            slices if slices > NARROW => WIDE,
            _ => self.dtype.size(),
        }
    }

    /// Bytes of the loss with a frozen weight and with a trainable one. Burn allocates the result of a matmul
    /// twice, and in bf16 copies transposed operands, converts all operands to f32, and computes in f32.
    fn on_flex(self) -> (usize, usize) {
        let size = self.dtype.size();
        let [logits, weight] = self.elements();
        let (copy, transposed) = match self.dtype {
            DType::BF16 => (WIDE, size),
            _ => (0, 0),
        };
        let result = copy + 2 * size;
        let wide = if size < WIDE { WIDE + size } else { WIDE };
        let (tied, own) = if self.is_tied {
            (transposed, 0)
        } else {
            (0, transposed)
        };
        // The logits of an added product come next to the logits of the first.
        let first = if self.added > 0 { WIDE } else { 0 };
        let forward = logits * (first + result.max(wide)) + weight * (copy + tied);
        // The gradient of the logits in f32 and in the dtype of the model, and a product with it.
        let rows = self.slice() * self.width;
        let of_rows = logits * (wide + copy) + weight * (copy + own) + rows * result;
        let of_weight = logits * (wide + copy + tied)
            + weight * (result + self.of_sum())
            + rows * (copy + transposed);
        // The gradient is the result, or the sum.
        let trained = of_weight - weight * size;
        (forward.max(of_rows), forward.max(of_rows).max(trained))
    }

    /// The same on other devices: the logits and their gradient in the dtype of the model; logits,
    /// exponentials and gradient in f32.
    fn on_others(self) -> (usize, usize) {
        let size = self.dtype.size();
        let [logits, weight] = self.elements();
        let added = if self.added > 0 { size } else { 0 };
        let frozen = logits * (2 * size + 3 * WIDE + added);
        let product = match self.of_sum() {
            WIDE if size < WIDE => 2 * WIDE,
            of_sum => of_sum,
        };
        (frozen, frozen + weight * product)
    }

    /// The gradients of an added product.
    fn of_added(self) -> usize {
        self.added * (self.rows * 2 + self.vocab * 3) * WIDE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: HeadSizes = HeadSizes {
        rows: 1024,
        width: 144,
        vocab: 49152,
        is_tied: false,
        added: 0,
        dtype: DType::BF16,
        form: Form::Recomputed,
        flex: true,
    };
    /// The most rows of a slice, and one less than a slice.
    const SLICE: usize = (1 << 24) / 49152;

    /// With the gradient of the weight.
    fn of(rows: usize, width: usize, is_trained: bool) -> f64 {
        let sizes = HeadSizes {
            rows,
            width,
            ..SIZES
        };
        let bytes = sizes.bytes();
        let trained = bytes.weight + (sizes.vocab * width * 2) as u64;
        (bytes.frozen + if is_trained { trained } else { 0 }) as f64
    }

    /// What the counting allocator of `bench` found for `linear_cross_entropy` in bf16 on flex, in MB, by
    /// rows, width, and whether the weight is trainable. As many rows as in the plan counted, so slices
    /// have up to one row less.
    #[test]
    fn planned_bytes_are_those_that_were_measured() {
        assert_eq!(SLICE, 341);
        for (rows, width, is_trained, measured) in [
            (255, 144, false, 168.1),
            (680, 144, false, 210.1),
            (255, 144, true, 182.3),
            (680, 144, true, 238.4),
            (2040, 144, true, 253.0),
            (1020, 32, false, 176.7),
            (1020, 32, true, 183.0),
            (340, 288, true, 281.2),
            (2040, 288, true, 338.8),
            (2040, 288, false, 253.9),
        ] {
            let planned = of(rows, width, is_trained) / 1e6;
            assert!(
                measured <= planned && planned < 1.01 * measured,
                "{rows} x {width}, {is_trained}: {planned} {measured}"
            );
        }
    }

    #[test]
    fn a_batch_in_which_fewer_positions_count_needs_no_more() {
        let forms = [
            SIZES,
            #[cfg(feature = "flex")]
            HeadSizes {
                form: Form::Fused,
                dtype: DType::F32,
                ..SIZES
            },
        ];
        for sizes in forms {
            // 1000 rows are divided evenly into slices that are smaller than the largest ones.
            let needed = |rows| HeadSizes { rows, ..sizes }.bytes().frozen;
            let most = needed(1000);
            assert!((1..1000).all(|rows| needed(rows) <= most));
        }
    }
}
