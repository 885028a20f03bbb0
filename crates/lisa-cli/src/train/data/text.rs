//! `Prepare`: how examples become text: prompts as chats, the chat template, the end of a turn.
//! [`Text`]: what of it a checkpoint stores.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Result;
use lisa_lm::text::{Content, Example, TurnEnd, turn_end, unwritten_context};
use lisa_lm::{ChatTemplate, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::settings::{InputSettings, Pairs};
use crate::terminal::text::{counted, one_line};

/// What a checkpoint stores of the text side of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Text {
    /// The name and the source of a chat template that is not the model's.
    template: Option<(String, String)>,
    /// The tokens that the model's tokenizer does not have.
    tokens: Vec<String>,
    /// Special tokens by name (`eos_token`, ..) that are not the model's.
    special: BTreeMap<String, String>,
    /// Every id that ends a sequence.
    eos_ids: Vec<u32>,
    /// The rows of the embedding.
    pub vocab_size: usize,
}

impl Text {
    /// What a run trains with.
    pub(crate) fn of(tokenizer: &Tokenizer, vocab_size: usize) -> Self {
        let template = tokenizer.chosen_template();
        let named = |source: &str| {
            (
                tokenizer.chat_template().name().to_owned(),
                source.to_owned(),
            )
        };
        Self {
            template: template.map(named),
            tokens: tokenizer.added_tokens().to_vec(),
            special: tokenizer.chosen_special_tokens().clone(),
            eos_ids: tokenizer.eos_ids().to_vec(),
            vocab_size,
        }
    }

    /// The tokenizer as the run has it.
    pub(crate) fn restore(&self, mut tokenizer: Tokenizer) -> Result<Tokenizer> {
        tokenizer = tokenizer.with_added_tokens(self.tokens.iter().map(String::as_str))?;
        let special = self.special.iter();
        let special = special.map(|(name, token)| (name.as_str(), token.as_str()));
        tokenizer = tokenizer.with_special_tokens(special)?;
        if let Some((name, source)) = &self.template {
            let template = ChatTemplate::new(source, tokenizer.special_tokens())?;
            tokenizer = tokenizer.with_chat_template(template.with_name(name));
        }
        for id in &self.eos_ids {
            tokenizer.add_eos(*id);
        }
        Ok(tokenizer)
    }
}

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
    pub(crate) has_chats: bool,
    /// How the first chat ends that has an end; `None` if the template refuses that chat.
    end: Option<TurnEnd>,
    /// Whether that chat was seen.
    is_end_seen: bool,
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
        }
        Ok(())
    }

    /// The tokenizer, and lines for the user.
    pub(crate) fn finish(self) -> (Tokenizer, Vec<String>) {
        let mut tokenizer = self.tokenizer;
        let mut lines = Vec::new();
        if self.pairs > 0 && self.how == Pairs::Auto && self.has_template {
            let verb = if self.pairs == 1 { "is" } else { "are" };
            let pairs = counted(self.pairs, "pair");
            lines.push(format!(
                "warning: the model has a chat template, and {pairs} of prompt and completion \
                 {verb} trained as plain text; --pairs chat renders them with the template, and \
                 --pairs text is without this warning"
            ));
        }
        if !self.has_chats {
            lines.push(described(&tokenizer));
            return (tokenizer, lines);
        }
        lines.push(if self.has_template {
            let name = tokenizer.chat_template().name();
            format!("chat template: {}", one_line(name))
        } else {
            "chat template: the model has none, and `plain` is used (User: .. Assistant: ..); \
             choose another one with --chat-template chatml, llama3, or a file"
                .to_owned()
        });
        if !self.unwritten.is_empty() {
            lines.push(format!(
                "warning: the chat template does not write the {} of the data, so the model is trained \
                 without them; another template may write them (--chat-template)",
                self.unwritten.join(", the ")
            ));
        }
        let end = self.end;
        let warning = end.as_ref().and_then(|end| warning(end, &tokenizer));
        if let Some(TurnEnd::Token(id)) = end {
            tokenizer.add_eos(id);
        }
        lines.push(described(&tokenizer));
        lines.extend(warning);
        (tokenizer, lines)
    }
}

/// A warning if generation does not stop at the end of a turn.
fn warning(end: &TurnEnd, tokenizer: &Tokenizer) -> Option<String> {
    Some(match end {
        TurnEnd::Token(id) => {
            let token = tokenizer.id_to_token(*id).unwrap_or_default();
            format!(
                "warning: a turn ends with {} ({id}), which was not an end of sequence: it is added \
                 to eos_token_id in generation_config.json of the trained model, so that generation \
                 stops there",
                one_line(&token)
            )
        }
        TurnEnd::Text(text) => format!(
            "warning: a turn ends with {:?}, which is not one token of the tokenizer, so generation \
             does not stop there; choose another template with --chat-template",
            one_line(text)
        ),
        TurnEnd::Nothing => {
            "warning: the chat template ends a turn without a token, so generation \
             does not stop there; choose another template with --chat-template"
                .to_owned()
        }
        TurnEnd::EndOfSequence(_) => return None,
    })
}

