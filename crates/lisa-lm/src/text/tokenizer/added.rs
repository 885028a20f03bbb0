//! Tokens that a folder names outside `tokenizer.json`: in `added_tokens_decoder` of
//! `tokenizer_config.json`, in `added_tokens.json`, and as special tokens.

use std::path::Path;

use serde_json::{Value, json};
use tokenizers::AddedToken;

use super::files::{self, caught, further_key};
use crate::error::{Error, ErrorKind};
use crate::files::shown;

/// Adds the tokens that the tokenizer does not have, in the order of transformers: by id, then the
/// named special tokens, then the further ones. A token that is not in the vocabulary gets the next
/// free id. `own` is `tokenizer_config.json`, `config` the same with `special_tokens_map.json` merged
/// into it, and `old` is `added_tokens.json`.
pub(super) fn add(
    inner: &mut tokenizers::Tokenizer,
    dir: &Path,
    own: &Value,
    config: &Value,
    old: &Value,
) -> Result<(), Error> {
    let mut stated = if config["added_tokens_decoder"].is_null() {
        let special = named(config).into_iter().chain(further(own));
        let special: Vec<String> = special.map(|token| token.content).collect();
        legacy(inner, dir, old, &special)?
    } else {
        decoder(dir, &config["added_tokens_decoder"])?
    };
    stated.sort_by_key(|(id, _)| *id);
    let ids: Vec<(u32, String)> = (stated.iter())
        .map(|(id, token)| (*id, token.content.clone()))
        .collect();
    let mut tokens: Vec<AddedToken> = stated.into_iter().map(|(_, token)| token).collect();
    let (named, further) = (named(config), further(config));
    for token in &mut tokens {
        token.special |= named.iter().any(|named| named.content == token.content);
    }
    for token in named.into_iter().chain(further) {
        let is_known = tokens.iter().any(|known| known.content == token.content);
        if !is_known && !is_added(inner, &token.content) {
            tokens.push(token);
        }
    }
    extend(inner, &tokens)?;
    for (stated, token) in ids {
        let id = inner.token_to_id(&token);
        if id != Some(stated) {
            let got = id.map_or_else(|| "no id".to_owned(), |id| id.to_string());
            log::warn!(
                "the added token {:?} is stated to have id {stated}, and has {got}, as in transformers",
                shown(&token)
            );
        }
    }
    Ok(())
}

/// Adds these tokens.
pub(super) fn extend(
    inner: &mut tokenizers::Tokenizer,
    tokens: &[AddedToken],
) -> Result<(), Error> {
    // A normalizer may panic on them.
    let added = caught(|| {
        inner.add_tokens(tokens);
        Ok(())
    });
    added.map_err(|e| {
        let message = format!(
            "{} tokens cannot be added to the tokenizer: {e}",
            tokens.len()
        );
        Error::new(ErrorKind::Tokenizer, message)
    })
}

/// The id that the next token gets that is not in the vocabulary yet.
pub(super) fn next_id(inner: &tokenizers::Tokenizer) -> u32 {
    let size = u32::try_from(inner.get_vocab_size(false)).unwrap_or(u32::MAX);
    let added = inner.get_added_vocabulary().get_added_tokens_decoder();
    let largest = added.keys().max().copied();
    let largest = largest.filter(|largest| *largest >= size || size == 0);
    largest.map_or(size, |largest| largest.saturating_add(1))
}

/// Whether this is an added token, which a text is split at before anything else.
pub(super) fn is_added(inner: &tokenizers::Tokenizer, token: &str) -> bool {
    inner.get_added_vocabulary().get_vocab().contains_key(token)
}

/// `added_tokens_decoder`: an object of ids and tokens with their options.
fn decoder(dir: &Path, value: &Value) -> Result<Vec<(u32, AddedToken)>, Error> {
    let refuse = |what: &str| {
        Error::new(ErrorKind::Tokenizer, format!("added_tokens_decoder {what}"))
            .with_place(dir.join("tokenizer_config.json"), None)
            .with_help("give an object of ids and tokens, each with its `content`")
    };
    let map = value
        .as_object()
        .ok_or_else(|| refuse("is not an object"))?;
    (map.iter())
        .map(|(id, token)| {
            let number = id.parse().ok();
            let number = number.ok_or_else(|| refuse(&format!("has the id {:?}", shown(id))))?;
            let token = added_token(token)
                .ok_or_else(|| refuse(&format!("has no token with a `content` for {number}")))?;
            Ok((number, token))
        })
        .collect()
}

/// `added_tokens.json`, which old versions of transformers wrote: an object of tokens and ids, of
/// which these are special. As in transformers, a token has the options that `tokenizer.json` has for
/// it.
fn legacy(
    inner: &tokenizers::Tokenizer,
    dir: &Path,
    value: &Value,
    special: &[String],
) -> Result<Vec<(u32, AddedToken)>, Error> {
    let refuse = |what: String| {
        Error::new(ErrorKind::Tokenizer, what)
            .with_place(dir.join("added_tokens.json"), None)
            .with_help("give an object of tokens and ids")
    };
    let known = inner.get_added_vocabulary().get_added_tokens_decoder();
    let map = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(map) => map,
        _ => return Err(refuse("this is not an object".to_owned())),
    };
    (map.iter())
        .map(|(token, id)| {
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            let number = number
                .ok_or_else(|| refuse(format!("{:?} has the id {}", shown(token), shown(id))))?;
            let known = known.get(&number).filter(|known| known.content == *token);
            let new = || AddedToken::from(token.as_str(), special.contains(token));
            Ok((number, known.cloned().unwrap_or_else(new)))
        })
        .collect()
}

/// The special tokens with a name.
fn named(config: &Value) -> Vec<AddedToken> {
    let all = files::named(config).into_iter();
    all.filter_map(|(_, token)| special_token(token)).collect()
}

/// The list of special tokens without a name. A list next to an object of tokens counts, too.
fn further(config: &Value) -> Vec<AddedToken> {
    let lists = [further_key(config), "additional_special_tokens"];
    let list = lists.iter().find_map(|key| config[*key].as_array());
    let tokens = list.into_iter().flatten();
    tokens.filter_map(special_token).collect()
}

/// A special token: its text, or an object with its options.
fn special_token(value: &Value) -> Option<AddedToken> {
    match value {
        Value::String(text) => Some(AddedToken::from(text.as_str(), true)),
        _ => Some(added_token(value)?.special(true)),
    }
}

/// A token with its options, which are false if they are absent; `normalized` is true unless the
/// token is special.
fn added_token(value: &Value) -> Option<AddedToken> {
    let content = value["content"].as_str()?;
    let flag = |name: &str| value[name].as_bool();
    let token = AddedToken::from(content, flag("special").unwrap_or(false))
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false));
    Some(match flag("normalized") {
        Some(normalized) => token.normalized(normalized),
        None => token,
    })
}

/// A special token as it is written in `added_tokens_decoder`.
pub(super) fn described(token: &str) -> Value {
    json!({
        "content": token, "lstrip": false, "normalized": false, "rstrip": false,
        "single_word": false, "special": true,
    })
}
