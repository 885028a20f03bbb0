//! [`encode_examples`]: converts examples to token ids and labels.
//!
//! An example is tokenized as a whole, so that no token depends on where the answer begins. The
//! tokens of the answer are found by their places in the text. An answer begins where the prompt
//! ends, when the chat template renders only the prompt with a generation prompt.

use crate::error::{Error, ErrorKind};
use crate::text::answers::answers;
use crate::text::data::{Content, Example};
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

/// How examples are converted to tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The largest number of tokens of an example; longer examples are truncated.
    pub max_length: usize,
    /// Which tokens are in the loss.
    pub loss_on: LossOn,
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
/// use lisa_lm::text::{EncodeOptions, Example, LossOn, encode_examples};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// // Nine tokens, of which the last four are the answer.
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let options = EncodeOptions { max_length: 7, loss_on: LossOn::Answer };
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
    let EncodeOptions {
        max_length,
        loss_on,
    } = options;
    if max_length < 2 {
        let message =
            format!("the maximal length is {max_length}, but predicting a token needs 2 tokens");
        return Err(Error::new(ErrorKind::Config, message).with_help("raise the maximal length"));
    }
    let mut set = EncodedSet::default();
    for (index, example) in examples.iter().enumerate() {
        let mut encoded = encode_example(example, tokenizer, loss_on)
            .map_err(|e| e.within(&format!("example {}", index + 1)))?;
        progress(index + 1);
        if encoded.ids.len() > max_length {
            encoded.ids.truncate(max_length);
            encoded.labels.truncate(max_length);
            set.truncated += 1;
        }
        if encoded.trained() == 0 {
            set.dropped += 1;
            continue;
        }
        set.examples.push(encoded);
        set.sources.push(index);
    }
    let (dropped, count) = (set.dropped, examples.len());
    if dropped > 0 {
        log::warn!(
            "{dropped} of {count} examples dropped: no token of theirs within {max_length} is in the loss"
        );
    }
    if set.examples.is_empty() {
        let message =
            format!("none of {count} examples has anything to train on within {max_length} tokens");
        return Err(Error::new(ErrorKind::Data, message).with_help("raise the maximal length"));
    }
    Ok(set)
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
/// use lisa_lm::text::{Example, IGNORED, LossOn, encode_example};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let encoded = encode_example(&example, &tokenizer, LossOn::Answer)?;
/// assert_eq!(encoded.ids, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// assert_eq!(encoded.labels[..5], [IGNORED; 5]);
/// assert_eq!(encoded.labels[5..], [309, 275, 401, 3]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_example(
    example: &Example,
    tokenizer: &Tokenizer,
    loss_on: LossOn,
) -> Result<Encoded, Error> {
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
    Ok(Encoded { ids, labels })
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
