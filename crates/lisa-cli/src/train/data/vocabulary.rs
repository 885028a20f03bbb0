//! [`rows`]: checks the tokens of the data against the model's vocabulary, before training.

use anyhow::Result;
use lisa_lm::text::check_vocabulary;
use lisa_lm::{Checkpoint, Tokenizer};

use super::note::Note;
use super::part::Cut;
use crate::settings::{Method, Settings};
use crate::terminal::output::warn;
use crate::terminal::text::counted;
use crate::user_error::{UserError, require};

/// The rows that the embedding must have: those of the model, or with `--resize-embeddings` at least
/// one for each token of the tokenizer. Returns an error if a token of the data has none.
pub(crate) fn rows(
    settings: &Settings,
    tokenizer: &Tokenizer,
    checkpoint: &Checkpoint,
    parts: &[&Cut],
    notes: &mut Vec<Note>,
) -> Result<usize> {
    let rows = checkpoint.config().vocab_size();
    let needed = tokenizer.id_count();
    let resized = if settings.input.resize_embeddings {
        rows.max(needed)
    } else {
        rows
    };
    for part in parts {
        let ids = outside(part, resized)?;
        let prompt = || part.prompts.largest().cloned();
        let (index, ids) = ids.or_else(prompt).unwrap_or_default();
        check_vocabulary(&ids, tokenizer, resized).map_err(|error| {
            let error = match part.places.get(index) {
                Some(place) => error.at(&place),
                None => error,
            };
            let refused = UserError::new("a token has no row in the model's embedding");
            match help_of_other(needed, rows) {
                Some(help) => refused.with_source(error.with_help(help)),
                None => refused
                    .with_help(
                        "to add rows for all tokens of the tokenizer, each the mean of the other rows, \
                         add --resize-embeddings",
                    )
                    .with_source(error),
            }
        })?;
    }
    if 2 * needed < rows {
        notes.push(Note::Warning(format!(
            "the tokenizer has {}, and the model's embedding has {rows} rows: the tokenizer may be of \
             another model",
            counted(needed, "token")
        )));
    }
    if settings.method.method == Method::Lora && resized > rows {
        require!(
            !settings.method.no_merge,
            "leave --no-merge out: only a merged model can have the new rows; or give --method lisa",
            "--resize-embeddings adds {} to the embedding, and --no-merge would lose them: LoRA's \
             adapter does not have them",
            counted(resized - rows, "row")
        );
        warn(
            "only the merged model in `model` has the new rows of the embedding, which LoRA does not \
             train: use it instead of the adapter on its base model; to train the rows, give --method \
             lisa",
        );
    }
    if settings.input.resize_embeddings {
        let frozen = match settings.method.method {
            Method::Lora => ", which LoRA does not train",
            _ => "",
        };
        notes.push(Note::Info(match resized - rows {
            0 => format!("embeddings: all {needed} tokens have one of the {rows} rows already"),
            _ => format!(
                "embeddings: {rows} -> {resized} rows; a new row is the mean of the old ones{frozen}"
            ),
        }));
    }
    Ok(resized)
}

/// The help if a tokenizer that needs this many rows is so large that it must be of another model: new rows
/// for most of its tokens would be of no use.
fn help_of_other(needed: usize, rows: usize) -> Option<String> {
    (needed > rows + rows / 4).then(|| {
        format!(
            "use the tokenizer of this model: this one has {needed} tokens, and the embedding has {rows} \
             rows; only if the others are new tokens, add --resize-embeddings, which gives each of them the \
             mean of the rows"
        )
    })
}

/// The first row that has an id without a row in the embedding: its example and its ids.
fn outside(part: &Cut, size: usize) -> Result<Option<(usize, Vec<u32>)>> {
    let rows = &part.set.examples;
    if rows.is_within(size) {
        return Ok(None);
    }
    for (row, source) in rows.iter().zip(&part.set.sources) {
        let ids = row?.ids;
        if ids.iter().any(|id| *id as usize >= size) {
            return Ok(Some((*source, ids)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tokenizer_of_another_model_is_not_to_be_given_rows() {
        let help = help_of_other(50_257, 1024).unwrap();
        assert!(help.starts_with("use the tokenizer of this model: this one has 50257 tokens"));
        assert!(help.contains("add --resize-embeddings"));
        assert_eq!(help_of_other(1026, 1024), None);
    }
}
