//! [`Arm`]: a way to train, with all its settings.

use std::fmt;

use burn::module::ParamGroup;
use lisa::policy::{Budget, CyclicOrder, Gradient};
use lisa::{LisaConfig, OnFreeze, PolicyConfig};
use lisa_lm::CausalLm;
use serde::{Deserialize, Serialize};

/// The distance of the learning rates that are tried: half a power of ten, of which a rate counts eighths.
pub(crate) const STEP: i32 = 4;

/// A way to train. Its text is its name in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Arm {
    /// The model without training.
    Base,
    /// AdamW on all parameters.
    Full,
    /// LoRA as a side path at every linear layer of the blocks; alpha is twice the rank.
    Lora { rank: usize },
    /// LISA.
    Lisa(Sampled),
}

/// The settings of LISA.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sampled {
    /// Active layers (gamma).
    pub(crate) active_layers: usize,
    /// Steps of a period (K); 0: the layers are sampled once.
    pub(crate) period: usize,
    /// Embeddings and head train in every n-th period; 0: never.
    pub(crate) outer_every: usize,
    pub(crate) state: State,
    pub(crate) policy: Policy,
    /// Steps over which the learning rate of a layer that becomes active rises.
    pub(crate) layer_warmup: usize,
    /// Whether the learning rate of a layer is higher the longer it was frozen ([`catch_up`](super::catch_up)).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) catch_up: bool,
    /// Whether activations are recomputed, layer by layer, and layers updated in the backward pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) recompute: bool,
}

/// What happens to the optimizer state of a layer that freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    Drop,
    /// It stays in host memory until the layer is active again.
    Offload,
    /// The second moment stays in host memory; the first one starts again.
    Second,
}

/// How layers are sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Policy {
    Uniform,
    Cyclic,
    /// By the gradients of the active layers.
    Gradient,
    /// By the gradients, halves of layers, up to the size of gamma layers.
    Budget,
    /// By the mean norm of a layer's gradient over the square root of its size, before training (GRASS).
    MeanNorm,
    /// By the mean squared norm of a layer's gradient, before training (MISA).
    MeanSquare,
    /// By the decrease of the loss that a step of Adam is expected to cause, before training.
    LossDecrease,
}

impl Policy {
    /// Whether it samples by weights that are measured before training.
    pub(crate) fn is_measured_before(self) -> bool {
        matches!(self, Self::MeanNorm | Self::MeanSquare | Self::LossDecrease)
    }
}

impl Arm {
    /// LISA with so many active layers, and otherwise as the main rows have it.
    pub(crate) const fn lisa(active_layers: usize) -> Sampled {
        Sampled {
            active_layers,
            period: 10,
            outer_every: 1,
            state: State::Drop,
            policy: Policy::Uniform,
            layer_warmup: 0,
            catch_up: false,
            recompute: false,
        }
    }

    /// The lowest of the first candidates for the learning rate, as [`Job::rate`](super::job::Job::rate).
    pub(crate) fn first_rate(self) -> i32 {
        match self {
            Self::Base | Self::Full => 0,
            Self::Lisa(_) => STEP,
            Self::Lora { .. } => 2 * STEP,
        }
    }
}

impl Arm {
    /// Whether it differs from the main rows of LISA in what is active only.
    pub(crate) fn is_plain(self) -> bool {
        let Self::Lisa(sampled) = self else {
            return true;
        };
        let plain = Self::lisa(sampled.active_layers);
        let outer_every = sampled.outer_every;
        sampled
            == Sampled {
                outer_every,
                ..plain
            }
    }
}

impl Sampled {
    /// The configuration for a model of so many layers. The weights are those of a policy that
    /// [is measured before](Policy::is_measured_before).
    pub(crate) fn config(self, layers: usize, seed: u64, weights: Vec<f64>) -> LisaConfig {
        let outer = CausalLm::OUTER.to_vec();
        let active_layers = self.active_layers.min(layers);
        let config = LisaConfig::new()
            .with_seed(seed)
            .with_active_layers(active_layers)
            .with_sampling_period(match self.period {
                0 => usize::MAX,
                period => period,
            })
            .with_layer_warmup((self.layer_warmup > 0).then_some(self.layer_warmup))
            .with_outer_every((self.outer_every > 1).then_some(self.outer_every))
            .with_on_freeze(match self.state {
                State::Drop => OnFreeze::Drop,
                State::Offload | State::Second => OnFreeze::Offload,
            })
            .with_frozen((self.outer_every == 0).then(|| ParamGroup::from_any_predicates(outer)));
        let share = active_layers as f64 / layers as f64;
        match self.policy {
            Policy::Uniform => config,
            Policy::Cyclic => config.with_policy(PolicyConfig::Cyclic(CyclicOrder::Reshuffled)),
            Policy::Gradient => config.with_policy(PolicyConfig::Gradient(Gradient::new())),
            Policy::Budget => config
                .with_policy(PolicyConfig::Budget(Budget::new().with_share(share)))
                .with_split(vec!["attn".into(), "input_layernorm".into()]),
            Policy::MeanNorm | Policy::MeanSquare | Policy::LossDecrease => {
                config.with_policy(PolicyConfig::Weighted(weights))
            }
        }
    }
}

