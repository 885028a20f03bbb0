//! Shapes of models that people train.

use anyhow::Result;
use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::{Device, FloatDType, Tensor};
use clap::ValueEnum;
use lisa_lm::{CausalLm, Gpt2Config, LlamaConfig, ModelConfig};

use crate::settings::{Dtype, Settings, display_as_value};

/// A shape; the weights are random.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Preset {
    /// One layer, to see what a process needs without a model
    Tiny,
    /// 16 layers, hidden 768, 12 heads, feed-forward 2048, vocabulary 8192: 126 M parameters
    Small,
    /// GPT-2, 124 M parameters
    Gpt2,
    /// TinyLlama, 1.1 B parameters
    Tinyllama,
    /// Llama 2, 6.7 B parameters
    #[value(name = "llama2-7b")]
    Llama2_7b,
    /// Llama 2, 69 B parameters
    #[value(name = "llama2-70b")]
    Llama2_70b,
}

display_as_value!(Preset);

impl Preset {
    /// The configuration, with all widths divided by `shrink`.
    pub(crate) fn config(self, shrink: usize) -> ModelConfig {
        let llama = |vocab, hidden, layers, [heads, kv]: [usize; 2], inner| {
            let per = |n: usize| (n / shrink).max(1);
            let heads_now = per(heads);
            let mut config = LlamaConfig::new(per(vocab), per(hidden), layers, heads_now);
            // At least one key head, and a number that divides that of the heads.
            config.num_key_value_heads = heads_now / (heads / kv).min(heads_now);
            config.head_dim = (per(hidden) / heads_now / 2 * 2).max(2);
            // Whole blocks, so that what is quantized at full size is quantized here.
            let block = if shrink > 1 { 32 } else { 1 };
            config.intermediate_size = per(inner).next_multiple_of(block);
            config.rms_norm_eps = 1e-5;
            ModelConfig::Llama(config)
        };
        match self {
            Self::Tiny => llama(64, 16, 2, [2, 2], 16),
            Self::Small => llama(8192, 768, 16, [12, 12], 2048),
            Self::Tinyllama => llama(32000, 2048, 22, [32, 4], 5632),
            Self::Llama2_7b => llama(32000, 4096, 32, [32, 32], 11008),
            Self::Llama2_70b => llama(32000, 8192, 80, [64, 8], 28672),
            Self::Gpt2 => {
                let width = 768 / shrink;
                ModelConfig::Gpt2(Gpt2Config::new(
                    50257 / shrink,
                    width,
                    12,
                    12 / shrink.min(12),
                ))
            }
        }
    }
}

/// The model that all methods start from.
pub(crate) fn model(settings: &Settings, device: &Device) -> Result<CausalLm> {
    device.seed(settings.seed);
    let config = settings.preset.config(settings.shrink);
    let model = config.init(device)?;
    // Parameter by parameter: they come to be one at a time, in the type that is asked for.
    Ok(model.map(&mut Cast(dtype(settings))))
}

/// The type of the weights.
pub(crate) fn dtype(settings: &Settings) -> FloatDType {
    match settings.dtype {
        Dtype::F32 => FloatDType::F32,
        Dtype::Bf16 => FloatDType::BF16,
        Dtype::F16 => FloatDType::F16,
    }
}

struct Cast(FloatDType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let (id, tensor, mapper) = param.consume();
        // In this order: what is cast behind a detached tensor hangs on it.
        let tensor = tensor.cast(self.0).detach();
        let trains = tensor.device().is_autodiff();
        let tensor = if trains {
            tensor.require_grad()
        } else {
            tensor
        };
        Param::from_mapped_value(id, tensor, mapper)
    }
}

/// The tokens of all steps, in a chain that can be learnt: most follow from the one before, one in
/// sixteen starts anew.
pub(crate) fn tokens(settings: &Settings) -> Vec<u32> {
    let vocabulary = settings
        .preset
        .config(settings.shrink)
        .vocab_size()
        .min(512) as u64;
    let mut state = settings.seed;
    // SplitMix64.
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let mut token = next() % vocabulary;
    (0..settings.steps * settings.batch * settings.sequence)
        .map(|_| {
            let draw = next();
            token = if draw.is_multiple_of(16) {
                (draw >> 32) % vocabulary
            } else {
                (31 * token + 7) % vocabulary
            };
            token as u32
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::DType;
    use clap::Parser;

    use super::*;
    use crate::settings::Cli;

    #[test]
    fn presets_have_the_sizes_they_are_known_by() {
        let millions = |preset: Preset| {
            let device = Device::default();
            let model = preset.config(1).init(&device).unwrap();
            (model.num_parameters() as f64 / 1e6).round() as usize
        };
        let found = [
            Preset::Small,
            Preset::Gpt2,
            Preset::Tinyllama,
            Preset::Llama2_7b,
            Preset::Llama2_70b,
        ]
        .map(millions);
        assert_eq!(found, [126, 124, 1100, 6738, 68977]);
    }

    #[test]
    fn a_model_in_half_precision_is_made_of_leaves_that_train() {
        let words = ["compare", "--preset", "tiny", "--dtype", "bf16"];
        let settings = Cli::try_parse_from(words).unwrap().settings;
        let device = Device::flex().autodiff();
        let model = model(&settings, &device).unwrap();
        let map = lisa::LayerMap::find(&model).unwrap();
        let bf16 = |p: &lisa::layers::Parameter| p.trainable && p.dtype == DType::BF16;
        assert!(map.parameters().iter().all(bf16));
    }

    #[test]
    fn shrunk_presets_are_valid() {
        for preset in Preset::value_variants() {
            for shrink in [2, 4, 8, 32, 64] {
                let config = preset.config(shrink);
                config.validate().unwrap();
                assert_eq!(config.num_layers(), preset.config(1).num_layers());
            }
        }
    }

    #[test]
    fn shrunk_llamas_keep_their_matrices_quantizable() {
        for preset in [Preset::Tinyllama, Preset::Llama2_7b, Preset::Llama2_70b] {
            for shrink in [1, 8, 32, 64] {
                let ModelConfig::Llama(config) = preset.config(shrink) else {
                    panic!("`{preset}` is a Llama");
                };
                let kv = config.num_key_value_heads * config.head_dim;
                for width in [config.hidden_size, config.intermediate_size, kv] {
                    let scheme = lisa::FrozenWeights::Int8.scheme(&[8, width]);
                    assert!(scheme.is_some(), "`{preset}` / {shrink}: rows of {width}");
                }
            }
        }
    }
}
