//! [`Batch`]: rows padded to one length.

use crate::text::encoded::IGNORED;
use crate::text::row::Row;

/// Rows padded on the right to the length of the longest.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::text::{Batch, Encoded, IGNORED, Row};
///
/// let [long, short] = [vec![5, 6, 7], vec![8, 9]].map(Encoded::all_trained);
/// let batch = Batch::collate(vec![Row::new([&long]), Row::new([&short])], 0);
/// assert_eq!(batch.shape(), [2, 3]);
/// assert_eq!(batch.lengths(), [3, 2]);
/// assert_eq!(batch.rows()[1].tokens, [8, 9, 0]);
/// assert_eq!(batch.rows()[1].targets, [9, IGNORED, IGNORED]);
/// assert_eq!((batch.tokens(), batch.trained()), (5, 3));
/// assert_eq!(batch.to_tensors(&Device::default()).input.tokens.dims(), [2, 3]);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    rows: Vec<Row>,
    lengths: Vec<usize>,
    width: usize,
}

impl Batch {
    /// Pads the rows with `pad_id`. A padded position has no target. It has the segment of the
    /// row's last example, so that every position can attend to at least one position.
    #[must_use]
    pub fn collate(mut rows: Vec<Row>, pad_id: u32) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        for row in &mut rows {
            let last = row.segments.last().copied().unwrap_or(0);
            row.tokens.resize(width, pad_id);
            row.targets.resize(width, IGNORED);
            if let Some(weights) = &mut row.weights {
                weights.resize(width, 1.0);
            }
            row.segments.resize(width, last);
            row.positions.resize(width, 0);
        }
        Self {
            rows,
            lengths,
            width,
        }
    }

    /// The padded rows.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// How many tokens of each row are not padding.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// Rows, and tokens in each with its padding: `[batch, sequence]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.width]
    }

    /// How many tokens are not padding.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// How many tokens have a target.
    #[must_use]
    pub fn trained(&self) -> usize {
        let targets = self.rows.iter().flat_map(|row| &row.targets);
        targets.filter(|target| **target != IGNORED).count()
    }

    /// The sum of the weights of the targets, by which the mean loss of the batch is divided. It
    /// equals [`trained`](Self::trained) if no row has weights.
    #[must_use]
    pub fn weight(&self) -> f64 {
        if !self.is_weighted() {
            return self.trained() as f64;
        }
        let mut sum = 0.0;
        for row in &self.rows {
            for (at, target) in row.targets.iter().enumerate() {
                if *target != IGNORED {
                    sum += row
                        .weights
                        .as_ref()
                        .map_or(1.0, |weights| f64::from(weights[at]));
                }
            }
        }
        sum
    }

    /// Whether a row has weights.
    #[must_use]
    pub fn is_weighted(&self) -> bool {
        self.rows.iter().any(|row| row.weights.is_some())
    }
}
