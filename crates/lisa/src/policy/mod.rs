//! What draws the layers of a period: [`SamplingPolicy`] and one file for each policy.
//!
//! A policy knows numbers of layers and nothing of modules. A draw is a pure function of the seed
//! and the period, so a run resumes from its step alone and all workers agree without talking.

mod bernoulli;
mod rng;
mod uniform;

use std::fmt::Debug;

use crate::LisaError;
pub use bernoulli::Bernoulli;
pub use rng::DrawRng;
pub use uniform::Uniform;

/// Everything a draw may depend on.
///
/// # Example
///
/// ```
/// use lisa::{Draw, SamplingPolicy, Uniform};
///
/// let draw = Draw::new(42, 0, 16, 2);
/// assert_eq!(Uniform.draw(&draw), Uniform.draw(&draw));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The period that is drawn: 0 before the first step, then one more each sampling period.
    pub period: u64,
    /// How many layers there are.
    pub layers: usize,
    /// How many of them the run wants active (gamma).
    pub active_layers: usize,
    /// Whether an empty draw can train anything: true where there are always-on parameters.
    pub allow_empty: bool,
}

impl Draw {
    /// The draw of `active_layers` out of `layers` for this period, an empty one allowed.
    #[must_use]
    pub fn new(seed: u64, period: u64, layers: usize, active_layers: usize) -> Self {
        Self {
            seed,
            period,
            layers,
            active_layers,
            allow_empty: true,
        }
    }

    /// Says whether an empty draw is legal.
    #[must_use]
    pub fn with_allow_empty(mut self, allow_empty: bool) -> Self {
        self.allow_empty = allow_empty;
        self
    }

    /// The random numbers of this draw: the same on every platform, for the same seed and period.
    #[must_use]
    pub fn rng(&self) -> DrawRng {
        DrawRng::new(self.seed, self.period)
    }
}

/// Draws the layers that train in a period.
///
/// The result must depend on the [`Draw`] alone: no clock, no counter, no other source of random
/// numbers. That is what lets a run resume and several workers agree.
///
/// # Example: a policy of your own
///
/// ```
/// use lisa::{Draw, LisaError, SamplingPolicy};
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
/// ```
///
/// Hand it to [`LisaConfig::init_with`](crate::LisaConfig::init_with).
pub trait SamplingPolicy: Debug + Send + Sync + 'static {
    /// A name that tells this policy, with its parameters, from any other. A record is refused by
    /// a run whose policy has another name.
    fn name(&self) -> String;

    /// The layers of a period, counted from 0, in any order, each once.
    ///
    /// Layers that do not exist are left out of the draw with an error in the log, and an empty
    /// draw that is not allowed keeps the layers of the period before it.
    fn draw(&self, draw: &Draw) -> Vec<usize>;

    /// Refuses, before the run, what the policy cannot draw. `draw` is that of the first period.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let _ = draw;
        Ok(())
    }
}
