//! The borders of one answer in a rendered chat, found by rendering.
//!
//! Where an answer begins and ends is never guessed from the characters of its own text. The
//! template renders the chat again with a sentinel in place of the answer: a character that no
//! template writes. What it writes before and after the sentinel is the frame of the turn.

use crate::error::{Error, ErrorKind};
use crate::text::chat::{Chat, Message};
use crate::text::template::ChatTemplate;

/// Stands for an answer, and for its reasoning. Unicode reserves these characters for use inside a
/// program.
const ANSWER: char = '\u{FDD2}';
const REASONING: char = '\u{FDD3}';
/// Stands for the end-of-sequence token.
const END: &str = "\u{FDD4}";

/// A chat and the template that renders it.
#[derive(Clone, Copy)]
pub(super) struct Dialogue<'a> {
    pub(super) chat: &'a Chat,
    pub(super) template: &'a ChatTemplate,
}

/// What the template writes for the messages before an answer.
struct History {
    /// With a generation prompt.
    prompt: String,
    /// How much of the prompt is not the generation prompt; `None` if the messages are rendered
    /// differently without a generation prompt.
    turns: Option<usize>,
}

impl History {
    /// The generation prompt.
    fn added(&self) -> Option<&str> {
        Some(&self.prompt[self.turns?..])
    }
}

/// What follows the text of an answer: the end of its turn.
pub(super) struct Tail {
    /// If the answer is the last message.
    pub(super) last: String,
    /// What it may be if another message follows.
    inner: Vec<String>,
}

impl Tail {
    /// How much of `rest`, the text after an answer, ends the turn of the answer.
    pub(super) fn length(&self, rest: &str) -> usize {
        let found = self.inner.iter().find(|inner| rest.starts_with(*inner));
        found.map_or(0, String::len)
    }
}

