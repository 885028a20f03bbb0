//! [`like_lora`]: how many layers LISA trains in the memory of LoRA.

use anyhow::Result;

use super::planned::Planner;
use crate::settings::{Method, OUTER, Settings, default_active_layers};

/// The rank of LoRA with which LISA is compared.
const RANK: usize = 16;

/// How many layers LISA can train with embeddings and head frozen in the memory that LoRA of rank 16 needs
/// for batches of `rows` rows of `tokens` tokens, or in `bytes`: at most a third of them, as in the study, and
/// at least two.
pub(crate) fn like_lora(
    planner: Planner<'_>,
    settings: &Settings,
    (rows, tokens): (usize, usize),
    bytes: Option<u64>,
) -> Result<usize> {
    let needed = |settings: &Settings| planner.needed(settings, rows, tokens);
    let layers = planner.model.num_layers();
    let mut lora = settings.clone();
    lora.method.method = Method::Lora;
    (lora.method.lora_rank, lora.method.lora_alpha) = (RANK, 2.0 * RANK as f64);
    let limit = needed(&lora)?.min(bytes.unwrap_or(u64::MAX));
    let mut lisa = settings.clone();
    let (least, most) = (default_active_layers(layers), most_like_lora(layers));
    for active_layers in (least + 1..=most).rev() {
        set_layers(&mut lisa, active_layers);
        if needed(&lisa)? <= limit {
            return Ok(active_layers);
        }
    }
    Ok(least)
}

/// Sets the number of active layers, and freezes embeddings and head.
pub(crate) fn set_layers(settings: &mut Settings, active_layers: usize) {
    settings.method.active_layers = active_layers;
    settings.method.freeze = OUTER.map(str::to_owned).to_vec();
}

/// The most layers that [`like_lora`] returns for a model with `layers` layers.
pub(crate) fn most_like_lora(layers: usize) -> usize {
    (layers / 3).max(default_active_layers(layers))
}

#[cfg(test)]
mod tests {
    use lisa_lm::ModelConfig;
    use lisa_lm::model::config::LlamaConfig;

    use burn::tensor::Device;

    use super::*;
    use crate::settings::Flags;

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
        let planner = Planner::new(&model, &device);
        let settings = Flags::default().resolve(None).unwrap();
        let of = |rows, tokens, bytes| {
            let found = like_lora(planner, &settings, (rows, tokens), bytes);
            found.unwrap()
        };
        let needed = |active_layers: Option<usize>, rows, tokens| {
            let mut settings = settings.clone();
            if let Some(active_layers) = active_layers {
                set_layers(&mut settings, active_layers);
            } else {
                settings.method.method = Method::Lora;
                settings.method.lora_rank = RANK;
            }
            planner.needed(&settings, rows, tokens).unwrap()
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
