//! [`encode_examples`]: from examples to token ids and the labels to train on.
//!
//! A whole example is tokenized at once, so that a token never depends on where the answer begins.
//! Which tokens are the answer's is then read off their places in the text: an answer begins where
//! the chat template, asked for the prompt alone, would hand over to the model. Tests: `encode/tests.rs`.

use std::fmt;

use crate::error::{Error, ErrorKind};

use crate::text::chat::Message;
use crate::text::data::{Content, Example};
use crate::text::tokenizer::Tokenizer;

pub use crate::labels::IGNORED;

/// Which tokens the loss is taken over.
///
/// # Example
///
/// ```
/// use lisa_lm::{Example, IGNORED, LossOn, Tokenizer, encode_example};
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let answer = encode_example(&example, &tokenizer, LossOn::Answer)?;
/// assert_eq!(answer.ids, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// assert_eq!(answer.labels[..5], [IGNORED; 5]);
/// assert_eq!(answer.labels[5..], [309, 275, 401, 3]);
///
/// let all = encode_example(&example, &tokenizer, LossOn::All)?;
/// assert_eq!(all.labels, [42, 71, 78, 350, 14, 309, 275, 401, 3]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossOn {
    /// The answers: everything the assistant says in a chat and the end of its turn, the completion
    /// of a pair, all of a plain text.
    #[default]
    Answer,
    /// Every token.
    All,
}

/// How examples become tokens.
///
/// # Example
///
/// ```
/// use lisa_lm::{EncodeOptions, Example, LossOn, Tokenizer, encode_examples};
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// // Nine tokens, of which the last four are the answer.
/// let example = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let options = EncodeOptions { max_length: 7, loss_on: LossOn::Answer };
/// let cut = &encode_examples(&[example.clone()], &tokenizer, options)?.examples[0];
/// assert_eq!((cut.ids.len(), cut.trained()), (7, 2));
///
/// let options = EncodeOptions { max_length: 5, ..options };
/// let error = encode_examples(&[example], &tokenizer, options).unwrap_err();
/// assert_eq!(error.help(), Some("raise the maximal length"));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodeOptions {
    /// The most tokens of an example; what follows is cut off.
    pub max_length: usize,
    /// Which tokens the loss is taken over.
    pub loss_on: LossOn,
}

/// An example as tokens. `labels[i]` is `ids[i]` where the loss is taken and [`IGNORED`] elsewhere;
/// the two are as long as each other and not shifted yet.
///
/// # Example
///
/// ```
/// use lisa_lm::{Encoded, IGNORED};
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
    /// What to learn at each.
    pub labels: Vec<i64>,
}

impl Encoded {
    /// Tokens that are all trained on: for pretraining text that was cut by hand.
    #[must_use]
    pub fn all_trained(ids: Vec<u32>) -> Self {
        let labels = ids.iter().map(|id| i64::from(*id)).collect();
        Self { ids, labels }
    }

    /// How many tokens the loss is taken over. The first token has nothing before it to be
    /// predicted from, so it never counts.
    #[must_use]
    pub fn trained(&self) -> usize {
        let labels = self.labels.iter().skip(1);
        labels.filter(|label| **label != IGNORED).count()
    }
}

