//! [`encode_examples`]: converts examples to token ids and labels.
//!
//! A rendered chat is tokenized as a whole, so that no token depends on where an answer begins. The
//! tokens of the answers are found by their places in the text.

use std::panic::resume_unwind;
use std::thread;

use crate::error::{Error, ErrorKind};
use crate::text::answers::{Passages, Turns, passages};
use crate::text::chat::Chat;
use crate::text::data::{Content, Example, OnBadLine};
use crate::text::encode_options::{EmptyAnswers, EncodeOptions, LossOn};
use crate::text::encoded::{Encoded, EncodedSet};
use crate::text::labelled::{CutRow, ended, pair, passage};
use crate::text::roles::everything;
use crate::text::tokenizer::Tokenizer;
use crate::text::weight::weight_of;

/// How many examples are encoded together.
const BLOCK: usize = 256;

/// Encodes examples, in all threads of the machine. Rows that have no token in the loss after
/// truncation are left out, counted and logged.
///
/// # Errors
///
/// The maximal length is below 2; no row is left; or, with [`OnBadLine::Stop`], the chat template or
/// the tokenizer refuses an example. The error then has the place of the example, or its number, from
/// 1. With [`OnBadLine::Skip`] such an example is left out and counted.
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
/// assert_eq!((set.truncated, set.lengths[0]), (1, 9));
/// assert_eq!(set.to_string(), "1 row, 7 tokens, 2 trained on; 1 cut, 0 left out");
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
    let max_length = options.max_length;
    check_length(max_length)?;
    let mut set = EncodedSet::default();
    for (number, block) in examples.chunks(BLOCK).enumerate() {
        let add = |set: &mut EncodedSet, row: CutRow, source| {
            // Without a token in the loss, a row is left out whatever its length is.
            set.truncated += usize::from(row.length > max_length && row.first.is_some());
            set.push(row.row, source, row.length);
            Ok(())
        };
        encode_block(block, number * BLOCK, tokenizer, options, &mut set, add)?;
    }
    set.warn_left_out(set.examples.len(), max_length);
    set.warn();
    if set.examples.is_empty() {
        return Err(set.no_row(max_length));
    }
    Ok(set)
}

/// Returns an error if no token can be predicted in rows of at most this length.
pub(super) fn check_length(max_length: usize) -> Result<(), Error> {
    if max_length < 2 {
        let message =
            format!("the maximal length is {max_length}, but predicting a token needs 2 tokens");
        return Err(Error::new(ErrorKind::Config, message).with_help("raise the maximal length"));
    }
    Ok(())
}

/// Encodes examples, of which the first has the index `first`, in all threads. Counts in `set` what
/// became of them, and passes their rows to `add`, each with the index of its example.
pub(super) fn encode_block<R>(
    examples: &[Example],
    first: usize,
    tokenizer: &Tokenizer,
    options: EncodeOptions,
    set: &mut EncodedSet<R>,
    mut add: impl FnMut(&mut EncodedSet<R>, CutRow, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let found = in_threads(examples, |example| rows_of(example, tokenizer, options));
    for (index, (example, found)) in (first..).zip(examples.iter().zip(found)) {
        match found {
            Ok((rows, found)) => {
                set.empty_answers += found.empty;
                set.unwritten_answers += found.unwritten;
                set.weightless += found.weightless;
                set.split += usize::from(rows.len() > 1);
                set.dropped += usize::from(rows.is_empty());
                for row in rows {
                    add(set, row, index)?;
                }
            }
            Err(error) => {
                let error = match &example.place {
                    Some(place) => error.at(place),
                    None => error.within(&format!("example {}", index + 1)),
                };
                if options.on_bad == OnBadLine::Stop {
                    return Err(error);
                }
                set.refuse(&error);
            }
        }
    }
    Ok(())
}

/// Encodes one example without truncation: one row, or several if a chat has several answers
/// ([`Turns`](crate::text::Turns)).
///
/// A chat is rendered with the chat template and tokenized as a whole. A token is in the loss if it
/// overlaps an answer: what the template marks with `{% generation %}`, also in messages of other
/// roles, as in transformers' `return_assistant_tokens_mask`; without marks, the text of the answer
/// and the end of its turn, without what a generation prompt writes.
///
/// A prompt and its completion are tokenized separately, as at inference. If these tokens decode to
/// another text than the tokens of the joined text, the joined text is tokenized instead, and a
/// token across the border is in the loss. A pair and a plain text get the special tokens that the
/// tokenizer adds, and an end-of-sequence token, which is in the loss.
///
/// The weight of a message (`weight`, `loss_weight`, `loss_scale`, or `train` or `loss` as a boolean)
/// is the weight of its tokens; tokens with a weight of 0 are not in the loss.
///
/// # Errors
///
/// The chat template or the tokenizer refuses the example; the text before an answer changes when the
/// template renders the answer too; a weight is not a number of at least 0; or, with
/// [`EmptyAnswers::Refuse`], an answer is empty or the template writes nothing of it.
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
    let options = EncodeOptions {
        max_length: usize::MAX,
        ..options
    };
    let (rows, _) = rows_of(example, tokenizer, options)?;
    Ok(rows.into_iter().map(|row| row.row).collect())
}

