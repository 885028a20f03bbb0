//! [`left_out`]: what of an answer its chat template does not write, found by rendering.

use crate::text::chat::Message;
use crate::text::turn::Dialogue;

/// What the template does not write of an answer.
pub(super) struct LeftOut {
    /// It has text, reasoning or tool calls that the template does not write.
    pub(super) is_unwritten: bool,
    /// The template writes nothing of it but the end of the turn.
    pub(super) is_empty: bool,
}

/// The ends of a thought at the beginning of a text, as models write them.
const THOUGHT_ENDS: [&str; 4] = ["</think>", "</thinking>", "</thought>", "[/THINK]"];

/// What the template does not write of the message with this index. `text` is the rendering in which it
/// is the last message, and its answer begins at the byte `start`.
pub(super) fn left_out(dialogue: Dialogue<'_>, index: usize, text: &str, start: usize) -> LeftOut {
    let message = &dialogue.chat.messages[index];
    let rendering = Rendering {
        dialogue,
        index,
        text,
    };
    let own = text.get(start..).unwrap_or_default();
    let (calls, reasoning) = (message.calls(), message.has_reasoning());
    let content = message.content().unwrap_or_default().trim();
    let is_silent = content.is_empty()
        || (!own.contains(content) && rendering.is_same_with(message.clone().with("content", "")));
    let is_bare = match (calls, reasoning) {
        (false, false) => true,
        (true, false) => rendering.is_same_with(message.without_calls()),
        (false, true) => rendering.is_same_with(message.without_reasoning()),
        (true, true) => rendering.is_same_with(message.without_calls().without_reasoning()),
    };
    // Of calls and reasoning, the template may write one.
    let loses_one = || {
        rendering.is_same_with(message.without_calls())
            || rendering.is_same_with(message.without_reasoning())
    };
    let loses_more = ((calls || reasoning) && is_bare) || (calls && reasoning && loses_one());
    let is_unwritten =
        (!content.is_empty() && is_silent) || loses_more || rendering.loses_thought(message, own);
    LeftOut {
        is_unwritten,
        is_empty: is_silent && is_bare,
    }
}

/// The rendering of a chat up to an answer.
struct Rendering<'a> {
    dialogue: Dialogue<'a>,
    index: usize,
    text: &'a str,
}

impl Rendering<'_> {
    /// Whether the template writes the same with this message in place of the answer.
    fn is_same_with(&self, message: Message) -> bool {
        let mut chat = self.dialogue.chat.before(self.index);
        chat.messages.push(message);
        let rendered = self.dialogue.template.try_render(&chat, false);
        rendered.is_ok_and(|rendered| rendered.text == self.text)
    }

    /// Whether the text of the message begins with a thought that the template leaves out. `own` is what
    /// the template writes of the answer.
    fn loses_thought(&self, message: &Message, own: &str) -> bool {
        let content = message.content().unwrap_or_default();
        let ends = THOUGHT_ENDS.iter();
        let ends = ends.filter_map(|end| Some((content.rfind(end)?, *end)));
        let Some((at, end)) = ends.max_by_key(|(at, _)| *at) else {
            return false;
        };
        let (before, rest) = (content[..at].trim(), &content[at + end.len()..]);
        let begin = end.replacen('/', "", 1);
        let thought = before.strip_prefix(begin.as_str()).unwrap_or(before).trim();
        let without = |text: &str| self.is_same_with(message.clone().with("content", text));
        !thought.is_empty()
            && !own.contains(thought)
            && (without(rest) || without(rest.trim_start()))
    }
}