impl Dialogue<'_> {
    /// Where the answer with this index begins in `text`, in which it is the last message. Refused if
    /// the template writes the messages before it differently when it follows.
    pub(super) fn start(&self, index: usize, text: &str) -> Result<usize, Error> {
        let start = if index == 0 {
            self.start_of_first(text)
        } else {
            self.start_after(&self.chat.before(index), text)
        };
        start.ok_or_else(|| {
            if self.loses_system(index, text) {
                return unwritten_system(index);
            }
            let message = format!(
                "the chat template writes the messages before message {} differently when it \
                 follows, so that where it begins is unknown",
                index + 1
            );
            Error::new(ErrorKind::Template, message).with_help(
                "train on all tokens, or use a template that marks the answers with \
                 {% generation %}, or that writes messages one after the other",
            )
        })
    }

    /// Whether the template leaves out the system message when the message with this index follows, as
    /// templates do that write it where the user speaks last.
    fn loses_system(&self, index: usize, text: &str) -> bool {
        let mut until = self.chat.before(index + 1);
        let is_system = |message: &Message| matches!(message.role(), "system" | "developer");
        if index < 2 || !is_system(&until.messages[0]) {
            return false;
        }
        until.messages.remove(0);
        self.render(&until).is_some_and(|without| without == text)
            && self.start_after(&until.before(index - 1), text).is_some()
    }

    fn start_after(&self, before: &Chat, text: &str) -> Option<usize> {
        let prompt = self.template.try_render(before, true).ok()?.text;
        if text.starts_with(&prompt) {
            return Some(prompt.len());
        }
        // The generation prompt has what this answer does not have, such as the beginning of
        // reasoning. The answer begins after what both have: the header of the turn.
        let history = self.history(before)?;
        let turns = history.turns?;
        let frames = [
            (vec![sentinel()], ANSWER),
            (vec![reasoned()], REASONING),
            (vec![sentinel(), question()], ANSWER),
        ];
        for (messages, mark) in frames {
            let Some(frame) = self.frame(before, messages) else {
                continue;
            };
            let Some(at) = frame.find(mark) else { continue };
            let shared = common_prefix(&history.prompt, &frame[..at]);
            let start = before_open_tag(&frame, shared);
            if shared >= turns && text.starts_with(&frame[..start]) {
                return Some(start.max(turns));
            }
        }
        // The header is in the loss too.
        text.starts_with(&history.prompt[..turns]).then_some(turns)
    }

    /// As [`start`](Self::start) for the first message. Before it there is nothing to answer, and
    /// many templates refuse an empty chat, so the header is taken from an answer to a user.
    fn start_of_first(&self, text: &str) -> Option<usize> {
        let none = self.chat.before(0);
        let frame = self.frame(&none, vec![sentinel()]);
        if let (Some((header, filler)), Some(frame)) = (self.header(), &frame)
            && let Some(at) = frame.find(ANSWER)
        {
            let whole = frame[..at].strip_suffix(filler.as_str());
            let starts = [whole, Some(&frame[..at])].into_iter().flatten();
            for before in starts.filter(|before| before.ends_with(&header)) {
                if text.starts_with(before) {
                    return Some(before.len());
                }
            }
        }
        let prompt = self.template.try_render(&none, true).ok();
        if let Some(prompt) = prompt.map(|prompt| prompt.text)
            && !prompt.is_empty()
            && text.starts_with(&prompt)
        {
            return Some(prompt.len());
        }
        let at = frame.as_ref()?.find(ANSWER)?;
        text.starts_with(&frame?[..at]).then_some(at)
    }

    /// The header of an answer to a user, and what the template writes between the header and the
    /// text.
    fn header(&self) -> Option<(String, String)> {
        let asked = self.asked();
        let history = self.history(&asked)?;
        let turns = history.turns?;
        let frame = self.frame(&asked, vec![sentinel()])?;
        let at = frame.find(ANSWER)?;
        let mut end = common_prefix(&history.prompt, &frame[..at]);
        if end < history.prompt.len() {
            end = before_open_tag(&frame, end);
        }
        let header = frame.get(turns..end)?;
        Some((
            header.to_owned(),
            frame[turns + header.len()..at].to_owned(),
        ))
    }

    /// What ends the turn of an answer with this index.
    pub(super) fn tail(&self, index: usize) -> Option<Tail> {
        let tail = self.tail_after(self.chat.before(index));
        tail.or_else(|| self.tail_after(self.asked()))
    }

    fn tail_after(&self, mut chat: Chat) -> Option<Tail> {
        let history = self.history(&chat);
        let turns = history.as_ref().and_then(|history| history.turns);
        chat.messages.push(sentinel());
        let frame = self.render(&chat)?;
        let at = frame.find(ANSWER)?;
        let last = frame[at + ANSWER.len_utf8()..].to_owned();
        let mut inner = Vec::new();
        // Before another answer: without what the template writes before an answer.
        let again = self.frame(&chat, vec![Message::assistant(REASONING)]);
        if let (Some(again), Some(head)) = (again, turns.and_then(|turns| frame.get(turns..at)))
            && let Some((_, after)) = again.split_once(ANSWER)
            && let Some((between, _)) = after.split_once(REASONING)
            && let Some(end) = between.strip_suffix(head)
        {
            inner.push(end.to_owned());
        }
        // Before a generation prompt: without that prompt.
        let prompted = self.template.try_render(&chat, true).ok();
        if let Some((_, after)) = prompted.as_ref().and_then(|p| p.text.split_once(ANSWER)) {
            let known = history.filter(|history| history.turns.is_some());
            let known = known.or_else(|| self.history(&self.asked()));
            let added = known.as_ref().and_then(History::added).unwrap_or("");
            inner.push(after.strip_suffix(added).unwrap_or(after).to_owned());
        }
        Some(Tail { last, inner })
    }

    /// Where the answer with this index is in `whole`, the rendering of the chat, if the template
    /// writes it differently there than as the last message.
    pub(super) fn inside(&self, index: usize, whole: &str) -> Option<std::ops::Range<usize>> {
        let span = self.inside_with(index, whole, sentinel());
        // Some templates write an answer with reasoning differently.
        span.or_else(|| self.inside_with(index, whole, reasoned()))
    }

    /// As [`inside`](Self::inside), where the frame of the turn is that of this message.
    fn inside_with(
        &self,
        index: usize,
        whole: &str,
        message: Message,
    ) -> Option<std::ops::Range<usize>> {
        let mut chat = self.chat.clone();
        chat.messages[index] = message;
        let frame = self.render(&chat)?;
        let at = frame.find(ANSWER)?;
        let thought = frame[..at].find(REASONING);
        let before = &frame[..thought.unwrap_or(at)];
        let after = &frame[at + ANSWER.len_utf8()..];
        if !whole.starts_with(before) || !whole.ends_with(after) {
            return None;
        }
        let end = whole.len() - after.len();
        // A tag that the reasoning is in belongs to the answer, unless it belongs to the header.
        let first = match thought {
            Some(at) => before_open_tag(&frame, at),
            None => at,
        };
        let start = match self.header() {
            Some((header, filler)) => match before.strip_suffix(filler.as_str()) {
                Some(rest) if rest.ends_with(&header) => rest.len(),
                _ if before.ends_with(&header) => before.len(),
                _ => first,
            },
            None => first,
        };
        let closing = self.tail(index).map_or(0, |tail| tail.length(after));
        (start <= end).then_some(start..end + closing)
    }

    fn render(&self, chat: &Chat) -> Option<String> {
        Some(self.template.try_render(chat, false).ok()?.text)
    }

    /// The rendering of these messages after others.
    fn frame(&self, before: &Chat, messages: Vec<Message>) -> Option<String> {
        let mut chat = before.clone();
        chat.messages.extend(messages);
        self.render(&chat)
    }

    fn history(&self, before: &Chat) -> Option<History> {
        let prompt = self.template.try_render(before, true).ok()?.text;
        let turns = self.length(before, &prompt);
        Some(History { prompt, turns })
    }

    /// How much of `longer` is the rendering of this chat; `None` if `longer` begins differently.
    pub(super) fn length(&self, chat: &Chat, longer: &str) -> Option<usize> {
        let plain = self.render(chat);
        if let Some(text) = plain.filter(|text| longer.starts_with(text)) {
            return Some(text.len());
        }
        // Some templates write the end-of-sequence token only after the last message.
        let (text, token) = self.template.render_ending(chat, END)?;
        let text = text.strip_suffix(END).unwrap_or(&text).replace(END, &token);
        longer.starts_with(&text).then_some(text.len())
    }

    /// A chat of a user who asks.
    fn asked(&self) -> Chat {
        let mut chat = self.chat.before(0);
        chat.messages.push(question());
        chat
    }
}

