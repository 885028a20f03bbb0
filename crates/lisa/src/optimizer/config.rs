//! [`OptimizerConfig`]: what [`LisaConfig::init`](crate::LisaConfig::init) accepts as an optimizer.

use burn::grad_clipping::GradientClipping;
use burn::optim::{
    AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig, LionConfig,
    MuonConfig, Optimizer, RmsPropConfig, SgdConfig,
};

/// The configuration of an optimizer, with its gradient clipping.
///
/// Burn's optimizer configs implement it. Burn's `build()` leaves out the gradient clipping that is
/// set on a config, so LISA takes the config itself. It then applies the clipping to each tensor
/// separately, as Burn's `init()` does. For an optimizer without a config see [`Built`].
pub trait OptimizerConfig {
    /// The optimizer that this configuration makes.
    type Optimizer: Optimizer;

    /// Makes the optimizer.
    fn build(&self) -> Self::Optimizer;

    /// Makes the same optimizer without weight decay, for the parameters that are not decayed with
    /// [`Decay::Matrices`](crate::optimizer::Decay::Matrices). It must have the same state. With
    /// `None`, which is the default, that setting is refused.
    fn build_without_decay(&self) -> Option<Self::Optimizer> {
        None
    }

    /// The gradient clipping that is set. It is applied to each gradient tensor separately.
    fn grad_clipping(&self) -> Option<GradientClipping>;
}

macro_rules! burn_configs {
    ($($config:ident: $optimizer:ident),* $(,)?) => {$(
        impl OptimizerConfig for $config {
            type Optimizer = burn::optim::$optimizer;

            fn build(&self) -> Self::Optimizer {
                $config::build(self)
            }

            fn build_without_decay(&self) -> Option<Self::Optimizer> {
                // 0 or `None`.
                Some(self.clone().with_weight_decay(Default::default()).build())
            }

            fn grad_clipping(&self) -> Option<GradientClipping> {
                self.init().grad_clipping().cloned()
            }
        }
    )*};
}

burn_configs!(
    AdaGradConfig: AdaGrad,
    AdafactorConfig: Adafactor,
    AdamConfig: Adam,
    AdamWConfig: AdamW,
    AdanConfig: Adan,
    LambConfig: Lamb,
    LionConfig: Lion,
    MuonConfig: Muon,
    RmsPropConfig: RmsProp,
    SgdConfig: Sgd,
);

/// An optimizer that is already built, such as one of your own.
///
/// It has no gradient clipping: set one with
/// [`Lisa::with_grad_clipping`](crate::Lisa::with_grad_clipping). Its weight decay is applied to all
/// parameters: [`Decay::Matrices`](crate::optimizer::Decay::Matrices) is refused.
///
/// # Example
///
/// ```
/// # use burn::nn::LinearConfig;
/// # use burn::optim::SgdConfig;
/// # use burn::tensor::Device;
/// use lisa::LisaConfig;
/// use lisa::optimizer::Built;
///
/// let device = Device::flex().autodiff();
/// let model: Vec<_> = (0..4).map(|_| LinearConfig::new(2, 2).init(&device)).collect();
/// let optimizer = SgdConfig::new().build();
/// let (lisa, model) = LisaConfig::new().init(Built(optimizer), model)?;
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Built<O>(
    /// The optimizer.
    pub O,
);

impl<O: Optimizer> OptimizerConfig for Built<O> {
    type Optimizer = O;

    fn build(&self) -> O {
        self.0.clone()
    }

    fn grad_clipping(&self) -> Option<GradientClipping> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::grad_clipping::GradientClippingConfig;

    #[test]
    fn clipping_of_a_config_is_kept() {
        let norm = Some(GradientClippingConfig::Norm(0.5));
        let clipping = OptimizerConfig::grad_clipping(&AdamWConfig::new().with_grad_clipping(norm));
        assert!(matches!(clipping, Some(GradientClipping::Norm(n)) if n == 0.5));
        assert!(SgdConfig::new().grad_clipping().is_none());
        assert!(Built(SgdConfig::new().build()).grad_clipping().is_none());
    }
}
