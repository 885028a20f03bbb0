//! Settings that follow from the model and the data, where they were not given.
//!
//! The learning rates are those of the study of SmolLM2 (docs/study.md) for models of about its size, and
//! those of published fine-tuning runs for larger ones; gamma and K are those of the paper and of LMFlow.

use std::fmt;

use super::{Facts, Flags, Method, Policy};
use crate::settings::Dtype;
use crate::terminal::text::{counted, size};

/// What is known of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelFacts {
    /// The dtype of its files.
    pub dtype: Option<Dtype>,
    /// Its number of parameters.
    pub parameters: usize,
    /// Its number of layers.
    pub layers: usize,
    /// The largest number of tokens in a row.
    pub positions: usize,
}

impl ModelFacts {
    /// Whether the model is of about the size of the study's, so that LISA freezes embeddings and head by
    /// default, and trains as many layers as [`LikeLora`] says.
    #[must_use]
    pub fn is_of_studied_size(&self) -> bool {
        (SMALL..LARGE).contains(&self.parameters)
    }
}

/// What is known of the training data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFacts {
    /// The number of tokens of each row before truncation, in ascending order. It is not empty.
    lengths: Vec<usize>,
}

impl DataFacts {
    /// The facts of rows with these numbers of tokens; `None` if there is no row.
    #[must_use]
    pub fn of(mut lengths: Vec<usize>) -> Option<Self> {
        lengths.sort_unstable();
        (!lengths.is_empty()).then_some(Self { lengths })
    }

    /// The number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.lengths.len()
    }

    /// At least how many rows of this length the rows make when they are packed.
    #[must_use]
    pub fn packed(&self, length: usize) -> usize {
        let tokens: usize = self.lengths.iter().map(|own| own.min(&length)).sum();
        tokens.div_ceil(length.max(1))
    }

    /// The length that this share of the rows does not exceed.
    #[must_use]
    pub fn percentile(&self, share: f64) -> usize {
        let index = (share * self.rows() as f64).ceil() as usize;
        self.lengths[index.clamp(1, self.rows()) - 1]
    }

    /// The number of tokens of the longest row.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.percentile(1.0)
    }
}

/// The memory that a run may use.
pub struct Room<'a> {
    /// Bytes of the device, or that the machine has available.
    pub bytes: u64,
    /// Bytes that a run of these settings needs for batches of so many rows of so many tokens.
    pub needs: &'a dyn Fn(usize, usize) -> Option<u64>,
}

impl fmt::Debug for Room<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Room<'_> {
    fn fits(&self, rows: usize, tokens: usize) -> bool {
        (self.needs)(rows, tokens).is_none_or(|needed| needed <= self.bytes)
    }
}

/// For batches of so many rows of so many tokens: how many layers LISA can train in the memory that LoRA
/// needs, with [`OUTER`] frozen.
#[derive(Clone, Copy)]
pub struct LikeLora<'a>(pub &'a dyn Fn(usize, usize) -> Option<usize>);

impl fmt::Debug for LikeLora<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LikeLora").finish_non_exhaustive()
    }
}

/// Parameters outside the layers that are large: embeddings and head.
pub const OUTER: [&str; 3] = ["embed_tokens", "embed_positions", "lm_head"];

