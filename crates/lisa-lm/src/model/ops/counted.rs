//! [`Counted`]: the positions of a batch that count in its loss.

use burn::tensor::{DType, Device, IndexingUpdateOp, Int, Tensor, TensorData};

use crate::labels::IGNORED;

/// The positions that have a target and a weight other than 0, in order. All others are skipped, so
/// they cost nothing in the head.
pub(crate) struct Counted {
    /// The number of positions in the batch.
    positions: usize,
    /// The positions that count.
    pub(crate) rows: Vec<usize>,
    /// The target of each row.
    pub(crate) targets: Vec<usize>,
    /// The share of each row in the mean: its weight divided by the sum of the weights.
    pub(crate) shares: Vec<f32>,
}

impl Counted {
    /// Copies the targets and the weights, `[positions]`, to the host. If the weights sum to 0, the
    /// first position counts with a share of 0.
    ///
    /// # Panics
    ///
    /// Panics if there is no position, and on a target that is neither -100 nor below `vocab`.
    pub(crate) fn of(targets: &Tensor<1, Int>, weights: Option<&Tensor<1>>, vocab: usize) -> Self {
        let positions = targets.dims()[0];
        assert!(positions > 0, "a loss of no positions");
        let weights: Vec<f32> = match weights {
            Some(weights) => weights.to_data().iter().collect(),
            None => vec![1.0; positions],
        };
        let (mut rows, mut kept, mut shares) = (Vec::new(), Vec::new(), Vec::new());
        for (row, target) in targets.to_data().iter::<i64>().enumerate() {
            if target == IGNORED || weights[row] == 0.0 {
                continue;
            }
            let found = usize::try_from(target).ok().filter(|found| *found < vocab);
            let Some(found) = found else {
                panic!("target {target} of position {row} is outside the vocabulary of {vocab}");
            };
            rows.push(row);
            kept.push(found);
            shares.push(weights[row]);
        }
        let sum: f64 = shares.iter().map(|weight| f64::from(*weight)).sum();
        if sum == 0.0 {
            (rows, kept, shares) = (vec![0], vec![0], vec![0.0]);
        } else {
            for share in &mut shares {
                *share = (f64::from(*share) / sum) as f32;
            }
        }
        Self {
            positions,
            rows,
            targets: kept,
            shares,
        }
    }

    /// How many rows count.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether every position counts.
    pub(crate) fn is_all(&self) -> bool {
        self.rows.len() == self.positions
    }

    #[cfg(feature = "flex")]
    pub(crate) fn positions(&self) -> usize {
        self.positions
    }

    /// The rows that count, of all positions, `[positions, width]`.
    pub(crate) fn select(&self, positions: Tensor<2>) -> Tensor<2> {
        if self.is_all() {
            return positions;
        }
        let rows = self.ints(&self.rows, &positions.device());
        positions.select(0, rows)
    }

    /// The opposite of [`select`](Self::select): 0 at the positions that do not count.
    pub(crate) fn scatter(&self, rows: Tensor<2>) -> Tensor<2> {
        if self.is_all() {
            return rows;
        }
        let (device, [_, width]) = (rows.device(), rows.dims());
        let zeros = Tensor::zeros([self.positions, width], (&device, rows.dtype()));
        let indices = self.ints(&self.rows, &device);
        zeros.select_assign(0, indices, rows, IndexingUpdateOp::Add)
    }

    /// For each row, the target and the share in f32, `[len, 1]`.
    pub(crate) fn to_tensors(&self, device: &Device) -> (Tensor<2, Int>, Tensor<2>) {
        let shares = TensorData::new(self.shares.clone(), [self.len(), 1]);
        (
            self.ints(&self.targets, device).reshape([self.len(), 1]),
            Tensor::from_data(shares, (device, DType::F32)),
        )
    }

    fn ints(&self, of: &[usize], device: &Device) -> Tensor<1, Int> {
        let of = of.iter().map(|index| *index as i64).collect();
        Tensor::from_data(TensorData::new::<i64, _>(of, [self.len()]), device)
    }
}

/// The number of rows in a slice, of `rows` that are divided evenly into slices of at most `most`,
/// but at least 64: matmuls of fewer rows are inefficient.
pub(crate) fn slice_of(rows: usize, most: usize) -> usize {
    rows.div_ceil(rows.div_ceil(most.max(64)).max(1)).max(1)
}

/// The most rows that [`slice_of`] returns for up to `rows` rows.
pub(crate) fn largest_slice(rows: usize, most: usize) -> usize {
    rows.min(most.max(64))
}

#[cfg(test)]
mod tests {
    use super::{largest_slice, slice_of};

    #[test]
    fn rows_are_divided_evenly() {
        let slices = [0, 1, 64, 257, 2048, 2049].map(|rows| slice_of(rows, 256));
        assert_eq!(slices, [1, 1, 64, 129, 256, 228]);
        assert_eq!(slice_of(1000, 3), 63);
    }

    #[test]
    fn no_slice_is_larger_than_the_largest() {
        for most in [3, 64, 100, 341] {
            for rows in [1, 63, 64, 100, 129, 1024] {
                let found = (0..=rows).map(|rows| slice_of(rows, most)).max().unwrap();
                let largest = largest_slice(rows, most);
                assert!(
                    found <= largest && largest <= found + most.max(64) / 2,
                    "{rows} {most}"
                );
            }
        }
    }
}
