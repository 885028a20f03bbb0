//! [`Settings::effective`]: the settings of a run for the settings file in its model card.

use std::path::Path;

use serde_json::{Map, Value};

use super::effect::{Contents, without, without_in};
use super::{Flags, Settings};

impl Settings {
    /// The settings that had an effect on a run, without paths: another run of the same method can take them
    /// as a file. Settings that are off by default and settings of the machine are left out, too.
    ///
    /// `contents`: what the data of the run has.
    #[must_use]
    pub(crate) fn effective(&self, contents: Contents) -> Flags {
        let values = |flags: &Flags| match serde_json::to_value(flags) {
            Ok(Value::Object(values)) => values,
            _ => Map::new(),
        };
        // A file without a model and data is one of the demonstration.
        let unset = if self.input.is_demo() {
            Flags::default().or_demo().unwrap_or_default()
        } else {
            Flags::default()
        };
        let mut defaults = unset.defaults().to_flags();
        if self.output.no_eval {
            // It follows from --no-eval.
            defaults.input.eval_fraction = Some(0.0);
        }
        let defaults = values(&defaults);
        let mut own = values(&self.to_flags().without_paths());
        own.retain(|name, value| {
            let is_default = defaults.get(name) == Some(value);
            let is_idle =
                without(name, self).is_some() || without_in(name, contents, self).is_some();
            let is_of_machine = OF_MACHINE.contains(&name.as_str());
            !is_idle
                && !is_of_machine
                && !(is_default && (is_off(value) || OF_DATA.contains(&name.as_str())))
        });
        if is_path(&self.input.chat_template) {
            own.remove("chat-template");
        }
        serde_json::from_value(Value::Object(own)).unwrap_or_default()
    }

    /// The flags with the paths that [`effective`](Self::effective) leaves out, without `out`.
    #[must_use]
    pub(crate) fn flags_of_paths(&self) -> Vec<&'static str> {
        let all = self.to_flags();
        let mut flags: Vec<&str> = all.paths().into_iter().map(|(flag, _)| flag).collect();
        if !self.method.adapter.as_os_str().is_empty() {
            flags.push("adapter");
        }
        if is_path(&self.input.chat_template) {
            flags.push("chat-template");
        }
        flags.dedup();
        flags
    }
}

/// Settings that say how much memory a machine has.
pub(super) const OF_MACHINE: [&str; 2] = ["memory", "data-memory"];

/// Settings whose effect depends on what the data has.
const OF_DATA: [&str; 6] = [
    "eval-fraction",
    "pairs",
    "turns",
    "chat-template",
    "loss-on-all",
    "empty-answers",
];

/// Whether this is how a setting is written that asks for nothing.
fn is_off(value: &Value) -> bool {
    match value {
        Value::Bool(switch) => !switch,
        Value::Number(number) => number.as_f64().is_some_and(|number| number <= 0.0),
        Value::String(text) => text.is_empty() || text == "none",
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Whether a chat template is a file, and not a name.
fn is_path(template: &str) -> bool {
    let path = Path::new(template);
    path.is_file() || path.extension().is_some() || template.contains(['/', '\\'])
}
