//! [`Keys`]: the keys of a JSON object; each is read with its expected type.

use serde_json::{Map, Value};

use super::limits::refuse;
use crate::error::Error;
use crate::files::shown;

/// A JSON object. A key that is null counts as absent.
#[derive(Clone, Copy)]
pub(crate) struct Keys<'a> {
    pub(crate) map: &'a Map<String, Value>,
}

impl<'a> Keys<'a> {
    pub(crate) fn present(self, key: &str) -> Option<&'a Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn is_null(self, key: &str) -> bool {
        self.map.get(key).is_some_and(Value::is_null)
    }

    fn typed<T>(
        self,
        key: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let Some(value) = self.present(key) else {
            return Ok(None);
        };
        let found = read(value);
        found
            .map(Some)
            .ok_or_else(|| refuse(format!("{key} is {}, not {what}", shown(value))))
    }

    pub(crate) fn size(self, key: &str) -> Result<Option<usize>, Error> {
        self.typed(key, "a whole number", |v| usize::try_from(v.as_u64()?).ok())
    }

    pub(crate) fn require(self, key: &str) -> Result<usize, Error> {
        self.size(key)?
            .ok_or_else(|| refuse(format!("there is no {key}")))
    }

    pub(crate) fn number(self, key: &str) -> Result<Option<f64>, Error> {
        self.typed(key, "a number", Value::as_f64)
    }

    pub(crate) fn flag(self, key: &str) -> Result<Option<bool>, Error> {
        self.typed(key, "true or false", Value::as_bool)
    }

    pub(crate) fn string(self, key: &str) -> Result<Option<&'a str>, Error> {
        self.typed(key, "a string", Value::as_str)
    }

    /// The object of this key. An empty one counts as absent.
    pub(crate) fn object(self, key: &str) -> Result<Option<Keys<'a>>, Error> {
        let found = self.typed(key, "an object", Value::as_object)?;
        Ok(found.filter(|map| !map.is_empty()).map(|map| Keys { map }))
    }
}
