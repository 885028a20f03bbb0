//! [`SamplingPolicy`]: the trait of all policies.

use std::fmt::Debug;

use super::draw::Draw;
use super::scores::Observation;
use crate::LisaError;

/// Samples the layers of a period.
///
/// The methods may depend only on `self` and the [`Draw`], not on a clock, a counter or another source
/// of random numbers. So a run resumes from its step and its scores, and several workers draw the same
/// layers without communication.
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
    /// A name that distinguishes this policy, with its settings, from any other. A run refuses a record
    /// of a run whose policy has another name.
    fn name(&self) -> String;

    /// The layers of a period, counted from 0, in any order.
    ///
    /// A layer that does not exist, and an empty draw where [`Draw::allow_empty`] is false, are errors
    /// of the step that asks for the draw.
    fn draw(&self, draw: &Draw) -> Vec<usize>;

    /// What the policy wants to know of the gradients; [`Draw::scores`] then has the average of it.
    /// By default nothing, and nothing is computed.
    ///
    /// Cost: a sum of squares of each gradient in a layer, on the device, and one wait for the device
    /// at the end of a period.
    fn observes(&self) -> Option<Observation> {
        None
    }

    /// The probability of each layer to be in this draw, given everything except the random numbers.
    /// None where it is not known, or where earlier draws determine this one.
    ///
    /// [`LisaConfig::unbiased`](crate::LisaConfig::unbiased) divides gradients by it.
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let _ = draw;
        None
    }

    /// Checks, before the run, that the policy can sample these layers. `draw` is that of the first
    /// period.
    ///
    /// # Errors
    ///
    /// What the policy refuses; by default nothing.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let _ = draw;
        Ok(())
    }
}

/// A refusal of a policy.
pub(super) fn refuse(message: String, help: &str) -> Result<(), LisaError> {
    Err(LisaError::new(crate::ErrorKind::Policy, message).with_help(help))
}
