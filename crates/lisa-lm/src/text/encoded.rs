//! [`Encoded`]: a row as token ids and labels. [`EncodedSet`]: the rows of a data set.

use std::fmt;

use crate::error::{Error, ErrorKind};
pub use crate::labels::IGNORED;

/// How many refusals are kept.
const REFUSALS: usize = 10;

/// A row as tokens. `labels[i]` is `ids[i]` if the token is in the loss, and [`IGNORED`] otherwise.
/// `ids`, `labels` and `weights` have the same length; labels are not shifted yet.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, IGNORED};
///
/// // A prompt of two tokens and an answer of one.
/// let encoded = Encoded::new(vec![5, 6, 7], vec![IGNORED, IGNORED, 7]);
/// assert_eq!(encoded.trained(), 1);
/// assert_eq!(Encoded::all_trained(vec![5, 6, 7]).trained(), 2);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Encoded {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The label of each token.
    pub labels: Vec<i64>,
    /// The weight of each token in the loss, which counts where the label is not [`IGNORED`];
    /// `None`: all weights are 1.
    pub weights: Option<Vec<f32>>,
}

impl Encoded {
    /// A row of these tokens, whose trained tokens have a weight of 1.
    #[must_use]
    pub fn new(ids: Vec<u32>, labels: Vec<i64>) -> Self {
        Self {
            ids,
            labels,
            weights: None,
        }
    }

    /// An example whose tokens are all in the loss. Use it for text that is already split into
    /// sequences.
    #[must_use]
    pub fn all_trained(ids: Vec<u32>) -> Self {
        let labels = ids.iter().map(|id| i64::from(*id)).collect();
        Self::new(ids, labels)
    }

    /// How many tokens are in the loss. The first token is never one of them, since nothing
    /// precedes it.
    #[must_use]
    pub fn trained(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|label| **label != IGNORED).count()
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.ids.truncate(length);
        self.labels.truncate(length);
        if let Some(weights) = &mut self.weights {
            weights.truncate(length);
        }
    }
}

/// Encoded rows, and what was done with the given examples. An example gives one row, or one row for
/// each of its answers ([`Turns`](crate::text::Turns)).
///
/// By default, the rows are in memory, with 12 bytes for each token. A set of
/// [`RowEncoder`](crate::text::RowEncoder) has [`StoredRows`](crate::text::StoredRows) instead.
#[derive(Clone, Debug, PartialEq)]
pub struct EncodedSet<R = Vec<Encoded>> {
    /// The rows that have tokens in the loss, in order.
    pub examples: R,
    /// For each row, the index of its example among the examples given.
    pub sources: Vec<usize>,
    /// For each row, its number of tokens before truncation.
    pub lengths: Vec<usize>,
    /// How many rows were truncated to the maximal length, including those that are left out
    /// because of that. Rows that have no token in the loss even before truncation are not counted.
    pub truncated: usize,
    /// How many rows are left out, because none of their tokens is in the loss.
    pub dropped: usize,
    /// How many of these are chats in which every message that could be in the loss has the weight
    /// 0.
    pub weightless: usize,
    /// How many examples became several rows, one for each answer.
    pub split: usize,
    /// How many answers are in the loss of which nothing but the end of the turn is written: they have
    /// no text, reasoning or tool calls, or none that the chat template writes.
    pub empty_answers: usize,
    /// How many answers have text, a thought at the beginning of the text, reasoning or tool calls that
    /// the chat template does not write. Answers of which it writes nothing are not in the loss, unless
    /// the template marks them.
    pub unwritten_answers: usize,
    /// How many examples the chat template or the tokenizer refused. They are left out.
    pub refused: usize,
    /// The errors of the first ten refused examples, with their places.
    pub refusals: Vec<String>,
}

impl EncodedSet {
    /// Adds a row of the example `source`, which has `length` tokens before truncation.
    pub(super) fn push(&mut self, row: Encoded, source: usize, length: usize) {
        if row.trained() == 0 {
            self.dropped += 1;
            return;
        }
        self.examples.push(row);
        self.sources.push(source);
        self.lengths.push(length);
    }
}

impl<R: Default> Default for EncodedSet<R> {
    /// No rows.
    fn default() -> Self {
        Self::of(R::default())
    }
}

