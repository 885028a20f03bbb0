//! [`rows`]: checks the tokens of the data against the model's vocabulary, before training.

use std::collections::BTreeSet;

use anyhow::Result;
use lisa_lm::text::{
    Content, Encoded, EncodedSet, Example, Message, check_vocabulary, encode_prompt,
};
use lisa_lm::{Checkpoint, Tokenizer};

use crate::settings::{Method, Settings};
use crate::user_error::UserError;

/// The rows that the embedding must have: those of the model, or with `--resize-embeddings` at least
/// one for each token of the tokenizer. Returns an error if a token of the data has none.
pub(crate) fn rows(
    settings: &Settings,
    tokenizer: &Tokenizer,
    checkpoint: &Checkpoint,
    sets: &[(&EncodedSet, &[Example])],
    lines: &mut Vec<String>,
) -> Result<usize> {
    let rows = checkpoint.config().vocab_size();
    let needed = tokenizer.id_count();
    let resized = if settings.input.resize_embeddings {
        rows.max(needed)
    } else {
        rows
    };
    for (set, examples) in sets {
        check_vocabulary(set, examples, tokenizer, resized)
            .and_then(|()| {
                let prompts = prompts(examples, tokenizer);
                check_vocabulary(&prompts, examples, tokenizer, resized)
            })
            .map_err(|error| {
                UserError::new("a token has no row in the model's embedding")
                    .with_help(
                        "to add rows for all tokens of the tokenizer, each the mean of the other \
                         rows, add --resize-embeddings",
                    )
                    .with_source(error)
            })?;
    }
    if settings.input.resize_embeddings {
        let frozen = match settings.method.method {
            Method::Lora => ", which LoRA does not train",
            _ => "",
        };
        lines.push(match resized - rows {
            0 => format!("embeddings: all {needed} tokens have one of the {rows} rows already"),
            _ => format!(
                "embeddings: {rows} -> {resized} rows; a new row is the mean of the old ones{frozen}"
            ),
        });
    }
    Ok(resized)
}

/// The prompts that answers are generated from: in a chat they end as no row does. Of those that the
/// template ends in the same way, the first.
fn prompts(examples: &[Example], tokenizer: &Tokenizer) -> EncodedSet {
    let mut set = EncodedSet::default();
    let mut ends = BTreeSet::new();
    for (index, example) in examples.iter().enumerate() {
        // An example that is refused was left out, or there would be no rows.
        let Some(end) = prompt_end(example, tokenizer) else {
            continue;
        };
        if ends.insert(end)
            && let Ok(Some(ids)) = encode_prompt(example, tokenizer)
        {
            set.examples.push(Encoded::all_trained(ids));
            set.sources.push(index);
        }
    }
    set
}

/// What the template writes after the last message of the prompt. `None` if the example is no chat,
/// or is refused.
fn prompt_end(example: &Example, tokenizer: &Tokenizer) -> Option<String> {
    let Content::Chat(chat) = &example.content else {
        return None;
    };
    let before = chat.before(chat.messages.len().checked_sub(1)?);
    let prompt = tokenizer.chat_template().render(&before, true).ok()?.text;
    let last = before.messages.last().and_then(Message::content);
    let last = last.unwrap_or_default().trim();
    let end = prompt.rfind(last).filter(|_| !last.is_empty());
    Some(prompt[end.map_or(0, |at| at + last.len())..].to_owned())
}

#[cfg(test)]
mod tests {
    use lisa_lm::ChatTemplate;

    use super::*;
    use crate::bundled;

    #[test]
    fn every_end_of_a_prompt_is_checked_once() {
        let tokenizer = Tokenizer::from_dir(bundled::model().unwrap()).unwrap();
        // A chat may ask for another end of the prompt.
        let template = "{% for m in messages %}{{ m.content }};{% endfor %}\
                        {% if add_generation_prompt %}{{ end or '>' }}{% endif %}";
        let template = ChatTemplate::new(template, tokenizer.special_tokens()).unwrap();
        let tokenizer = tokenizer.with_chat_template(template);
        let row = |end: &str, question: &str| {
            let row = format!(
                r#"{{"messages": [{{"role": "user", "content": "{question}"}},
                {{"role": "assistant", "content": "b"}}], "chat_template_kwargs": {{"end": "{end}"}}}}"#
            );
            Example::from_json(&row).unwrap()
        };
        let examples = [
            row("", "one"),
            row("", "two"),
            row("<|user|>", "three"),
            row("<|user|>", "four"),
            Example::from_json(r#"{"text": "five"}"#).unwrap(),
        ];
        let set = prompts(&examples, &tokenizer);
        assert_eq!(set.sources, [0, 2]);
        let user = tokenizer.token_to_id("<|user|>").unwrap();
        assert_eq!(set.examples[1].ids.last(), Some(&user));
    }
}
