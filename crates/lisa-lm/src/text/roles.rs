//! The parts of a rendered chat that belong to each message.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind};
use crate::text::answers::{Passage, Passages};
use crate::text::chat::{Chat, Message};
use crate::text::data::{Content, Example};
use crate::text::template::ChatTemplate;
use crate::text::tokenizer::Tokenizer;
use crate::text::turn::Dialogue;
use crate::text::weight::weight_of;

/// How many tokens of an example belong to each role of a chat, to the `prompt` and the `completion`
/// of a pair, or to a `text`.
///
/// What the chat template writes before a message, such as its own system prompt, belongs to that
/// message. Where the template writes a message differently in the complete chat and its end is not
/// known, its tokens are counted with those of the next message. The cost is a rendering for each
/// message.
///
/// # Errors
///
/// The chat template or the tokenizer refuses the example.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{Example, role_tokens};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let example = Example::from_json(r#"{"instruction": "Hello", "output": "world"}"#)?;
/// let tokens = role_tokens(&example, &tokenizer)?;
/// assert!(tokens["user"] > 0 && tokens["assistant"] > 0);
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn role_tokens(
    example: &Example,
    tokenizer: &Tokenizer,
) -> Result<BTreeMap<String, usize>, Error> {
    let count = |text: &str| Ok::<_, Error>(tokenizer.encode_with_offsets(text, false)?.ids.len());
    let mut tokens = BTreeMap::new();
    match &example.content {
        Content::Text(text) => {
            tokens.insert("text".to_owned(), count(text)?);
        }
        Content::Pair {
            prompt, completion, ..
        } => {
            tokens.insert("prompt".to_owned(), count(prompt)?);
            tokens.insert("completion".to_owned(), count(completion)?);
        }
        Content::Chat(chat) => {
            let template = tokenizer.chat_template();
            let whole = template.render(chat, false)?.text;
            let ends = ends(Dialogue { chat, template }, &whole);
            let offsets = tokenizer.encode_with_offsets(&whole, false)?.offsets;
            let mut at = 0;
            for (index, message) in chat.messages.iter().enumerate() {
                let last = index + 1 == chat.messages.len();
                let end = if last { Some(whole.len()) } else { ends[index] };
                let Some(end) = end else { continue };
                let all = &offsets[at..];
                let own = if last {
                    all.len()
                } else {
                    all.partition_point(|(_, e)| *e <= end)
                };
                *tokens.entry(message.role().to_owned()).or_insert(0) += own;
                at += own;
            }
        }
    }
    Ok(tokens)
}

/// The whole chat in the loss, each message with its weight.
pub(super) fn everything(chat: &Chat, template: &ChatTemplate) -> Result<Passages, Error> {
    let text = template.render(chat, false)?.text;
    let refused = |index: usize, what: &str| {
        Error::new(ErrorKind::Data, format!("message {} {what}", index + 1))
    };
    let mut weights = Vec::with_capacity(chat.messages.len());
    for (index, message) in chat.messages.iter().enumerate() {
        let weight = weight_of(message).map_err(|what| refused(index, &what))?;
        weights.push(weight.unwrap_or(1.0));
    }
    let mut spans = Vec::new();
    let mut at = 0;
    if weights.iter().any(|weight| *weight != 1.0) {
        let ends = ends(Dialogue { chat, template }, &text);
        for (index, (end, weight)) in ends.into_iter().zip(weights).enumerate() {
            let end = end.filter(|end| *end >= at).ok_or_else(|| {
                refused(
                    index,
                    "has no known end, since the chat template writes it differently when the chat \
                     goes on; so messages cannot have weights when all tokens are in the loss",
                )
            })?;
            spans.push((at..end, weight));
            at = end;
        }
    }
    if at < text.len() {
        spans.push((at..text.len(), 1.0));
    }
    Ok(Passages {
        rows: vec![Passage { text, spans }],
        empty: Vec::new(),
        unwritten: Vec::new(),
        in_no_row: Vec::new(),
    })
}

/// Where each message ends in the rendered chat, where that is known.
fn ends(dialogue: Dialogue<'_>, whole: &str) -> Vec<Option<usize>> {
    let messages = dialogue.chat.messages.iter().enumerate();
    let end = |(index, message): (usize, &Message)| {
        if index + 1 == dialogue.chat.messages.len() {
            return Some(whole.len());
        }
        let end = dialogue.length(&dialogue.chat.before(index + 1), whole);
        end.or_else(|| {
            let inside = || dialogue.inside(index, whole);
            (message.role() == "assistant")
                .then(inside)?
                .map(|span| span.end)
        })
    };
    messages.map(end).collect()
}
