//! [`Prepare`]: how examples become text: prompts as chats, the chat template, the end of a turn.

use std::collections::BTreeSet;

use anyhow::Result;
use lisa_lm::Tokenizer;
use lisa_lm::text::{Content, Example, TurnEnd, turn_end, untrained_prompt, unwritten_context};

use super::note::Note;
use crate::settings::{InputSettings, Pairs};
use crate::terminal::text::{counted, one_line};

/// The example as `--pairs` says: with `chat`, a pair is a chat.
pub(crate) fn rendered(example: Example, pairs: Pairs) -> Example {
    match pairs {
        Pairs::Chat => example.into_chat(),
        Pairs::Auto | Pairs::Text => example,
    }
}

/// Prepares the tokenizer for the chats of the data, of which each example is seen once.
pub(crate) struct Prepare {
    tokenizer: Tokenizer,
    how: Pairs,
    /// Whether the model has a chat template.
    has_template: bool,
    pairs: usize,
    has_chats: bool,
    /// How the first chat ends that has an end; `None` if the template refuses that chat.
    end: Option<TurnEnd>,
    /// Whether that chat was seen.
    is_end_seen: bool,
    /// What the generation prompt of that chat has, and its last answer does not have.
    untrained: Option<String>,
    /// Tools, documents and roles that were seen in a chat.
    context: BTreeSet<String>,
    /// Those that the template does not write.
    unwritten: Vec<String>,
}

impl Prepare {
    pub(crate) fn new(input: &InputSettings, tokenizer: Tokenizer) -> Self {
        Self {
            has_template: tokenizer.has_chat_template(),
            tokenizer,
            how: input.pairs,
            pairs: 0,
            has_chats: false,
            end: None,
            is_end_seen: false,
            untrained: None,
            context: BTreeSet::new(),
            unwritten: Vec::new(),
        }
    }

    /// Looks at the next example.
    pub(crate) fn see(&mut self, example: &Example) -> Result<()> {
        let is_pair = matches!(example.content, Content::Pair { .. });
        self.pairs += usize::from(is_pair);
        if is_pair && self.how != Pairs::Chat {
            return Ok(());
        }
        let as_chat;
        let content = if is_pair {
            as_chat = rendered(example.clone(), self.how);
            &as_chat.content
        } else {
            &example.content
        };
        let Content::Chat(chat) = content else {
            return Ok(());
        };
        if !self.has_chats && !self.has_template {
            self.tokenizer = self.tokenizer.clone().with_named_template("plain")?;
        }
        self.has_chats = true;
        let template = self.tokenizer.chat_template();
        for what in unwritten_context(chat, template, &mut self.context) {
            let place = example
                .place
                .as_ref()
                .map(|place| format!(" (first in {place})"));
            self.unwritten.push(what + &place.unwrap_or_default());
        }
        if self.is_end_seen {
            return Ok(());
        }
        // A chat that the template refuses is an error with its place when it is encoded.
        if let Some(end) = turn_end(chat, &self.tokenizer).transpose() {
            self.end = end.ok();
            self.is_end_seen = true;
            self.untrained = untrained_prompt(chat, self.tokenizer.chat_template());
        }
        Ok(())
    }

    /// The tokenizer, and notes about it.
    pub(crate) fn finish(self) -> (Tokenizer, Vec<Note>) {
        let mut tokenizer = self.tokenizer;
        let mut notes = Vec::new();
        if self.pairs > 0 && self.how == Pairs::Auto && self.has_template {
            let verb = if self.pairs == 1 { "is" } else { "are" };
            let pairs = counted(self.pairs, "pair");
            notes.push(Note::Warning(format!(
                "the model has a chat template, and {pairs} of prompt and completion \
                 {verb} trained as plain text; --pairs chat renders them with the template, and \
                 --pairs text is without this warning"
            )));
        }
        if !self.has_chats {
            notes.push(described(&tokenizer));
            return (tokenizer, notes);
        }
        notes.push(Note::Info(if self.has_template {
            let name = tokenizer.chat_template().name();
            format!("chat template: {}", one_line(name))
        } else {
            "chat template: the model has none, and `plain` is used (User: .. Assistant: ..); \
             choose another one with --chat-template chatml, llama3, or a file"
                .to_owned()
        }));
        notes.push(beginning(&tokenizer));
        if !self.unwritten.is_empty() {
            notes.push(Note::Warning(format!(
                "the chat template does not write the {} of the data, so the model is trained \
                 without them; another template may write them (--chat-template)",
                self.unwritten.join(", the ")
            )));
        }
        if let Some(text) = self.untrained {
            notes.push(Note::Warning(format!(
                "the generation prompt of the chat template ends with {:?}, which the template does not \
                 write before the last answer of the first chat, so answers are generated after another \
                 text than they are trained after; begin the answers with it, or choose another template \
                 (--chat-template)",
                one_line(&text)
            )));
        }
        let end = self.end;
        let warning = end.as_ref().and_then(|end| warning(end, &tokenizer));
        if let Some(TurnEnd::Token(id)) = end {
            tokenizer.add_eos(id);
        }
        notes.push(described(&tokenizer));
        notes.extend(warning);
        (tokenizer, notes)
    }
}

