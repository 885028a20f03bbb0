//! [`Origins`]: where each setting of a run comes from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value;

use super::derived::Reasons;
use super::value::shown;
use super::{Flags, Settings, effect};
use crate::terminal::text::printable;
use crate::user_error::UserError;

/// Where the value of a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A flag.
    Flag,
    /// The line of a settings file, and the name that the setting has there.
    File(PathBuf, usize, String),
    /// The checkpoint that the run continues from.
    Checkpoint,
    /// The settings of the demonstration, which belong to the bundled model and data.
    Demo,
    /// It follows from the model and the data, for this reason.
    Derived(String),
    /// It is the same for every run.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("given"),
            Self::File(path, line, _) => write!(f, "{}:{line}", path.display()),
            Self::Checkpoint => f.write_str("as the run began"),
            Self::Demo => f.write_str("demonstration"),
            Self::Derived(reason) => f.write_str(reason),
            Self::Default => f.write_str("default"),
        }
    }
}

/// Where each setting comes from, by its name with hyphens.
///
/// [`Flags`] has the origins of values that were not given as flags. Flags with equal values are equal wherever they come from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Origins(BTreeMap<String, Origin>);

impl PartialEq for Origins {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Origins {
    /// Where a setting comes from; `None` if it is not known.
    #[must_use]
    pub(crate) fn of(&self, name: &str) -> Option<&Origin> {
        self.0.get(name)
    }

    pub(crate) fn set(&mut self, name: impl Into<String>, origin: Origin) {
        self.0.insert(name.into(), origin);
    }

    pub(super) fn add(&mut self, reasons: Reasons) {
        for (name, reason) in reasons {
            self.set(name, Origin::Derived(reason));
        }
    }

    /// One line per setting with its value and its origin. Without `all`, only settings that follow from
    /// the model and the data.
    #[must_use]
    pub(crate) fn lines(&self, settings: &Settings, all: bool) -> Vec<String> {
        let flags = serde_json::to_value(settings.to_flags());
        let Ok(Value::Object(values)) = flags else {
            return Vec::new();
        };
        let mut lines = Vec::new();
        for (name, value) in &values {
            let value = shown(value);
            let origin = self.of(name).unwrap_or(&Origin::Default);
            let derived = matches!(origin, Origin::Derived(_));
            // A value that is given is shown also if it turns something off.
            let is_given = matches!(origin, Origin::Flag | Origin::File(..));
            let off: &[&str] = if is_given {
                &[""]
            } else {
                &["", "false", "0", "-1"]
            };
            let empty = off.contains(&value.as_str());
            let idle = effect::without(name, settings).is_some();
            if !idle && (derived || all && !empty) {
                lines.push(printable(&format!("{name} {value} ({origin})")));
            }
        }
        lines
    }
}

impl Flags {
    /// The names of the settings that were given, with hyphens. A switch that is off asks for
    /// nothing, so it is not among them.
    fn given(&self) -> Vec<String> {
        let mut names = self.input.given();
        names.extend(self.method.given());
        names.extend(self.memory.given());
        names.extend(self.training.given());
        names.extend(self.output.given());
        names
    }

    /// The same flags, all of which come from there.
    #[must_use]
    pub(crate) fn all_from(mut self, origin: &Origin) -> Self {
        for name in self.given() {
            self.origins.set(name, origin.clone());
        }
        self
    }

    /// Where a setting that was given comes from.
    fn origin(&self, name: &str) -> Origin {
        self.origins.of(name).cloned().unwrap_or(Origin::Flag)
    }

    /// The origins of these flags, and of the flags that only `other` has.
    pub(super) fn origins_or(&self, other: &Self) -> Origins {
        let mut origins = other.origins.clone();
        for name in self.given() {
            match self.origins.of(&name) {
                Some(origin) => origins.set(name, origin.clone()),
                None => drop(origins.0.remove(&name)),
            }
        }
        origins
    }

    /// The origins of the settings that were given.
    pub(super) fn all_origins(&self) -> Origins {
        let mut origins = Origins::default();
        for name in self.given() {
            let origin = self.origin(&name);
            origins.set(name, origin);
        }
        origins
    }

    /// The error with the place of this setting, if it is in a file.
    pub(super) fn placed(&self, error: UserError, name: &str) -> UserError {
        match self.origin(name) {
            Origin::File(path, line, _) => error.with_place(path, Some(line)),
            _ => error,
        }
    }

    /// The name of a setting in its file, if that is another one.
    pub(super) fn other_name(&self, name: &str) -> Option<String> {
        match self.origin(name) {
            Origin::File(_, _, key) if key.replace('_', "-") != name => Some(key),
            _ => None,
        }
    }

    /// Whether the user gave a setting to this run, if it is given.
    pub(super) fn is_of_user(&self, name: &str) -> bool {
        matches!(self.origin(name), Origin::Flag | Origin::File(..))
    }

    /// The names of the settings that the user gave to this run.
    pub(super) fn given_by_user(&self) -> Vec<String> {
        let mut names = self.given();
        names.retain(|name| self.is_of_user(name));
        names
    }

    /// The names of the settings that were given as flags.
    pub(super) fn given_as_flags(&self) -> Vec<String> {
        let mut names = self.given();
        names.retain(|name| self.origin(name) == Origin::Flag);
        names
    }
}
