//! [`prepare`]: how examples become text: prompts as chats, the chat template, the end of a turn.
//! [`Text`]: what of it a checkpoint stores.

use anyhow::Result;
use lisa_lm::text::{Content, Example, TurnEnd, turn_end};
use lisa_lm::{ChatTemplate, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::settings::{InputSettings, Pairs};
use crate::terminal::text::one_line;

/// What a checkpoint stores of the text side of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Text {
    /// The name and the source of a chat template that is not the model's.
    template: Option<(String, String)>,
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
            eos_ids: tokenizer.eos_ids().to_vec(),
            vocab_size,
        }
    }

    /// The tokenizer as the run has it.
    pub(crate) fn restore(&self, mut tokenizer: Tokenizer) -> Result<Tokenizer> {
        if let Some((name, source)) = &self.template {
            // A named template also adds its tokens.
            tokenizer = match ChatTemplate::named(name, tokenizer.special_tokens()) {
                Some(_) => tokenizer.with_named_template(name)?,
                None => tokenizer,
            };
            let template = ChatTemplate::new(source, tokenizer.special_tokens())?;
            tokenizer = tokenizer.with_chat_template(template.with_name(name));
        }
        for id in &self.eos_ids {
            tokenizer.add_eos(*id);
        }
        Ok(tokenizer)
    }
}

/// Applies `--pairs` to the examples, and prepares the tokenizer for their chats. Returns lines for
/// the user.
pub(crate) fn prepare(
    input: &InputSettings,
    mut tokenizer: Tokenizer,
    examples: &mut [&mut Vec<Example>],
) -> Result<(Tokenizer, Vec<String>)> {
    let mut lines = Vec::new();
    let all = || examples.iter().flat_map(|set| set.iter());
    let is_pair = |example: &&Example| matches!(example.content, Content::Pair { .. });
    let pairs = all().filter(is_pair).count();
    if pairs > 0 && input.pairs == Pairs::Auto && tokenizer.has_chat_template() {
        lines.push(format!(
            "warning: the model has a chat template, and {pairs} pairs of prompt and completion are \
             trained as plain text; --pairs chat renders them with the template, and --pairs text \
             is without this warning"
        ));
    }
    if input.pairs == Pairs::Chat {
        for set in examples.iter_mut() {
            **set = std::mem::take(*set)
                .into_iter()
                .map(Example::into_chat)
                .collect();
        }
    }
    let chats = examples.iter().flat_map(|set| set.iter());
    let mut chats = chats.filter_map(|example| match &example.content {
        Content::Chat(chat) => Some(chat),
        _ => None,
    });
    let Some(first) = chats.next() else {
        lines.extend(described(&tokenizer));
        return Ok((tokenizer, lines));
    };
    if tokenizer.has_chat_template() {
        let name = tokenizer.chat_template().name();
        lines.push(format!("chat template: {}", one_line(name)));
    } else {
        tokenizer = tokenizer.with_named_template("plain")?;
        lines.push(
            "chat template: the model has none, and `plain` is used (User: .. Assistant: ..); \
             choose another one with --chat-template chatml, llama3, or a file"
                .to_owned(),
        );
    }
    // A chat that the template refuses is an error with its place when it is encoded.
    let ends = std::iter::once(first).chain(chats);
    let mut ends = ends.filter_map(|chat| turn_end(chat, &tokenizer).transpose());
    let end = ends.next().and_then(Result::ok);
    let warning = match &end {
        Some(TurnEnd::Token(id)) => {
            let token = tokenizer.id_to_token(*id).unwrap_or_default();
            Some(format!(
                "warning: a turn ends with {} ({id}), which was not an end of sequence: it is added \
                 to eos_token_id in generation_config.json of the trained model, so that generation \
                 stops there",
                one_line(&token)
            ))
        }
        Some(TurnEnd::Text(text)) => Some(format!(
            "warning: a turn ends with {:?}, which is not one token of the tokenizer, so generation \
             does not stop there; choose another template with --chat-template",
            one_line(text)
        )),
        Some(TurnEnd::Nothing) => Some(
            "warning: the chat template ends a turn without a token, so generation does not stop \
             there; choose another template with --chat-template"
                .to_owned(),
        ),
        Some(TurnEnd::EndOfSequence(_)) | None => None,
    };
    if let Some(TurnEnd::Token(id)) = end {
        tokenizer.add_eos(id);
    }
    lines.extend(described(&tokenizer));
    lines.extend(warning);
    Ok((tokenizer, lines))
}

/// The tokens that end a sequence.
fn described(tokenizer: &Tokenizer) -> Option<String> {
    Some(match tokenizer.describe_eos() {
        text if text.is_empty() => "warning: neither the tokenizer nor the model names an end of \
             sequence, so the end of a text is not trained, and generation does not stop"
            .to_owned(),
        text => format!("end of sequence: {}", one_line(&text)),
    })
}
