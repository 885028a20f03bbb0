//! [`turn_end`]: how a chat template ends a turn of the assistant.

use crate::error::Error;
use crate::text::chat::Chat;
use crate::text::tokenizer::Tokenizer;

/// What follows the text of an answer in a rendered chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// A token that ends a sequence: generation stops there.
    EndOfSequence(u32),
    /// Another special or added token: generation does not stop there unless
    /// [`Tokenizer::add_eos`] is called with it.
    Token(u32),
    /// Text of ordinary tokens: generation cannot stop there.
    Text(String),
    /// Nothing but whitespace: generation cannot stop there.
    Nothing,
}

/// How the last answer of this chat ends, with the tokenizer's chat template. Answers with tool
/// calls are skipped, because a template writes the calls after the text. `None` if no answer with
/// a text is left, or if the template changes the text.
///
/// # Errors
///
/// The template or the tokenizer refuses the chat.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{Chat, Message, TurnEnd, turn_end};
///
/// let chat = Chat::from([Message::user("Two and two?"), Message::assistant("four")]);
/// let plain = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// assert_eq!(turn_end(&chat, &plain)?, Some(TurnEnd::Nothing));
/// // Token 769 is `<|im_end|>`.
/// let mut chatml = plain.with_named_template("chatml")?;
/// assert_eq!(turn_end(&chat, &chatml)?, Some(TurnEnd::Token(769)));
/// chatml.add_eos(769);
/// assert_eq!(turn_end(&chat, &chatml)?, Some(TurnEnd::EndOfSequence(769)));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn turn_end(chat: &Chat, tokenizer: &Tokenizer) -> Result<Option<TurnEnd>, Error> {
    let answers = chat.messages.iter().enumerate().rev();
    let mut answers =
        answers.filter(|(_, message)| message.role() == "assistant" && !message.calls());
    let found = answers.find_map(|(index, message)| {
        let text = message.content()?.trim();
        (!text.is_empty()).then_some((index, text))
    });
    let Some((index, answer)) = found else {
        return Ok(None);
    };
    let text = tokenizer
        .chat_template()
        .render(&chat.before(index + 1), false)?
        .text;
    // The text of the answer may be in an earlier message too.
    let before = tokenizer
        .chat_template()
        .try_render(&chat.before(index), false);
    let earlier = before.map_or(0, |before| common_prefix(&before.text, &text));
    let Some(start) = text.rfind(answer).filter(|start| *start >= earlier) else {
        return Ok(None);
    };
    let end = start + answer.len();
    let tokens = tokenizer.encode_with_offsets(&text, false)?;
    let after = tokens
        .ids
        .iter()
        .zip(&tokens.offsets)
        .filter(|(_, (from, to))| {
            *from >= end
                && text
                    .get(*from..*to)
                    .is_some_and(|text| !text.trim().is_empty())
        });
    let after: Vec<u32> = after.map(|(id, _)| *id).collect();
    let added = tokenizer
        .get_ref()
        .get_added_vocabulary()
        .get_added_tokens_decoder();
    let is_added = |id: &u32| added.contains_key(id);
    Ok(Some(match after.first() {
        None => TurnEnd::Nothing,
        Some(&first) if tokenizer.is_eos(first) => TurnEnd::EndOfSequence(first),
        Some(first) if is_added(first) => TurnEnd::Token(*first),
        Some(_) => match after.iter().find(|id| tokenizer.is_eos(**id)) {
            Some(&eos) => TurnEnd::EndOfSequence(eos),
            None => TurnEnd::Text(text[end..].trim().to_owned()),
        },
    }))
}

fn common_prefix(a: &str, b: &str) -> usize {
    let pairs = a.bytes().zip(b.bytes());
    pairs.take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::tokenizer;
    use crate::text::chat::Message;

    /// With a template that writes `answer` for a message of the assistant.
    fn end(answer: &str) -> Option<TurnEnd> {
        let template = format!(
            "{{% for m in messages %}}{{% if m.role == 'user' %}}Q: {{{{ m.content }}}}\n\
             {{% else %}}A: {answer}{{% endif %}}{{% endfor %}}"
        );
        let chat = Chat::from([
            Message::user("one"),
            Message::assistant("one"),
            Message::user("two"),
        ]);
        turn_end(&chat, &tokenizer(&template)).unwrap()
    }

    #[test]
    fn the_first_token_after_the_answer_decides() {
        let cases = [
            (
                "{{ m.content }}{{ eos_token }}\n",
                TurnEnd::EndOfSequence(0),
            ),
            ("{{ m.content }} \n<|user|>", TurnEnd::Token(1)),
            // The end of sequence after it is not where a turn in the middle ends.
            ("{{ m.content }}<|user|>{{ eos_token }}", TurnEnd::Token(1)),
            (
                "{{ m.content }}!!{{ eos_token }}",
                TurnEnd::EndOfSequence(0),
            ),
            ("{{ m.content }}[END]\n", TurnEnd::Text("[END]".into())),
            ("{{ m.content }}\n", TurnEnd::Nothing),
        ];
        for (answer, expected) in cases {
            assert_eq!(end(answer), Some(expected), "{answer}");
        }
        assert_eq!(end("{{ m.content | upper }}!"), None);
    }

    #[test]
    fn an_answer_with_tool_calls_does_not_end_with_their_token() {
        let template = "{% for m in messages %}{{ m.content }}{% if m.tool_calls %}<|user|>call{% endif %}\
                        {{ eos_token }}{% endfor %}";
        let template = tokenizer(template);
        let call = Message::assistant("look").with("tool_calls", [[1]]);
        let with_text = Chat::from([Message::assistant("no"), Message::user("two"), call.clone()]);
        let expected = Some(TurnEnd::EndOfSequence(0));
        assert_eq!(turn_end(&with_text, &template).unwrap(), expected);
        let alone = Chat::from([Message::user("two"), call]);
        assert_eq!(turn_end(&alone, &template).unwrap(), None);
    }

    #[test]
    fn a_chat_without_a_text_of_the_assistant_has_no_end() {
        let tokenizer = tokenizer("{{ messages | length }}");
        let chat = Chat::from([Message::user("one"), Message::assistant(" ")]);
        assert_eq!(turn_end(&chat, &tokenizer).unwrap(), None);
    }
}
