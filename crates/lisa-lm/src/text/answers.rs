//! The rows of a chat: its renderings, and the places of the trained answers in them.

use std::ops::Range;

use crate::error::{Error, ErrorKind};
use crate::text::chat::{Chat, Message};
use crate::text::left_out::left_out;
use crate::text::template::{ChatTemplate, Rendered};
use crate::text::turn::Dialogue;
use crate::text::weight::weight_of;

/// Which answers of a chat are in the loss, and in how many rows, with
/// [`LossOn::Answer`](crate::text::LossOn::Answer). What a template marks in messages of other roles
/// counts as an answer, except with `Last`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Turns {
    /// Every answer. The chat is one row if each answer then follows the text that the model is
    /// given when it generates this answer. If the chat template writes earlier turns differently
    /// when a chat continues, for instance without their reasoning, each answer has a row of its
    /// own.
    #[default]
    Auto,
    /// Every answer, in one row.
    All,
    /// The last answer, in one row.
    Last,
    /// Every answer, each in a row of its own.
    Split,
}

/// A rendered chat, and the bytes of it that are in the loss, with their weights.
pub(super) struct Passage {
    pub(super) text: String,
    pub(super) spans: Vec<(Range<usize>, f32)>,
}

/// The trained answers of a chat.
pub(super) struct Passages {
    pub(super) rows: Vec<Passage>,
    /// Which messages, from 0, are in the loss though the template writes nothing of them but the
    /// end of the turn.
    pub(super) empty: Vec<usize>,
    /// Which messages have text, reasoning or tool calls that the template does not write. Those of
    /// which it writes nothing are in no row, unless the template marks them.
    pub(super) unwritten: Vec<usize>,
    /// Which of these are in no row.
    pub(super) in_no_row: Vec<usize>,
}

/// An answer, or another message that the template marks, as the last message of its chat.
struct Answer {
    index: usize,
    weight: f32,
    text: String,
    spans: Vec<Range<usize>>,
    /// Which of the chat's marks are its own, if the template has marks.
    marks: Option<Range<usize>>,
}

/// The rows of a chat.
pub(super) fn passages(
    chat: &Chat,
    template: &ChatTemplate,
    turns: Turns,
) -> Result<Passages, Error> {
    let dialogue = Dialogue { chat, template };
    let whole = template.render(chat, false)?;
    let marks = marks_by_message(dialogue, &whole);
    let trained = trained(chat, marks.as_deref(), turns == Turns::Last)?;
    let mut answers = Vec::with_capacity(trained.len());
    let (mut empty, mut unwritten, mut in_no_row) = (Vec::new(), Vec::new(), Vec::new());
    for (index, weight) in trained {
        let marks = marks.as_ref().map(|marks| marks[index].clone());
        let (text, spans) = as_last(dialogue, index, &whole, marks.as_ref())?;
        let answer = Answer {
            index,
            weight,
            text,
            spans,
            marks,
        };
        // What the template marks in messages of other roles is no answer.
        if chat.messages[index].role() == "assistant" {
            let start = answer.spans.first().map(|span| span.start);
            let start = start.unwrap_or(answer.text.len());
            let left_out = left_out(dialogue, index, &answer.text, start);
            if left_out.is_unwritten {
                unwritten.push(index);
            }
            // Without what it says, it would train the model to end its turn at once.
            let is_marked = answer.marks.is_some() && !answer.spans.is_empty();
            if left_out.is_empty && left_out.is_unwritten && !is_marked {
                in_no_row.push(index);
                continue;
            }
            if left_out.is_empty && !answer.spans.is_empty() {
                empty.push(index);
            }
        }
        answers.push(answer);
    }
    let rows = match turns {
        Turns::Last | Turns::Split => split(answers),
        Turns::Auto => match together(dialogue, &answers, &whole) {
            Some(row) => vec![row],
            None => split(answers),
        },
        Turns::All => vec![all(dialogue, &answers, &whole)?],
    };
    Ok(Passages {
        rows,
        empty,
        unwritten,
        in_no_row,
    })
}

/// The messages of the assistant, or the last of them, and other messages that the template marks,
/// whose weight is not 0, with their weights.
fn trained(
    chat: &Chat,
    marks: Option<&[Range<usize>]>,
    is_last_only: bool,
) -> Result<Vec<(usize, f32)>, Error> {
    let mut answers = Vec::new();
    let is_answer = |message: &Message| message.role() == "assistant";
    let last = chat.messages.iter().rposition(is_answer);
    for (index, message) in chat.messages.iter().enumerate() {
        let weight = weight_of(message).map_err(|what| {
            let message = format!("message {} {what}", index + 1);
            Error::new(ErrorKind::Data, message)
        })?;
        let weight = weight.unwrap_or(1.0);
        let is_marked = || marks.is_some_and(|marks| !marks[index].is_empty());
        let is_asked = if is_last_only {
            Some(index) == last
        } else {
            is_answer(message) || is_marked()
        };
        if is_asked && weight > 0.0 && index >= chat.prompt() {
            answers.push((index, weight));
        }
    }
    Ok(answers)
}

