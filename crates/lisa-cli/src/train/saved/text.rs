//! [`Text`]: what a checkpoint stores of the text side of a run.

use std::collections::BTreeMap;

use anyhow::Result;
use lisa_lm::{ChatTemplate, Tokenizer};
use serde::{Deserialize, Serialize};

/// What a checkpoint stores of the text side of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(crate) struct Text {
    /// The name and the source of a chat template that is not the model's.
    template: Option<(String, String)>,
    /// The time that the template writes as the current one, if it writes a time: that of the run's
    /// start. A checkpoint without it is continued with the time of the resumed run's start.
    time: Option<String>,
    /// The tokens that the model's tokenizer does not have.
    tokens: Vec<String>,
    /// Special tokens by name (`eos_token`, ..) that are not the model's.
    special: BTreeMap<String, String>,
    /// Every id that ends a sequence.
    eos_ids: Vec<u32>,
    /// The rows of the embedding.
    pub(crate) vocab_size: usize,
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
            time: tokenizer.chat_template().time().map(str::to_owned),
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
        let time = self.time.clone().unwrap_or_else(ChatTemplate::now);
        tokenizer = tokenizer.with_template_time(&time)?;
        for id in &self.eos_ids {
            tokenizer.add_eos(*id);
        }
        Ok(tokenizer)
    }
}

#[cfg(test)]
mod tests {
    use lisa_lm::text::{Chat, Example, Message};

    use super::*;
    use crate::bundled;
    use crate::model_tokenizer::tests::base;
    use crate::settings::Flags;
    use crate::train::data::text::Prepare;

    #[test]
    fn a_checkpoint_restores_the_template_and_the_ends() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{{ messages[0].content }}<|im_end|>").unwrap();
        let input = Flags::default().resolve(None).unwrap().input;
        let chat = Example::from_json(r#"{"instruction": "one", "output": "two"}"#).unwrap();
        for template in ["chatml", file.path().to_str().unwrap()] {
            let mut prepare = Prepare::new(&input, base(template));
            prepare.see(&chat).unwrap();
            let (trained, _) = prepare.finish();
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
    fn a_checkpoint_restores_the_time_that_the_template_writes() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{{ strftime_now('%F') }}").unwrap();
        let dated = base(file.path().to_str().unwrap());
        let time = "2020-02-03T04:05:06+01:00[+01:00]";
        let trained = dated.with_template_time(time).unwrap();
        let json = serde_json::to_string(&Text::of(&trained, 1026)).unwrap();
        let text: Text = serde_json::from_str(&json).unwrap();
        let restored = text.restore(base("")).unwrap();
        let chat = Chat::from([Message::user("x")]);
        let text = restored.chat_template().render(&chat, false).unwrap().text;
        assert_eq!(text, "2020-02-03");
        // A checkpoint without the time gets one, and later checkpoints store it.
        let mut json = serde_json::to_value(Text::of(&trained, 1026)).unwrap();
        json.as_object_mut().unwrap().remove("time").unwrap();
        let text: Text = serde_json::from_value(json).unwrap();
        assert_eq!(text.time, None);
        let restored = text.restore(base("")).unwrap();
        assert!(restored.chat_template().time().is_some());
        let again = Text::of(&restored, 1026);
        assert_eq!(again.time.as_deref(), restored.chat_template().time());
        // A template without the time stores none.
        let plain = base("chatml").with_template_time(time).unwrap();
        assert_eq!(Text::of(&plain, 1026).time, None);
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
}
