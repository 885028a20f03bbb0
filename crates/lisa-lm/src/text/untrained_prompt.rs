//! [`untrained_prompt`]: what a generation prompt writes and an answer does not have.

use crate::text::chat::{Chat, Message};
use crate::text::template::ChatTemplate;
use crate::text::turn::Dialogue;

/// What the generation prompt of this template writes at its end, and the template does not write before
/// the last answer of this chat. So generation continues another text than the model is trained on. `None`
/// if the answer follows the generation prompt, perhaps without whitespace at its end, or if that is
/// unknown.
///
/// # Example
///
/// ```
/// use std::collections::BTreeMap;
/// use lisa_lm::ChatTemplate;
/// use lisa_lm::text::{Chat, Message, untrained_prompt};
///
/// let source = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}\
///     {% if add_generation_prompt %}[assistant]<think>{% endif %}";
/// let template = ChatTemplate::new(source, &BTreeMap::new())?;
/// let chat = |answer| Chat::from([Message::user("Two and two?"), Message::assistant(answer)]);
/// assert_eq!(untrained_prompt(&chat("four"), &template).as_deref(), Some("<think>"));
/// assert_eq!(untrained_prompt(&chat("<think></think>four"), &template), None);
/// # Ok::<(), lisa_lm::Error>(())
/// ```
#[must_use]
pub fn untrained_prompt(chat: &Chat, template: &ChatTemplate) -> Option<String> {
    let is_answer = |message: &Message| message.role() == "assistant";
    let index = chat.messages.iter().rposition(is_answer)?;
    let before = chat.before(index);
    let prompt = template.try_render(&before, true).ok()?.text;
    let until = template.try_render(&chat.before(index + 1), false).ok()?;
    let earlier = Dialogue { chat, template }.length(&before, &prompt)?;
    let (asked, written) = (prompt.get(earlier..)?, until.text.get(earlier..)?);
    if !until.text.starts_with(&prompt[..earlier]) || written.starts_with(asked) {
        return None;
    }
    let pairs = asked.char_indices().zip(written.chars());
    let same = pairs.take_while(|((_, a), b)| a == b);
    let shared = same.map(|((at, c), _)| at + c.len_utf8()).last();
    let untrained = &asked[shared.unwrap_or(0)..];
    (!untrained.trim().is_empty()).then(|| untrained.to_owned())
}
