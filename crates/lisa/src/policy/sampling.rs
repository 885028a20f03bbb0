//! [`SamplingPolicy`]: the trait of all policies.

use std::fmt::Debug;

use super::draw::Draw;
use super::scores::Observation;
use crate::LisaError;

/// Samples the layers of a period.
///
/// The methods may depend only on `self` and the [`Draw`], not on a clock, a counter or another
/// source of random numbers. So a run can resume from its step and its scores, and several workers
/// sample the same layers without communication.
///
/// # Example
///
/// ```
/// use lisa::policy::{Draw, SamplingPolicy};
/// use lisa::{LisaConfig, PolicyConfig};
///
/// /// The last layers of the stack, always.
/// #[derive(Debug)]
/// struct Last;
///
/// impl SamplingPolicy for Last {
///     fn name(&self) -> String {
///         "last".into()
///     }
///
///     fn draw(&self, draw: &Draw) -> Vec<usize> {
///         (draw.layers - draw.active_layers..draw.layers).collect()
///     }
/// }
///
/// assert_eq!(Last.draw(&Draw::new(0, 7, 16, 2)), [14, 15]);
/// let config = LisaConfig::new().with_policy(PolicyConfig::custom(Last));
/// ```
pub trait SamplingPolicy: Debug + Send + Sync + 'static {
    /// A name that distinguishes this policy, with its settings, from any other. A run refuses a
    /// record of a run whose policy has another name.
    fn name(&self) -> String;

    /// The layers of a period, counted from 0, in any order.
    ///
    /// The step that samples returns an error if a layer does not exist, or if no layer is returned
    /// that can train and [`Draw::allow_empty`] is false.
    fn draw(&self, draw: &Draw) -> Vec<usize>;

    /// The statistic of the gradients that the policy needs; [`Draw::scores`] then has its average.
    /// By default there is none, and nothing is computed.
    ///
    /// Cost: a sum of squares of each gradient in a layer, on the device, and one wait for the
    /// device at the end of a period.
    fn observes(&self) -> Option<Observation> {
        None
    }

    /// The probability that each layer is sampled in this period, given everything except the
    /// random numbers. None if it is not known, or if the layers depend on earlier periods.
    ///
    /// [`LisaConfig::unbiased`](crate::LisaConfig::unbiased) divides gradients by it.
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let _ = draw;
        None
    }

    /// Checks, before the run, that the policy can sample these layers. `draw` is the input of the
    /// first period, except that its `allow_empty` is that of every period.
    ///
    /// # Errors
    ///
    /// An error if the policy refuses the layers or its settings. By default, it refuses nothing.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let _ = draw;
        Ok(())
    }
}

/// The error of a policy that refuses a run.
pub(super) fn refuse(message: String, help: &str) -> Result<(), LisaError> {
    Err(LisaError::new(crate::ErrorKind::Policy, message).with_help(help))
}
