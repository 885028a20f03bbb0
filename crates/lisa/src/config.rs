//! [`LisaConfig`]: the configuration of a run.

use burn::config::Config;
use burn::module::ParamGroup;

use crate::optimizer::{Decay, OnFreeze};
use crate::{ErrorKind, FrozenWeights, LisaError, PolicyConfig};

/// The configuration of a run.
///
/// It is a Burn `Config`: it has builders `with_*`, and [`save`](burn::config::Config::save) and
/// [`load`](burn::config::Config::load) for JSON. [`init`](Self::init) makes the optimizer.
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
    /// How many layers are active in a sampling period (gamma). The paper uses 2 to 8 for 7B
    /// models. `Fixed` and `Budget` ignore it. `Bernoulli` takes it as the mean, unless it has
    /// probabilities.
    #[config(default = 2)]
    pub active_layers: usize,
    /// Optimizer steps in a sampling period (K). The paper uses 5 to 50 for 7B models.
    #[config(default = 20)]
    pub sampling_period: usize,
    /// The warm-up of a layer that becomes active, in steps: in step `j` of the period, counted
    /// from 1, the learning rate of the layer is multiplied by `j / layer_warmup`, at most 1. With
    /// none or 1, there is no warm-up.
    ///
    /// A layer that was active in the previous period has no warm-up. The layers of the first
    /// period have none either: warm them up with the learning rate schedule of the run. Parameters
    /// outside the layers that [`outer_every`](Self::outer_every) froze in the previous period are
    /// warmed up as well. Weight decay is multiplied by the same factor if the optimizer multiplies
    /// it by the learning rate, as AdamW does.
    pub layer_warmup: Option<usize>,
    /// Seed of the sampling. The same seed samples the same layers on every platform.
    #[config(default = 42)]
    pub seed: u64,
    /// How layers are sampled.
    #[config(default = "PolicyConfig::Uniform")]
    pub policy: PolicyConfig,
    /// What happens to the optimizer state of a layer that freezes.
    #[config(default = "OnFreeze::Drop")]
    pub on_freeze: OnFreeze,
    /// Whether bf16 and f16 parameters are updated through f32 master weights. They need four more
    /// bytes, and f32 optimizer state, for each trainable element. Without them, small updates are
    /// rounded away. Adam and AdamW need them for f16 parameters: in f16, an epsilon below 3e-8 and
    /// the square of a gradient below 2e-4 are 0, and the update then divides by 0.
    #[config(default = true)]
    pub master_weights: bool,
    /// To which parameters the optimizer's weight decay is applied. The default is all, as with the
    /// plain optimizer; transformers, TRL and nanoGPT decay matrices only.
    #[config(default = "Decay::All")]
    pub decay: Decay,
    /// Parameters that stay frozen for the whole run, such as embeddings or the head.
    pub frozen: Option<ParamGroup>,
    /// The parameters outside the layers (embeddings, final norm, head) train in every n-th sampling
    /// period, beginning with the first. In the other periods they are frozen like a layer that is
    /// not active: they have no gradients, [`on_freeze`](Self::on_freeze) applies to their optimizer
    /// state, and weight decay does not change them. With none or 1, they train in every period.
    ///
    /// In the periods in which they are frozen, a step needs less memory and time. The peak of the
    /// run is that of a period in which they train. A value above 1 is refused if no parameter
    /// outside the layers can train, and together with [`unbiased`](Self::unbiased).
    pub outer_every: Option<usize>,
    /// In which form the device stores the weights of frozen layers. To export a model with
    /// quantized layers, use [`Lisa::exact`](crate::Lisa::exact).
    #[config(default = "FrozenWeights::Exact")]
    pub frozen_weights: FrozenWeights,
    /// The largest L2 norm of the gradients of all trainable parameters together. A larger gradient
    /// is scaled down to it. Burn's own clipping, which is set on the optimizer's config, clips
    /// each tensor separately.
    pub max_grad_norm: Option<f64>,
    /// Paths of the stacks of layers, such as `model.layers`. If it is empty, LISA finds the stack.
    #[config(default = "Vec::new()")]
    pub layers: Vec<String>,
    /// Splits each layer into two parts ([`LayerMap::split`](crate::LayerMap::split)). The first
    /// has the parameters whose path within the layer contains one of these strings; the second has
    /// the others. Each part counts as a layer in [`active_layers`](Self::active_layers) and in
    /// policies. If it is empty, layers are not split.
    ///
    /// `["attn"]` splits the blocks of a Llama or a GPT-2 into attention and feed-forward. The
    /// norms, which are small, are then in the second part. With
    /// `["attn", "input_layernorm", "ln_1"]`, the norm before attention is in the first part.
    #[config(default = "Vec::new()")]
    pub split: Vec<String>,
    /// Divides the gradients of an active layer by the probability with which it was sampled,
    /// before clipping. The mean over all possible samples is then the gradient of full training.
    ///
    /// It matters for SGD and for other optimizers without normalization, whose steps become larger
    /// and noisier. With AdamW it has little effect: a constant factor on all gradients of a
    /// parameter cancels in the update, except for epsilon. Clipping by the global norm is applied
    /// to the divided gradients.
    ///
    /// It is refused if the policy has no [inclusion
    /// probabilities](crate::policy::SamplingPolicy::inclusion), or if the probability of a layer
    /// that could train is 0. It is also refused if [`outer_every`](Self::outer_every) is above 1,
    /// because the parameters outside the layers have probability 0 in some periods. With SGD, you
    /// can compensate for these periods without `unbiased`: multiply the learning rate of these
    /// parameters by `outer_every`.
    #[config(default = false)]
    pub unbiased: bool,
}

