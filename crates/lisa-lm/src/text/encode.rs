//! [`encode_examples`]: converts examples to token ids and labels.
//!
//! An example is tokenized as a whole, so that no token depends on where the answer begins. The
//! tokens of the answer are found by their places in the text. An answer begins where the prompt
//! ends, when the chat template renders only the prompt with a generation prompt.

use crate::error::{Error, ErrorKind};
use crate::text::answers::answers;
use crate::text::data::{Content, Example, OnBadLine};
use crate::text::encoded::{Encoded, EncodedSet, IGNORED};
use crate::text::tokenizer::Tokenizer;

/// Which tokens are in the loss.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossOn {
    /// The answers: in a chat, each message of the assistant and the end of its turn; in a pair,
    /// the completion; in a plain text, every token.
    #[default]
    Answer,
    /// Every token.
    All,
}

/// Which answers of a chat are in the loss, and in how many rows, with [`LossOn::Answer`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// Every answer. The chat is one row if each answer then follows the text that the model is
    /// given when it generates this answer. If the chat template writes earlier turns differently
    /// once a chat goes on, for instance without their reasoning, each answer has a row of its own.
    #[default]
    Auto,
    /// Every answer, in one row.
    All,
    /// The last answer, in one row.
    Last,
    /// Every answer, each in a row of its own.
    Split,
}

/// What to do with an answer that has no text, no reasoning and no tool calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EmptyAnswers {
    /// Count it and log a warning. It trains the model to end its turn at once.
    #[default]
    Warn,
    /// Refuse the example.
    Refuse,
}

/// How examples are converted to tokens.
///
/// # Example
///
/// ```
/// use lisa_lm::text::{EncodeOptions, LossOn};
///
/// let options = EncodeOptions { max_length: 512, ..EncodeOptions::default() };
/// assert_eq!(options.loss_on, LossOn::Answer);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The largest number of tokens of a row; longer rows are truncated. `usize::MAX`, the default,
    /// truncates none.
    pub max_length: usize,
    /// Which tokens are in the loss.
    pub loss_on: LossOn,
    /// Which answers of a chat are in the loss, and in how many rows.
    pub turns: Turns,
    /// What to do with empty answers.
    pub empty_answers: EmptyAnswers,
    /// What to do with an example that the chat template or the tokenizer refuses.
    pub on_bad: OnBadLine,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            max_length: usize::MAX,
            loss_on: LossOn::default(),
            turns: Turns::default(),
            empty_answers: EmptyAnswers::default(),
            on_bad: OnBadLine::default(),
        }
    }
}

/// Encodes examples. Examples whose answer is truncated entirely are dropped, counted and logged.
///
/// # Errors
///
/// The chat template or the tokenizer refuses an example (the error has its number, from 1), the
/// maximal length is below 2, or no example is left.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{EncodeOptions, Example, encode_examples};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// // Nine tokens, of which the last four are the answer.
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let options = EncodeOptions { max_length: 7, ..EncodeOptions::default() };
/// let set = encode_examples(&[example.clone()], &tokenizer, options)?;
/// assert_eq!((set.examples[0].ids.len(), set.examples[0].trained()), (7, 2));
/// assert_eq!(set.to_string(), "1 example, 7 tokens, 2 trained on; 1 cut, 0 dropped");
///
/// let options = EncodeOptions { max_length: 5, ..options };
/// let error = encode_examples(&[example], &tokenizer, options).unwrap_err();
/// assert_eq!(error.help(), Some("raise the maximal length"));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_examples(
    examples: &[Example],
    tokenizer: &Tokenizer,
    options: EncodeOptions,
) -> Result<EncodedSet, Error> {
    encode_examples_with(examples, tokenizer, options, |_| {})
}

