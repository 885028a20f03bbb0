//! [`Batches`]: the endless, resumable sequence of batches that a run trains on.
//!
//! Rows are made once: one for each example, or packed. Each epoch goes through all rows in an order
//! that is a pure function of the seed and the epoch, so a run that remembers its
//! [`Position`] goes on with the very batches it would have seen. Tests: `batches/tests.rs`.

use crate::error::{Error, ErrorKind};
use serde::{Deserialize, Serialize};

use crate::text::batch::{Batch, Row};
use crate::text::encode::Encoded;
use crate::text::order::shuffled;

/// How many rows packing keeps open at a time; bounds its cost for large data.
const OPEN_ROWS: usize = 512;

/// How rows and batches are made.
///
/// # Example
///
/// ```
/// use lisa_lm::{BatchOptions, Batches, Encoded};
///
/// let examples: Vec<_> = [5, 4, 3].map(|n| Encoded::all_trained(vec![1; n])).into();
/// let options = BatchOptions {
///     batch_size: 2, pack_to: None, shuffle: false, seed: 0, pad_id: 0,
/// };
/// let first = Batches::new(examples.clone(), options)?.next_batch();
/// assert_eq!((first.lengths(), first.tokens()), ([5, 4].as_slice(), 9));
///
/// // The examples of 5 and 3 tokens share a row.
/// let packed = BatchOptions { pack_to: Some(8), ..options };
/// let first = Batches::new(examples, packed)?.next_batch();
/// assert_eq!((first.lengths(), first.tokens()), ([8, 4].as_slice(), 12));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Rows in a batch; the last batch of an epoch may have fewer.
    pub batch_size: usize,
    /// Pack examples into rows of at most this many tokens; none: a row for each example.
    pub pack_to: Option<usize>,
    /// Whether each epoch has an order of its own; false: the order given, for evaluation.
    pub shuffle: bool,
    /// What orders are drawn from.
    pub seed: u64,
    /// The token to pad with.
    pub pad_id: u32,
}

/// The next batch to come.
///
/// # Example
///
/// ```
/// use lisa_lm::{BatchOptions, Batches, Encoded, Position};
///
/// # let examples = (0..5).map(|id| Encoded::all_trained(vec![id; 4])).collect();
/// # let options = BatchOptions {
/// #     batch_size: 2, pack_to: None, shuffle: true, seed: 0, pad_id: 0,
/// # };
/// // Three batches an epoch, of which four were taken.
/// let mut batches = Batches::new(examples, options)?;
/// # let mut resumed = batches.clone();
/// batches.by_ref().take(4).for_each(drop);
/// let saved = serde_json::to_string(&batches.position())?;
/// assert_eq!(saved, r#"{"epoch":1,"index":1}"#);
///
/// // In the run that goes on:
/// resumed.seek(serde_json::from_str::<Position>(&saved)?);
/// assert_eq!(resumed.next_batch(), batches.next_batch());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How many times all rows have been gone through.
    pub epoch: u64,
    /// How many batches of this epoch have been taken.
    pub index: usize,
}

/// An endless iterator of batches; one epoch is [`per_epoch`](Self::per_epoch) of them.
///
/// # Example
///
/// ```
/// use lisa_lm::{BatchOptions, Batches, Encoded};
///
/// let examples = (0..5).map(|id| Encoded::all_trained(vec![id; 4])).collect();
/// let options = BatchOptions {
///     batch_size: 2, pack_to: None, shuffle: true, seed: 0, pad_id: 0,
/// };
/// let mut batches = Batches::new(examples, options)?;
/// assert_eq!((batches.rows(), batches.per_epoch()), (5, 3));
/// batches.next_batch();
///
/// let saved = batches.position();
/// let expected = batches.next_batch();
/// batches.seek(saved);
/// assert_eq!(batches.next_batch(), expected);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Batches {
    rows: Vec<Row>,
    options: BatchOptions,
    position: Position,
    order: Vec<usize>,
    epoch_of_order: u64,
}

