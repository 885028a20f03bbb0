//! [`PolicyConfig`]: the policy of a run, as part of its configuration.

use std::fmt;
use std::sync::Arc;

use burn::config::Config;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    Bernoulli, Budget, Cyclic, CyclicOrder, Draw, Fixed, Gradient, SamplingPolicy, Uniform,
    Weighted,
};
use crate::{ErrorKind, LisaError};

/// Which policy samples the layers.
///
/// # Example
///
/// ```
/// use burn::config::Config;
/// use lisa::PolicyConfig;
///
/// let last_two = PolicyConfig::Fixed(vec![14, 15]);
/// // As a JSON file has it.
/// assert_eq!(PolicyConfig::load_binary(br#"{"Fixed": [14, 15]}"#)?, last_two);
/// # Ok::<(), burn::config::ConfigError>(())
/// ```
#[derive(Config, Debug, PartialEq)]
#[non_exhaustive]
pub enum PolicyConfig {
    /// [`Uniform`]: exactly gamma layers, without replacement.
    Uniform,
    /// [`Bernoulli`]: one probability for each layer. If the list is empty, each is gamma / N.
    Bernoulli(Vec<f64>),
    /// [`Weighted`]: exactly gamma layers, one weight for each.
    Weighted(Vec<f64>),
    /// [`Cyclic`]: all layers in turn, gamma layers per period, in this order.
    Cyclic(CyclicOrder),
    /// [`Gradient`]: exactly gamma layers, weighted by the size of their gradients.
    Gradient(Gradient),
    /// [`Budget`]: as many layers as a share of the parameters allows, weighted by the size of
    /// their gradients.
    Budget(Budget),
    /// [`Fixed`]: these layers in every period.
    Fixed(Vec<usize>),
    /// A policy of your own: see [`custom`](Self::custom).
    Custom(Custom),
}

impl PolicyConfig {
    /// A policy of your own.
    ///
    /// A policy is code, so a configuration file has only its [name](SamplingPolicy::name). After
    /// loading such a file, set the policy again; otherwise
    /// [`LisaConfig::init`](crate::LisaConfig::init) refuses the configuration.
    #[must_use]
    pub fn custom(policy: impl SamplingPolicy) -> Self {
        Self::Custom(Custom(Arc::new(policy)))
    }

    /// Whether the policy samples the same layers for every `active_layers`.
    pub(crate) fn ignores_active_layers(&self) -> bool {
        match self {
            Self::Budget(_) | Self::Fixed(_) => true,
            Self::Bernoulli(probabilities) => !probabilities.is_empty(),
            _ => false,
        }
    }

    /// The policy.
    #[must_use]
    pub fn build(&self) -> Arc<dyn SamplingPolicy> {
        match self {
            Self::Uniform => Arc::new(Uniform),
            Self::Bernoulli(p) => Arc::new(Bernoulli::new(p.clone())),
            Self::Weighted(weights) => Arc::new(Weighted::new(weights.clone())),
            Self::Cyclic(order) => Arc::new(Cyclic::new(*order)),
            Self::Gradient(gradient) => Arc::new(gradient.clone()),
            Self::Budget(budget) => Arc::new(budget.clone()),
            Self::Fixed(layers) => Arc::new(Fixed::new(layers.clone())),
            Self::Custom(custom) => custom.0.clone(),
        }
    }
}

/// A policy of the user in a [`PolicyConfig`]. Two such policies are equal if their names are
/// equal.
#[derive(Clone)]
pub struct Custom(Arc<dyn SamplingPolicy>);

impl fmt::Debug for Custom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl PartialEq for Custom {
    fn eq(&self, other: &Self) -> bool {
        self.0.name() == other.0.name()
    }
}

impl Serialize for Custom {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.name())
    }
}

impl<'de> Deserialize<'de> for Custom {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Ok(Self(Arc::new(Absent { name })))
    }
}

/// A placeholder for a custom policy of which a file has only the name.
#[derive(Debug)]
struct Absent {
    name: String,
}

impl SamplingPolicy for Absent {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn draw(&self, _: &Draw) -> Vec<usize> {
        Vec::new()
    }

    fn validate(&self, _: &Draw) -> Result<(), LisaError> {
        Err(LisaError::new(
            ErrorKind::Policy,
            format!(
                "the configuration was saved with the custom policy `{}`, and a file cannot hold \
                 a policy's code",
                self.name
            ),
        )
        .with_help("set it again: config.with_policy(PolicyConfig::custom(..))"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct First;

    impl SamplingPolicy for First {
        fn name(&self) -> String {
            "first".into()
        }

        fn draw(&self, _: &Draw) -> Vec<usize> {
            vec![0]
        }
    }

    #[test]
    fn a_custom_policy_is_saved_by_name_and_refused_until_it_is_set_again() {
        let config = PolicyConfig::custom(First);
        let draw = Draw::new(0, 0, 4, 1);
        assert_eq!(config.build().draw(&draw), [0]);
        assert!(config.build().validate(&draw).is_ok());
        let json = config.to_string();
        let loaded = PolicyConfig::load_binary(json.as_bytes()).unwrap();
        assert_eq!(loaded, config);
        let error = loaded.build().validate(&draw).unwrap_err();
        assert!(error.message().contains("custom policy `first`"), "{error}");
        assert!(error.help().unwrap().contains("with_policy"));
    }

    #[test]
    fn every_policy_survives_its_json() {
        for policy in [
            PolicyConfig::Uniform,
            PolicyConfig::Bernoulli(vec![0.5, 1.0]),
            PolicyConfig::Weighted(vec![0.1, 2.0]),
            PolicyConfig::Cyclic(CyclicOrder::Descending),
            PolicyConfig::Gradient(Gradient::new().with_floor(0.3)),
            PolicyConfig::Budget(Budget::new().with_share(0.7)),
            PolicyConfig::Fixed(vec![1, 4]),
        ] {
            let json = policy.to_string();
            assert_eq!(PolicyConfig::load_binary(json.as_bytes()).unwrap(), policy);
        }
    }
}
