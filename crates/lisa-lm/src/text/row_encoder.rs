//! [`RowEncoder`]: encodes examples, a few at a time, into a [`RowStore`].

use crate::error::Error;
use crate::text::data::Example;
use crate::text::encode::{check_length, encode_block};
use crate::text::encode_options::EncodeOptions;
use crate::text::encoded::EncodedSet;
use crate::text::labelled::CutRow;
use crate::text::row_store::{RowStore, StoredRow};
use crate::text::stored_rows::StoredRows;
use crate::text::tokenizer::Tokenizer;

/// Encodes examples, a few at a time, for data that is larger than memory. The rows are in a
/// [`RowStore`]; in memory, there are 48 bytes for each row.
///
/// The length of rows may be chosen when all lengths are known: [`finish`](Self::finish) truncates
/// the rows once more, without encoding them again.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{EncodeOptions, Example, RowEncoder, RowStore};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// // At most 1 GiB in memory, then in a temporary file in this folder.
/// let store = RowStore::new(1 << 30, std::env::temp_dir());
/// let mut encoder = RowEncoder::new(EncodeOptions::default(), &store)?;
/// for text in ["Hello, world!", "Hello"] {
///     let example = Example::from_json(&format!(r#"{{"text": "{text}"}}"#))?;
///     encoder.push(&[example], &tokenizer)?;
/// }
/// assert_eq!(encoder.lengths(), [9, 4]);
/// let set = encoder.finish(5)?;
/// assert_eq!((set.truncated, set.examples.length(0)), (1, 5));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Debug)]
pub struct RowEncoder {
    options: EncodeOptions,
    store: RowStore,
    set: EncodedSet<Vec<Known>>,
    pushed: usize,
}

/// What is known of a row.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// Where its first tokens are; `None` if none of them is in the loss.
    stored: Option<StoredRow>,
    /// The first token in the loss.
    first: u32,
}

impl Known {
    /// Whether a token within the first `max_length` is in the loss.
    fn is_kept(&self, max_length: usize) -> bool {
        (self.first as usize) < max_length
    }
}

impl RowEncoder {
    /// Encodes into this store. Rows of which no token is in the loss within the maximal length are
    /// not stored.
    ///
    /// # Errors
    ///
    /// The maximal length is below 2.
    pub fn new(options: EncodeOptions, store: &RowStore) -> Result<Self, Error> {
        check_length(options.max_length)?;
        Ok(Self {
            options,
            store: store.clone(),
            set: EncodedSet::of(Vec::new()),
            pushed: 0,
        })
    }

    /// Encodes examples in all threads of the machine.
    ///
    /// # Errors
    ///
    /// As [`encode_examples`](crate::text::encode_examples), but having no row is no error; or the
    /// store cannot be written.
    pub fn push(&mut self, examples: &[Example], tokenizer: &Tokenizer) -> Result<(), Error> {
        let (store, max_length) = (&self.store, self.options.max_length);
        let add = |set: &mut EncodedSet<Vec<Known>>, row: CutRow, source| {
            let Some(first) = row.first else {
                set.dropped += 1;
                return Ok(());
            };
            let stored = (first < max_length).then(|| store.push(&row.row));
            set.examples.push(Known {
                stored: stored.transpose()?,
                first: u32::try_from(first).unwrap_or(u32::MAX),
            });
            set.sources.push(source);
            set.lengths.push(row.length);
            Ok(())
        };
        let (first, options) = (self.pushed, self.options);
        encode_block(examples, first, tokenizer, options, &mut self.set, add)?;
        self.pushed += examples.len();
        Ok(())
    }

    /// The number of examples so far.
    #[must_use]
    pub fn examples(&self) -> usize {
        self.pushed
    }

    /// The number of tokens of each row before truncation, without the rows that have no token in the
    /// loss at all.
    #[must_use]
    pub fn lengths(&self) -> &[usize] {
        &self.set.lengths
    }

    /// The number of rows that have no token in the loss at all.
    #[must_use]
    pub fn untrained(&self) -> usize {
        self.set.dropped
    }

    /// The number of rows that have a token in the loss within the first `max_length` tokens.
    #[must_use]
    pub fn kept(&self, max_length: usize) -> usize {
        let rows = self.set.examples.iter();
        rows.filter(|row| row.is_kept(max_length)).count()
    }

    /// Logs a warning if answers are empty, or if the template does not write them.
    /// [`finish`](Self::finish) counts the rows that are left out.
    ///
    /// # Errors
    ///
    /// No row has a token in the loss, even before truncation.
    pub fn check(&self) -> Result<(), Error> {
        self.set.warn();
        if self.set.examples.is_empty() {
            return Err(self.set.no_row(usize::MAX));
        }
        Ok(())
    }

