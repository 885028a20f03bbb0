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

/// The special tokens: strings, or objects with the string under `content`.
pub(super) fn special_tokens(config: &Value) -> BTreeMap<String, String> {
    NAMES
        .iter()
        .filter_map(|name| {
            let value = &config[*name];
            let token = value.as_str().or_else(|| value["content"].as_str())?;
            Some(((*name).to_owned(), token.to_owned()))
        })
        .collect()
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