fn unwritten_system(index: usize) -> Error {
    let message = format!(
        "the chat template writes the system message only where the user speaks last, so the answer in \
         message {} would be trained without it",
        index + 1
    );
    Error::new(ErrorKind::Template, message).with_help(
        "put the text of the system message into the first message of the user, or choose another chat \
         template",
    )
}

fn question() -> Message {
    Message::user(REASONING)
}

fn sentinel() -> Message {
    Message::assistant(ANSWER)
}

fn reasoned() -> Message {
    sentinel().with("reasoning_content", REASONING.to_string())
}

fn common_prefix(a: &str, b: &str) -> usize {
    let ends = a.char_indices().map(|(at, c)| at + c.len_utf8());
    let same = a.chars().zip(b.chars()).take_while(|(x, y)| x == y);
    ends.zip(same).map(|(end, _)| end).last().unwrap_or(0)
}

/// `end`, or the start of a tag that ends there and is closed after it. With the generation prompt
/// `<think>\n` and an answer `<think></think>four`, the prompt's tag is not the beginning of the
/// answer's.
fn before_open_tag(text: &str, end: usize) -> usize {
    let (before, after) = text.split_at(end);
    let before = before.trim_end();
    let tag = before.rfind('<').and_then(|at| {
        let name = before[at + 1..].strip_suffix('>')?;
        let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_');
        (is_name && !name.is_empty() && after.contains(&format!("</{name}>"))).then_some(at)
    });
    tag.unwrap_or(end)
}