/// How the source of the chat template begins.
fn beginning(tokenizer: &Tokenizer) -> Note {
    let source = tokenizer.chat_template().source();
    let start: String = source.chars().take(200).collect();
    let start: String = one_line(&start).chars().take(60).collect();
    let checksum = crc32c::crc32c(source.as_bytes());
    Note::Info(format!(
        "  {}, checksum {checksum:08x}, begins {start}",
        counted(source.len(), "byte")
    ))
}

/// A warning if generation does not stop at the end of a turn.
fn warning(end: &TurnEnd, tokenizer: &Tokenizer) -> Option<Note> {
    Some(Note::Warning(match end {
        TurnEnd::Token(id) => {
            let token = tokenizer.id_to_token(*id).unwrap_or_default();
            format!(
                "a turn ends with {} ({id}), which was not an end of sequence: it is added \
                 to eos_token_id in generation_config.json of the trained model, so that generation \
                 stops there",
                one_line(&token)
            )
        }
        TurnEnd::Text(text) => format!(
            "a turn ends with {:?}, which is not one token of the tokenizer, so generation \
             does not stop there; choose another template with --chat-template",
            one_line(text)
        ),
        TurnEnd::Nothing => "the chat template ends a turn without a token, so generation \
             does not stop there; choose another template with --chat-template"
            .to_owned(),
        TurnEnd::EndOfSequence(_) => return None,
    }))
}

/// The tokens that end a sequence.
fn described(tokenizer: &Tokenizer) -> Note {
    match tokenizer.describe_eos() {
        text if text.is_empty() => Note::Warning(
            "neither the tokenizer nor the model names an end of sequence, so the end of a text is not \
             trained, and generation does not stop"
                .to_owned(),
        ),
        text => Note::Info(format!("end of sequence: {}", one_line(&text))),
    }
}

#[cfg(test)]
mod tests {
    use lisa_lm::ChatTemplate;

    use super::*;
    use crate::bundled;
    use crate::model_tokenizer::tests::base;
    use crate::settings::Flags;

    const PAIR: &str = r#"{"prompt": "one two ", "completion": "three"}"#;
    const CHAT: &str = r#"{"instruction": "one", "output": "two"}"#;

    /// The tokenizer after these lines of data, what is printed, and the examples.
    fn prepared(
        tokenizer: Tokenizer,
        pairs: Pairs,
        lines: &[&str],
    ) -> (Tokenizer, Vec<String>, Vec<Example>) {
        let mut input = Flags::default().resolve(None).unwrap().input;
        input.pairs = pairs;
        let mut prepare = Prepare::new(&input, tokenizer);
        let examples = lines.iter().map(|line| {
            let example = Example::from_json(line).unwrap();
            prepare.see(&example).unwrap();
            rendered(example, pairs)
        });
        let examples = examples.collect();
        let (tokenizer, notes) = prepare.finish();
        let printed = notes.into_iter().map(|note| match note {
            Note::Info(text) => text,
            Note::Warning(text) => format!("warning: {text}"),
        });
        (tokenizer, printed.collect(), examples)
    }

