//! [`Scores`]: what a draw may know of each layer beside its number. Tests: at the foot.

/// What is known of one layer.
///
/// # Example
///
/// ```
/// use lisa::policy::{Score, Scores};
///
/// let mut scores = Scores::new([100, 100, 300]);
/// scores.close(0, &[2]);
/// scores.observe(2, 0.5, 0.9);
/// scores.close(1, &[0]);
/// let third = Score { score: Some(0.5), last_drawn: Some(0), parameters: 300 };
/// assert_eq!(scores.get(2), third);
/// // For a policy of one's own: the layer that has waited the longest.
/// let waiting = scores.iter().enumerate().min_by_key(|(_, layer)| layer.last_drawn);
/// assert_eq!(waiting.map(|(layer, _)| layer), Some(1));
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Score {
    /// The moving average of what the policy [observes](super::SamplingPolicy::observes) of its
    /// gradients; none before it was first observed.
    pub score: Option<f32>,
    /// The last period that is over and in which it trained; none where there was none.
    pub last_drawn: Option<u64>,
    /// How many of its numbers may train.
    pub parameters: u64,
}

/// What is known of all layers at a draw, in the order of the stack.
///
/// A run changes it once a period, before the draw, and only for a policy that observes gradients;
/// for any other there are the numbers of parameters alone. State kept: three numbers a layer.
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
/// assert!(scores.get(0).score.is_none());
/// assert_eq!(scores.parameters(), 500);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scores(Vec<Score>);

impl Scores {
    /// Nothing observed yet of layers with these numbers of parameters.
    pub fn new(parameters: impl IntoIterator<Item = u64>) -> Self {
        let score = |parameters| Score {
            parameters,
            ..Score::default()
        };
        Self(parameters.into_iter().map(score).collect())
    }

    /// What is known of a layer; nothing of one that does not exist.
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

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The numbers that may train in all layers together.
    #[must_use]
    pub fn parameters(&self) -> u64 {
        self.0.iter().map(|layer| layer.parameters).sum()
    }

    /// Notes that a period in which these layers trained is over.
    pub fn close(&mut self, period: u64, layers: &[usize]) {
        for &layer in layers {
            if let Some(layer) = self.0.get_mut(layer) {
                layer.last_drawn = Some(period);
            }
        }
    }

    /// Takes what a period showed of a layer into its average: `decay * score + (1 - decay) *
    /// value`, and the value itself where there is no score yet.
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

    /// Scores divided by their mean, so that they have a scale of their own: 1 for a layer
    /// without a score, and for all where the mean is 0.
    pub(super) fn relative(&self) -> Vec<f64> {
        let scores = || self.0.iter().filter_map(|layer| layer.score.map(f64::from));
        let mean = scores().sum::<f64>() / scores().count().max(1) as f64;
        let of = |layer: &Score| match layer.score {
            Some(score) if mean > 0.0 && mean.is_finite() => f64::from(score) / mean,
            _ => 1.0,
        };
        self.0.iter().map(of).collect()
    }

    /// The layers that never trained in a period that is over.
    pub(super) fn never_drawn(&self) -> Vec<usize> {
        let layers = self.0.iter().enumerate();
        layers
            .filter(|(_, layer)| layer.last_drawn.is_none())
            .map(|(layer, _)| layer)
            .collect()
    }
}

/// Which number a layer's gradient g of n parameters gives in a step.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::{GradientsParams, SgdConfig};
/// # use burn::tensor::Device;
/// # use lisa::policy::{Draw, Observation, SamplingPolicy, Statistic};
/// # use lisa::{LisaConfig, LisaError};
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # fn score_after_a_step(policy: All) -> Result<Option<f32>, LisaError> {
/// #     let device = Device::flex().autodiff();
/// #     let linear = || LinearConfig::new(2, 2).with_bias(false).init(&device);
/// #     let model = Model { layers: vec![linear(), linear()] };
/// #     let config = LisaConfig::new().with_sampling_period(1);
/// #     let (mut lisa, model) = config.clone().with_policy(PolicyConfig::custom(policy)).init(SgdConfig::new(), model)?;
/// #     let loss = model.layers[0].weight.val().sum() * 3.0;
/// #     let grads = GradientsParams::from_grads(loss.backward(), &model);
/// #     let _model = lisa.step(1e-3, model, grads);
/// #     Ok(lisa.scores().get(0).score)
/// # }
/// #[derive(Debug)]
/// struct All(Statistic);
///
/// impl SamplingPolicy for All {
/// #   fn name(&self) -> String { "all".into() }
/// #   fn draw(&self, draw: &Draw) -> Vec<usize> { (0..draw.layers).collect() }
///     fn observes(&self) -> Option<Observation> {
///         Some(Observation { statistic: self.0, decay: 0.5 })
///     }
/// }
/// // One step, with a gradient of 3 for each number of the first layer.
/// assert_eq!(score_after_a_step(All(Statistic::RootMeanSquare))?, Some(3.0));
/// assert_eq!(score_after_a_step(All(Statistic::MeanSquare))?, Some(9.0));
/// # Ok::<(), LisaError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// sqrt(|g|^2 / n).
    RootMeanSquare,
    /// |g|^2 / n.
    MeanSquare,
}

/// What a policy wants to know of the gradients.
///
/// Its statistic is taken in each step in which a layer trains, averaged over the period, and
/// then over the periods in which the layer trained, as a moving average.
///
/// # Example
///
/// ```
/// # use burn::module::Module;
/// # use burn::nn::{Linear, LinearConfig};
/// # use burn::optim::{GradientsParams, SgdConfig};
/// # use burn::tensor::Device;
/// # use lisa::policy::{Draw, Observation, SamplingPolicy, Statistic};
/// # use lisa::LisaConfig;
/// # #[derive(Module, Debug)]
/// # struct Model { layers: Vec<Linear> }
/// # #[derive(Debug)]
/// # struct First;
/// impl SamplingPolicy for First {
/// #   fn name(&self) -> String { "first".into() }
/// #   fn draw(&self, _: &Draw) -> Vec<usize> { vec![0] }
///     fn observes(&self) -> Option<Observation> {
///         Some(Observation { statistic: Statistic::RootMeanSquare, decay: 0.75 })
///     }
/// }
/// # let device = Device::flex().autodiff();
/// # let linear = || LinearConfig::new(2, 2).with_bias(false).init(&device);
/// # let mut model = Model { layers: vec![linear(), linear()] };
/// # let config = LisaConfig::new().with_sampling_period(2);
/// # let (mut lisa, start) = config.clone().with_policy(PolicyConfig::custom(First)).init(SgdConfig::new(), model)?;
/// # model = start;
/// // Two periods of two steps; the size of the gradient in each.
/// for size in [1.0, 3.0, 6.0, 6.0] {
/// #   let loss = model.layers[0].weight.val().sum() * size;
/// #   let grads = GradientsParams::from_grads(loss.backward(), &model);
///     model = lisa.step(1e-3, model, grads);
/// }
/// assert_eq!(lisa.scores().get(0).score, Some(0.75 * 2.0 + 0.25 * 6.0));
/// assert_eq!(lisa.scores().get(1).score, None);
/// # Ok::<(), lisa::LisaError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Observation {
    /// What is taken of a step.
    pub statistic: Statistic,
    /// How much of the average a new period leaves, in [0, 1).
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
