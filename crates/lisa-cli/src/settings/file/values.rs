//! Values of a settings file that may be written as flags are: memory with its unit, a switch for a count, and
//! pairs as a list.

use std::fmt;

use lisa_lm::text::Columns;
use serde::Deserializer;
use serde::de::{Error, Unexpected, Visitor};

use super::super::{gib, input};

/// Reads `--memory`: GiB as a number, or a text with a unit.
pub(super) fn memory<'de, D: Deserializer<'de>>(value: D) -> Result<f64, D::Error> {
    struct Memory;

    impl Visitor<'_> for Memory {
        type Value = f64;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number of GiB, or a text such as \"24GB\"")
        }

        fn visit_f64<E>(self, gib: f64) -> Result<f64, E> {
            Ok(gib)
        }

        fn visit_i64<E>(self, gib: i64) -> Result<f64, E> {
            Ok(gib as f64)
        }

        fn visit_u64<E>(self, gib: u64) -> Result<f64, E> {
            Ok(gib as f64)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
            gib(text).map_err(|help| E::custom(format!("`memory` is {text:?}: {help}")))
        }
    }

    value.deserialize_any(Memory)
}

/// Reads `--recompute`: a count, or on (1) and off (0).
pub(super) fn recompute<'de, D: Deserializer<'de>>(value: D) -> Result<usize, D::Error> {
    struct Every;

    impl Visitor<'_> for Every {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("true, false, or a whole number, 0 or more")
        }

        fn visit_bool<E>(self, is_on: bool) -> Result<usize, E> {
            Ok(usize::from(is_on))
        }

        fn visit_i64<E: Error>(self, every: i64) -> Result<usize, E> {
            let count = usize::try_from(every);
            count.map_err(|_| E::invalid_value(Unexpected::Signed(every), &self))
        }

        fn visit_u64<E: Error>(self, every: u64) -> Result<usize, E> {
            let count = usize::try_from(every);
            count.map_err(|_| E::invalid_value(Unexpected::Unsigned(every), &self))
        }
    }

    value.deserialize_any(Every)
}

/// Reads `--columns`: a text, or a list of pairs.
pub(super) fn columns<'de, D: Deserializer<'de>>(value: D) -> Result<Columns, D::Error> {
    let pairs = input::strings(value, "pairs such as \"question=prompt\"")?;
    let parsed: Result<Columns, lisa_lm::Error> = pairs.join(",").parse();
    parsed.map_err(|error| D::Error::custom(error.message()))
}
