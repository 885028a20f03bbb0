//! The chat templates of a folder, by name, as transformers finds them.

use std::path::Path;
use std::{fs, io};

use serde_json::Value;

use super::files::{read_json, unreadable};
use crate::error::{Error, ErrorKind};
use crate::files::{TEMPLATE_BYTES, read_text, shown};

/// The folder of further templates, each in a file `NAME.jinja`.
pub(super) const FURTHER: &str = "additional_chat_templates";
/// The file of the default template, and the older one of processors.
pub(super) const JINJA: &str = "chat_template.jinja";
pub(super) const OLD: &str = "chat_template.json";
/// The name of the template that is used unless another one is chosen.
pub(super) const DEFAULT: &str = "default";
/// The name of the template for chats with tools.
pub(super) const TOOL_USE: &str = "tool_use";

/// The templates of a folder.
#[derive(Clone, Debug, Default)]
pub(super) struct Templates {
    /// Names and sources.
    pub(super) named: Vec<(String, String)>,
    /// The file that they come from.
    pub(super) file: &'static str,
}

impl Templates {
    /// The source with this name.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let found = self.named.iter().find(|(known, _)| known == name)?;
        Some(&found.1)
    }

    /// The names, for a message.
    pub(super) fn names(&self) -> String {
        let names: Vec<String> = self.named.iter().map(|(name, _)| shown(name)).collect();
        names.join(", ")
    }
}

/// Finds the templates: `chat_template.jinja` and those of [`FURTHER`], else `chat_template` of
/// `tokenizer_config.json`, else that of `chat_template.json`, which processors have.
pub(super) fn find(dir: &Path, config: &Value) -> Result<Templates, Error> {
    let file = JINJA;
    let read = |name: &str| {
        read_text(dir, name, TEMPLATE_BYTES).map_err(|e| unreadable(&dir.join(name), e))
    };
    let default = read(file)?.map(|source| (DEFAULT.to_owned(), source));
    let mut named = Vec::from_iter(default);
    for name in further(dir)? {
        let source = read(&format!("{FURTHER}/{name}.jinja"))?.unwrap_or_default();
        named.push((name, source));
    }
    if !named.is_empty() {
        return Ok(Templates { named, file });
    }
    let file = "tokenizer_config.json";
    let named = in_json(&config["chat_template"], &dir.join(file))?;
    if !named.is_empty() {
        return Ok(Templates { named, file });
    }
    let file = OLD;
    let named = in_json(&read_json(dir, file)?["chat_template"], &dir.join(file))?;
    Ok(Templates { named, file })
}

/// The names of the further templates, sorted.
fn further(dir: &Path) -> Result<Vec<String>, Error> {
    let folder = dir.join(FURTHER);
    match fs::symlink_metadata(&folder) {
        Ok(metadata) if metadata.is_dir() => {}
        Ok(metadata) if metadata.is_symlink() => {
            let message = "it is a link; copy the folder that it leads to";
            return Err(unreadable(&folder, io::Error::other(message)));
        }
        _ => return Ok(Vec::new()),
    }
    let mut names = Vec::new();
    for entry in fs::read_dir(&folder).map_err(|e| unreadable(&folder, e))? {
        let entry = entry.map_err(|e| unreadable(&folder, e))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".jinja").map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// A string, a list of objects with `name` and `template`, or an object of names and templates.
fn in_json(value: &Value, path: &Path) -> Result<Vec<(String, String)>, Error> {
    let pair = |name: &Value, source: &Value| {
        Some((name.as_str()?.to_owned(), source.as_str()?.to_owned()))
    };
    let found: Option<Vec<_>> = match value {
        Value::Null => Some(Vec::new()),
        Value::String(source) => Some(vec![(DEFAULT.to_owned(), source.clone())]),
        Value::Array(list) => (list.iter())
            .map(|entry| pair(&entry["name"], &entry["template"]))
            .collect(),
        Value::Object(map) => (map.iter())
            .map(|(name, source)| Some((name.clone(), source.as_str()?.to_owned())))
            .collect(),
        _ => None,
    };
    found.ok_or_else(|| {
        let message = "chat_template is neither a string nor a list of named templates";
        Error::new(ErrorKind::Tokenizer, message).with_place(path, None)
    })
}
