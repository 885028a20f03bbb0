//! [`Preset`]: shapes of models that people train, and [`Dtype`].

use clap::ValueEnum;
use lisa_cli::display_as_value;
pub(crate) use lisa_cli::settings::Dtype;
use lisa_lm::ModelConfig;
use lisa_lm::model::config::{Gpt2Config, LlamaConfig};
use serde::{Deserialize, Serialize};

/// A model's shape; the weights are random.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Preset {
    /// Two layers of width 16, to measure what a process needs without a model
    Tiny,
    /// 16 layers, hidden 768, 12 heads, feed-forward 2048, vocabulary 8192: 126 M parameters
    Small,
    /// SmolLM2, 135 M parameters: 30 layers, hidden 576, 9 heads on 3 key heads, vocabulary 49152, tied
    Smollm2,
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
    /// The configuration, with the widths and the vocabulary divided by `shrink`.
    pub(crate) fn config(self, shrink: usize) -> ModelConfig {
        let llama = |vocab, hidden, layers, [heads, kv]: [usize; 2], inner| {
            let per = |n: usize| (n / shrink).max(1);
            let heads_now = per(heads);
            let mut config = LlamaConfig::new(per(vocab), per(hidden), layers, heads_now);
            // At least one key head, and a number that divides the number of heads.
            config.num_key_value_heads = heads_now / (heads / kv).min(heads_now);
            config.head_dim = (per(hidden) / heads_now / 2 * 2).max(2);
            // Whole blocks, so that the matrices that are quantized at full size are quantized here.
            let block = if shrink > 1 { 32 } else { 1 };
            config.intermediate_size = per(inner).next_multiple_of(block);
            config.rms_norm_eps = 1e-5;
            ModelConfig::Llama(config)
        };
        match self {
            Self::Tiny => llama(64, 16, 2, [2, 2], 16),
            Self::Small => llama(8192, 768, 16, [12, 12], 2048),
            Self::Smollm2 => smollm2(llama(49152, 576, 30, [9, 3], 1536)),
            Self::Tinyllama => llama(32000, 2048, 22, [32, 4], 5632),
            Self::Llama2_7b => llama(32000, 4096, 32, [32, 32], 11008),
            Self::Llama2_70b => llama(32000, 8192, 80, [64, 8], 28672),
            Self::Gpt2 => {
                let heads = 12 / shrink.min(12);
                ModelConfig::Gpt2(Gpt2Config::new(50257 / shrink, 768 / shrink, 12, heads))
            }
        }
    }
}

/// The same with the embedding as its head, and the positions of SmolLM2.
fn smollm2(mut config: ModelConfig) -> ModelConfig {
    if let ModelConfig::Llama(config) = &mut config {
        config.tie_word_embeddings = true;
        config.max_position_embeddings = 8192;
    }
    config
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn presets_have_the_sizes_they_are_known_by() {
        let millions = |preset: Preset| {
            let device = Device::default();
            let model = preset.config(1).init(&device).unwrap();
            (model.num_parameters() as f64 / 1e6).round() as usize
        };
        let found = [
            Preset::Small,
            Preset::Smollm2,
            Preset::Gpt2,
            Preset::Tinyllama,
            Preset::Llama2_7b,
            Preset::Llama2_70b,
        ]
        .map(millions);
        assert_eq!(found, [126, 135, 124, 1100, 6738, 68977]);
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
