//! [`Decay`]: to which parameters weight decay is applied, and the wrapper that applies it by rank.
//! Tests: here, and `lisa/tests/decay.rs`.

use burn::optim::{LearningRate, Optimizer};
use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};

use super::bytes::{StateBytes, Weighed};
use super::config::OptimizerConfig;
use crate::{ErrorKind, LisaError};

/// To which parameters the weight decay of the optimizer's config is applied.
///
/// # Example
///
/// ```
/// use lisa::LisaConfig;
/// use lisa::optimizer::Decay;
///
/// // As transformers and TRL do by default.
/// let config = LisaConfig::new().with_decay(Decay::Matrices);
/// # assert!(config.to_string().contains("Matrices"));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Decay {
    /// All parameters, as Burn's optimizers do.
    #[default]
    All,
    /// Parameters of rank 2 and above: matrices, embeddings and kernels of convolutions. Parameters
    /// of rank 0 and 1, which are biases and the weights of norms, are not decayed.
    Matrices,
}

/// Steps matrices with one optimizer, and parameters of rank 0 and 1 with another one of the same
/// type. State kept: that of the optimizer that steps the parameter.
#[derive(Clone)]
pub(crate) struct ByRank<O> {
    matrices: O,
    others: O,
}

/// The optimizer of this configuration for parameters of each rank, each wrapped by `wrap`.
pub(crate) fn by_rank<C: OptimizerConfig, O>(
    config: &C,
    decay: Decay,
    wrap: impl Fn(C::Optimizer) -> O,
) -> Result<ByRank<O>, LisaError> {
    let others = match decay {
        Decay::All => Some(config.build()),
        Decay::Matrices => config.build_without_decay(),
    };
    let others = others.ok_or_else(|| {
        let message = "decay is Decay::Matrices, but this optimizer cannot be made without weight \
                       decay";
        LisaError::new(ErrorKind::Config, message).with_help(
            "give one of Burn's optimizer configs, implement \
             OptimizerConfig::build_without_decay, or set decay to Decay::All",
        )
    })?;
    Ok(ByRank {
        matrices: wrap(config.build()),
        others: wrap(others),
    })
}

impl<O: Optimizer> Optimizer for ByRank<O> {
    type State<const D: usize> = O::State<D>;

    fn step<const D: usize>(
        &self,
        lr: LearningRate,
        tensor: Tensor<D>,
        grad: Tensor<D>,
        state: Option<O::State<D>>,
    ) -> (Tensor<D>, Option<O::State<D>>) {
        let optimizer = if D < 2 { &self.others } else { &self.matrices };
        optimizer.step(lr, tensor, grad, state)
    }

    fn to_device<const D: usize>(state: O::State<D>, device: &Device) -> O::State<D> {
        O::to_device(state, device)
    }
}

impl<O: Weighed> Weighed for ByRank<O> {
    fn weigh<const D: usize>(state: &O::State<D>) -> StateBytes {
        O::weigh(state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optimizer::Built;
    use burn::optim::decay::WeightDecayConfig;
    use burn::optim::{
        AdaGradConfig, AdafactorConfig, AdamConfig, AdamWConfig, AdanConfig, LambConfig,
        LionConfig, MuonConfig, RmsPropConfig, SgdConfig,
    };

    /// A step of a matrix and of a vector with the config, by rank, and with the config without
    /// decay.
    fn check<C: OptimizerConfig>(name: &str, config: C, plain: C) {
        let device = Device::flex();
        let matrix = Tensor::<2>::from_floats([[1.0, -2.0], [3.0, 0.5]], &device);
        let vector = || Tensor::<1>::from_floats([1.0, -2.0, 3.0], &device);
        let both = by_rank(&config, Decay::Matrices, |o| o).unwrap();
        let of_matrix = |o: &C::Optimizer| {
            let (next, _) = o.step(0.1, matrix.clone(), matrix.clone(), None);
            next.into_data()
        };
        let decayed = of_matrix(&config.build());
        assert_eq!(of_matrix(&both.matrices), decayed, "{name}");
        assert_ne!(of_matrix(&plain.build()), decayed, "{name}");
        let (next, _) = both.step(0.1, matrix.clone(), matrix.clone(), None);
        assert_eq!(next.into_data(), decayed, "{name}");
        // Muon steps matrices alone.
        if name != "Muon" {
            let (next, _) = both.step(0.1, vector(), vector(), None);
            let (wanted, _) = plain.build().step(0.1, vector(), vector(), None);
            assert_eq!(next.into_data(), wanted.into_data(), "{name}");
        }
    }

    #[test]
    fn every_optimizer_of_burn_decays_matrices_alone() {
        let decay = || Some(WeightDecayConfig::new(0.5));
        macro_rules! check {
            ($($config:ident: $decay:expr),* $(,)?) => {$(
                let decayed = $config::new().with_weight_decay($decay);
                let name = stringify!($config).trim_end_matches("Config");
                check(name, decayed, $config::new().with_weight_decay(Default::default()));
            )*};
        }
        check!(
            AdaGradConfig: decay(),
            AdafactorConfig: 0.5,
            AdamConfig: decay(),
            AdamWConfig: 0.5,
            AdanConfig: 0.5,
            LambConfig: 0.5,
            LionConfig: 0.5,
            MuonConfig: decay(),
            RmsPropConfig: decay(),
            SgdConfig: decay(),
        );
    }

    #[test]
    fn an_optimizer_that_is_built_has_its_own_decay_or_is_refused() {
        let built = Built(SgdConfig::new().build());
        assert!(by_rank(&built, Decay::All, |o| o).is_ok());
        let error = by_rank(&built, Decay::Matrices, |o| o).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(
            error
                .message()
                .contains("cannot be made without weight decay")
        );
    }
}