/// The settings that were derived: name and reason.
pub(super) type Reasons = Vec<(&'static str, String)>;

/// Models with fewer parameters learn with larger steps, such as the bundled one.
pub(super) const SMALL: usize = 10_000_000;
/// From this size on, the learning rates are those of published runs, which are of larger models.
const LARGE: usize = 500_000_000;
/// From this depth on, four layers are active, as in the paper's runs of 70 B parameters.
const DEEP: usize = 48;
/// Lengths are multiples of it.
const BLOCK: usize = 64;
/// Steps of a period: as in LMFlow; and the fewest, since each layer begins with a new optimizer state.
const PERIOD: usize = 20;
const SHORTEST_PERIOD: usize = 5;

/// The layers that train in a period of LISA, in a model with so many layers.
#[must_use]
pub fn default_active_layers(layers: usize) -> usize {
    let active = if layers < DEEP { 2 } else { 4 };
    active.min(layers)
}

impl Flags {
    fn method_or_default(&self) -> Method {
        self.method.method.unwrap_or(Method::Lisa)
    }

    /// Whether a setting besides the number of layers decides which parameters LISA trains.
    pub(crate) fn decides_trainable(&self) -> bool {
        let method = &self.method;
        method.freeze.is_some()
            || method.outer_every.is_some()
            || method.split.is_some()
            || method.probabilities.is_some()
            // New tokens have embeddings that must be trained.
            || self.input.resize_embeddings == Some(true)
            || matches!(method.policy, Some(Policy::Budget | Policy::Fixed))
    }

    /// Whether LISA trains as many layers as the memory of LoRA holds if their number is not given.
    pub(crate) fn trains_like_lora(&self, model: &ModelFacts) -> bool {
        self.method_or_default() == Method::Lisa
            && !self.decides_trainable()
            && model.is_of_studied_size()
    }

    /// Sets what follows from the model.
    pub(super) fn derive_from_model(&mut self, model: &ModelFacts, reasons: &mut Reasons) {
        let method = self.method_or_default();
        if self.training.lr.is_none() {
            self.training.lr = Some(match (model.parameters, method) {
                (..SMALL, _) | (..LARGE, Method::Lora) => 1e-3,
                (..LARGE, Method::Lisa) => 3e-4,
                (..LARGE, Method::Full) => 1e-4,
                (_, Method::Lora) => 2e-4,
                (_, Method::Lisa | Method::Full) => 5e-5,
            });
            let millions = model.parameters as f64 / 1e6;
            let digits = usize::from(model.parameters < SMALL);
            let reason = format!("{method} on a model of {millions:.digits$} M parameters");
            reasons.push(("lr", reason));
        }
        if method == Method::Lisa && self.method.active_layers.is_none() {
            self.method.active_layers = Some(default_active_layers(model.layers));
            reasons.push((
                "active-layers",
                format!("of {}", counted(model.layers, "layer")),
            ));
        }
    }

    /// Sets what follows from the data, the model and the memory.
    pub(super) fn derive_from_data(
        &mut self,
        model: &ModelFacts,
        data: &DataFacts,
        facts: Facts<'_>,
        reasons: &mut Reasons,
    ) {
        self.derive_shape(model, data, facts.room, reasons);
        self.derive_layers(model, data, facts.like_lora, reasons);
        if self.training.steps.unwrap_or(0) == 0 && self.training.epochs.is_none() {
            let epochs = match data.rows() {
                0..2_000 => 3.0,
                2_000..10_000 => 2.0,
                _ => 1.0,
            };
            self.training.epochs = Some(epochs);
            reasons.push(("epochs", counted(data.rows(), "row")));
        }
        self.derive_period(model, data, reasons);
    }

    /// Sets the active layers, and freezes embeddings and head, for a model of about the size of the
    /// study's, where a run with the memory of LoRA had LoRA's loss (docs/study.md). For larger models,
    /// and where a setting decides which parameters train, the paper's stay.
    fn derive_layers(
        &mut self,
        model: &ModelFacts,
        data: &DataFacts,
        like_lora: Option<LikeLora<'_>>,
        reasons: &mut Reasons,
    ) {
        // It was not given.
        let derived = reasons
            .iter()
            .position(|(name, _)| *name == "active-layers");
        let (Some(at), Some(LikeLora(like_lora))) = (derived, like_lora) else {
            return;
        };
        if !self.trains_like_lora(model) {
            return;
        }
        let tokens = self.input.max_seq_length.unwrap_or(usize::MAX);
        let rows = self.training.batch_size.unwrap_or(1);
        let Some(active) = like_lora(rows, tokens.min(data.longest())) else {
            return;
        };
        self.method.active_layers = Some(active);
        self.method.freeze = Some(OUTER.map(str::to_owned).to_vec());
        let layers = counted(model.layers, "layer");
        reasons[at].1 = format!(
            "of {layers}: as many as need no more memory than LoRA of rank 16, at most a third"
        );
        reasons.push(("freeze", "more layers train in the same memory".to_owned()));
    }

    /// Sets the length of a row and the size of a batch.
    fn derive_shape(
        &mut self,
        model: &ModelFacts,
        data: &DataFacts,
        room: Option<&Room<'_>>,
        reasons: &mut Reasons,
    ) {
        let percentile = data.percentile(0.99);
        let wanted = match self.input.max_seq_length {
            Some(given) => given,
            // Rows that are much longer than nearly all others are cut.
            None if data.longest() <= 2 * percentile => data.longest(),
            None => percentile.next_multiple_of(BLOCK),
        };
        let wanted = wanted.clamp(2, model.positions.max(2));
        let fits = |rows, tokens| room.is_none_or(|room| room.fits(rows, tokens));
        let training = &mut self.training;
        if training.batch_size.is_none() {
            let accumulation = training.gradient_accumulation_steps;
            let halves = accumulation.is_none() && self.memory.update_in_backward != Some(true);
            let sizes: &[usize] = if halves { &[4, 2, 1] } else { &[4] };
            let rows = sizes.iter().copied().find(|rows| fits(*rows, wanted));
            let rows = rows.unwrap_or(sizes[sizes.len() - 1]);
            training.batch_size = Some(rows);
            if rows < 4 {
                training.gradient_accumulation_steps = Some(4 / rows);
                let reason = format!("4 rows of {wanted} tokens do not fit into memory");
                reasons.push(("batch-size", reason.clone()));
                reasons.push(("gradient-accumulation-steps", reason));
            }
        }
        if self.input.max_seq_length.is_some() {
            return;
        }
        let rows = training.batch_size.unwrap_or(1);
        let length = longest_that_fits(wanted, |tokens| fits(rows, tokens));
        let mut reason = format!(
            "99th percentile of the data {percentile}, longest row {}; the model's limit {}",
            data.longest(),
            model.positions
        );
        if length < wanted {
            reason += &format!("; {wanted} does not fit into memory");
        }
        if let Some(room) = room
            && let Some(needed) = (room.needs)(rows, length)
        {
            reason += &format!("; planned {} of {}", size(needed), size(room.bytes));
        }
        self.input.max_seq_length = Some(length);
        reasons.push(("max-seq-length", reason));
    }

    /// Sets the sampling period: at most [`PERIOD`], shorter in a run that would otherwise end before
    /// each layer could have had its turn.
    fn derive_period(&mut self, model: &ModelFacts, data: &DataFacts, reasons: &mut Reasons) {
        let fixed =
            self.method.policy == Some(Policy::Fixed) && self.method.outer_every.unwrap_or(1) == 1;
        if self.method_or_default() != Method::Lisa || fixed || self.method.period.is_some() {
            return;
        }
        let training = &self.training;
        let steps = match training.steps.unwrap_or(0) {
            0 => {
                let rows = training.batch_size.unwrap_or(1)
                    * training.gradient_accumulation_steps.unwrap_or(1);
                let epochs = training.epochs.unwrap_or(1.0);
                let all = match (self.input.pack, self.input.max_seq_length) {
                    (Some(true), Some(length)) => data.packed(length),
                    _ => data.rows(),
                };
                (epochs * all.div_ceil(rows.max(1)) as f64).ceil() as usize
            }
            steps => steps,
        };
        let turns = steps * self.method.active_layers.unwrap_or(2) / model.layers.max(1);
        let warmup = self.method.layer_warmup.unwrap_or(0);
        let period = turns.clamp(SHORTEST_PERIOD, PERIOD).max(warmup);
        self.method.period = Some(period);
        if period < PERIOD {
            let run = counted(steps, "step");
            let layers = counted(model.layers, "layer");
            let reason = if period > turns.max(SHORTEST_PERIOD) {
                "that of --layer-warmup".to_owned()
            } else if turns < SHORTEST_PERIOD {
                format!("the shortest: about {run} are too few for a turn of each of {layers}")
            } else {
                format!("so that each of {layers} can have a turn in about {run}")
            };
            reasons.push(("period", reason));
        }
    }
}

/// The largest multiple of [`BLOCK`] below `wanted` that fits, or `wanted` if it fits. The smallest
/// one if none fits.
fn longest_that_fits(wanted: usize, fits: impl Fn(usize) -> bool) -> usize {
    if fits(wanted) {
        return wanted;
    }
    let blocks: Vec<usize> = (1..=wanted / BLOCK).collect();
    let fitting = blocks.partition_point(|blocks| fits(blocks * BLOCK));
    (fitting.max(1) * BLOCK).min(wanted)
}

/// The facts of SmolLM2-135M, for tests.
#[cfg(test)]
pub(super) const SMOLLM2: ModelFacts = ModelFacts {
    dtype: None,
    parameters: 135_000_000,
    layers: 30,
    positions: 8192,
};

#[cfg(test)]
mod tests;