    #[test]
    fn pairs_for_a_model_with_a_chat_template_are_warned_about_or_rendered_with_it() {
        let own = || Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        let end = "end of sequence: <|endoftext|> (0, eos_token of the tokenizer)";
        let (_, lines, examples) = prepared(own(), Pairs::Auto, &[PAIR, PAIR]);
        assert_eq!(
            lines,
            [
                "warning: the model has a chat template, and 2 pairs of prompt and completion are \
                 trained as plain text; --pairs chat renders them with the template, and --pairs \
                 text is without this warning",
                end
            ]
        );
        assert!(matches!(examples[0].content, Content::Pair { .. }));
        assert_eq!(prepared(own(), Pairs::Text, &[PAIR]).1, [end]);
        assert!(
            !prepared(base(""), Pairs::Auto, &[PAIR])
                .1
                .concat()
                .contains("warning")
        );

        let (tokenizer, lines, examples) = prepared(own(), Pairs::Chat, &[PAIR]);
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[0], "chat template: tokenizer_config.json");
        let source = tokenizer.chat_template().source();
        let bytes = format!("  {} bytes, checksum ", source.len());
        assert!(lines[1].starts_with(&bytes), "{}", lines[1]);
        assert_eq!(lines[2], end);
        let Content::Chat(chat) = &examples[0].content else {
            panic!("{examples:?}");
        };
        let text = tokenizer.chat_template().render(chat, false).unwrap().text;
        assert_eq!(text, "<|user|> one two\n<|assistant|> three<|endoftext|>");
    }

    #[test]
    fn a_model_without_a_chat_template_uses_plain_and_says_so() {
        let (tokenizer, lines, _) = prepared(base(""), Pairs::Auto, &[PAIR, CHAT]);
        assert!(lines[0].starts_with("chat template: the model has none, and `plain` is used"));
        // config.json alone names the end, and the template writes it.
        assert_eq!(
            lines[2..],
            ["end of sequence: <|endoftext|> (0, config.json)"]
        );
        assert!(tokenizer.chosen_template().is_some());
        let (tokenizer, _, _) = prepared(base(""), Pairs::Auto, &[PAIR]);
        assert!(tokenizer.chosen_template().is_none());
    }

    #[test]
    fn an_empty_list_of_tools_does_not_decide_whether_tools_are_written() {
        let template = "{% if tools %}{{ tools | tojson }}{% endif %}\
                        {% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
        let chat = |tools: &str| {
            format!(
                r#"{{"tools": {tools}, "messages": [{{"role": "user", "content": "a"}},
                {{"role": "assistant", "content": "b"}}]}}"#
            )
        };
        let rows = [chat(r#""[]""#), chat("[]"), chat(r#"[{"name": "f"}]"#)];
        let lines = rows.each_ref().map(String::as_str);
        let special = base("").special_tokens().clone();
        let template = ChatTemplate::new(template, &special).unwrap();
        let printed = prepared(base("").with_chat_template(template), Pairs::Auto, &lines).1;
        let printed = printed.join("\n");
        assert!(!printed.contains("does not write"), "{printed}");
    }

    #[test]
    fn a_generation_prompt_that_no_answer_follows_is_warned_about() {
        let template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{{ eos_token }}{% endfor %}\
                        {% if add_generation_prompt %}[assistant]<think>\n{% endif %}";
        let special = base("").special_tokens().clone();
        let printed = |template: &str| {
            let template = ChatTemplate::new(template, &special).unwrap();
            let tokenizer = base("").with_chat_template(template);
            prepared(tokenizer, Pairs::Auto, &[CHAT]).1.join("\n")
        };
        let text = printed(template);
        let warned = "warning: the generation prompt of the chat template ends with \"<think>\"";
        assert!(text.contains(warned), "{text}");
        let checked = "not write before the last answer of the first chat, so";
        assert!(text.contains(checked), "{text}");
        let help = "; begin the answers with it, or choose another template (--chat-template)";
        assert!(text.contains(help), "{text}");
        // A line break alone is not warned about.
        for end in ["<think>\n", "<think>"] {
            let text = printed(&template.replace(end, ""));
            assert!(!text.contains("generation prompt"), "{text}");
        }
    }

    #[test]
    fn a_turn_that_does_not_end_a_sequence_is_warned_about() {
        let (tokenizer, lines, _) = prepared(base("chatml"), Pairs::Auto, &[CHAT]);
        assert_eq!(tokenizer.eos_ids(), [0, 1025]);
        assert_eq!(lines[0], "chat template: chatml");
        assert_eq!(
            lines[2],
            "end of sequence: <|endoftext|> (0, config.json), <|im_end|> (1025, end of a turn)"
        );
        assert!(lines[3].starts_with("warning: a turn ends with <|im_end|> (1025), which was not"));

        let warned = |template: &str| {
            let template = ChatTemplate::new(template, &std::collections::BTreeMap::new()).unwrap();
            let tokenizer = base("").with_chat_template(template);
            prepared(tokenizer, Pairs::Auto, &[CHAT]).1.pop().unwrap()
        };
        let text = warned("{% for m in messages %}{{ m.content }} ###\n{% endfor %}");
        assert!(text.starts_with("warning: a turn ends with \"###\", which is not one token"));
        let nothing = warned("{% for m in messages %}{{ m.content }}\n{% endfor %}");
        assert!(nothing.starts_with("warning: the chat template ends a turn without a token"));
    }
}
