//! [`Draw`]: what a policy is asked.

use super::rng::DrawRng;
use super::scores::Scores;

/// Everything that a draw may depend on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The period that is sampled, counted from 0.
    pub period: u64,
    /// How many layers there are, after [`LisaConfig::split`](crate::LisaConfig::split).
    pub layers: usize,
    /// How many of them the run asks for (gamma).
    pub active_layers: usize,
    /// Whether a draw may be empty: true where parameters outside the layers train.
    pub allow_empty: bool,
    /// What is known of each layer.
    pub scores: Scores,
}

impl Draw {
    /// The draw of `active_layers` out of `layers` layers in this period. It may be empty, nothing was
    /// observed of the layers, and they have the same size.
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

    /// Sets what is known of the layers.
    #[must_use]
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = scores;
        self
    }

    /// Sets whether the draw may be empty.
    #[must_use]
    pub fn with_allow_empty(mut self, allow_empty: bool) -> Self {
        self.allow_empty = allow_empty;
        self
    }

    /// Random numbers for this draw: the same on every platform for the same seed and period.
    #[must_use]
    pub fn rng(&self) -> DrawRng {
        DrawRng::new(self.seed, self.period)
    }
}
