//! [`Batch`]: rows of tokens of one length, and the tensors made of them.
//!
//! A row is one example, padded on the right, or several examples packed one behind the other. The
//! targets are shifted here and nowhere else: `targets[i]` is what the model should say at
//! `tokens[i]`, which is the label of the token after it. Tests: `batch/tests.rs`.

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};

use crate::model::BatchTensors;
use crate::text::encode::{Encoded, IGNORED};

/// One row of a batch before padding: one or more examples.
///
/// # Example
///
/// ```
/// use lisa_lm::{Encoded, IGNORED, Row};
///
/// // A prompt of one token with an answer of two, and a text.
/// let answered = Encoded { ids: vec![5, 6, 7], labels: vec![IGNORED, 6, 7] };
/// let text = Encoded::all_trained(vec![8, 9]);
/// let row = Row::new([&answered, &text]);
/// assert_eq!(row.tokens, [5, 6, 7, 8, 9]);
/// assert_eq!(row.targets, [6, 7, IGNORED, 9, IGNORED]);
/// assert_eq!(row.segments, [0, 0, 0, 1, 1]);
/// assert_eq!(row.positions, [0, 1, 2, 0, 1]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// The token ids.
    pub tokens: Vec<u32>,
    /// The next token at each place, or [`IGNORED`].
    pub targets: Vec<i64>,
    /// Which example of the row each token belongs to, from 0.
    pub segments: Vec<u32>,
    /// The place of each token in its example, from 0.
    pub positions: Vec<u32>,
}

impl Row {
    /// A row of these examples, one behind the other. Nothing is predicted across a border: the
    /// target of an example's last token is [`IGNORED`].
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Encoded>) -> Self {
        let mut row = Self::default();
        for (segment, example) in examples.into_iter().enumerate() {
            let count = example.ids.len();
            row.tokens.extend(&example.ids);
            row.targets.extend(example.labels.iter().skip(1));
            row.targets.resize(row.tokens.len(), IGNORED);
            row.segments.extend(vec![segment as u32; count]);
            row.positions.extend(0..count as u32);
        }
        row
    }
}

/// Rows padded on the right to the length of the longest.
///
/// # Example
///
/// ```
/// use burn::tensor::Device;
/// use lisa_lm::{Batch, Encoded, IGNORED, Row};
///
/// let [long, short] = [vec![5, 6, 7], vec![8, 9]].map(Encoded::all_trained);
/// let batch = Batch::collate(vec![Row::new([&long]), Row::new([&short])], 0);
/// assert_eq!(batch.shape(), [2, 3]);
/// assert_eq!(batch.lengths(), [3, 2]);
/// assert_eq!(batch.rows()[1].tokens, [8, 9, 0]);
/// assert_eq!(batch.rows()[1].targets, [9, IGNORED, IGNORED]);
/// assert_eq!((batch.tokens(), batch.trained()), (5, 3));
/// assert_eq!(batch.to_tensors(&Device::default()).tokens.dims(), [2, 3]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    rows: Vec<Row>,
    lengths: Vec<usize>,
    width: usize,
}

impl Batch {
    /// Pads the rows with `pad_id`. Padding has no target and carries the segment of the row's last
    /// example, so that no place is left without anything to attend to.
    #[must_use]
    pub fn collate(mut rows: Vec<Row>, pad_id: u32) -> Self {
        let lengths: Vec<usize> = rows.iter().map(|row| row.tokens.len()).collect();
        let width = lengths.iter().copied().max().unwrap_or(0);
        for row in &mut rows {
            let last = row.segments.last().copied().unwrap_or(0);
            row.tokens.resize(width, pad_id);
            row.targets.resize(width, IGNORED);
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

    /// Rows and tokens in each, padding included: `[b, s]`.
    #[must_use]
    pub fn shape(&self) -> [usize; 2] {
        [self.rows.len(), self.width]
    }

    /// How many tokens are not padding.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.lengths.iter().sum()
    }

    /// How many tokens have a target: what a loss's mean is taken over.
    #[must_use]
    pub fn trained(&self) -> usize {
        let targets = self.rows.iter().flat_map(|row| &row.targets);
        targets.filter(|target| **target != IGNORED).count()
    }

    /// The batch on a device. What the batch does not need is none: `padding` where no row is
    /// padded, `segments` and `positions` where every row is one example.
    #[must_use]
    pub fn to_tensors(&self, device: &Device) -> BatchTensors {
        let ints = |of: fn(&Row) -> Vec<i64>| {
            let flat: Vec<i64> = self.rows.iter().flat_map(of).collect();
            Tensor::<2, Int>::from_data(TensorData::new(flat, self.shape()), device)
        };
        let is_packed = self.rows.iter().any(|row| row.segments.last() > Some(&0));
        let is_padded = self.lengths.iter().any(|length| *length < self.width);
        BatchTensors {
            tokens: ints(|row| widen(&row.tokens)),
            targets: ints(|row| row.targets.clone()),
            padding: is_padded.then(|| self.padding(device)),
            segments: is_packed.then(|| ints(|row| widen(&row.segments))),
            positions: is_packed.then(|| ints(|row| widen(&row.positions))),
        }
    }

    fn padding(&self, device: &Device) -> Tensor<2, Bool> {
        let flat: Vec<bool> = (self.lengths.iter())
            .flat_map(|length| (0..self.width).map(move |place| place >= *length))
            .collect();
        Tensor::from_data(TensorData::new(flat, self.shape()), device)
    }
}

fn widen(values: &[u32]) -> Vec<i64> {
    values.iter().map(|value| i64::from(*value)).collect()
}

#[cfg(test)]
mod tests;
