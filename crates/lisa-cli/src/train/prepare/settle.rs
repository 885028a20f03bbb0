//! [`settle`]: reads the data, and settles the settings that follow from the model and the data.

use std::path::Path;

use anyhow::Result;
use burn::tensor::Device;
use lisa_lm::{CausalLm, Checkpoint, Tokenizer};

use crate::settings::{
    Contents, DataFacts, Facts, Flags, KeptRows, LikeLora, ModelFacts, Origins, Room, Settings,
};
use crate::train::data::examples::For;
use crate::train::data::read::{WholeData, read};
use crate::train::data::rows::Data;
use crate::train::memory::check::{Kept, check_rows, check_rows_of_model};
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
        let model = checkpoint.config().init(&device.clone().autodiff())?;
        let facts = ModelFacts::of(checkpoint, &model)?;
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

    /// As [`Unread::settle`] with the facts of this model, and with checks of the memory.
    pub(crate) fn settle(&self, run: Unread<'_>, device: &Device) -> Result<Settled> {
        let (flags, settings, checkpoint) = (run.flags.clone(), run.settings, run.checkpoint);
        let uncut = self.with_facts(&flags, settings, device, |facts| run.read(facts))?;
        let length = uncut.settings.input.max_seq_length;
        let kept = uncut.kept(length);
        if flags.input.max_seq_length.is_none() {
            let positions = self.facts.positions;
            check_rows_of_model(positions, uncut.kept(positions), (length, kept))?;
        }
        check_rows(self.planner(device), &uncut.settings, uncut.usual, kept)?;
        uncut.cut(checkpoint)
    }

    /// Calls `then` with what is known of the model and the memory before the data is read.
    fn with_facts<T>(
        &self,
        flags: &Flags,
        settings: &Settings,
        device: &Device,
        then: impl FnOnce(Facts<'_>) -> T,
    ) -> T {
        // Batches that are smaller than in the settings are accumulated.
        let derives = flags.training.batch_size.is_none()
            && flags.training.gradient_accumulation_steps.is_none()
            && !settings.memory.update_in_backward;
        let of_batch = |rows: usize| {
            let mut settings = settings.clone();
            if derives {
                let batches = settings.training.batch_size.div_ceil(rows.max(1));
                settings.training.gradient_accumulation_steps = batches;
            }
            settings
        };
        let planner = self.planner(device);
        let bytes = planner.room(settings);
        let like_lora =
            |rows, tokens| like_lora(planner, &of_batch(rows), (rows, tokens), bytes).ok();
        let counts_layers =
            flags.method.active_layers.is_none() && flags.trains_like_lora(&self.facts);
        let needs = |rows: usize, tokens: usize| {
            let mut settings = of_batch(rows);
            if counts_layers && let Some(active) = like_lora(rows, tokens) {
                set_layers(&mut settings, active);
            }
            planner.needed(&settings, rows, tokens).ok()
        };
        let room = bytes.map(|bytes| Room {
            bytes,
            needs: &needs,
        });
        then(Facts {
            model: Some(&self.facts),
            data: None,
            kept: None,
            room: room.as_ref(),
            like_lora: Some(LikeLora(&like_lora)),
        })
    }
}

/// The settings of a run before its data is read.
pub(crate) struct Unread<'a> {
    pub(crate) flags: Flags,
    /// All settings, as far as they do not depend on the data.
    pub(crate) settings: &'a Settings,
    pub(crate) checkpoint: &'a Checkpoint,
    pub(crate) tokenizer: Tokenizer,
    /// Rows that are larger than `--data-memory` are in a file in this folder.
    pub(crate) folder: &'a Path,
}

/// The settings of a run with its data.
pub(crate) struct Settled {
    pub(crate) settings: Settings,
    /// Where the settings come from.
    pub(crate) origins: Origins,
    pub(crate) data: Data,
    /// What the data has, before pairs are rendered as chats.
    pub(crate) contents: Contents,
    /// The tokenizer as the data needs it.
    pub(crate) tokenizer: Tokenizer,
}

/// The settings of a run, and its data before the rows are cut.
struct Uncut {
    whole: WholeData,
    settings: Settings,
    origins: Origins,
    /// The length of rows without regard to memory: `--max-seq-length` if it was given.
    usual: usize,
}