/// The encoded examples and what became of the rest.
///
/// # Example
///
/// ```
/// use lisa_lm::{EncodeOptions, Example, LossOn, Tokenizer, encode_examples};
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// // Within four tokens the first has no answer left; the second has three tokens.
/// let pair = Example::from_json(r#"{"prompt": "Hello,", "completion": " world!"}"#)?;
/// let text = Example::from_json(r#"{"text": "hello"}"#)?;
/// let options = EncodeOptions { max_length: 4, loss_on: LossOn::Answer };
/// let set = encode_examples(&[pair, text], &tokenizer, options)?;
/// assert_eq!(set.examples[0].ids, [273, 78, 350]);
/// assert_eq!((set.sources.as_slice(), set.truncated, set.dropped), ([1].as_slice(), 1, 1));
/// assert_eq!(set.to_string(), "1 example, 3 tokens, 2 trained on; 1 cut, 1 dropped");
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EncodedSet {
    /// The examples that have something to train on, in order.
    pub examples: Vec<Encoded>,
    /// For each, its index among the examples given.
    pub sources: Vec<usize>,
    /// How many were cut to the maximal length (dropped ones included).
    pub truncated: usize,
    /// How many were dropped because cutting left nothing to train on.
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

/// Encodes examples; those whose answer is cut off entirely are dropped, counted and warned of.
///
/// # Errors
///
/// An example that the chat template or the tokenizer refuses (with its number, from 1), a maximal
/// length below 2, and no example left.
///
/// # Example
///
/// ```
/// use lisa_lm::{EncodeOptions, LossOn, OnBadLine, Tokenizer, encode_examples, read_examples};
///
/// # let folder = tempfile::tempdir()?;
/// # let file = folder.path().join("train.jsonl");
/// # std::fs::write(&file, r#"{"prompt": "hello", "completion": "world!"}"#)?;
/// # let model = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(model)?;
/// let examples = read_examples(&file, OnBadLine::Stop)?.examples;
/// let options = EncodeOptions { max_length: 512, loss_on: LossOn::Answer };
/// let set = encode_examples(&examples, &tokenizer, options)?;
/// // The prompt is read, its answer is learnt.
/// let [encoded] = set.examples.as_slice() else { panic!("one line is one example") };
/// assert!(encoded.trained() > 0 && encoded.trained() < encoded.ids.len());
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_examples(
    examples: &[Example],
    tokenizer: &Tokenizer,
    options: EncodeOptions,
) -> Result<EncodedSet, Error> {
    encode_examples_with(examples, tokenizer, options, |_| {})
}

/// Like [`encode_examples`]; `progress` is told after each example how many are done.
///
/// # Errors
///
/// As [`encode_examples`].
///
/// # Example
///
/// ```
/// use lisa_lm::{EncodeOptions, Example, LossOn, Tokenizer, encode_examples_with};
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// let examples = vec![Example::from_json(r#"{"text": "hello"}"#)?; 3];
/// let options = EncodeOptions { max_length: 512, loss_on: LossOn::Answer };
/// let mut told = Vec::new();
/// let set = encode_examples_with(&examples, &tokenizer, options, |done| told.push(done))?;
/// assert_eq!(told, [1, 2, 3]);
/// assert_eq!(set.sources, [0, 1, 2]);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_examples_with(
    examples: &[Example],
    tokenizer: &Tokenizer,
    options: EncodeOptions,
    mut progress: impl FnMut(usize),
) -> Result<EncodedSet, Error> {
    if options.max_length < 2 {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "the maximal length is {}, but predicting one token from another takes 2",
                options.max_length
            ),
        )
        .with_help("raise the maximal length"));
    }
    let mut set = EncodedSet::default();
    for (index, example) in examples.iter().enumerate() {
        let mut encoded = encode_example(example, tokenizer, options.loss_on)
            .map_err(|e| e.within(&format!("example {}", index + 1)))?;
        progress(index + 1);
        if encoded.ids.len() > options.max_length {
            encoded.ids.truncate(options.max_length);
            encoded.labels.truncate(options.max_length);
            set.truncated += 1;
        }
        if encoded.trained() == 0 {
            set.dropped += 1;
            continue;
        }
        set.examples.push(encoded);
        set.sources.push(index);
    }
    if set.dropped > 0 {
        log::warn!(
            "{} of {} examples dropped: nothing to train on within {} tokens",
            set.dropped,
            examples.len(),
            options.max_length
        );
    }
    if set.examples.is_empty() {
        return Err(Error::new(
            ErrorKind::Data,
            format!(
                "none of {} examples has anything to train on within {} tokens",
                examples.len(),
                options.max_length
            ),
        )
        .with_help("raise the maximal length"));
    }
    Ok(set)
}

/// Encodes one example whole, with nothing cut off.
///
/// A chat is rendered with the chat template. A pair and a text get the tokens that the tokenizer
/// adds itself and, where it does not, an end of sequence, which is trained on.
///
/// # Errors
///
/// What the chat template or the tokenizer refuses, and a template whose text before an answer
/// changes when the answer follows.
///
/// # Example
///
/// ```
/// use lisa_lm::{Example, IGNORED, LossOn, Tokenizer, encode_example};
///
/// # let folder = tempfile::tempdir()?;
/// # let fixture = "../../tests/fixtures/tokenizer/tokenizer.json";
/// # std::fs::copy(fixture, folder.path().join("tokenizer.json"))?;
/// # let config = r#"{"eos_token": "<|endoftext|>"}"#;
/// # std::fs::write(folder.path().join("tokenizer_config.json"), config)?;
/// let tokenizer = Tokenizer::from_dir(&folder)?;
/// let example = Example::from_json(r#"{"instruction": "Hello", "output": "world"}"#)?;
/// let encoded = encode_example(&example, &tokenizer, LossOn::Answer)?;
/// let text = tokenizer.decode(&encoded.ids, false)?;
/// assert_eq!(text, "User: Hello\nAssistant: world<|endoftext|>\n");
///
/// // The answer and the end of its turn are trained on.
/// let labels = encoded.labels.iter().filter(|label| **label != IGNORED);
/// let trained: Vec<u32> = labels.map(|label| *label as u32).collect();
/// assert_eq!(tokenizer.decode(&trained, false)?, " world<|endoftext|>\n");
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_example(
    example: &Example,
    tokenizer: &Tokenizer,
    loss_on: LossOn,
) -> Result<Encoded, Error> {
    let (text, answers, is_chat) = match &example.content {
        Content::Chat(messages) => {
            let whole = tokenizer.chat_template().render(messages, false)?;
            let answers = answers_of(messages, &whole, tokenizer)?;
            (whole, answers, true)
        }
        Content::Pair { prompt, completion } => {
            let text = format!("{prompt}{completion}");
            let answer = (prompt.len(), text.len());
            (text, vec![answer], false)
        }
        Content::Text(text) => (text.clone(), vec![(0, text.len())], false),
    };
    let tokens = tokenizer.encode_with_offsets(&text, !is_chat)?;
    let mut ids = tokens.ids;
    // By its last byte, since tokenizers trim the space in front from a token's place.
    let trained = |end: usize| answers.iter().any(|a| a.0 < end && end <= a.1);
    let mut labels: Vec<i64> = (ids.iter().zip(&tokens.offsets))
        .map(|(id, (_, end))| {
            let wanted = loss_on == LossOn::All || trained(*end);
            if wanted { i64::from(*id) } else { IGNORED }
        })
        .collect();
    if !is_chat && let Some(eos) = tokenizer.eos_id() {
        if !ids
            .last()
            .is_some_and(|id| tokenizer.eos_ids().contains(id))
        {
            ids.push(eos);
            labels.push(IGNORED);
        }
        if let (Some(id), Some(label)) = (ids.last(), labels.last_mut()) {
            *label = i64::from(*id);
        }
    }
    Ok(Encoded { ids, labels })
}

