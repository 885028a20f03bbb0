//! [`settle`]: reads the data, and settles the settings that follow from the model and the data.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use super::data::{self, Data};
use super::fitting::warnings;
use super::hardware::Hardware;
use super::planned::{Planned, room};
use crate::settings::{
    DataFacts, Dtype, Facts, Flags, LikeLora, Method, ModelFacts, OUTER, Origins, Room, Settings,
    default_active_layers,
};
use crate::terminal::output::warn;

/// The shapes of a model, and what settings follow from.
pub(crate) struct Shapes {
    pub(crate) facts: ModelFacts,
    /// Its parameters are lazy: nothing is allocated.
    pub(crate) model: CausalLm,
}

impl Shapes {
    pub(crate) fn of(checkpoint: &Checkpoint, device: &Device) -> Result<Self> {
        let config = checkpoint.config();
        let model = config.init(&device.clone().autodiff())?;
        let facts = ModelFacts {
            dtype: Dtype::stored(checkpoint),
            parameters: model.num_parameters(),
            layers: model.num_layers(),
            positions: config.max_positions(),
        };
        Ok(Self { facts, model })
    }

    /// The settings as far as they do not depend on the data.
    pub(crate) fn settings(&self, flags: Flags) -> Result<Settings> {
        let facts = Facts {
            model: Some(&self.facts),
            ..Facts::default()
        };
        Ok(flags.resolve_with(facts)?.0)
    }

    /// Reads the data, settles what follows from it, and prints a warning if the run does not fit into
    /// memory. Rows that are larger than `--data-memory` are in a file in `folder`.
    pub(crate) fn settle(
        &self,
        flags: Flags,
        settings: &Settings,
        tokenizer: Tokenizer,
        checkpoint: &Checkpoint,
        device: &Device,
        folder: &Path,
    ) -> Result<Settled> {
        // Smaller batches than those of the settings are accumulated.
        let derives = flags.training.batch_size.is_none()
            && flags.training.gradient_accumulation_steps.is_none()
            && !settings.memory.update_in_backward;
        let needs = |rows: usize, tokens: usize| {
            let mut settings = settings.clone();
            if derives {
                let batches = settings.training.batch_size.div_ceil(rows.max(1));
                settings.training.gradient_accumulation_steps = batches;
            }
            let plan = Planned::of(&settings, &self.model, device, rows, tokens);
            plan.ok().map(|plan| plan.needed())
        };
        let bytes = room(settings, device);
        let room = bytes.map(|bytes| Room {
            bytes,
            needs: &needs,
        });
        let like_lora = |rows, tokens| {
            let found = like_lora(settings, &self.model, device, (rows, tokens), bytes);
            found.ok()
        };
        let facts = Facts {
            model: Some(&self.facts),
            data: None,
            room: room.as_ref(),
            like_lora: Some(LikeLora(&like_lora)),
        };
        let settled = settle(flags, settings, tokenizer, checkpoint, facts, folder)?;
        let (settings, tokens) = (&settled.settings, settled.data.longest(&settled.settings));
        for warning in warnings(settings, &self.model, device, tokens, bytes)? {
            warn(warning);
        }
        Ok(settled)
    }
}

/// How many layers LISA can train with embeddings and head frozen in the memory that LoRA of rank 16 needs
/// for batches of so many rows and tokens, or in `bytes`: at most a third of them, as in the study, and at
/// least two.
pub(crate) fn like_lora(
    settings: &Settings,
    model: &CausalLm,
    hardware: impl Into<Hardware>,
    (rows, tokens): (usize, usize),
    bytes: Option<u64>,
) -> Result<usize> {
    let hardware = hardware.into();
    let needed = |settings: &Settings| -> Result<u64> {
        Ok(Planned::of(settings, model, hardware, rows, tokens)?.needed())
    };
    let mut lora = settings.clone();
    lora.method.method = Method::Lora;
    (lora.method.lora_rank, lora.method.lora_alpha) = (RANK, 2.0 * RANK as f64);
    let limit = needed(&lora)?.min(bytes.unwrap_or(u64::MAX));
    let mut lisa = settings.clone();
    lisa.method.freeze = OUTER.map(str::to_owned).to_vec();
    let least = default_active_layers(model.num_layers());
    let most = (model.num_layers() / 3).max(least);
    for active_layers in (least + 1..=most).rev() {
        lisa.method.active_layers = active_layers;
        if needed(&lisa)? <= limit {
            return Ok(active_layers);
        }
    }
    Ok(least)
}