impl Unread<'_> {
    /// Reads the data, settles what follows from it, and cuts the rows to the length that was settled.
    pub(crate) fn settle(self, facts: Facts<'_>) -> Result<Settled> {
        let checkpoint = self.checkpoint;
        self.read(facts)?.cut(checkpoint)
    }

    fn read(self, facts: Facts<'_>) -> Result<Uncut> {
        let (flags, settings) = (self.flags, self.settings);
        let given = flags.input.max_seq_length;
        let positions = facts.model.map_or(usize::MAX, |model| model.positions);
        let longest = given.unwrap_or(usize::MAX).min(positions).max(2);
        let whole = read(
            settings,
            self.tokenizer,
            longest,
            self.folder,
            For::Training,
        )?;
        flags.check_effect_on(whole.contents(), settings)?;
        // Rows that are not evaluated need no length.
        let held_out = whole.held_out_lengths().iter().copied();
        let held_out = held_out.max().filter(|_| !settings.output.no_eval);
        let data = DataFacts::of(whole.lengths().to_vec())
            .map(|data| data.with_held_out(held_out.unwrap_or_default()));
        let data = data.as_ref();
        let kept = |length| whole.kept(length)[0].0;
        let kept = Some(KeptRows(&kept));
        let facts = Facts {
            data,
            kept,
            ..facts
        };
        let (settings, origins) = flags.resolve_with(facts)?;
        let usual = match (given, facts.model, data) {
            (None, Some(model), Some(data)) => data.usual_length(model),
            _ => settings.input.max_seq_length,
        };
        Ok(Uncut {
            whole,
            settings,
            origins,
            usual,
        })
    }
}

impl Uncut {
    /// The rows that have a trained token within `limit` tokens. Held-out rows that are not evaluated do not
    /// count.
    fn kept(&self, limit: usize) -> Kept {
        let [training, held_out] = self.whole.kept(limit);
        let is_evaluated = !self.settings.output.no_eval;
        Kept {
            training,
            held_out: if is_evaluated { held_out } else { (0, 0) },
        }
    }

    fn cut(self, checkpoint: &Checkpoint) -> Result<Settled> {
        let contents = self.whole.contents();
        let (data, tokenizer) = self.whole.cut(&self.settings, checkpoint)?;
        Ok(Settled {
            settings: self.settings,
            origins: self.origins,
            data,
            contents,
            tokenizer,
        })
    }
}

#[cfg(test)]
mod tests {
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use super::*;

    /// The shapes of SmolLM2; nothing is allocated.
    fn smollm2(device: &Device) -> Shapes {
        let config = LlamaConfig {
            num_key_value_heads: 3,
            intermediate_size: 1536,
            tie_word_embeddings: true,
            ..LlamaConfig::new(49_152, 576, 30, 9)
        };
        let model = ModelConfig::Llama(config);
        let model = model.init(&device.clone().autodiff()).unwrap();
        let facts = ModelFacts {
            dtype: None,
            parameters: model.num_parameters(),
            layers: model.num_layers(),
            positions: 8192,
        };
        Shapes { facts, model }
    }

    /// Not those of `lisa demo`.
    fn flags() -> Flags {
        let mut flags = Flags::default();
        flags.input.model = Some("model".into());
        flags.input.data = Some(vec!["data".into()]);
        flags
    }

    /// The settings for rows of 507 tokens in `gib` GiB of memory.
    fn derived(shapes: &Shapes, device: &Device, gib: f64) -> Settings {
        let mut flags = flags();
        flags.memory.memory = Some(gib);
        let settings = shapes.settings(flags.clone()).unwrap();
        let data = DataFacts::of(vec![507; 360]);
        let data = data.as_ref();
        shapes.with_facts(&flags.clone(), &settings, device, |facts| {
            flags.resolve_with(Facts { data, ..facts }).unwrap().0
        })
    }

    #[test]
    fn fewer_layers_come_before_smaller_batches_and_shorter_rows() {
        let device = Device::default();
        let shapes = smollm2(&device);
        let planner = shapes.planner(&device);
        let needed = |settings: &Settings, rows| planner.needed(settings, rows, 507).unwrap();
        // The least memory that the rule allows for batches of `rows` rows.
        let least = |rows: usize| {
            let mut settings = flags().resolve(None).unwrap();
            set_layers(&mut settings, 2);
            settings.training.batch_size = rows;
            settings.training.gradient_accumulation_steps = 4 / rows;
            needed(&settings, rows)
        };
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        for rows in [1, 2, 4] {
            // A mebibyte more, for the rounding of the memory.
            let bytes = least(rows) + (1 << 20);
            let settings = derived(&shapes, &device, gib(bytes));
            let training = &settings.training;
            let shape = (training.batch_size, training.gradient_accumulation_steps);
            assert_eq!(shape, (rows, 4 / rows));
            assert_eq!(settings.input.max_seq_length, 507, "{rows}");
            assert!(needed(&settings, rows) <= bytes, "{rows}");
        }
        // With more memory, as many layers as fit with the gradients that are accumulated.
        let settings = derived(&shapes, &device, gib(least(2) + (80 << 20)));
        let active = settings.method.active_layers;
        assert_eq!(settings.training.batch_size, 2);
        assert!((3..10).contains(&active), "{active}");
        // Shorter rows are the last resort.
        let settings = derived(&shapes, &device, gib(least(1) - (1 << 20)));
        assert_eq!(settings.training.batch_size, 1);
        assert_eq!(settings.method.active_layers, 2);
        assert!((320..507).contains(&settings.input.max_seq_length));
    }
}
