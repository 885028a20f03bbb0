//! The small files next to `tokenizer.json`: special tokens, end-of-sequence ids, chat template.
//! Versions 4 and 5 of transformers write them in different forms.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, ErrorKind};
use crate::files::{CONFIG_BYTES, TEMPLATE_BYTES, read_text, shown};

/// The names of special tokens in these files and in chat templates.
const NAMES: [&str; 7] = [
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

/// The end-of-sequence ids: one id, or a list of ids.
pub(super) fn eos_of(config: &Value, path: &Path) -> Result<Vec<u32>, Error> {
    let value = &config["eos_token_id"];
    let id = |value: &Value| u32::try_from(value.as_u64()?).ok();
    let ids: Option<Vec<u32>> = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|id| vec![id]),
    };
    ids.ok_or_else(|| {
        Error::new(
            ErrorKind::Tokenizer,
            format!("eos_token_id is {}", shown(value)),
        )
        .with_place(path, None)
        .with_help("give an id or a list of ids")
    })
}

/// The source of the chat template; `None` if the folder has no template.
pub(super) fn template_source(dir: &Path, config: &Value) -> Result<Option<String>, Error> {
    let name = "chat_template.jinja";
    let text = read_text(dir, name, TEMPLATE_BYTES).map_err(|e| unreadable(&dir.join(name), e))?;
    if text.is_some() {
        return Ok(text);
    }
    let found = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::String(source) => Some(source.as_str()),
        Value::Array(named) => {
            let default = named.iter().find(|entry| entry["name"] == "default");
            default
                .or(named.first())
                .and_then(|entry| entry["template"].as_str())
        }
        _ => None,
    };
    found.map(|source| Some(source.to_owned())).ok_or_else(|| {
        let message = "chat_template is neither a string nor a list of named templates";
        Error::new(ErrorKind::Tokenizer, message)
            .with_place(dir.join("tokenizer_config.json"), None)
    })
}
