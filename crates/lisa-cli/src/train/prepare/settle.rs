//! [`settle`]: reads the data, and settles the settings that follow from the model and the data.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::settings::{
    DataFacts, Dtype, Facts, Flags, LikeLora, ModelFacts, Origins, Room, Settings,
};
use crate::train::data::examples::For;
use crate::train::data::read::read;
use crate::train::data::rows::Data;
use crate::train::memory::like_lora::{like_lora, set_layers};
use crate::train::memory::planned::Planner;

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
            dtype: Dtype::stored(checkpoint)?,
            parameters: model.num_parameters(),
            layers: model.num_layers(),
            positions: config.max_positions(),
        };
        Ok(Self { facts, model })
    }

    /// Plans runs of the model.
    pub(crate) fn planner(&self, device: &Device) -> Planner<'_> {
        Planner::new(&self.model, device)
    }

    /// The settings as far as they do not depend on the data.
    pub(crate) fn settings(&self, flags: Flags) -> Result<Settings> {
        let facts = Facts {
            model: Some(&self.facts),
            ..Facts::default()
        };
        Ok(flags.resolve_with(facts)?.0)
    }

    /// Reads the data, and settles what follows from it. Rows that are larger than `--data-memory` are in a
    /// file in `folder`.
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
        let planner = self.planner(device);
        let bytes = planner.room(settings);
        let like_lora = |rows, tokens| like_lora(planner, settings, (rows, tokens), bytes).ok();
        let counts_layers =
            flags.method.active_layers.is_none() && flags.trains_like_lora(&self.facts);
        let needs = |rows: usize, tokens: usize| {
            let mut settings = settings.clone();
            if counts_layers && let Some(active) = like_lora(rows, tokens) {
                set_layers(&mut settings, active);
            }
            if derives {
                let batches = settings.training.batch_size.div_ceil(rows.max(1));
                settings.training.gradient_accumulation_steps = batches;
            }
            planner.needed(&settings, rows, tokens).ok()
        };
        let room = bytes.map(|bytes| Room {
            bytes,
            needs: &needs,
        });
        let facts = Facts {
            model: Some(&self.facts),
            data: None,
            room: room.as_ref(),
            like_lora: Some(LikeLora(&like_lora)),
        };
        settle(flags, settings, tokenizer, checkpoint, facts, folder)
    }
}

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
    let whole = read(settings, tokenizer, longest, folder, For::Training)?;
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
