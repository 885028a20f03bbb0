//! Settings that follow from the model and the data, where they were not given.
//!
//! The learning rates are those of the study of SmolLM2 (docs/study.md) for models of about its size, and
//! those of published fine-tuning runs for larger ones; gamma and K are those of the paper and of LMFlow.

use lisa_lm::CausalLm;

use super::{Facts, Flags, Method, Policy, Schedule};
use crate::terminal::text::{counted, size};

mod facts;

pub(crate) use facts::{DataFacts, KeptRows, LikeLora, ModelFacts, Room};

/// Parameters outside the layers that are large: embeddings and head.
pub(crate) const OUTER: [&str; 3] = CausalLm::OUTER;

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
/// Steps of a period: as in LMFlow; and the fewest, since each layer begins with a new optimizer state. A run
/// that is too short for [`PERIODS`] of them has shorter ones, so that more than a few layers train.
const PERIOD: usize = 20;
const SHORTEST_PERIOD: usize = 5;
const PERIODS: usize = 4;

/// How many of a model's layers train in a period of LISA, by the number of its layers.
#[must_use]
pub(crate) fn default_active_layers(layers: usize) -> usize {
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
        let training = &mut self.training;
        let has_final =
            training.min_lr_ratio.is_some() || training.min_lr.is_some_and(|lr| lr >= 0.0);
        if training.schedule == Some(Schedule::Linear) && !has_final {
            training.min_lr_ratio = Some(0.0);
            reasons.push(("min-lr-ratio", "a linear schedule falls to 0".to_owned()));
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
        let length = self.input.max_seq_length.unwrap_or(usize::MAX);
        let kept = facts
            .kept
            .map_or(data.rows(), |KeptRows(kept)| kept(length));
        if self.training.steps.unwrap_or(0) == 0 && self.training.epochs.is_none() {
            let epochs = match kept {
                0..2_000 => 3.0,
                2_000..10_000 => 2.0,
                _ => 1.0,
            };
            self.training.epochs = Some(epochs);
            reasons.push(("epochs", counted(kept, "row")));
        }
        self.derive_period(model, (data, kept), reasons);
    }

    /// Sets the active layers, and freezes embeddings and head, for a model of about the size of the
    /// study's. There, a third of the layers needed less memory than LoRA of rank 16; the mean loss
    /// was level with LoRA's on one task, and higher by 0.035 and 0.015 on two (docs/study.md). For
    /// larger models, and where a setting decides which parameters train, the paper's stay.
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
        let tokens = self.longest_trained(data, self.input.max_seq_length.unwrap_or(usize::MAX));
        let rows = self.training.batch_size.unwrap_or(1);
        let Some(active) = like_lora(rows, tokens) else {
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

    /// The tokens of the longest row that is trained on if rows have at most `limit` tokens.
    fn longest_trained(&self, data: &DataFacts, limit: usize) -> usize {
        if self.input.pack == Some(true) {
            limit
        } else {
            limit.min(data.longest())
        }
    }

    /// Sets the length of a row and the size of a batch.
    fn derive_shape(
        &mut self,
        model: &ModelFacts,
        data: &DataFacts,
        room: Option<&Room<'_>>,
        reasons: &mut Reasons,
    ) {
        let wanted = match self.input.max_seq_length {
            Some(given) => given.clamp(2, model.positions.max(2)),
            None => data.usual_length(model),
        };
        let longest = self.longest_trained(data, wanted);
        // Held-out rows are evaluated in batches of the same size. A length that is not given is raised to
        // theirs below, if they fit.
        let batched = match self.input.max_seq_length {
            Some(_) => longest.max(data.longest_held_out().min(wanted)),
            None => longest,
        };
        let fits = |rows, tokens| room.is_none_or(|room| room.fits(rows, tokens));
        let training = &mut self.training;
        if training.batch_size.is_none() {
            let accumulation = training.gradient_accumulation_steps;
            let halves = accumulation.is_none() && self.memory.update_in_backward != Some(true);
            let sizes: &[usize] = if halves { &[4, 2, 1] } else { &[4] };
            let rows = sizes.iter().copied().find(|rows| fits(*rows, batched));
            let rows = rows.unwrap_or(sizes[sizes.len() - 1]);
            training.batch_size = Some(rows);
            if rows < 4 {
                training.gradient_accumulation_steps = Some(4 / rows);
                let reason = format!("4 rows of {batched} tokens do not fit into memory");
                reasons.push(("batch-size", reason.clone()));
                reasons.push(("gradient-accumulation-steps", reason));
            }
        }
        if self.input.max_seq_length.is_some() {
            return;
        }
        let rows = training.batch_size.unwrap_or(1);
        let fits_all = fits(rows, longest);
        let mut length = if fits_all {
            wanted
        } else {
            longest_that_fits(longest, |tokens| fits(rows, tokens))
        };
        let mut reason = format!(
            "99th percentile of the data {}, longest row {}",
            data.percentile(0.99),
            data.longest()
        );
        let held_out = data.longest_held_out().min(model.positions);
        if held_out > wanted {
            reason += &format!(", longest held-out row {}", data.longest_held_out());
        }
        reason += &format!("; the model's limit {}", model.positions);
        if !fits_all {
            reason += &format!("; {longest} does not fit into memory");
        } else if held_out > wanted {
            // Evaluation has no gradients, so what training rows of this length need is enough. Training
            // rows that become longer with the limit must not be much longer than nearly all others.
            let lengthens = self.longest_trained(data, held_out) > longest;
            if !fits(rows, held_out) {
                reason += &format!("; {held_out} does not fit into memory");
            } else if !lengthens || data.is_usual(held_out) {
                length = held_out;
            }
        }
        if let Some(room) = room
            && let Some(needed) = (room.needs)(rows, self.longest_trained(data, length))
        {
            reason += &format!("; planned {} of {}", size(needed), size(room.bytes));
        }
        self.input.max_seq_length = Some(length);
        reasons.push(("max-seq-length", reason));
    }

    /// Sets the sampling period: at most [`PERIOD`], shorter in a run that would otherwise end before
    /// each layer could have had its turn. `kept` is the number of training rows that are not left out.
    fn derive_period(
        &mut self,
        model: &ModelFacts,
        (data, kept): (&DataFacts, usize),
        reasons: &mut Reasons,
    ) {
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
                    (Some(true), Some(length)) => {
                        let packed = data.packed(length).saturating_mul(kept);
                        packed.div_ceil(data.rows())
                    }
                    _ => kept,
                };
                (epochs * all.div_ceil(rows.max(1)) as f64).ceil() as usize
            }
            steps => steps,
        };
        let active = self.method.active_layers.unwrap_or(2);
        let turns = steps.saturating_mul(active) / model.layers.max(1);
        let warmup = self.method.layer_warmup.unwrap_or(0);
        let shortest = (steps / PERIODS).clamp(1, SHORTEST_PERIOD);
        // Below the steps, so that layers are sampled more than once.
        let longest = PERIOD.min(steps.saturating_sub(1)).max(shortest);
        let own = turns.clamp(shortest, longest);
        let period = own.max(warmup);
        self.method.period = Some(period);
        let run = counted(steps, "step");
        let layers = counted(model.layers, "layer");
        let reason = if period > own {
            "as long as --layer-warmup".to_owned()
        } else if turns < shortest {
            format!("the shortest: about {run} are too few for a turn of each of {layers}")
        } else if period < PERIOD {
            format!("so that each of {layers} can have a turn in about {run}")
        } else {
            return;
        };
        reasons.push(("period", reason));
    }
}

/// The largest multiple of [`BLOCK`] below `wanted` that fits; the smallest one if none fits.
fn longest_that_fits(wanted: usize, fits: impl Fn(usize) -> bool) -> usize {
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
