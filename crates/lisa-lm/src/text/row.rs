//! [`Row`]: one row of a batch, with one example or several packed ones.
//!
//! Only this file shifts targets: `targets[i]` is the label of the token after `tokens[i]`.

use crate::text::encoded::{Encoded, IGNORED};

/// One row of a batch before padding.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{Encoded, IGNORED, Row};
///
/// // A prompt of one token with an answer of two, and a text.
/// let answered = Encoded::new(vec![5, 6, 7], vec![IGNORED, 6, 7]);
/// let text = Encoded::all_trained(vec![8, 9]);
/// let row = Row::new([&answered, &text]);
/// assert_eq!(row.tokens, [5, 6, 7, 8, 9]);
/// assert_eq!(row.targets, [6, 7, IGNORED, 9, IGNORED]);
/// assert_eq!(row.segments, [0, 0, 0, 1, 1]);
/// assert_eq!(row.positions, [0, 1, 2, 0, 1]);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The token ids.
    pub tokens: Vec<u32>,
    /// For each token, the next token or [`IGNORED`].
    pub targets: Vec<i64>,
    /// For each token, the weight of its target in the loss; `None`: all weights are 1.
    pub weights: Option<Vec<f32>>,
    /// The index of the example that each token belongs to, from 0.
    pub segments: Vec<u32>,
    /// The position of each token in its example, from 0.
    pub positions: Vec<u32>,
}

impl Row {
    /// A row of these examples, in order. The last token of an example has no target, since the
    /// next example does not continue it.
    pub fn new<'a>(examples: impl IntoIterator<Item = &'a Encoded>) -> Self {
        let mut row = Self::default();
        for (segment, example) in examples.into_iter().enumerate() {
            let count = example.ids.len();
            row.tokens.extend(&example.ids);
            row.targets.extend(example.labels.iter().skip(1));
            row.targets.resize(row.tokens.len(), IGNORED);
            if let Some(weights) = &example.weights {
                let start = row.tokens.len() - count;
                let all = row.weights.get_or_insert_default();
                all.resize(start, 1.0);
                all.extend(weights.iter().skip(1));
            }
            if let Some(all) = &mut row.weights {
                all.resize(row.tokens.len(), 1.0);
            }
            row.segments.extend(vec![segment as u32; count]);
            row.positions.extend(0..count as u32);
        }
        row
    }
}
