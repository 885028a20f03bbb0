//! [`Method`]: the ways to train that are compared.

use burn::module::ParamGroup;
use burn::optim::AdamWConfig;
use clap::ValueEnum;
use lisa::recompute::Recompute;
use lisa::{FrozenWeights, LisaConfig, OnFreeze};
use lisa_lm::CausalLm;
use serde::{Deserialize, Serialize};

use crate::settings::Settings;
use lisa_cli::display_as_value;

/// A way to train.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Method {
    /// AdamW on all parameters, as `lisa train --method full`: LISA with all layers active
    Full,
    /// Burn's own LoRA, on all matrices
    LoraBurn,
    /// LoRA as a side path, on all matrices
    Lora,
    /// LoRA as a side path, with layer-wise recomputation and updates during the backward pass
    LoraRecompute,
    /// LISA
    Lisa,
    /// LISA that keeps the optimizer state of frozen layers, as LMFlow does
    LisaKeep,
    /// LISA with the optimizer state of frozen layers in host memory
    LisaOffload,
    /// LISA with layer-wise recomputation and updates during the backward pass
    LisaRecompute,
    /// LISA with recomputation of several layers at a time
    LisaRecomputeSegments,
    /// LISA with embeddings and head frozen
    LisaFrozenEmbeddings,
    /// LISA with recomputation, and embeddings and head frozen
    LisaRecomputeFrozenEmbeddings,
    /// LISA with recomputation and frozen layers in int8
    LisaInt8,
    /// LISA with recomputation and frozen layers in int4
    LisaInt4,
    /// LISA with recomputation of several layers at a time and frozen layers in int4
    LisaInt4Segments,
    /// PyTorch: AdamW on all parameters
    TorchFull,
    /// PyTorch: PEFT's LoRA, on all matrices
    TorchLora,
    /// PyTorch: LISA that drops the optimizer state of frozen layers
    TorchLisa,
}

display_as_value!(Method);

impl Method {
    pub(crate) fn is_torch(self) -> bool {
        matches!(self, Self::TorchFull | Self::TorchLora | Self::TorchLisa)
    }

    /// Whether it runs where no methods are named.
    pub(crate) fn is_default(self) -> bool {
        let others = [
            Self::LoraRecompute,
            Self::LisaKeep,
            Self::LisaOffload,
            Self::LisaRecomputeSegments,
            Self::LisaInt4Segments,
        ];
        !others.contains(&self)
    }

    /// Whether frozen layers are quantized: the model is then initialized in host memory.
    pub(crate) fn quantizes(self) -> bool {
        matches!(
            self,
            Self::LisaInt8 | Self::LisaInt4 | Self::LisaInt4Segments
        )
    }

    pub(crate) fn recomputes(self) -> bool {
        let plain = matches!(
            self,
            Self::LoraRecompute
                | Self::LisaRecompute
                | Self::LisaRecomputeSegments
                | Self::LisaRecomputeFrozenEmbeddings
        );
        plain || self.quantizes()
    }

    /// How it recomputes. With frozen embeddings the backward pass of one layer needs the most memory,
    /// and recomputation of parts of a layer is worth its time.
    pub(crate) fn recompute(self, layers: usize) -> Recompute {
        match self {
            Self::LisaRecomputeFrozenEmbeddings => {
                Recompute::new().with_every(layers.isqrt()).with_sublayers()
            }
            Self::LisaRecomputeSegments | Self::LisaInt4Segments => {
                Recompute::new().with_every(layers.isqrt())
            }
            _ => Recompute::new(),
        }
    }

    /// The configuration of LISA for this method on a model with so many layers.
    pub(crate) fn lisa_config(self, settings: &Settings, layers: usize) -> LisaConfig {
        let freezes = matches!(
            self,
            Self::LisaFrozenEmbeddings | Self::LisaRecomputeFrozenEmbeddings
        );
        let outer = CausalLm::OUTER.to_vec();
        LisaConfig::new()
            .with_active_layers(match self {
                Self::Full | Self::Lora | Self::LoraRecompute => layers,
                _ => settings.active_layers,
            })
            .with_sampling_period(settings.period)
            .with_seed(settings.seed)
            .with_master_weights(!settings.no_master_weights)
            .with_on_freeze(match self {
                Self::LisaKeep => OnFreeze::Keep,
                Self::LisaOffload => OnFreeze::Offload,
                _ => OnFreeze::Drop,
            })
            .with_frozen_weights(match self {
                Self::LisaInt8 => FrozenWeights::Int8,
                Self::LisaInt4 | Self::LisaInt4Segments => FrozenWeights::Int4,
                _ => FrozenWeights::Exact,
            })
            .with_max_grad_norm((settings.max_grad_norm > 0.0).then_some(settings.max_grad_norm))
            .with_frozen(freezes.then(|| ParamGroup::from_any_predicates(outer)))
    }
}

/// The optimizer of all methods, with PyTorch's settings.
pub(crate) fn adamw() -> AdamWConfig {
    AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
}
