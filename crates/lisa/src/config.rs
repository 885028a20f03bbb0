//! [`LisaConfig`]: what a run is asked to do, validated once and then trusted.

use std::sync::Arc;

use burn::config::Config;
use burn::module::{Module, ParamGroup};
use burn::optim::Optimizer;
use burn::tensor::Device;

use crate::policy::{
    Bernoulli, Budget, BudgetConfig, Cyclic, CyclicOrder, Fixed, Gradient, GradientConfig,
    SamplingPolicy, Uniform, Weighted,
};
use crate::{ErrorKind, FrozenWeights, Lisa, LisaError};

/// What happens to the moments of a layer that freezes.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::{AdamWConfig, GradientsParams};
/// # use burn::tensor::{Device, Tensor};
/// # use lisa::{CyclicOrder, Lisa, LisaConfig, LisaError, OnFreeze, PolicyConfig};
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # fn three_steps(config: LisaConfig) -> Result<Lisa, LisaError> {
/// #     let device = Device::flex().autodiff();
/// #     let layers = (0..3).map(|_| LinearConfig::new(2, 2).init(&device)).collect();
/// #     let (mut lisa, mut model) = config.init(AdamWConfig::new().build(), Model { layers })?;
/// #     for _ in 0..3 {
/// #         let x = Tensor::<2>::ones([1, 2], &device);
/// #         let loss = model.layers.iter().fold(x, |x, layer| layer.forward(x)).mean();
/// #         let grads = GradientsParams::from_grads(loss.backward(), &model);
/// #         model = lisa.step(1e-3, model, grads);
/// #     }
/// #     Ok(lisa)
/// # }
/// // AdamW trains the first layer for two steps, then the second for one.
/// let config = LisaConfig::new()
///     .with_active_layers(1)
///     .with_sampling_period(2)
///     .with_policy(PolicyConfig::Cyclic(CyclicOrder::Ascending));
/// let held = |on_freeze| -> Result<_, LisaError> {
///     let lisa = three_steps(config.clone().with_on_freeze(on_freeze))?;
///     Ok((lisa.moments_bytes(), lisa.offloaded_bytes()))
/// };
/// // A layer has 6 numbers, each with two moments of 4 bytes.
/// assert_eq!(held(OnFreeze::Drop)?, (48, 0));
/// assert_eq!(held(OnFreeze::Keep)?, (96, 0));
/// assert_eq!(held(OnFreeze::Offload)?, (48, 48));
/// # Ok::<(), LisaError>(())
/// ```
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

/// Which of the crate's policies draws the layers.
///
/// # Example
///
/// ```
/// use burn::config::Config;
/// use lisa::{Draw, LisaConfig, PolicyConfig};
///
/// let config = LisaConfig::new()
///     .with_active_layers(1)
///     .with_policy(PolicyConfig::Weighted(vec![1.0, 1.0, 2.0]));
/// let draw = Draw::new(config.seed, 0, 3, config.active_layers);
/// assert_eq!(config.policy.build().inclusion(&draw), Some(vec![0.25, 0.25, 0.5]));
///
/// // As it stands in a JSON file.
/// let fixed = PolicyConfig::load_binary(br#"{"Fixed": [0, 2]}"#)?;
/// assert_eq!(fixed, PolicyConfig::Fixed(vec![0, 2]));
/// # Ok::<(), burn::config::ConfigError>(())
/// ```
#[derive(Config, Debug, PartialEq)]
pub enum PolicyConfig {
    /// [`Uniform`]: exactly gamma layers, without replacement.
    Uniform,
    /// [`Bernoulli`]: one probability for each layer, or none for gamma / N each.
    Bernoulli(Vec<f64>),
    /// [`Weighted`]: exactly gamma layers, one weight for each.
    Weighted(Vec<f64>),
    /// [`Cyclic`]: gamma layers after gamma layers, in this order.
    Cyclic(CyclicOrder),
    /// [`Gradient`]: exactly gamma layers, by the size of their gradients.
    Gradient(GradientConfig),
    /// [`Budget`]: as many layers as a share of the parameters allows, by the size of their
    /// gradients.
    Budget(BudgetConfig),
    /// [`Fixed`]: these layers, always.
    Fixed(Vec<usize>),
}

