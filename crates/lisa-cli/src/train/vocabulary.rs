//! [`rows`]: checks the tokens of the data against the model's vocabulary, before training.

use anyhow::Result;
use lisa_lm::text::{Content, Encoded, EncodedSet, Example, check_vocabulary, encode_prompt};
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
                check_vocabulary(&prompt(examples, tokenizer), examples, tokenizer, resized)
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

/// The first prompt that an answer is generated from. In a chat it ends as no row does.
fn prompt(examples: &[Example], tokenizer: &Tokenizer) -> EncodedSet {
    let chats = examples.iter().enumerate();
    let chats = chats.filter(|(_, example)| matches!(example.content, Content::Chat(_)));
    // An example that is refused was left out, or there would be no rows.
    let mut prompts = chats.filter_map(|(index, example)| {
        let ids = encode_prompt(example, tokenizer).ok()??;
        Some((index, ids))
    });
    let mut set = EncodedSet::default();
    if let Some((index, ids)) = prompts.next() {
        set.examples.push(Encoded::all_trained(ids));
        set.sources.push(index);
    }
    set
}
