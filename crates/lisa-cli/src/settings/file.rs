//! Settings from a TOML file, which has no tables, and from the state of a checkpoint. The keys are
//! the long names of the flags, or [other names](super::names) of them; `-` and `_` are alike.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use serde::de::{DeserializeSeed, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use toml::de::{DeTable, DeValue, Error as TomlError, ValueDeserializer};

use super::names::{self, Word, Written};
use super::{Flags, InputFlags, MemoryFlags, MethodFlags, Origin, TrainingFlags, input};
use crate::user_error::UserError;
use keys::is_known;
use mistakes::{Unknown, foreign, in_words, table_in_words};

mod keys;
mod mistakes;
mod values;

impl Flags {
    /// Reads a TOML file.
    pub(crate) fn from_file(path: &Path) -> Result<Self> {
        let text = lisa_lm::files::read_small_text(path)
            .with_context(|| format!("cannot read the settings `{}`", path.display()))?;
        Self::from_toml(&text, path)
    }

    /// Reads TOML; errors name `path`, the line, and for an unknown key the nearest known one.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self> {
        let line_of = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        let error = |at: Option<usize>| {
            UserError::new(format!("cannot use the settings `{}`", path.display()))
                .with_place(path, at.map(line_of))
        };
        let refuse = |e: TomlError, at: Option<usize>| {
            let at = e.span().map(|span| span.start).or(at);
            let (message, help) = in_words(e.message());
            error(at).with_source(UserError::new(message).with_help(help))
        };
        let table = DeTable::parse(text).map_err(|e| match foreign(text, path) {
            Some(help) => {
                let at = e.span().map(|span| span.start);
                let refused = UserError::new(in_words(e.message()).0).with_help(help);
                error(at).with_source(refused)
            }
            None => refuse(e, None),
        })?;
        let mut flags = Self::default();
        let mut keys: Vec<(String, String)> = Vec::new();
        // In the order of the file, so that the first mistake is reported.
        let mut entries: Vec<_> = table.into_inner().into_iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let unknown: Vec<Unknown> = entries
            .iter()
            .filter(|(key, _)| !is_known(key.get_ref()))
            .map(|(key, value)| Unknown {
                key: key.get_ref().to_string(),
                line: line_of(key.span().start),
                is_table: has_tables(value.get_ref()),
                is_inline: !is_header(text, key.span().start),
            })
            .collect();
        if let Some(first) = unknown.first() {
            let refused = UserError::new(Unknown::message(&unknown));
            return Err(
                UserError::new(format!("cannot use the settings `{}`", path.display()))
                    .with_place(path, Some(first.line))
                    .with_help(Unknown::help(&unknown))
                    .with_source(refused)
                    .into(),
            );
        }
        for (key, value) in entries {
            let (at, key) = (key.span().start, key.into_inner().into_owned());
            let value_at = value.span().start;
            if is_not_given(&key, value.get_ref()) {
                continue;
            }
            let name = names::translated(&key)
                .map_or_else(|| names::setting(&key), |to| to.setting.into());
            if let Some((earlier, _)) = keys.iter().find(|(_, setting)| *setting == name) {
                let twice = UserError::new(format!("`{earlier}` and `{key}` are the same setting"));
                return Err(error(Some(at))
                    .with_help("leave one of them out")
                    .with_source(twice)
                    .into());
            }
            if has_tables(value.get_ref()) {
                let (message, help) = table_in_words(&key, &name);
                let refused = UserError::new(message).with_help(help);
                return Err(error(Some(at)).with_source(refused).into());
            }
            if let Some((message, help)) = refused_word(&key, value.get_ref()) {
                let refused = UserError::new(message).with_help(help);
                return Err(error(Some(at)).with_source(refused).into());
            }
            flags
                .set(&key, ValueDeserializer::from(value))
                .map_err(|e| refuse(e, Some(value_at)))?;
            let origin = Origin::File(path.to_path_buf(), line_of(at), key.clone());
            flags.origins.set(name.clone(), origin);
            keys.push((key, name));
        }
        Ok(flags)
    }

    /// Sets the setting of this name; `false` if there is none.
    fn set<'de, D: Deserializer<'de>>(&mut self, key: &str, value: D) -> Result<bool, D::Error> {
        if let Some(name) = names::translated(key) {
            let written = Written::deserialize(value).ok();
            let word = written.and_then(|written| written.among(name));
            let setting = name.setting;
            return match word.unwrap_or(Word::Refused("")) {
                Word::Refused(_) => {
                    let message = format!("`{key}` is {}", name.choices());
                    Err(D::Error::custom(message))
                }
                Word::Text(text) => self.set_field(setting, text.into_deserializer()),
                Word::Number(number) => self.set_field(setting, number.into_deserializer()),
                Word::Switch(switch) => self.set_field(setting, switch.into_deserializer()),
                Word::Absent => Ok(true),
            };
        }
        self.set_field(&names::setting(key), value)
    }

    fn set_field<'de, D: Deserializer<'de>>(
        &mut self,
        setting: &str,
        value: D,
    ) -> Result<bool, D::Error> {
        let name = setting.replace('-', "_");
        let names = "a name or a list of names";
        match name.as_str() {
            "data" => self.input.data = Some(input::paths(value)?),
            "columns" => self.input.columns = Some(values::columns(value)?),
            "lora_target_modules" => {
                self.method.lora_target_modules = Some(input::strings(value, names)?);
            }
            "freeze" => self.method.freeze = Some(input::strings(value, names)?),
            "split" => self.method.split = Some(input::strings(value, names)?),
            "memory" => self.memory.memory = Some(values::memory(value)?),
            "recompute" => self.memory.recompute = Some(values::recompute(value)?),
            name => return self.set_plain(name, value),
        }
        Ok(true)
    }

    /// Sets a setting whose value is as serde reads it.
    fn set_plain<'de, D: Deserializer<'de>>(
        &mut self,
        name: &str,
        value: D,
    ) -> Result<bool, D::Error> {
        match name {
            name if InputFlags::KEYS.contains(&name) => self.input.set(name, value),
            name if MethodFlags::KEYS.contains(&name) => self.method.set(name, value),
            name if MemoryFlags::KEYS.contains(&name) => self.memory.set(name, value),
            name if TrainingFlags::KEYS.contains(&name) => self.training.set(name, value),
            name => self.output.set(name, value),
        }
    }
}

