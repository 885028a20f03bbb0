//! [`Batches`]: the endless, resumable sequence of batches that a run trains on.
//!
//! The order of an epoch is a pure function of the seed and the epoch. A run that saves its
//! [`Position`] continues with the same batches as a run without interruption.

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind};
use crate::text::batch::Batch;
use crate::text::encoded::Encoded;
use crate::text::order::shuffled;
use crate::text::pack::packed;
use crate::text::row::Row;
use crate::text::stored_rows::StoredRows;
use crate::text::vocabulary::within_vocabulary;

/// How rows and batches are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Rows in a batch; the last batch of an epoch may have fewer.
    pub batch_size: usize,
    /// Packs examples into rows of at most this many tokens. With `None`, each row has one example.
    pub pack_to: Option<usize>,
    /// Whether each epoch is shuffled; false keeps the given order, for evaluation.
    pub shuffle: bool,
    /// The seed of the shuffling.
    pub seed: u64,
    /// The token to pad with. Padding is masked, so 0 is used instead of a token that is not in the
    /// model's vocabulary.
    pub pad_id: u32,
    /// The size of the model's vocabulary. Every id of the examples must be below it.
    pub vocab_size: usize,
}

/// Which batch comes next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// How many epochs are complete.
    pub epoch: u64,
    /// How many batches of this epoch were taken.
    pub index: usize,
}

/// An endless iterator of batches, [`per_epoch`](Self::per_epoch) of them in an epoch.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{BatchOptions, Batches, Encoded};
///
/// let examples = (0..5).map(|id| Encoded::all_trained(vec![id; 4])).collect();
/// let options = BatchOptions {
///     batch_size: 2, pack_to: None, shuffle: true, seed: 0, pad_id: 0, vocab_size: 5,
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
    /// The rows are made when they are needed: a row has 20 bytes for each token, and an example 4.
    examples: StoredRows,
    /// The examples of each row; `None`: each example is a row.
    packed: Option<Vec<Vec<u32>>>,
    options: BatchOptions,
    position: Position,
    order: Vec<usize>,
    epoch_of_order: u64,
}

impl Batches {
    /// Arranges the examples in rows. The first batch of epoch 0 comes next.
    ///
    /// # Errors
    ///
    /// There are no examples, the batch size is 0, an example is longer than a packed row, or an id
    /// is not below the vocabulary size.
    pub fn new(examples: Vec<Encoded>, options: BatchOptions) -> Result<Self, Error> {
        Self::from_rows(examples.into(), options)
    }

    /// As [`new`](Self::new), of rows that may be in a file. Reads every row if the store has an id
    /// that is not below the vocabulary size, and none otherwise.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new), or a row cannot be read.
    pub fn from_rows(examples: StoredRows, mut options: BatchOptions) -> Result<Self, Error> {
        if options.batch_size == 0 {
            let error = Error::new(ErrorKind::Config, "the batch size is 0");
            return Err(error.with_help("give at least 1"));
        }
        if examples.is_empty() {
            let message = "there are no examples to make batches of";
            return Err(Error::new(ErrorKind::Data, message).with_help("give data with rows"));
        }
        if !examples.is_within(options.vocab_size) {
            for (index, example) in examples.iter().enumerate() {
                within_vocabulary(&example?.ids, options.vocab_size)
                    .map_err(|e| e.within(&format!("example {}", index + 1)))?;
            }
        }
        if options.pad_id as usize >= options.vocab_size {
            options.pad_id = 0;
        }
        let pack_to = options.pack_to;
        let packed = pack_to.map(|length| packed(examples.lengths(), length));
        let mut batches = Self {
            packed: packed.transpose()?,
            examples,
            options,
            position: Position::default(),
            order: Vec::new(),
            epoch_of_order: 0,
        };
        batches.order = batches.order_of(0);
        Ok(batches)
    }

    /// The number of batches in an epoch.
    #[must_use]
    pub fn per_epoch(&self) -> usize {
        self.rows().div_ceil(self.options.batch_size)
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.packed.as_ref().map_or(self.examples.len(), Vec::len)
    }

    /// Which batch comes next. Save it to resume.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// Continues at a saved position. An index beyond the epoch's end counts into later epochs.
    pub fn seek(&mut self, position: Position) {
        let per_epoch = self.per_epoch();
        self.position = Position {
            epoch: position.epoch + (position.index / per_epoch) as u64,
            index: position.index % per_epoch,
        };
    }

    /// The next batch. After the last batch of an epoch comes the first of the next epoch.
    ///
    /// # Panics
    ///
    /// The rows are in a file that cannot be read. Rows of [`new`](Self::new) are in memory.
    pub fn next_batch(&mut self) -> Batch {
        self.try_next_batch().unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`next_batch`](Self::next_batch), for rows that may be in a file.
    ///
    /// # Errors
    ///
    /// A row cannot be read. The position is unchanged.
    pub fn try_next_batch(&mut self) -> Result<Batch, Error> {
        let Position { epoch, index } = self.position;
        if self.epoch_of_order != epoch {
            self.order = self.order_of(epoch);
            self.epoch_of_order = epoch;
        }
        let start = index * self.options.batch_size;
        let end = (start + self.options.batch_size).min(self.rows());
        let rows = self.order[start..end].iter();
        let rows = rows.map(|row| self.row(*row)).collect::<Result<_, _>>()?;
        self.seek(Position {
            epoch,
            index: index + 1,
        });
        Ok(Batch::collate(rows, self.options.pad_id))
    }

