//! [`turn_end`]: how a chat template ends a turn of the assistant.

use crate::error::Error;
use crate::text::chat::Chat;
use crate::text::tokenizer::Tokenizer;
use crate::text::turn::Dialogue;

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
/// a text is left, or if the end is unknown. The text of the answer does not matter: the chat is
/// rendered again with a placeholder instead of it.
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
    let Some((index, _)) = answers.find(|(_, message)| message.has_text()) else {
        return Ok(None);
    };
    let text = tokenizer
        .chat_template()
        .render(&chat.before(index + 1), false)?
        .text;
    let template = tokenizer.chat_template();
    let tail = Dialogue { chat, template }.tail(index);
    let answered = tail
        .as_ref()
        .and_then(|tail| text.strip_suffix(&tail.last[..]));
    let Some(end) = answered.map(str::len) else {
        return Ok(None);
    };
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
        // The template may change the text of the answer.
        let text = TurnEnd::Text("!".into());
        assert_eq!(end("{{ m.content | upper }}!"), Some(text));
        assert_eq!(end("{{ 'said' }}!"), None);
    }

    // `<|user|>` is a token of the fixture's tokenizer that ends no sequence.
    #[test]
    fn a_short_answer_is_not_found_in_the_end_of_its_turn() {
        let template = "{% for m in messages %}{{ m.role }}: {{ m.content }}<|user|>{% endfor %}";
        let tokenizer = tokenizer(template);
        for answer in ["Yo", "user", "s", "|", "<|user|>"] {
            let chat = Chat::from([Message::user("Q"), Message::assistant(answer)]);
            let end = turn_end(&chat, &tokenizer).unwrap();
            assert_eq!(end, Some(TurnEnd::Token(1)), "{answer}");
        }
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