/// As [`encode_examples`], and calls `progress` after each example with the number of encoded
/// examples.
///
/// # Errors
///
/// As [`encode_examples`].
pub fn encode_examples_with(
    examples: &[Example],
    tokenizer: &Tokenizer,
    options: EncodeOptions,
    mut progress: impl FnMut(usize),
) -> Result<EncodedSet, Error> {
    let max_length = options.max_length;
    if max_length < 2 {
        let message =
            format!("the maximal length is {max_length}, but predicting a token needs 2 tokens");
        return Err(Error::new(ErrorKind::Config, message).with_help("raise the maximal length"));
    }
    let mut set = EncodedSet::default();
    for (index, example) in examples.iter().enumerate() {
        let rows = encode_example(example, tokenizer, options)
            .map_err(|e| e.within(&format!("example {}", index + 1)))?;
        progress(index + 1);
        set.split += usize::from(rows.len() > 1);
        for mut row in rows {
            let length = row.ids.len();
            if length > max_length {
                row.truncate(max_length);
                set.truncated += 1;
            }
            set.push(row, index, length);
        }
    }
    let (dropped, rows) = (set.dropped, set.dropped + set.examples.len());
    if dropped > 0 {
        log::warn!(
            "{dropped} of {rows} rows dropped: no token of theirs within {max_length} is in the loss"
        );
    }
    set.checked(max_length)
}

/// Encodes one example without truncation.
///
/// A chat is rendered with the chat template. A pair and a text get the special tokens that the
/// tokenizer adds, and an end-of-sequence token, which is in the loss.
///
/// # Errors
///
/// The chat template or the tokenizer refuses the example, or the text before an answer changes
/// when the template renders the answer too.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{EncodeOptions, Example, IGNORED, encode_example};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let encoded = &encode_example(&example, &tokenizer, EncodeOptions::default())?[0];
/// assert_eq!(encoded.ids, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// assert_eq!(encoded.labels[..5], [IGNORED; 5]);
/// assert_eq!(encoded.labels[5..], [309, 275, 401, 3]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_example(
    example: &Example,
    tokenizer: &Tokenizer,
    options: EncodeOptions,
) -> Result<Vec<Encoded>, Error> {
    let loss_on = options.loss_on;
    let (text, answers, is_chat) = match &example.content {
        Content::Chat(chat) => {
            let template = tokenizer.chat_template();
            let whole = template.render(chat, false)?.text;
            let answers = match loss_on {
                LossOn::Answer => answers(chat, &whole, template)?,
                LossOn::All => Vec::new(),
            };
            (whole, answers, true)
        }
        Content::Pair { prompt, completion } => {
            let text = format!("{prompt}{completion}");
            let answer = prompt.len()..text.len();
            (text, vec![answer], false)
        }
        Content::Text(text) => {
            let all = 0..text.len();
            (text.clone(), vec![all], false)
        }
    };
    let tokens = tokenizer.encode_with_offsets(&text, !is_chat)?;
    let mut ids = tokens.ids;
    // By its last byte, since tokenizers exclude the leading space from a token's place.
    let trained = |end: usize| answers.iter().any(|a| a.start < end && end <= a.end);
    let mut labels: Vec<i64> = (ids.iter().zip(&tokens.offsets))
        .map(|(id, (_, end))| {
            let wanted = loss_on == LossOn::All || trained(*end);
            if wanted { i64::from(*id) } else { IGNORED }
        })
        .collect();
    if !is_chat && let Some(eos) = tokenizer.eos_id() {
        if !ids.last().is_some_and(|id| tokenizer.is_eos(*id)) {
            ids.push(eos);
            labels.push(IGNORED);
        }
        if let (Some(id), Some(label)) = (ids.last(), labels.last_mut()) {
            *label = i64::from(*id);
        }
    }
    Ok(vec![Encoded::new(ids, labels)])
}

/// The ids to generate an answer from: the chat without its last message and with a generation
/// prompt, or the prompt of a pair. None if the example has no [answer](Example::answer).
///
/// # Errors
///
/// What the chat template or the tokenizer refuses.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{Example, encode_prompt};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let example = Example::from_json(r#"{"instruction": "Hello", "output": "world"}"#)?;
/// let prompt = encode_prompt(&example, &tokenizer)?.unwrap_or_default();
/// assert_eq!(tokenizer.decode(&prompt, false)?, "User: Hello\nAssistant:");
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_prompt(example: &Example, tokenizer: &Tokenizer) -> Result<Option<Vec<u32>>, Error> {
    match (&example.content, &example.answer) {
        (Content::Chat(chat), Some(_)) => {
            let before = chat.before(chat.messages.len().saturating_sub(1));
            let text = tokenizer.chat_template().render(&before, true)?.text;
            Ok(Some(tokenizer.encode_with_offsets(&text, false)?.ids))
        }
        (Content::Pair { prompt, .. }, Some(_)) => Ok(Some(tokenizer.encode_prompt(prompt)?)),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
