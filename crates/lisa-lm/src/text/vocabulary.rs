//! Checks token ids against the size of a model's vocabulary.
//!
//! An id without a row in the embedding is a panic on some devices, and on others a read of other
//! memory. So ids are checked before they become tensors.

use crate::error::{Error, ErrorKind};
use crate::text::tokenizer::Tokenizer;

/// Checks that every token id is in a model's vocabulary of `size` tokens.
/// [`Batches`](crate::text::Batches) also checks the ids of its rows; its error has no text of the
/// token.
///
/// # Errors
///
/// An id is not in the vocabulary: the error has the id and the text of the first such token.
///
/// # Example
///
/// ```
/// use lisa_lm::Tokenizer;
/// use lisa_lm::text::check_vocabulary;
///
/// let tokenizer = Tokenizer::from_dir("../../tests/fixtures/tokenizer")?;
/// let ids = tokenizer.encode("hello")?;
/// assert_eq!(ids, [273, 78, 350]);
/// check_vocabulary(&ids, &tokenizer, 351)?;
/// let error = check_vocabulary(&ids, &tokenizer, 350).unwrap_err();
/// assert!(error.message().contains(r#"token "lo" has the id 350"#));
/// # Ok::<(), lisa_lm::Error>(())
/// ```
pub fn check_vocabulary(ids: &[u32], tokenizer: &Tokenizer, size: usize) -> Result<(), Error> {
    let Some(id) = first_outside(ids, size) else {
        return Ok(());
    };
    let named = match tokenizer.id_to_token(id) {
        Some(token) => format!("the token {token:?}"),
        None => "a token".to_owned(),
    };
    Err(outside(&named, id, size))
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
    use crate::test_support::{TOKENIZER, folder};

    #[test]
    fn a_token_outside_is_named_with_its_id_and_the_size() {
        let config = r#"{"added_tokens_decoder": {"768": {"content": "<tool>"}}}"#;
        let folder = folder(&[
            ("tokenizer.json", TOKENIZER),
            ("tokenizer_config.json", config),
        ]);
        let tokenizer = Tokenizer::from_dir(folder.path()).unwrap();
        let check = |ids: &[u32], size| check_vocabulary(ids, &tokenizer, size);
        check(&[], 0).unwrap();
        check(&[273, 768], 769).unwrap();
        assert_eq!(
            check(&[273, 768], 768).unwrap_err().to_string(),
            "data: the token \"<tool>\" has the id 768, and the model's vocabulary has 768 tokens \
             (ids below 768); use the tokenizer of this model, or resize the model's embeddings to \
             at least 769 rows"
        );
        let error = check(&[1000], 768).unwrap_err();
        assert!(
            error.message().starts_with("a token has the id 1000"),
            "{error}"
        );
    }
}