/// The ids to generate an answer from: the chat without its last message, ready for the assistant;
/// the prompt of a pair. None where an example has no [answer](Example::answer).
///
/// # Errors
///
/// What the chat template or the tokenizer refuses.
///
/// # Example
///
/// ```
/// use lisa_lm::{Example, Tokenizer, encode_prompt};
///
/// # let folder = "../../tests/fixtures/tokenizer";
/// let tokenizer = Tokenizer::from_dir(folder)?;
/// let example = Example::from_json(r#"{"instruction": "Hello", "output": "world"}"#)?;
/// let prompt = encode_prompt(&example, &tokenizer)?.unwrap_or_default();
/// assert_eq!(tokenizer.decode(&prompt, false)?, "User: Hello\nAssistant:");
/// assert_eq!(example.answer.as_deref(), Some("world"));
///
/// let text = Example::from_json(r#"{"text": "hello"}"#)?;
/// assert_eq!(encode_prompt(&text, &tokenizer)?, None);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn encode_prompt(example: &Example, tokenizer: &Tokenizer) -> Result<Option<Vec<u32>>, Error> {
    match (&example.content, &example.answer) {
        (Content::Chat(messages), Some(_)) => {
            let before = &messages[..messages.len().saturating_sub(1)];
            let text = tokenizer.chat_template().render(before, true)?;
            Ok(Some(tokenizer.encode_with_offsets(&text, false)?.ids))
        }
        (Content::Pair { prompt, .. }, Some(_)) => {
            let mut ids = tokenizer.encode(prompt)?;
            while ids.len() > 1
                && ids
                    .last()
                    .is_some_and(|id| tokenizer.eos_ids().contains(id))
            {
                ids.pop();
            }
            Ok(Some(ids))
        }
        _ => Ok(None),
    }
}

/// The bytes of each answer in a rendered chat, the end of its turn included.
fn answers_of(
    messages: &[Message],
    whole: &str,
    tokenizer: &Tokenizer,
) -> Result<Vec<(usize, usize)>, Error> {
    let template = tokenizer.chat_template();
    let mut answers = Vec::new();
    for (index, message) in messages.iter().enumerate() {
        if message.role != "assistant" {
            continue;
        }
        let before = &messages[..index];
        // Some templates write more in a prompt than they write before an answer. What they write
        // without one is then the next best border: the turn's header is trained on as well.
        let mut start = None;
        for for_generation in [true, false] {
            let prefix = template.render(before, for_generation)?;
            if whole.starts_with(&prefix) {
                start = Some(prefix.len());
                break;
            }
        }
        let start = start.ok_or_else(|| {
            Error::new(
                ErrorKind::Template,
                format!(
                    "the chat template writes the first {index} messages differently when the \
                     answer follows, so where the answer begins is unknown"
                ),
            )
            .with_help(
                "take the loss on all tokens, or use a template that writes messages one after \
                 the other",
            )
        })?;
        let end = if index + 1 == messages.len() {
            whole.len()
        } else {
            common_prefix(&template.render(&messages[..=index], false)?, whole)
        };
        answers.push((start, end));
    }
    Ok(answers)
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}

#[cfg(test)]
mod tests;