    /// The batches of the next optimizer step: `accumulation` of them, or fewer at the end of an
    /// epoch. So each row is in exactly one step of an epoch.
    ///
    /// The loss of the step is the mean over all trained tokens of its batches. It is the sum of the
    /// batches' mean losses, each times the batch's share of their total [weight](Batch::weight).
    ///
    /// # Panics
    ///
    /// `accumulation` is 0, or as [`next_batch`](Self::next_batch).
    ///
    /// # Example
    ///
    /// ```
    /// use lisa_lm::text::{Batch, BatchOptions, Batches, Encoded};
    ///
    /// let examples = (0..9).map(|id| Encoded::all_trained(vec![id; 4])).collect();
    /// let options = BatchOptions {
    ///     batch_size: 2, pack_to: None, shuffle: true, seed: 0, pad_id: 0, vocab_size: 9,
    /// };
    /// let mut batches = Batches::new(examples, options)?;
    /// assert_eq!((batches.per_epoch(), batches.steps_per_epoch(2)), (5, 3));
    /// let rows = |step: Vec<Batch>| step.iter().map(|batch| batch.rows().len()).collect::<Vec<_>>();
    /// assert_eq!(rows(batches.next_step(2)), [2, 2]);
    /// assert_eq!(rows(batches.next_step(2)), [2, 2]);
    /// assert_eq!(rows(batches.next_step(2)), [1]);
    /// # Ok::<(), lisa_lm::Error>(())
    /// ```
    pub fn next_step(&mut self, accumulation: usize) -> Vec<Batch> {
        let step = self.try_next_step(accumulation);
        step.unwrap_or_else(|e| panic!("{e}"))
    }

    /// As [`next_step`](Self::next_step), for rows that may be in a file.
    ///
    /// # Errors
    ///
    /// A row cannot be read. The position is then unchanged.
    ///
    /// # Panics
    ///
    /// `accumulation` is 0.
    pub fn try_next_step(&mut self, accumulation: usize) -> Result<Vec<Batch>, Error> {
        assert!(accumulation > 0, "a step of 0 batches");
        let left = self.per_epoch() - self.position.index;
        let count = accumulation.min(left);
        let position = self.position;
        let batches: Result<_, _> = (0..count).map(|_| self.try_next_batch()).collect();
        if batches.is_err() {
            self.position = position;
        }
        batches
    }

    /// The number of optimizer steps in an epoch, each of `accumulation` batches; the last one may
    /// have fewer.
    ///
    /// # Panics
    ///
    /// `accumulation` is 0.
    #[must_use]
    pub fn steps_per_epoch(&self, accumulation: usize) -> usize {
        self.per_epoch().div_ceil(accumulation)
    }

    /// The number of optimizer steps in this many epochs, at least 1. A part of an epoch is rounded
    /// up to whole steps.
    ///
    /// # Panics
    ///
    /// `accumulation` is 0.
    #[must_use]
    pub fn steps_in(&self, epochs: f64, accumulation: usize) -> u64 {
        let steps = epochs * self.steps_per_epoch(accumulation) as f64;
        // The product of 1.1 and 10 is above 11 by its rounding.
        let whole = steps.round();
        let near = (steps - whole).abs() <= 1e-9 * steps;
        (if near { whole } else { steps.ceil() }).max(1.0) as u64
    }

    /// How many optimizer steps come before a position; `None` if no step begins there.
    ///
    /// # Panics
    ///
    /// `accumulation` is 0.
    #[must_use]
    pub fn steps_before(&self, position: Position, accumulation: usize) -> Option<u64> {
        assert!(accumulation > 0, "a step of 0 batches");
        let Position { epoch, index } = position;
        let begins = index < self.per_epoch() && index.is_multiple_of(accumulation);
        let steps = epoch.checked_mul(self.steps_per_epoch(accumulation) as u64)?;
        begins.then(|| steps.checked_add((index / accumulation) as u64))?
    }

    fn row(&self, index: usize) -> Result<Row, Error> {
        let Some(packed) = &self.packed else {
            return Ok(Row::new([&self.examples.get(index)?]));
        };
        let indices = packed[index].iter();
        let examples = indices.map(|index| self.examples.get(*index as usize));
        let examples: Vec<Encoded> = examples.collect::<Result<_, _>>()?;
        Ok(Row::new(&examples))
    }

    fn order_of(&self, epoch: u64) -> Vec<usize> {
        if self.options.shuffle {
            shuffled(self.rows(), self.options.seed, epoch)
        } else {
            (0..self.rows()).collect()
        }
    }
}

impl Iterator for Batches {
    type Item = Batch;

    fn next(&mut self) -> Option<Batch> {
        Some(self.next_batch())
    }
}

#[cfg(test)]
mod tests;
