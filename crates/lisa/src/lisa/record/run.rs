//! [`Run`]: the settings and the progress of a run in a record, and the difference between two
//! runs.

use serde::{Deserialize, Serialize};

use super::cause::Cause;
use crate::FrozenWeights;
use crate::optimizer::{Decay, OnFreeze};
use crate::saved::SavedUnit;

/// Version of the layout.
pub(super) const FORMAT: u32 = 1;

/// What a record of every version has.
#[derive(Deserialize)]
struct Version {
    format: u32,
}

/// The settings of a run, and its progress.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Run {
    pub(super) format: u32,
    pub(super) step: u64,
    pub(super) active: Vec<usize>,
    pub(super) seed: u64,
    pub(super) policy: String,
    pub(super) active_layers: usize,
    pub(super) sampling_period: usize,
    pub(super) on_freeze: OnFreeze,
    pub(super) master_weights: bool,
    pub(super) decay: Decay,
    pub(super) frozen_weights: FrozenWeights,
    pub(super) unbiased: bool,
    pub(super) outer_every: usize,
    pub(super) layer_warmup: usize,
    /// The scores of a policy that observes gradients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) scores: Option<Vec<SavedUnit>>,
    /// The paths.
    pub(super) layers: Vec<String>,
    /// The paths and shapes, and whether they may train.
    pub(super) parameters: Vec<(String, Vec<usize>, bool)>,
}

impl Run {
    /// Reads a run of this version of the layout.
    pub(super) fn parse(text: &str) -> Result<Self, Cause> {
        // First: a run of another version may have other fields.
        let Version { format } = serde_json::from_str(text)?;
        if format != FORMAT {
            return Err(format!(
                "its format version is {format}, and this version of burn-lisa reads {FORMAT}"
            )
            .into());
        }
        Ok(serde_json::from_str(text)?)
    }

    /// The first difference from `run`, in words; `None` if `run` can resume from this record.
    pub(super) fn difference(&self, run: &Self) -> Option<String> {
        let differ = |what: &str, there: String, here: String| {
            Some(format!("its {what} is {there}, this run's is {here}"))
        };
        macro_rules! same {
            ($($field:ident: $what:literal),* $(,)?) => {$(
                if self.$field != run.$field {
                    return differ(
                        $what,
                        format!("{:?}", self.$field),
                        format!("{:?}", run.$field),
                    );
                }
            )*};
        }
        if self.layers.len() != run.layers.len() {
            let (there, here) = (self.layers.len(), run.layers.len());
            return differ("number of layers", there.to_string(), here.to_string());
        }
        let pairs = self.layers.iter().zip(&run.layers);
        if let Some((there, here)) = pairs.into_iter().find(|(a, b)| a != b) {
            return differ("layer", format!("`{there}`"), format!("`{here}`"));
        }
        if self.parameters.len() != run.parameters.len() {
            let (there, here) = (self.parameters.len(), run.parameters.len());
            return differ("number of parameters", there.to_string(), here.to_string());
        }
        let pairs = self.parameters.iter().zip(&run.parameters);
        if let Some((there, here)) = pairs.into_iter().find(|(a, b)| a != b) {
            let show = |p: &(String, Vec<usize>, bool)| {
                let trains = if p.2 { "trainable" } else { "frozen" };
                format!("`{}` of shape {:?}, {trains}", p.0, p.1)
            };
            return differ("parameter", show(there), show(here));
        }
        same!(
            policy: "policy",
            seed: "seed",
            active_layers: "number of active layers",
            sampling_period: "sampling period",
            on_freeze: "on_freeze",
            master_weights: "master_weights",
            decay: "decay",
            frozen_weights: "frozen_weights",
            unbiased: "unbiased",
            outer_every: "outer_every",
            layer_warmup: "layer_warmup",
        );
        if let Some(scores) = &self.scores
            && scores.len() != run.layers.len()
        {
            let (there, here) = (scores.len(), run.layers.len());
            return differ("number of scores", there.to_string(), here.to_string());
        }
        let mut active = self.active.iter();
        if let Some(layer) = active.find(|&&layer| layer >= run.layers.len()) {
            return differ(
                "active layer",
                layer.to_string(),
                "below the number of layers".into(),
            );
        }
        None
    }
}
