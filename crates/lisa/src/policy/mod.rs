//! What draws the layers of a period: [`SamplingPolicy`] and one file for each policy.
//!
//! A policy knows numbers of layers and nothing of modules. A draw is a pure function of the seed,
//! the period and, for a policy that asks for them, the scores observed so far. So a run resumes
//! from its step and its scores, and workers that step with the same gradients agree without
//! talking.

mod bernoulli;
mod budget;
mod config;
mod cyclic;
mod fixed;
mod gradient;
mod rng;
mod scores;
pub(crate) mod systematic;
mod uniform;
mod weighted;

use std::fmt::Debug;

use crate::LisaError;
pub use bernoulli::Bernoulli;
pub use budget::Budget;
pub use config::{Custom, PolicyConfig};
pub use cyclic::{Cyclic, CyclicOrder};
pub use fixed::Fixed;
pub use gradient::Gradient;
pub use rng::DrawRng;
pub use scores::{Observation, Score, Scores, Statistic};
pub use uniform::Uniform;
pub use weighted::Weighted;

/// Everything a draw may depend on.
///
/// # Example
///
/// ```
/// use lisa::policy::{Bernoulli, Draw, SamplingPolicy, Uniform};
///
/// let draw = Draw::new(42, 0, 16, 2);
/// assert_eq!(Uniform.draw(&draw), Uniform.draw(&draw));
/// // Where nothing outside the layers trains, a period without a layer would train nothing.
/// let p = vec![1e-9; 16];
/// assert!(Bernoulli::new(p.clone()).draw(&draw).is_empty());
/// let layers_alone = draw.with_allow_empty(false);
/// assert!(!Bernoulli::new(p).draw(&layers_alone).is_empty());
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The period that is drawn: 0 before the first step, then one more each sampling period.
    pub period: u64,
    /// How many layers there are. With [`LisaConfig::split`](crate::LisaConfig::split) their parts
    /// count each by itself, here and wherever a policy says layer.
    pub layers: usize,
    /// How many of them the run wants active (gamma).
    pub active_layers: usize,
    /// Whether an empty draw can train anything: true where there are always-on parameters.
    pub allow_empty: bool,
    /// What is known of each layer.
    pub scores: Scores,
}

impl Draw {
    /// The draw of `active_layers` out of `layers` for this period, an empty one allowed. Nothing
    /// was observed of the layers, and they are of one size.
    #[must_use]
    pub fn new(seed: u64, period: u64, layers: usize, active_layers: usize) -> Self {
        Self {
            seed,
            period,
            layers,
            active_layers,
            allow_empty: true,
            scores: Scores::new(vec![1; layers]),
        }
    }

    /// Says what is known of the layers.
    #[must_use]
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = scores;
        self
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
/// All methods must depend on the [`Draw`] alone: no clock, no counter, no other source of random
/// numbers. That is what lets a run resume and several workers agree.
///
/// # Example: a policy of your own
///
/// ```
/// use lisa::policy::{Draw, SamplingPolicy};
/// use lisa::LisaError;
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
/// Use it by [`PolicyConfig::custom`].
pub trait SamplingPolicy: Debug + Send + Sync + 'static {
    /// A name that tells this policy, with its parameters, from any other. A record is refused by
    /// a run whose policy has another name.
    fn name(&self) -> String;

    /// The layers of a period, counted from 0, in any order, each once.
    ///
    /// A layer that does not exist, and an empty draw that is not [allowed](Draw::allow_empty), are
    /// errors of the step that asks for the draw.
    fn draw(&self, draw: &Draw) -> Vec<usize>;

    /// What the policy wants to know of the gradients: it then finds their average in
    /// [`Draw::scores`]. By default nothing, and nothing is computed.
    ///
    /// Cost of an observation: a sum of squares of each gradient in a layer, on the device, and one
    /// wait for the device in a period, at the draw.
    fn observes(&self) -> Option<Observation> {
        None
    }

    /// The probability with which each layer is in this draw, given everything but the random
    /// numbers; none where the policy cannot say, or where earlier draws have used them up.
    ///
    /// The [unbiased](crate::LisaConfig::unbiased) option divides gradients by it.
    fn inclusion(&self, draw: &Draw) -> Option<Vec<f64>> {
        let _ = draw;
        None
    }

    /// Refuses, before the run, what the policy cannot draw. `draw` is that of the first period.
    ///
    /// # Errors
    ///
    /// What the policy says; by default none.
    fn validate(&self, draw: &Draw) -> Result<(), LisaError> {
        let _ = draw;
        Ok(())
    }
}
