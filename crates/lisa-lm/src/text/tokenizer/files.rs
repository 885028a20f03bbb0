//! `tokenizer.json` and the small files next to it: special tokens and end-of-sequence ids.
//! Versions 4 and 5 of transformers write them in different forms.

use std::collections::BTreeMap;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::files::{CONFIG_BYTES, read_text, shown};

/// The names of special tokens in these files and in chat templates.
pub(super) const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

pub(super) fn unreadable(path: &Path, error: io::Error) -> Error {
    Error::new(ErrorKind::Io, format!("this file cannot be read: {error}"))
        .with_place(path, None)
        .with_source(error)
}

/// The JSON in a file of the folder; null if the file does not exist.
pub(super) fn read_json(dir: &Path, name: &str) -> Result<Value, Error> {
    let path = dir.join(name);
    let text = read_text(dir, name, CONFIG_BYTES).map_err(|e| unreadable(&path, e))?;
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|e| {
        Error::new(ErrorKind::Tokenizer, format!("this is not JSON: {e}"))
            .with_place(path, Some(e.line()))
            .with_help("fetch the file again")
            .with_source(e)
    })
}

/// The special tokens with a name: those of [`NAMES`], then those of the model's own, as in
/// transformers: other keys that end in `_token`, and `extra_special_tokens`, if it is an object.
/// Without these, the entries of `model_specific_special_tokens`. A later one replaces an earlier
/// one of the same name.
pub(super) fn named(config: &Value) -> Vec<(&str, &Value)> {
    let extra = &config[further_key(config)];
    let keys = entries(config).filter(|(key, _)| key.ends_with("_token"));
    let own = keys.filter(|(key, _)| !NAMES.contains(&&key[..]));
    let mut own: Vec<(&str, &Value)> = (own.chain(entries(extra)))
        .filter(|(_, token)| text(token).is_some())
        .map(|(key, token)| (&key[..], token))
        .collect();
    if own.is_empty() {
        let explicit = entries(&config["model_specific_special_tokens"]);
        own.extend(explicit.map(|(key, token)| (&key[..], token)));
    }
    let mut all: Vec<(&str, &Value)> = NAMES.iter().map(|name| (*name, &config[*name])).collect();
    for (name, token) in own {
        match all.iter_mut().find(|(known, _)| *known == name) {
            Some(known) => known.1 = token,
            None => all.push((name, token)),
        }
    }
    all.retain(|(_, token)| text(token).is_some());
    all
}

/// The entries of an object; none of another value.
fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}

/// The key of the special tokens besides those with a name of [`NAMES`].
pub(super) fn further_key(config: &Value) -> &'static str {
    let is_empty = match &config["extra_special_tokens"] {
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => true,
    };
    if is_empty {
        "additional_special_tokens"
    } else {
        "extra_special_tokens"
    }
}

/// The special tokens with a name, as texts.
pub(super) fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    let named = named(config).into_iter();
    named
        .filter_map(|(name, token)| Some((name.to_owned(), text(token)?.to_owned())))
        .collect()
}

/// The text of a token: a string, or an object with the string under `content`.
fn text(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// The ids under `eos_token_id`: one id, or a list of ids. Negative ids, which no token has, are
/// left out.
pub(super) fn eos_of(config: &Value, path: &Path) -> Result<Vec<u32>, Error> {
    let value = &config["eos_token_id"];
    let ids: Option<Vec<i64>> = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(Value::as_i64).collect(),
        one => one.as_i64().map(|id| vec![id]),
    };
    let ids = ids.ok_or_else(|| {
        Error::new(
            ErrorKind::Tokenizer,
            format!("eos_token_id is {}", shown(value)),
        )
        .with_place(path, None)
        .with_help("give an id or a list of ids")
    })?;
    Ok(ids
        .into_iter()
        .filter_map(|id| u32::try_from(id).ok())
        .collect())
}

/// A tokenizer from the text of a `tokenizer.json`. `path` is for the error.
pub(super) fn parse(bytes: &[u8], path: &Path) -> Result<tokenizers::Tokenizer, Error> {
    caught(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(|e| {
        Error::new(
            ErrorKind::Tokenizer,
            format!("this is not a tokenizer: {e}"),
        )
        .with_place(path, None)
        .with_help("fetch the file again")
    })
}

/// Runs the tokenizer and converts a panic to an error. Its crate panics on some files and some
/// texts.
pub(super) fn caught<T>(run: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|e| e.to_string()),
        Err(_) => Err("the tokenizer panicked".to_owned()),
    }
}

/// The error if a folder has no `tokenizer.json` and nothing else that is read.
pub(super) fn missing(dir: &Path) -> Error {
    let error = |message: &str| {
        Error::new(ErrorKind::Tokenizer, message).with_place(dir.join("tokenizer.json"), None)
    };
    let models = [
        "tokenizer.model",
        "spiece.model",
        "tekken.json",
        "tiktoken.model",
    ];
    match models.into_iter().find(|name| dir.join(name).exists()) {
        Some(model) => error(&format!("this file is missing, and {model} is not read"))
            .with_help(conversion(dir)),
        None => error("this file is missing").with_help(
            "a checkpoint's folder needs it, or vocab.json and merges.txt of a GPT-2 or Qwen2 \
             tokenizer",
        ),
    }
}

/// The command that writes a `tokenizer.json` into a folder.
pub(super) fn conversion(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "convert it: python -c \"from transformers import AutoTokenizer as A; \
         A.from_pretrained('{dir}').save_pretrained('{dir}')\" (needs transformers, sentencepiece \
         and protobuf)"
    )
}