/// The tokens that end a sequence.
fn described(tokenizer: &Tokenizer) -> String {
    match tokenizer.describe_eos() {
        text if text.is_empty() => "warning: neither the tokenizer nor the model names an end of \
             sequence, so the end of a text is not trained, and generation does not stop"
            .to_owned(),
        text => format!("end of sequence: {}", one_line(&text)),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use lisa_lm::text::{Chat, Message};

    use super::*;
    use crate::bundled;
    use crate::model_tokenizer::model_tokenizer;
    use crate::settings::Flags;

    const PAIR: &str = r#"{"prompt": "one two ", "completion": "three"}"#;
    const CHAT: &str = r#"{"instruction": "one", "output": "two"}"#;

    /// The bundled tokenizer without its chat template.
    fn base(template: &str) -> Tokenizer {
        let dir = tempfile::tempdir().unwrap();
        let from = bundled::model().unwrap();
        let copy = |name: &str| std::fs::copy(from.join(name), dir.path().join(name)).unwrap();
        copy("tokenizer.json");
        copy("config.json");
        model_tokenizer(dir.path(), Path::new(""), template).unwrap()
    }

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
        let (tokenizer, lines) = prepare.finish();
        (tokenizer, lines, examples)
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
        assert_eq!(lines, ["chat template: tokenizer_config.json", end]);
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
            lines[1..],
            ["end of sequence: <|endoftext|> (0, config.json)"]
        );
        assert!(tokenizer.chosen_template().is_some());
        let (tokenizer, _, _) = prepared(base(""), Pairs::Auto, &[PAIR]);
        assert!(tokenizer.chosen_template().is_none());
    }

    #[test]
    fn a_turn_that_does_not_end_a_sequence_is_warned_about() {
        let (tokenizer, lines, _) = prepared(base("chatml"), Pairs::Auto, &[CHAT]);
        assert_eq!(tokenizer.eos_ids(), [0, 1025]);
        assert_eq!(lines[0], "chat template: chatml");
        assert_eq!(
            lines[1],
            "end of sequence: <|endoftext|> (0, config.json), <|im_end|> (1025, end of a turn)"
        );
        assert!(lines[2].starts_with("warning: a turn ends with <|im_end|> (1025), which was not"));

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

    #[test]
    fn a_checkpoint_restores_the_template_and_the_ends() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{{ messages[0].content }}<|im_end|>").unwrap();
        for template in ["chatml", file.path().to_str().unwrap()] {
            let (trained, _, _) = prepared(base(template), Pairs::Auto, &[CHAT]);
            let text = Text::of(&trained, 1026);
            let json = serde_json::to_string(&text).unwrap();
            let text: Text = serde_json::from_str(&json).unwrap();
            let restored = text.restore(base("")).unwrap();
            assert_eq!(restored.eos_ids(), trained.eos_ids());
            assert_eq!(restored.id_count(), trained.id_count());
            assert_eq!(restored.chat_template().name(), template);
            assert_eq!(
                restored.changed_files().unwrap(),
                trained.changed_files().unwrap()
            );
        }
        let plain = Text::default().restore(base("")).unwrap();
        assert_eq!(
            plain.changed_files().unwrap(),
            base("").changed_files().unwrap()
        );
    }

    #[test]
    fn a_checkpoint_restores_the_special_tokens_of_an_adapter() {
        let adapter = tempfile::tempdir().unwrap();
        let from = bundled::model().unwrap();
        let vocabulary = "tokenizer.json";
        std::fs::copy(from.join(vocabulary), adapter.path().join(vocabulary)).unwrap();
        let config = r#"{"eos_token": "<|im_end|>", "pad_token": "<pad>",
            "chat_template": "{{ messages[0].content }}{{ eos_token }}"}"#;
        std::fs::write(adapter.path().join("tokenizer_config.json"), config).unwrap();
        let own = Tokenizer::from_dir(adapter.path()).unwrap();

        let trained = base("").with_changes_of(&own).unwrap();
        let text = Text::of(&trained, 1026);
        let json = serde_json::to_string(&text).unwrap();
        let text: Text = serde_json::from_str(&json).unwrap();
        let restored = text.restore(base("")).unwrap();
        for tokenizer in [&trained, &restored] {
            let end = tokenizer.token_to_id("<|im_end|>").unwrap();
            assert_eq!(tokenizer.eos_ids(), [end, 0]);
            assert_eq!(tokenizer.token_to_id("<pad>"), Some(tokenizer.pad_id()));
            let chat = Chat::from([Message::user("x")]);
            let text = tokenizer.chat_template().render(&chat, false).unwrap().text;
            assert_eq!(text, "x<|im_end|>");
        }
        assert_eq!(restored.special_tokens(), trained.special_tokens());
        assert_eq!(
            restored.changed_files().unwrap(),
            trained.changed_files().unwrap()
        );
    }

    #[test]
    fn an_unknown_template_is_refused_with_the_names() {
        let error =
            model_tokenizer(&bundled::model().unwrap(), Path::new(""), "alpaca").unwrap_err();
        let text = crate::terminal::report::report(&error);
        let text = anstream::adapter::strip_str(&text).to_string();
        assert!(
            text.contains("cannot use `--chat-template alpaca`"),
            "{text}"
        );
        assert!(text.contains("give one of chatml, llama3, plain"), "{text}");
    }
}
