//! The small files beside `tokenizer.json`: special tokens, ends of sequence, chat template.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, ErrorKind};
use serde_json::Value;

use crate::files::{CONFIG_BYTES, TEMPLATE_BYTES, read_text, shown};

/// The names under which special tokens are stored, and passed to chat templates.
const NAMES: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

pub(super) fn unreadable(path: &Path, error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Io,
        format!("{} cannot be read: {error}", path.display()),
    )
    .with_source(error)
}

/// The JSON in a file of the folder that may be missing (then null).
pub(super) fn read_json(dir: &Path, name: &str) -> Result<Value, Error> {
    let path = dir.join(name);
    let text = read_text(dir, name, CONFIG_BYTES).map_err(|e| unreadable(&path, e))?;
    let Some(text) = text else {
        return Ok(Value::Null);
    };
    serde_json::from_str(&text).map_err(|e| {
        Error::new(
            ErrorKind::Tokenizer,
            format!("{} is not JSON: {e}", path.display()),
        )
        .with_help("fetch it again")
        .with_source(e)
    })
}

/// A token is a string, or an object with its string under `content`.
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

pub(super) fn eos_of(config: &Value, path: &Path) -> Result<Vec<u32>, Error> {
    let value = &config["eos_token_id"];
    let ids: Option<Vec<u32>> = match value {
        Value::Null => Some(Vec::new()),
        Value::Array(list) => list.iter().map(id).collect(),
        one => id(one).map(|one| vec![one]),
    };
    ids.ok_or_else(|| {
        Error::new(
            ErrorKind::Tokenizer,
            format!("eos_token_id in {} is {}", path.display(), shown(value)),
        )
        .with_help("give an id or a list of ids")
    })
}

fn id(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

pub(super) fn template_source(dir: &Path, config: &Value) -> Result<Option<String>, Error> {
    let name = "chat_template.jinja";
    let text = read_text(dir, name, TEMPLATE_BYTES).map_err(|e| unreadable(&dir.join(name), e))?;
    if text.is_some() {
        return Ok(text);
    }
    let found = match &config["chat_template"] {
        Value::Null => return Ok(None),
        Value::String(source) => Some(source.as_str()),
        Value::Array(named) => named
            .iter()
            .find(|t| t["name"] == "default")
            .or(named.first())
            .and_then(|t| t["template"].as_str()),
        _ => None,
    };
    match found {
        Some(source) => Ok(Some(source.to_owned())),
        None => Err(Error::new(
            ErrorKind::Tokenizer,
            format!(
                "chat_template in {} is neither a string nor a list of named templates",
                dir.join("tokenizer_config.json").display()
            ),
        )),
    }
}
