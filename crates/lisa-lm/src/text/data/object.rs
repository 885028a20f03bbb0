//! [`Object`]: the keys and values of one row. Reading a key takes it out, so what is left was not
//! used.

use minijinja::value::{Value, ValueKind};

use super::columns::Columns;
use crate::files::shown;
use crate::text::json;

/// A row. A key with null counts as absent.
pub(super) struct Object {
    fields: Vec<(String, Value)>,
    /// Keys whose names were given to other keys.
    replaced: Vec<String>,
}

impl Object {
    pub(super) fn new(row: &Value, columns: &Columns) -> Result<Self, String> {
        if row.kind() != ValueKind::Map {
            return Err(format!("the row is {} and not an object", kind_of(row)));
        }
        let mut fields = Vec::new();
        for key in row.try_iter().map_err(|e| e.to_string())? {
            let value = row.get_item(&key).unwrap_or_default();
            fields.push((key.to_string(), value));
        }
        let mut object = Self {
            fields,
            replaced: Vec::new(),
        };
        // All are taken before one is set, so that keys can exchange their names.
        let mut renamed = Vec::new();
        for (from, to) in columns.iter() {
            let key = object.key_like(from);
            let value = key.and_then(|key| object.take(&key));
            renamed.extend(value.map(|value| (to.to_owned(), value)));
        }
        for (to, value) in renamed {
            if object.take(&to).is_some() {
                object.replaced.push(to.clone());
            }
            object.fields.push((to, value));
        }
        Ok(object)
    }

    /// This key, or else one that has spaces around it.
    fn key_like(&self, key: &str) -> Option<String> {
        let names = self.fields.iter().map(|(name, _)| name);
        let like = names.filter(|name| name.trim() == key);
        like.min_by_key(|name| name.len()).cloned()
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let mut fields = self.fields.iter();
        let (_, value) = fields.find(|(name, _)| name == key)?;
        (!value.is_none()).then_some(value)
    }

    /// Whether the row has this key, and its value is null.
    pub(super) fn is_null(&self, key: &str) -> bool {
        let mut fields = self.fields.iter();
        fields.any(|(name, value)| name == key && value.is_none())
    }

    pub(super) fn take(&mut self, key: &str) -> Option<Value> {
        let at = self.fields.iter().position(|(name, _)| name == key)?;
        let (_, value) = self.fields.remove(at);
        (!value.is_none()).then_some(value)
    }

    /// The string of a key.
    pub(super) fn text(&mut self, key: &str) -> Result<Option<String>, String> {
        let Some(value) = self.take(key) else {
            return Ok(None);
        };
        match value.as_str() {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(format!("`{key}` is {} and not a string", kind_of(&value))),
        }
    }

    pub(super) fn required(&mut self, key: &str) -> Result<String, String> {
        self.text(key)?.ok_or_else(|| format!("`{key}` is missing"))
    }

    /// The list of a key. It may be given as JSON text, as in tables.
    pub(super) fn list(&mut self, key: &str) -> Result<Option<Value>, String> {
        let Some(value) = self.structure(key)? else {
            return Ok(None);
        };
        match value.kind() {
            ValueKind::Seq => Ok(Some(value)),
            _ => Err(format!("`{key}` is {} and not a list", kind_of(&value))),
        }
    }

    /// A value that is no text. If it is text, that is read as JSON; empty text counts as absent.
    pub(super) fn structure(&mut self, key: &str) -> Result<Option<Value>, String> {
        let value = self.take(key);
        let Some(text) = value.as_ref().and_then(Value::as_str) else {
            return Ok(value);
        };
        if text.trim().is_empty() {
            return Ok(None);
        }
        match json::value_of(text) {
            Ok(value) => Ok(Some(value).filter(|value| !value.is_none())),
            Err(_) => Err(format!("`{key}` is a string and not a list")),
        }
    }

    /// The keys with a value that were not read: the others in order, and those whose names were
    /// given to other keys.
    pub(super) fn unused(&self) -> impl Iterator<Item = &str> {
        let present = self.fields.iter().filter(|(_, value)| !value.is_none());
        let replaced = self.replaced.iter().map(String::as_str);
        present.map(|(key, _)| key.as_str()).chain(replaced)
    }

    /// A key whose value is a list of objects that are no messages: perhaps the rows themselves.
    pub(super) fn list_of_rows(&self) -> Option<&str> {
        let is_list = |value: &Value| {
            let first = value.get_item_by_index(0).unwrap_or_default();
            let is_message = ["role", "from"].iter().any(|key| has_key(&first, key));
            value.kind() == ValueKind::Seq && first.kind() == ValueKind::Map && !is_message
        };
        let (key, _) = self.fields.iter().find(|(_, value)| is_list(value))?;
        Some(key)
    }

    /// The first keys, for an error message.
    pub(super) fn shown_keys(&self) -> String {
        let keys: Vec<&String> = self.fields.iter().map(|(key, _)| key).take(20).collect();
        shown(&format!("{keys:?}"))
    }
}

/// Whether a row has this key, perhaps with spaces around it.
pub(super) fn has_key(row: &Value, key: &str) -> bool {
    let is_key = |name: Value| name.as_str().is_some_and(|name| name.trim() == key);
    row.kind() == ValueKind::Map && row.try_iter().is_ok_and(|mut keys| keys.any(is_key))
}

pub(super) fn kind_of(value: &Value) -> &'static str {
    match value.kind() {
        ValueKind::Bool => "a boolean",
        ValueKind::Number => "a number",
        ValueKind::String => "a string",
        ValueKind::Seq => "a list",
        ValueKind::Map => "an object",
        ValueKind::Bytes => "bytes that are not UTF-8",
        _ => "null",
    }
}
