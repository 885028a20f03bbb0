//! What a resumed run does differently: [`Flags::or_saved`] and [`Settings::changes`].

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::effect::without;
use super::effective::OF_MACHINE;
use super::{Flags, Origin, Settings, as_given};
use crate::terminal::text::printable;

impl Flags {
    /// These flags; if one is absent, the flag of the checkpoint. With another schedule, the final share of
    /// the learning rate is not taken from the checkpoint: it may be the default of the earlier schedule.
    #[must_use]
    pub(crate) fn or_saved(self, mut saved: Self) -> Self {
        let earlier = saved.training.clone().or_defaults().schedule;
        if self.training.schedule.is_some_and(|now| now != earlier) {
            saved.training.min_lr_ratio = None;
        }
        self.or(saved.all_from(&Origin::Checkpoint))
    }
}

impl Settings {
    /// A line for each setting whose value differs from that in `earlier`, such as
    /// `lr 5e-5, was 1e-3`. The output folder is left out, and settings that have no effect now.
    #[must_use]
    pub(crate) fn changes(&self, earlier: &Self) -> Vec<String> {
        let earlier = values(&earlier.to_flags());
        let mut changes = Vec::new();
        for (name, now) in values(&self.to_flags()) {
            let then = earlier.get(&name).unwrap_or(&Value::Null);
            if now != *then && name != "out" && without(&name, self).is_none() {
                let line = format!("{name} {}, was {}", or_absent(&now), or_absent(then));
                changes.push(printable(&line));
            }
        }
        changes
    }

    /// The settings of `earlier` that have another value now, with their values as text. Paths are
    /// left out, settings of the machine, and settings that had no effect.
    #[must_use]
    pub(crate) fn earlier_values(&self, earlier: &Self) -> BTreeMap<String, String> {
        let now = values(&self.to_flags().without_paths());
        let then = values(&earlier.to_flags().without_paths());
        let changed = then.into_iter().filter(|(name, then)| {
            let is_same = now.get(name).unwrap_or(&Value::Null) == then;
            !is_same && !OF_MACHINE.contains(&name.as_str()) && without(name, earlier).is_none()
        });
        changed
            .map(|(name, then)| (name, printable(&or_absent(&then))))
            .collect()
    }
}

/// The settings by their names.
fn values(flags: &Flags) -> Map<String, Value> {
    match serde_json::to_value(flags) {
        Ok(Value::Object(values)) => values,
        _ => Map::new(),
    }
}

fn or_absent(value: &Value) -> String {
    as_given(value).unwrap_or_else(|| "not given".to_owned())
}