/// The settings of a checkpoint's state. An unknown key is an error.
impl<'de> Deserialize<'de> for Flags {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Keys)
    }
}

struct Keys;

impl<'de> Visitor<'de> for Keys {
    type Value = Flags;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("settings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Flags, A::Error> {
        let mut flags = Flags::default();
        while let Some(key) = map.next_key::<String>()? {
            if !map.next_value_seed(Set(&mut flags, &key))? {
                return Err(A::Error::custom(format!("`{key}` is not a setting")));
            }
        }
        Ok(flags)
    }
}

/// Sets one setting.
struct Set<'a>(&'a mut Flags, &'a str);

impl<'de> DeserializeSeed<'de> for Set<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, value: D) -> Result<bool, D::Error> {
        self.0.set(self.1, value)
    }
}

/// Whether this is what other trainers write for a setting that is not given.
fn is_not_given(key: &str, value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Integer(number) => names::is_absent(key, number.as_str()),
        value => meaning(key, value) == Some(Word::Absent),
    }
}

/// What a word means that is written for another name of a setting.
fn meaning(key: &str, value: &DeValue<'_>) -> Option<Word> {
    let written = match value {
        DeValue::Boolean(switch) => Written::Switch(*switch),
        DeValue::String(text) => Written::Text(text.to_string()),
        _ => return None,
    };
    written.among(names::translated(key)?)
}

/// Why a word is refused that other trainers write, and what to do.
fn refused_word(key: &str, value: &DeValue<'_>) -> Option<(String, &'static str)> {
    let Some(Word::Refused(help)) = meaning(key, value) else {
        return None;
    };
    let word = match value {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        _ => return None,
    };
    Some((format!("`{key}` is {word}"), help))
}

/// Whether the line of this place is a line `[..]`.
fn is_header(text: &str, at: usize) -> bool {
    let before = text.get(..at).unwrap_or_default();
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(start..).unwrap_or_default();
    line.trim_start().starts_with('[')
}

/// Whether this is a table, or a list with a table.
fn has_tables(value: &DeValue<'_>) -> bool {
    match value {
        DeValue::Table(_) => true,
        DeValue::Array(list) => list.iter().any(|one| one.get_ref().is_table()),
        _ => false,
    }
}
