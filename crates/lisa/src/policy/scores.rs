//! [`Scores`]: what a policy may know of each layer.

/// What a policy may know of one layer.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// The moving average of the gradient statistic that the policy
    /// [observes](super::SamplingPolicy::observes); none before the first observation.
    pub score: Option<f32>,
    /// The last complete period in which the layer was active; `None` if it was never active.
    pub last_drawn: Option<u64>,
    /// How many elements of the layer may train.
    pub parameters: u64,
}

/// What is known of all layers when layers are sampled, in the order of the stack.
///
/// If the policy observes gradients, a run updates the scores at the end of each period, before it
/// samples. For any other policy, only the sizes of the layers are known.
///
/// # Example
///
/// ```
/// use lisa::policy::Scores;
///
/// let mut scores = Scores::new([100, 100, 300]);
/// scores.close(0, &[1]);
/// scores.observe(1, 0.5, 0.9);
/// scores.observe(1, 1.0, 0.9);
/// assert_eq!(scores.get(1).last_drawn, Some(0));
/// assert!((scores.get(1).score.unwrap() - 0.55).abs() < 1e-6);
/// // For a policy of your own: a layer that was never active, or the longest ago.
/// let oldest = scores.iter().enumerate().min_by_key(|(_, layer)| layer.last_drawn);
/// assert_eq!(oldest.map(|(layer, _)| layer), Some(0));
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(Vec<Score>);

impl Scores {
    /// Layers of these sizes, without scores.
    pub fn new(parameters: impl IntoIterator<Item = u64>) -> Self {
        let score = |parameters| Score {
            parameters,
            ..Score::default()
        };
        Self(parameters.into_iter().map(score).collect())
    }

    /// What is known of a layer. For a layer that does not exist, it is the default value.
    #[must_use]
    pub fn get(&self, layer: usize) -> Score {
        self.0.get(layer).copied().unwrap_or_default()
    }

    /// All layers, in order.
    #[must_use]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Score> + '_ {
        self.0.iter().copied()
    }

    /// How many layers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no layers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The elements that may train in all layers together.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.0.iter().map(|layer| layer.parameters).sum()
    }

    /// Ends a period in which these layers were active.
    pub fn close(&mut self, period: u64, layers: &[usize]) {
        for &layer in layers {
            if let Some(layer) = self.0.get_mut(layer) {
                layer.last_drawn = Some(period);
            }
        }
    }

    /// Updates the average of a layer with the value of a period:
    /// `decay * score + (1 - decay) * value`, or the value itself if there is no score yet.
    pub fn observe(&mut self, layer: usize, value: f32, decay: f64) {
        if let Some(layer) = self.0.get_mut(layer) {
            layer.score = Some(match layer.score {
                Some(score) => (decay * f64::from(score) + (1.0 - decay) * f64::from(value)) as f32,
                None => value,
            });
        }
    }

    pub(crate) fn set(&mut self, layer: usize, score: Option<f32>, last_drawn: Option<u64>) {
        if let Some(layer) = self.0.get_mut(layer) {
            (layer.score, layer.last_drawn) = (score, last_drawn);
        }
    }

    /// The scores divided by their mean. They are 1 for a layer without a score, and for all layers
    /// if the mean is 0.
    pub(super) fn relative(&self) -> Vec<f64> {
        let scores = || self.0.iter().filter_map(|layer| layer.score.map(f64::from));
        let mean = scores().sum::<f64>() / scores().count().max(1) as f64;
        let of = |layer: &Score| match layer.score {
            Some(score) if mean > 0.0 && mean.is_finite() => f64::from(score) / mean,
            _ => 1.0,
        };
        self.0.iter().map(of).collect()
    }

    /// The layers that can train and were not active in any complete period.
    pub(super) fn never_drawn(&self) -> Vec<usize> {
        let layers = self.0.iter().enumerate();
        layers
            .filter(|(_, layer)| layer.parameters > 0 && layer.last_drawn.is_none())
            .map(|(layer, _)| layer)
            .collect()
    }
}

/// What is computed in each step from the gradient g, of n elements, of an active layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Statistic {
    /// sqrt(|g|^2 / n).
    RootMeanSquare,
    /// |g|^2 / n.
    MeanSquare,
}

/// The statistic of the gradients that a policy needs.
///
/// The statistic is averaged over the steps of a period, and then, as a moving average, over the
/// periods in which the layer was active.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// What is computed in each step.
    pub statistic: Statistic,
    /// The decay of the moving average from one period to the next, in [0, 1).
    pub decay: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_relative_to_their_mean_and_unknown_ones_count_as_it() {
        let mut scores = Scores::new([1; 3]);
        assert_eq!(scores.relative(), [1.0; 3]);
        scores.observe(0, 1.0, 0.5);
        scores.observe(1, 3.0, 0.5);
        assert_eq!(scores.relative(), [0.5, 1.5, 1.0]);
        assert_eq!(scores.never_drawn(), [0, 1, 2]);
        scores.close(4, &[0, 2, 9]);
        assert_eq!(scores.never_drawn(), [1]);
        let mut still = Scores::new([1, 1]);
        still.observe(0, 0.0, 0.5);
        assert_eq!(still.relative(), [1.0, 1.0]);
    }
}
