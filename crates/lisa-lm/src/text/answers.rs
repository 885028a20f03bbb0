//! Where the assistant's answers are in a rendered chat.

use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::text::chat::Chat;
use crate::text::template::ChatTemplate;

/// The bytes of each answer in `whole`, the rendering of the complete chat. An answer includes the
/// end of its turn.
pub(super) fn answers(
    chat: &Chat,
    whole: &str,
    template: &ChatTemplate,
) -> Result<Vec<Range<usize>>, Error> {
    let mut answers = Vec::new();
    for (index, message) in chat.messages.iter().enumerate() {
        if message.role() != "assistant" {
            continue;
        }
        let start = start_of(index, chat, whole, template)?;
        let end = if index + 1 == chat.messages.len() {
            whole.len()
        } else {
            common_prefix(
                &template.render(&chat.before(index + 1), false)?.text,
                whole,
            )
        };
        answers.push(start..end);
    }
    Ok(answers)
}

/// The place where this message begins: the end of the messages before it, rendered with a
/// generation prompt.
fn start_of(
    index: usize,
    chat: &Chat,
    whole: &str,
    template: &ChatTemplate,
) -> Result<usize, Error> {
    let before = chat.before(index);
    // Some templates write more in a generation prompt than before an answer. The text without one is
    // then the best border there is: the header of the turn is in the loss too.
    for with_prompt in [true, false] {
        let prefix = template.render(&before, with_prompt)?.text;
        if whole.starts_with(&prefix) {
            return Ok(prefix.len());
        }
    }
    let message = format!(
        "the chat template writes the first {index} messages differently when the answer follows, \
         so where the answer begins is unknown"
    );
    Err(Error::new(ErrorKind::Template, message).with_help(
        "train on all tokens, or use a template that writes messages one after the other",
    ))
}

fn common_prefix(a: &str, b: &str) -> usize {
    a.bytes().zip(b.bytes()).take_while(|(x, y)| x == y).count()
}
