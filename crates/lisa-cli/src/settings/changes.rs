//! [`Flags::changes`]: what a resumed run does differently.

use serde_json::{Map, Value};

use super::Flags;
use super::given;
use crate::terminal::text::printable;

impl Flags {
    /// A line for each setting whose value differs from that in `earlier`, such as
    /// `lr 5e-5, was 1e-3`. The output folder is left out, and settings that only one of both has.
    #[must_use]
    pub fn changes(&self, earlier: &Self) -> Vec<String> {
        let values = |flags: &Self| match serde_json::to_value(flags) {
            Ok(Value::Object(values)) => values,
            _ => Map::new(),
        };
        let earlier = values(earlier);
        let mut changes = Vec::new();
        for (name, now) in values(self) {
            let Some(then) = earlier.get(&name) else {
                continue;
            };
            if now != *then && name != "out" {
                let or_absent = |value| given(value).unwrap_or_else(|| "not given".to_owned());
                let line = format!("{name} {}, was {}", or_absent(&now), or_absent(then));
                changes.push(printable(&line));
            }
        }
        changes
    }
}
