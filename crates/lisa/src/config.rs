//! [`LisaConfig`]: what a run is asked to do, validated once and then trusted.

use burn::config::Config;
use burn::module::ParamGroup;

use crate::{ErrorKind, FrozenWeights, LisaError, PolicyConfig};

/// What happens to the moments of a layer that freezes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum OnFreeze {
    /// They are dropped: memory stays flat. A layer that returns starts with fresh moments, as in
    /// what the paper's authors ran.
    Drop,
    /// They stay where they are: memory grows to that of the plain optimizer, as with LMFlow.
    Keep,
    /// They move to the host's memory and come back with the layer.
    Offload,
}

/// Configuration of [`Lisa`].
///
/// Burn's `Config`: `with_*` builders, JSON through
/// [`save`](burn::config::Config::save) and [`load`](burn::config::Config::load).
///
/// # Example
///
/// ```
/// use burn::config::Config;
/// use burn::module::ParamGroup;
/// use lisa::{LisaConfig, OnFreeze};
///
/// let config = LisaConfig::new()
///     .with_active_layers(4)
///     .with_on_freeze(OnFreeze::Offload)
///     .with_frozen(Some(ParamGroup::from_predicate("embed")));
/// assert_eq!(config.sampling_period, 20);
/// assert!(config.to_string().contains("Offload"));
/// ```
#[derive(Config, Debug)]
pub struct LisaConfig {
    /// How many layers train in a period (gamma; the paper's 7B runs: 2 to 4).
    #[config(default = 2)]
    pub active_layers: usize,
    /// Optimizer steps between two draws (K; the paper's 7B runs: 5 to 50).
    #[config(default = 20)]
    pub sampling_period: usize,
    /// Seed of the draws. The same seed gives the same draws on every platform.
    #[config(default = 42)]
    pub seed: u64,
    /// What draws the layers.
    #[config(default = "PolicyConfig::Uniform")]
    pub policy: PolicyConfig,
    /// What happens to the moments of a layer that freezes.
    #[config(default = "OnFreeze::Drop")]
    pub on_freeze: OnFreeze,
    /// Whether bf16 and f16 parameters train through f32 master weights. Four more bytes, and
    /// f32 moments, for each parameter that trains; without them small updates round away.
    #[config(default = true)]
    pub master_weights: bool,
    /// Parameters that stay frozen throughout, such as embeddings or the head.
    pub frozen: Option<ParamGroup>,
    /// What the device holds of layers that do not train. The exact weights of quantized ones wait on
    /// the host; export a model by [`Lisa::exact`]. Worth it with layer-wise recomputation
    /// ([`Recompute`](crate::recompute::Recompute)) alone: a plain backward pass keeps every weight dense.
    #[config(default = "FrozenWeights::Exact")]
    pub frozen_weights: FrozenWeights,
    /// Largest L2 norm of the gradient of all parameters that train together; a larger gradient
    /// is scaled down to it.
    pub max_grad_norm: Option<f64>,
    /// Paths of the stacks of layers, such as `model.layers`. Empty: the stack is found.
    #[config(default = "Vec::new()")]
    pub layers: Vec<String>,
    /// Draws parts of layers instead of whole ones: the parameters of a layer whose path within it
    /// contains one of these strings are one part, all others of it another
    /// ([`LayerMap::split`](crate::LayerMap::split)). `["attn"]` gives the attention and the
    /// feed-forward half of a Llama's and a GPT-2's layers; the norms, which have few parameters,
    /// are then in the second, and `["attn", "input_layernorm", "ln_1"]` has the one before
    /// attention in the first. Each part counts as a layer wherever layers are counted,
    /// [`active_layers`](Self::active_layers) and policies included. Empty: whole layers.
    #[config(default = "Vec::new()")]
    pub split: Vec<String>,
    /// Divides the gradients of a drawn layer by the probability with which it was to be drawn,
    /// before clipping; always-on parameters have theirs as they are. The mean over the draws is
    /// then the gradient of full training, so that plain SGD takes its steps in expectation.
    ///
    /// With AdamW it does less than it seems: a constant factor on all gradients of a parameter
    /// cancels in the update (but for epsilon). With [`OnFreeze::Drop`] a layer's moments come from
    /// one stretch of periods alone; where its probability stays the same nothing but epsilon
    /// notices the factor. With moments kept, only a policy whose probabilities change mixes
    /// scales in them. Global-norm clipping, on the other hand, sees the scaled gradients, and so do
    /// SGD and all optimizers without normalisation, whose steps get larger and noisier.
    ///
    /// Refused where the policy has no [inclusion
    /// probabilities](crate::policy::SamplingPolicy::inclusion), or one of 0 for a layer that could train:
    /// that layer's gradient would be in no mean.
    #[config(default = false)]
    pub unbiased: bool,
}

impl LisaConfig {
    /// What can be refused without a model.
    pub(crate) fn validate(&self) -> Result<(), LisaError> {
        let refuse = |message: String| Err(LisaError::new(ErrorKind::Config, message));
        if self.active_layers == 0 {
            return refuse(
                "active_layers is 0, so no layer would ever train; give at least 1".into(),
            );
        }
        if self.sampling_period == 0 {
            return refuse("sampling_period is 0 steps; give at least 1".into());
        }
        match self.max_grad_norm {
            Some(norm) if !(norm > 0.0 && norm.is_finite()) => refuse(format!(
                "max_grad_norm is {norm}; give a positive number, or none for no clipping"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_config_survives_its_json_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lisa.json");
        let config = LisaConfig::new()
            .with_policy(PolicyConfig::Bernoulli(vec![0.5, 1.0]))
            .with_on_freeze(OnFreeze::Keep)
            .with_frozen(Some(ParamGroup::from_any_predicates(vec!["embed", "head"])))
            .with_max_grad_norm(Some(1.0))
            .with_layers(vec!["encoder".into(), "decoder".into()]);
        config.save(&path).unwrap();
        let loaded = LisaConfig::load(&path).unwrap();
        assert_eq!(loaded.to_string(), config.to_string());
        assert_eq!(loaded.policy, PolicyConfig::Bernoulli(vec![0.5, 1.0]));
    }

    #[test]
    fn defaults_are_those_of_the_docs() {
        let config = LisaConfig::new();
        assert_eq!((config.active_layers, config.sampling_period), (2, 20));
        assert_eq!(config.policy, PolicyConfig::Uniform);
        assert_eq!(config.on_freeze, OnFreeze::Drop);
        assert!(config.master_weights && config.frozen.is_none() && config.layers.is_empty());
        assert!(config.split.is_empty() && !config.unbiased);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let message = |config: LisaConfig| config.validate().unwrap_err().to_string();
        assert!(message(LisaConfig::new().with_active_layers(0)).contains("active_layers is 0"));
        assert!(message(LisaConfig::new().with_sampling_period(0)).contains("0 steps"));
        let clip = LisaConfig::new().with_max_grad_norm(Some(f64::NAN));
        assert!(message(clip).contains("NaN"));
    }
}
