//! Settings from a TOML file. It has no tables, and its keys are the long names of the flags.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Deserializer;
use toml::de::{DeTable, Error as TomlError, ValueDeserializer};

use super::{Flags, InputFlags, MemoryFlags, MethodFlags, OutputFlags, TrainingFlags};
use crate::user_error::UserError;

impl Flags {
    /// Reads a TOML file.
    pub fn from_file(path: &Path) -> Result<Self> {
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
            error(at).with_source(UserError::new(e.message()))
        };
        let table = DeTable::parse(text).map_err(|e| refuse(e, None))?;
        let mut flags = Self::default();
        for (key, value) in table.into_inner() {
            let (at, name) = (key.span().start, key.into_inner());
            let value_at = value.span().start;
            let known = flags
                .set(&name, ValueDeserializer::from(value))
                .map_err(|e| refuse(e, Some(value_at)))?;
            if !known {
                let near = nearest(&name).map_or_else(
                    || "`lisa train --help` lists the settings".to_owned(),
                    |near| format!("did you mean `{near}`?"),
                );
                let unknown = UserError::new(format!("`{name}` is not a setting"));
                return Err(error(Some(at)).with_help(near).with_source(unknown).into());
            }
        }
        Ok(flags)
    }

    fn set<'de, D: Deserializer<'de>>(&mut self, key: &str, value: D) -> Result<bool, D::Error> {
        // Keys are written with hyphens alone.
        let name = key.replace('-', "_");
        // `pieces` is the name in files of 0.1.0.
        let name = if name == "pieces" {
            "sublayers"
        } else {
            name.as_str()
        };
        match name {
            _ if key.contains('_') => Ok(false),
            _ if InputFlags::KEYS.contains(&name) => self.input.set(name, value),
            _ if MethodFlags::KEYS.contains(&name) => self.method.set(name, value),
            _ if MemoryFlags::KEYS.contains(&name) => self.memory.set(name, value),
            _ if TrainingFlags::KEYS.contains(&name) => self.training.set(name, value),
            _ => self.output.set(name, value),
        }
    }
}

/// The known key with the smallest edit distance, which must be at most three.
fn nearest(key: &str) -> Option<String> {
    let keys = [
        InputFlags::KEYS,
        MethodFlags::KEYS,
        MemoryFlags::KEYS,
        TrainingFlags::KEYS,
        OutputFlags::KEYS,
    ];
    let keys = keys.concat().into_iter().map(|key| key.replace('_', "-"));
    let near = keys.map(|known| (distance(key, &known), known)).min()?;
    (near.0 <= 3).then_some(near.1)
}

/// The Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.chars().enumerate() {
            let changed = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}