impl Batches {
    /// Makes the rows and stands before the first batch of epoch 0.
    ///
    /// # Errors
    ///
    /// No examples, a batch size of 0, and an example that is longer than a packed row.
    pub fn new(examples: Vec<Encoded>, options: BatchOptions) -> Result<Self, Error> {
        if options.batch_size == 0 {
            return Err(
                Error::new(ErrorKind::Config, "the batch size is 0").with_help("give at least 1")
            );
        }
        if examples.is_empty() {
            return Err(Error::new(
                ErrorKind::Data,
                "there are no examples to make batches of",
            ));
        }
        let rows = match options.pack_to {
            Some(length) => pack(&examples, length)?,
            None => examples.iter().map(|one| Row::new([one])).collect(),
        };
        let mut batches = Self {
            rows,
            options,
            position: Position::default(),
            order: Vec::new(),
            epoch_of_order: 0,
        };
        batches.order = batches.order_of(0);
        Ok(batches)
    }

    /// How many batches an epoch has.
    #[must_use]
    pub fn per_epoch(&self) -> usize {
        self.rows.len().div_ceil(self.options.batch_size)
    }

    /// How many rows there are.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Which batch comes next: what to save.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Goes on at a saved position. An index past the epoch's end counts on into later epochs.
    pub fn seek(&mut self, position: Position) {
        let per_epoch = self.per_epoch();
        self.position = Position {
            epoch: position.epoch + (position.index / per_epoch) as u64,
            index: position.index % per_epoch,
        };
    }

    /// The next batch; after the last of an epoch comes the first of the next.
    pub fn next_batch(&mut self) -> Batch {
        let Position { epoch, index } = self.position;
        if self.epoch_of_order != epoch {
            self.order = self.order_of(epoch);
            self.epoch_of_order = epoch;
        }
        let start = index * self.options.batch_size;
        let end = (start + self.options.batch_size).min(self.rows.len());
        let rows = self.order[start..end].iter();
        let batch = Batch::collate(
            rows.map(|row| self.rows[*row].clone()).collect(),
            self.options.pad_id,
        );
        self.seek(Position {
            epoch,
            index: index + 1,
        });
        batch
    }

    fn order_of(&self, epoch: u64) -> Vec<usize> {
        if self.options.shuffle {
            shuffled(self.rows.len(), self.options.seed, epoch)
        } else {
            (0..self.rows.len()).collect()
        }
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        Some(self.next_batch())
    }
}

/// Packs examples into rows of at most `length` tokens: each goes, in order, into the first open row
/// with room. Rows are in the order in which they were opened. Segments and positions keep the
/// examples of a row apart.
///
/// At most 512 rows are open at a time (the oldest is closed), so the cost is linear.
///
/// # Errors
///
/// An example that is longer than a row.
///
/// # Example
///
/// ```
/// use lisa_lm::{Encoded, pack};
///
/// let examples: Vec<_> = [3, 4, 2].map(|n| Encoded::all_trained(vec![1; n])).into();
/// let rows = pack(&examples, 5)?;
/// assert_eq!(rows.len(), 2); // 3 and 2, 4
/// assert_eq!(rows[0].segments, [0, 0, 0, 1, 1]);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn pack(examples: &[Encoded], length: usize) -> Result<Vec<Row>, Error> {
    let shortest = examples.iter().map(|e| e.ids.len()).min().unwrap_or(0);
    let mut rows: Vec<(usize, Vec<&Encoded>)> = Vec::new();
    let mut open: Vec<usize> = Vec::new();
    for (index, example) in examples.iter().enumerate() {
        let needed = example.ids.len();
        if needed > length {
            return Err(Error::new(
                ErrorKind::Data,
                format!(
                    "example {} has {needed} tokens, but a packed row has {length}",
                    index + 1
                ),
            )
            .with_help("encode with this maximal length"));
        }
        let place = open.iter().position(|row| rows[*row].0 + needed <= length);
        let place = place.unwrap_or_else(|| {
            if open.len() == OPEN_ROWS {
                open.remove(0);
            }
            open.push(rows.len());
            rows.push((0, Vec::new()));
            open.len() - 1
        });
        let row = &mut rows[open[place]];
        row.0 += needed;
        row.1.push(example);
        if row.0 + shortest > length {
            open.remove(place);
        }
    }
    Ok(rows.into_iter().map(|(_, row)| Row::new(row)).collect())
}

#[cfg(test)]
mod tests;