impl<R> EncodedSet<R> {
    /// These rows, without sources, lengths and counts.
    pub(super) fn of(examples: R) -> Self {
        Self {
            examples,
            sources: Vec::new(),
            lengths: Vec::new(),
            truncated: 0,
            dropped: 0,
            weightless: 0,
            split: 0,
            empty_answers: 0,
            unwritten_answers: 0,
            refused: 0,
            refusals: Vec::new(),
        }
    }

    /// Counts an example that is refused.
    pub(super) fn refuse(&mut self, error: &Error) {
        self.refused += 1;
        if self.refusals.len() < REFUSALS {
            log::warn!("left out: {error}");
            self.refusals.push(error.to_string());
        }
    }

    /// Logs how many rows and examples are left out. The set has `rows` rows.
    pub(super) fn warn_left_out(&self, rows: usize, max_length: usize) {
        let (dropped, rows) = (self.dropped, self.dropped + rows);
        if dropped > 0 {
            let within = within(max_length);
            log::warn!(
                "{dropped} of {rows} rows left out: none of their tokens{within} is in the loss{}",
                match self.weightless {
                    0 => String::new(),
                    count => format!(" (all messages of {count} have a weight of 0)"),
                }
            );
        }
        if self.refused > self.refusals.len() {
            log::warn!("{} examples were left out", self.refused);
        }
    }

    /// Logs what a user would not expect of the answers.
    pub(super) fn warn(&self) {
        for warning in self.warnings() {
            log::warn!("{warning}");
        }
    }

    /// What a user would not expect of the answers.
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.empty_answers > 0 {
            warnings.push(format!(
                "answers of which only the end of the turn is in the loss: {}. They train the model to \
                 end its turn at once",
                self.empty_answers
            ));
        }
        if self.unwritten_answers > 0 {
            warnings.push(format!(
                "answers with text, tool calls or reasoning that the chat template does not write: \
                 {}. Answers of which it writes nothing are not in the loss, unless the template marks \
                 them",
                self.unwritten_answers
            ));
        }
        warnings
    }

    /// The error of a set without a row.
    pub(super) fn no_row(&self, max_length: usize) -> Error {
        let within = within(max_length);
        let rows = self.dropped;
        let message = match (rows, self.refused) {
            (0, 0) => "there is no example to train on".to_owned(),
            (0, _) => {
                let first = self.refusals.first().map_or("", String::as_str);
                format!("every example was refused; the first: {first}")
            }
            _ => {
                let weights = match self.weightless {
                    0 => String::new(),
                    count if count == rows => ": all their messages have a weight of 0".to_owned(),
                    count => format!(": all messages of {count} have a weight of 0"),
                };
                format!("none of {rows} rows has a token to train on{within}{weights}")
            }
        };
        let error = Error::new(ErrorKind::Data, message);
        if self.truncated > 0 {
            error.with_help("raise the maximal length")
        } else if rows > 0 && self.weightless == rows {
            error.with_help(
                "give an answer of each chat a weight above 0 (`weight`, `loss_weight` or `train`), or \
                 remove the weights",
            )
        } else if rows > 0 {
            error.with_help("give data with answers, or train on all tokens")
        } else {
            error
        }
    }
}

fn within(max_length: usize) -> String {
    match max_length {
        usize::MAX => String::new(),
        length => format!(" within {length} tokens"),
    }
}

impl fmt::Display for EncodedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: usize = self.examples.iter().map(|e| e.ids.len()).sum();
        let trained: usize = self.examples.iter().map(Encoded::trained).sum();
        let noun = match self.examples.len() {
            1 => "row",
            _ => "rows",
        };
        write!(
            f,
            "{} {noun}, {tokens} tokens, {trained} trained on; {} cut, {} left out",
            self.examples.len(),
            self.truncated,
            self.dropped
        )?;
        for (count, one, many) in [
            (
                self.split,
                "chat became a row for each answer",
                "chats became a row for each answer",
            ),
            (self.empty_answers, "empty answer", "empty answers"),
            (
                self.unwritten_answers,
                "answer that the template does not write whole",
                "answers that the template does not write whole",
            ),
            (
                self.refused,
                "example refused and left out",
                "examples refused and left out",
            ),
        ] {
            match count {
                0 => {}
                1 => write!(f, "; 1 {one}")?,
                _ => write!(f, "; {count} {many}")?,
            }
        }
        Ok(())
    }
}
