//! Checks token ids against the size of a model's vocabulary.
//!
//! An id without a row in the embedding is a panic on some devices, and on others a read of other
//! memory. So ids are checked before they become tensors.

use crate::error::{Error, ErrorKind};
use crate::text::data::Example;
use crate::text::encoded::EncodedSet;
use crate::text::tokenizer::Tokenizer;

/// Checks that every token of encoded examples is in a model's vocabulary of `size` tokens. Visits
/// every token. The token to pad with is not checked: [`Batches`](crate::text::Batches) pads with
/// another one if it has no row.
///
/// # Errors
///
/// The first token that is not: the error has its text and id, and the place of its example.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::{EncodeOptions, Example, check_vocabulary, encode_examples};
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let examples = [Example::from_json(r#"{"text": "hello"}"#)?];
/// let set = encode_examples(&examples, &tokenizer, EncodeOptions::default())?;
/// assert_eq!(set.examples[0].ids, [273, 78, 350]);
/// check_vocabulary(&set, &examples, &tokenizer, 351)?;
/// let error = check_vocabulary(&set, &examples, &tokenizer, 350).unwrap_err();
/// assert!(error.message().contains(r#"token "lo" has the id 350"#));
/// # Ok::<(), Box<dyn std::error::Error + Send + Sync>>(())
/// ```
pub fn check_vocabulary(
    set: &EncodedSet,
    examples: &[Example],
    tokenizer: &Tokenizer,
    size: usize,
) -> Result<(), Error> {
    let named = |id: u32| {
        let token = tokenizer.id_to_token(id);
        token.map_or_else(
            || "a token".to_owned(),
            |token| format!("the token {token:?}"),
        )
    };
    for (row, source) in set.examples.iter().zip(&set.sources) {
        if let Some(id) = first_outside(&row.ids, size) {
            let error = outside(&named(id), id, size);
            let place = examples
                .get(*source)
                .and_then(|example| example.place.as_ref());
            return Err(match place {
                Some(place) => error.at(place),
                None => error.within(&format!("example {}", source + 1)),
            });
        }
    }
    Ok(())
}

/// Returns an error that names the first id that is not below `size`.
pub(super) fn within_vocabulary(ids: &[u32], size: usize) -> Result<(), Error> {
    match first_outside(ids, size) {
        Some(id) => Err(outside("a token", id, size)),
        None => Ok(()),
    }
}

fn first_outside(ids: &[u32], size: usize) -> Option<u32> {
    ids.iter().copied().find(|id| *id as usize >= size)
}

fn outside(token: &str, id: u32, size: usize) -> Error {
    let message = format!(
        "{token} has the id {id}, and the model's vocabulary has {size} tokens (ids below {size})"
    );
    let rows = id as usize + 1;
    Error::new(ErrorKind::Data, message).with_help(format!(
        "use the tokenizer of this model, or resize the model's embeddings to at least {rows} rows"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::place::Place;
    use crate::test_support::{TOKENIZER, folder};
    use crate::text::{EncodeOptions, encode_examples};

    fn tokenizer(config: &str) -> Tokenizer {
        let files = [
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", config),
        ];
        Tokenizer::from_dir(folder(&files).path()).unwrap()
    }

    fn found(tokenizer: &Tokenizer, texts: &[&str], size: usize) -> Result<(), Error> {
        let examples: Vec<Example> = (texts.iter().enumerate())
            .map(|(index, text)| {
                let line = serde_json::json!({"text": text}).to_string();
                let mut example = Example::from_json(&line).unwrap();
                example.place = Some(Place::at_line(std::path::Path::new("a.jsonl"), index + 5));
                example
            })
            .collect();
        let set = encode_examples(&examples, tokenizer, EncodeOptions::default()).unwrap();
        check_vocabulary(&set, &examples, tokenizer, size)
    }

    #[test]
    fn a_token_outside_is_named_with_its_id_the_size_and_its_place() {
        let config = r#"{"eos_token": "<|endoftext|>", "pad_token": "<|user|>",
            "added_tokens_decoder": {"768": {"content": "<tool>"}}}"#;
        let tokenizer = tokenizer(config);
        found(&tokenizer, &["hello", "a <tool>"], 769).unwrap();
        let error = found(&tokenizer, &["hello", "a <tool>"], 768).unwrap_err();
        assert_eq!(
            error.to_string(),
            "data: a.jsonl:6: the token \"<tool>\" has the id 768, and the model's vocabulary has \
             768 tokens (ids below 768); use the tokenizer of this model, or resize the model's \
             embeddings to at least 769 rows"
        );
    }

    #[test]
    fn the_end_that_is_appended_counts_too_and_the_padding_does_not() {
        let end = tokenizer(r#"{"eos_token": "<end>", "pad_token": "<|user|>"}"#);
        let error = found(&end, &["hello"], 768).unwrap_err();
        assert_eq!(error.place().unwrap().1, Some(5));
        assert!(
            error
                .message()
                .starts_with("the token \"<end>\" has the id 768")
        );

        let pad = tokenizer(r#"{"eos_token": "<|endoftext|>", "pad_token": "[PAD]"}"#);
        assert_eq!(pad.pad_id(), 768);
        found(&pad, &["hello"], 768).unwrap();
    }
}
