//! What a resumed run does differently: [`Flags::or_saved`] and [`Settings::changes`].

use serde_json::{Map, Value};

use super::effect::without;
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
        let values = |settings: &Self| match serde_json::to_value(settings.to_flags()) {
            Ok(Value::Object(values)) => values,
            _ => Map::new(),
        };
        let earlier = values(earlier);
        let mut changes = Vec::new();
        for (name, now) in values(self) {
            let then = earlier.get(&name).unwrap_or(&Value::Null);
            if now != *then && name != "out" && without(&name, self).is_none() {
                let or_absent = |value| as_given(value).unwrap_or_else(|| "not given".to_owned());
                let line = format!("{name} {}, was {}", or_absent(&now), or_absent(then));
                changes.push(printable(&line));
            }
        }
        changes
    }
}