impl fmt::Display for Arm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lisa = match self {
            Self::Base => return f.write_str("no training"),
            Self::Full => return f.write_str("full"),
            Self::Lora { rank } => return write!(f, "LoRA, rank {rank}"),
            Self::Lisa(lisa) => lisa,
        };
        write!(f, "LISA {}", lisa.active_layers)?;
        match lisa.outer_every {
            0 => write!(f, ", embeddings frozen")?,
            1 => {}
            n => write!(f, ", embeddings every {n} periods")?,
        }
        match lisa.period {
            0 => write!(f, ", sampled once")?,
            10 => {}
            period => write!(f, ", K {period}")?,
        }
        match lisa.policy {
            Policy::Uniform => {}
            Policy::Cyclic => write!(f, ", cyclic")?,
            Policy::Gradient => write!(f, ", `gradient`")?,
            Policy::Budget => write!(f, ", `budget`")?,
            Policy::MeanNorm => write!(f, ", weighted by gradient norm")?,
            Policy::MeanSquare => write!(f, ", weighted by squared gradient")?,
            Policy::LossDecrease => write!(f, ", weighted by loss decrease")?,
        }
        match lisa.state {
            State::Drop => {}
            State::Offload => write!(f, ", state kept")?,
            State::Second => write!(f, ", second moment kept")?,
        }
        if lisa.layer_warmup > 0 {
            write!(f, ", warm-up of {} steps", lisa.layer_warmup)?;
        }
        if lisa.catch_up {
            write!(f, ", rate by time frozen")?;
        }
        if lisa.recompute {
            write!(f, ", recomputed")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_have_names() {
        let frozen = Sampled {
            outer_every: 0,
            state: State::Offload,
            ..Arm::lisa(6)
        };
        assert_eq!(
            Arm::Lisa(frozen).to_string(),
            "LISA 6, embeddings frozen, state kept"
        );
        let other = Sampled {
            outer_every: 4,
            period: 50,
            policy: Policy::MeanNorm,
            layer_warmup: 5,
            ..Arm::lisa(2)
        };
        assert_eq!(
            Arm::Lisa(other).to_string(),
            "LISA 2, embeddings every 4 periods, K 50, weighted by gradient norm, warm-up of 5 steps"
        );
        assert_eq!(Arm::Lora { rank: 16 }.to_string(), "LoRA, rank 16");
    }

    #[test]
    fn a_run_has_the_settings_of_its_arm() {
        let arm = Sampled {
            period: 5,
            outer_every: 4,
            state: State::Offload,
            policy: Policy::MeanNorm,
            layer_warmup: 3,
            ..Arm::lisa(2)
        };
        let config = arm.config(30, 7, vec![1.0; 30]);
        assert_eq!((config.active_layers, config.sampling_period), (2, 5));
        assert_eq!(
            (config.outer_every, config.layer_warmup),
            (Some(4), Some(3))
        );
        assert_eq!((config.on_freeze, config.seed), (OnFreeze::Offload, 7));
        assert_eq!(config.policy, PolicyConfig::Weighted(vec![1.0; 30]));
        assert!(config.frozen.is_none());

        let other = Sampled {
            period: 0,
            outer_every: 0,
            policy: Policy::Budget,
            ..Arm::lisa(8)
        };
        let config = other.config(4, 7, Vec::new());
        // Layers that are sampled once stay, and no more layers are active than there are.
        assert_eq!(
            (config.active_layers, config.sampling_period),
            (4, usize::MAX)
        );
        assert_eq!((config.outer_every, config.layer_warmup), (None, None));
        assert_eq!(config.on_freeze, OnFreeze::Drop);
        assert!(!config.split.is_empty());
        let frozen = config.frozen.unwrap();
        let freezes = |path| frozen.matches(&burn::module::ParamId::new(), Some(path));
        assert!(freezes("model.embed_tokens.weight") && freezes("lm_head.weight"));
        assert!(!freezes("model.norm.gamma") && !freezes("model.layers.0.mlp.up_proj.weight"));
    }
}