impl PolicyConfig {
    /// The policy.
    ///
    /// # Example
    ///
    /// ```
    /// use lisa::{Draw, PolicyConfig};
    ///
    /// let policy = PolicyConfig::Fixed(vec![2, 3]).build();
    /// assert_eq!(policy.draw(&Draw::new(0, 0, 4, 1)), [2, 3]);
    /// ```
    #[must_use]
    pub fn build(&self) -> Arc<dyn SamplingPolicy> {
        match self {
            Self::Uniform => Arc::new(Uniform),
            Self::Bernoulli(p) => Arc::new(Bernoulli::new(p.clone())),
            Self::Weighted(weights) => Arc::new(Weighted::new(weights.clone())),
            Self::Cyclic(order) => Arc::new(Cyclic::new(*order)),
            Self::Gradient(config) => Arc::new(Gradient::new(config.clone())),
            Self::Budget(config) => Arc::new(Budget::new(config.clone())),
            Self::Fixed(layers) => Arc::new(Fixed::new(layers.clone())),
        }
    }
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
    /// ([`Recompute`](crate::Recompute)) alone: a plain backward pass keeps every weight dense.
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
    /// probabilities](crate::SamplingPolicy::inclusion), or one of 0 for a layer that could train:
    /// that layer's gradient would be in no mean.
    #[config(default = false)]
    pub unbiased: bool,
}

impl LisaConfig {
    /// Wraps `optimizer` and freezes the layers of `model` that the first period does not train.
    ///
    /// Every Burn optimizer will do: hand over what its config's `build()` returns. Lazy
    /// parameters are initialised here. Cost: one walk of the module tree; no tensor is copied.
    /// State kept: the step, the drawn layers, and the optimizer's own state of what trains.
    ///
    /// # Errors
    ///
    /// A setting out of range, a stack of layers that is not found or ambiguous, tied
    /// parameters, a group that matches nothing, a model with nothing to train: each says what
    /// was found.
    pub fn init<O: Optimizer, M: Module>(
        &self,
        optimizer: O,
        model: M,
    ) -> Result<(Lisa, M), LisaError> {
        self.validate()?;
        Lisa::init(self.clone(), self.policy.build(), optimizer, model, None)
    }

    /// Like [`init`](Self::init), with a policy of your own in place of
    /// [`policy`](Self::policy).
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init), and what the policy [refuses](SamplingPolicy::validate).
    pub fn init_with<P: SamplingPolicy, O: Optimizer, M: Module>(
        &self,
        policy: P,
        optimizer: O,
        model: M,
    ) -> Result<(Lisa, M), LisaError> {
        self.validate()?;
        Lisa::init(self.clone(), Arc::new(policy), optimizer, model, None)
    }

    /// Like [`init`](Self::init) for a model that is elsewhere, such as in the host's memory
    /// (`Device::flex().autodiff()`): it moves to `device` parameter by parameter, and layers that are
    /// to be quantized never need to be there in full.
    ///
    /// # Errors
    ///
    /// As [`init`](Self::init).
    ///
    /// # Example
    ///
    /// ```
    /// # use burn::module::Module;
    /// # use burn::nn::{Linear, LinearConfig};
    /// # use burn::optim::AdamWConfig;
    /// # use burn::tensor::Device;
    /// # #[derive(Module, Debug)]
    /// # struct Model { layers: Vec<Linear> }
    /// use lisa::{FrozenWeights, LisaConfig};
    ///
    /// // Made in the host's memory; six of its eight layers come to the device in int8.
    /// let host = Device::flex().autodiff();
    /// let linear = |_| LinearConfig::new(64, 64).with_bias(false).init(&host);
    /// let model = Model { layers: (0..8).map(linear).collect() };
    /// let before = model.layers[0].weight.val().into_data();
    /// let config = LisaConfig::new().with_frozen_weights(FrozenWeights::Int8);
    /// let device = Device::default().autodiff();
    /// let (lisa, model) = config.init_on(AdamWConfig::new().build(), model, &device)?;
    /// assert_eq!(lisa.exact_bytes(), 6 * 64 * 64 * 4);
    ///
    /// // What is saved is exact.
    /// assert!(!lisa.active_layers().contains(&0));
    /// let exact = lisa.exact(&model, &Device::flex());
    /// assert_eq!(exact.layers[0].weight.val().into_data(), before);
    /// # Ok::<(), lisa::LisaError>(())
    /// ```
    pub fn init_on<O: Optimizer, M: Module>(
        &self,
        optimizer: O,
        model: M,
        device: &Device,
    ) -> Result<(Lisa, M), LisaError> {
        self.validate()?;
        let policy = self.policy.build();
        Lisa::init(self.clone(), policy, optimizer, model, Some(device))
    }

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
        for policy in [
            PolicyConfig::Uniform,
            PolicyConfig::Weighted(vec![0.1, 2.0]),
            PolicyConfig::Cyclic(CyclicOrder::Descending),
            PolicyConfig::Gradient(GradientConfig::new().with_floor(0.3)),
            PolicyConfig::Budget(BudgetConfig::new().with_share(0.7)),
            PolicyConfig::Fixed(vec![1, 4]),
        ] {
            config
                .clone()
                .with_policy(policy.clone())
                .save(&path)
                .unwrap();
            assert_eq!(LisaConfig::load(&path).unwrap().policy, policy);
        }
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