/// Which of the chat's marks each message has, if the template has marks: those from the number of
/// marks before the message to the number before the next one.
fn marks_by_message(dialogue: Dialogue<'_>, whole: &Rendered) -> Option<Vec<Range<usize>>> {
    let Dialogue { chat, template } = dialogue;
    let all = whole.generated.as_ref()?.len();
    let mut starts = Vec::with_capacity(chat.messages.len());
    let mut next = 0;
    for (index, message) in chat.messages.iter().enumerate() {
        let before = template.try_render(&chat.before(index), false).ok();
        let before = before.and_then(|before| Some(before.generated?.len()));
        // Where the template refuses a chat that ends there, each answer has at least one mark, and
        // what comes before the message may have more: only an answer has marks then, or the first
        // message, before which there are none.
        let is_answer = message.role() == "assistant";
        let start = before.or_else(|| (is_answer || index == 0).then_some(next));
        starts.push(start);
        next = start.unwrap_or(next) + usize::from(is_answer);
    }
    let mut marks = Vec::with_capacity(starts.len());
    let mut end = all;
    for start in starts.into_iter().rev() {
        let start = start.map_or(end, |start| start.min(end));
        marks.push(start..end);
        end = start;
    }
    marks.reverse();
    Some(marks)
}

/// The chat with the message with this index as the last, and where its answer is there: what the
/// template marks, or the text with the end of its turn.
fn as_last(
    dialogue: Dialogue<'_>,
    index: usize,
    whole: &Rendered,
    marks: Option<&Range<usize>>,
) -> Result<(String, Vec<Range<usize>>), Error> {
    let Dialogue { chat, template } = dialogue;
    let until = chat.before(index + 1);
    let with = if until.messages.len() == chat.messages.len() {
        Ok(whole.clone())
    } else {
        template.try_render(&until, false)
    };
    let with = match with {
        Ok(with) => with,
        // The template refuses a chat that ends here.
        Err(refusal) => {
            let own = marks.and_then(|own| whole.generated.as_ref()?.get(own.clone()));
            let spans = match own {
                Some(own) => own.to_vec(),
                None => {
                    let span = dialogue.inside(index, &whole.text);
                    vec![span.ok_or_else(|| template.error(&refusal, &until, false))?]
                }
            };
            let end = spans.last().map_or(0, |span| span.end);
            return Ok((whole.text[..end].to_owned(), spans));
        }
    };
    let spans = match (marks, with.generated) {
        (Some(own), Some(all)) => all.get(own.start..).unwrap_or_default().to_vec(),
        _ => {
            let start = dialogue.start(index, &with.text);
            let start =
                start.or_else(|error| after_answer(dialogue, index, &with.text).ok_or(error));
            let span = start?..with.text.len();
            vec![span]
        }
    };
    Ok((with.text, spans))
}

/// Where the answer with this index begins in `text`, in which it is the last message, if an answer
/// comes before it that the template writes differently as the last message.
fn after_answer(dialogue: Dialogue<'_>, index: usize, text: &str) -> Option<usize> {
    let Dialogue { chat, template } = dialogue;
    let before = chat.messages.get(index.checked_sub(1)?)?;
    if before.role() != "assistant" {
        return None;
    }
    let chat = &chat.before(index + 1);
    let span = Dialogue { chat, template }.inside(index, text)?;
    Some(span.start)
}

fn split(answers: Vec<Answer>) -> Vec<Passage> {
    let passage = |answer: Answer| Passage {
        text: answer.text,
        spans: weighted(answer.spans, answer.weight).collect(),
    };
    answers.into_iter().map(passage).collect()
}

/// All answers in one row, if each of them follows there what it follows as the last message, and
/// has the same text.
fn together(dialogue: Dialogue<'_>, answers: &[Answer], whole: &Rendered) -> Option<Passage> {
    let mut spans = Vec::new();
    for answer in answers {
        let found = within(dialogue, answer, &whole.text)?;
        let found = marks(answer, whole).unwrap_or(found);
        spans.extend(weighted(found, answer.weight));
    }
    Some(Passage {
        text: whole.text.clone(),
        spans,
    })
}

/// All answers in one row, also where the template writes them differently there.
fn all(dialogue: Dialogue<'_>, answers: &[Answer], whole: &Rendered) -> Result<Passage, Error> {
    let mut spans = Vec::new();
    for answer in answers {
        let found = marks(answer, whole)
            .or_else(|| within(dialogue, answer, &whole.text))
            .or_else(|| Some(vec![dialogue.inside(answer.index, &whole.text)?]));
        let Some(found) = found else {
            let message = format!(
                "the chat template writes message {} differently when the chat goes on, so that \
                 where it is in the chat is unknown",
                answer.index + 1
            );
            return Err(Error::new(ErrorKind::Template, message)
                .with_help("give each answer a row of its own, or train on the last answer only"));
        };
        spans.extend(weighted(found, answer.weight));
    }
    Ok(Passage {
        text: whole.text.clone(),
        spans,
    })
}

/// The answer's own marks in the whole chat.
fn marks(answer: &Answer, whole: &Rendered) -> Option<Vec<Range<usize>>> {
    let marks = whole.generated.as_ref()?.get(answer.marks.clone()?)?;
    Some(marks.to_vec())
}

/// The spans of an answer in the whole chat, if the chat begins with the same text up to the end of
/// the answer's.
fn within(dialogue: Dialogue<'_>, answer: &Answer, whole: &str) -> Option<Vec<Range<usize>>> {
    if whole.starts_with(&answer.text) {
        return Some(answer.spans.clone());
    }
    // The end of the turn may be another one.
    let tail = dialogue.tail(answer.index)?;
    let text = answer.text.strip_suffix(tail.last.as_str())?;
    let rest = whole.strip_prefix(text)?;
    let end = text.len() + tail.length(rest);
    let mut spans = answer.spans.clone();
    if let Some(last) = spans.last_mut()
        && last.end == answer.text.len()
    {
        last.end = end;
    }
    spans.retain(|span| span.start < span.end && span.end <= end);
    Some(spans)
}

fn weighted(spans: Vec<Range<usize>>, weight: f32) -> impl Iterator<Item = (Range<usize>, f32)> {
    spans.into_iter().map(move |span| (span, weight))
}

#[cfg(test)]
mod tests;
