//! [`Encoded`]: an example as token ids and labels.

use std::fmt;

pub use crate::labels::IGNORED;

/// An example as tokens. `labels[i]` is `ids[i]` if the token is in the loss, and [`IGNORED`]
/// otherwise. `ids` and `labels` have the same length; labels are not shifted yet.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, IGNORED};
///
/// // A prompt of two tokens and an answer of one.
/// let encoded = Encoded { ids: vec![5, 6, 7], labels: vec![IGNORED, IGNORED, 7] };
/// assert_eq!(encoded.trained(), 1);
/// assert_eq!(Encoded::all_trained(vec![5, 6, 7]).trained(), 2);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// The token ids.
    pub ids: Vec<u32>,
    /// The label of each token.
    pub labels: Vec<i64>,
}

impl Encoded {
    /// An example whose tokens are all in the loss. Use it for text that is already split into
    /// sequences.
    #[must_use]
    pub fn all_trained(ids: Vec<u32>) -> Self {
        let labels = ids.iter().map(|id| i64::from(*id)).collect();
        Self { ids, labels }
    }

    /// How many tokens are in the loss. The first token is never one of them, since nothing
    /// precedes it.
    #[must_use]
    pub fn trained(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|label| **label != IGNORED).count()
    }
}

/// Encoded examples, and how many of the given examples were truncated or dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedSet {
    /// The examples that have tokens in the loss, in order.
    pub examples: Vec<Encoded>,
    /// For each of them, its index among the examples given.
    pub sources: Vec<usize>,
    /// How many were truncated to the maximal length, including the dropped ones.
    pub truncated: usize,
    /// How many were dropped, because truncation left no token in the loss.
    pub dropped: usize,
}

impl fmt::Display for EncodedSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens: usize = self.examples.iter().map(|e| e.ids.len()).sum();
        let trained: usize = self.examples.iter().map(Encoded::trained).sum();
        let noun = match self.examples.len() {
            1 => "example",
            _ => "examples",
        };
        write!(
            f,
            "{} {noun}, {tokens} tokens, {trained} trained on; {} cut, {} dropped",
            self.examples.len(),
            self.truncated,
            self.dropped
        )
    }
}