/// The rank of LoRA with which LISA is compared.
const RANK: usize = 16;

/// The settings of a run with its data.
pub(crate) struct Settled {
    pub(crate) settings: Settings,
    /// Where the settings come from.
    pub(crate) origins: Origins,
    pub(crate) data: Data,
    /// The tokenizer as the data needs it.
    pub(crate) tokenizer: Tokenizer,
}

/// Reads the data with these settings, settles what follows from it, and cuts the rows to the length
/// that was settled.
pub(crate) fn settle(
    flags: Flags,
    settings: &Settings,
    tokenizer: Tokenizer,
    checkpoint: &Checkpoint,
    facts: Facts<'_>,
    folder: &Path,
) -> Result<Settled> {
    let longest = flags.input.max_seq_length.unwrap_or(usize::MAX);
    let positions = facts.model.map_or(usize::MAX, |model| model.positions);
    let longest = longest.min(positions).max(2);
    let whole = data::read(settings, tokenizer, longest, folder)?;
    flags.check_effect_on(whole.contents(), settings)?;
    let data = DataFacts::of(whole.lengths().to_vec());
    let data = data.as_ref();
    let (settings, origins) = flags.resolve_with(Facts { data, ..facts })?;
    let (data, tokenizer) = whole.cut(&settings, checkpoint)?;
    Ok(Settled {
        settings,
        origins,
        data,
        tokenizer,
    })
}

#[cfg(test)]
mod tests {
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;

    #[test]
    fn as_many_layers_train_as_fit_into_the_memory_of_lora() {
        // The shape of SmolLM2; nothing is allocated.
        let config = LlamaConfig {
            num_key_value_heads: 3,
            intermediate_size: 1536,
            tie_word_embeddings: true,
            ..LlamaConfig::new(49_152, 576, 30, 9)
        };
        let device = Device::default().autodiff();
        let model = ModelConfig::Llama(config).init(&device).unwrap();
        let settings = Flags::default().resolve(None).unwrap();
        let of = |rows, tokens, bytes| {
            let found = like_lora(&settings, &model, &device, (rows, tokens), bytes);
            found.unwrap()
        };
        let needed = |active_layers: Option<usize>, rows, tokens| {
            let mut settings = settings.clone();
            if let Some(active_layers) = active_layers {
                settings.method.active_layers = active_layers;
                settings.method.freeze = OUTER.map(str::to_owned).to_vec();
            } else {
                settings.method.method = Method::Lora;
                settings.method.lora_rank = RANK;
            }
            let plan = Planned::of(&settings, &model, &device, rows, tokens);
            plan.unwrap().needed()
        };
        // With much activation memory, a third of the layers.
        assert_eq!(of(4, 512, None), 10);
        assert!(needed(Some(10), 4, 512) <= needed(None, 4, 512));
        // With little, as many as fit, and at least two.
        let some = of(1, 256, None);
        assert!((3..10).contains(&some), "{some}");
        assert!(needed(Some(some), 1, 256) <= needed(None, 1, 256));
        assert!(needed(Some(some + 1), 1, 256) > needed(None, 1, 256));
        assert_eq!(of(1, 2, None), 2);
        // Less memory than LoRA needs.
        let bytes = needed(Some(6), 4, 512);
        assert_eq!(of(4, 512, Some(bytes)), 6);
    }
}