/// The results for these examples, in order, computed in as many threads as the machine has.
fn in_threads<T: Send>(examples: &[Example], of: impl Fn(&Example) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = examples.len().div_ceil(threads).max(1);
    let of = &of;
    thread::scope(|scope| {
        let work = |examples| scope.spawn(move || <[Example]>::iter(examples).map(of).collect());
        let threads: Vec<_> = examples.chunks(share).map(work).collect();
        let done = |thread: thread::ScopedJoinHandle<'_, Vec<T>>| {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        };
        threads.into_iter().flat_map(done).collect()
    })
}

/// Numbers of answers that are counted in an [`EncodedSet`].
#[derive(Default)]
struct Counts {
    empty: usize,
    unwritten: usize,
    /// Whether the example is left out because of its weights: 1 or 0.
    weightless: usize,
}

/// Whether a chat has messages that could be in the loss, and all of them have a weight of 0.
fn is_weightless(chat: &Chat, options: EncodeOptions) -> bool {
    let messages = chat.messages.iter().enumerate();
    let asked = messages.filter(|(index, message)| {
        let is_answer = message.role() == "assistant" && *index >= chat.prompt();
        is_answer || options.loss_on == LossOn::All
    });
    let mut weights: Vec<_> = asked.map(|(_, message)| weight_of(message)).collect();
    if options.loss_on == LossOn::Answer && options.turns == Turns::Last {
        weights.drain(..weights.len().saturating_sub(1));
    }
    !weights.is_empty() && weights.iter().all(|weight| *weight == Ok(Some(0.0)))
}

/// Returns an error if nothing of an answer is in the loss but the end of its turn, or if an answer
/// without text is in no row because the template does not write its tool calls and reasoning.
fn refuse_empty(chat: &Chat, found: &Passages) -> Result<(), Error> {
    let in_no_row = found.in_no_row.iter();
    let mut without_text = in_no_row.filter(|index| !chat.messages[**index].has_text());
    let Some(index) = found.empty.first().or_else(|| without_text.next()) else {
        return Ok(());
    };
    let number = index + 1;
    let (message, help) = if found.unwritten.contains(index) {
        (
            format!("the chat template writes nothing of the answer in message {number}"),
            "remove the message, allow empty answers, or choose a chat template that writes it",
        )
    } else {
        (
            format!("the answer in message {number} is empty"),
            "remove the message, or allow empty answers",
        )
    };
    Err(Error::new(ErrorKind::Data, message).with_help(help))
}

/// The rows of an example, truncated.
fn rows_of(
    example: &Example,
    tokenizer: &Tokenizer,
    options: EncodeOptions,
) -> Result<(Vec<CutRow>, Counts), Error> {
    let (loss_on, max_length) = (options.loss_on, options.max_length);
    match &example.content {
        Content::Chat(chat) => {
            let template = tokenizer.chat_template();
            let found = match loss_on {
                LossOn::Answer => passages(chat, template, options.turns)?,
                LossOn::All => everything(chat, template)?,
            };
            if options.empty_answers == EmptyAnswers::Refuse {
                refuse_empty(chat, &found)?;
            }
            let rows = found.rows.iter();
            let rows = rows.map(|row| passage(row, tokenizer, max_length));
            let counts = Counts {
                empty: found.empty.len(),
                unwritten: found.unwritten.len(),
                weightless: usize::from(is_weightless(chat, options)),
            };
            Ok((rows.collect::<Result<_, _>>()?, counts))
        }
        Content::Pair {
            prompt, completion, ..
        } => {
            let is_empty = completion.trim().is_empty();
            if is_empty && options.empty_answers == EmptyAnswers::Refuse {
                return Err(Error::new(ErrorKind::Data, "the completion is empty")
                    .with_help("remove the example, or allow empty answers"));
            }
            let mut row = pair(prompt, completion, tokenizer)?;
            if loss_on == LossOn::All {
                row = Encoded::all_trained(row.ids);
            }
            let counts = Counts {
                empty: usize::from(is_empty),
                ..Counts::default()
            };
            Ok((vec![CutRow::of(row, max_length)], counts))
        }
        Content::Text(text) => {
            let ids = tokenizer.encode(text)?;
            let labels = ids.iter().map(|id| i64::from(*id)).collect();
            let row = CutRow::of(ended(ids, labels, tokenizer), max_length);
            Ok((vec![row], Counts::default()))
        }
    }
}

/// The ids to generate an answer from: the chat without its last message and with a generation
/// prompt, or the prompt of a pair. None if the example has no [answer](Example::answer), or is a chat
/// of one message.
///
/// # Errors
///
/// The chat template or the tokenizer refuses the prompt. The error has the place of the example.
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
    if example.answer.is_none() {
        return Ok(None);
    }
    let ids = match &example.content {
        Content::Chat(chat) if chat.messages.len() > 1 => {
            let before = chat.before(chat.messages.len() - 1);
            let rendered = tokenizer.chat_template().render(&before, true);
            rendered.and_then(|prompt| Ok(tokenizer.encode_with_offsets(&prompt.text, false)?.ids))
        }
        Content::Pair { prompt, .. } => tokenizer.encode_prompt(prompt),
        _ => return Ok(None),
    };
    ids.map(Some).map_err(|error| match &example.place {
        Some(place) => error.at(place),
        None => error,
    })
}

#[cfg(test)]
mod tests;