    /// The rows, truncated to at most `max_length` tokens. Rows that then have no token in the loss
    /// are left out and counted. A `max_length` above the one of the options changes nothing.
    ///
    /// # Errors
    ///
    /// No row is left.
    pub fn finish(self, max_length: usize) -> Result<EncodedSet<StoredRows>, Error> {
        let max_length = max_length.min(self.options.max_length);
        let EncodedSet {
            examples,
            mut sources,
            mut lengths,
            ..
        } = self.set;
        let too_long = lengths.iter().filter(|length| **length > max_length);
        let truncated = too_long.count();
        let all = examples.len();
        let is_kept = |known: &Known| known.is_kept(max_length);
        let mut kept = examples.iter().map(is_kept);
        sources.retain(|_| kept.next().unwrap_or(false));
        let mut kept = examples.iter().map(is_kept);
        lengths.retain(|_| kept.next().unwrap_or(false));
        let rows = examples.into_iter().filter(is_kept);
        let rows: Vec<StoredRow> = rows.filter_map(|known| known.stored).collect();
        let set = EncodedSet {
            dropped: self.set.dropped + all - rows.len(),
            weightless: self.set.weightless,
            examples: StoredRows::new(&self.store, rows).cut(max_length),
            sources,
            lengths,
            truncated,
            split: self.set.split,
            empty_answers: self.set.empty_answers,
            unwritten_answers: self.set.unwritten_answers,
            refused: self.set.refused,
            refusals: self.set.refusals,
        };
        if set.examples.is_empty() {
            return Err(set.no_row(max_length));
        }
        Ok(set)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::tokenizer;
    use crate::text::Encoded;
    use crate::text::encode::encode_examples;

    const CHAT: &str = "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}\
        {% else %}<|assistant|>{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";

    /// Pairs, texts and chats of many lengths; one has no token in the loss.
    fn examples() -> Vec<Example> {
        let rows = (1..40).map(|n| {
            let (short, long) = ("hi ".repeat(n % 4 + 1), "hello ".repeat(n % 9 + 1));
            match n % 3 {
                0 => format!(r#"{{"prompt": "{long}", "completion": "{short}"}}"#),
                1 => format!(r#"{{"instruction": "{short}", "output": "{long}"}}"#),
                _ => format!(r#"{{"text": "{long}{short}"}}"#),
            }
        });
        // It is longer than every limit of the tests.
        let long = "hi ".repeat(40);
        let untrained = format!(
            r#"{{"messages": [{{"role": "assistant", "content": "{long}", "weight": 0}}]}}"#
        );
        let rows = rows.chain([untrained]);
        rows.map(|row| Example::from_json(&row).unwrap()).collect()
    }

    #[test]
    fn rows_in_any_place_and_cut_at_the_end_are_those_of_one_encoding() {
        let (tokenizer, examples) = (tokenizer(CHAT), examples());
        for limit in [0, u64::MAX] {
            for (first, then) in [(usize::MAX, 12), (12, 12), (20, 12), (20, usize::MAX)] {
                let store = RowStore::new(limit, std::env::temp_dir());
                let of = |max_length| EncodeOptions {
                    max_length,
                    ..EncodeOptions::default()
                };
                let mut encoder = RowEncoder::new(of(first), &store).unwrap();
                for block in examples.chunks(7) {
                    encoder.push(block, &tokenizer).unwrap();
                }
                let whole = encode_examples(&examples, &tokenizer, of(usize::MAX)).unwrap();
                assert_eq!(encoder.lengths(), whole.lengths);
                assert_eq!((encoder.untrained(), encoder.examples()), (1, 40));
                let kept = encoder.kept(first.min(then));
                let found = encoder.finish(then).unwrap();
                let expected = encode_examples(&examples, &tokenizer, of(first.min(then))).unwrap();
                let rows: Result<Vec<Encoded>, Error> = found.examples.iter().collect();
                assert_eq!(rows.unwrap(), expected.examples);
                assert_eq!(kept, expected.examples.len());
                let lengths: Vec<usize> = expected.examples.iter().map(|r| r.ids.len()).collect();
                assert_eq!(found.examples.lengths().collect::<Vec<_>>(), lengths);
                assert_eq!(found.sources, expected.sources);
                assert_eq!(found.lengths, expected.lengths);
                assert!(found.truncated > 5 && found.dropped > 3);
                assert_eq!(
                    (found.truncated, found.dropped, found.weightless),
                    (expected.truncated, expected.dropped, 1)
                );
            }
        }
    }

    #[test]
    fn rows_that_a_length_keeps_are_counted_before_they_are_cut() {
        let (tokenizer, examples) = (tokenizer(CHAT), examples());
        let store = RowStore::new(u64::MAX, std::env::temp_dir());
        let mut encoder = RowEncoder::new(EncodeOptions::default(), &store).unwrap();
        encoder.push(&examples, &tokenizer).unwrap();
        for max_length in 2..40 {
            let options = EncodeOptions {
                max_length,
                ..EncodeOptions::default()
            };
            let cut = encode_examples(&examples, &tokenizer, options).unwrap();
            assert_eq!(encoder.kept(max_length), cut.examples.len(), "{max_length}");
        }
    }

    #[test]
    fn a_set_without_a_row_is_an_error() {
        let (tokenizer, examples) = (tokenizer(CHAT), examples());
        let options = EncodeOptions::default();
        let mut encoder = RowEncoder::new(options, &RowStore::in_memory()).unwrap();
        encoder.push(&examples[39..], &tokenizer).unwrap();
        let error = encoder.check().unwrap_err();
        assert_eq!(
            error.message(),
            "none of 1 rows has a token to train on: all their messages have a weight of 0"
        );
        let help = error.help().unwrap();
        assert!(help.contains("a weight above 0"), "{help}");
        encoder.push(&examples[2..3], &tokenizer).unwrap();
        encoder.check().unwrap();
        let error = encoder.finish(3).unwrap_err();
        assert_eq!(
            error.message(),
            "none of 2 rows has a token to train on within 3 tokens: all messages of 1 have a weight of 0"
        );
        assert_eq!(error.help(), Some("raise the maximal length"));
    }
}
