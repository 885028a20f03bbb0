//! [`Draw`]: the input of a policy.

use super::rng::DrawRng;
use super::scores::Scores;

/// Everything that the sampled layers of a period may depend on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Draw {
    /// The run's seed.
    pub seed: u64,
    /// The period that is sampled, counted from 0.
    pub period: u64,
    /// How many layers there are, after [`LisaConfig::split`](crate::LisaConfig::split).
    pub layers: usize,
    /// How many of them the policy should return: gamma, or the number of layers that can train if
    /// that is less.
    pub active_layers: usize,
    /// Whether the policy may return no layer: true if parameters outside the layers train in this
    /// period.
    pub allow_empty: bool,
    /// The scores and the sizes of the layers.
    pub scores: Scores,
}

impl Draw {
    /// The input for sampling `active_layers` of `layers` layers in this period. The sample may be
    /// empty, the layers have no scores, and all layers have the same size.
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

    /// Sets the scores and the sizes of the layers.
    #[must_use]
    pub fn with_scores(mut self, scores: Scores) -> Self {
        self.scores = scores;
        self
    }

    /// Sets whether the policy may return no layer.
    #[must_use]
    pub fn with_allow_empty(mut self, allow_empty: bool) -> Self {
        self.allow_empty = allow_empty;
        self
    }

    /// Whether a layer has parameters that may train. A layer that is frozen as a whole has none, and
    /// sampling it trains nothing.
    #[must_use]
    pub fn can_train(&self, layer: usize) -> bool {
        layer < self.layers && (layer >= self.scores.len() || self.scores.get(layer).parameters > 0)
    }

    /// The layers that have parameters that may train, ascending. The policies of this module sample
    /// from these.
    #[must_use]
    pub fn trainable_layers(&self) -> Vec<usize> {
        (0..self.layers)
            .filter(|&layer| self.can_train(layer))
            .collect()
    }

    /// Random numbers for this period: the same on every platform for the same seed and period.
    #[must_use]
    pub fn rng(&self) -> DrawRng {
        DrawRng::new(self.seed, self.period)
    }
}