impl LisaConfig {
    /// The parameters outside the layers train in one of so many periods.
    pub(crate) fn outer_every_nth(&self) -> usize {
        self.outer_every.unwrap_or(1)
    }

    /// Refuses settings that are out of range for any model.
    pub(crate) fn validate(&self) -> Result<(), LisaError> {
        let refuse = |message: String, help: &str| {
            Err(LisaError::new(ErrorKind::Config, message).with_help(help))
        };
        if self.active_layers == 0 {
            return refuse(
                "active_layers is 0, so no layer would ever train".into(),
                "set it to at least 1",
            );
        }
        if self.sampling_period == 0 {
            return refuse("sampling_period is 0 steps".into(), "set it to at least 1");
        }
        let every = self.outer_every_nth();
        if every == 0 {
            return refuse(
                "outer_every is 0, so the parameters outside the layers would never train".into(),
                "set it to 1 to train them in every period; to freeze them, name them in frozen",
            );
        }
        if every > 1 && self.unbiased {
            return refuse(
                format!(
                    "unbiased is set and outer_every is {every}, so the parameters outside the layers \
                     have probability 0 in some periods"
                ),
                "set outer_every to 1, or unbiased to false",
            );
        }
        match self.layer_warmup {
            Some(steps) if steps > self.sampling_period => {
                return refuse(
                    format!(
                        "layer_warmup is {steps} steps and a sampling period has {}",
                        self.sampling_period
                    ),
                    "set layer_warmup to at most sampling_period",
                );
            }
            _ => {}
        }
        match self.max_grad_norm {
            Some(norm) if !(norm > 0.0 && norm.is_finite()) => refuse(
                format!("max_grad_norm is {norm}"),
                "set it to a positive number, or to none for no clipping",
            ),
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
            .with_policy(PolicyConfig::Bernoulli(vec![2.0 / 22.0, 0.1 + 0.2]))
            .with_on_freeze(OnFreeze::Keep)
            .with_frozen(Some(ParamGroup::from_any_predicates(vec!["embed", "head"])))
            .with_max_grad_norm(Some(0.1 + 0.2))
            .with_decay(Decay::Matrices)
            .with_outer_every(Some(3))
            .with_layer_warmup(Some(5))
            .with_layers(vec!["encoder".into(), "decoder".into()]);
        config.save(&path).unwrap();
        let loaded = LisaConfig::load(&path).unwrap();
        assert_eq!(loaded.to_string(), config.to_string());
        assert_eq!(loaded.policy, config.policy);
        assert_eq!(loaded.max_grad_norm, Some(0.1 + 0.2));
        assert_eq!(
            (loaded.decay, loaded.outer_every),
            (Decay::Matrices, Some(3))
        );
        assert_eq!(loaded.layer_warmup, Some(5));
    }

    #[test]
    fn defaults_are_those_of_the_docs() {
        let config = LisaConfig::new();
        assert_eq!((config.active_layers, config.sampling_period), (2, 20));
        assert_eq!(config.policy, PolicyConfig::Uniform);
        assert_eq!(config.on_freeze, OnFreeze::Drop);
        assert!(config.master_weights && config.frozen.is_none() && config.layers.is_empty());
        assert!(config.split.is_empty() && !config.unbiased);
        assert_eq!((config.decay, config.outer_every), (Decay::All, None));
    }

    #[test]
    fn settings_out_of_range_are_refused() {
        let message = |config: LisaConfig| config.validate().unwrap_err().to_string();
        assert!(message(LisaConfig::new().with_active_layers(0)).contains("active_layers is 0"));
        assert!(message(LisaConfig::new().with_sampling_period(0)).contains("0 steps"));
        let clip = LisaConfig::new().with_max_grad_norm(Some(f64::NAN));
        assert!(message(clip).contains("NaN"));
        let never = LisaConfig::new().with_outer_every(Some(0));
        assert!(message(never).contains("outer_every is 0"));
        let long = LisaConfig::new().with_layer_warmup(Some(21));
        assert!(message(long).contains("layer_warmup is 21 steps and a sampling period has 20"));
        let unbiased = LisaConfig::new()
            .with_outer_every(Some(3))
            .with_unbiased(true);
        assert!(message(unbiased).contains("unbiased is set and outer_every is 3"));
    }
}
